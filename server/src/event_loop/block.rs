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
use crate::dispatch::room::{publish, publish_all};
use crate::dispatch::serve::serve_ready;
use crate::error::ReplyError;
use crate::exec::client::Unblocked;
use crate::exec::held::Account;
use crate::exec::view::{Held, Lent};
use crate::exec::waiter::{Retry, Served, Ticket, Wish};
use crate::exec::{Awaited, Closing, Modes, Partition, Written};
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
            connection.client.seat,
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
        if ticket.awaited != Awaited::Nothing {
            self.clients.awaiting_writes.push(number);
        }
        connection.client.waits = Some(ticket);
        let ends = connection.ends;
        self.clients.blocked += 1;
        self.ask_replicas(number);
        self.count_blocked();
        self.book_client(number);
        if ends {
            // The end of the connection was noticed before the wait began, and poll does not report it again.
            self.clients.enqueue(number);
        }
    }

    /// Has replicas asked what they have, if a command waits for that. They tell it once a second by themselves.
    fn ask_replicas(&self, number: usize) {
        let waits = self.clients[number].client.waits.as_ref();
        if waits.is_some_and(|ticket| ticket.awaited.concerns_replicas()) {
            self.node.replication.replicas.ask();
            self.node.control_bell.notify_one();
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
            if retry.shard == retry.needs && retry.shard == self.index {
                self.reach.serves_behind = true;
            } else {
                // The loop of the needed shard handles the retry after the work that keeps the shard taken.
                self.reach.send(retry.needs, Message::Serve(retry));
            }
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

    /// Answers the waiting commands whose clients' writes are where they have to be.
    pub(super) fn end_waits_for_writes(&mut self) {
        if self.clients.awaiting_writes.is_empty() {
            return;
        }
        for number in std::mem::take(&mut self.clients.awaiting_writes) {
            let awaits_writes = |ticket: &Arc<Ticket>| ticket.awaited != Awaited::Nothing;
            let Some(ticket) = self.ticket_of(number).filter(awaits_writes) else {
                continue;
            };
            if !self.is_over(&ticket) {
                self.clients.awaiting_writes.push(number);
            } else if ticket.claim() && self.end_wait(&ticket, None) {
                let reply = self.report_writes(&ticket);
                self.answer(&ticket, &reply, 0);
            }
        }
    }

    /// Whether a wait for writes ends: they are where they have to be, or will never be.
    fn is_over(&self, ticket: &Ticket) -> bool {
        Written::new(&self.node, ticket.wrote_to).fulfil(ticket.awaited) || self.lacks_file(ticket)
    }

    /// Whether a command waits for a file that is no longer written.
    fn lacks_file(&self, ticket: &Ticket) -> bool {
        matches!(ticket.awaited, Awaited::Files { here: true, .. }) && !self.node.append_only.is_on()
    }

    /// The reply to a command that has waited for writes.
    fn report_writes(&self, ticket: &Ticket) -> Vec<u8> {
        let mut reply = Vec::new();
        let mut encoder = shardis_protocol::Encoder::new(&mut reply, ticket.modes.resp());
        if self.lacks_file(ticket) {
            let line = ReplyError::NoFile.line();
            self.node.stats[self.index].failed(ticket.command.id, &line);
            encoder.error(line);
        } else {
            Written::new(&self.node, ticket.wrote_to).report(ticket.awaited, &mut encoder);
        }
        reply
    }

    /// Whether clients can be answered that wait for their writes. If not, the loop is rung when more of them have got somewhere.
    pub(super) fn has_awaited_writes(&self) -> bool {
        if self.clients.awaiting_writes.is_empty() {
            return false;
        }
        // In this order, or it might happen unnoticed.
        self.node.journal.await_more();
        let is_over = |&number: &usize| {
            let ticket = self.ticket_of(number);
            ticket.is_none_or(|ticket| self.is_over(&ticket))
        };
        self.clients.awaiting_writes.iter().any(is_over)
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

    /// Answers a claimed ticket whose keys this node does not serve any more.
    pub(super) fn answer_redirected(&mut self, ticket: &Arc<Ticket>, error: &ReplyError) {
        if !self.end_wait(ticket, None) {
            return;
        }
        let (line, mut reply) = (error.line(), Vec::new());
        self.node.stats[self.index].answered_error(&line);
        shardis_protocol::Encoder::new(&mut reply, ticket.modes.resp()).error(&line);
        self.answer(ticket, &reply, 0);
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
                let written = Written::new(&self.node, ticket.wrote_to);
                written.report(ticket.awaited, &mut encoder);
            }
            Unblocked::WithError => {
                let line = b"UNBLOCKED client unblocked via CLIENT UNBLOCK";
                self.node.stats[self.index].failed(ticket.command.id, line);
                encoder.error(line);
            }
            Unblocked::RoleChanged => {
                let line = b"UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)";
                self.node.stats[self.index].failed(ticket.command.id, line);
                encoder.error(line);
                self.clients[ticket.connection].client.closing = Closing::AfterReply;
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
        if retry.shard == retry.needs {
            self.reach.serves_behind = true;
            return true;
        }
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
            publish(partition, &self.node);
            tell_owner(partition, &self.node, &mesh);
        }
        true
    }

    /// Serves the keys of this shard that are stuck until a snapshot has saved more, if it has.
    pub(super) fn serve_behind_snapshot(&mut self) {
        let mesh = Arc::clone(&self.reach.mesh);
        let Some(mut held) = mesh.cell(self.index).own() else {
            return;
        };
        self.reach.serves_behind = false;
        let partition = held.get();
        partition.door.waiters.retry(self.index);
        self.serve_own(partition);
        drop(held);
        // Those that are still stuck are to be noted before the loop sleeps.
        self.empty_outbox();
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
        publish_all(lent.iter_mut().filter_map(Option::as_deref_mut), &self.node);
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
