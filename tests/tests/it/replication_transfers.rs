//! Full syncs that fail: a wrong password, another version of the format, damaged bytes, a full disk. What the replica had before
//! stays, the next attempt succeeds, and both have the same data.

use shardis_tests::faults::{Act, Fault, Operation};
use shardis_tests::replication::member::{Kind, Member};
use shardis_tests::replication::pair::{Kinds, Pair};
use shardis_tests::replication::proxy::{Replacement, Rules};

use super::replication_faults::with_pairs;

/// A key that only the replica has.
const OWN: &str = "key-of-the-replica";

/// Bytes that the disk of the replica has left.
const SPACE: u64 = 100_000;

fn replaced(replace: &[Replacement]) -> Rules {
    Rules {
        replace: replace.to_vec(),
        // The second attempt must wait until the test has looked.
        silent_from: Some(1),
        ..Rules::default()
    }
}

fn has_own(replica: &Member) -> bool {
    replica.client().call(&["EXISTS", OWN]).integer() == Some(1)
}

/// Spoils the first transfer; the replica must keep what it has until the second.
fn spoil(kinds: Kinds, rules: &Rules) {
    let mut pair = Pair::start(kinds, &[], &["repl-diskless-load swapdb"]);
    pair.replica.client().call(&["SET", OWN, "value"]);
    pair.network(rules.clone());
    pair.follow();
    pair.await_that("the transfer was spoilt", |pair| !pair.proxy.is_replacement_due());
    pair.await_that("the replica connects again", |pair| pair.proxy.accepted() > 1);
    assert!(has_own(&pair.replica), "its data: {}", pair.replica.tail());
    pair.proxy.clear();
    pair.check();
    assert!(!has_own(&pair.replica));
}

#[test]
fn a_transfer_of_another_version_changes_nothing() {
    // Data that Redis has no form for, such as fields that expire, come in files of Valkey's form.
    let versions: [Replacement; 2] = [(b"REDIS00", b"REDIS99"), (b"VALKEY0", b"VALKEY9")];
    with_pairs(|kinds| spoil(kinds, &replaced(&versions)));
}

#[test]
fn a_damaged_transfer_changes_nothing() {
    // Nothing but the checksum tells. A redis-server ends itself then.
    with_pairs(|kinds| {
        if kinds.replica == Kind::Redis {
            return;
        }
        spoil(kinds, &replaced(&[(b"bystander:77", b"bystander:xx")]));
    });
}

#[test]
fn a_password_is_needed_where_one_is_set() {
    with_pairs(|kinds| {
        let mut pair = Pair::start(kinds, &[], &[]);
        pair.replica.client().call(&["SET", OWN, "value"]);
        pair.primary.client().line("CONFIG SET requirepass secret");
        pair.follow();
        pair.await_that("it is refused", |pair| pair.proxy.accepted() > 1);
        assert!(has_own(&pair.replica), "{}", pair.replica.tail());
        pair.replica.client().line("CONFIG SET masterauth wrong");
        let tried = pair.proxy.accepted();
        pair.await_that("it is refused again", |pair| pair.proxy.accepted() > tried + 1);
        assert!(has_own(&pair.replica), "{}", pair.replica.tail());
        pair.replica.client().line("CONFIG SET masterauth secret");
        pair.replica.await_link();
        let mut client = pair.primary.client();
        assert_eq!(client.line("AUTH secret").text(), "OK");
        assert_eq!(client.call(&["CONFIG", "SET", "requirepass", ""]).text(), "OK");
        pair.check();
    });
}

#[test]
fn a_full_disk_of_the_replica_is_survived() {
    with_pairs(|kinds| {
        let replica = Member::start_faulty(kinds.replica, &["repl-diskless-load disabled"]);
        let mut pair = Pair::of(Member::start(kinds.primary, &[]), replica);
        pair.replica.client().call(&["SET", OWN, "value"]);
        let full = Fault::always(Operation::Write, "*", Act::Space(SPACE));
        pair.replica.faults().set(&[full]);
        pair.follow();
        pair.await_that("it has tried", |pair| pair.proxy.accepted() > 1);
        assert!(has_own(&pair.replica), "{}", pair.replica.tail());
        pair.replica.faults().clear();
        pair.check();
    });
}
