//! Servers of a replicated pair that are killed and started again, with and without their data.

use std::time::{Duration, Instant};

use shardis_tests::replication::equality::await_equal;
use shardis_tests::replication::member::Member;
use shardis_tests::replication::pair::Pair;
use shardis_tests::replication::proxy::Rules;

use super::replication_faults::with_pairs;

#[test]
fn a_primary_that_ends_in_good_order_continues_its_history() {
    with_pairs(|kinds| {
        let mut pair = Pair::start(kinds, &[], &[]);
        pair.link();
        pair.check();
        pair.primary.shut_down(&["SAVE"]);
        pair.rest();
        pair.await_loss();
        pair.primary.start_again();
        pair.replica.await_link();
        pair.write_on();
        pair.check();
        assert_eq!(pair.syncs().full, 0, "its data have the offset of its history");
    });
}

/// Keys that expire while their primary is away are not left out when it loads its file: the replica, which continues with the history,
/// would keep them for ever.
#[test]
fn keys_that_expire_while_their_primary_is_away_go_from_its_replica() {
    /// A database that no writer uses.
    const BRIEF: &str = "13";
    const BRIEF_KEYS: usize = 20;
    /// Longer than its keys live.
    const LIFE: Duration = Duration::from_millis(5200);
    with_pairs(|kinds| {
        let mut pair = Pair::start(kinds, &[], &[]);
        pair.link();
        pair.rest();
        let mut client = pair.primary.client();
        client.call(&["SELECT", BRIEF]);
        for number in 0..BRIEF_KEYS {
            client.call(&["SET", &format!("brief:{number}"), "v", "PX", "5000"]);
        }
        let written = Instant::now();
        let has_brief = |member: &Member| {
            let text = member.client().line("INFO keyspace").text();
            text.contains(&format!("db{BRIEF}:keys={BRIEF_KEYS},"))
        };
        pair.await_that("the replica has them", |pair| has_brief(&pair.replica));
        pair.primary.shut_down(&["SAVE"]);
        pair.await_loss();
        pair.await_that("they have expired", |_| written.elapsed() > LIFE);
        assert!(has_brief(&pair.replica), "{kinds:?}: nobody has removed them");
        pair.primary.start_again();
        pair.replica.await_link();
        assert_eq!(pair.syncs().full, 0, "{kinds:?}: one history");
        pair.await_that("they have gone", |pair| {
            let text = pair.replica.client().line("INFO keyspace").text();
            !text.contains(&format!("db{BRIEF}:"))
        });
    });
}

#[test]
fn a_primary_that_is_killed_comes_back_with_what_it_had_saved() {
    with_pairs(|kinds| {
        let mut pair = Pair::start(kinds, &[], &[]);
        pair.link();
        pair.await_that("it has saved", |pair| {
            pair.primary.client().line("SAVE").text() == "OK"
        });
        pair.seeder().await_more(500);
        pair.primary.kill();
        pair.await_loss();
        pair.primary.start_again();
        // Its replica is ahead of it, and must give that up.
        pair.await_that("it has served a full sync", |pair| pair.syncs().full == 1);
        pair.check();
    });
}

#[test]
fn a_primary_that_comes_back_empty_empties_its_replica() {
    with_pairs(|kinds| {
        let mut pair = Pair::start(kinds, &[], &[]);
        pair.link();
        pair.seeder().await_more(500);
        pair.primary.kill();
        pair.primary.forget();
        pair.await_loss();
        pair.primary.start_again();
        pair.await_that("it has served a full sync", |pair| pair.syncs().full == 1);
        pair.check();
        let keys = pair.replica.client().line("INFO keyspace").text();
        assert!(!keys.contains("db9"), "keys that nobody has: {keys}");
    });
}

#[test]
fn a_replica_that_is_killed_while_it_loads_begins_again() {
    with_pairs(|kinds| {
        let mut pair = Pair::start(kinds, &[], &[]);
        pair.network(Rules {
            piece_max: 2000,
            delay: Duration::from_millis(4),
            ..Rules::default()
        });
        pair.follow();
        pair.await_that("it loads", |pair| {
            pair.proxy.passed() > 100_000
                && pair
                    .replica
                    .field("master_sync_in_progress")
                    .is_ok_and(|is_so| is_so == "1")
        });
        pair.replica.kill();
        pair.proxy.clear();
        pair.replica.start_again();
        pair.link();
        pair.check();
    });
}

#[test]
fn a_replica_that_ends_in_good_order_goes_on_where_it_was() {
    with_pairs(|kinds| {
        let mut pair = Pair::start(kinds, &[], &[]);
        pair.link();
        pair.check();
        assert_eq!(pair.replica.client().line("CONFIG REWRITE").text(), "OK");
        pair.replica.shut_down(&["SAVE"]);
        pair.write_some();
        let full = pair.syncs().full;
        pair.replica.start_again();
        pair.link();
        pair.write_on();
        pair.check();
        assert_eq!(
            pair.syncs().full,
            full,
            "its data have the offset of its primary's history"
        );
    });
}

#[test]
fn a_promoted_replica_takes_its_old_primary_without_a_full_sync() {
    with_pairs(|kinds| {
        let mut pair = Pair::start(kinds, &[], &[]);
        pair.link();
        pair.check();
        pair.rest();
        await_equal(&[&pair.primary, &pair.replica]);
        pair.replica.promote();
        pair.primary.follow(pair.replica.port());
        pair.primary.await_link();
        pair.replica.client().call(&["SET", "after", "the promotion"]);
        await_equal(&[&pair.replica, &pair.primary]);
        assert_eq!(pair.replica.syncs().full, 0, "one history");
    });
}
