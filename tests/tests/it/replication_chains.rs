//! Rows of servers of different kinds under a write load: see `shardis_tests::replication::chain`.

use shardis_tests::replication::chain::prove;
use shardis_tests::replication::equality::await_equal;
use shardis_tests::replication::member::Kind::{self, Redis, Shardis, Valkey};
use shardis_tests::replication::member::Member;

/// Proves rows with random commands of their own, side by side.
fn rows(rows: &[(&[Kind], &[&str])]) {
    std::thread::scope(|scope| {
        for (kinds, directives) in rows {
            scope.spawn(|| prove(kinds, directives, rand::random()));
        }
    });
}

/// Directives of transfers by way of a file, at both ends, and of such that replace the data at once.
const BY_FILE: &[&str] = &["repl-diskless-sync no", "repl-diskless-load disabled"];
const AT_ONCE: &[&str] = &["repl-diskless-load swapdb"];

#[test]
fn a_real_replica_follows_shardis() {
    rows(&[
        (&[Shardis(1), Redis], &[]),
        (&[Shardis(4), Redis], BY_FILE),
        (&[Shardis(4), Valkey], AT_ONCE),
    ]);
}

#[test]
fn shardis_follows_a_real_primary() {
    rows(&[
        (&[Redis, Shardis(1)], &[]),
        (&[Redis, Shardis(4)], BY_FILE),
        (&[Valkey, Shardis(4)], AT_ONCE),
    ]);
}

#[test]
fn chains_lead_through_shardis_and_through_real_servers() {
    rows(&[
        (&[Redis, Shardis(4), Redis], &[]),
        (&[Redis, Shardis(1), Shardis(4)], &[]),
        (&[Shardis(4), Shardis(1), Redis], &[]),
        (&[Shardis(1), Redis, Shardis(4)], &[]),
        (
            &[Shardis(4), Redis, Shardis(1), Shardis(3)],
            &["repl-diskless-load on-empty-db"],
        ),
    ]);
}

#[test]
fn real_servers_understand_each_other() {
    rows(&[(&[Redis, Redis, Valkey], &[])]);
}

/// Two servers with one offset, prepared by one line each, which are not equal.
fn unequal(lines: [&str; 2]) {
    let members = [Member::start(Redis, &[]), Member::start(Redis, &[])];
    for (member, line) in members.iter().zip(lines) {
        let mut client = member.client();
        client.line("XADD stream 1-1 field value");
        let reply = client.line(line);
        assert!(!reply.is_error(), "{line}: {reply}");
    }
    await_equal(&[&members[0], &members[1]]);
}

#[test]
#[should_panic(expected = "digests")]
fn another_value_is_noticed() {
    unequal(["SET a 1", "SET a 2"]);
}

#[test]
#[should_panic(expected = "and nothing")]
fn a_missing_key_is_noticed() {
    unequal(["SET a 1", "GET a"]);
}

#[test]
#[should_panic(expected = "expires_ms")]
fn another_time_to_expire_is_noticed() {
    unequal(["SET a 1 PXAT 5000000000000", "SET a 1 PXAT 5000000000001"]);
}

#[test]
#[should_panic(expected = "group")]
fn another_group_is_noticed() {
    unequal(["XGROUP CREATE stream group 0", "XGROUP CREATE stream group 1-1"]);
}
