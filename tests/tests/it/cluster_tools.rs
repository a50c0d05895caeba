//! The tools that come with Redis, on clusters: every subcommand of `redis-cli --cluster`, `redis-cli -c`, and
//! `redis-benchmark --cluster`. `SHARDIS_SERVER=redis-server` runs them on Redis.

use std::fs;

use shardis_tests::client::{Client, encode};
use shardis_tests::cluster::load::{Load, Work};
use shardis_tests::cluster::view::View;
use shardis_tests::cluster::{Cluster, Plan};
use shardis_tests::process::{Launch, Process};
use shardis_tests::redis;
use shardis_tests::replication::member::{Kind, PATIENCE};
use shardis_tests::slot;

/// Three primaries, of as many shards as tests have.
const KINDS: [Kind; 3] = [Kind::Shardis(1), Kind::Shardis(2), Kind::Shardis(4)];

/// Keys of a filled cluster.
pub(super) const KEYS: usize = 600;

/// Writes keys through a client that follows redirects.
pub(super) fn fill(cluster: &Cluster) {
    let mut client = cluster.client();
    for number in 0..KEYS {
        let key = format!("key:{number}");
        client.set(&key, &number.to_string());
    }
}

/// All keys are there, once.
pub(super) fn check_keys(cluster: &Cluster) {
    let mut client = cluster.client();
    for number in 0..KEYS {
        let key = format!("key:{number}");
        let found = client.insist(&key, &["GET", &key], PATIENCE).expect("a reply");
        assert_eq!(found.text(), number.to_string(), "{key}");
    }
    assert_eq!(cluster.key_count(), KEYS as i64);
}

/// Runs `redis-cli --cluster` with a first address, and more words.
fn cli(cluster: &Cluster, command: &str, options: &[&str]) -> String {
    let at = cluster.address(0);
    cluster.cli([command, &at].into_iter().chain(options.iter().copied()))
}

/// Number of slots of a node, as it sees itself.
fn slots_of(cluster: &Cluster, index: usize) -> usize {
    let view = View::of(cluster.member(index)).expect("a view");
    let id = cluster.id(index);
    let line = view.line(&id).expect("its own line");
    line.ranges().map(|range| range.len()).sum()
}

#[test]
fn a_cluster_of_six_is_made_checked_and_set() {
    let kinds = [1, 2, 4, 1, 2, 4].map(Kind::Shardis);
    let cluster = Plan::of(&kinds).replicas(1).create();
    fill(&cluster);
    let checked = cli(&cluster, "check", &[]);
    for line in [
        "[OK] All nodes agree about slots configuration.",
        "[OK] All 16384 slots covered.",
        &format!("[OK] {KEYS} keys in 3 masters."),
    ] {
        assert!(checked.contains(line), "{line}: {checked}");
    }
    let info = cli(&cluster, "info", &[]);
    assert_eq!(info.matches("| 1 slaves.").count(), 3, "{info}");
    let called = cli(&cluster, "call", &["ping"]);
    assert_eq!(called.matches("PONG").count(), 6, "{called}");
    let called = cli(&cluster, "call", &["dbsize", "--cluster-only-masters"]);
    assert_eq!(
        called
            .lines()
            .filter(|line| line.starts_with("127.0.0.1"))
            .count(),
        3,
        "{called}"
    );
    let set = cli(&cluster, "set-timeout", &["17000"]);
    assert!(set.contains("New node timeout set. 6 OK, 0 ERR."), "{set}");
    for index in 0..cluster.len() {
        let reply = cluster
            .member(index)
            .client()
            .line("CONFIG GET cluster-node-timeout");
        assert_eq!(reply.items()[1].text(), "17000");
        let file = fs::read_to_string(cluster.member(index).configuration()).expect("its file");
        assert!(file.contains("cluster-node-timeout 17000"), "{file}");
    }
    back_up(&cluster);
    check_keys(&cluster);
}

/// A backup has a file of each primary, which a real server loads.
fn back_up(cluster: &Cluster) {
    let folder = tempfile::TempDir::new().expect("a temporary directory");
    let output = cli(cluster, "backup", &[&folder.path().display().to_string()]);
    assert!(output.contains("[OK] Backup created into"), "{output}");
    let files = fs::read_dir(folder.path()).expect("a folder");
    let files: Vec<_> = files.filter_map(Result::ok).map(|entry| entry.path()).collect();
    let is_snapshot =
        |path: &&std::path::PathBuf| path.extension().is_some_and(|extension| extension == "rdb");
    let snapshots: Vec<_> = files.iter().filter(is_snapshot).collect();
    assert_eq!(snapshots.len(), 3, "{files:?}");
    assert!(folder.path().join("nodes.json").is_file(), "{files:?}");
    let mut keys = 0;
    for snapshot in snapshots {
        let loaded = redis::launch()
            .with(&["--dir", &folder.path().display().to_string(), "--dbfilename"])
            .with(&[snapshot.file_name().expect("a name").to_string_lossy()])
            .serve();
        keys += loaded.connect().line("DBSIZE").integer().expect("a number");
    }
    assert_eq!(keys, KEYS as i64);
}

#[test]
fn slots_move_under_load() {
    let cluster = Plan::of(&KINDS).create();
    let load = Load::start(&cluster, Work::default());
    load.await_more(500);
    let ids: Vec<String> = (0..3).map(|index| cluster.id(index)).collect();
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        let options = [
            "--cluster-from",
            &ids[from],
            "--cluster-to",
            &ids[to],
            "--cluster-slots",
            "150",
            "--cluster-yes",
        ];
        cli(&cluster, "reshard", &options);
        cluster.await_whole();
    }
    let all = [
        "--cluster-from",
        "all",
        "--cluster-to",
        &ids[1],
        "--cluster-slots",
        "90",
        "--cluster-yes",
    ];
    cli(&cluster, "reshard", &all);
    load.await_more(500);
    let written = load.stop();
    cluster.await_whole();
    assert!(written.redirects.moved > 0, "{:?}", written.redirects);
    let audit = shardis_tests::cluster::audit::Audit::of(&written.ledger, &mut cluster.client());
    println!(
        "{audit}; {:?}; longest pause {:?}",
        written.redirects, written.pause_max
    );
    audit.assert_complete();
    assert_eq!(audit.unknown, 0, "{audit}");
    assert_eq!(
        cluster.key_count(),
        written.ledger.len() as i64,
        "no list is there twice"
    );
    assert_eq!(
        (slots_of(&cluster, 1), slots_of(&cluster, 2)),
        (5462 + 90, 5461 - 45)
    );
}

#[test]
fn nodes_are_added_and_slots_are_balanced() {
    let mut cluster = Plan::of(&KINDS).create();
    fill(&cluster);
    let primary = cluster.add(Kind::Shardis(2));
    let (first, added) = (cluster.address(0), cluster.address(primary));
    cluster.cli(["add-node", &added, &first]);
    cluster.await_whole();
    let id = cluster.id(primary);
    let replica = cluster.add(Kind::Shardis(1));
    cluster.join_as_replica(replica, 0, primary);
    cluster.await_whole();
    assert_eq!(cluster.replicas_of(primary), [replica]);

    let balanced = cli(
        &cluster,
        "rebalance",
        &["--cluster-simulate", "--cluster-use-empty-masters"],
    );
    assert!(balanced.contains("Rebalancing across 4 nodes"), "{balanced}");
    assert_eq!(slots_of(&cluster, primary), 0, "it was only simulated");
    // A small share, since moving an even one takes long: one part of 301, then two of 302.
    for (weight, slots) in [("0.01", 50..60), ("0.02", 104..114)] {
        let weights = format!("{id}={weight}");
        let options = ["--cluster-use-empty-masters", "--cluster-weight", &weights];
        cli(&cluster, "rebalance", &options);
        cluster.await_whole();
        let found = slots_of(&cluster, primary);
        assert!(slots.contains(&found), "{found} slots with weight {weight}");
    }
    check_keys(&cluster);

    let weights = format!("{id}=0");
    cli(&cluster, "rebalance", &["--cluster-weight", &weights]);
    cluster.await_that("an empty primary", || match cluster.primaries(0).len() {
        3 => Ok(()),
        count => Err(format!("{count} primaries")),
    });
    check_keys(&cluster);

    for index in [replica, primary] {
        let id = cluster.id(index);
        cli(&cluster, "del-node", &[&id]);
    }
    cluster.await_that("three nodes", || {
        let view = cluster.common_view(&[0, 1, 2])?;
        match view.lines.len() {
            3 => view.is_whole(),
            count => Err(format!("{count} nodes")),
        }
    });
    check_keys(&cluster);
    // A node that was deleted is one of its own again.
    assert_eq!(View::of(cluster.member(primary)).expect("a view").lines.len(), 1);
}

/// Sends CLUSTER with words to a node; it must answer OK.
fn order(cluster: &Cluster, index: usize, words: &str) {
    let reply = cluster.member(index).client().line(&format!("CLUSTER {words}"));
    assert_eq!(reply.text(), "OK", "CLUSTER {words} at node {index}");
}

/// A key's slot, its owner, and two other nodes.
fn places(cluster: &Cluster, key: &str) -> (u16, usize, [usize; 2]) {
    let slot = slot::of(key.as_bytes());
    let owner = cluster.owner(slot, 0).expect("an owner");
    (slot, owner, [(owner + 1) % 3, (owner + 2) % 3])
}

/// Puts a key into a node that does not own its slot.
fn stray(cluster: &Cluster, index: usize, owner: usize, slot: u16, key: &str) {
    order(
        cluster,
        index,
        &format!("SETSLOT {slot} IMPORTING {}", cluster.id(owner)),
    );
    let mut client = cluster.member(index).client();
    assert_eq!(client.line("ASKING").text(), "OK");
    assert_eq!(client.line(&format!("SET {key} stray")).text(), "OK");
}

/// Has redis-cli mend the cluster.
fn mend(cluster: &Cluster, what: &str, options: &[&str]) {
    let mut all = vec!["--cluster-yes"];
    all.extend(options);
    let output = cli(cluster, "fix", &all);
    cluster.await_whole();
    let checked = cli(cluster, "check", &[]);
    assert!(
        checked.contains("[OK] All 16384 slots covered.") && !checked.contains("[WARNING]"),
        "{what}: {output}\n{checked}"
    );
    for index in 0..3 {
        let view = View::of(cluster.member(index)).expect("a view");
        assert_eq!(view.open, Vec::<String>::new(), "{what}: node {index}");
    }
}

#[test]
fn open_slots_are_mended() {
    let cluster = Plan::of(&KINDS).create();
    fill(&cluster);
    let (slot, owner, [next, _]) = places(&cluster, "key:1");
    order(
        &cluster,
        next,
        &format!("SETSLOT {slot} IMPORTING {}", cluster.id(owner)),
    );
    mend(&cluster, "imported, and not migrated", &[]);
    check_keys(&cluster);

    let (slot, owner, [next, _]) = places(&cluster, "key:2");
    order(
        &cluster,
        next,
        &format!("SETSLOT {slot} IMPORTING {}", cluster.id(owner)),
    );
    order(
        &cluster,
        owner,
        &format!("SETSLOT {slot} MIGRATING {}", cluster.id(next)),
    );
    mend(&cluster, "half way", &[]);
    assert_eq!(cluster.owner(slot, 0), Ok(next), "the move was ended");
    check_keys(&cluster);

    // No key is in this slot.
    let (slot, owner, [next, _]) = places(&cluster, "empty");
    order(
        &cluster,
        owner,
        &format!("SETSLOT {slot} MIGRATING {}", cluster.id(next)),
    );
    mend(&cluster, "migrated, and not imported", &[]);
    check_keys(&cluster);

    let (slot, owner, [next, _]) = places(&cluster, "{key:3}");
    stray(&cluster, next, owner, slot, "{key:3}:stray");
    mend(&cluster, "keys in both nodes", &[]);
    let mut client = cluster.client();
    let stray = client
        .insist("key:3", &["GETDEL", "{key:3}:stray"], PATIENCE)
        .expect("a reply");
    assert_eq!(stray.text(), "stray");
    check_keys(&cluster);
}

#[test]
fn slots_without_an_owner_are_covered() {
    let cluster = Plan::of(&KINDS)
        .with(&["cluster-require-full-coverage no"])
        .create();
    fill(&cluster);
    let (empty, ..) = places(&cluster, "empty");
    let (single, ..) = places(&cluster, "key:1");
    let (multiple, owner, [next, _]) = places(&cluster, "{key:2}");
    stray(&cluster, next, owner, multiple, "{key:2}:stray");
    order(&cluster, next, &format!("SETSLOT {multiple} STABLE"));
    for slot in [empty, single, multiple] {
        let owner = cluster.owner(slot, 0).expect("an owner");
        // The owner first, which would claim its slot again.
        for index in [owner, (owner + 1) % 3, (owner + 2) % 3] {
            order(&cluster, index, &format!("DELSLOTS {slot}"));
        }
    }
    let unowned = cluster.owner(single, 0).expect_err("nobody owns it");
    assert!(unowned.contains("nobody"), "{unowned}");
    mend(&cluster, "slots that nobody owns", &[]);
    let mut client = cluster.client();
    let stray = client
        .insist("key:2", &["GETDEL", "{key:2}:stray"], PATIENCE)
        .expect("a reply");
    assert_eq!(stray.text(), "stray");
    check_keys(&cluster);
}

/// Makes a cluster of nodes by hand, with these ranges of slots.
fn share(cluster: &Cluster, ranges: &[&str]) {
    let port = cluster.member(0).port();
    for (index, range) in ranges.iter().enumerate() {
        order(cluster, index, &format!("ADDSLOTSRANGE {range}"));
        order(cluster, index, &format!("SET-CONFIG-EPOCH {}", index + 1));
        order(cluster, index, &format!("MEET 127.0.0.1 {port}"));
    }
    cluster.await_whole();
}

#[test]
fn slots_of_a_dead_primary_are_given_to_others() {
    let mut cluster = Plan::of(&KINDS).timeout_ms(1000).start();
    share(&cluster, &["0 8000", "8001 16300", "16301 16383"]);
    cluster.member_mut(2).kill();
    cluster.await_that("the death is known", || {
        let view = cluster.common_view(&[0, 1])?;
        let is_dead = view.lines.iter().any(|line| line.flags.contains("fail"));
        is_dead.then_some(()).ok_or_else(|| format!("{:?}", view.lines))
    });
    let refused = cluster.try_cli(["fix", &cluster.address(0), "--cluster-yes"]);
    assert!(refused.text().contains("unreachable"), "{}", refused.text());
    let options = ["--cluster-fix-with-unreachable-masters", "--cluster-yes"];
    cli(&cluster, "fix", &options);
    let view = cluster.await_agreement(&[0, 1]);
    assert!(
        view.owner(16383)
            .is_some_and(|line| line.port != cluster.member(2).port())
    );
}

/// A standalone Redis with keys of several types.
fn standalone() -> Process {
    let server = redis::start();
    let mut client = server.connect();
    for number in 0..KEYS {
        client.line(&format!("SET key:{number} {number}"));
    }
    for line in [
        "RPUSH list a b c",
        "HSET hash f v",
        "ZADD zset 1 a 2 b",
        "XADD stream 1-1 f v",
        "SET fleeting v EX 5000",
    ] {
        assert!(!client.line(line).is_error(), "{line}");
    }
    server
}

#[test]
fn a_standalone_redis_is_imported() {
    let cluster = Plan::of(&KINDS).create();
    let server = standalone();
    let from = server.address().to_string();
    cli(&cluster, "import", &["--cluster-from", &from, "--cluster-copy"]);
    assert_eq!(
        server.connect().line("DBSIZE").integer(),
        Some(KEYS as i64 + 5),
        "it was a copy"
    );
    let again = cluster.try_cli(["import", &cluster.address(0), "--cluster-from", &from]);
    assert!(again.text().contains("BUSYKEY"), "{}", again.text());
    cli(
        &cluster,
        "import",
        &["--cluster-from", &from, "--cluster-replace"],
    );
    assert_eq!(
        server.connect().line("DBSIZE").integer(),
        Some(0),
        "all was moved"
    );
    let mut client = cluster.client();
    let mut ask = |key: &str, words: &[&str]| client.call(key, words).reply().to_string();
    assert_eq!(ask("list", &["LRANGE", "list", "0", "-1"]), r#"["a", "b", "c"]"#);
    assert_eq!(ask("stream", &["XLEN", "stream"]), ":1");
    assert_eq!(ask("zset", &["ZSCORE", "zset", "b"]), "\"2\"");
    let ttl = client.call("fleeting", &["TTL", "fleeting"]).reply().integer();
    assert!(ttl.is_some_and(|ttl| (4000..=5000).contains(&ttl)), "{ttl:?}");
    for key in ["list", "hash", "zset", "stream", "fleeting"] {
        assert_eq!(
            client.call(key, &["DEL", key]).reply().integer(),
            Some(1),
            "{key}"
        );
    }
    check_keys(&cluster);
}

#[test]
fn cli_follows_redirects_and_the_benchmark_finds_all_nodes() {
    let cluster = Plan::of(&KINDS).create();
    let port = cluster.member(0).port().to_string();
    let mut lines = String::new();
    for number in 0..50 {
        lines.push_str(&format!("set cli:{number} {number}\n"));
    }
    let output = Launch::new(&redis::tool("redis-cli"))
        .with(&["-c", "-p", &port])
        .input(&lines)
        .finish(PATIENCE);
    assert_eq!(output.output.matches("OK").count(), 50, "{}", output.text());
    assert_eq!(cluster.key_count(), 50);
    let output = Launch::new(&redis::tool("redis-benchmark"))
        .with(&[
            "--cluster",
            "-p",
            &port,
            "-t",
            "set,get,incr,lpush,mset",
            "-n",
            "20000",
            "-P",
            "16",
            "-r",
            "1000",
            "-q",
        ])
        .finish(PATIENCE);
    assert_eq!(output.code, Some(0), "{}", output.text());
    let text = output.text();
    assert!(text.contains("Cluster has 3 master nodes"), "{text}");
    for test in ["SET", "GET", "INCR", "LPUSH", "MSET"] {
        let line = text.split(['\r', '\n']).rev().find(|line| line.starts_with(test));
        assert!(
            line.is_some_and(|line| line.contains("requests per second")),
            "{test}: {text}"
        );
    }
    let calls = |index: usize| {
        Client::connect(cluster.member(index).address()).map(|mut client| client.line("DBSIZE").integer())
    };
    for index in 0..3 {
        assert!(
            calls(index).expect("a node that answers") > Some(100),
            "node {index} got its part"
        );
    }
}

#[test]
fn a_transaction_of_create_is_what_redis_cli_sends() {
    // The words of `create`, by hand: a fault in one of them would show as a failure of all tests here.
    let cluster = Plan::of(&[Kind::Shardis(2)]).start();
    let mut client = cluster.member(0).client();
    let mut request = Vec::new();
    for words in [
        &["MULTI"][..],
        &["CLUSTER", "ADDSLOTS", "0", "1", "2"],
        &["CLUSTER", "SET-CONFIG-EPOCH", "1"],
        &["EXEC"],
    ] {
        encode(&mut request, words);
    }
    client.write(&request).expect("it reads");
    let replies: Vec<String> = (0..4)
        .map(|_| client.read().expect("a reply").to_string())
        .collect();
    assert_eq!(replies, ["+OK", "+QUEUED", "+QUEUED", "[+OK, +OK]"]);
}
