//! A shardis replica of a real redis-server: full synchronisation in every form, the stream under load, roles and what clients see of
//! them. Faults of the link are in `replication_replica_faults.rs`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use shardis_tests::client::{Client, split};
use shardis_tests::info::{field, figure};
use shardis_tests::node;
use shardis_tests::process::{Launch, Process};
use shardis_tests::redis;
use shardis_tests::wait::wait_until;

const DEBUG: [&str; 2] = ["--enable-debug-command", "yes"];

/// A real redis-server to follow.
pub(super) fn primary() -> Launch {
    redis::launch()
        .with(&DEBUG)
        .with(&["--repl-diskless-sync-delay", "0"])
}

/// A shardis node that can be made a replica.
pub(super) fn replica(shards: usize) -> Launch {
    node::launch(shards).with(&DEBUG)
}

/// Makes a node follow the one that listens on this port.
pub(super) fn follow(client: &mut Client, port: u16) {
    call_when_loaded(client, &format!("REPLICAOF 127.0.0.1 {port}"));
}

/// Sends a command, again and again while data is loaded.
pub(super) fn call_when_loaded(client: &mut Client, line: &str) {
    wait_until(line, || {
        let reply = client.line(line).text();
        assert!(reply.starts_with("OK") || reply.starts_with("LOADING"), "{reply}");
        reply.starts_with("OK")
    });
}

/// Ends the writes of a test, also when that fails.
pub(super) struct EndOf<'a>(pub(super) &'a AtomicBool);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Waits until the link of a replica is up.
pub(super) fn wait_for_link(replica: &mut Client) {
    wait_until("a link to the primary", || {
        field(replica, "master_link_status") == "up"
    });
}

/// Waits until a replica has applied all that its primary has, which nobody writes to.
pub(super) fn wait_in_sync(primary: &mut Client, replica: &mut Client) {
    wait_until("equal offsets", || {
        let end = figure(primary, "master_repl_offset");
        field(replica, "master_link_status") == "up"
            && figure(replica, "slave_repl_offset") == end
            && figure(primary, "master_repl_offset") == end
    });
}

/// Checks that two nodes have the same data, at equal offsets.
pub(super) fn check_same(primary: &mut Client, replica: &mut Client) {
    loop {
        wait_in_sync(primary, replica);
        let before = figure(primary, "master_repl_offset");
        let digests = [primary.line("DEBUG DIGEST"), replica.line("DEBUG DIGEST")].map(|reply| reply.text());
        let after = [
            figure(primary, "master_repl_offset"),
            figure(replica, "master_repl_offset"),
        ];
        // A key may have expired between the two looks.
        if after == [before, before] {
            assert_eq!(digests[0], digests[1], "at the offset {before}");
            return;
        }
    }
}

/// Random writes of all kinds, over three databases.
pub(super) struct Seeder(SmallRng);

impl Seeder {
    pub(super) fn new(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    /// Some commands that write, which begin by selecting a database.
    pub(super) fn commands(&mut self, count: usize) -> Vec<Vec<Vec<u8>>> {
        let mut commands = vec![split(&format!("SELECT {}", self.0.random_range(0..3)))];
        while commands.len() < count {
            if self.0.random_range(0..8) == 0 {
                commands.push(split("MULTI"));
                for _ in 0..self.0.random_range(1..5) {
                    commands.push(self.command());
                }
                commands.push(split("EXEC"));
            } else {
                commands.push(self.command());
            }
        }
        commands
    }

    fn command(&mut self) -> Vec<Vec<u8>> {
        let (key, number) = (self.0.random_range(0..300), self.0.random_range(0..1000));
        match self.0.random_range(0..26) {
            0 => split(&format!("SET s{key} v{number} EX {}", 1000 + number)),
            1 => split(&format!("SET s{key} {number}")),
            2 => split(&format!("INCRBY n{key} {number}")),
            3 => split(&format!("APPEND a{key} x{number}")),
            4 => split(&format!("LPUSH l{key} {number} b")),
            5 => split(&format!("RPOP l{key}")),
            6 => split(&format!("HSET h{key} f{number} {number} g 1")),
            7 => split(&format!("HINCRBYFLOAT h{key} d 0.1")),
            8 => split(&format!("SADD e{key} {number} m{number}")),
            9 => split(&format!("SPOP e{key}")),
            10 => split(&format!("ZADD z{key} {number} m{number}")),
            11 => split(&format!("ZINCRBY z{key} 1.5 m{number}")),
            12 => split(&format!("XADD x{key} * f {number}")),
            13 => split(&format!("XTRIM x{key} MAXLEN ~ 10")),
            14 => split(&format!("SETRANGE r{key} {number} abc")),
            15 => split(&format!("SETBIT b{key} {number} 1")),
            16 => split(&format!("PFADD p{key} {number}")),
            17 => split(&format!("GEOADD g{key} 1.{number} 2.5 m{number}")),
            18 => split(&format!("MSET s{key} 1 s{} 2", number % 300)),
            19 => split(&format!("RENAME s{key} s{}", number % 300)),
            20 => split(&format!("DEL s{key} l{key}")),
            21 => split(&format!("EXPIRE s{key} {}", 500 + number)),
            22 => split(&format!("SUNIONSTORE e{key} e{} e1", number % 300)),
            23 => split(&format!("LMOVE l{key} l{} LEFT RIGHT", number % 300)),
            24 => split(&format!("SET s{key} v PX {}", 1 + number % 50)),
            _ => split(&format!("PUBLISH channel {number}")),
        }
    }
}

/// Writes at random until `is_over`.
pub(super) fn seed_until(primary: &Process, seed: u64, is_over: &AtomicBool) {
    let (mut client, mut seeder) = (primary.connect(), Seeder::new(seed));
    while !is_over.load(Ordering::SeqCst) {
        client.pipeline(&seeder.commands(100));
        // A debug build on a busy machine has to keep up.
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Writes so many batches at random.
pub(super) fn seed(client: &mut Client, seed: u64, batches: usize) {
    let mut seeder = Seeder::new(seed);
    for _ in 0..batches {
        client.pipeline(&seeder.commands(100));
    }
}

#[test]
fn data_comes_in_every_form_while_clients_write() {
    for shards in [1, 4] {
        for (sync, load) in [
            ("yes", "disabled"),
            ("no", "disabled"),
            ("yes", "on-empty-db"),
            ("yes", "swapdb"),
            ("no", "swapdb"),
        ] {
            let redis = primary().with(&["--repl-diskless-sync", sync]).serve();
            let node = replica(shards).with(&["--repl-diskless-load", load]).serve();
            let (mut source, mut client) = (redis.connect(), node.connect());
            seed(&mut source, 7, 50);
            source.line("DEBUG POPULATE 5000 k 40");
            let is_over = AtomicBool::new(false);
            scope(|scope| {
                let _end = EndOf(&is_over);
                scope.spawn(|| seed_until(&redis, 8, &is_over));
                follow(&mut client, redis.port());
                wait_for_link(&mut client);
                seed(&mut source, 9, 20);
            });
            check_same(&mut source, &mut client);
            let to = if load == "disabled" { "disk" } else { "parser" };
            assert!(
                node.log().contains(&format!("to {to}")),
                "{sync}, {load}: {}",
                node.log()
            );
            assert_eq!(figure(&mut source, "sync_full"), 1);
            assert!(!node.log().contains("CRITICAL"), "{}", node.log());
        }
    }
}

#[test]
fn the_stream_is_acknowledged_as_it_is_applied() {
    let (redis, node) = (primary().serve(), replica(4).serve());
    let (mut source, mut client) = (redis.connect(), node.connect());
    follow(&mut client, redis.port());
    wait_for_link(&mut client);
    for number in 0..50 {
        source.line(&format!("SET k{number} {number}"));
        // The request for an acknowledgement is a part of the stream: the answer is about what is before it.
        assert_eq!(source.line("WAIT 1 10000").integer(), Some(1));
        assert_eq!(client.line(&format!("GET k{number}")).text(), number.to_string());
    }
    check_same(&mut source, &mut client);
    let line = field(&mut source, "slave0");
    assert!(
        line.contains(&format!("port={},state=online", node.port())),
        "{line}"
    );
    let role = client.line("ROLE");
    let [kind, host, port, state, offset] = role.items() else {
        panic!("{role:?}");
    };
    assert_eq!(
        (kind.text(), host.text(), state.text()),
        ("slave".into(), "127.0.0.1".into(), "connected".into())
    );
    assert_eq!(port.integer(), Some(i64::from(redis.port())));
    assert_eq!(
        offset.integer(),
        Some(figure(&mut client, "slave_repl_offset").cast_signed())
    );
}

#[test]
fn clients_of_a_replica_read_and_do_not_write() {
    let (redis, node) = (primary().serve(), replica(2).serve());
    let (mut source, mut client) = (redis.connect(), node.connect());
    source.line("SET k 1");
    follow(&mut client, redis.port());
    wait_for_link(&mut client);
    let refused = "READONLY You can't write against a read only replica.";
    assert_eq!(client.line("SET k 2").text(), refused);
    assert_eq!(client.line("GET k").text(), "1");
    let replies = client.pipeline(&[split("GET k"), split("DEL k"), split("GET k")]);
    assert_eq!(replies[1].text(), refused);
    client.line("MULTI");
    assert_eq!(client.line("SET k 2").text(), refused);
    assert!(client.line("EXEC").text().starts_with("EXECABORT"));
    // It publishes, and its clients wait for what the primary writes.
    assert_eq!(client.line("PUBLISH c x").integer(), Some(0));
    client.line("CONFIG SET replica-read-only no");
    assert_eq!(client.line("SET own 1").text(), "OK");
    assert_eq!(client.line("GET own").text(), "1");
    let offset = figure(&mut client, "master_repl_offset");
    client.line("SET own 2");
    assert_eq!(figure(&mut client, "master_repl_offset"), offset);
    client.line("CONFIG SET replica-read-only yes");
    assert_eq!(client.line("SET own 3").text(), refused);
}

#[test]
fn a_replica_without_its_primary_tells_so_if_it_must() {
    let node = replica(2).serve();
    let mut client = node.connect();
    client.line("SET k 1");
    // Nobody listens there.
    follow(&mut client, shardis_tests::process::free_port());
    assert_eq!(client.line("GET k").text(), "1");
    client.line("CONFIG SET replica-serve-stale-data no");
    let refused = "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.";
    assert_eq!(client.line("GET k").text(), refused);
    assert_eq!(client.line("PING").text(), refused);
    assert!(
        client
            .line("INFO replication")
            .text()
            .contains("master_link_status:down")
    );
    assert_eq!(client.line("REPLICAOF NO ONE").text(), "OK");
    assert_eq!(client.line("GET k").text(), "1");
    assert_eq!(client.line("SET k 2").text(), "OK");
    assert_eq!(client.line("ROLE").items()[0].text(), "master");
}

#[test]
fn clients_that_wait_are_told_when_the_node_becomes_a_replica() {
    let (redis, node) = (primary().serve(), replica(4).serve());
    let mut client = node.connect();
    let mut waiting = node.connect();
    waiting.send(&["BLPOP", "l", "0"]).unwrap();
    shardis_tests::wait::await_blocked(&mut client, 1);
    follow(&mut client, redis.port());
    assert_eq!(
        waiting.read().unwrap().text(),
        "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)"
    );
    assert!(waiting.is_closed_within(std::time::Duration::from_secs(10)));
}

#[test]
fn the_primary_decides_when_keys_expire() {
    let (redis, node) = (primary().serve(), replica(2).serve());
    let (mut source, mut client) = (redis.connect(), node.connect());
    follow(&mut client, redis.port());
    wait_for_link(&mut client);
    // It does not look for expired keys, nor does anybody ask for them.
    source.line("DEBUG SET-ACTIVE-EXPIRE 0");
    source.line("SET k v PX 1");
    source.line("HSET other f v");
    wait_in_sync(&mut source, &mut client);
    wait_until("an expired key", || client.line("EXISTS k").integer() == Some(0));
    assert!(client.line("GET k").is_null());
    assert_eq!(client.line("DBSIZE").integer(), Some(2), "it is hidden, not gone");
    // For the primary's commands it is there.
    source.line("DEBUG SET-ACTIVE-EXPIRE 1");
    wait_until("its removal", || client.line("DBSIZE").integer() == Some(1));
    check_same(&mut source, &mut client);
}

#[test]
fn a_promoted_replica_takes_writes_under_a_history_of_its_own() {
    let (redis, node) = (primary().serve(), replica(4).serve());
    let (mut source, mut client) = (redis.connect(), node.connect());
    seed(&mut source, 3, 5);
    follow(&mut client, redis.port());
    check_same(&mut source, &mut client);
    let (id, offset) = (
        field(&mut source, "master_replid"),
        figure(&mut source, "master_repl_offset"),
    );
    let replies = client.pipeline(&[
        split("REPLICAOF NO ONE"),
        split("SET k 1"),
        split("INCR k"),
        split("GET k"),
    ]);
    assert_eq!(replies[3].text(), "2");
    assert_eq!(field(&mut client, "role"), "master");
    assert_eq!(field(&mut client, "master_replid2"), id);
    assert_ne!(field(&mut client, "master_replid"), id);
    assert_eq!(figure(&mut client, "second_repl_offset"), offset + 1);
}

#[test]
fn it_goes_from_primary_to_primary() {
    let (first, second, node) = (primary().serve(), primary().serve(), replica(4).serve());
    let (mut one, mut other, mut client) = (first.connect(), second.connect(), node.connect());
    seed(&mut one, 1, 5);
    seed(&mut other, 2, 5);
    for _ in 0..3 {
        for (server, source) in [(&first, &mut one), (&second, &mut other)] {
            client.line("MULTI");
            client.line(&format!("SLAVEOF 127.0.0.1 {}", server.port()));
            client.line("CLIENT KILL TYPE normal");
            client.line("EXEC");
            check_same(source, &mut client);
        }
    }
    let again = client
        .line(&format!("REPLICAOF 127.0.0.1 {}", second.port()))
        .text();
    assert_eq!(again, "OK Already connected to specified master");
}

#[test]
fn the_configuration_names_a_primary() {
    let redis = primary().with(&["--requirepass", "secret"]).serve();
    let mut source = redis.connect();
    source.line("AUTH secret");
    seed(&mut source, 5, 5);
    let port = redis.port().to_string();
    let node = replica(2)
        .with(&["--replicaof", "127.0.0.1", &port, "--masterauth", "wrong"])
        .serve();
    let mut client = node.connect();
    wait_until("a refusal", || {
        node.log().contains("Unable to AUTH to MASTER: -WRONGPASS")
    });
    assert_eq!(field(&mut client, "master_link_status"), "down");
    client.line("CONFIG SET masterauth secret");
    check_same(&mut source, &mut client);
    assert_eq!(
        client.line("CONFIG GET replicaof").items()[1].text(),
        format!("127.0.0.1 {port}")
    );
    client.line("CONFIG SET masteruser default");
    client.line("CLIENT KILL TYPE master");
    check_same(&mut source, &mut client);
}

#[test]
fn the_file_of_a_replica_has_what_it_has_applied() {
    for policy in ["always", "everysec"] {
        let redis = primary().serve();
        let node = replica(4)
            .with(&["--appendonly", "yes", "--appendfsync", policy])
            .serve();
        let (mut source, mut client) = (redis.connect(), node.connect());
        client.line("SET before 1");
        seed(&mut source, 5, 5);
        follow(&mut client, redis.port());
        check_same(&mut source, &mut client);
        wait_until("a new base", || {
            field(&mut client, "aof_rewrite_in_progress") == "0"
        });
        seed(&mut source, 6, 20);
        check_same(&mut source, &mut client);
        // Keys that live for a moment are gone then.
        std::thread::sleep(std::time::Duration::from_secs(1));
        check_same(&mut source, &mut client);
        let digest = client.line("DEBUG DIGEST").text();
        client.line("REPLICAOF NO ONE");
        assert_eq!(client.line("DEBUG LOADAOF").text(), "OK", "{}", node.log());
        assert_eq!(client.line("DEBUG DIGEST").text(), digest);
    }
}

#[test]
fn snapshots_of_a_replica_hold_whole_rounds() {
    let (redis, node) = (primary().serve(), replica(4).serve());
    let (mut source, mut client) = (redis.connect(), node.connect());
    follow(&mut client, redis.port());
    wait_for_link(&mut client);
    let is_over = AtomicBool::new(false);
    scope(|scope| {
        let _end = EndOf(&is_over);
        scope.spawn(|| {
            // Two keys of different shards, always changed together.
            let mut writer = redis.connect();
            while !is_over.load(Ordering::SeqCst) {
                writer.pipeline(&[split("MULTI"), split("INCR a"), split("INCR b"), split("EXEC")]);
            }
        });
        for _ in 0..10 {
            assert_eq!(client.line("SAVE").text(), "OK");
            let saved = super::saving::real_server_over(&node.directory().join("dump.rdb"));
            let pair = saved.connect().line("MGET a b");
            assert_eq!(pair.items()[0], pair.items()[1]);
        }
    });
    check_same(&mut source, &mut client);
}

#[test]
fn a_replica_tells_what_it_has_stored() {
    let primary = replica(2).with(&["--appendonly", "yes"]).serve();
    let node = replica(2)
        .with(&["--appendonly", "yes", "--appendfsync", "always"])
        .serve();
    let (mut source, mut client) = (primary.connect(), node.connect());
    source.line("CONFIG SET repl-diskless-sync-delay 0");
    follow(&mut client, primary.port());
    wait_in_sync(&mut source, &mut client);
    wait_until("its file", || {
        field(&mut client, "aof_rewrite_in_progress") == "0"
    });
    source.line("SET k v");
    let stored = source.line("WAITAOF 0 1 20000");
    assert_eq!(stored.items()[1].integer(), Some(1), "{stored:?}");
}
