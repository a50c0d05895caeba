//! `scripts/soak`'s part about durability: a server is killed again and again, and what it has kept is compared with what it
//! had promised. See `shardis_tests::crash`.
//!
//! Prints a line for each series. The exit code is 0 if no fault was found; 1 if one was, which is printed with the seed.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use shardis_tests::crash::{Outcome, Plan, Policy, run};
use shardis_tests::node;
use shardis_tests::process::Launch;

/// Kills servers at random moments and operations, and checks what they have kept.
#[derive(Debug, Parser)]
#[command(name = "crash")]
struct Options {
    /// Crashes of each series.
    #[arg(long, default_value_t = 100)]
    rounds: u32,
    /// Longest time between start and crash, in milliseconds.
    #[arg(long, default_value_t = 1500)]
    round_ms: u64,
    /// Seed of everything random; a random one by default.
    #[arg(long)]
    seed: Option<u64>,
    /// Policies: always, everysec, no, saves.
    #[arg(long, value_delimiter = ',', default_values_t = ["always", "everysec", "no", "saves"].map(str::to_owned))]
    policies: Vec<String>,
    /// Shards of the servers.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4])]
    shards: Vec<usize>,
    /// Another server to examine instead, such as a redis-server, which has no shards.
    #[arg(long)]
    server: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let seed = options.seed.unwrap_or_else(rand::random);
    let mut code = ExitCode::SUCCESS;
    for policy in options.policies.iter().filter_map(|name| policy(name)) {
        let series = if options.server.is_some() {
            &[1][..]
        } else {
            &options.shards
        };
        for &shards in series {
            let launch = || {
                let launch = match &options.server {
                    Some(server) => Launch::new(server),
                    None => node::launch(shards),
                };
                launch.with(&policy.options())
            };
            let plan = Plan {
                launch: &launch,
                policy,
                rounds: options.rounds,
                round_max: Duration::from_millis(options.round_ms),
                with_power: true,
                seed,
            };
            let text = match run(&plan) {
                Ok(outcome) => told(&outcome),
                Err(fault) => {
                    code = ExitCode::FAILURE;
                    fault
                }
            };
            // Nothing is left to do if standard output cannot be written.
            let _ = writeln!(
                std::io::stdout(),
                "{policy:?}, {shards} shards, seed {seed}: {text}"
            );
        }
    }
    code
}

fn policy(name: &str) -> Option<Policy> {
    match name {
        "always" => Some(Policy::Always),
        "everysec" => Some(Policy::EverySecond),
        "no" => Some(Policy::No),
        "saves" => Some(Policy::Saves),
        _ => None,
    }
}

fn told(outcome: &Outcome) -> String {
    format!(
        "{} steps kept, {} lost as the policy allows; {} crashes at chosen operations; losses of power took {} bytes",
        outcome.acknowledged, outcome.lost, outcome.at_points, outcome.power_bytes
    )
}
