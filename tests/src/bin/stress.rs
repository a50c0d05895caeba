//! `scripts/soak`'s last part: servers of 1, 2 and 4 shards under everything at once. See `shardis_tests::stress`.
//!
//! Prints a line a server. The exit code is 0 if no fault was found; 1 if one was, which is printed with the seed that shows it.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use shardis_tests::stress::{Plan, run};

/// Puts servers under everything at once: random commands, moves, waits, kills, pauses, expiry, full memory.
#[derive(Debug, Parser)]
#[command(name = "stress")]
struct Options {
    /// Length of the run against each server, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Seed of all clients; a random one by default.
    #[arg(long)]
    seed: Option<u64>,
    /// Longest wait of a loop beyond that of an idle server on the same machine, in milliseconds. A busy machine needs more.
    #[arg(long, default_value_t = 20)]
    deaf_ms: u64,
    /// Longest rest of a client between two pipelines, in milliseconds: a long run then leaves the machine time for other work.
    #[arg(long, default_value_t = 0)]
    rest_ms: u64,
    /// Shards of the servers.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4])]
    shards: Vec<usize>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let seed = options.seed.unwrap_or_else(rand::random);
    let mut code = ExitCode::SUCCESS;
    for &shards in &options.shards {
        let plan = Plan {
            shards,
            time: Duration::from_secs(options.seconds),
            seed,
            deaf_max: Duration::from_millis(options.deaf_ms),
            rest_max: Duration::from_millis(options.rest_ms),
        };
        let text = match run(plan) {
            Ok(outcome) => format!("{shards} shards, seed {seed}: {outcome:?}"),
            Err(faults) => {
                code = ExitCode::FAILURE;
                faults
            }
        };
        // Nothing is left to do if standard output cannot be written.
        let _ = writeln!(std::io::stdout(), "{text}");
    }
    code
}
