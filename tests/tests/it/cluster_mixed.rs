//! Clusters of shardis and real Redis 7.0 nodes: each votes for the other, takes over from the other, gives slots to the other and hears
//! what is published at the other.

use std::time::Duration;

use shardis_tests::client::Client;
use shardis_tests::cluster::audit::Audit;
use shardis_tests::cluster::load::{Load, Work};
use shardis_tests::cluster::schedule::await_takeover;
use shardis_tests::cluster::{Cluster, Plan};
use shardis_tests::replication::member::Kind::{self, Redis, Shardis};

/// Longest wait for a message.
const PATIENCE: Duration = Duration::from_secs(10);

/// Primaries of both kinds; the last one never dies.
const PRIMARIES: [Kind; 3] = [Redis, Shardis(2), Redis];

/// Kinds of the replicas of the first two primaries: each is of the other kind.
const REPLICAS: [Kind; 2] = [Shardis(4), Redis];

/// Primaries, of which the first two have a replica of the other kind: nodes 3 and 4.
fn cluster(timeout_ms: u64) -> Cluster {
    let mut cluster = Plan::of(&PRIMARIES).timeout_ms(timeout_ms).create();
    for (primary, kind) in REPLICAS.into_iter().enumerate() {
        let replica = cluster.add(kind);
        cluster.join_as_replica(replica, 0, primary);
        cluster.await_whole();
    }
    assert_eq!(
        (cluster.replicas_of(0), cluster.replicas_of(1)),
        (vec![3], vec![4])
    );
    cluster
}

/// Has a replica take its primary's place while both are well.
fn hand_over(cluster: &Cluster, primary: usize, replica: usize) {
    let reply = cluster.member(replica).client().line("CLUSTER FAILOVER");
    assert_eq!(reply.text(), "OK");
    cluster.await_that("a handover", || match cluster.primaries(2) {
        primaries if primaries.contains(&replica) && !primaries.contains(&primary) => Ok(()),
        primaries => Err(format!("primaries {primaries:?}")),
    });
    cluster.await_whole();
}

#[test]
fn replicas_of_each_kind_are_asked_to_take_over_from_the_other_and_nothing_is_lost() {
    let cluster = cluster(15_000);
    let load = Load::start(&cluster, Work::default());
    load.await_more(300);
    for (primary, replica) in [(0, 3), (1, 4), (3, 0), (4, 1)] {
        hand_over(&cluster, primary, replica);
        load.await_more(300);
    }
    load.audit(&cluster).assert_complete();
}

/// Kills a primary, and waits for the replica; of three votes, two are needed, and one is of each kind.
fn replace(cluster: &mut Cluster, primary: usize, replica: usize) {
    cluster.member_mut(primary).kill();
    let others: Vec<usize> = (0..cluster.len()).filter(|&index| index != primary).collect();
    await_takeover(cluster, &[primary], &others);
    cluster.await_agreement(&others);
    assert!(cluster.primaries(2).contains(&replica));
    cluster.member_mut(primary).start_again();
    cluster.await_whole();
    assert_eq!(cluster.replicas_of(replica), [primary]);
}

#[test]
fn replicas_of_each_kind_take_over_from_dead_primaries_of_the_other() {
    let mut cluster = cluster(2_000);
    let load = Load::start(
        &cluster,
        Work {
            wait: 1,
            ..Work::default()
        },
    );
    load.await_more(100);
    replace(&mut cluster, 0, 3);
    replace(&mut cluster, 1, 4);
    load.await_more(100);
    // And back: real Redis from shardis, shardis from Redis.
    replace(&mut cluster, 3, 0);
    replace(&mut cluster, 4, 1);
    load.audit(&cluster).assert_complete();
}

#[test]
fn slots_move_between_the_kinds_under_load() {
    let cluster = Plan::of(&PRIMARIES).create();
    let load = Load::start(&cluster, Work::default());
    load.await_more(500);
    let ids: Vec<String> = (0..3).map(|index| cluster.id(index)).collect();
    for (from, to) in [(0, 1), (1, 2), (1, 0), (2, 1)] {
        let at = cluster.address(from);
        cluster.cli([
            "reshard",
            &at,
            "--cluster-from",
            &ids[from],
            "--cluster-to",
            &ids[to],
            "--cluster-slots",
            "80",
            "--cluster-yes",
        ]);
        cluster.await_whole();
    }
    load.await_more(500);
    let written = load.stop();
    let audit = Audit::of(&written.ledger, &mut cluster.client());
    audit.assert_complete();
    assert_eq!(audit.unknown, 0, "{audit}");
    assert_eq!(
        cluster.key_count(),
        written.ledger.len() as i64,
        "no list is there twice"
    );
}

/// The next message to a subscriber, with its channel.
fn message(subscriber: &mut Client) -> String {
    let reply = subscriber.read_within(PATIENCE).expect("a message");
    let words: Vec<String> = reply.items().iter().map(|item| item.text()).collect();
    words.join(" ")
}

#[test]
fn messages_cross() {
    let cluster = cluster(15_000);
    let mut subscribers: Vec<Client> = (0..cluster.len())
        .map(|index| cluster.member(index).client())
        .collect();
    for subscriber in &mut subscribers {
        subscriber.line("SUBSCRIBE news");
        subscriber.line("PSUBSCRIBE n*s");
    }
    for publisher in 0..cluster.len() {
        let text = format!("from:{publisher}");
        cluster
            .member(publisher)
            .client()
            .line(&format!("PUBLISH news {text}"));
        for (index, subscriber) in subscribers.iter_mut().enumerate() {
            let both = [message(subscriber), message(subscriber)];
            let wanted = [
                format!("message news {text}"),
                format!("pmessage n*s news {text}"),
            ];
            assert_eq!(both, wanted, "from node {publisher} to node {index}");
        }
    }
}

#[test]
fn messages_of_shards_cross() {
    let cluster = cluster(15_000);
    for (primary, replica) in [(0, 3), (1, 4)] {
        let slot_of =
            |channel: &String| cluster.owner(shardis_tests::slot::of(channel.as_bytes()), 0) == Ok(primary);
        let channel = (0..)
            .map(|number| format!("channel:{number}"))
            .find(slot_of)
            .expect("one of them");
        let mut subscribers = [primary, replica].map(|index| cluster.member(index).client());
        // A replica takes subscribers of its shard's channels.
        for subscriber in &mut subscribers {
            let reply = subscriber.line(&format!("SSUBSCRIBE {channel}"));
            assert!(!reply.is_error(), "{reply}");
        }
        for publisher in [primary, replica] {
            let reply = cluster
                .member(publisher)
                .client()
                .line(&format!("SPUBLISH {channel} from:{publisher}"));
            assert_eq!(reply.integer(), Some(1), "at node {publisher}: {reply}");
            for subscriber in &mut subscribers {
                assert_eq!(
                    message(subscriber),
                    format!("smessage {channel} from:{publisher}")
                );
            }
        }
    }
}
