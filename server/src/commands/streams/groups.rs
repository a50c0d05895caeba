//! XGROUP: creation, change and removal of consumer groups and consumers.

use shardis_storage::value::stream::{Group as ConsumerGroup, ID_TEXT_MAX, Stream, StreamId};

use super::{id, shown};
use crate::config::KeyspaceEvents;
use crate::error::ReplyError;
use crate::exec::arguments::{bad_subcommand, int, is};
use crate::exec::change::Cause;
use crate::exec::effect::Effects;
use crate::exec::{CommandResult, Context, Session};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, KeySpec, Runs};

const ID: Arg = Arg::one_of("id-selector", &[Arg::string("id"), Arg::flag("new-id", "$")]);
const ENTRIES_READ: Arg = Arg::integer("entries-read").token("ENTRIESREAD").optional();

/// The commands of this file.
pub(crate) static COMMANDS: &[Command] = &[Command {
    name: "xgroup",
    arity: Arity::AtLeast(2),
    runs: Runs::Container,
    doc: &Doc {
        since: "5.0.0",
        group: Group::Stream,
        complexity: "That of the subcommand.",
        summary: "Groups what there is to be done with consumer groups.",
        ..Doc::BLANK
    },
    subcommands: &[
        Command {
            name: "create",
            arity: Arity::AtLeast(5),
            flags: Flags::WRITE.union(Flags::DENYOOM),
            acl: Category::STREAM,
            keys: &[KeySpec::at(2).read_write().insert()],
            runs: Runs::OnKeys(create),
            doc: &Doc {
                since: "5.0.0",
                group: Group::Stream,
                complexity: "O(log(N)) for N groups.",
                summary: "Creates a consumer group, and its stream if asked to.",
                history: &[("7.0.0", "The argument `entries_read`.")],
                args: &[
                    Arg::key("key", 0),
                    Arg::string("group"),
                    ID,
                    Arg::flag("mkstream", "MKSTREAM").optional(),
                    ENTRIES_READ,
                ],
                ..Doc::BLANK
            },
            ..Command::BLANK
        },
        Command {
            name: "createconsumer",
            arity: Arity::Exactly(5),
            flags: Flags::WRITE.union(Flags::DENYOOM),
            acl: Category::STREAM,
            keys: &[KeySpec::at(2).read_write().insert()],
            runs: Runs::OnKeys(createconsumer),
            doc: &Doc {
                since: "6.2.0",
                group: Group::Stream,
                complexity: "O(N) for N consumers.",
                summary: "Adds a consumer to a group before it reads.",
                args: &[Arg::key("key", 0), Arg::string("group"), Arg::string("consumer")],
                ..Doc::BLANK
            },
            ..Command::BLANK
        },
        Command {
            name: "delconsumer",
            arity: Arity::Exactly(5),
            flags: Flags::WRITE,
            acl: Category::STREAM,
            keys: &[KeySpec::at(2).read_write().delete()],
            runs: Runs::OnKeys(delconsumer),
            doc: &Doc {
                since: "5.0.0",
                group: Group::Stream,
                complexity: "O(N) for N entries pending with the consumer.",
                summary: "Removes a consumer from a group, with what is pending with it.",
                args: &[Arg::key("key", 0), Arg::string("group"), Arg::string("consumer")],
                ..Doc::BLANK
            },
            ..Command::BLANK
        },
        Command {
            name: "destroy",
            arity: Arity::Exactly(4),
            flags: Flags::WRITE,
            acl: Category::STREAM,
            keys: &[KeySpec::at(2).read_write().delete()],
            runs: Runs::OnKeys(destroy),
            doc: &Doc {
                since: "5.0.0",
                group: Group::Stream,
                complexity: "O(N) for N pending entries.",
                summary: "Removes a consumer group.",
                args: &[Arg::key("key", 0), Arg::string("group")],
                ..Doc::BLANK
            },
            ..Command::BLANK
        },
        Command {
            name: "help",
            arity: Arity::Exactly(2),
            flags: Flags::LOADING.union(Flags::STALE),
            acl: Category::STREAM,
            runs: Runs::OnSession(help),
            doc: &Doc {
                since: "5.0.0",
                group: Group::Stream,
                complexity: "O(1)",
                summary: "Lists the subcommands.",
                ..Doc::BLANK
            },
            ..Command::BLANK
        },
        Command {
            name: "setid",
            arity: Arity::AtLeast(5),
            flags: Flags::WRITE,
            acl: Category::STREAM,
            keys: &[KeySpec::at(2).read_write().update()],
            runs: Runs::OnKeys(setid),
            doc: &Doc {
                since: "5.0.0",
                group: Group::Stream,
                complexity: "O(1)",
                summary: "Sets the entry that a group has read last.",
                history: &[("7.0.0", "The argument `entries_read`.")],
                args: &[Arg::key("key", 0), Arg::string("group"), ID, ENTRIES_READ],
                ..Doc::BLANK
            },
            ..Command::BLANK
        },
    ],
    ..Command::BLANK
}];

const KEY_REQUIRED: ReplyError = ReplyError::Fixed(
    "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option \
     to create an empty stream automatically.",
);

/// The error for a group that a stream does not have.
pub(super) fn no_such_group(key: &[u8], group: &[u8]) -> ReplyError {
    let parts = [
        b"NOGROUP No such consumer group '",
        shown(group),
        b"' for key name '",
        shown(key),
        b"'",
    ];
    ReplyError::Bytes(parts.concat())
}

/// Reports that a consumer was created.
pub(super) fn report_consumer(effects: &mut Effects, key: &[u8], group: &[u8], consumer: &[u8]) {
    effects.changed(1);
    effects.replace(&[b"XGROUP", b"CREATECONSUMER", key, group, consumer]);
}

/// Reports the last id of a group.
pub(super) fn report_last_id(effects: &mut Effects, key: &[u8], group: &ConsumerGroup) {
    effects.changed(1);
    if !effects.is_recording() {
        return;
    }
    effects.replace(&[
        b"XGROUP",
        b"SETID",
        key,
        group.name(),
        group.last_id.format(&mut [0; ID_TEXT_MAX]),
        b"ENTRIESREAD",
        group.entries_read_in_command().to_string().as_bytes(),
    ]);
}

/// The most words of XGROUP CREATE. A repeated option exceeds them.
const CREATE_WORDS_MAX: usize = 8;
/// The most words of XGROUP SETID.
const SETID_WORDS_MAX: usize = 7;

/// Options after the id of CREATE and SETID.
#[derive(Debug, Default)]
struct CreateOptions {
    make_stream: bool,
    entries_read: Option<u64>,
}

impl CreateOptions {
    fn parse(ctx: &Context<'_>, may_make_stream: bool) -> Result<Self, ReplyError> {
        let (args, mut options, mut at) = (ctx.args, Self::default(), 5);
        while let Some(word) = args.get(at) {
            match args.get(at + 1) {
                _ if may_make_stream && is(word, "MKSTREAM") => {
                    options.make_stream = true;
                    at += 1;
                }
                Some(value) if is(word, "ENTRIESREAD") => {
                    options.entries_read = match int(value)? {
                        -1 => None,
                        read => Some(u64::try_from(read).map_err(|_| {
                            ReplyError::Fixed("ERR value for ENTRIESREAD must be positive or -1")
                        })?),
                    };
                    at += 2;
                }
                _ => return Err(bad_subcommand(args)),
            }
        }
        Ok(options)
    }
}

/// Reads the position of a group: an id, or `$` for the last id of its stream.
fn position(text: &[u8], stream: Option<&Stream>) -> Result<StreamId, ReplyError> {
    if text == b"$" {
        return Ok(stream.map_or(StreamId::MIN, |stream| stream.log().last_id()));
    }
    id(text)
}

fn create(ctx: &mut Context<'_>) -> CommandResult {
    let options = CreateOptions::parse(ctx, true)?;
    let (key, name, text) = (ctx.key(2), ctx.args.at(3), ctx.args.at(4));
    let stream = ctx.keyspace.write_as::<Stream>(&key)?;
    if stream.is_none() && !options.make_stream {
        return Err(KEY_REQUIRED);
    }
    if ctx.args.len() > CREATE_WORDS_MAX {
        return Err(bad_subcommand(ctx.args));
    }
    let last_id = position(text, stream.as_deref())?;
    let (stream, made) = ctx.keyspace.make::<Stream>(&key)?;
    if !stream.add_group(name, last_id, options.entries_read) {
        return Err(ReplyError::Fixed("BUSYGROUP Consumer Group name already exists"));
    }
    if made {
        ctx.modified(&key);
    } else {
        ctx.effects.changed(1);
    }
    ctx.notify(KeyspaceEvents::STREAM, "xgroup-create", &key);
    ctx.reply.ok();
    Ok(())
}

fn setid(ctx: &mut Context<'_>) -> CommandResult {
    let options = CreateOptions::parse(ctx, false)?;
    let (key, name, text) = (ctx.key(2), ctx.args.at(3), ctx.args.at(4));
    let stream = ctx.keyspace.write_as::<Stream>(&key)?.ok_or(KEY_REQUIRED)?;
    if stream.group(name).is_none() {
        return Err(no_such_group(key.bytes, name));
    }
    if ctx.args.len() > SETID_WORDS_MAX {
        return Err(bad_subcommand(ctx.args));
    }
    let last_id = position(text, Some(stream))?;
    if let Some((_, group)) = stream.group_mut(name) {
        group.last_id = last_id;
        group.entries_read = options.entries_read;
    }
    ctx.effects.changed(1);
    ctx.notify(KeyspaceEvents::STREAM, "xgroup-setid", &key);
    ctx.reply.ok();
    Ok(())
}

fn destroy(ctx: &mut Context<'_>) -> CommandResult {
    let (key, name) = (ctx.key(2), ctx.args.at(3));
    let stream = ctx.keyspace.write_as::<Stream>(&key)?.ok_or(KEY_REQUIRED)?;
    let removed = stream.remove_group(name);
    if removed {
        ctx.effects.changed(1);
        // Readers that wait for the group are to fail.
        ctx.keyspace.pass(&key, Cause::Group);
        ctx.notify(KeyspaceEvents::STREAM, "xgroup-destroy", &key);
    }
    ctx.reply.integer(removed.into());
    Ok(())
}

fn createconsumer(ctx: &mut Context<'_>) -> CommandResult {
    let (key, name, now_ms) = (ctx.key(2), ctx.args.at(3), ctx.wall_ms());
    let stream = ctx.keyspace.write_as::<Stream>(&key)?.ok_or(KEY_REQUIRED)?;
    let (_, group) = stream
        .group_mut(name)
        .ok_or_else(|| no_such_group(key.bytes, name))?;
    let (_, made) = group.make_consumer(ctx.args.at(4), now_ms);
    if made {
        ctx.effects.changed(1);
        ctx.notify(KeyspaceEvents::STREAM, "xgroup-createconsumer", &key);
    }
    ctx.reply.integer(made.into());
    Ok(())
}

fn delconsumer(ctx: &mut Context<'_>) -> CommandResult {
    let (key, name) = (ctx.key(2), ctx.args.at(3));
    let stream = ctx.keyspace.write_as::<Stream>(&key)?.ok_or(KEY_REQUIRED)?;
    let (_, group) = stream
        .group_mut(name)
        .ok_or_else(|| no_such_group(key.bytes, name))?;
    let pending = group.remove_consumer(ctx.args.at(4));
    if pending.is_some() {
        ctx.effects.changed(1);
        ctx.notify(KeyspaceEvents::STREAM, "xgroup-delconsumer", &key);
    }
    ctx.reply.integer(pending.unwrap_or(0) as i64);
    Ok(())
}

fn help(session: &mut Session<'_>) -> CommandResult {
    session.help(&[
        "CREATE <key> <group> <id|$> [MKSTREAM] [ENTRIESREAD <count>]",
        "    Create a group that has read the stream up to an id, or to its end. MKSTREAM creates",
        "    the stream too; ENTRIESREAD tells how many entries that is.",
        "CREATECONSUMER <key> <group> <consumer>",
        "    Add a consumer to a group.",
        "DELCONSUMER <key> <group> <consumer>",
        "    Remove a consumer, with what is pending with it.",
        "DESTROY <key> <group>",
        "    Remove a group.",
        "SETID <key> <group> <id|$> [ENTRIESREAD <count>]",
        "    Set up to where a group has read the stream.",
    ])
}
