//! A primary whose replicas matter: writes that need them, and a stop that waits for them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use shardis_tests::client::{Client, PATIENCE};
use shardis_tests::info::{field, figure};
use shardis_tests::process::{Launch, Process};
use shardis_tests::wait::wait_until;
use shardis_tests::{node, redis};

fn launch_primary(shards: usize) -> Launch {
    node::launch(shards).with(&["--repl-diskless-sync-delay", "0", "--enable-debug-command", "yes"])
}

fn replica_of(primary: &Process) -> Process {
    let port = primary.address().port().to_string();
    let follower = redis::launch().with(&["--replicaof", "127.0.0.1", &port]).serve();
    let mut replica = follower.connect();
    wait_until("the replica follows", || {
        field(&mut replica, "master_link_status") == "up"
    });
    follower
}

const REFUSAL: &str = "NOREPLICAS Not enough good replicas to write.";

#[test]
fn writes_need_replicas_that_keep_up() {
    for shards in [1, 4] {
        let primary = launch_primary(shards)
            .with(&["--min-replicas-to-write", "1", "--min-replicas-max-lag", "2"])
            .serve();
        let mut client = primary.connect();
        for write in ["SET a 1", "MSET a 1 b 2", "DEL a", "FLUSHALL"] {
            assert_eq!(client.line(write).text(), REFUSAL, "{write}");
        }
        assert_eq!(client.line("PING").text(), "PONG");
        assert!(client.line("GET a").is_null());
        client.line("MULTI");
        assert_eq!(client.line("SET a 1").text(), REFUSAL);
        assert!(client.line("EXEC").text().starts_with("EXECABORT"));
        let follower = replica_of(&primary);
        wait_until("the replica counts", || {
            figure(&mut client, "min_slaves_good_slaves") == 1
        });
        assert_eq!(client.line("SET a 1").text(), "OK");
        // One that is stopped keeps its connection, but says nothing.
        follower.signal(libc::SIGSTOP);
        wait_until("the replica is missed", || {
            client.line("SET a 2").text() == REFUSAL
        });
        assert_eq!(figure(&mut client, "connected_slaves"), 1);
        client.line("CONFIG SET min-replicas-to-write 0");
        assert_eq!(client.line("SET a 2").text(), "OK");
        client.line("CONFIG SET min-replicas-to-write 1");
        assert_eq!(client.line("SET a 2").text(), REFUSAL);
        follower.signal(libc::SIGCONT);
        wait_until("the replica is back", || client.line("SET a 3").text() == "OK");
    }
}

#[test]
fn a_stop_waits_until_replicas_have_everything() {
    let mut primary = launch_primary(4).serve();
    let follower = replica_of(&primary);
    let (mut client, mut writer) = (primary.connect(), primary.connect());
    follower.signal(libc::SIGSTOP);
    for number in 0..100 {
        client.line(&format!("SET key:{number} value"));
    }
    client.send(&["SHUTDOWN"]).expect("it is sent");
    wait_until("the node waits", || {
        field(&mut writer, "paused_reason") == "shutdown_in_progress"
    });
    writer.send(&["SET", "late", "1"]).expect("it is sent");
    assert!(
        writer.read_within(Duration::from_millis(300)).is_err(),
        "writes wait"
    );
    assert!(primary.is_running());
    follower.signal(libc::SIGCONT);
    assert!(primary.wait(PATIENCE).is_some_and(|status| status.success()));
    let log = primary.log();
    assert!(
        log.contains("Waiting for replicas before shutting down."),
        "{log}"
    );
    assert!(
        log.contains("1 of 1 replicas are in sync when shutting down."),
        "{log}"
    );
    let mut replica = follower.connect();
    assert_eq!(replica.line("GET key:99").text(), "value");
    assert!(replica.line("GET late").is_null());
}

#[test]
fn a_stop_that_waits_is_aborted_or_ends_in_time() {
    let mut primary = launch_primary(1).with(&["--shutdown-timeout", "600"]).serve();
    let follower = replica_of(&primary);
    let (mut client, mut other) = (primary.connect(), primary.connect());
    follower.signal(libc::SIGSTOP);
    client.line("SET a 1");
    client.send(&["SHUTDOWN"]).expect("it is sent");
    wait_until("the node waits", || {
        field(&mut other, "paused_reason") == "shutdown_in_progress"
    });
    assert_eq!(other.line("SHUTDOWN ABORT").text(), "OK");
    assert_eq!(
        client.read().expect("a reply").text(),
        "ERR Errors trying to SHUTDOWN. Check logs."
    );
    assert_eq!(field(&mut other, "paused_reason"), "none");
    assert_eq!(other.line("SET a 2").text(), "OK");
    assert_eq!(
        other.line("SHUTDOWN ABORT").text(),
        "ERR No shutdown in progress."
    );
    other.line("CONFIG SET shutdown-timeout 1");
    let begun = Instant::now();
    client.send(&["SHUTDOWN"]).expect("it is sent");
    assert!(primary.wait(PATIENCE).is_some());
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    let log = primary.log();
    assert!(
        log.contains("0 of 1 replicas are in sync when shutting down."),
        "{log}"
    );
    follower.signal(libc::SIGCONT);
}

#[test]
fn nothing_more_is_sent_while_a_stop_waits() {
    let mut primary = launch_primary(2)
        .with(&["--shutdown-timeout", "600", "--repl-ping-replica-period", "1"])
        .serve();
    let (mut client, mut other) = (primary.connect(), primary.connect());
    let mut replica = TcpStream::connect(primary.address()).expect("a connection");
    replica.write_all(b"SYNC\r\n").expect("it is sent");
    replica
        .read_exact(&mut [0; 1])
        .expect("the beginning of the snapshot");
    wait_until("the replica is online", || {
        field(&mut other, "slave0").contains("state=online")
    });
    let mut waiting = primary.connect();
    waiting.line("SET key value");
    client.send(&["SHUTDOWN"]).expect("it is sent");
    wait_until("the node waits", || {
        field(&mut other, "paused_reason") == "shutdown_in_progress"
    });
    let end = figure(&mut other, "master_repl_offset");
    // A client asks what replicas have, and more than the period of PING passes.
    waiting.send(&["WAIT", "1", "0"]).expect("it is sent");
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(figure(&mut other, "master_repl_offset"), end);
    let acknowledgement = format!("REPLCONF ACK {end}\r\n");
    replica.write_all(acknowledgement.as_bytes()).expect("it is sent");
    assert!(primary.wait(PATIENCE).is_some_and(|status| status.success()));
}

#[test]
fn a_stop_now_waits_for_nobody() {
    let mut primary = launch_primary(1).with(&["--shutdown-timeout", "600"]).serve();
    let follower = replica_of(&primary);
    let mut client: Client = primary.connect();
    follower.signal(libc::SIGSTOP);
    client.line("SET a 1");
    client.send(&["SHUTDOWN", "NOW"]).expect("it is sent");
    assert!(primary.wait(PATIENCE).is_some());
    follower.signal(libc::SIGCONT);
}

#[test]
fn a_replica_needs_no_replicas_and_waits_for_none() {
    let primary = redis::start();
    let follower = node::launch(4)
        .with(&["--min-replicas-to-write", "1", "--replica-read-only", "no"])
        .serve();
    let mut client = follower.connect();
    assert_eq!(client.line("SET a 1").text(), REFUSAL, "it is a primary so far");
    let port = primary.address().port();
    assert_eq!(client.line(&format!("REPLICAOF 127.0.0.1 {port}")).text(), "OK");
    wait_until("it follows", || field(&mut client, "master_link_status") == "up");
    assert_eq!(client.line("SET a 1").text(), "OK");
    let other = redis::launch()
        .with(&["--replicaof", "127.0.0.1", &port.to_string()])
        .serve();
    let mut reference = other.connect();
    for line in ["WAIT 0 0", "WAIT 1 0", "WAIT x 0"] {
        assert_eq!(client.line(line), reference.line(line), "{line}");
    }
    assert!(
        client
            .line("WAITAOF 0 0 0")
            .text()
            .starts_with("ERR WAITAOF cannot be used with replica instances.")
    );
    assert_eq!(client.line("REPLICAOF NO ONE").text(), "OK");
    assert_eq!(client.line("SET a 1").text(), REFUSAL);
}
