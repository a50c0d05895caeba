//! Connections whose command waits: from its ticket to its reply, or to the end of its timeout.

use std::sync::Arc;

use shardis_cluster::slot::shard_of_key;

use super::EventLoop;
use super::batches::count_memory;
use super::expire::tell_owner;
use super::reach::Work;
use super::run::Issued;
use crate::commands::registry;
use crate::connection::Gate;
use crate::dispatch::plan::ShardSet;
use crate::dispatch::room::publish_memory;
use crate::dispatch::serve::serve_ready;
use crate::error::ReplyError;
use crate::exec::Modes;
use crate::exec::Partition;
use crate::exec::client::Unblocked;
use crate::exec::held::Account;
use crate::exec::view::{Held, Lent};
use crate::exec::waiter::{Retry, Served, Ticket, TimeoutReply, Wish};
use crate::limits::{BORROW_PATIENCE, BORROW_TRIES};
use crate::shard::inbox::Message;
use crate::spec::key_spec::keys_of;

impl EventLoop {
    /// Makes a connection wait for its command's wish: puts a ticket into the queues of the keys, whose partitions
    /// are held. `nanos` is the time that the command has run.
    pub(super) fn block(&mut self, issued: Issued<'_>, mut wish: Wish, nanos: u64, partitions: &mut Lent) {
        let (number, args) = (issued.number, issued.args);
        self.show(number, issued.command, args);
        let shards = partitions.len();
        let mut other_shard = None;
        let mut waits_in = ShardSet::none(shards);
        let found = keys_of(issued.command.row.keys, args, |index, _| {
            let shard = shard_of_key(args.at(index), shards);
            if wish.keys.contains(&index) {
                waits_in.insert(shard);
            } else {
                other_shard = Some(shard);
            }
        });
        debug_assert!(found.is_ok(), "the keys of a command that has run are known");
        if self.node.clock.is_real()
            && let Some(deadline_ms) = &mut wish.deadline_ms
        {
            // The start of the wait was rounded down to milliseconds: without this, a wait could end early.
            *deadline_ms = deadline_ms.saturating_add(1);
        }
        let connection = &mut self.clients.connections[number];
        let ticket = Arc::new(Ticket::new(
            issued.command.tag(),
            args,
            wish,
            waits_in.len() > 1,
            other_shard,
            (connection.client.db, connection.client.wrote_to),
            connection.modes(),
            (self.index, number),
            issued.sequence,
            nanos,
        ));
        for key in ticket.keys() {
            let shard = shard_of_key(key, shards);
            if let Some(partition) = partitions[shard].as_deref_mut() {
                partition.door.waiters.add(key, &ticket);
            }
        }
        if let Some(deadline_ms) = ticket.deadline_ms {
            self.clients.deadlines.insert((deadline_ms, number));
        }
        connection.gate = Gate::Blocked;
        if ticket.awaits_sync {
            self.clients.awaiting_sync.push(number);
        }
        connection.client.waits = Some(ticket);
        let ends = connection.ends;
        self.clients.blocked += 1;
        self.count_blocked();
        self.book_client(number);
        if ends {
            // The end of the connection was noticed before the wait began, and poll does not report it again.
            self.clients.enqueue(number);
        }
    }

    /// Handles the results of serving tickets: sends replies and retries to their loops.
    pub(super) fn empty_outbox(&mut self) {
        if self.reach.outbox.borrow().is_empty() {
            return;
        }
        let outbox = std::mem::take(&mut *self.reach.outbox.borrow_mut());
        for served in outbox.served {
            if served.ticket.origin == self.index {
                self.answer_served(served);
            } else {
                let origin = served.ticket.origin;
                self.reach.send(origin, Message::Served(Box::new(served)));
            }
        }
        for retry in outbox.stuck {
            // The loop of the needed shard handles the retry after the work that keeps the shard taken.
            self.reach.send(retry.needs, Message::Serve(retry));
        }
    }

    /// Answers a waiting command that has run, here or on another loop.
    pub(super) fn answer_served(&mut self, served: Served) {
        let Served {
            ticket,
            shard,
            reply,
            nanos,
            position,
        } = served;
        if self.end_wait(&ticket, Some(shard)) {
            if let Some(position) = position {
                self.clients[ticket.connection].client.note_written(position);
            }
            self.answer(&ticket, &reply, nanos);
        }
    }

    /// Answers the waiting commands whose timeout is over.
    pub(super) fn end_waits_in_time(&mut self) {
        let now_ms = self.now_ms();
        while let Some(&(deadline_ms, number)) = self.clients.deadlines.first() {
            if deadline_ms > now_ms {
                return;
            }
            self.clients.deadlines.pop_first();
            let ticket = self.ticket_of(number);
            // A ticket that is claimed already is about to be answered with a value.
            if let Some(ticket) = ticket.filter(|ticket| ticket.claim()) {
                self.answer_unblocked(&ticket, Unblocked::TimedOut);
            }
        }
    }

    /// Answers the waiting commands whose clients' writes are on disk.
    pub(super) fn end_waits_for_sync(&mut self) {
        if self.clients.awaiting_sync.is_empty() {
            return;
        }
        let is_on = self.node.append_only.is_on();
        for number in std::mem::take(&mut self.clients.awaiting_sync) {
            let Some(ticket) = self.ticket_of(number).filter(|ticket| ticket.awaits_sync) else {
                continue;
            };
            if is_on && !self.node.journal.has_synced(ticket.wrote_to) {
                self.clients.awaiting_sync.push(number);
            } else if ticket.claim() && self.end_wait(&ticket, None) {
                self.answer_synced(&ticket, is_on);
            }
        }
    }

    fn answer_synced(&mut self, ticket: &Arc<Ticket>, is_on: bool) {
        let mut reply = Vec::new();
        let mut encoder = shardis_protocol::Encoder::new(&mut reply, ticket.modes.resp());
        if is_on {
            TimeoutReply::Files(true).write(&mut encoder);
        } else {
            let line = ReplyError::NoFile.line();
            self.node.stats[self.index].failed(ticket.command.id, &line);
            encoder.error(line);
        }
        self.answer(ticket, &reply, 0);
    }

    /// Whether clients can be answered whose writes are on disk. If not, the loop is rung when more is synced.
    pub(super) fn has_synced(&self) -> bool {
        if self.clients.awaiting_sync.is_empty() {
            return false;
        }
        // In this order, or it might be synced unnoticed.
        self.node.journal.await_more();
        let is_on = self.node.append_only.is_on();
        let is_over = |&number: &usize| {
            let ticket = self.ticket_of(number);
            ticket.is_none_or(|ticket| !is_on || self.node.journal.has_synced(ticket.wrote_to))
        };
        self.clients.awaiting_sync.iter().any(is_over)
    }

    /// Answers the clients of this loop that CLIENT UNBLOCK has marked.
    pub(super) fn answer_unblocked_clients(&mut self) {
        let marked: Vec<_> = self
            .clients
            .connections
            .iter_mut()
            .filter_map(|(_, connection)| {
                let how = connection.client.unblocked.take()?;
                Some((connection.client.waits.clone()?, how))
            })
            .collect();
        for (ticket, how) in marked {
            self.answer_unblocked(&ticket, how);
        }
    }

    /// Answers a claimed ticket whose command got nothing.
    fn answer_unblocked(&mut self, ticket: &Arc<Ticket>, how: Unblocked) {
        if !self.end_wait(ticket, None) {
            return;
        }
        let mut reply = Vec::new();
        let mut encoder = shardis_protocol::Encoder::new(&mut reply, ticket.modes.resp());
        match how {
            Unblocked::TimedOut => {
                let reply = match ticket.on_timeout {
                    TimeoutReply::Files(_) => {
                        let is_on = self.node.append_only.is_on();
                        TimeoutReply::Files(is_on && self.node.journal.has_synced(ticket.wrote_to))
                    }
                    other => other,
                };
                reply.write(&mut encoder);
            }
            Unblocked::WithError => {
                let line = b"UNBLOCKED client unblocked via CLIENT UNBLOCK";
                self.node.stats[self.index].failed(ticket.command.id, line);
                encoder.error(line);
            }
        }
        self.answer(ticket, &reply, 0);
    }

    /// Ends the wait of a connection that is being closed.
    pub(super) fn forget_wait(&mut self, ticket: &Arc<Ticket>) {
        ticket.claim();
        self.leave_queues(ticket, None);
        self.clients.blocked -= 1;
        self.count_blocked();
    }

    /// Ends the wait of a connection; `served_by` is the shard that has already removed the ticket from its queues.
    /// False when the connection does not wait for this ticket.
    fn end_wait(&mut self, ticket: &Arc<Ticket>, served_by: Option<usize>) -> bool {
        let Some(connection) = self.clients.get_mut(ticket.connection) else {
            return false;
        };
        let waits = connection
            .client
            .waits
            .take_if(|waits| Arc::ptr_eq(waits, ticket));
        if waits.is_none() {
            return false;
        }
        connection.gate = Gate::Open;
        self.clients.blocked -= 1;
        self.count_blocked();
        self.leave_queues(ticket, served_by);
        true
    }

    fn leave_queues(&mut self, ticket: &Arc<Ticket>, served_by: Option<usize>) {
        if let Some(deadline_ms) = ticket.deadline_ms {
            self.clients.deadlines.remove(&(deadline_ms, ticket.connection));
        }
        if ticket.keys.len() == 1 && served_by.is_some() {
            return;
        }
        let mut shards = ShardSet::none(self.reach.mesh.len());
        ticket
            .keys()
            .for_each(|key| shards.insert(shard_of_key(key, self.reach.mesh.len())));
        for shard in shards.iter().filter(|&shard| Some(shard) != served_by) {
            if shard == self.index {
                self.work(Work::Withdraw(Arc::clone(ticket)));
            } else {
                self.reach.send(shard, Message::Withdraw(Arc::clone(ticket)));
            }
        }
    }

    fn answer(&mut self, ticket: &Arc<Ticket>, reply: &[u8], nanos: u64) {
        let number = ticket.connection;
        let connection = &mut self.clients[number];
        let reply = if ticket.modes.contains(Modes::MUTE) {
            &[]
        } else {
            reply
        };
        connection.count_reply_mode();
        connection.output.deliver(ticket.sequence, reply);
        self.clients.mark_dirty(number);
        let command = registry().row(ticket.command.id);
        self.count_run(number, command, ticket.said(), ticket.ran_ns + nanos);
        self.clients.wake_if_it_may_go_on(number);
    }

    fn ticket_of(&self, number: usize) -> Option<Arc<Ticket>> {
        self.clients.get(number)?.client.waits.clone()
    }

    /// Publishes the number of connections that wait for a key or for the end of a pause.
    pub(super) fn count_blocked(&self) {
        let stats = &self.node.stats[self.index];
        let paused = self.clients.paused.len() as u64;
        stats.blocked.set(self.clients.blocked + paused);
        stats.blocked_in_time.set(self.clients.deadlines.len() as u64);
    }

    /// Removes a ticket from this shard's queues. False when the partition is lent.
    pub(super) fn withdraw(&mut self, ticket: &Arc<Ticket>) -> bool {
        let mesh = Arc::clone(&self.reach.mesh);
        let Some(mut held) = mesh.cell(self.index).own() else {
            return false;
        };
        let partition = held.get();
        partition.door.waiters.remove(ticket);
        self.serve_own(partition);
        true
    }

    /// Serves the stuck keys of a shard with the partitions of both shards of the retry, if the other one is free;
    /// else sends the retry there. False when this shard's partition is lent.
    pub(super) fn serve_stuck(&mut self, retry: Retry) -> bool {
        let mesh = Arc::clone(&self.reach.mesh);
        let Some(mut own) = mesh.cell(self.index).own() else {
            return false;
        };
        let other = retry.other(self.index);
        let Some(mut borrowed) = mesh.cell(other).borrow(BORROW_TRIES) else {
            drop(own);
            if self.node.clock.elapsed_ns() - retry.since_ns >= BORROW_PATIENCE.as_nanos() as u64 {
                self.lend_to_retry(retry);
            } else {
                mesh.send(other, Message::Serve(retry));
            }
            return true;
        };
        let stuck = if retry.shard == self.index {
            own.get()
        } else {
            borrowed.get()
        };
        stuck.door.waiters.retry(retry.needs);
        let environment = self.environment();
        let mut account = Account::begin(mesh.len());
        let both = Held::Two([own.get(), borrowed.get()], &mut account);
        serve_ready(both, &environment);
        account.end_command();
        environment.hand_over();
        for partition in [own.get(), borrowed.get()] {
            partition.memory_bytes += account.take(partition.shard);
            publish_memory(partition, &self.node);
            tell_owner(partition, &self.node, &mesh);
        }
        true
    }

    /// Serves the stuck keys of a shard with the partitions of both shards of the retry, which were lent for it.
    pub(super) fn serve_lent(&self, retry: Retry, lent: &mut Lent) {
        if let Some(stuck) = lent[retry.shard].as_deref_mut() {
            stuck.door.waiters.retry(retry.needs);
        }
        let environment = self.environment();
        lent.begin();
        serve_ready(Held::Many(lent), &environment);
        lent.settle();
        environment.hand_over();
        for partition in lent.iter().flatten() {
            publish_memory(partition, &self.node);
        }
    }

    /// Serves the tickets of the ready keys of this shard.
    pub(super) fn serve_own(&self, partition: &mut Partition) {
        if !partition.door.waiters.has_ready() {
            return;
        }
        let environment = self.environment();
        count_memory(partition, &environment, |partition| {
            serve_ready(Held::One(partition), &environment);
        });
    }
}
