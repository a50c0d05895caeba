//! [`Secured`]: a client's TCP socket and the TLS session over it, between the session's bytes and either backend of the poll.
//!
//! It keeps the rules of a plain socket: after an event it is read until a read comes back short, and written until it would block.
//! A read that comes back short has emptied the socket and the session. What the session has to send by itself (its handshake, alerts,
//! tickets) leaves while it is read; if the socket accepts no more then, the connection is written when it does.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::ServerConfig;

use super::Ring;
use crate::shard::outgoing::Outgoing;
use crate::shard::session::Session;

/// A client's TCP socket and the session over it.
#[derive(Debug)]
pub(crate) struct Secured {
    stream: TcpStream,
    session: Box<Session>,
}

/// The backend of a poll for one connection: the ring, if there is one, and the connection's number in it.
pub(super) type Backend<'a> = (Option<&'a mut Ring>, usize);

impl Secured {
    /// A socket that was just accepted, whose client is to begin the handshake.
    ///
    /// # Errors
    /// When the context is not usable.
    pub(crate) fn new(stream: TcpStream, context: Arc<ServerConfig>) -> io::Result<Self> {
        let session = Session::new(context).map_err(io::Error::other)?;
        Ok(Self {
            stream,
            session: Box::new(session),
        })
    }

    /// The session.
    #[inline]
    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// Frees memory while the connection is idle.
    pub(crate) fn release(&mut self) {
        self.session.release();
    }

    /// Takes in bytes that the poll had received and nobody has read. Returns all that is decrypted.
    pub(super) fn take_in(&mut self, received: &[u8]) -> Vec<u8> {
        self.session.take_in_all(received)
    }

    /// The socket and the session, to be carried elsewhere.
    pub(crate) fn into_parts(self) -> (TcpStream, Box<Session>) {
        (self.stream, self.session)
    }

    /// Reads bytes of requests.
    pub(super) fn read(
        &mut self,
        (mut ring, connection): Backend<'_>,
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        let Self { stream, session } = self;
        let outcome = session.read(buffer, |space| match &mut ring {
            Some(ring) => ring.read(connection, space),
            None => stream.read(space),
        });
        if session.has_sealed() {
            // An error comes up again at the next read. The socket gets them at once: the client may go in this turn, and a ring sends
            // in the next one.
            let _ = if session.failure().is_some() {
                self.send_at_once((ring, connection))
            } else {
                self.send((ring, connection), true)
            };
        }
        outcome
    }

    /// Takes some outgoing bytes, unless earlier ones still wait for the socket.
    pub(super) fn write(
        &mut self,
        (mut ring, connection): Backend<'_>,
        outgoing: &mut Outgoing,
    ) -> io::Result<()> {
        if self.session.has_sealed() {
            self.send((ring.as_deref_mut(), connection), true)?;
        }
        self.session.seal_from(outgoing)?;
        let has_more = !outgoing.is_empty();
        match self.send((ring, connection), has_more) {
            // The bytes were taken, and wait in the session.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            outcome => outcome,
        }
    }

    /// Sends the session's records, as far as the socket accepts them. True when none is left.
    pub(super) fn flush(&mut self, backend: Backend<'_>) -> io::Result<bool> {
        match self.send(backend, false) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            outcome => outcome.map(|()| true),
        }
    }

    /// Sends all records. With `at_once`, the socket first gets what it accepts: a ring sends one buffer at a time,
    /// and that in the next turn.
    fn send(&mut self, (mut ring, connection): Backend<'_>, at_once: bool) -> io::Result<()> {
        while self.session.has_sealed() {
            let sealed = self.session.sealed();
            if let Some(ring) = &mut ring
                && (!at_once || ring.is_sending(connection))
            {
                ring.write(connection, sealed)?;
                continue;
            }
            match (self.stream.write(sealed.unsent_tail()), &mut ring) {
                (Ok(0), _) => return Err(io::ErrorKind::WriteZero.into()),
                (Ok(count), _) => sealed.advance(count),
                (Err(error), _) if error.kind() == io::ErrorKind::Interrupted => {}
                // The ring tells when the socket accepts more.
                (Err(error), Some(ring)) if error.kind() == io::ErrorKind::WouldBlock => {
                    ring.write(connection, sealed)?;
                }
                (Err(error), _) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends the last records of a connection that is about to be closed, as far as the socket accepts them.
    fn send_at_once(&mut self, (ring, connection): Backend<'_>) -> io::Result<()> {
        if ring.is_some_and(|ring| ring.is_sending(connection)) {
            // They would overtake those that are on their way.
            return Ok(());
        }
        self.send((None, connection), false)
    }

    /// Tells the client that nothing more comes, if the socket accepts that at once.
    pub(super) fn end(&mut self, backend: Backend<'_>) {
        self.session.seal_end();
        // The connection is closed in any case.
        let _ = self.send_at_once(backend);
    }

    /// The socket.
    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The socket, to be changed.
    pub(super) fn stream_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// The file descriptor's number.
    pub(super) fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}
