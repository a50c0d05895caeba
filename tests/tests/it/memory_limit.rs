//! `maxmemory`: the memory that it is compared with, the time at which it takes effect, and the keys that are
//! evicted.

use std::time::{Duration, Instant};

use shardis_tests::client::words;
use shardis_tests::info::figure;
use shardis_tests::node;
use shardis_tests::process::Process;
use shardis_tests::reply::Reply;
use shardis_tests::wait::wait_until;

const OOM: &str = "OOM command not allowed when used memory > 'maxmemory'.";

fn start(shards: usize, options: &[&str]) -> Process {
    node::launch(shards).with(options).serve()
}

fn large(byte: u8, len: usize) -> String {
    char::from(byte).to_string().repeat(len)
}

/// Arguments large enough to arrive in buffers of their own count like others, and no longer after they are freed.
#[test]
fn large_arguments_count() {
    for shards in [1, 4] {
        let server = start(
            shards,
            &["--maxmemory", "20mb", "--maxmemory-policy", "allkeys-lru"],
        );
        let mut client = server.connect();
        let value = large(b'v', 100_000);
        for number in 0..1000 {
            assert_eq!(
                client.call(&["SET", &format!("key:{number}"), &value]).text(),
                "OK"
            );
        }
        assert!(figure(&mut client, "used_memory_dataset") < 21 << 20);
        assert!(figure(&mut client, "evicted_keys") > 700);
        client.line("FLUSHALL");
        client.line("SET string v");
        for _ in 0..300 {
            assert!(
                client
                    .call(&["LPUSH", "string", &value])
                    .text()
                    .contains("WRONGTYPE")
            );
        }
        client.line("CONFIG SET maxmemory-policy noeviction");
        let small = large(b's', 1000);
        let mut stored = 0;
        while client.call(&["SET", &format!("small:{stored}"), &small]).text() == "OK" {
            stored += 1;
            assert!(stored < 22_000, "more than fits into the limit");
        }
        assert!(stored > 10_000, "{stored} values of a kilobyte fit into 20 MiB");
    }
}

/// Values moved between shards, or made of keys of several, are booked where they are stored, and no longer after
/// they are removed.
#[test]
fn moves_leave_no_memory_behind() {
    let server = start(4, &["--maxmemory", "20mb"]);
    let mut client = server.connect();
    let value = large(b'v', 20_000);
    let members: Vec<String> = (0..400)
        .flat_map(|n| [n.to_string(), format!("member:{n}")])
        .collect();
    client.call(&[&["ZADD".to_owned(), "source".to_owned()], &members[..]].concat());
    for round in 0..1100 {
        let (from, to) = (format!("from:{round}"), format!("to:{}", round * 7));
        for words in [
            vec!["SET", &from, &value],
            vec!["RENAME", &from, &to],
            vec!["DEL", &to],
            vec!["ZUNIONSTORE", &to, "2", "source", "other"],
            vec!["COPY", &to, &from],
            vec!["DEL", &to, &from],
        ] {
            let reply = client.call(&words);
            assert!(
                !reply.text().contains("OOM"),
                "round {round}: {words:?}: {}",
                reply.text()
            );
        }
    }
    client.line("DEL source");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(client.line("DBSIZE"), Reply::Integer(0));
    assert_eq!(figure(&mut client, "used_memory_dataset"), 0);
}

/// A node over its limit that can evict nothing sleeps.
#[test]
fn an_idle_node_over_its_limit_sleeps() {
    for (shards, policy) in [(1, "noeviction"), (4, "noeviction"), (4, "volatile-lru")] {
        let server = start(shards, &["--maxmemory-policy", policy]);
        let mut client = server.connect();
        for number in 0..100 {
            client.call(&["SET", &format!("key:{number}"), &large(b'v', 1000)]);
        }
        client.line("CONFIG SET maxmemory 1");
        if policy == "noeviction" {
            assert_eq!(client.line("SET key:0 v").text(), OOM);
        } else {
            // While another loop uses its shard, which CONFIG SET has woken it for, there may be something to evict there.
            wait_until("writes are refused", || client.line("SET key:0 v").text() == OOM);
        }
        let before = figure(&mut client, "eventloop_cycles");
        std::thread::sleep(Duration::from_secs(1));
        // The loops look at their connections and timers ten times a second.
        let turns = figure(&mut client, "eventloop_cycles") - before;
        assert!(
            turns < 100 * shards as u64,
            "{shards} shards, {policy}: {turns} turns in a second"
        );
        assert_eq!(client.line("DBSIZE"), Reply::Integer(100));
    }
}

/// The keys to evict may be on any shard; writes are refused only when no shard has one.
#[test]
fn volatile_keys_of_any_shard_go() {
    for policy in ["volatile-lru", "volatile-ttl", "volatile-random", "volatile-lfu"] {
        let server = start(4, &["--maxmemory-policy", policy]);
        let mut client = server.connect();
        // All of one shard.
        for number in 0..3000 {
            let key = format!("{{v}}:{number}");
            client.call(&["SET", &key, &large(b'v', 1000), "EX", "1000"]);
        }
        // Memory that is neither data nor clients' is read once a second.
        std::thread::sleep(Duration::from_millis(1200));
        let limit = figure(&mut client, "used_memory") + (100 << 10);
        client.line(&format!("CONFIG SET maxmemory {limit}"));
        for number in 0..2000 {
            let reply = client.call(&["SET", &format!("key:{number}"), &large(b'w', 1000)]);
            assert_eq!(reply.text(), "OK", "{policy}: SET {number}");
        }
        let evicted = figure(&mut client, "evicted_keys");
        assert!((1000..3000).contains(&evicted), "{policy}: {evicted} evicted");
        let refused = (2000..6000).any(|number| {
            client
                .call(&["SET", &format!("key:{number}"), &large(b'w', 1000)])
                .text()
                == OOM
        });
        assert!(refused, "{policy}");
        let info = client.line("INFO keyspace").text();
        assert!(info.contains("expires=0,"), "{policy}: {info}");
    }
}

/// While writes are paused the data stays as it is.
#[test]
fn nothing_is_evicted_during_a_pause() {
    for mode in ["ALL", "WRITE"] {
        let server = start(2, &["--maxmemory-policy", "allkeys-random"]);
        let mut client = server.connect();
        for number in 0..2000 {
            client.call(&["SET", &format!("key:{number}"), &large(b'v', 1000)]);
        }
        client.line(&format!("CLIENT PAUSE 400 {mode}"));
        let mut other = server.connect();
        if mode == "WRITE" {
            other.line("CONFIG SET maxmemory 1mb");
            std::thread::sleep(Duration::from_millis(150));
            assert_eq!(other.line("DBSIZE"), Reply::Integer(2000));
            std::thread::sleep(Duration::from_millis(400));
            assert!(figure(&mut other, "evicted_keys") > 0);
        } else {
            client.line("CLIENT UNPAUSE");
        }
    }
}

/// A new limit holds for the next command of any client; with small keys memory in use stays near it.
#[test]
fn the_limit_holds_at_once_and_use_stays_near_it() {
    for shards in [1, 4] {
        let server = start(shards, &["--maxmemory-policy", "allkeys-lru"]);
        let (mut client, mut other) = (server.connect(), server.connect());
        for batch in 0..200 {
            let sets = (0..500).map(|n| {
                let key = format!("key:{}", batch * 500 + n);
                words(&["SET", &key, "a value of some bytes"])
            });
            client.pipeline(&sets.collect::<Vec<_>>());
        }
        std::thread::sleep(Duration::from_millis(1200));
        let used = figure(&mut client, "used_memory");
        let limit = used - (1 << 20);
        client.line(&format!("CONFIG SET maxmemory {limit}"));
        let begun = Instant::now();
        while figure(&mut other, "used_memory") > limit + (512 << 10) {
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "memory does not come down"
            );
        }
        for batch in 0..200 {
            let sets = (0..500).map(|n| {
                let key = format!("other:{}", batch * 500 + n);
                words(&["SET", &key, "a value of some bytes"])
            });
            let replies = other.pipeline(&sets.collect::<Vec<_>>());
            assert!(replies.iter().all(|reply| reply.text() == "OK"));
        }
        std::thread::sleep(Duration::from_millis(1200));
        let used = figure(&mut client, "used_memory");
        let (low, high) = (limit - limit / 20, limit + limit / 20);
        assert!((low..high).contains(&used), "{shards} shards: {used} of {limit}");
        assert_eq!(figure(&mut client, "mem_not_counted_for_evict"), 0);
        client.line("CONFIG SET maxmemory-policy noeviction maxmemory 1");
        assert_eq!(other.line("SET k v").text(), OOM);
        client.line("CONFIG SET maxmemory 0");
        assert_eq!(other.line("SET k v").text(), "OK");
    }
}
