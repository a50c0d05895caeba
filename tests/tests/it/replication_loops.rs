//! Full synchronisations that could follow each other for ever, each because of one limit: they end by themselves, and the log names the
//! limit. And data that changes behind the stream's back.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use shardis_tests::process::{Launch, Process};
use shardis_tests::redis;
use shardis_tests::replication::equality::await_equal;
use shardis_tests::replication::member::Kind::{Redis, Shardis, Valkey};
use shardis_tests::replication::member::{Member, PATIENCE};
use shardis_tests::wait::{retry, wait_until};

use super::replication_replica_faults::{FULL, serve_fake, snapshot};

/// Waits until a replica has what its primary has.
fn await_synced(primary: &Member, replica: &Member) {
    replica.await_link();
    await_equal(&[primary, replica]);
}

#[test]
fn an_output_limit_below_the_backlog_breaks_no_link() {
    for kind in [Redis, Shardis(2)] {
        let primary = Member::start(
            Shardis(2),
            &[
                "client-output-buffer-limit replica 100kb 50kb 1",
                "repl-backlog-size 32mb",
            ],
        );
        let replica = Member::start(kind, &[]);
        replica.follow(primary.port());
        await_synced(&primary, &replica);
        let mut client = primary.client();
        let value = "x".repeat(100_000);
        replica.freeze();
        client.line("CLIENT KILL TYPE replica");
        for number in 0..100 {
            client.call(&["SET", &format!("key:{number}"), &value]);
        }
        replica.thaw();
        await_synced(&primary, &replica);
        let syncs = primary.syncs();
        assert_eq!((syncs.full, syncs.resumed), (1, 1), "{}", primary.tail());
        assert_eq!(primary.figure("client_output_buffer_limit_disconnections"), 0);
    }
}

#[test]
fn a_value_beyond_every_limit_costs_a_full_sync_and_no_more() {
    for kind in [Redis, Shardis(2)] {
        let primary = Member::start(
            Shardis(2),
            &[
                "client-output-buffer-limit replica 1mb 0 0",
                "repl-backlog-size 1mb",
            ],
        );
        let replica = Member::start(kind, &[]);
        replica.follow(primary.port());
        await_synced(&primary, &replica);
        for round in 1..=3 {
            primary
                .client()
                .call(&["SET", "large", &format!("{round}").repeat(5_000_000)]);
            primary.client().line("SET behind 1");
            await_synced(&primary, &replica);
            let full = primary.syncs().full;
            assert!(
                full <= round + 1,
                "{kind:?}: {full} in round {round}: {}",
                primary.tail()
            );
        }
        if primary.syncs().full > 1 {
            let log = primary.log();
            assert!(
                log.contains("hard limit of 'client-output-buffer-limit replica'"),
                "{log}"
            );
            assert!(log.contains(" bytes would do."), "{log}");
        }
    }
}

#[test]
fn a_load_that_takes_longer_than_the_limit_lasts_tells_which_limit() {
    let primary = Member::start(
        Shardis(2),
        &[
            "client-output-buffer-limit replica 1mb 0 0",
            "repl-backlog-size 1mb",
        ],
    );
    primary.client().line("DEBUG POPULATE 1000 key 10");
    let replica = Member::start(
        Redis,
        &[
            "key-load-delay 2000",
            "loading-process-events-interval-bytes 1024",
        ],
    );
    replica.follow(primary.port());
    replica.await_field("loading", "1");
    let mut client = primary.client();
    let value = "x".repeat(100_000);
    // Sockets take some of it.
    wait_until("the log tells the limit", || {
        client.call(&["SET", "large", &value]);
        primary
            .log()
            .contains("hard limit of 'client-output-buffer-limit replica'")
    });
    // With the value that it names, the next load lasts.
    primary.configure("client-output-buffer-limit", "replica 64mb 0 0");
    replica.configure("key-load-delay", "0");
    await_synced(&primary, &replica);
}

#[test]
fn a_load_that_fails_for_a_fixed_reason_is_tried_less_and_less() {
    let mut damaged = snapshot();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x55;
    let bytes = [format!("${}\r\n", damaged.len()).as_bytes(), &damaged].concat();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let replica = Member::start(Shardis(2), &[]);
    replica.follow(listener.local_addr().expect("an address").port());
    let mut times = Vec::new();
    for _ in 0..3 {
        serve_fake(&listener, &[FULL, &bytes], Duration::ZERO);
        times.push(Instant::now());
    }
    let waits = [times[1] - times[0], times[2] - times[1]];
    assert!(
        waits[0] >= Duration::from_millis(1800) && waits[1] > waits[0] + Duration::from_secs(1),
        "{waits:?}"
    );
    let reason = replica.field("master_sync_last_error").expect("a reason");
    assert!(replica.log().contains(&reason), "{reason}: {}", replica.tail());
    // Another primary is asked at once.
    let primary = Member::start(Redis, &[]);
    let begun = Instant::now();
    replica.follow(primary.port());
    await_synced(&primary, &replica);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert!(replica.field("master_sync_last_error").is_err());
}

#[test]
fn data_that_debug_changes_reaches_replicas() {
    for kind in [Redis, Shardis(3)] {
        let primary = Member::start(Shardis(2), &[]);
        let replica = Member::start(kind, &[]);
        replica.follow(primary.port());
        let mut client = primary.client();
        client.line("SET key old");
        client.line("SET volatile v PX 100000000");
        await_synced(&primary, &replica);
        // What comes back as it was costs nothing.
        assert_eq!(client.line("DEBUG RELOAD").text(), "OK");
        client.line("SET after 1");
        await_synced(&primary, &replica);
        assert_eq!(primary.syncs().full, 1);
        for change in ["SET key new", "PEXPIRE volatile 50000000"] {
            client.line("SAVE");
            client.line(change);
            await_synced(&primary, &replica);
            let full = primary.syncs().full;
            assert_eq!(client.line("DEBUG RELOAD NOSAVE").text(), "OK");
            wait_until("the replica gets all data again", || {
                primary.syncs().full == full + 1
            });
            await_synced(&primary, &replica);
        }
        assert_eq!(replica.client().line("GET key").text(), "old");
    }
}

#[test]
fn the_configuration_file_names_the_primary() {
    for kind in [Redis, Shardis(2)] {
        let primary = Member::start(Redis, &[]);
        let mut replica = Member::start(kind, &[]);
        let has_line = |member: &Member, line: &str| {
            let text = std::fs::read_to_string(member.configuration()).expect("a file");
            text.lines().any(|found| found.trim() == line)
        };
        replica.follow(primary.port());
        assert_eq!(replica.client().line("CONFIG REWRITE").text(), "OK");
        let line = format!("replicaof 127.0.0.1 {}", primary.port());
        assert!(has_line(&replica, &line));
        replica.kill();
        replica.start_again();
        await_synced(&primary, &replica);
        replica.promote();
        assert_eq!(replica.client().line("CONFIG REWRITE").text(), "OK");
        assert!(!has_line(&replica, &line));
        replica.kill();
        replica.start_again();
        assert_eq!(replica.field("role").as_deref(), Ok("master"));
    }
}

/// A replica that a test plays: it has introduced itself, and sent its request.
fn play(primary: &Member) -> TcpStream {
    let mut stream = TcpStream::connect(primary.address()).expect("a connection");
    stream
        .write_all(b"REPLCONF capa eof capa psync2\r\n")
        .expect("it is sent");
    stream.read_exact(&mut [0; 5]).expect("OK");
    stream.write_all(b"PSYNC ? -1\r\n").expect("it is sent");
    stream
}

fn await_state(primary: &Member, state: &str) {
    let is_so = || {
        let line = primary.field("slave0")?;
        let wanted = format!("state={state},");
        line.contains(&wanted).then_some(()).ok_or(line)
    };
    retry(PATIENCE, is_so).unwrap_or_else(|line| panic!("{state}: {line}"));
}

#[test]
fn the_state_of_a_replica_tells_how_far_it_is() {
    for kind in [Redis, Shardis(2)] {
        for (delivery, while_sent) in [("yes", "wait_bgsave"), ("no", "send_bulk")] {
            let primary = Member::start(
                kind,
                &[
                    &format!("repl-diskless-sync {delivery}"),
                    "repl-diskless-sync-delay 600",
                    "repl-diskless-sync-max-replicas 2",
                    "rdbcompression no",
                ],
            );
            primary.client().line("DEBUG POPULATE 2000 key 10000");
            let mut first = play(&primary);
            if delivery == "yes" {
                await_state(&primary, "wait_bgsave");
            }
            let second = play(&primary);
            // Nobody reads, so that it goes on for as long as the test looks.
            wait_until("it is sent", || primary.log().contains("target: "));
            await_state(&primary, while_sent);
            let role = primary.client().line("ROLE");
            assert!(role.items()[2].items().is_empty(), "{role}: none is online");
            if delivery == "yes" {
                // A redis-server lets one wait for the other.
                drop(second);
                take_marked(&mut first);
                first.write_all(b"REPLCONF ACK 0\r\n").expect("it is sent");
                await_state(&primary, "online");
            }
        }
    }
}

/// Reads a snapshot that ends with a mark.
fn take_marked(stream: &mut TcpStream) {
    let (mut all, mut piece) = (Vec::new(), vec![0; 1 << 20]);
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let is_whole = |all: &[u8]| {
        let text = String::from_utf8_lossy(&all[..all.len().min(300)]).into_owned();
        let mark = text.split("$EOF:").nth(1).map(|rest| rest[..40].to_owned());
        mark.is_some_and(|mark| all.len() > 300 && all.ends_with(mark.as_bytes()))
    };
    while !is_whole(&all) {
        let count = stream.read(&mut piece).expect("the primary writes");
        all.extend_from_slice(&piece[..count]);
    }
}

#[test]
fn a_replica_that_loads_for_long_is_waited_for() {
    for kind in [Redis, Shardis(1)] {
        let primary = Member::start(Shardis(2), &["repl-timeout 2"]);
        primary.client().line("DEBUG POPULATE 2000 key 10");
        let directives = [
            "key-load-delay 2000",
            "loading-process-events-interval-bytes 1024",
            "repl-diskless-load disabled",
        ];
        let replica = Member::start(kind, &directives);
        replica.follow(primary.port());
        replica.await_field("loading", "1");
        await_synced(&primary, &replica);
        assert_eq!(primary.syncs().full, 1, "{}", primary.tail());
    }
}

#[test]
fn scores_reach_a_valkey_in_a_spelling_that_it_reads() {
    let (primary, replica) = (Member::start(Shardis(2), &[]), Member::start(Valkey, &[]));
    replica.follow(primary.port());
    await_synced(&primary, &replica);
    let mut client = primary.client();
    for line in ["ZADD z 0x1p4 a +5 b -Infinity c", "ZINCRBY z 0x10 a"] {
        assert!(!client.line(line).is_error(), "{line}");
    }
    assert_eq!(client.line("ZSCORE z a").text(), "32");
    await_equal(&[&primary, &replica]);
}

#[test]
fn fields_that_expire_reach_a_valkey_in_its_own_form() {
    for delivery in ["yes", "no"] {
        let directive = format!("repl-diskless-sync {delivery}");
        let primary = Member::start(Shardis(2), &[&directive]);
        let mut client = primary.client();
        client.line("HSET hash a 1 b 2");
        client.line("HPEXPIREAT hash 5000000000000 FIELDS 1 a");
        let replica = Member::start(Valkey, &[]);
        replica.follow(primary.port());
        await_synced(&primary, &replica);
        let times = replica.client().line("HPEXPIRETIME hash FIELDS 2 a b");
        assert_eq!(times.items()[0].integer(), Some(5_000_000_000_000), "{times}");
        // One that tells no version gets the form of Redis: the same snapshot cannot serve both.
        let other = Member::start(Shardis(1), &[]);
        other.follow(primary.port());
        await_synced(&primary, &other);
        client.line("HPEXPIREAT hash 5000000000001 FIELDS 1 b");
        await_synced(&primary, &replica);
    }
}

#[test]
fn sentinels_of_valkey_ask_for_a_coordinated_failover() {
    let members = [Member::start(Shardis(2), &[]), Member::start(Shardis(1), &[])];
    members[1].follow(members[0].port());
    await_synced(&members[0], &members[1]);
    let directory = tempfile::TempDir::new().expect("a directory");
    let file = directory.path().join("sentinel.conf");
    let port = shardis_tests::process::free_port();
    let text = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor shop 127.0.0.1 {} 1\n\
         sentinel down-after-milliseconds shop 5000\nsentinel failover-timeout shop 10000\n",
        directory.path().display(),
        members[0].port()
    );
    std::fs::write(&file, text).expect("a configuration file");
    let sentinel: Process = Launch::new(&redis::peer_binary())
        .with(&[file.display().to_string(), "--sentinel".to_owned()])
        .spawn(port);
    let ask = |words: &[&str]| {
        let mut client = shardis_tests::client::Client::connect(([127, 0, 0, 1], port).into())
            .map_err(|error| error.to_string())?;
        let reply = client.try_call(words).map_err(|error| error.to_string())?;
        if reply.is_error() {
            Err(reply.text())
        } else {
            Ok(reply)
        }
    };
    let attempt = || ask(&["SENTINEL", "FAILOVER", "shop", "COORDINATED"]);
    retry(PATIENCE, attempt).unwrap_or_else(|reason| panic!("{reason}: {}", sentinel.log()));
    members[1].await_field("role", "master");
    members[0].await_field("role", "slave");
    members[0].await_link();
    let log = members[0].log();
    assert!(log.contains("FAILOVER requested to"), "{log}");
    assert_eq!(members[1].syncs().full, 0, "{}", members[1].tail());
}
