//! The append-only file and a disk that fails: writes are refused as by Redis, reads go on, and nothing acknowledged is lost.

use std::time::{Duration, Instant};

use shardis_tests::client::Client;
use shardis_tests::faults::{Act, Fault, Faults, Operation};
use shardis_tests::info::{field, figure};
use shardis_tests::node;
use shardis_tests::process::Process;
use shardis_tests::wait::wait_until;

use super::append_only::{check, kill, launch, launch_real};

const PATIENCE: Duration = Duration::from_secs(20);

/// A server whose append-only file meets faults.
fn start(faults: &Faults, policy: &str) -> Process {
    let options = [
        "--appendonly",
        "yes",
        "--appendfsync",
        policy,
        "--enable-debug-command",
        "yes",
    ];
    faults.apply(node::launch(2).with(&options)).serve()
}

/// Writes until a write is refused. Returns the number of elements that were stored, and the error.
fn fill_up(client: &mut Client) -> (i64, String) {
    for stored in 0..10_000 {
        let reply = client.call(&["RPUSH", "list", &"x".repeat(100)]);
        if reply.is_error() {
            return (stored, reply.text());
        }
    }
    panic!("no write was refused");
}

/// Kills the server. It has kept so many elements, for another one and for a real one.
fn compare_length(server: Process, faults: &Faults, length: i64) {
    kill(server);
    check(faults.data());
    for other in [launch(3, faults.data(), "everysec"), launch_real(faults.data())] {
        let other = other.serve();
        assert_eq!(other.connect().line("LLEN list").integer(), Some(length));
    }
}

#[test]
fn a_full_disk_stops_writes_until_there_is_space() {
    for policy in ["everysec", "no"] {
        let faults = Faults::new();
        let server = start(&faults, policy);
        let mut client = server.connect();
        faults.set(&[Fault::always(Operation::Write, "incr", Act::Space(2000))]);
        let (stored, error) = fill_up(&mut client);
        assert_eq!(
            error,
            "MISCONF Errors writing to the AOF file: No space left on device"
        );
        assert!(client.line("PING").text().starts_with("MISCONF"));
        assert_eq!(client.line("LLEN list").integer(), Some(stored));
        assert_eq!(field(&mut client, "aof_last_write_status"), "err");
        assert!(figure(&mut client, "aof_buffer_length") > 0);
        faults.clear();
        wait_until("writes are taken", || client.line("PING").text() == "PONG");
        assert_eq!(field(&mut client, "aof_last_write_status"), "ok");
        assert!(!client.line("RPUSH list x").is_error());
        let log = server.log();
        assert!(log.contains("AOF write error looks solved"), "{log}");
        compare_length(server, &faults, stored + 1);
    }
}

#[test]
fn short_writes_are_gone_on_with() {
    let faults = Faults::new();
    let server = start(&faults, "everysec");
    let mut client = server.connect();
    faults.set(&[Fault::always(Operation::Write, "incr", Act::Short(7))]);
    for _ in 0..50 {
        assert!(!client.line("RPUSH list some-element-of-some-length").is_error());
    }
    compare_length(server, &faults, 50);
}

/// A part of a write that is followed by an error is taken back, so that the file has nothing twice.
#[test]
fn a_write_that_fails_in_its_midst_is_taken_back() {
    let faults = Faults::new();
    let server = start(&faults, "everysec");
    let mut client = server.connect();
    client.line("RPUSH list first");
    faults.set(&[Fault::always(Operation::Write, "incr", Act::Space(10))]);
    let reply = client.call(&["RPUSH", "list", &"x".repeat(1000)]);
    assert!(!reply.is_error());
    wait_until("writes are refused", || client.line("SET a b").is_error());
    faults.clear();
    wait_until("writes are taken", || !client.line("RPUSH list last").is_error());
    compare_length(server, &faults, 3);
}

/// After a sync that has failed, no later one is believed: only a rewrite makes the file trustworthy.
#[test]
fn a_failed_sync_is_made_up_for_by_a_rewrite() {
    let faults = Faults::new();
    let server = start(&faults, "everysec");
    let mut client = server.connect();
    faults.set(&[Fault::once(Operation::Sync, "incr", 1, Act::Fail(libc::EIO))]);
    assert!(!client.line("RPUSH list first").is_error());
    wait_until("the sync has failed", || !faults.fired().is_empty());
    wait_until("it was rewritten", || figure(&mut client, "aof_rewrites") > 0);
    wait_until("writes are taken", || !client.line("RPUSH list last").is_error());
    assert_eq!(client.line("WAITAOF 1 0 15000").items()[0].integer(), Some(1));
    let log = server.log();
    for line in [
        "Fail to fsync the AOF file: Input/output error",
        "is not trusted any more",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
    compare_length(server, &faults, 2);
}

#[test]
fn under_always_a_fault_ends_the_server_and_no_reply_leaves() {
    let ways = [
        (
            Operation::Write,
            Act::Fail(libc::EIO),
            "Can't recover from AOF write error",
        ),
        (
            Operation::Sync,
            Act::Fail(libc::EIO),
            "Can't persist AOF for fsync error",
        ),
    ];
    for (operation, act, line) in ways {
        let faults = Faults::new();
        let mut server = start(&faults, "always");
        let (mut client, mut reader) = (server.connect(), server.connect());
        assert!(!client.line("RPUSH list first").is_error());
        faults.set(&[Fault::always(operation, "incr", act)]);
        client.send(&["RPUSH", "list", "second"]).expect("sent");
        reader.send(&["LLEN", "list"]).expect("sent");
        let reply = client.read_within(PATIENCE);
        assert!(
            reply.is_err(),
            "a write that may be lost was acknowledged: {reply:?}"
        );
        let seen = reader.read_within(PATIENCE);
        assert!(
            seen.as_ref().is_err() || seen.as_ref().is_ok_and(|seen| seen.integer() == Some(1)),
            "a write that may be lost was shown: {seen:?}"
        );
        let status = server.wait(PATIENCE).expect("it ends");
        assert_eq!(status.code(), Some(1));
        assert!(server.log().contains(line), "{}", server.log());
    }
}

/// A sync that takes long holds nobody up for long under `everysec`, and everybody under `always`.
#[test]
fn a_slow_sync_holds_up_whom_it_must() {
    for (policy, least, most) in [("everysec", 0, 1500), ("always", 2500, 20_000)] {
        let faults = Faults::new();
        let server = start(&faults, policy);
        let mut client = server.connect();
        assert!(!client.line("SET a 1").is_error());
        faults.set(&[Fault::always(Operation::Sync, "incr", Act::Wait(3000))]);
        if policy == "everysec" {
            client.line("SET a 2");
            wait_until("a sync is running", || {
                figure(&mut client, "aof_pending_bio_fsync") == 1
            });
        }
        let begin = Instant::now();
        assert!(!client.line("SET a 3").is_error());
        let took = begin.elapsed().as_millis();
        assert!((least..most).contains(&took), "{policy}: {took} ms");
    }
}

/// A reader of another connection, and of another shard, gets a value only when that is on disk.
#[test]
fn under_always_nobody_sees_what_is_not_on_disk() {
    let faults = Faults::new();
    let server = start(&faults, "always");
    let (mut writer, mut reader) = (server.connect(), server.connect());
    assert!(!writer.line("SET a 0").is_error());
    faults.set(&[Fault::always(Operation::Sync, "incr", Act::Wait(1500))]);
    let begin = Instant::now();
    writer.send(&["SET", "a", "1"]).expect("sent");
    let mut seen = String::new();
    while seen != "1" {
        seen = reader.line("GET a").text();
    }
    assert!(
        begin.elapsed() >= Duration::from_millis(1400),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(writer.read_within(PATIENCE).expect("a reply").text(), "OK");
}

#[test]
fn rewrites_that_fail_leave_the_files_as_they_were() {
    let steps = [
        (Operation::Open, "rewriteaof", libc::EACCES),
        (Operation::Write, "rewriteaof", libc::ENOSPC),
        (Operation::Sync, "rewriteaof", libc::EIO),
        (Operation::Rename, "rewriteaof", libc::EROFS),
        (Operation::Rename, "manifest", libc::EROFS),
        (Operation::Sync, "manifest", libc::EIO),
    ];
    for (operation, file, code) in steps {
        let faults = Faults::new();
        let server = start(&faults, "everysec");
        let mut client = server.connect();
        client.line("RPUSH list first");
        faults.set(&[Fault::always(operation, file, Act::Fail(code))]);
        client.line("BGREWRITEAOF");
        client.line("RPUSH list second");
        wait_until("it has ended", || {
            figure(&mut client, "aof_rewrite_in_progress") == 0
        });
        assert!(!faults.fired().is_empty(), "{operation} {file}");
        assert_eq!(
            field(&mut client, "aof_last_bgrewrite_status"),
            "err",
            "{operation} {file}"
        );
        assert!(!client.line("RPUSH list third").is_error());
        faults.clear();
        client.line("BGREWRITEAOF");
        client.line("RPUSH list fourth");
        wait_until("it has ended", || {
            figure(&mut client, "aof_rewrite_in_progress") == 0
        });
        assert_eq!(
            field(&mut client, "aof_last_bgrewrite_status"),
            "ok",
            "{operation} {file}: {}",
            server.log()
        );
        compare_length(server, &faults, 4);
    }
}

/// Killed at each file operation of a rewrite, the server leaves files that hold everything.
#[test]
fn a_kill_at_any_operation_of_a_rewrite_loses_nothing() {
    let points = [
        (Operation::Open, "incr"),
        (Operation::Write, "rewriteaof"),
        (Operation::Sync, "rewriteaof"),
        (Operation::Rename, "rewriteaof"),
        (Operation::SyncDirectory, "*"),
        (Operation::Rename, "manifest"),
        (Operation::Sync, "manifest"),
        (Operation::Unlink, "base"),
        (Operation::Unlink, "incr"),
    ];
    for (operation, file) in points {
        for act in [Act::KillBefore, Act::KillAfter] {
            let faults = Faults::new();
            let mut server = start(&faults, "everysec");
            let mut client = server.connect();
            for _ in 0..10 {
                client.line("RPUSH list element");
            }
            faults.set(&[Fault::always(operation, file, act)]);
            client.send(&["BGREWRITEAOF"]).expect("sent");
            assert!(server.wait(PATIENCE).is_some(), "{operation} {file} {act:?}");
            faults.clear();
            check(faults.data());
            for other in [launch(3, faults.data(), "everysec"), launch_real(faults.data())] {
                let other = other.serve();
                assert_eq!(
                    other.connect().line("LLEN list").integer(),
                    Some(10),
                    "{operation} {file} {act:?}"
                );
                kill(other);
            }
        }
    }
}
