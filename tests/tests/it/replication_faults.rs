//! Links that break: cut at any byte, slow, silent, or with a stopped server at one end. Writers go on meanwhile, and when all is
//! well again both servers have the same data.

use std::thread::sleep;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use shardis_tests::replication::member::Member;
use shardis_tests::replication::pair::{Kinds, PAIRS, Pair};
use shardis_tests::replication::proxy::Rules;

/// Has both servers notice a silent link soon. Before there is a link that would be too soon: a machine that stands still for a moment
/// would break the transfer.
fn hasten(pair: &Pair) {
    pair.configure("repl-ping-replica-period", "1");
    pair.configure("repl-timeout", "2");
}

/// Longer than the timeouts.
const LONG: Duration = Duration::from_millis(3500);

/// Runs a test with each pair, side by side: most of their time is waiting.
pub(super) fn with_pairs(test: impl Fn(Kinds) + Sync) {
    let test = &test;
    std::thread::scope(|scope| {
        for kinds in PAIRS {
            scope.spawn(move || test(kinds));
        }
    });
}

#[test]
fn links_are_cut_at_any_byte() {
    with_pairs(|kinds| {
        let mut pair = Pair::start(kinds, &[], &[]);
        pair.cut_everywhere(&mut StdRng::seed_from_u64(rand::random()));
        pair.check();
    });
}

#[test]
fn a_link_that_is_cut_in_the_stream_goes_on_where_it_was() {
    with_pairs(|kinds| {
        let mut pair = Pair::start(kinds, &[], &[]);
        pair.link();
        let full = pair.syncs().full;
        for _ in 0..5 {
            let resumed = pair.syncs().resumed;
            pair.seeder().await_more(300);
            pair.proxy.cut_all();
            pair.write_some();
            pair.await_that("it has gone on", |pair| pair.syncs().resumed > resumed);
            pair.write_on();
        }
        pair.check();
        assert_eq!(pair.syncs().full, full);
    });
}

#[test]
fn bytes_come_in_the_smallest_pieces() {
    with_pairs(|kinds| {
        let mut pair = Pair::start(kinds, &[], &[]);
        for piece_max in [5, 41, 1000] {
            pair.replica.promote();
            pair.network(Rules {
                piece_max,
                ..Rules::default()
            });
            pair.link();
            pair.proxy.clear();
            pair.check();
        }
    });
}

#[test]
fn a_replica_that_does_not_read_is_cut_at_the_limit() {
    with_pairs(|kinds| {
        let of_primary = [
            "client-output-buffer-limit replica 1mb 0 0",
            "repl-backlog-size 1mb",
        ];
        let mut pair = Pair::start(kinds, &of_primary, &[]);
        pair.link();
        pair.network(Rules {
            is_silent: true,
            ..Rules::default()
        });
        let mut client = pair.primary.client();
        let large = "x".repeat(100_000);
        pair.await_that("the link is given up", |pair| {
            client.call(&["SET", "large", &large]);
            pair.primary
                .field("connected_slaves")
                .is_ok_and(|count| count == "0")
        });
        pair.proxy.clear();
        pair.proxy.cut_all();
        pair.check();
    });
}

#[test]
fn a_silent_link_is_noticed_at_both_ends() {
    with_pairs(|kinds| {
        let mut pair = Pair::start(kinds, &[], &[]);
        pair.link();
        hasten(&pair);
        let before = pair.syncs();
        pair.network(Rules {
            is_silent: true,
            ..Rules::default()
        });
        pair.write_some();
        pair.await_loss();
        pair.await_replicas(0);
        pair.proxy.clear();
        pair.replica.await_link();
        pair.write_on();
        pair.check();
        assert_eq!(pair.syncs().full, before.full, "it goes on where it was");
    });
}

#[test]
fn stopped_servers_go_on() {
    with_pairs(|kinds| {
        let mut pair = Pair::start(kinds, &[], &[]);
        pair.link();
        hasten(&pair);
        let before = pair.syncs();
        pair.replica.freeze();
        pair.write_some();
        pair.await_replicas(0);
        pair.replica.thaw();
        pair.replica.await_link();
        pair.write_on();
        pair.check();
        pair.primary.freeze();
        // What has been sent to it waits there.
        pair.rest();
        pair.await_loss();
        sleep(LONG);
        pair.primary.thaw();
        pair.replica.await_link();
        pair.write_on();
        pair.check();
        assert_eq!(pair.syncs().full, before.full, "a stop costs no full sync");
    });
}

#[test]
fn clocks_that_jump_change_no_data() {
    with_pairs(|kinds| {
        let primary = Member::start_faulty(kinds.primary, &[]);
        let mut pair = Pair::of(primary, Member::start_faulty(kinds.replica, &[]));
        pair.link();
        for seconds in [3600, -3600] {
            pair.replica.faults().shift_clock(seconds);
            pair.seeder().await_more(600);
            pair.replica.faults().shift_clock(0);
            pair.primary.faults().shift_clock(seconds);
            pair.seeder().await_more(600);
            pair.primary.faults().shift_clock(0);
            pair.check();
        }
        assert_eq!(pair.syncs().full, 1, "a jump costs no full sync");
    });
}
