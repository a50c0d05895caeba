//! Random commands against shardis and each reference, compared reply by reply.
//!
//! `SHARDIS_DIFF_STEPS` makes the run longer, `SHARDIS_DIFF_SEED` repeats one.

use std::env;

use shardis_tests::diff::Subject;
use shardis_tests::duel::{self, Servers};
use shardis_tests::node;
use shardis_tests::redis::Reference;

/// Number of steps in an ordinary run; a nightly run sets more.
const STEPS: usize = 8_000;

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number"))
    })
}

/// Plays random commands against a server of `shards` shards and a reference.
fn fight(shards: usize, reference: Reference) {
    let steps =
        setting("SHARDIS_DIFF_STEPS").map_or(STEPS, |steps| usize::try_from(steps).expect("a sane number"));
    let seed = setting("SHARDIS_DIFF_SEED").unwrap_or_else(rand::random);
    let kind = if node::is_redis() {
        Subject::Redis
    } else {
        Subject::Shardis
    };
    let (subject, oracle) = (node::start(shards), reference.start());
    let servers = Servers {
        kind,
        subject: &subject,
        reference,
        oracle: &oracle,
    };
    if let Err(report) = duel::fight(seed, steps, servers) {
        panic!("{shards} shard(s): {report}");
    }
}

#[test]
fn random_commands_with_one_shard() {
    fight(1, Reference::Redis);
}

#[test]
fn random_commands_with_four_shards() {
    fight(4, Reference::Redis);
}

#[test]
fn random_commands_with_one_shard_beside_valkey() {
    fight(1, Reference::Valkey);
}

#[test]
fn random_commands_with_four_shards_beside_valkey() {
    fight(4, Reference::Valkey);
}
