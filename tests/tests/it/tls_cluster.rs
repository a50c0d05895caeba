//! Clusters whose bus is over TLS: made, checked and resharded by redis-cli, beside real Redis nodes, after the death of primaries, and the
//! ports that clients of both kinds are told.

use std::process::{Command, Stdio};

use shardis_tests::client::Client;
use shardis_tests::cluster::schedule::await_takeover;
use shardis_tests::cluster::view::NodeLine;
use shardis_tests::cluster::{Cluster, Plan};
use shardis_tests::info::field;
use shardis_tests::process::repository_root;
use shardis_tests::replication::member::Kind::{self, Redis, Shardis};
use shardis_tests::replication::member::PATIENCE;
use shardis_tests::reply::Reply;
use shardis_tests::slot;

use super::cluster_tools::{KEYS, check_keys, fill};
use super::redis_py::library;

/// Waits until each replica has as many keys as its primary.
fn await_copies(cluster: &Cluster) {
    cluster.await_that("replicas with all keys", || {
        let size = |index: usize| cluster.member(index).client().line("DBSIZE").integer();
        for primary in cluster.primaries(0) {
            for replica in cluster.replicas_of(primary) {
                if size(replica) != size(primary) {
                    return Err(format!("replica {replica}: {:?}", size(replica)));
                }
            }
        }
        Ok(())
    });
}

#[test]
fn redis_cli_makes_checks_and_reshards_a_cluster() {
    for (kinds, replicas) in [(&[1, 1, 1][..], 0), (&[4, 4, 4], 0), (&[1, 4, 2, 4, 1, 2], 1)] {
        let kinds: Vec<Kind> = kinds.iter().copied().map(Shardis).collect();
        let cluster = Plan::of(&kinds).replicas(replicas).secured().create();
        fill(&cluster);
        let at = cluster.address(0);
        let ids: Vec<String> = (0..cluster.len()).map(|index| cluster.id(index)).collect();
        let primaries = cluster.primaries(0);
        for (from, to) in [(0, 1), (1, 2)] {
            let options = [
                "reshard",
                &at,
                "--cluster-from",
                &ids[primaries[from]],
                "--cluster-to",
                &ids[primaries[to]],
                "--cluster-slots",
                "700",
                "--cluster-yes",
            ];
            cluster.cli(options);
            cluster.await_whole();
        }
        let checked = cluster.cli(["check", &at]);
        for line in [
            "[OK] All nodes agree about slots configuration.",
            "[OK] All 16384 slots covered.",
        ] {
            assert!(checked.contains(line), "{line}: {checked}");
        }
        check_keys(&cluster);
    }
}

/// Keys of all thirds of the slots.
const SPREAD: [&str; 4] = ["a", "b", "c", "d"];

/// The ports in CLUSTER NODES, in ascending order.
fn ports_of_nodes(client: &mut Client) -> Vec<u16> {
    let text = client.line("CLUSTER NODES").text();
    let lines = text.lines().map(|line| NodeLine::parse(line).expect("a line").0);
    let mut ports: Vec<u16> = lines.map(|line| line.port).collect();
    ports.sort_unstable();
    ports
}

/// The ports in CLUSTER SLOTS, in ascending order.
fn ports_of_slots(client: &mut Client) -> Vec<u16> {
    let reply = client.line("CLUSTER SLOTS");
    let nodes = reply.items().iter().flat_map(|range| &range.items()[2..]);
    let mut ports: Vec<u16> = nodes.map(|node| number(&node.items()[1])).collect();
    ports.sort_unstable();
    ports
}

/// The ports without and with TLS in CLUSTER SHARDS, in ascending order.
fn ports_of_shards(client: &mut Client) -> Vec<(u16, u16)> {
    let reply = client.line("CLUSTER SHARDS");
    let nodes = |shard: &Reply| shard.field("nodes").expect("nodes").items().to_vec();
    let port = |node: &Reply, name| number(node.field(name).expect("a port"));
    let nodes = reply.items().iter().flat_map(nodes);
    let mut ports: Vec<_> = nodes
        .map(|node| (port(&node, "port"), port(&node, "tls-port")))
        .collect();
    ports.sort_unstable();
    ports
}

fn number(reply: &Reply) -> u16 {
    let number = reply.integer().and_then(|number| u16::try_from(number).ok());
    number.unwrap_or_else(|| panic!("no port: {reply}"))
}

/// Port of a redirect of this kind.
fn port_of(redirect: &Reply, kind: &str) -> u16 {
    let text = redirect.text();
    let port = text
        .strip_prefix(kind)
        .and_then(|rest| rest.rsplit_once(':'))
        .and_then(|(_, port)| port.parse().ok());
    port.unwrap_or_else(|| panic!("no {kind}: {text}"))
}

/// A client of a node of three, which have these ports for its kind, is told nothing but them.
fn check_ports(client: &mut Client, ports: &[u16], (own, next, next_id): (u16, u16, &str)) {
    let mut sorted = ports.to_vec();
    sorted.sort_unstable();
    assert_eq!(ports_of_nodes(client), sorted);
    assert_eq!(ports_of_slots(client), sorted);
    let replies = SPREAD.map(|key| (key, client.line(&format!("GET {key}"))));
    let moved = replies.iter().filter(|(_, reply)| reply.is_error());
    let moved: Vec<u16> = moved.map(|(_, reply)| port_of(reply, "MOVED ")).collect();
    assert!(moved.len() > 1 && moved.len() < SPREAD.len(), "{moved:?}");
    for port in moved {
        assert!(ports.contains(&port) && port != own, "{port} of {ports:?}");
    }
    let here = replies.iter().find(|(_, reply)| !reply.is_error());
    let (key, _) = here.expect("a key of this node");
    let slot = slot::of(key.as_bytes());
    let mut ask = |line: String| client.line(&line);
    assert_eq!(
        ask(format!("CLUSTER SETSLOT {slot} MIGRATING {next_id}")).text(),
        "OK"
    );
    assert_eq!(port_of(&ask(format!("GET {key}")), "ASK "), next);
    assert_eq!(ask(format!("CLUSTER SETSLOT {slot} STABLE")).text(), "OK");
}

#[test]
fn clients_are_told_the_ports_of_their_kind() {
    let cluster = Plan::of(&[Shardis(1), Shardis(4), Redis]).secured().create();
    let plain: Vec<u16> = (0..3).map(|index| cluster.member(index).port()).collect();
    let tls: Vec<u16> = (0..3).map(|index| cluster.tls_port(index)).collect();
    let mut both: Vec<(u16, u16)> = plain.iter().copied().zip(tls.iter().copied()).collect();
    both.sort_unstable();
    for index in 0..3 {
        let next = (index + 1) % 3;
        let id = cluster.id(next);
        for (mut client, ports) in [
            (cluster.member(index).client(), &plain),
            (cluster.tls_client(index), &tls),
        ] {
            check_ports(&mut client, ports, (ports[index], ports[next], &id));
            assert_eq!(ports_of_shards(&mut client), both);
        }
    }
}

#[test]
fn nodes_and_real_ones_take_over_from_each_other() {
    let primaries = [Redis, Shardis(2), Redis];
    let mut cluster = Plan::of(&primaries).timeout_ms(5_000).secured().create();
    for (primary, kind) in [Shardis(4), Redis].into_iter().enumerate() {
        let replica = cluster.add(kind);
        cluster.join_as_replica(replica, 0, primary);
        cluster.await_whole();
    }
    fill(&cluster);
    await_copies(&cluster);
    for (primary, replica) in [(0, 3), (1, 4)] {
        let mut client = cluster.member(replica).client();
        let above = cluster.tls_port(primary).to_string();
        assert_eq!(field(&mut client, "master_port"), above, "the link uses TLS");
        cluster.member_mut(primary).kill();
        await_takeover(&cluster, &[primary], &[replica, 2]);
        cluster.member_mut(primary).start_again();
        cluster.await_whole();
        let mut client = cluster.member(primary).client();
        let above = cluster.tls_port(replica).to_string();
        assert_eq!(field(&mut client, "master_port"), above, "the link uses TLS");
    }
    check_keys(&cluster);
}

#[test]
fn a_replica_takes_over_and_the_old_primary_follows_it() {
    let kinds = [1, 2, 4, 4, 1, 2].map(Shardis);
    let mut cluster = Plan::of(&kinds).replicas(1).timeout_ms(5_000).secured().create();
    fill(&cluster);
    await_copies(&cluster);
    let victim = cluster.primaries(0)[0];
    let heir = cluster.replicas_of(victim)[0];
    let others: Vec<usize> = (0..6).filter(|&index| index != victim).collect();
    cluster.member_mut(victim).kill();
    await_takeover(&cluster, &[victim], &others);
    // Every key is answered while the node is down.
    let mut client = cluster.client();
    for number in 0..KEYS {
        let key = format!("key:{number}");
        let found = client.insist(&key, &["GET", &key], PATIENCE);
        assert_eq!(found.expect("a reply").text(), number.to_string(), "{key}");
    }
    cluster.member_mut(victim).start_again();
    cluster.await_whole();
    let mut client = cluster.member(victim).client();
    let above = cluster.tls_port(heir).to_string();
    assert_eq!(field(&mut client, "master_port"), above);
    // `tls-replication` has the link use the other port at once.
    for (value, port) in [
        ("no", cluster.member(heir).port()),
        ("yes", cluster.tls_port(heir)),
    ] {
        let reply = client.line(&format!("CONFIG SET tls-replication {value}"));
        assert_eq!(reply.text(), "OK");
        cluster.await_that("the other port", || {
            match (
                field(&mut client, "master_port"),
                field(&mut client, "master_link_status"),
            ) {
                (told, status) if told == port.to_string() && status == "up" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
    check_keys(&cluster);
}

#[test]
fn redis_py_follows_redirects_over_tls() {
    for shards in [1, 4] {
        let kinds = [Shardis(shards), Shardis(1), Shardis(2)];
        let cluster = Plan::of(&kinds).secured().create();
        let authority = cluster.authority();
        let files = ["ca.crt", "server.crt", "server.key"].map(|file| authority.path(file));
        let script = Command::new("python3")
            .arg(repository_root().join("tests/python/tls_cluster.py"))
            .arg(cluster.tls_port(0).to_string())
            .args(files)
            .env("PYTHONPATH", library())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .status()
            .expect("python3 can be run");
        assert!(script.success(), "{}", cluster.logs());
        cluster.await_whole();
    }
}
