//! The cluster bus of real processes: nodes that meet, packets that are none, the file of nodes, failovers.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use shardis_tests::client::{Client, PATIENCE};
use shardis_tests::node;
use shardis_tests::process::{Launch, Process};
use shardis_tests::wait::{accept, retry, wait_until};

/// Node timeout of these clusters.
const TIMEOUT_MS: u64 = 2_000;

fn launch(shards: usize) -> Launch {
    node::launch(shards)
        .with(&["--cluster-enabled", "yes"])
        .with(&["--cluster-node-timeout", &TIMEOUT_MS.to_string()])
        .with(&[
            "--repl-ping-replica-period",
            "1",
            "--repl-diskless-sync-delay",
            "0",
        ])
}

/// Nodes that know each other; the slots are shared by the first `primaries` of them, the others replicate them in turn.
fn cluster(primaries: usize, replicas: usize) -> Vec<Process> {
    let nodes: Vec<Process> = (0..primaries + replicas).map(|_| launch(2).serve()).collect();
    for (index, node) in nodes.iter().enumerate() {
        let mut client = node.connect();
        if index < primaries {
            let (start, end) = (index * 16_384 / primaries, (index + 1) * 16_384 / primaries - 1);
            ok(&mut client, &format!("CLUSTER ADDSLOTSRANGE {start} {end}"));
        }
        ok(&mut client, &format!("CLUSTER SET-CONFIG-EPOCH {}", index + 1));
        if index > 0 {
            ok(
                &mut client,
                &format!("CLUSTER MEET 127.0.0.1 {}", nodes[0].port()),
            );
        }
    }
    let knows_all = |node: &Process| {
        let text = node.connect().line("CLUSTER NODES").text();
        text.lines().count() == nodes.len() && !text.contains("handshake")
    };
    wait_until("all nodes know each other", || nodes.iter().all(knows_all));
    for (index, node) in nodes.iter().enumerate().skip(primaries) {
        let primary = id(&nodes[index % primaries]);
        ok(&mut node.connect(), &format!("CLUSTER REPLICATE {primary}"));
    }
    let is_whole = |node: &Process| {
        let mut client = node.connect();
        let links = client.line("INFO replication").text();
        client.line("CLUSTER INFO").text().contains("cluster_state:ok")
            && (!links.contains("role:slave") || links.contains("master_link_status:up"))
            && client.line("CLUSTER NODES").text().matches(" slave ").count()
                + client
                    .line("CLUSTER NODES")
                    .text()
                    .matches("myself,slave")
                    .count()
                == replicas
    };
    wait_until("the cluster works", || nodes.iter().all(is_whole));
    nodes
}

fn ok(client: &mut Client, line: &str) {
    assert_eq!(client.line(line).to_string(), "+OK", "{line}");
}

fn id(node: &Process) -> String {
    node.connect().line("CLUSTER MYID").text()
}

fn figure(node: &Process, name: &str) -> u64 {
    let text = node.connect().line("CLUSTER INFO").text();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.and_then(|figure| figure.parse().ok()).unwrap_or_default()
}

fn is_primary(node: &Process) -> bool {
    let text = node.connect().line("CLUSTER NODES").text();
    text.contains("myself,master")
}

#[test]
fn nodes_meet_and_agree() {
    let nodes = cluster(3, 0);
    let slots: Vec<String> = nodes
        .iter()
        .map(|node| node.connect().line("CLUSTER SLOTS").to_string())
        .collect();
    wait_until("all tell the same slots", || {
        nodes
            .iter()
            .all(|node| node.connect().line("CLUSTER SLOTS").to_string() == slots[0])
    });
    for node in &nodes {
        let mut client = node.connect();
        wait_until("there is a link each way to each", || {
            client.line("CLUSTER LINKS").items().len() == 4
        });
        let info = client.line("CLUSTER INFO").text();
        for name in ["ping_sent", "pong_received", "ping_received", "pong_sent"] {
            assert!(
                info.contains(&format!("cluster_stats_messages_{name}:")),
                "{name}\n{info}"
            );
        }
        let info = client.line("INFO").text();
        assert!(info.contains("redis_mode:cluster") && info.contains("cluster_enabled:1"));
    }
}

#[test]
fn messages_reach_subscribers_of_other_nodes_once() {
    let nodes = cluster(2, 1);
    let mut subscribers: Vec<Client> = nodes.iter().map(Process::connect).collect();
    for subscriber in &mut subscribers {
        subscriber.line("SUBSCRIBE news");
    }
    let mut publisher = nodes[1].connect();
    for number in 0..100 {
        let receivers = publisher.line(&format!("PUBLISH news {number}"));
        assert_eq!(receivers.integer(), Some(1), "those of this node are counted");
    }
    for subscriber in &mut subscribers {
        for number in 0..100 {
            let message = subscriber.read().expect("a message");
            assert_eq!(message.items()[2].text(), number.to_string());
        }
        assert!(subscriber.read_within(Duration::from_millis(50)).is_err(), "once");
    }
    assert!(figure(&nodes[0], "cluster_stats_messages_publish_received") >= 100);
}

/// Clients publish faster than the bus sends: none of the messages is lost, and no ping waits for them.
#[test]
fn a_flood_of_messages_keeps_no_ping_waiting() {
    const MESSAGES: usize = 60_000;
    let nodes = cluster(3, 0);
    for node in &nodes {
        // Less than the flood takes, and enough for a machine that others keep busy.
        ok(&mut node.connect(), "CONFIG SET cluster-node-timeout 6000");
    }
    let mut subscriber = nodes[1].connect();
    subscriber.line("SUBSCRIBE flood");
    let port = nodes[0].port();
    let publishers: Vec<_> = (0..2)
        .map(|_| {
            std::thread::spawn(move || {
                let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
                let mut client = Client::connect(address).expect("the node");
                let request = shardis_tests::client::words(&["PUBLISH", "flood", "x"]);
                for _ in 0..MESSAGES / 2 / 1_000 {
                    client.pipeline(&vec![request.clone(); 1_000]);
                }
            })
        })
        .collect();
    for number in 0..MESSAGES {
        let message = subscriber
            .read()
            .unwrap_or_else(|error| panic!("message {number}: {error}"));
        assert_eq!(message.items()[2].text(), "x");
    }
    publishers
        .into_iter()
        .for_each(|publisher| publisher.join().expect("a publisher"));
    for node in &nodes {
        let log = node.log();
        assert!(
            !log.contains("as failing") && !log.contains("changed: fail"),
            "{log}"
        );
    }
}

/// Bytes that no node of a cluster sends, and one packet that no version of it understands.
fn garbage() -> Vec<Vec<u8>> {
    let packet = |len: u32, version: u16, kind: u16| {
        let mut bytes = b"RCmb".to_vec();
        bytes.extend(len.to_be_bytes());
        bytes.extend(version.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(kind.to_be_bytes());
        bytes.resize(2_256, 0);
        bytes
    };
    vec![
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        vec![0xff; 100_000],
        packet(10, 1, 0),
        packet(u32::MAX, 1, 0),
        packet(u32::MAX, 1, 4),
        packet(2_256, 9, 0),
        packet(2_256, 1, 0),
        packet(2_256, 1, 77),
    ]
}

#[test]
fn packets_that_are_none_are_dropped_and_counted() {
    let nodes = cluster(2, 0);
    let bus = ("127.0.0.1", nodes[0].port() + 10_000);
    for bytes in garbage() {
        let mut stream = TcpStream::connect(bus).expect("the bus listens");
        // It may be closed before all is written.
        let _ = stream.write_all(&bytes);
        let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
        let _ = stream.read(&mut [0; 100]);
    }
    wait_until("broken links are counted", || {
        figure(&nodes[0], "cluster_links_broken") == 5
    });
    wait_until("packets are counted", || {
        figure(&nodes[0], "cluster_packets_dropped") == 3
    });
    let mut client = nodes[0].connect();
    assert_eq!(client.line("CLUSTER NODES").text().lines().count(), 2);
    assert!(client.line("CLUSTER INFO").text().contains("cluster_state:ok"));
}

/// Many strangers connect and say nothing: none of them keeps a node from being met.
#[test]
fn silent_strangers_are_in_nobodys_way() {
    let nodes = cluster(2, 0);
    let bus = ("127.0.0.1", nodes[0].port() + 10_000);
    let strangers: Vec<TcpStream> = (0..300).filter_map(|_| TcpStream::connect(bus).ok()).collect();
    assert_eq!(strangers.len(), 300);
    let third = launch(1).serve();
    ok(
        &mut third.connect(),
        &format!("CLUSTER MEET 127.0.0.1 {}", nodes[0].port()),
    );
    wait_until("the third is known", || {
        third.connect().line("CLUSTER NODES").text().lines().count() == 3
    });
}

#[test]
fn a_file_of_nodes_has_one_user_and_is_never_damaged() {
    let nodes = cluster(2, 0);
    let path = nodes[0].directory().join("nodes.conf");
    let text = fs::read_to_string(&path).expect("the file of nodes");
    assert!(
        text.contains(&id(&nodes[1])) && text.contains("vars currentEpoch"),
        "{text}"
    );
    let shared = path.display().to_string();
    let second = launch(1)
        .with(&["--port", "0", "--unixsocket", "socket", "--cluster-port", "1"])
        .with(&["--cluster-config-file", &shared]);
    let finished = second.clone().finish(Duration::from_secs(20));
    assert_ne!(finished.code, Some(0), "{}", finished.text());
    let damaged = nodes[0].directory().join("damaged.conf");
    fs::write(&damaged, text.replace("master", "boss")).unwrap();
    let port = shardis_tests::process::free_port().to_string();
    for (file, complaint) in [
        (shared.as_str(), "already used by a different"),
        (&damaged.display().to_string(), "unknown flag"),
        ("/nowhere/nodes.conf", "Can't open"),
    ] {
        let finished = launch(1)
            .with(&["--port", &port, "--cluster-config-file", file])
            .finish(Duration::from_secs(20));
        assert_eq!(finished.code, Some(1), "{file}: {}", finished.text());
        assert!(finished.text().contains(complaint), "{file}: {}", finished.text());
    }
    assert!(
        fs::read_to_string(&damaged).unwrap().contains("boss"),
        "it is left as it is"
    );
}

#[test]
fn a_replica_takes_over_from_a_primary_that_was_killed() {
    let mut nodes = cluster(3, 1);
    let mut client = nodes[0].connect();
    // Slot 0 belongs to the first primary: the tag is in it.
    for number in 0..100 {
        ok(&mut client, &format!("SET {{3560}}{number} {number}"));
    }
    wait_until("the replica has all", || {
        nodes[3].connect().line("DBSIZE").integer() == Some(100)
    });
    let killed = nodes.remove(0);
    killed.signal(9);
    let begin = Instant::now();
    let is_done = retry(PATIENCE, || {
        is_primary(&nodes[2]).then_some(()).ok_or_else(|| {
            let logs: Vec<String> = nodes.iter().map(Process::log).collect();
            logs.join("\n\n")
        })
    });
    assert!(
        is_done.is_ok(),
        "the replica is no primary:\n{}",
        is_done.unwrap_err()
    );
    let took = begin.elapsed();
    assert!(took < Duration::from_millis(TIMEOUT_MS + 2_000 + 500), "{took:?}");
    wait_until("the cluster works again", || {
        nodes.iter().all(|node| {
            node.connect()
                .line("CLUSTER INFO")
                .text()
                .contains("cluster_state:ok")
        })
    });
    let mut client = nodes[2].connect();
    assert_eq!(client.line("GET {3560}7").text(), "7");
    ok(&mut client, "SET {3560}7 8");
}

#[test]
fn a_manual_failover_loses_no_acknowledged_write() {
    let nodes = cluster(3, 1);
    let (port, replica_port) = (nodes[0].port(), nodes[3].port());
    let writer = std::thread::spawn(move || {
        let address = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let mut client = Client::connect(address(port)).expect("the primary");
        let mut written = 0;
        let end = Instant::now() + Duration::from_secs(8);
        while Instant::now() < end {
            let reply = client.line(&format!("SET {{3560}}{written} x"));
            match reply.text().as_str() {
                "OK" => written += 1,
                text if text.starts_with("MOVED") => {
                    client = Client::connect(address(replica_port)).expect("the replica");
                }
                other => panic!("{other}"),
            }
        }
        written
    });
    sleep(Duration::from_secs(1));
    ok(&mut nodes[3].connect(), "CLUSTER FAILOVER");
    wait_until("the replica is the primary", || is_primary(&nodes[3]));
    wait_until("the primary is the replica", || !is_primary(&nodes[0]));
    let written: i64 = writer.join().expect("the writer");
    assert!(written > 100, "{written}");
    assert_eq!(nodes[3].connect().line("DBSIZE").integer(), Some(written));
    wait_until("the former primary has the same", || {
        nodes[0].connect().line("DBSIZE").integer() == Some(written)
    });
    let log = nodes[0].log();
    assert!(
        log.contains("Successful partial resynchronization"),
        "it goes on in the same history:\n{log}"
    );
}

/// A write that was admitted before the pause, and takes long, is in the offset that the primary tells.
#[test]
fn a_write_under_way_is_not_lost_by_a_manual_failover() {
    let nodes = cluster(3, 1);
    let mut client = nodes[0].connect();
    let add = |set: usize, begin: usize| {
        let members = (begin..begin + 5_000).map(|member| format!("{set}:{member}").into_bytes());
        let words = [b"SADD".to_vec(), format!("{{3560}}{set}").into_bytes()];
        words.into_iter().chain(members).collect::<Vec<_>>()
    };
    let requests: Vec<_> = (0..40).map(|part| add(part % 2, part * 5_000)).collect();
    client.pipeline(&requests);
    let mut other = nodes[3].connect();
    wait_until("the replica has both sets", || {
        ok(&mut other, "READONLY");
        other.line("SCARD {3560}1").integer() == Some(100_000)
    });
    client
        .send(&["SUNIONSTORE", "{3560}all", "{3560}0", "{3560}1"])
        .expect("it reads");
    sleep(Duration::from_millis(20));
    ok(&mut other, "CLUSTER FAILOVER");
    let stored = client.read().expect("a reply");
    assert_eq!(stored.integer(), Some(200_000), "{stored}");
    wait_until("the replica is the primary", || is_primary(&nodes[3]));
    assert_eq!(other.line("SCARD {3560}all"), stored);
}

#[test]
fn takeover_and_force_need_less() {
    let mut nodes = cluster(3, 2);
    // The fifth is a replica of the second primary, the fourth one of the first.
    for index in [1, 1] {
        let killed = nodes.remove(index);
        killed.signal(9);
    }
    // Only one of three primaries is left: nothing elects. A takeover asks nobody.
    wait_until("the cluster does not work", || {
        nodes[0]
            .connect()
            .line("CLUSTER INFO")
            .text()
            .contains("cluster_state:fail")
    });
    let replica = &nodes[2];
    ok(&mut replica.connect(), "CLUSTER FAILOVER TAKEOVER");
    wait_until("it is the primary", || is_primary(replica));
    ok(&mut nodes[1].connect(), "CLUSTER FAILOVER FORCE");
    wait_until("with a majority of two of three, it is elected", || {
        is_primary(&nodes[1])
    });
}

/// A link comes from the address that the configuration gives, if this machine has it, and from another one otherwise.
#[test]
fn a_link_comes_from_the_address_of_the_configuration() {
    for (given, seen) in [("127.0.0.2", "127.0.0.2"), ("192.0.2.7", "127.0.0.1")] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let node = launch(1).with(&["--bind-source-addr", given]).serve();
        ok(
            &mut node.connect(),
            &format!("CLUSTER MEET 127.0.0.1 {port} {port}"),
        );
        let peer = accept(&listener).peer_addr().expect("it is connected");
        assert_eq!(peer.ip().to_string(), seen, "with {given}");
    }
}

#[test]
fn a_reset_node_is_empty_and_alone() {
    let nodes = cluster(2, 1);
    let mut client = nodes[0].connect();
    ok(&mut client, "SET {3560} x");
    let refused = client.line("CLUSTER RESET").to_string();
    assert_eq!(
        refused,
        "-ERR CLUSTER RESET can't be called with master nodes containing keys"
    );
    let mut replica = nodes[2].connect();
    wait_until("the replica has the key", || {
        replica.line("DBSIZE").integer() == Some(1)
    });
    let before = id(&nodes[2]);
    ok(&mut replica, "CLUSTER RESET HARD");
    assert_eq!(
        replica.line("DBSIZE").integer(),
        Some(0),
        "the reply comes when it is so"
    );
    assert!(replica.line("INFO replication").text().contains("role:master"));
    assert_eq!(replica.line("CLUSTER NODES").text().lines().count(), 1);
    assert_ne!(id(&nodes[2]), before);
}
