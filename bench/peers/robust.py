"""Shows what Python's means of running functions in processes do when things go wrong: multiprocessing.Pool and
concurrent.futures.ProcessPoolExecutor of its standard library, and mpire, loky and pebble where they are installed.

usage: robust.py [--table] [--cases NAME,…] [--libraries NAME,…]

Each case runs in a program of its own, which is killed when it has not ended after LIMIT seconds: a hang is a result. Prints a line
of JSON for each case and library, or with --table a table in Markdown:

    lost       calls that did nothing wrong and whose results did not come, of so many
    hang       the program did not come to its end
    leftovers  processes that are left GONE seconds after the end of the program, or after it was killed because it hung
    seconds    from its start to its end

Whatever is left is killed. It needs Linux, as it finds processes by their environment in /proc.
"""

import argparse
import concurrent.futures
import glob
import importlib
import importlib.metadata
import json
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from functools import partial

WORKERS = 2
CALLS = 100  # of a map
CULPRIT = 50  # the call that does it
PATIENCE = 1  # seconds that a call may take, where a limit can be set
LIMIT = 10  # seconds that the program of a case may take
GONE = 3  # seconds after its end after which no process of it should be left
AT_ONCE = 3  # programs: those that hang do nothing else

MARK = "MULTIPROC_ROBUST"  # in the environment of all processes of a program
COUNT = "MULTIPROC_ROBUST_COUNT"  # path of a file that has a byte for each try of the initializer


# What runs in the workers.


class TwoWords(Exception):
    """Pickle calls its class with one argument, the message."""

    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


def misbehave(how):
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "exit":
        os._exit(3)
    elif how == "sys.exit":
        sys.exit(1)
    elif how == "exception":
        raise TwoWords("does not", "unpickle")
    elif how == "hang":
        time.sleep(120)
    elif how == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)


def work(how, x):
    if x == CULPRIT:
        misbehave(how)
    time.sleep(0.001)
    return x * x


killed = partial(work, "killed")
exits = partial(work, "exit")
exits_politely = partial(work, "sys.exit")
raises = partial(work, "exception")
hangs = partial(work, "hang")
stops = partial(work, "stopped")
square = partial(work, "")


def who(_):
    time.sleep(0.05)
    return os.getpid()


def busy(_):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        pass


def failing_initializer():
    with open(os.environ[COUNT], "ab", buffering=0) as f:
        f.write(b".")
    raise RuntimeError("the initializer fails")


def take_and_die(lock):
    lock.acquire()
    os.kill(os.getpid(), signal.SIGKILL)


def take(lock):
    with lock:
        pass


# What a call may fail with; some bring SystemExit back from the worker, which would end the program.
ERRORS = (Exception, SystemExit)


# The libraries. Each is used in the way that its documentation shows: opened and left by "with". all_of yields, for each call that has
# ended, its number and its result or exception; the number is None if the exception is that of the map as a whole.


class Pool:
    about = "multiprocessing.Pool, map"

    def __init__(self, initializer=None):
        self.pool = multiprocessing.Pool(WORKERS, initializer)

    def __enter__(self):
        self.pool.__enter__()
        return self

    def __exit__(self, *args):
        return self.pool.__exit__(*args)

    def all_of(self, f, xs):
        try:
            yield from enumerate(self.pool.map(f, xs, chunksize=1))
        except ERRORS as e:
            yield None, e

    def all_in_time(self, f, xs):
        """Each call on its own, as a time limit is one of get and not of the call."""
        results = [self.pool.apply_async(f, (x,)) for x in xs]
        for i, result in enumerate(results):
            try:
                yield i, result.get(PATIENCE)
            except ERRORS as e:
                yield i, e

    def begin(self, f):
        for i in range(WORKERS):
            self.pool.apply_async(f, (i,))


class PoolUnordered(Pool):
    about = "multiprocessing.Pool, imap_unordered"

    def all_of(self, f, xs):
        results = self.pool.imap_unordered(f, xs, chunksize=1)
        while True:
            try:
                value = next(results)
                yield round(value**0.5), value  # all are squares here
            except StopIteration:
                return
            except ERRORS as e:
                yield None, e


class Executor:
    about = "concurrent.futures.ProcessPoolExecutor"

    def __init__(self, initializer=None):
        self.pool = concurrent.futures.ProcessPoolExecutor(WORKERS, initializer=initializer)

    def __enter__(self):
        self.pool.__enter__()
        return self

    def __exit__(self, *args):
        return self.pool.__exit__(*args)

    def all_of(self, f, xs, limit=None):
        futures = []
        for i, x in enumerate(xs):
            try:
                futures.append(self.pool.submit(f, x))
            except ERRORS as e:
                yield i, e
        for i, future in enumerate(futures):
            try:
                yield i, future.result(limit)
            except ERRORS as e:
                yield i, e

    def all_in_time(self, f, xs):
        yield from self.all_of(f, xs, PATIENCE)

    def begin(self, f):
        for i in range(WORKERS):
            self.pool.submit(f, i)


class Loky(Executor):
    about = "loky"

    def __init__(self, initializer=None):
        self.initializer = initializer
        self.get()

    def get(self):
        self.pool = importlib.import_module("loky").get_reusable_executor(WORKERS, timeout=60, initializer=self.initializer)

    def all_of(self, f, xs, limit=None):
        self.get()  # another one, if this is broken
        yield from super().all_of(f, xs, limit)


class Mpire:
    about = "mpire"

    def __init__(self, initializer=None):
        self.initializer = initializer
        self.pool = importlib.import_module("mpire").WorkerPool(WORKERS, keep_alive=True)

    def __enter__(self):
        self.pool.__enter__()
        return self

    def __exit__(self, *args):
        return self.pool.__exit__(*args)

    def all_of(self, f, xs, limit=None):
        try:
            yield from enumerate(self.pool.map(f, xs, chunk_size=1, worker_init=self.initializer, task_timeout=limit))
        except ERRORS as e:
            yield None, e

    def all_in_time(self, f, xs):
        yield from self.all_of(f, xs, PATIENCE)

    def begin(self, f):
        for i in range(WORKERS):
            self.pool.apply_async(f, (i,))


class Pebble:
    about = "pebble"

    def __init__(self, initializer=None):
        self.pool = importlib.import_module("pebble").ProcessPool(WORKERS, initializer=initializer)

    def __enter__(self):
        self.pool.__enter__()
        return self

    def __exit__(self, *args):
        return self.pool.__exit__(*args)

    def all_of(self, f, xs, limit=None):
        try:
            results = self.pool.map(f, xs, chunksize=1, timeout=limit).result()
        except ERRORS as e:
            yield None, e
            return
        i = 0
        while True:
            try:
                yield i, next(results)
            except StopIteration:
                return
            except ERRORS as e:
                yield i, e
            i += 1

    def all_in_time(self, f, xs):
        yield from self.all_of(f, xs, PATIENCE)

    def begin(self, f):
        for i in range(WORKERS):
            self.pool.schedule(f, args=(i,))


LIBRARIES = {"Pool": Pool, "Pool.imap_unordered": PoolUnordered, "ProcessPoolExecutor": Executor, "mpire": Mpire, "loky": Loky, "pebble": Pebble}


# The cases: what a program does that starts with a healthy pool. They tell what happens by lines of JSON on standard output.


def tell(**event):
    print(json.dumps(event), flush=True)


def words(e):
    """The type of an exception and one sentence of its text, which is at the end of a traceback."""
    lines = str(e).strip().splitlines() or [""]
    line = lines[-1] if "Traceback" in str(e) else lines[0]
    return f"{type(e).__name__}: {line.split('. ')[0].rstrip('.')}".removesuffix(": ")


def follow(results, xs):
    """Tells of all calls, and which of them have the right result."""
    for i, value in results:
        if isinstance(value, BaseException):
            tell(call=i, error=words(value))
        elif value == xs[i] ** 2:
            tell(call=i)
        else:
            tell(call=i, error="a wrong result")


def use(pool):
    """Tells whether a pool still works."""
    tell(phase="next")
    for _, value in pool.all_of(square, list(range(10))):
        if isinstance(value, BaseException):
            return tell(then=words(value))
    tell(then="works")


def in_map(library, f, limited=False):
    xs = list(range(CALLS))
    with library() as pool:
        follow(pool.all_of(square, xs[:10]), xs)  # it is warm
        tell(phase="map")
        follow((pool.all_in_time if limited else pool.all_of)(f, xs), xs)
        use(pool)
        tell(phase="leave")


def idle_killed(library):
    xs = list(range(CALLS))
    with library() as pool:
        pids = {pid for _, pid in pool.all_of(who, [0] * 8)}
        time.sleep(0.2)  # they wait for something to do
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        tell(phase="map")
        follow(pool.all_of(square, xs), xs)
        use(pool)
        tell(phase="leave")


def initializer(library):
    xs = list(range(10))
    tell(phase="map")
    with library(failing_initializer) as pool:
        follow(pool.all_of(square, xs), xs)
        tell(phase="leave")


def parent(library, state):
    with library() as pool:
        list(pool.all_of(who, [0] * 8))
        if state == "busy":
            pool.begin(busy)
        time.sleep(0.5)  # so that it is
        tell(ready=True)  # to be killed
        time.sleep(60)


def lock(_):
    lock = multiprocessing.Lock()
    first = multiprocessing.Process(target=take_and_die, args=(lock,))
    first.start()
    first.join()
    tell(phase="map")
    second = multiprocessing.Process(target=take, args=(lock,))
    second.start()
    second.join()
    tell(call=0)
    tell(phase="leave")


class Case:
    def __init__(self, about, run, innocent=(), only=None):
        self.about, self.run, self.innocent, self.only = about, run, set(innocent), only


OTHERS = set(range(CALLS)) - {CULPRIT}

CASES = {
    "killed": Case("worker is SIGKILLed in one of 100 calls", lambda lib: in_map(lib, killed), OTHERS),
    "exits": Case("os._exit in one of 100 calls", lambda lib: in_map(lib, exits), OTHERS),
    "exits politely": Case("sys.exit in one of 100 calls", lambda lib: in_map(lib, exits_politely), OTHERS),
    "exception": Case("exception that does not unpickle, in one of 100 calls", lambda lib: in_map(lib, raises), OTHERS),
    "hangs": Case("one of 100 calls hangs, limit of 1 s", lambda lib: in_map(lib, hangs, True), OTHERS),
    "stopped": Case("worker is SIGSTOPped in one of 100 calls, limit of 1 s", lambda lib: in_map(lib, stops, True), OTHERS),
    "idle": Case("all idle workers are SIGKILLed, then 100 calls", idle_killed, range(CALLS)),
    "initializer": Case("initializer fails, 10 calls", initializer),
    "parent busy": Case("parent is SIGKILLed, workers compute", lambda lib: parent(lib, "busy")),
    "parent idle": Case("parent is SIGKILLed, workers are idle", lambda lib: parent(lib, "idle")),
    "lock": Case("holder of a Lock is SIGKILLed, another waits for it", lock, [0], only="multiprocessing.Lock"),
}


# How they are run.


def processes(mark):
    """The processes with the mark that have not ended."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:  # empty for those that have ended
                if f"{MARK}={mark}".encode() in f.read().split(b"\0"):
                    found.append(int(pid))
        except OSError:
            pass  # gone, or another user's
    return found


def gone(mark, limit):
    """Waits until no process is left, and returns how many still are."""
    end = time.monotonic() + limit
    while (n := len(processes(mark))) and time.monotonic() < end:
        time.sleep(0.02)
    return n


def kill(mark):
    """Kills what is left, those that are started meanwhile too."""
    end = time.monotonic() + LIMIT
    while (pids := processes(mark)) and time.monotonic() < end:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.01)
    if pids:
        raise SystemExit(f"processes {pids} do not end")


def events(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f if line.endswith("\n")]


def await_end(program, path):
    """Waits for the program, or kills it when it is ready to be; tells whether it hung."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        if program.poll() is not None:
            return False
        if any("ready" in e for e in events(path)):
            program.kill()
        time.sleep(0.02)
    program.kill()
    return True


def run(name, library):
    case = CASES[name]
    mark = uuid.uuid4().hex
    with tempfile.TemporaryDirectory() as folder:
        out, count = os.path.join(folder, "out"), os.path.join(folder, "count")
        with open(out, "wb") as stdout:
            began = time.monotonic()
            program = subprocess.Popen(
                [sys.executable, "-B", __file__, "--case", name, library],
                stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.DEVNULL, start_new_session=True,
                env=os.environ | {MARK: mark, COUNT: count},
            )  # fmt: skip
        try:
            hang = await_end(program, out)
            seconds = time.monotonic() - began
            program.wait()
            leftovers = gone(mark, GONE)
        finally:
            program.kill()
            program.wait()
            kill(mark)
            for semaphore in glob.glob(f"/dev/shm/sem.loky-{program.pid}-*"):  # its resource tracker was killed too
                os.remove(semaphore)
        said = events(out)
        tries = os.path.getsize(count) if os.path.exists(count) else 0
    phase = next((e["phase"] for e in reversed(said) if "phase" in e), "start")
    started = next((i for i, e in enumerate(said) if e.get("phase") == "map"), 0)
    calls = [e for e in said[started:] if "call" in e]
    right = {e["call"] for e in calls if "error" not in e}
    return {
        "case": name,
        "library": library,
        "version": version(library),
        "outcome": outcome(name, said, calls, phase, hang, tries, program.returncode, leftovers),
        "lost": len(case.innocent - right),
        "of": len(case.innocent),
        "hang": hang,
        "leftovers": leftovers,
        "seconds": round(seconds, 2),
    }


def outcome(name, said, calls, phase, hang, tries, code, leftovers):
    if any("ready" in e for e in said):
        return f"{leftovers} processes go on" if leftovers else "its processes end"
    parts, errors = [], {}
    for e in calls:
        if "error" in e:
            of_map, kind = e["call"] is None, e["error"].partition(":")[0]
            errors.setdefault((of_map, kind), []).append(e["error"])
    for (of_map, _), texts in errors.items():
        who = "the map fails" if of_map else "1 call fails" if len(texts) == 1 else f"{len(texts)} calls fail"
        parts.append(f"{who}: {texts[0]}")
    if hang and phase in ("start", "map"):
        parts.append("waits for ever" if name == "lock" else "the map hangs")
    for e in said:
        if e.get("then") == "works":
            parts.append("works afterwards")
        elif "then" in e:
            parts.append(f"afterwards: {e['then']}")
    if hang and phase == "next":
        parts.append("the next map hangs")
    if hang and phase == "leave":
        parts.append("leaving it hangs")
    if tries > 2 * WORKERS:
        parts.append(f"{tries} workers were started")
    if not hang and code:
        parts.append(f"the program ends with status {code}")
    return "; ".join(parts) or "nothing happens"


def version(library):
    if library in ("mpire", "loky", "pebble"):
        return importlib.metadata.version(library)
    return platform.python_version()


def installed(library):
    try:
        return bool(version(library))
    except importlib.metadata.PackageNotFoundError:
        return False


def jobs(cases, libraries):
    for name in cases:
        if CASES[name].only:
            yield name, CASES[name].only
            continue
        for library in libraries:
            # It differs from Pool only in how results come.
            if installed(library) and (library != "Pool.imap_unordered" or name in ("killed", "idle")):
                yield name, library


def table(rows):
    print("| case | library | what happens | results lost | hangs | processes left | s |")
    print("|---|---|---|--:|---|--:|--:|")
    last = ""
    for r in rows:
        about = CASES[r["case"]].about if r["case"] != last else ""
        last = r["case"]
        lost = f"{r['lost']} of {r['of']}" if r["of"] else "–"
        text = r["outcome"].replace("|", "\\|").replace("<", "\\<")
        print(f"| {about} | {r['library']} {r['version']} | {text} | {lost} | {'**yes**' if r['hang'] else 'no'} | {r['leftovers']} | {r['seconds']:.1f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="print a table in Markdown")
    parser.add_argument("--cases", default=",".join(CASES), help="those alone")
    parser.add_argument("--libraries", default=",".join(LIBRARIES), help="those alone")
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        signal.alarm(3 * LIMIT)  # in case that nobody is there to kill it
        name, library = args.case
        CASES[name].run(LIBRARIES.get(library))
        return
    cases, libraries = args.cases.split(","), args.libraries.split(",")
    for given, known in ((cases, CASES), (libraries, LIBRARIES)):
        for name in set(given) - set(known):
            parser.error(f"{name} is not one of {', '.join(known)}")
    rows = []
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as programs:
        for row in programs.map(lambda job: run(*job), jobs(cases, libraries)):
            rows.append(row)
            if not args.table:
                print(json.dumps(row), flush=True)
    if args.table:
        table(rows)


if __name__ == "__main__":
    main()
