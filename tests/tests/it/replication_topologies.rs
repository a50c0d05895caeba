//! Members change places at random, which costs no full sync: see `shardis_tests::replication::topology`.

use shardis_tests::replication::member::Kind::{Redis, Shardis, Valkey};
use shardis_tests::replication::topology::change;

#[test]
fn real_servers_change_places_without_full_syncs() {
    change(&[Redis, Redis, Redis], 2, rand::random());
}

#[test]
fn servers_of_all_kinds_change_places_without_full_syncs() {
    change(
        &[Shardis(4), Redis, Shardis(1), Redis, Shardis(2)],
        5,
        rand::random(),
    );
    change(&[Shardis(3), Valkey, Shardis(2)], 3, rand::random());
}
