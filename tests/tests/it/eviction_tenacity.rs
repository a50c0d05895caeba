//! `maxmemory-eviction-tenacity`: how long a command may be kept waiting for eviction.

use shardis_tests::client::{split, words};
use shardis_tests::info::figure;
use shardis_tests::node;

/// Number of keys stored, of which nearly all have to go: many more than fit a slice.
const KEYS: i64 = 60_000;

/// Keys that are left when the first write after a much lower limit has been answered.
fn left(tenacity: &str) -> i64 {
    let options = [
        "--maxmemory-policy",
        "allkeys-random",
        "--enable-debug-command",
        "yes",
        "--maxmemory-eviction-tenacity",
        tenacity,
    ];
    let server = node::launch(1).with(&options).serve();
    let mut client = server.connect();
    let empty = figure(&mut client, "used_memory");
    client.line(&format!("DEBUG POPULATE {KEYS} key 100"));
    let limit = format!("CONFIG SET maxmemory {}", empty + (1 << 20));
    // All in one turn: what a turn evicts, the first commands behind the limit evict.
    let replies = client.pipeline(&[split(&limit), words(&["SET", "k", "v"]), split("DBSIZE")]);
    assert_eq!(replies[0].text(), "OK");
    replies[2].integer().expect("a number")
}

#[test]
fn a_command_waits_for_eviction_as_long_as_the_tenacity_allows() {
    let all = left("100");
    assert!(all < KEYS / 5, "an endless slice left {all} keys");
    let few = left("0");
    assert!(few > KEYS / 2, "no slice at all left {few} keys");
}
