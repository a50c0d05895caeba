//! Readiness: edge-triggered epoll (or the counterpart of other systems), through mio.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Token};

use super::{Event, Socket};
use crate::shard::doorbell::Wake;

const WAKE: Token = Token(usize::MAX);
/// The largest token: listeners count down from here, connections up from zero.
const LISTENERS: usize = usize::MAX - 1;
/// The most listeners.
const LISTENERS_MAX: usize = 64;
/// Events taken from the kernel in one wait.
const EVENTS_PER_WAIT: usize = 1024;

/// The sockets of a poll that reports readiness.
#[derive(Debug)]
pub(super) struct Epoll {
    poll: mio::Poll,
    events: Events,
}

/// Ends the wait of a poll.
#[derive(Debug)]
pub(crate) struct Waker(mio::Waker);

impl Wake for Waker {
    fn wake(&self) {
        // The only error is a full counter: then the descriptor is readable, and the loop wakes.
        let _ = self.0.wake();
    }
}

impl Epoll {
    pub(super) fn new() -> io::Result<(Self, Waker)> {
        let poll = mio::Poll::new()?;
        let waker = Waker(mio::Waker::new(poll.registry(), WAKE)?);
        Ok((
            Self {
                poll,
                events: Events::with_capacity(EVENTS_PER_WAIT),
            },
            waker,
        ))
    }

    /// The descriptor that becomes readable when a socket is ready.
    pub(super) fn fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }

    pub(super) fn wait(&mut self, timeout: Duration, mut on_event: impl FnMut(Event)) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            outcome => outcome?,
        }
        for event in &self.events {
            match event.token() {
                WAKE => {}
                Token(token) if token > LISTENERS - LISTENERS_MAX => {
                    on_event(Event::Accept {
                        listener: LISTENERS - token,
                    });
                }
                Token(connection) => on_event(Event::Socket {
                    connection,
                    readable: event.is_readable() || event.is_read_closed() || event.is_error(),
                    writable: event.is_writable(),
                    ended: event.is_read_closed() || event.is_error(),
                }),
            }
        }
        Ok(())
    }

    pub(super) fn add(&self, socket: &mut Socket, connection: usize) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match socket {
            Socket::Tcp(stream) => self.poll.registry().register(stream, Token(connection), interest),
            Socket::Unix(stream) => self.poll.registry().register(stream, Token(connection), interest),
            Socket::Tls(secured) => {
                let stream = secured.stream_mut();
                self.poll.registry().register(stream, Token(connection), interest)
            }
            // It has no socket.
            Socket::Primary(_) => Ok(()),
        }
    }

    pub(super) fn remove(&self, socket: &mut Socket) {
        // Fails only if the socket was not added.
        let _ = match socket {
            Socket::Tcp(stream) => self.poll.registry().deregister(stream),
            Socket::Unix(stream) => self.poll.registry().deregister(stream),
            Socket::Tls(secured) => self.poll.registry().deregister(secured.stream_mut()),
            Socket::Primary(_) => Ok(()),
        };
    }

    pub(super) fn add_listener(&self, listener: RawFd, number: usize) -> io::Result<()> {
        let token = Token(LISTENERS - number);
        self.poll
            .registry()
            .register(&mut SourceFd(&listener), token, Interest::READABLE)
    }

    pub(super) fn remove_listener(&self, listener: RawFd) {
        // Fails only if the listener was not added.
        let _ = self.poll.registry().deregister(&mut SourceFd(&listener));
    }
}
