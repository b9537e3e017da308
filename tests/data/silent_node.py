"""Events and calls while the node of the watch is silent, by the Python programs of proto/README.md.

Arguments: a target, a tenant, and `aio` for `example_aio.py` instead of `example.py`. Prints `ready`, waits for
a line on standard input, which says that the node is frozen, and prints one JSON object with what happened since then.
"""

import asyncio
import json
import sys
import threading
import time

import example
import example_aio
from example import kv, tenant

KEY = b"silent/counter"
CALLERS = 3
# Time after which the silent node is known and another one leads, and time of the test, in seconds.
KNOWN_S, SILENT_S = 10, 24

events = []  # times
calls = []  # times of their begin and end


def increment():
    return kv.IncrementRequest(tenant=tenant, key=KEY, delta=1)


def follow(token):
    for seen, _ in example.watch(KEY, token):
        events.extend(time.monotonic() for _ in seen)


def count():
    while True:
        began = time.monotonic()
        example.call(example.store.Increment, increment())
        calls.append((began, time.monotonic()))
        time.sleep(0.1)


async def follow_aio(store, token):
    async for seen, _ in example_aio.watch(store, KEY, token):
        events.extend(time.monotonic() for _ in seen)


async def count_aio(store):
    while True:
        began = time.monotonic()
        await example_aio.call(store.Increment, increment())
        calls.append((began, time.monotonic()))
        await asyncio.sleep(0.1)


async def run_aio(token):
    store = example_aio.connect()
    await asyncio.gather(follow_aio(store, token), *(count_aio(store) for _ in range(CALLERS)))


def in_background(work, *arguments):
    threading.Thread(target=work, args=arguments, daemon=True).start()


start = example.call(example.store.Get, kv.GetRequest(tenant=tenant, key=KEY)).header.session_token
if sys.argv[3:] == ["aio"]:
    in_background(asyncio.run, run_aio(start))
else:
    in_background(follow, start)
    for _ in range(CALLERS):
        in_background(count)
while not events:
    time.sleep(0.01)
print("ready", flush=True)
sys.stdin.readline()
frozen = time.monotonic()
time.sleep(SILENT_S)
times = [frozen, *(at for at in list(events) if frozen < at), time.monotonic()]
latencies = [done - began for began, done in list(calls) if frozen + KNOWN_S < began]
figures = {
    "events": len(times) - 2,
    "longest_pause_s": max(after - before for before, after in zip(times, times[1:])),
    "calls": len(latencies),
    "slow_calls": sum(1 < latency for latency in latencies),
    "slowest_call_s": max(latencies),
}
print(json.dumps(figures), flush=True)
