//! The cluster: CPU of three primaries under the stock `redis-benchmark --cluster`; cost of a node's look at slots; memory of
//! a key; moving slots under load by the stock `redis-cli`; CPU of idle nodes.

#[path = "cluster/nodes.rs"]
mod nodes;
#[path = "cluster/wanderer.rs"]
mod wanderer;

use std::io::{Error, Result, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nodes::Nodes;
use wanderer::Wanderer;

use super::generator::{Generator, Limit};
use super::memory::bytes_per_key_of;
use super::options::Options;
use super::placement::{Cores, Placement};
use super::report::{Report, Target};
use super::rows::CLIENTS;
use super::server::{Program, Server, both};
use super::template::Template;
use super::{median, now, percentile_ms};

const PRIMARIES: usize = 3;

/// Pipelines of the rows about CPU, with their targets.
const CPU: [(&str, usize, f64); 2] = [
    ("SET -P 16, 3 primaries, us", 16, 0.55),
    ("SET -P 1, 3 primaries, us", 1, 1.0),
];
/// Requests of `redis-benchmark` in a round, for each second of the measurement and each command of a pipeline.
const REQUESTS_A_SECOND: f64 = 40_000.0;

const LOOK_TIMES: f64 = 1.05;
const BYTES_MAX: f64 = 76.0;
const KEYS: u64 = 1_000_000;
const QUICK: u64 = 10;

const IDLE_NODES: usize = 6;
const IDLE_PERCENT_MAX: f64 = 0.5;
const IDLE_TIME: Duration = Duration::from_secs(20);

const MOVED_SLOTS: u64 = 1_000;
const MOVE_TIMES: f64 = 0.7;
const WAIT_MS_MAX: f64 = 10.0;
/// Clients that write while slots move.
const WANDERERS: u64 = 4;

/// The section.
pub(crate) fn cluster(
    options: &Options,
    cores: &Cores,
    pair: &[Program; 2],
    report: &mut Report<impl Write>,
) -> Result<()> {
    cores.place_load(Placement::Free)?;
    report.heading("Cluster, 1 shard a node", "redis", "shardis")?;
    for (name, pipeline, times) in CPU.iter().filter(|row| options.wants(row.0)) {
        let row = benchmark_costs(options, pair, *pipeline);
        report.pair(name, Target::Times(*times), row)?;
    }
    let name = "idle, 6 nodes, % of a core";
    if options.wants(name) {
        let row = both(pair, |program| idle_percent(options, program));
        report.pair(name, Target::Value(IDLE_PERCENT_MAX), row)?;
    }
    let name = "bytes of a key";
    if options.wants(name) {
        let row = both(pair, |program| key_bytes(options, program));
        report.pair(name, Target::Value(BYTES_MAX), row)?;
    }
    moves(options, pair, report)?;
    look(options, cores, &pair[1], report)
}

/// CPU microseconds of all primaries for each request of the stock benchmark, the medians over rounds in turn.
fn benchmark_costs(options: &Options, pair: &[Program; 2], pipeline: usize) -> Result<[f64; 2]> {
    let clusters = both(pair, |program| Nodes::start(program, PRIMARIES))?;
    let mut figures = [Vec::new(), Vec::new()];
    let requests = (REQUESTS_A_SECOND * options.time.as_secs_f64()) as u64 * pipeline as u64;
    // The first round fills the keyspace.
    for round in 0..=options.rounds {
        for (nodes, figures) in clusters.iter().zip(&mut figures) {
            let before = nodes.cpu()?;
            benchmark(nodes.port(0), requests, pipeline)?;
            let us = (nodes.cpu()? - before).as_secs_f64() * 1e6 / requests as f64;
            if round > 0 {
                figures.push(us);
            }
        }
    }
    Ok(figures.map(|figures| median(&figures)))
}

fn benchmark(port: u16, requests: u64, pipeline: usize) -> Result<()> {
    let words =
        format!("-p {port} --cluster -t set -d 32 -r {KEYS} -n {requests} -P {pipeline} -c {CLIENTS} -q");
    run("redis-benchmark", &words)
}

/// Runs one of the stock tools to its end.
fn run(tool: &str, words: &str) -> Result<()> {
    let output = Command::new(tool)
        .args(words.split_ascii_whitespace())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| {
            Error::new(
                error.kind(),
                format!("cannot run {tool} (Debian: package redis-tools): {error}"),
            )
        })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let mut lines = said.lines().chain(errors.lines());
    let last = lines
        .rfind(|line| line.len() > "\u{1b}[0m".len())
        .unwrap_or_default();
    Err(Error::other(format!("{tool} {words}: {last}")))
}

/// Percent of a core that each node of an idle cluster uses.
fn idle_percent(options: &Options, program: &Program) -> Result<f64> {
    let nodes = Nodes::start(program, IDLE_NODES)?;
    let time = if options.quick { IDLE_TIME / 5 } else { IDLE_TIME };
    let before = nodes.cpu()?;
    let start = now();
    thread::sleep(time);
    let used = nodes.cpu()? - before;
    Ok(used.as_secs_f64() / start.elapsed().as_secs_f64() / IDLE_NODES as f64 * 100.0)
}

fn keys(options: &Options) -> u64 {
    KEYS / if options.quick { QUICK } else { 1 }
}

fn key_bytes(options: &Options, program: &Program) -> Result<f64> {
    let nodes = Nodes::start(program, 1)?;
    bytes_per_key_of(nodes.server(0), keys(options))
}

/// Observations of slots that move.
struct Move {
    seconds: f64,
    longest_ms: f64,
    /// The longest wait of as long a time before it.
    longest_before_ms: f64,
}

fn moves(options: &Options, pair: &[Program; 2], report: &mut Report<impl Write>) -> Result<()> {
    let name = "1000 slots move, s";
    if !options.wants(name) {
        return Ok(());
    }
    match both(pair, |program| move_slots(program, keys(options))) {
        Ok([redis, shardis]) => {
            report.line(
                name,
                Some(redis.seconds),
                shardis.seconds,
                Target::Times(MOVE_TIMES),
                "",
            )?;
            let note = format!(
                "without a move {:.1} and {:.1}",
                redis.longest_before_ms, shardis.longest_before_ms
            );
            let target = Target::Value(WAIT_MS_MAX);
            let (first, second) = (redis.longest_ms, shardis.longest_ms);
            report.line("longest wait meanwhile, ms", Some(first), second, target, &note)
        }
        Err(error) => report.failure(name, &error),
    }
}

/// Moves slots of a cluster with so many keys from its first node to its second, while clients write.
fn move_slots(program: &Program, keys: u64) -> Result<Move> {
    let nodes = Nodes::start(program, PRIMARIES)?;
    for index in 0..PRIMARIES {
        fill(&nodes, index, keys)?;
    }
    let is_over = AtomicBool::new(false);
    let (before, ()) = beside(&nodes, keys, &is_over, || {
        thread::sleep(Duration::from_secs(3));
        Ok(())
    })?;
    let (meanwhile, seconds) = beside(&nodes, keys, &is_over, || {
        let start = now();
        let (port, from, to) = (nodes.port(0), nodes.id(0)?, nodes.id(1)?);
        let words = format!(
            "--cluster reshard 127.0.0.1:{port} --cluster-from {from} --cluster-to {to} --cluster-slots {MOVED_SLOTS} --cluster-yes"
        );
        run("redis-cli", &words)?;
        Ok(start.elapsed().as_secs_f64())
    })?;
    let longest = |waits| {
        let (_, longest) = percentile_ms(waits, 0.5).ok_or_else(|| Error::other("no client got a turn"))?;
        Ok::<_, Error>(longest)
    };
    Ok(Move {
        seconds,
        longest_ms: longest(meanwhile)?,
        longest_before_ms: longest(before)?,
    })
}

/// Writes a node's part of the keys to it.
fn fill(nodes: &Nodes, index: usize, keys: u64) -> Result<()> {
    let mut wanderer = Wanderer::connect(nodes, 0)?;
    wanderer.fill(index, keys)
}

/// Does something beside clients that write; their waits, and its result.
fn beside<T>(
    nodes: &Nodes,
    keys: u64,
    is_over: &AtomicBool,
    act: impl FnOnce() -> Result<T>,
) -> Result<(Vec<Duration>, T)> {
    is_over.store(false, Ordering::Relaxed);
    thread::scope(|scope| {
        let clients = (0..WANDERERS).map(|seed| {
            scope.spawn(move || {
                let mut wanderer = Wanderer::connect(nodes, seed)?;
                while !is_over.load(Ordering::Relaxed) {
                    wanderer.write(keys)?;
                }
                Ok::<_, Error>(wanderer.into_waits())
            })
        });
        let clients: Vec<_> = clients.collect();
        let result = act();
        is_over.store(true, Ordering::Relaxed);
        let mut waits = Vec::new();
        for client in clients {
            waits.append(&mut client.join().map_err(|_| Error::other("a client panicked"))??);
        }
        Ok((waits, result?))
    })
}

/// Cost of a GET on a node that owns all slots, beside one that is in no cluster.
fn look(options: &Options, cores: &Cores, shardis: &Program, report: &mut Report<impl Write>) -> Result<()> {
    let name = "GET -P 16, us";
    if !options.wants(name) {
        return Ok(());
    }
    report.heading("The look at slots", "no cluster", "a cluster of one")?;
    report.pair(
        name,
        Target::Times(LOOK_TIMES),
        look_costs(options, cores, shardis),
    )
}

fn look_costs(options: &Options, cores: &Cores, shardis: &Program) -> Result<[f64; 2]> {
    let placement = cores.pinned();
    cores.place_load(placement)?;
    let alone = shardis.start(placement, &[])?;
    let nodes = Nodes::start_at(shardis, 1, placement)?;
    let mut figures = [Vec::new(), Vec::new()];
    let mut sides = Vec::new();
    for server in [&alone, nodes.server(0)] {
        let mut generator = Generator::connect(server.address(), CLIENTS, None)?;
        let mut set = Template::counting("SET {key} {value:64}", 100).map_err(Error::other)?;
        generator.run(&mut set, Limit::requests(KEYS))?;
        sides.push((server, generator));
    }
    let mut get = Template::random("GET {key}", 16).map_err(Error::other)?;
    for _ in 0..options.rounds {
        for ((server, generator), figures) in sides.iter_mut().zip(&mut figures) {
            figures.push(cost(server, generator, &mut get, options.time)?);
        }
    }
    cores.place_load(Placement::Free)?;
    Ok(figures.map(|figures| median(&figures)))
}

/// CPU microseconds of a request.
pub(crate) fn cost(
    server: &Server,
    generator: &mut Generator,
    work: &mut Template,
    time: Duration,
) -> Result<f64> {
    let before = server.cpu()?;
    let run = generator.run(work, Limit::time(time))?;
    Ok((server.cpu()? - before).as_secs_f64() * 1e6 / run.requests as f64)
}
