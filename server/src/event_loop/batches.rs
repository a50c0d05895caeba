//! Runs commands on one shard in batches: on this thread if the shard's partition is free, else the batch is sent to
//! the shard.

use slab::Slab;
use smallvec::SmallVec;

use super::expire::tell_owner;
use super::reach::Work;
use super::turn::Turn;
use super::{Clients, EventLoop};
use crate::connection::Connection;
use crate::dispatch::batch::{Place, Replies, Report, Slice, run_batch};
use crate::dispatch::behind_snapshot::Queue;
use crate::dispatch::execution::Environment;
use crate::dispatch::room::publish;
use crate::exec::{Closing, Modes, Partition};
use crate::limits::{BORROW_TRIES, HEAVY_BYTES};
use crate::shard::bypass::SocketBypass;
use crate::shard::inbox::{Batch, Message, Task};
use crate::shard::poll::{Holds, Poll};
use crate::spec::Registered;

impl EventLoop {
    /// Step 3: runs the collected commands, shard by shard, the own shard first.
    pub(super) fn execute(&mut self) {
        let own = self.index;
        self.execute_here(own);
        for shard in 0..self.turn.tasks.len() {
            if shard != own && !self.turn.tasks[shard].is_empty() {
                self.execute_there(shard);
            }
        }
        self.turn.long.fill(false);
    }

    /// Runs the commands for this loop's shard, or keeps them until its partition is back.
    fn execute_here(&mut self, own: usize) {
        if self.turn.tasks[own].is_empty() {
            return;
        }
        if self.reach.waiting.is_empty() && self.run_in_place(own) {
            return;
        }
        self.keep_tasks(own);
    }

    /// Keeps the commands that are left for this loop's shard until they can go on.
    fn keep_tasks(&mut self, own: usize) {
        let batch = self.turn.pack((own, own), self.reach.eras.present());
        self.reach.waiting.push_back(Work::Run(batch));
    }

    /// Runs the commands for another shard on a borrowed partition if they are short and no batch is ahead of them;
    /// else sends them.
    fn execute_there(&mut self, shard: usize) {
        let may_borrow = self.reach.under_way[shard] == 0 && !self.turn.long[shard];
        if may_borrow && self.run_in_place(shard) {
            self.node.stats[self.index].batches_borrowed.add(1);
            return;
        }
        self.send_tasks(shard);
    }

    /// Sends another shard the commands that are left for it.
    fn send_tasks(&mut self, shard: usize) {
        let batch = self.turn.pack((self.index, shard), self.reach.eras.present());
        self.node.stats[self.index].batches_sent.add(1);
        self.reach.send_batch(batch);
    }

    /// Runs the turn's commands for a shard on this thread. False when its partition is taken.
    fn run_in_place(&mut self, shard: usize) -> bool {
        let Some((report, over)) = self.run_batch_in_place(shard) else {
            return false;
        };
        if !report.waiting.is_empty() {
            self.put_off(shard, &report.waiting);
        }
        self.turn.tasks[shard].drain(..report.done);
        self.report_panics(&report.panicked);
        self.enter_slow(report.slow);
        for (number, line) in over {
            self.close_refused(number, &line);
        }
        if !self.turn.tasks[shard].is_empty() {
            self.leave_for_later(shard);
        }
        true
    }

    /// Puts commands off that wait for a snapshot: they wait on the loop of their shard.
    #[cold]
    fn put_off(&mut self, shard: usize, waiting: &[usize]) {
        let route = (self.index, shard);
        let batch = self.turn.pack_some(route, waiting, self.reach.eras.present());
        if shard == self.index {
            self.reach.behind_snapshot.push(batch);
        } else {
            self.reach.send_batch(batch);
        }
    }

    /// Puts commands off that this turn has no time for. Later ones for the shard queue up behind them.
    #[cold]
    fn leave_for_later(&mut self, shard: usize) {
        if shard == self.index {
            self.keep_tasks(shard);
            self.reach.goes_on = true;
        } else {
            self.send_tasks(shard);
        }
    }

    /// Runs the batch. Returns its report, and the connections whose output exceeds their limits.
    fn run_batch_in_place(&mut self, shard: usize) -> Option<(Report, Over)> {
        let looked = (self.stamp, self.looked_ns);
        let slice = Slice::until(self.turn_until_ns);
        let mut environment = self.reach.environment(&self.node, &self.settings, looked);
        let shared = environment;
        let cell = shared.mesh.cell(shard);
        let mut held = if shard == self.index {
            cell.own()?
        } else {
            cell.borrow(BORROW_TRIES)?
        };
        let Turn {
            tasks,
            source,
            scratch,
            ..
        } = &mut self.turn;
        let Clients {
            connections, dirty, ..
        } = &mut self.clients;
        let mut replies = ToConnections {
            connections,
            dirty,
            scratch,
            poll: &mut self.poll,
            environment: &shared,
            may_pass: !shared.recorder.is_on(),
            over: Over::new(),
        };
        let tasks = &tasks[shard];
        let queue = self.reach.queue_on(shard);
        let report = count_memory(held.get(), &shared, |partition| {
            run_batch(
                partition,
                tasks,
                source,
                &mut replies,
                queue,
                &mut environment,
                slice,
            )
        });
        for &index in &report.wrote {
            if let Some(connection) = replies.connections.get_mut(tasks[index].connection as usize) {
                connection.client.note_written(shared.recorder.position());
            }
        }
        let over = replies.over;
        if shard != self.index {
            tell_owner(held.get(), &self.node, shared.mesh);
        }
        (self.stamp, self.looked_ns) = (environment.stamp, environment.looked_ns);
        Some((report, over))
    }

    /// Runs a batch from another loop on this shard's partition. Returns the number of commands that have run; none when
    /// the partition is lent: the batch waits.
    pub(super) fn run_arrived(&mut self, batch: &mut Batch) -> Option<usize> {
        let mut environment = self.environment();
        let mut held = environment.mesh.cell(self.index).own()?;
        let slice = Slice::until(self.turn_until_ns);
        let Batch {
            tasks,
            source,
            replies,
            ends,
            slow,
            wrote,
            position,
            over,
            reply_bytes_max,
            origin,
            waiting,
            ..
        } = batch;
        let queue = Queue {
            origin: *origin,
            batches: &self.reach.behind_snapshot,
        };
        *reply_bytes_max = environment.reply_bytes_max;
        let mut sink = ToBatch {
            tasks: tasks.as_slice(),
            replies,
            ends,
            over,
            bytes_max: environment.reply_bytes_max,
        };
        let shared = environment;
        let report = count_memory(held.get(), &shared, |partition| {
            run_batch(
                partition,
                tasks,
                source,
                &mut sink,
                queue,
                &mut environment,
                slice,
            )
        });
        drop(held);
        *wrote = report.wrote;
        *waiting = report.waiting;
        *position = shared.recorder.position();
        (self.stamp, self.looked_ns) = (environment.stamp, environment.looked_ns);
        self.report_panics(&report.panicked);
        // The origin of the batch knows the clients of the slow commands.
        *slow = report.slow;
        Some(report.done)
    }

    /// Sends a batch that has run back to its origin.
    pub(super) fn send_back(&mut self, batch: Box<Batch>) {
        if batch.origin == self.index {
            self.deliver(batch);
        } else {
            self.reach.send(batch.origin, Message::Done(batch));
        }
    }

    /// Delivers the replies of a batch that has run.
    pub(super) fn deliver(&mut self, mut batch: Box<Batch>) {
        if batch.target != self.index && !batch.goes_on {
            // From here on, the batch does not hold later batches back.
            self.reach.note_back(&batch);
        }
        if batch.target != self.index && !batch.waiting.is_empty() {
            // They come back as a batch of their own.
            self.reach.note_sent(&batch);
        }
        for &index in &batch.wrote {
            let task = &batch.tasks[index];
            if let Some(connection) = self.clients.get_mut(task.connection as usize)
                && connection.client.id as u32 == task.client
            {
                connection.client.note_written(batch.position);
            }
        }
        let mut start = 0;
        for (index, (task, &end)) in batch.tasks.iter().zip(&batch.ends).enumerate() {
            let reply = &batch.replies[start..end];
            start = end;
            if batch.waiting.contains(&index) {
                continue;
            }
            let number = task.connection as usize;
            let Some(connection) = self.clients.get_mut(number) else {
                continue;
            };
            if connection.client.id as u32 != task.client {
                continue;
            }
            let reply = if task.modes.contains(Modes::MUTE) {
                &[]
            } else {
                reply
            };
            let is_large = connection.output.deliver(task.sequence, reply);
            if batch.over.contains(&task.connection) {
                self.close_for_output(number);
            } else if is_large {
                self.enforce_output_limit(number);
            }
            self.clients.mark_dirty(number);
            self.clients.wake_if_it_may_go_on(number);
        }
        self.enter_slow(batch.slow.drain(..));
        if batch.replies.len() >= HEAVY_BYTES {
            self.look_at_clock();
        }
        self.turn.recycle(batch);
    }

    fn report_panics(&self, panicked: &[Task]) {
        panicked.iter().for_each(|task| self.report_panic(task.command));
    }

    /// Logs a command that ended with a panic.
    #[cold]
    pub(super) fn report_panic(&self, command: &Registered) {
        self.node.log.warning(format_args!(
            "A handler of '{}' panicked: its client got an error, and the changes that it had made stay. Please report \
             this as a bug.",
            command.full_name
        ));
        let journal = self.reach.recorder.journal();
        if let Some(position) = journal.and_then(|journal| journal.broken_from()) {
            self.node.log.warning(format_args!(
                "The stream of effects lacks changes from position {position} on: its readers should start anew from a copy \
                 of the data."
            ));
        }
    }
}

/// Calls `act` on a partition, books to the partition what that allocates, and hands its effects to the journal.
pub(super) fn count_memory<R>(
    partition: &mut Partition,
    environment: &Environment<'_>,
    act: impl FnOnce(&mut Partition) -> R,
) -> R {
    partition.begin_use();
    let result = act(partition);
    partition.book();
    publish(partition, environment.node);
    environment.hand_over();
    result
}

/// Connections to close because of their output, and their lines in CLIENT LIST.
type Over = SmallVec<[(usize, String); 0]>;

/// Destination of replies that go straight to connections of this loop.
struct ToConnections<'a> {
    connections: &'a mut Slab<Connection>,
    dirty: &'a mut Vec<usize>,
    scratch: &'a mut Vec<u8>,
    poll: &'a mut Poll,
    environment: &'a Environment<'a>,
    /// Replies may be sent while the batch runs: none has to wait until the journal has reached what it tells of.
    may_pass: bool,
    /// Connections whose output exceeds their limits: their further replies are dropped.
    over: Over,
}

impl ToConnections<'_> {
    /// Checks the limits of a connection whose output has become large, with the bytes of its reply that have passed it.
    #[cold]
    fn look_at_limits(&mut self, number: usize, passed: usize) {
        let limits = &self.environment.settings.client_output_buffer_limit;
        let Some(connection) = self.connections.get_mut(number) else {
            return;
        };
        let is_known = self.over.iter().any(|(known, _)| *known == number);
        if !is_known && connection.is_over_hard_limit(limits, passed) {
            let buffers = connection.measure(Holds::default());
            let now_ms = self.environment.stamp.now_ms;
            self.over
                .push((number, connection.client.describe(&buffers, now_ms, 0)));
            connection.output.refuse();
        }
    }
}

impl ToConnections<'_> {
    /// Runs a command whose reply nobody gets.
    #[cold]
    fn answer_nobody(
        &mut self,
        task: &Task,
        start: &mut usize,
        encode: impl FnOnce(&mut Place<'_>),
    ) -> usize {
        let mut place = self.begin(task);
        *start = place.out.len();
        encode(&mut place);
        let appended = place.out.len() - *start;
        self.end(task, *start);
        appended
    }
}

impl Replies for ToConnections<'_> {
    #[inline]
    fn begin(&mut self, task: &Task) -> Place<'_> {
        let number = task.connection as usize;
        let Some(connection) = self
            .connections
            .get_mut(number)
            .filter(|_| !task.modes.contains(Modes::MUTE))
        else {
            return Place {
                out: self.scratch,
                bypass: None,
            };
        };
        let (out, sent) = connection.output.begin_to_pass(task.sequence);
        let sent = sent.filter(|_| self.may_pass);
        let bypass = sent.map(|sent| SocketBypass::new(self.poll.link(&mut connection.socket, number), sent));
        Place { out, bypass }
    }

    #[inline]
    fn end(&mut self, task: &Task, start: usize) {
        self.scratch.clear();
        let Some(connection) = self.connections.get_mut(task.connection as usize) else {
            return;
        };
        let start = if task.modes.contains(Modes::MUTE) {
            connection.output.begin(task.sequence).len()
        } else {
            start
        };
        let is_large = connection.output.end(task.sequence, start);
        if !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push(task.connection as usize);
        }
        if is_large {
            self.look_at_limits(task.connection as usize, 0);
        }
    }

    /// As the other two functions do, with one look at the connection.
    #[inline]
    fn answer(&mut self, task: &Task, start: &mut usize, encode: impl FnOnce(&mut Place<'_>)) -> usize {
        let number = task.connection as usize;
        let Some(connection) = self
            .connections
            .get_mut(number)
            .filter(|_| !task.modes.contains(Modes::MUTE))
        else {
            return self.answer_nobody(task, start, encode);
        };
        let (out, sent) = connection.output.begin_to_pass(task.sequence);
        *start = out.len();
        let sent = sent.filter(|_| self.may_pass);
        let bypass = sent.map(|sent| SocketBypass::new(self.poll.link(&mut connection.socket, number), sent));
        let mut place = Place { out, bypass };
        encode(&mut place);
        let appended = place.out.len() - *start;
        let passed = place.bypass.map_or(0, |bypass| bypass.passed());
        let is_large = connection.output.end(task.sequence, *start);
        if !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push(number);
        }
        if is_large {
            self.look_at_limits(number, 0);
        }
        if passed > 0 {
            self.note_passed(task, passed);
        }
        appended | passed
    }

    fn pass_over(&mut self, _: &Task) {}

    #[cold]
    fn note_passed(&mut self, task: &Task, bytes: usize) {
        if let Some(connection) = self.connections.get_mut(task.connection as usize) {
            connection.output.settle();
            connection.bytes_out += bytes as u64;
            self.environment.stats.bytes_out.add(bytes as u64);
            self.environment.stats.writes.add(1);
        }
        self.look_at_limits(task.connection as usize, bytes);
    }

    fn retract(&mut self, task: &Task, start: usize) -> &mut Vec<u8> {
        if let Some(connection) = self.connections.get_mut(task.connection as usize)
            && connection.output.has_sent_beyond(start)
        {
            // Its client has a part of another reply: no error can follow it.
            connection.output.refuse();
            connection.client.closing = Closing::Now;
        }
        self.begin(task).out
    }
}

/// Replies that are collected in a batch, for its way back.
struct ToBatch<'a> {
    tasks: &'a [Task],
    replies: &'a mut Vec<u8>,
    ends: &'a mut Vec<usize>,
    /// Connections whose replies got too long to be sent.
    over: &'a mut Vec<u32>,
    /// Size from which a reply is too long for any client, bytes.
    bytes_max: usize,
}

impl ToBatch<'_> {
    /// Drops a reply if those of its connection in this batch are together too long to be sent: they are the output that the
    /// connection is about to have, and under the same limits.
    #[cold]
    fn look_at_limits(&mut self, connection: u32, start: usize) {
        if !self.over.contains(&connection) {
            let mut begin = 0;
            let lengths = self
                .ends
                .iter()
                .map(|&end| end - std::mem::replace(&mut begin, end));
            let of_connection = self.tasks.iter().zip(lengths);
            let before: usize = of_connection
                .filter(|(task, _)| task.connection == connection)
                .map(|(_, length)| length)
                .sum();
            if before + self.replies.len() - start < self.bytes_max {
                return;
            }
            self.over.push(connection);
        }
        self.replies.truncate(start);
    }
}

impl Replies for ToBatch<'_> {
    #[inline]
    fn begin(&mut self, _: &Task) -> Place<'_> {
        Place {
            out: self.replies,
            bypass: None,
        }
    }

    fn pass_over(&mut self, _: &Task) {
        self.ends.push(self.replies.len());
    }

    fn note_passed(&mut self, _: &Task, _: usize) {
        unreachable!("the replies of a batch from another loop travel back with it")
    }

    fn retract(&mut self, _: &Task, _: usize) -> &mut Vec<u8> {
        self.replies
    }

    #[inline]
    fn end(&mut self, task: &Task, start: usize) {
        // As long as all replies together are not too long, those of no connection are.
        if self.replies.len() >= self.bytes_max || !self.over.is_empty() {
            self.look_at_limits(task.connection, start);
        }
        self.ends.push(self.replies.len());
    }
}
