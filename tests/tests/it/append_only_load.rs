//! Append-only files of real servers are loaded; torn, damaged and old ones are treated as Redis treats them, or better.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shardis_tests::client::encode;
use shardis_tests::node;
use shardis_tests::process::{Launch, Process, free_port};
use shardis_tests::redis::{self, Reference};
use shardis_tests::wait::wait_until;
use tempfile::TempDir;

use super::dump_restore::{description, fill};

const PATIENCE: Duration = Duration::from_secs(30);

/// Options of a server that has written what it has answered: with another policy, writes wait while a sync is running.
fn options(directory: &Path) -> [String; 8] {
    let directory = directory.display().to_string();
    [
        "--enable-debug-command",
        "yes",
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--dir",
        &directory,
    ]
    .map(str::to_owned)
}

fn launch(shards: usize, directory: &Path) -> Launch {
    node::launch(shards).with(&options(directory))
}

fn reference(kind: Reference, directory: &Path) -> Process {
    let launch = match kind {
        Reference::Redis => redis::launch(),
        Reference::Valkey => redis::launch_peer(),
    };
    launch.with(&options(directory)).serve()
}

/// A copy of a directory with an append-only file.
fn copy(directory: &Path) -> TempDir {
    let target = TempDir::new().expect("a directory");
    let files = "appendonlydir";
    fs::create_dir(target.path().join(files)).expect("a directory");
    for entry in fs::read_dir(directory.join(files))
        .expect("a directory")
        .flatten()
    {
        fs::copy(entry.path(), target.path().join(files).join(entry.file_name())).expect("a copy");
    }
    target
}

fn file(directory: &Path, name: &str) -> PathBuf {
    directory.join("appendonlydir").join(name)
}

/// Text of commands, one a line.
fn commands(lines: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in lines {
        encode(&mut bytes, &line.split(' ').collect::<Vec<_>>());
    }
    bytes
}

/// A directory whose manifest names files with these contents: a base, if it is not empty, and increments.
fn directory_with(base: &[u8], increments: &[&[u8]]) -> TempDir {
    let directory = TempDir::new().expect("a directory");
    fs::create_dir(directory.path().join("appendonlydir")).expect("a directory");
    let mut manifest = String::new();
    if !base.is_empty() {
        manifest += "file appendonly.aof.1.base.aof seq 1 type b\n";
        fs::write(file(directory.path(), "appendonly.aof.1.base.aof"), base).expect("a file");
    }
    for (index, bytes) in increments.iter().enumerate() {
        let number = index + 1;
        manifest += &format!("file appendonly.aof.{number}.incr.aof seq {number} type i\n");
        let name = format!("appendonly.aof.{number}.incr.aof");
        fs::write(file(directory.path(), &name), bytes).expect("a file");
    }
    fs::write(file(directory.path(), "appendonly.aof.manifest"), manifest).expect("a file");
    directory
}

#[test]
fn files_of_real_servers_are_loaded_whatever_the_shards() {
    for (kind, preamble) in [
        (Reference::Redis, "yes"),
        (Reference::Redis, "no"),
        (Reference::Valkey, "yes"),
        (Reference::Valkey, "no"),
    ] {
        let directory = TempDir::new().expect("a directory");
        let server = reference(kind, directory.path());
        let mut theirs = server.connect();
        theirs.line(&format!("CONFIG SET aof-use-rdb-preamble {preamble}"));
        let names = fill(&mut theirs);
        for line in [
            "BGREWRITEAOF",
            "SET timed v PXAT 9999999999999",
            "INCRBYFLOAT float 1.5",
            "SET soon v PX 1",
        ] {
            assert!(!theirs.line(line).is_error(), "{line}");
        }
        wait_until("the rewrite", || {
            theirs
                .line("INFO persistence")
                .text()
                .contains("aof_rewrite_in_progress:0")
        });
        for line in [
            "MULTI",
            "SET in:multi 1",
            "SELECT 3",
            "RPUSH there a b c",
            "LPOP there",
            "EXEC",
            "SELECT 0",
            "RENAME in:multi after",
            "SET counted 1",
            "INCR counted",
            "SPOP s:members 1",
            "XADD stream 5-5 f v",
            "GETEX counted PXAT 9999999999998",
        ] {
            theirs.line(line);
        }
        theirs.line("EXISTS soon");
        for shards in [1, 4] {
            let place = copy(directory.path());
            let subject = launch(shards, place.path()).serve();
            let mut ours = subject.connect();
            for name in &names {
                assert_eq!(
                    description(&mut ours, name),
                    description(&mut theirs, name),
                    "{name}"
                );
            }
            for line in [
                "DBSIZE",
                "PEXPIRETIME timed",
                "PEXPIRETIME counted",
                "GET after",
                "GET counted",
                "GET float",
                "XLEN stream",
            ] {
                assert_eq!(ours.line(line).text(), theirs.line(line).text(), "{line}");
            }
            if kind == Reference::Redis {
                assert_eq!(
                    ours.line("DEBUG DIGEST").text(),
                    theirs.line("DEBUG DIGEST").text()
                );
            }
            for line in [
                "DB loaded from base file appendonly.aof.",
                "DB loaded from incr file appendonly.aof.",
                "DB loaded from append only file: ",
            ] {
                assert!(subject.log().contains(line), "{line}: {}", subject.log());
            }
        }
    }
}

/// LOADAOF reads the data that was there, and what was written since.
#[test]
fn the_data_comes_back_from_the_append_only_file() {
    for shards in [1, 4] {
        let directory = TempDir::new().expect("a directory");
        let server = launch(shards, directory.path()).serve();
        let mut client = server.connect();
        let names = fill(&mut client);
        client.line("SET timed v PXAT 9999999999999");
        let before: Vec<_> = names.iter().map(|name| description(&mut client, name)).collect();
        let digest = client.line("DEBUG DIGEST").text();
        for _ in 0..2 {
            assert_eq!(client.line("DEBUG LOADAOF").text(), "OK", "{}", server.log());
            let after: Vec<_> = names.iter().map(|name| description(&mut client, name)).collect();
            assert_eq!(after, before);
            assert_eq!(client.line("DEBUG DIGEST").text(), digest);
        }
        client.line("SET later v");
        assert_eq!(client.line("DEBUG LOADAOF").text(), "OK");
        assert_eq!(client.line("GET later").text(), "v");
        drop(server);
        let again = launch(3, directory.path()).serve();
        let mut client = again.connect();
        assert_eq!(client.line("GET later").text(), "v");
        client.line("DEL later");
        assert_eq!(client.line("DEBUG DIGEST").text(), digest);
    }
}

/// The old form, one file in the directory of the data, is moved, in each of the situations in which that may have been left.
#[test]
fn a_file_of_the_old_form_is_taken_in() {
    let old = commands(&["SELECT 0", "SET a 1", "INCR a", "SELECT 1", "SET b 1"]);
    for situation in 0..3 {
        let directory = TempDir::new().expect("a directory");
        let place = directory.path();
        fs::write(place.join("appendonly.aof"), &old).expect("a file");
        fs::write(
            place.join("dump.rdb"),
            b"REDIS0010\xfe\x00\x00\x01z\x01z\xff\0\0\0\0\0\0\0\0",
        )
        .expect("a file");
        if situation > 0 {
            fs::create_dir(place.join("appendonlydir")).expect("a directory");
        }
        if situation > 1 {
            let manifest = "file appendonly.aof seq 1 type b\n";
            fs::write(file(place, "appendonly.aof.manifest"), manifest).expect("a file");
        }
        let server = launch(2, place).serve();
        let mut client = server.connect();
        assert_eq!(client.line("GET a").text(), "2", "situation {situation}");
        assert_eq!(client.line("EXISTS z").integer(), Some(0));
        assert!(
            server
                .log()
                .contains("Successfully migrated an old-style AOF configuration (appendonly.aof)")
        );
        assert!(!place.join("appendonly.aof").exists());
        assert!(fs::read(file(place, "appendonly.aof")).expect("the file") == old);
        client.line("INCR a");
        drop(server);
        // Both go on with what there is now.
        let again = launch(1, place).serve();
        assert_eq!(again.connect().line("GET a").text(), "3");
        drop(again);
        let theirs = reference(Reference::Redis, place);
        assert_eq!(theirs.connect().line("GET a").text(), "3");
    }
}

/// The end of the last file that has bytes may be torn. It is cut before anything is appended, also within a transaction.
#[test]
fn a_torn_end_is_cut_and_what_follows_is_kept() {
    let whole = commands(&["SELECT 0", "SET a 1"]);
    for torn in [
        &b"*2\r\n$4\r\nIN"[..],
        b"*1\r\n$5\r\nMULTI\r\n*2\r\n$4\r\nINCR\r\n$1\r\na\r\n",
        b"*1\r\n$5\r\nMULTI\r\n*2\r\n$4\r\nIN",
    ] {
        let torn = [&whole, torn].concat();
        // A rewrite that was about to begin has named an increment which nothing was written to.
        for behind in [&[][..], &[&b""[..]]] {
            let increments: Vec<&[u8]> = [&[torn.as_slice()], behind].concat();
            let directory = directory_with(&commands(&["SET base v"]), &increments);
            let server = launch(2, directory.path()).serve();
            let mut client = server.connect();
            assert_eq!(client.line("GET a").text(), "1");
            assert!(
                fs::read(file(directory.path(), "appendonly.aof.1.incr.aof"))
                    .expect("a file")
                    .starts_with(&whole)
            );
            let log = server.log();
            for line in [
                "short read while loading the AOF file",
                "Truncating the AOF",
                "loaded anyway because aof-load-truncated is enabled",
            ] {
                assert!(log.contains(line), "{line}: {log}");
            }
            client.line("MSET b 2 c 3");
            client.line("INCR a");
            drop(server);
            let again = launch(1, directory.path()).serve();
            assert_eq!(again.connect().line("MGET base a b c").items().len(), 4);
            assert_eq!(again.connect().line("GET a").text(), "2");
            drop(again);
            let theirs = reference(Reference::Redis, directory.path());
            assert_eq!(theirs.connect().line("GET c").text(), "3");
        }
    }
}

/// A base, increments, parts of the message, and an option of the server.
type Case<'a> = (&'a [u8], &'a [&'a [u8]], &'a [&'a str], &'a str);

/// Everything else that is wrong stops the start, with the file and the place, and leaves all files as they are.
#[test]
fn damage_stops_the_start_and_leaves_the_files() {
    let whole = commands(&["SELECT 0", "SET a 1"]);
    let cut = &whole[..whole.len() - 3];
    let zeros = [&whole[..], &[0; 64]].concat();
    let unknown = [&whole[..], &commands(&["NOSUCH x"])].concat();
    let flipped = [&whole[..], b"*1\r\n%4\r\nPING\r\n"].concat();
    let cases: &[Case<'_>] = &[
        (
            &whole,
            &[cut, &whole],
            &["the truncated file is not the last file", "1.incr.aof"],
            "",
        ),
        (
            cut,
            &[&whole],
            &["the truncated file is not the last file", "1.base.aof"],
            "",
        ),
        (
            &whole,
            &[cut],
            &["Unexpected end of file", "at offset 23"],
            "--aof-load-truncated no",
        ),
        (
            &whole,
            &[&zeros],
            &[
                "Bad file format",
                "zero bytes",
                "aof-load-corrupt-tail-max-size",
                "at offset 50",
            ],
            "",
        ),
        (
            &whole,
            &[&flipped],
            &["Bad file format", "at offset 50"],
            "--aof-load-corrupt-tail-max-size 13",
        ),
        (
            &whole,
            &[&unknown],
            &["Unknown command 'NOSUCH'", "1.incr.aof", "at offset 50"],
            "",
        ),
        (
            b"REDIS0010\xfe\x00\x00\x01a",
            &[&whole],
            &["ends too early", "1.base.aof"],
            "",
        ),
    ];
    for (base, increments, expected, option) in cases {
        let directory = directory_with(base, increments);
        let before = contents(directory.path());
        let words: Vec<&str> = option.split_whitespace().collect();
        let port = free_port().to_string();
        let ended = launch(2, directory.path())
            .with(&["--port", &port])
            .with(&words)
            .finish(PATIENCE);
        assert_eq!(ended.code, Some(1), "{expected:?}: {}", ended.text());
        for part in *expected {
            assert!(ended.text().contains(part), "{part}: {}", ended.text());
        }
        assert!(contents(directory.path()) == before, "{expected:?}");
    }
    // A file that the manifest names and that is not there.
    let directory = directory_with(&whole, &[&whole]);
    fs::remove_file(file(directory.path(), "appendonly.aof.1.base.aof")).expect("it was there");
    let port = free_port().to_string();
    let ended = launch(1, directory.path())
        .with(&["--port", &port])
        .finish(PATIENCE);
    assert!(
        ended.code == Some(1) && ended.text().contains("1.base.aof"),
        "{}",
        ended.text()
    );
    // An end without meaning that is short enough is cut off.
    let directory = directory_with(&whole, &[&zeros]);
    let server = launch(1, directory.path())
        .with(&["--aof-load-corrupt-tail-max-size", "64"])
        .serve();
    assert_eq!(server.connect().line("GET a").text(), "1");
    assert!(fs::read(file(directory.path(), "appendonly.aof.1.incr.aof")).expect("a file") == whole);
}

/// Names and contents of all files.
fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(directory.join("appendonlydir"))
        .expect("a directory")
        .flatten();
    let mut found: Vec<_> = entries
        .map(|entry| (entry.path(), fs::read(entry.path()).unwrap_or_default()))
        .collect();
    found.sort();
    found
}

/// Commands that need the data are refused while the file is replayed; a kill then changes no file.
#[test]
fn a_node_that_replays_says_so() {
    let lines: Vec<String> = (0..20_000).map(|number| format!("SET key:{number} v")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let directory = directory_with(&commands(&["SET base v"]), &[&commands(&lines)]);
    let before = contents(directory.path());
    let port = free_port();
    let mut server = launch(2, directory.path())
        .with(&[
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--key-load-delay",
            "500",
        ])
        .with(&["--loading-process-events-interval-bytes", "1024"])
        .spawn(port);
    let mut client = None;
    wait_until("a connection", || {
        client = shardis_tests::client::Client::connect(server.address()).ok();
        client.is_some()
    });
    let mut client = client.expect("it was waited for");
    assert!(client.line("GET base").text().starts_with("LOADING"));
    wait_until("progress", || {
        let info = client.line("INFO persistence").text();
        info.contains("loading:1") && !info.contains("loading_loaded_bytes:0")
    });
    server.signal(9);
    assert!(server.wait(PATIENCE).is_some());
    assert!(contents(directory.path()) == before);
}
