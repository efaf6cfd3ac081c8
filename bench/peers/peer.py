"""Does the jobs of the benchmark by the means of Python: its standard library, mpire, loky, pebble and ray.

usage: peer.py versions
       peer.py JOB N [ARGUMENT]

Prints one JSON object of figures: times in seconds, memory in bytes, rates a second. Everything is warmed up before the clock runs, but for
jobs that are about the start.
"""

import array
import concurrent.futures
import contextlib
import fcntl
import importlib.metadata
import json
import multiprocessing
import multiprocessing.connection
import multiprocessing.pool
import os
import platform
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

WORKERS = 2
LIFE = 3  # a pipe that ends when the program that started this one does
PATIENCE = 20  # seconds that a job may take which may hang
CALLS_TIME = 8  # seconds that a job of single calls may take: see the Go side


# What runs in the workers.


def square(x):
    return x * x


def square_and_pid(_):
    time.sleep(0.001)
    return os.getpid()


def echo(x):
    return x


def length(x):
    return len(x)


def say(connection):
    connection.send_bytes(b"x")


def write_file(name):
    with open(name, "w", encoding="utf-8") as f:
        f.write("line 0\n")


def append_numbers(n):
    import random

    numbers = []
    for _ in range(n):
        numbers.append(random.random())
    return len(numbers)


def square_or_die(x):
    if x < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return x * x


# How things are timed.


def check(ok, what):
    if not ok:
        raise SystemExit(what)


def rate(n, job):
    """Calls a second of a job of n calls, which returns its results."""
    job(min(n, 1000))
    began = time.perf_counter()
    out = job(n)
    took = time.perf_counter() - began
    check(len(out) == n and out[n // 2] in (square(n // 2), None), "wrong results")
    return {"rate": n / took}


def percentiles(took):
    took = sorted(took)
    return {"p50": took[len(took) // 2], "p99": took[int(len(took) * 0.99)]}


def latencies(n, gap, call):
    """Calls one after the other, gap microseconds apart."""
    warm = n // 10 + 1
    took = []
    end = time.perf_counter() + CALLS_TIME
    for i in range(warm + n):
        if gap:
            time.sleep(gap / 1e6)
        began = time.perf_counter()
        out = call(i)
        now = time.perf_counter()
        check(out == i * i, "wrong result")
        if i >= warm:
            took.append(now - began)
        if now > end and took:
            break
    return percentiles(took)


def seconds(times, prepare, job):
    took = []
    for i in range(1 + times):
        prepare()
        began = time.perf_counter()
        job()
        if i:
            took.append(time.perf_counter() - began)
    return {"seconds": statistics.median(took)}


def nothing():
    pass


# Map.


def map_pool(n):
    with multiprocessing.Pool(WORKERS) as pool:
        return rate(n, lambda n: pool.map(square, range(n)))


def map_pool_1(n):
    with multiprocessing.Pool(WORKERS) as pool:
        return rate(n, lambda n: pool.map(square, range(n), chunksize=1))


def map_executor(n):
    with concurrent.futures.ProcessPoolExecutor(WORKERS) as pool:
        return rate(n, lambda n: list(pool.map(square, range(n), chunksize=100)))


def map_mpire(n):
    import mpire

    with mpire.WorkerPool(WORKERS, keep_alive=True) as pool:
        return rate(n, lambda n: pool.map(square, range(n)))


def map_loky(n):
    import loky

    pool = loky.get_reusable_executor(WORKERS, timeout=60)
    try:
        return rate(n, lambda n: list(pool.map(square, range(n), chunksize=100)))
    finally:
        pool.shutdown()


def map_pebble(n):
    import pebble

    with pebble.ProcessPool(WORKERS) as pool:
        return rate(n, lambda n: list(pool.map(square, range(n), chunksize=1000).result()))


def stream_imap(n, chunksize):
    with multiprocessing.Pool(WORKERS) as pool:
        return rate(n, lambda n: list(pool.imap(square, range(n), chunksize=int(chunksize))))


def stream_imap_unordered(n, chunksize):
    def job(n):
        total = count = 0
        for x in pool.imap_unordered(square, range(n), chunksize=int(chunksize)):
            total += x
            count += 1
        check(total == sum(i * i for i in (range(n) if n <= 1000 else ())) or n > 1000, "wrong results")
        return [None] * count

    with multiprocessing.Pool(WORKERS) as pool:
        return rate(n, job)


# One call at a time.


def latency_pool(n, gap):
    with multiprocessing.Pool(1) as pool:
        return latencies(n, int(gap), lambda i: pool.apply(square, (i,)))


def latency_executor(n, gap):
    with concurrent.futures.ProcessPoolExecutor(1) as pool:
        return latencies(n, int(gap), lambda i: pool.submit(square, i).result())


def latency_mpire(n, gap):
    import mpire

    with mpire.WorkerPool(1, keep_alive=True) as pool:
        return latencies(n, int(gap), lambda i: pool.apply(square, (i,)))


def latency_loky(n, gap):
    import loky

    pool = loky.get_reusable_executor(1, timeout=60)
    try:
        return latencies(n, int(gap), lambda i: pool.submit(square, i).result())
    finally:
        pool.shutdown()


def latency_pebble(n, gap):
    import pebble

    with pebble.ProcessPool(1) as pool:
        return latencies(n, int(gap), lambda i: pool.schedule(square, args=(i,)).result())


# Payloads.


def payload_pool(size, kind):
    data = bytes(size) if kind == "bytes" else array.array("d", bytes(size))
    with multiprocessing.Pool(1) as pool:
        return seconds(3, nothing, lambda: check(len(pool.apply(echo, (data,))) == len(data), "wrong size"))


def payload_executor(size):
    data = bytes(size)
    with concurrent.futures.ProcessPoolExecutor(1) as pool:
        return seconds(3, nothing, lambda: check(len(pool.submit(echo, data).result()) == len(data), "wrong size"))


# Ray, on this machine alone.


@contextlib.contextmanager
def ray_of(cpus):
    import ray

    ray.init(num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield ray
    finally:
        ray.shutdown()


def latency_ray(n):
    with ray_of(WORKERS) as ray:
        f = ray.remote(square)
        return latencies(n, 0, lambda i: ray.get(f.remote(i)))


def map_ray(n):
    with ray_of(WORKERS) as ray:
        f = ray.remote(square)
        return rate(n, lambda n: ray.get([f.remote(x) for x in range(n)]))


def payload_ray(size, ways):
    with ray_of(WORKERS) as ray:
        f = ray.remote(length if ways == "1" else echo)
        data = os.urandom(size)
        took = seconds(3, nothing, lambda: ray.get(f.remote(ray.put(data))))["seconds"]
        return {"rate": int(ways) * size / took}


# Starts.


def start(n, method):
    context = multiprocessing.get_context(method)
    took = []
    for i in range(-1, n):  # the first starts the fork server, or the resource tracker
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=say, args=(theirs,))
        began = time.perf_counter()
        process.start()
        theirs.close()
        ours.recv_bytes()
        if i >= 0:
            took.append(time.perf_counter() - began)
        process.join()
        ours.close()
    return percentiles(took)


def start_many(n, method):
    began = time.perf_counter()
    with multiprocessing.get_context(method).Pool(n) as pool:
        pool.apply(square, (2,))
        return {"seconds": time.perf_counter() - began}


# Files.

FILES = 8


def files(times, job):
    with tempfile.TemporaryDirectory() as folder:
        names = [os.path.join(folder, str(i)) for i in range(FILES)]

        def clear():
            for name in os.listdir(folder):
                os.remove(os.path.join(folder, name))

        result = seconds(times, clear, lambda: job(names))
        check(len(os.listdir(folder)) == FILES, "a file was not written")
        return result


def files_process(times):
    def job(names):
        processes = [multiprocessing.Process(target=write_file, args=(name,)) for name in names]
        for p in processes:
            p.start()
        for p in processes:
            p.join()

    return files(times, job)


def files_pool(times):
    def job(names):
        with multiprocessing.Pool(WORKERS) as pool:
            pool.map(write_file, names)

    return files(times, job)


def files_warm_pool(times):
    with multiprocessing.Pool(WORKERS) as pool:
        return files(times, lambda names: pool.map(write_file, names))


# Waiting for a server.


def fetch(port):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        text = b""
        while more := connection.recv(100):
            text += more
    check(text == b"a text\n", "the server said something else")


def waits(times, texts, wait, program, job):
    with subprocess.Popen([program, "serve", wait], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        ports = [int(server.stdout.readline())] * int(texts)
        return seconds(times, lambda: None, lambda: job(ports))


def waits_process(times, texts, wait, program):
    def job(ports):
        processes = [multiprocessing.Process(target=fetch, args=(port,)) for port in ports]
        for p in processes:
            p.start()
        for p in processes:
            p.join()
        check(all(p.exitcode == 0 for p in processes), "a text was not fetched")

    return waits(times, texts, wait, program, job)


def waits_pool(times, texts, wait, program):
    with multiprocessing.Pool(WORKERS) as pool:
        return waits(times, texts, wait, program, lambda ports: pool.map(fetch, ports))


def waits_threads(times, texts, wait, program):
    with multiprocessing.pool.ThreadPool(16 * WORKERS) as pool:
        return waits(times, texts, wait, program, lambda ports: pool.map(fetch, ports, chunksize=1))


# Memory.


def memory_of(name, prefix):
    with open(name, encoding="ascii") as lines:
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(prefix))


def memory(n, method):
    with multiprocessing.get_context(method).Pool(n) as pool:
        pids = set(pool.map(square_and_pid, range(50), chunksize=1))
        time.sleep(0.2)
        return {"bytes": statistics.mean(memory_of(f"/proc/{pid}/smaps_rollup", "Private_") for pid in pids)}


def stream_memory(n, chunksize, rest):
    breaks, tenth, most, end = 100, 0, 0, 0
    began = time.perf_counter()
    with multiprocessing.Pool(WORKERS) as pool:
        for i, x in enumerate(pool.imap(square, range(n), chunksize=int(chunksize)), 1):
            check(x == square(i - 1), "wrong result")
            if i % (n // breaks):
                continue
            time.sleep(int(rest) / 1000)
            end = memory_of("/proc/self/status", "VmRSS")
            if i >= n // 10:
                tenth = tenth or end
                most = max(most, end)
    return {"growth": most - tenth, "tenth": tenth, "end": end, "seconds": time.perf_counter() - began}


# The rest.


def list_pool(n):
    with multiprocessing.Pool(WORKERS) as pool:
        return seconds(1, nothing, lambda: pool.map(append_numbers, [n] * WORKERS, chunksize=1))


def give_up(*_):
    print(f"not done within {PATIENCE} s", file=sys.stderr, flush=True)
    os._exit(1)  # leaving the pool in an orderly way might hang as well


def crash_pebble(n):
    import pebble

    signal.signal(signal.SIGALRM, give_up)  # it has been seen to hang
    signal.alarm(PATIENCE)
    xs = [-1 if i % 100 == 50 else i for i in range(n)]
    crashed = done = 0
    with pebble.ProcessPool(WORKERS) as pool:
        list(pool.map(square, range(1000)).result())
        began = time.perf_counter()
        results = pool.map(square_or_die, xs, chunksize=1).result()
        while True:
            try:
                next(results)
                done += 1
            except StopIteration:
                break
            except pebble.ProcessExpired:
                crashed += 1
        took = time.perf_counter() - began
    check(crashed == xs.count(-1) and done == n - crashed, "wrong results")
    return {"rate": n / took, "replacements": crashed / took}


def versions():
    build = platform.python_compiler()
    found = {"CPython": f"{platform.python_version()}, built by {build}, {multiprocessing.get_start_method()} by default"}
    for package in ("mpire", "loky", "pebble", "ray"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def die_with_parent():
    """Has the kernel kill this process and its children when LIFE ends, where it can."""
    if not hasattr(fcntl, "F_SETSIG"):
        return
    try:
        fcntl.fcntl(LIFE, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(LIFE, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(LIFE, fcntl.F_SETFL, os.O_ASYNC)
        poll = select.poll()
        poll.register(LIFE, 0)
        ended = bool(poll.poll(0))
    except OSError:
        return  # started by hand
    if ended:
        os.killpg(0, signal.SIGKILL)


JOBS = {name: job for name, job in globals().items() if name.startswith(("map_", "stream_", "latency_", "payload_", "start", "files_", "waits_", "memory", "list_", "crash_"))}


def main():
    if sys.argv[1:] == ["versions"]:
        result = versions()
    elif len(sys.argv) > 2 and sys.argv[1] in JOBS:
        result = JOBS[sys.argv[1]](int(sys.argv[2]), *sys.argv[3:])
    else:
        raise SystemExit(f"{__doc__}\njobs: {', '.join(sorted(JOBS))}")
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    die_with_parent()
    main()
