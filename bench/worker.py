# A process of a contender that is a Python library. See process.go for the requests; worker.go does the
# same for Go.
import importlib
import importlib.metadata
import json
import mmap
import resource
import sys
import threading
import time

LONG = 3600

name, path = sys.argv[1:]
module = importlib.import_module(name)
Lock = {'fasteners': 'InterProcessLock', 'filelock': 'FileLock', 'portalocker': 'Lock'}[name]
Lock = getattr(module, Lock)


def acquire(lock):
    if not lock.acquire(timeout=LONG):
        raise TimeoutError


def pairs(r):
    used, start = cpu(), now()
    lock, n = handle, 0
    while now() - start < r['seconds'] * 1e9:
        for _ in range(16):
            if r['fresh']:
                lock = Lock(path)
            acquire(lock)
            lock.release()
        n += 16
    return {'pairs': n, 'nanos': now() - start, 'cpu': cpu() - used}


def count(r):
    with open(path + '.count', 'r+b') as f:
        counter = memoryview(mmap.mmap(f.fileno(), 8)).cast('q')
    time.sleep(max(0, r['start'] - now()) / 1e9)
    used, start = cpu(), now()
    t, n, longest = start, 0, 0
    while t < start + r['seconds'] * 1e9:
        acquire(handle)
        longest = max(longest, now() - t)
        counter[0] += 1
        handle.release()
        n += 1
        t = now()
    return {'pairs': n, 'nanos': t - start, 'cpu': cpu() - used, 'longest': longest}


def take(r):
    acquire(handle)
    return {'at': now()}


def release(r):
    time.sleep(r['settle'])
    at = now()
    handle.release()
    return {'at': at}


def wait(r):
    used, start = cpu(), now()
    for _ in range(r['n']):
        threading.Thread(target=lambda: acquire(Lock(path)), daemon=True).start()
    time.sleep(r['seconds'])
    return {'cpu': cpu() - used, 'nanos': now() - start}


now = time.monotonic_ns


def cpu():
    u = resource.getrusage(resource.RUSAGE_SELF)
    return int((u.ru_utime + u.ru_stime) * 1e9)


handle = Lock(path)
answer = {'version': importlib.metadata.version(name)}
print(json.dumps(answer), flush=True)
for line in sys.stdin:
    r = json.loads(line)
    do = {'pairs': pairs, 'count': count, 'acquire': take, 'release': release, 'wait': wait}
    print(json.dumps(do[r['do']](r)), flush=True)
