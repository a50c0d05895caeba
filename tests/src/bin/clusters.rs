//! `scripts/soak`'s part about clusters: faults of shardis and of real Redis in turn, under the same schedules, and what of their writes
//! each has lost. See `shardis_tests::cluster`.
//!
//! Prints a line for each schedule and a table at the end, with a line for each scenario. The exit code is not 0 if a write was doubled
//! or invented, if shardis lost one that a replica had acknowledged, or if it lost more in a scenario than Redis did. Both may lose what
//! no replica had, so that this says little of a scenario that was run once.

use std::fmt::{self, Display, Formatter};
use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use shardis_tests::cluster::audit::Audit;
use shardis_tests::cluster::schedule::{Fault, Schedule};
use shardis_tests::replication::member::Kind;

/// Has faults happen to clusters, and counts what they lose.
#[derive(Debug, Parser)]
#[command(name = "clusters")]
struct Options {
    /// Time after which no further scenario begins.
    #[arg(long, default_value_t = 60, conflicts_with = "rounds")]
    seconds: u64,
    /// Times that every scenario is run, instead of a time.
    #[arg(long)]
    rounds: Option<u64>,
    /// Seed of everything random; a random one by default.
    #[arg(long)]
    seed: Option<u64>,
    /// Scenarios that are run: those whose names begin so, as the table has them. All by default.
    #[arg(long, default_value = "")]
    only: String,
}

/// Faults that a cluster may meet, with the number of primaries that are struck and of those that there are.
const FAULTS: [(Fault, usize, usize); 7] = [
    (Fault::Kill, 1, 3),
    (Fault::Kill, 2, 5),
    (Fault::Stop, 1, 3),
    (Fault::Cut, 1, 3),
    (Fault::KillAll, 3, 3),
    (Fault::Wipe, 1, 3),
    (Fault::Wipe, 2, 5),
];

/// A fault under writers that wait for a replica, or do not, and the sums of what was found after it.
struct Scenario {
    fault: Fault,
    victims: usize,
    primaries: usize,
    wait: i64,
    runs: u64,
    shardis: Audit,
    redis: Audit,
}

impl Display for Scenario {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Scenario {
            fault,
            victims,
            primaries,
            wait,
            ..
        } = self;
        write!(f, "{fault:?} {victims} of {primaries}, WAIT {wait}")
    }
}

impl Scenario {
    fn all() -> Vec<Scenario> {
        let with_wait = |wait| {
            FAULTS.map(|(fault, victims, primaries)| Scenario {
                fault,
                victims,
                primaries,
                wait,
                runs: 0,
                shardis: Audit::default(),
                redis: Audit::default(),
            })
        };
        [0, 1].into_iter().flat_map(with_wait).collect()
    }

    /// Lets it happen to shardis, with so many shards a node, and to Redis.
    fn run(&mut self, shards: usize) {
        let schedule = |kind| {
            let schedule = Schedule::of(kind, self.fault).victims(self.victims, self.primaries);
            let outcome = schedule.wait(self.wait).run();
            say(&format!("{self}, {kind:?}: {outcome}"));
            outcome.audit
        };
        let (shardis, redis) = (schedule(Kind::Shardis(shards)), schedule(Kind::Redis));
        if self.wait > 0 {
            shardis.assert_complete();
        }
        self.runs += 1;
        add(&mut self.shardis, shardis);
        add(&mut self.redis, redis);
    }

    fn is_worse_than_redis(&self) -> bool {
        self.shardis.lost > self.redis.lost
    }
}

fn add(sum: &mut Audit, found: Audit) {
    sum.acknowledged += found.acknowledged;
    sum.lost += found.lost;
    sum.unknown += found.unknown;
}

#[expect(
    clippy::disallowed_methods,
    reason = "the real clock says how long it has run"
)]
fn main() -> ExitCode {
    let options = Options::parse();
    let seed = options.seed.unwrap_or_else(rand::random);
    say(&format!("seed {seed}"));
    let mut rng = StdRng::seed_from_u64(seed);
    let (start, time) = (Instant::now(), Duration::from_secs(options.seconds));
    let mut scenarios = Scenario::all();
    scenarios.retain(|scenario| scenario.to_string().starts_with(&options.only));
    if scenarios.is_empty() {
        say(&format!("no scenario begins with {}", options.only));
        return ExitCode::FAILURE;
    }
    for round in 0.. {
        // Where time is short it is not always the same ones that are left out.
        scenarios.shuffle(&mut rng);
        for scenario in &mut scenarios {
            let is_over = match options.rounds {
                Some(rounds) => round >= rounds,
                None => start.elapsed() >= time,
            };
            if is_over {
                return judge(&scenarios);
            }
            scenario.run(rng.random_range(1..5));
        }
    }
    ExitCode::SUCCESS
}

/// Prints the table, and compares the losses in each scenario.
fn judge(scenarios: &[Scenario]) -> ExitCode {
    say("scenario | runs | shardis: acknowledged, lost | Redis: acknowledged, lost");
    let mut lines: Vec<String> = scenarios
        .iter()
        .filter(|scenario| scenario.runs > 0)
        .map(|scenario| {
            let (runs, shardis, redis) = (scenario.runs, scenario.shardis, scenario.redis);
            format!(
                "{scenario} | {runs} | {}, {} | {}, {}",
                shardis.acknowledged, shardis.lost, redis.acknowledged, redis.lost
            )
        })
        .collect();
    lines.sort_unstable();
    say(&lines.join("\n"));
    let mut outcome = ExitCode::SUCCESS;
    for scenario in scenarios.iter().filter(|scenario| scenario.is_worse_than_redis()) {
        say(&format!(
            "{scenario}: shardis lost more acknowledged writes than Redis"
        ));
        outcome = ExitCode::FAILURE;
    }
    outcome
}

fn say(text: &str) {
    // Nothing is left to do if standard output cannot be written.
    let _ = writeln!(std::io::stdout(), "{text}");
}
