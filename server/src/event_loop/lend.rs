//! Commands over several shards: the shards' partitions are lent to the loop of the connection, which runs the
//! command with direct access to all of them.
//!
//! If all partitions are free at this moment or soon, a short command holds their cells while it runs. A long one
//! takes the partitions out of the cells: the loops of those shards go on with everything else, and work that needs
//! the partitions waits until they are back. If one of them is taken, the command tries again in the next turns. Only
//! when that goes on for too long, because a shard runs something long, the loop asks the owners, in ascending order
//! of shards, and each sends its partition once it has done the work that came before. Because of that order,
//! coordinators never wait for each other in a circle.
//!
//! A command that has begun runs, even if its client disconnects: the connection is closed when the command has run.

use std::sync::Arc;

use shardis_protocol::Arguments;
use smallvec::SmallVec;

use super::EventLoop;
use super::run::Issued;
use crate::commands::registry;
use crate::connection::Gate;
use crate::dispatch::plan::{Place, ShardSet, shards_of_transaction};
use crate::exec::view::Lent;
use crate::exec::{Client, OwnedRequest, Partition};
use crate::limits::{BORROW_LIMIT, BORROW_PATIENCE, SHORT_QUEUE_MAX};
use crate::shard::Mesh;
use crate::shard::cell::Guard;
use crate::shard::inbox::Message;
use crate::spec::Registered;

/// A command over several shards that is under way: it waits for partitions, or holds them and waits for parts of
/// other loops.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) connection: usize,
    sequence: u32,
    command: &'static Registered,
    request: OwnedRequest,
    /// Shards that are still to be asked, the next one last.
    missing: Vec<usize>,
    /// Partitions lent so far, by shard.
    pub(super) lent: Lent,
    /// Time that the command has run so far, nanoseconds.
    nanos: u64,
}

/// Cells that are held together, in ascending order of shards.
type Cells<'m> = SmallVec<[(usize, Guard<'m, Partition>); 8]>;

impl EventLoop {
    /// Begins a command that needs more than one shard or loop. It runs when all commands before it have been
    /// answered, and the commands after it wait for it.
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
            Place::EveryShard | Place::EveryLoop => self.begin_gathering(number, command, args),
            Place::From(_) => self.begin_walk(number, command, args),
            Place::Lend(shards) | Place::LendToSession(shards) => {
                self.begin_operation(number, command, args, &shards);
            }
            Place::Exec => {
                let shards = shards_of_transaction(&connection.client, self.node.hashing);
                self.begin_operation(number, command, args, &shards);
            }
            Place::Session | Place::Shard { .. } => {
                unreachable!("commands on one shard or none do not span several")
            }
        }
    }

    /// Runs a command if all partitions that it needs are free; else makes it try again, or asks for the partitions.
    fn begin_operation(
        &mut self,
        number: usize,
        command: &'static Registered,
        args: Arguments<'_>,
        shards: &ShardSet,
    ) {
        let mesh = Arc::clone(&self.reach.mesh);
        let cells = self
            .reach
            .waiting
            .is_empty()
            .then(|| hold_all(&mesh, shards))
            .flatten();
        let connection = &mut self.clients[number];
        if let Some(cells) = cells {
            connection.busy_since_ns = None;
            let issued = Issued {
                connection: number,
                sequence: connection.output.issue(),
                command,
                args,
            };
            return if is_long(&connection.client, command, args) {
                self.run_taken_away(issued, cells);
            } else {
                self.run_in_cells(issued, cells);
            };
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
        let mut missing: Vec<usize> = shards.iter().collect();
        missing.reverse();
        let operation = self.reach.operations.insert(Operation {
            connection: number,
            sequence: connection.output.issue(),
            command,
            request: OwnedRequest::copy(args),
            missing,
            lent: Lent::new(mesh.len()),
            nanos: 0,
        });
        self.ask_for_next(operation);
    }

    /// Runs a short command while its cells are held.
    fn run_in_cells(&mut self, issued: Issued<'_>, mut cells: Cells<'_>) {
        let mut partitions = Lent::new(self.reach.mesh.len());
        for (shard, held) in &mut cells {
            partitions[*shard] = Some(held.take());
        }
        let suspended = self.run_on_partitions(issued, &mut partitions, 0);
        debug_assert!(suspended.is_none(), "what may be suspended is long");
        for (shard, held) in &mut cells {
            if let Some(partition) = partitions[*shard].take() {
                held.put(partition);
            }
        }
    }

    /// Runs a long command on partitions that were taken out of their cells.
    fn run_taken_away(&mut self, issued: Issued<'_>, cells: Cells<'_>) {
        let mut partitions = Lent::new(self.reach.mesh.len());
        for (shard, held) in cells {
            partitions[shard] = Some(held.take_away());
        }
        match self.run_on_partitions(issued, &mut partitions, 0) {
            None => self.give_back(partitions),
            Some(nanos) => {
                self.clients[issued.connection].gate = Gate::UnderWay;
                self.suspend(Operation {
                    connection: issued.connection,
                    sequence: issued.sequence,
                    command: issued.command,
                    request: OwnedRequest::copy(issued.args),
                    missing: Vec::new(),
                    lent: partitions,
                    nanos,
                });
            }
        }
    }

    /// Keeps an operation whose transaction needs the parts of all loops for its next command, and asks for them.
    fn suspend(&mut self, operation: Operation) {
        let number = operation.connection;
        let operation = self.reach.operations.insert(operation);
        self.gather_for_exec(number, operation);
    }

    /// Asks for the next partition that an operation lacks; runs the operation when it lacks none.
    pub(super) fn ask_for_next(&mut self, number: usize) {
        let Some(operation) = self.reach.operations.get(number) else {
            return;
        };
        if let Some(&shard) = operation.missing.last() {
            return self.reach.send(
                shard,
                Message::Lend {
                    borrower: self.index,
                    operation: number,
                },
            );
        }
        let operation = self.reach.operations.remove(number);
        self.run_operation(operation);
    }

    /// Takes in a partition that was asked for.
    pub(super) fn lent(&mut self, number: usize, partition: Box<Partition>) {
        let operation = &mut self.reach.operations[number];
        let asked_for = operation.missing.pop();
        debug_assert_eq!(asked_for, Some(partition.shard));
        let shard = partition.shard;
        operation.lent[shard] = Some(partition);
        self.ask_for_next(number);
    }

    fn run_operation(&mut self, mut operation: Operation) {
        let number = operation.connection;
        let issued = Issued {
            connection: number,
            sequence: operation.sequence,
            command: operation.command,
            args: operation.request.arguments(),
        };
        self.clients[number].gate = Gate::Open;
        if let Some(nanos) = self.run_on_partitions(issued, &mut operation.lent, operation.nanos) {
            self.clients[number].gate = Gate::UnderWay;
            operation.nanos = nanos;
            return self.suspend(operation);
        }
        self.give_back(operation.lent);
        self.clients.wake_if_it_may_go_on(number);
    }

    /// Puts partitions back into their cells. Owners that have looked for them meanwhile are told.
    fn give_back(&mut self, mut partitions: Lent) {
        for partition in partitions.iter_mut().filter_map(Option::take) {
            let shard = partition.shard;
            if !self.reach.mesh.cell(shard).put_back(partition) {
                continue;
            }
            if shard == self.index {
                self.returned();
            } else {
                self.reach.send(shard, Message::Returned);
            }
        }
    }
}

/// Holds the cells of all these shards; none if one of them stays taken for longer than a moment.
fn hold_all<'m>(mesh: &'m Mesh, shards: &ShardSet) -> Option<Cells<'m>> {
    shards
        .iter()
        .map(|shard| Some((shard, mesh.cell(shard).borrow_within(BORROW_LIMIT)?)))
        .collect()
}

/// Whether a command takes long. EXEC does if a queued command does, if the queue is long, or if it needs parts of
/// other loops.
fn is_long(client: &Client, command: &Registered, args: Arguments<'_>) -> bool {
    match &client.transaction {
        Some(transaction) if command.row.runs.is_exec() => {
            transaction.queue.len() > SHORT_QUEUE_MAX
                || transaction.queue.iter().any(|queued| {
                    let command = registry().row(queued.command.id);
                    !command.row.runs.is_on_session() && command.is_long(queued.request.arguments())
                })
        }
        _ => !command.row.runs.is_exec() && command.is_long(args),
    }
}
