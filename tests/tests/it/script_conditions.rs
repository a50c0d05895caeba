//! Conditions under which scripts run or not, beside Valkey: memory, replicas, roles, old data, a cluster.

use shardis_tests::client::Client;
use shardis_tests::process::{Process, free_port};
use shardis_tests::{node, redis};

/// Scripts that declare something, and one that does not. Each writes, if it gets there.
const SCRIPTS: &[&str] = &[
    "return redis.call('SET', KEYS[1], 1)",
    "return redis.call('GET', KEYS[1])",
    "return redis.pcall('SET', KEYS[1], 1)",
    "redis.call('DEL', KEYS[1]) return redis.call('SET', KEYS[1], 1)",
    "return redis.call('PING')",
    "#!lua\nreturn redis.call('SET', KEYS[1], 1)",
    "#!lua\nreturn redis.call('GET', KEYS[1])",
    "#!lua flags=allow-oom\nreturn redis.call('SET', KEYS[1], 1)",
    "#!lua flags=no-writes\nreturn redis.call('GET', KEYS[1])",
    "#!lua flags=no-writes\nreturn redis.call('SET', KEYS[1], 1)",
    "#!lua flags=allow-stale\nreturn redis.call('GET', KEYS[1])",
    "#!lua flags=allow-stale,no-writes\nreturn redis.call('GET', KEYS[1])",
    "#!lua flags=allow-stale,no-writes\nreturn redis.call('ECHO', KEYS[1])",
    "#!lua flags=no-cluster,no-writes\nreturn 1",
];

const BOTH: &[&str] = &["EVAL", "EVAL_RO"];

/// Replies to all scripts, alone and in a transaction.
fn replies(client: &mut Client, commands: &[&str]) -> Vec<String> {
    let mut all = Vec::new();
    for script in SCRIPTS {
        if !commands.contains(&"EVAL_RO") && script.contains("no-writes\nreturn redis.call('SET'") {
            continue;
        }
        for command in commands {
            let request = [command, script, "1", "key"];
            all.push(format!("{command} {script:?}: {}", client.call(&request)));
            client.line("MULTI");
            let queued = client.call(&request);
            let ended = client.line("EXEC");
            all.push(format!("in a transaction: {queued} {ended}"));
        }
    }
    all
}

/// Compares the replies under conditions that a line or several bring about.
fn compare(commands: &[&str], lines: &[String]) {
    let peer = redis::start_peer();
    let expected = under(&peer, commands, lines);
    for shards in [1, 4] {
        let server = node::start(shards);
        let got = under(&server, commands, lines);
        for (got, expected) in got.iter().zip(&expected) {
            assert_eq!(&without_digest(got), expected, "{shards} shards, {lines:?}");
        }
    }
}

/// A reply without the digest of its script, which Valkey's errors do not have.
fn without_digest(reply: &str) -> String {
    const DIGITS: usize = 40;
    const BEFORE: &str = " script: ";
    match reply.split_once(BEFORE) {
        Some((before, rest)) if rest.get(DIGITS..).is_some_and(|rest| rest.starts_with(", on")) => {
            let rest = rest[DIGITS + 2..].to_owned();
            format!("{before}{BEFORE}{}", without_digest(&rest))
        }
        _ => reply.to_owned(),
    }
}

fn under(server: &Process, commands: &[&str], lines: &[String]) -> Vec<String> {
    let mut client = server.connect();
    client.line("SET key old");
    for line in lines {
        let reply = client.line(line);
        assert!(!reply.is_error(), "{line}: {reply}");
    }
    replies(&mut client, commands)
}

fn lines(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|&line| line.to_owned()).collect()
}

#[test]
fn without_any_condition() {
    compare(BOTH, &[]);
}

#[test]
fn without_memory() {
    // Valkey looks at the memory before it looks whether the script may write at all; Redis does not.
    compare(&["EVAL"], &lines(&["CONFIG SET maxmemory 1"]));
}

#[test]
fn without_enough_replicas() {
    compare(BOTH, &lines(&["CONFIG SET min-replicas-to-write 1"]));
}

#[test]
fn on_a_replica() {
    let nobody = free_port();
    for serves in ["yes", "no"] {
        compare(
            BOTH,
            &[
                format!("CONFIG SET replica-serve-stale-data {serves}"),
                format!("REPLICAOF 127.0.0.1 {nobody}"),
            ],
        );
    }
}
