//! Every shard gives up keys in proportion to what it holds, whichever loop makes room.

use shardis_tests::info::{figure, of_shards};
use shardis_tests::node;

/// Memory for keys beyond what the server uses anyway, bytes.
const ROOM: u64 = 4 << 20;

/// Number of keys stored, several times what there is room for.
const KEYS: usize = 12_000;

fn limit(used: u64) -> String {
    (used + ROOM).to_string()
}

/// Asserts that no shard has much less than its part.
fn check(keys: &[u64]) {
    let sum: u64 = keys.iter().sum();
    let part = sum / keys.len() as u64;
    assert!(sum > 2000, "{keys:?}");
    assert!(keys.iter().all(|&of_shard| of_shard > part * 3 / 4), "{keys:?}");
}

#[test]
fn one_client_that_waits_for_each_reply_takes_from_all_shards() {
    for shards in [2, 4] {
        let server = node::launch(shards)
            .with(&["--maxmemory-policy", "allkeys-lru"])
            .serve();
        let mut client = server.connect();
        let used = figure(&mut client, "used_memory");
        client.call(&["CONFIG", "SET", "maxmemory", &limit(used)]);
        let value = "v".repeat(1000);
        for number in 0..KEYS {
            client.call(&["SET", &format!("key:{number}"), &value]);
        }
        check(&of_shards(&mut client, "keys"));
    }
}
