//! XINFO: information about a stream, its groups and their consumers.

use shardis_protocol::{Arguments, Encoder};
use shardis_storage::value::stream::{Consumer, Group as ConsumerGroup, Item, Log, Order, Stream, StreamId};

use super::groups::no_such_group;
use super::{reply_entry, reply_id, reply_range};
use crate::error::ReplyError;
use crate::exec::arguments::{bad_subcommand, int, is};
use crate::exec::{CommandResult, Context, Session};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, KeySpec, Runs};

const QUESTION: Command = Command {
    flags: Flags::READONLY,
    acl: Category::STREAM,
    keys: &[KeySpec::at(2).read_only().access()],
    ..Command::BLANK
};

const QUESTION_DOC: Doc = Doc {
    since: "5.0.0",
    group: Group::Stream,
    ..Doc::BLANK
};

/// The commands of this file.
pub(crate) static COMMANDS: &[Command] = &[Command {
    name: "xinfo",
    arity: Arity::AtLeast(2),
    runs: Runs::Container,
    doc: &Doc {
        complexity: "That of the subcommand.",
        summary: "Groups questions about streams.",
        ..QUESTION_DOC
    },
    subcommands: &[
        Command {
            name: "consumers",
            arity: Arity::Exactly(4),
            tips: &["nondeterministic_output"],
            runs: Runs::OnKeys(consumers),
            doc: &Doc {
                complexity: "O(N) for N consumers.",
                summary: "Lists the consumers of a group.",
                history: &[(
                    "7.2.0",
                    "The field `inactive`; `idle` counts from the last attempt.",
                )],
                args: &[Arg::key("key", 0), Arg::string("group")],
                ..QUESTION_DOC
            },
            ..QUESTION
        },
        Command {
            name: "groups",
            arity: Arity::Exactly(3),
            runs: Runs::OnKeys(groups),
            doc: &Doc {
                complexity: "O(N) for N groups.",
                summary: "Lists the consumer groups of a stream.",
                history: &[("7.0.0", "The fields `entries-read` and `lag`.")],
                args: &[Arg::key("key", 0)],
                ..QUESTION_DOC
            },
            ..QUESTION
        },
        Command {
            name: "help",
            arity: Arity::Exactly(2),
            flags: Flags::LOADING.union(Flags::STALE),
            acl: Category::STREAM,
            runs: Runs::OnSession(help),
            doc: &Doc {
                complexity: "O(1)",
                summary: "Lists the subcommands.",
                ..QUESTION_DOC
            },
            ..Command::BLANK
        },
        Command {
            name: "stream",
            arity: Arity::AtLeast(3),
            runs: Runs::OnKeys(stream),
            doc: &Doc {
                complexity: "O(1); with FULL, O(N) for N entries returned.",
                summary: "Tells what a stream is like.",
                history: &[
                    ("6.0.0", "The modifier `FULL`."),
                    (
                        "7.0.0",
                        "Fields on deleted entries, and on how far groups have read.",
                    ),
                    (
                        "7.2.0",
                        "The field `active-time`; `seen-time` is that of the last attempt.",
                    ),
                ],
                args: &[
                    Arg::key("key", 0),
                    Arg::block(
                        "full-block",
                        &[
                            Arg::flag("full", "FULL"),
                            Arg::integer("count").token("COUNT").optional(),
                        ],
                    )
                    .optional(),
                ],
                ..QUESTION_DOC
            },
            ..QUESTION
        },
    ],
    ..Command::BLANK
}];

/// Default number of entries of FULL.
const COUNT_DEFAULT: usize = 10;

fn stream(ctx: &mut Context<'_>) -> CommandResult {
    let (key, args) = (ctx.key(2), ctx.args);
    let stream = ctx.keyspace.read_as::<Stream>(&key)?;
    let stream = stream.ok_or(ReplyError::NoSuchKey)?;
    let count = full_count(args)?;
    let (reply, log) = (&mut ctx.reply, stream.log());
    let Some(count) = count else {
        reply.map(10);
        reply_log(reply, log);
        field_integer(reply, "groups", stream.groups().len() as i64);
        let mut ends = |name: &str, item: Option<Item<'_>>| {
            reply.bulk(name.as_bytes());
            match item {
                Some(item) => reply_entry(reply, item),
                None => reply.null(),
            }
        };
        let first = log.range(StreamId::MIN, StreamId::MAX, Order::Ascending).next();
        ends("first-entry", first);
        ends("last-entry", log.last());
        return Ok(());
    };
    reply.map(9);
    reply_log(reply, log);
    reply.bulk(b"entries");
    reply_range(
        reply,
        log,
        (StreamId::MIN, StreamId::MAX),
        Order::Ascending,
        count,
    );
    reply.bulk(b"groups");
    reply.array(stream.groups().len());
    for group in stream.groups() {
        reply_whole_group(reply, log, group, count);
    }
    Ok(())
}

/// Number of entries that FULL shows; `None` without FULL.
fn full_count(args: Arguments<'_>) -> Result<Option<usize>, ReplyError> {
    let is_full = args.get(3).is_some_and(|word| is(word, "FULL"));
    let count = match (args.len(), args.get(4), args.get(5)) {
        (3, ..) => return Ok(None),
        (4, ..) if is_full => return Ok(Some(COUNT_DEFAULT)),
        (6, Some(word), Some(count)) if is_full && is(word, "COUNT") => int(count)?,
        _ => return Err(bad_subcommand(args)),
    };
    Ok(Some(match count {
        ..0 => COUNT_DEFAULT,
        0 => usize::MAX,
        count => count as usize,
    }))
}

fn field_integer(reply: &mut Encoder<'_>, name: &str, value: i64) {
    reply.bulk(name.as_bytes());
    reply.integer(value);
}

fn field_id(reply: &mut Encoder<'_>, name: &str, id: StreamId) {
    reply.bulk(name.as_bytes());
    reply_id(reply, id);
}

fn field_text(reply: &mut Encoder<'_>, name: &str, value: &[u8]) {
    reply.bulk(name.as_bytes());
    reply.bulk(value);
}

/// Replies with a number, or with null if it is unknown.
fn field_known(reply: &mut Encoder<'_>, name: &str, value: Option<i64>) {
    reply.bulk(name.as_bytes());
    match value {
        Some(value) => reply.integer(value),
        None => reply.null(),
    }
}

/// Replies with the seven fields about entries. Blocks are counted under the name that clients know: keys of a radix
/// tree.
fn reply_log(reply: &mut Encoder<'_>, log: &Log) {
    field_integer(reply, "length", log.len() as i64);
    field_integer(reply, "radix-tree-keys", log.blocks() as i64);
    field_integer(reply, "radix-tree-nodes", log.blocks() as i64 + 1);
    field_id(reply, "last-generated-id", log.last_id());
    field_id(reply, "max-deleted-entry-id", log.max_deleted_id());
    field_integer(reply, "entries-added", log.entries_added().cast_signed());
    field_id(reply, "recorded-first-entry-id", log.first_id());
}

/// Replies with the two fields about the progress of a group.
fn reply_progress(reply: &mut Encoder<'_>, log: &Log, group: &ConsumerGroup) {
    field_known(reply, "entries-read", group.entries_read.map(u64::cast_signed));
    field_known(reply, "lag", log.lag(group.last_id, group.entries_read));
}

/// Replies with a group and at most `count` of its pending entries.
fn reply_whole_group(reply: &mut Encoder<'_>, log: &Log, group: &ConsumerGroup, count: usize) {
    reply.map(7);
    field_text(reply, "name", group.name());
    field_id(reply, "last-delivered-id", group.last_id);
    reply_progress(reply, log, group);
    field_integer(reply, "pel-count", group.pending_len() as i64);
    reply.bulk(b"pending");
    reply.array(group.pending_len().min(count));
    for pending in group.pending_from(StreamId::MIN).take(count) {
        let consumer = group.consumer(pending.consumer);
        reply.array(4);
        reply_id(reply, pending.id);
        reply.bulk(consumer.map_or(&[][..], Consumer::name));
        reply.integer(pending.delivered_ms);
        reply.integer(pending.deliveries.cast_signed());
    }
    reply.bulk(b"consumers");
    reply.array(group.consumers_len());
    for (_, consumer) in group.consumers() {
        reply.map(5);
        field_text(reply, "name", consumer.name());
        field_integer(reply, "seen-time", consumer.seen_ms);
        field_integer(reply, "active-time", consumer.active_ms.unwrap_or(-1));
        field_integer(reply, "pel-count", consumer.pending_len() as i64);
        reply.bulk(b"pending");
        reply.array(consumer.pending_len().min(count));
        let pending = consumer.pending_from(StreamId::MIN).take(count);
        for pending in pending.filter_map(|id| group.pending(id)) {
            reply.array(3);
            reply_id(reply, pending.id);
            reply.integer(pending.delivered_ms);
            reply.integer(pending.deliveries.cast_signed());
        }
    }
}

fn groups(ctx: &mut Context<'_>) -> CommandResult {
    let key = ctx.key(2);
    let stream = ctx.keyspace.read_as::<Stream>(&key)?;
    let stream = stream.ok_or(ReplyError::NoSuchKey)?;
    let reply = &mut ctx.reply;
    reply.array(stream.groups().len());
    for group in stream.groups() {
        reply.map(6);
        field_text(reply, "name", group.name());
        field_integer(reply, "consumers", group.consumers_len() as i64);
        field_integer(reply, "pending", group.pending_len() as i64);
        field_id(reply, "last-delivered-id", group.last_id);
        reply_progress(reply, stream.log(), group);
    }
    Ok(())
}

fn consumers(ctx: &mut Context<'_>) -> CommandResult {
    let (key, name, now_ms) = (ctx.key(2), ctx.args.at(3), ctx.wall_ms());
    let stream = ctx.keyspace.read_as::<Stream>(&key)?;
    let stream = stream.ok_or(ReplyError::NoSuchKey)?;
    let group = stream.group(name).ok_or_else(|| no_such_group(key.bytes, name))?;
    let reply = &mut ctx.reply;
    let since = |ms: i64| now_ms.saturating_sub(ms).max(0);
    reply.array(group.consumers_len());
    for (_, consumer) in group.consumers() {
        reply.map(4);
        field_text(reply, "name", consumer.name());
        field_integer(reply, "pending", consumer.pending_len() as i64);
        field_integer(reply, "idle", since(consumer.seen_ms));
        field_integer(reply, "inactive", consumer.active_ms.map_or(-1, since));
    }
    Ok(())
}

fn help(session: &mut Session<'_>) -> CommandResult {
    session.help(&[
        "CONSUMERS <key> <group>",
        "    The consumers of a group.",
        "GROUPS <key>",
        "    The consumer groups of a stream.",
        "STREAM <key> [FULL [COUNT <count>]]",
        "    What is known about a stream; with FULL, the first entries too, and all about its groups.",
    ])
}
