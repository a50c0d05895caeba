//! Bitmaps: strings as rows of bits, and as rows of integers of any width.
//!
//! `shardis_storage::algorithm::bitmap` works on the bits themselves; this file has arguments, limits and replies. A
//! write extends a string up to the written position, but never beyond `proto-max-bulk-len` (plus, for BITFIELD, the
//! eight bytes that an integer may reach beyond its first bit).

use std::ops::RangeInclusive;

use shardis_protocol::Arguments;
use shardis_storage::algorithm::bitmap::{self, Field, Operation, Overflow};
use shardis_storage::entry::EMBEDDED_MAX;
use shardis_storage::key::Key;
use shardis_storage::keyspace::Expiry;
use shardis_storage::memory::Buffer;
use shardis_storage::number::parse_i64;
use shardis_storage::value::{INT_TEXT_MAX, StringRef};
use smallvec::{SmallVec, smallvec};

use super::strings::{are_crossed, clamp};
use crate::config::KeyspaceEvents;
use crate::config::Settings;
use crate::error::ReplyError;
use crate::exec::arguments::{int, is};
use crate::exec::{CommandResult, Context, Options};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, KeyFlags, KeySpec, Runs};

/// The commands of this family.
pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "setbit",
        arity: Arity::Exactly(4),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Category::BITMAP,
        keys: &[KeySpec::at(1).read_write().access().update()],
        runs: Runs::OnKeys(setbit),
        doc: &Doc {
            since: "2.2.0",
            group: Group::Bitmap,
            complexity: "O(1), and O(N) once where the string has to grow to N bytes.",
            summary: "Sets or clears one bit of a string, and returns what it was.",
            args: &[Arg::key("key", 0), Arg::integer("offset"), Arg::integer("value")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "getbit",
        arity: Arity::Exactly(3),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::BITMAP,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeys(getbit),
        doc: &Doc {
            since: "2.2.0",
            group: Group::Bitmap,
            complexity: "O(1)",
            summary: "Returns one bit of a string.",
            args: &[Arg::key("key", 0), Arg::integer("offset")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "bitcount",
        arity: Arity::AtLeast(2),
        flags: Flags::READONLY,
        acl: Category::BITMAP,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeysLong(bitcount),
        doc: &Doc {
            since: "2.6.0",
            group: Group::Bitmap,
            complexity: "O(N) for N bytes looked at.",
            summary: "Counts the bits that are set in a string, or between two places of it.",
            history: &[("7.0.0", "Option `BYTE|BIT`.")],
            args: &[
                Arg::key("key", 0),
                Arg::block("range", &[Arg::integer("start"), Arg::integer("end"), UNIT]).optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "bitpos",
        arity: Arity::AtLeast(3),
        flags: Flags::READONLY,
        acl: Category::BITMAP,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeysLong(bitpos),
        doc: &Doc {
            since: "2.8.7",
            group: Group::Bitmap,
            complexity: "O(N) for N bytes looked at.",
            summary: "Finds the first bit of a string that is set, or the first that is clear.",
            history: &[("7.0.0", "Option `BYTE|BIT`.")],
            args: &[
                Arg::key("key", 0),
                Arg::integer("bit"),
                Arg::block(
                    "range",
                    &[
                        Arg::integer("start"),
                        Arg::block("end-unit-block", &[Arg::integer("end"), UNIT]).optional(),
                    ],
                )
                .optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "bitop",
        arity: Arity::AtLeast(4),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Category::BITMAP,
        keys: &[
            KeySpec::at(2).overwrite().update(),
            KeySpec::from(3, 1).read_only().access(),
        ],
        runs: Runs::OnKeysLong(bitop),
        doc: &Doc {
            since: "2.6.0",
            group: Group::Bitmap,
            complexity: "O(N) for N bytes in all sources.",
            summary: "Joins strings bit by bit and stores the result.",
            history: &[("8.2.0", "Operations `DIFF`, `DIFF1`, `ANDOR` and `ONE`.")],
            args: &[
                Arg::one_of(
                    "operation",
                    &[
                        Arg::flag("and", "AND"),
                        Arg::flag("or", "OR"),
                        Arg::flag("xor", "XOR"),
                        Arg::flag("not", "NOT"),
                        Arg::flag("diff", "DIFF").since("8.2.0"),
                        Arg::flag("diff1", "DIFF1").since("8.2.0"),
                        Arg::flag("andor", "ANDOR").since("8.2.0"),
                        Arg::flag("one", "ONE").since("8.2.0"),
                    ],
                ),
                Arg::key("destkey", 0),
                Arg::key("key", 1).multiple(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "bitfield",
        arity: Arity::AtLeast(2),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Category::BITMAP,
        keys: &[KeySpec::at(1)
            .read_write()
            .access()
            .update()
            .variable(key_use_of_bitfield)
            .notes("This command allows both access and modification of the key")],
        runs: Runs::OnKeys(bitfield),
        doc: &Doc {
            since: "3.2.0",
            group: Group::Bitmap,
            complexity: "O(1) for each operation.",
            summary: "Reads and changes integers of any width at any bit of a string.",
            args: &[
                Arg::key("key", 0),
                Arg::one_of(
                    "operation",
                    &[
                        Arg::block("get-block", FIELD).token("GET"),
                        Arg::block("write", &[OVERFLOW, WRITE_OPERATION]),
                    ],
                )
                .optional()
                .multiple(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "bitfield_ro",
        arity: Arity::AtLeast(2),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::BITMAP,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeys(bitfield_ro),
        doc: &Doc {
            since: "6.0.0",
            group: Group::Bitmap,
            complexity: "O(1) for each operation.",
            summary: "Reads integers of any width at any bit of a string.",
            args: &[
                Arg::key("key", 0),
                Arg::block("get-block", FIELD)
                    .token("GET")
                    .optional()
                    .multiple_token(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
];

const UNIT: Arg = Arg::one_of("unit", &[Arg::flag("byte", "BYTE"), Arg::flag("bit", "BIT")])
    .since("7.0.0")
    .optional();

const FIELD: &[Arg] = &[Arg::string("encoding"), Arg::integer("offset")];

const OVERFLOW: Arg = Arg::one_of(
    "overflow-block",
    &[
        Arg::flag("wrap", "WRAP"),
        Arg::flag("sat", "SAT"),
        Arg::flag("fail", "FAIL"),
    ],
)
.token("OVERFLOW")
.optional();

const WRITE_OPERATION: Arg = Arg::one_of(
    "write-operation",
    &[
        Arg::block(
            "set-block",
            &[
                Arg::string("encoding"),
                Arg::integer("offset"),
                Arg::integer("value"),
            ],
        )
        .token("SET"),
        Arg::block(
            "incrby-block",
            &[
                Arg::string("encoding"),
                Arg::integer("offset"),
                Arg::integer("increment"),
            ],
        )
        .token("INCRBY"),
    ],
);

/// Refuses a bit that lies beyond the longest string.
fn check_offset(offset: Option<i64>, settings: &Settings) -> Result<u64, ReplyError> {
    let offset = offset
        .and_then(|offset| u64::try_from(offset).ok())
        .ok_or(ReplyError::BitOffset)?;
    if offset / 8 < settings.proto_max_bulk_len {
        Ok(offset)
    } else {
        Err(ReplyError::BitOffset)
    }
}

fn bit_offset(arg: &[u8], settings: &Settings) -> Result<u64, ReplyError> {
    check_offset(parse_i64(arg), settings)
}

/// Reads the offset of a field: in bits, or after a `#` in fields of its width.
fn field_offset(arg: &[u8], field: Field, settings: &Settings) -> Result<u64, ReplyError> {
    let offset = match arg {
        [b'#', index @ ..] => parse_i64(index).and_then(|index| index.checked_mul(i64::from(field.width()))),
        _ => parse_i64(arg),
    };
    check_offset(offset, settings)
}

fn setbit(ctx: &mut Context<'_>) -> CommandResult {
    let offset = bit_offset(ctx.args.at(2), ctx.settings)?;
    let bit = match parse_i64(ctx.args.at(3)) {
        Some(0) => false,
        Some(1) => true,
        _ => return Err(ReplyError::BitValue),
    };
    let key = ctx.key(1);
    let old_len = ctx.keyspace.write_string(&key)?.map_or(0, |value| value.len());
    let len = bitmap::bytes_for(offset, 1) as usize;
    let before = bitmap::set_bit(ctx.keyspace.string_mut(&key, len), offset, bit);
    if before != bit || len > old_len {
        ctx.modified(&key);
        ctx.notify(KeyspaceEvents::STRING, "setbit", &key);
    }
    ctx.reply.integer(i64::from(before));
    Ok(())
}

fn getbit(ctx: &mut Context<'_>) -> CommandResult {
    let offset = bit_offset(ctx.args.at(2), ctx.settings)?;
    let key = ctx.key(1);
    let mut scratch = [0; INT_TEXT_MAX];
    let bit = match ctx.keyspace.read_string(&key)? {
        Some(value) => bitmap::get_bit(value.as_bytes(&mut scratch), offset),
        None => false,
    };
    ctx.reply.integer(i64::from(bit));
    Ok(())
}

/// Unit in which BITCOUNT and BITPOS count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Byte,
    Bit,
}

impl Unit {
    fn parse(arg: &[u8]) -> Result<Self, ReplyError> {
        if is(arg, "BIT") {
            Ok(Self::Bit)
        } else if is(arg, "BYTE") {
            Ok(Self::Byte)
        } else {
            Err(ReplyError::Syntax)
        }
    }

    /// Bits of one unit.
    const fn bits(self) -> u64 {
        match self {
            Self::Byte => 8,
            Self::Bit => 1,
        }
    }

    /// The bits from the first to the last unit.
    const fn to_bits(self, (first, last): (u64, u64)) -> RangeInclusive<u64> {
        first * self.bits()..=last * self.bits() + self.bits() - 1
    }

    /// Number of units in a string.
    const fn count(self, bytes: &[u8]) -> u64 {
        bytes.len() as u64 * 8 / self.bits()
    }
}

fn bitcount(ctx: &mut Context<'_>) -> CommandResult {
    let range = BitRange::of_bitcount(ctx.args)?;
    let key = ctx.key(1);
    let mut scratch = [0; INT_TEXT_MAX];
    let count = match (ctx.keyspace.read_string(&key)?, range) {
        (None, _) => 0,
        (Some(value), None) => bitmap::count(value.as_bytes(&mut scratch)),
        (Some(value), Some(range)) => count_in_range(value.as_bytes(&mut scratch), &range),
    };
    ctx.reply.integer(count as i64);
    Ok(())
}

/// A part of a string, as a request names it.
struct BitRange {
    start: i64,
    /// The last unit; up to the end of the string if missing.
    end: Option<i64>,
    unit: Unit,
}

impl BitRange {
    /// The range of BITCOUNT; `None` is the whole string.
    fn of_bitcount(args: Arguments<'_>) -> Result<Option<Self>, ReplyError> {
        match args.len() {
            2 => return Ok(None),
            4 | 5 => {}
            _ => return Err(ReplyError::Syntax),
        }
        let (start, end) = (int(args.at(2))?, int(args.at(3))?);
        let unit = args.get(4).map_or(Ok(Unit::Byte), Unit::parse)?;
        Ok(Some(Self {
            start,
            end: Some(end),
            unit,
        }))
    }

    /// The range of BITPOS.
    fn of_bitpos(args: Arguments<'_>) -> Result<Self, ReplyError> {
        if args.len() > 6 {
            return Err(ReplyError::Syntax);
        }
        let start = args.get(3).map_or(Ok(0), int)?;
        let unit = args.get(5).map_or(Ok(Unit::Byte), Unit::parse)?;
        let end = args.get(4).map(int).transpose()?;
        Ok(Self { start, end, unit })
    }
}

fn count_in_range(bytes: &[u8], range: &BitRange) -> u64 {
    let end = range.end.unwrap_or(-1);
    if are_crossed(range.start, end) {
        return 0;
    }
    let found = clamp(range.start, end, range.unit.count(bytes));
    found.map_or(0, |found| {
        bitmap::count_bit_range(bytes, range.unit.to_bits(found))
    })
}

fn bitpos(ctx: &mut Context<'_>) -> CommandResult {
    let bit = match int(ctx.args.at(2))? {
        0 => false,
        1 => true,
        _ => return Err(ReplyError::BitArgument),
    };
    let range = BitRange::of_bitpos(ctx.args)?;
    let key = ctx.key(1);
    let mut scratch = [0; INT_TEXT_MAX];
    let position = match ctx.keyspace.read_string(&key)? {
        Some(value) => find_bit(value.as_bytes(&mut scratch), bit, &range),
        // A missing key is an endless row of zeros, whatever the range.
        None => (!bit).then_some(0),
    };
    ctx.reply.integer(position.map_or(-1, |position| position as i64));
    Ok(())
}

fn find_bit(bytes: &[u8], bit: bool, range: &BitRange) -> Option<u64> {
    let (end, unit) = (range.end, range.unit);
    let bits = clamp(range.start, end.unwrap_or(-1), unit.count(bytes))?;
    let found = bitmap::position(bytes, bit, unit.to_bits(bits));
    // Without an explicit end, the string counts as followed by zeros.
    let beyond = (!bit && end.is_none()).then_some(bytes.len() as u64 * 8);
    found.or(beyond)
}

fn bitop(ctx: &mut Context<'_>) -> CommandResult {
    let operation = operation(ctx.args.at(1))?;
    check_sources(operation, ctx.args.len() - 3)?;
    let mut sources: SmallVec<[Option<Key<'_>>; 8]> = SmallVec::new();
    let mut len = 0;
    for index in 3..ctx.args.len() {
        let key = ctx.key(index);
        let found = ctx.keyspace.read_string(&key)?.map(|value| value.len());
        len = len.max(found.unwrap_or(0));
        sources.push(found.map(|_| key));
    }
    let target = ctx.key(2);
    if len == 0 {
        ctx.store_nothing(&target);
    } else {
        let result = join(ctx, operation, &sources, len);
        store_raw(ctx, &target, result);
        ctx.modified(&target);
        ctx.notify(KeyspaceEvents::STRING, "set", &target);
    }
    ctx.reply.integer(len as i64);
    Ok(())
}

fn operation(arg: &[u8]) -> Result<Operation, ReplyError> {
    let known = [
        ("AND", Operation::And),
        ("OR", Operation::Or),
        ("XOR", Operation::Xor),
        ("NOT", Operation::Not),
        ("DIFF", Operation::Diff),
        ("DIFF1", Operation::Diff1),
        ("ANDOR", Operation::AndOr),
        ("ONE", Operation::One),
    ];
    let found = known.into_iter().find(|(name, _)| is(arg, name));
    found.map(|(_, operation)| operation).ok_or(ReplyError::Syntax)
}

/// Refuses an operation on too many strings, or too few.
fn check_sources(operation: Operation, count: usize) -> CommandResult {
    let too_few = match operation {
        Operation::Not if count > 1 => return Err(ReplyError::BitopNot),
        Operation::Diff => "ERR BITOP DIFF must be called with at least two source keys.",
        Operation::Diff1 => "ERR BITOP DIFF1 must be called with at least two source keys.",
        Operation::AndOr => "ERR BITOP ANDOR must be called with at least two source keys.",
        _ => return Ok(()),
    };
    if count < 2 {
        return Err(ReplyError::Fixed(too_few));
    }
    Ok(())
}

/// Joins the strings under keys that were found before; a missing one reads as zeros.
fn join(ctx: &Context<'_>, operation: Operation, sources: &[Option<Key<'_>>], len: usize) -> Buffer {
    let mut scratches: SmallVec<[[u8; INT_TEXT_MAX]; 8]> = smallvec![[0; INT_TEXT_MAX]; sources.len()];
    let strings: SmallVec<[&[u8]; 8]> = sources
        .iter()
        .zip(&mut scratches)
        .map(|(key, scratch)| {
            let entry = key.and_then(|key| ctx.keyspace.found(&key));
            entry
                .and_then(|entry| entry.string())
                .unwrap_or(StringRef::Bytes(b""))
                .as_bytes(scratch)
        })
        .collect();
    let mut result = Buffer::zeroed(len);
    bitmap::operate(operation, &strings, &mut result);
    result
}

/// Stores bytes with encoding `raw`, even if they spell an integer.
fn store_raw(ctx: &mut Context<'_>, key: &Key<'_>, bytes: Buffer) {
    if bytes.len() > EMBEDDED_MAX {
        return ctx.keyspace.set_buffer(key, bytes, Expiry::Clear);
    }
    ctx.keyspace.remove(key, false);
    ctx.keyspace.set_raw(key, &bytes);
}

/// One operation of BITFIELD.
#[derive(Clone, Copy, Debug)]
struct FieldOperation {
    field: Field,
    /// Its first bit.
    offset: u64,
    action: Action,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Get,
    Set { value: i64, overflow: Overflow },
    Add { increment: i64, overflow: Overflow },
}

/// The operations of one request, in their order.
type FieldOperations = SmallVec<[FieldOperation; 4]>;

fn parse_operations(args: Arguments<'_>, settings: &Settings) -> Result<FieldOperations, ReplyError> {
    let mut operations = FieldOperations::new();
    let mut overflow = Overflow::Wrap;
    let mut options = Options::new(args, 2);
    while let Some(word) = options.word() {
        let following = args.len() - options.position();
        if is(word, "OVERFLOW") && following >= 1 {
            overflow = parse_overflow(options.value()?)?;
            continue;
        }
        let writes = is(word, "SET") || is(word, "INCRBY");
        if !(writes && following >= 3 || is(word, "GET") && following >= 2) {
            return Err(ReplyError::Syntax);
        }
        let field = Field::parse(options.value()?).ok_or(ReplyError::BitfieldType)?;
        let offset = field_offset(options.value()?, field, settings)?;
        let action = if !writes {
            Action::Get
        } else if is(word, "SET") {
            Action::Set {
                value: options.int()?,
                overflow,
            }
        } else {
            Action::Add {
                increment: options.int()?,
                overflow,
            }
        };
        operations.push(FieldOperation {
            field,
            offset,
            action,
        });
    }
    Ok(operations)
}

fn parse_overflow(arg: &[u8]) -> Result<Overflow, ReplyError> {
    let known = [
        ("WRAP", Overflow::Wrap),
        ("SAT", Overflow::Sat),
        ("FAIL", Overflow::Fail),
    ];
    let found = known.into_iter().find(|(name, _)| is(arg, name));
    found
        .map(|(_, overflow)| overflow)
        .ok_or(ReplyError::BitfieldOverflow)
}

/// Length that the string must have for all writes of a request, bytes; `None` when the request only reads.
fn written_len(operations: &[FieldOperation]) -> Option<u64> {
    let writes = operations
        .iter()
        .filter(|operation| !matches!(operation.action, Action::Get));
    writes
        .map(|write| bitmap::bytes_for(write.offset, write.field.width()))
        .max()
}

/// Access of BITFIELD to its key: read-only unless the request writes. A request that cannot be parsed counts as a
/// write.
fn key_use_of_bitfield(args: Arguments<'_>) -> KeyFlags {
    let mut options = Options::new(args, 2);
    while let Some(word) = options.word() {
        let following = args.len() - options.position();
        let taken = if is(word, "GET") && following >= 2 {
            2
        } else if is(word, "OVERFLOW") && following >= 1 {
            1
        } else {
            return KeyFlags::RW | KeyFlags::ACCESS | KeyFlags::UPDATE;
        };
        options = Options::new(args, options.position() + taken);
    }
    KeyFlags::RO | KeyFlags::ACCESS
}

fn bitfield(ctx: &mut Context<'_>) -> CommandResult {
    let operations = parse_operations(ctx.args, ctx.settings)?;
    match written_len(&operations) {
        Some(len) => change_fields(ctx, &operations, len as usize),
        None => read_fields(ctx, &operations),
    }
}

fn bitfield_ro(ctx: &mut Context<'_>) -> CommandResult {
    let operations = parse_operations(ctx.args, ctx.settings)?;
    match written_len(&operations) {
        Some(_) => Err(ReplyError::BitfieldReadOnly),
        None => read_fields(ctx, &operations),
    }
}

fn read_fields(ctx: &mut Context<'_>, operations: &[FieldOperation]) -> CommandResult {
    let key = ctx.key(1);
    let mut scratch = [0; INT_TEXT_MAX];
    let value = ctx.keyspace.read_string(&key)?.unwrap_or(StringRef::Bytes(b""));
    let bytes = value.as_bytes(&mut scratch);
    ctx.reply.array(operations.len());
    for operation in operations {
        ctx.reply.integer(operation.field.get(bytes, operation.offset));
    }
    Ok(())
}

fn change_fields(ctx: &mut Context<'_>, operations: &[FieldOperation], len: usize) -> CommandResult {
    let key = ctx.key(1);
    let grows = ctx.keyspace.write_string(&key)?.map_or(0, |value| value.len()) < len;
    let bytes = ctx.keyspace.string_mut(&key, len);
    let mut changes = 0;
    ctx.reply.array(operations.len());
    for &FieldOperation {
        field,
        offset,
        action,
    } in operations
    {
        let old = field.get(bytes, offset);
        let new = match action {
            Action::Get => {
                ctx.reply.integer(old);
                continue;
            }
            Action::Set { value, overflow } => field.add(value, 0, overflow),
            Action::Add { increment, overflow } => field.add(old, increment, overflow),
        };
        let Some(new) = new else {
            ctx.reply.null();
            continue;
        };
        field.set(bytes, offset, new);
        changes += u64::from(grows || old != new);
        ctx.reply.integer(if matches!(action, Action::Set { .. }) {
            old
        } else {
            new
        });
    }
    // The string has grown even if every write was refused; replicas that repeat the request must let it grow, too.
    if changes > 0 || grows {
        ctx.modified(&key);
        ctx.notify(KeyspaceEvents::STRING, "setbit", &key);
        ctx.effects.changed(changes.saturating_sub(1));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use shardis_protocol::Span;
    use shardis_storage::value::Encoding;

    use super::super::testing::{Shell, words};
    use super::*;

    const SYNTAX: &str = "-ERR syntax error";
    const NOT_INTEGER: &str = "-ERR value is not an integer or out of range";
    const BIT_OFFSET: &str = "-ERR bit offset is not an integer or out of range";

    #[test]
    fn single_bits() {
        let not_a_bit = "-ERR bit is not an integer or out of range";
        let mut shell = Shell::new();
        shell.settings.proto_max_bulk_len = 16;
        shell.check_effects(&[
            ("SETBIT x 7 1", ":0", &["SETBIT x 7 1"]),
            ("GET x", "\"\\x01\"", &[]),
            ("SETBIT x 7 1", ":1", &[]),
            ("SETBIT x 7 0", ":1", &["SETBIT x 7 0"]),
            ("SETBIT x 127 0", ":0", &["SETBIT x 127 0"]),
            ("STRLEN x", ":16", &[]),
            ("SETBIT x 128 1", BIT_OFFSET, &[]),
            ("SETBIT x -1 1", BIT_OFFSET, &[]),
            ("SETBIT x abc 2", BIT_OFFSET, &[]),
            ("SETBIT x 7 2", not_a_bit, &[]),
            ("SETBIT x 7 x", not_a_bit, &[]),
            ("SETBIT new 0 0", ":0", &["SETBIT new 0 0"]),
            ("STRLEN new", ":1", &[]),
            ("GETBIT x 127", ":0", &[]),
            ("GETBIT x 128", BIT_OFFSET, &[]),
            ("GETBIT x -1", BIT_OFFSET, &[]),
            ("GETBIT none abc", BIT_OFFSET, &[]),
            ("GETBIT none 1", ":0", &[]),
            ("SET i 7", "+OK", &["SET i 7"]),
            ("GETBIT i 3", ":1", &[]),
            ("GETBIT i 100", ":0", &[]),
            ("SETBIT i 7 0", ":1", &["SETBIT i 7 0"]),
            ("GET i", "\"6\"", &[]),
        ]);
        assert_eq!(shell.entry("i", |entry| entry.encoding()), Some(Encoding::Raw));
    }

    #[test]
    fn bits_are_counted() {
        Shell::new().check(&[
            ("SET s foobar", "+OK"),
            ("BITCOUNT s", ":26"),
            ("BITCOUNT s 0 0", ":4"),
            ("BITCOUNT s 1 1 byte", ":6"),
            ("BITCOUNT s 5 30 BIT", ":17"),
            ("BITCOUNT s -5 -1 bit", ":2"),
            ("BITCOUNT s -1 -5", ":0"),
            ("BITCOUNT s -100 -90", ":4"),
            ("BITCOUNT s -90 -100", ":0"),
            ("BITCOUNT s -1 -5 FOO", SYNTAX),
            ("BITCOUNT s 100 200", ":0"),
            ("BITCOUNT s 3 1", ":0"),
            ("BITCOUNT s 0", SYNTAX),
            ("BITCOUNT s 0 1 FOO", SYNTAX),
            ("BITCOUNT s 0 1 BIT x", SYNTAX),
            ("BITCOUNT s x 1 FOO", NOT_INTEGER),
            ("BITCOUNT s 0 x", NOT_INTEGER),
            ("BITCOUNT none", ":0"),
            ("BITCOUNT none x", SYNTAX),
            ("BITCOUNT none 0 1 FOO", SYNTAX),
            ("SET i 6", "+OK"),
            ("BITCOUNT i", ":4"),
            ("SET empty \"\"", "+OK"),
            ("BITCOUNT empty 0 -1", ":0"),
        ]);
    }

    #[test]
    fn bits_are_found() {
        let not_a_bit = "-ERR The bit argument must be 1 or 0.";
        Shell::new().check(&[
            ("SET s foobar", "+OK"),
            ("BITPOS s 1", ":1"),
            ("BITPOS s 0", ":0"),
            ("BITPOS s 1 2", ":17"),
            ("BITPOS s 1 -1", ":41"),
            ("BITPOS s 1 -1 -1", ":41"),
            ("BITPOS s 1 0 -1 BIT", ":1"),
            ("BITPOS s 1 10 20 BIT", ":10"),
            ("BITPOS s 1 100", ":-1"),
            ("BITPOS s 1 -100 -50", ":1"),
            ("BITPOS s 1 3 1", ":-1"),
            ("BITPOS s 2", not_a_bit),
            ("BITPOS s x", NOT_INTEGER),
            ("BITPOS s 1 x", NOT_INTEGER),
            ("BITPOS s 1 x 0 FOO", NOT_INTEGER),
            ("BITPOS s 1 0 x", NOT_INTEGER),
            ("BITPOS s 1 0 x FOO", SYNTAX),
            ("BITPOS s 1 0 -1 BIT x", SYNTAX),
            ("SET ones \"\\xff\\xff\\xff\"", "+OK"),
            ("BITPOS ones 0", ":24"),
            ("BITPOS ones 0 0", ":24"),
            ("BITPOS ones 0 0 -1", ":-1"),
            ("BITPOS ones 0 0 -1 BIT", ":-1"),
            ("BITPOS ones 0 3", ":-1"),
            ("BITPOS ones 1 7 15 BIT", ":7"),
            ("SET zeros \"\\x00\\x00\\x00\"", "+OK"),
            ("BITPOS zeros 1", ":-1"),
            ("BITPOS zeros 0 1", ":8"),
            ("BITPOS none 0", ":0"),
            ("BITPOS none 1", ":-1"),
            ("BITPOS none 0 5", ":0"),
            ("BITPOS none 0 x", NOT_INTEGER),
            ("BITPOS none 2", not_a_bit),
            ("SET empty \"\"", "+OK"),
            ("BITPOS empty 0", ":-1"),
            ("BITPOS empty 0 0 -1", ":-1"),
            ("SET i 6", "+OK"),
            ("BITPOS i 1", ":2"),
        ]);
    }

    #[test]
    fn strings_are_joined_wherever_they_are() {
        for shards in [1, 4] {
            let mut shell = Shell::over(shards);
            shell.check_effects(&[
                (
                    "MSET a abcdef b foo i 12 empty \"\"",
                    "+OK",
                    &["MSET a abcdef b foo i 12 empty \"\""],
                ),
                ("BITOP AND d a b", ":6", &["BITOP AND d a b"]),
                ("GET d", "\"`bc\\x00\\x00\\x00\"", &[]),
                ("BITOP or d a b", ":6", &["BITOP or d a b"]),
                ("GET d", "\"goodef\"", &[]),
                ("BITOP XOR d a a", ":6", &["BITOP XOR d a a"]),
                ("GET d", "\"\\x00\\x00\\x00\\x00\\x00\\x00\"", &[]),
                ("BITOP NOT d i", ":2", &["BITOP NOT d i"]),
                ("GET d", "\"\\xce\\xcd\"", &[]),
                ("BITOP AND d a none", ":6", &["BITOP AND d a none"]),
                ("GET d", "\"\\x00\\x00\\x00\\x00\\x00\\x00\"", &[]),
                ("BITOP OR a a b", ":6", &["BITOP OR a a b"]),
                ("GET a", "\"goodef\"", &[]),
                (
                    "BITOP NOT d a b",
                    "-ERR BITOP NOT must be called with a single source key.",
                    &[],
                ),
                (
                    "BITOP DIFF d a",
                    "-ERR BITOP DIFF must be called with at least two source keys.",
                    &[],
                ),
                ("BITOP DIFFER d a", SYNTAX, &[]),
                ("BITOP AND d none empty", ":0", &["BITOP AND d none empty"]),
                ("GET d", "nil", &[]),
                ("BITOP AND d none empty", ":0", &[]),
                ("SET d x EX 100", "+OK", &["SET d x PXAT 1700000100000"]),
                ("BITOP AND d i i", ":2", &["BITOP AND d i i"]),
                ("GET d", "\"12\"", &[]),
            ]);
            assert_eq!(
                shell.entry("d", |entry| (entry.encoding(), entry.expiry())),
                Some((Encoding::Raw, None))
            );
        }
    }

    #[test]
    fn long_strings_are_joined() {
        let mut shell = Shell::new();
        shell.run(&format!("SET a {}", "a".repeat(5000)));
        shell.run(&format!("SET b {}", "b".repeat(3000)));
        shell.check(&[
            ("BITOP XOR d a b", ":5000"),
            ("BITCOUNT d", ":12000"),
            ("BITCOUNT d 3000 -1", ":6000"),
        ]);
    }

    #[test]
    fn fields_are_read_and_written() {
        let mut shell = Shell::new();
        shell.check_effects(&[
            ("BITFIELD k", "[]", &[]),
            ("BITFIELD k GET u8 0", "[:0]", &[]),
            ("STRLEN k", ":0", &[]),
            ("BITFIELD k SET u8 0 255", "[:0]", &["BITFIELD k SET u8 0 255"]),
            ("BITFIELD k SET u8 0 255", "[:255]", &[]),
            (
                "bitfield k get u8 0 GET i8 0 GET u4 4 GET u8 #1",
                "[:255, :-1, :15, :0]",
                &[],
            ),
            ("BITFIELD k INCRBY u8 0 1", "[:0]", &["BITFIELD k INCRBY u8 0 1"]),
            ("BITFIELD k INCRBY u8 0 0", "[:0]", &[]),
            (
                "BITFIELD k OVERFLOW SAT INCRBY u8 0 300",
                "[:255]",
                &["BITFIELD k OVERFLOW SAT INCRBY u8 0 300"],
            ),
            ("BITFIELD k OVERFLOW fail INCRBY u8 0 1", "[nil]", &[]),
            ("BITFIELD k OVERFLOW FAIL SET u8 0 256", "[nil]", &[]),
            ("BITFIELD k SET u8 0 -1", "[:255]", &[]),
            (
                "BITFIELD k OVERFLOW WRAP SET i8 0 200",
                "[:-1]",
                &["BITFIELD k OVERFLOW WRAP SET i8 0 200"],
            ),
            (
                "BITFIELD k OVERFLOW SAT SET i8 0 200",
                "[:-56]",
                &["BITFIELD k OVERFLOW SAT SET i8 0 200"],
            ),
            ("BITFIELD k GET i64 0", "[:9151314442816847872]", &[]),
            ("BITFIELD k GET u63 0", "[:4575657221408423936]", &[]),
            ("BITFIELD k SET u8 #3 7", "[:0]", &["BITFIELD k SET u8 #3 7"]),
            ("STRLEN k", ":4", &[]),
            (
                "BITFIELD grown SET u8 100 0",
                "[:0]",
                &["BITFIELD grown SET u8 100 0"],
            ),
            ("STRLEN grown", ":14", &[]),
            ("SET i 12", "+OK", &["SET i 12"]),
            ("BITFIELD i GET u16 0", "[:12594]", &[]),
            ("BITFIELD i SET u8 0 50", "[:49]", &["BITFIELD i SET u8 0 50"]),
            ("GET i", "\"22\"", &[]),
        ]);
        let answer =
            shell.run("BITFIELD new SET u8 0 1 INCRBY u8 8 1 GET u8 8 OVERFLOW FAIL INCRBY u8 0 255");
        assert_eq!((answer.reply.as_str(), answer.changes), ("[:0, :1, :1, nil]", 2));
        // A string grows for a write that is then refused, and so it must on replicas that repeat the request.
        shell.check_effects(&[
            (
                "BITFIELD refused OVERFLOW FAIL SET u8 0 256",
                "[nil]",
                &["BITFIELD refused OVERFLOW FAIL SET u8 0 256"],
            ),
            ("STRLEN refused", ":1", &[]),
        ]);
    }

    #[test]
    fn fields_of_64_bits_overflow_as_asked() {
        let (max, min) = (i64::MAX, i64::MIN);
        Shell::new().check(&[
            (
                &format!("BITFIELD k SET i64 0 {max} INCRBY i64 0 1"),
                &format!("[:0, :{min}]"),
            ),
            (
                &format!("BITFIELD k OVERFLOW SAT INCRBY i64 0 -1 INCRBY i64 0 {max}"),
                &format!("[:{min}, :-1]"),
            ),
            (&format!("BITFIELD k OVERFLOW FAIL INCRBY i64 0 {min}"), "[nil]"),
            ("BITFIELD k INCRBY i64 0 9223372036854775808", NOT_INTEGER),
        ]);
    }

    #[test]
    fn malformed_fields_are_refused_before_anything_changes() {
        let bad_type = "-ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.";
        let mut shell = Shell::new();
        shell.settings.proto_max_bulk_len = 1 << 20;
        shell.check(&[
            (
                "BITFIELD k OVERFLOW FOO GET u8 0",
                "-ERR Invalid OVERFLOW type specified",
            ),
            ("BITFIELD k OVERFLOW", SYNTAX),
            ("BITFIELD k GET u64 0", bad_type),
            ("BITFIELD k GET i65 0", bad_type),
            ("BITFIELD k GET u0 0", bad_type),
            ("BITFIELD k GET U8 0", bad_type),
            ("BITFIELD k GET \"\" 0", bad_type),
            ("BITFIELD k GET u8", SYNTAX),
            ("BITFIELD k GET u8 x", BIT_OFFSET),
            ("BITFIELD k GET u8 -1", BIT_OFFSET),
            ("BITFIELD k GET u8 #-1", BIT_OFFSET),
            ("BITFIELD k GET u8 #", BIT_OFFSET),
            ("BITFIELD k GET u8 #9223372036854775807", BIT_OFFSET),
            ("BITFIELD k SET u8 8388608 1", BIT_OFFSET),
            ("BITFIELD k SET u8 #3 x", NOT_INTEGER),
            ("BITFIELD k FOO u8 0", SYNTAX),
            ("BITFIELD k SET u8 0 1 SET u8 0", SYNTAX),
            ("STRLEN k", ":0"),
            ("BITFIELD k SET u8 8388601 1", "[:0]"),
            ("STRLEN k", ":1048577"),
            ("BITFIELD_RO k GET u8 8388600 OVERFLOW SAT", "[:0]"),
            (
                "BITFIELD_RO k SET u8 0 1",
                "-ERR BITFIELD_RO only supports the GET subcommand",
            ),
            (
                "BITFIELD_RO k INCRBY u8 0 1",
                "-ERR BITFIELD_RO only supports the GET subcommand",
            ),
            ("BITFIELD_RO k FOO", SYNTAX),
            ("BITFIELD_RO k", "[]"),
        ]);
    }

    #[test]
    fn watchers_learn_of_changed_bits_alone() {
        let mut shell = Shell::over(2);
        shell.run("SETBIT k 7 1");
        for (line, touched) in [
            ("SETBIT k 7 1", false),
            ("SETBIT k 7 0", true),
            ("BITFIELD k GET u8 0", false),
            ("BITFIELD k SET u8 0 0", false),
            ("BITFIELD k SET u8 0 1", true),
            ("BITOP NOT other k", false),
            ("BITOP NOT k other", true),
            ("BITOP AND k none", true),
            ("BITOP AND k none", false),
        ] {
            let token = shell.watch("k");
            shell.run(line);
            assert_eq!(token.is_touched(), touched, "{line}");
        }
    }

    #[test]
    fn what_bitfield_does_with_its_key_depends_on_its_operations() {
        for (line, reads_only) in [
            ("BITFIELD k", true),
            ("BITFIELD k OVERFLOW SAT get u8 0 OVERFLOW FOO", true),
            ("BITFIELD k GET u8 0 SET u8 0 1", false),
            ("BITFIELD k GET u8", false),
            ("BITFIELD k OVERFLOW", false),
            ("BITFIELD k FOO", false),
        ] {
            let words = words(line);
            let mut start = 0;
            let spans: Vec<Span> = words
                .iter()
                .map(|word| {
                    start += word.len();
                    Span::new(start - word.len(), word.len()).unwrap()
                })
                .collect();
            let use_of_key = key_use_of_bitfield(Arguments::new(&words.concat(), &spans, &[]));
            assert_eq!(use_of_key.contains(KeyFlags::RO), reads_only, "{line}");
        }
    }
}
