//! Nodes of a cluster that are started again, and the file by which they know what they were.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use shardis_tests::cluster::Plan;
use shardis_tests::process::BUS_OFFSET;
use shardis_tests::replication::member::{Kind, Member};
use shardis_tests::wait::{accept, wait_until};

const SHARDIS: Kind = Kind::Shardis(2);

/// Directives of a node of a cluster.
const NODE: [&str; 2] = ["cluster-enabled yes", "cluster-node-timeout 15000"];

fn line(member: &Member, line: &str) -> String {
    member.client().line(line).to_string()
}

#[test]
fn nodes_go_on_as_what_they_were() {
    let mut cluster = Plan::of(&[SHARDIS; 6])
        .replicas(1)
        .with(&[
            "appendonly yes",
            "appendfsync always",
            "repl-diskless-sync-delay 0",
        ])
        .create();
    let mut client = cluster.client();
    for number in 0..300 {
        let key = format!("key:{number}");
        assert!(!client.call(&key, &["SET", &key, "x"]).reply().is_error());
    }
    let (primary, replica) = (0, cluster.replicas_of(0)[0]);
    let names = [primary, replica].map(|index| cluster.id(index));
    let keys = cluster.member(primary).client().line("DBSIZE");
    for index in [primary, replica] {
        cluster.member_mut(index).kill();
        cluster.member_mut(index).start_again();
    }
    cluster.await_whole();
    assert_eq!([primary, replica].map(|index| cluster.id(index)), names);
    assert_eq!(cluster.replicas_of(primary), [replica]);
    assert_eq!(cluster.owner(0, replica), Ok(primary));
    for index in [primary, replica] {
        assert_eq!(cluster.member(index).client().line("DBSIZE"), keys, "{index}");
    }
}

/// A replica whose snapshot tells its place in the primary's history gets only what it lacks.
#[test]
fn a_replica_that_was_stopped_gets_what_it_lacks() {
    let mut cluster = Plan::of(&[SHARDIS; 6])
        .replicas(1)
        .with(&["repl-diskless-sync-delay 0"])
        .create();
    let replica = cluster.replicas_of(0)[0];
    let mut client = cluster.client();
    assert!(
        !client
            .call("{3560}a", &["SET", "{3560}a", "1"])
            .reply()
            .is_error()
    );
    let before = cluster.member(0).syncs();
    cluster.member_mut(replica).shut_down(&["SAVE"]);
    assert!(
        !client
            .call("{3560}b", &["SET", "{3560}b", "1"])
            .reply()
            .is_error()
    );
    cluster.member_mut(replica).start_again();
    cluster.await_whole();
    let after = cluster.member(0).syncs();
    assert_eq!((after.full, after.resumed), (before.full, before.resumed + 1));
    assert_eq!(line(cluster.member(replica), "DBSIZE"), ":2");
}

/// The file that CONFIG REWRITE leaves starts a replica again: it names no primary.
#[test]
fn a_replica_rewrites_its_configuration() {
    let mut cluster = Plan::of(&[SHARDIS; 6]).replicas(1).create();
    let replica = cluster.replicas_of(1)[0];
    assert_eq!(line(cluster.member(replica), "CONFIG REWRITE"), "+OK");
    let text = fs::read_to_string(cluster.member(replica).configuration()).unwrap();
    assert!(!text.contains("replicaof"), "{text}");
    cluster.member_mut(replica).kill();
    cluster.member_mut(replica).start_again();
    cluster.await_whole();
}

/// Keys in slots of nobody mean that the file of nodes is older than the data: Redis takes the slots, too.
#[test]
fn slots_of_keys_are_taken_when_nobody_owns_them() {
    for kind in [SHARDIS, Kind::Redis] {
        let directives = [&NODE[..], &["appendonly yes"]].concat();
        let mut member = Member::start_with_bus(kind, &directives);
        assert_eq!(line(&member, "CLUSTER ADDSLOTSRANGE 0 16383"), "+OK");
        wait_until("it serves", || line(&member, "SET {3560} x") == "+OK");
        assert_eq!(line(&member, "SET foo x"), "+OK");
        wait_until("both are on the disk", || {
            member.figure("aof_pending_bio_fsync") == 0
        });
        member.shut_down(&["NOSAVE"]);
        let file = member.data().join("nodes.conf");
        let old = fs::read_to_string(&file).unwrap();
        fs::write(&file, old.replace(" 0-16383", "")).unwrap();
        member.start_again();
        let nodes = line(&member, "CLUSTER NODES");
        assert!(nodes.contains("connected 0 12182"), "{kind:?}: {nodes}");
    }
}

/// A node knows from its file alone which slots it serves: without its data it serves them empty, in Redis as well.
#[test]
fn a_node_without_its_data_keeps_its_slots() {
    for kind in [SHARDIS, Kind::Redis] {
        let directives = [&NODE[..], &["appendonly yes"]].concat();
        let mut member = Member::start_with_bus(kind, &directives);
        assert_eq!(line(&member, "CLUSTER ADDSLOTSRANGE 0 16383"), "+OK");
        wait_until("it serves", || line(&member, "SET {3560} x") == "+OK");
        let name = line(&member, "CLUSTER MYID");
        member.kill();
        member.forget();
        member.start_again();
        assert_eq!(line(&member, "CLUSTER MYID"), name, "{kind:?}");
        let nodes = line(&member, "CLUSTER NODES");
        assert!(nodes.contains("connected 0-16383"), "{kind:?}: {nodes}");
        wait_until("it serves again", || line(&member, "SET other x") == "+OK");
        assert_eq!(line(&member, "DBSIZE"), ":1", "{kind:?}: its key is gone");
    }
}

/// Keys in slots of another node are kept as in Redis: a tool decides what becomes of them.
#[test]
fn slots_of_keys_that_another_node_owns_are_imported_and_nothing_is_deleted() {
    let other = "a".repeat(40);
    for kind in [SHARDIS, Kind::Redis] {
        let directives = [&NODE[..], &["appendonly yes"]].concat();
        let mut member = Member::start_with_bus(kind, &directives);
        assert_eq!(line(&member, "CLUSTER ADDSLOTSRANGE 0 16383"), "+OK");
        wait_until("it serves", || line(&member, "SET {3560} x") == "+OK");
        wait_until("it is on the disk", || {
            member.figure("aof_pending_bio_fsync") == 0
        });
        member.shut_down(&["NOSAVE"]);
        let file = member.data().join("nodes.conf");
        let old = fs::read_to_string(&file).unwrap();
        let new = old.replace(" 0-16383", " 1-16383");
        let owner = format!("{other} 127.0.0.1:1@10001 master - 0 0 2 disconnected 0\n");
        fs::write(&file, owner + &new).unwrap();
        member.start_again();
        let nodes = line(&member, "CLUSTER NODES");
        let mark = format!("[0-<-{other}]");
        assert!(nodes.contains(&mark), "{kind:?}: {nodes}");
        assert_eq!(line(&member, "CLUSTER COUNTKEYSINSLOT 0"), ":1", "{kind:?}");
    }
}

/// After a restart such a node would break its word.
#[test]
fn a_node_that_cannot_save_its_file_stops() {
    let member = Member::start_with_bus(SHARDIS, &NODE);
    fs::create_dir(member.data().join("nodes.conf.tmp")).unwrap();
    let reply = member.client().try_call(&["CLUSTER", "BUMPEPOCH"]);
    assert!(reply.is_err(), "no promise is given: {reply:?}");
    wait_until("it ends", || !member.process().is_running());
    assert!(
        member
            .log()
            .contains("Could not save the cluster configuration file")
    );
}

/// A packet of a node that asks another one to take it in.
fn recorded_meet() -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("a port").port();
    let member = Member::start_with_bus(SHARDIS, &NODE);
    assert_eq!(line(&member, &format!("CLUSTER MEET 127.0.0.1 1 {port}")), "+OK");
    let mut stream = accept(&listener);
    let mut head = [0; 8];
    stream.read_exact(&mut head).expect("a packet");
    let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
    let mut packet = head.to_vec();
    packet.resize(length, 0);
    stream.read_exact(&mut packet[8..]).expect("the rest of it");
    packet
}

/// Packets that come again, from a place that is not their sender's, and with any byte changed: the node goes on, and believes none.
#[test]
fn packets_that_come_again_change_nothing() {
    let packet = recorded_meet();
    let member = Member::start_with_bus(SHARDIS, &["cluster-enabled yes", "cluster-node-timeout 1000"]);
    assert_eq!(line(&member, "CLUSTER ADDSLOTSRANGE 0 16383"), "+OK");
    let bus = ("127.0.0.1", member.port() + BUS_OFFSET);
    for round in 0..5 {
        let mut stream = TcpStream::connect(bus).expect("the bus listens");
        for _ in 0..20 {
            stream.write_all(&packet).expect("it reads");
        }
        for at in (round..packet.len()).step_by(97) {
            let mut changed = packet.clone();
            changed[at] ^= 0x55;
            let Ok(mut stream) = TcpStream::connect(bus) else {
                continue;
            };
            // The node may close it before all is written.
            let _ = stream.write_all(&changed);
        }
    }
    // The sender does not answer at the address that it tells: it stays a stranger, and is forgotten.
    let is_alone = || member.client().line("CLUSTER NODES").text().lines().count() == 1;
    wait_until("it knows itself alone", is_alone);
    assert!(line(&member, "CLUSTER NODES").contains("connected 0-16383"));
    let dropped = member.client().line("CLUSTER INFO").text();
    assert!(!dropped.contains("cluster_packets_dropped:0\r"), "{dropped}");
    wait_until("it serves", || line(&member, "SET {3560} x") == "+OK");
}

/// A peer that does not read gets no more than the limit; the node frees what it has not read.
#[test]
fn a_peer_that_does_not_read_loses_its_link() {
    let cluster = Plan::of(&[SHARDIS; 3])
        .with(&["cluster-link-sendbuf-limit 1mb"])
        .create();
    cluster.member(1).freeze();
    let mut publisher = cluster.member(0).client();
    let message = "x".repeat(100_000);
    for _ in 0..300 {
        publisher.call(&["PUBLISH", "channel", &message]);
    }
    let info = || cluster.member(0).client().line("CLUSTER INFO").text();
    wait_until("its link is closed", || {
        !info().contains("total_cluster_links_buffer_limit_exceeded:0\r")
    });
    wait_until("its memory is free", || {
        cluster.member(0).figure("mem_cluster_links") < 2_000_000
    });
    cluster.member(1).thaw();
    cluster.await_whole();
}

#[test]
fn a_new_address_is_told_to_all() {
    let cluster = Plan::of(&[SHARDIS; 3]).create();
    let mut client = cluster.member(0).client();
    for directive in [
        "cluster-announce-hostname node.example",
        "cluster-announce-human-nodename first",
        "cluster-announce-port 7",
    ] {
        assert_eq!(client.line(&format!("CONFIG SET {directive}")).to_string(), "+OK");
    }
    let id = cluster.id(0);
    let knows = |index: usize| {
        let nodes = cluster.member(index).client().line("CLUSTER NODES").text();
        let line = nodes
            .lines()
            .find(|line| line.starts_with(&id))
            .unwrap_or_default();
        line.contains("127.0.0.1:7@") && line.contains(",node.example ")
    };
    wait_until("the others know", || knows(1) && knows(2));
    std::thread::sleep(Duration::from_millis(300));
    let file = fs::read_to_string(cluster.member(1).data().join("nodes.conf")).unwrap();
    assert!(
        file.contains(",node.example,") && file.contains("nodename=first"),
        "{file}"
    );
}

/// A change that nobody waits for gets into the file, and so does the next one.
#[test]
fn changes_that_can_wait_are_saved_one_after_another() {
    let cluster = Plan::of(&[Kind::Shardis(1)]).start();
    let member = cluster.member(0);
    let mut client = member.client();
    for name in ["first.example", "second.example", "third.example"] {
        let reply = client.line(&format!("CONFIG SET cluster-announce-hostname {name}"));
        assert_eq!(reply.text(), "OK");
        wait_until("the file has the name", || {
            let file = fs::read_to_string(member.data().join("nodes.conf"));
            file.is_ok_and(|file| file.contains(name))
        });
    }
}
