//! Clients that wait for a key which the node itself removes: they are told at once, not with the next command.

use shardis_tests::client::{Client, PATIENCE};
use shardis_tests::node;
use shardis_tests::process::Process;
use shardis_tests::wait::await_blocked;

const CONSUMERS: usize = 6;

/// Consumers of groups that wait for entries, each of a stream of its own on one of the shards.
fn consumers(server: &Process, client: &mut Client) -> Vec<Client> {
    let waiting = (0..CONSUMERS)
        .map(|number| {
            let stream = format!("stream{number}");
            client.line(&format!("XGROUP CREATE {stream} group $ MKSTREAM"));
            let mut consumer = server.connect();
            consumer
                .send(&[
                    "XREADGROUP",
                    "GROUP",
                    "group",
                    "me",
                    "BLOCK",
                    "0",
                    "STREAMS",
                    &stream,
                    ">",
                ])
                .expect("sent");
            consumer
        })
        .collect();
    await_blocked(client, CONSUMERS);
    waiting
}

fn expect_all_told(waiting: Vec<Client>, what: &str) {
    for mut consumer in waiting {
        let reply = consumer.read_within(PATIENCE).expect(what);
        assert!(reply.text().starts_with("NOGROUP"), "{what}: {reply:?}");
    }
}

#[test]
fn evicted_streams_end_the_waits_for_them() {
    for shards in [1, 4] {
        let server = node::launch(shards)
            .with(&["--maxmemory-policy", "allkeys-random"])
            .serve();
        let mut client = server.connect();
        let waiting = consumers(&server, &mut client);
        // Nobody sends anything any more.
        client.line("CONFIG SET maxmemory 1");
        expect_all_told(waiting, "eviction");
    }
}

#[test]
fn expired_streams_end_the_waits_for_them() {
    for shards in [1, 4] {
        let server = node::start(shards);
        let mut client = server.connect();
        let waiting = consumers(&server, &mut client);
        for number in 0..CONSUMERS {
            client.line(&format!("PEXPIRE stream{number} 30"));
        }
        expect_all_told(waiting, "expiry");
    }
}

#[test]
fn what_a_write_has_evicted_ends_waits_with_that_write() {
    for shards in [1, 4] {
        let server = node::launch(shards)
            .with(&["--maxmemory-policy", "volatile-ttl"])
            .serve();
        let mut client = server.connect();
        let waiting = consumers(&server, &mut client);
        for number in 0..CONSUMERS {
            client.line(&format!("EXPIRE stream{number} 1000"));
        }
        client.line("CONFIG SET maxmemory 1");
        // A write is taken while there may be something left to evict: on a busy machine, the first one may find that.
        let is_refused = (0..100).any(|_| client.line("SET key value").is_error());
        assert!(is_refused, "nothing is left to evict");
        expect_all_told(waiting, "eviction for a write");
    }
}
