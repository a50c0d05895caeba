//! Resident memory of keys, elements of collections and connections, and CPU use of an idle server.

use std::io::{Error, ErrorKind, Result, Write};
use std::thread::sleep;
use std::time::Duration;

use super::client::Client;
use super::generator::{Generator, Limit};
use super::now;
use super::options::Options;
use super::placement::{Cores, Placement};
use super::report::{Report, Target};
use super::rows::{COLLECTION_BYTES, Fill};
use super::server::{Program, Server};
use super::template::Template;

const IDLE_CONNECTIONS: usize = 10_000;
/// Room for the connections that ask beside them.
const MAXCLIENTS: &str = "10100";
const FILL_PIPELINE: usize = 100;
const IDLE_TIME: Duration = Duration::from_secs(5);
/// Longest time that memory may go on changing after the last request.
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
    for kind in COLLECTION_BYTES {
        row(
            options,
            report,
            kind.name,
            Target::Value(kind.at_most),
            pair,
            |program| bytes_of(program, placement, kind.fill).map(|bytes| bytes / kind.elements as f64),
        )?;
    }
    row(
        options,
        report,
        "1 M keys tracked by 100, bytes",
        Target::Times(1.0),
        pair,
        |program| bytes_per_tracked_key(program, placement),
    )?;
    connection_rows(options, report, pair, placement, &IDLE)?;
    connection_rows(options, report, pair, placement, &BLOCKED)?;
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

/// Ten thousand connections in one state, and what they may cost.
struct Connections {
    bytes_row: &'static str,
    bytes_at_most: Target,
    cpu_row: &'static str,
    cpu_at_most: Target,
    /// Opens the connection of this number and brings it into that state.
    open: fn(&Server, usize) -> Result<Client>,
}

const IDLE: Connections = Connections {
    bytes_row: "10k idle clients, bytes each",
    bytes_at_most: Target::Value(4096.0),
    cpu_row: "10k idle clients, CPU %",
    cpu_at_most: Target::None,
    open: open_idle,
};
const BLOCKED: Connections = Connections {
    bytes_row: "10k blocked clients, bytes",
    bytes_at_most: Target::None,
    cpu_row: "10k blocked clients, CPU %",
    cpu_at_most: Target::Value(1.0),
    open: open_blocked,
};

/// Both rows of one measurement.
fn connection_rows(
    options: &Options,
    report: &mut Report<impl Write>,
    [first, second]: &[Program; 2],
    placement: Placement,
    kind: &Connections,
) -> Result<()> {
    if !options.wants(kind.bytes_row) && !options.wants(kind.cpu_row) {
        return Ok(());
    }
    let measured = cost_of_connections(first, placement, kind)
        .and_then(|reference| Ok((reference, cost_of_connections(second, placement, kind)?)));
    match measured {
        Ok((reference, ours)) => {
            report.line(kind.bytes_row, Some(reference.0), ours.0, kind.bytes_at_most, "")?;
            report.line(kind.cpu_row, Some(reference.1), ours.1, kind.cpu_at_most, "")
        }
        Err(error) => report.failure(kind.bytes_row, &error),
    }
}

/// Memory that each of `count` keys of 16 bytes with values of 32 adds to a new server, bytes.
fn bytes_per_key(program: &Program, placement: Placement, count: u64) -> Result<f64> {
    bytes_per_key_of(&program.start(placement, &[])?, count)
}

/// Memory that each of `count` keys adds to this server, which is new.
pub(crate) fn bytes_per_key_of(server: &Server, count: u64) -> Result<f64> {
    let bytes = fill_and_weigh(server, &format!("SET key:{{rand:{count}}} {{value:32}}"), count)?;
    check_key_count(server, count)?;
    Ok(bytes / count as f64)
}

/// Trackers, each of which reads keys of its own.
const TRACKERS: u64 = 100;

/// Keys that each of them reads.
const READ_BY_EACH: u64 = 10_000;

/// Memory that each key takes which a client has read that tracks, bytes. The keys do not exist.
fn bytes_per_tracked_key(program: &Program, placement: Placement) -> Result<f64> {
    let server = program.start(placement, &[])?;
    let mut clients = (0..TRACKERS)
        .map(|_| server.client())
        .collect::<Result<Vec<_>>>()?;
    for client in &mut clients {
        client.call("CLIENT TRACKING ON")?;
        read_keys(client, 0)?;
    }
    server.client()?.call("FLUSHALL")?;
    let before = settled_bytes(&server)?;
    for (client, number) in clients.iter_mut().zip(0..) {
        read_keys(client, number * READ_BY_EACH)?;
    }
    let bytes = settled_bytes(&server)?.saturating_sub(before);
    Ok(bytes as f64 / (TRACKERS * READ_BY_EACH) as f64)
}

/// Reads keys whose numbers count from `first`.
fn read_keys(client: &mut Client, first: u64) -> Result<()> {
    for start in (first..first + READ_BY_EACH).step_by(FILL_PIPELINE) {
        let numbers = start..start + FILL_PIPELINE as u64;
        let lines: String = numbers
            .map(|number| format!("GET key:{number:012}\r\n"))
            .collect();
        client.send_lines(&lines)?;
        for _ in 0..FILL_PIPELINE {
            client.receive()?;
        }
    }
    Ok(())
}

/// Memory that a fill adds to a new server, bytes.
fn bytes_of(program: &Program, placement: Placement, fill: Fill) -> Result<f64> {
    let server = program.start(placement, &[])?;
    fill_and_weigh(&server, fill.command, fill.count)
}

/// Few connections, so that their buffers weigh little beside the data.
const FILL_CLIENTS: usize = 4;

/// Request that warms a server up: its pipelines fill the buffers to the last byte.
const WARMING: &str = "ECHO {value:1000}";
const WARMING_REQUESTS: u64 = 20_000;

/// Sends `count` times `command` and returns the bytes of resident memory that this has added.
///
/// Memory that any request needs (code that has not run yet, buffers of sockets) is not that of data: the server first
/// answers other requests, and a few of these, whose keys are removed again.
fn fill_and_weigh(server: &Server, command: &str, count: u64) -> Result<f64> {
    let mut generator = Generator::connect(server.address(), FILL_CLIENTS, None)?;
    let mut send = |command: &str, count: u64| {
        let mut commands = Template::counting(command, FILL_PIPELINE).map_err(Error::other)?;
        generator.run(&mut commands, Limit::requests(count))
    };
    send(WARMING, WARMING_REQUESTS)?;
    send(command, FILL_PIPELINE as u64)?;
    server.client()?.call("FLUSHALL")?;
    let empty = settled_bytes(server)?;
    send(command, count)?;
    Ok(settled_bytes(server)?.saturating_sub(empty) as f64)
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

/// Bytes of memory and percent of a core that such connections cost: the first each, the second together.
fn cost_of_connections(program: &Program, placement: Placement, kind: &Connections) -> Result<(f64, f64)> {
    let server = program.start(placement, &["--maxclients", MAXCLIENTS])?;
    let before = settled_bytes(&server)?;
    let connections = (0..IDLE_CONNECTIONS)
        .map(|index| {
            (kind.open)(&server, index).map_err(|error| {
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
fn open_idle(server: &Server, _: usize) -> Result<Client> {
    let mut client = server.client()?;
    client.call("PING")?;
    Ok(client)
}

/// A connection that waits for an element of a list of its own, or of one that all wait for.
fn open_blocked(server: &Server, index: usize) -> Result<Client> {
    let mut client = open_idle(server, index)?;
    client.send(&format!("BLPOP queue:{index} queue 0"))?;
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
