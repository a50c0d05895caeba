"""redis-py over TLS: `tls.py PORT AUTHORITY CERTIFICATE KEY`."""

import sys
import threading

import redis

port, authority, certificate, key = int(sys.argv[1]), *sys.argv[2:5]


def connect(**options):
    return redis.Redis(
        host="127.0.0.1",
        port=port,
        ssl=True,
        ssl_ca_certs=authority,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        ssl_cert_reqs="required",
        ssl_check_hostname=True,
        **options,
    )


for protocol in (2, 3):
    client = connect(protocol=protocol)
    assert client.ping()
    assert client.acl_whoami() in ("orders", b"orders")
    value = bytes(index % 251 for index in range(2_000_000))
    assert client.set("big", value) and client.get("big") == value
    with client.pipeline(transaction=False) as pipe:
        for index in range(20_000):
            pipe.set(f"key:{index}", index)
        assert all(pipe.execute())
    with client.pipeline() as pipe:
        pipe.incr("n").incr("n")
        pipe.execute()
    subscriber = client.pubsub(ignore_subscribe_messages=True)
    subscriber.subscribe("news")
    subscriber.get_message(timeout=10)
    sender = threading.Thread(target=lambda: [connect().publish("news", b"x" * 50_000) for _ in range(20)])
    sender.start()
    got = 0
    while got < 20:
        message = subscriber.get_message(timeout=20)
        assert message is None or len(message["data"]) == 50_000
        got += message is not None
    sender.join()
    client.delete("n")

# Many connections, one after another: sessions may be resumed.
for _ in range(30):
    one = connect()
    assert one.ping()
    one.close()

without = redis.Redis(host="127.0.0.1", port=port, ssl=True, ssl_ca_certs=authority)
try:
    without.ping()
except redis.exceptions.ConnectionError:
    pass
else:
    raise AssertionError("a client without a certificate was served")
