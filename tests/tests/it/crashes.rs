//! Servers that are killed keep what they have promised to keep: see `shardis_tests::crash`. `scripts/soak` does this at length.

use std::time::Duration;

use shardis_tests::crash::{Outcome, Plan, Policy, run};
use shardis_tests::node;
use shardis_tests::process::Launch;
use shardis_tests::redis;

/// A few crashes of a server with options that keep, or do not keep, what a policy promises.
fn crash(
    server: &dyn Fn() -> Launch,
    options: Policy,
    promise: Policy,
    (rounds, with_power): (u32, bool),
) -> Result<Outcome, String> {
    let seed = rand::random();
    let plan = Plan {
        launch: &|| server().with(&options.options()),
        policy: promise,
        rounds,
        round_max: Duration::from_millis(300),
        with_power,
        seed,
    };
    run(&plan).map_err(|fault| format!("seed {seed}: {fault}"))
}

#[test]
fn redis_keeps_its_promises() {
    for policy in Policy::ALL {
        // Without power it loses more than it should when a rewrite is under way.
        let outcome =
            crash(&redis::launch, policy, policy, (4, false)).unwrap_or_else(|fault| panic!("{fault}"));
        assert!(outcome.acknowledged > 0, "{policy:?}");
    }
}

#[test]
fn shardis_keeps_its_promises() {
    for policy in Policy::ALL {
        for shards in [1, 4] {
            let launch = || node::launch(shards);
            let outcome = crash(&launch, policy, policy, (4, true))
                .unwrap_or_else(|fault| panic!("{shards} shards: {fault}"));
            assert!(outcome.acknowledged > 0, "{policy:?}");
        }
    }
}

#[test]
fn promises_that_are_not_kept_are_noticed() {
    for kept in [Policy::No, Policy::Saves] {
        let fault =
            crash(&redis::launch, kept, Policy::Always, (20, true)).expect_err("acknowledged steps are lost");
        assert!(
            fault.contains("promised") || fault.contains("nobody touched"),
            "{fault}"
        );
    }
}
