//! Accepts connections on every loop, and deals them to all loops.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::EventLoop;
use crate::connection::Connection;
use crate::connection::listener::{Listeners, NumberedListener};
use crate::exec::{Client, Identity, Peer};
use crate::limits::ACCEPTS_PER_TURN;
use crate::pubsub::Seat;
use crate::shard::inbox::Message;
use crate::shard::poll::{Poll, Socket};

/// One loop's view of the listeners of the node. All loops wait for all listeners, so that a new connection never has
/// to wait for a loop that is held up.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listeners: Arc<Listeners>,
    /// Listeners that the loop's poll waits for.
    followed: Arc<Vec<NumberedListener>>,
    /// Numbers of the listeners that may have connections to accept.
    ready: Vec<usize>,
    /// The turn accepted as many connections as it may; there may be more.
    has_more: bool,
}

impl Acceptor {
    /// The acceptor of a loop with this poll.
    ///
    /// # Errors
    /// The error of the system call.
    pub(crate) fn new(listeners: Arc<Listeners>, poll: &Poll) -> io::Result<Self> {
        let followed = Arc::clone(&listeners.current());
        for known in followed.iter() {
            poll.add_listener(&known.listener, known.number)?;
        }
        Ok(Self {
            listeners,
            followed,
            ready: Vec::new(),
            has_more: false,
        })
    }

    /// Follows an exchange of the listeners: waits for the new ones.
    pub(super) fn follow(&mut self, poll: &Poll) {
        let current = self.listeners.current();
        if Arc::ptr_eq(&current, &self.followed) {
            return;
        }
        let is_among = |all: &[NumberedListener], one: &NumberedListener| {
            all.iter()
                .any(|other| Arc::ptr_eq(&other.listener, &one.listener))
        };
        for gone in self.followed.iter().filter(|one| !is_among(&current, one)) {
            poll.remove_listener(&gone.listener);
            self.ready.retain(|&number| number != gone.number);
        }
        for new in current.iter().filter(|one| !is_among(&self.followed, one)) {
            // Fails only when the system is out of memory; other loops accept from this listener then.
            let _ = poll.add_listener(&new.listener, new.number);
        }
        self.followed = Arc::clone(&current);
    }

    /// Notes that a listener may have connections to accept.
    pub(super) fn mark_ready(&mut self, number: usize) {
        if !self.ready.contains(&number) {
            self.ready.push(number);
        }
    }

    /// Whether the loop has connections to accept and must not sleep.
    pub(super) fn is_ready(&self) -> bool {
        self.has_more
    }

    fn next(&mut self, keepalive_s: u32) -> Option<(Socket, Peer)> {
        while let Some(&number) = self.ready.first() {
            let ready = self.followed.iter().find(|one| one.number == number);
            match ready.map(|ready| self.listeners.accept(ready, keepalive_s)) {
                Some(Ok(accepted)) => return Some(accepted),
                Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                // The process is out of descriptors: the loop tries again in a later turn, when some may be free.
                Some(Err(error)) if error.kind() != io::ErrorKind::WouldBlock => return None,
                _ => {
                    self.ready.remove(0);
                }
            }
        }
        None
    }
}

impl EventLoop {
    /// Accepts new connections, a bounded number per turn.
    pub(super) fn accept(&mut self) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some((mut socket, peer)) = self.acceptor.next(self.settings.tcp_keepalive) else {
                self.acceptor.has_more = false;
                return;
            };
            self.node.stats[self.index].connections.add(1);
            if let Some(line) = self.refusal(&socket, &peer) {
                // One attempt only: the loop does not wait for a client that does not read.
                let _ = socket.write(line.as_bytes());
                self.node.stats[self.index].rejected.add(1);
                continue;
            }
            self.node.clients.fetch_add(1, Ordering::Relaxed);
            let target = self.node.deal.next(self.now_us);
            if target == self.index {
                self.connect(socket, peer);
            } else {
                self.reach.send(target, Message::Connect { socket, peer });
            }
        }
        self.acceptor.has_more = true;
    }

    /// The error for a client that may not connect, if there is one.
    fn refusal(&self, socket: &Socket, peer: &Peer) -> Option<&'static str> {
        if self.node.clients.load(Ordering::Relaxed) >= self.settings.maxclients as usize {
            return Some("-ERR max number of clients reached\r\n");
        }
        // A client that has to complete a handshake first is told after that.
        (socket.handshake_bytes().is_none() && self.is_protected_from(peer)).then_some(PROTECTED)
    }

    /// Whether the node does not serve this client, because it has no password.
    pub(super) fn is_protected_from(&self, peer: &Peer) -> bool {
        let is_open = || self.node.acl.users().default_user().has_no_password();
        self.settings.protected_mode && !peer.is_local() && is_open()
    }

    /// Starts carrying a connection.
    pub(super) fn connect(&mut self, mut socket: Socket, peer: Peer) {
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
            Identity::of_new_client(&self.node.acl.users()),
        );
        client.is_tls = socket.session().is_some();
        let number = entry.key();
        client.seat = Seat::new(self.index, number, client.id);
        entry.insert(Connection::new(client, socket));
        self.book_client(number);
        self.clients.enqueue(number);
    }
}

/// The error for a client that the node is protected from.
pub(super) const PROTECTED: &str = "-DENIED shardis is in protected mode: no password is set, so only clients on this machine may \
    connect. To let others in, set a password (requirepass), or turn protected mode off (CONFIG SET protected-mode no, \
    or --protected-mode no at start) if the network is trusted.\r\n";
