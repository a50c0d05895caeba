//! What keys and idle connections cost in resident memory, and what an idle server costs in CPU.

use std::io::{Error, ErrorKind, Result, Write};
use std::thread::sleep;
use std::time::Duration;

use super::client::Client;
use super::generator::{Generator, Limit};
use super::now;
use super::options::Options;
use super::placement::{Cores, Placement};
use super::report::{Report, Target};
use super::rows::CLIENTS;
use super::server::{Program, Server};
use super::template::Template;

const IDLE_CONNECTIONS: usize = 10_000;
/// Room for the connections that ask beside them.
const MAXCLIENTS: &str = "10100";
const FILL_PIPELINE: usize = 100;
const IDLE_TIME: Duration = Duration::from_secs(5);
/// How long memory may go on changing after the last request.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(10);

/// The section: every row for redis and for shardis.
pub(crate) fn memory(
    options: &Options,
    cores: &Cores,
    pair: &[Program; 2],
    report: &mut Report<impl Write>,
) -> Result<()> {
    let placement = cores.pinned();
    cores.place_load(placement)?;
    report.heading("Resident memory and idle CPU, 1 shard", "redis", "shardis")?;
    let counts: &[(u64, &str)] = if options.quick {
        &[(1_000_000, "1 M keys, bytes each")]
    } else {
        &[
            (1_000_000, "1 M keys, bytes each"),
            (10_000_000, "10 M keys, bytes each"),
        ]
    };
    for (count, name) in counts {
        row(options, report, name, Target::Value(72.0), pair, |program| {
            bytes_per_key(program, placement, *count)
        })?;
    }
    idle_connection_rows(options, report, pair, placement)?;
    row(
        options,
        report,
        "idle server, CPU %",
        Target::Value(0.5),
        pair,
        |program| {
            let server = program.start(placement, &[])?;
            sleep(Duration::from_secs(1));
            idle_cpu_percent(&server)
        },
    )
}

fn row(
    options: &Options,
    report: &mut Report<impl Write>,
    name: &str,
    target: Target,
    [first, second]: &[Program; 2],
    measure: impl Fn(&Program) -> Result<f64>,
) -> Result<()> {
    if !options.wants(name) {
        return Ok(());
    }
    match measure(first).and_then(|reference| Ok((reference, measure(second)?))) {
        Ok((reference, ours)) => report.line(name, Some(reference), ours, target, ""),
        Err(error) => report.failure(name, &error),
    }
}

/// Both rows of one measurement.
fn idle_connection_rows(
    options: &Options,
    report: &mut Report<impl Write>,
    [first, second]: &[Program; 2],
    placement: Placement,
) -> Result<()> {
    const BYTES: &str = "10k idle clients, bytes each";
    const CPU: &str = "10k idle clients, CPU %";
    if !options.wants(BYTES) && !options.wants(CPU) {
        return Ok(());
    }
    let measured = idle_connections(first, placement)
        .and_then(|reference| Ok((reference, idle_connections(second, placement)?)));
    match measured {
        Ok((reference, ours)) => {
            report.line(BYTES, Some(reference.0), ours.0, Target::Value(4096.0), "")?;
            report.line(CPU, Some(reference.1), ours.1, Target::None, "")
        }
        Err(error) => report.failure(BYTES, &error),
    }
}

/// Fills a new server with `count` keys of 16 bytes with values of 32, and returns what each has added.
fn bytes_per_key(program: &Program, placement: Placement, count: u64) -> Result<f64> {
    let server = program.start(placement, &[])?;
    let mut generator = Generator::connect(server.address(), CLIENTS, None)?;
    let empty = settled_bytes(&server)?;
    let mut commands = Template::counting(&format!("SET key:{{rand:{count}}} {{value:32}}"), FILL_PIPELINE)
        .map_err(Error::other)?;
    generator.run(&mut commands, Limit::requests(count))?;
    check_key_count(&server, count)?;
    Ok(settled_bytes(&server)?.saturating_sub(empty) as f64 / count as f64)
}

/// Fails unless the server says that it holds `count` keys.
pub(crate) fn check_key_count(server: &Server, count: u64) -> Result<()> {
    let reply = server.client()?.call("DBSIZE")?;
    if reply.integer() == i64::try_from(count).ok() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidData,
        format!("DBSIZE says {reply:?} after {count} keys"),
    ))
}

/// Bytes of memory and percent of a core that idle connections cost: the first each, the second together.
fn idle_connections(program: &Program, placement: Placement) -> Result<(f64, f64)> {
    let server = program.start(placement, &["--maxclients", MAXCLIENTS])?;
    let before = settled_bytes(&server)?;
    let connections = (0..IDLE_CONNECTIONS)
        .map(|index| {
            open_idle(&server).map_err(|error| {
                Error::new(
                    error.kind(),
                    format!("connection {index}: {error} (`ulimit -Hn` must allow {MAXCLIENTS} and some)"),
                )
            })
        })
        .collect::<Result<Vec<_>>>()?;
    // Servers take back the buffers of clients that have been quiet for a few seconds: that is what idle means here.
    sleep(IDLE_TIME);
    let cpu_percent = idle_cpu_percent(&server)?;
    let bytes = settled_bytes(&server)?.saturating_sub(before);
    Ok((bytes as f64 / connections.len() as f64, cpu_percent))
}

/// A connection that has been used once, as an application's have.
fn open_idle(server: &Server) -> Result<Client> {
    let mut client = server.client()?;
    client.call("PING")?;
    Ok(client)
}

fn idle_cpu_percent(server: &Server) -> Result<f64> {
    let before = server.cpu()?;
    let start = now();
    sleep(IDLE_TIME);
    let used = server.cpu()? - before;
    Ok(used.as_secs_f64() / (now() - start).as_secs_f64() * 100.0)
}

/// Resident memory once it has stopped changing: servers tidy up behind the last request.
fn settled_bytes(server: &Server) -> Result<u64> {
    let start = now();
    let mut last = 0;
    loop {
        sleep(Duration::from_millis(700));
        let bytes = server.resident_bytes()?;
        if bytes.abs_diff(last) <= bytes / 1000 || now() - start > SETTLE_TIME_MAX {
            return Ok(bytes);
        }
        last = bytes;
    }
}
