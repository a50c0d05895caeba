//! Waiting commands under what holds commands back: want of memory, and CLIENT PAUSE.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use shardis_tests::client::{Client, words};
use shardis_tests::process::Process;
use shardis_tests::slot::one_key_per_shard;
use shardis_tests::wait::await_blocked;
use shardis_tests::{node, redis};

/// Has `waiting` wait, and makes its key ready in a transaction that leaves no memory; returns its reply, and which keys are
/// left. A client that goes on waiting gets `late`.
fn woken_without_memory(server: &Process, policy: &str, waiting: &str, make_ready: &str) -> String {
    let (mut client, mut waiter) = (server.connect(), server.connect());
    client.line("FLUSHALL");
    client.line(&format!("CONFIG SET maxmemory-policy {policy}"));
    client.line("RPUSH src a b");
    client.line("ZADD scores 1 a");
    for shard in 0..8 {
        client.line(&format!("SET volatile:{shard} v EX 1000"));
    }
    let words: Vec<&str> = waiting.split(' ').collect();
    waiter.send(&words).expect("a connection");
    await_blocked(&mut client, 1);
    // DBSIZE has the transaction hold all shards: what is evicted does not depend on which of them is taken at that moment.
    for line in ["MULTI", "CONFIG SET maxmemory 1", "DBSIZE", make_ready, "EXEC"] {
        client.line(line);
    }
    client.line("CONFIG SET maxmemory 0");
    let left = client
        .line("EXISTS destination {k} {z} volatile:1 volatile:5")
        .to_string();
    client.line("RPUSH {k} late");
    client.line("ZADD {z} 5 late");
    let reply = waiter.read().expect("a reply");
    format!("{reply} {left}")
}

/// The policies, which find all keys, some of them, or none to evict.
const POLICIES: [&str; 5] = [
    "noeviction",
    "allkeys-lru",
    "allkeys-random",
    "volatile-lru",
    "volatile-ttl",
];

#[test]
fn what_may_take_memory_is_not_served_when_there_is_none() {
    for (waiting, make_ready) in [
        ("BLMOVE {k} {destination} LEFT RIGHT 0", "RENAME src {k}"),
        ("BRPOPLPUSH {k} {destination} 0", "RENAME src {k}"),
        ("BLPOP {k} 0", "RENAME src {k}"),
        ("BLMPOP 0 1 {k} LEFT", "RENAME src {k}"),
        ("BLMOVE {k} {k}d LEFT RIGHT 0", "RENAME src {k}"),
        ("BZMPOP 0 1 {z} MAX", "RENAME scores {z}"),
        ("BZPOPMIN {z} 0", "RENAME scores {z}"),
    ] {
        let valkey = redis::start_peer();
        let expected = POLICIES.map(|policy| woken_without_memory(&valkey, policy, waiting, make_ready));
        for shards in [1, 4] {
            let server = node::start(shards);
            for (policy, expected) in POLICIES.iter().zip(&expected) {
                let reply = woken_without_memory(&server, policy, waiting, make_ready);
                assert_eq!(&reply, expected, "{waiting}, {policy}, {shards} shards");
            }
        }
    }
}

/// Keeps the shard of a key busy with commands of some milliseconds until told to end.
fn keep_busy(server: &Process, key: &str, is_over: &Arc<AtomicBool>) -> JoinHandle<()> {
    let (mut client, is_over) = (server.connect(), Arc::clone(is_over));
    let [one, two] = [1, 2].map(|number| format!("{{{key}}}{number}"));
    client.call(&["SET", &one, &"ab".repeat(700)]);
    client.call(&["SET", &two, &"bca".repeat(500)]);
    std::thread::spawn(move || {
        while !is_over.load(Ordering::Relaxed) {
            client.call(&["LCS", &one, &two, "LEN"]);
        }
    })
}

#[test]
fn nothing_is_moved_after_a_pause_has_begun() {
    let server = node::start(4);
    let keys = one_key_per_shard("k", 4);
    let is_over = Arc::new(AtomicBool::new(false));
    let busy = [0, 1, 0, 1].map(|shard| keep_busy(&server, &keys[shard], &is_over));
    let mut control = server.connect();
    let lengths = |client: &mut Client| [0, 1].map(|shard| client.call(&["LLEN", &keys[shard]]).integer());
    for round in 0..100 {
        let (mut waiter, mut pusher) = (server.connect(), server.connect());
        control.call(&["DEL", &keys[0], &keys[1]]);
        waiter
            .send(&["BLMOVE", &keys[0], &keys[1], "LEFT", "LEFT", "0"])
            .expect("a connection");
        await_blocked(&mut control, 1);
        // The pause begins while the push is under way.
        let requests = [
            words(&["RPUSH", &keys[0], "v"]),
            words(&["CLIENT", "PAUSE", "10000", "WRITE"]),
        ];
        let replies = pusher.pipeline(&requests);
        assert_eq!(
            (replies[0].integer(), replies[1].text()),
            (Some(1), "OK".to_owned())
        );
        let first = lengths(&mut control);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(first, lengths(&mut control), "round {round}");
        assert_eq!(control.line("CLIENT UNPAUSE").text(), "OK");
        assert_eq!(waiter.read().expect("a reply").text(), "v");
    }
    is_over.store(true, Ordering::Relaxed);
    busy.into_iter()
        .for_each(|thread| thread.join().expect("it ends"));
}
