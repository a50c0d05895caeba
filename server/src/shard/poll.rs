//! The only file that waits: sockets, listeners and the doorbell of one loop behind one face.
//!
//! Edge-triggered: after an event, a socket is read until a read comes back short, and written until it would block. What
//! the loop above relies on is no more than [`Poll::wait`], [`Socket`] and tokens, so that another way to wait for sockets
//! is another file beside this one.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Events, Interest, Token};

use super::doorbell::Wake;

/// What happened to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A listener has connections to accept.
    Accept {
        /// The listener's number.
        listener: usize,
    },
    /// A connection's socket changed.
    Socket {
        /// The connection's number.
        connection: usize,
        /// It may be read: data, or its end.
        readable: bool,
        /// It may be written.
        writable: bool,
    },
}

const WAKE: Token = Token(usize::MAX);
/// Listeners count down from here, connections up from zero.
const LISTENERS: usize = usize::MAX - 1;
const LISTENERS_MAX: usize = 64;
/// Events taken from the kernel in one wait.
const EVENTS_PER_WAIT: usize = 1024;

/// The sockets of one loop.
#[derive(Debug)]
pub struct Poll {
    poll: mio::Poll,
    events: Events,
}

/// Ends the wait of a [`Poll`].
#[derive(Debug)]
pub struct Waker(mio::Waker);

impl Wake for Waker {
    fn wake(&self) {
        // The only error is that the counter is full: then it is readable, and the loop will wake.
        let _ = self.0.wake();
    }
}

impl Poll {
    /// A poll that waits for nothing yet, and what wakes it.
    ///
    /// # Errors
    /// When the system has no file descriptors left.
    pub fn new() -> io::Result<(Self, Waker)> {
        let poll = mio::Poll::new()?;
        let waker = Waker(mio::Waker::new(poll.registry(), WAKE)?);
        Ok((Self { poll, events: Events::with_capacity(EVENTS_PER_WAIT) }, waker))
    }

    /// Waits for events, at most `timeout`, and reports them to `on_event`.
    ///
    /// # Errors
    /// What the system says; an interruption by a signal is not an error.
    pub fn wait(&mut self, timeout: Option<Duration>, mut on_event: impl FnMut(Event)) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            outcome => outcome?,
        }
        for event in &self.events {
            match event.token() {
                WAKE => {}
                Token(token) if token > LISTENERS - LISTENERS_MAX => {
                    on_event(Event::Accept { listener: LISTENERS - token });
                }
                Token(connection) => on_event(Event::Socket {
                    connection,
                    readable: event.is_readable() || event.is_read_closed() || event.is_error(),
                    writable: event.is_writable(),
                }),
            }
        }
        Ok(())
    }

    /// Begins to wait for a connection's socket.
    ///
    /// # Errors
    /// What the system says.
    pub fn add(&self, socket: &mut Socket, connection: usize) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match socket {
            Socket::Tcp(stream) => self.poll.registry().register(stream, Token(connection), interest),
            Socket::Unix(stream) => self.poll.registry().register(stream, Token(connection), interest),
        }
    }

    /// Begins to wait for a listener.
    ///
    /// # Errors
    /// What the system says.
    pub fn add_listener(&self, listener: &mut Listener, number: usize) -> io::Result<()> {
        let token = Token(LISTENERS - number);
        match listener {
            Listener::Tcp(listener) => self.poll.registry().register(listener, token, Interest::READABLE),
            Listener::Unix(listener) => self.poll.registry().register(listener, token, Interest::READABLE),
        }
    }
}

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// Unix.
    Unix(UnixListener),
}

/// A client's socket. Dropping it closes it.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
}

impl Socket {
    /// Reads what is there into `buffer`.
    ///
    /// # Errors
    /// What the system says, `WouldBlock` included.
    #[inline]
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }

    /// Writes as much of `bytes` as the socket takes.
    ///
    /// # Errors
    /// What the system says, `WouldBlock` included.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    /// The file descriptor's number.
    pub fn fd(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        }
    }
}
