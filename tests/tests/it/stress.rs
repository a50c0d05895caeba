//! Everything at once, for a few seconds; `scripts/soak` does the same for longer. See `shardis_tests::stress`.

use std::time::Duration;

use shardis_tests::stress::{Plan, run};

/// Seconds of a run, unless `SHARDIS_STRESS_SECONDS` says otherwise.
const SECONDS: u64 = 6;

/// Longest wait of a loop beyond an idle server's on the same machine, unless `SHARDIS_STRESS_DEAF_MS` says otherwise. Test
/// machines are busy with other tests meanwhile: a quiet one reaches 20 ms.
const DEAF_MS: u64 = 250;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(default, |text| text.parse().expect("a whole number"))
}

fn stress(shards: usize) {
    let plan = Plan {
        shards,
        time: Duration::from_secs(number("SHARDIS_STRESS_SECONDS", SECONDS)),
        seed: number("SHARDIS_STRESS_SEED", rand::random()),
        deaf_max: Duration::from_millis(number("SHARDIS_STRESS_DEAF_MS", DEAF_MS)),
    };
    let outcome = run(plan).unwrap_or_else(|faults| panic!("{faults}"));
    assert!(outcome.pipelines > 100, "hardly anything was done: {outcome:?}");
}

#[test]
fn one_shard_bears_everything_at_once() {
    stress(1);
}

#[test]
fn two_shards_bear_everything_at_once() {
    stress(2);
}

#[test]
fn four_shards_bear_everything_at_once() {
    stress(4);
}
