//! A duel: the same random commands for two servers, until one answers differently.
//!
//! Then the run is cut down to the few commands that still show the difference, and those are the report.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::client::{Client, shown};
use crate::diff::{Rule, Subject};
use crate::generate::{CLIENTS, Command, Generator};
use crate::process::Process;
use crate::reply::Reply;

/// The whole keyspace is compared after so many commands, and the servers are emptied now and then.
const INSPECT_EVERY: usize = 250;

/// An emptied server every so many commands keeps the runs short that have to be cut down.
const EMPTY_EVERY: usize = 2000;

/// The client that compares the keyspaces, after those that play.
const INSPECTOR: usize = CLIENTS;

/// Databases a run uses.
const DATABASES: usize = 3;

/// How long the cutting down may take.
const SHRINK_PATIENCE: Duration = Duration::from_secs(30);

/// Plays `steps` commands from `seed` against both servers.
///
/// # Errors
/// The report of the first difference, with the seed and the shortest run found that shows it.
pub fn fight(
    seed: u64,
    steps: usize,
    kind: Subject,
    subject: &Process,
    oracle: &Process,
) -> Result<(), String> {
    let mut generator = Generator::new(seed);
    let mut played = 0;
    while played < steps {
        let round = EMPTY_EVERY.min(steps - played);
        let commands: Vec<Command> = (0..round).map(|_| generator.command()).collect();
        if let Err(difference) = Duel::new(kind, subject, oracle).play(&commands) {
            let run = Run {
                commands: commands[..difference.played].to_vec(),
                difference: difference.text,
            };
            let shortest = shrink(run, kind, subject, oracle);
            return Err(report(seed, played + difference.played, &shortest));
        }
        played += round;
    }
    Ok(())
}

/// A run from empty servers to a difference.
struct Run {
    commands: Vec<Command>,
    difference: String,
}

/// The text for a run that shows a difference, found after `played` commands.
fn report(seed: u64, played: usize, run: &Run) -> String {
    let mut text = format!(
        "two servers differ (SHARDIS_DIFF_SEED={seed}, after {played} commands); a run from an empty server that \
         shows it:\n"
    );
    for command in &run.commands {
        let _ = writeln!(
            text,
            "  {}: {}",
            ['A', 'B'][command.client],
            shown(&command.words)
        );
    }
    text + &run.difference
}

/// Where and how a run showed a difference.
struct Difference {
    /// Commands played up to and with the one that showed it.
    played: usize,
    text: String,
}

/// Two servers, freshly emptied, with their clients.
struct Duel {
    kind: Subject,
    subject: Vec<Client>,
    oracle: Vec<Client>,
}

impl Duel {
    fn new(kind: Subject, subject: &Process, oracle: &Process) -> Duel {
        let clients = |server: &Process| {
            let mut clients: Vec<Client> = (0..=INSPECTOR).map(|_| server.connect()).collect();
            clients[0].line("FLUSHALL");
            clients
        };
        Duel {
            kind,
            subject: clients(subject),
            oracle: clients(oracle),
        }
    }

    /// Plays commands up to the first difference.
    fn play(&mut self, commands: &[Command]) -> Result<(), Difference> {
        for (i, command) in commands.iter().enumerate() {
            let differs = |text| Difference { played: i + 1, text };
            self.compare(command).map_err(differs)?;
            if (i + 1) % INSPECT_EVERY == 0 || i + 1 == commands.len() {
                self.inspect().map_err(differs)?;
            }
        }
        Ok(())
    }

    /// Plays one command.
    fn compare(&mut self, command: &Command) -> Result<(), String> {
        let oracle = say(&mut self.oracle[command.client], command);
        let subject = say(&mut self.subject[command.client], command);
        let outcome = match (&subject, &oracle) {
            (Ok(subject), Ok(oracle)) if command.rule.holds(self.kind, subject, oracle) => return Ok(()),
            (Ok(subject), Ok(oracle)) => {
                format!("  wanted {}\n  got    {subject}", command.rule.wanted(oracle))
            }
            _ => format!("  wanted {oracle:?}\n  got    {subject:?}"),
        };
        Err(format!("{}\n{outcome}", shown(&command.words)))
    }

    /// Compares all keys with their values, encodings and expiry times, through a client of its own that disturbs
    /// nobody's transaction.
    fn inspect(&mut self) -> Result<(), String> {
        for database in 0..DATABASES {
            self.check(&[b"SELECT", database.to_string().as_bytes()], Rule::Same)?;
            self.check(&[b"KEYS", b"*"], Rule::Sorted)?;
            for key in self.oracle[INSPECTOR].line("KEYS *").items() {
                self.check(&[b"GET", key.bytes()], Rule::Same)?;
                self.check(&[b"PTTL", key.bytes()], Rule::Near(5000))?;
                self.check(&[b"OBJECT", b"ENCODING", key.bytes()], Rule::Same)?;
            }
        }
        Ok(())
    }

    /// Plays one command of the inspection.
    fn check(&mut self, words: &[&[u8]], rule: Rule) -> Result<(), String> {
        self.compare(&Command {
            client: INSPECTOR,
            words: words.iter().map(|word| word.to_vec()).collect(),
            rule,
        })
    }
}

/// One command to one server.
fn say(client: &mut Client, command: &Command) -> Result<Reply, String> {
    if command.is_scan() {
        return client.scan(command.words.clone());
    }
    client.try_call(&command.words).map_err(|error| error.to_string())
}

/// Leaves out commands as long as a difference remains, not always the same one: ever smaller pieces, as delta
/// debugging does.
fn shrink(found: Run, kind: Subject, subject: &Process, oracle: &Process) -> Run {
    let deadline = Instant::now() + SHRINK_PATIENCE;
    let mut best = found;
    let mut piece = best.commands.len().div_ceil(2);
    while piece > 0 && Instant::now() < deadline {
        let mut from = 0;
        while from < best.commands.len() && Instant::now() < deadline {
            let to = (from + piece).min(best.commands.len());
            let shorter = [&best.commands[..from], &best.commands[to..]].concat();
            match Duel::new(kind, subject, oracle).play(&shorter) {
                Ok(()) => from = to,
                Err(Difference { played, text }) => {
                    best = Run {
                        commands: shorter[..played].to_vec(),
                        difference: text,
                    };
                }
            }
        }
        piece = if piece == 1 { 0 } else { piece.div_ceil(2) };
    }
    best
}
