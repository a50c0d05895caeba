//! Concurrent clients against four shards: every key behaves as if there were one of it, and what concerns
//! several keys happens to all of them at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use shardis_tests::client::Client;
use shardis_tests::history::{self, Event, Operation, is_linearizable};
use shardis_tests::process::Process;
use shardis_tests::reply::Reply;
use shardis_tests::slot::one_key_per_shard;
use shardis_tests::wait::EndOnDrop;
use shardis_tests::{node, redis};

const SHARDS: usize = 4;

/// Clients that speak at the same time.
const CLIENTS: usize = 8;

/// Operations of each client.
const OPERATIONS: usize = 300;

/// The events of each key, as `CLIENTS` clients saw them.
fn record(server: &Process, keys: &[String]) -> Vec<Vec<Event>> {
    history::record(CLIENTS, OPERATIONS, keys, || {
        let mut client = server.connect();
        move |_key: &str, words: &[&str]| client.call(words)
    })
}

#[test]
fn every_key_is_linearizable() {
    let server = node::start(SHARDS);
    let keys = one_key_per_shard("key", SHARDS);
    for (key, events) in keys.iter().zip(record(&server, &keys)) {
        assert!(events.len() > OPERATIONS, "{key} was used {} times", events.len());
        assert!(
            is_linearizable(&events),
            "{key}: no order of these explains them: {events:#?}"
        );
    }
}

/// A checker that accepts everything would let the test above pass.
#[test]
fn a_doctored_history_is_refused() {
    let server = redis::start();
    let mut events = record(&server, &["key".to_owned()]).remove(0);
    assert!(is_linearizable(&events));
    let at = events
        .iter()
        .position(|event| matches!(event.operation, Operation::Get(Some(_))))
        .expect("some client saw a value");
    events[at].operation = Operation::Get(Some(-1));
    assert!(!is_linearizable(&events), "a value that nobody wrote was seen");
}

/// Runs `readers` beside `write` until the writer is through, and returns how often they looked.
fn watch_while(
    server: &Process,
    write: impl FnOnce(&mut Client) + Send,
    look: impl Fn(&mut Client) + Sync,
) -> usize {
    let is_over = AtomicBool::new(false);
    let (is_over, look) = (&is_over, &look);
    thread::scope(|scope| {
        let reader = move || {
            let mut client = server.connect();
            let mut looks = 0;
            while !is_over.load(Ordering::Relaxed) {
                look(&mut client);
                looks += 1;
            }
            looks
        };
        let readers: Vec<_> = (0..3).map(|_| scope.spawn(reader)).collect();
        let writer = scope.spawn(move || {
            let _end = EndOnDrop(is_over);
            write(&mut server.connect());
        });
        writer.join().expect("the writer ends well");
        readers
            .into_iter()
            .map(|reader| reader.join().expect("no reader saw anything half done"))
            .sum()
    })
}

/// Writes of each writer below.
const WRITES: usize = 600;

/// All values of a reply are the same.
fn assert_whole(reply: &Reply) {
    let values = reply.items();
    assert!(
        !values.is_empty() && values.iter().all(|value| *value == values[0]),
        "half done: {reply}"
    );
}

#[test]
fn mset_is_never_seen_half_done() {
    let server = node::start(SHARDS);
    let keys = one_key_per_shard("m", SHARDS);
    let mget: Vec<&str> = ["MGET"]
        .into_iter()
        .chain(keys.iter().map(String::as_str))
        .collect();
    let write = |client: &mut Client| {
        for value in 0..WRITES {
            let value = value.to_string();
            let pairs = keys.iter().flat_map(|key| [key.as_str(), value.as_str()]);
            let mset: Vec<&str> = ["MSET"].into_iter().chain(pairs).collect();
            assert_eq!(client.call(&mset).text(), "OK");
        }
    };
    let looks = watch_while(&server, write, |client| assert_whole(&client.call(&mget)));
    assert!(looks > 10, "only {looks} looks");
}

#[test]
fn a_transaction_is_never_seen_half_done() {
    let server = node::start(SHARDS);
    let keys = one_key_per_shard("t", SHARDS);
    let transaction = |commands: Vec<Vec<Vec<u8>>>| {
        let multi = vec![vec![b"MULTI".to_vec()]];
        let exec = vec![vec![b"EXEC".to_vec()]];
        multi.into_iter().chain(commands).chain(exec).collect::<Vec<_>>()
    };
    let on_each_key = |words: &[&str]| {
        let command = |key: &String| {
            let mut command: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
            command.insert(1, key.as_bytes().to_vec());
            command
        };
        transaction(keys.iter().map(command).collect())
    };
    let write = |client: &mut Client| {
        for _ in 0..WRITES {
            let replies = client.pipeline(&on_each_key(&["INCR"]));
            assert_whole(replies.last().expect("EXEC answers"));
        }
    };
    let reads = on_each_key(&["GET"]);
    let looks = watch_while(&server, write, |client| {
        assert_whole(client.pipeline(&reads).last().expect("EXEC answers"));
    });
    assert!(looks > 10, "only {looks} looks");
}

#[test]
fn rename_between_shards_never_shows_both_names_nor_none() {
    let server = node::start(SHARDS);
    let keys = one_key_per_shard("r", SHARDS);
    server.connect().call(&["SET", &keys[0], "here"]);
    let write = |client: &mut Client| {
        for step in 0..WRITES {
            let (from, to) = (&keys[step % SHARDS], &keys[(step + 1) % SHARDS]);
            assert_eq!(client.call(&["RENAME", from, to]).text(), "OK");
        }
    };
    let mget: Vec<&str> = ["MGET"]
        .into_iter()
        .chain(keys.iter().map(String::as_str))
        .collect();
    let looks = watch_while(&server, write, |client| {
        let reply = client.call(&mget);
        assert_eq!(
            reply.items().iter().filter(|value| !value.is_null()).count(),
            1,
            "half done: {reply}"
        );
    });
    assert!(looks > 10, "only {looks} looks");
}

#[test]
fn counters_over_several_shards_lose_nothing() {
    let server = node::start(SHARDS);
    let keys = one_key_per_shard("c", SHARDS);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = server.connect();
                let increments: Vec<Vec<Vec<u8>>> = keys
                    .iter()
                    .cycle()
                    .take(OPERATIONS * SHARDS)
                    .map(|key| vec![b"INCR".to_vec(), key.as_bytes().to_vec()])
                    .collect();
                for reply in client.pipeline(&increments) {
                    assert!(reply.integer().is_some(), "{reply}");
                }
            });
        }
    });
    let mut client = server.connect();
    for key in &keys {
        assert_eq!(
            client.call(&["GET", key]).text(),
            (CLIENTS * OPERATIONS).to_string()
        );
    }
}
