//! The expiry of single fields of hashes, as in Redis 7.4, and the commands of Redis 8.0 that get or set fields
//! together with their expiry.
//!
//! Effects use commands that Redis 7.4 knows: HPEXPIREAT for points in time, HDEL for removed fields, HSET for
//! values. Rows first, then handlers in the order of the rows.

use std::ops::Range;

use shardis_protocol::Arguments;
use shardis_storage::key::Key;
use shardis_storage::keyspace::OnExpired;
use shardis_storage::value::hash::{FieldExpiry, Hash};
use smallvec::SmallVec;

use super::hashes::{limits, reply_value, report, report_expiry, report_set};
use crate::config::KeyspaceEvents;
use crate::error::ReplyError;
use crate::exec::arguments::{int, is};
use crate::exec::{CommandResult, Context, Expiration};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, KeySpec, Runs};

/// The commands of this family.
pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "hexpire",
        runs: Runs::OnKeys(hexpire),
        doc: &Doc {
            summary: "Has fields of a hash expire after some seconds.",
            args: &[Arg::key("key", 0), Arg::integer("seconds"), CONDITION, FIELDS],
            ..SETS_TIMES_DOC
        },
        ..SETS_TIMES
    },
    Command {
        name: "hpexpire",
        runs: Runs::OnKeys(hpexpire),
        doc: &Doc {
            summary: "Has fields of a hash expire after some milliseconds.",
            args: &[
                Arg::key("key", 0),
                Arg::integer("milliseconds"),
                CONDITION,
                FIELDS,
            ],
            ..SETS_TIMES_DOC
        },
        ..SETS_TIMES
    },
    Command {
        name: "hexpireat",
        runs: Runs::OnKeys(hexpireat),
        doc: &Doc {
            summary: "Has fields of a hash expire at a Unix time in seconds.",
            args: &[
                Arg::key("key", 0),
                Arg::unix_time("unix-time-seconds"),
                CONDITION,
                FIELDS,
            ],
            ..SETS_TIMES_DOC
        },
        ..SETS_TIMES
    },
    Command {
        name: "hpexpireat",
        runs: Runs::OnKeys(hpexpireat),
        doc: &Doc {
            summary: "Has fields of a hash expire at a Unix time in milliseconds.",
            args: &[
                Arg::key("key", 0),
                Arg::unix_time("unix-time-milliseconds"),
                CONDITION,
                FIELDS,
            ],
            ..SETS_TIMES_DOC
        },
        ..SETS_TIMES
    },
    Command {
        name: "httl",
        runs: Runs::OnKeys(httl),
        tips: &["nondeterministic_output"],
        doc: &Doc {
            summary: "Returns how many seconds fields of a hash have left.",
            ..TELLS_TIMES_DOC
        },
        ..TELLS_TIMES
    },
    Command {
        name: "hpttl",
        runs: Runs::OnKeys(hpttl),
        tips: &["nondeterministic_output"],
        doc: &Doc {
            summary: "Returns how many milliseconds fields of a hash have left.",
            ..TELLS_TIMES_DOC
        },
        ..TELLS_TIMES
    },
    Command {
        name: "hexpiretime",
        runs: Runs::OnKeys(hexpiretime),
        doc: &Doc {
            summary: "Returns the Unix times in seconds at which fields of a hash expire.",
            ..TELLS_TIMES_DOC
        },
        ..TELLS_TIMES
    },
    Command {
        name: "hpexpiretime",
        runs: Runs::OnKeys(hpexpiretime),
        doc: &Doc {
            summary: "Returns the Unix times in milliseconds at which fields of a hash expire.",
            ..TELLS_TIMES_DOC
        },
        ..TELLS_TIMES
    },
    Command {
        name: "hpersist",
        arity: Arity::AtLeast(5),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Category::HASH,
        keys: &[KeySpec::at(1).read_write().update()],
        runs: Runs::OnKeys(hpersist),
        doc: &Doc {
            since: "7.4.0",
            group: Group::Hash,
            complexity: "O(N) for N fields.",
            summary: "Has fields of a hash stay for ever.",
            args: &[Arg::key("key", 0), FIELDS],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "hgetdel",
        arity: Arity::AtLeast(5),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Category::HASH,
        keys: &[KeySpec::at(1).read_write().access().delete()],
        runs: Runs::OnKeys(hgetdel),
        doc: &Doc {
            since: "8.0.0",
            group: Group::Hash,
            complexity: "O(N) for N fields.",
            summary: "Returns the values of fields of a hash and removes them.",
            args: &[Arg::key("key", 0), FIELDS],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "hgetex",
        arity: Arity::AtLeast(5),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Category::HASH,
        keys: &[KeySpec::at(1)
            .read_write()
            .access()
            .update()
            .notes("RW and UPDATE because it changes the TTL")],
        runs: Runs::OnKeys(hgetex),
        doc: &Doc {
            since: "8.0.0",
            group: Group::Hash,
            complexity: "O(N) for N fields.",
            summary: "Returns the values of fields of a hash, and sets or lifts their expiry on the way.",
            args: &[
                Arg::key("key", 0),
                Arg::one_of(
                    "expiration",
                    &[
                        Arg::integer("seconds").token("EX"),
                        Arg::integer("milliseconds").token("PX"),
                        Arg::unix_time("unix-time-seconds").token("EXAT"),
                        Arg::unix_time("unix-time-milliseconds").token("PXAT"),
                        Arg::flag("persist", "PERSIST"),
                    ],
                )
                .optional(),
                FIELDS,
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "hsetex",
        arity: Arity::AtLeast(6),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Category::HASH,
        keys: &[KeySpec::at(1).read_write().update()],
        runs: Runs::OnKeys(hsetex),
        doc: &Doc {
            since: "8.0.0",
            group: Group::Hash,
            complexity: "O(N) for N fields.",
            summary: "Sets fields of a hash together with their expiry.",
            args: &[
                Arg::key("key", 0),
                Arg::one_of("condition", &[Arg::flag("fnx", "FNX"), Arg::flag("fxx", "FXX")]).optional(),
                Arg::one_of(
                    "expiration",
                    &[
                        Arg::integer("seconds").token("EX"),
                        Arg::integer("milliseconds").token("PX"),
                        Arg::unix_time("unix-time-seconds").token("EXAT"),
                        Arg::unix_time("unix-time-milliseconds").token("PXAT"),
                        Arg::flag("keepttl", "KEEPTTL"),
                    ],
                )
                .optional(),
                Arg::block(
                    "fields",
                    &[
                        Arg::integer("numfields"),
                        Arg::block("data", &[Arg::string("field"), Arg::string("value")]).multiple(),
                    ],
                )
                .token("FIELDS"),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
];

/// Common part of the rows of HEXPIRE and its kin.
const SETS_TIMES: Command = Command {
    arity: Arity::AtLeast(6),
    flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
    acl: Category::HASH,
    keys: &[KeySpec::at(1).read_write().update()],
    ..Command::BLANK
};

const SETS_TIMES_DOC: Doc = Doc {
    since: "7.4.0",
    group: Group::Hash,
    complexity: "O(N) for N fields.",
    ..Doc::BLANK
};

/// Common part of the rows of HTTL and its kin.
const TELLS_TIMES: Command = Command {
    arity: Arity::AtLeast(5),
    flags: Flags::READONLY.union(Flags::FAST),
    acl: Category::HASH,
    keys: &[KeySpec::at(1).read_only().access()],
    ..Command::BLANK
};

const TELLS_TIMES_DOC: Doc = Doc {
    since: "7.4.0",
    group: Group::Hash,
    complexity: "O(N) for N fields.",
    args: &[Arg::key("key", 0), FIELDS],
    ..Doc::BLANK
};

const CONDITION: Arg = Arg::one_of(
    "condition",
    &[
        Arg::flag("nx", "NX"),
        Arg::flag("xx", "XX"),
        Arg::flag("gt", "GT"),
        Arg::flag("lt", "LT"),
    ],
)
.optional();

const FIELDS: Arg = Arg::block(
    "fields",
    &[Arg::integer("numfields"), Arg::string("field").multiple()],
)
.token("FIELDS");

/// The latest expiry of a field, Unix milliseconds: Redis has 46 bits for it.
const TIME_MAX_MS: i64 = (1 << 46) - 1;

/// Answer for a field that does not exist.
const NO_FIELD: i64 = -2;
/// Answer for a field that does not expire.
const NO_TIME: i64 = -1;
/// Answer for a field whose condition does not hold.
const NOT_MET: i64 = 0;
/// Answer for a field whose expiry was set or removed.
const DONE: i64 = 1;
/// Answer for a field that was removed because the given time is past.
const REMOVED: i64 = 2;

/// Names of the fields that a command has changed.
type Names<'a> = SmallVec<[&'a [u8]; 8]>;

/// The point in time that an argument means, Unix milliseconds.
///
/// # Errors
/// [`ReplyError::NotInteger`], [`ReplyError::NegativeExpire`], or [`ReplyError::InvalidExpire`] for `command` when it is
/// beyond [`TIME_MAX_MS`].
fn time(way: Expiration, arg: &[u8], now_ms: i64, command: &'static str) -> Result<i64, ReplyError> {
    let value = int(arg)?;
    if value < 0 {
        return Err(ReplyError::NegativeExpire);
    }
    way.resolve(value, now_ms)
        .filter(|&at_ms| at_ms <= TIME_MAX_MS)
        .ok_or(ReplyError::InvalidExpire(command))
}

/// Indexes of the fields that follow the word FIELDS at `at` and their number.
///
/// # Errors
/// [`ReplyError::FieldsMissing`], `bad_count` when the number is not a positive one,
/// [`ReplyError::FieldCountMismatch`].
fn fields(args: Arguments<'_>, at: usize, bad_count: ReplyError) -> Result<Range<usize>, ReplyError> {
    let (names, rest) = fields_and_rest(args, at, bad_count)?;
    if rest == 0 {
        Ok(names)
    } else {
        Err(ReplyError::FieldCountMismatch)
    }
}

/// As [`fields`], for a request that may go on behind them: also returns how many arguments are left.
fn fields_and_rest(
    args: Arguments<'_>,
    at: usize,
    bad_count: ReplyError,
) -> Result<(Range<usize>, usize), ReplyError> {
    if !args.get(at).is_some_and(|word| is(word, "FIELDS")) {
        return Err(ReplyError::FieldsMissing);
    }
    let count = args.get(at + 1).and_then(|count| int(count).ok());
    let count = count.filter(|&count| count > 0).ok_or(bad_count)?;
    let first = at + 2;
    let rest = usize::try_from(count)
        .ok()
        .and_then(|count| args.len().checked_sub(first)?.checked_sub(count));
    let rest = rest.ok_or(ReplyError::FieldCountMismatch)?;
    Ok((first..args.len() - rest, rest))
}

/// Condition under which HEXPIRE and its kin change a field's expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Always,
    /// NX: the field has no expiry.
    IfNone,
    /// XX: the field has an expiry.
    IfSome,
    /// GT: the new expiry is later than the old one; no expiry counts as the latest of all.
    IfLater,
    /// LT: the new expiry is earlier than the old one.
    IfEarlier,
}

impl Condition {
    fn read(word: &[u8]) -> Option<Self> {
        let words = [
            ("NX", Self::IfNone),
            ("XX", Self::IfSome),
            ("GT", Self::IfLater),
            ("LT", Self::IfEarlier),
        ];
        words
            .into_iter()
            .find(|(name, _)| is(word, name))
            .map(|(_, condition)| condition)
    }

    /// Reads the condition, which stands before the fields or, since Redis 8.6, behind them, and the indexes of the fields.
    fn parse_with_fields(args: Arguments<'_>) -> Result<(Self, Range<usize>), ReplyError> {
        let before = Self::read(args.at(3));
        let fields_at = if before.is_some() { 4 } else { 3 };
        let (names, rest) = fields_and_rest(args, fields_at, ReplyError::FieldCountNotPositive)?;
        let condition = match (before, rest) {
            (_, 0) => before.unwrap_or(Self::Always),
            (None, 1) => Self::read(args.at(names.end)).ok_or(ReplyError::FieldCountMismatch)?,
            _ => return Err(ReplyError::FieldCountMismatch),
        };
        Ok((condition, names))
    }

    fn allows(self, before: Option<i64>, at_ms: i64) -> bool {
        match self {
            Self::Always => true,
            Self::IfNone => before.is_none(),
            Self::IfSome => before.is_some(),
            Self::IfLater => before.is_some_and(|before| at_ms > before),
            Self::IfEarlier => before.is_none_or(|before| at_ms < before),
        }
    }
}

fn hexpire(ctx: &mut Context<'_>) -> CommandResult {
    expire(ctx, Expiration::EX, "hexpire")
}

fn hpexpire(ctx: &mut Context<'_>) -> CommandResult {
    expire(ctx, Expiration::PX, "hpexpire")
}

fn hexpireat(ctx: &mut Context<'_>) -> CommandResult {
    expire(ctx, Expiration::EXAT, "hexpireat")
}

fn hpexpireat(ctx: &mut Context<'_>) -> CommandResult {
    expire(ctx, Expiration::PXAT, "hpexpireat")
}

fn expire(ctx: &mut Context<'_>, way: Expiration, command: &'static str) -> CommandResult {
    let (args, key, now_ms, wall_ms) = (ctx.args, ctx.key(1), ctx.now_ms(), ctx.wall_ms());
    let removes = removes(ctx);
    let hash = ctx.keyspace.write_as::<Hash>(&key)?;
    let at_ms = time(way, args.at(2), wall_ms, command)?;
    let (condition, names) = Condition::parse_with_fields(args)?;

    ctx.reply.array(names.len());
    let Some(hash) = hash else {
        names.for_each(|_| ctx.reply.integer(NO_FIELD));
        return Ok(());
    };
    let mut times = Times::new(at_ms, removes && at_ms <= now_ms);
    for name in names.map(|index| args.at(index)) {
        ctx.reply.integer(match hash.field(name, now_ms) {
            None => NO_FIELD,
            Some(field) if !condition.allows(field.expiry, at_ms) => NOT_MET,
            Some(_) => times.set(hash, name, now_ms),
        });
    }
    times.finish(ctx, &key);
    Ok(())
}

/// Whether expired fields are removed at once; they are not where another node decides on that.
fn removes(ctx: &Context<'_>) -> bool {
    ctx.keyspace.stamp.on_expired != OnExpired::Keep
}

/// Gives fields the same expiry, or removes them if it is past, and reports the change.
struct Times<'a> {
    at_ms: i64,
    is_past: bool,
    done: Names<'a>,
}

impl<'a> Times<'a> {
    fn new(at_ms: i64, is_past: bool) -> Self {
        Self {
            at_ms,
            is_past,
            done: Names::new(),
        }
    }

    /// Gives an existing field the expiry; returns the answer of HEXPIRE.
    fn set(&mut self, hash: &mut Hash, name: &'a [u8], now_ms: i64) -> i64 {
        self.done.push(name);
        if self.is_past {
            hash.remove(name, now_ms);
            REMOVED
        } else {
            hash.set_expiry(name, Some(self.at_ms), now_ms);
            DONE
        }
    }

    fn finish(self, ctx: &mut Context<'_>, key: &Key<'_>) {
        if self.done.is_empty() {
            return;
        }
        if self.is_past {
            report(ctx.effects, &[b"HDEL", key.bytes], self.done.iter().copied());
        } else {
            report_expiry(ctx.effects, key.bytes, self.at_ms, &self.done);
        }
        let event = if self.is_past { "hdel" } else { "hexpire" };
        ctx.notify(KeyspaceEvents::HASH, event, key);
        ctx.keyspace.settle(key);
        ctx.changed(key, self.done.len() as u64);
    }
}

fn httl(ctx: &mut Context<'_>) -> CommandResult {
    reply_times(ctx, |at_ms, now_ms| seconds(at_ms - now_ms))
}

fn hpttl(ctx: &mut Context<'_>) -> CommandResult {
    reply_times(ctx, |at_ms, now_ms| at_ms - now_ms)
}

fn hexpiretime(ctx: &mut Context<'_>) -> CommandResult {
    reply_times(ctx, |at_ms, _| seconds(at_ms))
}

fn hpexpiretime(ctx: &mut Context<'_>) -> CommandResult {
    reply_times(ctx, |at_ms, _| at_ms)
}

/// Milliseconds as seconds, rounded up. A field's time is below 2^46.
fn seconds(ms: i64) -> i64 {
    (ms + 999) / 1000
}

/// Replies for each field with the result of `show`, called with the field's expiry and the present time.
fn reply_times(ctx: &mut Context<'_>, show: fn(i64, i64) -> i64) -> CommandResult {
    let (args, key, now_ms) = (ctx.args, ctx.key(1), ctx.now_ms());
    let hash = ctx.keyspace.read_as::<Hash>(&key)?;
    let names = fields(args, 2, ReplyError::FieldCount)?;
    ctx.reply.array(names.len());
    for name in names.map(|index| args.at(index)) {
        let field = hash.and_then(|hash| hash.field(name, now_ms));
        ctx.reply.integer(match field.map(|field| field.expiry) {
            None => NO_FIELD,
            Some(None) => NO_TIME,
            Some(Some(at_ms)) => show(at_ms, now_ms),
        });
    }
    Ok(())
}

fn hpersist(ctx: &mut Context<'_>) -> CommandResult {
    let (args, key, now_ms) = (ctx.args, ctx.key(1), ctx.now_ms());
    let mut hash = ctx.keyspace.write_as::<Hash>(&key)?;
    let names = fields(args, 2, ReplyError::FieldCount)?;
    ctx.reply.array(names.len());
    let mut lifted = Names::new();
    for name in names.map(|index| args.at(index)) {
        let answer = hash
            .as_deref_mut()
            .map_or(NO_FIELD, |hash| lift(hash, name, now_ms));
        if answer == DONE {
            lifted.push(name);
        }
        ctx.reply.integer(answer);
    }
    finish_lifting(ctx, &key, &lifted);
    Ok(())
}

/// Removes the expiry of a field; returns the answer of HPERSIST.
fn lift(hash: &mut Hash, name: &[u8], now_ms: i64) -> i64 {
    match hash.field(name, now_ms).map(|field| field.expiry) {
        None => NO_FIELD,
        Some(None) => NO_TIME,
        Some(Some(_)) => {
            hash.set_expiry(name, None, now_ms);
            DONE
        }
    }
}

/// Reports the fields whose expiry was removed.
fn finish_lifting(ctx: &mut Context<'_>, key: &Key<'_>, lifted: &[&[u8]]) {
    if lifted.is_empty() {
        return;
    }
    let mut count = itoa::Buffer::new();
    let count = count.format(lifted.len()).as_bytes();
    let head: [&[u8]; 4] = [b"HPERSIST", key.bytes, b"FIELDS", count];
    report(ctx.effects, &head, lifted.iter().copied());
    ctx.notify(KeyspaceEvents::HASH, "hpersist", key);
    ctx.keyspace.settle(key);
    ctx.changed(key, 1);
}

fn hgetdel(ctx: &mut Context<'_>) -> CommandResult {
    let (args, key, now_ms) = (ctx.args, ctx.key(1), ctx.now_ms());
    let mut hash = ctx.keyspace.write_as::<Hash>(&key)?;
    let names = fields(args, 2, ReplyError::FieldCount)?;
    ctx.reply.array(names.len());
    let mut removed = Names::new();
    for name in names.map(|index| args.at(index)) {
        let hash = hash.as_deref_mut();
        reply_value(
            &mut ctx.reply,
            hash.as_ref().and_then(|hash| hash.get(name, now_ms)),
        );
        if hash.is_some_and(|hash| hash.remove(name, now_ms)) {
            removed.push(name);
        }
    }
    finish_removing(ctx, &key, &removed);
    Ok(())
}

/// Reports the fields that were removed.
fn finish_removing(ctx: &mut Context<'_>, key: &Key<'_>, removed: &[&[u8]]) {
    if !removed.is_empty() {
        report(ctx.effects, &[b"HDEL", key.bytes], removed.iter().copied());
        ctx.notify(KeyspaceEvents::HASH, "hdel", key);
        ctx.keyspace.settle(key);
        ctx.changed(key, removed.len() as u64);
    }
}

/// Effect of HGETEX on the expiry of the fields it returns.
enum Then<'a> {
    Nothing,
    Lift,
    Set(Times<'a>),
}

impl Then<'_> {
    /// Reads the option, which stands before the fields or, since Redis 8.6, behind them, and the indexes of the fields.
    fn parse_with_fields(
        args: Arguments<'_>,
        now_ms: i64,
        removes: bool,
    ) -> Result<(Self, Range<usize>), ReplyError> {
        let (before, words) = Self::parse(args, 2, now_ms, removes)?;
        let (names, rest) = fields_and_rest(args, 2 + words, ReplyError::FieldCount)?;
        if rest == 0 {
            return Ok((before, names));
        }
        let (behind, more) = Self::parse(args, names.end, now_ms, removes)?;
        if more == 0 || more < rest && words == 0 && !is_field_option(args.at(names.end + more)) {
            return Err(ReplyError::FieldCountMismatch);
        }
        if words > 0 || more < rest {
            return Err(ReplyError::SeveralExpiriesOrPersist);
        }
        Ok((behind, names))
    }

    /// Reads the option at an argument, if there is one, and returns how many arguments it takes.
    fn parse(
        args: Arguments<'_>,
        at: usize,
        now_ms: i64,
        removes: bool,
    ) -> Result<(Self, usize), ReplyError> {
        let word = args.at(at);
        if is(word, "PERSIST") {
            return Ok((Self::Lift, 1));
        }
        let Some(way) = Expiration::from_option(word) else {
            return Ok((Self::Nothing, 0));
        };
        let text = args.get(at + 1).ok_or(ReplyError::MissingExpire)?;
        let at_ms = time(way, text, now_ms, "hgetex")?;
        Ok((Self::Set(Times::new(at_ms, removes && at_ms <= now_ms)), 2))
    }
}

/// Whether a word is an option of HGETEX.
fn is_field_option(word: &[u8]) -> bool {
    is(word, "PERSIST") || Expiration::from_option(word).is_some()
}

fn hgetex(ctx: &mut Context<'_>) -> CommandResult {
    let (args, key, now_ms, wall_ms) = (ctx.args, ctx.key(1), ctx.now_ms(), ctx.wall_ms());
    let removes = removes(ctx);
    let mut hash = ctx.keyspace.write_as::<Hash>(&key)?;
    let (mut then, names) = Then::parse_with_fields(args, wall_ms, removes)?;
    ctx.reply.array(names.len());
    let mut lifted = Names::new();
    for name in names.map(|index| args.at(index)) {
        let Some(hash) = hash.as_deref_mut() else {
            ctx.reply.null();
            continue;
        };
        let value = hash.get(name, now_ms);
        reply_value(&mut ctx.reply, value);
        match &mut then {
            Then::Set(times) if value.is_some() => {
                times.set(hash, name, now_ms);
            }
            Then::Lift if lift(hash, name, now_ms) == DONE => lifted.push(name),
            _ => {}
        }
    }
    match then {
        Then::Set(times) => times.finish(ctx, &key),
        _ => finish_lifting(ctx, &key, &lifted),
    }
    Ok(())
}

/// Condition of HSETEX.
#[derive(Clone, Copy, PartialEq, Eq)]
enum If {
    /// FNX: none of the fields exists.
    NoneIsThere,
    /// FXX: all of the fields exist.
    AllAreThere,
}

/// The options of HSETEX.
struct SetOptions {
    condition: Option<If>,
    expiry: Option<FieldExpiry>,
    /// Indexes of the fields and their values.
    pairs: Range<usize>,
}

impl SetOptions {
    fn parse(args: Arguments<'_>, now_ms: i64) -> Result<Self, ReplyError> {
        let (mut condition, mut expiry, mut pairs) = (None, None, None);
        let mut index = 2;
        while let Some(word) = args.get(index) {
            // Since Redis 8.6 the other options may also stand behind the fields.
            if is(word, "FIELDS") && pairs.is_none() {
                let found = Self::pairs(args, index)?;
                index = found.end;
                pairs = Some(found);
                continue;
            } else if let Some(way) = Expiration::from_option(word) {
                let arg = args.get(index + 1).filter(|_| expiry.is_none());
                let arg = arg.ok_or(if expiry.is_some() {
                    ReplyError::SeveralExpiries
                } else {
                    ReplyError::MissingExpire
                })?;
                expiry = Some(FieldExpiry::At(time(way, arg, now_ms, "hsetex")?));
                index += 1;
            } else if is(word, "KEEPTTL") {
                if expiry.replace(FieldExpiry::Keep).is_some() {
                    return Err(ReplyError::SeveralExpiries);
                }
            } else if is(word, "FXX") || is(word, "FNX") {
                let wanted = if is(word, "FXX") {
                    If::AllAreThere
                } else {
                    If::NoneIsThere
                };
                if condition.replace(wanted).is_some() {
                    return Err(ReplyError::SeveralConditions);
                }
            } else if pairs.is_some() {
                return Err(ReplyError::arity("hsetex"));
            } else {
                return Err(ReplyError::Bytes([b"ERR unknown argument: ", word].concat()));
            }
            index += 1;
        }
        Ok(Self {
            condition,
            expiry,
            pairs: pairs.ok_or(ReplyError::FieldsMissing)?,
        })
    }

    /// Indexes of the fields and values that follow the word FIELDS at `at` and their number.
    fn pairs(args: Arguments<'_>, at: usize) -> Result<Range<usize>, ReplyError> {
        let arity = || ReplyError::arity("hsetex");
        let first = at + 2;
        let words = args
            .len()
            .checked_sub(first)
            .filter(|&words| words > 1)
            .ok_or_else(arity)?;
        let count = int(args.at(at + 1))
            .ok()
            .and_then(|count| i32::try_from(count).ok());
        let count = count
            .filter(|&count| count > 0)
            .ok_or(ReplyError::BadFieldCount)?;
        let count = 2 * count as usize;
        if count <= words {
            Ok(first..first + count)
        } else {
            Err(arity())
        }
    }
}

fn hsetex(ctx: &mut Context<'_>) -> CommandResult {
    let (args, key, now_ms, limits) = (ctx.args, ctx.key(1), ctx.now_ms(), limits(ctx));
    let options = SetOptions::parse(args, ctx.wall_ms())?;
    let positions = options.pairs.clone().step_by(2);
    let mut names = positions.clone().map(|index| args.at(index));
    let hash = ctx.keyspace.write_as::<Hash>(&key)?;
    let has = |name| hash.as_ref().is_some_and(|hash| hash.get(name, now_ms).is_some());
    let goes_ahead = match options.condition {
        None => true,
        Some(If::NoneIsThere) => !names.any(has),
        Some(If::AllAreThere) => names.all(has),
    };
    if !goes_ahead {
        ctx.reply.integer(0);
        return Ok(());
    }
    ctx.reply.integer(1);
    let expiry = options.expiry.unwrap_or(FieldExpiry::Clear);
    match expiry {
        FieldExpiry::At(at_ms) if at_ms <= now_ms && removes(ctx) => {
            remove_all(ctx, &key, positions.map(|index| args.at(index)));
            return Ok(());
        }
        _ => {}
    }
    let (hash, _) = ctx.keyspace.make::<Hash>(&key)?;
    hash.expect_fields(positions.len(), &limits);
    let mut times: SmallVec<[(i64, &[u8]); 8]> = SmallVec::new();
    for index in positions.clone() {
        let name = args.at(index);
        hash.set(name, args.at(index + 1), expiry, now_ms, &limits);
        let at_ms = match expiry {
            FieldExpiry::Clear => None,
            FieldExpiry::At(at_ms) => Some(at_ms),
            FieldExpiry::Keep => hash.field(name, now_ms).and_then(|field| field.expiry),
        };
        times.extend(at_ms.map(|at_ms| (at_ms, name)));
    }
    ctx.notify(KeyspaceEvents::HASH, "hset", &key);
    if matches!(expiry, FieldExpiry::At(_)) {
        ctx.notify(KeyspaceEvents::HASH, "hexpire", &key);
    }
    ctx.keyspace.settle(&key);
    let words = options.pairs.map(|index| args.at(index));
    report_set(ctx.effects, key.bytes, words);
    for same in times.chunk_by(|one, other| one.0 == other.0) {
        let names: Names<'_> = same.iter().map(|(_, name)| *name).collect();
        report_expiry(ctx.effects, key.bytes, same[0].0, &names);
    }
    ctx.changed(&key, positions.len() as u64);
    Ok(())
}

/// Removes fields of a key that may not exist.
fn remove_all<'w>(ctx: &mut Context<'_>, key: &Key<'_>, names: impl Iterator<Item = &'w [u8]>) {
    let now_ms = ctx.now_ms();
    let Ok(Some(hash)) = ctx.keyspace.write_as::<Hash>(key) else {
        return;
    };
    let removed: Names<'_> = names.filter(|name| hash.remove(name, now_ms)).collect();
    finish_removing(ctx, key, &removed);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{START_MS, Shell};

    fn shell() -> Shell {
        let mut shell = Shell::new();
        shell.run("HSET h a 1 b 2 c 3");
        shell
    }

    #[test]
    fn times_are_set_told_and_lifted() {
        let mut shell = shell();
        shell.check(&[
            ("HEXPIRE h 10 FIELDS 2 a z", "[:1, :-2]"),
            ("HTTL h FIELDS 3 a b z", "[:10, :-1, :-2]"),
            ("HPTTL h FIELDS 1 a", "[:10000]"),
            ("HPEXPIRE h 1 FIELDS 1 b", "[:1]"),
            ("HTTL h FIELDS 1 b", "[:1]"),
            ("HPEXPIREAT h 4102444800123 FIELDS 1 c", "[:1]"),
            ("HEXPIRETIME h FIELDS 1 c", "[:4102444801]"),
            ("HPEXPIRETIME h FIELDS 1 c", "[:4102444800123]"),
            ("OBJECT ENCODING h", "\"listpackex\""),
            ("HPERSIST h FIELDS 3 c c z", "[:1, :-1, :-2]"),
            ("HTTL missing FIELDS 1 a", "[:-2]"),
            ("HEXPIRE missing 1 FIELDS 1 a", "[:-2]"),
            ("HPERSIST missing FIELDS 1 a", "[:-2]"),
            ("EXISTS missing", ":0"),
        ]);
    }

    #[test]
    fn conditions_compare_with_the_present_time() {
        let mut shell = shell();
        shell.check(&[
            ("HPEXPIRE h 100 XX FIELDS 1 a", "[:0]"),
            ("HPEXPIRE h 100 GT FIELDS 1 a", "[:0]"),
            ("HPEXPIRE h 100 NX FIELDS 1 a", "[:1]"),
            ("HPEXPIRE h 200 NX FIELDS 1 a", "[:0]"),
            ("HPEXPIRE h 100 GT FIELDS 1 a", "[:0]"),
            ("HPEXPIRE h 101 gt FIELDS 1 a", "[:1]"),
            ("HPEXPIRE h 101 LT FIELDS 2 a b", "[:0, :1]"),
            ("HPEXPIRE h 50 LT FIELDS 1 a", "[:1]"),
            ("HPTTL h FIELDS 2 a b", "[:50, :101]"),
        ]);
    }

    #[test]
    fn a_past_time_removes_and_the_last_field_takes_the_key() {
        let mut shell = shell();
        let answer = shell.run("HEXPIRE h 0 FIELDS 2 a z");
        assert_eq!((answer.reply.as_str(), answer.changes), ("[:2, :-2]", 1));
        assert_eq!(answer.effects, ["HDEL h a"]);
        assert_eq!(shell.run("HGETEX h PXAT 1 FIELDS 1 b").reply, "[\"2\"]");
        assert_eq!(shell.run("HSETEX h EXAT 1 FIELDS 1 c 9").effects, ["HDEL h c"]);
        shell.check(&[
            ("EXISTS h", ":0"),
            ("HSETEX h EXAT 1 FIELDS 1 c 9", ":1"),
            ("EXISTS h", ":0"),
        ]);
    }

    #[test]
    fn what_is_repeated_tells_points_in_time() {
        let mut shell = shell();
        let at = START_MS + 1000;
        let expire = format!("HPEXPIREAT h {at} FIELDS 1 a");
        let rows: [(&str, Vec<String>); 8] = [
            ("HEXPIRE h 1 FIELDS 2 a z", vec![expire.clone()]),
            ("HEXPIRE h 1 GT FIELDS 1 a", vec![]),
            ("HGETEX h PX 1000 FIELDS 1 a", vec![expire.clone()]),
            (
                "HSETEX h KEEPTTL FIELDS 2 a 5 b 6",
                vec!["HSET h a 5 b 6".into(), expire],
            ),
            ("HGETEX h FIELDS 1 a", vec![]),
            (
                "HGETEX h PERSIST FIELDS 2 a b",
                vec!["HPERSIST h FIELDS 1 a".into()],
            ),
            (
                "HSETEX h PX 1000 FIELDS 2 a 5 b 6",
                vec!["HSET h a 5 b 6".into(), format!("HPEXPIREAT h {at} FIELDS 2 a b")],
            ),
            ("HGETDEL h FIELDS 2 a z", vec!["HDEL h a".into()]),
        ];
        for (request, effects) in rows {
            assert_eq!(shell.run(request).effects, effects, "{request}");
        }
    }

    #[test]
    fn fields_are_set_on_condition() {
        let mut shell = shell();
        shell.check(&[
            ("HSETEX h FNX FIELDS 2 a 0 d 0", ":0"),
            ("HSETEX h FXX FIELDS 2 a 0 d 0", ":0"),
            ("HSETEX h FXX EX 5 FIELDS 2 a 7 b 8", ":1"),
            ("HMGET h a b d", "[\"7\", \"8\", nil]"),
            ("HTTL h FIELDS 2 a b", "[:5, :5]"),
            ("HSETEX h KEEPTTL FIELDS 1 a 9", ":1"),
            ("HSETEX h FIELDS 1 b 9", ":1"),
            ("HTTL h FIELDS 2 a b", "[:5, :-1]"),
            ("HSETEX none FXX FIELDS 1 a 1", ":0"),
            ("EXISTS none", ":0"),
        ]);
    }

    #[test]
    fn what_is_wrong_is_said_in_the_words_of_redis() {
        let mut shell = shell();
        shell.run("SET s v");
        shell.check(&[
            (
                "HEXPIRE s x FIELDS 1 a",
                "-WRONGTYPE Operation against a key holding the wrong kind of value",
            ),
            (
                "HEXPIRE h x FIELDS 1 a",
                "-ERR value is not an integer or out of range",
            ),
            (
                "HEXPIRE h -1 FIELDS 1 a",
                "-ERR invalid expire time, must be >= 0",
            ),
            (
                "HEXPIRE h 70368744178 FIELDS 1 a",
                "-ERR invalid expire time in 'hexpire' command",
            ),
            (
                "HPEXPIREAT h 70368744177664 FIELDS 1 a",
                "-ERR invalid expire time in 'hpexpireat' command",
            ),
            (
                "HEXPIRE h 1 FIELD 1 a",
                "-ERR Mandatory argument FIELDS is missing or not at the right position",
            ),
            (
                "HEXPIRE h 1 NX XX FIELDS 1 a",
                "-ERR Mandatory argument FIELDS is missing or not at the right position",
            ),
            (
                "HEXPIRE h 1 FIELDS 0 a",
                "-ERR Parameter `numFields` should be greater than 0",
            ),
            (
                "HEXPIRE h 1 FIELDS 2 a",
                "-ERR The `numfields` parameter must match the number of arguments",
            ),
            (
                "HEXPIRE h 1 NX FIELDS 1",
                "-ERR The `numfields` parameter must match the number of arguments",
            ),
            (
                "HTTL h FIELDS x a",
                "-ERR Number of fields must be a positive integer",
            ),
            (
                "HGETEX h EX 1 FIELDS",
                "-ERR Number of fields must be a positive integer",
            ),
            (
                "HGETEX h NONSENSE FIELDS 1 a",
                "-ERR Mandatory argument FIELDS is missing or not at the right position",
            ),
            (
                "HSETEX h EX 1 PX 1 FIELDS 1 a 1",
                "-ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified",
            ),
            (
                "HSETEX h FNX FXX FIELDS 1 a 1",
                "-ERR Only one of FXX or FNX arguments can be specified",
            ),
            (
                "HSETEX h FNX FNX KEEPTTL EX",
                "-ERR Only one of FXX or FNX arguments can be specified",
            ),
            (
                "HSETEX h FNX KEEPTTL KEEPTTL 1",
                "-ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified",
            ),
            ("HSETEX h a b c EX", "-ERR unknown argument: a"),
            (
                "HSETEX h FNX EX 1 PX",
                "-ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified",
            ),
            ("HSETEX h FNX FIELDS x a 1", "-ERR invalid number of fields"),
            (
                "HSETEX h FIELDS 2 a 1",
                "-ERR wrong number of arguments for 'hsetex' command",
            ),
            (
                "HSETEX h FNX KEEPTTL FIELDS 1",
                "-ERR wrong number of arguments for 'hsetex' command",
            ),
        ]);
    }
}
