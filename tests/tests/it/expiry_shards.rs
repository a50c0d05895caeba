//! Expiry of keys that another loop than that of their shard has stored.

use std::time::{Duration, Instant};

use shardis_tests::node;
use shardis_tests::slot::one_key_per_shard;

const SHARDS: usize = 4;

/// A loop that sleeps is woken for a key that expires before it would look at its shard again. With `hz 1` it would
/// otherwise look once a second.
#[test]
fn a_sleeping_loop_removes_a_key_of_another_loop_in_time() {
    let server = node::launch(SHARDS)
        .with(&["--hz", "1", "--notify-keyspace-events", "Ex"])
        .serve();
    let (mut listener, mut client) = (server.connect(), server.connect());
    listener.line("SUBSCRIBE __keyevent@0__:expired");
    let keys = one_key_per_shard("key", SHARDS);
    let mut delays: Vec<Duration> = Vec::new();
    for _ in 0..11 {
        let start = Instant::now();
        for key in &keys {
            assert_eq!(client.line(&format!("SET {key} v PX 30")).text(), "OK");
        }
        for _ in &keys {
            listener.read().expect("each key expires");
        }
        delays.push(start.elapsed());
    }
    delays.sort_unstable();
    assert!(delays[5] < Duration::from_millis(250), "{delays:?}");
}
