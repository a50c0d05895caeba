//! Cost of a SET that makes another key go: under `allkeys-lru`, at the limit, with one shard and with two.
//!
//! The longest command is that of a client beside the load, so the turns of the loop are in it.

use std::io::{Error, Result, Write};
use std::time::Duration;

use super::generator::{Generator, Limit};
use super::options::Options;
use super::placement::Cores;
use super::report::{Report, Target};
use super::server::Program;
use super::template::Template;

const CLIENTS: usize = 50;
const PIPELINE: usize = 16;
const KEYS: &str = "{rand:10000000}";
const LIMIT: &[&str] = &["--maxmemory", "60mb", "--maxmemory-policy", "allkeys-lru"];
/// Number of keys that exceed the limit on each of the servers.
const FILL: u64 = 1_500_000;
const COST_MAX: f64 = 0.5;
const PAUSE_MS_MAX: f64 = 5.0;

/// One server at its limit.
#[derive(Debug)]
struct AtLimit {
    cpu_us: f64,
    longest: Duration,
}

/// The section.
pub(crate) fn eviction(
    options: &Options,
    cores: &Cores,
    redis: &Program,
    shardis: impl Fn(usize) -> Program,
    report: &mut Report<impl Write>,
) -> Result<()> {
    if !options.wants("SET at the limit") {
        return Ok(());
    }
    report.heading(
        "Eviction, allkeys-lru, SET -P 16 at the limit",
        "redis",
        "shardis",
    )?;
    let reference = at_limit(options, cores, redis)?;
    for shards in [1, 2] {
        let measured = match at_limit(options, cores, &shardis(shards)) {
            Ok(measured) => measured,
            Err(error) => return report.failure(&format!("{shards} shard(s)"), &error),
        };
        report.line(
            &format!("SET at the limit, {shards} shard(s), us"),
            Some(reference.cpu_us),
            measured.cpu_us,
            Target::Times(COST_MAX),
            "",
        )?;
        report.line(
            &format!("longest SET, {shards} shard(s), ms"),
            Some(reference.longest.as_secs_f64() * 1e3),
            measured.longest.as_secs_f64() * 1e3,
            Target::Value(PAUSE_MS_MAX),
            "",
        )?;
    }
    Ok(())
}

fn at_limit(options: &Options, cores: &Cores, program: &Program) -> Result<AtLimit> {
    let placement = cores.pinned();
    cores.place_load(placement)?;
    let server = program.start(placement, LIMIT)?;
    let set = format!("SET key:{KEYS} {{value:32}}");
    let template = |pipeline| Template::random(&set, pipeline).map_err(Error::other);
    let mut load = template(PIPELINE)?;
    Generator::connect(server.address(), CLIENTS, None)?.run(&mut load, Limit::requests(FILL))?;
    let before = server.cpu()?;
    let time = options.time;
    let run = Generator::connect(server.address(), CLIENTS, None)?.run(&mut load, Limit::time(time))?;
    let cpu_us = (server.cpu()? - before).as_secs_f64() * 1e6 / run.requests as f64;
    // A few clients, so that what is seen is the server rather than the queue before it.
    let longest = Generator::connect(server.address(), 4, Some(template(1)?))?
        .run(&mut load, Limit::time(time))?
        .longest;
    Ok(AtLimit { cpu_us, longest })
}
