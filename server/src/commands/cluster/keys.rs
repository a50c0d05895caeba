//! Slots and their keys, and what a client of a cluster says before its commands: handlers.

use shardis_cluster::{Slot, slot_of};

use crate::error::ReplyError;
use crate::exec::arguments::int;
use crate::exec::client::Asking;
use crate::exec::{CommandResult, Context, Session};

/// Checks that the node is part of a cluster.
fn check_enabled(is_enabled: bool) -> CommandResult {
    if is_enabled {
        Ok(())
    } else {
        Err(ReplyError::ClusterDisabled)
    }
}

fn check_session(session: &Session<'_>) -> CommandResult {
    check_enabled(session.node.is_cluster())
}

pub(super) fn asking(session: &mut Session<'_>) -> CommandResult {
    check_session(session)?;
    // In a transaction it comes too late: all keys have been checked, with what came before MULTI.
    if !session.client.denies_blocking() {
        session.client.asking = Asking::Next;
    }
    session.reply.ok();
    Ok(())
}

pub(super) fn readonly(session: &mut Session<'_>) -> CommandResult {
    choose_replicas(session, true)
}

pub(super) fn readwrite(session: &mut Session<'_>) -> CommandResult {
    choose_replicas(session, false)
}

fn choose_replicas(session: &mut Session<'_>, reads_replicas: bool) -> CommandResult {
    check_session(session)?;
    session.client.reads_replicas = reads_replicas;
    session.reply.ok();
    Ok(())
}

pub(super) fn slot(session: &mut Session<'_>) -> CommandResult {
    check_session(session)?;
    let slot = slot_of(session.args.at(2));
    session.reply.integer(slot.number().into());
    Ok(())
}

/// The slot that a request names.
fn named_slot(ctx: &Context<'_>) -> Result<Option<Slot>, ReplyError> {
    check_enabled(ctx.settings.cluster_enabled)?;
    let number = int(ctx.args.at(2))?;
    Ok(u16::try_from(number).ok().and_then(Slot::new))
}

pub(super) fn count_in_slot(ctx: &mut Context<'_>) -> CommandResult {
    let slot = named_slot(ctx)?.ok_or(ReplyError::Fixed("ERR Invalid slot"))?;
    let partition = ctx.keyspace.partition(slot.number());
    let count = partition.keyspace.database(0).slot_len(slot.number());
    ctx.reply.integer(count as i64);
    Ok(())
}

pub(super) fn names_in_slot(ctx: &mut Context<'_>) -> CommandResult {
    let slot = named_slot(ctx)?;
    let max = usize::try_from(int(ctx.args.at(3))?).ok();
    let invalid = ReplyError::Fixed("ERR Invalid slot or number of keys");
    let (slot, max) = slot.zip(max).ok_or(invalid)?;
    let Context { keyspace, reply, .. } = ctx;
    let database = keyspace.partition(slot.number()).keyspace.database(0);
    let count = database.slot_len(slot.number()).min(max);
    reply.array(count);
    database.slot_keys(slot.number(), count, |entry| reply.bulk(entry.key()));
    Ok(())
}
