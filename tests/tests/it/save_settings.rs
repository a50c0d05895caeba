//! Directives that change while something is written, and the events that tell of slow files.

use std::fs;
use std::path::Path;
use std::process::Command;

use shardis_tests::client::Client;
use shardis_tests::faults::{Act, Fault, Faults, Operation};
use shardis_tests::info::{field, figure};
use shardis_tests::node;
use shardis_tests::wait::wait_until;

use super::append_only::{compare_with_others, directory, launch};

const THRESHOLD: [&str; 2] = ["--latency-monitor-threshold", "40"];

/// A delay that is an event.
const SLOW: Act = Act::Wait(60);

fn await_event(client: &mut Client, name: &str) {
    wait_until(name, || has_event(client, name));
}

fn has_event(client: &mut Client, name: &str) -> bool {
    let latest = client.line("LATENCY LATEST");
    let found = latest
        .items()
        .iter()
        .find(|event| event.items()[0].text() == name);
    found.is_some_and(|event| event.items()[3].integer() >= Some(40))
}

#[test]
fn slow_writes_and_syncs_of_the_append_only_file_are_events() {
    let faults = Faults::new();
    let server = faults
        .apply(launch(2, faults.data(), "everysec").with(&THRESHOLD))
        .serve();
    let mut client = server.connect();
    // Of several keys some are left for the save to rest at, whatever a write has it save first.
    client.line("MSET a 1 b 1 c 1 d 1 e 1 f 1");
    faults.set(&[Fault::always(Operation::Write, "incr", SLOW)]);
    client.line("SET a 2");
    await_event(&mut client, "aof-write");
    await_event(&mut client, "aof-write-alone");
    // A write that goes on beside a sync that takes too long.
    faults.set(&[
        Fault::always(Operation::Write, "incr", SLOW),
        Fault::always(Operation::Sync, "incr", Act::Wait(4000)),
    ]);
    wait_until("a write has not waited any longer", || {
        client.line("SET a 3");
        figure(&mut client, "aof_delayed_fsync") > 0
    });
    await_event(&mut client, "aof-write-pending-fsync");
    faults.set(&[Fault::always(Operation::Write, "incr", SLOW)]);
    client.line("CONFIG SET rdb-key-save-delay 10000000");
    client.line("BGSAVE");
    wait_until("a write beside a save", || {
        client.line("SET a 4");
        has_event(&mut client, "aof-write-active-child")
    });
    client.line("CONFIG SET rdb-key-save-delay 0");
    faults.set(&[Fault::always(Operation::Sync, "incr", SLOW)]);
    client.line("CONFIG SET appendfsync always");
    client.line("SET a 5");
    await_event(&mut client, "aof-fsync-always");
}

#[test]
fn slow_renames_and_removals_are_events() {
    let faults = Faults::new();
    let server = faults
        .apply(launch(2, faults.data(), "everysec").with(&THRESHOLD))
        .serve();
    let mut client = server.connect();
    client.line("SET a 1");
    faults.set(&[Fault::always(Operation::Rename, "manifest", SLOW)]);
    client.line("BGREWRITEAOF");
    await_event(&mut client, "aof-rename");
    wait_until("the rewrite has ended", || {
        figure(&mut client, "aof_rewrite_in_progress") == 0
    });
    faults.set(&[
        Fault::always(Operation::Write, "temp-", Act::Fail(libc::ENOSPC)),
        Fault::always(Operation::Unlink, "temp-", SLOW),
    ]);
    client.line("BGSAVE");
    await_event(&mut client, "rdb-unlink-temp-file");
    assert_eq!(field(&mut client, "rdb_last_bgsave_status"), "err");
}

/// The times that the file of commands tells.
fn stamps(directory: &Path) -> Vec<String> {
    let path = directory.join("appendonlydir/appendonly.aof.1.incr.aof");
    let bytes = fs::read(path).expect("a file");
    let lines = bytes.split(|&byte| byte == b'\n');
    lines
        .filter_map(|line| line.strip_prefix(b"#TS:"))
        .map(|time| String::from_utf8_lossy(time).trim().to_owned())
        .collect()
}

#[test]
fn the_time_is_in_the_append_only_file_if_that_is_asked_for() {
    let place = directory();
    let server = launch(2, place.path(), "everysec")
        .with(&["--aof-timestamp-enabled", "yes"])
        .serve();
    let mut client = server.connect();
    for n in 0..3 {
        client.line(&format!("RPUSH list {n}"));
        std::thread::sleep(std::time::Duration::from_millis(1050));
    }
    let before = stamps(place.path());
    assert!(
        (3..=4).contains(&before.len()),
        "{before:?}, one for each second with effects"
    );
    assert_eq!(client.line("CONFIG SET aof-timestamp-enabled no").text(), "OK");
    std::thread::sleep(std::time::Duration::from_millis(1050));
    client.line("RPUSH list 3");
    assert_eq!(stamps(place.path()), before);
    client.line("CONFIG SET aof-timestamp-enabled yes");
    client.line("RPUSH list 4");
    assert_eq!(stamps(place.path()).len(), before.len() + 1);
    // The tool cuts such a file off at a time.
    let copy = directory();
    let copied = Command::new("cp")
        .args(["-r".as_ref(), place.path().join("appendonlydir").as_os_str()])
        .arg(copy.path())
        .status();
    assert!(copied.expect("cp runs").success());
    let cut = Command::new("redis-check-aof")
        .args(["--truncate-to-timestamp", &before[0]])
        .arg(copy.path().join("appendonlydir/appendonly.aof.manifest"))
        .output()
        .expect("redis-check-aof runs");
    assert!(cut.status.success(), "{cut:?}");
    assert_eq!(stamps(copy.path()), before[..1]);
    compare_with_others(server, place.path());
}

/// A save goes where it began, and the next one to the new directory.
#[test]
fn the_directory_may_change_during_a_save() {
    let (first, second) = (directory(), directory());
    let server = node::launch(2)
        .with(&[
            "--enable-debug-command",
            "yes",
            "--enable-protected-configs",
            "yes",
            "--dir",
            &first.path().display().to_string(),
        ])
        .serve();
    let mut client = server.connect();
    client.line("DEBUG POPULATE 400 key 10");
    client.line("CONFIG SET rdb-key-save-delay 5000");
    client.line("BGSAVE");
    let other = second.path().display().to_string();
    assert_eq!(client.call(&["CONFIG", "SET", "dir", &other]).text(), "OK");
    assert_eq!(figure(&mut client, "rdb_bgsave_in_progress"), 1);
    client.line("CONFIG SET rdb-key-save-delay 0");
    wait_until("it is saved", || {
        figure(&mut client, "rdb_bgsave_in_progress") == 0
    });
    assert_eq!(field(&mut client, "rdb_last_bgsave_status"), "ok");
    let names = |directory: &Path| -> Vec<_> {
        let found = fs::read_dir(directory).expect("a directory");
        found.map(|entry| entry.expect("an entry").file_name()).collect()
    };
    assert_eq!(names(first.path()), ["dump.rdb"]);
    assert!(names(second.path()).is_empty());
    client.line("SET only 1");
    assert_eq!(client.line("SAVE").text(), "OK");
    assert_eq!(names(second.path()), ["dump.rdb"]);
    let server = node::launch(1).with(&["--dir", &other]).serve();
    assert_eq!(server.connect().line("DBSIZE").integer(), Some(401));
}

/// Whether a file is brought to the disk while it is written, or only at its end, each kind of file has a directive of its own for.
#[test]
fn files_are_synced_while_they_are_written_if_that_is_asked_for() {
    let cases = [
        (
            "rdb-save-incremental-fsync",
            "BGSAVE",
            "temp-",
            "rdb_bgsave_in_progress",
            "rdb_last_bgsave_status",
        ),
        (
            "aof-rewrite-incremental-fsync",
            "BGREWRITEAOF",
            "rewriteaof",
            "aof_rewrite_in_progress",
            "aof_last_bgrewrite_status",
        ),
    ];
    for (directive, command, file, progress, status) in cases {
        let faults = Faults::new();
        let launch = launch(2, faults.data(), "everysec").with(&["--rdbcompression", "no"]);
        let server = faults.apply(launch).serve();
        let mut client = server.connect();
        let value = "v".repeat(1 << 20);
        for number in 0..20 {
            client.call(&["SET", &format!("key:{number}"), &value]);
        }
        for (early, expected) in [("no", "ok"), ("yes", "err")] {
            client.line(&format!("CONFIG SET {directive} {early}"));
            // There is no second one unless the file is synced early.
            faults.set(&[Fault::once(Operation::Sync, file, 2, Act::Fail(libc::EIO))]);
            let reply = client.line(command);
            assert!(!reply.is_error(), "{command}: {reply}");
            wait_until("it has ended", || figure(&mut client, progress) == 0);
            assert_eq!(field(&mut client, status), expected, "{directive} {early}");
        }
    }
}
