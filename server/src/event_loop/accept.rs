//! Accepting connections, on the first loop, and dealing them to all loops in turn.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::EventLoop;
use crate::connection::{Connection, listener};
use crate::exec::{Client, Peer};
use crate::limits::ACCEPTS_PER_TURN;
use crate::pubsub::Seat;
use crate::shard::inbox::Message;
use crate::shard::poll::{Listener, Poll, Socket};

/// The listeners of a node.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listeners: Vec<(Listener, bool)>,
    unix_path: Arc<str>,
    next_loop: usize,
}

impl Acceptor {
    /// Listeners, registered with the poll of the loop that is to accept.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn new(listeners: Vec<Listener>, unix_path: &str, poll: &Poll) -> std::io::Result<Self> {
        let mut registered = Vec::new();
        for (number, mut listener) in listeners.into_iter().enumerate() {
            poll.add_listener(&mut listener, number)?;
            registered.push((listener, true));
        }
        Ok(Self {
            listeners: registered,
            unix_path: unix_path.into(),
            next_loop: 0,
        })
    }

    pub(super) fn mark_ready(&mut self, listener: usize) {
        if let Some((_, ready)) = self.listeners.get_mut(listener) {
            *ready = true;
        }
    }

    fn next(&mut self, keepalive_s: u32) -> Option<(Socket, Peer)> {
        for (listener, ready) in self.listeners.iter_mut().filter(|(_, ready)| *ready) {
            match listener::accept(listener, &self.unix_path, keepalive_s) {
                Ok(accepted) => return Some(accepted),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => *ready = false,
                // The client gave up meanwhile, or descriptors have run out: others may still be accepted later.
                Err(_) => {}
            }
        }
        None
    }
}

impl EventLoop {
    /// Takes in new connections, a bounded number a turn.
    pub(super) fn accept(&mut self) {
        let Some(mut acceptor) = self.acceptor.take() else {
            return;
        };
        for _ in 0..ACCEPTS_PER_TURN {
            let Some((mut socket, peer)) = acceptor.next(self.settings.tcp_keepalive) else {
                break;
            };
            self.node.stats[self.index].connections.add(1);
            if let Some(line) = self.refusal(&peer) {
                // One try: a client that does not read gets no more of our time.
                let _ = socket.write(line.as_bytes());
                self.node.stats[self.index].rejected.add(1);
                continue;
            }
            self.node.clients.fetch_add(1, Ordering::Relaxed);
            let target = acceptor.next_loop % self.reach.mesh.len();
            acceptor.next_loop += 1;
            if target == self.index {
                self.connect(socket, peer);
            } else {
                self.reach.send(target, Message::Connect { socket, peer });
            }
        }
        self.acceptor = Some(acceptor);
    }

    /// What a client is told that may not connect.
    fn refusal(&self, peer: &Peer) -> Option<&'static str> {
        if self.node.clients.load(Ordering::Relaxed) >= self.settings.maxclients as usize {
            return Some("-ERR max number of clients reached\r\n");
        }
        if self.settings.protected_mode && self.settings.requirepass.get().is_none() && !peer.is_local() {
            return Some(PROTECTED);
        }
        None
    }

    /// Begins to carry a connection.
    pub(super) fn connect(&mut self, mut socket: Socket, peer: Peer) {
        let authenticated = self.settings.requirepass.get().is_none();
        let entry = self.clients.connections.vacant_entry();
        if let Err(error) = self.poll.add(&mut socket, entry.key()) {
            self.node.log.warning(format_args!(
                "a connection was dropped, its socket cannot be waited for: {error}"
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
