//! Directives of a replica that decide what becomes of its data: whether an empty primary empties it, which of its keys expire, what a
//! failing command or a failing disk ends, and what clients get while data is loaded.

use std::net::TcpListener;
use std::time::Duration;

use shardis_tests::client::encode;
use shardis_tests::faults::{Act, Fault, Operation};
use shardis_tests::info::fields;
use shardis_tests::replication::equality::await_equal;
use shardis_tests::replication::member::Kind::{Redis, Shardis};
use shardis_tests::replication::member::{Member, PATIENCE};
use shardis_tests::replication::pair::{Kinds, Pair};
use shardis_tests::wait::{retry, wait_until};

use super::replication_replica_faults::{FULL, serve_fake, snapshot};

/// Waits until the log of a member has a text.
fn await_log(member: &Member, text: &str) {
    let has_it = || match member.log() {
        log if log.contains(text) => Ok(()),
        _ => Err(format!("no \"{text}\"")),
    };
    retry(PATIENCE, has_it).unwrap_or_else(|reason| panic!("{reason}: {}", member.tail()));
}

/// Waits until a member has ended by itself.
fn await_end(member: &Member) {
    wait_until("the process ends", || !member.process().is_running());
}

#[test]
fn an_empty_primary_is_refused_by_a_replica_that_is_to_keep_its_data() {
    for (primary, load) in [(Redis, "disabled"), (Shardis(2), "swapdb")] {
        let mut primary = Member::start(primary, &[]);
        let directives = [
            "replica-refuse-empty-primary yes",
            &format!("repl-diskless-load {load}"),
        ];
        let replica = Member::start(Shardis(3), &directives);
        // One without keys has nothing to lose.
        replica.follow(primary.port());
        replica.await_link();
        primary.client().line("SET key value");
        await_equal(&[&primary, &replica]);
        replica.client().line("SAVE");
        let file = replica.data().join("dump.rdb");
        let saved = std::fs::read(&file).expect("a file");
        primary.kill();
        primary.forget();
        replica.await_field("master_link_status", "down");
        primary.start_again();
        let has_refused = || {
            let reason = replica.field("master_sync_last_error")?;
            let is_it = reason.contains("replica-refuse-empty-primary");
            is_it.then_some(()).ok_or(reason)
        };
        retry(PATIENCE, has_refused).unwrap_or_else(|reason| panic!("{reason}: {}", replica.tail()));
        assert_eq!(replica.client().line("GET key").text(), "value");
        assert_eq!(
            std::fs::read(&file).expect("a file"),
            saved,
            "the file of the data stays as well"
        );
        primary.client().line("SET other 1");
        replica.await_link();
        await_equal(&[&primary, &replica]);
        assert!(replica.field("master_sync_last_error").is_err());
    }
}

#[test]
fn keys_of_a_writable_replica_expire_there() {
    for kind in [Redis, Shardis(1), Shardis(4)] {
        let primary = Member::start(Redis, &[]);
        let replica = Member::start(kind, &["replica-read-only no", "appendonly yes"]);
        replica.follow(primary.port());
        replica.await_link();
        let (mut source, mut client) = (primary.client(), replica.client());
        source.line("DEBUG SET-ACTIVE-EXPIRE 0");
        source.line("SET theirs v PX 100");
        for number in 0..40 {
            client.line(&format!("SET own:{number} v"));
            client.line(&format!("PEXPIRE own:{number} {}", 100 + number));
        }
        client.line("SET kept v EX 1000");
        client.line("SET persistent v PX 100");
        client.line("PERSIST persistent");
        wait_until("own keys are gone", || client.line("DBSIZE").integer() == Some(3));
        // That of the primary is hidden, and there.
        assert!(client.line("GET theirs").is_null());
        assert_eq!(client.line("GET persistent").text(), "v");
        wait_until("what expires is known", || {
            replica.field("slave_expires_tracked_keys").as_deref() == Ok("1")
        });
        let offset = replica.figure("master_repl_offset");
        source.line("DEBUG SET-ACTIVE-EXPIRE 1");
        wait_until("the primary removes its key", || {
            client.line("DBSIZE").integer() == Some(2)
        });
        assert!(replica.figure("master_repl_offset") > offset);
        assert_eq!(
            primary.client().line("DBSIZE").integer(),
            Some(0),
            "nothing comes back"
        );
    }
}

/// A replica that is sent a command which must fail, by a primary that the test plays.
fn with_failing_command(directives: &[&str]) -> Member {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let replica = Member::start(Shardis(2), directives);
    replica.follow(port);
    let good = snapshot();
    let mut stream = format!("${}\r\n", good.len()).into_bytes();
    stream.extend_from_slice(&good);
    encode(&mut stream, &["INCR", "from"]);
    encode(&mut stream, &["NOSUCHCOMMAND"]);
    serve_fake(&listener, &[FULL, &stream], Duration::from_millis(50));
    replica
}

#[test]
fn a_failing_command_of_the_stream_ends_what_it_is_to_end() {
    let replica = with_failing_command(&[]);
    await_log(
        &replica,
        "== CRITICAL == This replica is sending an error to its master",
    );
    wait_until("both are counted", || {
        replica.figure("unexpected_error_replies") == 2
    });
    for behaviour in ["panic", "panic-on-replicas"] {
        let replica = with_failing_command(&[&format!("propagation-error-behavior {behaviour}")]);
        await_end(&replica);
        await_log(
            &replica,
            "This replica panicked sending an error to its master after processing the command 'incr'",
        );
    }
    // The data of a writable one differs anyhow.
    let replica = with_failing_command(&["propagation-error-behavior panic", "replica-read-only no"]);
    wait_until("both are counted", || {
        replica.figure("unexpected_error_replies") == 2
    });
}

#[test]
fn a_failing_command_of_a_file_ends_the_start_if_it_is_to() {
    for (behaviour, ends) in [("ignore", false), ("panic-on-replicas", false), ("panic", true)] {
        let directive = format!("propagation-error-behavior {behaviour}");
        let mut member = Member::start(Shardis(2), &["appendonly yes", &directive]);
        member.client().line("SET key value");
        member.shut_down(&["NOSAVE"]);
        let folder = member.data().join("appendonlydir");
        let increment = std::fs::read_dir(&folder)
            .expect("a folder")
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| path.display().to_string().ends_with(".incr.aof"))
            .expect("an increment");
        let mut bytes = std::fs::read(&increment).expect("a file");
        encode(&mut bytes, &["INCR", "key"]);
        std::fs::write(&increment, bytes).expect("it is written");
        if ends {
            assert!(member.try_start().is_err(), "{behaviour}");
            assert!(member.log().contains("incr"), "{}", member.tail());
        } else {
            member.start_again();
            assert_eq!(member.figure("unexpected_error_replies"), 1, "{behaviour}");
        }
    }
}

#[test]
fn a_replica_whose_disk_fails_ends_or_goes_on() {
    for kind in [Redis, Shardis(2)] {
        for ignores in ["no", "yes"] {
            let primary = Member::start(Redis, &[]);
            let directives = [
                "save 3600 1",
                &format!("replica-ignore-disk-write-errors {ignores}"),
            ];
            let replica = Member::start_faulty(kind, &directives);
            replica.follow(primary.port());
            replica.await_link();
            primary.client().line("SET key 1");
            await_equal(&[&primary, &replica]);
            let fault = Fault::always(Operation::Rename, "dump.rdb", Act::Fail(libc::EROFS));
            replica.faults().set(&[fault]);
            replica.client().line("BGSAVE");
            replica.await_field("rdb_last_bgsave_status", "err");
            // What changes nothing is no reason.
            primary.client().line("PUBLISH channel text");
            assert_eq!(replica.client().line("GET key").text(), "1");
            primary.client().line("SET key 2");
            if ignores == "no" {
                await_end(&replica);
                await_log(&replica, "Replica was unable to write command to disk.");
            } else {
                await_log(
                    &replica,
                    "Replica is applying a command even though it is unable to write to disk.",
                );
                await_equal(&[&primary, &replica]);
            }
        }
    }
}

#[test]
fn a_file_that_only_a_synchronisation_needs_is_removed() {
    for kind in [Redis, Shardis(2)] {
        for (directives, is_there) in [
            (&["rdb-del-sync-files yes"][..], false),
            (&["rdb-del-sync-files no"], true),
            (&["rdb-del-sync-files yes", "save 3600 1"], true),
        ] {
            let primary = Member::start(Redis, &[]);
            primary.client().line("SET key value");
            let replica = Member::start(kind, directives);
            replica.follow(primary.port());
            replica.await_link();
            let file = replica.data().join("dump.rdb");
            wait_until(&format!("{kind:?} {directives:?}: a file {is_there}"), || {
                file.exists() == is_there
            });
            assert_eq!(replica.client().line("GET key").text(), "value");
        }
    }
}

#[test]
fn old_data_is_served_while_the_same_history_is_loaded() {
    for kind in [Redis, Shardis(2)] {
        let primary = Member::start(Redis, &["repl-backlog-size 16kb"]);
        let mut source = primary.client();
        source.line("DEBUG POPULATE 2000 key");
        let replica = Member::start(
            kind,
            &[
                "repl-diskless-load swapdb",
                "loading-process-events-interval-bytes 1024",
            ],
        );
        replica.follow(primary.port());
        replica.await_link();
        await_equal(&[&primary, &replica]);
        let mut client = replica.client();
        client.line("CONFIG SET key-load-delay 1000");
        // It misses more than the backlog keeps.
        replica.freeze();
        source.line("CLIENT KILL TYPE replica");
        source.line(&format!("SET large {}", "x".repeat(100_000)));
        source.line("SET key:1 new");
        replica.thaw();
        replica.await_field("async_loading", "1");
        assert_eq!(replica.field("loading").as_deref(), Ok("0"));
        assert!(replica.field("loading_loaded_perc").is_ok());
        assert_eq!(client.line("GET key:1").text(), "value:1");
        assert!(client.line("GET large").is_null());
        for line in ["BGSAVE", "SAVE", "BGREWRITEAOF", "REPLICAOF NO ONE"] {
            let reply = client.line(line).text();
            assert!(reply.starts_with("LOADING"), "{kind:?} {line}: {reply}");
        }
        client.line("CONFIG SET key-load-delay 0");
        replica.await_field("async_loading", "0");
        replica.await_link();
        assert_eq!(client.line("GET key:1").text(), "new");
    }
}

#[test]
fn bytes_of_links_are_counted() {
    let kinds = Kinds {
        primary: Shardis(2),
        replica: Shardis(3),
    };
    let mut pair = Pair::start(kinds, &[], &[]);
    pair.link();
    let is_busy = |member: &Member, name: &str| member.field(name).is_ok_and(|rate| rate != "0.00");
    pair.await_that("there are rates", |pair| {
        is_busy(&pair.replica, "instantaneous_input_repl_kbps")
            && is_busy(&pair.primary, "instantaneous_output_repl_kbps")
    });
    // They count once.
    let figures = fields(&mut pair.replica.client());
    let figure = |name: &str| figures[name].parse::<u64>().expect("a number");
    let of_clients = figure("total_net_input_bytes") - figure("total_net_repl_input_bytes");
    assert!(of_clients < 100_000, "{of_clients}");
    pair.check();
    pair.rest();
    await_equal(&[&pair.primary, &pair.replica]);
    let (sent, received) = (
        pair.primary.figure("total_net_repl_output_bytes"),
        pair.replica.figure("total_net_repl_input_bytes"),
    );
    assert!(sent > 500_000, "{sent}");
    // Replies to the introduction are no bytes of the link for the primary.
    assert!(
        (sent..sent + 500).contains(&received),
        "{sent} sent, {received} received"
    );
}

#[test]
fn a_demoted_primary_tells_what_it_discards() {
    let (primary, other) = (Member::start(Shardis(2), &[]), Member::start(Redis, &[]));
    let replica = Member::start(Redis, &[]);
    replica.follow(primary.port());
    replica.await_link();
    primary.client().line("SET key value");
    await_equal(&[&primary, &replica]);
    let known = primary.figure("master_repl_offset");
    wait_until("it is acknowledged", || {
        primary
            .field("slave0")
            .is_ok_and(|line| line.contains(&format!("offset={known},")))
    });
    replica.freeze();
    for number in 0..10 {
        primary.client().line(&format!("SET key:{number} value"));
    }
    let (id, end) = (
        primary.field("master_replid").expect("an id"),
        primary.figure("master_repl_offset"),
    );
    primary.follow(other.port());
    primary.await_link();
    await_log(
        &primary,
        &format!(
            "is discarded: {} bytes of its stream, from offset {} to {end} of the history {id}, had been acknowledged by no replica",
            end - known,
            known + 1
        ),
    );
    replica.thaw();
}

#[test]
fn a_demoted_primary_that_is_continued_discards_nothing() {
    let primary = Member::start(Shardis(2), &[]);
    let replica = Member::start(Redis, &[]);
    replica.follow(primary.port());
    replica.await_link();
    primary.client().line("SET key value");
    await_equal(&[&primary, &replica]);
    replica.promote();
    primary.follow(replica.port());
    primary.await_link();
    assert!(!primary.log().contains("is discarded"), "{}", primary.tail());
}
