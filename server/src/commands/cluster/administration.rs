//! The subcommands of CLUSTER that change the cluster.
//!
//! The machine decides at once, so that commands in a pipeline or a transaction see what those before them have done; the reply is sent
//! when the decisions are carried out. Those that change owners of slots hold all partitions: no command is under way that was admitted
//! by the owners before, and whether there are keys cannot change meanwhile.

use std::ops::RangeInclusive;

use shardis_cluster::event::{Command as Order, CommandError, FailoverMode, Reply};
use shardis_cluster::node::{NodeId, host};
use shardis_cluster::view::View as ClusterView;
use shardis_cluster::{Slot, shard_of};

use super::{place, unknown};
use crate::error::ReplyError;
use crate::exec::arguments::{bad_subcommand, int, is};
use crate::exec::{CommandResult, Session, View};

/// Distance from a node's client port to that of its bus, unless a client says otherwise.
const BUS_PORT_DISTANCE: i64 = 10_000;

/// Has the machine decide a command, and replies when that is carried out.
pub(super) fn order(session: &mut Session<'_>, order: Order) -> CommandResult {
    let (reply, number) = place(session)?.order(order);
    session.client.awaits_bus = Some(number);
    match reply {
        Reply::Ok => session.reply.ok(),
        Reply::Status(text) => session.reply.simple(text),
        Reply::Number(number) => session.reply.integer(number.cast_signed()),
        Reply::Error(error) => return Err(ReplyError::Text(error.to_string())),
    }
    Ok(())
}

/// The slot that an argument names.
pub(super) fn slot(arg: &[u8]) -> Result<Slot, ReplyError> {
    let number = int(arg).ok().and_then(|number| u16::try_from(number).ok());
    let slot = number.and_then(Slot::new);
    slot.ok_or(ReplyError::Fixed("ERR Invalid or out of range slot"))
}

/// The node of the name in argument 2.
fn named(session: &Session<'_>) -> Result<NodeId, ReplyError> {
    let name = session.args.at(2);
    name_of(name).ok_or_else(|| unknown(name))
}

/// A name in its text form.
fn name_of(text: &[u8]) -> Option<NodeId> {
    text.try_into().ok().and_then(NodeId::from_text)
}

/// Whether the node has any keys.
fn has_keys(session: &Session<'_>, keyspace: &mut View<'_>) -> bool {
    (0..session.node.shards).any(|shard| !keyspace.shard(shard).keyspace.is_empty())
}

/// CLUSTER MEET ip port [bus-port]
pub(super) fn meet(session: &mut Session<'_>) -> CommandResult {
    place(session)?;
    if session.args.len() > 5 {
        return Err(bad_subcommand(session.args));
    }
    let (address, port_text) = (session.args.at(2), session.args.at(3));
    let port = int(port_text).map_err(|_| quoting("Invalid TCP base port specified: ", &[port_text]))?;
    let bus_port = match session.args.get(4) {
        None => port.checked_add(BUS_PORT_DISTANCE),
        Some(text) => {
            let port = int(text).map_err(|_| quoting("Invalid TCP bus port specified: ", &[text]))?;
            Some(port)
        }
    };
    let valid = |port: i64| u16::try_from(port).ok().filter(|&port| port > 0);
    let text = std::str::from_utf8(address).ok();
    let parts = text.and_then(host).zip(valid(port)).zip(bus_port.and_then(valid));
    let Some(((ip, port), bus_port)) = parts else {
        let parts: &[&[u8]] = &[address, b":", port_text];
        return Err(quoting("Invalid node address specified: ", parts));
    };
    order(session, Order::Meet { ip, port, bus_port })
}

/// An error that quotes arguments.
fn quoting(text: &str, parts: &[&[u8]]) -> ReplyError {
    ReplyError::Bytes([b"ERR ", text.as_bytes(), &parts.concat()].concat())
}

/// CLUSTER FORGET node-id
pub(super) fn forget(session: &mut Session<'_>) -> CommandResult {
    place(session)?;
    let node = named(session)?;
    order(session, Order::Forget(node))
}

/// CLUSTER ADDSLOTS slot [slot ...]
pub(super) fn add_slots(session: &mut Session<'_>, _: &mut View<'_>) -> CommandResult {
    place(session)?;
    let slots = single_slots(session)?;
    order(session, Order::AddSlots(slots))
}

/// CLUSTER DELSLOTS slot [slot ...]
pub(super) fn del_slots(session: &mut Session<'_>, _: &mut View<'_>) -> CommandResult {
    place(session)?;
    let slots = single_slots(session)?;
    order(session, Order::DelSlots(slots))
}

fn single_slots(session: &Session<'_>) -> Result<Vec<RangeInclusive<Slot>>, ReplyError> {
    let slots = session.args.tail(2);
    slots
        .iter()
        .map(|arg| slot(arg).map(|slot| slot..=slot))
        .collect()
}

/// CLUSTER ADDSLOTSRANGE start end [start end ...]
pub(super) fn add_slot_ranges(session: &mut Session<'_>, _: &mut View<'_>) -> CommandResult {
    place(session)?;
    let ranges = ranges(session, "cluster|addslotsrange")?;
    order(session, Order::AddSlots(ranges))
}

/// CLUSTER DELSLOTSRANGE start end [start end ...]
pub(super) fn del_slot_ranges(session: &mut Session<'_>, _: &mut View<'_>) -> CommandResult {
    place(session)?;
    let ranges = ranges(session, "cluster|delslotsrange")?;
    order(session, Order::DelSlots(ranges))
}

fn ranges(session: &Session<'_>, name: &str) -> Result<Vec<RangeInclusive<Slot>>, ReplyError> {
    let bounds = session.args.tail(2);
    if !bounds.len().is_multiple_of(2) {
        return Err(ReplyError::arity(name));
    }
    let mut bounds = bounds.iter();
    let mut ranges = Vec::new();
    while let (Some(start), Some(end)) = (bounds.next(), bounds.next()) {
        let (start, end) = (slot(start)?, slot(end)?);
        if start > end {
            return Err(ReplyError::Text(format!(
                "ERR start slot number {start} is greater than end slot number {end}"
            )));
        }
        ranges.push(start..=end);
    }
    Ok(ranges)
}

/// CLUSTER FLUSHSLOTS
pub(super) fn flush_slots(session: &mut Session<'_>, keyspace: &mut View<'_>) -> CommandResult {
    let has_keys = has_keys(session, keyspace);
    order(session, Order::FlushSlots { has_keys })
}

/// CLUSTER SETSLOT slot IMPORTING node-id | MIGRATING node-id | STABLE | NODE node-id
pub(super) fn set_slot(session: &mut Session<'_>, keyspace: &mut View<'_>) -> CommandResult {
    let cluster = place(session)?;
    if cluster.read(|machine, _| machine.view().me().is_replica()) {
        return Err(ReplyError::Text(CommandError::SetSlotOnReplica.to_string()));
    }
    let slot = slot(session.args.at(2))?;
    let (word, node) = (session.args.at(3), session.args.get(4));
    let command = match (session.args.len(), node) {
        (4, None) if is(word, "STABLE") => Order::SetSlotStable(slot),
        (5, Some(name)) if is(word, "MIGRATING") => {
            check_owner(session, slot, true)?;
            Order::SetSlotMigrating(slot, target(name)?)
        }
        (5, Some(name)) if is(word, "IMPORTING") => {
            check_owner(session, slot, false)?;
            Order::SetSlotImporting(slot, target(name)?)
        }
        (5, Some(name)) if is(word, "NODE") => {
            let shard = shard_of(slot.number(), session.node.shards);
            let database = keyspace.shard(shard).keyspace.database(0);
            Order::SetSlotNode {
                slot,
                node: name_of(name).ok_or_else(|| unknown(name))?,
                has_keys: database.slot_len(slot.number()) > 0,
            }
        }
        _ => {
            return Err(ReplyError::Fixed(
                "ERR Invalid CLUSTER SETSLOT action or number of arguments. Try CLUSTER HELP",
            ));
        }
    };
    order(session, command)
}

/// Checks whose slot it is before the name is read, as Redis does.
fn check_owner(session: &Session<'_>, slot: Slot, must_own: bool) -> Result<(), ReplyError> {
    let owns = |view: &ClusterView| view.owner(slot) == Some(view.my_key());
    match (place(session)?.read(|machine, _| owns(machine.view())), must_own) {
        (false, true) => Err(ReplyError::Text(CommandError::NotTheOwner(slot).to_string())),
        (true, false) => Err(ReplyError::Text(CommandError::IsTheOwner(slot).to_string())),
        _ => Ok(()),
    }
}

/// The node at the other end of a slot's way.
fn target(name: &[u8]) -> Result<NodeId, ReplyError> {
    name_of(name).ok_or_else(|| quoting("I don't know about node ", &[name]))
}

/// CLUSTER REPLICATE node-id
pub(super) fn replicate(session: &mut Session<'_>, keyspace: &mut View<'_>) -> CommandResult {
    place(session)?;
    let (primary, has_keys) = (named(session)?, has_keys(session, keyspace));
    order(session, Order::Replicate { primary, has_keys })
}

/// CLUSTER FAILOVER [FORCE | TAKEOVER]
pub(super) fn failover(session: &mut Session<'_>) -> CommandResult {
    place(session)?;
    let mode = match (session.args.len(), session.args.get(2)) {
        (2, _) => FailoverMode::Agreed,
        (3, Some(word)) if is(word, "FORCE") => FailoverMode::Force,
        (3, Some(word)) if is(word, "TAKEOVER") => FailoverMode::Takeover,
        (3, _) => return Err(ReplyError::Syntax),
        _ => return Err(bad_subcommand(session.args)),
    };
    order(session, Order::Failover(mode))
}

/// CLUSTER RESET [HARD | SOFT]
pub(super) fn reset(session: &mut Session<'_>, keyspace: &mut View<'_>) -> CommandResult {
    place(session)?;
    let is_hard = match (session.args.len(), session.args.get(2)) {
        (2, _) => false,
        (3, Some(word)) if is(word, "HARD") => true,
        (3, Some(word)) if is(word, "SOFT") => false,
        (3, _) => return Err(ReplyError::Syntax),
        _ => return Err(bad_subcommand(session.args)),
    };
    let has_keys = has_keys(session, keyspace);
    let mut fresh = || {
        let text = session.node.ids.fresh();
        text.parse::<NodeId>().expect("an id is a name")
    };
    let command = Order::Reset {
        hard: is_hard.then(&mut fresh),
        shard: fresh(),
        has_keys,
    };
    order(session, command)
}

/// CLUSTER BUMPEPOCH
pub(super) fn bump_epoch(session: &mut Session<'_>) -> CommandResult {
    order(session, Order::BumpEpoch)
}

/// CLUSTER SET-CONFIG-EPOCH epoch
pub(super) fn set_config_epoch(session: &mut Session<'_>) -> CommandResult {
    place(session)?;
    let epoch = int(session.args.at(2))?;
    let Ok(valid) = u64::try_from(epoch) else {
        return Err(ReplyError::Text(CommandError::EpochIsInvalid(epoch).to_string()));
    };
    order(session, Order::SetConfigEpoch(valid))
}

/// CLUSTER SAVECONFIG
pub(super) fn save_config(session: &mut Session<'_>) -> CommandResult {
    order(session, Order::SaveConfig)
}
