//! CLUSTER on a node that stands alone among nodes that do not answer, reply by reply beside redis-server 7.0.
//!
//! Both servers begin with the same file of nodes: three primaries, of which the first is the node itself, and a replica of the second.

use std::fs;

use shardis_tests::client::Client;
use shardis_tests::process::{Launch, Process};
use shardis_tests::reply::Reply;
use shardis_tests::wait::wait_until;
use shardis_tests::{node, redis};
use tempfile::TempDir;

const ME: &str = "0101010101010101010101010101010101010101";
const SECOND: &str = "0202020202020202020202020202020202020202";
const THIRD: &str = "0303030303030303030303030303030303030303";
const REPLICA: &str = "0404040404040404040404040404040404040404";

/// A port that nobody listens on: those below 1024 are the system's.
fn file_of_nodes() -> String {
    format!(
        "{ME} 127.0.0.1:1@10001 myself,master - 0 0 3 connected 0-5460 5462 [93->-{SECOND}] [6000-<-{SECOND}]\n\
         {SECOND} 127.0.0.1:2@10002,host-2.example master - 0 0 2 connected 5463-10922\n\
         {THIRD} 127.0.0.1:3@10003 master - 0 0 1 connected 10923-16000\n\
         {REPLICA} 127.0.0.1:4@10004 slave {SECOND} 0 0 2 connected\n\
         vars currentEpoch 5 lastVoteEpoch 4\n"
    )
}

/// A server of each kind that begins with this file.
struct Pair {
    ours: Process,
    stock: Process,
    _folder: TempDir,
}

fn cluster_node(launch: Launch, folder: &TempDir, name: &str, text: &str) -> Process {
    let file = folder.path().join(name);
    fs::write(&file, text).expect("a file of nodes");
    let file = file.display().to_string();
    launch
        .with(&["--cluster-enabled", "yes", "--cluster-config-file", &file])
        .with(&["--cluster-node-timeout", "60000"])
        .serve()
}

impl Pair {
    fn start(shards: usize, text: &str) -> Pair {
        let folder = TempDir::new().expect("a folder");
        Pair {
            ours: cluster_node(node::launch(shards), &folder, "ours.conf", text),
            stock: cluster_node(redis::launch(), &folder, "stock.conf", text),
            _folder: folder,
        }
    }

    fn clients(&self) -> (Client, Client) {
        (self.ours.connect(), self.stock.connect())
    }

    /// A reply without what differs between any two runs: ports, times, and the random ids in it.
    fn masked(&self, reply: &Reply) -> String {
        let mut text = reply.to_string();
        for process in [&self.ours, &self.stock] {
            let port = process.port();
            text = text.replace(&format!("{}@{}", port, port + 10_000), "P@B");
            text = text.replace(&port.to_string(), "P");
        }
        text
    }

    /// Both give the same reply to each line.
    fn agree(&self, lines: &[&str]) {
        let (mut ours, mut stock) = self.clients();
        for line in lines {
            let (ours, stock) = (ours.line(line), stock.line(line));
            assert_eq!(self.masked(&ours), self.masked(&stock), "{line}");
        }
    }
}

#[test]
fn errors_are_told_in_the_same_words() {
    let unknown = "ffffffffffffffffffffffffffffffffffffffff";
    let lines = [
        "CLUSTER",
        "CLUSTER FOO",
        "CLUSTER MYID x",
        "CLUSTER ADDSLOTS",
        "CLUSTER ADDSLOTS x",
        "CLUSTER ADDSLOTS -1",
        "CLUSTER ADDSLOTS 16384",
        "CLUSTER ADDSLOTS 0",
        "CLUSTER ADDSLOTS 16001 16001",
        "CLUSTER ADDSLOTS 16001 x",
        "CLUSTER ADDSLOTSRANGE 16001",
        "CLUSTER ADDSLOTSRANGE 16001 16002 16003",
        "CLUSTER ADDSLOTSRANGE 16005 16002",
        "CLUSTER ADDSLOTSRANGE 16001 16005 16005 16006",
        "CLUSTER ADDSLOTSRANGE 5000 16005",
        "CLUSTER DELSLOTS 16001",
        "CLUSTER DELSLOTSRANGE 16005 16001",
        "CLUSTER DELSLOTSRANGE 16001 16005",
        "CLUSTER DELSLOTSRANGE 16001 16005 1",
        "CLUSTER SETSLOT 1",
        "CLUSTER SETSLOT x STABLE",
        "CLUSTER SETSLOT 16384 STABLE",
        "CLUSTER SETSLOT 1 STABLE x",
        "CLUSTER SETSLOT 1 FOO",
        "CLUSTER SETSLOT 1 NODE",
        &format!("CLUSTER SETSLOT 1 NODE {unknown}"),
        "CLUSTER SETSLOT 1 NODE short",
        &format!("CLUSTER SETSLOT 1 NODE {REPLICA}"),
        &format!("CLUSTER SETSLOT 1 MIGRATING {unknown}"),
        "CLUSTER SETSLOT 1 MIGRATING short",
        &format!("CLUSTER SETSLOT 1 MIGRATING {REPLICA}"),
        &format!("CLUSTER SETSLOT 10000 MIGRATING {SECOND}"),
        "CLUSTER SETSLOT 10000 MIGRATING short",
        &format!("CLUSTER SETSLOT 1 IMPORTING {SECOND}"),
        "CLUSTER SETSLOT 1 IMPORTING short",
        "CLUSTER SETSLOT 10000 IMPORTING short",
        &format!("CLUSTER SETSLOT 10000 IMPORTING {unknown}"),
        &format!("CLUSTER SETSLOT 10000 IMPORTING {REPLICA}"),
        "CLUSTER MEET",
        "CLUSTER MEET 127.0.0.1",
        "CLUSTER MEET 127.0.0.1 x",
        "CLUSTER MEET 127.0.0.1 1 x",
        "CLUSTER MEET 127.0.0.1 0",
        "CLUSTER MEET 127.0.0.1 65536",
        "CLUSTER MEET 127.0.0.1 1 0",
        "CLUSTER MEET 127.0.0.1 1 70000",
        "CLUSTER MEET 127.0.0.1 60000",
        "CLUSTER MEET host.example 1",
        "CLUSTER MEET 127.0.0.1 1 2 3",
        &format!("CLUSTER FORGET {unknown}"),
        "CLUSTER FORGET short",
        &format!("CLUSTER FORGET {ME}"),
        &format!("CLUSTER REPLICAS {unknown}"),
        "CLUSTER REPLICAS short",
        &format!("CLUSTER REPLICAS {REPLICA}"),
        &format!("CLUSTER SLAVES {ME}"),
        &format!("CLUSTER REPLICATE {unknown}"),
        "CLUSTER REPLICATE short",
        &format!("CLUSTER REPLICATE {ME}"),
        &format!("CLUSTER REPLICATE {REPLICA}"),
        &format!("CLUSTER REPLICATE {SECOND}"),
        "CLUSTER FAILOVER",
        "CLUSTER FAILOVER FORCE",
        "CLUSTER FAILOVER foo",
        "CLUSTER FAILOVER FORCE x",
        "CLUSTER RESET foo",
        "CLUSTER RESET HARD x",
        "CLUSTER SET-CONFIG-EPOCH",
        "CLUSTER SET-CONFIG-EPOCH x",
        "CLUSTER SET-CONFIG-EPOCH -1",
        "CLUSTER SET-CONFIG-EPOCH 3",
        &format!("CLUSTER COUNT-FAILURE-REPORTS {unknown}"),
        &format!("CLUSTER COUNT-FAILURE-REPORTS {SECOND}"),
        "CLUSTER COUNT-FAILURE-REPORTS short",
        "REPLICAOF 127.0.0.1 1",
        "FAILOVER",
    ];
    for shards in [1, 4] {
        Pair::start(shards, &file_of_nodes()).agree(&lines);
    }
}

/// CLUSTER NODES without times and states of links, sorted.
fn nodes(client: &mut Client, port: u16) -> Vec<String> {
    let text = client.line("CLUSTER NODES").text();
    let text = text.replace(&format!(":{port}@{}", port + 10_000), ":P@B");
    assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{text:?}");
    let mut lines: Vec<String> = text.lines().map(line_without_times).collect();
    lines.sort();
    lines
}

fn line_without_times(line: &str) -> String {
    let mut words: Vec<&str> = line.split(' ').collect();
    (words[4], words[5], words[7]) = ("ping", "pong", "state");
    words.join(" ")
}

#[test]
fn the_same_file_gives_the_same_topology() {
    let pair = Pair::start(4, &file_of_nodes());
    let (mut ours, mut stock) = pair.clients();
    assert_eq!(
        nodes(&mut ours, pair.ours.port()),
        nodes(&mut stock, pair.stock.port())
    );
    pair.agree(&["CLUSTER MYID", "CLUSTER SLOTS", "CLUSTER LINKS"]);
    wait_until("both have counted the primaries", || {
        [&mut ours, &mut stock]
            .into_iter()
            .all(|client| client.line("CLUSTER INFO").text().contains("cluster_size:3"))
    });
    for protocol in ["HELLO 2", "HELLO 3"] {
        let reply = |client: &mut Client| {
            client.line(protocol);
            let kinds = ["CLUSTER SLOTS", "CLUSTER SHARDS", "CLUSTER INFO"];
            kinds.map(|line| client.line(line))
        };
        let (ours, stock) = (reply(&mut ours), reply(&mut stock));
        assert_eq!(pair.masked(&ours[0]), pair.masked(&stock[0]), "{protocol}: SLOTS");
        // Their order means nothing.
        let sorted = |reply: &Reply| {
            let mut shards: Vec<String> = reply.items().iter().map(|shard| pair.masked(shard)).collect();
            shards.sort();
            shards
        };
        assert_eq!(sorted(&ours[1]), sorted(&stock[1]), "{protocol}: SHARDS");
        let figures = |reply: &Reply| -> Vec<String> {
            let text = reply.text();
            let known =
                |line: &&str| !line.starts_with("cluster_stats") && !NEW_FIGURES.contains(&name(line));
            text.lines().filter(known).map(str::to_owned).collect()
        };
        assert_eq!(figures(&ours[2]), figures(&stock[2]), "{protocol}: INFO");
    }
}

/// Figures of CLUSTER INFO that Redis does not have.
const NEW_FIGURES: [&str; 3] = [
    "cluster_failures_survived",
    "cluster_packets_dropped",
    "cluster_links_broken",
];

fn name(line: &str) -> &str {
    line.split(':').next().unwrap_or_default()
}

#[test]
fn endpoints_are_told_as_directives_say() {
    let pair = Pair::start(1, &file_of_nodes());
    for directives in [
        "CONFIG SET cluster-preferred-endpoint-type hostname",
        "CONFIG SET cluster-announce-hostname me.example",
        "CONFIG SET cluster-preferred-endpoint-type unknown-endpoint",
        "CONFIG SET cluster-preferred-endpoint-type ip",
        "CONFIG SET cluster-announce-ip 10.0.0.1",
        "CONFIG SET cluster-announce-port 7777 cluster-announce-bus-port 17777",
        "CONFIG SET cluster-announce-hostname bad_name",
        "CONFIG SET cluster-announce-hostname \"\"",
    ] {
        for protocol in ["HELLO 2", "HELLO 3"] {
            let (mut ours, mut stock) = pair.clients();
            ours.line(protocol);
            stock.line(protocol);
            for line in [directives, "CLUSTER SLOTS"] {
                let (ours, stock) = (ours.line(line), stock.line(line));
                assert_eq!(pair.masked(&ours), pair.masked(&stock), "{directives}: {line}");
            }
        }
        let (mut ours, mut stock) = pair.clients();
        assert_eq!(
            nodes(&mut ours, pair.ours.port()),
            nodes(&mut stock, pair.stock.port()),
            "{directives}"
        );
    }
}

#[test]
fn changes_are_made_alike_in_pipelines_and_transactions() {
    let pair = Pair::start(4, &file_of_nodes());
    pair.agree(&[
        "CLUSTER ADDSLOTS 16001 16002",
        "CLUSTER ADDSLOTSRANGE 16003 16010 16012 16383",
        "CLUSTER DELSLOTS 16001",
        "CLUSTER DELSLOTSRANGE 16005 16010",
        &format!("CLUSTER SETSLOT 10 MIGRATING {THIRD}"),
        &format!("CLUSTER SETSLOT 9000 IMPORTING {SECOND}"),
        "CLUSTER SETSLOT 93 STABLE",
        &format!("CLUSTER SETSLOT 11 NODE {THIRD}"),
        &format!("CLUSTER SETSLOT 9000 NODE {ME}"),
        "MULTI",
        "CLUSTER ADDSLOTS 16001",
        "CLUSTER ADDSLOTS 16001",
        "CLUSTER BUMPEPOCH",
        "CLUSTER MYID",
        "EXEC",
        "CLUSTER BUMPEPOCH",
        "CLUSTER SAVECONFIG",
        &format!("CLUSTER REPLICAS {THIRD}"),
        &format!("CLUSTER FORGET {REPLICA}"),
        "CLUSTER SLOTS",
    ]);
    let (mut ours, mut stock) = pair.clients();
    assert_eq!(
        nodes(&mut ours, pair.ours.port()),
        nodes(&mut stock, pair.stock.port())
    );
    pair.agree(&["CLUSTER FLUSHSLOTS", "CLUSTER SLOTS", "CLUSTER RESET"]);
    let (mut ours, mut stock) = pair.clients();
    assert_eq!(
        nodes(&mut ours, pair.ours.port()),
        nodes(&mut stock, pair.stock.port())
    );
    pair.agree(
        &[
            "CLUSTER SET-CONFIG-EPOCH 7",
            "CLUSTER SET-CONFIG-EPOCH 8",
            "CLUSTER INFO",
        ][..2],
    );
}
