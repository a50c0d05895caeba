//! Commands over several shards: the shards' partitions are lent to the loop of the connection, which runs the command
//! with plain access to all of them.
//!
//! If all of them are free at this moment or soon, the loop holds their cells while it runs, and nobody notices. If not, it
//! tries again in the next turns. Only when that goes on for too long, because a shard runs something long, it asks the
//! owners, in ascending order of shards, and each hands its partition over by value once it has done what came before. Two coordinators can wait for each other only in ascending order, so never in a circle.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use shardis_protocol::{Arguments, Encoder};
use smallvec::SmallVec;

use super::turn::count_memory;
use super::{EventLoop, Work};
use crate::connection::Hold;
use crate::dispatch::plan::{Place, Routed, ShardSet, shards_of_transaction};
use crate::dispatch::run::{self, Call};
use crate::dispatch::serve::serve_ready;
use crate::dispatch::transaction;
use crate::error::ReplyError;
use crate::exec::view::Held;
use crate::exec::waiter::Waiting;
use crate::exec::{OwnedRequest, Partition, Session, View};
use crate::limits::{BORROW_LIMIT, BORROW_PATIENCE};
use crate::shard::inbox::{Batch, Message};
use crate::spec::{Registered, Runs};

/// A command that waits for partitions.
#[derive(Debug)]
pub(super) struct Operation {
    connection: usize,
    client: u64,
    sequence: u32,
    command: &'static Registered,
    request: OwnedRequest,
    /// Shards still to be asked, the next one last.
    missing: Vec<usize>,
    /// What was lent so far, by shard.
    lent: Vec<Option<Box<Partition>>>,
}

impl EventLoop {
    /// Begins a command that needs more than one shard or loop. It runs when all before it has been answered, and what
    /// comes after it waits.
    pub(super) fn run_alone(
        &mut self,
        number: usize,
        command: &'static Registered,
        args: Arguments<'_>,
        place: Place,
    ) {
        let connection = &mut self.connections[number];
        if connection.output.in_flight() > 0 {
            connection.hold = Hold::Drain(OwnedRequest::copy(args));
            return;
        }
        match place {
            Place::EveryShard | Place::EveryLoop => self.begin_gathering(number, command, args, None),
            Place::Lend(shards) | Place::LendToSession(shards) => {
                self.begin_operation(number, command, args, &shards);
            }
            Place::Exec => {
                if self.gather_for_exec(number, args) {
                    return;
                }
                let connection = &self.connections[number];
                let shards = shards_of_transaction(&connection.client, self.node.hasher, self.mesh.len());
                self.begin_operation(number, command, args, &shards);
            }
            Place::Session | Place::Shard { .. } => {
                unreachable!("commands on one shard or none do not run alone")
            }
        }
    }

    fn begin_operation(
        &mut self,
        number: usize,
        command: &'static Registered,
        args: Arguments<'_>,
        shards: &ShardSet,
    ) {
        let is_free = self.run_if_free(number, command, args, shards);
        let connection = &mut self.connections[number];
        if is_free {
            connection.busy_since_ns = None;
            return;
        }
        let now_ns = self.node.clock.elapsed_ns();
        let since_ns = *connection.busy_since_ns.get_or_insert(now_ns);
        if now_ns - since_ns < BORROW_PATIENCE.as_nanos() as u64 {
            connection.hold = Hold::Busy(OwnedRequest::copy(args));
            self.busy.push(number);
            return;
        }
        connection.busy_since_ns = None;
        self.node.stats[self.index].lends.add(1);
        connection.hold = Hold::UnderWay;
        let sequence = connection.output.issue();
        let mut missing: Vec<usize> = shards.iter().collect();
        missing.reverse();
        let operation = self.operations.insert(Operation {
            connection: number,
            client: connection.client.id,
            sequence,
            command,
            request: OwnedRequest::copy(args),
            missing,
            lent: (0..self.mesh.len()).map(|_| None).collect(),
        });
        self.ask_for_next(operation);
    }

    /// Runs the command at once if no partition that it needs is taken.
    fn run_if_free(
        &mut self,
        number: usize,
        command: &'static Registered,
        args: Arguments<'_>,
        shards: &ShardSet,
    ) -> bool {
        if !self.waiting.is_empty() {
            return false;
        }
        let mesh = std::sync::Arc::clone(&self.mesh);
        let mut cells: SmallVec<[_; 8]> = SmallVec::new();
        for shard in shards.iter() {
            match mesh.cell(shard).borrow_within(BORROW_LIMIT) {
                Some(held) => cells.push((shard, held)),
                None => return false,
            }
        }
        let sequence = self.connections[number].output.issue();
        let mut partitions: SmallVec<[Option<Box<Partition>>; 8]> = (0..mesh.len()).map(|_| None).collect();
        for (shard, held) in &mut cells {
            partitions[*shard] = Some(held.take());
        }
        self.run_lent(number, sequence, command, args, &mut partitions);
        for (shard, held) in &mut cells {
            if let Some(partition) = partitions[*shard].take() {
                held.put(partition);
            }
        }
        true
    }

    /// Asks for the next partition; runs the command when there is none left to ask for.
    fn ask_for_next(&mut self, number: usize) {
        let Some(operation) = self.operations.get_mut(number) else {
            return;
        };
        match operation.missing.last() {
            Some(&shard) => self.mesh.send(
                shard,
                Message::Lend {
                    borrower: self.index,
                    operation: number,
                },
            ),
            None => self.run_operation(number),
        }
    }

    /// A partition that was asked for is here.
    pub(super) fn lent(&mut self, number: usize, partition: Box<Partition>) {
        let Some(operation) = self.operations.get_mut(number) else {
            return self.give_back(partition);
        };
        operation.missing.pop();
        let shard = partition.shard;
        operation.lent[shard] = Some(partition);
        self.ask_for_next(number);
    }

    fn run_operation(&mut self, number: usize) {
        let Some(mut operation) = self.operations.try_remove(number) else {
            return;
        };
        let connection = operation.connection;
        // The client may have gone meanwhile; its command runs all the same, as it would have on one shard.
        let is_here = self
            .connections
            .get(connection)
            .is_some_and(|found| found.client.id == operation.client);
        if is_here {
            self.connections[connection].hold = Hold::None;
            let args = operation.request.arguments();
            self.run_lent(
                connection,
                operation.sequence,
                operation.command,
                args,
                &mut operation.lent,
            );
            self.wake_if_it_may_go_on(connection);
        }
        for partition in operation.lent.into_iter().flatten() {
            self.give_back(partition);
        }
    }

    fn give_back(&mut self, partition: Box<Partition>) {
        self.mesh.send(partition.shard, Message::Returned(partition));
    }

    /// Runs a command on the partitions it needs, and answers it.
    fn run_lent(
        &mut self,
        number: usize,
        sequence: u32,
        command: &'static Registered,
        args: Arguments<'_>,
        partitions: &mut [Option<Box<Partition>>],
    ) {
        let before = shardis_storage::memory::thread_balance();
        let begin_ns = self.node.clock.elapsed_ns();
        let node = std::sync::Arc::clone(&self.node);
        let hush = self.leaves_channels(number, command).then(|| self.hush(&node));
        let start = self.connections[number].output.begin(sequence).len();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            self.run_on(number, sequence, command, args, &mut *partitions);
        }));
        if outcome.is_err() {
            self.node.log.warning(format_args!(
                "a handler of '{}' panicked: the command was answered with an error, and what it had changed so far \
                 stays; please report this as a bug",
                command.full_name
            ));
            let connection = &mut self.connections[number];
            // A transaction that was running is over.
            connection.client.denies_blocking = false;
            // What the handler had written of its reply goes with it.
            connection.output.begin(sequence).truncate(start);
            self.node.stats[self.index].failed(command.id, &ReplyError::Internal.line());
            self.reply_to(number, sequence, |reply| {
                reply.error(ReplyError::Internal.line());
            });
        }
        drop(hush);
        let nanos = self.node.clock.elapsed_ns() - begin_ns;
        if self.connections[number].client.waits.is_none() {
            self.account_for(number, command, args, nanos);
        }
        // Which shard it was allocated for is not told apart: each is booked its part of the whole.
        let taken = shardis_storage::memory::thread_balance() - before;
        let count = partitions.iter().flatten().count() as i64;
        for (nth, partition) in (0..).zip(partitions.iter_mut().flatten()) {
            partition.memory_bytes += taken.div_euclid(count) + i64::from(nth < taken.rem_euclid(count));
            count_memory(partition, &self.node, |_| {});
        }
    }

    fn run_on(
        &mut self,
        number: usize,
        sequence: u32,
        command: &'static Registered,
        args: Arguments<'_>,
        partitions: &mut [Option<Box<Partition>>],
    ) {
        let environment = environment!(self);
        let connection = &mut self.connections[number];
        let (db, modes, resp) = (connection.client.db, connection.modes(), connection.client.resp);
        let (out, start) = connection.output.begin_at(sequence);
        let wish = RefCell::new(None);
        let result = match command.row.runs {
            Runs::Exec => {
                let mut caller = transaction::Caller {
                    client: &mut connection.client,
                    node: &self.node,
                    journal: self.journal.as_ref(),
                    now_ms: self.now_us / 1000,
                    lines: self.node.monitors.are_there().then_some(&mut self.lines),
                };
                transaction::exec(&mut caller, partitions, out, &environment)
            }
            Runs::OnSessionAndKeys(handler) | Runs::OnSessionAndAllShards(handler) => {
                let mut view = View::new(Held::Many(partitions), environment.hasher, environment.stamp, db);
                let mut session = Session {
                    args,
                    reply: Encoder::new(out, resp),
                    client: &mut connection.client,
                    node: &self.node,
                    journal: self.journal.as_ref(),
                    now_ms: self.now_us / 1000,
                };
                handler(&mut session, &mut view)
            }
            _ => {
                let call = Call {
                    command,
                    args,
                    db,
                    modes,
                    routed: Routed::default(),
                    waiting: Waiting::Allowed(&wish),
                };
                run::run_call(Held::Many(partitions), call, None, out, &environment);
                Ok(())
            }
        };
        if let Err(error) = &result {
            environment.stats.failed(command.id, &error.line());
        }
        run::finish(result, start, connection.output.begin(sequence), resp);
        if let Some(wish) = wish.into_inner() {
            return self.block(number, sequence, command, args, wish, partitions);
        }
        if matches!(command.row.runs, Runs::Exec) {
            // What a command of the transaction changed holds for what follows, beginning with those who wait.
            self.take_settings();
        }
        serve_ready(Held::Many(partitions), &environment!(self));
        let connection = &mut self.connections[number];
        connection.mute(sequence, start);
        connection.output.end(sequence, start);
        self.mark_dirty(number);
    }

    /// Does work that needs this shard's partition, or has it wait until that is back. In order.
    pub(super) fn work(&mut self, work: Work) {
        if !self.waiting.is_empty() {
            return self.waiting.push_back(work);
        }
        if let Err(work) = self.try_work(work) {
            self.waiting.push_back(work);
        }
    }

    /// The partition is back: what waited for it goes on, until it is lent again.
    pub(super) fn returned(&mut self, partition: Box<Partition>) {
        self.mesh.cell(self.index).put_back(partition);
        while let Some(work) = self.waiting.pop_front() {
            if let Err(work) = self.try_work(work) {
                return self.waiting.push_front(work);
            }
        }
    }

    /// Does the work, or gives it back when the partition is lent.
    fn try_work(&mut self, work: Work) -> Result<(), Work> {
        match work {
            Work::Run(mut batch) => {
                if !self.run_sent(&mut batch) {
                    return Err(Work::Run(batch));
                }
                self.send_back(batch);
            }
            Work::Lend { borrower, operation } => match self.mesh.cell(self.index).take() {
                Some(partition) => self.mesh.send(borrower, Message::Lent { operation, partition }),
                None => return Err(Work::Lend { borrower, operation }),
            },
            Work::Withdraw(ticket) => {
                if !self.withdraw(&ticket) {
                    return Err(Work::Withdraw(ticket));
                }
            }
            Work::Serve(retry) => {
                if !self.serve_stuck(retry) {
                    return Err(Work::Serve(retry));
                }
            }
            Work::Gather(gather) => {
                if !self.run_part(&gather) {
                    return Err(Work::Gather(gather));
                }
            }
        }
        Ok(())
    }

    fn send_back(&mut self, batch: Box<Batch>) {
        if batch.origin == self.index {
            self.deliver(batch);
        } else {
            self.mesh.send(batch.origin, Message::Done(batch));
        }
    }
}
