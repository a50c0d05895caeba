//! A command that comes across an expired key removes it, which is an effect: its reply waits for a listener that has stopped
//! reading, in whatever way the command runs.

use std::thread;
use std::time::Duration;

use crossbeam_channel::Receiver;
use redis::{Connection, Value};
use shardis::{Effect, Server, SlowListener};

/// Far longer than anything here takes.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// Time after which something counts as hung.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server whose listener has a full channel, and whose expired keys only commands remove.
fn start(shards: usize) -> (Server, Receiver<Effect>) {
    let (sender, effects) = crossbeam_channel::bounded(1);
    let server = Server::builder()
        .shards(shards)
        .manual_clock(Duration::from_secs(1_700_000_000))
        .directive("enable-debug-command", "yes")
        .effects(sender)
        .slow_listener(SlowListener::Wait(FOR_EVER))
        .start()
        .expect("it starts");
    let mut client = connect(&server);
    run(&mut client, "DEBUG SET-ACTIVE-EXPIRE 0");
    (server, effects)
}

fn connect(server: &Server) -> Connection {
    let client = redis::Client::open(server.url()).expect("the URL is one that clients take");
    client.get_connection().expect("the server accepts connections")
}

fn run(client: &mut Connection, line: &str) -> Value {
    let mut words = line.split(' ');
    let mut command = redis::cmd(words.next().expect("a name"));
    words.for_each(|word| {
        command.arg(word);
    });
    command
        .query(client)
        .unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn next(effects: &Receiver<Effect>) -> String {
    let effect = effects.recv_timeout(PATIENCE).expect("an effect");
    String::from_utf8(effect.words.join(&b' ')).expect("text")
}

/// Runs lines that come across the expired keys, and checks that no reply to the last one comes before the listener has read.
fn check(shards: usize, lines: &[&'static str]) {
    let (server, effects) = start(shards);
    let mut client = connect(&server);
    let keys = ["{a}1", "{b}1", "{c}1"];
    for key in keys {
        // The listener reads these; two are enough for every shard to have one with four shards.
        run(&mut client, &format!("SET {key} v PX 10"));
        next(&effects);
    }
    server.advance(Duration::from_secs(1));
    // In another database, so that a random key is one of those that have expired.
    run(&mut client, "SELECT 1");
    run(&mut client, "SET full 1");
    run(&mut client, "SELECT 0");
    let (lines, shown) = (lines.to_vec(), lines);
    let last = thread::spawn(move || {
        for line in lines {
            run(&mut client, line);
        }
    });
    thread::sleep(Duration::from_millis(50));
    assert!(!last.is_finished(), "{shown:?}, {shards} shards");
    assert_eq!(next(&effects), "SET full 1");
    let mut told = String::new();
    while !last.is_finished() {
        if let Ok(effect) = effects.recv_timeout(Duration::from_millis(1)) {
            told += &String::from_utf8(effect.words.join(&b' ')).expect("text");
        }
    }
    last.join().expect("no panic");
    // They are in the channel before the reply leaves.
    while let Ok(effect) = effects.try_recv() {
        told += &String::from_utf8(effect.words.join(&b' ')).expect("text");
    }
    assert!(told.contains("DEL {"), "{told}");
}

#[test]
fn the_reply_of_a_command_that_removes_waits_however_it_runs() {
    for lines in [
        &["GET {a}1"][..],
        &["MGET {a}1 {b}1 {c}1"],
        &["SCAN 0 COUNT 1000"],
        &["RANDOMKEY"],
        &["EXISTS {a}1 {b}1 {c}1"],
        &["MULTI", "GET {a}1", "EXEC"],
        &["MULTI", "SCAN 0 COUNT 1000", "EXEC"],
        &["MULTI", "GET {a}1", "CLIENT LIST", "PING", "EXEC"],
    ] {
        for shards in [1, 4] {
            check(shards, lines);
        }
    }
}
