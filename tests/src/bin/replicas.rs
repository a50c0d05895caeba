//! `scripts/soak`'s part about replication: servers of all kinds change places and lose their links, again and again, and have the
//! same data each time. See `shardis_tests::replication`.
//!
//! Prints a line for each series. The exit code is not 0 if a fault was found, which is printed with the seed.

use std::io::Write as _;
use std::time::{Duration, Instant};

use clap::Parser;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use shardis_tests::replication::chain;
use shardis_tests::replication::member::Kind::{self, Redis, Shardis, Valkey};
use shardis_tests::replication::pair::{Kinds, PAIRS, Pair};
use shardis_tests::replication::topology;

/// Has servers follow each other, and compares their data.
#[derive(Debug, Parser)]
#[command(name = "replicas")]
struct Options {
    /// Time after which no further series begins.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Seed of everything random; a random one by default.
    #[arg(long)]
    seed: Option<u64>,
}

/// Rows of servers, each a replica of the one before. Redis 7.0 does not load what Valkey sends.
const ROWS: [&[Kind]; 6] = [
    &[Shardis(4), Redis, Valkey],
    &[Redis, Shardis(3), Redis],
    &[Valkey, Shardis(4), Valkey],
    &[Shardis(2), Redis, Shardis(4)],
    &[Redis, Redis, Shardis(1)],
    &[Shardis(4), Shardis(3), Shardis(2)],
];

/// Members that change places.
const SETS: [&[Kind]; 3] = [
    &[Shardis(4), Redis, Shardis(1), Redis, Shardis(2)],
    &[Shardis(3), Valkey, Shardis(2), Valkey],
    &[
        Shardis(1),
        Shardis(2),
        Shardis(3),
        Shardis(4),
        Shardis(2),
        Shardis(1),
    ],
];

/// Changes of a series.
const CHANGES: usize = 10;

/// A pair whose link is cut, beside those of the tests.
const FROM_VALKEY: Kinds = Kinds {
    primary: Valkey,
    replica: Shardis(3),
};

#[expect(
    clippy::disallowed_methods,
    reason = "the real clock says how long it has run"
)]
fn main() {
    let options = Options::parse();
    let seed = options.seed.unwrap_or_else(rand::random);
    let mut rng = StdRng::seed_from_u64(seed);
    let pairs: Vec<Kinds> = PAIRS.into_iter().chain([FROM_VALKEY]).collect();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(options.seconds) {
        let row = *ROWS.choose(&mut rng).unwrap_or(&ROWS[0]);
        say(&format!("seed {seed}: a row {row:?}"));
        chain::prove(row, &[], rng.random());
        let set = *SETS.choose(&mut rng).unwrap_or(&SETS[0]);
        say(&format!("seed {seed}: changes of {set:?}"));
        topology::change(set, CHANGES, rng.random());
        let kinds = *pairs.choose(&mut rng).unwrap_or(&FROM_VALKEY);
        say(&format!("seed {seed}: cuts between {kinds:?}"));
        let mut pair = Pair::start(kinds, &[], &[]);
        pair.cut_everywhere(&mut rng);
        pair.check();
    }
    say("no fault was found");
}

fn say(text: &str) {
    // Nothing is left to do if standard output cannot be written.
    let _ = writeln!(std::io::stdout(), "{text}");
}
