//! Dialogues: the files of `cases/`, in which clients talk and three servers answer.
//!
//! A file holds dialogues; each begins with `== title` and an empty server. Replies are not written down: the references give
//! them, redis-server 7.0 and Valkey 9.1, and shardis must give the same. Where those two differ a line says whose reply
//! counts: Valkey's when 7.2 or later changed something, redis-server's when Valkey went a way of its own. The format, line by
//! line:
//!
//! ```text
//! # A remark.
//! == What this dialogue shows
//! SET key "a value\x00"           a command; words may be quoted as in redis-cli ('...' takes all literally)
//! B: GET key                      another client says it; a client connects when it first speaks
//! B: <                            no command: one more reply is awaited (pushed, or held back until now)
//! !sleep 20                       both sides wait so many milliseconds
//! LPUSH ${a|b|c} x                three commands, one for each choice; rules below are for all of them
//!   !any                          a rule for the command above: any reply will do
//!   !shape  !sorted  !near 5      ... same types / any order / integers at most this far apart
//!   !scores                       ... doubles are printed as 7.2 does; before any command: the whole dialogue
//!   !pairs                        ... a flat list is taken as pairs, and those come in any order
//!   !valkey                       ... 7.0 answered otherwise: Valkey's reply counts; before any command: the whole dialogue
//!   !redis                        ... Valkey answers in its own way: redis-server's reply counts; likewise
//!   !expect :1                    ... shardis answers exactly this (the form is that of `reply`)
//!   !match -ERR*                  ... or so, `*` being any text
//!   !since 7.4 +OK                ... `!expect` for what Redis has since then and neither reference answers so
//!   !resp2  !resp3                ... said under this protocol only; before any command: the whole dialogue
//!   !scan                         ... a SCAN, HSCAN..., followed to its end; what was found must agree
//!   !silent                       ... no reply comes
//!   !blocks                       ... no reply comes yet; a later `<` reads it
//!   !closes                       ... after the reply the server closes the connection
//!   !drops                        ... the server closes the connection without a reply
//! ```
//!
//! In a word, `${x*1000}` is x a thousand times, `${port}` the server's port, `${id:B}` and `${addr:B}` the id and
//! address of client B, asked for once: mention them before B blocks. Rules may share a line.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::thread::sleep;
use std::time::Duration;

use crate::client::{Client, shown};
use crate::diff::{Rule, Subject};
use crate::process::Process;
use crate::redis::Reference;
use crate::reply::Reply;

/// Time without a reply after which it counts as held back.
const HELD_BACK: Duration = Duration::from_millis(60);

/// Longest time that a server may take to close a connection.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// More differences than this in one file are not reported one by one.
const DIFFERENCES_MAX: usize = 12;

/// The protocol a dialogue is held in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resp {
    /// The protocol of a new connection.
    V2,
    /// After `HELLO 3`.
    V3,
}

impl Resp {
    /// The protocol that a rule restricts to.
    fn from_rule(rule: &str) -> Option<Resp> {
        match rule {
            "!resp2" => Some(Resp::V2),
            "!resp3" => Some(Resp::V3),
            _ => None,
        }
    }
}

/// The reference that a rule restricts to.
fn reference_of(rule: &str) -> Option<Reference> {
    match rule {
        "!redis" => Some(Reference::Redis),
        "!valkey" => Some(Reference::Valkey),
        _ => None,
    }
}

/// One dialogue of a file.
#[derive(Debug)]
pub struct Dialogue {
    /// The text after `==`.
    pub title: String,
    /// Lines of the dialogue, in order.
    pub steps: Vec<Step>,
    /// Held under this protocol only.
    pub only: Option<Resp>,
    /// Held with this reference only.
    pub only_with: Option<Reference>,
    /// Rule for replies that have no other.
    pub usual: Rule,
}

/// A line that a client sends, with the rules under it.
#[derive(Debug)]
pub struct Step {
    /// Line number in the file, from 1.
    pub line: usize,
    /// Client that sends it.
    pub client: char,
    /// What.
    pub action: Action,
    /// Rule for comparing the replies.
    pub rule: Rule,
    /// Expected outcome for the reply and the connection.
    pub outcome: Outcome,
    /// Said under this protocol only.
    pub only: Option<Resp>,
    /// The one reference whose reply counts; without it both.
    pub counts: Option<Reference>,
}

/// Action of a step.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Sends these words, `${...}` in them still to be replaced.
    Say(Vec<Vec<u8>>),
    /// Sends this command of the SCAN kind and all that follow from its cursor.
    Scan(Vec<Vec<u8>>),
    /// Reads a reply to nothing sent now.
    Listen,
    /// Waits so many milliseconds.
    Sleep(u64),
}

/// Outcome of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A reply.
    Reply,
    /// Nothing.
    Silence,
    /// No reply within [`HELD_BACK`], and one later.
    Blocks,
    /// A reply, then the end of the connection.
    ReplyThenEnd,
    /// The end of the connection.
    End,
}

/// Reads a file of dialogues.
///
/// # Errors
/// The number of the first line that does not follow the format, and why.
pub fn parse(text: &str) -> Result<Vec<Dialogue>, String> {
    let mut dialogues: Vec<Dialogue> = Vec::new();
    // Number of steps from the last command line: its rules apply to all of them.
    let mut alike = 0;
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let at_line = |reason: String| format!("line {number}: {reason}");
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(title) = line.strip_prefix("== ") {
            dialogues.push(Dialogue {
                title: title.to_owned(),
                steps: Vec::new(),
                only: None,
                only_with: None,
                usual: Rule::Same,
            });
            continue;
        }
        let dialogue = dialogues
            .last_mut()
            .ok_or_else(|| at_line("no `== title` yet".to_owned()))?;
        if dialogue.steps.is_empty() && dialogue.add_heading(line) {
            continue;
        }
        let usual = &dialogue.usual;
        let steps = &mut dialogue.steps;
        if let Some(milliseconds) = line.strip_prefix("!sleep ") {
            let action = Action::Sleep(
                milliseconds
                    .parse()
                    .map_err(|_| at_line("`!sleep` what?".to_owned()))?,
            );
            steps.push(Step::new(number, 'A', action, usual));
            alike = 1;
        } else if line.starts_with('!') {
            if steps.is_empty() {
                return Err(at_line("a rule for no command".to_owned()));
            }
            let first = steps.len() - alike;
            for step in &mut steps[first..] {
                step.add_rules(line).map_err(at_line)?;
            }
        } else {
            let lines = choices(line);
            alike = lines.len();
            for line in lines {
                steps.push(said(number, &line, usual).map_err(at_line)?);
            }
        }
    }
    Ok(dialogues)
}

impl Dialogue {
    /// Takes in a rule for all of the dialogue; false when the line is none.
    fn add_heading(&mut self, line: &str) -> bool {
        if let Some(resp) = Resp::from_rule(line) {
            self.only = Some(resp);
        } else if let Some(reference) = reference_of(line) {
            self.only_with = Some(reference);
        } else if line == "!scores" {
            self.usual = Rule::Scores;
        } else {
            return false;
        }
        true
    }
}

/// The lines that a line with choices expands to: the last choice varies fastest.
fn choices(line: &str) -> Vec<String> {
    for (open, _) in line.match_indices("${") {
        let Some(length) = line[open..].find('}') else {
            break;
        };
        let (before, after) = (&line[..open], &line[open + length + 1..]);
        let inside = &line[open + 2..open + length];
        if inside.contains('|') {
            let with = |choice: &str| choices(&format!("{before}{choice}{after}"));
            return inside.split('|').flat_map(with).collect();
        }
    }
    vec![line.to_owned()]
}

/// The step of a command line.
fn said(number: usize, line: &str, usual: &Rule) -> Result<Step, String> {
    let mut characters = line.chars();
    let (client, said) = match (characters.next(), characters.next(), characters.next()) {
        (Some(client @ 'A'..='Z'), Some(':'), Some(' ')) => (client, &line[3..]),
        _ => ('A', line),
    };
    let action = if said == "<" {
        Action::Listen
    } else {
        Action::Say(words(said)?)
    };
    Ok(Step::new(number, client, action, usual))
}

impl Step {
    fn new(line: usize, client: char, action: Action, usual: &Rule) -> Step {
        Step {
            line,
            client,
            action,
            rule: usual.clone(),
            outcome: Outcome::Reply,
            only: None,
            counts: None,
        }
    }

    /// Takes in a line of rules.
    fn add_rules(&mut self, line: &str) -> Result<(), String> {
        let mut rest = line;
        while !rest.is_empty() {
            let (name, after) = rest.split_once(' ').unwrap_or((rest, ""));
            rest = after.trim_start();
            match name {
                "!any" => self.rule = Rule::Any,
                "!shape" => self.rule = Rule::Shape,
                "!sorted" => self.rule = Rule::Sorted,
                "!scores" => self.rule = Rule::Scores,
                "!pairs" => self.rule = Rule::Pairs,
                "!resp2" | "!resp3" => self.only = Resp::from_rule(name),
                "!redis" | "!valkey" => self.counts = reference_of(name),
                "!silent" => self.outcome = Outcome::Silence,
                "!blocks" => self.outcome = Outcome::Blocks,
                "!closes" => self.outcome = Outcome::ReplyThenEnd,
                "!drops" => self.outcome = Outcome::End,
                "!scan" => self.follow_cursor()?,
                "!near" => {
                    let (distance, after) = rest.split_once(' ').unwrap_or((rest, ""));
                    self.rule = Rule::Near(distance.parse().map_err(|_| "`!near` what?".to_owned())?);
                    rest = after.trim_start();
                }
                // These take the rest of their line.
                "!expect" => self.rule = Rule::Expect(std::mem::take(&mut rest).to_owned()),
                "!match" => self.rule = Rule::Match(std::mem::take(&mut rest).to_owned()),
                "!since" => {
                    let (_, reply) = rest
                        .split_once(' ')
                        .ok_or("`!since` needs a version and a reply")?;
                    self.rule = Rule::Expect(reply.to_owned());
                    rest = "";
                }
                _ => return Err(format!("no such rule: {name}")),
            }
        }
        Ok(())
    }

    /// Turns a command into one of the SCAN kind that is followed to its end.
    fn follow_cursor(&mut self) -> Result<(), String> {
        match std::mem::replace(&mut self.action, Action::Listen) {
            Action::Say(words) => self.action = Action::Scan(words),
            _ => return Err("`!scan` is for a SCAN command".to_owned()),
        }
        self.rule = Rule::Sorted;
        Ok(())
    }
}

/// Splits a command line into words, quoted as in redis-cli.
///
/// # Errors
/// An unbalanced quote, or a quote that does not end its word.
pub fn words(line: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut words = Vec::new();
    let mut rest = line.as_bytes().trim_ascii();
    while let Some(&first) = rest.first() {
        let (word, length) = match first {
            b'"' => double_quoted(&rest[1..])?,
            b'\'' => single_quoted(&rest[1..])?,
            _ => {
                let length = rest
                    .iter()
                    .position(u8::is_ascii_whitespace)
                    .unwrap_or(rest.len());
                (rest[..length].to_vec(), length)
            }
        };
        words.push(word);
        if rest.get(length).is_some_and(|byte| !byte.is_ascii_whitespace()) {
            return Err("a closing quote must end its word".to_owned());
        }
        rest = rest[length..].trim_ascii_start();
    }
    Ok(words)
}

/// The word up to the closing `"`, and the length of all of it with both quotes.
fn double_quoted(text: &[u8]) -> Result<(Vec<u8>, usize), String> {
    let mut word = Vec::new();
    let mut at = 0;
    loop {
        match text[at..] {
            [b'"', ..] => return Ok((word, at + 2)),
            [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digits = [high, low];
                let digits = std::str::from_utf8(&digits).unwrap_or_default();
                word.push(u8::from_str_radix(digits, 16).unwrap_or_default());
                at += 4;
            }
            [b'\\', escaped, ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'a' => 7,
                    b'b' => 8,
                    other => other,
                });
                at += 2;
            }
            [byte, ..] => {
                word.push(byte);
                at += 1;
            }
            [] => return Err("an unbalanced quote".to_owned()),
        }
    }
}

/// The word up to the closing `'`, taken literally, and the length of all of it with both quotes.
fn single_quoted(text: &[u8]) -> Result<(Vec<u8>, usize), String> {
    let end = text
        .iter()
        .position(|&byte| byte == b'\'')
        .ok_or("an unbalanced quote")?;
    Ok((text[..end].to_vec(), end + 2))
}

/// Holds the dialogues of one file with all servers and reports every difference.
///
/// # Errors
/// The report: for each difference the file and line, the dialogue up to there, and the replies.
pub fn hold(file: &str, dialogues: &[Dialogue], resp: Resp, servers: &Servers<'_>) -> Result<(), String> {
    let mut differences = Vec::new();
    for dialogue in dialogues
        .iter()
        .filter(|dialogue| dialogue.only.is_none_or(|only| only == resp))
    {
        let mut stage = Stage::new(servers, dialogue.only_with, resp);
        let mut transcript = String::new();
        for step in dialogue
            .steps
            .iter()
            .filter(|step| step.only.is_none_or(|only| only == resp))
        {
            let result = stage.play(step, &mut transcript);
            if let Err(difference) = &result {
                differences.push(format!(
                    "{file}:{}: {} ({resp:?})\n{transcript}{}\n",
                    step.line, dialogue.title, difference.text
                ));
            }
            if matches!(result, Err(Difference { is_end: true, .. })) {
                break;
            }
        }
    }
    if differences.is_empty() {
        return Ok(());
    }
    let count = differences.len();
    differences.truncate(DIFFERENCES_MAX);
    Err(format!(
        "{count} differences, the first {} of them:\n\n{}",
        differences.len(),
        differences.join("\n")
    ))
}

/// The servers of a comparison.
pub struct Servers<'a> {
    /// Kind of the subject.
    pub kind: Subject,
    /// The server under test.
    pub subject: &'a Process,
    /// The servers that know.
    pub references: &'a [(Reference, Process)],
}

/// A step at which the subject and a reference differ.
struct Difference {
    text: String,
    /// The rest of the dialogue makes no sense any more.
    is_end: bool,
}

/// One dialogue being held.
struct Stage<'a> {
    kind: Subject,
    subject: Side<'a>,
    references: Vec<(Reference, Side<'a>)>,
}

impl<'a> Stage<'a> {
    fn new(servers: &Servers<'a>, only_with: Option<Reference>, resp: Resp) -> Stage<'a> {
        let takes_part = |name| only_with.is_none_or(|only| only == name);
        let references = servers.references.iter().filter(|(name, _)| takes_part(*name));
        Stage {
            kind: servers.kind,
            subject: Side::new(servers.subject, resp),
            references: references
                .map(|(name, server)| (*name, Side::new(server, resp)))
                .collect(),
        }
    }

    /// Plays one step on all sides and compares.
    fn play(&mut self, step: &Step, transcript: &mut String) -> Result<(), Difference> {
        if let Action::Sleep(milliseconds) = step.action {
            sleep(Duration::from_millis(milliseconds));
            return Ok(());
        }
        let known: Vec<_> = self
            .references
            .iter_mut()
            .map(|(name, side)| (*name, side.play(step)))
            .collect();
        let subject = self.subject.play(step);
        let _ = writeln!(transcript, "    {}", told(step));
        if let Ok(Some(reply)) = &subject {
            let _ = writeln!(transcript, "      {reply}");
        }
        let counts = |name| step.counts.is_none_or(|only| only == name);
        for (name, reference) in known.iter().filter(|(name, _)| counts(*name)) {
            self.compare(step, *name, &subject, reference)?;
        }
        Ok(())
    }

    /// Compares what the subject and one reference did.
    fn compare(
        &self,
        step: &Step,
        name: Reference,
        subject: &Result<Option<Reply>, String>,
        reference: &Result<Option<Reply>, String>,
    ) -> Result<(), Difference> {
        let (text, is_end) = match (subject, reference) {
            (Ok(None), Ok(None)) => return Ok(()),
            (Ok(Some(subject)), Ok(Some(reference))) => {
                if step.rule.holds(self.kind, subject, reference) {
                    return Ok(());
                }
                let wanted = step.rule.wanted(reference);
                (
                    format!("  wanted {wanted}   ({name:?})\n  got    {subject}"),
                    false,
                )
            }
            (subject, reference) => (
                format!("  wanted {reference:?}   ({name:?})\n  got    {subject:?}"),
                true,
            ),
        };
        Err(Difference { text, is_end })
    }
}

/// A step, in the form of reports.
fn told(step: &Step) -> String {
    match &step.action {
        Action::Say(words) | Action::Scan(words) => format!("{}: {}", step.client, shown(words)),
        Action::Listen => format!("{}: <", step.client),
        Action::Sleep(milliseconds) => format!("!sleep {milliseconds}"),
    }
}

/// One server with the clients that talk to it.
struct Side<'a> {
    server: &'a Process,
    resp: Resp,
    clients: BTreeMap<char, Client>,
    /// Values of variables asked for so far: a blocked client can no longer be asked.
    known: BTreeMap<String, Vec<u8>>,
}

impl<'a> Side<'a> {
    /// Empties the server.
    fn new(server: &'a Process, resp: Resp) -> Side<'a> {
        let mut control = server.connect();
        control.line("CLIENT UNPAUSE");
        let flushed = control.line("FLUSHALL");
        assert_eq!(
            flushed,
            Reply::Simple(b"OK".to_vec()),
            "FLUSHALL before a dialogue"
        );
        Side {
            server,
            resp,
            clients: BTreeMap::new(),
            known: BTreeMap::new(),
        }
    }

    /// Plays a step and returns its reply, or what went wrong instead.
    fn play(&mut self, step: &Step) -> Result<Option<Reply>, String> {
        self.connect(step.client);
        match &step.action {
            Action::Sleep(_) => return Ok(None),
            Action::Listen => {}
            Action::Scan(words) => {
                let words = self.expand(words)?;
                return self.client(step.client).scan(words).map(Some);
            }
            Action::Say(words) => {
                let words = self.expand(words)?;
                let sent = self.client(step.client).send(&words);
                sent.or_else(|error| {
                    if step.outcome == Outcome::End {
                        Ok(())
                    } else {
                        Err(error.to_string())
                    }
                })?;
            }
        }
        self.outcome(step.client, step.outcome)
    }

    /// Waits for what should follow a step.
    fn outcome(&mut self, name: char, outcome: Outcome) -> Result<Option<Reply>, String> {
        let client = self.client(name);
        match outcome {
            Outcome::Silence => Ok(None),
            Outcome::Blocks => match client.read_within(HELD_BACK) {
                Err(error) if error.kind() == ErrorKind::TimedOut => Ok(None),
                other => Err(format!("held back should be {other:?}")),
            },
            Outcome::Reply => client
                .read()
                .map(Some)
                .map_err(|error| format!("no reply: {error}")),
            Outcome::ReplyThenEnd => {
                let reply = client.read().map_err(|error| format!("no reply: {error}"))?;
                self.end(name)?;
                Ok(Some(reply))
            }
            Outcome::End => self.end(name).map(|()| None),
        }
    }

    /// The server closes this client's connection.
    fn end(&mut self, name: char) -> Result<(), String> {
        let is_closed = self.client(name).is_closed_within(CLOSE_PATIENCE);
        self.clients.remove(&name);
        self.known.retain(|variable, _| !variable.ends_with(name));
        if is_closed {
            Ok(())
        } else {
            Err("the connection is not closed".to_owned())
        }
    }

    fn connect(&mut self, name: char) {
        if !self.clients.contains_key(&name) {
            let mut client = self.server.connect();
            if self.resp == Resp::V3 {
                let reply = client.line("HELLO 3");
                assert!(
                    matches!(reply, Reply::Map(_)),
                    "HELLO 3 answers with a map, not with {reply}"
                );
            }
            self.clients.insert(name, client);
        }
    }

    fn client(&mut self, name: char) -> &mut Client {
        self.clients
            .get_mut(&name)
            .expect("a client connects before it speaks")
    }

    /// Replaces every `${...}` in the words of a command.
    fn expand(&mut self, words: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, String> {
        words.iter().map(|word| self.expand_word(word)).collect()
    }

    fn expand_word(&mut self, word: &[u8]) -> Result<Vec<u8>, String> {
        let mut expanded = Vec::new();
        let mut rest = word;
        while let Some(open) = rest.windows(2).position(|pair| pair == b"${") {
            let close = open
                + rest[open..]
                    .iter()
                    .position(|&byte| byte == b'}')
                    .ok_or("`${` without `}`")?;
            expanded.extend_from_slice(&rest[..open]);
            expanded.extend(self.variable(&rest[open + 2..close])?);
            rest = &rest[close + 1..];
        }
        expanded.extend_from_slice(rest);
        Ok(expanded)
    }

    /// The value of the variable `name` in `${name}`.
    fn variable(&mut self, name: &[u8]) -> Result<Vec<u8>, String> {
        let text = String::from_utf8_lossy(name).into_owned();
        if let Some((unit, count)) = text.rsplit_once('*') {
            let count = count
                .parse()
                .map_err(|_| format!("${{{text}}}: how many times?"))?;
            return Ok(unit.repeat(count).into_bytes());
        }
        if let Some(value) = self.known.get(&text) {
            return Ok(value.clone());
        }
        let value = self.ask(&text)?;
        self.known.insert(text, value.clone());
        Ok(value)
    }

    /// The value of a variable that the server knows.
    fn ask(&mut self, text: &str) -> Result<Vec<u8>, String> {
        let of_client = |prefix: &str| text.strip_prefix(prefix).and_then(|name| name.chars().next());
        if text == "port" {
            Ok(self.server.port().to_string().into_bytes())
        } else if let Some(client) = of_client("id:") {
            self.connect(client);
            let id = self
                .client(client)
                .line("CLIENT ID")
                .integer()
                .ok_or("CLIENT ID is no number")?;
            Ok(id.to_string().into_bytes())
        } else if let Some(client) = of_client("addr:") {
            self.connect(client);
            let info = self.client(client).line("CLIENT INFO").text();
            let address = info.split(' ').find_map(|field| field.strip_prefix("addr="));
            Ok(address.ok_or("CLIENT INFO without addr=")?.as_bytes().to_vec())
        } else {
            Err(format!("no such variable: ${{{text}}}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reply::quoted;

    #[test]
    fn a_file_is_read_line_by_line() {
        let text = "# remark\n== One\nSET k \"a b\"\n  !near 5 !resp3\nB: <\n!sleep 7\nSCAN 0\n  !scan\nX\n  !since 7.2 +OK fine\n";
        let dialogues = parse(text).unwrap();
        let steps = &dialogues[0].steps;
        assert_eq!(
            (dialogues.len(), dialogues[0].title.as_str(), steps.len()),
            (1, "One", 5)
        );
        assert_eq!(
            steps[0].action,
            Action::Say(vec![b"SET".to_vec(), b"k".to_vec(), b"a b".to_vec()])
        );
        assert_eq!(
            (&steps[0].rule, steps[0].only, steps[0].line),
            (&Rule::Near(5), Some(Resp::V3), 3)
        );
        assert_eq!((steps[1].client, &steps[1].action), ('B', &Action::Listen));
        assert_eq!(steps[2].action, Action::Sleep(7));
        assert_eq!(
            steps[3].action,
            Action::Scan(vec![b"SCAN".to_vec(), b"0".to_vec()])
        );
        assert_eq!(steps[4].rule, Rule::Expect("+OK fine".to_owned()));
    }

    #[test]
    fn mistakes_in_a_file_are_refused_with_their_line() {
        for (text, reason) in [
            ("SET k v\n", "line 1: no `== title`"),
            ("== T\n!any\n", "line 2: a rule for no command"),
            ("== T\nGET k\n!anny\n", "line 3: no such rule: !anny"),
            ("== T\nGET \"k\n", "line 2: an unbalanced quote"),
            ("== T\nGET \"k\"k\n", "line 2: a closing quote"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(reason), "{error}");
        }
    }

    #[test]
    fn choices_become_steps_that_share_their_rules() {
        let dialogues = parse("== T\nSET ${a|b} ${x*3} ${1|2}\n  !any\nGET a\n").unwrap();
        let said: Vec<String> = dialogues[0].steps.iter().map(told).collect();
        let wanted = [
            "A: SET a \"${x*3}\" 1",
            "A: SET a \"${x*3}\" 2",
            "A: SET b \"${x*3}\" 1",
            "A: SET b \"${x*3}\" 2",
            "A: GET a",
        ];
        assert_eq!(said, wanted);
        let rules: Vec<&Rule> = dialogues[0].steps.iter().map(|step| &step.rule).collect();
        assert_eq!(
            rules,
            [&Rule::Any, &Rule::Any, &Rule::Any, &Rule::Any, &Rule::Same]
        );
    }

    #[test]
    fn words_are_quoted_as_in_redis_cli() {
        let expected: [&[u8]; 5] = [b"a", b"b c", b"\x00\n\"", b"", b"\\x41"];
        assert_eq!(words(r#" a "b c"  "\x00\n\"" "" '\x41' "#).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn any_bytes_survive_quoting(word in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(words(&quoted(&word)).unwrap(), vec![word]);
        }
    }
}
