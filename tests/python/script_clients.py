"""Python libraries that work by scripts, against a running server: `script_clients.py TEST PORT`.

Each test is a function of the server's port. It raises an exception if something is wrong, or if a client waits too long.
"""

import sys
import threading
import time

import redis

PATIENCE_S = 60


def client_of(port):
    return redis.Redis(port=port, socket_timeout=PATIENCE_S)


def locks(port):
    """Checks that a lock of redis-py has one owner at a time, and can be extended."""
    client = client_of(port)
    inside, entered = [], []

    def work(number):
        own = client_of(port)
        for _ in range(20):
            with own.lock("lock:stock", timeout=10, blocking_timeout=PATIENCE_S):
                inside.append(number)
                assert len(inside) == 1, inside
                entered.append(number)
                time.sleep(0.0005)
                inside.pop()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(entered) == 120, len(entered)

    lock = client.lock("lock:other", timeout=10)
    assert lock.acquire() and lock.owned()
    assert lock.extend(20) and client.pttl("lock:other") > 15_000
    assert lock.reacquire() and client.pttl("lock:other") <= 10_000
    assert not client.lock("lock:other", timeout=1).acquire(blocking=False)
    lock.release()
    try:
        lock.release()
        raise AssertionError("it was released twice")
    except redis.exceptions.LockError:
        pass


def registered_scripts(port):
    """Checks a registered script alone, in a pipeline, and after the server has forgotten it."""
    client = client_of(port)
    script = client.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
    assert [script(keys=["count"], args=[number]) for number in (1, 2, 3)] == [1, 3, 6]
    client.script_flush()
    assert script(keys=["count"], args=[4]) == 10
    client.script_flush()
    pipeline = client.pipeline()
    for number in range(10):
        script(keys=[f"count:{number}"], args=[number], client=pipeline)
    assert pipeline.execute() == list(range(10))
    assert client.script_exists(script.sha, "0" * 40) == [True, False]
    assert client.function_load("#!lua name=lib\nredis.register_function('f', function(k, a) return a[1] end)") == b"lib"
    assert client.fcall("f", 1, "k", "v") == b"v"


def rate_limits(port):
    """Checks the strategies of the package limits, hit by several threads."""
    from limits import RateLimitItemPerMinute, storage, strategies

    store = storage.storage_from_string(f"redis://127.0.0.1:{port}")
    for number, strategy in enumerate(
        (
            strategies.FixedWindowRateLimiter,
            strategies.MovingWindowRateLimiter,
            strategies.SlidingWindowCounterRateLimiter,
        )
    ):
        limiter, item, allowed = strategy(store), RateLimitItemPerMinute(50), []

        def hit():
            for _ in range(30):
                if limiter.hit(item, "user", str(number)):
                    allowed.append(1)

        # Not across the end of a minute.
        while time.time() % 60 > 50:
            time.sleep(0.5)
        threads = [threading.Thread(target=hit) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert len(allowed) == 50, (strategy, len(allowed))
        assert not limiter.test(item, "user", str(number))
        assert limiter.get_window_stats(item, "user", str(number)).remaining == 0


def python_redis_lock(port):
    """Checks the package python-redis-lock, whose scripts signal the next owner."""
    import redis_lock

    entered, inside = [], []

    def work(number):
        own = client_of(port)
        for _ in range(10):
            with redis_lock.Lock(own, "resource", expire=20):
                inside.append(number)
                assert len(inside) == 1, inside
                entered.append(number)
                inside.pop()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(entered) == 50, len(entered)
    redis_lock.reset_all(client_of(port))


def celery(port):
    """Checks a Celery worker on the Redis transport: results, retries, chains, a delayed task, a chord."""
    from celery import Celery, chain, chord
    from celery.contrib.testing.worker import start_worker

    url = f"redis://127.0.0.1:{port}/0"
    app = Celery("shop", broker=url, backend=url)
    app.conf.update(broker_connection_retry_on_startup=True, task_acks_late=True)
    tries = []

    @app.task
    def add(one, other):
        return one + other

    @app.task
    def total(numbers):
        return sum(numbers)

    @app.task(bind=True, max_retries=3)
    def stubborn(self):
        tries.append(1)
        if len(tries) < 3:
            raise self.retry(countdown=0.1)
        return len(tries)

    with start_worker(app, perform_ping_check=False, pool="threads", concurrency=4):
        results = [add.delay(number, 1) for number in range(50)]
        assert [result.get(timeout=PATIENCE_S) for result in results] == list(range(1, 51))
        assert chain(add.s(1, 2), add.s(3))().get(timeout=PATIENCE_S) == 6
        assert chord((add.s(number, number) for number in range(10)), total.s())().get(timeout=PATIENCE_S) == 90
        assert add.apply_async((2, 3), countdown=1).get(timeout=PATIENCE_S) == 5
        assert stubborn.delay().get(timeout=PATIENCE_S) == 3


def main():
    """Runs the test that the command line names."""
    name, port = sys.argv[1:]
    globals()[name](int(port))
    print("well")


main()
