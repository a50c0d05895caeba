//! Slots that change their owner, with the keys in them.

use shardis_tests::cluster::{Cluster, Plan};
use shardis_tests::replication::member::Kind;
use shardis_tests::slot;
use shardis_tests::wait::wait_until;

use super::tracking::told;

/// Number of keys in the slot that is moved: more than are deleted at once.
const KEYS: i64 = 3000;

/// Two primaries with a replica each.
fn cluster() -> Cluster {
    Plan::of(&[Kind::Shardis(3); 6]).replicas(1).create()
}

#[test]
fn keys_of_a_slot_that_another_node_takes_are_deleted_here_and_on_replicas() {
    let cluster = cluster();
    let number = slot::of(b"tag");
    let owner = cluster.owner(number, 0).expect("an owner");
    let taker = *cluster
        .primaries(0)
        .iter()
        .find(|&&index| index != owner)
        .expect("another primary");
    let replica = cluster.replicas_of(owner)[0];
    let (mut here, mut there) = (cluster.member(owner).client(), cluster.member(replica).client());
    for key in 0..KEYS {
        here.line(&format!("SET {{tag}}{key} x PX 1000000"));
    }
    // Its neighbour stays.
    let kept = (0..)
        .map(|n| format!("kept{n}"))
        .find(|key| here.line(&format!("SET {key} 1")).text() == "OK")
        .expect("a key of another slot");
    let count = format!("CLUSTER COUNTKEYSINSLOT {number}");
    assert_eq!(here.line(&count).integer(), Some(KEYS));
    there.line("READONLY");
    wait_until("the replica has them", || {
        there.line(&count).integer() == Some(KEYS)
    });
    let mut trackers = [owner, replica].map(|index| {
        let mut tracker = cluster.member(index).client();
        for line in ["HELLO 3", "READONLY", "CLIENT TRACKING ON"] {
            tracker.line(line);
        }
        assert_eq!(tracker.line("GET {tag}1").text(), "x");
        tracker
    });
    let changes = "CONFIG RESETSTAT";
    here.line(changes);
    // The other node takes the slot, without its keys, and has the greater epoch.
    let mut other = cluster.member(taker).client();
    let (from, to) = (cluster.id(owner), cluster.id(taker));
    assert_eq!(
        other
            .line(&format!("CLUSTER SETSLOT {number} IMPORTING {from}"))
            .text(),
        "OK"
    );
    assert_eq!(
        other.line(&format!("CLUSTER SETSLOT {number} NODE {to}")).text(),
        "OK"
    );
    wait_until("the owner has deleted them", || {
        here.line(&count).integer() == Some(0)
    });
    wait_until("its replica has, too", || there.line(&count).integer() == Some(0));
    assert_eq!(here.line(&format!("GET {kept}")).text(), "1");
    assert_eq!(there.line(&format!("GET {kept}")).text(), "1");
    assert!(here.line("GET {tag}1").text().starts_with("MOVED"));
    for tracker in &mut trackers {
        assert_eq!(
            told(tracker),
            ["{tag}1"],
            "who has read a key is told that it has gone"
        );
    }
}
