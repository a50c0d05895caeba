"""The client-side cache of redis-py: python3 tracking.py PORT"""

import sys
import threading
import time

import redis
from redis.cache import CacheConfig
from redis.connection import CacheProxyConnection

# The library asks for the version 7.4 of Redis, for no feature that came with it.
CacheProxyConnection.MIN_ALLOWED_VERSION = "7.2.0"

port = int(sys.argv[1])


def connect():
    return redis.Redis(port=port, protocol=3, decode_responses=True, cache_config=CacheConfig(max_size=1000))


def eventually(what, condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.002)


cached, plain = connect(), redis.Redis(port=port, decode_responses=True)
plain.flushall()

# What is read twice comes from the cache, and no command reaches the server.
plain.set("k", "1")
assert cached.get("k") == "1"
assert cached.get_cache().size == 1
before = plain.info("commandstats")["cmdstat_get"]["calls"]
assert [cached.get("k") for _ in range(10)] == ["1"] * 10
assert plain.info("commandstats")["cmdstat_get"]["calls"] == before

# A change by somebody else, by another type of command, by expiry, by a flush.
plain.set("k", "2")
eventually("a change is seen", lambda: cached.get("k") == "2")
plain.hset("h", mapping={"f": "1", "g": "2"})
assert cached.hgetall("h") == {"f": "1", "g": "2"}
plain.hdel("h", "g")
eventually("a field is gone", lambda: cached.hgetall("h") == {"f": "1"})
plain.set("short", "1", px=50)
assert cached.get("short") == "1"
eventually("a key has expired", lambda: cached.get("short") is None)
plain.flushall()
eventually("nothing is left", lambda: cached.get("k") is None and cached.hgetall("h") == {})

# Commands on many keys.
names = [f"key:{number}" for number in range(100)]
plain.mset({name: "1" for name in names})
assert cached.mget(names) == ["1"] * 100
plain.set(names[50], "2")
eventually("one of many has changed", lambda: cached.mget(names)[50] == "2")

# Several threads read through their caches while others count.
acknowledged = [0] * 8
stop = threading.Event()
errors = []


def count(number):
    client = redis.Redis(port=port)
    while not stop.is_set():
        following = acknowledged[number] + 1
        client.set(f"count:{number}", following)
        acknowledged[number] = following
        time.sleep(0.001)


def read():
    client = connect()
    try:
        while not stop.is_set():
            for number in range(8):
                int(client.get(f"count:{number}") or 0)
        known = list(acknowledged)
        for number in range(8):
            eventually("the last number is read", lambda: int(client.get(f"count:{number}")) >= known[number])
    except Exception as error:  # noqa: BLE001: any error of a thread is one of the test
        errors.append(error)


threads = [threading.Thread(target=count, args=(number,)) for number in range(8)]
threads += [threading.Thread(target=read) for _ in range(4)]
for thread in threads:
    thread.start()
time.sleep(1)
stop.set()
for thread in threads:
    thread.join()
assert not errors, errors
