//! Commands over several shards: the shards' partitions are lent to the loop of the connection, which runs the command
//! with plain access to all of them.
//!
//! If all of them are free at this moment or soon, the loop holds their cells while it runs, and nobody notices. If not, it
//! tries again in the next turns. Only when that goes on for too long, because a shard runs something long, it asks the
//! owners, in ascending order of shards, and each hands its partition over by value once it has done what came before. Two
//! coordinators can wait for each other only in ascending order, so never in a circle.

use shardis_protocol::Arguments;
use smallvec::SmallVec;

use super::EventLoop;
use super::run::Issued;
use crate::connection::Gate;
use crate::dispatch::plan::{Place, ShardSet, shards_of_transaction};
use crate::exec::view::Lent;
use crate::exec::{OwnedRequest, Partition};
use crate::limits::{BORROW_LIMIT, BORROW_PATIENCE};
use crate::shard::inbox::Message;
use crate::spec::Registered;

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
    lent: Lent,
}

impl EventLoop {
    /// Begins a command that needs more than one shard or loop. It runs when all before it has been answered, and what
    /// comes after it waits.
    pub(super) fn begin_spanning(
        &mut self,
        number: usize,
        command: &'static Registered,
        args: Arguments<'_>,
        place: Place,
    ) {
        let connection = &mut self.clients[number];
        if connection.output.in_flight() > 0 {
            connection.gate = Gate::Drain(OwnedRequest::copy(args));
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
                let connection = &self.clients[number];
                let shards =
                    shards_of_transaction(&connection.client, self.node.hasher, self.reach.mesh.len());
                self.begin_operation(number, command, args, &shards);
            }
            Place::Session | Place::Shard { .. } => {
                unreachable!("commands on one shard or none do not span several")
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
        let connection = &mut self.clients[number];
        if is_free {
            connection.busy_since_ns = None;
            return;
        }
        let now_ns = self.node.clock.elapsed_ns();
        let since_ns = *connection.busy_since_ns.get_or_insert(now_ns);
        if now_ns - since_ns < BORROW_PATIENCE.as_nanos() as u64 {
            connection.gate = Gate::Busy(OwnedRequest::copy(args));
            self.clients.busy.push(number);
            return;
        }
        connection.busy_since_ns = None;
        self.node.stats[self.index].lends.add(1);
        connection.gate = Gate::UnderWay;
        let sequence = connection.output.issue();
        let mut missing: Vec<usize> = shards.iter().collect();
        missing.reverse();
        let operation = self.reach.operations.insert(Operation {
            connection: number,
            client: connection.client.id,
            sequence,
            command,
            request: OwnedRequest::copy(args),
            missing,
            lent: Lent::new(self.reach.mesh.len()),
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
        if !self.reach.waiting.is_empty() {
            return false;
        }
        let mesh = std::sync::Arc::clone(&self.reach.mesh);
        let mut cells: SmallVec<[_; 8]> = SmallVec::new();
        for shard in shards.iter() {
            match mesh.cell(shard).borrow_within(BORROW_LIMIT) {
                Some(held) => cells.push((shard, held)),
                None => return false,
            }
        }
        let sequence = self.clients[number].output.issue();
        let mut partitions = Lent::new(mesh.len());
        for (shard, held) in &mut cells {
            partitions[*shard] = Some(held.take());
        }
        let issued = Issued {
            connection: number,
            sequence,
            command,
            args,
        };
        self.run_on_partitions(issued, &mut partitions);
        for (shard, held) in &mut cells {
            if let Some(partition) = partitions[*shard].take() {
                held.put(partition);
            }
        }
        true
    }

    /// Asks for the next partition; runs the command when there is none left to ask for.
    fn ask_for_next(&mut self, number: usize) {
        let Some(operation) = self.reach.operations.get_mut(number) else {
            return;
        };
        match operation.missing.last() {
            Some(&shard) => self.reach.send(
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
        let Some(operation) = self.reach.operations.get_mut(number) else {
            return self.give_back(partition);
        };
        operation.missing.pop();
        let shard = partition.shard;
        operation.lent[shard] = Some(partition);
        self.ask_for_next(number);
    }

    fn run_operation(&mut self, number: usize) {
        let Some(mut operation) = self.reach.operations.try_remove(number) else {
            return;
        };
        let connection = operation.connection;
        // The client may have gone meanwhile; its command runs all the same, as it would have on one shard.
        let is_here = self
            .clients
            .get(connection)
            .is_some_and(|found| found.client.id == operation.client);
        if is_here {
            self.clients[connection].gate = Gate::Open;
            let issued = Issued {
                connection,
                sequence: operation.sequence,
                command: operation.command,
                args: operation.request.arguments(),
            };
            self.run_on_partitions(issued, &mut operation.lent);
            self.clients.wake_if_it_may_go_on(connection);
        }
        for partition in operation.lent.iter_mut().filter_map(Option::take) {
            self.give_back(partition);
        }
    }

    fn give_back(&mut self, partition: Box<Partition>) {
        self.reach.send(partition.shard, Message::Returned(partition));
    }
}
