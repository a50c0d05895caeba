//! A duel: the same random commands for two servers, until one answers differently.
//!
//! Then the run is reduced to the few commands that still show the difference, and those are the report.
//!
//! Where a command chooses at random, two right replies differ. Both are then checked against the content of the key,
//! and after an SPOP the two sets are made equal again.

use std::fmt::Write as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::client::{Client, shown};
use crate::diff::{Rule, Subject};
use crate::generate::{CLIENTS, Command, Generator, look_at_all};
use crate::novelty;
use crate::process::Process;
use crate::redis::Reference;
use crate::reply::Reply;

/// The whole keyspace is compared after so many commands, and the servers are emptied now and then.
const INSPECT_EVERY: usize = 250;

/// Commands after which both servers are emptied, so that runs to be reduced are short.
const EMPTY_EVERY: usize = 2000;

/// The client that compares the keyspaces, after those that play.
const INSPECTOR: usize = CLIENTS;

/// The client that has changed to RESP3; the others speak RESP2.
const SPEAKS_RESP3: usize = 1;

/// Databases a run uses.
const DATABASES: usize = 3;

/// After so long a key has expired that was to live a millisecond.
const MOMENT: Duration = Duration::from_millis(3);

/// Longest time for reducing a run.
const SHRINK_PATIENCE: Duration = Duration::from_secs(30);

/// Bounds so low that the few elements of a run reach every encoding. (7.0 does not know those of sets.)
const BOUNDS: &[(&str, &str)] = &[
    ("list-max-listpack-size", "8"),
    ("hash-max-listpack-entries", "8"),
    ("hash-max-listpack-value", "48"),
    ("zset-max-listpack-entries", "8"),
    ("zset-max-listpack-value", "48"),
    ("set-max-intset-entries", "8"),
    ("set-max-listpack-entries", "8"),
    ("set-max-listpack-value", "48"),
    ("stream-node-max-entries", "8"),
];

/// Plays `steps` commands from `seed` against both servers.
///
/// # Errors
/// The report of the first difference, with the seed and the shortest run found that shows it.
pub fn fight(seed: u64, steps: usize, servers: Servers<'_>) -> Result<(), String> {
    let mut generator = Generator::new(seed);
    let mut played = 0;
    while played < steps {
        let round = EMPTY_EVERY.min(steps - played);
        let commands: Vec<Command> = (0..round).map(|_| generator.command()).collect();
        if let Err(difference) = Duel::new(servers).play(&commands) {
            let run = Run {
                commands: commands[..difference.played].to_vec(),
                difference: difference.text,
            };
            let shortest = shrink(run, servers);
            return Err(report(seed, played + difference.played, &shortest));
        }
        played += round;
    }
    Ok(())
}

/// The two servers of a duel.
#[derive(Clone, Copy)]
pub struct Servers<'a> {
    /// Kind of the subject.
    pub kind: Subject,
    /// The server under test.
    pub subject: &'a Process,
    /// Kind of the oracle.
    pub reference: Reference,
    /// The server that knows.
    pub oracle: &'a Process,
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

/// Position and description of a difference in a run.
struct Difference {
    /// Number of commands played, including the one that showed the difference.
    played: usize,
    text: String,
}

/// Two servers, freshly emptied, with their clients.
struct Duel {
    kind: Subject,
    reference: Reference,
    subject: Vec<Client>,
    oracle: Vec<Client>,
    /// Clients in a transaction. There, a reply that may differ would be part of EXEC's, which may not: a reduced run
    /// must leave such commands out.
    in_transaction: [bool; CLIENTS + 1],
    /// Clients in whose transaction a key may expire.
    lets_expire: [bool; CLIENTS + 1],
}

impl Duel {
    fn new(servers: Servers<'_>) -> Duel {
        let clients = |server: &Process| {
            let mut clients: Vec<Client> = (0..=INSPECTOR).map(|_| server.connect()).collect();
            clients[0].line("FLUSHALL");
            clients[SPEAKS_RESP3].line("HELLO 3");
            for (name, value) in BOUNDS {
                clients[0].call(&["CONFIG", "SET", name, value]);
            }
            clients
        };
        Duel {
            kind: servers.kind,
            reference: servers.reference,
            subject: clients(servers.subject),
            oracle: clients(servers.oracle),
            in_transaction: [false; CLIENTS + 1],
            lets_expire: [false; CLIENTS + 1],
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

    /// Plays one command, and waits for what it lets expire.
    fn compare(&mut self, command: &Command) -> Result<(), String> {
        if novelty::is_unfit(
            self.reference,
            &command.words,
            self.in_transaction[command.client],
        ) {
            return Ok(());
        }
        self.prepare(command);
        self.compare_replies(command)?;
        self.lets_expire[command.client] |= command.lets_expire();
        if !self.in_transaction[command.client] && std::mem::take(&mut self.lets_expire[command.client]) {
            sleep(MOMENT);
        }
        Ok(())
    }

    /// Brings about what makes the replies to a command comparable.
    fn prepare(&mut self, command: &Command) {
        if command.words[0].to_ascii_lowercase().starts_with(b"sort") {
            // Redis 7.0 asks whether a weight was out of range without forgetting first that another number was, some
            // time before. Reading a cursor makes it forget.
            self.oracle[INSPECTOR].line("SCAN x");
        }
        if command.counts_all() && !self.in_transaction[command.client] {
            for clients in [&mut self.oracle, &mut self.subject] {
                clients[command.client].call(&look_at_all());
            }
        }
    }

    /// Plays one command and compares the replies.
    fn compare_replies(&mut self, command: &Command) -> Result<(), String> {
        let in_transaction = &mut self.in_transaction[command.client];
        match &command.words[..] {
            [name] if name.eq_ignore_ascii_case(b"multi") => *in_transaction = true,
            [name]
                if [&b"exec"[..], b"discard", b"reset"]
                    .iter()
                    .any(|end| name.eq_ignore_ascii_case(end)) =>
            {
                *in_transaction = false;
            }
            _ if *in_transaction && !command.is_orderly() => return Ok(()),
            _ if command.is_draw() => return self.compare_draw(command),
            _ => {}
        }
        let oracle = say(&mut self.oracle[command.client], command);
        let subject = say(&mut self.subject[command.client], command);
        let outcome = match (&subject, &oracle) {
            (Ok(subject), Ok(oracle)) if command.rule.holds(self.kind, subject, oracle) => return Ok(()),
            (Ok(subject), Ok(oracle)) if novelty::is_known(self.reference, subject, oracle) => return Ok(()),
            (Ok(subject), Ok(oracle)) => {
                format!("  wanted {}\n  got    {subject}", command.rule.wanted(oracle))
            }
            _ => format!("  wanted {oracle:?}\n  got    {subject:?}"),
        };
        Err(format!("{}\n{outcome}", shown(&command.words)))
    }

    /// Plays a command that chooses at random: each server must choose from the content of the key, and as many
    /// elements as the other.
    fn compare_draw(&mut self, command: &Command) -> Result<(), String> {
        let sides = [&mut self.oracle, &mut self.subject].map(|clients| {
            let client = &mut clients[command.client];
            let held = held(client, &command.words);
            (held, say(client, command))
        });
        let fails = |reason: &str| {
            let [(_, oracle), (held, subject)] = &sides;
            Err(format!(
                "{}\n  {reason}\n  the key holds {held:?}\n  wanted something like {oracle:?}\n  got {subject:?}",
                shown(&command.words)
            ))
        };
        let [(_, Ok(oracle)), (held, Ok(subject))] = &sides else {
            return fails("no reply");
        };
        if oracle.is_error() || subject.is_error() {
            return if oracle == subject {
                Ok(())
            } else {
                fails("one of them refuses")
            };
        }
        if !Rule::Shape.holds(self.kind, subject, oracle) {
            return fails("not the same shape");
        }
        if let Some(held) = held
            && !is_drawn_from(held, &command.words, subject)
        {
            return fails("not drawn from what is there");
        }
        let has_popped = !oracle.items().is_empty() || matches!(oracle, Reply::Bulk(_));
        if command.words[0].eq_ignore_ascii_case(b"spop") && has_popped {
            self.level(command.client, &command.words[1]);
        }
        Ok(())
    }

    /// Gives the subject's set the members that the oracle's has, both of them written anew.
    fn level(&mut self, client: usize, key: &[u8]) {
        let members = self.oracle[client].call(&[b"SMEMBERS", key]);
        let at = self.oracle[client].call(&[b"PEXPIRETIME", key]).integer();
        for clients in [&mut self.oracle, &mut self.subject] {
            clients[client].call(&[b"DEL", key]);
            if members.items().is_empty() {
                continue;
            }
            let mut words = vec![&b"SADD"[..], key];
            words.extend(members.items().iter().map(Reply::bytes));
            clients[client].call(&words);
            if let Some(at) = at.filter(|&at| at > 0) {
                clients[client].call(&[b"PEXPIREAT", key, at.to_string().as_bytes()]);
            }
        }
    }

    /// Compares all keys with their values, encodings and expiry times, through a client of its own that disturbs
    /// nobody's transaction.
    fn inspect(&mut self) -> Result<(), String> {
        for database in 0..DATABASES {
            self.check(&[b"SELECT", database.to_string().as_bytes()], Rule::Same)?;
            self.check(&[b"KEYS", b"*"], Rule::Sorted)?;
            for key in self.oracle[INSPECTOR].line("KEYS *").items() {
                let key = key.bytes();
                self.check(&[b"TYPE", key], Rule::Same)?;
                self.check(&[b"PTTL", key], Rule::Near(5000))?;
                let (read, rule, encoding): (&[&[u8]], _, _) =
                    match &self.oracle[INSPECTOR].call(&[b"TYPE", key]).text()[..] {
                        "list" => (&[b"LRANGE", key, b"0", b"-1"], Rule::Same, Rule::Encoding),
                        "hash" => (&[b"HGETALL", key], Rule::Pairs, Rule::Same),
                        "set" => (&[b"SMEMBERS", key], Rule::Sorted, Rule::Encoding),
                        "zset" => (
                            &[b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"],
                            Rule::Scores,
                            Rule::Encoding,
                        ),
                        "stream" => (&[b"XRANGE", key, b"-", b"+"], Rule::Same, Rule::Same),
                        _ => (&[b"GET", key], Rule::Same, Rule::Same),
                    };
                self.check(read, rule)?;
                self.check(&[b"OBJECT", b"ENCODING", key], encoding)?;
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

/// The elements that a draw can choose from: names, and their values in a hash or sorted set. `None` when the key has
/// another type.
fn held(client: &mut Client, words: &[Vec<u8>]) -> Option<Vec<Vec<Reply>>> {
    let key = &words.get(1)?[..];
    let is_of = |name: &[u8]| words[0].eq_ignore_ascii_case(name);
    let (all, width) = if is_of(b"hrandfield") {
        (client.call(&[b"HGETALL", key]), 2)
    } else if is_of(b"zrandmember") {
        (client.call(&[b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"]), 2)
    } else {
        (client.call(&[b"SMEMBERS", key]), 1)
    };
    Some(flat(&all)?.chunks(width).map(<[Reply]>::to_vec).collect())
}

/// The texts of a collection one after the other, whichever protocol they came by; `None` for what is no collection.
fn flat(reply: &Reply) -> Option<Vec<Reply>> {
    let texts = |item: &Reply| match item {
        Reply::Array(pair) => pair.clone(),
        one => vec![one.clone()],
    };
    let items: Vec<Reply> = match reply {
        Reply::Array(items) | Reply::Set(items) => items.iter().flat_map(texts).collect(),
        Reply::Map(pairs) => pairs
            .iter()
            .flat_map(|(name, value)| [name.clone(), value.clone()])
            .collect(),
        _ => return None,
    };
    let as_text = |item| match item {
        Reply::Double(text) => Reply::Bulk(text),
        other => other,
    };
    Some(items.into_iter().map(as_text).collect())
}

/// True when every element of `drawn` was there, and none comes twice unless a negative count allows it.
fn is_drawn_from(held: &[Vec<Reply>], words: &[Vec<u8>], drawn: &Reply) -> bool {
    let has_partners = words.len() > 3;
    let matches = |element: &[Reply]| held.iter().any(|there| there.starts_with(element));
    match (flat(drawn), drawn) {
        (Some(items), _) => {
            let mut elements: Vec<&[Reply]> = items.chunks(if has_partners { 2 } else { 1 }).collect();
            let all_there = elements.iter().all(|element| matches(element));
            let count = elements.len();
            elements.sort();
            elements.dedup();
            let may_repeat = words.get(2).is_some_and(|count| count.starts_with(b"-"));
            all_there && (may_repeat || elements.len() == count)
        }
        (None, one) if one.is_null() => held.is_empty(),
        (None, one) => matches(std::slice::from_ref(one)),
    }
}

/// Sends one command to one server.
fn say(client: &mut Client, command: &Command) -> Result<Reply, String> {
    if command.is_scan() {
        return client.scan(command.words.clone());
    }
    client.try_call(&command.words).map_err(|error| error.to_string())
}

/// Leaves out commands as long as a difference remains, not necessarily the same one: ever smaller pieces, as in
/// delta debugging.
fn shrink(found: Run, servers: Servers<'_>) -> Run {
    let deadline = Instant::now() + SHRINK_PATIENCE;
    let mut best = found;
    let mut piece = best.commands.len().div_ceil(2);
    while piece > 0 && Instant::now() < deadline {
        let mut from = 0;
        while from < best.commands.len() && Instant::now() < deadline {
            let to = (from + piece).min(best.commands.len());
            let shorter = [&best.commands[..from], &best.commands[to..]].concat();
            match Duel::new(servers).play(&shorter) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn bulks(texts: &[&str]) -> Vec<Reply> {
        texts.iter().map(|text| Reply::Bulk((*text).into())).collect()
    }

    #[test]
    fn a_draw_has_elements_of_the_key_and_none_twice() {
        let words =
            |line: &str| -> Vec<Vec<u8>> { line.split(' ').map(|word| word.as_bytes().to_vec()).collect() };
        let held = [bulks(&["a", "1"]), bulks(&["b", "2"])];
        for (line, drawn, is_right) in [
            ("HRANDFIELD h 2", &["a", "b"][..], true),
            ("HRANDFIELD h 2", &["a", "a"], false),
            ("HRANDFIELD h -2", &["a", "a"], true),
            ("HRANDFIELD h 2", &["a", "c"], false),
            ("HRANDFIELD h 2 WITHVALUES", &["b", "2", "a", "1"], true),
            ("HRANDFIELD h 2 WITHVALUES", &["b", "1"], false),
        ] {
            let drawn = Reply::Array(bulks(drawn));
            assert_eq!(
                is_drawn_from(&held, &words(line), &drawn),
                is_right,
                "{line}: {drawn}"
            );
        }
        assert!(is_drawn_from(&held, &words("HRANDFIELD h"), &bulks(&["b"])[0]));
        assert!(!is_drawn_from(&held, &words("HRANDFIELD h"), &bulks(&["2"])[0]));
        assert!(!is_drawn_from(&held, &words("HRANDFIELD h"), &Reply::NullBulk));
        assert!(is_drawn_from(&[], &words("HRANDFIELD h"), &Reply::NullBulk));
    }
}
