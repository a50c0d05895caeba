//! SCAN over several shards: its user sees one keyspace, and COUNT applies to all of it.

use std::collections::BTreeSet;

use shardis_tests::client::Client;
use shardis_tests::node;
use shardis_tests::reply::Reply;

/// A call of SCAN: its cursor, and the keys that it found.
fn call(client: &mut Client, line: &str) -> (String, Vec<String>) {
    keys_of(&client.line(line))
}

fn keys_of(reply: &Reply) -> (String, Vec<String>) {
    let [cursor, keys] = reply.items() else {
        panic!("no reply of SCAN: {reply:?}");
    };
    (cursor.text(), keys.items().iter().map(Reply::text).collect())
}

/// All calls of a walk with these options: the keys that each of them found.
fn walk(client: &mut Client, options: &str) -> Vec<Vec<String>> {
    let (mut cursor, mut calls) = ("0".to_owned(), Vec::new());
    loop {
        let (next, keys) = call(client, &format!("SCAN {cursor} {options}"));
        calls.push(keys);
        cursor = next;
        if cursor == "0" {
            return calls;
        }
        assert!(calls.len() < 100_000, "the walk does not end");
    }
}

fn fill(client: &mut Client, count: usize) {
    let words = |number: usize| [format!("key:{number}"), "value".to_owned()];
    let mut request = vec!["MSET".to_owned()];
    request.extend((0..count).flat_map(words));
    assert_eq!(client.call(&request).text(), "OK");
}

#[test]
fn one_call_finds_all_keys_when_its_count_is_large_enough() {
    for shards in [1, 2, 4] {
        let server = node::start(shards);
        let mut client = server.connect();
        assert_eq!(call(&mut client, "SCAN 0"), ("0".to_owned(), Vec::new()));
        fill(&mut client, 3);
        let (cursor, keys) = call(&mut client, "SCAN 0");
        assert_eq!((cursor.as_str(), keys.len()), ("0", 3), "{shards} shards");
        fill(&mut client, 3000);
        let (cursor, keys) = call(&mut client, "SCAN 0 COUNT 100000");
        assert_eq!((cursor.as_str(), keys.len()), ("0", 3000), "{shards} shards");
        let (cursor, keys) = call(&mut client, "SCAN 0 COUNT 100000 MATCH key:12* TYPE string");
        assert_eq!((cursor.as_str(), keys.len()), ("0", 111), "{shards} shards");
        // Another database has its own keys.
        assert_eq!(client.line("SELECT 3").text(), "OK");
        assert_eq!(
            call(&mut client, "SCAN 0 COUNT 100000"),
            ("0".to_owned(), Vec::new())
        );
        assert_eq!(client.line("SADD set a").integer(), Some(1));
        assert_eq!(call(&mut client, "SCAN 0 TYPE set").1, ["set"]);
        assert_eq!(call(&mut client, "SCAN 0 TYPE string").1, [""; 0]);
    }
}

#[test]
fn each_call_looks_at_about_as_many_keys_as_it_is_told_to() {
    for shards in [1, 2, 4] {
        let server = node::start(shards);
        let mut client = server.connect();
        fill(&mut client, 3000);
        let calls = walk(&mut client, "COUNT 700");
        assert_eq!(calls.len(), 5, "{shards} shards");
        for keys in &calls[..4] {
            // A bucket is visited as a whole.
            assert!((700..750).contains(&keys.len()), "{} keys", keys.len());
        }
        let found: BTreeSet<&String> = calls.iter().flatten().collect();
        assert_eq!(found.len(), 3000);
        // Keys that the pattern excludes have been visited all the same.
        let calls = walk(&mut client, "COUNT 700 MATCH key:5");
        assert_eq!((calls.len(), calls.concat()), (5, vec!["key:5".to_owned()]));
    }
}

#[test]
fn a_walk_finds_what_is_there_all_the_time() {
    for shards in [2, 4] {
        let server = node::start(shards);
        let (mut client, mut other) = (server.connect(), server.connect());
        fill(&mut client, 500);
        for count in [1, 7, 60, 400] {
            let (mut cursor, mut found, mut round) = ("0".to_owned(), BTreeSet::new(), 0);
            loop {
                let (next, keys) = call(&mut client, &format!("SCAN {cursor} COUNT {count}"));
                found.extend(keys.into_iter().filter(|key| key.starts_with("key:")));
                cursor = next;
                if cursor == "0" {
                    break;
                }
                // The tables grow and shrink meanwhile.
                if round == 40 {
                    continue;
                }
                let names = |number: usize| format!("other:{round}:{number}");
                let mut request = vec!["MSET".to_owned()];
                request.extend((0..100).flat_map(|number| [names(number), "v".to_owned()]));
                other.call(&request);
                if round % 3 == 2 {
                    let mut request = vec!["DEL".to_owned()];
                    let old = |number: usize| format!("other:{}:{number}", round - 1);
                    request.extend((0..100).map(old));
                    other.call(&request);
                }
                round += 1;
            }
            assert_eq!(found.len(), 500, "{shards} shards, COUNT {count}");
        }
    }
}

#[test]
fn in_a_transaction_and_behind_other_commands() {
    for shards in [1, 2, 4] {
        let server = node::start(shards);
        let mut client = server.connect();
        fill(&mut client, 50);
        let words = |line: &str| {
            line.split(' ')
                .map(|word| word.as_bytes().to_vec())
                .collect::<Vec<_>>()
        };
        let lines = [
            "MULTI",
            "SET more 1",
            "SCAN 0 COUNT 1000",
            "SCAN 1 COUNT 1000",
            "EXEC",
        ];
        let replies = client.pipeline(&lines.map(words));
        let (cursor, keys) = keys_of(&replies[4].items()[1]);
        assert_eq!((cursor.as_str(), keys.len()), ("0", 51), "{shards} shards");
        // Replies keep their order, and a call finds the keys that exist when its turn comes.
        let lines = [
            "SET last 1",
            "SCAN 0 COUNT 1000",
            "DEL last more",
            "SCAN 0 COUNT 1000",
            "PING",
        ];
        let replies = client.pipeline(&lines.map(words));
        assert_eq!(keys_of(&replies[1]).1.len(), 52);
        assert_eq!(replies[2].integer(), Some(2));
        assert_eq!(keys_of(&replies[3]).1.len(), 50);
        assert_eq!(replies[4].text(), "PONG");
        // An invalid cursor, and wrong options, wherever they are noticed.
        assert_eq!(client.line("SCAN x").text(), "ERR invalid cursor");
        assert_eq!(client.line("SCAN 1 COUNT 0").text(), "ERR syntax error");
        assert_eq!(client.line("SCAN 0 FOO").text(), "ERR syntax error");
    }
}

#[test]
fn keys_that_have_expired_are_left_out_on_every_shard() {
    for shards in [1, 4] {
        let server = node::start(shards);
        let mut client = server.connect();
        fill(&mut client, 200);
        for number in 0..100 {
            client.line(&format!("PEXPIRE key:{number} 1"));
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
        let (cursor, keys) = call(&mut client, "SCAN 0 COUNT 1000");
        assert_eq!((cursor.as_str(), keys.len()), ("0", 100), "{shards} shards");
    }
}
