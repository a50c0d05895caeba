//! Commands behind the one with which a transaction has failed are not kept.

use shardis_tests::client::Client;
use shardis_tests::node;
use shardis_tests::process::Process;
use shardis_tests::redis;

/// The number of queued commands that CLIENT LIST shows for another client.
fn queued(control: &mut Client, id: i64) -> String {
    let list = control.call(&["CLIENT", "LIST", "ID", &id.to_string()]).text();
    let word = list.split(' ').find_map(|word| word.strip_prefix("multi="));
    word.expect("a number of commands").to_owned()
}

/// Numbers of queued commands after each of some lines.
fn queued_after(server: &Process, lines: &[&str]) -> Vec<String> {
    let (mut client, mut other, mut control) = (server.connect(), server.connect(), server.connect());
    let id = client.call(&["CLIENT", "ID"]).integer().expect("an id");
    let numbers = lines.iter().map(|line| {
        match line.strip_prefix("other: ") {
            Some(line) => other.line(line),
            None => client.line(line),
        };
        queued(&mut control, id)
    });
    numbers.collect()
}

#[test]
fn nothing_is_queued_in_a_transaction_that_cannot_run() {
    let after_error = [
        "PING", "MULTI", "PING", "NONSENSE", "PING", "PING", "DISCARD", "PING",
    ];
    let after_change = [
        "WATCH k",
        "MULTI",
        "PING",
        "other: SET k v",
        "PING",
        "EXEC",
        "MULTI",
        "PING",
        "EXEC",
    ];
    let oracle = redis::start();
    for shards in [1, 2] {
        let server = node::start(shards);
        for lines in [&after_error[..], &after_change] {
            assert_eq!(
                queued_after(&server, lines),
                queued_after(&oracle, lines),
                "{lines:?}"
            );
        }
    }
}
