//! SAVE, BGSAVE, save points and SHUTDOWN: the files are what a real server takes them for, and what is on the disk is replaced by
//! something whole or not at all.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use std::time::Duration;

use shardis_storage::key::KeyHasher;
use shardis_storage::rdb::Limits;
use shardis_storage::rdb::file::{FileReader, Item};
use shardis_tests::client::{Client, encode};
use shardis_tests::info::{field, figure};
use shardis_tests::node;
use shardis_tests::process::{Launch, Process};
use shardis_tests::redis;
use shardis_tests::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(20);

const DEBUG: [&str; 4] = [
    "--enable-debug-command",
    "yes",
    "--enable-protected-configs",
    "yes",
];

fn launch(shards: usize) -> Launch {
    node::launch(shards).with(&DEBUG)
}

fn dump_of(server: &Process) -> PathBuf {
    server.directory().join("dump.rdb")
}

/// A real redis-server over a copy of the file.
pub(super) fn real_server_over(file: &Path) -> Process {
    let copy = tempfile::tempdir().expect("a temporary directory");
    fs::copy(file, copy.path().join("dump.rdb")).expect("a file to copy");
    let directory = copy.path().display().to_string();
    redis::launch().with(&DEBUG).with(&["--dir", &directory]).serve()
}

fn check_with_tool(file: &Path) {
    let checked = Command::new(redis::tool("redis-check-rdb"))
        .arg(file)
        .output()
        .expect("redis-check-rdb runs");
    let text = String::from_utf8_lossy(&checked.stdout);
    assert!(
        checked.status.success() && text.contains("RDB looks OK"),
        "{text}"
    );
}

fn set_save_points(client: &mut Client, points: &str) {
    assert_eq!(client.call(&["CONFIG", "SET", "save", points]).text(), "OK");
}

fn wait_until_saved(client: &mut Client) {
    wait_until("nothing is being saved", || {
        figure(client, "rdb_bgsave_in_progress") == 0
    });
}

/// Keys of all types in small and large forms, in several databases.
pub(super) fn fill(client: &mut Client) {
    let number = |name: &str, n: usize| format!("{name}:{n}");
    for n in 0..300 {
        client.call(&["SET", &number("text", n), &"some text ".repeat(n % 40)]);
        client.call(&["SET", &number("number", n), &(n * n * 77).to_string()]);
        client.call(&["SET", &number("late", n), "soon gone", "PX", "100000000"]);
        client.call(&["RPUSH", &number("list", n % 20), &n.to_string(), &"x".repeat(n)]);
        client.call(&["SADD", &number("set", n % 20), &n.to_string()]);
        client.call(&["SADD", &number("words", n % 3), &number("member", n)]);
        client.call(&[
            "HSET",
            &number("hash", n % 5),
            &number("field", n),
            &"v".repeat(n % 90),
        ]);
        client.call(&[
            "ZADD",
            &number("scores", n % 4),
            &format!("{}.5", n % 50),
            &number("member", n),
        ]);
        client.call(&["XADD", &number("stream", n % 3), "*", "field", &n.to_string()]);
        client.call(&["PFADD", &number("sketch", n % 3), &n.to_string()]);
    }
    client.line("XGROUP CREATE stream:1 group 0");
    client.line("XREADGROUP GROUP group consumer COUNT 10 STREAMS stream:1 >");
    client.call(&["SET", "long", &"0123456789abcdef".repeat(40_000)]);
    for n in 0..4000 {
        client.call(&["RPUSH", "long list", &format!("{n}").repeat(20)]);
        client.call(&[
            "HSET",
            "long hash",
            &number("field", n),
            &number("value", n).repeat(5),
        ]);
    }
    for db in ["3", "9"] {
        client.call(&["SELECT", db]);
        client.line("MSET a 1 b 2 c 3 d 4 e 5 f 6");
    }
    client.line("SELECT 0");
}

#[test]
fn files_hold_what_there_was() {
    for shards in [1, 4] {
        let server = launch(shards).serve();
        let mut client = server.connect();
        fill(&mut client);
        let digest = client.line("DEBUG DIGEST").text();
        for line in ["SAVE", "BGSAVE"] {
            fs::remove_file(dump_of(&server)).ok();
            assert!(!client.line(line).is_error());
            wait_until_saved(&mut client);
            check_with_tool(&dump_of(&server));
            let real = real_server_over(&dump_of(&server));
            assert_eq!(
                real.connect().line("DEBUG DIGEST").text(),
                digest,
                "{line}, {shards} shards"
            );
            let left = fs::read_dir(server.directory()).expect("the directory is there");
            let names = left.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()));
            let temporary: Vec<String> = names.filter(|name| name.starts_with("temp-")).collect();
            assert!(temporary.is_empty(), "{temporary:?}");
        }
        assert_eq!(figure(&mut client, "rdb_changes_since_last_save"), 0);
        assert_eq!(figure(&mut client, "rdb_saves"), 2);
        let saved: i64 = client.line("LASTSAVE").integer().expect("a number");
        assert_eq!(field(&mut client, "rdb_last_save_time"), saved.to_string());
        for line in [
            "DB saved on disk",
            "Background saving started by pid",
            "Background saving terminated with success",
        ] {
            assert!(server.log().contains(line), "{line}");
        }
    }
}

#[test]
fn uncompressed_files_and_files_without_checksum_are_read_as_well() {
    let server = launch(2)
        .with(&["--rdbchecksum", "no", "--rdbcompression", "no"])
        .serve();
    let mut client = server.connect();
    fill(&mut client);
    let digest = client.line("DEBUG DIGEST").text();
    client.line("SAVE");
    let plain = fs::read(dump_of(&server)).expect("a file");
    assert!(plain.ends_with(&[0xff, 0, 0, 0, 0, 0, 0, 0, 0]), "no checksum");
    check_with_tool(&dump_of(&server));
    assert_eq!(
        real_server_over(&dump_of(&server))
            .connect()
            .line("DEBUG DIGEST")
            .text(),
        digest
    );
    client.line("CONFIG SET rdbcompression yes");
    client.line("SAVE");
    let packed = fs::read(dump_of(&server)).expect("a file");
    assert!(
        packed.len() * 3 < plain.len() * 2,
        "{} of {} bytes",
        packed.len(),
        plain.len()
    );
}

#[test]
fn one_save_at_a_time() {
    let server = launch(2).serve();
    let mut client = server.connect();
    client.line("DEBUG POPULATE 50");
    client.line("CONFIG SET rdb-key-save-delay 100000");
    assert_eq!(client.line("BGSAVE").text(), "Background saving started");
    let busy = "ERR Background save already in progress";
    for line in ["BGSAVE", "SAVE", "BGSAVE SCHEDULE"] {
        assert_eq!(client.line(line).text(), busy, "{line}");
    }
    assert_eq!(figure(&mut client, "rdb_bgsave_in_progress"), 1);
    assert_eq!(figure(&mut client, "current_save_keys_total"), 50);
    wait_until("a key is saved", || {
        figure(&mut client, "current_save_keys_processed") > 0
    });
    assert!(figure(&mut client, "current_save_keys_processed") < 50);
    assert_eq!(client.line("BGSAVE CANCEL").text(), "Background saving cancelled");
    wait_until_saved(&mut client);
    assert!(!dump_of(&server).exists());
    assert_eq!(field(&mut client, "rdb_last_bgsave_status"), "ok");
    assert!(client.line("BGSAVE CANCEL").is_error());
    client.line("CONFIG SET rdb-key-save-delay 0");
    // Marks that the first one has left in the partitions do not harm the next one.
    assert_eq!(client.line("BGSAVE").text(), "Background saving started");
    wait_until_saved(&mut client);
    assert_eq!(
        real_server_over(&dump_of(&server))
            .connect()
            .line("DBSIZE")
            .integer(),
        Some(50)
    );
}

#[test]
fn a_transaction_schedules() {
    let server = launch(3).serve();
    let mut client = server.connect();
    for line in ["MULTI", "SET a 1", "BGSAVE", "SET b 2"] {
        client.line(line);
    }
    let replies = client.line("EXEC");
    assert_eq!(replies.items()[1].text(), "Background saving scheduled");
    wait_until("the file is there", || dump_of(&server).exists());
    assert_eq!(
        real_server_over(&dump_of(&server))
            .connect()
            .line("MGET a b")
            .items()
            .len(),
        2
    );
    for line in ["MULTI", "SAVE"] {
        client.line(line);
    }
    assert!(client.line("EXEC").is_error());
}

#[test]
fn changes_of_some_age_are_saved() {
    let server = launch(2).serve();
    let mut client = server.connect();
    set_save_points(&mut client, "1 3");
    client.line("MSET a 1 b 2");
    std::thread::sleep(Duration::from_millis(3500));
    assert!(!dump_of(&server).exists(), "two changes are too few");
    client.line("SET c 3");
    wait_until("the file is there", || dump_of(&server).exists());
    wait_until_saved(&mut client);
    assert_eq!(figure(&mut client, "rdb_changes_since_last_save"), 0);
    assert!(server.log().contains("3 changes in 1 seconds. Saving..."));
}

#[test]
fn the_end_of_the_server_saves_when_it_should() {
    for (save, end, saves) in [
        ("3600 1", "SHUTDOWN", true),
        ("3600 1", "SHUTDOWN NOSAVE", false),
        ("", "SHUTDOWN SAVE", true),
        ("", "SHUTDOWN", false),
        ("3600 1", "SIGTERM", true),
        ("3600 1", "SIGINT", true),
        ("", "SIGTERM", false),
    ] {
        let mut server = launch(2).serve();
        let mut client = server.connect();
        set_save_points(&mut client, save);
        client.line("MSET a 1 b 2 c 3");
        match end {
            "SIGTERM" => server.signal(15),
            "SIGINT" => server.signal(2),
            line => {
                client
                    .send(&line.split(' ').collect::<Vec<_>>())
                    .expect("it reads");
                assert!(client.is_closed_within(PATIENCE), "{line}");
            }
        }
        let status = server.wait(PATIENCE).and_then(|status| status.code());
        assert_eq!(status, Some(0), "{end}: {}", server.log());
        assert_eq!(dump_of(&server).exists(), saves, "{end} with '{save}'");
        if saves {
            assert_eq!(
                real_server_over(&dump_of(&server))
                    .connect()
                    .line("DBSIZE")
                    .integer(),
                Some(3)
            );
            assert!(
                server
                    .log()
                    .contains("Saving the final RDB snapshot before exiting.")
            );
        }
    }
}

#[test]
fn a_shutdown_that_cannot_save_goes_on_unless_it_is_forced() {
    let mut server = launch(2).serve();
    let mut client = server.connect();
    client.line("SET a 1");
    // Nothing can be renamed to the name of a directory.
    fs::create_dir(dump_of(&server)).expect("a directory");
    assert_eq!(
        client.line("SHUTDOWN SAVE").text(),
        "ERR Errors trying to SHUTDOWN. Check logs."
    );
    assert!(server.log().contains("Error trying to save the DB, can't exit"));
    assert_eq!(client.line("INCR a").integer(), Some(2));
    client.send(&["SHUTDOWN", "SAVE", "FORCE"]).expect("it reads");
    assert!(client.is_closed_within(PATIENCE));
    assert_eq!(server.wait(PATIENCE).and_then(|status| status.code()), Some(0));
}

#[test]
fn a_shutdown_that_saves_can_be_aborted() {
    let server = launch(2).serve();
    let (mut client, mut other) = (server.connect(), server.connect());
    client.line("DEBUG POPULATE 50");
    client.line("CONFIG SET rdb-key-save-delay 100000");
    assert_eq!(
        other.line("SHUTDOWN ABORT").text(),
        "ERR No shutdown in progress."
    );
    client.send(&["SHUTDOWN", "SAVE"]).expect("it reads");
    wait_until("it saves", || figure(&mut other, "rdb_bgsave_in_progress") == 1);
    assert_eq!(other.line("SHUTDOWN ABORT").text(), "OK");
    let reply = client.read_within(PATIENCE).expect("a reply");
    assert_eq!(reply.text(), "ERR Errors trying to SHUTDOWN. Check logs.");
    assert_eq!(other.line("DBSIZE").integer(), Some(50));
    assert!(server.log().contains("Shutdown manually aborted"));
}

#[test]
fn failed_saves_stop_writes() {
    let server = launch(2).serve();
    let mut client = server.connect();
    client.line("MSET a 1 b 2");
    client.line("SAVE");
    let good = fs::read(dump_of(&server)).expect("a file");
    set_save_points(&mut client, "3600 1");
    client.line("CONFIG SET dbfilename blocked.rdb");
    fs::create_dir(server.directory().join("blocked.rdb")).expect("a directory");
    assert!(client.line("SAVE").is_error());
    // Only what happens in the background counts.
    assert_eq!(client.line("INCR a").integer(), Some(2));
    client.line("BGSAVE");
    wait_until_saved(&mut client);
    assert_eq!(field(&mut client, "rdb_last_bgsave_status"), "err");
    assert!(server.log().contains("Background saving error"));
    let refused = "MISCONF Redis is configured to save RDB snapshots";
    for line in ["SET a 1", "PING", "DEL nokey", "FLUSHALL", "MSET a 1 b 2"] {
        assert!(client.line(line).text().starts_with(refused), "{line}");
    }
    client.line("MULTI");
    assert!(client.line("SET a 9").is_error());
    client.line("DISCARD");
    assert_eq!(client.line("GET a").text(), "2");
    client.line("CONFIG SET stop-writes-on-bgsave-error no");
    assert_eq!(client.line("INCR a").integer(), Some(3));
    client.line("CONFIG SET stop-writes-on-bgsave-error yes");
    set_save_points(&mut client, "");
    assert_eq!(client.line("INCR a").integer(), Some(4));
    set_save_points(&mut client, "3600 1");
    assert!(client.line("INCR a").is_error());
    client.line("CONFIG SET dbfilename dump.rdb");
    assert_eq!(fs::read(dump_of(&server)).expect("the old file"), good);
    client.line("BGSAVE");
    wait_until_saved(&mut client);
    assert_eq!(client.line("INCR a").integer(), Some(5));
    assert_eq!(client.line("PING").text(), "PONG");
}

#[test]
fn flushing_all_drops_what_is_being_saved_and_saves_that_nothing_is_left() {
    let server = launch(2).serve();
    let mut client = server.connect();
    client.line("DEBUG POPULATE 100");
    client.line("CONFIG SET rdb-key-save-delay 50000");
    client.line("BGSAVE");
    assert_eq!(client.line("FLUSHALL").text(), "OK");
    wait_until_saved(&mut client);
    assert!(!dump_of(&server).exists(), "without save points nothing is saved");
    client.line("CONFIG SET rdb-key-save-delay 0");
    set_save_points(&mut client, "3600 1");
    client.line("MSET a 1 b 2");
    client.line("SAVE");
    client.line("SET c 3");
    assert_eq!(client.line("FLUSHALL").text(), "OK");
    assert_eq!(figure(&mut client, "rdb_changes_since_last_save"), 0);
    assert_eq!(
        real_server_over(&dump_of(&server))
            .connect()
            .line("DBSIZE")
            .integer(),
        Some(0)
    );
}

#[test]
fn a_database_that_is_flushed_is_still_saved() {
    let server = launch(2).serve();
    let mut client = server.connect();
    client.line("DEBUG POPULATE 100");
    client.line("SELECT 1");
    client.line("MSET a 1 b 2");
    client.line("CONFIG SET rdb-key-save-delay 5000");
    client.line("BGSAVE");
    for line in ["SWAPDB 0 1", "FLUSHDB", "SET late 1", "SELECT 0", "FLUSHDB"] {
        assert_eq!(client.line(line).text(), "OK");
    }
    wait_until_saved(&mut client);
    let real = real_server_over(&dump_of(&server));
    let mut real = real.connect();
    assert_eq!(real.line("DBSIZE").integer(), Some(100));
    real.line("SELECT 1");
    assert_eq!(real.line("DBSIZE").integer(), Some(2));
}

#[test]
fn a_killed_save_leaves_the_old_file() {
    let server = launch(2).serve();
    let mut client = server.connect();
    client.line("SET a 1");
    client.line("SAVE");
    let good = fs::read(dump_of(&server)).expect("a file");
    client.line("DEBUG POPULATE 100");
    client.line("CONFIG SET rdb-key-save-delay 50000");
    client.line("BGSAVE");
    wait_until("it saves", || {
        figure(&mut client, "current_save_keys_processed") > 5
    });
    server.signal(9);
    assert!(client.is_closed_within(PATIENCE));
    assert_eq!(fs::read(dump_of(&server)).expect("the old file"), good);
}

/// Sets a flag when it is dropped.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Moves one between counters on different shards, until told to stop.
fn move_between(server: &Process, stop: &AtomicBool, number: usize) {
    let mut client = server.connect();
    let [one, other] = [format!("left:{number}"), format!("right:{number}")];
    let mut request = Vec::new();
    for words in [
        vec!["MULTI"],
        vec!["DECR", &one],
        vec!["INCR", &other],
        vec!["RPUSH", "log", "x"],
        vec!["EXEC"],
    ] {
        encode(&mut request, &words);
    }
    while !stop.load(Ordering::Relaxed) {
        client.write(&request).expect("the server reads");
        for _ in 0..5 {
            assert!(!client.read().expect("a reply").is_error());
        }
    }
}

#[test]
fn a_snapshot_is_one_instant_of_all_shards() {
    const PAIRS: usize = 4;
    let server = launch(4).serve();
    let mut client = server.connect();
    client.line("DEBUG POPULATE 20000 other 100");
    let stop = AtomicBool::new(false);
    scope(|scope| {
        for number in 0..PAIRS {
            let (server, stop) = (&server, &stop);
            scope.spawn(move || move_between(server, stop, number));
        }
        // The threads end with this one, also when it panics.
        let _stop = StopOnDrop(&stop);
        let mut before = 0;
        for round in 0..12 {
            wait_until("transactions run", || {
                client.line("LLEN log").integer() > Some(before)
            });
            client.line("BGSAVE");
            wait_until_saved(&mut client);
            let bytes = fs::read(dump_of(&server)).expect("a file");
            let found = counters_in(&bytes);
            let value =
                |name: &str, number: usize| found.get(&format!("{name}:{number}")).copied().unwrap_or(0);
            let mut moved = 0;
            for number in 0..PAIRS {
                assert_eq!(
                    value("left", number) + value("right", number),
                    0,
                    "round {round}: {found:?}"
                );
                moved += value("right", number);
            }
            // The list has grown with each transaction: it is of the same instant.
            assert_eq!(found.get("log").copied().unwrap_or(0), moved, "round {round}");
            assert!(moved > before, "what was done before the snapshot is in it");
            before = moved;
        }
    });
}

/// The integers in the bytes of a file, and the lengths of its lists.
fn counters_in(bytes: &[u8]) -> BTreeMap<String, i64> {
    let reader = FileReader::open(bytes, Limits::defaults(KeyHasher::new(1))).expect("a file");
    let mut found = BTreeMap::new();
    for item in reader {
        let Item::Key(record) = item.expect("a whole file") else {
            continue;
        };
        let entry = record.value.entry();
        let number = match entry.string() {
            Some(text) => text.to_int(),
            None => entry.collection().and_then(|list| i64::try_from(list.len()).ok()),
        };
        if let Some(number) = number {
            let twice = found.insert(String::from_utf8_lossy(&record.key).into_owned(), number);
            assert!(twice.is_none(), "each key once");
        }
    }
    found
}
