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
use crate::dispatch::script::{is_short, shards_of_script};
use crate::exec::client::ScriptStage;
use crate::exec::cut::make_cut;
use crate::exec::view::{Held, Lent};
use crate::exec::waiter::Retry;
use crate::exec::{Client, OwnedRequest, Partition};
use crate::limits::{BORROW_LIMIT, BORROW_PATIENCE, SHORT_QUEUE_MAX};
use crate::shard::Mesh;
use crate::shard::cell::Guard;
use crate::shard::inbox::Message;
use crate::spec::{Flags, Registered};

/// Something over several shards that is under way: it waits for partitions, or holds them and waits for parts of other
/// loops.
#[derive(Debug)]
pub(super) struct Operation {
    /// Use of the partitions once all are lent.
    pub(super) purpose: LentFor,
    /// Shards that are still to be asked, the next one last.
    pub(super) missing: Vec<usize>,
    /// Partitions lent so far, by shard.
    pub(super) lent: Lent,
    /// Shard that was asked for, and that is given back when it comes: the operation has given way to another one.
    pub(super) returns: Option<usize>,
    /// Era of the loop's work that it belongs to: one that has run in part stays in its own.
    pub(super) era: u64,
}

/// Use of the partitions that are lent to an operation.
#[derive(Debug)]
pub(super) enum LentFor {
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
    /// Nothing any more: what was asked for is given back when it comes.
    Nobody,
}

impl Operation {
    /// A command that has run in part, with its partitions.
    fn of(issued: Issued<'_>, nanos: u64, lent: Lent, era: u64) -> Self {
        Self {
            purpose: LentFor::Command {
                connection: issued.number,
                sequence: issued.sequence,
                command: issued.command,
                request: OwnedRequest::copy(issued.args),
                nanos,
            },
            missing: Vec::new(),
            lent,
            returns: None,
            era,
        }
    }

    /// The connection whose command it is, if it is one.
    pub(super) fn connection(&self) -> Option<usize> {
        match self.purpose {
            LentFor::Command { connection, .. } => Some(connection),
            LentFor::Retry(_) | LentFor::Cut | LentFor::Nobody => None,
        }
    }
}

/// Cells that are held together, in ascending order of shards.
pub(super) type Cells<'m> = SmallVec<[(usize, Guard<'m, Partition>); 8]>;

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
            Place::Script(kind) => {
                let shards = shards_of_script(kind, args, (&self.node, self.index));
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
        // The cells are filled in place: there is room for many, and to move them would cost more than to take one.
        let mut cells = Cells::new();
        if !self.reach.waiting.is_empty() || !hold_into(&mut cells, &mesh, shards) {
            drop(cells);
            return self.try_later_or_ask(number, (command, args), shards);
        }
        if self.waits_in_cells(number, (command, args), &mut cells) {
            drop(cells);
            return self.clients.put_behind_snapshot(number, args);
        }
        let is_long = self.is_long(number, command, args);
        let connection = &mut self.clients[number];
        connection.busy_since_ns = None;
        let issued = Issued {
            number,
            sequence: connection.output.issue(),
            command,
            args,
        };
        if is_long {
            self.run_taken_away(issued, cells);
        } else {
            self.run_in_cells(issued, &mut cells, shards);
        }
    }

    /// Has a command that has found a shard taken try again, or asks for the partitions when it has tried for too long.
    fn try_later_or_ask(
        &mut self,
        number: usize,
        (command, args): (&'static Registered, Arguments<'_>),
        shards: &ShardSet,
    ) {
        if self.node.scripts.long.hold_any(shards.iter()) {
            // Nobody else's shards are taken along to wait for a script.
            return self.put_behind_script(number, args);
        }
        let connection = &mut self.clients[number];
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
        let issued = Issued {
            number,
            sequence: connection.output.issue(),
            command,
            args,
        };
        let mut missing: Vec<usize> = shards.iter().collect();
        missing.reverse();
        let operation = self.reach.operations.insert(Operation {
            missing,
            ..Operation::of(
                issued,
                0,
                Lent::new(self.reach.mesh.len()),
                self.reach.eras.present(),
            )
        });
        self.ask_for_next(operation);
    }

    /// Whether a command takes long. A script does unless it is known not to.
    fn is_long(&self, number: usize, command: &'static Registered, args: Arguments<'_>) -> bool {
        match command.row.runs.script() {
            Some(kind) => !is_short(kind, args, &self.node),
            None => is_long(&self.clients[number].client, command, args),
        }
    }

    /// Runs a short command while its cells are held.
    fn run_in_cells(&mut self, issued: Issued<'_>, cells: &mut Cells<'_>, shards: &ShardSet) {
        let (mut suspended, mut kept) = (None, None);
        self.with_cells(cells, |event_loop, partitions| {
            suspended = event_loop.run_on_partitions(issued, partitions, 0);
            if event_loop.clients[issued.number].client.script != ScriptStage::None {
                // A script that is not at its end keeps its partitions: the cells stay empty, as if they had been taken away.
                let empty = Lent::new(partitions.len());
                kept = Some(std::mem::replace(partitions, empty));
            }
        });
        cells.clear();
        match (suspended, kept) {
            (None, _) => {}
            (Some(nanos), Some(lent)) => {
                let era = self.reach.eras.present();
                self.suspend(Operation::of(issued, nanos, lent, era));
            }
            (Some(nanos), None) => {
                debug_assert!(self.departs(issued.number), "what else may be suspended is long");
                self.depart_from_cells(issued, shards, nanos);
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
                let era = self.reach.eras.present();
                self.suspend(Operation::of(issued, nanos, partitions, era));
            }
        }
    }

    /// Keeps an operation whose transaction needs the parts of all loops for its next command, and asks for them; or one that leaves
    /// its work to a thread.
    fn suspend(&mut self, operation: Operation) {
        let number = operation.connection().expect("a retry is no transaction");
        if let Some(errand) = self.clients[number].client.errand.take() {
            return self.send_on_errand(operation, errand);
        }
        if self.departs(number) {
            return self.depart_with_partitions(operation);
        }
        if self.clients[number].client.script != ScriptStage::None {
            return self.set_script_aside(number, operation);
        }
        let operation = self.reach.operations.insert(operation);
        self.gather_for_exec(number, operation);
    }

    /// Asks for the next partition that an operation lacks; runs the operation when it lacks none.
    pub(super) fn ask_for_next(&mut self, number: usize) {
        let Some(operation) = self.reach.operations.get(number) else {
            return;
        };
        if let Some(&shard) = operation.missing.last() {
            // Only a script that has changed something keeps partitions while it asks out of order.
            let is_urgent = self.is_script(number);
            return self.reach.send(
                shard,
                Message::Lend {
                    borrower: self.index,
                    operation: number,
                    is_urgent,
                },
            );
        }
        if self.script_has_all(number) {
            // It goes on in its turn.
            return;
        }
        let operation = self.reach.operations.remove(number);
        self.run_operation(operation);
    }

    /// Takes in a partition that was asked for.
    pub(super) fn lent(&mut self, number: usize, partition: Box<Partition>) {
        let operation = &mut self.reach.operations[number];
        if operation.returns.take().is_some() {
            return self.lent_in_vain(number, partition);
        }
        let asked_for = operation.missing.pop();
        debug_assert_eq!(asked_for, Some(partition.shard));
        let shard = partition.shard;
        operation.lent[shard] = Some(partition);
        self.ask_for_next(number);
    }

    /// Gives a partition back that was asked for by an operation which has given way since.
    fn lent_in_vain(&mut self, number: usize, partition: Box<Partition>) {
        let mut lent = Lent::new(self.reach.mesh.len());
        lent.add(partition);
        self.give_back(lent);
        if matches!(self.reach.operations[number].purpose, LentFor::Nobody) {
            self.reach.operations.remove(number);
        } else {
            self.ask_for_next(number);
        }
    }

    pub(super) fn run_operation(&mut self, mut operation: Operation) {
        if self.waits_lent(&mut operation) {
            // Others need the partitions meanwhile. They are asked for again.
            operation.missing = operation.lent.shards().rev().collect();
            let lent = std::mem::replace(&mut operation.lent, Lent::new(self.reach.mesh.len()));
            self.give_back(lent);
            return self.reach.operations_behind.push(operation);
        }
        if self.waits_for_interpreter(&operation) {
            operation.missing = operation.lent.shards().rev().collect();
            let lent = std::mem::replace(&mut operation.lent, Lent::new(self.reach.mesh.len()));
            self.give_back(lent);
            return self.reach.operations_behind_script.push(operation);
        }
        let Operation {
            purpose,
            mut lent,
            era,
            ..
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
                    return self.suspend(Operation::of(issued, nanos, lent, era));
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
            LentFor::Nobody => unreachable!("what is asked for by nobody is given back at once"),
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
        if !partitions.any(|partition| partition.may_hold_back()) {
            return false;
        }
        let is_sealed = cells
            .iter_mut()
            .any(|(_, held)| self.node.is_sealed(held.get().seal));
        let client = &self.clients[number].client;
        spanning_waits(client, request, hashing, is_sealed, |reached, key| {
            let shard = hashing.shard_of(key.slot);
            let held = cells.iter_mut().find(|(of, _)| *of == shard);
            held.is_some_and(|(_, held)| held.get().holds_back(reached, key))
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
        let is_begun = is_begun || client.script.is_under_way();
        if is_begun || client.departure.is_some() || !partitions().any(|partition| partition.may_hold_back())
        {
            return false;
        }
        let is_sealed = partitions().any(|partition| self.node.is_sealed(partition.seal));
        let (hashing, request) = (self.node.hashing, (*command, request.arguments()));
        let lent = &mut operation.lent;
        spanning_waits(client, request, hashing, is_sealed, |reached, key| {
            let partition = lent[hashing.shard_of(key.slot)].as_deref_mut();
            partition.is_some_and(|partition| partition.holds_back(reached, key))
        })
    }

    /// Begins operations again that wait for a snapshot.
    pub(super) fn resume_operations(&mut self) {
        let operations = std::mem::take(&mut self.reach.operations_behind);
        self.begin_again(operations);
    }

    /// Has operations ask for their partitions again.
    pub(super) fn begin_again(&mut self, operations: Vec<Operation>) {
        for operation in operations {
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
            returns: None,
            era: self.reach.eras.present(),
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
        if now_ns - since_ns < BORROW_PATIENCE.as_nanos() as u64
            || self.node.scripts.long.hold_any(0..mesh.len())
        {
            return;
        }
        self.saving.taken_since_ns = None;
        self.saving.is_lending = true;
        self.node.stats[self.index].lends.add(1);
        let operation = self.reach.operations.insert(Operation {
            purpose: LentFor::Cut,
            missing: (0..mesh.len()).rev().collect(),
            lent: Lent::new(mesh.len()),
            returns: None,
            era: self.reach.eras.present(),
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
    pub(super) fn give_back(&mut self, mut partitions: Lent) {
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
pub(super) fn hold_all<'m>(mesh: &'m Mesh, shards: &ShardSet) -> Option<Cells<'m>> {
    let mut cells = Cells::new();
    hold_into(&mut cells, mesh, shards).then_some(cells)
}

/// Holds the cells of all these shards like [`hold_all`], in a place for them. False if one of them stays taken: some may be held then.
fn hold_into<'m>(cells: &mut Cells<'m>, mesh: &'m Mesh, shards: &ShardSet) -> bool {
    for shard in shards.iter() {
        let Some(held) = mesh.cell(shard).borrow_within(BORROW_LIMIT) else {
            return false;
        };
        cells.push((shard, held));
    }
    true
}

/// Whether a command takes long. EXEC does if a queued command does, if the queue is long, or if it needs parts of
/// other loops.
fn is_long(client: &Client, command: &Registered, args: Arguments<'_>) -> bool {
    match &client.transaction {
        Some(transaction) if command.row.runs.is_exec() => {
            transaction.queue.len() > SHORT_QUEUE_MAX
                || transaction.queue.iter().any(|queued| {
                    let command = registry().row(queued.command.id);
                    command.row.flags.contains(Flags::MIGRATES)
                        || !command.row.runs.is_on_session() && command.is_long(queued.request.arguments())
                })
        }
        _ => !command.row.runs.is_exec() && command.is_long(args),
    }
}
