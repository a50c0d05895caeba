//! Random commands against both servers, compared reply by reply.
//!
//! `SHARDIS_DIFF_STEPS` makes the run longer, `SHARDIS_DIFF_SEED` repeats one.

use std::env;

use shardis_tests::diff::Subject;
use shardis_tests::{duel, node, redis};

/// What the suite affords each time; a nightly run sets more.
const STEPS: usize = 8_000;

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number"))
    })
}

/// Plays random commands against a server of `shards` shards.
fn fight(shards: usize) {
    let steps =
        setting("SHARDIS_DIFF_STEPS").map_or(STEPS, |steps| usize::try_from(steps).expect("a sane number"));
    let seed = setting("SHARDIS_DIFF_SEED").unwrap_or_else(rand::random);
    let kind = if node::is_redis() {
        Subject::Redis
    } else {
        Subject::Shardis
    };
    let (subject, oracle) = (node::start(shards), redis::start());
    if let Err(report) = duel::fight(seed, steps, kind, &subject, &oracle) {
        panic!("{shards} shard(s): {report}");
    }
}

#[test]
fn random_commands_with_one_shard() {
    fight(1);
}

#[test]
fn random_commands_with_four_shards() {
    fight(4);
}
