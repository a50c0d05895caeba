//! HyperLogLogs: estimates of the number of distinct elements, in strings of at most 12 KiB.
//!
//! `shardis_storage::algorithm::hyperloglog` has the registers and the estimate, in the bytes of Redis. A dense value
//! is changed in place; a sparse one, which is short, is changed in a copy, which is stored when the whole command
//! has succeeded. Rows first, then handlers in the order of the rows.

use shardis_storage::algorithm::hyperloglog::{
    self as hll, Corrupt, DENSE_BYTES, Encoding, Registers, Sketch,
};
use shardis_storage::key::Key;
use shardis_storage::keyspace::Expiry;
use shardis_storage::value::StringRef;

use crate::config::KeyspaceEvents;
use crate::error::ReplyError;
use crate::exec::arguments::is;
use crate::exec::{CommandResult, Context, Session};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, KeySpec, Runs};

/// The commands of this family.
pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "pfadd",
        arity: Arity::AtLeast(2),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Category::HYPERLOGLOG,
        keys: &[KeySpec::at(1).read_write().insert()],
        runs: Runs::OnKeys(pfadd),
        doc: &Doc {
            since: "2.8.9",
            group: Group::HyperLogLog,
            complexity: "O(1) for each element.",
            summary: "Shows elements to a HyperLogLog, which is created if need be.",
            args: &[Arg::key("key", 0), Arg::string("element").optional().multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "pfcount",
        arity: Arity::AtLeast(2),
        flags: Flags::READONLY.union(Flags::MAY_REPLICATE),
        acl: Category::HYPERLOGLOG,
        keys: &[KeySpec::from(1, 1).read_write().access().notes(
            "RW because it may change the internal representation of the key, and propagate to replicas",
        )],
        runs: Runs::OnKeysLong(pfcount),
        doc: &Doc {
            since: "2.8.9",
            group: Group::HyperLogLog,
            complexity: "O(1) for one key whose count is remembered; else O(N) for N keys, each of which takes a while.",
            summary: "Estimates how many distinct elements HyperLogLogs have seen together.",
            args: &[Arg::key("key", 0).multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "pfmerge",
        arity: Arity::AtLeast(2),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Category::HYPERLOGLOG,
        keys: &[
            KeySpec::at(1).read_write().access().insert(),
            KeySpec::from(2, 1).read_only().access(),
        ],
        runs: Runs::OnKeysLong(pfmerge),
        doc: &Doc {
            since: "2.8.9",
            group: Group::HyperLogLog,
            complexity: "O(N) to merge N values, each of which takes a while.",
            summary: "Adds to a HyperLogLog all that others have seen.",
            args: &[Arg::key("destkey", 0), Arg::key("sourcekey", 1).multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "pfdebug",
        arity: Arity::Exactly(3),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::ADMIN),
        acl: Category::HYPERLOGLOG,
        keys: &[KeySpec::at(2).read_write().access()],
        runs: Runs::OnKeysLong(pfdebug),
        doc: &Doc {
            since: "2.8.9",
            group: Group::HyperLogLog,
            complexity: "N/A",
            summary: "Shows the inside of a HyperLogLog.",
            system: true,
            args: &[Arg::string("subcommand"), Arg::key("key", 0)],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "pfselftest",
        arity: Arity::Exactly(1),
        flags: Flags::ADMIN,
        acl: Category::HYPERLOGLOG,
        runs: Runs::OnSession(pfselftest),
        doc: &Doc {
            since: "2.8.9",
            group: Group::HyperLogLog,
            complexity: "N/A",
            summary: "Tries the arithmetic of HyperLogLogs on this machine.",
            system: true,
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
];

/// Error for a string that is no HyperLogLog.
const NOT_HYPERLOGLOG: ReplyError =
    ReplyError::Fixed("WRONGTYPE Key is not a valid HyperLogLog string value.");

impl From<Corrupt> for ReplyError {
    fn from(_: Corrupt) -> Self {
        Self::Fixed("INVALIDOBJ Corrupted HLL object detected")
    }
}

/// The bytes of a HyperLogLog with their encoding.
fn value_of(value: StringRef<'_>) -> Result<(&[u8], Encoding), ReplyError> {
    let StringRef::Bytes(bytes) = value else {
        return Err(NOT_HYPERLOGLOG);
    };
    Encoding::of(bytes)
        .map(|encoding| (bytes, encoding))
        .ok_or(NOT_HYPERLOGLOG)
}

/// A copy of the HyperLogLog of a key, to be changed.
fn load(ctx: &mut Context<'_>, key: &Key<'_>) -> Result<Option<Sketch>, ReplyError> {
    let Some(value) = ctx.keyspace.write_string(key)? else {
        return Ok(None);
    };
    let (bytes, _) = value_of(value)?;
    Sketch::load(bytes).map(Some).ok_or(NOT_HYPERLOGLOG)
}

/// Stores a changed HyperLogLog; the expiry stays. `old_len` is the length of the old value, 0 if there was none.
fn store(ctx: &mut Context<'_>, key: &Key<'_>, sketch: &Sketch, old_len: usize) {
    let bytes = sketch.as_bytes();
    match bytes.len() {
        // A dense value never grows, and needs no spare room.
        DENSE_BYTES if old_len != DENSE_BYTES => ctx.keyspace.set_text(key, bytes, Expiry::Keep),
        len if len >= old_len => ctx.keyspace.string_mut(key, len).copy_from_slice(bytes),
        _ => ctx.keyspace.set_raw(key, bytes),
    }
}

/// Announces a change of a HyperLogLog that counts as `changes`.
fn changed(ctx: &mut Context<'_>, key: &Key<'_>, changes: u64) {
    if changes > 0 {
        ctx.changed(key, changes);
        ctx.notify(KeyspaceEvents::STRING, "pfadd", key);
    }
}

fn pfadd(ctx: &mut Context<'_>) -> CommandResult {
    let (key, args) = (ctx.key(1), ctx.args);
    let elements = args.iter().skip(2);
    let value = ctx.keyspace.write_string(&key)?;
    let changes = match value.map(value_of).transpose()? {
        Some((_, Encoding::Dense)) => hll::add_to_dense(ctx.keyspace.string_mut(&key, DENSE_BYTES), elements),
        Some((bytes, Encoding::Sparse)) => {
            let (old_len, mut sketch) = (bytes.len(), Sketch::load(bytes).ok_or(NOT_HYPERLOGLOG)?);
            let changes = add(ctx, &mut sketch, elements)?;
            if changes > 0 {
                store(ctx, &key, &sketch, old_len);
            }
            changes
        }
        None => {
            let mut sketch = Sketch::new();
            // Creating the key counts as a change, too.
            let changes = add(ctx, &mut sketch, elements)? + 1;
            sketch.forget_cardinality();
            store(ctx, &key, &sketch, 0);
            changes
        }
    };
    changed(ctx, &key, changes);
    ctx.reply.integer(i64::from(changes > 0));
    Ok(())
}

/// Adds elements; returns the number of them that changed a register.
fn add<'e>(
    ctx: &Context<'_>,
    sketch: &mut Sketch,
    elements: impl Iterator<Item = &'e [u8]>,
) -> Result<u64, Corrupt> {
    let sparse_bytes_max = sparse_bytes_max(ctx);
    let mut changes = 0;
    for element in elements {
        changes += u64::from(sketch.add(element, sparse_bytes_max)?);
    }
    Ok(changes)
}

/// The directive `hll-sparse-max-bytes`.
fn sparse_bytes_max(ctx: &Context<'_>) -> usize {
    usize::try_from(ctx.settings.hll_sparse_max_bytes).unwrap_or(usize::MAX)
}

fn pfcount(ctx: &mut Context<'_>) -> CommandResult {
    let count = if ctx.args.len() == 2 {
        count_one(ctx)?
    } else {
        merge(ctx, 1)?.cardinality()
    };
    ctx.reply.integer(count as i64);
    Ok(())
}

/// The count cached in a HyperLogLog; if the cache is outdated, computes and caches it.
fn count_one(ctx: &mut Context<'_>) -> Result<u64, ReplyError> {
    let key = ctx.key(1);
    let Some(value) = ctx.keyspace.read_string(&key)? else {
        return Ok(0);
    };
    let (bytes, _) = value_of(value)?;
    if let Some(count) = hll::cached_cardinality(bytes) {
        return Ok(count);
    }
    let (len, count) = (bytes.len(), hll::cardinality(bytes)?);
    hll::cache_cardinality(ctx.keyspace.string_mut(&key, len), count);
    ctx.modified(&key);
    Ok(count)
}

/// Merges the HyperLogLogs of all keys from argument `first` on.
fn merge(ctx: &mut Context<'_>, first: usize) -> Result<Registers, ReplyError> {
    let mut registers = Registers::new();
    for index in first..ctx.args.len() {
        let key = ctx.key(index);
        if let Some(value) = ctx.keyspace.read_string(&key)? {
            registers.merge(value_of(value)?.0)?;
        }
    }
    Ok(registers)
}

fn pfmerge(ctx: &mut Context<'_>) -> CommandResult {
    let merged = merge(ctx, 1)?;
    let (key, sparse_bytes_max) = (ctx.key(1), sparse_bytes_max(ctx));
    let found = load(ctx, &key)?;
    let old_len = found.as_ref().map_or(0, |sketch| sketch.as_bytes().len());
    let mut sketch = found.unwrap_or_default();
    sketch.raise_all(&merged, sparse_bytes_max)?;
    store(ctx, &key, &sketch, old_len);
    changed(ctx, &key, 1);
    ctx.reply.ok();
    Ok(())
}

fn pfdebug(ctx: &mut Context<'_>) -> CommandResult {
    let (key, args) = (ctx.key(2), ctx.args);
    let subcommand = args.at(1);
    let Some(sketch) = load(ctx, &key)? else {
        return Err(ReplyError::Fixed("ERR The specified key does not exist"));
    };
    match subcommand {
        word if is(word, "GETREG") => debug_registers(ctx, &key, sketch),
        word if is(word, "DECODE") => debug_runs(ctx, &sketch),
        word if is(word, "ENCODING") => {
            ctx.reply.simple(sketch.encoding().name());
            Ok(())
        }
        word if is(word, "TODENSE") => {
            let converted = make_dense(ctx, &key, sketch)?;
            ctx.reply.integer(i64::from(converted));
            Ok(())
        }
        _ => Err(ReplyError::Bytes(
            [b"ERR Unknown PFDEBUG subcommand '", subcommand, b"'"].concat(),
        )),
    }
}

/// Stores a sparse HyperLogLog in dense form; false if it is dense already.
fn make_dense(ctx: &mut Context<'_>, key: &Key<'_>, mut sketch: Sketch) -> Result<bool, ReplyError> {
    let old_len = sketch.as_bytes().len();
    let converted = sketch.make_dense()?;
    if converted {
        store(ctx, key, &sketch, old_len);
        ctx.modified(key);
    }
    Ok(converted)
}

/// Replies with all registers. Like in Redis, the value becomes dense.
fn debug_registers(ctx: &mut Context<'_>, key: &Key<'_>, sketch: Sketch) -> CommandResult {
    let registers = Registers::of(sketch.as_bytes())?;
    make_dense(ctx, key, sketch)?;
    ctx.reply.array(registers.values().len());
    for &value in registers.values() {
        ctx.reply.integer(i64::from(value));
    }
    Ok(())
}

/// Replies with the runs of a sparse value: `z` and `Z` for zeros in one byte and in two, `v` for others.
fn debug_runs(ctx: &mut Context<'_>, sketch: &Sketch) -> CommandResult {
    if sketch.encoding() != Encoding::Sparse {
        return Err(ReplyError::Fixed("ERR HLL encoding is not sparse"));
    }
    let text = hll::runs(sketch.as_bytes())
        .map(|run| {
            run.map(|run| match (run.value, run.is_long) {
                (0, false) => format!("z:{}", run.len),
                (0, true) => format!("Z:{}", run.len),
                (value, _) => format!("v:{value},{}", run.len),
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    ctx.reply.bulk(text.join(" ").as_bytes());
    Ok(())
}

fn pfselftest(session: &mut Session<'_>) -> CommandResult {
    match hll::self_test(session.now_ms as u64) {
        Ok(()) => {
            session.reply.ok();
            Ok(())
        }
        Err(failure) => Err(ReplyError::Text(format!("TESTFAILED {failure}"))),
    }
}

#[cfg(test)]
mod tests {
    use shardis_storage::value::Encoding as StringEncoding;

    use super::super::testing::Shell;

    const NOT_HYPERLOGLOG: &str = "-WRONGTYPE Key is not a valid HyperLogLog string value.";
    const CORRUPT: &str = "-INVALIDOBJ Corrupted HLL object detected";

    #[test]
    fn elements_are_counted() {
        let mut shell = Shell::new();
        shell.check_effects(&[
            ("PFCOUNT h", ":0", &[]),
            ("PFADD h a b c a", ":1", &["PFADD h a b c a"]),
            ("PFADD h a", ":0", &[]),
            ("PFCOUNT h", ":3", &["PFCOUNT h"]),
            ("PFCOUNT h", ":3", &[]),
            ("PFADD h", ":0", &[]),
            ("PFADD empty", ":1", &["PFADD empty"]),
            ("PFCOUNT empty", ":0", &["PFCOUNT empty"]),
            ("PFDEBUG ENCODING h", "+sparse", &[]),
            ("PFDEBUG TODENSE h", ":1", &["PFDEBUG TODENSE h"]),
            ("PFDEBUG TODENSE h", ":0", &[]),
            ("PFDEBUG ENCODING h", "+dense", &[]),
            ("PFCOUNT h", ":3", &[]),
            ("PFADD h d", ":1", &["PFADD h d"]),
            ("PFCOUNT h", ":4", &["PFCOUNT h"]),
            ("STRLEN h", ":12304", &[]),
            ("PFSELFTEST", "+OK", &[]),
        ]);
    }

    #[test]
    fn values_are_merged_wherever_they_are() {
        for shards in [1, 4] {
            let mut shell = Shell::over(shards);
            shell.check_effects(&[
                ("PFADD a 1 2 3", ":1", &["PFADD a 1 2 3"]),
                ("PFADD b 3 4 5", ":1", &["PFADD b 3 4 5"]),
                ("PFCOUNT a b none", ":5", &[]),
                ("PFMERGE c a b none", "+OK", &["PFMERGE c a b none"]),
                ("PFCOUNT c", ":5", &["PFCOUNT c"]),
                ("PFMERGE none2", "+OK", &["PFMERGE none2"]),
                ("PFCOUNT none2 a", ":3", &[]),
                ("PFDEBUG TODENSE b", ":1", &["PFDEBUG TODENSE b"]),
                ("PFMERGE a b", "+OK", &["PFMERGE a b"]),
                ("PFDEBUG ENCODING a", "+dense", &[]),
                ("PFCOUNT a", ":5", &["PFCOUNT a"]),
            ]);
        }
    }

    #[test]
    fn the_expiry_stays_and_the_string_is_raw() {
        let mut shell = Shell::new();
        shell.run("PFADD h a");
        shell.run("PEXPIRE h 1000");
        for line in [
            "PFADD h b",
            "PFADD h c d e f",
            "PFDEBUG TODENSE h",
            "PFADD h g",
            "PFMERGE h",
        ] {
            shell.run(line);
            assert_eq!(shell.run("PTTL h").reply, ":1000", "{line}");
            assert_eq!(
                shell.entry("h", |entry| entry.encoding()),
                Some(StringEncoding::Raw),
                "{line}"
            );
        }
    }

    #[test]
    fn a_sparse_value_becomes_dense_when_the_directive_says() {
        let mut shell = Shell::new();
        shell.settings.hll_sparse_max_bytes = 30;
        shell.check(&[
            ("PFADD h a b c", ":1"),
            ("PFDEBUG ENCODING h", "+sparse"),
            ("PFADD h 1 2 3 4 5 6", ":1"),
            ("PFDEBUG ENCODING h", "+dense"),
            ("PFCOUNT h", ":9"),
        ]);
        assert!(shell.run("PFDEBUG GETREG h").reply.starts_with("[:0, :0, "));
        shell.check(&[("PFDEBUG DECODE h", "-ERR HLL encoding is not sparse")]);
    }

    #[test]
    fn what_is_no_value_is_refused() {
        let mut shell = Shell::new();
        let wrong_type = "-WRONGTYPE Operation against a key holding the wrong kind of value";
        shell.check(&[
            ("SET s x", "+OK"),
            ("SET i 12", "+OK"),
            ("LPUSH l x", ":1"),
            (
                "SET broken HYLL\"\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x80\\x00\"",
                "+OK",
            ),
            ("PFADD s a", NOT_HYPERLOGLOG),
            ("PFADD i a", NOT_HYPERLOGLOG),
            ("PFADD l a", wrong_type),
            ("PFCOUNT s", NOT_HYPERLOGLOG),
            ("PFCOUNT none l", wrong_type),
            ("PFMERGE none s", NOT_HYPERLOGLOG),
            ("PFMERGE s none", NOT_HYPERLOGLOG),
            ("EXISTS none", ":0"),
            ("PFADD broken b c d", CORRUPT),
            ("PFCOUNT broken", CORRUPT),
            ("PFCOUNT broken broken", CORRUPT),
            ("PFMERGE broken", CORRUPT),
            ("PFDEBUG GETREG broken", CORRUPT),
            ("PFDEBUG TODENSE broken", CORRUPT),
            ("PFDEBUG DECODE broken", CORRUPT),
            ("PFDEBUG DECODE none", "-ERR The specified key does not exist"),
            ("PFDEBUG DECODE s", NOT_HYPERLOGLOG),
            ("PFADD h a", ":1"),
            ("PFDEBUG FOO h", "-ERR Unknown PFDEBUG subcommand 'FOO'"),
            ("STRLEN broken", ":17"),
        ]);
    }

    #[test]
    fn watchers_learn_of_changes_and_of_what_is_remembered() {
        let mut shell = Shell::over(2);
        shell.run("PFADD h a");
        for (line, touched) in [
            ("PFADD h a", false),
            ("PFCOUNT h", true),
            ("PFCOUNT h", false),
            ("PFADD h b", true),
            ("PFCOUNT h other", false),
            ("PFMERGE other h", false),
            ("PFMERGE h other", true),
            ("PFDEBUG DECODE h", false),
            ("PFDEBUG TODENSE h", true),
        ] {
            let token = shell.watch("h");
            shell.run(line);
            assert_eq!(token.is_touched(), touched, "{line}");
        }
    }
}
