//! Cost of serving clients that wait: moves that wait for their element and find it in another shard's list, beside
//! moves that find theirs at once.

use std::io::{Error, Result, Write};
use std::thread::sleep;
use std::time::Duration;

use shardis_tests::slot;

use super::client::Client;
use super::median;
use super::options::Options;
use super::placement::{Cores, Placement};
use super::report::{Report, Target};
use super::server::{Program, Server};

/// Moves that wait at a time.
const MOVES: usize = 500;

/// Rounds of which the median counts, each with so many moves.
const ROUNDS: usize = 15;

/// Largest ratio between the costs of a move that waits and of one that does not.
const TIMES_MAX: f64 = 3.0;

/// Time for a server to take in what was sent to it, which it does not report.
const TAKING_IN: Duration = Duration::from_millis(100);

/// The section.
pub(crate) fn waits(
    options: &Options,
    cores: &Cores,
    redis: &Program,
    shardis: impl Fn(usize) -> Program,
    report: &mut Report<impl Write>,
) -> Result<()> {
    cores.place_load(Placement::Free)?;
    report.heading(
        &format!("Server CPU per move from shard to shard, {MOVES} clients, each served once"),
        "LMOVE µs",
        "BLMOVE µs",
    )?;
    row(options, report, "redis-server", redis, 1, Target::None)?;
    for (shards, name) in [(1, "1 shard"), (2, "2 shards"), (4, "4 shards")] {
        row(
            options,
            report,
            name,
            &shardis(shards),
            shards,
            Target::Times(TIMES_MAX),
        )?;
    }
    Ok(())
}

fn row(
    options: &Options,
    report: &mut Report<impl Write>,
    name: &str,
    program: &Program,
    shards: usize,
    target: Target,
) -> Result<()> {
    if !options.wants(name) {
        return Ok(());
    }
    match Movers::start(program, shards).and_then(|mut movers| movers.measure(options)) {
        Ok([at_once, waiting]) => report.line(name, Some(at_once), waiting, target, ""),
        Err(error) => report.failure(name, &error),
    }
}

/// A server and the clients of one row.
struct Movers {
    server: Server,
    pusher: Client,
    clients: Vec<Client>,
    /// Source and destination of each client's move.
    lists: Vec<(String, String)>,
}

impl Movers {
    fn start(program: &Program, shards: usize) -> Result<Self> {
        let server = program.start(Placement::Free, &[])?;
        let names = |prefix: &'static str, shard: usize| {
            let names = (0..).map(move |i| format!("{prefix}{i}"));
            names.filter(move |name| usize::from(slot::of(name.as_bytes())) % shards == shard)
        };
        let sources = names("from", 0);
        let destinations = names("to", shards - 1);
        Ok(Self {
            pusher: server.client()?,
            clients: (0..MOVES).map(|_| server.client()).collect::<Result<_>>()?,
            lists: sources.zip(destinations).take(MOVES).collect(),
            server,
        })
    }

    /// Microseconds of a move that finds its element, and of one that waits for it: what pushing the element costs is not in it.
    fn measure(&mut self, options: &Options) -> Result<[f64; 2]> {
        let rounds = if options.quick { 3 } else { ROUNDS };
        let mut found: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            let pushing = self.cost(Self::push)?;
            let at_once = self.cost(|movers| movers.ask("LMOVE", "").and_then(|()| movers.receive()))?;
            let waiting = self.cost(|movers| {
                movers.ask("BLMOVE", "0")?;
                sleep(TAKING_IN);
                movers.push()?;
                movers.receive()
            })?;
            found[0].push(at_once);
            found[1].push(waiting - pushing);
        }
        Ok(found.map(|figures| median(&figures)))
    }

    /// Microseconds that the server spends on something, for each move.
    fn cost(&mut self, act: impl FnOnce(&mut Self) -> Result<()>) -> Result<f64> {
        let before = self.server.cpu()?;
        act(self)?;
        let spent = self.server.cpu()? - before;
        Ok(spent.as_secs_f64() * 1e6 / MOVES as f64)
    }

    /// Pushes an element for each move.
    fn push(&mut self) -> Result<()> {
        for (from, _) in &self.lists {
            self.pusher.send(&format!("RPUSH {from} element"))?;
        }
        (0..MOVES).try_for_each(|_| self.pusher.receive().map(drop))
    }

    fn ask(&mut self, command: &str, timeout: &str) -> Result<()> {
        let mut each = self.clients.iter_mut().zip(&self.lists);
        each.try_for_each(|(client, (from, to))| {
            client.send(&format!("{command} {from} {to} LEFT LEFT {timeout}"))
        })
    }

    fn receive(&mut self) -> Result<()> {
        for client in &mut self.clients {
            let reply = client.receive()?;
            if reply.text() != Some("element") {
                return Err(Error::other(format!("a move was answered with {reply:?}")));
            }
        }
        Ok(())
    }
}
