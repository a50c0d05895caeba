//! Clients whose replies wait until the bus has carried out what their commands have decided: the file of nodes is saved, the role is
//! another one, a message is on its way that many others were before.

use super::EventLoop;
use crate::connection::Gate;

/// A client that waits.
#[derive(Debug)]
pub(super) struct Decided {
    /// Number of the decisions.
    number: u64,
    connection: usize,
    /// Sequence number of its reply.
    sequence: u32,
    reply: Vec<u8>,
}

impl EventLoop {
    /// Holds a reply back until the decisions of this number are carried out.
    pub(super) fn wait_for_bus(&mut self, number: u64, (connection, sequence): (usize, u32), reply: Vec<u8>) {
        self.clients[connection].gate = Gate::UnderWay;
        self.decided.push(Decided {
            number,
            connection,
            sequence,
            reply,
        });
        self.answer_decided();
    }

    /// Sends the replies that wait for nothing more. The bus rings the loops when there may be some.
    pub(super) fn answer_decided(&mut self) {
        if self.decided.is_empty() {
            return;
        }
        let Some(cluster) = &self.node.cluster else { return };
        let is_over = |waiting: &mut Decided| cluster.has_carried_out(waiting.number);
        let over: Vec<Decided> = self.decided.extract_if(.., is_over).collect();
        for waiting in over {
            // The connection still exists: it is closed only after its command has run.
            let connection = &mut self.clients[waiting.connection];
            connection.gate = Gate::Open;
            connection.output.deliver(waiting.sequence, &waiting.reply);
            self.clients.mark_dirty(waiting.connection);
            self.clients.wake_if_it_may_go_on(waiting.connection);
        }
    }
}
