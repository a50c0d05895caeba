//! A listener of effects that has stopped reading holds up those who write, and nobody else; and it is never told half of what
//! belongs together.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::Receiver;
use redis::{Commands, Connection, Pipeline};
use shardis::{Effect, Server, SlowListener};

const SHARDS: usize = 3;

/// Far longer than anything here takes.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// Time after which something counts as hung.
const PATIENCE: Duration = Duration::from_secs(20);

fn start(bound: usize, slow: SlowListener) -> (Server, Receiver<Effect>) {
    let (sender, effects) = crossbeam_channel::bounded(bound);
    let builder = Server::builder()
        .shards(SHARDS)
        // With a clock that stands still a loop sleeps until it is rung.
        .manual_clock(Duration::from_secs(1_700_000_000))
        .effects(sender)
        .slow_listener(slow);
    (builder.start().expect("it starts"), effects)
}

fn connect(server: &Server) -> Connection {
    let client = redis::Client::open(server.url()).expect("the URL is one that clients take");
    client.get_connection().expect("the server accepts connections")
}

/// Runs something that must come to an end.
fn within_patience(what: impl FnOnce() + Send + 'static) {
    let (done, wait) = mpsc::channel();
    let runs = thread::spawn(move || {
        what();
        done.send(())
    });
    if wait.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("it hangs");
    }
    runs.join().expect("no panic").expect("somebody waits");
}

fn line(effect: &Effect) -> String {
    String::from_utf8(effect.words.join(&b' ')).expect("text")
}

#[test]
fn only_writers_wait_for_it() {
    within_patience(write_and_read);
}

fn write_and_read() {
    let (server, effects) = start(1, SlowListener::Wait(FOR_EVER));
    let () = connect(&server).set("first", 1).expect("there is room for it");
    let keys: Vec<String> = (0..4 * SHARDS).map(|number| format!("key:{number}")).collect();
    let writers: Vec<_> = keys
        .iter()
        .map(|key| {
            let (mut client, key) = (connect(&server), key.clone());
            thread::spawn(move || client.set::<_, _, ()>(key, "v"))
        })
        .collect();
    let mut readers: Vec<_> = (0..2 * SHARDS).map(|_| connect(&server)).collect();
    // Their commands have been run: each value is there for whoever reads, on every shard and from every loop.
    for reader in &mut readers {
        for key in &keys {
            while reader.get::<_, Option<String>>(key).expect("an answer").is_none() {
                thread::yield_now();
            }
        }
        let _: String = redis::cmd("PING").query(reader).expect("an answer");
    }
    thread::sleep(Duration::from_millis(50));
    assert!(writers.iter().all(|writer| !writer.is_finished()));
    let mut told: Vec<String> = (0..=keys.len())
        .map(|_| line(&effects.recv_timeout(PATIENCE).expect("an effect")))
        .collect();
    for writer in writers {
        writer.join().expect("no panic").expect("it is stored");
    }
    let mut expected: Vec<String> = keys.iter().map(|key| format!("SET {key} v")).collect();
    expected.push("SET first 1".to_owned());
    told.sort();
    expected.sort();
    assert_eq!(told, expected);
}

#[test]
fn a_client_that_has_waited_for_a_key_is_answered_when_its_effect_is_told() {
    within_patience(wait_and_push);
}

fn wait_and_push() {
    let (server, effects) = start(1, SlowListener::Wait(FOR_EVER));
    let mut waiting = connect(&server);
    let popped = thread::spawn(move || waiting.blpop::<_, (String, String)>("list", 0.0));
    let mut client = connect(&server);
    while redis::cmd("INFO")
        .arg("clients")
        .query::<String>(&mut client)
        .is_ok_and(|text| !text.contains("blocked_clients:1"))
    {
        thread::yield_now();
    }
    let () = client.set("first", 1).expect("there is room for it");
    let pushed = thread::spawn(move || client.rpush::<_, _, i64>("list", "element"));
    thread::sleep(Duration::from_millis(100));
    assert!(!popped.is_finished() && !pushed.is_finished());
    let told: Vec<String> = (0..3)
        .map(|_| line(&effects.recv_timeout(PATIENCE).expect("an effect")))
        .collect();
    assert_eq!(told, ["SET first 1", "RPUSH list element", "LPOP list"]);
    assert_eq!(pushed.join().expect("no panic").expect("a length"), 1);
    let (_, element) = popped.join().expect("no panic").expect("an element");
    assert_eq!(element, "element");
}

/// A transaction of three writes.
fn transaction(number: usize) -> Pipeline {
    let mut pipe = redis::pipe();
    pipe.atomic();
    for part in 0..3 {
        pipe.set(format!("key:{part}"), number).ignore();
    }
    pipe
}

#[test]
fn a_transaction_is_told_whole_or_not_at_all() {
    within_patience(run_transactions);
}

fn run_transactions() {
    for slow in [
        SlowListener::Drop,
        SlowListener::Wait(Duration::from_millis(20)),
        SlowListener::Wait(FOR_EVER),
    ] {
        for bound in [1, 4, 7] {
            let (server, effects) = start(bound, slow);
            let reader = thread::spawn(move || {
                let mut told = Vec::new();
                for effect in effects.iter() {
                    told.push(line(&effect));
                    if told.len() % 40 == 0 {
                        thread::sleep(Duration::from_millis(30));
                    }
                }
                told
            });
            let mut client = connect(&server);
            for number in 0..40 {
                let () = transaction(number).query(&mut client).expect("it is run");
            }
            drop(server);
            let told = reader.join().expect("no panic");
            let units = told.chunks(5);
            for unit in units {
                let number = unit[1].rsplit(' ').next().expect("a word");
                let sets = (0..3).map(|part| format!("SET key:{part} {number}"));
                let whole: Vec<String> = ["MULTI".to_owned()]
                    .into_iter()
                    .chain(sets)
                    .chain(["EXEC".to_owned()])
                    .collect();
                assert_eq!(unit, whole, "{slow:?} {bound}");
            }
            if slow == SlowListener::Wait(FOR_EVER) {
                assert_eq!(told.len(), 200, "{bound}");
            }
        }
    }
}

#[test]
fn a_pipeline_of_writes_is_answered_in_order_however_slow_it_is() {
    within_patience(run_pipeline);
}

fn run_pipeline() {
    let (server, effects) = start(2, SlowListener::Wait(FOR_EVER));
    let reader = thread::spawn(move || {
        effects
            .iter()
            .inspect(|_| thread::sleep(Duration::from_micros(100)))
            .count()
    });
    let mut pipe = redis::pipe();
    for number in 0..3000 {
        pipe.rpush(format!("list:{}", number % 7), number);
    }
    let lengths: Vec<usize> = pipe.query(&mut connect(&server)).expect("answers");
    let expected: Vec<usize> = (0..3000).map(|number| number / 7 + 1).collect();
    assert_eq!(lengths, expected);
    drop(server);
    assert_eq!(reader.join().expect("no panic"), 3000);
}
