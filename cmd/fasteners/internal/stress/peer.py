# A peer of "fasteners stress" that uses Python's fasteners. See python.go.
import json
import mmap
import os
import random
import signal
import sys
import threading
import time

import fasteners

RUNNING, PAUSED, STOPPED = 0, 1, 2

signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
order = json.loads(sys.stdin.readline())
at = {name: offset // 8 for name, offset in order['layout'].items() if name != 'subBits'}
sub_bits = order['layout']['subBits']
with open(order['board'], 'r+b') as f:
    words = memoryview(mmap.mmap(f.fileno(), 0)).cast('Q')


def wait_for_end():
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=wait_for_end, daemon=True).start()


def bucket(n):
    n = max(n, 1 << sub_bits)
    shift = n.bit_length() - 1 - sub_bits
    return (shift << sub_bits) + (n >> shift)


chance = random.Random(f"{order['seed']}/{order['number']}/{order['process']}")
poll = {'delay': 0.0005, 'max_delay': 0.005}
alone = fasteners.InterProcessLock(order['lock'])
shared = fasteners.InterProcessReaderWriterLock(order['lock'])
operations = [
    (alone.acquire, alone.release, 'writes'),
    (shared.acquire_write_lock, shared.release_write_lock, 'writes'),
    (shared.acquire_read_lock, shared.release_read_lock, 'reads'),
]
while words[at['phase']] != STOPPED:
    if words[at['phase']] == PAUSED:
        time.sleep(0.01)
        continue
    acquire, release, count = chance.choice(operations)
    words[at['attempts']] += 1
    start = time.monotonic_ns()
    words[at['waiting']] = time.time_ns()
    if not acquire(**poll):
        raise SystemExit('the lock was not acquired')
    wait = time.monotonic_ns() - start
    words[at['waiting']] = 0
    words[at['acquired']] += 1
    words[at['waits'] + bucket(wait)] += 1
    words[at['longest']] = max(words[at['longest']], wait)
    words[at['inode']] = os.stat(order['lock']).st_ino
    words[at['since']] = time.time_ns()
    words[at[count]] += 1
    if chance.randrange(8) == 0:
        time.sleep(chance.random() * 0.0005)
    words[at['until']] = time.time_ns()
    words[at[count]] += 1
    release()
    if chance.randrange(2) == 0:
        time.sleep(chance.random() * 0.001)
