//! Hashes: fields with values under one key. The expiry of single fields is in [`hash_expiry`](super::hash_expiry).
//!
//! An expired field is hidden from every command in this file but HLEN, which counts it until it is removed. When a
//! write meets a hidden field, its effects start with the removal of the field, because replicas must not decide
//! themselves that a field has expired. Rows first, then handlers in the order of the rows.

use shardis_protocol::Encoder;
use shardis_storage::key::KeyHasher;
use shardis_storage::number::LongDouble;
use shardis_storage::value::hash::{Field, FieldExpiry, Hash, HashLimits};
use shardis_storage::value::{INT_TEXT_MAX, StringRef, format_int};
use smallvec::SmallVec;

use super::strings::{bulk, whole_bulk};
use crate::config::{KeyspaceEvents, Settings};
use crate::error::ReplyError;
use crate::exec::arguments::{decode_cursor, int, int_within, is};
use crate::exec::{CommandResult, Context, Effects, Options, ScanOptions};
use crate::limits::RANDOM_REPEATS_MAX;
use crate::spec::argument::Deprecated;
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, KeySpec, Runs};

/// The commands of this family.
pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "hset",
        arity: Arity::AtLeast(4),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Category::HASH,
        keys: &[KeySpec::at(1).read_write().update()],
        runs: Runs::OnKeys(hset),
        member: Some(2),
        doc: &Doc {
            since: "2.0.0",
            group: Group::Hash,
            complexity: "O(1) for each field.",
            summary: "Sets fields of a hash, which is created if need be.",
            history: &[("4.0.0", "Several fields at once.")],
            args: &[Arg::key("key", 0), FIELDS_WITH_VALUES],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "hsetnx",
        arity: Arity::Exactly(4),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Category::HASH,
        keys: &[KeySpec::at(1).read_write().insert()],
        runs: Runs::OnKeys(hsetnx),
        member: Some(2),
        doc: &Doc {
            since: "2.0.0",
            group: Group::Hash,
            complexity: "O(1)",
            summary: "Sets a field of a hash unless the hash has it already.",
            args: &[Arg::key("key", 0), Arg::string("field"), Arg::string("value")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "hmset",
        arity: Arity::AtLeast(4),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Category::HASH,
        keys: &[KeySpec::at(1).read_write().update()],
        runs: Runs::OnKeys(hmset),
        doc: &Doc {
            since: "2.0.0",
            group: Group::Hash,
            complexity: "O(N) for N fields.",
            summary: "Sets fields of a hash, which is created if need be.",
            deprecated: Some(Deprecated {
                since: "4.0.0",
                replaced_by: "`HSET` with multiple field-value pairs",
            }),
            args: &[Arg::key("key", 0), FIELDS_WITH_VALUES],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "hget",
        arity: Arity::Exactly(3),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::HASH,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeys(hget),
        member: Some(2),
        doc: &Doc {
            since: "2.0.0",
            group: Group::Hash,
            complexity: "O(1)",
            summary: "Returns the value of a field of a hash.",
            args: &[Arg::key("key", 0), Arg::string("field")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "hmget",
        arity: Arity::AtLeast(3),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::HASH,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeys(hmget),
        doc: &Doc {
            since: "2.0.0",
            group: Group::Hash,
            complexity: "O(N) for N fields.",
            summary: "Returns the values of several fields of a hash.",
            args: &[Arg::key("key", 0), Arg::string("field").multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "hgetall",
        arity: Arity::Exactly(2),
        flags: Flags::READONLY,
        acl: Category::HASH,
        tips: &["nondeterministic_output_order"],
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeysLong(hgetall),
        doc: &Doc {
            since: "2.0.0",
            group: Group::Hash,
            complexity: "O(N) for a hash of N fields.",
            summary: "Returns all fields of a hash with their values.",
            args: &[Arg::key("key", 0)],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "hkeys",
        arity: Arity::Exactly(2),
        flags: Flags::READONLY,
        acl: Category::HASH,
        tips: &["nondeterministic_output_order"],
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeysLong(hkeys),
        doc: &Doc {
            since: "2.0.0",
            group: Group::Hash,
            complexity: "O(N) for a hash of N fields.",
            summary: "Returns the names of all fields of a hash.",
            args: &[Arg::key("key", 0)],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "hvals",
        arity: Arity::Exactly(2),
        flags: Flags::READONLY,
        acl: Category::HASH,
        tips: &["nondeterministic_output_order"],
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeysLong(hvals),
        doc: &Doc {
            since: "2.0.0",
            group: Group::Hash,
            complexity: "O(N) for a hash of N fields.",
            summary: "Returns the values of all fields of a hash.",
            args: &[Arg::key("key", 0)],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "hdel",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Category::HASH,
        keys: &[KeySpec::at(1).read_write().delete()],
        runs: Runs::OnKeys(hdel),
        member: Some(2),
        doc: &Doc {
            since: "2.0.0",
            group: Group::Hash,
            complexity: "O(N) for N fields.",
            summary: "Removes fields from a hash, and the key with the last of them.",
            history: &[("2.4.0", "Several fields at once.")],
            args: &[Arg::key("key", 0), Arg::string("field").multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "hlen",
        arity: Arity::Exactly(2),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::HASH,
        keys: &[KeySpec::at(1).read_only()],
        runs: Runs::OnKeys(hlen),
        doc: &Doc {
            since: "2.0.0",
            group: Group::Hash,
            complexity: "O(1)",
            summary: "Counts the fields of a hash.",
            args: &[Arg::key("key", 0)],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "hexists",
        arity: Arity::Exactly(3),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::HASH,
        keys: &[KeySpec::at(1).read_only()],
        runs: Runs::OnKeys(hexists),
        member: Some(2),
        doc: &Doc {
            since: "2.0.0",
            group: Group::Hash,
            complexity: "O(1)",
            summary: "Tells whether a hash has a field.",
            args: &[Arg::key("key", 0), Arg::string("field")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "hstrlen",
        arity: Arity::Exactly(3),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::HASH,
        keys: &[KeySpec::at(1).read_only()],
        runs: Runs::OnKeys(hstrlen),
        member: Some(2),
        doc: &Doc {
            since: "3.2.0",
            group: Group::Hash,
            complexity: "O(1)",
            summary: "Returns the length of the value of a field.",
            args: &[Arg::key("key", 0), Arg::string("field")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "hincrby",
        arity: Arity::Exactly(4),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Category::HASH,
        keys: &[KeySpec::at(1).read_write().access().update()],
        runs: Runs::OnKeys(hincrby),
        member: Some(2),
        doc: &Doc {
            since: "2.0.0",
            group: Group::Hash,
            complexity: "O(1)",
            summary: "Adds an integer to the integer in a field, which counts as 0 where it is missing.",
            args: &[
                Arg::key("key", 0),
                Arg::string("field"),
                Arg::integer("increment"),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "hincrbyfloat",
        arity: Arity::Exactly(4),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Category::HASH,
        keys: &[KeySpec::at(1).read_write().access().update()],
        runs: Runs::OnKeys(hincrbyfloat),
        doc: &Doc {
            since: "2.6.0",
            group: Group::Hash,
            complexity: "O(1)",
            summary: "Adds a floating-point number to the one in a field, which counts as 0 where it is missing.",
            args: &[Arg::key("key", 0), Arg::string("field"), Arg::double("increment")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "hrandfield",
        arity: Arity::AtLeast(2),
        flags: Flags::READONLY,
        acl: Category::HASH,
        tips: &["nondeterministic_output"],
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeysLong(hrandfield),
        doc: &Doc {
            since: "6.2.0",
            group: Group::Hash,
            complexity: "O(N) for N fields returned.",
            summary: "Returns fields of a hash chosen at random.",
            args: &[
                Arg::key("key", 0),
                Arg::block(
                    "options",
                    &[
                        Arg::integer("count"),
                        Arg::flag("withvalues", "WITHVALUES").optional(),
                    ],
                )
                .optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "hscan",
        arity: Arity::AtLeast(3),
        flags: Flags::READONLY,
        acl: Category::HASH,
        tips: &["nondeterministic_output"],
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeysLong(hscan),
        doc: &Doc {
            since: "2.8.0",
            group: Group::Hash,
            complexity: "O(1) a call but for a small hash, which comes as a whole; O(N) to walk N fields.",
            summary: "Walks through the fields of a hash and their values, some at a time.",
            args: &[
                Arg::key("key", 0),
                Arg::integer("cursor"),
                Arg::pattern("pattern").token("MATCH").optional(),
                Arg::integer("count").token("COUNT").optional(),
                Arg::flag("novalues", "NOVALUES").optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
];

const FIELDS_WITH_VALUES: Arg =
    Arg::block("field_value", &[Arg::string("field"), Arg::string("value")]).multiple();

/// Limits of packed hashes, from the settings.
#[inline]
pub(super) fn limits(ctx: &Context<'_>) -> HashLimits {
    limits_of(ctx.settings, ctx.keyspace.hasher())
}

/// The same limits for anyone who knows the hasher.
pub(super) fn limits_of(settings: &Settings, hasher: KeyHasher) -> HashLimits {
    HashLimits {
        listpack_entries: settings.hash_max_listpack_entries as usize,
        listpack_value: settings.hash_max_listpack_value as usize,
        hasher,
    }
}

/// Whether a hash still stores a field that is hidden.
#[inline]
fn hides(hash: &Hash, name: &[u8], now_ms: i64) -> bool {
    hash.next_expiry().is_some_and(|at| at < now_ms)
        && hash
            .field(name, i64::MIN)
            .is_some_and(|field| field.is_expired(now_ms))
}

/// Reports that fields were set, after an HDEL of those that had an expiry, which replicas cannot know.
pub(super) fn report_set<'w>(effects: &mut Effects, key: &'w [u8], words: impl Iterator<Item = &'w [u8]>) {
    report(effects, &[b"HSET", key], words);
}

/// Reports a command that consists of `head` and `words`.
pub(super) fn report<'w>(effects: &mut Effects, head: &[&'w [u8]], words: impl Iterator<Item = &'w [u8]>) {
    if effects.is_recording() {
        let words: SmallVec<[&[u8]; 16]> = head.iter().copied().chain(words).collect();
        effects.replace(&words);
    }
}

/// Sets the fields that the request names from argument 2 on; returns the number of new ones.
fn set_fields(ctx: &mut Context<'_>, command: &'static str) -> Result<i64, ReplyError> {
    if !ctx.args.len().is_multiple_of(2) {
        return Err(ReplyError::arity(command));
    }
    let (args, key, now_ms, limits) = (ctx.args, ctx.key(1), ctx.now_ms(), limits(ctx));
    let count = args.len() / 2 - 1;
    let set_all = |hash: &mut Hash| {
        hash.expect_fields(count, &limits);
        let pairs = (2..args.len()).step_by(2);
        pairs
            .map(|index| {
                let (name, value) = (args.at(index), args.at(index + 1));
                i64::from(hash.set(name, value, FieldExpiry::Clear, now_ms, &limits))
            })
            .sum()
    };
    // The usual case, an existing hash, takes a single look-up.
    let (expires, new) = match ctx.keyspace.write_as::<Hash>(&key)? {
        Some(hash) => (hash.next_expiry().is_some(), set_all(hash)),
        None => (false, set_all(ctx.keyspace.make(&key)?.0)),
    };
    ctx.notify(KeyspaceEvents::HASH, "hset", &key);
    if expires {
        // The last field with an expiry may have lost it.
        ctx.keyspace.settle(&key);
    }
    ctx.changed(&key, count as u64);
    Ok(new)
}

fn hset(ctx: &mut Context<'_>) -> CommandResult {
    let new = set_fields(ctx, "hset")?;
    ctx.reply.integer(new);
    Ok(())
}

fn hmset(ctx: &mut Context<'_>) -> CommandResult {
    set_fields(ctx, "hmset")?;
    ctx.reply.ok();
    Ok(())
}

fn hsetnx(ctx: &mut Context<'_>) -> CommandResult {
    let (args, key, now_ms, limits) = (ctx.args, ctx.key(1), ctx.now_ms(), limits(ctx));
    let (hash, _) = ctx.keyspace.make::<Hash>(&key)?;
    let (name, value) = (args.at(2), args.at(3));
    if hash.get(name, now_ms).is_some() {
        ctx.reply.integer(0);
        return Ok(());
    }
    if hides(hash, name, now_ms) {
        // Replicas still have the hidden field.
        report_set(ctx.effects, key.bytes, [name, value].into_iter());
    }
    hash.set(name, value, FieldExpiry::Clear, now_ms, &limits);
    ctx.notify(KeyspaceEvents::HASH, "hset", &key);
    ctx.keyspace.settle(&key);
    ctx.changed(&key, 1);
    ctx.reply.integer(1);
    Ok(())
}

fn hget(ctx: &mut Context<'_>) -> CommandResult {
    let (key, now_ms) = (ctx.key(1), ctx.now_ms());
    let hash = ctx.keyspace.read_as::<Hash>(&key)?;
    match hash.and_then(|hash| hash.get(ctx.args.at(2), now_ms)) {
        Some(value) => whole_bulk(&mut ctx.reply, value),
        None => ctx.reply.null(),
    }
    Ok(())
}

fn hmget(ctx: &mut Context<'_>) -> CommandResult {
    let (args, key, now_ms) = (ctx.args, ctx.key(1), ctx.now_ms());
    let hash = ctx.keyspace.read_as::<Hash>(&key)?;
    ctx.reply.array(args.len() - 2);
    for name in args.iter().skip(2) {
        reply_value(&mut ctx.reply, hash.and_then(|hash| hash.get(name, now_ms)));
    }
    Ok(())
}

/// Replies with a field's value, or with null.
#[inline]
pub(super) fn reply_value(reply: &mut Encoder<'_>, value: Option<StringRef<'_>>) {
    match value {
        Some(value) => bulk(reply, value),
        None => reply.null(),
    }
}

fn hgetall(ctx: &mut Context<'_>) -> CommandResult {
    let (key, now_ms) = (ctx.key(1), ctx.now_ms());
    let Some(hash) = ctx.keyspace.read_as::<Hash>(&key)? else {
        ctx.reply.map(0);
        return Ok(());
    };
    ctx.reply.map(hash.visible_len(now_ms));
    for field in hash.iter(now_ms) {
        bulk(&mut ctx.reply, field.name);
        bulk(&mut ctx.reply, field.value);
    }
    Ok(())
}

fn hkeys(ctx: &mut Context<'_>) -> CommandResult {
    reply_all(ctx, |field| field.name)
}

fn hvals(ctx: &mut Context<'_>) -> CommandResult {
    reply_all(ctx, |field| field.value)
}

/// Replies with one part (name or value) of every field.
#[inline]
fn reply_all(ctx: &mut Context<'_>, part: impl Fn(Field<'_>) -> StringRef<'_>) -> CommandResult {
    let (key, now_ms) = (ctx.key(1), ctx.now_ms());
    let Some(hash) = ctx.keyspace.read_as::<Hash>(&key)? else {
        ctx.reply.array(0);
        return Ok(());
    };
    ctx.reply.array(hash.visible_len(now_ms));
    for field in hash.iter(now_ms) {
        bulk(&mut ctx.reply, part(field));
    }
    Ok(())
}

fn hdel(ctx: &mut Context<'_>) -> CommandResult {
    let (args, key, now_ms) = (ctx.args, ctx.key(1), ctx.now_ms());
    let Some(hash) = ctx.keyspace.write_as::<Hash>(&key)? else {
        ctx.reply.integer(0);
        return Ok(());
    };
    let before = hash.len();
    let removed: i64 = args
        .iter()
        .skip(2)
        .map(|name| i64::from(hash.remove(name, now_ms)))
        .sum();
    // Hidden fields were removed as well, and are not counted.
    let gone = before - hash.len();
    if gone > 0 {
        ctx.notify(KeyspaceEvents::HASH, "hdel", &key);
        ctx.keyspace.settle(&key);
        ctx.changed(&key, gone as u64);
    }
    ctx.reply.integer(removed);
    Ok(())
}

fn hlen(ctx: &mut Context<'_>) -> CommandResult {
    let key = ctx.key(1);
    let len = ctx.keyspace.read_as::<Hash>(&key)?.map_or(0, Hash::len);
    ctx.reply.integer(len as i64);
    Ok(())
}

fn hexists(ctx: &mut Context<'_>) -> CommandResult {
    let (key, name, now_ms) = (ctx.key(1), ctx.args.at(2), ctx.now_ms());
    let hash = ctx.keyspace.read_as::<Hash>(&key)?;
    let exists = hash.is_some_and(|hash| hash.get(name, now_ms).is_some());
    ctx.reply.integer(exists.into());
    Ok(())
}

fn hstrlen(ctx: &mut Context<'_>) -> CommandResult {
    let (key, name, now_ms) = (ctx.key(1), ctx.args.at(2), ctx.now_ms());
    let hash = ctx.keyspace.read_as::<Hash>(&key)?;
    let value = hash.and_then(|hash| hash.get(name, now_ms));
    ctx.reply.integer(value.map_or(0, |value| value.len()) as i64);
    Ok(())
}

fn hincrby(ctx: &mut Context<'_>) -> CommandResult {
    let (args, now_ms, limits) = (ctx.args, ctx.now_ms(), limits(ctx));
    let increment = int(args.at(3))?;
    let (key, name) = (ctx.key(1), args.at(2));
    // In a new hash nothing can be refused, so that it is never left empty.
    let (hash, _) = ctx.keyspace.make::<Hash>(&key)?;
    let current = match hash.get(name, now_ms) {
        Some(value) => value.to_int().ok_or(ReplyError::HashNotInteger)?,
        None => 0,
    };
    let sum = current
        .checked_add(increment)
        .ok_or(ReplyError::IncrementOverflow)?;
    if hides(hash, name, now_ms) {
        report(ctx.effects, &[b"HDEL", key.bytes, name], std::iter::empty());
        report(ctx.effects, &[], args.iter());
    }
    let mut scratch = [0; INT_TEXT_MAX];
    let text = format_int(sum, &mut scratch);
    let expires = hash.next_expiry().is_some();
    hash.set(name, text, FieldExpiry::Keep, now_ms, &limits);
    ctx.notify(KeyspaceEvents::HASH, "hincrby", &key);
    if expires {
        ctx.keyspace.settle(&key);
    }
    ctx.changed(&key, 1);
    ctx.reply.integer(sum);
    Ok(())
}

fn hincrbyfloat(ctx: &mut Context<'_>) -> CommandResult {
    let (args, now_ms, limits) = (ctx.args, ctx.now_ms(), limits(ctx));
    let increment = LongDouble::parse(args.at(3)).ok_or(ReplyError::NotFloat)?;
    if !increment.is_finite() {
        return Err(ReplyError::IncrementNotFinite);
    }
    let (key, name) = (ctx.key(1), args.at(2));
    // As with HINCRBY, a new hash is never left empty.
    let (hash, _) = ctx.keyspace.make::<Hash>(&key)?;
    let field = hash.field(name, now_ms);
    let current = field.map_or(StringRef::Int(0), |field| field.value);
    let expiry = field.and_then(|field| field.expiry);
    let mut scratch = [0; INT_TEXT_MAX];
    let current = LongDouble::parse(current.as_bytes(&mut scratch)).ok_or(ReplyError::HashNotFloat)?;
    let sum = current.checked_add(increment).ok_or(ReplyError::NotFinite)?;
    let mut text = Vec::new();
    sum.write_human(&mut text);
    hash.set(name, &text, FieldExpiry::Keep, now_ms, &limits);
    // Replicas store the result, since other machines may round differently.
    report_set(ctx.effects, key.bytes, [name, &text].into_iter());
    if let Some(at_ms) = expiry {
        report_expiry(ctx.effects, key.bytes, at_ms, &[name]);
    }
    ctx.notify(KeyspaceEvents::HASH, "hincrbyfloat", &key);
    ctx.keyspace.settle(&key);
    ctx.changed(&key, 1);
    ctx.reply.bulk(&text);
    Ok(())
}

/// Reports that fields expire at a point in time.
pub(super) fn report_expiry(effects: &mut Effects, key: &[u8], at_ms: i64, names: &[&[u8]]) {
    let (mut at, mut count) = (itoa::Buffer::new(), itoa::Buffer::new());
    let head: [&[u8]; 5] = [
        b"HPEXPIREAT",
        key,
        at.format(at_ms).as_bytes(),
        b"FIELDS",
        count.format(names.len()).as_bytes(),
    ];
    report(effects, &head, names.iter().copied());
}

/// Number of fields that HRANDFIELD returns.
#[derive(Clone, Copy)]
enum Draw {
    /// So many distinct fields, or all if there are fewer.
    Distinct(usize),
    /// So many fields, each drawn from all.
    Repeated(usize),
}

impl Draw {
    /// Reads a count; a negative one allows repetitions.
    fn parse(arg: &[u8], with_values: bool) -> Result<Self, ReplyError> {
        let count = int_within(arg, -i64::MAX, i64::MAX)?;
        if with_values && count.unsigned_abs() > i64::MAX as u64 / 2 {
            return Err(ReplyError::OutOfRange);
        }
        let number = count.unsigned_abs() as usize;
        if count >= 0 {
            return Ok(Self::Distinct(number));
        }
        if number > RANDOM_REPEATS_MAX {
            return Err(ReplyError::OutOfRange);
        }
        Ok(Self::Repeated(number))
    }
}

fn hrandfield(ctx: &mut Context<'_>) -> CommandResult {
    if ctx.args.len() > 2 {
        return hrandfield_some(ctx);
    }
    let (key, now_ms) = (ctx.key(1), ctx.now_ms());
    let found = ctx.keyspace.read_with_rng::<Hash>(&key)?;
    let field = found.and_then(|(hash, rng)| hash.random(rng, now_ms));
    reply_value(&mut ctx.reply, field.map(|field| field.name));
    Ok(())
}

fn hrandfield_some(ctx: &mut Context<'_>) -> CommandResult {
    let (args, now_ms) = (ctx.args, ctx.now_ms());
    let with_values = args.get(3).is_some_and(|word| is(word, "WITHVALUES"));
    let draw = Draw::parse(args.at(2), with_values && args.len() == 4);
    if args.len() > 3 && (args.len() > 4 || !with_values) {
        // An error in the count is reported first.
        draw?;
        return Err(ReplyError::Syntax);
    }
    let (draw, key) = (draw?, ctx.key(1));
    let Some((hash, rng)) = ctx.keyspace.read_with_rng::<Hash>(&key)? else {
        ctx.reply.array(0);
        return Ok(());
    };
    let reply = &mut ctx.reply;
    let nested = with_values && reply.resp() == shardis_protocol::encoder::Resp::V3;
    let width = if with_values && !nested { 2 } else { 1 };
    let visible = hash.visible_len(now_ms);
    let show = |reply: &mut Encoder<'_>, field: Field<'_>| {
        if nested {
            reply.array(2);
        }
        bulk(reply, field.name);
        if with_values {
            bulk(reply, field.value);
        }
    };
    match draw {
        Draw::Distinct(count) => {
            let count = count.min(visible);
            reply.array(count * width);
            hash.random_distinct(count, rng, now_ms, |field| show(reply, field));
        }
        Draw::Repeated(count) => {
            let count = if visible == 0 { 0 } else { count };
            reply.array(count * width);
            for _ in 0..count {
                if let Some(field) = hash.random(rng, now_ms) {
                    show(reply, field);
                }
            }
        }
    }
    Ok(())
}

fn hscan(ctx: &mut Context<'_>) -> CommandResult {
    let (_, cursor) = decode_cursor(ctx.args.at(2), 1)?;
    let (args, key, now_ms) = (ctx.args, ctx.key(1), ctx.now_ms());
    let (mut elements, mut count, mut next) = (Vec::new(), 0, 0);
    if let Some(hash) = ctx.keyspace.read_as::<Hash>(&key)? {
        let mut with_values = true;
        let options = ScanOptions::parse_with(Options::new(args, 3), |word, _| {
            let no_values = is(word, "NOVALUES");
            with_values &= !no_values;
            Ok(no_values)
        })?;
        let mut encoder = Encoder::new(&mut elements, ctx.reply.resp());
        next = hash.scan(cursor, options.count, now_ms, |field| {
            if options.accept(field.name.as_bytes(&mut [0; INT_TEXT_MAX])) {
                bulk(&mut encoder, field.name);
                count += 1;
                if with_values {
                    bulk(&mut encoder, field.value);
                    count += 1;
                }
            }
        });
    }
    ctx.reply.array(2);
    ctx.reply.bulk(itoa::Buffer::new().format(next).as_bytes());
    ctx.reply.array(count);
    ctx.reply.raw(&elements);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Shell;

    #[test]
    fn fields_are_set_read_and_removed() {
        let mut shell = Shell::new();
        shell.check(&[
            ("HSET h a 1 b 2", ":2"),
            ("HSET h a x c 3", ":1"),
            ("HMSET h d 4", "+OK"),
            ("HSETNX h d 5", ":0"),
            ("HSETNX h e 5", ":1"),
            ("HGET h a", "\"x\""),
            ("HGET h z", "nil"),
            ("HMGET h b z d", "[\"2\", nil, \"4\"]"),
            ("HLEN h", ":5"),
            ("HEXISTS h e", ":1"),
            ("HSTRLEN h a", ":1"),
            ("HDEL h a b c z", ":3"),
            ("HGETALL h", "[\"d\", \"4\", \"e\", \"5\"]"),
            ("HKEYS h", "[\"d\", \"e\"]"),
            ("HVALS h", "[\"4\", \"5\"]"),
            ("HDEL h d e", ":2"),
            ("EXISTS h", ":0"),
            ("HSET h a", "-ERR wrong number of arguments for 'hset' command"),
        ]);
    }

    #[test]
    fn counters_keep_the_time_of_their_field_and_make_nothing_when_refused() {
        let mut shell = Shell::new();
        shell.check(&[
            ("HINCRBY h n 5", ":5"),
            ("HPEXPIRE h 1000 FIELDS 1 n", "[:1]"),
            ("HINCRBY h n -7", ":-2"),
            ("HINCRBYFLOAT h n 0.5", "\"-1.5\""),
            ("HPTTL h FIELDS 1 n", "[:1000]"),
            ("HINCRBY h n 1", "-ERR hash value is not an integer"),
            ("HSET h t text", ":1"),
            ("HINCRBYFLOAT h t 1", "-ERR hash value is not a float"),
            ("HINCRBYFLOAT none f inf", "-ERR value is NaN or Infinity"),
            ("HINCRBY none f x", "-ERR value is not an integer or out of range"),
            ("EXISTS none", ":0"),
        ]);
        let effects = shell.run("HINCRBYFLOAT h n 1").effects;
        let at = super::super::testing::START_MS + 1000;
        assert_eq!(
            effects,
            [
                "HSET h n -0.5".to_owned(),
                format!("HPEXPIREAT h {at} FIELDS 1 n")
            ]
        );
    }

    #[test]
    fn draws_are_nested_where_the_protocol_can() {
        let mut shell = Shell::new();
        shell.run("HSET h a 1");
        assert_eq!(
            shell.run("HRANDFIELD h -2 WITHVALUES").reply,
            "[\"a\", \"1\", \"a\", \"1\"]"
        );
        assert_eq!(shell.run("HRANDFIELD h 2").reply, "[\"a\"]");
        assert_eq!(shell.run("HRANDFIELD h 1 NO").reply, "-ERR syntax error");
        assert_eq!(
            shell.run("HRANDFIELD h x NO").reply,
            "-ERR value is not an integer or out of range"
        );
        let mut shell = shell.resp3();
        assert_eq!(shell.run("HRANDFIELD h 5 WITHVALUES").reply, "[[\"a\", \"1\"]]");
        assert_eq!(shell.run("HGETALL h").reply, "{\"a\": \"1\"}");
    }

    #[test]
    fn a_scan_returns_every_field_of_a_large_hash() {
        let mut shell = Shell::new();
        for n in 0..2000 {
            shell.run(&format!("HSET h field:{n} {n}"));
        }
        let (mut cursor, mut seen) = ("0".to_owned(), std::collections::HashSet::new());
        loop {
            let reply = shell.run(&format!("HSCAN h {cursor} COUNT 50")).reply;
            let mut words = reply.split('"').skip(1).step_by(2);
            cursor = words.next().unwrap().to_owned();
            seen.extend(words.filter(|word| word.starts_with("field:")).map(str::to_owned));
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(seen.len(), 2000);
        assert_eq!(shell.run("HSCAN h 0 COUNT 0").reply, "-ERR syntax error");
        assert_eq!(shell.run("HSCAN missing 0 COUNT 0").reply, "[\"0\", []]");
    }

    #[test]
    fn a_hidden_field_is_gone_for_commands_and_removed_where_they_are_repeated() {
        let mut shell = Shell::new();
        shell.run("HSET h a 1 b 2 c 3");
        shell.run("HPEXPIRE h 10 FIELDS 2 a b");
        shell.advance(11);
        shell.check(&[
            ("HGET h a", "nil"),
            ("HGETALL h", "[\"c\", \"3\"]"),
            ("HLEN h", ":3"),
            ("HRANDFIELD h 9", "[\"c\"]"),
        ]);
        assert_eq!(shell.run("HINCRBY h a 1").effects, ["HDEL h a", "HINCRBY h a 1"]);
        assert_eq!(shell.run("HSETNX h b 7").effects, ["HSET h b 7"]);
        shell.run("HPEXPIRE h 10 FIELDS 1 c");
        shell.advance(11);
        let answer = shell.run("HDEL h c");
        assert_eq!((answer.reply.as_str(), answer.changes), (":0", 1));
    }

    #[test]
    fn a_hash_is_no_string_and_a_string_no_hash() {
        let mut shell = Shell::new();
        shell.run("SET s v");
        shell.run("HSET h a 1");
        for request in [
            "HSET s a 1",
            "HSETNX s a 1",
            "HMSET s a 1",
            "HGET s a",
            "HMGET s a",
            "HGETALL s",
            "HKEYS s",
            "HVALS s",
            "HDEL s a",
            "HLEN s",
            "HEXISTS s a",
            "HSTRLEN s a",
            "HINCRBY s a 1",
            "HINCRBYFLOAT s a 1",
            "HRANDFIELD s",
            "HRANDFIELD s 1",
            "HSCAN s 0",
            "GET h",
        ] {
            assert!(shell.run(request).reply.starts_with("-WRONGTYPE"), "{request}");
        }
    }
}
