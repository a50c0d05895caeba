//! Server CPU per operation, one server beside another.
//!
//! All servers run at the same time and are measured in turn, A B C, C B A, A B C…, so that whatever slows the machine down
//! for a while meets all. The median over the rounds counts. Each measurement starts and ends with no request under
//! way.

use std::io::{Error, Result, Write};
use std::time::Duration;

use shardis_tests::procfs::{self, Ticks};

use super::generator::{Generator, Limit};
use super::median;
use super::options::Options;
use super::placement::{Cores, Placement};
use super::report::{Cost, Report, Target};
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
    /// CPU time that the server spent, user and system.
    ticks: Ticks,
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
    programs: &[Program],
    report: &mut Report<impl Write>,
) -> Result<()> {
    let placement = cores.pinned();
    cores.place_load(placement)?;
    let pinned = if placement == Placement::Free {
        "not pinned: one core"
    } else {
        "pinned"
    };
    let names: Vec<_> = programs.iter().map(Program::name).collect();
    report.contest_heading(
        &format!("Server CPU per operation, 1 shard, {CLIENTS} clients, {pinned}"),
        &names,
    )?;
    let print = |row: &Row, samples: &[Vec<Sample>], report: &mut Report<_>| {
        print_contest(row, &names, samples, report)
    };
    compare_rows(CPU, programs, placement, options, report, print)
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
        print_pair,
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

fn compare_rows<W: Write>(
    rows: &[Row],
    programs: &[Program],
    placement: Placement,
    options: &Options,
    report: &mut Report<W>,
    print: impl Fn(&Row, &[Vec<Sample>], &mut Report<W>) -> Result<()>,
) -> Result<()> {
    let mut running: Option<(Prepared, Vec<Side>)> = None;
    for row in rows.iter().filter(|row| options.wants(row.name)) {
        // The servers of a row that failed are dropped with it: nobody knows what state they are in.
        let prepared = (row.fills, row.audience);
        let reusable = running.take_if(|(before, _)| *before == prepared);
        running = None;
        let sides = match reusable {
            Some((_, sides)) => Ok(sides),
            None => start_all(programs, placement, prepared),
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

/// Content of a server, and its subscribers, before a row is measured.
type Prepared = (&'static [Fill], Option<Audience>);

fn start_all(programs: &[Program], placement: Placement, (fills, audience): Prepared) -> Result<Vec<Side>> {
    let starts = programs
        .iter()
        .map(|program| Side::start(program, placement, fills));
    let mut sides = starts.collect::<Result<Vec<_>>>()?;
    if let Some(audience) = audience {
        for side in &mut sides {
            let mut requests = Vec::new();
            for command in audience.commands {
                let mut template = Template::random(command, 1).map_err(Error::other)?;
                requests.extend_from_slice(template.next(1));
            }
            side.generator
                .add_listeners(side.server.address(), audience.listeners, &requests)?;
        }
    }
    Ok(sides)
}

/// All rounds of a row: the samples of each side.
fn compare(row: &Row, sides: &mut [Side], options: &Options) -> Result<Vec<Vec<Sample>>> {
    let mut work = Template::random(row.command, row.pipeline).map_err(Error::other)?;
    let mut samples = vec![Vec::new(); sides.len()];
    let mut order: Vec<usize> = (0..sides.len()).collect();
    for _ in 0..options.rounds {
        for &index in &order {
            samples[index].push(sides[index].measure(&mut work, options.time, row.refill)?);
        }
        order.reverse();
    }
    Ok(samples)
}

/// The median of one figure over the rounds.
fn middle(samples: &[Sample], figure: fn(&Sample) -> f64) -> f64 {
    median(&samples.iter().map(figure).collect::<Vec<_>>())
}

/// The median cost, divided as the ticks of all rounds together divide.
fn cost(samples: &[Sample]) -> Cost {
    let sum_us = middle(samples, |sample| sample.server_us);
    let ticks =
        |figure: fn(&Ticks) -> u64| samples.iter().map(|sample| figure(&sample.ticks)).sum::<u64>() as f64;
    let (user, system) = (ticks(|ticks| ticks.user), ticks(|ticks| ticks.system));
    let user_us = if user + system > 0.0 {
        sum_us * user / (user + system)
    } else {
        f64::NAN
    };
    Cost {
        user_us,
        system_us: sum_us - user_us,
    }
}

/// The lowest and the highest ratio of the last side to `other` in one round.
fn spread(other: &[Sample], ours: &[Sample]) -> (f64, f64) {
    let ratios = other
        .iter()
        .zip(ours)
        .map(|(other, ours)| ours.server_us / other.server_us);
    ratios.fold((f64::INFINITY, 0.0), |(lowest, highest), ratio| {
        (lowest.min(ratio), f64::max(highest, ratio))
    })
}

/// Remarks on a row: rates, and nulls among the replies.
fn remarks(samples: &[Vec<Sample>]) -> String {
    let each = |figure: fn(&Sample) -> f64, factor: f64| {
        let figures = samples
            .iter()
            .map(|samples| format!("{:.0}", middle(samples, figure) * factor));
        figures.collect::<Vec<_>>().join("/")
    };
    let load = samples
        .last()
        .map_or(f64::NAN, |ours| middle(ours, |sample| sample.load_us));
    let mut text = format!(
        "{} kop/s, load {load:.2} µs/op",
        each(|sample| sample.per_second, 1e-3)
    );
    let nulls = samples
        .iter()
        .map(|samples| middle(samples, |sample| sample.nulls));
    if nulls.into_iter().any(|part| part > NULLS_WORTH_SAYING) {
        text.push_str(&format!("; nulls {} %", each(|sample| sample.nulls, 100.0)));
    }
    text
}

/// A row of two servers: the second is judged by its sum.
fn print_pair(row: &Row, samples: &[Vec<Sample>], report: &mut Report<impl Write>) -> Result<()> {
    let [first, second] = samples else {
        return Err(Error::other("a pair is two servers"));
    };
    let (lowest, highest) = spread(first, second);
    report.line(
        row.name,
        Some(middle(first, |sample| sample.server_us)),
        middle(second, |sample| sample.server_us),
        Target::Times(row.at_most),
        &format!("{lowest:.2}-{highest:.2}; {}", remarks(samples)),
    )
}

/// A row of the contest: the last server is ours, beside redis judged by its sum, beside the peer by its user time.
fn print_contest(
    row: &Row,
    names: &[&'static str],
    samples: &[Vec<Sample>],
    report: &mut Report<impl Write>,
) -> Result<()> {
    let costs: Vec<_> = samples.iter().map(|samples| cost(samples)).collect();
    let [others @ .., ours] = &costs[..] else {
        return Err(Error::other("a contest without servers"));
    };
    let comparisons: Vec<_> = names
        .iter()
        .zip(others)
        .map(|(&name, other)| match name {
            "valkey" => ("user/valkey", ours.user_us / other.user_us, row.user_at_most),
            "before" => ("before", ours.sum_us() / other.sum_us(), None),
            _ => (name, ours.sum_us() / other.sum_us(), Some(row.at_most)),
        })
        .collect();
    let (lowest, highest) = spread(&samples[0], &samples[samples.len() - 1]);
    let note = format!("{lowest:.2}-{highest:.2} of redis; {}", remarks(samples));
    report.contest_line(row.name, &costs, &comparisons, &note)
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
        let ticks_before = self.server.ticks()?;
        let run = self.generator.run(work, Limit { requests, time })?;
        let after = [self.server.cpu()?, procfs::cpu(std::process::id())?];
        let ticks = self.server.ticks()?;
        let operations = run.requests as f64;
        let us_per_operation = |side: usize| (after[side] - before[side]).as_secs_f64() * 1e6 / operations;
        Ok(Sample {
            server_us: us_per_operation(0),
            ticks: Ticks {
                user: ticks.user - ticks_before.user,
                system: ticks.system - ticks_before.system,
            },
            load_us: us_per_operation(1),
            per_second: operations / run.elapsed.as_secs_f64(),
            nulls: run.nulls as f64 / operations,
        })
    }
}
