//! Slots that come back to a node while the keys that they had there are still to be deleted.

use shardis_tests::client::Client;
use shardis_tests::cluster::Plan;
use shardis_tests::replication::member::Kind;
use shardis_tests::slot;
use shardis_tests::wait::wait_until;

/// Slots that go and come back, over all shards.
const SLOTS: usize = 24;

/// Keys that each of them has when it goes.
const KEYS: usize = 3;

/// Whether a request is answered by OK.
fn is_done(client: &mut Client, words: &[&str]) -> bool {
    client.call(words).text() == "OK"
}

/// Old keys are deleted when writes are not paused any more, and by then there is something new in the same slots.
#[test]
fn what_comes_into_a_slot_that_has_returned_stays() {
    let kinds = [Kind::Shardis(4), Kind::Shardis(1), Kind::Shardis(1)];
    let cluster = Plan::of(&kinds).create();
    let tags: Vec<(String, String)> = (0..)
        .map(|number| format!("tag:{number}"))
        .map(|tag| (slot::of(tag.as_bytes()), tag))
        .filter(|(slot, _)| cluster.owner(*slot, 0) == Ok(0))
        .map(|(slot, tag)| (slot.to_string(), tag))
        .take(SLOTS)
        .collect();
    let (mut client, mut taker) = (cluster.member(0).client(), cluster.member(1).client());
    for (_, tag) in &tags {
        for number in 0..KEYS {
            assert!(is_done(
                &mut client,
                &["SET", &format!("{{{tag}}}:{number}"), "old"]
            ));
        }
    }
    assert!(is_done(&mut client, &["CLIENT", "PAUSE", "600000", "WRITE"]));
    let (own, other) = (cluster.id(0), cluster.id(1));
    for (slot, _) in &tags {
        assert!(is_done(
            &mut taker,
            &["CLUSTER", "SETSLOT", slot, "IMPORTING", &own]
        ));
        assert!(is_done(&mut taker, &["CLUSTER", "SETSLOT", slot, "NODE", &other]));
    }
    for (slot, _) in &tags {
        let number = slot.parse().expect("a slot");
        wait_until("the slot has gone", || cluster.owner(number, 0) == Ok(1));
        assert!(is_done(
            &mut client,
            &["CLUSTER", "SETSLOT", slot, "IMPORTING", &other]
        ));
    }
    let count =
        |client: &mut Client, slot: &str| client.call(&["CLUSTER", "COUNTKEYSINSLOT", slot]).integer();
    assert_eq!(
        count(&mut client, &tags[0].0),
        Some(KEYS as i64),
        "writes are paused"
    );
    let mut writers: Vec<Client> = tags.iter().map(|_| cluster.member(0).client()).collect();
    for (writer, (_, tag)) in writers.iter_mut().zip(&tags) {
        assert!(is_done(writer, &["ASKING"]));
        writer
            .send(&["SET", &format!("{{{tag}}}:new"), "new"])
            .expect("the server reads");
    }
    assert!(is_done(&mut client, &["CLIENT", "UNPAUSE"]));
    for writer in &mut writers {
        assert_eq!(writer.read().expect("a reply").text(), "OK");
    }
    for (writer, (slot, tag)) in writers.iter_mut().zip(&tags) {
        wait_until("the old keys are deleted", || count(writer, slot) == Some(1));
        assert!(is_done(writer, &["ASKING"]));
        let found = writer.call(&["GET", &format!("{{{tag}}}:new")]).text();
        assert_eq!(found, "new", "slot {slot}");
    }
}
