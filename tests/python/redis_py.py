"""Typical uses of redis-py against a running server: `redis_py.py TEST PORT SOCKET`.

Each test is a function of a client over TCP and one over a Unix socket. It raises an exception if a reply is wrong, or
if the client waits too long for one.
"""

import sys
import threading

import redis

PATIENCE_S = 60


def start_threads(function, calls):
    """Starts a thread for each call, which is a tuple of arguments."""
    threads = [threading.Thread(target=function, args=arguments) for arguments in calls]
    for thread in threads:
        thread.start()
    return threads


def big_pipelines(tcp, unix):
    """Checks pipelines that are written as a whole before any reply is read."""
    # With a long key, the requests are more than sockets hold: they are taken only if the server goes on reading.
    key = "key" * 70
    for client, value, count in ((unix, b"k" * 1024, 10_000), (tcp, b"h" * 100, 200_000)):
        client.set(key, value)
        pipeline = client.pipeline(transaction=False)
        for _ in range(count):
            pipeline.get(key)
        replies = pipeline.execute()
        assert len(replies) == count and set(replies) == {value}


def pubsub(tcp, unix):
    """Checks that messages reach channels, patterns and a handling thread in order, over all shards."""
    listener = unix.pubsub()
    listener.subscribe("news", "sport")
    listener.psubscribe("w*")
    kinds = [listener.get_message(timeout=PATIENCE_S)["type"] for _ in range(3)]
    assert kinds == ["subscribe", "subscribe", "psubscribe"], kinds
    for number in range(1000):
        channel = ["news", "sport", "weather", "nobody"][number % 4]
        assert tcp.publish(channel, number) == (0 if channel == "nobody" else 1)
    got = [listener.get_message(timeout=PATIENCE_S) for _ in range(750)]
    assert [int(message["data"]) for message in got] == [number for number in range(1000) if number % 4 != 3]
    assert got[2]["pattern"] == b"w*" and got[2]["channel"] == b"weather"
    listener.unsubscribe("news")
    assert listener.get_message(timeout=PATIENCE_S)["type"] == "unsubscribe"
    assert tcp.publish("news", "x") == 0
    listener.close()

    handled = []
    threaded = tcp.pubsub()
    threaded.subscribe(**{"jobs": lambda message: handled.append(message["data"])})
    thread = threaded.run_in_thread(sleep_time=0.01)
    while unix.publish("jobs", "one") == 0:
        pass
    while not handled:
        thread.join(0.01)
    thread.stop()
    thread.join(PATIENCE_S)
    assert b"one" in handled


def transactions(tcp, unix):
    """Checks that no increment under WATCH is lost, and that a change by another client fails a transaction."""
    tcp.set("counter", 0)

    def raise_counter(client):
        def increment(pipeline):
            value = int(pipeline.get("counter"))
            pipeline.multi()
            pipeline.set("counter", value + 1)
            pipeline.rpush("log", value)

        for _ in range(100):
            client.transaction(increment, "counter")

    threads = start_threads(raise_counter, [(client,) for client in (tcp, unix, tcp)])
    for thread in threads:
        thread.join(PATIENCE_S)
    assert int(tcp.get("counter")) == 300
    assert tcp.lrange("log", 0, -1) == [b"%d" % value for value in range(300)]

    with tcp.pipeline() as pipeline:
        pipeline.watch("counter")
        unix.incr("counter")
        pipeline.multi()
        pipeline.set("counter", 0)
        try:
            pipeline.execute()
        except redis.WatchError:
            pass
        else:
            raise AssertionError("EXEC ran though a watched key had changed")
    assert int(tcp.get("counter")) == 301
    replies = tcp.pipeline().set("a", 1).incr("a").lpush("a", 1).execute(raise_on_error=False)
    assert replies[:2] == [True, 2] and isinstance(replies[2], redis.ResponseError)


def scans(tcp, unix):
    """Checks that iterators find all elements, for every COUNT."""
    pipeline = unix.pipeline(transaction=False)
    for number in range(5000):
        pipeline.set(f"key:{number}", number)
    pipeline.sadd("members", *range(1000))
    pipeline.hset("fields", mapping={str(number): number for number in range(1000)})
    pipeline.zadd("scores", {str(number): number for number in range(1000)})
    pipeline.execute()
    for count in (None, 1, 100, 100_000):
        assert len(set(tcp.scan_iter(count=count))) == 5003, count
    assert len(set(tcp.scan_iter(match="key:1*", count=1000))) == 1111
    assert set(tcp.scan_iter(_type="zset")) == {b"scores"}
    cursor, keys = tcp.scan(count=100_000)
    assert cursor == 0 and len(keys) == 5003
    assert len(set(tcp.sscan_iter("members"))) == 1000
    assert len(dict(tcp.hscan_iter("fields"))) == 1000
    assert len(dict(tcp.zscan_iter("scores"))) == 1000


def streams(tcp, unix):
    """Checks that consumers of a group handle each entry once, and that another one claims the entries left."""
    tcp.xgroup_create("work", "crew", id="$", mkstream=True)
    handled = []

    def consume(client, name):
        while True:
            found = client.xreadgroup("crew", name, {"work": ">"}, count=7, block=PATIENCE_S * 1000)
            for entry, fields in found[0][1] if isinstance(found, list) else found[b"work"][0]:
                if fields[b"job"] == b"stop":
                    client.xack("work", "crew", entry)
                    return
                if int(fields[b"job"]) % 10:
                    handled.append(int(fields[b"job"]))
                    client.xack("work", "crew", entry)

    threads = start_threads(consume, [(tcp, "worker0"), (unix, "worker1"), (tcp, "worker2")])
    for number in range(1000):
        unix.xadd("work", {"job": number})
    # A worker that has stopped takes no more, so each of them gets one of these, though one may take several at once.
    while any(thread.is_alive() for thread in threads):
        unix.xadd("work", {"job": "stop"})
        for thread in threads:
            thread.join(0.02)
    assert sorted(handled) == [number for number in range(1000) if number % 10]
    left = tcp.xpending("work", "crew")["pending"]
    assert left >= 100, left
    start, taken = "0-0", []
    while True:
        start, entries, *_ = tcp.xautoclaim("work", "crew", "heir", min_idle_time=0, start_id=start, count=30)
        taken += [fields[b"job"] for _, fields in entries if fields[b"job"] != b"stop"]
        if start in ("0-0", b"0-0"):
            break
    assert sorted(map(int, taken)) == list(range(0, 1000, 10)), taken


def refused(call, kind=redis.exceptions.NoPermissionError):
    """Checks that a call fails with this kind of error."""
    try:
        call()
    except kind:
        return
    raise AssertionError("that was not refused")


def users(tcp, unix):
    """Checks the library's functions for users, in both protocols, and that its errors for refusals are raised."""
    for protocol in (2, 3):
        options = {
            "port": tcp.connection_pool.connection_kwargs["port"],
            "protocol": protocol,
            "decode_responses": True,
        }
        admin = redis.Redis(**options)
        assert admin.acl_whoami() == "default" and "default" in admin.acl_users()
        assert {"string", "dangerous"} <= set(admin.acl_cat()) and "get" in admin.acl_cat("string")
        assert len(admin.acl_genpass()) == 64 and len(admin.acl_genpass(5)) == 2
        assert admin.acl_setuser(
            "orders",
            enabled=True,
            passwords=["+first", "+second"],
            categories=["+@read", "+@write", "-@dangerous"],
            commands=["+ping", "+client", "+hello", "-mset"],
            keys=["orders:*"],
            channels=["orders.*"],
            selectors=[("+get", "%R~prices:*")],
        )
        shown = admin.acl_getuser("orders")
        assert shown["enabled"] and shown["flags"] == ["on"] and len(shown["passwords"]) == 2, shown
        assert "orders:*" in str(shown["keys"]) and "prices:*" in str(shown["selectors"]), shown
        assert admin.acl_getuser("nobody") is None
        assert any("user orders on" in line for line in admin.acl_list())
        assert admin.acl_dryrun("orders", "set", "orders:1", "x") == "OK"
        assert "no permissions" in admin.acl_dryrun("orders", "set", "other", "x")

        wrong = redis.Redis(**options, username="orders", password="wrong")
        refused(wrong.ping, redis.exceptions.AuthenticationError)
        client = redis.Redis(**options, username="orders", password="second")
        assert client.set("orders:1", 5) and client.get("orders:1") == "5"
        assert client.get("prices:1") is None
        refused(lambda: client.set("prices:1", 1))
        refused(lambda: client.mset({"orders:1": 1}))
        refused(client.pipeline().set("orders:1", 1).set("other", 1).execute, redis.exceptions.RedisError)

        log = admin.acl_log()
        assert {entry["reason"] for entry in log} >= {"key", "command", "auth"}, log
        assert all("id" in entry["client-info"] for entry in log), log
        assert admin.acl_log(1)[0]["count"] >= 1 and admin.acl_log_reset()
        assert admin.acl_log() == []
        refused(admin.acl_load, redis.exceptions.ResponseError)
        refused(admin.acl_save, redis.exceptions.ResponseError)
        assert admin.acl_help() and admin.acl_deluser("orders", "nobody") == 1
        refused(lambda: client.get("orders:1"), redis.exceptions.RedisError)
        admin.delete("orders:1")


def main():
    """Runs the test that the command line names."""
    name, port, socket = sys.argv[1:]
    options = {"socket_timeout": 2 * PATIENCE_S, "protocol": 3 if name == "pubsub" else 2}
    tcp = redis.Redis(port=int(port), **options)
    unix = redis.Redis(unix_socket_path=socket, **options)
    globals()[name](tcp, unix)
    assert tcp.ping() and unix.ping()
    print("well")


main()
