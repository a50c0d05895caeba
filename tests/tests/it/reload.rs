//! DEBUG RELOAD: the data goes to its file and comes back, as it was.

use std::fs;
use std::time::{Duration, Instant};

use shardis_tests::client::Client;
use shardis_tests::info::figure;
use shardis_tests::node;
use shardis_tests::redis::{self, Reference};
use shardis_tests::wait::wait_until;

use super::dump_restore::{description, fill, start, start_reference};

/// Strings of two databases, in order.
fn strings(client: &mut Client) -> Vec<String> {
    let mut found = Vec::new();
    for db in ["0", "1"] {
        client.line(&format!("SELECT {db}"));
        let keys = client.line("KEYS *");
        for key in keys.items() {
            let value = client.line(&format!("GET {}", key.text())).text();
            found.push(format!("{db} {}={value}", key.text()));
        }
    }
    found.sort();
    client.line("SELECT 0");
    found
}

#[test]
fn data_of_every_type_survives_a_reload() {
    for shards in [1, 4] {
        let server = start(shards);
        let mut client = server.connect();
        let names = fill(&mut client);
        client.line("SET timed v PXAT 9999999999999");
        client.line("SELECT 5");
        client.line("DEBUG POPULATE 20000 more 100");
        client.line("SELECT 0");
        let before: Vec<_> = names.iter().map(|name| description(&mut client, name)).collect();
        let digest = client.line("DEBUG DIGEST").text();
        client.line("DEBUG SET-ACTIVE-EXPIRE 0");
        client.line("SET gone v PX 1");
        std::thread::sleep(Duration::from_millis(3));
        for line in [
            "DEBUG RELOAD",
            "DEBUG RELOAD NOSAVE",
            "DEBUG RELOAD MERGE",
            "DEBUG RELOAD NOFLUSH MERGE",
        ] {
            assert_eq!(client.line(line).text(), "OK", "{}", server.log());
            let after: Vec<_> = names.iter().map(|name| description(&mut client, name)).collect();
            assert_eq!(after, before, "{line}, {shards} shards");
            assert_eq!(client.line("DEBUG DIGEST").text(), digest, "{line}");
            assert_eq!(
                client.line("PEXPIRETIME timed").integer(),
                Some(9_999_999_999_999)
            );
            assert_eq!(client.line("EXISTS gone").integer(), Some(0));
        }
        assert!(server.log().contains("DB reloaded by DEBUG RELOAD"));
        // The saved file is one like any other.
        let file = server.directory().join("dump.rdb");
        let reference = start_reference(Reference::Redis);
        fs::copy(&file, reference.directory().join("dump.rdb")).expect("a copy");
        let mut theirs = reference.connect();
        assert_eq!(
            theirs.line("DEBUG RELOAD NOSAVE").text(),
            "OK",
            "{}",
            reference.log()
        );
        assert_eq!(theirs.line("DEBUG DIGEST").text(), digest);
    }
}

/// The options, on both servers alike.
#[test]
fn the_options_say_what_becomes_of_the_data() {
    let reference = redis::launch().with(&["--enable-debug-command", "yes"]).serve();
    let (one, three) = (start(1), start(3));
    let steps: &[&[&str]] = &[
        &[
            "SET a 1",
            "SET b 2",
            "SELECT 1",
            "SET c 3",
            "SELECT 0",
            "DEBUG RELOAD",
        ],
        &["SET a changed", "SET new 1", "DEBUG RELOAD NOSAVE"],
        &[
            "FLUSHALL",
            "SET new 1",
            "SET other 2",
            "DEBUG RELOAD NOSAVE NOFLUSH",
        ],
        &["SET a changed", "DEBUG RELOAD NOSAVE NOFLUSH MERGE"],
        &["DEBUG RELOAD wrong"],
        &["DEBUG RELOAD NOSAVE MERGE"],
    ];
    let run = |client: &mut Client| -> Vec<(Vec<String>, Vec<String>)> {
        let steps = steps.iter().map(|lines| {
            let replies = lines.iter().map(|line| client.line(line).text()).collect();
            (replies, strings(client))
        });
        steps.collect()
    };
    let expected = run(&mut reference.connect());
    for subject in [&one, &three] {
        assert_eq!(run(&mut subject.connect()), expected);
    }
}

/// A reload that fails changes nothing. The real server loses its data then, or ends.
#[test]
fn a_reload_that_fails_changes_nothing() {
    for shards in [1, 3] {
        let server = start(shards);
        let mut client = server.connect();
        client.line("MSET a 1 b 2 c 3");
        let file = server.directory().join("dump.rdb");
        let mut check = |lines: &str, reason: &str| {
            let reply = client.line(lines).text();
            assert_eq!(
                reply, "ERR Error trying to load the RDB dump, check server logs",
                "{lines}"
            );
            assert!(server.log().contains(reason), "{reason}: {}", server.log());
            assert_eq!(client.line("DBSIZE").integer(), Some(3));
            assert_eq!(client.line("GET b").text(), "2");
        };
        check("DEBUG RELOAD NOSAVE", "No such file");
        fs::write(
            &file,
            b"REDIS0010\xfe\x00\x00\x01b\x01x\x00\x01b\x01y\xff\0\0\0\0\0\0\0\0",
        )
        .expect("a file");
        check("DEBUG RELOAD NOSAVE", "holds this key twice");
        fs::write(
            &file,
            b"REDIS0010\xfe\x00\x00\x01z\x01x\x00\x01b\x01y\xff\0\0\0\0\0\0\0\0",
        )
        .expect("a file");
        check(
            "DEBUG RELOAD NOSAVE NOFLUSH",
            "RDB has duplicated key 'b' in DB 0",
        );
        fs::write(&file, b"REDIS0010\xfe\x00\x00\x01z").expect("a file");
        check("DEBUG RELOAD NOSAVE MERGE", "ends too early");
        // Keys twice in the file are merged.
        fs::write(
            &file,
            b"REDIS0010\xfe\x00\x00\x01b\x01x\x00\x01b\x01y\xff\0\0\0\0\0\0\0\0",
        )
        .expect("a file");
        assert_eq!(client.line("DEBUG RELOAD NOSAVE MERGE").text(), "OK");
        assert_eq!(client.line("GET b").text(), "y");
    }
}

/// Clients that watch or wait learn of it.
#[test]
fn watchers_and_waiters_are_told_of_a_reload() {
    for shards in [1, 4] {
        let server = start(shards);
        let mut client = server.connect();
        client.line("RPUSH list x");
        assert_eq!(client.line("DEBUG RELOAD").text(), "OK");
        client.line("FLUSHALL");
        let (mut watcher, mut waiter) = (server.connect(), server.connect());
        watcher.line("WATCH list");
        waiter.send(&["BLPOP", "list", "20"]).expect("sent");
        shardis_tests::wait::await_blocked(&mut client, 1);
        assert_eq!(client.line("DEBUG RELOAD NOSAVE").text(), "OK");
        let reply = waiter.read().expect("a reply");
        assert_eq!(reply.items().len(), 2, "{}", reply.text());
        watcher.line("MULTI");
        assert!(watcher.line("EXEC").is_null());
        assert_eq!(client.line("EXISTS list").integer(), Some(0));
    }
}

/// Clients of the same loop get answers while files are read: an error where the data is needed.
#[test]
fn a_reload_deafens_nobody() {
    for shards in [1, 3] {
        for line in ["DEBUG RELOAD", "DEBUG LOADAOF"] {
            let server = node::launch(shards)
                .with(&["--enable-debug-command", "yes", "--appendonly", "yes"])
                .serve();
            let (mut client, mut others) = (server.connect(), [(); 6].map(|()| server.connect()));
            client.line("DEBUG POPULATE 3000 key 10");
            client.line("BGREWRITEAOF");
            wait_until("the base is written", || {
                figure(&mut client, "aof_rewrite_in_progress") == 0
            });
            client.line("CONFIG SET key-load-delay 1000");
            let before = server.log().matches("Loading RDB produced by").count();
            client.send(&line.split(' ').collect::<Vec<_>>()).expect("sent");
            let begin = Instant::now();
            // A command for the data that comes earlier waits, as for any long command.
            let loads = || server.log().matches("Loading RDB produced by").count();
            wait_until("data is loaded", || loads() > before);
            for other in &mut others {
                assert!(other.line("CLIENT ID").integer().is_some());
                let reply = other.line("SET key:1 v").text();
                assert!(
                    reply.starts_with("LOADING"),
                    "{line}, {shards} shards: {reply}, {}",
                    server.log()
                );
            }
            assert!(
                begin.elapsed() < Duration::from_millis(2900),
                "{line}, {shards} shards"
            );
            let reply = client.read_within(Duration::from_secs(20)).expect("an answer");
            assert_eq!(reply.text(), "OK", "{line}: {}", server.log());
            assert!(
                begin.elapsed() > Duration::from_millis(2900),
                "it has not been slow"
            );
            assert_eq!(others[1].line("SET key:1 v").text(), "OK");
            assert_eq!(client.line("DBSIZE").integer(), Some(3000));
            // In a transaction the next command finds the data.
            client.line("CONFIG SET key-load-delay 0");
            client.line("MULTI");
            client.line(line);
            client.line("DBSIZE");
            let replies = client.line("EXEC");
            assert_eq!(replies.items()[1].integer(), Some(3000), "{replies:?}");
        }
    }
}
