"""Does a workload of "multiproc scale" by the means of Python's standard library.

usage: peer.py [KIND WORKLOAD SIZE WORKERS DIR]

Prints what the run cost as one JSON object; without arguments, the version of Python. The clock runs from before the first thread or process
is started until after the last one has been joined.
"""

import fcntl
import itertools
import json
import multiprocessing
import multiprocessing.connection
import os
import platform
import queue
import random
import resource
import select
import signal
import sys
import threading
import time

LINES_PER_FILE = 1000
LIFE = 3  # a pipe that ends when the program that started this one does


def list_append(task):
    _, count, _ = task
    numbers = []
    for _ in range(count):
        numbers.append(random.random())


def write_file(task):
    index, _, folder = task
    name = os.path.join(folder, f"file-{index}")
    with open(name, "w", encoding="utf-8") as f:
        for i in range(LINES_PER_FILE):
            f.write(f"line {i}\n")
    os.remove(name)


def sleep(_):
    time.sleep(0.010)


WORK = {"list-append": list_append, "files": write_file, "sleep": sleep}


def perform(name, task):
    """Does a task; returns how much it was, the process, and its peak memory until then."""
    WORK[name](task)
    return task[1], os.getpid(), peak_now()


def python(name, tasks, _):
    return [perform(name, task) for task in tasks]


def python_threads(name, tasks, workers):
    left, done = queue.SimpleQueue(), []
    for task in tasks:
        left.put(task)

    def work():
        while True:
            try:
                task = left.get_nowait()
            except queue.Empty:
                return
            done.append(perform(name, task))

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return done


def report(name, task, to):
    to.send(perform(name, task))


def python_process(name, tasks, workers):
    """A process for each task, as many at a time as there are workers."""
    left, running, done = iter(tasks), {}, []

    def start():
        for task in itertools.islice(left, 1):
            ours, theirs = multiprocessing.Pipe(duplex=False)
            p = multiprocessing.Process(target=report, args=(name, task, theirs))
            p.start()
            theirs.close()
            running[ours] = p

    for _ in range(workers):
        start()
    while running:
        for ours in multiprocessing.connection.wait(list(running)):
            p = running.pop(ours)
            done.append(ours.recv())
            ours.close()
            p.join()
            start()
    return done


def python_pool(name, tasks, workers):
    pool = multiprocessing.Pool(workers)
    done = pool.starmap(perform, [(name, task) for task in tasks])
    pool.close()
    pool.join()
    return done


KINDS = {
    "python": python,
    "python threads": python_threads,
    "python process": python_process,
    "python pool": python_pool,
}


def divide(total, n):
    return [total // n + (i < total % n) for i in range(n)]


def cpu_time():
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + children.ru_utime, own.ru_stime + children.ru_stime


def peak_now():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_exact():
    """The peak of this process alone: ru_maxrss has that of the process that started it."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return peak_now()


def peak_memory(workers, outcomes):
    peaks = {}
    for _, pid, peak in outcomes:
        if pid != os.getpid():
            peaks[pid] = max(peak, peaks.get(pid, 0))
    return peak_exact() + sum(sorted(peaks.values(), reverse=True)[:workers])


def die_with_parent():
    """Has the kernel kill this process and its children when LIFE ends, where it can."""
    if not hasattr(fcntl, "F_SETSIG"):
        return
    fcntl.fcntl(LIFE, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(LIFE, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(LIFE, fcntl.F_SETFL, os.O_ASYNC)
    poll = select.poll()
    poll.register(LIFE, 0)
    if poll.poll(0):  # it has ended already
        os.killpg(0, signal.SIGKILL)


def main():
    if len(sys.argv) == 1:
        print(platform.python_version())
        return
    kind, name, size, workers, folder = sys.argv[1:]
    size, workers = int(size), int(workers)
    parts = divide(size, workers if name == "list-append" else size)
    tasks = [(i, count, folder) for i, count in enumerate(parts)]
    user, system = cpu_time()
    began = time.perf_counter()
    outcomes = KINDS[kind](name, tasks, workers)
    real = time.perf_counter() - began
    user_after, system_after = cpu_time()
    json.dump(
        {
            "real_seconds": real,
            "user_seconds": user_after - user,
            "sys_seconds": system_after - system,
            "peak_memory_bytes": peak_memory(workers, outcomes),
            "done": sum(count for count, _, _ in outcomes),
        },
        sys.stdout,
    )


if __name__ == "__main__":
    die_with_parent()
    main()
