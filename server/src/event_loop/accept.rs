//! New connections: the only loop of a node accepts them, one of several gets them from the acceptor.

use std::sync::atomic::Ordering;

use super::EventLoop;
use crate::connection::Connection;
use crate::exec::{Client, Peer};
use crate::limits::ACCEPTS_PER_TURN;
use crate::pubsub::Seat;
use crate::shard::poll::Socket;

impl EventLoop {
    /// Accepts new connections, a bounded number per turn.
    pub(super) fn accept(&mut self) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some((socket, peer)) = self.incoming.next(self.settings.tcp_keepalive) else {
                return;
            };
            self.connect(socket, peer);
        }
    }

    /// Admits a new connection, or tells the client why it may not connect.
    pub(super) fn connect(&mut self, mut socket: Socket, peer: Peer) {
        let stats = &self.node.stats[self.index];
        stats.connections.add(1);
        let others = self.node.clients.fetch_add(1, Ordering::Relaxed);
        let Some(line) = self.refusal(others, &peer) else {
            return self.carry(socket, peer);
        };
        self.node.clients.fetch_sub(1, Ordering::Relaxed);
        stats.rejected.add(1);
        // One attempt only: the loop does not wait for a client that does not read.
        let _ = socket.write(line.as_bytes());
    }

    /// The error for a client that may not connect beside so many others, if there is one.
    fn refusal(&self, others: usize, peer: &Peer) -> Option<&'static str> {
        if others >= self.settings.maxclients as usize {
            return Some("-ERR max number of clients reached\r\n");
        }
        if self.settings.protected_mode && self.settings.requirepass.get().is_none() && !peer.is_local() {
            return Some(PROTECTED);
        }
        None
    }

    /// Starts carrying a connection.
    fn carry(&mut self, mut socket: Socket, peer: Peer) {
        let authenticated = self.settings.requirepass.get().is_none();
        let entry = self.clients.connections.vacant_entry();
        if let Err(error) = self.poll.add(&mut socket, entry.key()) {
            self.node.log.warning(format_args!(
                "A connection was dropped, because its socket could not be added to the loop: {error}"
            ));
            self.node.clients.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let mut client = Client::new(
            self.node.next_client_id(),
            peer,
            socket.fd(),
            self.now_us / 1000,
            authenticated,
        );
        let number = entry.key();
        client.seat = Seat::new(self.index, number, client.id);
        entry.insert(Connection::new(client, socket));
        self.book_client(number);
        self.clients.enqueue(number);
    }
}

const PROTECTED: &str = "-DENIED shardis is in protected mode: no password is set, so only clients on this machine may \
    connect. To let others in, set a password (requirepass), or turn protected mode off (CONFIG SET protected-mode no, \
    or --protected-mode no at start) if the network is trusted.\r\n";
