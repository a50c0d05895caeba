//! Lists: pushing and popping at both ends, reading and changing elements by index or value, moving them between lists.
//!
//! A list exists as long as it has elements: every handler that removes some ends with [`removed`]. The effect of
//! LMPOP is an LPOP or RPOP of the list it took from, those of other commands are their requests. Rows first, then
//! handlers in the order of the rows.

pub(crate) mod blocking;

use std::ops::ControlFlow;

use shardis_protocol::{Arguments, Encoder};
use shardis_storage::key::Key;
use shardis_storage::value::list::{Direction, Element, End, List, ListLimits, Side};

use super::pop::PopRequest;
use super::strings::{bulk, whole_bulk};
use crate::config::{KeyspaceEvents, Settings};
use crate::error::ReplyError;
use crate::exec::arguments::{count_from, int, int_within, is};
use crate::exec::{CommandResult, Context, Options};
use crate::spec::argument::Deprecated;
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, KeySpec, Runs};

const ENDS: &[Arg] = &[Arg::flag("left", "LEFT"), Arg::flag("right", "RIGHT")];

/// The commands of this family.
pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "lpush",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Category::LIST,
        keys: &[KeySpec::at(1).read_write().insert()],
        runs: Runs::OnKeys(lpush),
        doc: &Doc {
            since: "1.0.0",
            group: Group::List,
            complexity: "O(1) for each element.",
            summary: "Adds elements in front of a list, which is created if need be.",
            history: &[("2.4.0", "Several elements at once.")],
            args: &[Arg::key("key", 0), Arg::string("element").multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "rpush",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Category::LIST,
        keys: &[KeySpec::at(1).read_write().insert()],
        runs: Runs::OnKeys(rpush),
        doc: &Doc {
            since: "1.0.0",
            group: Group::List,
            complexity: "O(1) for each element.",
            summary: "Adds elements at the end of a list, which is created if need be.",
            history: &[("2.4.0", "Several elements at once.")],
            args: &[Arg::key("key", 0), Arg::string("element").multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "lpushx",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Category::LIST,
        keys: &[KeySpec::at(1).read_write().insert()],
        runs: Runs::OnKeys(lpushx),
        doc: &Doc {
            since: "2.2.0",
            group: Group::List,
            complexity: "O(1) for each element.",
            summary: "Adds elements in front of a list, provided that it exists.",
            history: &[("4.0.0", "Several elements at once.")],
            args: &[Arg::key("key", 0), Arg::string("element").multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "rpushx",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Category::LIST,
        keys: &[KeySpec::at(1).read_write().insert()],
        runs: Runs::OnKeys(rpushx),
        doc: &Doc {
            since: "2.2.0",
            group: Group::List,
            complexity: "O(1) for each element.",
            summary: "Adds elements at the end of a list, provided that it exists.",
            history: &[("4.0.0", "Several elements at once.")],
            args: &[Arg::key("key", 0), Arg::string("element").multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "lpop",
        arity: Arity::AtLeast(2),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Category::LIST,
        keys: &[KeySpec::at(1).read_write().access().delete()],
        runs: Runs::OnKeys(lpop),
        doc: &Doc {
            since: "1.0.0",
            group: Group::List,
            complexity: "O(N) for N elements returned.",
            summary: "Removes the first element of a list, or the first few, and returns what it removed.",
            history: &[("6.2.0", "The argument `count`.")],
            args: &[
                Arg::key("key", 0),
                Arg::integer("count").since("6.2.0").optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "rpop",
        arity: Arity::AtLeast(2),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Category::LIST,
        keys: &[KeySpec::at(1).read_write().access().delete()],
        runs: Runs::OnKeys(rpop),
        doc: &Doc {
            since: "1.0.0",
            group: Group::List,
            complexity: "O(N) for N elements returned.",
            summary: "Removes the last element of a list, or the last few, and returns what it removed.",
            history: &[("6.2.0", "The argument `count`.")],
            args: &[
                Arg::key("key", 0),
                Arg::integer("count").since("6.2.0").optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "llen",
        arity: Arity::Exactly(2),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::LIST,
        keys: &[KeySpec::at(1).read_only()],
        runs: Runs::OnKeys(llen),
        doc: &Doc {
            since: "1.0.0",
            group: Group::List,
            complexity: "O(1)",
            summary: "Returns how many elements a list has.",
            args: &[Arg::key("key", 0)],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "lindex",
        arity: Arity::Exactly(3),
        flags: Flags::READONLY,
        acl: Category::LIST,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeys(lindex),
        doc: &Doc {
            since: "1.0.0",
            group: Group::List,
            complexity: "O(log N) in a list of N elements.",
            summary: "Returns the element of a list at an index.",
            args: &[Arg::key("key", 0), Arg::integer("index")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "linsert",
        arity: Arity::Exactly(5),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Category::LIST,
        keys: &[KeySpec::at(1).read_write().insert()],
        runs: Runs::OnKeysLong(linsert),
        doc: &Doc {
            since: "2.2.0",
            group: Group::List,
            complexity: "O(N) for N elements before the pivot.",
            summary: "Adds an element to a list, right before or after the first that equals a pivot.",
            args: &[
                Arg::key("key", 0),
                Arg::one_of(
                    "where",
                    &[Arg::flag("before", "BEFORE"), Arg::flag("after", "AFTER")],
                ),
                Arg::string("pivot"),
                Arg::string("element"),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "lrange",
        arity: Arity::Exactly(4),
        flags: Flags::READONLY,
        acl: Category::LIST,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeysLong(lrange),
        doc: &Doc {
            since: "1.0.0",
            group: Group::List,
            complexity: "O(log N + M) for M elements returned of a list of N.",
            summary: "Returns the elements of a list between two indexes, both included.",
            args: &[Arg::key("key", 0), Arg::integer("start"), Arg::integer("stop")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "lrem",
        arity: Arity::Exactly(4),
        flags: Flags::WRITE,
        acl: Category::LIST,
        keys: &[KeySpec::at(1).read_write().delete()],
        runs: Runs::OnKeysLong(lrem),
        doc: &Doc {
            since: "1.0.0",
            group: Group::List,
            complexity: "O(N) in a list of N elements.",
            summary: "Removes elements from a list that equal a given one, from either end on.",
            args: &[Arg::key("key", 0), Arg::integer("count"), Arg::string("element")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "lset",
        arity: Arity::Exactly(4),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Category::LIST,
        keys: &[KeySpec::at(1).read_write().update()],
        runs: Runs::OnKeys(lset),
        doc: &Doc {
            since: "1.0.0",
            group: Group::List,
            complexity: "O(log N) in a list of N elements.",
            summary: "Replaces the element of a list at an index.",
            args: &[Arg::key("key", 0), Arg::integer("index"), Arg::string("element")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "ltrim",
        arity: Arity::Exactly(4),
        flags: Flags::WRITE,
        acl: Category::LIST,
        keys: &[KeySpec::at(1).read_write().delete()],
        runs: Runs::OnKeysLong(ltrim),
        doc: &Doc {
            since: "1.0.0",
            group: Group::List,
            complexity: "O(N) for N elements removed, at a small fraction of a step each.",
            summary: "Removes all elements of a list but those between two indexes.",
            args: &[Arg::key("key", 0), Arg::integer("start"), Arg::integer("stop")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "lpos",
        arity: Arity::AtLeast(3),
        flags: Flags::READONLY,
        acl: Category::LIST,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeysLong(lpos),
        doc: &Doc {
            since: "6.0.6",
            group: Group::List,
            complexity: "O(N) for N elements compared.",
            summary: "Returns the index of the first element of a list that equals a given one, or of several.",
            args: &[
                Arg::key("key", 0),
                Arg::string("element"),
                Arg::integer("rank").token("RANK").optional(),
                Arg::integer("num-matches").token("COUNT").optional(),
                Arg::integer("len").token("MAXLEN").optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "lmove",
        arity: Arity::Exactly(5),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Category::LIST,
        keys: &[
            KeySpec::at(1).read_write().access().delete(),
            KeySpec::at(2).read_write().insert(),
        ],
        runs: Runs::OnKeys(lmove),
        doc: &Doc {
            since: "6.2.0",
            group: Group::List,
            complexity: "O(1)",
            summary: "Removes an element from an end of one list, adds it at an end of another, and returns it.",
            args: &[
                Arg::key("source", 0),
                Arg::key("destination", 1),
                Arg::one_of("wherefrom", ENDS),
                Arg::one_of("whereto", ENDS),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "rpoplpush",
        arity: Arity::Exactly(3),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Category::LIST,
        keys: &[
            KeySpec::at(1).read_write().access().delete(),
            KeySpec::at(2).read_write().insert(),
        ],
        runs: Runs::OnKeys(rpoplpush),
        doc: &Doc {
            since: "1.2.0",
            group: Group::List,
            complexity: "O(1)",
            summary: "Removes the last element of one list, adds it in front of another, and returns it.",
            deprecated: Some(Deprecated {
                since: "6.2.0",
                replaced_by: "`LMOVE` with the `RIGHT` and `LEFT` arguments",
            }),
            args: &[Arg::key("source", 0), Arg::key("destination", 1)],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "lmpop",
        arity: Arity::AtLeast(4),
        flags: Flags::WRITE,
        acl: Category::LIST,
        keys: &[KeySpec::counted(1).read_write().access().delete()],
        runs: Runs::OnKeysLong(lmpop),
        doc: &Doc {
            since: "7.0.0",
            group: Group::List,
            complexity: "O(N + M) for N keys and M elements returned.",
            summary: "Removes elements from an end of the first of several lists that is not empty, and returns them with its key.",
            args: &[
                Arg::integer("numkeys"),
                Arg::key("key", 0).multiple(),
                Arg::one_of("where", ENDS),
                Arg::integer("count").token("COUNT").optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
];

const INDEX_OUT_OF_RANGE: ReplyError = ReplyError::Fixed("ERR index out of range");
const RANK_ZERO: ReplyError = ReplyError::Fixed(
    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... \
     or use negative to start from the end of the list",
);
const COUNT_NEGATIVE: ReplyError = ReplyError::Fixed("ERR COUNT can't be negative");
const MAXLEN_NEGATIVE: ReplyError = ReplyError::Fixed("ERR MAXLEN can't be negative");

/// Limits of lists, from the settings.
pub(crate) fn limits(settings: &Settings) -> ListLimits {
    ListLimits {
        listpack_size: settings.list_max_listpack_size,
        compress_depth: settings.list_compress_depth,
        packed_threshold: settings.list_packed_threshold as usize,
    }
}

/// Reads `LEFT` or `RIGHT`.
fn end(arg: &[u8]) -> Result<End, ReplyError> {
    if is(arg, "LEFT") {
        Ok(End::Front)
    } else if is(arg, "RIGHT") {
        Ok(End::Back)
    } else {
        Err(ReplyError::Syntax)
    }
}

/// The index from the front that a client's index means, which counts from the back when negative.
fn resolve_index(index: i64, len: usize) -> Option<usize> {
    let index = if index < 0 { index + len as i64 } else { index };
    usize::try_from(index).ok().filter(|index| *index < len)
}

/// The first index and the number of elements from `start` to `stop`, which are both included and count from the back
/// when negative. For an empty range the index is that of the end.
fn resolve_range(start: i64, stop: i64, len: usize) -> (usize, usize) {
    let resolve = |index: i64| if index < 0 { index + len as i64 } else { index };
    let start = resolve(start).max(0) as usize;
    // One past the last element of the range; 0 if that lies before the beginning.
    let end = (resolve(stop).saturating_add(1).max(0) as usize).min(len);
    if start < end {
        (start, end - start)
    } else {
        (len, 0)
    }
}

/// Reads two indexes.
fn range_of(args: Arguments<'_>) -> Result<(i64, i64), ReplyError> {
    Ok((int(args.at(2))?, int(args.at(3))?))
}

/// Raises the event that elements were added to an end of a list.
#[inline]
fn notify_pushed(ctx: &mut Context<'_>, key: &Key<'_>, end: End) {
    let name = match end {
        End::Front => "lpush",
        End::Back => "rpush",
    };
    ctx.notify(KeyspaceEvents::LIST, name, key);
}

/// Raises the event that elements were removed from an end of a list.
#[inline]
fn notify_popped(ctx: &mut Context<'_>, key: &Key<'_>, end: End) {
    let name = match end {
        End::Front => "lpop",
        End::Back => "rpop",
    };
    ctx.notify(KeyspaceEvents::LIST, name, key);
}

fn lpush(ctx: &mut Context<'_>) -> CommandResult {
    push(ctx, End::Front)
}

fn rpush(ctx: &mut Context<'_>) -> CommandResult {
    push(ctx, End::Back)
}

fn push(ctx: &mut Context<'_>, end: End) -> CommandResult {
    let (key, limits) = (ctx.key(1), limits(ctx.settings));
    let elements = ctx.args.tail(2);
    let extend = |list: &mut List| {
        list.extend(end, elements.iter(), &limits);
        list.len()
    };
    // The usual case, an existing list, takes a single look-up.
    let len = match ctx.keyspace.write_as::<List>(&key)? {
        Some(list) => extend(list),
        None => extend(ctx.keyspace.make::<List>(&key)?.0),
    };
    ctx.reply.integer(len as i64);
    notify_pushed(ctx, &key, end);
    ctx.changed(&key, (ctx.args.len() - 2) as u64);
    Ok(())
}

fn lpushx(ctx: &mut Context<'_>) -> CommandResult {
    push_existing(ctx, End::Front)
}

fn rpushx(ctx: &mut Context<'_>) -> CommandResult {
    push_existing(ctx, End::Back)
}

fn push_existing(ctx: &mut Context<'_>, end: End) -> CommandResult {
    let (key, limits) = (ctx.key(1), limits(ctx.settings));
    let Some(list) = ctx.keyspace.write_as::<List>(&key)? else {
        ctx.reply.integer(0);
        return Ok(());
    };
    list.extend(end, ctx.args.tail(2).iter(), &limits);
    ctx.reply.integer(list.len() as i64);
    notify_pushed(ctx, &key, end);
    ctx.changed(&key, (ctx.args.len() - 2) as u64);
    Ok(())
}

fn lpop(ctx: &mut Context<'_>) -> CommandResult {
    pop(ctx, End::Front, "lpop")
}

fn rpop(ctx: &mut Context<'_>) -> CommandResult {
    pop(ctx, End::Back, "rpop")
}

fn pop(ctx: &mut Context<'_>, end: End, command: &'static str) -> CommandResult {
    match ctx.args.len() {
        2 => pop_one(ctx, end),
        3 => pop_several(ctx, end),
        _ => Err(ReplyError::arity(command)),
    }
}

fn pop_one(ctx: &mut Context<'_>, end: End) -> CommandResult {
    let (key, limits) = (ctx.key(1), limits(ctx.settings));
    let Some(list) = ctx.keyspace.write_as::<List>(&key)? else {
        ctx.reply.null();
        return Ok(());
    };
    list.pop(end, &limits, |element| bulk(&mut ctx.reply, element));
    let left = list.len();
    notify_popped(ctx, &key, end);
    ctx.removed(&key, 1, left);
    Ok(())
}

fn pop_several(ctx: &mut Context<'_>, end: End) -> CommandResult {
    let count = count_from(ctx.args.at(2), 0, ReplyError::NotPositive)?;
    let (key, limits) = (ctx.key(1), limits(ctx.settings));
    let Some(list) = ctx.keyspace.write_as::<List>(&key)? else {
        ctx.reply.null_array();
        return Ok(());
    };
    let count = take(list, end, count, &limits, &mut ctx.reply);
    let left = list.len();
    if count > 0 {
        notify_popped(ctx, &key, end);
        ctx.removed(&key, count as u64, left);
    }
    Ok(())
}

/// Removes up to `count` elements from an end and replies with an array of them, the outermost first; returns their
/// number.
fn take(list: &mut List, end: End, count: usize, limits: &ListLimits, reply: &mut Encoder<'_>) -> usize {
    let len = list.len();
    let count = count.min(len);
    reply.array(count);
    if count == 0 {
        return 0;
    }
    let (from, direction, start) = match end {
        End::Front => (0, Direction::Forward, 0),
        End::Back => (len - 1, Direction::Backward, len - count),
    };
    list.range(from, direction, count, |element| bulk(reply, element));
    list.remove_range(start, count, limits);
    count
}

fn llen(ctx: &mut Context<'_>) -> CommandResult {
    let key = ctx.key(1);
    let len = ctx.keyspace.read_as::<List>(&key)?.map_or(0, List::len);
    ctx.reply.integer(len as i64);
    Ok(())
}

fn lindex(ctx: &mut Context<'_>) -> CommandResult {
    let key = ctx.key(1);
    let Some(list) = ctx.keyspace.read_as::<List>(&key)? else {
        ctx.reply.null();
        return Ok(());
    };
    let index = resolve_index(int(ctx.args.at(2))?, list.len());
    let found = index.and_then(|index| list.get(index, |element| whole_bulk(&mut ctx.reply, element)));
    if found.is_none() {
        ctx.reply.null();
    }
    Ok(())
}

fn linsert(ctx: &mut Context<'_>) -> CommandResult {
    let side = match ctx.args.at(2) {
        word if is(word, "BEFORE") => Side::Before,
        word if is(word, "AFTER") => Side::After,
        _ => return Err(ReplyError::Syntax),
    };
    let (key, limits) = (ctx.key(1), limits(ctx.settings));
    let Some(list) = ctx.keyspace.write_as::<List>(&key)? else {
        ctx.reply.integer(0);
        return Ok(());
    };
    if list.insert(side, ctx.args.at(3), ctx.args.at(4), &limits) {
        ctx.reply.integer(list.len() as i64);
        ctx.notify(KeyspaceEvents::LIST, "linsert", &key);
        ctx.changed(&key, 1);
    } else {
        ctx.reply.integer(-1);
    }
    Ok(())
}

fn lrange(ctx: &mut Context<'_>) -> CommandResult {
    let (start, stop) = range_of(ctx.args)?;
    let key = ctx.key(1);
    let Some(list) = ctx.keyspace.read_as::<List>(&key)? else {
        ctx.reply.array(0);
        return Ok(());
    };
    let (start, count) = resolve_range(start, stop, list.len());
    let reply = &mut ctx.reply;
    reply.array(count);
    list.range(start, Direction::Forward, count, |element| bulk(reply, element));
    Ok(())
}

fn lrem(ctx: &mut Context<'_>) -> CommandResult {
    let count = if ctx.keyspace.stamp.is_of_repetition() {
        // A real server removes all equal elements for the lowest number.
        int(ctx.args.at(2))?
    } else {
        // The least number has no positive counterpart.
        int_within(ctx.args.at(2), -i64::MAX, i64::MAX)?
    };
    let (key, limits) = (ctx.key(1), limits(ctx.settings));
    let Some(list) = ctx.keyspace.write_as::<List>(&key)? else {
        ctx.reply.integer(0);
        return Ok(());
    };
    let direction = if count < 0 {
        Direction::Backward
    } else {
        Direction::Forward
    };
    let max = match count {
        0 => usize::MAX,
        count => count.unsigned_abs() as usize,
    };
    let gone = list.remove_equal(ctx.args.at(3), direction, max, &limits);
    let left = list.len();
    ctx.reply.integer(gone as i64);
    if gone > 0 {
        ctx.notify(KeyspaceEvents::LIST, "lrem", &key);
        ctx.removed(&key, gone as u64, left);
    }
    Ok(())
}

fn lset(ctx: &mut Context<'_>) -> CommandResult {
    let is_repeated = ctx.keyspace.stamp.is_of_repetition();
    let (key, limits) = (ctx.key(1), limits(ctx.settings));
    let list = ctx
        .keyspace
        .write_as::<List>(&key)?
        .ok_or(ReplyError::NoSuchKey)?;
    let index = int(ctx.args.at(2))?;
    // A real server looks at the low half of the number only.
    let index = if is_repeated {
        i64::from(index as i32)
    } else {
        index
    };
    // An index out of range is passed on, since the list prepares for the element before it checks the index.
    let index = resolve_index(index, list.len()).unwrap_or(usize::MAX);
    if !list.set(index, ctx.args.at(3), &limits) {
        return Err(INDEX_OUT_OF_RANGE);
    }
    ctx.reply.ok();
    ctx.notify(KeyspaceEvents::LIST, "lset", &key);
    ctx.changed(&key, 1);
    Ok(())
}

fn ltrim(ctx: &mut Context<'_>) -> CommandResult {
    let (start, stop) = range_of(ctx.args)?;
    let (key, limits) = (ctx.key(1), limits(ctx.settings));
    ctx.reply.ok();
    let Some(list) = ctx.keyspace.write_as::<List>(&key)? else {
        return Ok(());
    };
    let len = list.len();
    let (start, count) = resolve_range(start, stop, len);
    list.keep_range(start, count, &limits);
    ctx.notify(KeyspaceEvents::LIST, "ltrim", &key);
    if count < len {
        ctx.removed(&key, (len - count) as u64, count);
    } else {
        // Watchers are told even if nothing changed.
        ctx.keyspace.signal(&key);
    }
    Ok(())
}

/// Element that LPOS looks for.
struct Search {
    direction: Direction,
    /// Number of matches to skip.
    skipped: usize,
    /// Number of matches to return; `None` for a single one that is not in an array.
    wanted: Option<usize>,
    /// The most elements to compare.
    compared_max: usize,
}

impl Search {
    fn parse(args: Arguments<'_>) -> Result<Self, ReplyError> {
        let mut search = Self {
            direction: Direction::Forward,
            skipped: 0,
            wanted: None,
            compared_max: usize::MAX,
        };
        // Zero means unlimited.
        let unlimited = |count| if count == 0 { usize::MAX } else { count };
        let mut options = Options::new(args, 3);
        while let Some(word) = options.word() {
            if is(word, "RANK") {
                let rank = int_within(options.value()?, -i64::MAX, i64::MAX)?;
                search.skipped = rank.unsigned_abs().checked_sub(1).ok_or(RANK_ZERO)? as usize;
                search.direction = if rank < 0 {
                    Direction::Backward
                } else {
                    Direction::Forward
                };
            } else if is(word, "COUNT") {
                search.wanted = Some(unlimited(count_from(options.value()?, 0, COUNT_NEGATIVE)?));
            } else if is(word, "MAXLEN") {
                search.compared_max = unlimited(count_from(options.value()?, 0, MAXLEN_NEGATIVE)?);
            } else {
                return Err(ReplyError::Syntax);
            }
        }
        Ok(search)
    }

    /// Calls `found` with the index of every requested match; returns their number.
    fn run(&self, list: &List, element: &[u8], mut found: impl FnMut(usize)) -> usize {
        let (mut skipped, mut count) = (0, 0);
        let wanted = self.wanted.unwrap_or(1);
        list.positions(element, self.direction, self.compared_max, |index| {
            if skipped < self.skipped {
                skipped += 1;
                return ControlFlow::Continue(());
            }
            found(index);
            count += 1;
            if count < wanted {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        count
    }
}

fn lpos(ctx: &mut Context<'_>) -> CommandResult {
    let search = Search::parse(ctx.args)?;
    let key = ctx.key(1);
    let list = ctx.keyspace.read_as::<List>(&key)?;
    let element = ctx.args.at(2);
    let reply = &mut ctx.reply;
    let Some(list) = list else {
        match search.wanted {
            Some(_) => reply.array(0),
            None => reply.null(),
        }
        return Ok(());
    };
    if search.wanted.is_some() {
        let array = reply.deferred_array(1);
        let count = search.run(list, element, |index| reply.integer(index as i64));
        reply.close(array, count);
    } else if search.run(list, element, |index| reply.integer(index as i64)) == 0 {
        reply.null();
    }
    Ok(())
}

fn lmove(ctx: &mut Context<'_>) -> CommandResult {
    let (from, to) = (end(ctx.args.at(3))?, end(ctx.args.at(4))?);
    if !move_element(ctx, from, to)? {
        ctx.reply.null();
    }
    Ok(())
}

fn rpoplpush(ctx: &mut Context<'_>) -> CommandResult {
    if !move_element(ctx, End::Back, End::Front)? {
        ctx.reply.null();
    }
    Ok(())
}

/// Moves an element from the list at argument 1 to that at argument 2, which may be the same, and replies with it. False
/// when there is no such list.
fn move_element(ctx: &mut Context<'_>, from: End, to: End) -> Result<bool, ReplyError> {
    let (source, destination, limits) = (ctx.key(1), ctx.key(2), limits(ctx.settings));
    let Some(list) = ctx.keyspace.write_as::<List>(&source)? else {
        // Without a source, the destination may be of any type.
        return Ok(false);
    };
    if !ctx.waiting.claim() {
        return Ok(true);
    }
    if source.bytes == destination.bytes {
        list.rotate(from, to, &limits, |element| bulk(&mut ctx.reply, element));
        notify_pushed(ctx, &source, to);
        notify_popped(ctx, &source, from);
        ctx.changed(&source, 1);
        return Ok(true);
    }
    // The type of the destination is checked before an element is taken.
    ctx.keyspace.write_as::<List>(&destination)?;
    let Some(list) = ctx.keyspace.write_as::<List>(&source)? else {
        return Ok(false);
    };
    let Some(element) = list.pop(from, &limits, Element::of) else {
        return Ok(false);
    };
    let left = list.len();
    let (list, _) = ctx.keyspace.make::<List>(&destination)?;
    list.push(to, element.as_ref(), &limits);
    bulk(&mut ctx.reply, element.as_ref());
    // The move counts as one change, at the source.
    ctx.keyspace.signal(&destination);
    notify_pushed(ctx, &destination, to);
    notify_popped(ctx, &source, from);
    ctx.removed(&source, 1, left);
    Ok(true)
}

fn lmpop(ctx: &mut Context<'_>) -> CommandResult {
    let request = PopRequest::parse(ctx.args, 1, end)?;
    for index in request.keys {
        if pop_from(ctx, index, request.end, request.count)? {
            return Ok(());
        }
    }
    ctx.reply.null_array();
    Ok(())
}

/// Replies with the key at an argument and elements taken from its list; false when there is no such list.
fn pop_from(ctx: &mut Context<'_>, index: usize, end: End, count: usize) -> Result<bool, ReplyError> {
    let (key, limits) = (ctx.key(index), limits(ctx.settings));
    let Some(list) = ctx.keyspace.write_as::<List>(&key)? else {
        return Ok(false);
    };
    if !ctx.waiting.claim() {
        return Ok(true);
    }
    ctx.reply.array(2);
    ctx.reply.bulk(key.bytes);
    let count = take(list, end, count, &limits, &mut ctx.reply);
    let left = list.len();
    let name: &[u8] = match end {
        End::Front => b"LPOP",
        End::Back => b"RPOP",
    };
    let mut digits = itoa::Buffer::new();
    ctx.effects
        .replace(&[name, key.bytes, digits.format(count).as_bytes()]);
    notify_popped(ctx, &key, end);
    ctx.removed(&key, count as u64, left);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use crate::commands::testing::Shell;

    #[test]
    fn elements_go_in_and_out_at_both_ends() {
        Shell::new().check(&[
            ("RPUSH l a b", ":2"),
            ("LPUSH l 1 2", ":4"),
            ("LRANGE l 0 -1", r#"["2", "1", "a", "b"]"#),
            ("LPUSHX l x", ":5"),
            ("RPUSHX none x", ":0"),
            ("EXISTS none", ":0"),
            ("LPOP l", r#""x""#),
            ("RPOP l 2", r#"["b", "a"]"#),
            ("LPOP l 0", "[]"),
            ("LPOP l 9", r#"["2", "1"]"#),
            ("EXISTS l", ":0"),
            ("LPOP l", "nil"),
            ("LPOP l 1", "nil*"),
            ("LPOP l -1", "-ERR value is out of range, must be positive"),
            ("LPOP l x", "-ERR value is out of range, must be positive"),
            ("RPOP l 1 2", "-ERR wrong number of arguments for 'rpop' command"),
        ]);
    }

    #[test]
    fn ranges_and_indexes_count_from_both_ends() {
        Shell::new().check(&[
            ("RPUSH l a b c d e", ":5"),
            ("LRANGE l -3 -2", r#"["c", "d"]"#),
            ("LRANGE l -100 0", r#"["a"]"#),
            ("LRANGE l 3 100", r#"["d", "e"]"#),
            ("LRANGE l 2 1", "[]"),
            ("LRANGE l 5 5", "[]"),
            ("LRANGE l -9223372036854775808 -6", "[]"),
            ("LRANGE l 0 9223372036854775807", r#"["a", "b", "c", "d", "e"]"#),
            ("LRANGE l 9223372036854775807 9223372036854775807", "[]"),
            ("LINDEX l -1", r#""e""#),
            ("LINDEX l 5", "nil"),
            ("LINDEX l -6", "nil"),
            ("LINDEX none x", "nil"),
            ("LSET l -5 z", "+OK"),
            ("LSET l 5 z", "-ERR index out of range"),
            ("LSET none 0 z", "-ERR no such key"),
            ("LTRIM l 1 -3", "+OK"),
            ("LRANGE l 0 -1", r#"["b", "c"]"#),
            ("LTRIM l 2 1", "+OK"),
            ("EXISTS l", ":0"),
        ]);
    }

    #[test]
    fn elements_are_found_by_value() {
        Shell::new().check(&[
            ("RPUSH l a b 7 b a b", ":6"),
            ("LPOS l b", ":1"),
            ("LPOS l b RANK 2", ":3"),
            ("LPOS l b RANK -1", ":5"),
            ("LPOS l b RANK -2 COUNT 0", "[:3, :1]"),
            ("LPOS l b COUNT 2 MAXLEN 3", "[:1]"),
            ("LPOS l 7", ":2"),
            ("LPOS l 07", "nil"),
            ("LPOS l c COUNT 0", "[]"),
            ("LPOS none c COUNT 0", "[]"),
            ("LPOS l b RANK", "-ERR syntax error"),
            ("LINSERT l BEFORE 7 x", ":7"),
            ("LINSERT l after a y", ":8"),
            ("LINSERT l AFTER none y", ":-1"),
            ("LINSERT none AFTER none y", ":0"),
            ("LINSERT l BESIDE a y", "-ERR syntax error"),
            ("LREM l -2 b", ":2"),
            ("LRANGE l 0 -1", r#"["a", "y", "b", "x", "7", "a"]"#),
            ("LREM l 0 a", ":2"),
            ("LREM l 1 7", ":1"),
            ("LREM l 1 7", ":0"),
        ]);
    }

    #[test]
    fn elements_move_between_lists() {
        let mut shell = Shell::over(4);
        shell.check(&[
            ("RPUSH s a b 3", ":3"),
            ("LMOVE s t RIGHT LEFT", r#""3""#),
            ("RPOPLPUSH s t", r#""b""#),
            ("LRANGE t 0 -1", r#"["b", "3"]"#),
            ("LMOVE s s LEFT RIGHT", r#""a""#),
            ("LRANGE s 0 -1", r#"["a"]"#),
            ("RPOPLPUSH t t", r#""3""#),
            ("LRANGE t 0 -1", r#"["3", "b"]"#),
            ("LMOVE t t LEFT RIGHT", r#""3""#),
            ("SET x 1", "+OK"),
            (
                "LMOVE s x LEFT LEFT",
                "-WRONGTYPE Operation against a key holding the wrong kind of value",
            ),
            ("LLEN s", ":1"),
            ("LMOVE s t LEFT LEFT", r#""a""#),
            ("EXISTS s", ":0"),
            ("LMOVE s t LEFT LEFT", "nil"),
            ("LMOVE s t LEFT UP", "-ERR syntax error"),
            ("LMPOP 2 s t RIGHT COUNT 2", r#"["t", ["3", "b"]]"#),
            ("LMPOP 2 s t LEFT", r#"["t", ["a"]]"#),
            ("LMPOP 2 s t LEFT", "nil*"),
            ("LMPOP 0 s LEFT", "-ERR numkeys should be greater than 0"),
            ("LMPOP 1 s LEFT COUNT 0", "-ERR count should be greater than 0"),
            (
                "LMPOP 1 s LEFT COUNT 0 COUNT",
                "-ERR count should be greater than 0",
            ),
            ("LMPOP 1 s LEFT COUNT 1 COUNT 1", "-ERR syntax error"),
            ("LMPOP 2 s LEFT", "-ERR syntax error"),
            ("LMPOP 9223372036854775807 s LEFT", "-ERR syntax error"),
        ]);
    }

    #[test]
    fn what_is_repeated() {
        Shell::new().check_effects(&[
            ("RPUSH l a b c d", ":4", &["RPUSH l a b c d"]),
            ("LPUSHX none a", ":0", &[]),
            (
                "LMPOP 2 none l RIGHT COUNT 9",
                r#"["l", ["d", "c", "b", "a"]]"#,
                &["RPOP l 4"],
            ),
            ("RPUSH l a b", ":2", &["RPUSH l a b"]),
            ("LTRIM l 0 -1", "+OK", &[]),
            ("LPOP l 0", "[]", &[]),
            ("LREM l 0 none", ":0", &[]),
            ("LMOVE l m LEFT LEFT", r#""a""#, &["LMOVE l m LEFT LEFT"]),
            ("LPOP l", r#""b""#, &["LPOP l"]),
        ]);
        let mut shell = Shell::new();
        for (line, changes) in [
            ("RPUSH l a b c", 3),
            ("LPOP l 2", 2),
            ("LMOVE l l LEFT RIGHT", 1),
            ("LMOVE l m LEFT RIGHT", 1),
            ("LPUSHX m c b a", 3),
            ("LMPOP 1 m LEFT COUNT 2", 2),
            ("LTRIM m 0 -1", 0),
            ("LTRIM m 1 0", 2),
        ] {
            assert_eq!(shell.run(line).changes, changes, "{line}");
        }
    }

    #[test]
    fn other_types_are_refused() {
        let mut shell = Shell::new();
        shell.run("SET s x");
        for line in [
            "LPUSH s a",
            "RPUSHX s a",
            "LPOP s",
            "RPOP s 0",
            "LLEN s",
            "LINDEX s x",
            "LINSERT s AFTER a b",
            "LRANGE s 0 -1",
            "LREM s 0 a",
            "LSET s x a",
            "LTRIM s 0 -1",
            "LPOS s a",
            "LMOVE s t LEFT LEFT",
            "RPOPLPUSH s s",
            "LMPOP 2 none s LEFT",
        ] {
            let reply = shell.run(line).reply;
            assert_eq!(
                reply, "-WRONGTYPE Operation against a key holding the wrong kind of value",
                "{line}"
            );
        }
    }

    #[test]
    fn thresholds_are_those_of_the_configuration() {
        let mut shell = Shell::new();
        shell.settings.list_max_listpack_size = 4;
        shell.check(&[
            ("RPUSH l a b c d", ":4"),
            ("OBJECT ENCODING l", r#""listpack""#),
            ("RPUSH l e", ":5"),
            ("OBJECT ENCODING l", r#""quicklist""#),
            ("LTRIM l 0 2", "+OK"),
            ("LMOVE l l LEFT RIGHT", r#""a""#),
            ("OBJECT ENCODING l", r#""quicklist""#),
            ("LPOP l", r#""b""#),
            ("OBJECT ENCODING l", r#""listpack""#),
        ]);
    }

    #[test]
    fn a_watched_list_notices_changes() {
        let mut shell = Shell::new();
        shell.run("RPUSH l a b");
        for (line, changes) in [
            ("LSET l 0 z", true),
            ("LREM l 0 none", false),
            ("LTRIM l 0 5", true),
        ] {
            let token = shell.watch("l");
            shell.run(line);
            assert_eq!(token.is_touched(), changes, "{line}");
        }
    }
}
