//! Redirects of a node of a cluster, reply by reply beside redis-server 7.0.
//!
//! Both servers begin with the same file of nodes, whose other nodes do not answer, and are not held for failed within the test.

use std::fs;
use std::time::Duration;

use shardis_tests::client::{Client, split};
use shardis_tests::process::{Launch, Process};
use shardis_tests::wait::{await_blocked, wait_until};
use shardis_tests::{node, redis, slot};
use tempfile::TempDir;

const ME: &str = "0101010101010101010101010101010101010101";
const OTHER: &str = "0202020202020202020202020202020202020202";
const THIRD: &str = "0303030303030303030303030303030303030303";

/// A primary with slots 0 to 8191, among two others. The last slots are nobody's.
pub(super) fn primary() -> String {
    format!(
        "{ME} 127.0.0.1:1@10001 myself,master - 0 0 3 connected 0-8191\n\
         {OTHER} 127.0.0.1:2@10002 master - 0 0 2 connected 8192-12000\n\
         {THIRD} 127.0.0.1:3@10003 master - 0 0 1 connected 12001-16299\n\
         vars currentEpoch 5 lastVoteEpoch 4\n"
    )
}

/// A replica of the owner of slots 0 to 8191.
fn replica() -> String {
    format!(
        "{ME} 127.0.0.1:1@10001 myself,slave {OTHER} 0 0 2 connected\n\
         {OTHER} 127.0.0.1:2@10002 master - 0 0 2 connected 0-8191\n\
         {THIRD} 127.0.0.1:3@10003 master - 0 0 1 connected 8192-16299\n\
         vars currentEpoch 5 lastVoteEpoch 4\n"
    )
}

fn cluster_node(launch: Launch, folder: &TempDir, text: &str, directives: &[&str]) -> Process {
    let file = folder
        .path()
        .join(format!("nodes-{}", text.len() + directives.len()));
    fs::write(&file, text).expect("a file of nodes");
    let file = file.display().to_string();
    launch
        .with(&["--cluster-enabled", "yes", "--cluster-config-file", &file])
        .with(&["--cluster-node-timeout", "120000"])
        .with(directives)
        .serve()
}

/// Servers of each kind that begin with one file: redis-server, then shardis of one and of four shards.
pub(super) fn servers(text: &str, directives: &[&str]) -> (Vec<Process>, Vec<TempDir>) {
    let launches = [redis::launch(), node::launch(1), node::launch(4)];
    let start = |launch| {
        let folder = TempDir::new().expect("a folder");
        (cluster_node(launch, &folder, text, directives), folder)
    };
    launches.map(start).into_iter().unzip()
}

pub(super) fn await_state(server: &Process, state: &str) {
    let mut client = server.connect();
    wait_until("the state of the cluster", || {
        client
            .line("CLUSTER INFO")
            .text()
            .contains(&format!("cluster_state:{state}"))
    });
}

/// The n-th short name whose slot is in a range.
fn name_in(from: u16, to: u16, n: usize) -> String {
    let mut names = (0..).map(|number: u32| format!("k{number}"));
    let is_there = |name: &String| (from..=to).contains(&slot::of(name.as_bytes()));
    names.by_ref().filter(is_there).nth(n).expect("names are many")
}

/// A line whose placeholders have names in their slots: `$m` and `$n` are of slots 0 to 8191, `$o` and `$p` of 8192 to 12000, `$u` of
/// the last ones, `$M` and `$O` are the numbers of slots.
fn filled(line: &str) -> String {
    let of = |name: &str| slot::of(name.as_bytes()).to_string();
    let (mine, other) = (name_in(0, 8191, 0), name_in(8192, 12_000, 0));
    line.replace("$other", OTHER)
        .replace("$m", &mine)
        .replace("$n", &name_in(0, 8191, 1))
        .replace("$o", &other)
        .replace("$p", &name_in(8192, 12_000, 1))
        .replace("$u", &name_in(16_300, 16_383, 0))
        .replace("$M", &of(&mine))
        .replace("$O", &of(&other))
}

/// Asserts that all servers give the same replies to each line.
pub(super) fn agree(servers: &[Process], lines: &[&str]) {
    agree_on(servers, lines, " ");
}

/// Asserts that all servers give the same replies to each line, whose words are separated by `separator`.
pub(super) fn agree_on(servers: &[Process], lines: &[&str], separator: &str) {
    let mut clients: Vec<Client> = servers.iter().map(Process::connect).collect();
    for line in lines {
        let line = filled(line);
        let words: Vec<&str> = line.split(separator).collect();
        let mut replies = clients.iter_mut().map(|client| client.call(&words).to_string());
        let expected = replies.next();
        for (index, reply) in replies.enumerate() {
            assert_eq!(Some(reply), expected, "{line}, server {index}");
        }
    }
}

/// The error statistics, and how often commands were refused and failed.
fn counted(server: &Process) -> Vec<String> {
    let mut client = server.connect();
    let errors = client.line("INFO errorstats").text();
    let commands = client.line("INFO commandstats").text();
    let errors = errors.lines().filter(|line| line.starts_with("errorstat"));
    let commands = commands.lines().filter_map(|line| {
        let (name, rest) = line.split_once(':')?;
        let refused = rest.split(',').filter(|part| part.contains("_calls="));
        let refused: Vec<&str> = refused.collect();
        let is_plain = ["cmdstat_get", "cmdstat_set", "cmdstat_mget", "cmdstat_exec"].contains(&name);
        is_plain.then(|| format!("{name} {}", refused.join(" ")))
    });
    let mut all: Vec<String> = errors.map(str::to_owned).chain(commands).collect();
    all.sort();
    all
}

#[test]
fn settled_slots_are_served_by_their_owner_alone() {
    let (servers, _folders) = servers(&primary(), &["--cluster-require-full-coverage", "no"]);
    servers.iter().for_each(|server| await_state(server, "ok"));
    agree(
        &servers,
        &[
            "SET $m 1",
            "GET $m",
            "GET $o",
            "SET $o 1",
            "GET $u",
            "MSET $m 1 $n 2",
            "MGET $m $u",
            "MGET $u $m",
            "MGET $o $p",
            "MGET $o $o",
            "MSET {$m}a 1 {$m}b 2 {$m}c 3",
            "MGET {$m}a {$m}b {$m}c",
            "DEL $o $p",
            "OBJECT ENCODING $o",
            "OBJECT ENCODING $m",
            "XREAD STREAMS $o 0",
            "XREAD STREAMS $m $n 0 0",
            "ZUNION 2 $m $n",
            "ZUNION x $m",
            "ZUNIONSTORE $o 1 $m",
            "SORT $m STORE $n",
            "SORT $m BY x_*",
            "SORT $m BY nosort",
            "SORT {$m}l GET #",
            "SORT {$m}l BY",
            "RENAME $m $n",
            "COPY $m {$m}z",
            "COPY $m {$m}z DB 1",
            "COPY $m {$m}z DB 99",
            "MOVE $m 1",
            "SELECT 0",
            "SELECT 1",
            "SELECT 99",
            "SELECT x",
            "SWAPDB 0 1",
            "DBSIZE",
            "PING",
            "KEYS nothing",
            "SCAN 0 MATCH nothing COUNT 1000",
            "READONLY",
            "GET $o",
            "GET $m",
            "READWRITE",
            "ASKING",
            "GET $o",
            "WATCH $o",
            "WATCH $m",
            "WATCH $m $n",
            "UNWATCH",
            "BLPOP $o 1",
            "BLPOP $m $n 1",
            "BLMOVE $m $o LEFT LEFT 1",
            "SPUBLISH $o x",
            "SPUBLISH $m x",
            "SPUBLISH $u x",
            "SSUBSCRIBE $o",
            "SSUBSCRIBE $m $n",
            "PUBLISH $o x",
            "CLUSTER KEYSLOT {a}b",
            "CLUSTER COUNTKEYSINSLOT $M",
            "CLUSTER COUNTKEYSINSLOT $O",
            "CLUSTER COUNTKEYSINSLOT 16384",
            "CLUSTER COUNTKEYSINSLOT -1",
            "CLUSTER COUNTKEYSINSLOT x",
            "CLUSTER GETKEYSINSLOT $M 0",
            "CLUSTER GETKEYSINSLOT $M -1",
            "CLUSTER GETKEYSINSLOT $M x",
            "CLUSTER GETKEYSINSLOT 16384 1",
            "CLUSTER GETKEYSINSLOT $O 10",
            "DEL {$m}a {$m}b {$m}c {$m}z",
            "CLUSTER GETKEYSINSLOT $M 10",
            "FLUSHALL",
            "CLUSTER COUNTKEYSINSLOT $M",
            "GET",
            "GET $o $o",
            "NOTACOMMAND $o",
        ],
    );
    let expected = counted(&servers[0]);
    assert!(expected.iter().any(|line| line.starts_with("errorstat_MOVED")));
    for server in &servers[1..] {
        assert_eq!(counted(server), expected);
    }
}

#[test]
fn a_transaction_is_redirected_as_a_whole() {
    let (servers, _folders) = servers(&primary(), &["--cluster-require-full-coverage", "no"]);
    servers.iter().for_each(|server| await_state(server, "ok"));
    agree(
        &servers,
        &[
            "MULTI",
            "SET $m 1",
            "GET $o",
            "GET $m",
            "EXEC",
            "GET $m",
            "MULTI",
            "SET $m 1",
            "SET $n 1",
            "EXEC",
            "EXEC",
            "MULTI",
            "SET $m 1",
            "SET {$m}x 2",
            "MGET $m {$m}x",
            "EXEC",
            "MULTI",
            "PING",
            "EXEC",
            "MULTI",
            "EXEC",
            "MULTI",
            "MGET $m $n",
            "EXEC",
            "MULTI",
            "GET $u",
            "DISCARD",
            "WATCH $m",
            "MULTI",
            "GET $o",
            "EXEC",
            "MULTI",
            "GET $m",
            "EXEC",
        ],
    );
    let expected = counted(&servers[0]);
    for server in &servers[1..] {
        assert_eq!(counted(server), expected);
    }
}

#[test]
fn open_slots_are_served_by_the_keys_that_are_here() {
    let (servers, _folders) = servers(&primary(), &["--cluster-require-full-coverage", "no"]);
    servers.iter().for_each(|server| await_state(server, "ok"));
    agree(
        &servers,
        &[
            "SET {$m}here 1",
            "SET {$m}gone 1 PX 1",
            "CLUSTER SETSLOT $M MIGRATING $other",
            "CLUSTER SETSLOT $O IMPORTING $other",
            // The slot that leaves.
            "GET {$m}here",
            "GET {$m}away",
            "SET {$m}away 1",
            "MGET {$m}here {$m}away",
            "MGET {$m}away {$m}off",
            "MSET {$m}here 2 {$m}away 2",
            "MGET {$m}here {$m}here",
            "SINTERSTORE {$m}away {$m}here",
            "ASKING",
            "GET {$m}away",
            "DEL {$m}here {$m}here",
            "SET {$m}here 1",
            "BLPOP {$m}away 1",
            "SSUBSCRIBE {$m}away",
            "MULTI",
            "GET {$m}here",
            "GET {$m}away",
            "EXEC",
            "MULTI",
            "GET {$m}here",
            "APPEND {$m}here x",
            "EXEC",
            "WATCH {$m}here",
            "WATCH {$m}away",
            "UNWATCH",
            "MIGRATE 127.0.0.1 1 {$m}away 0 10",
            // The slot that comes.
            "GET {$o}a",
            "ASKING",
            "GET {$o}a",
            "ASKING",
            "SET {$o}a 1",
            "GET {$o}a",
            "ASKING",
            "PING",
            "GET {$o}a",
            "ASKING",
            "ASKING",
            "GET {$o}a",
            "ASKING",
            "MGET {$o}a {$o}b",
            "ASKING",
            "MSET {$o}a 1 {$o}a 2",
            "ASKING",
            "MSET {$o}b 1 {$o}c 2",
            "ASKING",
            "GET $p",
            "ASKING",
            "MULTI",
            "GET {$o}a",
            "SET {$o}a 3",
            "EXEC",
            "GET {$o}a",
            "ASKING",
            "MULTI",
            "GET {$o}a",
            "GET {$o}b",
            "EXEC",
            "ASKING",
            "MULTI",
            "DISCARD",
            "GET {$o}a",
            "MULTI",
            "ASKING",
            "GET {$o}a",
            "EXEC",
            "MULTI",
            "ASKING",
            "EXEC",
            "GET {$o}a",
            "RESTORE {$o}r 0 x",
            "RESTORE-ASKING {$o}r 0 x",
            "SSUBSCRIBE {$o}a",
            "MIGRATE 127.0.0.1 1 {$o}none 0 10",
            "CLUSTER COUNTKEYSINSLOT $O",
            "CLUSTER SETSLOT $O STABLE",
            "ASKING",
            "GET {$o}a",
            "CLUSTER SETSLOT $M STABLE",
            "GET {$m}away",
        ],
    );
    let expected = counted(&servers[0]);
    for server in &servers[1..] {
        assert_eq!(counted(server), expected);
    }
}

#[test]
fn a_slot_that_leaves_takes_its_waiting_clients_and_subscribers_along() {
    let (servers, _folders) = servers(&primary(), &["--cluster-require-full-coverage", "no"]);
    for server in &servers {
        await_state(server, "ok");
        let mut control = server.connect();
        let mut waiting = server.connect();
        waiting.send(&split(&filled("BLPOP {$m}list 0"))).unwrap();
        let mut other = server.connect();
        other.send(&split(&filled("BLPOP {$n}list 0"))).unwrap();
        let mut subscriber = server.connect();
        subscriber.line(&filled("SSUBSCRIBE {$m}channel"));
        subscriber.line(&filled("SSUBSCRIBE {$n}channel"));
        await_blocked(&mut control, 2);
        let reply = control.line(&filled("CLUSTER SETSLOT $M NODE $other"));
        assert_eq!(reply.text(), "OK");
        let moved = filled("MOVED $M 127.0.0.1:2");
        assert_eq!(waiting.read().unwrap().text(), moved);
        let ended = subscriber.read().unwrap();
        assert_eq!(ended.items()[0].text(), "sunsubscribe");
        assert_eq!(ended.items()[1].text(), filled("{$m}channel"));
        assert_eq!(control.line(&filled("GET $m")).text(), moved);
        // The others stay.
        assert!(other.read_within(Duration::from_millis(300)).is_err());
        control.line(&filled("RPUSH {$n}list x"));
        assert_eq!(other.read().unwrap().items()[1].text(), "x");
        assert_eq!(control.line(&filled("SPUBLISH {$n}channel x")).integer(), Some(1));
        assert_eq!(subscriber.read().unwrap().items()[2].text(), "x");
    }
}

#[test]
fn a_replica_reads_for_those_who_ask_for_it() {
    let (servers, _folders) = servers(&replica(), &["--cluster-require-full-coverage", "no"]);
    servers.iter().for_each(|server| await_state(server, "ok"));
    agree(
        &servers,
        &[
            "GET $m",
            "SET $m 1",
            "READONLY",
            "GET $m",
            "MGET {$m}a {$m}b",
            "MGET $m $n",
            "SET $m 1",
            "GET $o",
            "GET $u",
            "EVAL_NOT_HERE",
            "MULTI",
            "GET $m",
            "EXEC",
            "MULTI",
            "GET $m",
            "SET $m 1",
            "EXEC",
            "XREAD STREAMS $m 0",
            "BLPOP $m 1",
            "READWRITE",
            "GET $m",
            "READONLY",
            "RESET",
            "GET $m",
            "SPUBLISH $m x",
            "SPUBLISH $o x",
            "SSUBSCRIBE $o",
            "SSUBSCRIBE $m",
        ],
    );
    let expected = counted(&servers[0]);
    for server in &servers[1..] {
        assert_eq!(counted(server), expected);
    }
}

#[test]
fn a_cluster_that_is_down_serves_what_the_directives_say() {
    let lines = &[
        "GET $m",
        "SET $m 1",
        "GET $o",
        "GET $u",
        "MGET $m $n",
        "MULTI",
        "GET $m",
        "EXEC",
        "BLPOP $m 1",
        "SPUBLISH $m x",
        "SPUBLISH $o x",
        "PING",
        "DBSIZE",
    ];
    for directives in [
        &["--cluster-allow-reads-when-down", "no"][..],
        &["--cluster-allow-reads-when-down", "yes"],
        &["--cluster-allow-pubsubshard-when-down", "no"],
    ] {
        // Slots without an owner are a reason for it.
        let (servers, _folders) = servers(&primary(), directives);
        servers.iter().for_each(|server| await_state(server, "fail"));
        agree(&servers, lines);
    }
}
