//! Commands on keys of any type: removing, renaming, copying and moving them, their expiry, and walking over them.
//!
//! Nothing in this file looks at values, so that every handler works for all types. In effects, an expiry is a point
//! in time, and one that has passed is a removal: replicas never have to ask the clock.

use rand::RngExt;
use shardis_protocol::{Arguments, Encoder};
use shardis_storage::entry::Entry;
use shardis_storage::glob;
use shardis_storage::key::Key;
use shardis_storage::keyspace::{Database, OnExpired};
use shardis_storage::value::Kind;

use crate::config::KeyspaceEvents;
use crate::error::ReplyError;
use crate::exec::arguments::{database, int, is};
use crate::exec::{CommandResult, Context, Expiration, Options, Part, Partition, ScanOptions, Session, Walk};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, KeySpec, Runs};

const CONDITION: Arg = Arg::one_of(
    "condition",
    &[
        Arg::flag("nx", "NX"),
        Arg::flag("xx", "XX"),
        Arg::flag("gt", "GT"),
        Arg::flag("lt", "LT"),
    ],
)
.since("7.0.0")
.optional();

const CONDITION_HISTORY: &[(&str, &str)] = &[("7.0.0", "Conditions: `NX`, `XX`, `GT` and `LT`.")];
const MISSING_HISTORY: &[(&str, &str)] = &[("2.8.0", "A missing key is told by -2.")];
const PER_SHARD_SUM: &[&str] = &["request_policy:multi_shard", "response_policy:agg_sum"];

pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "del",
        arity: Arity::AtLeast(2),
        flags: Flags::WRITE,
        acl: Category::KEYSPACE,
        tips: PER_SHARD_SUM,
        keys: &[KeySpec::from(1, 1).remove().delete()],
        runs: Runs::OnKeys(del),
        doc: &Doc {
            since: "1.0.0",
            complexity: "O(N) for N keys that hold strings; for each other key add the number of elements it holds",
            summary: "Removes keys together with their values.",
            args: &[Arg::key("key", 0).multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "unlink",
        arity: Arity::AtLeast(2),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Category::KEYSPACE,
        tips: PER_SHARD_SUM,
        keys: &[KeySpec::from(1, 1).remove().delete()],
        runs: Runs::OnKeys(unlink),
        doc: &Doc {
            since: "4.0.0",
            complexity: "O(N) for N keys, whatever they hold; the memory of large values is given back later, piece by piece",
            summary: "Removes keys at once and frees their values in the background.",
            args: &[Arg::key("key", 0).multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "exists",
        arity: Arity::AtLeast(2),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::KEYSPACE,
        tips: PER_SHARD_SUM,
        keys: &[KeySpec::from(1, 1).read_only()],
        runs: Runs::OnKeys(exists),
        doc: &Doc {
            since: "1.0.0",
            complexity: "O(N) for N keys",
            summary: "Counts how many of the named keys are there; a key named twice counts twice.",
            history: &[("3.0.3", "Several keys in one request.")],
            args: &[Arg::key("key", 0).multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "touch",
        arity: Arity::AtLeast(2),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::KEYSPACE,
        tips: PER_SHARD_SUM,
        keys: &[KeySpec::from(1, 1).read_only()],
        runs: Runs::OnKeys(touch),
        doc: &Doc {
            since: "3.2.1",
            complexity: "O(N) for N keys",
            summary: "Marks keys as used just now and counts those that are there.",
            args: &[Arg::key("key", 0).multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "type",
        arity: Arity::Exactly(2),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::KEYSPACE,
        keys: &[KeySpec::at(1).read_only()],
        runs: Runs::OnKeys(kind),
        doc: &Doc {
            since: "1.0.0",
            complexity: "O(1)",
            summary: "Names the type of the value under a key.",
            args: &[Arg::key("key", 0)],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "rename",
        arity: Arity::Exactly(3),
        flags: Flags::WRITE,
        acl: Category::KEYSPACE,
        keys: &[
            KeySpec::at(1).read_write().access().delete(),
            KeySpec::at(2).overwrite().update(),
        ],
        runs: Runs::OnKeys(rename),
        doc: &Doc {
            since: "1.0.0",
            complexity: "O(1)",
            summary: "Gives a value another key, replacing what was there.",
            args: &[Arg::key("key", 0), Arg::key("newkey", 1)],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "renamenx",
        arity: Arity::Exactly(3),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Category::KEYSPACE,
        keys: &[
            KeySpec::at(1).read_write().access().delete(),
            KeySpec::at(2).overwrite().insert(),
        ],
        runs: Runs::OnKeys(renamenx),
        doc: &Doc {
            since: "1.0.0",
            complexity: "O(1)",
            summary: "Gives a value another key, unless that key is taken.",
            history: &[("3.2.0", "The same name twice is no error any more.")],
            args: &[Arg::key("key", 0), Arg::key("newkey", 1)],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "copy",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::ELSEWHERE),
        acl: Category::KEYSPACE,
        keys: &[
            KeySpec::at(1).read_only().access(),
            KeySpec::at(2).overwrite().update(),
        ],
        runs: Runs::OnKeys(copy),
        doc: &Doc {
            since: "6.2.0",
            complexity: "O(1) for a string, O(N) for a collection of N elements",
            summary: "Stores a copy of a value under another key.",
            args: &[
                Arg::key("source", 0),
                Arg::key("destination", 1),
                Arg::integer("destination-db").token("DB").optional(),
                Arg::flag("replace", "REPLACE").optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "move",
        arity: Arity::Exactly(3),
        flags: Flags::WRITE.union(Flags::FAST).union(Flags::ELSEWHERE),
        acl: Category::KEYSPACE,
        keys: &[KeySpec::at(1).read_write().access().update()],
        runs: Runs::OnKeys(move_key),
        doc: &Doc {
            since: "1.0.0",
            complexity: "O(1)",
            summary: "Takes a key to another database, unless that one has it already.",
            args: &[Arg::key("key", 0), Arg::integer("db")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "expire",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Category::KEYSPACE,
        keys: &[KeySpec::at(1).read_write().update()],
        runs: Runs::OnKeys(expire),
        doc: &Doc {
            since: "1.0.0",
            complexity: "O(1)",
            summary: "Lets a key live for so many seconds from now.",
            history: CONDITION_HISTORY,
            args: &[Arg::key("key", 0), Arg::integer("seconds"), CONDITION],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "pexpire",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Category::KEYSPACE,
        keys: &[KeySpec::at(1).read_write().update()],
        runs: Runs::OnKeys(pexpire),
        doc: &Doc {
            since: "2.6.0",
            complexity: "O(1)",
            summary: "Lets a key live for so many milliseconds from now.",
            history: CONDITION_HISTORY,
            args: &[Arg::key("key", 0), Arg::integer("milliseconds"), CONDITION],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "expireat",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Category::KEYSPACE,
        keys: &[KeySpec::at(1).read_write().update()],
        runs: Runs::OnKeys(expireat),
        doc: &Doc {
            since: "1.2.0",
            complexity: "O(1)",
            summary: "Lets a key live until a point in time, given in seconds.",
            history: CONDITION_HISTORY,
            args: &[Arg::key("key", 0), Arg::unix_time("unix-time-seconds"), CONDITION],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "pexpireat",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Category::KEYSPACE,
        keys: &[KeySpec::at(1).read_write().update()],
        runs: Runs::OnKeys(pexpireat),
        doc: &Doc {
            since: "2.6.0",
            complexity: "O(1)",
            summary: "Lets a key live until a point in time, given in milliseconds.",
            history: CONDITION_HISTORY,
            args: &[
                Arg::key("key", 0),
                Arg::unix_time("unix-time-milliseconds"),
                CONDITION,
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "ttl",
        arity: Arity::Exactly(2),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::KEYSPACE,
        tips: &["nondeterministic_output"],
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeys(ttl),
        doc: &Doc {
            since: "1.0.0",
            complexity: "O(1)",
            summary: "Tells how many seconds a key has left.",
            history: MISSING_HISTORY,
            args: &[Arg::key("key", 0)],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "pttl",
        arity: Arity::Exactly(2),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::KEYSPACE,
        tips: &["nondeterministic_output"],
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeys(pttl),
        doc: &Doc {
            since: "2.6.0",
            complexity: "O(1)",
            summary: "Tells how many milliseconds a key has left.",
            history: MISSING_HISTORY,
            args: &[Arg::key("key", 0)],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "expiretime",
        arity: Arity::Exactly(2),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::KEYSPACE,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeys(expiretime),
        doc: &Doc {
            since: "7.0.0",
            complexity: "O(1)",
            summary: "Tells the point in time, in seconds, at which a key ends.",
            args: &[Arg::key("key", 0)],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "pexpiretime",
        arity: Arity::Exactly(2),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::KEYSPACE,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeys(pexpiretime),
        doc: &Doc {
            since: "7.0.0",
            complexity: "O(1)",
            summary: "Tells the point in time, in milliseconds, at which a key ends.",
            args: &[Arg::key("key", 0)],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "persist",
        arity: Arity::Exactly(2),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Category::KEYSPACE,
        keys: &[KeySpec::at(1).read_write().update()],
        runs: Runs::OnKeys(persist),
        doc: &Doc {
            since: "2.2.0",
            complexity: "O(1)",
            summary: "Lets a key live on without an end.",
            args: &[Arg::key("key", 0)],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "keys",
        arity: Arity::Exactly(2),
        flags: Flags::READONLY,
        acl: Category::KEYSPACE.union(Category::DANGEROUS),
        tips: &["request_policy:all_shards", "nondeterministic_output_order"],
        runs: Runs::OnEveryShard(keys, merge_elements),
        doc: &Doc {
            since: "1.0.0",
            complexity: "O(N) for N keys in the database, if pattern and keys are short",
            summary: "Lists the keys that match a pattern.",
            args: &[Arg::pattern("pattern")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "scan",
        arity: Arity::AtLeast(2),
        flags: Flags::READONLY,
        acl: Category::KEYSPACE,
        tips: &[
            "nondeterministic_output",
            "request_policy:special",
            "response_policy:special",
        ],
        runs: Runs::OnCursorShards(scan, answer_scan),
        doc: &Doc {
            since: "2.8.0",
            complexity: "O(1) a call, O(N) for a walk over all N keys",
            summary: "Walks over the keys of a database, a few with each call.",
            history: &[("6.0.0", "The `TYPE` option.")],
            args: &[
                Arg::integer("cursor"),
                Arg::pattern("pattern").token("MATCH").optional(),
                Arg::integer("count").token("COUNT").optional(),
                Arg::string("type").token("TYPE").since("6.0.0").optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "randomkey",
        arity: Arity::Exactly(1),
        flags: Flags::READONLY,
        acl: Category::KEYSPACE,
        tips: &[
            "request_policy:all_shards",
            "response_policy:special",
            "nondeterministic_output",
        ],
        runs: Runs::OnEveryShard(randomkey, merge_randomkey),
        doc: &Doc {
            since: "1.0.0",
            complexity: "O(1)",
            summary: "Names a key picked by chance.",
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
];

fn del(ctx: &mut Context<'_>) -> CommandResult {
    let lazily = ctx.keyspace.stamp.lazy_user_del;
    remove_all(ctx, lazily)
}

fn unlink(ctx: &mut Context<'_>) -> CommandResult {
    remove_all(ctx, true)
}

fn remove_all(ctx: &mut Context<'_>, lazily: bool) -> CommandResult {
    let mut removed = 0;
    for index in 1..ctx.args.len() {
        let key = ctx.key(index);
        // The look-up comes first because the removal of an expired key is not the work of this command.
        if ctx.keyspace.peek(&key).is_some() {
            ctx.keyspace.remove(&key, lazily);
            ctx.modified(&key);
            ctx.notify(KeyspaceEvents::GENERIC, "del", &key);
            removed += 1;
        }
    }
    ctx.reply.integer(removed);
    Ok(())
}

fn exists(ctx: &mut Context<'_>) -> CommandResult {
    let mut found = 0;
    for index in 1..ctx.args.len() {
        let key = ctx.key(index);
        found += i64::from(ctx.keyspace.inspect(&key).is_some());
    }
    ctx.reply.integer(found);
    Ok(())
}

fn touch(ctx: &mut Context<'_>) -> CommandResult {
    // CLIENT NO-TOUCH is about side effects; here the access is the purpose of the command.
    let no_touch = std::mem::take(&mut ctx.keyspace.no_touch);
    let mut found = 0;
    for index in 1..ctx.args.len() {
        let key = ctx.key(index);
        found += i64::from(ctx.keyspace.read(&key).is_some());
    }
    ctx.keyspace.no_touch = no_touch;
    ctx.reply.integer(found);
    Ok(())
}

fn kind(ctx: &mut Context<'_>) -> CommandResult {
    let key = ctx.key(1);
    let name = ctx
        .keyspace
        .inspect(&key)
        .map_or("none", |entry| entry.kind().name());
    ctx.reply.simple(name);
    Ok(())
}

fn rename(ctx: &mut Context<'_>) -> CommandResult {
    let (from, to) = (ctx.key(1), ctx.key(2));
    ctx.keyspace.write(&from).ok_or(ReplyError::NoSuchKey)?;
    if from.bytes != to.bytes {
        let lazily = ctx.keyspace.stamp.lazy_server_del;
        if ctx.keyspace.write(&to).is_some() {
            ctx.keyspace.remove(&to, lazily);
        }
        carry(ctx, &from, &to);
    }
    ctx.reply.ok();
    Ok(())
}

fn renamenx(ctx: &mut Context<'_>) -> CommandResult {
    let (from, to) = (ctx.key(1), ctx.key(2));
    ctx.keyspace.write(&from).ok_or(ReplyError::NoSuchKey)?;
    let free = from.bytes != to.bytes && ctx.keyspace.write(&to).is_none();
    if free {
        carry(ctx, &from, &to);
    }
    ctx.reply.integer(free.into());
    Ok(())
}

/// Moves a value with its expiry and its access clock to a key that does not exist. Redis counts this as one change.
fn carry(ctx: &mut Context<'_>, from: &Key<'_>, to: &Key<'_>) {
    if let Some(value) = ctx.keyspace.take(from) {
        let clock = value.clock();
        ctx.keyspace.put(to, value, clock);
        ctx.keyspace.signal(from);
        ctx.modified(to);
        ctx.notify(KeyspaceEvents::GENERIC, "rename_from", from);
        ctx.notify(KeyspaceEvents::GENERIC, "rename_to", to);
    }
}

fn copy(ctx: &mut Context<'_>) -> CommandResult {
    let (db, replace) = copy_options(ctx)?;
    if ctx.settings.cluster_enabled && db != 0 {
        return Err(ReplyError::Fixed(
            "ERR Copying to another database is not allowed in cluster mode",
        ));
    }
    let (from, to) = (ctx.key(1), ctx.key(2));
    if db == ctx.keyspace.db && from.bytes == to.bytes {
        return Err(ReplyError::SameObject);
    }
    let copied = ctx.keyspace.read(&from).is_some() && store_copy(ctx, &from, &to, db, replace);
    ctx.reply.integer(copied.into());
    Ok(())
}

/// Reads the options DB and REPLACE.
fn copy_options(ctx: &Context<'_>) -> Result<(u16, bool), ReplyError> {
    let (mut db, mut replace) = (ctx.keyspace.db, false);
    let mut options = Options::new(ctx.args, 3);
    while let Some(word) = options.word() {
        if is(word, "REPLACE") {
            replace = true;
        } else if is(word, "DB") {
            db = database(options.value()?, ctx.settings.databases as usize)?;
        } else {
            return Err(ReplyError::Syntax);
        }
    }
    Ok((db, replace))
}

fn store_copy(ctx: &mut Context<'_>, from: &Key<'_>, to: &Key<'_>, db: u16, replace: bool) -> bool {
    let taken = ctx.keyspace.in_database(db, |view| view.write(to).is_some());
    if taken && !replace {
        return false;
    }
    let Some(value) = ctx.keyspace.duplicate(from) else {
        return false;
    };
    ctx.keyspace.in_database(db, |view| {
        if taken {
            view.remove(to, view.stamp.lazy_server_del);
        }
        let clock = view.stamp.clock;
        view.put(to, value, clock);
        view.modified(to, ctx.effects);
        view.notify(KeyspaceEvents::GENERIC, "copy_to", to);
    });
    true
}

fn move_key(ctx: &mut Context<'_>) -> CommandResult {
    if ctx.settings.cluster_enabled {
        return Err(ReplyError::Fixed("ERR MOVE is not allowed in cluster mode"));
    }
    let db = database(ctx.args.at(2), ctx.settings.databases as usize)?;
    if db == ctx.keyspace.db {
        return Err(ReplyError::SameObject);
    }
    let key = ctx.key(1);
    let free =
        ctx.keyspace.write(&key).is_some() && ctx.keyspace.in_database(db, |view| view.write(&key).is_none());
    if free && let Some(value) = ctx.keyspace.take(&key) {
        ctx.keyspace.signal(&key);
        ctx.keyspace.in_database(db, |view| {
            let clock = value.clock();
            view.put(&key, value, clock);
            view.modified(&key, ctx.effects);
        });
        ctx.notify(KeyspaceEvents::GENERIC, "move_from", &key);
        ctx.keyspace.in_database(db, |view| {
            view.notify(KeyspaceEvents::GENERIC, "move_to", &key);
        });
    }
    ctx.reply.integer(free.into());
    Ok(())
}

fn expire(ctx: &mut Context<'_>) -> CommandResult {
    set_expiry(ctx, Expiration::EX, "expire")
}

fn pexpire(ctx: &mut Context<'_>) -> CommandResult {
    set_expiry(ctx, Expiration::PX, "pexpire")
}

fn expireat(ctx: &mut Context<'_>) -> CommandResult {
    set_expiry(ctx, Expiration::EXAT, "expireat")
}

fn pexpireat(ctx: &mut Context<'_>) -> CommandResult {
    set_expiry(ctx, Expiration::PXAT, "pexpireat")
}

fn set_expiry(ctx: &mut Context<'_>, way: Expiration, command: &'static str) -> CommandResult {
    let condition = Condition::parse(ctx.args)?;
    let at_ms = way
        .resolve(int(ctx.args.at(2))?, ctx.wall_ms())
        .ok_or(ReplyError::InvalidExpire(command))?;
    let key = ctx.key(1);
    let met = ctx
        .keyspace
        .write(&key)
        .is_some_and(|entry| condition.allows(entry.expiry(), at_ms));
    if met {
        let on_expired = ctx.keyspace.stamp.on_expired;
        // A node that leaves the removal of expired keys to another node keeps this key, too.
        if at_ms <= ctx.now_ms() && on_expired != OnExpired::Keep {
            let lazily = on_expired == OnExpired::Unlink;
            ctx.keyspace.remove(&key, lazily);
            let removal: &[u8] = if lazily { b"UNLINK" } else { b"DEL" };
            ctx.effects.replace(&[removal, key.bytes]);
            ctx.notify(KeyspaceEvents::GENERIC, "del", &key);
        } else {
            ctx.keyspace.set_expiry(&key, Some(at_ms));
            report_expiry(ctx, way, at_ms);
            ctx.notify(KeyspaceEvents::GENERIC, "expire", &key);
        }
        ctx.modified(&key);
    }
    ctx.reply.integer(met.into());
    Ok(())
}

/// Reports PEXPIREAT with the given options; a request that has that form already is repeated as it is.
fn report_expiry(ctx: &mut Context<'_>, way: Expiration, at_ms: i64) {
    if way == Expiration::PXAT || !ctx.effects.is_recording() {
        return;
    }
    let mut digits = itoa::Buffer::new();
    let mut words: Vec<&[u8]> = vec![b"PEXPIREAT", ctx.args.at(1), digits.format(at_ms).as_bytes()];
    words.extend(ctx.args.tail(3).iter());
    ctx.effects.replace(&words);
}

/// Condition of the EXPIRE family: `NX`, `XX`, `GT`, `LT`. A key without expiry counts as one that never ends.
#[derive(Clone, Copy, Debug, Default)]
struct Condition {
    only_without: bool,
    only_with: bool,
    only_later: bool,
    only_sooner: bool,
}

impl Condition {
    fn parse(args: Arguments<'_>) -> Result<Self, ReplyError> {
        let mut condition = Self::default();
        let mut options = Options::new(args, 3);
        while let Some(word) = options.word() {
            *condition.flag(word).ok_or_else(|| unsupported(word))? = true;
        }
        let Self {
            only_without,
            only_with,
            only_later,
            only_sooner,
        } = condition;
        if only_without && (only_with || only_later || only_sooner) {
            return Err(ReplyError::Fixed(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if only_later && only_sooner {
            return Err(ReplyError::Fixed(
                "ERR GT and LT options at the same time are not compatible",
            ));
        }
        Ok(condition)
    }

    fn flag(&mut self, word: &[u8]) -> Option<&mut bool> {
        match word {
            word if is(word, "NX") => Some(&mut self.only_without),
            word if is(word, "XX") => Some(&mut self.only_with),
            word if is(word, "GT") => Some(&mut self.only_later),
            word if is(word, "LT") => Some(&mut self.only_sooner),
            _ => None,
        }
    }

    fn allows(self, current_ms: Option<i64>, at_ms: i64) -> bool {
        !(self.only_without && current_ms.is_some()
            || self.only_with && current_ms.is_none()
            || self.only_later && current_ms.is_none_or(|current_ms| at_ms <= current_ms)
            || self.only_sooner && current_ms.is_some_and(|current_ms| at_ms >= current_ms))
    }
}

#[cold]
fn unsupported(word: &[u8]) -> ReplyError {
    // The word is quoted like a C string: up to the first NUL.
    let shown = word.split(|&byte| byte == 0).next().unwrap_or_default();
    ReplyError::Bytes([b"ERR Unsupported option ", shown].concat())
}

fn ttl(ctx: &mut Context<'_>) -> CommandResult {
    reply_expiry(ctx, |at_ms, now_ms| seconds(at_ms.saturating_sub(now_ms)))
}

fn pttl(ctx: &mut Context<'_>) -> CommandResult {
    reply_expiry(ctx, i64::saturating_sub)
}

fn expiretime(ctx: &mut Context<'_>) -> CommandResult {
    reply_expiry(ctx, |at_ms, _| seconds(at_ms))
}

fn pexpiretime(ctx: &mut Context<'_>) -> CommandResult {
    reply_expiry(ctx, |at_ms, _| at_ms)
}

/// Milliseconds as the nearest number of seconds.
fn seconds(ms: i64) -> i64 {
    ms / 1000 + i64::from(ms % 1000 >= 500)
}

/// Replies with the result of `show`, called with a key's expiry and the present time; -1 without an expiry, -2
/// without the key.
fn reply_expiry(ctx: &mut Context<'_>, show: fn(i64, i64) -> i64) -> CommandResult {
    let (key, now_ms) = (ctx.key(1), ctx.now_ms());
    let answer = match ctx.keyspace.inspect(&key).map(Entry::expiry) {
        None => -2,
        Some(None) => -1,
        Some(Some(at_ms)) => show(at_ms, now_ms).max(0),
    };
    ctx.reply.integer(answer);
    Ok(())
}

fn persist(ctx: &mut Context<'_>) -> CommandResult {
    let key = ctx.key(1);
    let ends = ctx
        .keyspace
        .write(&key)
        .is_some_and(|entry| entry.expiry().is_some());
    if ends {
        ctx.keyspace.set_expiry(&key, None);
        ctx.modified(&key);
        ctx.notify(KeyspaceEvents::GENERIC, "persist", &key);
    }
    ctx.reply.integer(ends.into());
    Ok(())
}

fn keys(ctx: &mut Context<'_>) -> Result<u64, ReplyError> {
    let (pattern, now_ms, db) = (ctx.args.at(1), ctx.now_ms(), usize::from(ctx.keyspace.db));
    let Context { keyspace, reply, .. } = ctx;
    let mut count = 0;
    keyspace.held().each(|partition| {
        partition.keyspace.database(db).for_each(|entry| {
            if !entry.is_expired(now_ms) && matches_pattern(pattern, entry.key()) {
                reply.bulk(entry.key());
                count += 1;
            }
        });
    });
    Ok(count)
}

fn merge_elements(session: &mut Session<'_>, parts: &[Part]) -> CommandResult {
    session
        .reply
        .array(parts.iter().map(|part| part.count as usize).sum());
    for part in parts {
        session.reply.raw(&part.bytes);
    }
    Ok(())
}

#[inline]
fn matches_pattern(pattern: &[u8], key: &[u8]) -> bool {
    pattern == b"*" || glob::matches(pattern, key, false)
}

/// Selection of the keys that a SCAN returns.
#[derive(Clone, Copy, Debug)]
struct KeyScan<'a> {
    options: ScanOptions<'a>,
    /// The requested type, if any; `Some(None)` is a type that does not exist.
    kind: Option<Option<Kind>>,
}

impl<'a> KeyScan<'a> {
    fn parse(args: Arguments<'a>) -> Result<Self, ReplyError> {
        let mut kind = None;
        let options = ScanOptions::parse_with(Options::new(args, 2), |word, options| {
            if is(word, "TYPE") {
                kind = Some(Kind::from_name(options.value()?));
                return Ok(true);
            }
            Ok(false)
        })?;
        Ok(Self { options, kind })
    }

    fn accept(&self, entry: &Entry) -> bool {
        self.kind.is_none_or(|kind| kind == Some(entry.kind())) && self.options.accept(entry.key())
    }
}

/// The most buckets that a SCAN visits for each key of its count, so that a sparse table does not hold it up.
const SCAN_BUCKETS_A_KEY: u64 = 10;

fn scan(ctx: &mut Context<'_>, walk: &mut Walk) -> CommandResult {
    let wanted = KeyScan::parse(ctx.args)?;
    let mut expired = Vec::new();
    let (db, now_ms) = (usize::from(ctx.keyspace.db), ctx.now_ms());
    let database = ctx.keyspace.shard(walk.shard).keyspace.database(db);
    scan_some(database, walk, &wanted, now_ms, &mut ctx.reply, &mut expired);
    for key in expired {
        // Looking an expired key up removes it.
        let key = ctx.keyspace.key(&key);
        ctx.keyspace.peek(&key);
    }
    Ok(())
}

/// Continues the walk in a database until enough keys were visited, or all; expired keys go to `expired`.
fn scan_some(
    database: &Database,
    walk: &mut Walk,
    wanted: &KeyScan<'_>,
    now_ms: i64,
    reply: &mut Encoder<'_>,
    expired: &mut Vec<Box<[u8]>>,
) {
    let count = wanted.options.count as u64;
    let buckets_max = count.saturating_mul(SCAN_BUCKETS_A_KEY);
    loop {
        walk.inner = database.scan(walk.inner, 1, |entry| {
            walk.seen += 1;
            if entry.is_expired(now_ms) {
                expired.push(entry.key().into());
            } else if wanted.accept(entry) {
                reply.bulk(entry.key());
                walk.found.count += 1;
            }
        });
        walk.buckets += 1;
        walk.is_full = walk.seen >= count || walk.buckets >= buckets_max;
        if walk.inner == 0 || walk.is_full {
            return;
        }
    }
}

fn answer_scan(reply: &mut Encoder<'_>, found: &Part) {
    reply.array(2);
    reply.bulk(itoa::Buffer::new().format(found.cursor).as_bytes());
    reply.array(found.count as usize);
    reply.raw(&found.bytes);
}

/// Number of attempts of RANDOMKEY before it takes the first live key.
const RANDOM_TRIES: usize = 100;

/// One shard's part of RANDOMKEY. The shards run a race: each draws an exponentially distributed time whose rate is
/// the number of its keys, so that it wins with a probability proportional to that number. The times are compared by
/// their bits, which have the same order as long as the numbers are not negative.
fn randomkey(ctx: &mut Context<'_>) -> Result<u64, ReplyError> {
    let (db, now_ms) = (usize::from(ctx.keyspace.db), ctx.now_ms());
    let (mut first, mut winner, mut expired) = (f64::INFINITY, None, Vec::new());
    ctx.keyspace.held().each(|partition| {
        let keys = partition.keyspace.database(db).len();
        let chance: f64 = partition.rng.random();
        let time = (1.0 - chance).ln().abs() / keys as f64;
        if time < first
            && let Some(key) = random_live(partition, db, now_ms, &mut expired)
        {
            (first, winner) = (time, Some(key));
        }
    });
    for key in expired {
        // Looking an expired key up removes it.
        let key = ctx.keyspace.key(&key);
        ctx.keyspace.peek(&key);
    }
    if let Some(key) = winner {
        ctx.reply.bulk(&key);
    }
    Ok(first.to_bits())
}

fn merge_randomkey(session: &mut Session<'_>, parts: &[Part]) -> CommandResult {
    match parts
        .iter()
        .filter(|part| !part.bytes.is_empty())
        .min_by_key(|part| part.count)
    {
        Some(part) => session.reply.raw(&part.bytes),
        None => session.reply.null(),
    }
    Ok(())
}

/// A random key that has not expired; expired keys that were drawn go to `expired`.
fn random_live(
    partition: &mut Partition,
    db: usize,
    now_ms: i64,
    expired: &mut Vec<Vec<u8>>,
) -> Option<Vec<u8>> {
    let Partition { keyspace, rng, .. } = partition;
    let database = keyspace.database(db);
    for _ in 0..RANDOM_TRIES {
        let entry = database.random(rng)?;
        if !entry.is_expired(now_ms) {
            return Some(entry.key().to_vec());
        }
        expired.push(entry.key().to_vec());
    }
    let (mut live, mut cursor) = (None, 0);
    loop {
        cursor = database.scan(cursor, 1, |entry| {
            if !entry.is_expired(now_ms) {
                live.get_or_insert_with(|| entry.key().to_vec());
            }
        });
        if cursor == 0 || live.is_some() {
            return live;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use shardis_cluster::slot::slot_of;

    use super::*;
    use crate::commands::testing::{START_MS, Shell};

    /// Walks with SCAN from the beginning to the end; the options follow the cursor.
    fn walk(shell: &mut Shell, options: &str) -> BTreeSet<String> {
        let (mut keys, mut cursor) = (BTreeSet::new(), "0".to_owned());
        for _ in 0..10_000 {
            let reply = shell.run(&format!("SCAN {cursor} {options}")).reply;
            let words: Vec<_> = reply.split('"').skip(1).step_by(2).map(str::to_owned).collect();
            cursor.clone_from(&words[0]);
            keys.extend(words.into_iter().skip(1));
            if cursor == "0" {
                return keys;
            }
        }
        panic!("the walk does not end");
    }

    #[test]
    fn removes_keys_and_counts_them() {
        for shards in [1, 4] {
            let mut shell = Shell::over(shards);
            shell.run("MSET a 1 b 2 c 3 d 4");
            shell.check_effects(&[
                ("DEL a nokey b a", ":2", &["DEL a nokey b a"]),
                ("UNLINK c d d", ":2", &["UNLINK c d d"]),
                ("DEL a", ":0", &[]),
                ("EXISTS a b c d", ":0", &[]),
            ]);
        }
    }

    #[test]
    fn an_expired_key_is_not_removed_by_del() {
        let mut shell = Shell::new();
        shell.run("SET a 1 PX 5");
        shell.advance(6);
        let answer = shell.run("DEL a");
        assert_eq!((answer.reply.as_str(), answer.changes), (":0", 0));
        assert_eq!(answer.effects, ["DEL a"], "the end of its time is repeated, once");
    }

    #[test]
    fn removal_is_seen_by_watchers() {
        let mut shell = Shell::new();
        shell.run("MSET a 1 b 2");
        let (gone, kept) = (shell.watch("a"), shell.watch("b"));
        shell.run("DEL a nokey");
        assert!(gone.is_touched() && !kept.is_touched());
    }

    #[test]
    fn counts_keys_that_are_there() {
        let mut shell = Shell::over(3);
        shell.run("MSET a 1 b 2");
        shell.check_effects(&[
            ("EXISTS a", ":1", &[]),
            ("EXISTS a a b nokey", ":3", &[]),
            ("TOUCH a a b nokey", ":3", &[]),
            ("TYPE a", "+string", &[]),
            ("TYPE nokey", "+none", &[]),
        ]);
    }

    #[test]
    fn questions_are_no_accesses_but_touch_is_one() {
        let mut shell = Shell::new();
        shell.run("SET a 1");
        let clock = |shell: &mut Shell| shell.entry("a", Entry::clock);
        let set_at = clock(&mut shell);
        shell.stamp.clock += 100;
        for line in [
            "EXISTS a",
            "TYPE a",
            "TTL a",
            "OBJECT ENCODING a",
            "KEYS *",
            "SCAN 0",
        ] {
            shell.run(line);
            assert_eq!(clock(&mut shell), set_at, "{line}");
        }
        shell.client.no_touch = true;
        shell.run("GET a");
        assert_eq!(clock(&mut shell), set_at);
        shell.run("TOUCH a");
        assert_ne!(clock(&mut shell), set_at);
        let figures = shell.partition(0).door.figures;
        assert_eq!((figures.hits, figures.misses), (6, 0));
    }

    #[test]
    fn renames() {
        for shards in [1, 5] {
            let mut shell = Shell::over(shards);
            shell.run("SET a 1 PXAT 1700000100000");
            shell.check_effects(&[
                ("RENAME nokey nokey", "-ERR no such key", &[]),
                ("RENAME a a", "+OK", &[]),
                ("RENAMENX a a", ":0", &[]),
                ("RENAME a b", "+OK", &["RENAME a b"]),
                ("GET a", "nil", &[]),
                ("PEXPIRETIME b", ":1700000100000", &[]),
                ("SET c 3", "+OK", &["SET c 3"]),
                ("RENAMENX b c", ":0", &[]),
                ("RENAMENX nokey c", "-ERR no such key", &[]),
                ("RENAME b c", "+OK", &["RENAME b c"]),
                ("GET c", "\"1\"", &[]),
                ("RENAMENX c d", ":1", &["RENAMENX c d"]),
                ("EXISTS a b c d", ":1", &[]),
            ]);
        }
    }

    #[test]
    fn renaming_is_one_change_that_both_names_see() {
        let mut shell = Shell::new();
        shell.run("MSET a 1 b 2");
        let (from, to) = (shell.watch("a"), shell.watch("b"));
        assert_eq!(shell.run("RENAME a b").changes, 1);
        assert!(from.is_touched() && to.is_touched());
    }

    #[test]
    fn renaming_keeps_the_access_clock() {
        let mut shell = Shell::new();
        shell.run("SET a 1");
        shell.client.no_touch = true;
        let clock = shell.entry("a", Entry::clock);
        shell.stamp.clock += 9;
        shell.run("RENAME a b");
        assert_eq!(shell.entry("b", Entry::clock), clock);
    }

    #[test]
    fn copies() {
        for shards in [1, 5] {
            let mut shell = Shell::over(shards);
            shell.run("SET a 1 PXAT 1700000100000");
            shell.check_effects(&[
                (
                    "COPY a a",
                    "-ERR source and destination objects are the same",
                    &[],
                ),
                (
                    "COPY nokey nokey",
                    "-ERR source and destination objects are the same",
                    &[],
                ),
                ("COPY nokey b", ":0", &[]),
                ("COPY a b", ":1", &["COPY a b"]),
                ("COPY a b", ":0", &[]),
                ("SET a 2", "+OK", &["SET a 2"]),
                ("COPY a b REPLACE", ":1", &["COPY a b REPLACE"]),
                ("MGET a b", "[\"2\", \"2\"]", &[]),
                ("TTL b", ":-1", &[]),
                ("COPY a a DB 3", ":1", &["COPY a a DB 3"]),
                ("COPY a a DB 3 replace", ":1", &["COPY a a DB 3 replace"]),
                ("COPY a b DB", "-ERR syntax error", &[]),
                ("COPY a b FOO", "-ERR syntax error", &[]),
                (
                    "COPY a b DB x",
                    "-ERR value is not an integer or out of range",
                    &[],
                ),
                ("COPY a b DB 16", "-ERR DB index is out of range", &[]),
                ("COPY a b DB -1", "-ERR DB index is out of range", &[]),
            ]);
            shell.client.db = 3;
            shell.check(&[("GET a", "\"2\""), ("DBSIZE", ":1")]);
        }
    }

    #[test]
    fn a_copy_keeps_the_expiry() {
        let mut shell = Shell::new();
        shell.run("SET a 1 PX 100");
        shell.check(&[("COPY a b", ":1"), ("PTTL b", ":100")]);
        let other = shell.watch("a");
        shell.client.db = 1;
        let there = shell.watch("a");
        shell.client.db = 0;
        shell.run("COPY a a DB 1");
        assert!(there.is_touched() && !other.is_touched());
    }

    #[test]
    fn moves_to_another_database() {
        let mut shell = Shell::over(2);
        shell.run("SET a 1 PX 100");
        let here = shell.watch("a");
        shell.check_effects(&[
            ("MOVE a x", "-ERR value is not an integer or out of range", &[]),
            ("MOVE a 16", "-ERR DB index is out of range", &[]),
            (
                "MOVE a 99999999999",
                "-ERR value is out of range, value must between -2147483648 and 2147483647",
                &[],
            ),
            (
                "MOVE a 0",
                "-ERR source and destination objects are the same",
                &[],
            ),
            ("MOVE nokey 1", ":0", &[]),
            ("MOVE a 1", ":1", &["MOVE a 1"]),
            ("EXISTS a", ":0", &[]),
            ("SET a 2", "+OK", &["SET a 2"]),
            ("MOVE a 1", ":0", &[]),
        ]);
        assert!(here.is_touched());
        shell.client.db = 1;
        shell.check(&[("GET a", "\"1\""), ("PTTL a", ":100")]);
    }

    #[test]
    fn a_time_to_live_is_repeated_as_a_point_in_time() {
        let mut shell = Shell::new();
        shell.run("SET k v");
        shell.check_effects(&[
            ("EXPIRE k 100", ":1", &["PEXPIREAT k 1700000100000"]),
            ("EXPIRE k 100 GT", ":0", &[]),
            ("EXPIRE k 99 lt", ":1", &["PEXPIREAT k 1700000099000 lt"]),
            (
                "PEXPIRE k 100000 XX GT",
                ":1",
                &["PEXPIREAT k 1700000100000 XX GT"],
            ),
            (
                "EXPIREAT k 1700000200 GT",
                ":1",
                &["PEXPIREAT k 1700000200000 GT"],
            ),
            (
                "pexpireat k 1700000300001 gt",
                ":1",
                &["pexpireat k 1700000300001 gt"],
            ),
            ("PTTL k", ":300001", &[]),
            ("TTL k", ":300", &[]),
            ("PERSIST k", ":1", &["PERSIST k"]),
            ("PERSIST k", ":0", &[]),
            ("PERSIST nokey", ":0", &[]),
            ("EXPIRE nokey 10", ":0", &[]),
        ]);
    }

    #[test]
    fn a_time_that_has_passed_removes_the_key() {
        let mut shell = Shell::new();
        for line in [
            "EXPIRE k 0",
            "EXPIRE k -1",
            "PEXPIRE k 0",
            "EXPIREAT k 1700000000",
            "PEXPIREAT k -5",
        ] {
            shell.run("SET k v");
            let watcher = shell.watch("k");
            shell.check_effects(&[(line, ":1", &["DEL k"]), ("EXISTS k", ":0", &[])]);
            assert!(watcher.is_touched());
        }
        shell.stamp.on_expired = OnExpired::Unlink;
        shell.run("SET k v");
        shell.check_effects(&[("EXPIRE k -1", ":1", &["UNLINK k"]), ("EXISTS k", ":0", &[])]);
        shell.stamp.on_expired = OnExpired::Keep;
        shell.run("SET k v");
        shell.check_effects(&[("EXPIRE k -1", ":1", &["PEXPIREAT k 1699999999000"])]);
        assert_eq!(shell.entry("k", Entry::expiry), Some(Some(START_MS - 1000)));
    }

    #[test]
    fn conditions_on_expiry() {
        // Options, whether they hold without an expiry, with an earlier one, the same, a later one.
        for (options, without, earlier, same, later) in [
            ("", 1, 1, 1, 1),
            ("NX", 1, 0, 0, 0),
            ("XX", 0, 1, 1, 1),
            ("GT", 0, 1, 0, 0),
            ("LT", 1, 0, 0, 1),
            ("XX GT", 0, 1, 0, 0),
            ("XX LT", 0, 0, 0, 1),
        ] {
            for (before, holds) in [
                ("SET k v", without),
                ("SET k v EX 50", earlier),
                ("SET k v EX 100", same),
                ("SET k v EX 200", later),
            ] {
                let mut shell = Shell::new();
                shell.run(before);
                let line = format!("EXPIRE k 100 {options}");
                assert_eq!(shell.run(&line).reply, format!(":{holds}"), "{before}, {line}");
            }
        }
    }

    #[test]
    fn wrong_expiries() {
        let mut shell = Shell::new();
        shell.run("SET k v");
        shell.check_effects(&[
            ("EXPIRE k x FOO", "-ERR Unsupported option FOO", &[]),
            (
                "EXPIRE k x NX XX",
                "-ERR NX and XX, GT or LT options at the same time are not compatible",
                &[],
            ),
            (
                "EXPIRE k 5 NX GT LT",
                "-ERR NX and XX, GT or LT options at the same time are not compatible",
                &[],
            ),
            (
                "EXPIRE k 5 GT LT",
                "-ERR GT and LT options at the same time are not compatible",
                &[],
            ),
            ("EXPIRE k x", "-ERR value is not an integer or out of range", &[]),
            (
                "EXPIRE nokey 9223372036854775807",
                "-ERR invalid expire time in 'expire' command",
                &[],
            ),
            (
                "EXPIRE k 9223372036854775",
                "-ERR invalid expire time in 'expire' command",
                &[],
            ),
            (
                "EXPIRE k -9223372036854775807",
                "-ERR invalid expire time in 'expire' command",
                &[],
            ),
            (
                "PEXPIRE k 9223372036854775807",
                "-ERR invalid expire time in 'pexpire' command",
                &[],
            ),
            (
                "EXPIREAT k 9223372036854776",
                "-ERR invalid expire time in 'expireat' command",
                &[],
            ),
            (
                "PEXPIREAT k 9223372036854775807",
                ":1",
                &["PEXPIREAT k 9223372036854775807"],
            ),
            ("EXPIRETIME k", ":9223372036854776", &[]),
        ]);
    }

    #[test]
    fn tells_what_is_left() {
        let mut shell = Shell::new();
        shell.run("SET k v PX 2499");
        shell.run("SET forever v");
        shell.check(&[
            ("TTL k", ":2"),
            ("PTTL k", ":2499"),
            ("EXPIRETIME k", ":1700000002"),
            ("PEXPIRETIME k", ":1700000002499"),
            ("TTL forever", ":-1"),
            ("PEXPIRETIME forever", ":-1"),
            ("TTL nokey", ":-2"),
            ("EXPIRETIME nokey", ":-2"),
        ]);
        shell.advance(1);
        shell.check(&[("TTL k", ":2"), ("PTTL k", ":2498")]);
        shell.advance(2498);
        shell.check(&[("TTL k", ":0"), ("PTTL k", ":0")]);
        shell.advance(1);
        shell.check(&[("TTL k", ":-2")]);
    }

    #[test]
    fn lists_keys_by_pattern() {
        for shards in [1, 3] {
            let mut shell = Shell::over(shards);
            shell.run("MSET one 1 two 2 three 3 four 4");
            shell.run("SET gone 1 PX 1");
            shell.advance(2);
            let mut all = shell.run("KEYS *").reply;
            for key in ["one", "two", "three", "four"] {
                let shown = format!("\"{key}\"");
                assert!(all.contains(&shown), "{all}");
                all = all.replace(&shown, "");
            }
            assert_eq!(all, "[, , , ]");
            shell.check(&[("KEYS o?e", "[\"one\"]"), ("KEYS x*", "[]")]);
        }
    }

    #[test]
    fn a_walk_meets_every_key() {
        for shards in [1, 2, 7] {
            let mut shell = Shell::over(shards);
            let all: BTreeSet<_> = (0..500).map(|i| format!("key:{i}")).collect();
            for key in &all {
                shell.run(&format!("SET {key} v"));
            }
            assert_eq!(walk(&mut shell, ""), all);
            assert_eq!(walk(&mut shell, "COUNT 1"), all);
            assert_eq!(walk(&mut shell, "COUNT 9223372036854775807 MATCH *"), all);
            assert_eq!(walk(&mut shell, "TYPE STRING"), all);
            assert_eq!(walk(&mut shell, "TYPE hash").len(), 0);
            assert_eq!(walk(&mut shell, "TYPE nonsense").len(), 0);
            let some: BTreeSet<_> = all.iter().filter(|key| key.ends_with("77")).cloned().collect();
            assert_eq!(walk(&mut shell, "MATCH *77"), some);
        }
    }

    #[test]
    fn a_step_of_a_walk_looks_at_about_as_many_keys_as_asked() {
        let mut shell = Shell::new();
        for i in 0..1000 {
            shell.run(&format!("SET key:{i} v"));
        }
        let found = shell.run("SCAN 0 COUNT 100").reply.matches("key:").count();
        assert!((100..150).contains(&found), "{found}");
    }

    #[test]
    fn a_walk_removes_what_has_expired() {
        let mut shell = Shell::new();
        shell.run("SET a 1 PX 1");
        shell.run("SET b 2");
        shell.advance(2);
        shell.check_effects(&[("SCAN 0", "[\"0\", [\"b\"]]", &["DEL a"]), ("DBSIZE", ":1", &[])]);
        assert_eq!(shell.partition(0).door.figures.expired, 1);
    }

    #[test]
    fn wrong_walks() {
        let mut shell = Shell::over(2);
        shell.check(&[
            ("SCAN x FOO", "-ERR invalid cursor"),
            ("SCAN -1", "-ERR invalid cursor"),
            ("SCAN 0 FOO", "-ERR syntax error"),
            ("SCAN 0 COUNT", "-ERR syntax error"),
            ("SCAN 0 COUNT 0", "-ERR syntax error"),
            ("SCAN 0 COUNT -5", "-ERR syntax error"),
            ("SCAN 0 COUNT x", "-ERR value is not an integer or out of range"),
            ("SCAN 0 MATCH", "-ERR syntax error"),
        ]);
        // Any number is a valid cursor, even one that no SCAN has returned.
        for cursor in ["18446744073709551615", "-01", "12345678901234567"] {
            assert!(shell.run(&format!("SCAN {cursor}")).reply.starts_with('['));
        }
    }

    #[test]
    fn every_key_may_be_the_random_one() {
        for shards in [1, 4] {
            let mut shell = Shell::over(shards);
            assert_eq!(shell.run("RANDOMKEY").reply, "nil");
            shell.run("MSET a 1 b 2 c 3 d 4 e 5");
            let seen: BTreeSet<_> = (0..500).map(|_| shell.run("RANDOMKEY").reply).collect();
            assert_eq!(seen.len(), 5, "{seen:?}");
        }
    }

    #[test]
    fn a_shard_is_drawn_as_often_as_it_has_keys() {
        let mut shell = Shell::over(2);
        let shards =
            |shell: &mut Shell| [0, 1].map(|shard| shell.partition(shard).keyspace.database(0).len());
        // Tags whose keys are on one shard each.
        let tags = ["{a}", "{b}", "{c}", "{d}"];
        let shard_of = |tag: &str| slot_of(tag.as_bytes()).index() % 2;
        let [even, odd] = [0, 1].map(|shard| tags.into_iter().find(|tag| shard_of(tag) == shard).unwrap());
        (0..90).for_each(|i| drop(shell.run(&format!("SET {even}{i} v"))));
        (0..10).for_each(|i| drop(shell.run(&format!("SET {odd}{i} v"))));
        assert_eq!(shards(&mut shell), [90, 10]);
        let drawn = (0..1000)
            .filter(|_| shell.run("RANDOMKEY").reply.contains(odd))
            .count();
        assert!(
            (50..200).contains(&drawn),
            "{drawn} of 1000 draws for a tenth of the keys"
        );
    }

    #[test]
    fn a_random_key_is_alive() {
        let mut shell = Shell::over(2);
        for i in 0..300 {
            shell.run(&format!("SET gone:{i} v PX 1"));
        }
        shell.advance(2);
        shell.check(&[("RANDOMKEY", "nil")]);
        shell.run("SET here v");
        for _ in 0..20 {
            shell.check(&[("RANDOMKEY", "\"here\"")]);
        }
    }
}
