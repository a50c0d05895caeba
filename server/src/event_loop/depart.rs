//! Commands whose keys leave for another node: from the end of the first run to the beginning of the second.

use std::sync::Arc;

use super::EventLoop;
use super::lend::{LentFor, Operation, hold_all};
use super::run::Issued;
use crate::connection::Gate;
use crate::dispatch::plan::ShardSet;
use crate::exec::OwnedRequest;
use crate::exec::departure::Landed;
use crate::exec::view::Lent;
use crate::shard::departures::Shipment;

impl EventLoop {
    /// Whether the keys of a client's command are to be sent now.
    pub(super) fn departs(&self, number: usize) -> bool {
        self.clients[number].client.departs()
    }

    /// Sends the keys of a command that has given its partitions back. It gets them again for its second run.
    pub(super) fn depart_from_cells(&mut self, issued: Issued<'_>, shards: &ShardSet, nanos: u64) {
        let mut missing: Vec<usize> = shards.iter().collect();
        missing.reverse();
        self.depart(Operation {
            purpose: LentFor::Command {
                connection: issued.number,
                sequence: issued.sequence,
                command: issued.command,
                request: OwnedRequest::copy(issued.args),
                nanos,
            },
            missing,
            lent: Lent::new(self.reach.mesh.len()),
            returns: None,
            era: self.reach.eras.present(),
        });
    }

    /// Sends the keys of a command that has partitions. A transaction keeps them, so that nothing comes between its commands; any
    /// other command gives them back meanwhile.
    pub(super) fn depart_with_partitions(&mut self, mut operation: Operation) {
        if let LentFor::Command { command, .. } = &operation.purpose
            && !command.row.runs.is_exec()
        {
            operation.missing = operation.lent.shards().rev().collect();
            let lent = std::mem::replace(&mut operation.lent, Lent::new(self.reach.mesh.len()));
            self.give_back(lent);
        }
        self.depart(operation);
    }

    fn depart(&mut self, operation: Operation) {
        let number = operation.connection().expect("only a command sends keys");
        let connection = &mut self.clients[number];
        let departure = connection.client.departure.as_mut();
        let Some(cargo) = departure.and_then(|departure| departure.cargo.take()) else {
            unreachable!("a command that departs has something to send")
        };
        connection.gate = Gate::UnderWay;
        let shipment = Shipment {
            origin: self.index,
            operation: self.reach.operations.insert(operation),
            cargo,
        };
        self.departures.send(shipment);
    }

    /// Goes on with a command whose keys have been sent, or have not.
    pub(super) fn landed(&mut self, number: usize, landed: Landed) {
        let connection = self.reach.operations.get(number).and_then(Operation::connection);
        let Some(connection) = connection else { return };
        if let Some(departure) = &mut self.clients[connection].client.departure {
            departure.landed = Some(landed);
        }
        self.take_free(number);
        self.ask_for_next(number);
    }

    /// Takes the partitions that an operation lacks, if all of them are free: asking for them takes two messages for each.
    fn take_free(&mut self, number: usize) {
        let mesh = Arc::clone(&self.reach.mesh);
        let operation = &mut self.reach.operations[number];
        let mut shards = ShardSet::none(mesh.len());
        operation.missing.iter().for_each(|&shard| shards.insert(shard));
        let is_idle = self.reach.waiting.is_empty();
        let Some(cells) = is_idle.then(|| hold_all(&mesh, &shards)).flatten() else {
            return;
        };
        operation.missing.clear();
        for (shard, held) in cells {
            operation.lent[shard] = Some(held.take_away());
        }
    }
}
