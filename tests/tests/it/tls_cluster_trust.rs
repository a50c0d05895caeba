//! Trust on a bus over TLS: nodes of another authority, strangers, certificates that are exchanged while links stand, and
//! `tls-cluster` switched at run time.

use std::io::{ErrorKind, Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use shardis_tests::client::Client;
use shardis_tests::cluster::{Cluster, Plan};
use shardis_tests::node;
use shardis_tests::process::{BUS_OFFSET, Process, cluster_port};
use shardis_tests::replication::member::Kind::{Redis, Shardis};
use shardis_tests::tls::{Authority, Subject, replace};
use shardis_tests::wait::wait_until;

use super::cluster_tools::{check_keys, fill};

/// Longest wait for the end of a connection.
const PATIENCE: Duration = Duration::from_secs(20);

/// Beginning of a line about a connection that is not let in.
const ACCEPTING: &str = "Error accepting a connection of the cluster bus from 127.0.0.1: ";

/// Address of the bus of a node over TLS.
fn bus(cluster: &Cluster, index: usize) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, cluster.tls_port(index) + BUS_OFFSET).into()
}

/// Whether the bus of a node completes a handshake.
fn is_over_tls(address: SocketAddr, authority: &Authority) -> bool {
    Client::connect_tls(address, &authority.client(Some("server"))).is_ok()
}

/// Number of lines in the log of a node that have this.
fn lines_with(cluster: &Cluster, index: usize, text: &str) -> usize {
    let log = cluster.member(index).log();
    log.lines().filter(|line| line.contains(text)).count()
}

fn meet(from: &Cluster, to: &Cluster) {
    let line = format!("CLUSTER MEET 127.0.0.1 {}", to.tls_port(0));
    assert_eq!(from.member(0).client().line(&line).text(), "OK");
}

#[test]
fn a_node_of_another_authority_stays_outside() {
    let cluster = Plan::of(&[Shardis(1), Shardis(2), Shardis(1)])
        .timeout_ms(3_000)
        .secured()
        .create();
    for kind in [Shardis(1), Redis] {
        let stranger = Plan::of(&[kind]).timeout_ms(3_000).secured().start();
        let distrusted = format!(
            "No TLS session with the node of the cluster at {}: invalid peer certificate",
            bus(&stranger, 0)
        );
        meet(&cluster, &stranger);
        meet(&stranger, &cluster);
        cluster.await_that("lines that tell why", || {
            let told = [&*distrusted, ACCEPTING].map(|text| lines_with(&cluster, 0, text));
            match told {
                [1, accepting] if accepting > 0 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        // It tries ten times a second until the node timeout is over.
        wait_until("the handshake is given up", || {
            let nodes = cluster.member(0).client().line("CLUSTER NODES").text();
            !nodes.contains("handshake")
        });
        assert_eq!(lines_with(&cluster, 0, &distrusted), 1);
        cluster.await_whole();
        let known = stranger.member(0).client().line("CLUSTER INFO").text();
        wait_until("it is alone", || {
            let nodes = stranger.member(0).client().line("CLUSTER NODES").text();
            nodes.lines().count() == 1
        });
        assert!(known.contains("cluster_size:0"), "{known}");
    }
}

/// A connection to a bus that says this and nothing more.
fn say(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(bytes).expect("the socket takes them");
    stream
}

/// Whether a connection ends before its reader loses patience.
fn ends(mut stream: impl Read) -> bool {
    let mut received = [0; 1024];
    loop {
        match stream.read(&mut received) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

#[test]
fn strangers_on_the_bus_keep_nobody_out() {
    let mut cluster = Plan::of(&[Shardis(1), Shardis(4), Shardis(1)])
        .timeout_ms(5_000)
        .secured()
        .create();
    fill(&cluster);
    // A header of the bus, as a node without TLS begins it.
    assert!(ends(say(bus(&cluster, 0), b"RCmb\x00\x00\x08\xf0\x00\x01")));
    wait_until("a line about it", || {
        lines_with(
            &cluster,
            0,
            "Error accepting a connection of the cluster bus from 127.0.0.1: ",
        ) == 1
    });
    for _ in 0..50 {
        assert!(ends(say(bus(&cluster, 0), b"GET / HTTP/1.1\r\n\r\n")));
    }
    // Some say nothing, and some begin a handshake.
    let beginnings: [&[u8]; 2] = [b"", &[22, 3, 1, 2, 0, 1, 0, 1]];
    let silent: Vec<TcpStream> = (0..200)
        .map(|number| say(bus(&cluster, 0), beginnings[number % 2]))
        .collect();
    // Clients without a certificate, and with one of somebody else.
    let theirs = Authority::new();
    for config in [
        cluster.authority().client(None),
        cluster.authority().client_of(&theirs, Some("server")),
    ] {
        let ended = match Client::connect_tls(bus(&cluster, 0), &config) {
            // With TLS 1.3 a client thinks that it is through before its certificate was looked at.
            Ok(mut client) => ends(client.session()),
            Err(_) => true,
        };
        assert!(ended);
    }
    let joined = cluster.add(Shardis(2));
    let (new, known) = (cluster.address(joined), cluster.address(0));
    cluster.cli(["add-node", &new, &known]);
    cluster.await_whole();
    for stream in silent {
        assert!(ends(stream), "who does not go on is let go of");
    }
    assert!(lines_with(&cluster, 0, ACCEPTING) <= 20, "{}", cluster.logs());
    check_keys(&cluster);
}

#[test]
fn a_handshake_on_a_plain_bus_ends_the_connection_with_few_lines() {
    let cluster = Plan::of(&[Shardis(1)]).start();
    let address: SocketAddr = (Ipv4Addr::LOCALHOST, cluster.member(0).port() + BUS_OFFSET).into();
    let authority = Authority::new();
    for _ in 0..30 {
        assert!(!is_over_tls(address, &authority));
    }
    wait_until("a line about it", || {
        lines_with(
            &cluster,
            0,
            "A link of the cluster bus with 127.0.0.1 is closed: ",
        ) == 1
    });
}

#[test]
fn certificates_are_exchanged_while_the_bus_stands() {
    let mut cluster = Plan::of(&[Shardis(1), Shardis(2), Redis]).secured().create();
    fill(&cluster);
    let next = Authority::new();
    let both = std::fs::read_to_string(cluster.authority().file("ca.crt")).expect("a file")
        + &std::fs::read_to_string(next.file("ca.crt")).expect("a file");
    let set_all = |cluster: &Cluster, names: &[&str]| {
        for index in 0..cluster.len() {
            let mut words = vec!["CONFIG".to_owned(), "SET".to_owned()];
            for &name in names {
                let path = match name {
                    "tls-ca-cert-file" => "ca.crt",
                    "tls-cert-file" => "server.crt",
                    _ => "server.key",
                };
                words.extend([name.to_owned(), cluster.authority().path(path)]);
            }
            assert_eq!(cluster.member(index).client().call(&words).text(), "OK");
        }
    };
    // First both authorities are trusted, then the certificates come from the new one, and then it is the only one.
    std::fs::write(cluster.authority().file("ca.crt"), both).expect("it is written");
    set_all(&cluster, &["tls-ca-cert-file"]);
    next.issue("other", &Subject::named("renewed"));
    for file in ["crt", "key"] {
        let target = cluster.authority().file(&format!("server.{file}"));
        replace(&target, &next.file(&format!("other.{file}")));
    }
    set_all(&cluster, &["tls-cert-file", "tls-key-file"]);
    replace(&cluster.authority().file("ca.crt"), &next.file("ca.crt"));
    set_all(&cluster, &["tls-ca-cert-file"]);
    let created = |cluster: &Cluster| {
        let links = cluster.member(0).client().line("CLUSTER LINKS");
        let times = links
            .items()
            .iter()
            .map(|link| link.field("create-time").and_then(|time| time.integer()));
        times.collect::<Vec<_>>()
    };
    let before = created(&cluster);
    cluster.await_whole();
    assert_eq!(created(&cluster), before, "the links that stood go on");
    // New links are made with the new certificates.
    assert!(is_over_tls(bus(&cluster, 0), &next) && !is_over_tls(bus(&cluster, 0), &Authority::new()));
    for index in [1, 2] {
        cluster.member_mut(index).shut_down(&["SAVE"]);
        cluster.member_mut(index).start_again();
        cluster.await_whole();
    }
    check_keys(&cluster);
}

#[test]
fn the_bus_changes_to_tls_at_run_time() {
    let kinds = [1, 2, 4].map(Shardis);
    let mut cluster = Plan::of(&kinds)
        .timeout_ms(5_000)
        .with(&["tls-cluster no", "appendonly yes"])
        .secured()
        .create();
    fill(&cluster);
    let plain_bus = |cluster: &Cluster, index: usize| -> SocketAddr {
        (Ipv4Addr::LOCALHOST, cluster.member(index).port() + BUS_OFFSET).into()
    };
    assert!(!is_over_tls(plain_bus(&cluster, 0), cluster.authority()));
    for index in 0..3 {
        let reply = cluster.member(index).client().line("CONFIG SET tls-cluster yes");
        assert_eq!(reply.text(), "OK");
    }
    // The port stays, and new connections are over TLS; what stood goes on.
    for index in 0..3 {
        assert!(is_over_tls(plain_bus(&cluster, index), cluster.authority()));
        let rewritten = cluster.member(index).client().line("CONFIG REWRITE");
        assert_eq!(rewritten.text(), "OK");
    }
    cluster.await_whole();
    for index in 0..3 {
        cluster.member_mut(index).kill();
        cluster.member_mut(index).start_again();
        cluster.await_whole();
        assert!(is_over_tls(bus(&cluster, index), cluster.authority()));
        // The port of its bus has changed with that of its clients. The others have to know it when they start, too.
        let place = format!("@{},", bus(&cluster, index).port());
        for other in 0..3 {
            let file = cluster.member(other).data().join("nodes.conf");
            wait_until("its address is in all files", || {
                std::fs::read_to_string(&file).is_ok_and(|text| text.contains(&place))
            });
        }
    }
    check_keys(&cluster);
}

/// A node that serves nothing without TLS.
fn secured_only(authority: &Authority, shards: usize, port: u16) -> Process {
    let launch = node::launch(shards)
        .with(&authority.options(port))
        .with(&["--port", "0", "--bind", "127.0.0.1", "--cluster-enabled", "yes"])
        .with(&["--tls-cluster", "yes", "--tls-replication", "yes"]);
    let process = launch.spawn(port);
    process
        .wait_until_ready()
        .unwrap_or_else(|reason| panic!("{reason}: {}", process.log()));
    process.over_tls(port, authority.client(Some("server")))
}

#[test]
fn nodes_without_a_plain_port_are_a_cluster() {
    let authority = Authority::new();
    let ports = [cluster_port(), cluster_port()];
    let nodes = [(1, ports[0]), (4, ports[1])].map(|(shards, port)| secured_only(&authority, shards, port));
    let [mut first, mut second] = [&nodes[0], &nodes[1]].map(Process::connect);
    assert_eq!(first.line("CLUSTER ADDSLOTSRANGE 0 16383").text(), "OK");
    let met = second.line(&format!("CLUSTER MEET 127.0.0.1 {}", ports[0]));
    assert_eq!(met.text(), "OK");
    wait_until("they know each other", || {
        let nodes = first.line("CLUSTER NODES").text();
        nodes.contains(&format!("127.0.0.1:{0}@{1} ", ports[1], ports[1] + BUS_OFFSET))
            && !nodes.contains("handshake")
    });
    wait_until("the second redirects to the port for TLS", || {
        second.line("GET a").text() == format!("MOVED 15495 127.0.0.1:{}", ports[0])
    });
    first.line("SET a 1");
    let id = first.line("CLUSTER MYID").text();
    assert_eq!(second.line(&format!("CLUSTER REPLICATE {id}")).text(), "OK");
    second.line("READONLY");
    wait_until("the key is there", || second.line("GET a").text() == "1");
    let line = format!(" 127.0.0.1:{}@{},,tcp-port=0,", ports[0], ports[0] + BUS_OFFSET);
    wait_until("the file of nodes names the port", || {
        let file = std::fs::read_to_string(nodes[1].directory().join("nodes.conf"));
        file.is_ok_and(|file| file.contains(&line))
    });
}
