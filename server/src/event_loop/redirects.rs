//! Redirects of this loop's clients, on a node of a cluster: of their requests, of commands that wait, and the end of subscriptions
//! to shard channels whose slots have left.

use std::sync::Arc;

use shardis_cluster::{KeysHere, Slot};
use shardis_protocol::{Arguments, Encoder, Resp};

use super::EventLoop;
use super::run::Issued;
use crate::commands::registry;
use crate::dispatch::admission::find;
use crate::dispatch::redirect::{Asked, check, of_waiting};
use crate::error::ReplyError;
use crate::exec::Modes;
use crate::exec::view::Lent;
use crate::exec::waiter::Ticket;
use crate::limits::BORROW_TRIES;
use crate::pubsub::{Name, Subscriber, Topic};

impl EventLoop {
    /// Takes over the newest map of slots at the beginning of a turn, and has clients follow it that wait or subscribe.
    pub(super) fn follow_slots(&mut self) {
        // In this order: a machine that has just ticked after a standstill has published what it thinks of that before.
        let cluster = self.node.cluster.as_ref();
        self.reach.is_stale = cluster.is_some_and(|cluster| cluster.is_stale(self.looked_ns));
        self.take_slots();
        let number = self.reach.slots.as_ref().map(|map| map.number());
        if number == self.followed_map {
            return;
        }
        self.followed_map = number;
        self.redirect_waiting();
        self.end_subscriptions();
    }

    /// Takes over the newest map of slots.
    #[inline]
    fn take_slots(&mut self) {
        let Some(cluster) = &self.node.cluster else { return };
        let known = self.reach.slots.as_ref().map(|map| map.number());
        if known != Some(cluster.version()) {
            self.reach.slots = Some(cluster.map());
        }
    }

    /// The redirect for a request of a client; none if this node serves it, or its faults are another error.
    pub(super) fn redirect(&mut self, number: usize, args: Arguments<'_>) -> Option<ReplyError> {
        // An earlier request of this turn may have changed the map.
        self.take_slots();
        let slots = self.reach.seen_slots()?;
        let connection = &self.clients[number];
        let client = &connection.client;
        if client.is_primary {
            return None;
        }
        let command = find(args, client.last_command, &self.node.renames).ok()?;
        let asked = Asked::of(client, command, args)?;
        let keys_here = |slot| self.keys_here(slot, asked);
        check(asked, connection.modes(), slots, self.node.hashing, keys_here).err()
    }

    /// Presence of keys of one slot. Where its shard is taken, they count as present: the command is asked about again when it
    /// holds the shard.
    fn keys_here(&self, slot: Slot, asked: Asked<'_>) -> KeysHere {
        let hashing = self.node.hashing;
        let shard = hashing.shard_of(slot.number());
        let cell = self.reach.mesh.cell(shard);
        let held = if shard == self.index {
            cell.own()
        } else {
            cell.borrow(BORROW_TRIES)
        };
        match held {
            Some(mut held) => {
                let partition = held.get();
                asked.count_keys(hashing, |key| partition.has(key))
            }
            None => asked.count_keys(hashing, |_| true),
        }
    }

    /// Replies with a redirect to a command that has got the partitions of its keys, if the node does not serve them any more. True if
    /// it did.
    pub(super) fn redirect_lent(&mut self, issued: Issued<'_>, partitions: &Lent) -> bool {
        let Some(error) = self.redirect_with(issued, partitions) else {
            return false;
        };
        let Issued {
            number,
            sequence,
            command,
            ..
        } = issued;
        let connection = &mut self.clients[number];
        if command.row.runs.is_exec() {
            connection.client.transaction = None;
            connection.client.watching = None;
        }
        let (out, start) = connection.output.begin_at(sequence);
        Encoder::new(out, connection.client.resp).error(error.line());
        connection.mute(sequence, start);
        self.node.stats[self.index].refused(Some(command.id), &error.line());
        self.clients.conclude(number, sequence, start);
        true
    }

    /// The redirect for a command that has got the partitions of its keys. A transaction that has run in part goes on.
    fn redirect_with(&self, issued: Issued<'_>, partitions: &Lent) -> Option<ReplyError> {
        let slots = self.reach.seen_slots()?;
        let newer = self.environment().newer_slots();
        let slots = newer.as_deref().map_or(slots, |newer| slots.with(newer));
        let connection = &self.clients[issued.number];
        let client = &connection.client;
        let transaction = client.transaction.as_ref();
        let is_begun = transaction.is_some_and(|transaction| transaction.suspended.is_some());
        let is_begun = is_begun || client.script.is_under_way();
        if client.is_primary || is_begun || client.departure.is_some() {
            return None;
        }
        let hashing = self.node.hashing;
        let asked = Asked::of(client, issued.command, issued.args)?;
        let keys_here = |_| {
            asked.count_keys(hashing, |key| {
                let partition = partitions[hashing.shard_of(key.slot)].as_deref();
                partition.is_some_and(|partition| partition.has(key))
            })
        };
        check(asked, connection.modes(), slots, hashing, keys_here).err()
    }

    /// Redirects the clients whose commands wait for keys that this node does not serve any more.
    fn redirect_waiting(&mut self) {
        let Some(slots) = self.reach.seen_slots() else {
            return;
        };
        let connections = self.clients.connections.iter();
        let tickets = connections.filter_map(|(_, connection)| connection.client.waits.as_ref());
        let redirect = |ticket: &Arc<Ticket>| {
            let slot = Slot::new(self.node.hashing.slot(ticket.keys().next()?))?;
            of_waiting(slot, registry().row(ticket.command.id), ticket.modes, slots)
        };
        let redirected: Vec<_> = tickets
            .filter(|ticket| !ticket.modes.contains(Modes::PRIMARY))
            .filter_map(|ticket| Some((Arc::clone(ticket), redirect(ticket)?)))
            .collect();
        for (ticket, error) in redirected {
            if ticket.claim() {
                self.answer_redirected(&ticket, &error);
            }
        }
    }

    /// Ends the subscriptions to shard channels whose slots have left this node. Their clients are told.
    fn end_subscriptions(&mut self) {
        let Some(map) = self.reach.slots.clone() else {
            return;
        };
        let hashing = self.node.hashing;
        let has_left = |name: &Name| Slot::new(hashing.slot(name)).is_some_and(|slot| !map.is_home_of(slot));
        let mut left: Vec<(usize, Vec<Name>)> = Vec::new();
        for (number, connection) in &self.clients.connections {
            let subscriptions = connection.client.subscriptions.as_ref();
            let channels = subscriptions.map(|subscriptions| subscriptions.of(Topic::ShardChannel));
            let names: Vec<Name> = channels
                .into_iter()
                .flatten()
                .filter(|name| has_left(name))
                .cloned()
                .collect();
            if !names.is_empty() {
                left.push((number, names));
            }
        }
        if left.is_empty() {
            return;
        }
        let node = Arc::clone(&self.node);
        // No message of such a channel may follow the end of its subscription.
        let _hush = self.hush(&node);
        for (number, names) in left {
            self.end_subscriptions_of(number, &names);
        }
    }

    fn end_subscriptions_of(&mut self, number: usize, names: &[Name]) {
        for name in names {
            let client = &mut self.clients[number].client;
            let left = client.leave(&self.node.pubsub, Topic::ShardChannel, name);
            let mut message = Vec::new();
            let mut encoder = Encoder::new(&mut message, Resp::V2);
            encoder.push(3);
            encoder.bulk(b"sunsubscribe");
            encoder.bulk(name);
            encoder.integer(left as i64);
            let subscriber = Subscriber {
                connection: number as u32,
                client: client.id as u32,
            };
            self.push(subscriber, &message);
        }
    }
}
