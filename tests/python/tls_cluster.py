"""redis-py in cluster mode over TLS: `tls_cluster.py PORT AUTHORITY CERTIFICATE KEY`, where PORT is that of one node.

It fills the cluster, moves an empty slot behind its own back, and has to follow the redirect to the port for TLS of the new owner.
"""

import sys

from redis.cluster import RedisCluster

PATIENCE_S = 20
port, authority, certificate, key = int(sys.argv[1]), *sys.argv[2:5]


def connect():
    return RedisCluster(
        host="127.0.0.1",
        port=port,
        ssl=True,
        ssl_ca_certs=authority,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        ssl_cert_reqs="required",
        ssl_check_hostname=True,
        socket_timeout=PATIENCE_S,
    )


def name_of(cluster, node):
    """Gives the id of a node."""
    return cluster.execute_command("CLUSTER MYID", target_nodes=node)


cluster = connect()
pipeline = cluster.pipeline()
for number in range(500):
    pipeline.set(f"key:{number}", number)
assert pipeline.execute() == [True] * 500
assert [int(cluster.get(f"key:{number}")) for number in range(500)] == list(range(500))
assert len(cluster.get_nodes()) == 3

empty = next(f"empty:{number}" for number in range(10_000) if not cluster.cluster_countkeysinslot(cluster.keyslot(f"empty:{number}")))
slot = cluster.keyslot(empty)
owner = cluster.nodes_manager.get_node_from_slot(slot)
other = next(node for node in cluster.get_primaries() if node.port != owner.port)
for node in (other, owner):
    cluster.execute_command("CLUSTER SETSLOT", slot, "NODE", name_of(cluster, other), target_nodes=node)
assert cluster.nodes_manager.get_node_from_slot(slot).port == owner.port, "the client has not been told"
assert cluster.set(empty, "there") and cluster.get(empty) == b"there"
assert cluster.nodes_manager.get_node_from_slot(slot).port == other.port, "the client has followed"
cluster.close()
