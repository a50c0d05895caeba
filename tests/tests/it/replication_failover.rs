//! FAILOVER: a primary hands its role over to a replica while clients write, and none of the writes that were acknowledged is lost.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use shardis_tests::client::Client;
use shardis_tests::replication::equality::await_equal;
use shardis_tests::replication::member::Kind::{self, Redis, Shardis, Valkey};
use shardis_tests::replication::member::{Member, PATIENCE};
use shardis_tests::wait::{accept, retry, wait_until};

/// Writers at work, and counters of each: a counter has as many increments as were acknowledged, or one more that was under way.
const WRITERS: usize = 4;

/// A primary and its replicas, in this order.
fn set(kinds: &[Kind]) -> Vec<Member> {
    let members: Vec<Member> = kinds
        .iter()
        .map(|kind| Member::start(*kind, &["repl-timeout 20"]))
        .collect();
    for replica in &members[1..] {
        replica.follow(members[0].port());
    }
    for replica in &members[1..] {
        replica.await_link();
        await_online(&members[0], replica.port());
    }
    members
}

fn await_online(primary: &Member, port: u16) {
    let wanted = format!("port={port},state=online");
    let is_so = || {
        let text = primary.client().line("INFO replication").text();
        text.contains(&wanted).then_some(()).ok_or(text)
    };
    retry(PATIENCE, is_so).expect("a replica that is online");
}

fn stage(member: &Member) -> String {
    member.field("master_failover_state").unwrap_or_default()
}

/// Waits until a failover from one member to the other is over.
fn await_change(from: &Member, to: &Member) {
    to.await_field("role", "master");
    from.await_field("role", "slave");
    from.await_field("master_port", &to.port().to_string());
    from.await_link();
    assert_eq!(stage(from), "no-failover");
}

/// Increments a counter wherever the primary is, until `is_over`. Returns the number of increments that were acknowledged, and whether
/// the last one was answered.
fn count_up(key: &str, primary: &AtomicU16, is_over: &AtomicBool) -> (i64, i64) {
    let connect = || Client::connect(([127, 0, 0, 1], primary.load(Ordering::SeqCst)).into());
    let (mut acknowledged, mut doubtful) = (0, 0);
    let mut client = connect().expect("a connection");
    while !is_over.load(Ordering::SeqCst) {
        match client.try_call(&["INCR", key]) {
            Ok(reply) if reply.integer().is_some() => acknowledged += 1,
            Ok(reply) => {
                let text = reply.text();
                assert!(
                    text.starts_with("READONLY") || text.starts_with("MASTERDOWN"),
                    "{text}"
                );
                sleep(Duration::from_millis(2));
                client = connect().expect("a connection");
            }
            Err(_) => {
                doubtful += 1;
                client = connect().expect("a connection");
            }
        }
    }
    (acknowledged, doubtful)
}

/// Moves the role round a set, from each member to the next one, under writes.
fn go_round(kinds: &[Kind]) {
    let members = set(kinds);
    let (port, is_over) = (AtomicU16::new(members[0].port()), AtomicBool::new(false));
    let counted = scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| {
                let (port, is_over) = (&port, &is_over);
                scope.spawn(move || count_up(&format!("counter:{number}"), port, is_over))
            })
            .collect();
        for at in 0..members.len() {
            let (from, to) = (&members[at], &members[(at + 1) % members.len()]);
            for replica in members.iter().filter(|member| member.port() != from.port()) {
                await_online(from, replica.port());
            }
            sleep(Duration::from_millis(200));
            let target = to.port().to_string();
            let reply = from
                .client()
                .call(&["FAILOVER", "TO", "127.0.0.1", &target, "TIMEOUT", "30000"]);
            assert_eq!(reply.text(), "OK");
            await_change(from, to);
            port.store(to.port(), Ordering::SeqCst);
            // The others follow the old primary, through which all of it comes to them.
            for other in members.iter().filter(|member| member.port() != to.port()) {
                other.await_link();
                other.follow(to.port());
            }
        }
        sleep(Duration::from_millis(200));
        is_over.store(true, Ordering::SeqCst);
        writers
            .into_iter()
            .map(|writer| writer.join().expect("a writer"))
            .collect::<Vec<_>>()
    });
    members[1..].iter().for_each(Member::await_link);
    await_equal(&members.iter().collect::<Vec<_>>());
    let mut client = members[0].client();
    for (number, (acknowledged, doubtful)) in counted.into_iter().enumerate() {
        let value: i64 = client
            .line(&format!("GET counter:{number}"))
            .text()
            .parse()
            .expect("a counter");
        assert!(acknowledged > 100, "{acknowledged} writes");
        assert!(
            (acknowledged..=acknowledged + doubtful).contains(&value),
            "counter {number}: {value}, {acknowledged} acknowledged, {doubtful} without an answer"
        );
    }
    let full: u64 = members.iter().map(|member| member.syncs().full).sum();
    assert_eq!(full, members.len() as u64 - 1, "a failover costs no full sync");
}

#[test]
fn a_role_goes_round_under_writes() {
    scope(|scope| {
        for kinds in [
            &[Shardis(4), Redis, Shardis(1)][..],
            &[Redis, Shardis(4)],
            &[Valkey, Shardis(2)],
        ] {
            scope.spawn(move || go_round(kinds));
        }
    });
}

#[test]
fn real_servers_hand_their_role_round() {
    go_round(&[Redis, Redis, Valkey]);
}

#[test]
fn any_replica_that_has_everything_is_taken() {
    for kinds in [[Shardis(4), Redis, Shardis(2)], [Redis, Shardis(2), Redis]] {
        let members = set(&kinds);
        members[1].freeze();
        members[0].client().line("SET key value");
        assert_eq!(members[0].client().line("FAILOVER").text(), "OK");
        await_change(&members[0], &members[2]);
        assert_eq!(members[2].client().line("GET key").text(), "value");
        members[1].thaw();
    }
}

#[test]
fn a_replica_that_never_catches_up_ends_it_in_time() {
    for kinds in [[Shardis(4), Redis], [Redis, Shardis(4)]] {
        let members = set(&kinds);
        let (mut client, mut writer) = (members[0].client(), members[0].client());
        members[1].freeze();
        client.line("SET key 1");
        let begun = Instant::now();
        assert_eq!(client.line("FAILOVER TIMEOUT 700").text(), "OK");
        assert_eq!(stage(&members[0]), "waiting-for-sync");
        if let Shardis(_) = kinds[0] {
            assert_eq!(
                members[0].field("paused_reason").as_deref(),
                Ok("failover_in_progress")
            );
        }
        // It is answered when the failover is given up.
        assert_eq!(writer.line("SET key 2").text(), "OK");
        assert!(
            begun.elapsed() >= Duration::from_millis(700),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(stage(&members[0]), "no-failover");
        assert!(
            members[0]
                .log()
                .contains("FAILOVER to any replica aborted: Replica never caught up before timeout")
        );
        assert_eq!(members[0].field("role").as_deref(), Ok("master"));
        members[1].thaw();
    }
}

#[test]
fn it_is_aborted_while_it_waits() {
    for kinds in [[Shardis(4), Redis], [Redis, Shardis(4)]] {
        let members = set(&kinds);
        let (mut client, mut writer) = (members[0].client(), members[0].client());
        members[1].freeze();
        client.line("SET key 1");
        assert_eq!(client.line("FAILOVER").text(), "OK");
        writer.send(&["SET", "key", "2"]).expect("it is sent");
        assert_eq!(
            client.line("FAILOVER").text(),
            "ERR FAILOVER already in progress."
        );
        for line in ["REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"] {
            assert_eq!(
                client.line(line).text(),
                "ERR REPLICAOF not allowed while failing over."
            );
        }
        assert_eq!(
            client.line("PSYNC ? -1").text(),
            "NOMASTERLINK Can't SYNC while failing over"
        );
        assert_eq!(client.line("GET key").text(), "1", "only writes wait");
        assert!(
            writer.read_within(Duration::from_millis(300)).is_err(),
            "writes wait"
        );
        assert_eq!(client.line("FAILOVER ABORT").text(), "OK");
        assert_eq!(writer.read().expect("a reply").text(), "OK");
        assert_eq!(
            client.line("FAILOVER ABORT").text(),
            "ERR No failover in progress."
        );
        members[1].thaw();
        await_equal(&[&members[0], &members[1]]);
        assert_eq!(members[0].syncs().full, 1);
    }
}

#[test]
fn it_goes_on_at_the_end_of_the_time_if_it_must() {
    for kinds in [[Shardis(4), Redis], [Redis, Shardis(4)], [Shardis(1), Shardis(3)]] {
        let members = set(&kinds);
        let mut client = members[0].client();
        members[1].freeze();
        client.line("SET key lost");
        let target = members[1].port();
        let line = format!("FAILOVER TO 127.0.0.1 {target} FORCE TIMEOUT 300");
        assert_eq!(client.line(&line).text(), "OK");
        members[0].await_field("master_failover_state", "failover-in-progress");
        assert_eq!(members[0].field("role").as_deref(), Ok("slave"));
        let mut writer = members[0].client();
        writer.send(&["SET", "key", "later"]).expect("it is sent");
        members[1].thaw();
        await_change(&members[0], &members[1]);
        let refusal = writer.read().expect("a reply").text();
        assert!(refusal.starts_with("READONLY"), "{refusal}");
        members[1].client().line("SET key kept");
        await_equal(&[&members[1], &members[0]]);
    }
}

#[test]
fn it_is_aborted_under_way() {
    for kinds in [[Shardis(4), Redis], [Redis, Shardis(4)]] {
        let members = set(&kinds);
        let (mut client, mut writer) = (members[0].client(), members[0].client());
        members[1].freeze();
        client.line("SET key 1");
        let target = members[1].port();
        let line = format!("FAILOVER TO 127.0.0.1 {target} FORCE TIMEOUT 1000");
        assert_eq!(client.line(&line).text(), "OK");
        writer.send(&["SET", "key", "2"]).expect("it is sent");
        members[0].await_field("master_failover_state", "failover-in-progress");
        assert_eq!(
            client.line("FAILOVER").text(),
            "ERR FAILOVER already in progress."
        );
        assert_eq!(client.line("FAILOVER ABORT").text(), "OK");
        assert_eq!(members[0].field("role").as_deref(), Ok("master"));
        assert_eq!(writer.read().expect("a reply").text(), "OK");
        assert_eq!(client.line("GET key").text(), "2");
        members[1].thaw();
    }
}

/// A server that a test plays: what it answers to each word that it waits for.
fn answer(listener: &TcpListener, dialogue: &[(&str, &str)]) -> TcpStream {
    let mut stream = accept(listener);
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut received = Vec::new();
    for (word, reply) in dialogue {
        let mut buffer = [0; 1024];
        while !String::from_utf8_lossy(&received).contains(word) {
            let count = stream.read(&mut buffer).expect("the other side writes");
            assert!(count > 0, "it is closed before {word}");
            received.extend_from_slice(&buffer[..count]);
        }
        stream.write_all(reply.as_bytes()).expect("the other side reads");
    }
    stream
}

/// The handshake of a replica up to its PSYNC.
const INTRODUCTION: [(&str, &str); 4] = [
    ("PING", "+PONG\r\n"),
    ("listening-port", "+OK\r\n"),
    ("capa", "+OK\r\n"),
    ("version", "+OK\r\n"),
];

/// A primary whose only replica is played, and listens on a port of the test.
fn with_played_replica() -> (Member, TcpListener, TcpStream) {
    let primary = Member::start(Shardis(4), &[]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let mut stream = TcpStream::connect(primary.address()).expect("a connection");
    let introduction = format!("REPLCONF listening-port {port} capa eof capa psync2\r\n");
    stream.write_all(introduction.as_bytes()).expect("it is sent");
    stream.read_exact(&mut [0; 5]).expect("OK");
    stream.write_all(b"SYNC\r\n").expect("it is sent");
    stream
        .set_read_timeout(Some(Duration::from_millis(20)))
        .expect("a timeout");
    wait_until("the replica is online", || {
        let _ = stream.read(&mut [0; 65536]);
        let _ = stream.write_all(b"REPLCONF ACK 0\r\n");
        let text = primary.client().line("INFO replication").text();
        text.contains(&format!("port={port},state=online"))
    });
    let offset = primary.figure("master_repl_offset");
    let line = format!("REPLCONF ACK {offset}\r\n");
    stream.write_all(line.as_bytes()).expect("it is sent");
    (primary, listener, stream)
}

#[test]
fn a_target_that_refuses_leaves_the_primary_one() {
    let (primary, listener, _replica) = with_played_replica();
    assert_eq!(primary.client().line("FAILOVER").text(), "OK");
    let refusal = ("FAILOVER", "-ERR PSYNC FAILOVER replid must match my replid.\r\n");
    let _target = answer(&listener, &[&INTRODUCTION[..], &[refusal]].concat());
    primary.await_field("role", "master");
    assert_eq!(stage(&primary), "no-failover");
    assert!(
        primary.log().contains("Failover target rejected psync request"),
        "{}",
        primary.tail()
    );
    assert_eq!(primary.client().line("SET key value").text(), "OK");
}

#[test]
fn an_answer_that_is_lost_makes_no_second_primary() {
    let (primary, listener, _replica) = with_played_replica();
    assert_eq!(primary.client().line("FAILOVER TIMEOUT 500").text(), "OK");
    // It takes the role, but its answer does not arrive.
    drop(answer(
        &listener,
        &[&INTRODUCTION[..], &[("FAILOVER", "")]].concat(),
    ));
    sleep(Duration::from_millis(600));
    let is_one = ("FAILOVER", "-ERR PSYNC FAILOVER can't be sent to a master.\r\n");
    drop(answer(&listener, &[&INTRODUCTION[..], &[is_one]].concat()));
    // It is followed, without being asked again.
    let id = "a".repeat(40);
    let accepted = ("PSYNC", &*format!("+CONTINUE {id}\r\n"));
    let _target = answer(&listener, &[&INTRODUCTION[..], &[accepted]].concat());
    primary.await_link();
    assert_eq!(stage(&primary), "no-failover");
    assert_eq!(primary.field("master_replid"), Ok(id));
    assert!(
        primary
            .client()
            .line("SET key value")
            .text()
            .starts_with("READONLY")
    );
}

#[test]
fn a_target_that_is_away_is_given_up_in_time() {
    let (primary, listener, _replica) = with_played_replica();
    drop(listener);
    assert_eq!(primary.client().line("FAILOVER TIMEOUT 400").text(), "OK");
    let reason = "aborted: Failover target cannot be reached";
    wait_until("it is given up", || primary.log().contains(reason));
    assert_eq!(stage(&primary), "no-failover");
    assert_eq!(primary.field("role").as_deref(), Ok("master"));
    assert_eq!(primary.client().line("SET key value").text(), "OK");
}

#[test]
fn requests_to_take_over_are_checked() {
    let lines = |member: &Member| {
        let id = "0".repeat(40);
        let reply = member.client().line(&format!("PSYNC {id} 1 FAILOVER")).text();
        assert_eq!(reply, "ERR PSYNC FAILOVER replid must match my replid.");
    };
    for kinds in [[Redis, Shardis(2)], [Shardis(2), Redis]] {
        let members = set(&kinds);
        let id = members[0].field("master_replid").expect("an id");
        let reply = members[0].client().line(&format!("PSYNC {id} 1 FAILOVER")).text();
        assert_eq!(reply, "ERR PSYNC FAILOVER can't be sent to a master.");
        lines(&members[1]);
        assert_eq!(
            members[1].client().line("FAILOVER").text(),
            "ERR FAILOVER is not valid when server is a replica."
        );
        // Whoever names the history gets a primary.
        members[1]
            .client()
            .send(&["PSYNC", &id, "1", "FAILOVER"])
            .expect("it is sent");
        members[1].await_field("role", "master");
        assert_eq!(members[1].field("master_replid2"), Ok(id));
    }
}

#[test]
fn targets_are_checked() {
    for kinds in [[Shardis(2), Redis], [Redis, Shardis(2)]] {
        let members = set(&kinds);
        let (mut client, port) = (members[0].client(), members[1].port());
        for (line, refusal) in [
            (
                "TO 127.0.0.1 1".to_owned(),
                "ERR FAILOVER target HOST and PORT is not a replica.",
            ),
            (
                format!("TO 10.0.0.1 {port}"),
                "ERR FAILOVER target HOST and PORT is not a replica.",
            ),
            (
                format!("TO 127.0.0.1 {port} FORCE"),
                "ERR FAILOVER with force option requires both a timeout and target HOST and IP.",
            ),
            (
                "FORCE TIMEOUT 10".to_owned(),
                "ERR FAILOVER with force option requires both a timeout and target HOST and IP.",
            ),
        ] {
            assert_eq!(client.line(&format!("FAILOVER {line}")).text(), refusal, "{line}");
        }
        // In a transaction it is a command like others.
        client.line("MULTI");
        client.line("SET key value");
        client.line(&format!("FAILOVER TO 127.0.0.1 {port}"));
        assert_eq!(client.line("EXEC").items()[1].text(), "OK");
        await_change(&members[0], &members[1]);
        assert_eq!(members[1].client().line("GET key").text(), "value");
    }
}
