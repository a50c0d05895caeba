//! Connections that become links: taken out of the loop's poll, with what they have sent already, and handed to the control thread.

use super::EventLoop;
use crate::connection::handover::Handover;
use crate::connection::{Connection, Gate};
use crate::error::ReplyError;
use crate::exec::Closing;
use crate::replication::SyncRequest;

/// A connection that is leaving the loop.
#[derive(Debug)]
pub(super) struct Leaving {
    connection: usize,
    /// Id of its client: another connection may get its number.
    client: u64,
    request: SyncRequest,
}

const PENDING_OUTPUT: ReplyError = ReplyError::Fixed("ERR SYNC and PSYNC are invalid with pending output");

impl EventLoop {
    /// Has a connection leave the loop, as the command that has just run asks for.
    pub(super) fn begin_hand_over(&mut self, number: usize, request: SyncRequest) {
        let connection = &mut self.clients[number];
        if connection.output.is_pending() {
            // The replica would take the replies for a part of the snapshot.
            return self
                .clients
                .reply(number, |reply| reply.error(PENDING_OUTPUT.line()));
        }
        connection.gate = Gate::Leaving;
        let client = connection.client.id;
        self.clients.leaving.push(Leaving {
            connection: number,
            client,
            request,
        });
    }

    /// Hands over the connections that nothing is under way for in the poll.
    pub(super) fn hand_over_leaving(&mut self) {
        for leaving in std::mem::take(&mut self.clients.leaving) {
            let Leaving {
                connection, client, ..
            } = leaving;
            let is_here =
                |known: &Connection| known.client.id == client && known.client.closing == Closing::No;
            let Some(known) = self.clients.get_mut(connection).filter(|known| is_here(known)) else {
                // It was closed meanwhile.
                continue;
            };
            match self.poll.detach(&mut known.socket, connection) {
                Some(received) => self.hand_over(connection, leaving.request, &received),
                None => self.clients.leaving.push(leaving),
            }
        }
    }

    fn hand_over(&mut self, number: usize, request: SyncRequest, received: &[u8]) {
        let mut connection = self.clients.connections.remove(number);
        self.ledger.forget(&mut connection, &self.node.stats[self.index]);
        let Connection {
            mut client,
            mut socket,
            input,
            ..
        } = connection;
        client.leave_all(&self.node.pubsub);
        client.end_tracking(&self.node.tracking);
        client.transaction = None;
        client.watching = None;
        client.is_replica = true;
        let mut unparsed = input.into_unparsed();
        unparsed.extend_from_slice(&socket.take_in(received));
        self.links.hand_over(Handover {
            client,
            socket,
            unparsed,
            request,
        });
    }
}
