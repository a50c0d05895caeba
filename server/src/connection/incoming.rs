//! [`Incoming`]: waits for a node's listeners and accepts from them, on the thread that does so: the only loop of a node, or
//! the acceptor of several.

use std::io;
use std::sync::Arc;

use super::listener::{Listeners, NumberedListener};
use crate::exec::Peer;
use crate::shard::poll::{Poll, Socket};

/// The listeners of a node, as the thread that accepts waits for them.
#[derive(Debug)]
pub(crate) struct Incoming {
    listeners: Arc<Listeners>,
    /// Listeners that the thread's poll waits for.
    followed: Arc<Vec<NumberedListener>>,
    /// Numbers of the listeners that may have connections to accept.
    ready: Vec<usize>,
    /// The process was out of file descriptors at the last attempt.
    is_short: bool,
}

impl Incoming {
    /// The listeners of a node, for a thread with this poll.
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
            is_short: false,
        })
    }

    /// Follows an exchange of the listeners: waits for the new ones.
    pub(crate) fn follow(&mut self, poll: &Poll) {
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
            // Fails only when the system is out of memory.
            let _ = poll.add_listener(&new.listener, new.number);
        }
        self.followed = Arc::clone(&current);
    }

    /// Notes that a listener may have connections to accept.
    pub(crate) fn mark_ready(&mut self, number: usize) {
        if !self.ready.contains(&number) {
            self.ready.push(number);
        }
    }

    /// Whether there may be connections to accept, so that the thread must not sleep.
    pub(crate) fn has_more(&self) -> bool {
        !self.ready.is_empty() && !self.is_short
    }

    /// Whether the process was out of file descriptors at the last attempt.
    pub(crate) fn is_short(&self) -> bool {
        self.is_short
    }

    /// Accepts the next connection.
    pub(crate) fn next(&mut self, keepalive_s: u32) -> Option<(Socket, Peer)> {
        self.is_short = false;
        while let Some(&number) = self.ready.first() {
            let ready = self.followed.iter().find(|one| one.number == number);
            match ready.map(|ready| self.listeners.accept(&ready.listener, keepalive_s)) {
                Some(Ok(accepted)) => return Some(accepted),
                Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                // The process is out of descriptors: the thread tries again later, when some may be free.
                Some(Err(error)) if error.kind() != io::ErrorKind::WouldBlock => {
                    self.is_short = true;
                    return None;
                }
                _ => {
                    self.ready.remove(0);
                }
            }
        }
        None
    }
}
