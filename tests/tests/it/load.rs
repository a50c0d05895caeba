//! Loading at the start: files of real servers, damaged files, and what a client sees meanwhile.

use std::fs;
use std::path::Path;
use std::time::Duration;

use shardis_tests::client::Client;
use shardis_tests::info::figure;
use shardis_tests::node;
use shardis_tests::process::{Launch, Process, free_port};
use shardis_tests::redis::{self, Reference};
use shardis_tests::wait::wait_until;
use tempfile::TempDir;

use super::dump_restore::{description, digests, fill, start, start_reference};

const PATIENCE: Duration = Duration::from_secs(30);

/// A directory with this snapshot file.
fn directory_with(file: &[u8]) -> TempDir {
    let directory = TempDir::new().expect("a directory");
    fs::write(directory.path().join("dump.rdb"), file).expect("a file");
    directory
}

/// A server that finds its file in this directory.
fn launch_in(shards: usize, directory: &Path) -> Launch {
    let directory = directory.display().to_string();
    node::launch(shards).with(&["--enable-debug-command", "yes", "--dir", &directory])
}

/// The file that a server saves.
fn saved(server: &Process) -> Vec<u8> {
    assert_eq!(server.connect().line("SAVE").text(), "OK");
    fs::read(server.directory().join("dump.rdb")).expect("a file")
}

/// A file of these records, without a checksum.
fn file(records: &[u8]) -> Vec<u8> {
    [b"REDIS0010", records, b"\xff\0\0\0\0\0\0\0\0"].concat()
}

#[test]
fn files_of_real_servers_are_loaded_whatever_the_shards() {
    for reference in [Reference::Redis, Reference::Valkey] {
        let server = start_reference(reference);
        let mut theirs = server.connect();
        let mut names = fill(&mut theirs);
        let long = "x".repeat(700_000);
        for line in [
            "SET timed v PXAT 9999999999999",
            "SET soon v PX 1",
            "SELECT 3",
            "SET elsewhere v",
            "SET 17 123",
            "SELECT 0",
            &format!("SET long {long}"),
            &format!("RPUSH longlist a {long} b {long} c"),
        ] {
            assert!(!theirs.line(line).is_error());
        }
        names.extend(["timed", "long", "longlist"].map(str::to_owned));
        for number in 0..60_000 {
            let name = format!("member:{number}");
            theirs.send(&["ZADD", "manymembers", "1.5", &name]).expect("sent");
            theirs.send(&["HSET", "manyfields", &name, &name]).expect("sent");
            if number % 1000 == 999 {
                (0..2000).for_each(|_| drop(theirs.read().expect("a reply")));
            }
        }
        names.extend(["manymembers", "manyfields"].map(str::to_owned));
        std::thread::sleep(Duration::from_millis(5));
        theirs.line("DEBUG SET-ACTIVE-EXPIRE 0");
        let directory = directory_with(&saved(&server));
        for shards in [1, 4] {
            let subject = launch_in(shards, directory.path()).serve();
            let mut ours = subject.connect();
            assert_eq!(ours.line("EXISTS soon").integer(), Some(0));
            assert_eq!(ours.line("DBSIZE").integer(), Some(names.len() as i64));
            for key in &names {
                assert_eq!(
                    description(&mut ours, key),
                    description(&mut theirs, key),
                    "{key}"
                );
                for command in ["TYPE", "PEXPIRETIME"] {
                    let line = format!("{command} {key}");
                    assert_eq!(ours.line(&line).text(), theirs.line(&line).text(), "{line}");
                }
            }
            ours.line("SELECT 3");
            assert_eq!(ours.line("GET elsewhere").text(), "v");
            assert_eq!(ours.line("GET 17").text(), "123");
            if reference == Reference::Redis {
                theirs.line("EXISTS soon");
                let [first, second] = digests([&subject, &server]);
                assert_eq!(first, second, "{shards} shards");
            }
            let log = subject.log();
            for line in [
                "Loading RDB produced by ",
                "RDB age ",
                "Done loading RDB, keys loaded: ",
                "DB loaded from disk: ",
            ] {
                assert!(log.contains(line), "{line}: {log}");
            }
            assert!(figure(&mut ours, "rdb_last_load_keys_loaded") >= names.len() as u64 + 2);
        }
    }
}

/// Uses and counts of keys are taken over where the policy looks at them.
#[test]
fn the_use_of_keys_is_loaded_under_the_policy_that_looks_at_it() {
    for (policy, question, command) in [
        (
            "allkeys-lru",
            "OBJECT IDLETIME k",
            "RESTORE k 0 PAYLOAD IDLETIME 5000",
        ),
        ("allkeys-lfu", "OBJECT FREQ k", "RESTORE k 0 PAYLOAD FREQ 100"),
    ] {
        let server = redis::launch().with(&["--maxmemory-policy", policy]).serve();
        let mut theirs = server.connect();
        theirs.line("SET other v");
        let payload = theirs.line("DUMP other").bytes().to_vec();
        let words = command.split(' ').map(|word| match word {
            "PAYLOAD" => payload.clone(),
            word => word.as_bytes().to_vec(),
        });
        assert_eq!(theirs.call(&words.collect::<Vec<_>>()).text(), "OK");
        let directory = directory_with(&saved(&server));
        for loaded_under in ["allkeys-lru", "allkeys-lfu"] {
            let launch = launch_in(2, directory.path()).with(&["--maxmemory-policy", loaded_under]);
            let subject = launch.serve();
            let mut ours = subject.connect();
            if loaded_under == policy {
                let figure = ours.line(question).integer().expect("a number");
                let least = if policy == "allkeys-lru" { 5000 } else { 90 };
                assert!((least..least + 30).contains(&figure), "{figure}");
            } else {
                assert_eq!(ours.line("GET k").text(), "v");
            }
        }
    }
}

/// A file of so many strings, and a server that takes so many microseconds for each.
fn slow(launch: Launch, delay_us: u32) -> (Process, u16) {
    let port = free_port();
    let process = launch
        .with(&["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .with(&["--key-load-delay", &delay_us.to_string()])
        .with(&["--loading-process-events-interval-bytes", "1024"])
        .spawn(port);
    (process, port)
}

/// A connection to a server that is still loading.
fn connect_early(process: &Process) -> Client {
    let mut found = None;
    wait_until("a connection", || {
        found = Client::connect(process.address()).ok();
        found.is_some()
    });
    found.expect("it was waited for")
}

fn strings(count: u32) -> Vec<u8> {
    let mut records = Vec::new();
    for number in 0..count {
        let name = format!("key:{number:06}");
        records.extend([&[0, name.len() as u8], name.as_bytes(), b"\x05value"].concat());
    }
    file(&records)
}

/// Commands run while data is loaded, or are refused, as in Redis.
#[test]
fn commands_that_need_the_data_are_refused_while_it_is_loaded() {
    const LINES: &[&str] = &[
        "PING",
        "ECHO x",
        "GET a",
        "SET a 1",
        "SELECT 1",
        "SELECT 0",
        "MULTI",
        "PING",
        "EXEC",
        "MULTI",
        "SELECT 0",
        "EXEC",
        "MULTI",
        "GET a",
        "DISCARD",
        "DBSIZE",
        "KEYS *",
        "WATCH a",
        "UNWATCH",
        "EXISTS a",
        "OBJECT HELP",
        "OBJECT FREQ a",
        "FLUSHALL",
        "CLIENT ID x",
        "CLIENT SETNAME me",
        "CLIENT GETNAME",
        "CONFIG SET dir /tmp",
        "CONFIG SET appendonly yes",
        "CONFIG SET maxmemory 0",
        "NOSUCH",
        "GET",
        "SCAN 0",
        "BLPOP a 1",
        "PUBLISH a b",
        "RANDOMKEY",
        "TIME",
        "WAIT 0 0",
        "ROLE",
        "DEBUG SLEEP 0",
        "SLOWLOG LEN",
        "COMMAND GETKEYS GET a",
        "MEMORY USAGE a",
        "MEMORY HELP",
        "LATENCY LATEST",
        "DUMP a",
        "PFCOUNT a",
        "RESET",
        "AUTH x",
        "PUBSUB CHANNELS",
        "XADD a * b c",
        "SWAPDB 0 1",
        "DEBUG OBJECT a",
        "CLUSTER INFO",
        "MODULE LIST",
        "EXPIRE a 1",
        "READONLY",
    ];
    let directory = directory_with(&strings(20_000));
    let place = directory.path().display().to_string();
    let redis = redis::launch().with(&["--dir", &place, "--enable-debug-command", "yes"]);
    let ask = |launch: Launch| -> Vec<String> {
        let (process, _) = slow(launch, 500);
        let mut client = connect_early(&process);
        let replies = LINES.iter().map(|line| {
            let reply = client.line(line);
            // Lists of roles and of times differ.
            let text = if reply.items().is_empty() {
                reply.text()
            } else {
                "some".to_owned()
            };
            format!("{line}: {text}")
        });
        let replies: Vec<String> = replies.collect();
        assert!(
            client.line("INFO persistence").text().contains("loading:1"),
            "the load was too short: {}",
            process.log()
        );
        replies
    };
    let theirs = ask(redis);
    assert!(theirs.iter().filter(|reply| reply.contains("LOADING")).count() > 10);
    for shards in [1, 4] {
        assert_eq!(
            ask(launch_in(shards, directory.path())),
            theirs,
            "{shards} shards"
        );
    }
}

#[test]
fn info_tells_how_far_the_load_has_come() {
    let bytes = strings(20_000);
    let directory = directory_with(&bytes);
    let (process, _) = slow(launch_in(2, directory.path()), 200);
    let mut client = connect_early(&process);
    wait_until("a tenth", || {
        figure(&mut client, "loading_loaded_bytes") > bytes.len() as u64 / 10
    });
    let info = client.line("INFO persistence").text();
    assert!(
        info.contains(&format!("loading_total_bytes:{}\r\n", bytes.len())),
        "{info}"
    );
    for field in [
        "loading:1",
        "async_loading:0",
        "loading_start_time:",
        "loading_rdb_used_mem:0",
        "loading_loaded_perc:",
        "loading_eta_seconds:",
    ] {
        assert!(info.contains(field), "{field}: {info}");
    }
    // Some of it is there already, and nobody sees it.
    assert!(client.line("GET key:000000").text().starts_with("LOADING"));
    assert_eq!(client.line("CONFIG SET key-load-delay 0").text(), "OK");
    process.wait_until_ready().expect("the rest does not take long");
    assert_eq!(client.line("GET key:000000").text(), "value");
    assert_eq!(client.line("DBSIZE").integer(), Some(20_000));
    let info = client.line("INFO persistence").text();
    assert!(
        info.contains("loading:0") && !info.contains("loading_total_bytes"),
        "{info}"
    );
}

/// A client that watches a key which the load brings learns of it.
#[test]
fn a_watched_key_that_is_loaded_has_changed() {
    let directory = directory_with(&strings(5000));
    for shards in [1, 3] {
        let (process, _) = slow(launch_in(shards, directory.path()), 200);
        let mut clients = [connect_early(&process), connect_early(&process)];
        assert_eq!(clients[0].line("WATCH key:000007").text(), "OK");
        assert_eq!(clients[1].line("WATCH none").text(), "OK");
        process.wait_until_ready().expect("it takes a second");
        let replies = clients.each_mut().map(|client| {
            client.line("MULTI");
            client.line("PING");
            client.line("EXEC")
        });
        assert!(replies[0].is_null() && !replies[1].is_null(), "{shards} shards");
    }
}

#[test]
fn a_signal_ends_a_load_and_leaves_the_file() {
    let bytes = strings(50_000);
    let directory = directory_with(&bytes);
    for (signal, code) in [(15, Some(0)), (9, None)] {
        let (mut process, _) = slow(launch_in(2, directory.path()), 1000);
        assert_eq!(figure(&mut connect_early(&process), "loading"), 1);
        process.signal(signal);
        let status = process.wait(PATIENCE).expect("it ends");
        assert_eq!(status.code(), code, "{}", process.log());
        assert!(!process.log().contains("Ready to accept"), "{}", process.log());
        let names: Vec<_> = fs::read_dir(directory.path()).expect("a directory").collect();
        assert_eq!(names.len(), 1);
        assert!(fs::read(directory.path().join("dump.rdb")).expect("a file") == bytes);
    }
    // The command ends it as well.
    let (mut process, _) = slow(launch_in(2, directory.path()), 1000);
    connect_early(&process).send(&["SHUTDOWN"]).expect("sent");
    let status = process.wait(PATIENCE).expect("it ends");
    assert_eq!(status.code(), Some(0));
}

/// Whatever is wrong with a file, the start is refused with a reason and a place, and the file stays.
#[test]
fn a_damaged_file_stops_the_start() {
    let server = redis::launch().with(&["--enable-debug-command", "yes"]).serve();
    fill(&mut server.connect());
    let good = saved(&server);
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 4;
    let mut sum = good.clone();
    sum[good.len() - 1] ^= 1;
    let cases: &[(&str, Vec<u8>, &[&str])] = &[
        (
            "cut",
            good[..good.len() / 2].to_vec(),
            &["ends too early", "at offset "],
        ),
        ("flipped", flipped, &["at offset "]),
        ("sum", sum, &["checksum", "at offset "]),
        ("empty", Vec::new(), &["ends too early", "at offset 0"]),
        ("no file of ours", b"anything but a snapshot".to_vec(), &["magic"]),
        (
            "a later version",
            b"REDIS0099\xff\0\0\0\0\0\0\0\0".to_vec(),
            &["version"],
        ),
        (
            "a key twice",
            file(b"\xfe\x00\x00\x01a\x01b\x00\x03dup\x01b\x00\x03dup\x01b"),
            &["twice", "at offset 28", "key 'dup'"],
        ),
        (
            "a member twice",
            file(b"\x02\x03set\x02\x01m\x01m"),
            &["twice", "at offset 19", "key 'set'"],
        ),
        (
            "a database too many",
            file(b"\xfe\x10\x00\x01a\x01b"),
            &["database 16", "16 databases", "at offset 11"],
        ),
        (
            "a type of the future",
            file(b"\x63\x01a\x01b"),
            &["no known type", "key 'a'"],
        ),
    ];
    for (name, bytes, expected) in cases {
        let directory = directory_with(bytes);
        let place = directory.path().display().to_string();
        let launch = node::launch(2).with(&["--port", &free_port().to_string(), "--dir", &place]);
        let ended = launch.finish(PATIENCE);
        let text = ended.text();
        assert_eq!(ended.code, Some(1), "{name}: {text}");
        assert!(
            text.contains("Fatal error loading the DB") && text.contains("dump.rdb"),
            "{name}: {text}"
        );
        for part in *expected {
            assert!(text.contains(part), "{name}: {part}: {text}");
        }
        assert!(
            &fs::read(directory.path().join("dump.rdb")).expect("a file") == bytes,
            "{name}"
        );
    }
}

#[test]
fn empty_collections_and_values_of_modules_are_left_out() {
    let mut records = Vec::new();
    for number in 0..12 {
        records.extend([b"\x02\x02e".as_slice(), &[b'a' + number], b"\x00"].concat());
    }
    records.extend(b"\x07\x01m\x81\x12\x34\x56\x78\x12\x34\x56\x78\x03abcd\x04abcdefgh\x00\x00\x01k\x01v");
    let directory = directory_with(&file(&records));
    let server = launch_in(2, directory.path()).serve();
    let mut client = server.connect();
    assert_eq!(client.line("DBSIZE").integer(), Some(1));
    assert_eq!(client.line("GET k").text(), "v");
    let log = server.log();
    assert!(
        log.contains("keys loaded: 1, keys expired: 0, empty keys skipped: 13."),
        "{log}"
    );
    assert_eq!(log.matches("is left out: ").count(), 10, "{log}");
}

/// Other directories and names; no file at all.
#[test]
fn the_directives_say_which_file_is_loaded() {
    let directory = TempDir::new().expect("a directory");
    fs::write(directory.path().join("other.rdb"), strings(3)).expect("a file");
    let server = launch_in(2, directory.path())
        .with(&["--dbfilename", "other.rdb"])
        .serve();
    assert_eq!(server.connect().line("DBSIZE").integer(), Some(3));
    let server = launch_in(2, directory.path()).serve();
    assert_eq!(server.connect().line("DBSIZE").integer(), Some(0));
    assert_eq!(start(1).connect().line("DBSIZE").integer(), Some(0));
}
