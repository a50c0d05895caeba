//! Faults of a replica's link: cut at any byte, silent, half open; transfers that are no snapshot; a primary that stops or dies.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;
use std::thread::{scope, sleep};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use shardis_tests::client::encode;
use shardis_tests::info::{field, figure};
use shardis_tests::replication::proxy::{Direction, Proxy, Rules};
use shardis_tests::wait::{accept, wait_until};

use super::replication_replica::{
    EndOf, call_when_loaded, check_same, follow, primary, replica, seed, seed_until, wait_for_link,
};

#[test]
fn a_link_that_is_cut_anywhere_is_made_up_for() {
    for shards in [1, 4] {
        let redis = primary().with(&["--repl-backlog-size", "64mb"]).serve();
        let node = replica(shards).serve();
        let (mut source, mut client) = (redis.connect(), node.connect());
        seed(&mut source, 1, 20);
        let proxy = Proxy::to(redis.port());
        let cut_after = |bytes| {
            proxy.set(Rules {
                cut: Some((Direction::FromServer, bytes)),
                ..Rules::default()
            });
        };
        let mut chance = SmallRng::seed_from_u64(4);
        let is_over = AtomicBool::new(false);
        scope(|scope| {
            let _end = EndOf(&is_over);
            scope.spawn(|| seed_until(&redis, 2, &is_over));
            // In the handshake, and in the transfer.
            for _ in 0..6 {
                cut_after(chance.random_range(1..40_000));
                let before = proxy.accepted();
                follow(&mut client, proxy.port());
                wait_until("a connection", || proxy.accepted() > before);
                sleep(Duration::from_millis(100));
                call_when_loaded(&mut client, "REPLICAOF NO ONE");
            }
            proxy.clear();
            follow(&mut client, proxy.port());
            wait_for_link(&mut client);
            // In the stream, which goes on where it was cut.
            let full = figure(&mut source, "sync_full");
            for _ in 0..15 {
                proxy.cut_all();
                sleep(Duration::from_millis(30));
                cut_after(chance.random_range(200..100_000));
                wait_for_link(&mut client);
                sleep(Duration::from_millis(100));
            }
            proxy.clear();
            assert_eq!(figure(&mut source, "sync_full"), full, "{}", node.log());
        });
        check_same(&mut source, &mut client);
        assert!(!node.log().contains("CRITICAL"), "{}", node.log());
    }
}

#[test]
fn a_silent_primary_is_left() {
    let redis = primary().serve();
    let node = replica(2).serve();
    let (mut source, mut client) = (redis.connect(), node.connect());
    let proxy = Proxy::to(redis.port());
    seed(&mut source, 1, 3);
    follow(&mut client, proxy.port());
    check_same(&mut source, &mut client);
    source.line("CONFIG SET repl-ping-replica-period 1");
    client.line("CONFIG SET repl-timeout 2");
    proxy.set(Rules {
        is_silent: true,
        ..Rules::default()
    });
    wait_until("an end", || field(&mut client, "master_link_status") == "down");
    assert!(
        node.log()
            .contains("MASTER timeout: no data nor PING received...")
    );
    proxy.clear();
    check_same(&mut source, &mut client);
}

#[test]
fn a_primary_that_comes_back_without_its_data_is_followed_anew() {
    let mut redis = primary().serve();
    let node = replica(4).serve();
    let mut client = node.connect();
    seed(&mut redis.connect(), 1, 3);
    follow(&mut client, redis.port());
    check_same(&mut redis.connect(), &mut client);
    let port = redis.port().to_string();
    redis.signal(9);
    assert!(redis.wait(Duration::from_secs(10)).is_some());
    wait_until("an end", || field(&mut client, "master_link_status") == "down");
    let again = primary().with(&["--port", &port]).spawn(redis.port());
    again.wait_until_ready().unwrap();
    let mut source = again.connect();
    source.line("SET other 1");
    check_same(&mut source, &mut client);
    assert_eq!(client.line("DBSIZE").integer(), Some(1));
}

/// A primary that answers the handshake, and then sends these bytes.
pub(super) fn serve_fake(listener: &TcpListener, sent: &[&[u8]], between: Duration) {
    let mut stream = accept(listener);
    let mut received = Vec::new();
    for (command, reply) in [
        ("PING", "+PONG\r\n"),
        ("listening-port", "+OK\r\n"),
        ("capa", "+OK\r\n"),
        ("version", "-ERR Unrecognized REPLCONF option: version\r\n"),
        ("PSYNC", ""),
    ] {
        read_until(&mut stream, &mut received, command);
        stream.write_all(reply.as_bytes()).expect("the replica reads");
    }
    for piece in sent {
        if stream.write_all(piece).is_err() {
            return;
        }
        sleep(between);
    }
    // It is left open until the replica has had enough.
    let _ = stream.set_read_timeout(Some(Duration::from_secs(3)));
    let _ = stream.read(&mut [0; 1024]);
}

fn read_until(stream: &mut TcpStream, received: &mut Vec<u8>, word: &str) {
    let mut buffer = [0; 1024];
    while !String::from_utf8_lossy(received).contains(word) {
        let count = stream.read(&mut buffer).expect("the replica writes");
        assert!(count > 0, "the replica has left");
        received.extend_from_slice(&buffer[..count]);
    }
}

pub(super) const FULL: &[u8] = b"+FULLRESYNC 0123456789abcdef0123456789abcdef01234567 100\r\n";
const MARK: &[u8] = b"abcdefghijabcdefghijabcdefghijabcdefghij";

/// A snapshot with one key.
pub(super) fn snapshot() -> Vec<u8> {
    let redis = primary().serve();
    let mut client = redis.connect();
    client.line("SET from primary");
    client.line("SAVE");
    std::fs::read(redis.directory().join("dump.rdb")).expect("the file of a save")
}

#[test]
fn a_transfer_that_is_no_snapshot_leaves_the_data_alone() {
    let good = snapshot();
    let mut damaged = good.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x55;
    let header = [b"$EOF:", MARK, b"\r\n"].concat();
    let sized = |bytes: &[u8]| [format!("${}\r\n", bytes.len()).as_bytes(), bytes].concat();
    let cases: [(&str, Vec<u8>); 6] = [
        ("damaged", sized(&damaged)),
        ("damaged, marked", [&header[..], &damaged, MARK].concat()),
        ("no snapshot", sized(b"HELLO, this is no snapshot at all")),
        ("too long", sized(&[&good[..], b"more"].concat())),
        ("too short", sized(&good[..good.len() - 9])),
        ("an error", b"-ERR out of memory\r\n".to_vec()),
    ];
    for load in ["disabled", "swapdb"] {
        for (name, bytes) in &cases {
            // A file may have something behind its end.
            if load == "disabled" && *name == "too long" {
                continue;
            }
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let node = replica(2).with(&["--repl-diskless-load", load]).serve();
            let mut client = node.connect();
            client.line("SET own data");
            follow(&mut client, port);
            serve_fake(&listener, &[FULL, bytes], Duration::ZERO);
            wait_until(name, || {
                let log = node.log();
                log.contains("Failed trying to load") || log.contains("MASTER aborted")
            });
            assert_eq!(client.line("GET own").text(), "data", "{load}: {name}");
            assert_eq!(client.line("DBSIZE").integer(), Some(1), "{load}: {name}");
        }
    }
}

#[test]
fn a_mark_that_comes_in_pieces_is_found() {
    let good = snapshot();
    let header = [b"\n\n$EOF:", MARK, b"\r\n"].concat();
    let mut command = Vec::new();
    encode(&mut command, &["SET", "behind", "1"]);
    for load in ["disabled", "swapdb"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let node = replica(2).with(&["--repl-diskless-load", load]).serve();
        let mut client = node.connect();
        follow(&mut client, port);
        let (first, last) = MARK.split_at(17);
        let pieces: [&[u8]; 6] = [FULL, &header, &good, first, last, &command];
        serve_fake(&listener, &pieces, Duration::from_millis(50));
        assert_eq!(client.line("GET from").text(), "primary", "{}", node.log());
        wait_until("what follows", || client.line("GET behind").text() == "1");
        assert_eq!(
            figure(&mut client, "master_repl_offset"),
            100 + command.len() as u64
        );
    }
}

#[test]
fn a_stream_that_is_none_ends_the_link_and_is_not_continued() {
    let good = snapshot();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let node = replica(2).serve();
    let mut client = node.connect();
    follow(&mut client, port);
    let sized = [format!("${}\r\n", good.len()).as_bytes(), &good].concat();
    serve_fake(
        &listener,
        &[FULL, &sized, b"*1\r\n+PING\r\n"],
        Duration::from_millis(100),
    );
    wait_until("an error", || {
        node.log().contains("Protocol error from the master")
    });
    let mut stream = accept(&listener);
    let mut received = Vec::new();
    read_until(&mut stream, &mut received, "PING");
    stream.write_all(b"+PONG\r\n+OK\r\n+OK\r\n+OK\r\n").unwrap();
    read_until(&mut stream, &mut received, "PSYNC\r\n$1\r\n?\r\n$2\r\n-1");
}

#[test]
fn a_stopped_replica_catches_up() {
    let redis = primary().with(&["--repl-backlog-size", "64mb"]).serve();
    let node = replica(4).serve();
    let (mut source, mut client) = (redis.connect(), node.connect());
    follow(&mut client, redis.port());
    check_same(&mut source, &mut client);
    source.line("CONFIG SET repl-ping-replica-period 1");
    for client in [&mut source, &mut client] {
        client.line("CONFIG SET repl-timeout 2");
    }
    node.signal(libc::SIGSTOP);
    seed(&mut source, 1, 20);
    wait_until("an end", || figure(&mut source, "connected_slaves") == 0);
    node.signal(libc::SIGCONT);
    check_same(&mut source, &mut client);
    assert_eq!(figure(&mut source, "sync_full"), 1);
}
