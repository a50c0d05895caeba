//! Conditional changes of strings, and their digests: additions of Redis 8.4 and Valkey 9.0.
//!
//! A client that acts on a value it has read sends what it read: the whole string, or its digest. The digest is XXH3
//! with 64 bits, as 16 hexadecimal digits. Rows first, then the meaning of conditions, then handlers.

use shardis_storage::key::Key;
use shardis_storage::value::{INT_TEXT_MAX, StringRef};
use twox_hash::XxHash3_64;

use super::remove;
use crate::error::ReplyError;
use crate::exec::arguments::is;
use crate::exec::{CommandResult, Context};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, KeySpec, Runs};

/// The commands of this file.
pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "delex",
        arity: Arity::AtLeast(2),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Category::STRING,
        keys: &[KeySpec::at(1).read_write().delete()],
        runs: Runs::OnKeys(delex),
        doc: &Doc {
            since: "8.4.0",
            group: Group::String,
            complexity: "O(N) for a string of N bytes.",
            summary: "Removes a key if its string is, or is not, what it is compared with.",
            args: &[
                Arg::key("key", 0),
                Arg::one_of("condition", &[IFEQ, IFNE, IFDEQ, IFDNE]).optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "delifeq",
        arity: Arity::Exactly(3),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Category::STRING,
        keys: &[KeySpec::at(1).remove().delete()],
        runs: Runs::OnKeys(delifeq),
        doc: &Doc {
            since: "9.0.0",
            group: Group::String,
            complexity: "O(N) for a string of N bytes.",
            summary: "Removes a key if it holds this string: DELEX IFEQ, as Valkey calls it.",
            args: &[Arg::key("key", 0), Arg::string("value")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "digest",
        arity: Arity::Exactly(2),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::STRING,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeys(digest),
        doc: &Doc {
            since: "8.4.0",
            group: Group::String,
            complexity: "O(N) for a string of N bytes.",
            summary: "Returns the XXH3 digest of a string in hexadecimal.",
            args: &[Arg::key("key", 0)],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
];

/// Argument `IFEQ value`.
pub(super) const IFEQ: Arg = Arg::string("ifeq-value").token("IFEQ");
/// Argument `IFNE value`.
pub(super) const IFNE: Arg = Arg::string("ifne-value").token("IFNE");
/// Argument `IFDEQ digest`.
pub(super) const IFDEQ: Arg = Arg::string("ifdeq-digest").token("IFDEQ");
/// Argument `IFDNE digest`.
pub(super) const IFDNE: Arg = Arg::string("ifdne-digest").token("IFDNE");

/// Number of digits of a digest.
const DIGEST_LEN: usize = 16;

/// The other side of a comparison with a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum With<'a> {
    Value(&'a [u8]),
    /// A digest as the client sent it: digits may be capitals, and a text with other characters equals no string.
    Digest(&'a [u8]),
}

/// A condition on the string that a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Comparison<'a> {
    with: With<'a>,
    /// Whether the string must equal the operand; it must differ otherwise.
    equal: bool,
}

impl<'a> Comparison<'a> {
    /// Whether a word is the option of a condition.
    pub(super) fn is_named(word: &[u8]) -> bool {
        ["IFEQ", "IFNE", "IFDEQ", "IFDNE"]
            .iter()
            .any(|name| is(word, name))
    }

    /// The condition of an option and its argument; `None` when the word is no such option.
    ///
    /// # Errors
    /// When a digest has the wrong number of digits.
    pub(super) fn parse(word: &[u8], argument: &'a [u8]) -> Result<Option<Self>, ReplyError> {
        let (with, equal) = match word {
            word if is(word, "IFEQ") => (With::Value(argument), true),
            word if is(word, "IFNE") => (With::Value(argument), false),
            word if is(word, "IFDEQ") => (With::Digest(argument), true),
            word if is(word, "IFDNE") => (With::Digest(argument), false),
            _ => return Ok(None),
        };
        if matches!(with, With::Digest(_)) && argument.len() != DIGEST_LEN {
            return Err(ReplyError::Fixed("ERR must be exactly 16 hexadecimal characters"));
        }
        Ok(Some(Self { with, equal }))
    }

    /// Whether the condition holds; a missing key equals nothing. Complexity: O(length of the string).
    pub(super) fn holds(self, value: Option<StringRef<'_>>) -> bool {
        let Some(value) = value else {
            return !self.equal;
        };
        let mut scratch = [0; INT_TEXT_MAX];
        let bytes = value.as_bytes(&mut scratch);
        let equals = match self.with {
            With::Value(other) => bytes == other,
            With::Digest(other) => digest_of(bytes).eq_ignore_ascii_case(other),
        };
        equals == self.equal
    }
}

/// The digest of a string, in lower case.
fn digest_of(bytes: &[u8]) -> [u8; DIGEST_LEN] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let hash = XxHash3_64::oneshot(bytes);
    std::array::from_fn(|place| DIGITS[(hash >> (60 - 4 * place) & 0xf) as usize])
}

fn delex(ctx: &mut Context<'_>) -> CommandResult {
    let (key, args) = (ctx.key(1), ctx.args);
    if !matches!(args.len(), 2 | 4) {
        return Err(ReplyError::arity("delex"));
    }
    let goes = match ctx.keyspace.write(&key) {
        None => false,
        Some(_) if args.len() == 2 => true,
        Some(entry) => {
            let value = entry.string().ok_or(ReplyError::Fixed(
                "ERR Key should be of string type if conditions are specified",
            ))?;
            Comparison::parse(args.at(2), args.at(3))?
                .ok_or(ReplyError::Fixed(
                    "ERR Invalid condition. Use IFEQ, IFNE, IFDEQ, or IFDNE",
                ))?
                .holds(Some(value))
        }
    };
    remove_if(ctx, &key, goes);
    Ok(())
}

fn delifeq(ctx: &mut Context<'_>) -> CommandResult {
    let (key, args) = (ctx.key(1), ctx.args);
    let comparison = Comparison {
        with: With::Value(args.at(2)),
        equal: true,
    };
    let goes = comparison.holds(ctx.keyspace.write_string(&key)?);
    remove_if(ctx, &key, goes);
    Ok(())
}

/// Removes a key if `goes`, and replies with the number of removed keys.
fn remove_if(ctx: &mut Context<'_>, key: &Key<'_>, goes: bool) {
    if goes {
        let lazily = ctx.keyspace.stamp.lazy_user_del;
        remove(ctx, key, lazily);
    }
    ctx.reply.integer(i64::from(goes));
}

fn digest(ctx: &mut Context<'_>) -> CommandResult {
    let key = ctx.key(1);
    let mut scratch = [0; INT_TEXT_MAX];
    match ctx.keyspace.read_string(&key)? {
        Some(value) => ctx.reply.bulk(&digest_of(value.as_bytes(&mut scratch))),
        None => ctx.reply.null(),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::testing::Shell;

    const SYNTAX: &str = "-ERR syntax error";
    const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";
    const BAD_DIGEST: &str = "-ERR must be exactly 16 hexadecimal characters";

    #[test]
    fn digests_are_those_of_redis() {
        Shell::new().check(&[
            ("SET k hello", "+OK"),
            ("DIGEST k", "\"9555e8555c62dcfd\""),
            ("SET k \"\"", "+OK"),
            ("DIGEST k", "\"2d06800538d394c2\""),
            ("SET k 123", "+OK"),
            ("DIGEST k", "\"404a763b3f4c8c9a\""),
            ("SET k v8", "+OK"),
            ("DIGEST k", "\"0cc76dbb41381419\""),
            ("DIGEST none", "nil"),
            ("LPUSH l a", ":1"),
            ("DIGEST l", WRONG_TYPE),
        ]);
    }

    #[test]
    fn a_key_is_removed_if_its_string_is_as_expected() {
        let string_type = "-ERR Key should be of string type if conditions are specified";
        Shell::new().check_effects(&[
            ("DELEX none", ":0", &[]),
            ("DELEX none FOO x", ":0", &[]),
            ("SET k hello", "+OK", &["SET k hello"]),
            ("DELEX k IFEQ other", ":0", &[]),
            ("DELEX k IFNE hello", ":0", &[]),
            ("DELEX k IFDEQ 0000000000000000", ":0", &[]),
            ("DELEX k IFDNE 9555E8555c62dcfd", ":0", &[]),
            ("DELEX k IFDEQ 0", BAD_DIGEST, &[]),
            ("DELEX k IFDEQ zzzzzzzzzzzzzzzz", ":0", &[]),
            (
                "DELEX k FOO hello",
                "-ERR Invalid condition. Use IFEQ, IFNE, IFDEQ, or IFDNE",
                &[],
            ),
            (
                "DELEX k IFEQ",
                "-ERR wrong number of arguments for 'delex' command",
                &[],
            ),
            ("DELEX k ifdeq 9555E8555c62dcfd", ":1", &["DEL k"]),
            ("EXISTS k", ":0", &[]),
            ("SET k 0123", "+OK", &["SET k 0123"]),
            ("DELEX k IFEQ 123", ":0", &[]),
            ("DELEX k IFNE 123", ":1", &["DEL k"]),
            ("LPUSH l a", ":1", &["LPUSH l a"]),
            ("DELEX l IFEQ a", string_type, &[]),
            ("DELEX l FOO a", string_type, &[]),
            ("DELIFEQ l a", WRONG_TYPE, &[]),
            ("DELEX l", ":1", &["DEL l"]),
            ("SET k 12", "+OK", &["SET k 12"]),
            ("DELIFEQ k 13", ":0", &[]),
            ("DELIFEQ k 12", ":1", &["DEL k"]),
            ("DELIFEQ k 12", ":0", &[]),
        ]);
    }

    #[test]
    fn a_string_is_stored_if_the_one_before_is_as_expected() {
        Shell::new().check_effects(&[
            ("SET k a IFEQ x", "nil", &[]),
            ("SET k a IFDEQ 0000000000000000", "nil", &[]),
            ("SET k a IFNE x", "+OK", &["SET k a"]),
            ("SET k b IFNE a", "nil", &[]),
            ("SET k b IFEQ a GET", "\"a\"", &["SET k b"]),
            ("SET k c IFEQ a GET", "\"b\"", &[]),
            ("SET k c PX 1000 IFEQ b", "+OK", &["SET k c PXAT 1700000001000"]),
            ("SET k GET IFEQ c KEEPTTL", "+OK", &["SET k GET KEEPTTL"]),
            ("PTTL k", ":1000", &[]),
            ("SET k d IFEQ GET", "+OK", &["SET k d"]),
            ("SET k e IFDNE 0000000000000000", "+OK", &["SET k e"]),
            ("SET k f IFDEQ 0", BAD_DIGEST, &[]),
            ("SET k f IFEQ", SYNTAX, &[]),
            ("SET k f IFEQ e NX", SYNTAX, &[]),
            ("SET k f XX IFEQ e", SYNTAX, &[]),
            ("SET k f IFEQ e IFNE x", SYNTAX, &[]),
            ("SET k f IFEQ e IFEQ e", SYNTAX, &[]),
            ("LPUSH l a", ":1", &["LPUSH l a"]),
            ("SET l f IFEQ a", WRONG_TYPE, &[]),
            ("SET l f IFNE a", WRONG_TYPE, &[]),
            ("GET k", "\"e\"", &[]),
        ]);
    }

    #[test]
    fn several_strings_are_stored_on_one_condition() {
        for shards in [1, 4] {
            Shell::over(shards).check_effects(&[
                ("MSETEX 2 a 1 b 2", ":1", &["MSETEX 2 a 1 b 2"]),
                ("MSETEX 2 a 3 c 4 NX", ":0", &[]),
                ("EXISTS c", ":0", &[]),
                ("MSETEX 2 a 3 c 4 XX", ":0", &[]),
                (
                    "MSETEX 2 a 3 b 4 XX EX 10",
                    ":1",
                    &["MSETEX 2 a 3 b 4 PXAT 1700000010000"],
                ),
                ("MSETEX 1 a x KEEPTTL", ":1", &["MSETEX 1 a x KEEPTTL"]),
                ("PTTL a", ":10000", &[]),
                ("MSETEX 1 b y", ":1", &["MSETEX 1 b y"]),
                ("PTTL b", ":-1", &[]),
                ("MSETEX 2 EX NX PX XX NX", ":1", &["MSETEX 2 EX NX PX XX NX"]),
                ("MGET a b EX PX", "[\"x\", \"y\", \"NX\", \"XX\"]", &[]),
                ("MSETEX 0 a 1", "-ERR invalid numkeys value", &[]),
                ("MSETEX x a 1", "-ERR invalid numkeys value", &[]),
                ("MSETEX 2147483648 a 1", "-ERR invalid numkeys value", &[]),
                ("MSETEX 2 a 1 b", "-ERR wrong number of key-value pairs", &[]),
                ("MSETEX 9 a 1 b 2", "-ERR wrong number of key-value pairs", &[]),
                ("MSETEX 1 a 1 NX XX", SYNTAX, &[]),
                ("MSETEX 1 a 1 EX 1 PX 1", SYNTAX, &[]),
                ("MSETEX 1 a 1 PERSIST", SYNTAX, &[]),
                (
                    "MSETEX 1 a 1 EX 0",
                    "-ERR invalid expire time in 'msetex' command",
                    &[],
                ),
                ("MSETEX 1 a 1 FOO", SYNTAX, &[]),
            ]);
        }
    }
}
