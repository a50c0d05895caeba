//! [`NodeStream`]: a connection to another node, over TLS or without, in a task of the control thread.
//!
//! It has the operations of a tokio socket, none of which waits, and `readable` and `writable` that do. With a session, bytes that
//! were written may still be sealed here when the socket is full: [`has_sealed`](NodeStream::has_sealed) tells that, and they leave with
//! [`flush`](NodeStream::flush) or the next write.

use std::cell::RefCell;
use std::io::{self, BufRead as _, IoSlice, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

use rustls::{ClientConnection, Connection, ServerConnection};
use tokio::net::TcpStream;

use super::handshake::complete;
use crate::limits::{TLS_RECEIVE_BYTES, TLS_SEAL_BYTES};
use crate::tls::{Contexts, announced_name};

thread_local! {
    /// The memory that the sessions of this thread receive into.
    static RECEIVED: RefCell<Vec<u8>> = RefCell::new(vec![0; TLS_RECEIVE_BYTES]);
}

/// A connection to another node.
#[derive(Debug)]
pub(crate) struct NodeStream {
    stream: TcpStream,
    session: Option<Box<RefCell<NodeSession>>>,
}

/// The session of a connection, whose handshake is complete.
#[derive(Debug)]
struct NodeSession {
    connection: Connection,
    /// There may be something to read although the socket has nothing more.
    is_pending: bool,
    /// Failure that was found behind bytes that were read.
    failure: Option<io::Error>,
}

impl NodeStream {
    /// A connection without TLS.
    pub(crate) fn plain(stream: TcpStream) -> Self {
        Self {
            stream,
            session: None,
        }
    }

    /// Opens a session with a node that was connected to as `host`.
    ///
    /// # Errors
    /// When the peer does not speak TLS, is not trusted, or has gone.
    pub(crate) async fn secure(
        stream: TcpStream,
        contexts: Option<&Contexts>,
        host: &str,
    ) -> io::Result<Self> {
        let context = contexts.ok_or_else(no_contexts)?.for_nodes()?;
        let connection = ClientConnection::new(context, announced_name(host)).map_err(io::Error::other)?;
        Self::with_session(stream, connection.into()).await
    }

    /// Accepts the session of a node that has connected to the bus.
    ///
    /// # Errors
    /// When the peer does not speak TLS, is not trusted, or has gone.
    pub(crate) async fn accept(stream: TcpStream, contexts: Option<&Contexts>) -> io::Result<Self> {
        let context = contexts.ok_or_else(no_contexts)?.for_bus()?;
        let connection = ServerConnection::new(context).map_err(io::Error::other)?;
        Self::with_session(stream, connection.into()).await
    }

    /// A connection with a session, once its handshake is complete.
    async fn with_session(stream: TcpStream, mut connection: Connection) -> io::Result<Self> {
        complete(&stream, &mut connection).await?;
        let session = NodeSession {
            connection,
            // Bytes may have come together with the end of the handshake.
            is_pending: true,
            failure: None,
        };
        Ok(Self {
            stream,
            session: Some(Box::new(RefCell::new(session))),
        })
    }

    /// Its own address.
    ///
    /// # Errors
    /// When the connection is lost.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// Address of the other node.
    ///
    /// # Errors
    /// When the connection is lost.
    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// Waits until there may be something to read.
    ///
    /// # Errors
    /// When the node ends.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match &self.session {
            Some(session) if session.borrow().is_pending => Ok(()),
            _ => self.stream.readable().await,
        }
    }

    /// Waits until the socket takes more.
    ///
    /// # Errors
    /// When the node ends.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.stream.writable().await
    }

    /// Appends what has come to a buffer, which has room. Returns the number of bytes; 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock` if nothing has come; the error of the socket, or of the session.
    pub(crate) fn try_read_buf(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        match &self.session {
            None => self.stream.try_read_buf(buffer),
            Some(session) => session.borrow_mut().read(&self.stream, buffer),
        }
    }

    /// Writes bytes, and returns the number of those that were taken.
    ///
    /// # Errors
    /// `WouldBlock` if none are taken; the error of the socket, or of the session.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.session {
            None => self.stream.try_write(bytes),
            Some(session) => session.borrow_mut().write(&self.stream, bytes),
        }
    }

    /// Whether bytes that were taken have not been sent.
    pub(crate) fn has_sealed(&self) -> bool {
        let session = self.session.as_ref();
        session.is_some_and(|session| session.borrow().connection.wants_write())
    }

    /// Sends what the socket takes now of the bytes that were taken before. False if some are left.
    ///
    /// # Errors
    /// The error of the socket.
    pub(crate) fn flush(&self) -> io::Result<bool> {
        match &self.session {
            None => Ok(true),
            Some(session) => session.borrow_mut().send(&self.stream),
        }
    }

    /// Writes all of some bytes, and waits until the socket has them.
    ///
    /// # Errors
    /// The error of the socket, or of the session.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        loop {
            let outcome = match bytes {
                [] => match self.flush()? {
                    true => return Ok(()),
                    false => Err(io::ErrorKind::WouldBlock.into()),
                },
                bytes => self.try_write(bytes),
            };
            match outcome {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for bytes, and appends them to a buffer. Returns their number; 0 is the end.
    ///
    /// # Errors
    /// The error of the socket, or of the session.
    pub(crate) async fn read_buf(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        loop {
            self.readable().await?;
            match self.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
        }
    }
}

impl AsRawFd for NodeStream {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

impl Drop for NodeStream {
    fn drop(&mut self) {
        if let Some(session) = &self.session {
            let mut session = session.borrow_mut();
            session.connection.send_close_notify();
            // The peer notices the end of the connection in any case.
            let _ = session.send(&self.stream);
        }
    }
}

impl NodeSession {
    /// Sends records until the socket would block; false then.
    fn send(&mut self, stream: &TcpStream) -> io::Result<bool> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut Unready(stream)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn write(&mut self, stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
        // Records that wait have a bound: those of one call.
        if !self.send(stream)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let part = &bytes[..bytes.len().min(TLS_SEAL_BYTES)];
        let count = self.connection.writer().write(part)?;
        self.send(stream)?;
        Ok(count)
    }

    /// Appends to a buffer all that is decrypted, and what can be with the bytes of one look at the socket.
    fn read(&mut self, stream: &TcpStream, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let begin = buffer.len();
        self.is_pending = false;
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let mut outcome = self.take_decrypted(buffer);
        while buffer.len() == begin && matches!(outcome, Ok(Progress::Open)) {
            outcome = self.receive(stream, buffer);
        }
        let count = buffer.len() - begin;
        match outcome {
            Ok(Progress::Open) => Ok(count),
            Ok(Progress::Closed) => {
                // The end is found again.
                self.is_pending = true;
                Ok(count)
            }
            Err(error) if count == 0 => Err(error),
            Err(error) => {
                if error.kind() != io::ErrorKind::WouldBlock {
                    (self.is_pending, self.failure) = (true, Some(error));
                }
                Ok(count)
            }
        }
    }

    /// Reads the socket once, and decrypts.
    fn receive(&mut self, stream: &TcpStream, buffer: &mut Vec<u8>) -> io::Result<Progress> {
        RECEIVED.with_borrow_mut(|received| {
            let count = stream.try_read(received)?;
            let mut rest = &received[..count];
            loop {
                // Without bytes, the session is told of the end.
                self.connection.read_tls(&mut rest)?;
                if let Err(error) = self.connection.process_new_packets() {
                    // An alert tells the peer; it has failed in any case.
                    let _ = self.send(stream);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
                let progress = self.take_decrypted(buffer)?;
                if rest.is_empty() || progress == Progress::Closed {
                    // Answers of the protocol; what does not leave now does so with the next bytes.
                    self.send(stream)?;
                    return Ok(progress);
                }
            }
        })
    }

    /// Appends what is decrypted to a buffer.
    fn take_decrypted(&mut self, buffer: &mut Vec<u8>) -> io::Result<Progress> {
        let mut reader = self.connection.reader();
        loop {
            let count = match reader.fill_buf() {
                Ok([]) => return Ok(Progress::Closed),
                Ok(bytes) => {
                    buffer.extend_from_slice(bytes);
                    bytes.len()
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Progress::Open),
                // Also a peer that has died ends the connection, which its users know how to go on from.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Progress::Closed),
                Err(error) => return Err(error),
            };
            reader.consume(count);
        }
    }
}

/// Whether more may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Open,
    Closed,
}

/// A socket as sessions use it: it does not wait.
pub(super) struct Unready<'a>(pub(super) &'a TcpStream);

impl Write for Unready<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn no_contexts() -> io::Error {
    io::Error::other("no certificate is configured for connections to other nodes over TLS")
}
