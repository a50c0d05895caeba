//! `scripts/soak`'s part about clusters: faults at random, of shardis and of real Redis in turn, under the same schedules, and what of
//! their writes each has lost. See `shardis_tests::cluster`.
//!
//! Prints a line for each schedule and the sums at the end. The exit code is not 0 if a write was doubled or invented, if one was lost
//! that a replica had acknowledged, or if shardis lost more than Redis did.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use shardis_tests::cluster::audit::Audit;
use shardis_tests::cluster::schedule::{Fault, Schedule};
use shardis_tests::replication::member::Kind;

/// Has faults happen to clusters, and counts what they lose.
#[derive(Debug, Parser)]
#[command(name = "clusters")]
struct Options {
    /// Time after which no further schedule begins.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Seed of everything random; a random one by default.
    #[arg(long)]
    seed: Option<u64>,
}

/// Faults that a cluster may meet.
const FAULTS: [Fault; 5] = [Fault::Kill, Fault::Stop, Fault::Cut, Fault::KillAll, Fault::Wipe];

/// Sums over all schedules of a fault, with WAIT or without.
type Sums = BTreeMap<(String, i64), [Audit; 2]>;

#[expect(
    clippy::disallowed_methods,
    reason = "the real clock says how long it has run"
)]
fn main() -> ExitCode {
    let options = Options::parse();
    let seed = options.seed.unwrap_or_else(rand::random);
    let mut rng = StdRng::seed_from_u64(seed);
    let start = Instant::now();
    let mut sums = Sums::new();
    while start.elapsed() < Duration::from_secs(options.seconds) {
        let fault = *FAULTS.choose(&mut rng).unwrap_or(&FAULTS[0]);
        let wait = rng.random_range(0..2);
        let (victims, primaries) = if rng.random_ratio(1, 4) { (2, 5) } else { (1, 3) };
        let kinds = [Kind::Shardis(rng.random_range(1..5)), Kind::Redis];
        for (at, kind) in kinds.into_iter().enumerate() {
            let schedule = Schedule::of(kind, fault).victims(victims, primaries).wait(wait);
            let outcome = schedule.run();
            say(&format!(
                "seed {seed}: {fault:?} of {victims} of {primaries}, WAIT {wait}, {kind:?}: {outcome}"
            ));
            if wait > 0 {
                outcome.audit.assert_complete();
            }
            let sum = &mut sums.entry((format!("{fault:?}"), wait)).or_default()[at];
            sum.acknowledged += outcome.audit.acknowledged;
            sum.lost += outcome.audit.lost;
            sum.unknown += outcome.audit.unknown;
        }
    }
    judge(&sums)
}

/// Prints the sums, and compares the losses.
fn judge(sums: &Sums) -> ExitCode {
    let mut lost = [0, 0];
    for ((fault, wait), [shardis, redis]) in sums {
        say(&format!(
            "{fault}, WAIT {wait}: shardis {shardis}\n{fault}, WAIT {wait}: Redis   {redis}"
        ));
        lost[0] += shardis.lost;
        lost[1] += redis.lost;
    }
    let [shardis, redis] = lost;
    if shardis > redis {
        say(&format!(
            "shardis lost {shardis} acknowledged writes, Redis {redis}"
        ));
        return ExitCode::FAILURE;
    }
    say("no fault was found");
    ExitCode::SUCCESS
}

fn say(text: &str) {
    // Nothing is left to do if standard output cannot be written.
    let _ = writeln!(std::io::stdout(), "{text}");
}
