//! A cluster inside another program: what can happen to its nodes, and what its clients see of that.

use std::time::Duration;

use redis::cluster::{ClusterClient, ClusterConnection};
use redis::{Commands, ErrorKind, RedisResult, ServerErrorKind};
use shardis::{Cluster, ClusterNode};

/// Keys of a filled cluster.
const KEYS: usize = 60;

/// Number of attempts of a client while replicas take over.
const ATTEMPTS: usize = 200;

fn connect(cluster: &Cluster) -> ClusterConnection {
    let client = ClusterClient::new(cluster.urls()).expect("URLs that clients take");
    client.get_connection().expect("a cluster that answers")
}

/// A connection to one node, which redirects.
fn connect_to(node: &ClusterNode) -> redis::Connection {
    let client = redis::Client::open(node.url()).expect("a URL that clients take");
    client.get_connection().expect("a node that answers")
}

fn fill(cluster: &Cluster) {
    let mut client = connect(cluster);
    for number in 0..KEYS {
        let () = client.set(format!("key:{number}"), number).expect("it is set");
    }
}

/// All keys are there. A client may need some time to see that nodes have changed their roles.
fn check(cluster: &Cluster) {
    let mut client = connect(cluster);
    for number in 0..KEYS {
        let get = |client: &mut ClusterConnection| client.get::<_, usize>(format!("key:{number}"));
        assert_eq!(insist(&mut client, get), number);
    }
}

fn insist<T>(client: &mut ClusterConnection, ask: impl Fn(&mut ClusterConnection) -> RedisResult<T>) -> T {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        match ask(client) {
            Ok(reply) => return reply,
            Err(error) => last = Some(error),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("no reply: {last:?}");
}

/// Three primaries with a replica each.
fn cluster_of_six() -> Cluster {
    let builder = Cluster::builder().primaries(3).replicas(1);
    builder.start().expect("it starts")
}

#[test]
fn every_slot_answers_when_it_has_started() {
    for (primaries, replicas, shards) in [(1, 0, 1), (3, 0, 2), (3, 1, 1)] {
        let builder = Cluster::builder()
            .primaries(primaries)
            .replicas(replicas)
            .shards(shards);
        let cluster = builder.start().unwrap();
        assert_eq!(cluster.nodes().len(), primaries * (1 + replicas));
        let roles: Vec<bool> = cluster.nodes().iter().map(ClusterNode::is_primary).collect();
        assert_eq!(roles.iter().filter(|is_primary| **is_primary).count(), primaries);
        for node in cluster.nodes() {
            let mut client = connect_to(node);
            let info: String = redis::cmd("CLUSTER").arg("INFO").query(&mut client).unwrap();
            assert!(info.contains("cluster_state:ok"), "{info}");
            assert!(info.contains("cluster_slots_ok:16384"), "{info}");
            let id: String = redis::cmd("CLUSTER").arg("MYID").query(&mut client).unwrap();
            assert_eq!(id, node.id());
        }
        fill(&cluster);
        check(&cluster);
    }
}

#[test]
fn a_killed_primary_is_replaced_and_comes_back_as_a_replica() {
    let cluster = cluster_of_six();
    fill(&cluster);
    let killed = cluster.primary_of("key:1").unwrap();
    let node = &cluster.nodes()[killed];
    let (address, id) = (node.address(), node.id());
    // Its replica has all it had.
    let acknowledged: i64 = redis::cmd("WAIT")
        .arg(1)
        .arg(10_000)
        .query(&mut connect_to(node))
        .unwrap();
    assert_eq!(acknowledged, 1);
    node.kill();
    assert!(!node.is_running());
    assert!(cluster.await_whole());
    assert_ne!(cluster.primary_of("key:1"), Some(killed));
    check(&cluster);
    node.restart().unwrap();
    assert!(cluster.await_whole());
    assert_eq!((node.address(), node.id()), (address, id));
    assert!(!node.is_primary());
    check(&cluster);
}

#[test]
fn a_cluster_that_was_stopped_has_its_data_when_it_starts_again() {
    let cluster = Cluster::builder().primaries(3).start().unwrap();
    fill(&cluster);
    cluster.nodes().iter().for_each(ClusterNode::stop);
    for node in cluster.nodes() {
        node.restart().unwrap();
    }
    assert!(cluster.await_whole());
    check(&cluster);
    cluster.nodes().iter().for_each(ClusterNode::kill);
    for node in cluster.nodes() {
        node.restart().unwrap();
    }
    assert!(cluster.await_whole());
    check(&cluster);
}

#[test]
fn a_paused_primary_is_replaced_and_serves_nothing_old_when_it_goes_on() {
    let cluster = cluster_of_six();
    fill(&cluster);
    let paused = cluster.primary_of("key:1").unwrap();
    let node = &cluster.nodes()[paused];
    let mut old = connect_to(node);
    let acknowledged: i64 = redis::cmd("WAIT").arg(1).arg(10_000).query(&mut old).unwrap();
    assert_eq!(acknowledged, 1);
    node.pause();
    old.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(old.get::<_, usize>("key:1").is_err(), "it stands still");
    assert!(cluster.await_whole());
    let mut client = connect(&cluster);
    insist(&mut client, |client| client.set::<_, _, ()>("key:1", 1000));
    node.resume();
    let mut old = connect_to(node);
    let error = old.get::<_, usize>("key:1").expect_err("its data is old");
    let kinds = [ServerErrorKind::Moved, ServerErrorKind::ClusterDown].map(ErrorKind::Server);
    assert!(kinds.contains(&error.kind()), "{error}");
    assert!(cluster.await_whole());
    assert!(!node.is_primary());
    assert_eq!(
        insist(&mut client, |client| client.get::<_, usize>("key:1")),
        1000
    );
}

#[test]
fn a_primary_that_is_cut_off_refuses_writes() {
    let cluster = cluster_of_six();
    fill(&cluster);
    let cut = cluster.primary_of("key:1").unwrap();
    let others: Vec<usize> = (0..cluster.nodes().len()).filter(|&index| index != cut).collect();
    cluster.partition(&[cut], &others);
    let mut client = connect_to(&cluster.nodes()[cut]);
    let mut refusals = (0..ATTEMPTS).map(|_| {
        std::thread::sleep(Duration::from_millis(50));
        client.set::<_, _, ()>("key:1", 1)
    });
    let refusal = refusals.find_map(Result::err).expect("a refusal");
    assert_eq!(
        refusal.kind(),
        ErrorKind::Server(ServerErrorKind::ClusterDown),
        "{refusal}"
    );
    cluster.heal();
    assert!(cluster.await_whole());
    check(&cluster);
}

#[test]
fn time_moves_by_hand() {
    let cluster = Cluster::builder()
        .primaries(3)
        .replicas(1)
        .node_timeout(Duration::from_secs(30))
        .manual_clock(Duration::from_secs(1_700_000_000))
        .start()
        .unwrap();
    let mut client = connect(&cluster);
    let () = client.set_ex("fleeting", "value", 60).unwrap();
    assert!(cluster.advance(Duration::from_secs(59)));
    assert_eq!(
        client.get::<_, Option<String>>("fleeting").unwrap().as_deref(),
        Some("value")
    );
    assert!(cluster.advance(Duration::from_secs(2)));
    assert_eq!(client.get::<_, Option<String>>("fleeting").unwrap(), None);
    // Nobody has failed, though more time than the timeout has passed.
    let primary = cluster.primary_of("fleeting").unwrap();
    assert!(primary < 3);
    cluster.nodes()[primary].kill();
    assert!(cluster.advance(Duration::from_secs(50)));
    assert_ne!(cluster.primary_of("fleeting").unwrap(), primary);
}

#[test]
fn real_clocks_are_not_moved() {
    let cluster = Cluster::builder().primaries(1).start().unwrap();
    assert!(!cluster.advance(Duration::from_secs(1)));
}

#[test]
fn what_cannot_be_a_cluster_is_an_error() {
    let none = Cluster::builder().primaries(0).start().unwrap_err();
    assert!(none.to_string().contains("at least one primary"), "{none}");
    let wrong = Cluster::builder()
        .directive("maxclients", "many")
        .start()
        .unwrap_err();
    assert!(wrong.to_string().contains("maxclients"), "{wrong}");
}
