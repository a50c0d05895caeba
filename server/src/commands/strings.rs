//! Strings: SET and its relatives, reading and changing parts, counters, and the longest common subsequence.
//!
//! The effect of a command that stores a value with a lifetime contains the point in time at which it ends, so that
//! replicas agree on it. Conditions on the old value are in [`compare`]. Rows first, then handlers in the order of
//! the rows.

pub(crate) mod compare;

use shardis_protocol::{Arguments, Encoder};
use shardis_storage::algorithm::lcs;
use shardis_storage::key::Key;
use shardis_storage::keyspace::Expiry;
use shardis_storage::number::LongDouble;
use shardis_storage::value::{INT_TEXT_MAX, StringRef};
use smallvec::SmallVec;

use self::compare::{Comparison, IFDEQ, IFDNE, IFEQ, IFNE};
use crate::config::KeyspaceEvents;
use crate::error::ReplyError;
use crate::exec::arguments::{int, is};
use crate::exec::{CommandResult, Context, Effects, Expiration, NewString, Options};
use crate::spec::argument::Deprecated;
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, KeyFlags, KeySpec, Runs};

/// The commands of this family.
pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "set",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Category::STRING,
        keys: &[KeySpec::at(1)
            .read_write()
            .access()
            .update()
            .variable(key_use_of_set)
            .notes("RW and ACCESS due to the optional `GET` argument")],
        runs: Runs::OnKeys(set),
        adopts: Some(2),
        doc: &Doc {
            since: "1.0.0",
            group: Group::String,
            complexity: "O(1)",
            summary: "Stores a string under a key, in place of whatever the key held.",
            history: &[
                ("2.6.12", "Options `EX`, `PX`, `NX` and `XX`."),
                ("6.0.0", "Option `KEEPTTL`."),
                ("6.2.0", "Options `GET`, `EXAT` and `PXAT`."),
                ("7.0.0", "`NX` and `GET` may be combined."),
                ("8.4.0", "Options `IFEQ`, `IFNE`, `IFDEQ` and `IFDNE`."),
            ],
            args: &[
                Arg::key("key", 0),
                Arg::string("value"),
                Arg::one_of(
                    "condition",
                    &[
                        Arg::flag("nx", "NX"),
                        Arg::flag("xx", "XX"),
                        IFEQ.since("8.4.0"),
                        IFNE.since("8.4.0"),
                        IFDEQ.since("8.4.0"),
                        IFDNE.since("8.4.0"),
                    ],
                )
                .since("2.6.12")
                .optional(),
                Arg::flag("get", "GET").since("6.2.0").optional(),
                Arg::one_of(
                    "expiration",
                    &[
                        Arg::integer("seconds").token("EX").since("2.6.12"),
                        Arg::integer("milliseconds").token("PX").since("2.6.12"),
                        Arg::unix_time("unix-time-seconds").token("EXAT").since("6.2.0"),
                        Arg::unix_time("unix-time-milliseconds")
                            .token("PXAT")
                            .since("6.2.0"),
                        Arg::flag("keepttl", "KEEPTTL").since("6.0.0"),
                    ],
                )
                .optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "setnx",
        arity: Arity::Exactly(3),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Category::STRING,
        keys: &[KeySpec::at(1).overwrite().insert()],
        runs: Runs::OnKeys(setnx),
        adopts: Some(2),
        doc: &Doc {
            since: "1.0.0",
            group: Group::String,
            complexity: "O(1)",
            summary: "Stores a string under a key that does not exist yet.",
            deprecated: Some(Deprecated {
                since: "2.6.12",
                replaced_by: "`SET` with the `NX` argument",
            }),
            args: &[Arg::key("key", 0), Arg::string("value")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "setex",
        arity: Arity::Exactly(4),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Category::STRING,
        keys: &[KeySpec::at(1).overwrite().update()],
        runs: Runs::OnKeys(setex),
        adopts: Some(3),
        doc: &Doc {
            since: "2.0.0",
            group: Group::String,
            complexity: "O(1)",
            summary: "Stores a string that expires after some seconds.",
            deprecated: Some(Deprecated {
                since: "2.6.12",
                replaced_by: "`SET` with the `EX` argument",
            }),
            args: &[Arg::key("key", 0), Arg::integer("seconds"), Arg::string("value")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "psetex",
        arity: Arity::Exactly(4),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Category::STRING,
        keys: &[KeySpec::at(1).overwrite().update()],
        runs: Runs::OnKeys(psetex),
        adopts: Some(3),
        doc: &Doc {
            since: "2.6.0",
            group: Group::String,
            complexity: "O(1)",
            summary: "Stores a string that expires after some milliseconds.",
            deprecated: Some(Deprecated {
                since: "2.6.12",
                replaced_by: "`SET` with the `PX` argument",
            }),
            args: &[
                Arg::key("key", 0),
                Arg::integer("milliseconds"),
                Arg::string("value"),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "get",
        arity: Arity::Exactly(2),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::STRING,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeys(get),
        doc: &Doc {
            since: "1.0.0",
            group: Group::String,
            complexity: "O(1)",
            summary: "Returns the string that a key holds.",
            args: &[Arg::key("key", 0)],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "getset",
        arity: Arity::Exactly(3),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Category::STRING,
        keys: &[KeySpec::at(1).read_write().access().update()],
        runs: Runs::OnKeys(getset),
        adopts: Some(2),
        doc: &Doc {
            since: "1.0.0",
            group: Group::String,
            complexity: "O(1)",
            summary: "Stores a string under a key and returns the one it held before.",
            deprecated: Some(Deprecated {
                since: "6.2.0",
                replaced_by: "`SET` with the `!GET` argument",
            }),
            args: &[Arg::key("key", 0), Arg::string("value")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "getdel",
        arity: Arity::Exactly(2),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Category::STRING,
        keys: &[KeySpec::at(1).read_write().access().delete()],
        runs: Runs::OnKeys(getdel),
        doc: &Doc {
            since: "6.2.0",
            group: Group::String,
            complexity: "O(1)",
            summary: "Removes a key and returns the string it held.",
            args: &[Arg::key("key", 0)],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "getex",
        arity: Arity::AtLeast(2),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Category::STRING,
        keys: &[KeySpec::at(1)
            .read_write()
            .access()
            .update()
            .notes("RW and UPDATE because it changes the TTL")],
        runs: Runs::OnKeys(getex),
        doc: &Doc {
            since: "6.2.0",
            group: Group::String,
            complexity: "O(1)",
            summary: "Returns the string that a key holds, and sets or lifts its expiry on the way.",
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
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "mget",
        arity: Arity::AtLeast(2),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::STRING,
        tips: &["request_policy:multi_shard"],
        keys: &[KeySpec::from(1, 1).read_only().access()],
        runs: Runs::OnKeys(mget),
        doc: &Doc {
            since: "1.0.0",
            group: Group::String,
            complexity: "O(N) for N keys.",
            summary: "Returns the strings that several keys hold.",
            args: &[Arg::key("key", 0).multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "mset",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Category::STRING,
        tips: &["request_policy:multi_shard", "response_policy:all_succeeded"],
        keys: &[KeySpec::from(1, 2).overwrite().update()],
        runs: Runs::OnKeys(mset),
        doc: &Doc {
            since: "1.0.1",
            group: Group::String,
            complexity: "O(N) for N keys.",
            summary: "Stores strings under several keys at once.",
            args: &[Arg::block("data", &[Arg::key("key", 0), Arg::string("value")]).multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "msetnx",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Category::STRING,
        keys: &[KeySpec::from(1, 2).overwrite().insert()],
        runs: Runs::OnKeys(msetnx),
        doc: &Doc {
            since: "1.0.1",
            group: Group::String,
            complexity: "O(N) for N keys.",
            summary: "Stores strings under several keys at once, provided that none of them exists.",
            args: &[Arg::block("data", &[Arg::key("key", 0), Arg::string("value")]).multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "msetex",
        arity: Arity::AtLeast(4),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Category::STRING,
        tips: &["request_policy:multi_shard", "response_policy:all_succeeded"],
        keys: &[KeySpec::counted(1).every(2).overwrite().update()],
        runs: Runs::OnKeys(msetex),
        doc: &Doc {
            since: "8.4.0",
            group: Group::String,
            complexity: "O(N) for N keys.",
            summary: "Stores strings under several keys at once, on one condition and with one expiry if wanted.",
            args: &[
                Arg::integer("numkeys"),
                Arg::block("data", &[Arg::key("key", 0), Arg::string("value")]).multiple(),
                Arg::one_of("condition", &[Arg::flag("nx", "NX"), Arg::flag("xx", "XX")]).optional(),
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
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "append",
        arity: Arity::Exactly(3),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Category::STRING,
        keys: &[KeySpec::at(1).read_write().insert()],
        runs: Runs::OnKeys(append),
        doc: &Doc {
            since: "2.0.0",
            group: Group::String,
            complexity: "O(1) amortised for short additions: room grows faster than the string.",
            summary: "Adds bytes to the end of a string, which is created if need be.",
            args: &[Arg::key("key", 0), Arg::string("value")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "strlen",
        arity: Arity::Exactly(2),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::STRING,
        keys: &[KeySpec::at(1).read_only()],
        runs: Runs::OnKeys(strlen),
        doc: &Doc {
            since: "2.2.0",
            group: Group::String,
            complexity: "O(1)",
            summary: "Returns how many bytes a string has.",
            args: &[Arg::key("key", 0)],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "setrange",
        arity: Arity::Exactly(4),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Category::STRING,
        keys: &[KeySpec::at(1).read_write().update()],
        runs: Runs::OnKeys(setrange),
        doc: &Doc {
            since: "2.2.0",
            group: Group::String,
            complexity: "O(M) for M bytes written, and O(N) once where the string of N bytes has to grow.",
            summary: "Overwrites bytes of a string from an offset on; a gap before it is filled with zeros.",
            args: &[Arg::key("key", 0), Arg::integer("offset"), Arg::string("value")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "getrange",
        arity: Arity::Exactly(4),
        flags: Flags::READONLY,
        acl: Category::STRING,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeys(getrange),
        doc: &Doc {
            since: "2.4.0",
            group: Group::String,
            complexity: "O(N) for N bytes returned.",
            summary: "Returns the bytes of a string between two offsets.",
            args: &[Arg::key("key", 0), Arg::integer("start"), Arg::integer("end")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "substr",
        arity: Arity::Exactly(4),
        flags: Flags::READONLY,
        acl: Category::STRING,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeys(getrange),
        doc: &Doc {
            since: "1.0.0",
            group: Group::String,
            complexity: "O(N) for N bytes returned.",
            summary: "Returns the bytes of a string between two offsets: the old name of GETRANGE.",
            deprecated: Some(Deprecated {
                since: "2.0.0",
                replaced_by: "`GETRANGE`",
            }),
            args: &[Arg::key("key", 0), Arg::integer("start"), Arg::integer("end")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "incr",
        arity: Arity::Exactly(2),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Category::STRING,
        keys: &[KeySpec::at(1).read_write().access().update()],
        runs: Runs::OnKeys(incr),
        doc: &Doc {
            since: "1.0.0",
            group: Group::String,
            complexity: "O(1)",
            summary: "Adds one to an integer.",
            args: &[Arg::key("key", 0)],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "decr",
        arity: Arity::Exactly(2),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Category::STRING,
        keys: &[KeySpec::at(1).read_write().access().update()],
        runs: Runs::OnKeys(decr),
        doc: &Doc {
            since: "1.0.0",
            group: Group::String,
            complexity: "O(1)",
            summary: "Takes one from an integer.",
            args: &[Arg::key("key", 0)],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "incrby",
        arity: Arity::Exactly(3),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Category::STRING,
        keys: &[KeySpec::at(1).read_write().access().update()],
        runs: Runs::OnKeys(incrby),
        doc: &Doc {
            since: "1.0.0",
            group: Group::String,
            complexity: "O(1)",
            summary: "Adds a number to an integer.",
            args: &[Arg::key("key", 0), Arg::integer("increment")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "decrby",
        arity: Arity::Exactly(3),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Category::STRING,
        keys: &[KeySpec::at(1).read_write().access().update()],
        runs: Runs::OnKeys(decrby),
        doc: &Doc {
            since: "1.0.0",
            group: Group::String,
            complexity: "O(1)",
            summary: "Takes a number from an integer.",
            args: &[Arg::key("key", 0), Arg::integer("decrement")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "incrbyfloat",
        arity: Arity::Exactly(3),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Category::STRING,
        keys: &[KeySpec::at(1).read_write().access().update()],
        runs: Runs::OnKeys(incrbyfloat),
        doc: &Doc {
            since: "2.6.0",
            group: Group::String,
            complexity: "O(1)",
            summary: "Adds a floating-point number to a number.",
            args: &[Arg::key("key", 0), Arg::double("increment")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "lcs",
        arity: Arity::AtLeast(3),
        flags: Flags::READONLY,
        acl: Category::STRING,
        keys: &[KeySpec::at(1).range(1, 1, 0).read_only().access()],
        runs: Runs::OnKeysLong(longest_common_subsequence),
        doc: &Doc {
            since: "7.0.0",
            group: Group::String,
            complexity: "O(N*M) for strings of N and M bytes.",
            summary: "Finds the longest sequence of bytes that two strings have in common.",
            args: &[
                Arg::key("key1", 0),
                Arg::key("key2", 0),
                Arg::flag("len", "LEN").optional(),
                Arg::flag("idx", "IDX").optional(),
                Arg::integer("min-match-len").token("MINMATCHLEN").optional(),
                Arg::flag("withmatchlen", "WITHMATCHLEN").optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
];

/// Lifetime of a stored value, from the options of SET and GETEX.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Lifetime<'a> {
    /// No option was given.
    #[default]
    Unsaid,
    /// KEEPTTL: the expiry of the old value stays.
    Keep,
    /// PERSIST: the value never expires.
    Persist,
    /// The value expires at a point in time, given by this option with this argument.
    Until(Expiration, &'a [u8]),
}

impl<'a> Lifetime<'a> {
    /// Reads an option and its argument; `None` when the word is not one about the lifetime.
    fn read(word: &[u8], options: &mut Options<'a>) -> Result<Option<Self>, ReplyError> {
        Ok(match Expiration::from_option(word) {
            Some(way) => Some(Self::Until(way, options.value()?)),
            None if is(word, "KEEPTTL") => Some(Self::Keep),
            None if is(word, "PERSIST") => Some(Self::Persist),
            None => None,
        })
    }

    /// Combines two options: the same one may be repeated, and the last one counts; different ones contradict each
    /// other.
    fn and(self, later: Self) -> Result<Self, ReplyError> {
        match (self, later) {
            (Self::Unsaid, _) | (Self::Keep, Self::Keep) | (Self::Persist, Self::Persist) => Ok(later),
            (Self::Until(one, _), Self::Until(other, _)) if one == other => Ok(later),
            _ => Err(ReplyError::Syntax),
        }
    }
}

/// Condition of SET.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Condition<'a> {
    #[default]
    Always,
    /// NX
    IfMissing,
    /// XX
    IfPresent,
    /// IFEQ and its kin.
    If(Comparison<'a>),
}

impl<'a> Condition<'a> {
    /// Reads an option; `None` when the word is not one about the condition, or contradicts an earlier one.
    fn and(self, word: &[u8], options: &mut Options<'a>) -> Result<Option<Self>, ReplyError> {
        Ok(match self {
            Self::Always | Self::IfMissing if is(word, "NX") => Some(Self::IfMissing),
            Self::Always | Self::IfPresent if is(word, "XX") => Some(Self::IfPresent),
            Self::Always if Comparison::is_named(word) => {
                Comparison::parse(word, options.value()?)?.map(Self::If)
            }
            _ => None,
        })
    }
}

/// The options of SET.
#[derive(Clone, Copy, Debug, Default)]
struct SetOptions<'a> {
    condition: Condition<'a>,
    get: bool,
    lifetime: Lifetime<'a>,
}

impl<'a> SetOptions<'a> {
    fn parse(args: Arguments<'a>) -> Result<Self, ReplyError> {
        let mut parsed = Self::default();
        let mut options = Options::new(args, 3);
        while let Some(word) = options.word() {
            if is(word, "GET") {
                parsed.get = true;
            } else if let Some(condition) = parsed.condition.and(word, &mut options)? {
                parsed.condition = condition;
            } else {
                match Lifetime::read(word, &mut options)? {
                    None | Some(Lifetime::Persist) => return Err(ReplyError::Syntax),
                    Some(lifetime) => parsed.lifetime = parsed.lifetime.and(lifetime)?,
                }
            }
        }
        Ok(parsed)
    }

    /// Reports the change as an effect: with a point in time, all other options are superfluous, and replicas need
    /// neither GET nor the condition.
    fn report(&self, effects: &mut Effects, args: Arguments<'_>, value: &NewString<'_>, expiry: Expiry) {
        if !effects.is_recording() {
            return;
        }
        match expiry {
            Expiry::At(at_ms) => report_set_until(effects, args.at(1), value, at_ms),
            _ if self.get || matches!(self.condition, Condition::If(_)) => {
                let mut words = vec![args.at(0), args.at(1), value.as_bytes()];
                let mut options = Options::new(args, 3);
                while let Some(word) = options.word() {
                    if Comparison::is_named(word) {
                        options.word();
                    } else if !is(word, "GET") {
                        words.push(word);
                    }
                }
                effects.replace(&words);
            }
            _ => report_verbatim(effects, args, 2, value),
        }
    }
}

/// Access of SET to its key: GET returns the old value, and a condition reveals something about it.
fn key_use_of_set(args: Arguments<'_>) -> KeyFlags {
    if args
        .iter()
        .skip(3)
        .any(|word| is(word, "GET") || Comparison::is_named(word))
    {
        KeyFlags::RW | KeyFlags::ACCESS | KeyFlags::UPDATE
    } else {
        KeyFlags::OW | KeyFlags::UPDATE
    }
}

/// Reports the request itself; it is put together again if its value was moved out of its arguments.
#[inline]
fn report_verbatim(effects: &mut Effects, args: Arguments<'_>, index: usize, value: &NewString<'_>) {
    if let NewString::Adopted(value) = value
        && effects.is_recording()
    {
        let word = |(position, word)| if position == index { &**value } else { word };
        effects.replace(&args.iter().enumerate().map(word).collect::<Vec<&[u8]>>());
    }
}

/// Reports that a value was stored with an expiry.
fn report_set_until(effects: &mut Effects, key: &[u8], value: &NewString<'_>, at_ms: i64) {
    if effects.is_recording() {
        effects.replace(&[
            b"SET",
            key,
            value.as_bytes(),
            b"PXAT",
            itoa::Buffer::new().format(at_ms).as_bytes(),
        ]);
    }
}

/// Checks that a string would not be longer than `proto-max-bulk-len`.
fn check_length(ctx: &Context<'_>, len: u64) -> Result<(), ReplyError> {
    if len > ctx.settings.proto_max_bulk_len {
        Err(ReplyError::StringTooLong)
    } else {
        Ok(())
    }
}

/// Replies with a string.
#[inline]
pub(super) fn bulk(reply: &mut Encoder<'_>, value: StringRef<'_>) {
    match value {
        StringRef::Bytes(bytes) => reply.bulk(bytes),
        StringRef::Int(int) => reply.bulk_integer(int),
    }
}

/// Replies with a string and nothing else; the command must not fail after it.
#[inline]
pub(super) fn whole_bulk(reply: &mut Encoder<'_>, value: StringRef<'_>) {
    match value {
        StringRef::Bytes(bytes) => reply.whole_bulk(bytes),
        StringRef::Int(int) => reply.bulk_integer(int),
    }
}

/// Replies with the string that a key holds, or with null. True when the key exists.
#[inline]
fn reply_value(ctx: &mut Context<'_>, key: &Key<'_>) -> Result<bool, ReplyError> {
    let value = ctx.keyspace.read_string(key)?;
    match value {
        Some(value) => whole_bulk(&mut ctx.reply, value),
        None => ctx.reply.null(),
    }
    Ok(value.is_some())
}

fn set(ctx: &mut Context<'_>) -> CommandResult {
    if ctx.args.len() > 3 {
        return set_with_options(ctx);
    }
    let (key, value) = (ctx.key(1), ctx.value(2));
    report_verbatim(ctx.effects, ctx.args, 2, &value);
    ctx.keyspace.set_string(&key, value, Expiry::Clear);
    ctx.modified(&key);
    ctx.notify(KeyspaceEvents::STRING, "set", &key);
    ctx.reply.ok();
    Ok(())
}

fn set_with_options(ctx: &mut Context<'_>) -> CommandResult {
    let options = SetOptions::parse(ctx.args)?;
    let expiry = match options.lifetime {
        Lifetime::Until(way, arg) => Expiry::At(way.at(arg, ctx.wall_ms(), "set")?),
        Lifetime::Keep => Expiry::Keep,
        Lifetime::Unsaid | Lifetime::Persist => Expiry::Clear,
    };
    let key = ctx.key(1);
    if options.get {
        reply_value(ctx, &key)?;
    }
    let may_go_ahead = match options.condition {
        Condition::Always => true,
        Condition::IfMissing => ctx.keyspace.write(&key).is_none(),
        Condition::IfPresent => ctx.keyspace.write(&key).is_some(),
        Condition::If(comparison) => comparison.holds(ctx.keyspace.write_string(&key)?),
    };
    if may_go_ahead {
        let value = ctx.value(2);
        options.report(ctx.effects, ctx.args, &value, expiry);
        ctx.keyspace.set_string(&key, value, expiry);
        ctx.modified(&key);
        ctx.notify(KeyspaceEvents::STRING, "set", &key);
        if matches!(expiry, Expiry::At(_)) {
            ctx.notify(KeyspaceEvents::GENERIC, "expire", &key);
        }
    }
    match (options.get, may_go_ahead) {
        (true, _) => {}
        (false, true) => ctx.reply.ok(),
        (false, false) => ctx.reply.null(),
    }
    Ok(())
}

fn setnx(ctx: &mut Context<'_>) -> CommandResult {
    let key = ctx.key(1);
    if ctx.keyspace.write(&key).is_some() {
        ctx.reply.integer(0);
        return Ok(());
    }
    let value = ctx.value(2);
    report_verbatim(ctx.effects, ctx.args, 2, &value);
    ctx.keyspace.set_string(&key, value, Expiry::Clear);
    ctx.modified(&key);
    ctx.notify(KeyspaceEvents::STRING, "set", &key);
    ctx.reply.integer(1);
    Ok(())
}

fn setex(ctx: &mut Context<'_>) -> CommandResult {
    set_for(ctx, Expiration::EX, "setex")
}

fn psetex(ctx: &mut Context<'_>) -> CommandResult {
    set_for(ctx, Expiration::PX, "psetex")
}

fn set_for(ctx: &mut Context<'_>, way: Expiration, command: &'static str) -> CommandResult {
    let at_ms = way.at(ctx.args.at(2), ctx.wall_ms(), command)?;
    let (key, value) = (ctx.key(1), ctx.value(3));
    report_set_until(ctx.effects, key.bytes, &value, at_ms);
    ctx.keyspace.set_string(&key, value, Expiry::At(at_ms));
    ctx.modified(&key);
    ctx.notify(KeyspaceEvents::STRING, "set", &key);
    ctx.notify(KeyspaceEvents::GENERIC, "expire", &key);
    ctx.reply.ok();
    Ok(())
}

fn get(ctx: &mut Context<'_>) -> CommandResult {
    let key = ctx.key(1);
    reply_value(ctx, &key)?;
    Ok(())
}

fn getset(ctx: &mut Context<'_>) -> CommandResult {
    let key = ctx.key(1);
    reply_value(ctx, &key)?;
    let value = ctx.value(2);
    if ctx.effects.is_recording() {
        ctx.effects.replace(&[b"SET", key.bytes, value.as_bytes()]);
    }
    ctx.keyspace.set_string(&key, value, Expiry::Clear);
    ctx.modified(&key);
    ctx.notify(KeyspaceEvents::STRING, "set", &key);
    Ok(())
}

fn getdel(ctx: &mut Context<'_>) -> CommandResult {
    let key = ctx.key(1);
    if reply_value(ctx, &key)? {
        let lazily = ctx.keyspace.stamp.lazy_user_del;
        remove(ctx, &key, lazily);
    }
    Ok(())
}

/// Removes an existing key, and reports the removal as DEL or UNLINK.
fn remove(ctx: &mut Context<'_>, key: &Key<'_>, lazily: bool) {
    ctx.keyspace.remove(key, lazily);
    let name: &[u8] = if lazily { b"UNLINK" } else { b"DEL" };
    ctx.effects.replace(&[name, key.bytes]);
    ctx.modified(key);
    ctx.notify(KeyspaceEvents::GENERIC, "del", key);
}

fn getex(ctx: &mut Context<'_>) -> CommandResult {
    let lifetime = lifetime_of_getex(ctx.args)?;
    let (key, now_ms, wall_ms) = (ctx.key(1), ctx.now_ms(), ctx.wall_ms());
    let Some(value) = ctx.keyspace.read_string(&key)? else {
        // For a missing key the lifetime is not even checked.
        ctx.reply.null();
        return Ok(());
    };
    let at_ms = match lifetime {
        Lifetime::Until(way, arg) => Some(way.at(arg, wall_ms, "getex")?),
        _ => None,
    };
    bulk(&mut ctx.reply, value);
    match at_ms {
        Some(at_ms) if at_ms <= now_ms => {
            let lazily = ctx.settings.lazyfree_lazy_expire;
            remove(ctx, &key, lazily);
        }
        Some(at_ms) => {
            ctx.keyspace.set_expiry(&key, Some(at_ms));
            ctx.effects.replace(&[
                b"PEXPIREAT",
                key.bytes,
                itoa::Buffer::new().format(at_ms).as_bytes(),
            ]);
            ctx.modified(&key);
            ctx.notify(KeyspaceEvents::GENERIC, "expire", &key);
        }
        None if lifetime == Lifetime::Persist => persist(ctx, &key),
        None => {}
    }
    Ok(())
}

fn lifetime_of_getex(args: Arguments<'_>) -> Result<Lifetime<'_>, ReplyError> {
    let mut lifetime = Lifetime::Unsaid;
    let mut options = Options::new(args, 2);
    while let Some(word) = options.word() {
        match Lifetime::read(word, &mut options)? {
            None | Some(Lifetime::Keep) => return Err(ReplyError::Syntax),
            Some(later) => lifetime = lifetime.and(later)?,
        }
    }
    Ok(lifetime)
}

fn persist(ctx: &mut Context<'_>, key: &Key<'_>) {
    if ctx
        .keyspace
        .found(key)
        .is_some_and(|entry| entry.expiry().is_some())
    {
        ctx.keyspace.set_expiry(key, None);
        ctx.effects.replace(&[b"PERSIST", key.bytes]);
        ctx.modified(key);
        ctx.notify(KeyspaceEvents::GENERIC, "persist", key);
    }
}

/// Number of keys that are prefetched together.
const KEYS_AT_ONCE: usize = 32;

/// Calls `act` on the keys at these indexes in order, after prefetching groups of them.
fn for_each_key<'a>(
    ctx: &mut Context<'a>,
    mut positions: impl Iterator<Item = usize>,
    mut act: impl FnMut(&mut Context<'a>, usize, &Key<'_>),
) {
    let mut keys: SmallVec<[(usize, Key<'_>); KEYS_AT_ONCE]> = SmallVec::new();
    loop {
        keys.extend(
            positions
                .by_ref()
                .take(KEYS_AT_ONCE)
                .map(|position| (position, ctx.key(position))),
        );
        if keys.is_empty() {
            return;
        }
        ctx.keyspace.prefetch(keys.iter().map(|(_, key)| key));
        for (position, key) in keys.drain(..) {
            act(ctx, position, &key);
        }
    }
}

fn mget(ctx: &mut Context<'_>) -> CommandResult {
    let positions = 1..ctx.args.len();
    ctx.reply.array(positions.len());
    for_each_key(ctx, positions, |ctx, _, key| {
        match ctx.keyspace.read_string(key) {
            Ok(Some(value)) => bulk(&mut ctx.reply, value),
            Ok(None) | Err(_) => ctx.reply.null(),
        }
    });
    Ok(())
}

/// Indexes of the keys of MSET and MSETNX; each is followed by its value.
///
/// # Errors
/// An arity error for `command` when a value is missing.
fn pairs(
    args: Arguments<'_>,
    command: &'static str,
) -> Result<impl Iterator<Item = usize> + Clone + use<>, ReplyError> {
    if args.len().is_multiple_of(2) {
        return Err(ReplyError::arity(command));
    }
    Ok((1..args.len()).step_by(2))
}

fn mset(ctx: &mut Context<'_>) -> CommandResult {
    let pairs = pairs(ctx.args, "mset")?;
    set_pairs(ctx, pairs, Expiry::Clear);
    ctx.reply.ok();
    Ok(())
}

fn msetnx(ctx: &mut Context<'_>) -> CommandResult {
    let pairs = pairs(ctx.args, "msetnx")?;
    for index in pairs.clone() {
        let key = ctx.key(index);
        if ctx.keyspace.write(&key).is_some() {
            ctx.reply.integer(0);
            return Ok(());
        }
    }
    set_pairs(ctx, pairs, Expiry::Clear);
    ctx.reply.integer(1);
    Ok(())
}

fn set_pairs(ctx: &mut Context<'_>, positions: impl Iterator<Item = usize>, expiry: Expiry) {
    for_each_key(ctx, positions, |ctx, position, key| {
        let value = NewString::Bytes(ctx.args.at(position + 1));
        ctx.keyspace.set_string(key, value, expiry);
        ctx.modified(key);
        ctx.notify(KeyspaceEvents::STRING, "set", key);
        if matches!(expiry, Expiry::At(_)) {
            ctx.notify(KeyspaceEvents::GENERIC, "expire", key);
        }
    });
}

fn msetex(ctx: &mut Context<'_>) -> CommandResult {
    let args = ctx.args;
    let count = int(args.at(1))
        .ok()
        .and_then(|count| i32::try_from(count).ok())
        .and_then(|count| usize::try_from(count).ok())
        .filter(|&count| count > 0)
        .ok_or(ReplyError::Fixed("ERR invalid numkeys value"))?;
    let pairs = (2..2 + 2 * count).step_by(2);
    if args.len() < 2 + 2 * count {
        return Err(ReplyError::Fixed("ERR wrong number of key-value pairs"));
    }
    let (condition, lifetime) = options_of_msetex(args, 2 + 2 * count)?;
    let expiry = match lifetime {
        Lifetime::Until(way, arg) => Expiry::At(way.at(arg, ctx.wall_ms(), "msetex")?),
        Lifetime::Keep => Expiry::Keep,
        Lifetime::Unsaid | Lifetime::Persist => Expiry::Clear,
    };
    let mut is_there = |index| {
        let key = ctx.key(index);
        ctx.keyspace.write(&key).is_some()
    };
    let may_go_ahead = match condition {
        Condition::IfMissing => !pairs.clone().any(&mut is_there),
        Condition::IfPresent => pairs.clone().all(&mut is_there),
        Condition::Always | Condition::If(_) => true,
    };
    if may_go_ahead {
        if let Expiry::At(at_ms) = expiry {
            report_pairs_until(ctx.effects, args, 2 + 2 * count, at_ms);
        }
        set_pairs(ctx, pairs, expiry);
    }
    ctx.reply.integer(i64::from(may_go_ahead));
    Ok(())
}

/// Reads the options of MSETEX from argument `first` on, which have no comparisons.
fn options_of_msetex(args: Arguments<'_>, first: usize) -> Result<(Condition<'_>, Lifetime<'_>), ReplyError> {
    let (mut condition, mut lifetime) = (Condition::Always, Lifetime::Unsaid);
    let mut options = Options::new(args, first);
    while let Some(word) = options.word() {
        if Comparison::is_named(word) {
            return Err(ReplyError::Syntax);
        }
        if let Some(known) = condition.and(word, &mut options)? {
            condition = known;
            continue;
        }
        match Lifetime::read(word, &mut options)? {
            None | Some(Lifetime::Persist) => return Err(ReplyError::Syntax),
            Some(later) => lifetime = lifetime.and(later)?,
        }
    }
    Ok((condition, lifetime))
}

/// Reports that the pairs before argument `end` were stored with an expiry.
fn report_pairs_until(effects: &mut Effects, args: Arguments<'_>, end: usize, at_ms: i64) {
    if effects.is_recording() {
        let mut text = itoa::Buffer::new();
        let mut words: Vec<&[u8]> = args.iter().take(end).collect();
        words.extend([b"PXAT", text.format(at_ms).as_bytes()]);
        effects.replace(&words);
    }
}

fn append(ctx: &mut Context<'_>) -> CommandResult {
    let (key, suffix) = (ctx.key(1), ctx.args.at(2));
    let len = match ctx.keyspace.write_string(&key)?.map(|value| value.len()) {
        Some(old_len) => {
            let len = old_len.saturating_add(suffix.len());
            check_length(ctx, len as u64)?;
            ctx.keyspace.string_mut(&key, len)[old_len..].copy_from_slice(suffix);
            len
        }
        None => {
            // A new string is stored like by SET: digits become an integer.
            ctx.keyspace
                .set_string(&key, NewString::Bytes(suffix), Expiry::Clear);
            suffix.len()
        }
    };
    ctx.modified(&key);
    ctx.notify(KeyspaceEvents::STRING, "append", &key);
    ctx.reply.integer(len as i64);
    Ok(())
}

fn strlen(ctx: &mut Context<'_>) -> CommandResult {
    let key = ctx.key(1);
    let len = ctx.keyspace.read_string(&key)?.map_or(0, |value| value.len());
    ctx.reply.integer(len as i64);
    Ok(())
}

fn setrange(ctx: &mut Context<'_>) -> CommandResult {
    let offset = usize::try_from(int(ctx.args.at(2))?).map_err(|_| ReplyError::OffsetOutOfRange)?;
    let (key, patch) = (ctx.key(1), ctx.args.at(3));
    let old_len = ctx.keyspace.write_string(&key)?.map_or(0, |value| value.len());
    if patch.is_empty() {
        ctx.reply.integer(old_len as i64);
        return Ok(());
    }
    let end = offset.saturating_add(patch.len());
    check_length(ctx, end as u64)?;
    let bytes = ctx.keyspace.string_mut(&key, end);
    bytes[offset..end].copy_from_slice(patch);
    let len = bytes.len();
    ctx.modified(&key);
    ctx.notify(KeyspaceEvents::STRING, "setrange", &key);
    ctx.reply.integer(len as i64);
    Ok(())
}

/// The first and last of `len` elements that `start` and `end` select; none if they select nothing. Both are
/// included, negative ones count from the end, and positions outside are moved to the nearest element.
///
/// As in Redis, an end before the first element is moved up to it even if the start is before it, too.
pub(super) fn clamp(start: i64, end: i64, len: u64) -> Option<(u64, u64)> {
    let from_start = |index: i64| if index < 0 { index + len as i64 } else { index }.max(0) as u64;
    let (start, end) = (from_start(start), from_start(end));
    let end = end.min(len.checked_sub(1)?);
    (start <= end).then_some((start, end))
}

/// Whether both ends count from the end and are in the wrong order, so that they select nothing: [`clamp`] does not
/// see this.
pub(super) const fn are_crossed(start: i64, end: i64) -> bool {
    start < 0 && end < 0 && start > end
}

fn getrange(ctx: &mut Context<'_>) -> CommandResult {
    let (start, end) = (int(ctx.args.at(2))?, int(ctx.args.at(3))?);
    let key = ctx.key(1);
    let mut scratch = [0; INT_TEXT_MAX];
    let value = ctx.keyspace.read_string(&key)?.unwrap_or(StringRef::Bytes(b""));
    let bytes = value.as_bytes(&mut scratch);
    let selected = match clamp(start, end, bytes.len() as u64) {
        Some((first, last)) if !are_crossed(start, end) => &bytes[first as usize..=last as usize],
        _ => &[],
    };
    ctx.reply.whole_bulk(selected);
    Ok(())
}

fn incr(ctx: &mut Context<'_>) -> CommandResult {
    add(ctx, 1)
}

fn decr(ctx: &mut Context<'_>) -> CommandResult {
    add(ctx, -1)
}

fn incrby(ctx: &mut Context<'_>) -> CommandResult {
    let increment = int(ctx.args.at(2))?;
    add(ctx, increment)
}

fn decrby(ctx: &mut Context<'_>) -> CommandResult {
    let decrement = int(ctx.args.at(2))?;
    add(ctx, decrement.checked_neg().ok_or(ReplyError::DecrementOverflow)?)
}

fn add(ctx: &mut Context<'_>, increment: i64) -> CommandResult {
    let key = ctx.key(1);
    let mut entry = ctx.keyspace.write_entry(&key);
    let mut current = 0;
    if let Some(entry) = &entry {
        let Some(value) = entry.string() else {
            return Err(ReplyError::WrongType);
        };
        let Some(number) = value.to_int() else {
            return Err(ReplyError::NotInteger);
        };
        current = number;
    }
    let Some(sum) = current.checked_add(increment) else {
        return Err(ReplyError::IncrementOverflow);
    };
    let replaced = entry.as_mut().is_some_and(|entry| entry.replace_int(sum));
    if !replaced {
        ctx.keyspace.set_integer(&key, sum, Expiry::Keep);
    }
    ctx.modified(&key);
    ctx.notify(KeyspaceEvents::STRING, "incrby", &key);
    ctx.reply.integer(sum);
    Ok(())
}

fn incrbyfloat(ctx: &mut Context<'_>) -> CommandResult {
    let key = ctx.key(1);
    let mut scratch = [0; INT_TEXT_MAX];
    let current = ctx.keyspace.write_string(&key)?.unwrap_or(StringRef::Int(0));
    let current = LongDouble::parse(current.as_bytes(&mut scratch)).ok_or(ReplyError::NotFloat)?;
    let increment = LongDouble::parse(ctx.args.at(2)).ok_or(ReplyError::NotFloat)?;
    let sum = current.checked_add(increment).ok_or(ReplyError::NotFinite)?;
    let mut text = Vec::new();
    sum.write_human(&mut text);
    ctx.keyspace.set_text(&key, &text, Expiry::Keep);
    // Replicas store the result, since other machines may round differently.
    ctx.effects.replace(&[b"SET", key.bytes, &text, b"KEEPTTL"]);
    ctx.modified(&key);
    ctx.notify(KeyspaceEvents::STRING, "incrbyfloat", &key);
    ctx.reply.bulk(&text);
    Ok(())
}

/// The options of LCS.
#[derive(Clone, Copy, Debug, Default)]
struct LcsOptions {
    length: bool,
    indexes: bool,
    match_len_min: usize,
    with_match_len: bool,
}

impl LcsOptions {
    fn parse(args: Arguments<'_>) -> Result<Self, ReplyError> {
        let mut parsed = Self::default();
        let mut options = Options::new(args, 3);
        while let Some(word) = options.word() {
            if is(word, "IDX") {
                parsed.indexes = true;
            } else if is(word, "LEN") {
                parsed.length = true;
            } else if is(word, "WITHMATCHLEN") {
                parsed.with_match_len = true;
            } else if is(word, "MINMATCHLEN") {
                // A negative minimum means the same as zero.
                parsed.match_len_min = usize::try_from(options.int()?).unwrap_or(0);
            } else {
                return Err(ReplyError::Syntax);
            }
        }
        if parsed.length && parsed.indexes {
            Err(ReplyError::LcsLengthAndIndexes)
        } else {
            Ok(parsed)
        }
    }
}

fn longest_common_subsequence(ctx: &mut Context<'_>) -> CommandResult {
    let keys = [ctx.key(1), ctx.key(2)];
    // Both keys are looked up, and count, before their types are checked.
    let [first, second] = keys
        .each_ref()
        .map(|key| ctx.keyspace.read_string(key).map(|value| value.is_some()));
    let (Ok(first), Ok(second)) = (first, second) else {
        return Err(ReplyError::LcsNotStrings);
    };
    let live = [first, second];
    let options = LcsOptions::parse(ctx.args)?;
    let mut scratches = [[0; INT_TEXT_MAX]; 2];
    let [scratch_a, scratch_b] = &mut scratches;
    let value = |index: usize| {
        let found = if live[index] {
            ctx.keyspace.found(&keys[index])
        } else {
            None
        };
        found
            .and_then(|entry| entry.string())
            .unwrap_or(StringRef::Bytes(b""))
    };
    let (a, b) = (value(0), value(1));
    let (a, b) = (a.as_bytes(scratch_a), b.as_bytes(scratch_b));
    if lcs::table_bytes(a.len(), b.len()) > ctx.settings.proto_max_bulk_len {
        return Err(ReplyError::LcsTooLarge);
    }
    if options.length {
        ctx.reply.integer(lcs::length(a, b) as i64);
        return Ok(());
    }
    let alignment = lcs::Alignment::new(a, b);
    if options.indexes {
        reply_matches(&mut ctx.reply, &alignment, options);
    } else {
        ctx.reply.bulk(&alignment.subsequence());
    }
    Ok(())
}

fn reply_matches(reply: &mut Encoder<'_>, alignment: &lcs::Alignment<'_>, options: LcsOptions) {
    reply.map(2);
    reply.bulk(b"matches");
    let matches = reply.deferred_array(0);
    let mut count = 0;
    for found in alignment
        .matches()
        .filter(|found| found.len >= options.match_len_min)
    {
        count += 1;
        reply.array(if options.with_match_len { 3 } else { 2 });
        for (first, last) in [(found.a_start, found.a_last()), (found.b_start, found.b_last())] {
            reply.array(2);
            reply.integer(first as i64);
            reply.integer(last as i64);
        }
        if options.with_match_len {
            reply.integer(found.len as i64);
        }
    }
    reply.close(matches, count);
    reply.bulk(b"len");
    reply.integer(alignment.length() as i64);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shardis_storage::value::Encoding;

    use super::super::testing::Shell;
    use super::*;

    const SYNTAX: &str = "-ERR syntax error";
    const NOT_INTEGER: &str = "-ERR value is not an integer or out of range";

    #[test]
    fn set_stores_and_is_repeated_with_a_point_in_time() {
        Shell::new().check_effects(&[
            ("SET k v", "+OK", &["SET k v"]),
            ("set k v EX 10", "+OK", &["SET k v PXAT 1700000010000"]),
            ("SET k v px 1500", "+OK", &["SET k v PXAT 1700000001500"]),
            (
                "SET k v EXAT 99999999999",
                "+OK",
                &["SET k v PXAT 99999999999000"],
            ),
            (
                "SET k v PXAT 9223372036854775807",
                "+OK",
                &["SET k v PXAT 9223372036854775807"],
            ),
            ("SET k v KEEPTTL", "+OK", &["SET k v KEEPTTL"]),
            ("SET k v KEEPTTL KEEPTTL", "+OK", &["SET k v KEEPTTL KEEPTTL"]),
            ("SET k v EX 10 EX 20", "+OK", &["SET k v PXAT 1700000020000"]),
            ("SET k v NX", "nil", &[]),
            ("SET k v NX NX", "nil", &[]),
            ("SET k v XX", "+OK", &["SET k v XX"]),
            ("SET new v XX", "nil", &[]),
            ("SET new v NX", "+OK", &["SET new v NX"]),
            ("SET new v ex 100 xx", "+OK", &["SET new v PXAT 1700000100000"]),
            ("SET k \"\"", "+OK", &["SET k \"\""]),
            ("GET k", "\"\"", &[]),
        ]);
    }

    #[test]
    fn set_with_get_returns_what_was_there() {
        Shell::new().check_effects(&[
            ("SET k v NX GET", "nil", &["SET k v NX"]),
            ("SET k w NX GET", "\"v\"", &[]),
            ("SET k w XX GET EX 10", "\"v\"", &["SET k w PXAT 1700000010000"]),
            ("SET k 7 get xx keepttl GET", "\"w\"", &["SET k 7 xx keepttl"]),
            ("SET k 8 GET", "\"7\"", &["SET k 8"]),
            ("SET none v XX GET", "nil", &[]),
            ("SET none v EXAT 1 GET", "nil", &["SET none v PXAT 1000"]),
            ("GET none", "nil", &["DEL none"]),
        ]);
        assert_eq!(Shell::new().resp3().run("SET k v GET").raw, b"_\r\n");
    }

    #[test]
    fn set_refuses_what_does_not_fit_together() {
        let invalid = "-ERR invalid expire time in 'set' command";
        let mut shell = Shell::new();
        shell.check(&[
            ("SET k", "-ERR wrong number of arguments for 'set' command"),
            ("SET k v NX XX", SYNTAX),
            ("SET k v XX NX", SYNTAX),
            ("SET k v EX 10 KEEPTTL", SYNTAX),
            ("SET k v KEEPTTL EX 10", SYNTAX),
            ("SET k v EX 10 PX 20", SYNTAX),
            ("SET k v EX", SYNTAX),
            ("SET k v PERSIST", SYNTAX),
            ("SET k v FOO", SYNTAX),
            ("SET k v EX abc FOO", SYNTAX),
            ("SET k v EX abc", NOT_INTEGER),
            ("SET k v EX 0", invalid),
            ("SET k v EX -1", invalid),
            ("SET k v EX 9223372036854775807", invalid),
            ("SET k v PX 9223372036854775807", invalid),
            ("SET k v EXAT 9223372036854775807", invalid),
            ("GET k", "nil"),
        ]);
        assert_eq!(shell.run("SET k v FOO").changes, 0);
    }

    #[test]
    fn an_expiry_that_is_over_is_not_kept() {
        for line in ["SET k w KEEPTTL", "SET k w KEEPTTL GET", "MSETEX 1 k w KEEPTTL"] {
            let mut shell = Shell::new();
            shell.run("SET k v PX 10");
            shell.advance(11);
            shell.run(line);
            shell.check(&[("TTL k", ":-1"), ("GET k", "\"w\"")]);
        }
    }

    #[test]
    fn an_expiry_is_kept_or_lifted_as_asked() {
        let mut shell = Shell::new();
        let expiry = |shell: &mut Shell| shell.entry("k", |entry| entry.expiry()).flatten();
        shell.run("SET k v EX 10");
        shell.run("SET k w KEEPTTL");
        assert_eq!(expiry(&mut shell), Some(1_700_000_010_000));
        shell.run("INCRBYFLOAT n 1");
        shell.run("APPEND k x");
        shell.run("SETRANGE k 0 y");
        assert_eq!(expiry(&mut shell), Some(1_700_000_010_000));
        shell.run("SET k w");
        assert_eq!(expiry(&mut shell), None);
        for line in ["GETSET k v", "MSET k v"] {
            shell.run("SET k 1 EX 10");
            shell.run(line);
            assert_eq!(expiry(&mut shell), None, "{line}");
        }
        for line in ["INCR k", "DECRBY k 5", "INCRBYFLOAT k 0.5"] {
            shell.run("SET k 1 EX 10");
            shell.run(line);
            assert_eq!(expiry(&mut shell), Some(1_700_000_010_000), "{line}");
        }
    }

    #[test]
    fn expired_keys_are_gone_and_their_removal_is_repeated_first() {
        let mut shell = Shell::new();
        for (line, reply, effects) in [
            ("GET k", "nil", &["DEL k"][..]),
            ("SETNX k w", ":1", &["DEL k", "SETNX k w"]),
            ("SET k w NX", "+OK", &["DEL k", "SET k w NX"]),
            ("SET k w XX", "nil", &["DEL k"]),
            ("GETSET k w", "nil", &["DEL k", "SET k w"]),
            ("APPEND k w", ":1", &["DEL k", "APPEND k w"]),
            ("INCR k", ":1", &["DEL k", "INCR k"]),
            ("GETDEL k", "nil", &["DEL k"]),
            ("MSETNX k w", ":1", &["DEL k", "MSETNX k w"]),
        ] {
            shell.run("SET k 41 PX 5");
            shell.advance(6);
            shell.check_effects(&[(line, reply, effects)]);
        }
    }

    #[test]
    fn relatives_of_set() {
        Shell::new().check_effects(&[
            ("SETNX k v", ":1", &["SETNX k v"]),
            ("SETNX k w", ":0", &[]),
            ("SETEX k 10 w", "+OK", &["SET k w PXAT 1700000010000"]),
            ("SETEX k 0 v", "-ERR invalid expire time in 'setex' command", &[]),
            ("SETEX k x v", NOT_INTEGER, &[]),
            (
                "SETEX k 9223372036854775807 v",
                "-ERR invalid expire time in 'setex' command",
                &[],
            ),
            ("PSETEX k 1000 12", "+OK", &["SET k 12 PXAT 1700000001000"]),
            (
                "PSETEX k -1 v",
                "-ERR invalid expire time in 'psetex' command",
                &[],
            ),
            ("GETSET k new", "\"12\"", &["SET k new"]),
            ("GETSET none v", "nil", &["SET none v"]),
            ("GET k", "\"new\"", &[]),
        ]);
    }

    #[test]
    fn getdel_removes_the_way_del_does() {
        let mut shell = Shell::new();
        shell.check_effects(&[
            ("SET k v", "+OK", &["SET k v"]),
            ("GETDEL k", "\"v\"", &["DEL k"]),
            ("GETDEL k", "nil", &[]),
        ]);
        shell.stamp.lazy_user_del = true;
        shell.check_effects(&[
            ("SET k 1", "+OK", &["SET k 1"]),
            ("GETDEL k", "\"1\"", &["UNLINK k"]),
            ("GET k", "nil", &[]),
        ]);
    }

    #[test]
    fn getex_changes_the_expiry_alone() {
        let mut shell = Shell::new();
        shell.check_effects(&[
            ("GETEX k EX x", "nil", &[]),
            ("GETEX k EX 0", "nil", &[]),
            ("GETEX k FOO", SYNTAX, &[]),
            ("SET k v", "+OK", &["SET k v"]),
            ("GETEX k", "\"v\"", &[]),
            ("GETEX k PERSIST", "\"v\"", &[]),
            ("GETEX k EX 10", "\"v\"", &["PEXPIREAT k 1700000010000"]),
            ("GETEX k EX 10 EX 20", "\"v\"", &["PEXPIREAT k 1700000020000"]),
            ("GETEX k PERSIST PERSIST", "\"v\"", &["PERSIST k"]),
            ("GETEX k EX 10 PERSIST", SYNTAX, &[]),
            ("GETEX k KEEPTTL", SYNTAX, &[]),
            ("GETEX k NX", SYNTAX, &[]),
            ("GETEX k PX x", NOT_INTEGER, &[]),
            ("GETEX k EX 0", "-ERR invalid expire time in 'getex' command", &[]),
            ("GETEX k PXAT 1700000000000", "\"v\"", &["DEL k"]),
            ("GET k", "nil", &[]),
        ]);
        shell.settings.lazyfree_lazy_expire = true;
        shell.check_effects(&[
            ("SET k v", "+OK", &["SET k v"]),
            ("GETEX k EXAT 1", "\"v\"", &["UNLINK k"]),
        ]);
    }

    #[test]
    fn several_keys_at_once_wherever_they_are() {
        for shards in [1, 4] {
            let mut shell = Shell::over(shards);
            shell.check_effects(&[
                ("MSET a 1 b x c 3 a 2", "+OK", &["MSET a 1 b x c 3 a 2"]),
                ("MGET a none b c", "[\"2\", nil, \"x\", \"3\"]", &[]),
                ("MSETNX d 1 b y", ":0", &[]),
                ("MSETNX d 1 e 2 d 3", ":1", &["MSETNX d 1 e 2 d 3"]),
                ("MGET d e", "[\"3\", \"2\"]", &[]),
                (
                    "MSET a 1 b",
                    "-ERR wrong number of arguments for 'mset' command",
                    &[],
                ),
                (
                    "MSETNX z 1 b",
                    "-ERR wrong number of arguments for 'msetnx' command",
                    &[],
                ),
            ]);
            assert_eq!(shell.run("MSET a 1 b 2").changes, 2);
        }
    }

    #[test]
    fn append_and_setrange_stay_within_the_limit() {
        let too_long = "-ERR string exceeds maximum allowed size (proto-max-bulk-len)";
        let mut shell = Shell::new();
        shell.settings.proto_max_bulk_len = 16;
        shell.check_effects(&[
            ("APPEND a 10", ":2", &["APPEND a 10"]),
            ("APPEND a 5", ":3", &["APPEND a 5"]),
            ("INCR a", ":106", &["INCR a"]),
            ("APPEND a \"\"", ":3", &["APPEND a \"\""]),
            ("APPEND a 0123456789012", ":16", &["APPEND a 0123456789012"]),
            ("APPEND a x", too_long, &[]),
            ("APPEND none \"\"", ":0", &["APPEND none \"\""]),
            ("SETRANGE s 5 ab", ":7", &["SETRANGE s 5 ab"]),
            ("GET s", "\"\\x00\\x00\\x00\\x00\\x00ab\"", &[]),
            ("SETRANGE s 1 xyz", ":7", &["SETRANGE s 1 xyz"]),
            ("GET s", "\"\\x00xyz\\x00ab\"", &[]),
            ("SETRANGE s 16 \"\"", ":7", &[]),
            ("SETRANGE missing 16 \"\"", ":0", &[]),
            ("STRLEN missing", ":0", &[]),
            ("SETRANGE s 15 x", ":16", &["SETRANGE s 15 x"]),
            ("SETRANGE s 16 x", too_long, &[]),
            ("SETRANGE s 9223372036854775807 x", too_long, &[]),
            ("SETRANGE s -1 \"\"", "-ERR offset is out of range", &[]),
            ("SETRANGE s x \"\"", NOT_INTEGER, &[]),
        ]);
    }

    #[test]
    fn encodings_are_those_of_redis() {
        let mut shell = Shell::new();
        let long = "x".repeat(45);
        for (line, encoding) in [
            ("SET k 12345", Encoding::Int),
            ("SET k 012", Encoding::EmbStr),
            (&format!("SET k {long}"), Encoding::Raw),
            ("INCR n", Encoding::Int),
        ] {
            let key = line.split(' ').nth(1).unwrap();
            shell.run(line);
            assert_eq!(
                shell.entry(key, |entry| entry.encoding()),
                Some(encoding),
                "{line}"
            );
        }
        for line in ["SETRANGE k 0 1", "APPEND k 5"] {
            shell.run("SET k 12");
            shell.run(line);
            assert_eq!(
                shell.entry("k", |entry| entry.encoding()),
                Some(Encoding::Raw),
                "{line}"
            );
        }
        shell.run("GETDEL k");
        shell.run("APPEND k 5");
        assert_eq!(shell.entry("k", |entry| entry.encoding()), Some(Encoding::Int));
    }

    #[test]
    fn parts_of_a_string() {
        Shell::new().check(&[
            ("SET s Hello", "+OK"),
            ("GETRANGE s 0 -1", "\"Hello\""),
            ("GETRANGE s 1 2", "\"el\""),
            ("SUBSTR s -3 -1", "\"llo\""),
            ("GETRANGE s -100 100", "\"Hello\""),
            ("GETRANGE s 3 1", "\"\""),
            ("GETRANGE s -1 -3", "\"\""),
            ("GETRANGE s 5 10", "\"\""),
            ("GETRANGE s 0 -100", "\"H\""),
            ("GETRANGE s -100 -99", "\"H\""),
            ("GETRANGE s -9223372036854775808 9223372036854775807", "\"Hello\""),
            ("GETRANGE s -5 -9223372036854775808", "\"\""),
            ("GETRANGE none 0 1", "\"\""),
            ("GETRANGE none x 1", NOT_INTEGER),
            ("GETRANGE none 0 x", NOT_INTEGER),
            ("SET empty \"\"", "+OK"),
            ("GETRANGE empty 0 -1", "\"\""),
            ("SET n -1234", "+OK"),
            ("GETRANGE n 0 1", "\"-1\""),
            ("STRLEN n", ":5"),
            ("STRLEN s", ":5"),
        ]);
    }

    #[test]
    fn counters() {
        let overflow = "-ERR increment or decrement would overflow";
        Shell::new().check_effects(&[
            ("INCR c", ":1", &["INCR c"]),
            ("INCRBY c 5", ":6", &["INCRBY c 5"]),
            ("DECR c", ":5", &["DECR c"]),
            ("DECRBY c 3", ":2", &["DECRBY c 3"]),
            ("INCRBY c 0", ":2", &["INCRBY c 0"]),
            (
                "DECRBY c -9223372036854775808",
                "-ERR decrement would overflow",
                &[],
            ),
            ("DECRBY c x", NOT_INTEGER, &[]),
            ("INCRBY c 9223372036854775807", overflow, &[]),
            ("SET c -1", "+OK", &["SET c -1"]),
            (
                "DECRBY c 9223372036854775807",
                ":-9223372036854775808",
                &["DECRBY c 9223372036854775807"],
            ),
            ("DECR c", overflow, &[]),
            ("SET c \" 1\"", "+OK", &["SET c  1"]),
            ("INCR c", NOT_INTEGER, &[]),
            ("SET c 010", "+OK", &["SET c 010"]),
            ("DECR c", NOT_INTEGER, &[]),
            ("GET c", "\"010\"", &[]),
        ]);
    }

    #[test]
    fn floating_point_counters() {
        let not_float = "-ERR value is not a valid float";
        let not_finite = "-ERR increment would produce NaN or Infinity";
        Shell::new().check_effects(&[
            ("SET f 10.50", "+OK", &["SET f 10.50"]),
            ("INCRBYFLOAT f 0.1", "\"10.6\"", &["SET f 10.6 KEEPTTL"]),
            ("INCRBYFLOAT f -10.6", "\"0\"", &["SET f 0 KEEPTTL"]),
            ("INCRBYFLOAT new 3.0e3", "\"3000\"", &["SET new 3000 KEEPTTL"]),
            ("INCRBYFLOAT new 0", "\"3000\"", &["SET new 3000 KEEPTTL"]),
            ("INCR new", ":3001", &["INCR new"]),
            ("INCRBYFLOAT f x", not_float, &[]),
            ("INCRBYFLOAT f \" 1\"", not_float, &[]),
            ("INCRBYFLOAT f nan", not_float, &[]),
            ("INCRBYFLOAT f inf", not_finite, &[]),
            ("SET f inf", "+OK", &["SET f inf"]),
            ("INCRBYFLOAT f 1", not_finite, &[]),
            ("SET f abc", "+OK", &["SET f abc"]),
            ("INCRBYFLOAT f 1", not_float, &[]),
        ]);
    }

    #[test]
    fn longest_common_subsequences() {
        for shards in [1, 4] {
            let mut shell = Shell::over(shards);
            shell.check(&[
                ("MSET a ohmytext b mynewtext n 1234", "+OK"),
                ("LCS a b", "\"mytext\""),
                ("LCS a b LEN", ":6"),
                (
                    "LCS a b IDX",
                    "[\"matches\", [[[:4, :7], [:5, :8]], [[:2, :3], [:0, :1]]], \"len\", :6]",
                ),
                (
                    "LCS a b IDX MINMATCHLEN 4",
                    "[\"matches\", [[[:4, :7], [:5, :8]]], \"len\", :6]",
                ),
                (
                    "LCS a b idx MINMATCHLEN -5 withmatchlen",
                    "[\"matches\", [[[:4, :7], [:5, :8], :4], [[:2, :3], [:0, :1], :2]], \"len\", :6]",
                ),
                (
                    "LCS a b IDX LEN",
                    "-ERR If you want both the length and indexes, please just use IDX.",
                ),
                ("LCS a b MINMATCHLEN", SYNTAX),
                ("LCS a b MINMATCHLEN x", NOT_INTEGER),
                ("LCS a b FOO", SYNTAX),
                ("LCS a none", "\"\""),
                ("LCS a none IDX", "[\"matches\", [], \"len\", :0]"),
                ("LCS none none2 LEN", ":0"),
                ("LCS n n", "\"1234\""),
                (
                    "LCS a a IDX",
                    "[\"matches\", [[[:0, :7], [:0, :7]]], \"len\", :8]",
                ),
            ]);
            shell.client.resp = shardis_protocol::Resp::V3;
            shell.check(&[("LCS none a IDX", "{\"matches\": [], \"len\": :0}")]);
            shell.settings.proto_max_bulk_len = 9 * 10 * 4 - 1;
            let error = "-ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len";
            shell.check(&[
                ("SET b mynewtexts", "+OK"),
                ("LCS a b LEN", error),
                ("LCS a a LEN", ":8"),
            ]);
        }
    }

    #[test]
    fn values_may_be_adopted_and_are_repeated_whole() {
        let mut shell = Shell::new();
        let value = "v".repeat(40_000);
        for (line, index, reply, effect) in [
            ("SET k VALUE", 2, "+OK", "SET k VALUE"),
            ("SET k VALUE XX", 2, "+OK", "SET k VALUE XX"),
            ("SET k VALUE EX 10", 2, "+OK", "SET k VALUE PXAT 1700000010000"),
            ("SETNX new VALUE", 2, ":1", "SETNX new VALUE"),
            ("SETEX k 10 VALUE", 3, "+OK", "SET k VALUE PXAT 1700000010000"),
            ("GETSET none VALUE", 2, "nil", "SET none VALUE"),
        ] {
            let answer = shell.run_adopting(&line.replace("VALUE", &value), index);
            assert_eq!(answer.reply, reply, "{line}");
            assert_eq!(answer.effects, [effect.replace("VALUE", &value)], "{line}");
            let key = line.split(' ').nth(1).unwrap();
            assert_eq!(shell.run(&format!("STRLEN {key}")).reply, ":40000", "{line}");
        }
    }

    #[test]
    fn watchers_learn_of_changes_and_of_nothing_else() {
        let mut shell = Shell::over(2);
        shell.run("SET k 1");
        for (line, touched) in [
            ("GET k", false),
            ("SET k 1", true),
            ("SET k v NX", false),
            ("SETNX k v", false),
            ("GETEX k", false),
            ("GETEX k PERSIST", false),
            ("GETEX k EX 5", true),
            ("GETEX k PERSIST", true),
            ("MSETNX k v other v", false),
            ("MSET other v k 1", true),
            ("SETRANGE k 0 \"\"", false),
            ("INCR k", true),
            ("INCRBYFLOAT k 1", true),
            ("INCRBYFLOAT k x", false),
            ("APPEND k 1", true),
            ("GETDEL k", true),
            ("GETDEL k", false),
        ] {
            let token = shell.watch("k");
            shell.run(line);
            assert_eq!(token.is_touched(), touched, "{line}");
        }
    }

    #[test]
    fn what_set_does_with_its_key_depends_on_get() {
        let spans = |words: &[&str]| {
            let mut start = 0;
            let place = |word: &&str| {
                start += word.len();
                shardis_protocol::Span::new(start - word.len(), word.len()).unwrap()
            };
            words.iter().map(place).collect::<Vec<_>>()
        };
        for (words, reads) in [
            (&["SET", "k", "v"][..], false),
            (&["SET", "get", "get"], false),
            (&["SET", "k", "v", "XX", "get"], true),
        ] {
            let (text, spans) = (words.concat(), spans(words));
            let use_of_key = key_use_of_set(Arguments::new(text.as_bytes(), &spans, &[]));
            assert_eq!(use_of_key.contains(KeyFlags::ACCESS), reads, "{words:?}");
            assert_eq!(use_of_key.contains(KeyFlags::OW), !reads, "{words:?}");
        }
    }

    #[test]
    fn ranges_are_clamped() {
        for (start, end, len, selected) in [
            (0, -1, 5, Some((0, 4))),
            (-3, 10, 5, Some((2, 4))),
            (-10, -9, 5, Some((0, 0))),
            (-1, -3, 5, None),
            (0, 0, 0, None),
            (i64::MIN, i64::MAX, 5, Some((0, 4))),
        ] {
            assert_eq!(clamp(start, end, len), selected, "{start} {end} {len}");
        }
        assert_eq!(clamp(-9, -10, 5), Some((0, 0)));
        assert!(are_crossed(-9, -10) && !are_crossed(-10, -9) && !are_crossed(1, 0) && !are_crossed(1, -9));
    }

    proptest! {
        #[test]
        fn ranges_agree_with_a_plain_twin(start in -12_i64..12, end in -12_i64..12, len in 0_u64..8) {
            let place = |index: i64| if index < 0 { (index + len as i64).max(0) } else { index } as u64;
            let selected: Vec<u64> = (0..len).filter(|index| (place(start)..=place(end)).contains(index)).collect();
            let clamped = clamp(start, end, len).map_or(Vec::new(), |(first, last)| (first..=last).collect());
            prop_assert_eq!(clamped, selected);
        }
    }
}
