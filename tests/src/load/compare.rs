//! Server CPU per operation, one server beside another.
//!
//! Both servers run at the same time and are measured in turn, A B, B A, A B…, so that whatever slows the machine down
//! for a while meets both. The median over the rounds counts. Each measurement starts and ends with no request under
//! way.

use std::io::{Error, Result, Write};
use std::time::Duration;

use super::generator::{Generator, Limit};
use super::median;
use super::options::Options;
use super::placement::{Cores, Placement};
use super::procfs;
use super::report::{Report, Target};
use super::rows::{Audience, CLIENTS, CPU, Fill, HOT_KEY, HotRow, Refill, Row, SHARDS};
use super::server::{Program, Server};
use super::template::Template;

/// Commands of the fill that are sent at a time.
const FILL_PIPELINE: usize = 100;
/// Before a measurement, so that caches hold this row's data and not the row's before.
const WARM_UP: Duration = Duration::from_millis(150);
/// More nulls than this among the replies are worth a remark.
const NULLS_WORTH_SAYING: f64 = 0.01;

/// A server with its keyspace filled and the load's connections open.
struct Side {
    server: Server,
    generator: Generator,
}

/// One measurement.
#[derive(Clone, Copy)]
struct Sample {
    /// CPU time of the server per operation, µs.
    server_us: f64,
    /// CPU time of the generator per operation, µs.
    load_us: f64,
    per_second: f64,
    /// Part of the replies that were null.
    nulls: f64,
}

/// The rows of one shard against redis.
pub(crate) fn cpu(
    options: &Options,
    cores: &Cores,
    pair: &[Program; 2],
    report: &mut Report<impl Write>,
) -> Result<()> {
    let placement = cores.pinned();
    cores.place_load(placement)?;
    let pinned = if placement == Placement::Free {
        "not pinned: one core"
    } else {
        "pinned"
    };
    report.heading(
        &format!("Server CPU per operation, 1 shard, {CLIENTS} clients, {pinned}"),
        "redis µs/op",
        "shardis µs/op",
    )?;
    compare_rows(CPU, pair, placement, options, report)
}

/// The rows of several shards against one.
pub(crate) fn shards(
    options: &Options,
    cores: &Cores,
    shardis: impl Fn(usize) -> Program,
    report: &mut Report<impl Write>,
) -> Result<()> {
    cores.place_load(Placement::Free)?;
    report.heading(
        &format!(
            "Server CPU per operation, 2 shards against 1, {CLIENTS} clients, {} cores",
            cores.count()
        ),
        "1 shard µs/op",
        "2 shards µs/op",
    )?;
    compare_rows(
        SHARDS,
        &[shardis(1), shardis(2)],
        Placement::Free,
        options,
        report,
    )?;

    report.heading(
        "One hot key: the busiest thread's share of the CPU time of its process",
        "even share",
        "busiest thread",
    )?;
    for row in HOT_KEY.iter().filter(|row| options.wants(row.name)) {
        match busiest_shares(row, &shardis(row.shards), options) {
            Ok((share, note)) => {
                let even = 1.0 / row.shards as f64;
                report.line(
                    row.name,
                    Some(even),
                    share,
                    Target::Value(row.share_at_most),
                    &note,
                )?;
            }
            Err(error) => report.failure(row.name, &error)?,
        }
    }
    Ok(())
}

fn compare_rows(
    rows: &[Row],
    programs: &[Program; 2],
    placement: Placement,
    options: &Options,
    report: &mut Report<impl Write>,
) -> Result<()> {
    let mut running: Option<(Prepared, [Side; 2])> = None;
    for row in rows.iter().filter(|row| options.wants(row.name)) {
        // The servers of a row that failed are dropped with it: nobody knows what state they are in.
        let prepared = (row.fills, row.audience);
        let reusable = running.take_if(|(before, _)| *before == prepared);
        running = None;
        let sides = match reusable {
            Some((_, sides)) => Ok(sides),
            None => start_both(programs, placement, prepared),
        };
        match sides.and_then(|mut sides| Ok((compare(row, &mut sides, options)?, sides))) {
            Ok((samples, sides)) => {
                print(row, &samples, report)?;
                running = Some((prepared, sides));
            }
            Err(error) => report.failure(row.name, &error)?,
        }
    }
    Ok(())
}

/// What a server holds and who listens to it before a row is measured.
type Prepared = (&'static [Fill], Option<Audience>);

fn start_both(
    programs: &[Program; 2],
    placement: Placement,
    (fills, audience): Prepared,
) -> Result<[Side; 2]> {
    let [first, second] = programs;
    let mut sides = [
        Side::start(first, placement, fills)?,
        Side::start(second, placement, fills)?,
    ];
    if let Some(audience) = audience {
        for side in &mut sides {
            let command = Template::random(audience.command, 1)
                .map_err(Error::other)?
                .next(1)
                .to_vec();
            side.generator
                .add_listeners(side.server.address(), audience.listeners, &command)?;
        }
    }
    Ok(sides)
}

/// All rounds of a row: the samples of the first side and of the second.
fn compare(row: &Row, sides: &mut [Side; 2], options: &Options) -> Result<[Vec<Sample>; 2]> {
    let mut work = Template::random(row.command, row.pipeline).map_err(Error::other)?;
    let mut samples = [Vec::new(), Vec::new()];
    for round in 0..options.rounds {
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for index in order {
            samples[index].push(sides[index].measure(&mut work, options.time, row.refill)?);
        }
    }
    Ok(samples)
}

fn print(row: &Row, [first, second]: &[Vec<Sample>; 2], report: &mut Report<impl Write>) -> Result<()> {
    let middle = |samples: &[Sample], figure: fn(&Sample) -> f64| {
        median(&samples.iter().map(figure).collect::<Vec<_>>())
    };
    let ratios: Vec<_> = first
        .iter()
        .zip(second)
        .map(|(first, second)| second.server_us / first.server_us)
        .collect();
    let lowest = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = ratios.iter().copied().fold(0.0, f64::max);
    let mut note = format!(
        "{lowest:.2}-{highest:.2}; {:.0} and {:.0} kop/s, load {:.2} µs/op",
        middle(first, |sample| sample.per_second) / 1e3,
        middle(second, |sample| sample.per_second) / 1e3,
        middle(second, |sample| sample.load_us),
    );
    let nulls = [first, second].map(|samples| middle(samples, |sample| sample.nulls));
    if nulls.iter().any(|part| *part > NULLS_WORTH_SAYING) {
        note.push_str(&format!(
            "; nulls {:.0} % and {:.0} %",
            nulls[0] * 100.0,
            nulls[1] * 100.0
        ));
    }
    report.line(
        row.name,
        Some(middle(first, |sample| sample.server_us)),
        middle(second, |sample| sample.server_us),
        Target::Times(row.at_most),
        &note,
    )
}

/// The median of the busiest thread's share, and the shares of all threads in the last round.
fn busiest_shares(row: &HotRow, program: &Program, options: &Options) -> Result<(f64, String)> {
    let mut side = Side::start(program, Placement::Free, row.fills)?;
    let mut work = Template::random(row.command, row.pipeline).map_err(Error::other)?;
    let mut busiest = Vec::new();
    let mut note = String::new();
    for _ in 0..options.rounds {
        side.generator.run(&mut work, Limit::time(WARM_UP))?;
        let before = side.server.threads()?;
        side.generator.run(&mut work, Limit::time(options.time))?;
        let mut used: Vec<_> = side
            .server
            .threads()?
            .into_iter()
            .map(|thread| {
                let earlier = before.iter().find(|earlier| earlier.id == thread.id);
                let spent = thread
                    .cpu
                    .saturating_sub(earlier.map_or(Duration::ZERO, |earlier| earlier.cpu));
                (spent.as_secs_f64(), thread.name)
            })
            .collect();
        used.sort_by(|left, right| right.0.total_cmp(&left.0));
        let total: f64 = used.iter().map(|(spent, _)| spent).sum();
        busiest.push(used.first().map_or(0.0, |(spent, _)| spent / total));
        let shares = used.iter().filter(|(spent, _)| *spent > 0.001 * total);
        note = shares
            .map(|(spent, name)| format!("{name} {:.0} %", spent / total * 100.0))
            .collect::<Vec<_>>()
            .join(", ");
    }
    Ok((median(&busiest), note))
}

impl Side {
    fn start(program: &Program, placement: Placement, fills: &[Fill]) -> Result<Self> {
        let server = program.start(placement, &[])?;
        let generator = Generator::connect(server.address(), CLIENTS, None)?;
        let mut side = Self { server, generator };
        for fill in fills {
            side.fill(*fill)?;
        }
        Ok(side)
    }

    fn fill(&mut self, fill: Fill) -> Result<()> {
        let mut commands = Template::counting(fill.command, FILL_PIPELINE).map_err(Error::other)?;
        let limit = Limit::requests(fill.count);
        if fill.in_order {
            Generator::connect(self.server.address(), 1, None)?.run(&mut commands, limit)?;
        } else {
            self.generator.run(&mut commands, limit)?;
        }
        Ok(())
    }

    fn measure(&mut self, work: &mut Template, time: Duration, refill: Option<Refill>) -> Result<Sample> {
        let mut requests = u64::MAX;
        if let Some(refill) = refill {
            self.fill(refill.fill)?;
            requests = refill.lasts;
        }
        let warm_up = Limit {
            requests: requests / 10,
            time: WARM_UP.min(time),
        };
        requests -= self.generator.run(work, warm_up)?.requests;
        let before = [self.server.cpu()?, procfs::cpu(std::process::id())?];
        let run = self.generator.run(work, Limit { requests, time })?;
        let after = [self.server.cpu()?, procfs::cpu(std::process::id())?];
        let operations = run.requests as f64;
        let us_per_operation = |side: usize| (after[side] - before[side]).as_secs_f64() * 1e6 / operations;
        Ok(Sample {
            server_us: us_per_operation(0),
            load_us: us_per_operation(1),
            per_second: operations / run.elapsed.as_secs_f64(),
            nulls: run.nulls as f64 / operations,
        })
    }
}
