//! Links to replicas, and to primaries, that a test plays: what is said while one side waits, loads, or does not read.

use std::io::Read as _;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use shardis_tests::info::{fields, figure};
use shardis_tests::wait::{accept, wait_until};

use super::replication_primary::{Played, SET_OTHER, launch_primary};
use super::replication_replica::{follow, primary, replica};
use super::replication_replica_faults::{FULL, serve_fake};

/// First words of a replica.
const GREETING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// Longer than two keepalives take.
const TWO_KEEPALIVES: Duration = Duration::from_millis(2500);

/// A replica hears a line a second until its snapshot begins, so that it does not take its primary for dead.
#[test]
fn a_replica_that_waits_for_its_snapshot_hears_a_line_a_second() {
    let waits_for_others = ["--repl-diskless-sync-delay", "600"];
    let waits_for_the_file = ["--rdb-key-save-delay", "10000000"];
    for (request, options) in [
        ("SYNC", waits_for_others),
        ("PSYNC ? -1", waits_for_others),
        ("SYNC", waits_for_the_file),
    ] {
        let primary = launch_primary(2).with(&options).serve();
        primary.connect().line("DEBUG POPULATE 10 key 10");
        // One that does not know marks gets a file, when it is complete.
        let introduction: &[&str] = match options == waits_for_others {
            true => &["REPLCONF capa eof"],
            false => &[],
        };
        let mut played = Played::connect(&primary, introduction);
        let begun = Instant::now();
        played.say(request);
        assert_eq!(played.read_exactly(2), b"\n\n", "{request}");
        assert!(
            begun.elapsed() > Duration::from_millis(900),
            "{:?}",
            begun.elapsed()
        );
    }
}

/// While it loads, a replica says nothing but empty lines. One that does not say even these is left.
#[test]
fn a_replica_that_says_nothing_while_it_loads_is_left() {
    let primary = launch_primary(1)
        .with(&["--repl-timeout", "2", "--repl-ping-replica-period", "3600"])
        .serve();
    let mut client = primary.connect();
    client.line("SET key value");
    let begin = || {
        let mut played = Played::connect(&primary, &["REPLCONF capa eof capa psync2"]);
        played.say("PSYNC ? -1");
        assert!(played.line().starts_with("+FULLRESYNC "));
        played.marked();
        played
    };
    let mut talkative = begin();
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(500));
        talkative.say("");
    }
    talkative.say("REPLCONF ACK 0");
    client.line("SET other value");
    assert_eq!(talkative.read_exactly(SET_OTHER.len()), SET_OTHER.as_bytes());
    drop(talkative);
    let mut silent = begin();
    assert!(silent.is_closed(), "it has said nothing");
    wait_until("the log tells why", || {
        primary.log().contains("timedout replica (full sync)")
    });
}

/// An acknowledgement that comes before the mark tells nothing about it: the replica has maybe not found it yet.
#[test]
fn an_acknowledgement_before_the_mark_begins_no_stream() {
    let primary = launch_primary(1).serve();
    let mut client = primary.connect();
    client.line("SET key value");
    let mut played = Played::connect(&primary, &["REPLCONF capa eof capa psync2"]);
    played.say("PSYNC ? -1\r\nREPLCONF ACK 0");
    assert!(played.line().starts_with("+FULLRESYNC "));
    played.marked();
    client.line("SET other value");
    assert!(played.is_silent());
    played.say("REPLCONF ACK 0");
    assert_eq!(played.read_exactly(SET_OTHER.len()), SET_OTHER.as_bytes());
}

/// Bytes that are kept for a replica that does not read are no reason to evict keys, but for the backlog that is configured.
#[test]
fn what_a_slow_replica_needs_evicts_no_keys() {
    const ROOM: u64 = 8 << 20;
    const KEYS: i64 = 1000;
    let primary = launch_primary(1)
        .with(&["--repl-backlog-size", "1mb", "--maxmemory-policy", "allkeys-lru"])
        .with(&["--client-output-buffer-limit", "replica 0 0 0"])
        .serve();
    let mut client = primary.connect();
    client.line(&format!("DEBUG POPULATE {KEYS} key 100"));
    let mut slow = Played::connect(&primary, &["REPLCONF capa eof"]);
    slow.say("PSYNC ? -1");
    slow.line();
    slow.marked();
    slow.say("REPLCONF ACK 0");
    wait_until("it is online", || {
        fields(&mut client)["slave0"].contains("state=online")
    });
    let limit = figure(&mut client, "used_memory") + ROOM;
    client.line(&format!("CONFIG SET maxmemory {limit}"));
    let value = "x".repeat(100_000);
    // Sockets take some megabytes by themselves.
    for _ in 0..500 {
        assert_eq!(client.line(&format!("SET big {value}")).text(), "OK");
    }
    assert!(figure(&mut client, "used_memory") > limit + ROOM);
    assert!(figure(&mut client, "mem_not_counted_for_evict") > 2 * ROOM);
    assert_eq!(figure(&mut client, "evicted_keys"), 0);
    assert_eq!(client.line("DBSIZE").integer(), Some(KEYS + 1));
    client.line("CONFIG SET repl-backlog-size 64mb");
    wait_until("a backlog of that size counts", || {
        client.line(&format!("SET big {value}"));
        figure(&mut client, "evicted_keys") > 0
    });
}

/// The lines by which a replica says that it lives while it loads belong to that link, and not to the next one.
#[test]
fn a_link_that_is_opened_again_begins_with_its_greeting() {
    let source = primary().serve();
    let mut client = source.connect();
    client.line("DEBUG POPULATE 50 key 10");
    client.line("SAVE");
    let snapshot = std::fs::read(source.directory().join("dump.rdb")).expect("the file of a save");
    let sized = [format!("${}\r\n", snapshot.len()).as_bytes(), &snapshot].concat();
    for load in ["disabled", "swapdb"] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let node = replica(2)
            .with(&["--repl-diskless-load", load, "--key-load-delay", "200000"])
            .serve();
        follow(&mut node.connect(), port);
        // It is closed when the replica says that it lives.
        serve_fake(&listener, &[FULL, &sized], Duration::ZERO);
        let mut again = accept(&listener);
        again
            .set_read_timeout(Some(Duration::from_millis(100)))
            .expect("a timeout");
        let (mut received, begun) = (Vec::new(), Instant::now());
        while begun.elapsed() < TWO_KEEPALIVES {
            let mut part = [0; 100];
            let count = again.read(&mut part).unwrap_or(0);
            received.extend_from_slice(&part[..count]);
        }
        assert_eq!(received, GREETING, "{load}: {}", received.escape_ascii());
    }
}

/// A link comes from the address that the configuration gives, if this machine has it, and from another one otherwise.
#[test]
fn a_link_comes_from_the_address_of_the_configuration() {
    // Other addresses than these two need a password or this.
    let primary = primary().with(&["--protected-mode", "no"]).serve();
    let mut source = primary.connect();
    for (given, seen) in [("127.0.0.2", "ip=127.0.0.2,"), ("192.0.2.7", "ip=127.0.0.1,")] {
        let node = replica(2).with(&["--bind-source-addr", given]).serve();
        follow(&mut node.connect(), primary.port());
        wait_until(seen, || {
            fields(&mut source)
                .get("slave0")
                .is_some_and(|replica| replica.contains(seen))
        });
        drop(node);
        wait_until("it has gone", || figure(&mut source, "connected_slaves") == 0);
    }
}
