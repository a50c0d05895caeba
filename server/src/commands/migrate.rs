//! MIGRATE: moves keys to another node. Row, then handler, which runs twice: see [`exec::departure`](crate::exec::departure).

use std::time::Duration;

use shardis_protocol::Arguments;
use shardis_storage::key::Key;
use shardis_storage::rdb::payload;

use super::dump::write_options;
use crate::config::KeyspaceEvents;
use crate::error::ReplyError;
use crate::exec::arguments::{int, is};
use crate::exec::departure::{Cargo, Departure, Landed, Target};
use crate::exec::{CommandResult, Options, Session, View};
use crate::journal::encoded::Encoded;
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, KeySpec, Runs};

/// The commands of this family.
pub(crate) static COMMANDS: &[Command] = &[Command {
    name: "migrate",
    arity: Arity::AtLeast(6),
    flags: Flags::WRITE.union(Flags::MIGRATES),
    acl: Category::KEYSPACE.union(Category::DANGEROUS),
    tips: &["nondeterministic_output"],
    keys: &[
        KeySpec::at(KEY as u8)
            .read_write()
            .access()
            .delete()
            .located(single_key),
        KeySpec::after("KEYS", -2)
            .range(-1, 1, 0)
            .read_write()
            .access()
            .delete()
            .incomplete()
            .located(first_of_several),
    ],
    runs: Runs::OnSessionAndKeys(migrate),
    conceals: Some(is_password),
    doc: &Doc {
        since: "2.6.0",
        complexity: "O(N) for N bytes of values, here and on the other node",
        summary: "Moves keys to another node.",
        history: &[
            ("3.0.0", "The options `COPY` and `REPLACE`."),
            ("3.0.6", "The option `KEYS`."),
            ("4.0.7", "The option `AUTH`."),
            ("6.0.0", "The option `AUTH2`."),
        ],
        args: &[
            Arg::string("host"),
            Arg::integer("port"),
            Arg::one_of(
                "key-selector",
                &[Arg::key("key", 0), Arg::flag("empty-string", "\"\"")],
            ),
            Arg::integer("destination-db"),
            Arg::integer("timeout"),
            Arg::flag("copy", "COPY").since("3.0.0").optional(),
            Arg::flag("replace", "REPLACE").since("3.0.0").optional(),
            Arg::one_of(
                "authentication",
                &[
                    Arg::string("auth")
                        .display("password")
                        .token("AUTH")
                        .since("4.0.7")
                        .optional(),
                    Arg::block("auth2", &[Arg::string("username"), Arg::string("password")])
                        .token("AUTH2")
                        .since("6.0.0")
                        .optional(),
                ],
            )
            .optional(),
            Arg::key("keys", 1)
                .display("key")
                .token("KEYS")
                .since("3.0.6")
                .optional()
                .multiple(),
        ],
        ..Doc::BLANK
    },
    ..Command::BLANK
}];

/// Argument that is the single key; empty if there are several.
const KEY: usize = 3;
/// First argument that is an option.
const OPTIONS: usize = 6;
/// Time after which a silent node is given up, if the client gives none.
const DEFAULT_TIMEOUT_MS: u64 = 1000;

/// Index of the single key. That argument is empty if several keys follow the word KEYS.
fn single_key(args: Arguments<'_>) -> Option<usize> {
    let has_several = args.at(KEY).is_empty() && first_of_several(args).is_some();
    (!has_several).then_some(KEY)
}

/// Index of the first key behind the option KEYS. A password or a key may read like that word, so that all options before it are
/// read as the command reads them.
fn first_of_several(args: Arguments<'_>) -> Option<usize> {
    let mut options = Options::new(args, OPTIONS);
    while let Some(word) = options.word() {
        let values = match word {
            word if is(word, "KEYS") => {
                let first = options.position();
                return (first < args.len() && args.at(KEY).is_empty()).then_some(first);
            }
            word if is(word, "AUTH") => 1,
            word if is(word, "AUTH2") => 2,
            _ => 0,
        };
        for _ in 0..values {
            options.word();
        }
    }
    None
}

/// Whether an argument is a name or a password of AUTH or AUTH2.
fn is_password(args: Arguments<'_>, index: usize) -> bool {
    let follows = |word: &str, distance: usize| {
        index >= OPTIONS + distance && args.get(index - distance).is_some_and(|before| is(before, word))
    };
    follows("AUTH", 1) || follows("AUTH2", 1) || follows("AUTH2", 2)
}

/// A request, parsed.
struct Request<'a> {
    is_copy: bool,
    replaces: bool,
    login: Option<Encoded>,
    /// The keys, as far as the request names them one by one behind KEYS.
    keys: Vec<&'a [u8]>,
    db: i64,
    patience: Duration,
}

impl<'a> Request<'a> {
    fn read(args: Arguments<'a>) -> Result<Self, ReplyError> {
        let mut request = Self {
            is_copy: false,
            replaces: false,
            login: None,
            keys: vec![args.at(KEY)],
            db: 0,
            patience: Duration::from_millis(DEFAULT_TIMEOUT_MS),
        };
        let mut options = Options::new(args, OPTIONS);
        while let Some(word) = options.word() {
            if is(word, "COPY") {
                request.is_copy = true;
            } else if is(word, "REPLACE") {
                request.replaces = true;
            } else if is(word, "AUTH") {
                request.login = Some(login(&[options.value()?]));
            } else if is(word, "AUTH2") {
                request.login = Some(login(&[options.value()?, options.value()?]));
            } else if is(word, "KEYS") {
                if !args.at(KEY).is_empty() {
                    return Err(ReplyError::Fixed(
                        "ERR When using MIGRATE KEYS option, the key argument must be set to the empty string",
                    ));
                }
                request.keys = args.tail(options.position()).iter().collect();
                break;
            } else {
                return Err(ReplyError::Syntax);
            }
        }
        let timeout_ms = int(args.at(5))?;
        request.db = int(args.at(4))?;
        if timeout_ms > 0 {
            request.patience = Duration::from_millis(timeout_ms.unsigned_abs());
        }
        Ok(request)
    }
}

fn login(words: &[&[u8]]) -> Encoded {
    let mut login = Encoded::default();
    let words: Vec<&[u8]> = [b"AUTH".as_slice()].iter().chain(words).copied().collect();
    login.push(words.iter().copied());
    login
}

fn migrate(session: &mut Session<'_>, keyspace: &mut View<'_>) -> CommandResult {
    if let Some(departure) = session.client.departure.take() {
        return arrive(session, keyspace, *departure);
    }
    depart(session, keyspace)
}

/// First run: copies the values, and marks the keys.
fn depart(session: &mut Session<'_>, keyspace: &mut View<'_>) -> CommandResult {
    let request = Request::read(session.args)?;
    let settings = session.node.settings.load();
    let (mut commands, mut keys) = (Encoded::default(), Vec::new());
    let restore: &[u8] = if settings.cluster_enabled {
        b"RESTORE-ASKING"
    } else {
        b"RESTORE"
    };
    let (now_ms, options) = (keyspace.stamp.now_ms, write_options(&settings));
    for &bytes in &request.keys {
        let key = keyspace.key(bytes);
        let Some(entry) = keyspace.read(&key) else {
            continue;
        };
        // 0 stands for no expiry: a key that expires in this millisecond still has one.
        let ttl_ms = entry
            .expiry()
            .map_or(0, |at_ms| (at_ms - now_ms).max(1))
            .to_string();
        let payload = payload::write(entry, options);
        let words: [&[u8]; 5] = [restore, bytes, ttl_ms.as_bytes(), &payload, b"REPLACE"];
        let count = words.len() - usize::from(!request.replaces);
        commands.push(words[..count].iter().copied());
        keys.push(Box::from(bytes));
    }
    if keys.is_empty() {
        session.reply.simple("NOKEY");
        return Ok(());
    }
    if !request.is_copy {
        mark(keyspace, &keys, session.client.id);
    }
    session.client.departure = Some(Box::new(Departure {
        keys,
        is_copy: request.is_copy,
        cargo: Some(Cargo {
            target: target(session.args),
            db: request.db,
            login: request.login,
            patience: request.patience,
            commands,
        }),
        landed: None,
    }));
    Ok(())
}

/// The node that a request names. A port that is no number is 0, at which nobody listens.
fn target(args: Arguments<'_>) -> Target {
    Target {
        host: String::from_utf8_lossy(args.at(1)).into_owned(),
        port: int(args.at(2))
            .ok()
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or_default(),
    }
}

fn mark(keyspace: &mut View<'_>, keys: &[Box<[u8]>], client: u64) {
    for bytes in keys {
        let slot = keyspace.key(bytes).slot;
        keyspace.partition(slot).door.leaving.mark(bytes, client);
    }
}

/// Second run: removes the keys that the other node has.
fn arrive(session: &mut Session<'_>, keyspace: &mut View<'_>, departure: Departure) -> CommandResult {
    let Landed { confirmed, error } = departure.landed.unwrap_or(Landed {
        confirmed: Vec::new(),
        error: Some(ReplyError::Internal),
    });
    let client = session.client.id;
    let mut removed: Vec<&[u8]> = Vec::new();
    for (index, bytes) in departure.keys.iter().enumerate() {
        let key = keyspace.key(bytes);
        let is_ours = !departure.is_copy && keyspace.partition(key.slot).door.leaving.unmark(bytes, client);
        let is_there = confirmed.get(index) == Some(&true);
        if is_ours && is_there && keyspace.peek(&key).is_some() {
            remove(keyspace, &key);
            removed.push(bytes);
        }
    }
    report_removals(session, keyspace, &removed);
    match error {
        Some(error) => Err(error),
        None => {
            session.reply.ok();
            Ok(())
        }
    }
}

fn remove(keyspace: &mut View<'_>, key: &Key<'_>) {
    keyspace.remove(key, keyspace.stamp.lazy_server_del);
    keyspace.signal(key);
    keyspace.notify(KeyspaceEvents::GENERIC, "del", key);
}

/// Replicas and the append-only file delete what has left, whatever became of the rest.
fn report_removals(session: &Session<'_>, keyspace: &mut View<'_>, removed: &[&[u8]]) {
    let Some(&first) = removed.first() else { return };
    let slot = keyspace.key(first).slot;
    keyspace.partition(slot).door.figures.changes += removed.len() as u64;
    if session.recorder.is_on() {
        let words: Vec<&[u8]> = [b"DEL".as_slice()].iter().chain(removed).copied().collect();
        session
            .recorder
            .unit()
            .add(session.client.db, words.iter().copied());
    }
}
