//! The append-only file once more: rewrites after failures and after restarts, the replay under tight limits, the end of the server,
//! and a new beginning after an error.

use std::fs;
use std::path::Path;
use std::time::Duration;

use shardis_tests::client::Client;
use shardis_tests::faults::{Act, Fault, Faults, Operation};
use shardis_tests::info::{field, figure};
use shardis_tests::node;
use shardis_tests::process::Process;
use shardis_tests::wait::wait_until;

use super::append_only::{directory, kill, launch, launch_real};

const PATIENCE: Duration = Duration::from_secs(30);

fn await_rewrites(client: &mut Client, count: u64) {
    wait_until("the rewrites", || {
        figure(client, "aof_rewrites") >= count && figure(client, "aof_rewrite_in_progress") == 0
    });
}

/// Bytes of the files that the manifest in a directory names.
fn bytes_in(directory: &Path) -> u64 {
    let files = directory.join("appendonlydir");
    let manifest = fs::read_to_string(files.join("appendonly.aof.manifest")).expect("a manifest");
    let names = manifest.lines().filter_map(|line| line.split(' ').nth(1));
    names
        .map(|name| fs::metadata(files.join(name)).expect("a file").len())
        .sum()
}

fn fill(client: &mut Client, bytes: usize) {
    let value = "v".repeat(1000);
    for number in 0..bytes / 1000 {
        client.call(&["SET", &format!("key:{number}"), &value]);
    }
}

/// After three failures rewrites that begin by themselves wait, and those that are asked for do not.
#[test]
fn rewrites_that_fail_again_and_again_wait() {
    let faults = Faults::new();
    let growth = [
        "--auto-aof-rewrite-min-size",
        "1kb",
        "--auto-aof-rewrite-percentage",
        "1",
    ];
    let server = faults
        .apply(launch(2, faults.data(), "everysec").with(&growth))
        .serve();
    let mut client = server.connect();
    faults.set(&[Fault::always(
        Operation::Open,
        "rewriteaof",
        Act::Fail(libc::EACCES),
    )]);
    fill(&mut client, 20_000);
    let limit = "has repeatedly failed and triggered the limit, will retry in 1 minutes";
    wait_until("the limit", || server.log().contains(limit));
    let failures = figure(&mut client, "aof_rewrites");
    assert_eq!(failures, 3);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(figure(&mut client, "aof_rewrites"), failures);
    assert_eq!(field(&mut client, "aof_last_bgrewrite_status"), "err");
    // Each attempt has left an increment, and the file grows by all of them.
    assert_eq!(figure(&mut client, "aof_current_size"), bytes_in(faults.data()));
    faults.clear();
    assert!(!client.line("BGREWRITEAOF").is_error());
    await_rewrites(&mut client, failures + 1);
    assert_eq!(field(&mut client, "aof_last_bgrewrite_status"), "ok");
    // After a success there is nothing to wait for.
    fill(&mut client, 40_000);
    await_rewrites(&mut client, failures + 2);
}

/// After a restart growth counts from the size of the base: nothing is rewritten at once, nor never.
#[test]
fn growth_counts_from_the_base_after_a_restart() {
    let place = directory();
    let growth = ["--auto-aof-rewrite-min-size", "1kb"];
    let start = || launch(2, place.path(), "everysec").with(&growth).serve();
    let server = start();
    let mut client = server.connect();
    fill(&mut client, 100_000);
    await_rewrites(&mut client, 1);
    client.line("CONFIG SET auto-aof-rewrite-percentage 0");
    client.line("BGREWRITEAOF");
    await_rewrites(&mut client, 2);
    let base = figure(&mut client, "aof_base_size");
    // Two thirds of the base are added before the restart, the rest behind it.
    client.call(&["SET", "random", &noise(base as usize * 2 / 3)]);
    client.line("WAITAOF 1 0 0");
    kill(server);
    let server = start();
    let mut client = server.connect();
    assert_eq!(figure(&mut client, "aof_base_size"), base);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(figure(&mut client, "aof_rewrites"), 0);
    client.call(&["SET", "random", &noise(base as usize / 2)]);
    await_rewrites(&mut client, 1);
}

/// A text of so many bytes.
fn noise(bytes: usize) -> String {
    "0123456789abcdef".chars().cycle().take(bytes).collect()
}

/// Acknowledged changes are loaded whatever the limits are now: neither memory nor a password nor missing replicas refuse them.
#[test]
fn limits_for_clients_do_not_hold_for_the_replay() {
    let place = directory();
    let server = launch(2, place.path(), "everysec").serve();
    let mut client = server.connect();
    fill(&mut client, 3_000_000);
    client.line("WAITAOF 1 0 0");
    kill(server);
    let limits = [
        "--maxmemory",
        "1mb",
        "--requirepass",
        "secret",
        "--min-replicas-to-write",
        "1",
    ];
    let server = launch(2, place.path(), "everysec").with(&limits).serve();
    let mut client = server.connect();
    assert!(client.line("GET key:1").text().starts_with("NOAUTH"));
    client.line("AUTH secret");
    assert_eq!(client.line("DBSIZE").integer(), Some(3000));
    assert_eq!(client.line("GET key:2999").text().len(), 1000);
    client.line("CONFIG SET min-replicas-to-write 0");
    assert!(client.line("SET k v").text().starts_with("OOM"));
}

/// SHUTDOWN brings the file to the disk, also when it is told not to save.
#[test]
fn the_end_of_the_server_syncs_the_file() {
    for how in ["SHUTDOWN", "SHUTDOWN NOSAVE"] {
        let faults = Faults::new();
        let mut server = faults.apply(launch(2, faults.data(), "no")).serve();
        let mut client = server.connect();
        client.line("SET a 1");
        faults.set(&[Fault::always(Operation::Sync, "incr", Act::Wait(1))]);
        client
            .send(&how.split(' ').collect::<Vec<_>>())
            .expect("the server reads");
        let status = server.wait(PATIENCE).expect("it ends");
        assert_eq!(status.code(), Some(0), "{how}");
        assert!(!faults.fired().is_empty(), "{how}: nothing was synced");
    }
}

/// While the first base is written, what was appended is of no use: the server only ends when it is forced to.
#[test]
fn a_server_whose_first_base_is_missing_stays() {
    let place = directory();
    let mut server = launch(1, place.path(), "everysec")
        .with(&["--appendonly", "no"])
        .serve();
    let mut client = server.connect();
    client.line("DEBUG POPULATE 100 key 10");
    client.line("CONFIG SET rdb-key-save-delay 10000000");
    client.line("CONFIG SET appendonly yes");
    wait_until("the first rewrite", || {
        figure(&mut client, "aof_rewrite_in_progress") == 1
    });
    let reply = client.line("SHUTDOWN NOSAVE");
    assert!(reply.is_error(), "{}", reply.text());
    wait_until("the log has the reason", || {
        server.log().contains("Writing initial AOF, can't exit")
    });
    client
        .send(&["SHUTDOWN", "NOSAVE", "FORCE"])
        .expect("the server reads");
    assert!(server.wait(PATIENCE).is_some());
    assert!(server.log().contains("Writing initial AOF. Exit anyway."));
}

/// An error does not outlive the file that it is about.
#[test]
fn a_file_that_is_switched_off_and_on_has_no_error() {
    let faults = Faults::new();
    let server = faults.apply(launch(2, faults.data(), "everysec")).serve();
    let mut client = server.connect();
    faults.set(&[Fault::always(Operation::Write, "incr", Act::Fail(libc::ENOSPC))]);
    wait_until("writes are refused", || client.line("SET a 1").is_error());
    assert_eq!(client.line("CONFIG SET appendonly no").text(), "OK");
    assert_eq!(client.line("SET a 2").text(), "OK");
    assert_eq!(client.line("PING").text(), "PONG");
    faults.clear();
    assert_eq!(client.line("CONFIG SET appendonly yes").text(), "OK");
    await_first_base(&mut client);
    assert_eq!(client.line("SET a 3").text(), "OK");
    assert_eq!(field(&mut client, "aof_last_write_status"), "ok");
    assert_eq!(client.line("WAITAOF 1 0 15000").items()[0].integer(), Some(1));
    kill(server);
    for other in [launch(1, faults.data(), "everysec"), launch_real(faults.data())] {
        let other: Process = other.serve();
        assert_eq!(other.connect().line("GET a").text(), "3");
    }
}

fn await_first_base(client: &mut Client) {
    wait_until("the first base", || {
        figure(client, "aof_rewrite_in_progress") == 0 && field(client, "aof_rewrite_scheduled") == "0"
    });
}

/// A snapshot begins with remarks in the order in which Redis writes them.
#[test]
fn a_snapshot_begins_with_the_remarks_of_redis() {
    let place = directory();
    let server = node::launch(2)
        .with(&["--dir", &place.path().display().to_string()])
        .serve();
    let mut client = server.connect();
    client.line("SET a 1");
    assert_eq!(client.line("SAVE").text(), "OK");
    let bytes = fs::read(place.path().join("dump.rdb")).expect("a file");
    let names = ["redis-ver", "redis-bits", "ctime", "used-mem", "aof-base"];
    let places: Vec<_> = names
        .iter()
        .map(|name| {
            let mark = [&b"\xfa"[..], &[name.len() as u8], name.as_bytes()].concat();
            let found = bytes.windows(mark.len()).position(|window| window == mark);
            found.unwrap_or_else(|| panic!("{name} is missing"))
        })
        .collect();
    assert!(bytes.starts_with(b"REDIS0010"));
    assert_eq!(places[0], 9, "nothing comes before");
    assert!(places.is_sorted(), "{places:?}");
}

/// A rewrite that a shutdown has given up leaves nothing behind where the server goes on.
#[test]
fn a_rewrite_that_is_given_up_can_be_begun_again() {
    let place = directory();
    let server = launch(2, place.path(), "everysec").serve();
    let mut client = server.connect();
    client.line("DEBUG POPULATE 100 key 10");
    client.line("CONFIG SET rdb-key-save-delay 10000000");
    client.line("BGREWRITEAOF");
    // One that was asked for is in progress, and begins when its increment is on the disk.
    wait_until("the rewrite", || {
        server
            .log()
            .contains("Background append only file rewriting started")
    });
    let mut other = server.connect();
    other.send(&["SHUTDOWN", "SAVE"]).expect("the server reads");
    wait_until("it was given up", || {
        server.log().contains("Background AOF rewrite given up")
    });
    assert_eq!(client.line("SHUTDOWN ABORT").text(), "OK");
    client.line("CONFIG SET rdb-key-save-delay 0");
    assert!(!client.line("BGREWRITEAOF").is_error());
    wait_until("it has ended", || {
        figure(&mut client, "aof_rewrite_in_progress") == 0 && figure(&mut client, "aof_rewrites") > 1
    });
    assert_eq!(field(&mut client, "aof_last_bgrewrite_status"), "ok");
    assert_eq!(client.line("SET a 1").text(), "OK");
    assert_eq!(client.line("WAITAOF 1 0 15000").items()[0].integer(), Some(1));
}

/// Commands are not on the disk, for whoever asks, before the base is that they need.
#[test]
fn without_its_first_base_nothing_counts_as_synced() {
    let place = directory();
    let server = launch(1, place.path(), "everysec")
        .with(&["--appendonly", "no"])
        .serve();
    let mut client = server.connect();
    client.line("MSET a 1 b 1 c 1");
    client.line("CONFIG SET rdb-key-save-delay 3000000");
    client.line("CONFIG SET appendonly yes");
    client.line("SET d 1");
    let reply = client.line("WAITAOF 1 0 1500");
    assert_eq!(
        reply.items()[0].integer(),
        Some(0),
        "its file cannot be loaded yet"
    );
    client.line("CONFIG SET rdb-key-save-delay 0");
    let reply = client.line("WAITAOF 1 0 15000");
    assert_eq!(reply.items()[0].integer(), Some(1));
}

/// A key of the base that has expired by now was changed before it did: it is still there for the commands behind the base.
#[test]
fn keys_of_a_base_expire_after_its_commands() {
    let place = directory();
    let server = launch(2, place.path(), "everysec").serve();
    let mut client = server.connect();
    client.line("SET kept v PX 3000");
    client.line("SET gone v PX 3000");
    client.line("BGREWRITEAOF");
    await_rewrites(&mut client, 1);
    client.line("PERSIST kept");
    client.line("WAITAOF 1 0 0");
    kill(server);
    std::thread::sleep(Duration::from_secs(3));
    let server = launch(2, place.path(), "everysec").serve();
    let mut client = server.connect();
    assert_eq!(client.line("GET kept").text(), "v");
    assert_eq!(client.line("EXISTS gone").integer(), Some(0));
}
