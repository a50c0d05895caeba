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
            let failing = &commands[..difference.played];
            return Err(report(
                seed,
                played,
                &shrink(failing, kind, subject, oracle),
                difference,
            ));
        }
        played += round;
    }
    Ok(())
}

/// The text for a run that shows a difference.
fn report(seed: u64, played: usize, commands: &[Command], difference: Difference) -> String {
    let mut text = format!(
        "two servers differ (SHARDIS_DIFF_SEED={seed}, after {} commands); a run from an empty server that shows it:\n",
        played + difference.played
    );
    for command in commands {
        let _ = writeln!(
            text,
            "  {}: {}",
            ['A', 'B'][command.client],
            shown(&command.words)
        );
    }
    text + &difference.text
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

/// Leaves out commands as long as a difference remains: ever smaller pieces, as delta debugging does.
fn shrink(commands: &[Command], kind: Subject, subject: &Process, oracle: &Process) -> Vec<Command> {
    let deadline = Instant::now() + SHRINK_PATIENCE;
    let mut best = commands.to_vec();
    let mut piece = best.len().div_ceil(2);
    while piece > 0 && Instant::now() < deadline {
        let mut from = 0;
        while from < best.len() && Instant::now() < deadline {
            let to = (from + piece).min(best.len());
            let shorter: Vec<Command> = best[..from].iter().chain(&best[to..]).cloned().collect();
            match Duel::new(kind, subject, oracle).play(&shorter) {
                Err(difference) => best = shorter[..difference.played].to_vec(),
                Ok(()) => from = to,
            }
        }
        piece = if piece == 1 { 0 } else { piece.div_ceil(2) };
    }
    best
}
