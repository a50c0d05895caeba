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
use crate::dispatch::behind_snapshot::spanning_waits;
use crate::dispatch::plan::{Place, ShardSet, shards_of_transaction};
use crate::exec::cut::make_cut;
use crate::exec::view::{Held, Lent};
use crate::exec::waiter::Retry;
use crate::exec::{Client, OwnedRequest, Partition};
use crate::limits::{BORROW_LIMIT, BORROW_PATIENCE, SHORT_QUEUE_MAX};
use crate::shard::Mesh;
use crate::shard::cell::Guard;
use crate::shard::inbox::Message;
use crate::spec::Registered;

/// Something over several shards that is under way: it waits for partitions, or holds them and waits for parts of other
/// loops.
#[derive(Debug)]
pub(super) struct Operation {
    /// Use of the partitions once all are lent.
    purpose: LentFor,
    /// Shards that are still to be asked, the next one last.
    missing: Vec<usize>,
    /// Partitions lent so far, by shard.
    pub(super) lent: Lent,
}

/// Use of the partitions that are lent to an operation.
#[derive(Debug)]
enum LentFor {
    /// A command of a connection.
    Command {
        connection: usize,
        sequence: u32,
        command: &'static Registered,
        request: OwnedRequest,
        /// Time that the command has run so far, nanoseconds.
        nanos: u64,
    },
    /// A retry that has found one of its two shards taken for too long.
    Retry(Retry),
    /// The cut of a snapshot.
    Cut,
}

impl Operation {
    /// The connection whose command it is, if it is one.
    pub(super) fn connection(&self) -> Option<usize> {
        match self.purpose {
            LentFor::Command { connection, .. } => Some(connection),
            LentFor::Retry(_) | LentFor::Cut => None,
        }
    }
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
        let mut cells = self
            .reach
            .waiting
            .is_empty()
            .then(|| hold_all(&mesh, shards))
            .flatten();
        if let Some(cells) = &mut cells
            && self.waits_in_cells(number, (command, args), cells)
        {
            return self.clients.put_behind_snapshot(number, args);
        }
        let connection = &mut self.clients[number];
        if let Some(cells) = cells {
            connection.busy_since_ns = None;
            let issued = Issued {
                number,
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
            purpose: LentFor::Command {
                connection: number,
                sequence: connection.output.issue(),
                command,
                request: OwnedRequest::copy(args),
                nanos: 0,
            },
            missing,
            lent: Lent::new(mesh.len()),
        });
        self.ask_for_next(operation);
    }

    /// Runs a short command while its cells are held.
    fn run_in_cells(&mut self, issued: Issued<'_>, mut cells: Cells<'_>) {
        self.with_cells(&mut cells, |event_loop, partitions| {
            let suspended = event_loop.run_on_partitions(issued, partitions, 0);
            debug_assert!(suspended.is_none(), "what may be suspended is long");
        });
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
                self.suspend(Operation {
                    purpose: LentFor::Command {
                        connection: issued.number,
                        sequence: issued.sequence,
                        command: issued.command,
                        request: OwnedRequest::copy(issued.args),
                        nanos,
                    },
                    missing: Vec::new(),
                    lent: partitions,
                });
            }
        }
    }

    /// Keeps an operation whose transaction needs the parts of all loops for its next command, and asks for them.
    fn suspend(&mut self, operation: Operation) {
        let number = operation.connection().expect("a retry is no transaction");
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
        if self.waits_lent(&mut operation) {
            // Others need the partitions meanwhile. They are asked for again.
            operation.missing = operation.lent.shards().rev().collect();
            let lent = std::mem::replace(&mut operation.lent, Lent::new(self.reach.mesh.len()));
            self.give_back(lent);
            return self.reach.operations_behind.push(operation);
        }
        let Operation {
            purpose, mut lent, ..
        } = operation;
        match purpose {
            LentFor::Command {
                connection,
                sequence,
                command,
                request,
                nanos,
            } => {
                self.clients[connection].gate = Gate::Open;
                let issued = Issued {
                    number: connection,
                    sequence,
                    command,
                    args: request.arguments(),
                };
                if let Some(nanos) = self.run_on_partitions(issued, &mut lent, nanos) {
                    return self.suspend(Operation {
                        purpose: LentFor::Command {
                            connection,
                            sequence,
                            command,
                            request,
                            nanos,
                        },
                        missing: Vec::new(),
                        lent,
                    });
                }
                self.give_back(lent);
                self.clients.wake_if_it_may_go_on(connection);
            }
            LentFor::Retry(retry) => {
                self.serve_lent(retry, &mut lent);
                self.give_back(lent);
            }
            LentFor::Cut => {
                self.saving.is_lending = false;
                self.cut(&mut lent);
                self.give_back(lent);
            }
        }
    }

    /// Whether a command has to wait for a snapshot, on partitions in cells that are held.
    fn waits_in_cells(
        &self,
        number: usize,
        request: (&'static Registered, Arguments<'_>),
        cells: &mut Cells<'_>,
    ) -> bool {
        let hashing = self.node.hashing;
        let mut partitions = cells.iter_mut().map(|(_, held)| &*held.get());
        if !partitions.any(|partition| partition.keyspace.has_snapshot() || partition.is_sealed()) {
            return false;
        }
        let is_sealed = cells
            .iter_mut()
            .any(|(_, held)| self.node.is_sealed(held.get().seal));
        let client = &self.clients[number].client;
        spanning_waits(client, request, hashing, is_sealed, |db, key| {
            let shard = hashing.shard_of(key.slot);
            let held = cells.iter_mut().find(|(of, _)| *of == shard);
            held.is_some_and(|(_, held)| held.get().waits_for_snapshot(db, key))
        })
    }

    /// Whether the command of an operation has to wait for a snapshot, on partitions that are lent to it.
    fn waits_lent(&self, operation: &mut Operation) -> bool {
        let LentFor::Command {
            connection,
            command,
            request,
            ..
        } = &operation.purpose
        else {
            return false;
        };
        let client = &self.clients[*connection].client;
        let is_begun = client
            .transaction
            .as_ref()
            .is_some_and(|transaction| transaction.suspended.is_some());
        let partitions = || operation.lent.iter().flatten();
        if is_begun
            || !partitions().any(|partition| partition.keyspace.has_snapshot() || partition.is_sealed())
        {
            return false;
        }
        let is_sealed = partitions().any(|partition| self.node.is_sealed(partition.seal));
        let (hashing, request) = (self.node.hashing, (*command, request.arguments()));
        let lent = &mut operation.lent;
        spanning_waits(client, request, hashing, is_sealed, |db, key| {
            let partition = lent[hashing.shard_of(key.slot)].as_deref_mut();
            partition.is_some_and(|partition| partition.waits_for_snapshot(db, key))
        })
    }

    /// Begins operations again that wait for a snapshot.
    pub(super) fn resume_operations(&mut self) {
        for operation in std::mem::take(&mut self.reach.operations_behind) {
            let number = self.reach.operations.insert(operation);
            self.ask_for_next(number);
        }
    }

    /// Asks for the two shards of a retry, in ascending order as for every operation: then their own work cannot keep it from
    /// being done.
    pub(super) fn lend_to_retry(&mut self, retry: Retry) {
        self.node.stats[self.index].lends.add(1);
        let mut missing = vec![retry.shard, retry.needs];
        missing.sort_unstable_by(|one, other| other.cmp(one));
        let operation = self.reach.operations.insert(Operation {
            purpose: LentFor::Retry(retry),
            missing,
            lent: Lent::new(self.reach.mesh.len()),
        });
        self.ask_for_next(operation);
    }

    /// Makes the cut of a snapshot, if all partitions are free. If they are not for too long, they are asked for.
    pub(super) fn begin_cut(&mut self) {
        let mesh = Arc::clone(&self.reach.mesh);
        let shards = ShardSet::all(mesh.len());
        let cells = self
            .reach
            .waiting
            .is_empty()
            .then(|| hold_all(&mesh, &shards))
            .flatten();
        if let Some(mut cells) = cells {
            self.saving.taken_since_ns = None;
            return self.with_cells(&mut cells, Self::cut);
        }
        let now_ns = self.node.clock.elapsed_ns();
        let since_ns = *self.saving.taken_since_ns.get_or_insert(now_ns);
        if now_ns - since_ns < BORROW_PATIENCE.as_nanos() as u64 {
            return;
        }
        self.saving.taken_since_ns = None;
        self.saving.is_lending = true;
        self.node.stats[self.index].lends.add(1);
        let operation = self.reach.operations.insert(Operation {
            purpose: LentFor::Cut,
            missing: (0..mesh.len()).rev().collect(),
            lent: Lent::new(mesh.len()),
        });
        self.ask_for_next(operation);
    }

    fn cut(&mut self, lent: &mut Lent) {
        self.environment().hand_over();
        lent.begin();
        make_cut(&mut Held::Many(lent), &self.node, &self.settings);
        lent.settle();
    }

    /// Calls `act` with the partitions in cells that are held.
    fn with_cells(&mut self, cells: &mut Cells<'_>, act: impl FnOnce(&mut Self, &mut Lent)) {
        let mut partitions = Lent::new(self.reach.mesh.len());
        for (shard, held) in &mut *cells {
            partitions[*shard] = Some(held.take());
        }
        act(self, &mut partitions);
        for (shard, held) in cells {
            if let Some(partition) = partitions[*shard].take() {
                held.put(partition);
            }
        }
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
