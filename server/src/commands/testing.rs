//! A shell for unit tests of commands: handlers run against real keyspaces without sockets or loops.
//!
//! A [`Shell`] has one client, one or several partitions, and a clock that stands still until it is moved. Rows are
//! found by name in the registry and run as their routing class says. A command on keys gets exactly the partitions
//! that its key specifications name, so that a handler that touches another one panics.
//!
//! | reply | shown as |
//! |---|---|
//! | simple string, error, integer, bulk string | `+OK` `-ERR …` `:1` `"text"` |
//! | null, null array | `nil` `nil*` |
//! | array, set, push, map | `[…, …]` `~[…]` `>[…]` `{key: value, …}` |
//! | double, boolean, big number, verbatim string | `,1.5` `#t` `(123` `=txt:"text"` |

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use shardis_cluster::slot::{shard_of_key, slot_of};
use shardis_protocol::encoder::{Encoder, Resp};
use shardis_protocol::value::{ReplyParser, Value};
use shardis_protocol::{Arguments, Span};
use shardis_storage::entry::Entry;
use shardis_storage::keyspace::{KeyspaceOptions, Layout};
use shardis_storage::memory::Buffer;

use super::catalogue::access_control;
use crate::clock::Clock;
use crate::config::{Config, Settings};
use crate::error::ReplyError;
use crate::exec::client::BufferSizes;
use crate::exec::effect::Outcome;
use crate::exec::view::{Held, Lent, Stamp, View};
use crate::exec::waiter::Waiting;
use crate::exec::watch::WatchToken;
use crate::exec::{
    Carried, Client, Context, Effects, Identity, LoopHandler, Part, Partition, Peer, Roster, Session, Walk,
    WalkHandler, Written,
};
use crate::journal::{Position, Recorder, encoded};
use crate::log::{Level, Log};
use crate::spec::key_spec::keys_of;
use crate::spec::{Arity, Command, Doc, Flags, KeySpec, Registered, Runs};
use crate::state::{Node, Seed};

/// Commands that exist only in tests.
pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "panic",
        arity: Arity::Exactly(2),
        flags: Flags::WRITE,
        keys: &[KeySpec::at(1).read_write()],
        runs: Runs::OnKeys(|ctx| {
            ctx.effects.replace(&[b"SET", ctx.args.at(1), b"half"]);
            panic!("asked to, for key {:?}", ctx.args.at(1))
        }),
        ..PANICS
    },
    Command {
        name: "panic-late",
        arity: Arity::Exactly(2),
        keys: &[KeySpec::at(1).read_only()],
        runs: Runs::OnKeys(|ctx| {
            ctx.reply.whole_bulk(&[b'x'; 20_000]);
            panic!("asked to, behind the reply")
        }),
        ..PANICS
    },
    Command {
        name: "panic-session",
        runs: Runs::OnSession(|_| panic!("asked to")),
        ..PANICS
    },
    Command {
        name: "panic-shard",
        runs: Runs::OnEveryShard(|_| panic!("asked to"), |_, _| Ok(())),
        ..PANICS
    },
    Command {
        name: "panic-loop",
        runs: Runs::OnEveryLoop(|_| panic!("asked to"), |_, _| Ok(())),
        ..PANICS
    },
    Command {
        name: "panic-merge",
        runs: Runs::OnEveryShard(|_| Ok(0), |_, _| panic!("asked to")),
        ..PANICS
    },
    Command {
        name: "panic-merge-loops",
        runs: Runs::OnEveryLoop(|_| Ok(Part::default()), |_, _| panic!("asked to")),
        ..PANICS
    },
    Command {
        name: "panic-all",
        runs: Runs::OnAllShards(|_| panic!("asked to")),
        ..PANICS
    },
];

const PANICS: Command = Command {
    doc: &Doc {
        since: "0.0.0",
        summary: "Panics, as a faulty handler might.",
        ..Doc::BLANK
    },
    ..Command::BLANK
};

/// Start of a shell's clock, Unix milliseconds.
pub(crate) const START_MS: i64 = 1_700_000_000_000;

const SEED: u64 = 7;

/// A client of a node without loops.
pub(crate) struct Shell {
    /// The client that runs the commands: its database, protocol and flags may be changed between them.
    pub(crate) client: Client,
    /// Clients of another loop, for commands over all connections.
    pub(crate) others: Vec<Client>,
    /// The state that all loops share.
    pub(crate) node: Node,
    /// The configuration that commands on keys see.
    pub(crate) settings: Settings,
    /// Time and rules of access; move the time with [`Shell::advance`].
    pub(crate) stamp: Stamp,
    /// Records what commands on the client and the node report.
    pub(crate) recorder: Recorder,
    partitions: Lent,
}

/// Result of one command.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The reply in the notation of this module.
    pub(crate) reply: String,
    /// The commands that replicas repeat, words joined by spaces.
    pub(crate) effects: Vec<String>,
    /// Number of changes counted.
    pub(crate) changes: u64,
    /// The reply as sent.
    pub(crate) raw: Vec<u8>,
}

impl Shell {
    /// A shell over one partition.
    pub(crate) fn new() -> Self {
        Self::over(1)
    }

    /// A shell over so many partitions: keys go to that of their slot.
    pub(crate) fn over(shards: usize) -> Self {
        let clock = Arc::new(Clock::manual(Duration::from_millis(START_MS as u64)));
        let acl = access_control(&Config::default()).expect("the configuration names no users");
        let node = Node::new(
            (Config::default(), acl, clock, Log::new(Level::Nothing)),
            (shards, super::registry().rows(), Seed::chosen(SEED)),
        );
        let settings = Settings::clone(&node.settings.load());
        let partition = |shard| {
            let options = KeyspaceOptions {
                databases: settings.databases as usize,
                layout: Layout::Single,
                hasher: node.hashing.hasher(),
                slot_of: |key| slot_of(key).number(),
            };
            // Removals are noted only where somebody listens.
            Some(Box::new(Partition::new(
                shard,
                options,
                SEED,
                Arc::new(AtomicBool::new(true)),
            )))
        };
        let mut partitions = Lent::new(shards);
        for (shard, place) in partitions.iter_mut().enumerate() {
            *place = partition(shard);
        }
        let peer = Peer::Tcp {
            remote: SocketAddr::from((Ipv4Addr::LOCALHOST, 50_000)),
            local: SocketAddr::from((Ipv4Addr::LOCALHOST, 6379)),
        };
        Self {
            client: Client::new(
                node.next_client_id(),
                peer,
                8,
                START_MS,
                Identity::of_new_client(&node.acl.users()),
            ),
            others: Vec::new(),
            settings: settings.clone(),
            stamp: Stamp::new(&settings, START_MS, false),
            recorder: Recorder::default(),
            partitions,
            node,
        }
    }

    /// The same shell with a client that speaks RESP3.
    pub(crate) fn resp3(mut self) -> Self {
        self.client.resp = Resp::V3;
        self
    }

    /// Moves the clock forward.
    pub(crate) fn advance(&mut self, ms: i64) {
        self.stamp.now_ms += ms;
        self.stamp.wall_ms += ms;
        self.node.clock.advance(Duration::from_millis(ms as u64));
    }

    /// Watches a key in the client's database.
    pub(crate) fn watch(&mut self, key: &str) -> Arc<WatchToken> {
        let (shard, db) = (self.shard_of(key.as_bytes()), self.client.db);
        let token = Arc::default();
        self.partition(shard)
            .door
            .watches
            .add(db, key.as_bytes(), &token, false);
        token
    }

    /// A partition, for a test to look at.
    pub(crate) fn partition(&mut self, shard: usize) -> &mut Partition {
        self.partitions[shard].as_deref_mut().unwrap()
    }

    /// Result of `look` on the entry of a key in the client's database, expired or not.
    pub(crate) fn entry<T>(&mut self, key: &str, look: impl FnOnce(&Entry) -> T) -> Option<T> {
        let (shard, db) = (self.shard_of(key.as_bytes()), usize::from(self.client.db));
        let key = self.node.hashing.key(key.as_bytes());
        self.partition(shard).keyspace.database(db).peek(&key).map(look)
    }

    /// Runs a command line: words separated by spaces; within double quotes `\xHH`, `\r`, `\n` and `\"` are escapes.
    #[track_caller]
    pub(crate) fn run(&mut self, line: &str) -> Answer {
        let words = words(line);
        self.run_words(&words.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    /// Runs the words of a command.
    #[track_caller]
    pub(crate) fn run_words(&mut self, words: &[&[u8]]) -> Answer {
        self.run_request(words, None)
    }

    /// Runs a command whose argument `index` is in a buffer of its own, which may be kept.
    #[track_caller]
    pub(crate) fn run_adopting(&mut self, line: &str, index: usize) -> Answer {
        let mut words = words(line);
        let mut buffer = Buffer::new();
        buffer.extend(&std::mem::take(&mut words[index]));
        self.run_request(
            &words.iter().map(Vec::as_slice).collect::<Vec<_>>(),
            Some((index, buffer)),
        )
    }

    /// Runs lines and compares their replies.
    #[track_caller]
    pub(crate) fn check(&mut self, rows: &[(&str, &str)]) {
        for (line, reply) in rows {
            assert_eq!(self.run(line).reply, *reply, "{line}");
        }
    }

    /// Runs lines and compares their replies and effects.
    #[track_caller]
    pub(crate) fn check_effects(&mut self, rows: &[(&str, &str, &[&str])]) {
        for (line, reply, effects) in rows {
            let answer = self.run(line);
            assert_eq!(answer.reply, *reply, "{line}");
            assert_eq!(answer.effects, *effects, "{line}");
        }
    }

    #[track_caller]
    fn run_request(&mut self, words: &[&[u8]], adopted: Option<(usize, Buffer)>) -> Answer {
        let bytes = words.concat();
        let mut start = 0;
        let spans: Vec<Span> = words
            .iter()
            .map(|word| {
                let span = Span::new(start, word.len()).unwrap();
                start += word.len();
                span
            })
            .collect();
        let args = Arguments::new(&bytes, &spans, &[]);
        let mut effects = Effects::new(true);
        let mut raw = Vec::new();
        if let Err(error) = self.dispatch(args, adopted, &mut effects, &mut raw) {
            raw.clear();
            Encoder::new(&mut raw, self.client.resp).error(error.line());
        }
        let changes = effects.changes();
        let repeated = match effects.take() {
            Outcome::Nothing => Vec::new(),
            Outcome::Verbatim => vec![words.iter().map(|word| word.to_vec()).collect()],
            Outcome::Commands(commands) => commands.iter().map(encoded::words).collect(),
        };
        Answer {
            reply: show_all(&raw),
            effects: self
                .expired()
                .into_iter()
                .chain(repeated)
                .map(|words| show_words(&words))
                .collect(),
            changes,
            raw,
        }
    }

    /// The removals of expired keys that were found: they precede the effects of the command that found them.
    fn expired(&mut self) -> Vec<Vec<Vec<u8>>> {
        let partitions = self.partitions.iter_mut().flatten();
        let removals = partitions.flat_map(|partition| partition.door.removals.drain(..));
        removals.map(|effect| effect.words).collect()
    }

    fn dispatch(
        &mut self,
        args: Arguments<'_>,
        adopted: Option<(usize, Buffer)>,
        effects: &mut Effects,
        out: &mut Vec<u8>,
    ) -> Result<(), ReplyError> {
        let known = find(args)?;
        if !known.row.arity.accepts(args.len()) {
            return Err(ReplyError::arity(known.full_name.clone()));
        }
        match known.row.runs {
            Runs::OnSession(handler) => handler(&mut self.session(args, out)),
            Runs::OnKeys(handler) | Runs::OnKeysLong(handler) | Runs::Blocking(handler) => {
                let shards = self.shards_of_keys(known, args);
                self.on_shards(&shards, args, adopted, effects, out, handler)
            }
            Runs::OnAllShards(handler) | Runs::OnSlot(handler) => {
                let shards: Vec<_> = (0..self.partitions.len()).collect();
                self.on_shards(&shards, args, adopted, effects, out, handler)
            }
            Runs::OnCursorShards(handler, reply) => self.walk(args, effects, handler).map(|found| {
                reply(&mut Encoder::new(out, self.client.resp), &found);
            }),
            Runs::OnEveryShard(handler, merge) => {
                let mut parts = Vec::new();
                for shard in 0..self.partitions.len() {
                    let mut bytes = Vec::new();
                    let count = self.on_shards(&[shard], args, None, effects, &mut bytes, handler)?;
                    parts.push(Part {
                        count,
                        bytes,
                        ..Part::default()
                    });
                }
                merge(&mut self.session(args, out), &parts)
            }
            Runs::OnEveryLoop(handler, merge) => {
                let parts = self.parts_of_loops(args, handler)?;
                merge(&mut self.session(args, out), &parts)
            }
            Runs::OnSessionAndKeys(handler) | Runs::OnSessionAndAllShards(handler) => {
                let mut session = Session {
                    args,
                    reply: Encoder::new(out, self.client.resp),
                    client: &mut self.client,
                    node: &self.node,
                    recorder: &self.recorder,
                    reload: None,
                    now_ms: self.stamp.now_ms,
                };
                let db = session.client.db;
                let held = Held::Many(&mut self.partitions);
                handler(
                    &mut session,
                    &mut View::new(held, self.node.hashing, &self.stamp, db),
                )
            }
            Runs::Exec | Runs::Script(_) | Runs::Container => panic!("run by the event loop"),
        }
    }

    /// Parts of the client's loop and of the other loops.
    fn parts_of_loops(&mut self, args: Arguments<'_>, handler: LoopHandler) -> Result<[Part; 2], ReplyError> {
        let (asker, now_ms) = (self.client.id, self.stamp.now_ms);
        let users = self.node.acl.users();
        let part = |clients| {
            handler(&mut Roster {
                args,
                asker,
                users: &users,
                clients,
                now_ms,
            })
        };
        let carried = |client| Carried {
            client,
            buffers: BufferSizes::default(),
        };
        let own = part(Box::new(std::iter::once(&mut self.client).map(carried)))?;
        let other = part(Box::new(self.others.iter_mut().map(carried)))?;
        Ok([own, other])
    }

    fn session<'s>(&'s mut self, args: Arguments<'s>, out: &'s mut Vec<u8>) -> Session<'s> {
        Session {
            args,
            reply: Encoder::new(out, self.client.resp),
            client: &mut self.client,
            node: &self.node,
            recorder: &self.recorder,
            reload: None,
            now_ms: self.stamp.now_ms,
        }
    }

    fn shard_of(&self, key: &[u8]) -> usize {
        shard_of_key(key, self.partitions.len())
    }

    /// The shards of the keys of a request, ascending.
    fn shards_of_keys(&self, known: &Registered, args: Arguments<'_>) -> Vec<usize> {
        if known.row.keys.iter().any(|spec| spec.derives_keys(args)) {
            return (0..self.partitions.len()).collect();
        }
        let mut shards = Vec::new();
        let found = keys_of(known.row.keys, args, |position, _| {
            shards.push(self.shard_of(args.at(position)));
        });
        if found.is_err() {
            // Any shard will do: the handler reports the wrong number of keys before it looks for one.
            return vec![0];
        }
        shards.sort_unstable();
        shards.dedup();
        shards
    }

    /// One call of a walk, from shard to shard.
    fn walk(
        &mut self,
        args: Arguments<'_>,
        effects: &mut Effects,
        handler: WalkHandler,
    ) -> Result<Part, ReplyError> {
        let shards = self.partitions.len();
        let mut walk = Walk::at(args.at(1), shards)?;
        loop {
            let mut bytes = std::mem::take(&mut walk.found.bytes);
            let shard = walk.shard;
            self.on_shards(&[shard], args, None, effects, &mut bytes, |ctx| {
                handler(ctx, &mut walk)
            })?;
            walk.found.bytes = bytes;
            if !walk.advance(shards) {
                return Ok(walk.end(shards));
            }
        }
    }

    /// Calls `act` with the partitions of these shards and no others.
    fn on_shards<T>(
        &mut self,
        shards: &[usize],
        args: Arguments<'_>,
        adopted: Option<(usize, Buffer)>,
        effects: &mut Effects,
        out: &mut Vec<u8>,
        run: impl FnOnce(&mut Context<'_>) -> Result<T, ReplyError>,
    ) -> Result<T, ReplyError> {
        let count = self.partitions.len();
        let mut lent = Lent::new(count);
        for &shard in shards {
            lent[shard] = self.partitions[shard].take();
        }
        lent.begin();
        let held = match shards {
            [shard] => Held::One(lent[*shard].as_deref_mut().unwrap()),
            _ => Held::Many(&mut lent),
        };
        let mut keyspace = View::new(held, self.node.hashing, &self.stamp, self.client.db);
        keyspace.no_touch = self.client.no_touch;
        let mut ctx = Context {
            args,
            reply: Encoder::new(out, self.client.resp),
            keyspace,
            effects,
            settings: &self.settings,
            shards: count,
            routed: None,
            adopted,
            waiting: Waiting::Denied,
            written: Written::new(&self.node, Position::default()),
        };
        let result = run(&mut ctx);
        drop(ctx);
        if shards.len() != 1 {
            lent.settle();
        }
        for &shard in shards {
            self.partitions[shard] = lent[shard].take();
        }
        result
    }
}

impl std::fmt::Debug for Shell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shell")
            .field("client", &self.client.id)
            .finish_non_exhaustive()
    }
}

/// The row of a request; if the command is a container, that of the subcommand.
fn find(args: Arguments<'_>) -> Result<&'static Registered, ReplyError> {
    let shown = String::from_utf8_lossy(args.at(0)).into_owned();
    let known = super::registry()
        .find(args.at(0))
        .ok_or_else(|| ReplyError::UnknownCommand(shown.clone().into_bytes()))?;
    if known.subcommands.is_empty() {
        return Ok(known);
    }
    match args.get(1) {
        None if matches!(known.row.runs, Runs::Container) => Err(ReplyError::arity(known.full_name.clone())),
        None => Ok(known),
        Some(word) => known
            .subcommand(word)
            .ok_or(ReplyError::UnknownCommand(shown.into_bytes())),
    }
}

/// The words of a line. Quotes group characters, and within them a backslash escapes.
pub(crate) fn words(line: &str) -> Vec<Vec<u8>> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<Vec<u8>>, false);
    let mut bytes = line.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            b' ' if !quoted => words.extend(word.take()),
            b'\\' if quoted => word.get_or_insert_default().push(match bytes.next() {
                Some(b'x') => {
                    let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                other => other.unwrap(),
            }),
            other => word.get_or_insert_default().push(other),
        }
    }
    assert!(!quoted, "a quote stays open: {line}");
    words.extend(word);
    words
}

fn show_words(words: &[Vec<u8>]) -> String {
    let show = |word: &Vec<u8>| {
        if word.is_empty() {
            "\"\"".to_owned()
        } else {
            word.escape_ascii().to_string()
        }
    };
    words.iter().map(show).collect::<Vec<_>>().join(" ")
}

/// All replies in these bytes, which must be complete.
fn show_all(mut raw: &[u8]) -> String {
    let (mut parser, mut shown) = (ReplyParser::default(), Vec::new());
    while !raw.is_empty() {
        let (value, end) = parser
            .parse(raw)
            .expect("a reply is well formed")
            .expect("a reply is complete");
        shown.push(show(&value));
        raw = &raw[end..];
    }
    shown.join(" ")
}

/// One reply in the notation of this module.
pub(crate) fn show(value: &Value) -> String {
    let list = |values: &[Value]| format!("[{}]", values.iter().map(show).collect::<Vec<_>>().join(", "));
    let pairs = |pairs: &[(Value, Value)]| {
        let shown: Vec<_> = pairs
            .iter()
            .map(|(key, value)| format!("{}: {}", show(key), show(value)))
            .collect();
        format!("{{{}}}", shown.join(", "))
    };
    match value {
        Value::Simple(text) => format!("+{}", text.escape_ascii()),
        Value::Error(line) => format!("-{}", String::from_utf8_lossy(line)),
        Value::Integer(integer) => format!(":{integer}"),
        Value::Bulk(bytes) => format!("\"{}\"", bytes.escape_ascii()),
        Value::Null => "nil".to_owned(),
        Value::NullArray => "nil*".to_owned(),
        Value::Double(double) => format!(",{double}"),
        Value::Boolean(boolean) => if *boolean { "#t" } else { "#f" }.to_owned(),
        Value::BigNumber(digits) => format!("({}", digits.escape_ascii()),
        Value::Verbatim { format, text } => format!("={}:\"{}\"", format.escape_ascii(), text.escape_ascii()),
        Value::Array(values) => list(values),
        Value::Set(values) => format!("~{}", list(values)),
        Value::Push(values) => format!(">{}", list(values)),
        Value::Map(entries) => pairs(entries),
        Value::Attribute { attributes, value } => format!("|{} {}", pairs(attributes), show(value)),
    }
}

#[test]
fn lines_are_split_into_words() {
    assert_eq!(
        words(r#"SET  k "" "a b\x00\n\"""#),
        [&b"SET"[..], b"k", b"", b"a b\0\n\""]
    );
}

#[test]
fn replies_are_shown_by_their_type() {
    for (raw, shown) in [
        ("*3\r\n$-1\r\n:1\r\n+OK\r\n", "[nil, :1, +OK]"),
        ("*-1\r\n", "nil*"),
        ("%1\r\n$1\r\na\r\n~1\r\n,1.5\r\n", "{\"a\": ~[,1.5]}"),
        ("-ERR x\r\n:2\r\n", "-ERR x :2"),
    ] {
        assert_eq!(show_all(raw.as_bytes()), shown);
    }
}
