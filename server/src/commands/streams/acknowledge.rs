//! Acknowledgement of entries: XACK, and XDELEX and XACKDEL, which delete entries with regard to the groups that
//! refer to them.

use std::ops::Range;

use shardis_protocol::Arguments;
use shardis_storage::key::Key;
use shardis_storage::value::stream::{References, Stream, StreamId};
use smallvec::SmallVec;

use super::{REFERENCES, ids, references_of};
use crate::config::KeyspaceEvents;
use crate::error::ReplyError;
use crate::exec::arguments::{int, is};
use crate::exec::{CommandResult, Context};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, KeySpec, Runs};

const IDS: Arg = Arg::block("ids", &[Arg::integer("numids"), Arg::string("id").multiple()]).token("IDS");

/// The commands of this file.
pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "xack",
        arity: Arity::AtLeast(4),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Category::STREAM,
        keys: &[KeySpec::at(1).read_write().update()],
        runs: Runs::OnKeys(xack),
        doc: &Doc {
            since: "5.0.0",
            group: Group::Stream,
            complexity: "O(1) for each entry.",
            summary: "Acknowledges entries on behalf of a group, and returns how many were pending.",
            args: &[
                Arg::key("key", 0),
                Arg::string("group"),
                Arg::string("id").multiple(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "xackdel",
        arity: Arity::AtLeast(6),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Category::STREAM,
        keys: &[KeySpec::at(1).read_write().delete()],
        runs: Runs::OnKeys(xackdel),
        doc: &Doc {
            since: "8.2.0",
            group: Group::Stream,
            complexity: "O(N) for each entry and N groups.",
            summary: "Acknowledges entries on behalf of a group, and deletes them.",
            args: &[Arg::key("key", 0), Arg::string("group"), REFERENCES, IDS],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "xdelex",
        arity: Arity::AtLeast(5),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Category::STREAM,
        keys: &[KeySpec::at(1).read_write().delete()],
        runs: Runs::OnKeys(xdelex),
        doc: &Doc {
            since: "8.2.0",
            group: Group::Stream,
            complexity: "O(N) for each entry and N groups.",
            summary: "Deletes entries with a view to the groups that refer to them.",
            args: &[Arg::key("key", 0), REFERENCES, IDS],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
];

/// Outcome for an entry that does not exist or is not pending.
const UNKNOWN: i64 = -1;
/// Outcome for a deleted entry.
const DELETED: i64 = 1;
/// Outcome for an entry that was kept because a group still refers to it.
const REFERRED_TO: i64 = 2;

/// A request of XDELEX or XACKDEL.
#[derive(Debug)]
struct DeleteRequest {
    references: References,
    /// Indexes of the arguments that are ids.
    ids: Range<usize>,
}

impl DeleteRequest {
    fn parse(args: Arguments<'_>, first: usize) -> Result<Self, ReplyError> {
        let (mut references, mut ids, mut at) = (None, None, first);
        while let Some(word) = args.get(at) {
            at += 1;
            match references_of(word) {
                Some(policy) if references.is_none() => references = Some(policy),
                None if is(word, "IDS") && ids.is_none() => {
                    let range = counted(args, at)?;
                    at = range.end;
                    ids = Some(range);
                }
                _ => return Err(ReplyError::Syntax),
            }
        }
        Ok(Self {
            references: references.unwrap_or_default(),
            ids: ids.ok_or(ReplyError::Syntax)?,
        })
    }
}

/// Indexes of the arguments that are ids, whose number is the argument before them.
fn counted(args: Arguments<'_>, at: usize) -> Result<Range<usize>, ReplyError> {
    let count = int(args.get(at).ok_or(ReplyError::Syntax)?)
        .ok()
        .and_then(|count| usize::try_from(count).ok())
        .filter(|&count| count > 0)
        .ok_or(ReplyError::Fixed("ERR Number of IDs must be a positive integer"))?;
    let first = at + 1;
    if count > args.len() - first {
        return Err(ReplyError::Fixed(
            "ERR The `numids` parameter must match the number of arguments",
        ));
    }
    Ok(first..first + count)
}

fn xack(ctx: &mut Context<'_>) -> CommandResult {
    let (key, args) = (ctx.key(1), ctx.args);
    let stream = ctx.keyspace.read_to_change::<Stream>(&key)?;
    let Some((_, group)) = stream.and_then(|stream| stream.group_mut(args.at(2))) else {
        ctx.reply.integer(0);
        return Ok(());
    };
    let ids = ids(args, 3..args.len())?;
    let done = ids.into_iter().filter(|&id| group.acknowledge(id)).count();
    ctx.effects.changed(done as u64);
    ctx.reply.integer(done as i64);
    Ok(())
}

fn xdelex(ctx: &mut Context<'_>) -> CommandResult {
    let request = DeleteRequest::parse(ctx.args, 2)?;
    delete(ctx, &request, |stream, id| {
        let outcome = remove(stream, id, request.references);
        let forgets = request.references == References::Remove && stream.forget(id);
        (outcome, outcome == DELETED || forgets)
    })
}

fn xackdel(ctx: &mut Context<'_>) -> CommandResult {
    let request = DeleteRequest::parse(ctx.args, 3)?;
    let name = ctx.args.at(2);
    delete(ctx, &request, |stream, id| {
        let acknowledged = stream
            .group_mut(name)
            .is_some_and(|(_, group)| group.acknowledge(id));
        if !acknowledged {
            return (UNKNOWN, false);
        }
        let outcome = remove(stream, id, request.references);
        if request.references == References::Remove {
            stream.forget(id);
        }
        // The entry is acknowledged, even if it was deleted before.
        (if outcome == UNKNOWN { DELETED } else { outcome }, true)
    })
}

/// Deletes an entry unless a group's reference forbids it.
fn remove(stream: &mut Stream, id: StreamId, references: References) -> i64 {
    if references == References::Respect && stream.log().get(id).is_some() && stream.is_referenced(id) {
        return REFERRED_TO;
    }
    if stream.log_mut().delete(id) {
        DELETED
    } else {
        UNKNOWN
    }
}

/// Calls `act` on each entry of a request, which returns its outcome and whether it changed something; replies with
/// the outcomes.
fn delete(
    ctx: &mut Context<'_>,
    request: &DeleteRequest,
    mut act: impl FnMut(&mut Stream, StreamId) -> (i64, bool),
) -> CommandResult {
    let (key, ids) = (ctx.key(1), ids(ctx.args, request.ids.clone())?);
    let mut outcomes: SmallVec<[i64; 8]> = SmallVec::from_elem(UNKNOWN, ids.len());
    let (mut deleted, mut changes) = (false, 0);
    if let Some(stream) = ctx.keyspace.write_as::<Stream>(&key)? {
        let before = stream.len();
        for (outcome, id) in outcomes.iter_mut().zip(ids) {
            let (came, is_change) = act(stream, id);
            *outcome = came;
            changes += u64::from(is_change);
        }
        deleted = stream.len() < before;
    }
    note(ctx, &key, deleted, changes);
    ctx.reply.array(outcomes.len());
    for outcome in outcomes {
        ctx.reply.integer(outcome);
    }
    Ok(())
}

fn note(ctx: &mut Context<'_>, key: &Key<'_>, deleted: bool, changes: u64) {
    if !deleted {
        // A change of groups alone counts, but does not concern watchers of the key.
        ctx.effects.changed(changes);
        return;
    }
    ctx.changed(key, changes);
    ctx.notify(KeyspaceEvents::STREAM, "xdel", key);
}
