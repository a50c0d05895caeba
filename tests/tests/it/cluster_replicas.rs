//! Replicas in a cluster: what their data are worth, to those who elect and to those who read.

use shardis_tests::cluster::{Cluster, Plan};
use shardis_tests::replication::member::Kind;
use shardis_tests::slot;

/// Kind of the nodes.
const KIND: Kind = Kind::Shardis(2);

/// Three primaries with a replica each, none of which is given up while a test holds it.
fn patient_cluster(kind: Kind) -> Cluster {
    Plan::of(&[kind; 6])
        .replicas(1)
        .timeout_ms(60_000)
        .with(&["repl-diskless-sync-delay 0"])
        .create()
}

/// The replication offset of a node as it tells it itself.
fn told_offset(cluster: &Cluster, index: usize) -> Option<i64> {
    let id = cluster.id(index);
    let reply = cluster.member(index).client().line("CLUSTER SHARDS");
    let nodes = reply.items().iter().filter_map(|shard| shard.field("nodes"));
    let mut nodes = nodes.flat_map(|nodes| nodes.items());
    let mine = nodes.find(|node| node.field("id").is_some_and(|found| found.text() == id))?;
    mine.field("replication-offset")?.integer()
}

/// A replica that changes to another shard has that shard's data only when it has got them. Until then its offset is one of
/// another history: by that it could seem to have more than its new siblings, and win the next election without any of their data.
#[test]
fn data_of_another_shard_count_for_nothing_in_an_election() {
    let cluster = patient_cluster(KIND);
    let replica = cluster.replicas_of(0)[0];
    let mut client = cluster.client();
    for number in 0..200 {
        client.set(&format!("key:{number}"), "value");
    }
    cluster.await_that("the replica tells of its data", || {
        match told_offset(&cluster, replica) {
            Some(offset) if offset > 0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let order = format!("CLUSTER REPLICATE {}", cluster.id(1));
    // It cannot give its data as long as it stands still.
    cluster.member(1).freeze();
    assert_eq!(cluster.member(replica).client().line(&order).text(), "OK");
    cluster.await_that("it has nothing of the other shard", || {
        match told_offset(&cluster, replica) {
            Some(0) => Ok(()),
            other => Err(format!("it tells of {other:?}")),
        }
    });
    cluster.member(1).thaw();
    cluster.await_whole();
    cluster.await_that("it has the data of the other shard", || {
        match (told_offset(&cluster, replica), told_offset(&cluster, 1)) {
            (Some(offset), Some(primary)) if offset > 0 && offset >= primary => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// Nobody can tell how old the data of a replica are: it reads them as long as the cluster holds its primary for working.
#[test]
fn a_replica_reads_although_its_primary_stands_still() {
    for kind in [KIND, Kind::Redis] {
        let cluster = patient_cluster(kind);
        let primary = cluster.owner(slot::of(b"key"), 0).expect("an owner");
        let replica = cluster.replicas_of(primary)[0];
        let mut client = cluster.member(primary).client();
        assert_eq!(client.line("SET key old").text(), "OK");
        assert_eq!(client.line("WAIT 1 60000").integer(), Some(1));
        cluster.member(primary).freeze();
        let mut reader = cluster.member(replica).client();
        assert!(reader.line("GET key").text().starts_with("MOVED"), "{kind:?}");
        assert_eq!(reader.line("READONLY").text(), "OK");
        assert_eq!(reader.line("GET key").text(), "old", "{kind:?}");
        assert!(reader.line("SET key new").text().starts_with("MOVED"), "{kind:?}");
        cluster.member(primary).thaw();
    }
}
