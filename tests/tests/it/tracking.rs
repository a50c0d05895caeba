//! Client-side caching with many clients at once: what is told before an acknowledgement can be acted on, caches that stay right,
//! bounds, and every way in which keys change.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use shardis_tests::client::Client;
use shardis_tests::info::figure;
use shardis_tests::node;
use shardis_tests::process::Process;
use shardis_tests::reply::Reply;
use shardis_tests::wait::wait_until;

/// A client that speaks RESP3.
fn connect(server: &Process) -> Client {
    let mut client = server.connect();
    assert!(matches!(client.line("HELLO 3"), Reply::Map(_)));
    client
}

/// A client that speaks RESP3 and tracks with these options.
fn tracker(server: &Process, options: &str) -> Client {
    let mut client = connect(server);
    let reply = client.line(&format!("CLIENT TRACKING ON {options}"));
    assert_eq!(reply.text(), "OK");
    client
}

/// Adds the keys of a message; the word `all` stands for all keys.
fn add_keys(message: &Reply, keys: &mut Vec<String>) {
    let words = message.items();
    let content = match words[0].text().as_str() {
        "invalidate" => &words[1],
        "message" => &words[2],
        _ => panic!("{message}"),
    };
    if content.is_null() {
        keys.push("all".to_owned());
    }
    keys.extend(content.items().iter().map(Reply::text));
}

/// The reply to a request, and the keys of the messages that came before it.
fn ask(client: &mut Client, words: &[&str]) -> (Reply, Vec<String>) {
    client.send(words).expect("a connection");
    let mut keys = Vec::new();
    loop {
        match client.read().expect("a reply") {
            message @ Reply::Push(_) => add_keys(&message, &mut keys),
            reply => return (reply, keys),
        }
    }
}

/// The keys of all messages that have come.
pub(super) fn told(client: &mut Client) -> Vec<String> {
    let (reply, keys) = ask(client, &["PING"]);
    assert_eq!(reply.text(), "PONG");
    keys
}

/// Every message about a change is in place when the writer knows of the change: what a tracker asks after that is answered behind the
/// message. Clients are dealt to loops in turn, so that trackers, writers and keys meet in all combinations.
#[test]
fn who_knows_of_a_change_knows_that_trackers_were_told() {
    let server = node::start(4);
    let mut trackers: Vec<Client> = (0..4).map(|_| tracker(&server, "")).collect();
    let mut broadcast: Vec<Client> = (0..4).map(|_| tracker(&server, "BCAST PREFIX key")).collect();
    let mut writers: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    for round in 0..1500 {
        let key = format!("key:{}", round % 97);
        let tracker = &mut trackers[round % 4];
        ask(tracker, &["GET", &key]);
        let writer = &mut writers[round / 4 % 4];
        assert_eq!(writer.call(&["SET", &key, &round.to_string()]).text(), "OK");
        assert_eq!(told(tracker), [key.as_str()], "round {round}");
        let listener = &mut broadcast[round / 16 % 4];
        let keys = told(listener);
        assert_eq!(keys.last(), Some(&key), "round {round}");
    }
}

#[test]
fn who_knows_of_a_change_knows_that_the_client_was_told_which_a_tracker_has_named() {
    let server = node::start(4);
    let mut writers: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    for round in 0..400 {
        let mut target = server.connect();
        let id = target.line("CLIENT ID").integer().expect("an id");
        target.line("SUBSCRIBE __redis__:invalidate");
        let mut tracker = server.connect();
        tracker.line(&format!("CLIENT TRACKING ON REDIRECT {id}"));
        let key = format!("key:{round}");
        tracker.call(&["GET", &key]);
        let writer = &mut writers[round % 4];
        writer.call(&["MSET", &key, "v", "other", "v"]);
        target.send(&["PING"]).expect("a connection");
        let mut keys = Vec::new();
        add_keys(&target.read().expect("a message"), &mut keys);
        assert_eq!(keys, [key]);
        assert_eq!(target.read().expect("a reply").items()[0].text(), "pong");
    }
}

/// Changes that a client can only know of by what others publish, or by what it has waited for.
#[test]
fn messages_come_before_what_came_of_a_change() {
    let server = node::start(4);
    let mut writers: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    for round in 0..300 {
        let mut tracker = tracker(&server, "");
        let (key, list) = (format!("key:{round}"), format!("list:{round}"));
        ask(&mut tracker, &["GET", &key]);
        let [first, second, third] = &mut writers[..] else {
            unreachable!("there are three")
        };
        tracker.line("SUBSCRIBE news");
        tracker.send(&["BLPOP", &list, "0"]).expect("a connection");
        first.call(&["SET", &key, "1"]);
        second.call(&["PUBLISH", "news", "x"]);
        third.call(&["RPUSH", &list, "x"]);
        let mut first_words = || tracker.read().expect("a message").items()[0].text();
        assert_eq!(first_words(), "invalidate", "round {round}");
        // What was published and what was waited for have no order, and the message may be repeated behind a reply.
        let mut missing = BTreeSet::from(["message".to_owned(), list]);
        while !missing.is_empty() {
            let words = first_words();
            assert!(
                missing.remove(&words) || words == "invalidate",
                "round {round}: {words}"
            );
        }
    }
}

/// The message about an own change follows its reply, also where a pipeline goes over several shards that others keep busy.
#[test]
fn own_messages_follow_own_replies() {
    const KEYS: usize = 64;
    for shards in [1, 4] {
        let server = node::start(shards);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| keep_busy(&server, &stop));
            }
            // However this ends, the others end with it.
            let _over = Over(&stop);
            let mut client = tracker(&server, "");
            let keys: Vec<String> = (0..KEYS).map(|number| format!("key:{number}")).collect();
            for round in 0..150 {
                for verb in ["GET", "SET"] {
                    keys.iter().for_each(|key| {
                        let words = [verb, key, "v"];
                        let words = if verb == "GET" { &words[..2] } else { &words };
                        client.send(words).expect("a connection");
                    });
                }
                let (mut replies, mut told) = (0, 0);
                while replies < 2 * KEYS || told < KEYS {
                    let reply = client.read().expect("a reply");
                    let Reply::Push(message) = reply else {
                        replies += 1;
                        continue;
                    };
                    let key = message[1].items()[0].text();
                    let number = keys
                        .iter()
                        .position(|known| *known == key)
                        .expect("one of the keys");
                    assert!(
                        replies > KEYS + number,
                        "round {round}: {key} after {replies} replies"
                    );
                    told += 1;
                }
            }
        });
    }
}

/// Guard: tells others to stop when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Writes other keys on all shards until told to stop.
fn keep_busy(server: &Process, stop: &AtomicBool) {
    let mut client = server.connect();
    let request = |number| {
        vec![
            b"SET".to_vec(),
            format!("other:{number}").into_bytes(),
            b"v".to_vec(),
        ]
    };
    let requests: Vec<_> = (0..200).map(request).collect();
    while !stop.load(Ordering::Relaxed) {
        client.pipeline(&requests);
    }
}

#[test]
fn each_change_is_told_once_to_those_with_its_prefix() {
    for shards in [1, 4] {
        let server = node::start(shards);
        let mut one = tracker(&server, "BCAST PREFIX a PREFIX b");
        let mut other = tracker(&server, "BCAST PREFIX b");
        let mut all = tracker(&server, "BCAST");
        let mut writer = server.connect();
        let requests: Vec<Vec<Vec<u8>>> = (0..3000)
            .map(|number| {
                let key = format!("{}{number}", ["a", "b", "c"][number % 3]);
                vec![b"SET".to_vec(), key.into_bytes(), b"v".to_vec()]
            })
            .collect();
        writer.pipeline(&requests);
        for (client, count) in [(&mut one, 2000), (&mut other, 1000), (&mut all, 3000)] {
            let keys = told(client);
            assert_eq!(
                (keys.len(), keys.iter().collect::<BTreeSet<_>>().len()),
                (count, count)
            );
        }
    }
}

/// A table beyond its bound drops keys, whose readers are told.
#[test]
fn the_table_is_bounded() {
    for shards in [1, 4] {
        let server = node::launch(shards)
            .with(&["--tracking-table-max-keys", "100"])
            .serve();
        let mut client = tracker(&server, "");
        let mut dropped = 0;
        for number in 0..1000 {
            dropped += ask(&mut client, &["GET", &format!("key:{number}")]).1.len();
        }
        wait_until("the tracker was told of the first keys", || {
            dropped += told(&mut client).len();
            dropped >= 900
        });
        let mut other = server.connect();
        assert_eq!(figure(&mut other, "tracking_total_keys"), 100);
        assert_eq!(dropped, 900);
        assert_eq!(figure(&mut other, "tracking_clients"), 1);
        other.line("CONFIG SET tracking-table-max-keys 10");
        wait_until("the excess was dropped", || {
            figure(&mut other, "tracking_total_keys") <= 10
        });
        assert_eq!(figure(&mut other, "tracking_total_keys"), 10);
        let mut dropped = 0;
        wait_until("the tracker was told of them", || {
            dropped += told(&mut client).len();
            dropped >= 90
        });
        assert_eq!(dropped, 90);
        other.line("FLUSHALL");
        assert_eq!(figure(&mut other, "tracking_total_keys"), 0);
        assert_eq!(figure(&mut other, "tracking_total_items"), 0);
        assert_eq!(told(&mut client), ["all"]);
    }
}

#[test]
fn a_tracker_that_does_not_read_takes_bounded_memory() {
    let server = node::start(2);
    let mut slow = tracker(&server, "BCAST");
    let mut writer = server.connect();
    let suffix = "k".repeat(10_000);
    let mut requests = Vec::new();
    for number in 0..500 {
        let key = format!("{number}{suffix}");
        requests.push(vec![b"SET".to_vec(), key.clone().into_bytes(), b"v".to_vec()]);
        requests.push(vec![b"DEL".to_vec(), key.into_bytes()]);
    }
    for _ in 0..20 {
        writer.pipeline(&requests);
    }
    let line = writer.line("CLIENT LIST").text();
    let omem = line
        .split_whitespace()
        .filter_map(|field| field.strip_prefix("omem="))
        .map(|bytes| bytes.parse::<u64>().expect("a number"))
        .max();
    assert!(
        omem.is_some_and(|bytes| (1 << 20..80 << 20).contains(&bytes)),
        "{line}"
    );
    let keys = told(&mut slow);
    assert_eq!(keys.last().map(String::as_str), Some("all"));
    writer.line("SET after v");
    assert_eq!(told(&mut slow), ["after"]);
}

#[test]
fn broadcasts_name_no_keys_that_a_user_may_not_read() {
    for shards in [1, 4] {
        let server = node::start(shards);
        let mut writer = server.connect();
        writer.line("ACL SETUSER u on nopass +@all ~mine:* %W~secret:*");
        let mut client = connect(&server);
        assert_eq!(client.line("AUTH u x").text(), "OK");
        client.line("CLIENT TRACKING ON BCAST");
        writer.line("MSET mine:1 v secret:1 v other v");
        assert_eq!(told(&mut client), ["mine:1"]);
        writer.line("SET secret:2 v");
        assert!(told(&mut client).is_empty());
        writer.line("FLUSHALL");
        assert_eq!(told(&mut client), ["all"]);
    }
}

#[test]
fn every_way_in_which_keys_change_is_told() {
    for shards in [1, 4] {
        let server = node::launch(shards)
            .with(&[
                "--enable-debug-command",
                "yes",
                "--maxmemory-policy",
                "allkeys-lru",
            ])
            .serve();
        let mut writer = server.connect();
        let mut client = tracker(&server, "");
        ask(&mut client, &["EXISTS", "a"]);
        writer.line("MSET x 1 y 2");
        assert_eq!(writer.line("SWAPDB 0 1").text(), "OK");
        assert_eq!(told(&mut client), ["all"]);
        for line in [
            "DEBUG RELOAD",
            "DEBUG RELOAD NOSAVE",
            "FLUSHALL ASYNC",
            "FLUSHDB SYNC",
        ] {
            ask(&mut client, &["EXISTS", "a"]);
            assert_eq!(writer.line(line).text(), "OK", "{line}");
            assert_eq!(told(&mut client), ["all"], "{line}");
        }
        let other = node::start(shards);
        writer.line("SET a 1");
        ask(&mut client, &["EXISTS", "a"]);
        let moved = format!("MIGRATE 127.0.0.1 {} a 0 5000", other.port());
        assert_eq!(writer.line(&moved).text(), "OK");
        assert_eq!(told(&mut client), ["a"]);
        // Expiry that nobody looks for, of keys and of fields.
        writer.line("SET a 1 PX 700");
        writer.line("HSET h f v");
        writer.line("HPEXPIRE h 700 FIELDS 1 f");
        ask(&mut client, &["EXISTS", "a"]);
        ask(&mut client, &["EXISTS", "h"]);
        let mut keys = Vec::new();
        wait_until("both have expired", || {
            keys.extend(told(&mut client));
            keys.len() >= 2
        });
        keys.sort();
        assert_eq!(keys, ["a", "h"]);
        // Eviction.
        let value = "v".repeat(1000);
        for number in 0..2000 {
            writer.call(&["SET", &format!("key:{number}"), &value]);
            ask(&mut client, &["EXISTS", &format!("key:{number}")]);
        }
        let used = figure(&mut writer, "used_memory");
        writer.call(&["CONFIG", "SET", "maxmemory", &(used - 500_000).to_string()]);
        wait_until("keys were evicted", || {
            writer.line("PING");
            figure(&mut writer, "evicted_keys") > 100
        });
        writer.line("CONFIG SET maxmemory 0");
        let evicted = figure(&mut writer, "evicted_keys") as usize;
        let keys = told(&mut client);
        assert_eq!(keys.len(), evicted);
        assert!(
            keys.iter()
                .all(|key| writer.call(&["EXISTS", key]).integer() == Some(0))
        );
    }
}

#[test]
fn readers_of_a_replica_are_told_what_the_stream_changes() {
    for shards in [1, 4] {
        let (primary, replica) = (node::start(shards), node::start(shards));
        let mut writer = primary.connect();
        writer.line("SET a 1");
        let mut client = tracker(&replica, "");
        let mut broadcast = tracker(&replica, "BCAST PREFIX a");
        ask(&mut client, &["GET", "a"]);
        let mut admin = replica.connect();
        admin.line(&format!("REPLICAOF 127.0.0.1 {}", primary.port()));
        let mut other = replica.connect();
        wait_until("the data came", || other.line("GET a").text() == "1");
        // The data came as a whole.
        assert_eq!(told(&mut client).first().map(String::as_str), Some("all"));
        assert_eq!(told(&mut broadcast).first().map(String::as_str), Some("all"));
        ask(&mut client, &["GET", "a"]);
        writer.line("SET a 2");
        wait_until("the change came", || other.line("GET a").text() == "2");
        assert_eq!(told(&mut client), ["a"]);
        assert_eq!(told(&mut broadcast), ["a"]);
        ask(&mut client, &["GET", "a"]);
        writer.line("FLUSHALL");
        wait_until("the flush came", || other.line("DBSIZE").integer() == Some(0));
        assert_eq!(told(&mut client), ["all"]);
    }
}

#[test]
fn the_states_of_clients_are_shown() {
    let server = node::start(4);
    let mut target = server.connect();
    let id = target.line("CLIENT ID").integer().expect("an id");
    let mut client = tracker(&server, &format!("REDIRECT {id}"));
    let info = client.line("CLIENT INFO").text();
    assert!(
        info.contains(" flags=t ") && info.contains(&format!(" redir={id} ")),
        "{info}"
    );
    ask(&mut client, &["GET", "k"]);
    drop(target);
    let mut writer = server.connect();
    wait_until("the client is gone", || {
        !writer.line("CLIENT LIST").text().contains(&format!("id={id} "))
    });
    writer.line("SET k 1");
    let message = client.read().expect("a message");
    assert_eq!(message.items()[0].text(), "tracking-redir-broken");
    assert_eq!(message.items()[1].integer(), Some(id));
    let info = client.line("CLIENT INFO").text();
    assert!(info.contains(" flags=tR "), "{info}");
    let flags = client.line("CLIENT TRACKINGINFO").to_string();
    assert!(flags.contains("broken_redirect"), "{flags}");
    drop(client);
    wait_until("the tracker is gone", || {
        figure(&mut writer, "tracking_clients") == 0
    });
}

#[test]
fn a_hundred_clients_track() {
    let server = node::start(4);
    let mut clients: Vec<Client> = (0..100).map(|_| tracker(&server, "")).collect();
    let keys: Vec<String> = (0..200).map(|number| format!("key:{number}")).collect();
    for client in &mut clients {
        let requests: Vec<_> = keys
            .iter()
            .map(|key| vec![b"GET".to_vec(), key.clone().into_bytes()])
            .collect();
        client.pipeline(&requests);
    }
    let mut writer = server.connect();
    assert_eq!(figure(&mut writer, "tracking_total_keys"), 200);
    assert_eq!(figure(&mut writer, "tracking_total_items"), 20_000);
    for key in &keys {
        writer.call(&["SET", key, "v"]);
    }
    for client in &mut clients {
        assert_eq!(told(client), keys);
    }
    assert_eq!(figure(&mut writer, "tracking_total_items"), 0);
}
