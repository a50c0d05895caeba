//! Fences beside clients that never rest: who waits for all that was admitted before does not wait for what comes meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use std::time::Duration;

use shardis_tests::client::{Client, encode};
use shardis_tests::info::field;
use shardis_tests::node;
use shardis_tests::process::Process;
use shardis_tests::wait::{EndOnDrop, wait_until};

/// Clients that read, on all loops.
const READERS: usize = 6;

/// Lists that they read, on all shards.
const LISTS: usize = 9;

/// Elements of each list: to look for one that is missing is left to the loop of the shard.
const ELEMENTS: usize = 500;

/// Times that a client has sent requests for all lists ahead of what it has read: more than a loop reads at once.
const AHEAD: usize = 300;

/// Time for a fence. The work that it waits for takes some milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

fn fill(server: &Process) {
    let mut client = server.connect();
    for list in 0..LISTS {
        let mut words = vec!["RPUSH".to_owned(), format!("list:{list}")];
        words.extend((0..ELEMENTS).map(|element| format!("element:{element}")));
        client.call(&words);
    }
}

/// Reads without a rest: some requests are always under way.
fn read_on(client: &mut Client, is_over: &AtomicBool) {
    let mut requests = Vec::new();
    for list in 0..LISTS {
        encode(&mut requests, &["LPOS", &format!("list:{list}"), "absent"]);
    }
    client.write(&requests.repeat(AHEAD)).expect("the server reads");
    while !is_over.load(Ordering::Relaxed) {
        client.write(&requests).expect("the server reads");
        for _ in 0..LISTS {
            client.read().expect("a reply");
        }
    }
}

/// Does something while clients read.
fn beside_readers(server: &Process, act: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    scope(|scope| {
        let _end = EndOnDrop(&is_over);
        for _ in 0..READERS {
            let (mut client, is_over) = (server.connect(), &is_over);
            scope.spawn(move || read_on(&mut client, is_over));
        }
        act();
    });
}

#[test]
fn a_pause_begins_while_clients_read_on() {
    let server = node::start(3);
    fill(&server);
    let mut client = server.connect();
    beside_readers(&server, || {
        for round in 0..10 {
            client
                .send(&["CLIENT", "PAUSE", "60000", "WRITE"])
                .expect("the server reads");
            let reply = client.read_within(PATIENCE);
            let reply = reply.unwrap_or_else(|error| panic!("no pause in round {round}: {error}"));
            assert_eq!(reply.text(), "OK");
            assert_eq!(client.line("CLIENT UNPAUSE").text(), "OK");
        }
    });
}

#[test]
fn users_change_while_clients_read_on() {
    let server = node::start(3);
    fill(&server);
    let mut client = server.connect();
    beside_readers(&server, || {
        for round in 0..10 {
            let name = format!("user:{round}");
            client
                .send(&["ACL", "SETUSER", &name, "on", "nopass", "+@read", "~*"])
                .expect("the server reads");
            let reply = client.read_within(PATIENCE);
            let reply = reply.unwrap_or_else(|error| panic!("no change in round {round}: {error}"));
            assert_eq!(reply.text(), "OK");
        }
    });
}

#[test]
fn a_role_changes_while_clients_read_on() {
    let (primary, server) = (node::start(1), node::start(3));
    primary.connect().line("CONFIG SET repl-diskless-sync-delay 0");
    for server in [&primary, &server] {
        fill(server);
    }
    let (mut client, port) = (server.connect(), primary.port());
    beside_readers(&server, || {
        for round in 0..3 {
            client.line(&format!("REPLICAOF 127.0.0.1 {port}"));
            wait_until("the link", || field(&mut client, "master_link_status") == "up");
            client.line("REPLICAOF NO ONE");
            let line = format!("SET key {round}");
            wait_until("it leads", || client.line(&line).text() == "OK");
        }
    });
}
