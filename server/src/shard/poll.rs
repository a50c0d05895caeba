//! [`Poll`]: waits for the sockets, listeners and the doorbell of one loop; no other module waits.
//!
//! It has two backends: readiness (`poll/epoll.rs`, everywhere) and completion (`poll/ring.rs`: Linux's io_uring,
//! which submits many reads and writes in one system call). Loops can rely on the same rule with both: after an event
//! a socket is read until a read comes back short, and written until it would block.

mod epoll;
#[cfg(not(target_os = "linux"))]
mod no_ring;
#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "it shares memory with the kernel; the rules are in its header"
)]
mod ring;
mod secured;

use std::borrow::Cow;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::IoBackend;
use crate::shard::outgoing::Outgoing;
use crate::shard::session::Session;
use epoll::Epoll;
pub(crate) use epoll::Waker;
#[cfg(not(target_os = "linux"))]
use no_ring::Ring;
#[cfg(target_os = "linux")]
use ring::Ring;
pub(crate) use secured::Secured;

/// Event on a listener or a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A listener has connections to accept.
    Accept {
        /// The listener's number.
        listener: usize,
    },
    /// A connection's socket changed.
    Socket {
        /// The connection's number.
        connection: usize,
        /// The socket may be read: bytes, or its end.
        readable: bool,
        /// The socket may be written.
        writable: bool,
        /// The client has closed its side: after the remaining bytes, if any, comes the end.
        ended: bool,
    },
}

/// Bytes of a connection that a [`Poll`] holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holds {
    /// Bytes received and not read yet.
    pub(crate) received: usize,
    /// Bytes taken by [`Link::write`] and not sent yet.
    pub(crate) unsent: usize,
    /// Bytes allocated for the send under way, or for the last one.
    pub(crate) sending: usize,
    /// Bytes allocated for the connection in all, without the receive buffers that all connections share.
    pub(crate) memory: usize,
}

/// Bytes that the poll has allocated for a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Allocated {
    /// [`Holds::memory`].
    pub(crate) memory: usize,
    /// [`Holds::sending`].
    pub(crate) sending: usize,
}

impl Holds {
    /// Bytes of the buffer that is on its way to the socket; 0 when it is all sent.
    pub(crate) fn being_sent(self) -> usize {
        if self.unsent > 0 { self.sending } else { 0 }
    }
}

/// The sockets of one loop.
#[derive(Debug)]
pub(crate) struct Poll {
    /// Listeners and the doorbell; clients too, unless there is a ring.
    epoll: Epoll,
    /// Clients' sockets, where the system supports io_uring.
    ring: Option<Box<Ring>>,
}

impl Poll {
    /// A poll without sockets, and its waker.
    ///
    /// # Errors
    /// When the system is out of file descriptors, or lacks the `backend` that was demanded.
    pub(crate) fn new(backend: IoBackend) -> io::Result<(Self, Waker)> {
        let (epoll, waker) = Epoll::new()?;
        let ring = match backend {
            IoBackend::Epoll => None,
            IoBackend::IoUring => Some(Box::new(Ring::new(epoll.fd())?)),
            IoBackend::Auto => Ring::new(epoll.fd()).ok().map(Box::new),
        };
        Ok((Self { epoll, ring }, waker))
    }

    /// Name of the backend, as INFO shows it.
    pub(crate) fn backend(&self) -> &'static str {
        if self.ring.is_some() { "io_uring" } else { "epoll" }
    }

    /// Waits for events, at most `timeout`, and reports them to `on_event`.
    ///
    /// # Errors
    /// The error of the system call; an interruption by a signal is not an error.
    pub(crate) fn wait(&mut self, timeout: Duration, mut on_event: impl FnMut(Event)) -> io::Result<()> {
        let Some(ring) = &mut self.ring else {
            return self.epoll.wait(timeout, on_event);
        };
        if ring.wait(timeout, &mut on_event)? {
            self.epoll.wait(Duration::ZERO, on_event)?;
        }
        Ok(())
    }

    /// Adds a connection's socket.
    ///
    /// # Errors
    /// The error of the system call.
    pub(crate) fn add(&mut self, socket: &mut Socket, connection: usize) -> io::Result<()> {
        match &mut self.ring {
            None => self.epoll.add(socket, connection),
            Some(ring) => {
                ring.add(socket.fd(), connection);
                Ok(())
            }
        }
    }

    /// Tells a client that nothing more comes, where its connection has a way to say so.
    pub(crate) fn end(&mut self, socket: &mut Socket, connection: usize) {
        if let Socket::Tls(secured) = socket {
            secured.end((self.ring.as_deref_mut(), connection));
        }
    }

    /// Removes a connection's socket, which is about to be dropped.
    pub(crate) fn remove(&mut self, socket: &mut Socket, connection: usize) {
        self.end(socket, connection);
        if let Some(ring) = &mut self.ring {
            socket.shut_down();
            ring.remove(connection);
        }
    }

    /// Takes out a connection's socket, which is to be used elsewhere. Returns the bytes that were received and not read; none as long
    /// as the system still works on the socket, so that this has to be called again after the next wait.
    pub(crate) fn detach(&mut self, socket: &mut Socket, connection: usize) -> Option<Vec<u8>> {
        match &mut self.ring {
            None => {
                self.epoll.remove(socket);
                Some(Vec::new())
            }
            Some(ring) => ring.detach(connection),
        }
    }

    /// Whether bytes that [`Link::write`] took are not sent yet. When they are, the socket is reported as writable.
    pub(crate) fn is_sending(&mut self, connection: usize) -> bool {
        self.ring.as_mut().is_some_and(|ring| ring.is_sending(connection))
    }

    /// Bytes held for a connection outside its own buffers.
    #[inline]
    pub(crate) fn holds(&self, connection: usize) -> Holds {
        self.ring
            .as_ref()
            .map_or_else(Holds::default, |ring| ring.holds(connection))
    }

    /// Bytes allocated for a connection.
    #[inline]
    pub(crate) fn allocated(&self, connection: usize) -> Allocated {
        self.ring
            .as_ref()
            .map_or_else(Allocated::default, |ring| ring.allocated(connection))
    }

    /// Frees memory that a connection has not used for a while.
    pub(crate) fn release(&mut self, connection: usize) {
        if let Some(ring) = &mut self.ring {
            ring.release(connection);
        }
    }

    /// Adds a listener. Several polls may wait for the same one: each gets an event for a new connection, and one of
    /// them accepts it.
    ///
    /// # Errors
    /// The error of the system call.
    pub(crate) fn add_listener(&self, listener: &Listener, number: usize) -> io::Result<()> {
        self.epoll.add_listener(listener.fd(), number)
    }

    /// Removes a listener.
    pub(crate) fn remove_listener(&self, listener: &Listener) {
        self.epoll.remove_listener(listener.fd());
    }

    /// Access to one connection's socket.
    #[inline]
    pub(crate) fn link<'a>(&'a mut self, socket: &'a mut Socket, connection: usize) -> Link<'a> {
        Link {
            ring: self.ring.as_deref_mut(),
            socket,
            connection,
        }
    }
}

/// One connection's socket, for reading and writing.
#[derive(Debug)]
pub(crate) struct Link<'a> {
    ring: Option<&'a mut Ring>,
    socket: &'a mut Socket,
    connection: usize,
}

impl Link<'_> {
    /// Reads available bytes into `buffer`; 0 bytes mean the end of the connection.
    ///
    /// # Errors
    /// The error of the system call, `WouldBlock` included.
    #[inline]
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match (&mut self.ring, &mut *self.socket) {
            (_, Socket::Primary(intake)) => intake.read(buffer),
            (ring, Socket::Tls(secured)) => secured.read((ring.as_deref_mut(), self.connection), buffer),
            (Some(ring), _) => ring.read(self.connection, buffer),
            (None, Socket::Tcp(stream)) => stream.read(buffer),
            (None, Socket::Unix(stream)) => stream.read(buffer),
        }
    }

    /// Writes as many of the outgoing bytes as are accepted at once, at least one; accepted bytes leave `outgoing`,
    /// and are sent unless the connection breaks.
    ///
    /// # Errors
    /// The error of the system call, `WouldBlock` included.
    #[inline]
    pub(crate) fn write(&mut self, outgoing: &mut Outgoing) -> io::Result<()> {
        match (&mut self.ring, &mut *self.socket) {
            (ring, Socket::Tls(secured)) => secured.write((ring.as_deref_mut(), self.connection), outgoing),
            (Some(ring), socket) if !matches!(socket, Socket::Primary(_)) => {
                // The ring sends one chunk at a time. If there are several, the socket first gets as many as it
                // accepts.
                if outgoing.has_closed()
                    && !ring.is_sending(self.connection)
                    && write_now(socket, outgoing).is_ok()
                {
                    return Ok(());
                }
                ring.write(self.connection, outgoing)
            }
            (_, socket) => write_now(socket, outgoing),
        }
    }

    /// Sends what the connection has to send beside its output: records of its session. True when nothing is left.
    ///
    /// # Errors
    /// The error of the system call.
    #[inline]
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        match &mut *self.socket {
            Socket::Tls(secured) => secured.flush((self.ring.as_deref_mut(), self.connection)),
            _ => Ok(true),
        }
    }

    /// Writes bytes that are not in an output. Returns how many were accepted: they are in the socket's own buffer.
    ///
    /// # Errors
    /// The error of the system call. It would block as well where something that was accepted before is still on its way, and where
    /// bytes must become records first.
    pub(crate) fn write_slices_now(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        if let Some(ring) = &mut self.ring
            && ring.is_sending(self.connection)
        {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.socket.write_vectored(slices)
    }
}

fn write_now(socket: &mut Socket, outgoing: &mut Outgoing) -> io::Result<()> {
    let written = if outgoing.has_closed() {
        socket.write_vectored(&outgoing.slices())?
    } else {
        // The usual case; the kernel has less to do for one chunk.
        socket.write(outgoing.unsent_tail())?
    };
    match written {
        0 => Err(io::ErrorKind::WriteZero.into()),
        count => {
            outgoing.advance(count);
            Ok(())
        }
    }
}

/// A listening socket.
#[derive(Debug)]
pub(crate) enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// TCP, for clients that begin with a handshake of TLS.
    Tls(TcpListener),
    /// Unix.
    Unix(UnixListener),
}

impl Listener {
    fn fd(&self) -> RawFd {
        match self {
            Self::Tcp(listener) | Self::Tls(listener) => listener.as_raw_fd(),
            Self::Unix(listener) => listener.as_raw_fd(),
        }
    }
}

/// A client's socket. Dropping it closes it.
#[derive(Debug)]
pub(crate) enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
    /// None: the input of the connection is the stream of this node's primary, and its output goes nowhere.
    Primary(Intake),
    /// TCP, with a session of TLS.
    Tls(Box<Secured>),
}

/// Bytes for a connection that has no socket.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    bytes: Arc<[u8]>,
    /// Number of bytes that were read.
    read: usize,
}

impl Intake {
    /// Has the connection read these bytes next, without the first `skipped`. It has read all that it was given before.
    pub(crate) fn give(&mut self, bytes: Arc<[u8]>, skipped: usize) {
        debug_assert_eq!(
            self.read,
            self.bytes.len(),
            "a connection is given more when it has read everything"
        );
        (self.bytes, self.read) = (bytes, skipped);
    }

    /// Reads like a socket that does not block.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = &self.bytes[self.read..];
        let count = left.len().min(buffer.len());
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        buffer[..count].copy_from_slice(&left[..count]);
        self.read += count;
        Ok(count)
    }
}

impl Socket {
    /// The session of TLS over the socket, if there is one.
    #[inline]
    pub(crate) fn session(&self) -> Option<&Session> {
        match self {
            Self::Tls(secured) => Some(secured.session()),
            _ => None,
        }
    }

    /// Number of bytes that have come of a handshake, which the client has to complete before it can send requests; none if there is
    /// nothing to complete.
    #[inline]
    pub(crate) fn handshake_bytes(&self) -> Option<usize> {
        let session = self.session().filter(|session| !session.is_open());
        session.map(Session::handshake_bytes)
    }

    /// Whether there is something to read although the system has nothing more to report.
    #[inline]
    pub(crate) fn has_unread(&self) -> bool {
        self.session().is_some_and(Session::has_unread)
    }

    /// Whether records wait to be sent.
    #[inline]
    pub(crate) fn has_sealed(&self) -> bool {
        self.session().is_some_and(Session::has_sealed)
    }

    /// Number of bytes of records that wait to be sent.
    pub(crate) fn sealed_bytes(&self) -> usize {
        self.session().map_or(0, Session::sealed_bytes)
    }

    /// Bytes allocated for a session.
    #[inline]
    pub(crate) fn memory(&self) -> usize {
        self.session().map_or(0, Session::memory)
    }

    /// Frees memory while the connection is idle.
    pub(crate) fn release(&mut self) {
        if let Self::Tls(secured) = self {
            secured.release();
        }
    }

    /// Takes in bytes that the poll had received and nobody has read. Returns those that belong to requests.
    pub(crate) fn take_in<'a>(&mut self, received: &'a [u8]) -> Cow<'a, [u8]> {
        match self {
            Self::Tls(secured) => secured.take_in(received).into(),
            _ => received.into(),
        }
    }

    /// Writes what the socket accepts at once: an error for a client that is not admitted. One that has to complete a handshake first
    /// could not read it, and gets nothing.
    ///
    /// # Errors
    /// The error of the system call.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
            Self::Primary(_) | Self::Tls(_) => Ok(bytes.len()),
        }
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write_vectored(slices),
            Self::Unix(stream) => stream.write_vectored(slices),
            Self::Tls(_) => Err(io::ErrorKind::WouldBlock.into()),
            Self::Primary(_) => Ok(slices.iter().map(|slice| slice.len()).sum()),
        }
    }

    /// The file descriptor's number.
    pub(crate) fn fd(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
            Self::Tls(secured) => secured.fd(),
            Self::Primary(_) => -1,
        }
    }

    fn shut_down(&self) {
        // Fails for a connection that is broken already, which does not matter.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(std::net::Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(std::net::Shutdown::Both),
            Self::Tls(secured) => secured.stream().shutdown(std::net::Shutdown::Both),
            Self::Primary(_) => Ok(()),
        };
    }
}
