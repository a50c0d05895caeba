"""A client of redis-py in cluster mode: `cluster.py PORT...`.

It checks typical uses, says `ready`, and then counts in all slots, through pipelines and without, until it gets SIGTERM. At the end
no count may be lost, none may be counted twice, and it says `well`.
"""

import signal
import sys
import time

import redis
from redis.cluster import ClusterNode, LoadBalancingStrategy, RedisCluster

PATIENCE_S = 20
COUNTERS = 300
is_over = False


def end(*_):
    """Notes SIGTERM."""
    global is_over
    is_over = True


def basics(cluster):
    """Checks commands that go to one slot, to several, and to all nodes."""
    pipeline = cluster.pipeline()
    for number in range(COUNTERS):
        pipeline.set(f"key:{number}", number)
    assert pipeline.execute() == [True] * COUNTERS
    assert cluster.mget_nonatomic([f"key:{number}" for number in range(COUNTERS)]) == [
        b"%d" % number for number in range(COUNTERS)
    ]
    assert cluster.mset({"{tag}:a": 1, "{tag}:b": 2}) and cluster.mget("{tag}:a", "{tag}:b") == [b"1", b"2"]
    try:
        cluster.execute_command("MGET", "a", "b")
    except redis.RedisClusterException:
        pass
    else:
        raise AssertionError("MGET over two slots was sent")
    assert cluster.dbsize(target_nodes=RedisCluster.PRIMARIES) == COUNTERS + 2
    assert len(set(cluster.scan_iter(match="key:*", count=50))) == COUNTERS
    assert cluster.eval("return redis.call('incr', KEYS[1])", 1, "script") == 1 if has_scripts(cluster) else True
    # A replica that has had nothing from its primary yet is in the first list only.
    assert len(cluster.cluster_nodes()) >= len(cluster.get_nodes()) >= 3
    assert len(cluster.cluster_slots()) >= 3


def has_scripts(cluster):
    """Says whether the server runs scripts."""
    try:
        cluster.eval("return 1", 1, "script")
    except redis.ResponseError as error:
        assert "unknown command" in str(error), error
        return False
    return True


def replica_reads(ports):
    """Checks reads that replicas answer."""
    reader = RedisCluster(startup_nodes=nodes_of(ports), load_balancing_strategy=LoadBalancingStrategy.RANDOM_REPLICA, socket_timeout=PATIENCE_S)
    deadline = time.time() + PATIENCE_S
    wanted = [b"%d" % number for number in range(COUNTERS)]
    while [reader.get(f"key:{number}") for number in range(COUNTERS)] != wanted:
        assert time.time() < deadline, "replicas do not have what was written"
    reader.close()


def sharded_pubsub(cluster):
    """Checks that messages of shard channels arrive, each at the node of its slot."""
    listener = cluster.pubsub()
    channels = [f"channel:{number}" for number in range(12)]
    for channel in channels:
        listener.ssubscribe(channel)
    seen = 0
    deadline = time.time() + PATIENCE_S
    while seen < len(channels):
        message = listener.get_sharded_message(timeout=0.1)
        seen += message is not None and message["type"] == "ssubscribe"
        assert time.time() < deadline, f"{seen} subscriptions"
    for channel in channels:
        assert cluster.spublish(channel, f"to {channel}") == 1
    received = set()
    while len(received) < len(channels):
        message = listener.get_sharded_message(timeout=0.1, ignore_subscribe_messages=True)
        if message is not None:
            assert message["data"] == b"to " + message["channel"]
            received.add(message["channel"])
        assert time.time() < deadline, f"{received} received"
    listener.close()


def count(cluster):
    """Counts until SIGTERM; nothing may be lost or doubled meanwhile."""
    counts = [0] * COUNTERS
    step = 0
    while not is_over:
        numbers = [(step * 20 + offset) % COUNTERS for offset in range(20)]
        pipeline = cluster.pipeline()
        for number in numbers:
            counts[number] += 1
            pipeline.incr(f"count:{number}")
        assert pipeline.execute() == [counts[number] for number in numbers]
        number = step % COUNTERS
        counts[number] += 1
        assert cluster.incr(f"count:{number}") == counts[number]
        step += 1
        print("step", step)
    for number in range(COUNTERS):
        assert int(cluster.get(f"count:{number}") or 0) == counts[number], number


def nodes_of(ports):
    """Names the nodes to begin with."""
    return [ClusterNode("127.0.0.1", int(port)) for port in ports]


def main():
    """Runs all of it."""
    signal.signal(signal.SIGTERM, end)
    ports = sys.argv[1:]
    cluster = RedisCluster(startup_nodes=nodes_of(ports), socket_timeout=PATIENCE_S)
    basics(cluster)
    replica_reads(ports)
    sharded_pubsub(cluster)
    print("ready")
    count(cluster)
    print("well")


main()
