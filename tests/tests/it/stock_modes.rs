//! Modes of redis-cli that are no single command, against one shard and three: what each shows is compared with what it shows
//! of a real server, or with what it must show.

use std::time::{Duration, Instant};

use shardis_tests::process::{Finished, Launch, Process};
use shardis_tests::{node, redis};

/// Longer than any of these runs takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A run of redis-cli to come.
fn cli(server: &Process, options: &[&str]) -> Launch {
    Launch::new(&redis::tool("redis-cli"))
        .with(&["-p", &server.port().to_string()])
        .with(options)
}

/// Output of a run that ends by itself.
fn printed(server: &Process, options: &[&str]) -> String {
    ended_well(cli(server, options).finish(PATIENCE), options)
}

fn ended_well(finished: Finished, options: &[&str]) -> String {
    assert_eq!(finished.code, Some(0), "{options:?}: {}", finished.text());
    finished.output
}

/// A run of redis-cli that goes on until it is stopped, and does not keep its output to itself.
fn running(server: &Process, options: &[&str]) -> Process {
    let program = redis::tool("redis-cli").display().to_string();
    let port = server.port().to_string();
    Launch::new(&redis::tool("stdbuf"))
        .with(&["-oL", &program, "-p", &port])
        .with(options)
        .spawn(0)
}

/// Waits until a run has printed something.
fn wait_for(run: &Process, text: &str) {
    let begin = Instant::now();
    while !run.log().contains(text) {
        assert!(begin.elapsed() < PATIENCE, "no '{text}' in: {}", run.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a check beside a real server against one shard and three.
fn beside_redis(check: impl Fn(&Process) -> String) {
    let expected = check(&redis::start());
    for shards in [1, 3] {
        assert_eq!(check(&node::start(shards)), expected, "{shards} shards");
    }
}

#[test]
fn the_last_argument_and_a_tagged_one_come_from_standard_input() {
    beside_redis(|server| {
        let options = ["-x", "set", "last"];
        ended_well(
            cli(server, &options).input("a value\n").finish(PATIENCE),
            &options,
        );
        let options = ["-X", "tag", "set", "tagged", "tag", "EX", "100"];
        ended_well(cli(server, &options).input("another").finish(PATIENCE), &options);
        printed(server, &["mget", "last", "tagged"])
    });
}

#[test]
fn replies_as_json_in_both_protocols() {
    beside_redis(|server| {
        let mut all = String::new();
        for options in [
            &["--json", "hset", "h", "f", "1", "g", "2"][..],
            &["--json", "hgetall", "h"],
            &["-3", "--json", "hgetall", "h"],
            &["-3", "--json", "client", "trackinginfo"],
            &["--json", "role"],
            &["-3", "--json", "zadd", "z", "1.5", "a"],
            &["-3", "--json", "zrange", "z", "0", "-1", "withscores"],
            &["-3", "hgetall", "h"],
        ] {
            all += &printed(server, options);
        }
        all
    });
}

#[test]
fn hot_keys_are_found_under_an_lfu_policy() {
    for shards in [1, 3] {
        let server = node::start(shards);
        let mut client = server.connect();
        client.line("SET cold:0 v");
        let without = cli(&server, &["--hotkeys"]).finish(PATIENCE);
        assert!(
            without.text().contains("LFU maxmemory policy is not selected"),
            "{}",
            without.text()
        );
        client.line("CONFIG SET maxmemory-policy allkeys-lfu");
        for number in 0..100 {
            client.line(&format!("SET cold:{number} v"));
        }
        for _ in 0..500 {
            client.line("GET cold:42");
        }
        let found = printed(&server, &["--hotkeys"]);
        assert!(found.contains("Sampled 100 keys"), "{found}");
        let hottest = found
            .lines()
            .find(|line| line.starts_with("hot key found with counter:"));
        assert!(
            hottest.is_some_and(|line| line.contains("\"cold:42\"")),
            "{found}"
        );
    }
}

#[test]
fn simulated_caches_are_hit_more_and_more() {
    for shards in [1, 3] {
        let server = node::start(shards);
        let mut client = server.connect();
        client.line("CONFIG SET maxmemory 64mb");
        client.line("CONFIG SET maxmemory-policy allkeys-lru");
        let run = running(&server, &["--lru-test", "2000"]);
        wait_for(&run, "Gets/sec | Hits:");
        let rounds = |run: &Process| run.log().matches("Gets/sec").count();
        let begin = Instant::now();
        while rounds(&run) < 3 {
            assert!(begin.elapsed() < PATIENCE, "{}", run.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        let last = run
            .log()
            .lines()
            .rfind(|line| line.contains("Misses: "))
            .unwrap_or_default()
            .to_owned();
        let hits = last
            .split_once("Hits: ")
            .and_then(|(_, rest)| rest.split_once('('));
        let percent = hits.and_then(|(_, rest)| rest.split('%').next()?.parse::<f64>().ok());
        assert!(
            percent.is_some_and(|percent| percent > 90.0),
            "all 2,000 keys have room: {last}"
        );
    }
}

#[test]
fn latency_is_measured_in_all_its_forms() {
    let server = node::start(2);
    let history = running(&server, &["--latency-history", "-i", "1"]);
    wait_for(&history, "seconds range");
    let distribution = running(&server, &["--latency-dist", "-i", "1"]);
    wait_for(&distribution, "\x1b[48;5;");
    let own = printed(&server, &["--intrinsic-latency", "1"]);
    assert!(own.contains("total runs"), "{own}");
}

#[test]
fn commands_are_watched() {
    for shards in [1, 3] {
        let server = node::start(shards);
        let watcher = running(&server, &["monitor"]);
        wait_for(&watcher, "OK");
        printed(&server, &["set", "k", "a b"]);
        wait_for(&watcher, "\"set\" \"k\" \"a b\"");
    }
}

#[test]
fn messages_are_shown_as_they_come() {
    for shards in [1, 3] {
        let server = node::start(shards);
        for protocol in ["-2", "-3"] {
            let subscriber = running(&server, &[protocol, "subscribe", "news"]);
            wait_for(&subscriber, "subscribe\nnews\n1\n");
            let reader = running(&server, &[protocol, "psubscribe", "n*"]);
            wait_for(&reader, "psubscribe\nn*\n1\n");
            assert_eq!(printed(&server, &["publish", "news", "first"]), "2\n");
            wait_for(&subscriber, "message\nnews\nfirst\n");
            wait_for(&reader, "pmessage\nn*\nnews\nfirst\n");
        }
    }
}

#[test]
fn a_server_that_is_no_cluster_is_told_apart() {
    let server = node::start(2);
    let address = format!("127.0.0.1:{}", server.port());
    let finished = Launch::new(&redis::tool("redis-cli"))
        .with(&["--cluster", "info", &address])
        .finish(PATIENCE);
    assert!(
        finished.text().contains("is not configured as a cluster node"),
        "{}",
        finished.text()
    );
}
