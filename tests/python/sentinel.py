"""A client of redis-py that finds its primary through Sentinels: `sentinel.py NAME PORT...`.

It makes one step after the other until it is ended, and says how many. A step that fails is tried again: with the primary that
the Sentinels name then.
"""

import sys
import time

import redis
from redis.sentinel import MasterNotFoundError, Sentinel

TIMEOUT_S = 0.5
FAILURES = (redis.ConnectionError, redis.TimeoutError, redis.ReadOnlyError, MasterNotFoundError)


def main():
    name, ports = sys.argv[1], sys.argv[2:]
    sentinel = Sentinel([("127.0.0.1", int(port)) for port in ports], socket_timeout=TIMEOUT_S)
    primary = sentinel.master_for(name, socket_timeout=TIMEOUT_S)
    replica = sentinel.slave_for(name, socket_timeout=TIMEOUT_S)
    steps = 0
    while True:
        try:
            with primary.pipeline() as unit:
                unit.incr("steps").rpush("list", steps).ltrim("list", -100, -1).execute()
            replica.get("steps")
        except FAILURES as error:
            print("failure", type(error).__name__, error)
            time.sleep(0.05)
            continue
        except redis.ResponseError as error:
            # A server that is loading, or whose link is down, says so: others may serve.
            print("refused", error)
            time.sleep(0.05)
            continue
        steps += 1
        print("step", steps)
        time.sleep(0.005)


main()
