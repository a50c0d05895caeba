//! Files that fail: the harness of faults against CONFIG REWRITE, and against the append-only file of a real redis-server.

use std::fs;
use std::time::{Duration, Instant};

use shardis_tests::faults::{Act, Fault, Faults, Operation};
use shardis_tests::node;
use shardis_tests::process::{Launch, Process};
use shardis_tests::redis;
use shardis_tests::wait::wait_until;

/// Longest time for a process to end that was killed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A shardis with a configuration file that meets faults.
fn start(faults: &Faults) -> Process {
    let path = faults.data().join("test.conf");
    fs::write(&path, "shards 2\nmaxmemory 1mb\n").expect("the file");
    let launch = Launch::new(node::binary()).with(&[path.display().to_string()]);
    faults.apply(launch).serve()
}

fn configuration(faults: &Faults) -> String {
    fs::read_to_string(faults.data().join("test.conf")).expect("the file")
}

#[test]
fn a_rewrite_that_fails_leaves_the_configuration_file_as_it_was() {
    let faults = Faults::new();
    let server = start(&faults);
    let mut client = server.connect();
    let before = configuration(&faults);
    let failures = [
        (Operation::Open, libc::EACCES),
        (Operation::Write, libc::ENOSPC),
        (Operation::Sync, libc::EIO),
        (Operation::Rename, libc::EROFS),
    ];
    client.call(&["CONFIG", "SET", "maxmemory", "2mb"]);
    for (operation, code) in failures {
        faults.set(&[Fault::always(operation, "test.conf", Act::Fail(code))]);
        let reply = client.line("CONFIG REWRITE");
        assert!(
            reply.text().starts_with("ERR Rewriting config file"),
            "{operation}: {reply}"
        );
        assert!(!faults.fired().is_empty(), "{operation}");
        assert_eq!(configuration(&faults), before, "{operation}");
        assert_eq!(faults.files(), ["test.conf"], "{operation}");
    }
    let slow = [
        Fault::always(Operation::Write, "test.conf", Act::Short(7)),
        Fault::once(Operation::Sync, "test.conf", 1, Act::Wait(300)),
    ];
    faults.set(&slow);
    let begin = Instant::now();
    assert_eq!(client.line("CONFIG REWRITE").text(), "OK");
    assert!(begin.elapsed() >= Duration::from_millis(300));
    assert!(configuration(&faults).contains("maxmemory 2mb"));
}

#[test]
fn a_kill_during_a_rewrite_leaves_the_old_file_or_the_new_one() {
    let points = [
        (Operation::Sync, Act::KillBefore, "1mb"),
        (Operation::Sync, Act::KillAfter, "1mb"),
        (Operation::Rename, Act::KillBefore, "1mb"),
        (Operation::Rename, Act::KillAfter, "2mb"),
        (Operation::SyncDirectory, Act::KillBefore, "2mb"),
    ];
    for (operation, act, left) in points {
        let faults = Faults::new();
        let mut server = start(&faults);
        let mut client = server.connect();
        client.call(&["CONFIG", "SET", "maxmemory", "2mb"]);
        faults.set(&[Fault::always(operation, "*", act)]);
        client.send(&["CONFIG", "REWRITE"]).expect("it is sent");
        let status = server.wait(PATIENCE).expect("it is killed");
        assert_eq!(status.code(), None, "{operation} {act:?}");
        let text = configuration(&faults);
        assert!(
            text.contains(&format!("maxmemory {left}")),
            "{operation} {act:?}: {text}"
        );
    }
}

/// A redis-server with an append-only file.
fn start_redis(faults: &Faults, fsync: &str) -> Process {
    let options = ["--save", "", "--appendonly", "yes", "--appendfsync", fsync];
    faults.apply(Launch::new(&redis::binary()).with(&options)).serve()
}

#[test]
fn a_full_disk_stops_the_writes_of_redis_until_there_is_space() {
    let faults = Faults::new();
    let server = start_redis(&faults, "everysec");
    let mut client = server.connect();
    faults.set(&[Fault::always(Operation::Write, "incr", Act::Space(2000))]);
    let mut stored = 0;
    wait_until("writes are refused", || {
        let reply = client.call(&["RPUSH", "list", &"x".repeat(100)]);
        stored += usize::from(!reply.is_error());
        reply.text().starts_with("MISCONF")
    });
    assert_eq!(client.call(&["LLEN", "list"]).integer(), Some(stored as i64));
    faults.clear();
    wait_until("writes are taken", || {
        !client.call(&["RPUSH", "list", "x"]).is_error()
    });
    drop(server);
    let server = start_redis(&faults, "everysec");
    let mut client = server.connect();
    assert_eq!(client.call(&["LLEN", "list"]).integer(), Some(stored as i64 + 1));
}

#[test]
fn a_slow_sync_holds_the_replies_of_redis_back_under_always() {
    let faults = Faults::new();
    let server = start_redis(&faults, "always");
    let mut client = server.connect();
    client.call(&["SET", "k", "v"]);
    faults.set(&[Fault::once(Operation::Sync, "incr", 1, Act::Wait(500))]);
    let begin = Instant::now();
    client.call(&["SET", "k", "v"]);
    assert!(begin.elapsed() >= Duration::from_millis(500));
    assert_eq!(faults.fired().len(), 1);
}
