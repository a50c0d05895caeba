//! Saving and loading: how long they take, how large the file is, and what clients notice of a save beside them.

use std::fs;
use std::io::{Error, Result, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::generator::{Generator, Limit};
use super::options::Options;
use super::placement::{Cores, Placement};
use super::report::{Report, Target};
use super::rows::MIXED;
use super::server::{Program, Server};
use super::template::Template;
use super::{now, percentile_ms};

/// Keys of the mixed data set: as many as its fills make.
const MIXED_KEYS: u64 = 5_000_000;
/// Keys that are written while they are saved.
const LIVE_KEYS: u64 = 2_000_000;
/// Fields of a hash that is saved beside them, of a kilobyte each.
const HASH_FIELDS: u64 = 1_000_000;
/// With `--quick` there are so many times fewer of all.
const QUICK: u64 = 10;

const CLIENTS: usize = 50;
const PIPELINE: usize = 16;
/// Connections and pipelines that fill a server.
const FILL_CLIENTS: usize = 8;
const FILL_PIPELINE: usize = 100;

/// Length of a run of the load between two looks at whether the save is over.
const RUN: Duration = Duration::from_millis(200);
/// Length of the load without a save, with which its waits are compared.
const CALM: Duration = Duration::from_secs(4);
/// Time between two looks at the memory, each of which holds the server up for a moment.
const LOOK: Duration = Duration::from_millis(100);
const PERCENTILE: f64 = 0.999;

const SPEED_TIMES: f64 = 1.0 / 1.5;
const SIZE_TIMES: f64 = 1.02;
const WAIT_TIMES: f64 = 2.0;
const PAUSE_MS_MAX: f64 = 5.0;
/// Most growth of memory, in per cent.
const GROWTH_MAX: f64 = 10.0;

/// A row of the report: name, target, figure.
type Row<T> = (&'static str, Target, fn(&T) -> f64);

/// The section.
pub(crate) fn saves(
    options: &Options,
    cores: &Cores,
    redis: &Program,
    shardis: impl Fn(usize) -> Program,
    report: &mut Report<impl Write>,
) -> Result<()> {
    cores.place_load(Placement::Free)?;
    if options.wants("save and load") {
        save_and_load(options, redis, &shardis(2), report)?;
    }
    for hash in [false, true] {
        for (command, is_over) in [
            ("BGSAVE", "rdb_bgsave_in_progress"),
            ("BGREWRITEAOF", "aof_rewrite_in_progress"),
        ] {
            let beside = if hash { ", a hash of 1 GB among them" } else { "" };
            let name = format!("{command}{beside}");
            if options.wants(&name) {
                let plan = Plan {
                    command,
                    is_over,
                    hash,
                };
                under_load(options, &name, plan, [redis, &shardis(1), &shardis(2)], report)?;
            }
        }
    }
    Ok(())
}

/// Figures of a save and a load by one server.
#[derive(Debug)]
struct Files {
    save: Duration,
    bytes: u64,
    load: Duration,
}

fn save_and_load(
    options: &Options,
    redis: &Program,
    shardis: &Program,
    report: &mut Report<impl Write>,
) -> Result<()> {
    let divisor = if options.quick { QUICK } else { 1 };
    report.heading(
        &format!(
            "Save and load, {} K mixed keys, 2 shards",
            MIXED_KEYS / divisor / 1000
        ),
        "redis",
        "shardis",
    )?;
    let mut measured = Vec::new();
    for program in [redis, shardis] {
        match files(program, divisor) {
            Ok(files) => measured.push(files),
            Err(error) => return report.failure(program.name(), &error),
        }
    }
    let rows: [Row<Files>; 3] = [
        ("save, s", Target::Times(SPEED_TIMES), |files| {
            files.save.as_secs_f64()
        }),
        ("load, s", Target::Times(SPEED_TIMES), |files| {
            files.load.as_secs_f64()
        }),
        ("file, MB", Target::Times(SIZE_TIMES), |files| {
            files.bytes as f64 / 1e6
        }),
    ];
    for (name, target, figure) in rows {
        report.line(name, Some(figure(&measured[0])), figure(&measured[1]), target, "")?;
    }
    Ok(())
}

fn files(program: &Program, divisor: u64) -> Result<Files> {
    let server = program.start(Placement::Free, &[])?;
    for part in MIXED {
        fill(&server, part.command, part.count / divisor)?;
    }
    let start = now();
    server.client()?.call("SAVE")?;
    let save = start.elapsed();
    let directory = server.directory();
    drop(server);
    let bytes = fs::metadata(directory.path().join("dump.rdb"))?.len();
    let start = now();
    let server = program.start_in(&directory, Placement::Free, &[])?;
    let load = start.elapsed();
    let keys = server.client()?.call("DBSIZE")?.integer();
    if keys != i64::try_from(MIXED_KEYS / divisor).ok() {
        return Err(Error::other(format!("{keys:?} keys were loaded")));
    }
    Ok(Files { save, bytes, load })
}

/// Sends so many of a command, with its numbers counting from 0.
fn fill(server: &Server, command: &str, count: u64) -> Result<()> {
    let mut template = Template::counting(command, FILL_PIPELINE).map_err(Error::other)?;
    let mut generator = Generator::connect(server.address(), FILL_CLIENTS, None)?;
    generator.run(&mut template, Limit::requests(count))?;
    Ok(())
}

/// A save beside a load.
#[derive(Clone, Copy)]
struct Plan {
    command: &'static str,
    /// Field of INFO that is 0 when it is over.
    is_over: &'static str,
    hash: bool,
}

/// Observations of one save.
#[derive(Debug)]
struct Noticed {
    growth_percent: f64,
    calm_ms: f64,
    calm_longest_ms: f64,
    percentile_ms: f64,
    longest_ms: f64,
    seconds: f64,
}

fn under_load(
    options: &Options,
    name: &str,
    plan: Plan,
    [redis, one, two]: [&Program; 3],
    report: &mut Report<impl Write>,
) -> Result<()> {
    let keys = LIVE_KEYS / if options.quick { QUICK } else { 1 };
    report.heading(
        &format!("{name} of {} K keys, all written all the time", keys / 1000),
        "redis",
        "shardis",
    )?;
    let reference = match beside(options, plan, redis) {
        Ok(noticed) => noticed,
        Err(error) => return report.failure(redis.name(), &error),
    };
    for (program, shards) in [(one, "1 shard"), (two, "2 shards")] {
        let ours = match beside(options, plan, program) {
            Ok(noticed) => noticed,
            Err(error) => return report.failure(shards, &error),
        };
        let rows: [Row<Noticed>; 6] = [
            ("growth of memory, %", Target::Value(GROWTH_MAX), |noticed| {
                noticed.growth_percent
            }),
            ("p99.9 without, ms", Target::None, |noticed| noticed.calm_ms),
            ("p99.9, ms", Target::Value(WAIT_TIMES * ours.calm_ms), |noticed| {
                noticed.percentile_ms
            }),
            ("longest without, ms", Target::None, |noticed| {
                noticed.calm_longest_ms
            }),
            ("longest, ms", Target::Value(PAUSE_MS_MAX), |noticed| {
                noticed.longest_ms
            }),
            ("it takes, s", Target::None, |noticed| noticed.seconds),
        ];
        for (name, target, figure) in rows {
            let name = format!("{name}, {shards}");
            report.line(&name, Some(figure(&reference)), figure(&ours), target, "")?;
        }
    }
    Ok(())
}

/// Fills a server, loads it without a save and then with one.
fn beside(options: &Options, plan: Plan, program: &Program) -> Result<Noticed> {
    let divisor = if options.quick { QUICK } else { 1 };
    let arguments: &[&str] = if plan.command == "BGREWRITEAOF" {
        &["--appendonly", "yes", "--auto-aof-rewrite-percentage", "0"]
    } else {
        &[]
    };
    let server = program.start(Placement::Free, arguments)?;
    let keys = LIVE_KEYS / divisor;
    let set = format!("SET key:{{rand:{keys}}} {{value:64}}");
    let template = |pipeline| Template::random(&set, pipeline).map_err(Error::other);
    fill(&server, &set, keys)?;
    if plan.hash {
        let hset = format!("HSET hash {{rand:{HASH_FIELDS}}} {{value:1000}}");
        fill(&server, &hset, HASH_FIELDS / divisor)?;
    }
    let mut load = template(PIPELINE)?;
    let mut generator = Generator::connect(server.address(), CLIENTS, Some(template(1)?))?;
    let before = server.family_bytes()?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watching = scope.spawn(|| most_memory(&server, &over));
        generator.run(&mut load, Limit::time(CALM))?;
        let (calm_ms, calm_longest_ms) = of_waits(generator.take_waits())?;
        let start = now();
        let result = load_until_saved(&server, plan, &mut generator, &mut load);
        let seconds = start.elapsed().as_secs_f64();
        over.store(true, Ordering::Release);
        let most = watching
            .join()
            .map_err(|_| Error::other("the watcher panicked"))??;
        result?;
        let (percentile_ms, longest_ms) = of_waits(generator.take_waits())?;
        Ok(Noticed {
            growth_percent: (most as f64 / before as f64 - 1.0) * 100.0,
            calm_ms,
            calm_longest_ms,
            percentile_ms,
            longest_ms,
            seconds,
        })
    })
}

/// Begins to save, and sends the load until that is over.
fn load_until_saved(
    server: &Server,
    plan: Plan,
    generator: &mut Generator,
    load: &mut Template,
) -> Result<()> {
    server.client()?.call(plan.command)?;
    loop {
        generator.run(load, Limit::time(RUN))?;
        if server.info(plan.is_over)? != "1" {
            return Ok(());
        }
    }
}

fn most_memory(server: &Server, over: &AtomicBool) -> Result<u64> {
    let mut most = 0;
    while !over.load(Ordering::Acquire) {
        most = most.max(server.family_bytes()?);
        thread::sleep(LOOK);
    }
    Ok(most)
}

/// The wait that nearly all were shorter than, and the longest, in milliseconds.
fn of_waits(waits: Vec<Duration>) -> Result<(f64, f64)> {
    percentile_ms(waits, PERCENTILE).ok_or_else(|| Error::other("the probe got no turn"))
}
