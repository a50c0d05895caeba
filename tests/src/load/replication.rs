//! Replication: CPU of a primary with a replica, and of a replica; how far a replica lags; what a full sync beside a load does to
//! memory and to clients; and whether a link that was cut for seconds goes on where it was.

use std::io::{Error, Result, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use shardis_tests::replication::proxy::{Proxy, Rules};

use super::generator::{Generator, Limit, Run};
use super::options::Options;
use super::placement::{Cores, Placement};
use super::report::{Report, Target};
use super::server::{Program, Server, both};
use super::template::Template;
use super::{median, now, percentile_ms};

const SET: &str = "SET {key} {value:64}";
const CLIENTS: usize = 50;
const PIPELINE: usize = 16;
const LOOK: Duration = Duration::from_millis(5);
/// Longest time for a full sync, or for a replica to catch up.
const PATIENCE: Duration = Duration::from_secs(300);

const PRIMARY_TIMES: f64 = 0.55;
const REPLICA_TIMES: f64 = 0.6;

/// Requests a second of the rows about lag and about a cut.
const LAG_RATE: u64 = 50_000;
const CUT_RATE: u64 = 100_000;
/// Parts of a second in which such a load is sent.
const SLICES: u64 = 50;
const LAG_MS_MAX: f64 = 10.0;
const CUT: Duration = Duration::from_secs(5);

/// Keys of a full sync; with `--quick` a tenth.
const SYNC_KEYS: u64 = 2_000_000;
const QUICK: u64 = 10;
/// Connections that write during a full sync, without pipelines.
const SYNC_CLIENTS: usize = 8;
const SYNC_SLICE: Duration = Duration::from_millis(100);
const GROWTH_PERCENT_MAX: f64 = 10.0;
const PAUSE_MS_MAX: f64 = 5.0;

/// The backlog of the row about a cut: as much as is written meanwhile.
const CUT_BACKLOG: &str = "512mb";

/// Options of all servers of a section: full syncs begin at once, and no limit ends them.
const OPTIONS: [&str; 9] = [
    "--repl-diskless-sync-delay",
    "0",
    "--repl-backlog-size",
    "64mb",
    "--client-output-buffer-limit",
    "replica",
    "0",
    "0",
    "0",
];

/// The section.
pub(crate) fn replication(
    options: &Options,
    cores: &Cores,
    pair: &[Program; 2],
    report: &mut Report<impl Write>,
) -> Result<()> {
    let redis = &pair[0];
    report.heading("Replication, 1 shard", "redis", "shardis")?;
    let name = "CPU us per SET of a primary";
    if options.wants(name) {
        let links = || pair.each_ref().map(|program| (program, redis));
        let row = costs(options, cores, links(), Link::primary_cost);
        report.pair(name, Target::Times(PRIMARY_TIMES), row)?;
    }
    let name = "CPU us per SET of a replica";
    if options.wants(name) {
        let links = || pair.each_ref().map(|program| (redis, program));
        let row = costs(options, cores, links(), Link::replica_cost);
        report.pair(name, Target::Times(REPLICA_TIMES), row)?;
    }
    cores.place_load(Placement::Free)?;
    let name = "lag at 50 K SET/s, median ms";
    if options.wants(name) {
        let row = both(pair, |program| lag_ms(options, program));
        report.pair(name, Target::Value(LAG_MS_MAX), row)?;
    }
    let name = "full syncs after a cut";
    if options.wants(name) {
        let row = both(pair, full_syncs_after_cut);
        report.pair(name, Target::Value(0.0), row)?;
    }
    full_sync(options, pair, report)
}

/// A primary and its replica.
struct Link {
    primary: Server,
    replica: Server,
}

impl Link {
    /// Starts both; the replica does not follow yet.
    fn start(
        primary: &Program,
        replica: &Program,
        placements: [Placement; 2],
        more: &[&str],
    ) -> Result<Self> {
        let options = [&OPTIONS[..], more].concat();
        Ok(Self {
            primary: primary.start(placements[0], &options)?,
            replica: replica.start(placements[1], &options)?,
        })
    }

    /// Has the replica follow a port of this machine.
    fn follow(&self, port: u16) -> Result<()> {
        let request = format!("REPLICAOF 127.0.0.1 {port}");
        self.replica.client()?.call(&request).map(drop)
    }

    /// Has the replica follow the primary, and waits until it does.
    fn join(&self) -> Result<()> {
        self.follow(self.primary.address().port())?;
        until("the replica follows", || self.is_linked())
    }

    fn is_linked(&self) -> Result<bool> {
        Ok(self.replica.info("master_link_status")? == "up")
    }

    /// Waits until the replica has applied everything.
    fn catch_up(&self) -> Result<()> {
        until("the replica catches up", || {
            let offset = self.primary.info("master_repl_offset")?;
            Ok(self.is_linked()? && self.replica.info("master_repl_offset")? == offset)
        })
    }

    /// Microseconds of the primary for each request of a run.
    fn primary_cost(&self, run: &mut dyn FnMut() -> Result<Run>) -> Result<f64> {
        self.cost(&self.primary, run)
    }

    /// Microseconds of the replica for each request of a run.
    fn replica_cost(&self, run: &mut dyn FnMut() -> Result<Run>) -> Result<f64> {
        self.cost(&self.replica, run)
    }

    fn cost(&self, server: &Server, run: &mut dyn FnMut() -> Result<Run>) -> Result<f64> {
        let before = server.cpu()?;
        let run = run()?;
        self.catch_up()?;
        Ok((server.cpu()? - before).as_secs_f64() * 1e6 / run.requests as f64)
    }
}

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = now();
    while !is_so()? {
        if start.elapsed() > PATIENCE {
            return Err(Error::other(format!("{what}: not within {PATIENCE:?}")));
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

/// The medians of a cost of two links over rounds in turn. Primaries have a core of their own, or replicas do.
fn costs(
    options: &Options,
    cores: &Cores,
    links: [(&Program, &Program); 2],
    cost: fn(&Link, &mut dyn FnMut() -> Result<Run>) -> Result<f64>,
) -> Result<[f64; 2]> {
    let placement = cores.pinned();
    cores.place_load(placement)?;
    let mut joined = Vec::new();
    for (primary, replica) in links {
        let link = Link::start(primary, replica, [placement, placement], &[])?;
        link.join()?;
        let generator = Generator::connect(link.primary.address(), CLIENTS, None)?;
        joined.push((link, generator, template(SET, PIPELINE)?));
    }
    let mut figures = [Vec::new(), Vec::new()];
    for _ in 0..options.rounds {
        for ((link, generator, template), figures) in joined.iter_mut().zip(&mut figures) {
            let mut run = || generator.run(template, Limit::time(options.time));
            figures.push(cost(link, &mut run)?);
        }
    }
    Ok(figures.map(|figures| median(&figures)))
}

fn template(command: &str, pipeline: usize) -> Result<Template> {
    Template::random(command, pipeline).map_err(Error::other)
}

/// Sends so many requests a second until it is over.
fn load_at(rate: u64, server: &Server, is_over: &AtomicBool) -> Result<()> {
    let mut generator = Generator::connect(server.address(), CLIENTS, None)?;
    let mut work = template(SET, PIPELINE)?;
    let slice = Duration::from_secs(1) / SLICES as u32;
    let mut next = now();
    while !is_over.load(Ordering::Relaxed) {
        generator.run(&mut work, Limit::requests(rate / SLICES))?;
        next += slice;
        thread::sleep(next.saturating_duration_since(now()));
    }
    Ok(())
}

/// Does something beside a load.
fn beside<T>(rate: u64, server: &Server, act: impl FnOnce() -> Result<T>) -> Result<T> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = scope.spawn(|| load_at(rate, server, &is_over));
        let result = act();
        is_over.store(true, Ordering::Relaxed);
        load.join().map_err(|_| Error::other("the load panicked"))??;
        result
    })
}

/// Time from the reply of a primary until its replica shows what was written, the median of many.
fn lag_ms(options: &Options, program: &Program) -> Result<f64> {
    let link = Link::start(program, program, [Placement::Free; 2], &[])?;
    link.join()?;
    let lags = beside(LAG_RATE, &link.primary, || {
        let (mut primary, mut replica) = (link.primary.client()?, link.replica.client()?);
        let mut lags = Vec::new();
        let start = now();
        while start.elapsed() < options.time * options.rounds as u32 {
            let wanted = lags.len().to_string();
            primary.call(&format!("SET probe {wanted}"))?;
            let written = now();
            while replica.call("GET probe")?.text() != Some(&wanted) {}
            lags.push(written.elapsed());
            thread::sleep(LOOK);
        }
        Ok(lags)
    })?;
    let (median, _) = percentile_ms(lags, 0.5).ok_or_else(|| Error::other("no lag was measured"))?;
    Ok(median)
}

/// Full syncs that a cut of some seconds beside a load has cost.
fn full_syncs_after_cut(program: &Program) -> Result<f64> {
    let link = Link::start(
        program,
        program,
        [Placement::Free; 2],
        &["--repl-backlog-size", CUT_BACKLOG],
    )?;
    let proxy = Proxy::to(link.primary.address().port());
    link.follow(proxy.port())?;
    until("the replica follows", || link.is_linked())?;
    let before = full_syncs(&link)?;
    beside(CUT_RATE, &link.primary, || {
        thread::sleep(CUT / 5);
        proxy.set(Rules {
            is_silent: true,
            ..Rules::default()
        });
        proxy.cut_all();
        thread::sleep(CUT);
        proxy.clear();
        until("the replica follows again", || link.is_linked())
    })?;
    link.catch_up()?;
    Ok(full_syncs(&link)? - before)
}

fn full_syncs(link: &Link) -> Result<f64> {
    link.primary.info("sync_full")?.parse().map_err(Error::other)
}

/// Observations of a full sync beside a load.
#[derive(Debug)]
struct Sync {
    growth_percent: f64,
    longest_ms: f64,
    seconds: f64,
}

/// A row of the report: name, target, figure.
type Row = (&'static str, Target, fn(&Sync) -> f64);

const SYNC_ROWS: [Row; 3] = [
    (
        "growth beyond the backlog, %",
        Target::Value(GROWTH_PERCENT_MAX),
        |sync| sync.growth_percent,
    ),
    ("longest wait, ms", Target::Value(PAUSE_MS_MAX), |sync| {
        sync.longest_ms
    }),
    ("it takes, s", Target::Times(1.0), |sync| sync.seconds),
];

/// Full syncs of a redis-server by each program.
fn full_sync(options: &Options, pair: &[Program; 2], report: &mut Report<impl Write>) -> Result<()> {
    if !options.wants("full sync under load") {
        return Ok(());
    }
    let keys = SYNC_KEYS / if options.quick { QUICK } else { 1 };
    let title = format!("Full sync under load of {} K keys to a redis-server", keys / 1000);
    report.heading(&title, "redis", "shardis")?;
    match both(pair, |program| sync_beside_load(program, &pair[0], keys)) {
        Ok(syncs) => SYNC_ROWS.iter().try_for_each(|(name, target, figure)| {
            report.line(name, Some(figure(&syncs[0])), figure(&syncs[1]), *target, "")
        }),
        Err(error) => report.failure("full sync under load", &error),
    }
}

fn sync_beside_load(program: &Program, redis: &Program, keys: u64) -> Result<Sync> {
    let link = Link::start(program, redis, [Placement::Free; 2], &[])?;
    let set = format!("SET key:{{rand:{keys}}} {{value:64}}");
    let mut filling = Template::counting(&set, 100).map_err(Error::other)?;
    Generator::connect(link.primary.address(), SYNC_CLIENTS, None)?
        .run(&mut filling, Limit::requests(keys))?;
    let mut generator = Generator::connect(link.primary.address(), SYNC_CLIENTS, Some(template(&set, 1)?))?;
    let mut work = template(&set, 1)?;
    generator.run(&mut work, Limit::time(SYNC_SLICE))?;
    generator.take_waits();
    let before = link.primary.family_bytes()?;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watching = scope.spawn(|| most_memory(&link.primary, &is_over));
        let start = now();
        let result = sync_meanwhile(&link, || generator.run(&mut work, Limit::time(SYNC_SLICE)));
        let seconds = start.elapsed().as_secs_f64();
        is_over.store(true, Ordering::Relaxed);
        let most = watching
            .join()
            .map_err(|_| Error::other("the watcher panicked"))??;
        result?;
        // What the backlog holds was asked for.
        let backlog: f64 = link
            .primary
            .info("repl_backlog_histlen")?
            .parse()
            .map_err(Error::other)?;
        let (_, longest_ms) = percentile_ms(generator.take_waits(), 0.5)
            .ok_or_else(|| Error::other("the probe got no turn"))?;
        Ok(Sync {
            growth_percent: (most as f64 - before as f64 - backlog) / before as f64 * 100.0,
            longest_ms,
            seconds,
        })
    })
}

/// Has the replica follow, and works until it does.
fn sync_meanwhile(link: &Link, mut work: impl FnMut() -> Result<Run>) -> Result<()> {
    link.follow(link.primary.address().port())?;
    until("the replica follows", || {
        work()?;
        link.is_linked()
    })
}

fn most_memory(server: &Server, is_over: &AtomicBool) -> Result<u64> {
    let mut most = 0;
    while !is_over.load(Ordering::Relaxed) {
        most = most.max(server.family_bytes()?);
        thread::sleep(LOOK);
    }
    Ok(most)
}
