//! The longest wait of one client while the keyspace grows to ten million keys and while it is thrown away, and while a
//! set of ten million members is.
//!
//! A virtual machine has pauses of its own, so the same probe first runs against an idle server: what it shows there is
//! the floor under the other figures, and each figure is the median of the maxima of several repetitions.

use std::io::{Error, ErrorKind, Result, Write};
use std::time::Duration;

use super::generator::{Generator, Limit};
use super::memory::check_key_count;
use super::options::Options;
use super::placement::{Cores, Placement};
use super::report::{Report, Target};
use super::server::{Program, Server};
use super::template::Template;
use super::{median, now};

/// Few connections and short pipelines: a turn of the server stays far below the pauses that are looked for.
const FILL_CLIENTS: usize = 8;
const FILL_PIPELINE: usize = 16;
const PAUSE_MS_MAX: f64 = 5.0;
const REPETITIONS: usize = 3;
const IDLE_TIME: Duration = Duration::from_secs(3);
/// Steps in which the probe waits for memory to fall: without a change, and in all.
const FREEING_STEP: Duration = Duration::from_millis(250);
const FREEING_QUIET_STEPS: u32 = 8;
const FREEING_TIME_MAX: Duration = Duration::from_secs(20);

/// The maxima of one repetition.
#[derive(Debug)]
struct Maxima {
    idle: Duration,
    filling: Duration,
    /// The longest command by the server's own account, if it keeps one.
    slowest_command: Option<Duration>,
    freeing: Duration,
    /// Like `freeing`, for data that has expired.
    expiring: Option<Duration>,
}

/// The maximum that a row shows.
type Figure = fn(&Maxima) -> Option<Duration>;

/// A row of the report: name, target, figure.
type FigureRow = (&'static str, Target, Figure);

const KEYSPACE: &[FigureRow] = &[
    ("GET from an idle server", Target::None, |maxima| {
        Some(maxima.idle)
    }),
    ("SET while filling", Target::Value(PAUSE_MS_MAX), |maxima| {
        Some(maxima.filling)
    }),
    ("slowest command, filling", Target::None, |maxima| {
        maxima.slowest_command
    }),
    (
        "GET after FLUSHALL ASYNC",
        Target::Value(PAUSE_MS_MAX),
        |maxima| Some(maxima.freeing),
    ),
];

const SET: &[FigureRow] = &[
    (
        "SADD to one set, filling",
        Target::Value(PAUSE_MS_MAX),
        |maxima| Some(maxima.filling),
    ),
    (
        "GET after UNLINK of the set",
        Target::Value(PAUSE_MS_MAX),
        |maxima| Some(maxima.freeing),
    ),
    (
        "GET after expiry of the set",
        Target::Value(PAUSE_MS_MAX),
        |maxima| maxima.expiring,
    ),
];

/// The section.
pub(crate) fn pauses(
    options: &Options,
    cores: &Cores,
    pair: &[Program; 2],
    report: &mut Report<impl Write>,
) -> Result<()> {
    let placement = cores.pinned();
    cores.place_load(placement)?;
    lives(options, "keys", KEYSPACE, pair, report, |program, count| {
        life_of_a_keyspace(program, placement, count)
    })?;
    lives(
        options,
        "members of a set",
        SET,
        pair,
        report,
        |program, count| life_of_a_set(program, placement, count),
    )
}

/// Lets both servers live through the same several times, and reports the medians of the maxima.
fn lives(
    options: &Options,
    what: &str,
    rows: &[FigureRow],
    pair: &[Program; 2],
    report: &mut Report<impl Write>,
    life: impl Fn(&Program, u64) -> Result<Maxima>,
) -> Result<()> {
    if !rows.iter().any(|(name, ..)| options.wants(name)) {
        return Ok(());
    }
    let (count, repetitions) = if options.quick {
        (1_000_000, 1)
    } else {
        (10_000_000, REPETITIONS)
    };
    report.heading(
        &format!(
            "Longest wait, {} M {what}, 1 shard, median of {repetitions}",
            count / 1_000_000
        ),
        "redis ms",
        "shardis ms",
    )?;
    let mut maxima = [Vec::new(), Vec::new()];
    for _ in 0..repetitions {
        for (program, maxima) in pair.iter().zip(&mut maxima) {
            match life(program, count) {
                Ok(found) => {
                    // A life takes half a minute or more: show what it found before the medians are known.
                    report.say(&format!("  {:<8} {found:.1?}", program.name()))?;
                    maxima.push(found);
                }
                Err(error) => return report.failure(program.name(), &error),
            }
        }
    }
    for (name, target, figure) in rows.iter().filter(|(name, ..)| options.wants(name)) {
        let [first, second] = maxima.each_ref().map(|maxima| milliseconds(maxima, *figure));
        if first.is_empty() || second.is_empty() {
            report.say(&format!("{name:<28} not reported by both"))?;
            continue;
        }
        report.line(name, Some(median(&first)), median(&second), *target, "")?;
    }
    Ok(())
}

fn milliseconds(maxima: &[Maxima], figure: Figure) -> Vec<f64> {
    maxima
        .iter()
        .filter_map(figure)
        .map(|duration| duration.as_secs_f64() * 1e3)
        .collect()
}

/// Starts a server, fills it, empties it; all the while a probe waits for replies.
fn life_of_a_keyspace(program: &Program, placement: Placement, count: u64) -> Result<Maxima> {
    let server = program.start(
        placement,
        &["--slowlog-log-slower-than", "200", "--slowlog-max-len", "4096"],
    )?;
    let key = format!("key:{{rand:{count}}}");
    let set = format!("SET {key} {{value:32}}");
    let probing_get = || {
        let get = Template::random(&format!("GET {key}"), 1).map_err(Error::other)?;
        Generator::connect(server.address(), 0, Some(get))
    };
    let idle = probing_get()?.run_probe(IDLE_TIME)?;

    let probing_set = Template::random(&set, 1).map_err(Error::other)?;
    let mut fill = Template::counting(&set, FILL_PIPELINE).map_err(Error::other)?;
    let filling = Generator::connect(server.address(), FILL_CLIENTS, Some(probing_set))?
        .run(&mut fill, Limit::requests(count))?
        .longest;
    check_key_count(&server, count)?;
    let slowest_command = slowest_command(&server)?;

    let mut client = server.client()?;
    let mut probe = probing_get()?;
    // A first request, so that the connection has been accepted when the freeing begins.
    probe.run_probe(Duration::ZERO)?;
    client.send("FLUSHALL ASYNC")?;
    let freeing = probe_while_freeing(&server, &mut probe)?;
    client.receive()?;
    Ok(Maxima {
        idle,
        filling,
        slowest_command,
        freeing,
        expiring: None,
    })
}

/// Starts a server, fills a set and unlinks it, fills it again and lets it expire; all the while a probe waits for
/// replies.
fn life_of_a_set(program: &Program, placement: Placement, count: u64) -> Result<Maxima> {
    let server = program.start(placement, &[])?;
    let add = format!("SADD set element:{{rand:{count}}}");
    let mut client = server.client()?;
    client.call("SET key:1 value")?;
    let get = Template::random("GET key:1", 1).map_err(Error::other)?;
    let mut probe = Generator::connect(server.address(), 0, Some(get))?;
    let idle = probe.run_probe(IDLE_TIME)?;

    let probing_add = Template::random(&add, 1).map_err(Error::other)?;
    let mut filler = Generator::connect(server.address(), FILL_CLIENTS, Some(probing_add))?;
    let mut fill = || {
        let mut adds = Template::counting(&add, FILL_PIPELINE).map_err(Error::other)?;
        Ok::<_, Error>(filler.run(&mut adds, Limit::requests(count))?.longest)
    };
    let filling = fill()?;
    client.send("UNLINK set")?;
    let freeing = probe_while_freeing(&server, &mut probe)?;
    client.receive()?;
    fill()?;
    client.send("PEXPIRE set 300")?;
    let expiring = probe_while_freeing(&server, &mut probe)?;
    client.receive()?;
    check_key_count(&server, 1)?;
    Ok(Maxima {
        idle,
        filling,
        slowest_command: None,
        freeing,
        expiring: Some(expiring),
    })
}

/// The longest entry of SLOWLOG, zero if nothing was slow enough to be in it; `None` if the server has no such log.
fn slowest_command(server: &Server) -> Result<Option<Duration>> {
    let log = match server.client()?.call("SLOWLOG GET 4096") {
        Ok(log) => log,
        // An error reply: the connection itself is well.
        Err(error) if error.kind() == ErrorKind::Other => return Ok(None),
        Err(error) => return Err(error),
    };
    let microseconds = log
        .elements()
        .iter()
        .filter_map(|entry| entry.elements().get(2)?.integer())
        .max();
    Ok(Some(Duration::from_micros(
        microseconds.unwrap_or(0).unsigned_abs(),
    )))
}

/// Probes until memory has not fallen for a while.
fn probe_while_freeing(server: &Server, probe: &mut Generator) -> Result<Duration> {
    let start = now();
    let mut longest = Duration::ZERO;
    let mut lowest = server.resident_bytes()?;
    let mut quiet_steps = 0;
    while quiet_steps < FREEING_QUIET_STEPS && now() - start < FREEING_TIME_MAX {
        longest = longest.max(probe.run_probe(FREEING_STEP)?);
        let bytes = server.resident_bytes()?;
        quiet_steps = if bytes < lowest - lowest / 1000 {
            0
        } else {
            quiet_steps + 1
        };
        lowest = lowest.min(bytes);
    }
    Ok(longest)
}
