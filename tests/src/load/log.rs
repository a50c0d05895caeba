//! Cost of the append-only file: CPU of a SET that it takes in under `everysec`, and throughput under `always`.

use std::io::{Error, Result, Write};

use super::generator::{Generator, Limit};
use super::median;
use super::options::Options;
use super::placement::{Cores, Placement};
use super::report::{Report, Target};
use super::server::{Program, Server};
use super::template::Template;

const CLIENTS: usize = 50;
const SET: &str = "SET {key} {value:64}";
const COST_TIMES: f64 = 0.55;
/// Microseconds for each operation of all clients together: throughput is to be that of redis-server at least.
const TIME_TIMES: f64 = 1.0;

/// A policy and a depth of pipeline.
struct Row {
    name: &'static str,
    policy: &'static str,
    pipeline: usize,
    target: Target,
    figure: fn(&Server, &mut Generator, &mut Template, Limit) -> Result<f64>,
}

const ROWS: [Row; 2] = [
    Row {
        name: "SET -P 16, everysec, CPU us",
        policy: "everysec",
        pipeline: 16,
        target: Target::Times(COST_TIMES),
        figure: cpu_us,
    },
    Row {
        name: "SET -P 1, always, us each",
        policy: "always",
        pipeline: 1,
        target: Target::Times(TIME_TIMES),
        figure: elapsed_us,
    },
];

/// The section.
pub(crate) fn log(
    options: &Options,
    cores: &Cores,
    pair: &[Program; 2],
    report: &mut Report<impl Write>,
) -> Result<()> {
    report.heading("Append-only file, 50 clients, 1 shard", "redis", "shardis")?;
    for row in ROWS.iter().filter(|row| options.wants(row.name)) {
        match measure(options, cores, pair, row) {
            Ok([redis, shardis]) => report.line(row.name, Some(redis), shardis, row.target, "")?,
            Err(error) => report.failure(row.name, &error)?,
        }
    }
    Ok(())
}

/// The medians of both servers over rounds in turn.
fn measure(options: &Options, cores: &Cores, pair: &[Program; 2], row: &Row) -> Result<[f64; 2]> {
    let placement = cores.pinned();
    cores.place_load(placement)?;
    let mut servers = Vec::new();
    for program in pair {
        servers.push(logged(program, placement, row)?);
    }
    let mut figures = [Vec::new(), Vec::new()];
    for _ in 0..options.rounds {
        for ((server, generator, template), figures) in servers.iter_mut().zip(&mut figures) {
            figures.push((row.figure)(
                server,
                generator,
                template,
                Limit::time(options.time),
            )?);
        }
    }
    Ok(figures.map(|figures| median(&figures)))
}

/// A server with an append-only file, its clients and their load.
fn logged(program: &Program, placement: Placement, row: &Row) -> Result<(Server, Generator, Template)> {
    let server = program.start(
        placement,
        &[
            "--appendonly",
            "yes",
            "--appendfsync",
            row.policy,
            "--auto-aof-rewrite-percentage",
            "0",
        ],
    )?;
    let generator = Generator::connect(server.address(), CLIENTS, None)?;
    let template = Template::random(SET, row.pipeline).map_err(Error::other)?;
    Ok((server, generator, template))
}

fn cpu_us(server: &Server, generator: &mut Generator, template: &mut Template, limit: Limit) -> Result<f64> {
    let before = server.cpu()?;
    let run = generator.run(template, limit)?;
    Ok((server.cpu()? - before).as_secs_f64() * 1e6 / run.requests as f64)
}

fn elapsed_us(_: &Server, generator: &mut Generator, template: &mut Template, limit: Limit) -> Result<f64> {
    let run = generator.run(template, limit)?;
    Ok(run.elapsed.as_secs_f64() * 1e6 / run.requests as f64)
}
