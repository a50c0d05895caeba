//! [`SessionStream`]: a session that began on a loop and goes on in a task of the control thread, as the link of a replica does.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::limits::TLS_SEAL_BYTES;
use crate::shard::session::Session;

/// A socket of the control thread with the session that it carries. Bytes read and written are those inside the session.
#[derive(Debug)]
pub(crate) struct SessionStream {
    stream: TcpStream,
    session: Box<Session>,
}

impl SessionStream {
    /// The stream of an open session. All that the socket has received is known to the session.
    pub(crate) fn new(stream: TcpStream, session: Box<Session>) -> Self {
        Self { stream, session }
    }

    /// Sends what is sealed, until the socket would block.
    ///
    /// # Errors
    /// The error of the socket.
    fn try_send(&mut self) -> io::Result<bool> {
        while self.session.has_sealed() {
            let sealed = self.session.sealed();
            match self.stream.try_write(sealed.unsent_tail()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => sealed.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.try_send()? {
            ready!(self.stream.poll_write_ready(context))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for SessionStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let SessionStream { stream, session } = this;
            let outcome = session.read(buffer.initialize_unfilled(), |space| stream.try_read(space));
            // Answers of the protocol; what does not leave now does so with the next bytes.
            this.try_send()?;
            match outcome {
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(this.stream.poll_read_ready(context))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for SessionStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        let count = bytes.len().min(TLS_SEAL_BYTES);
        this.session.seal(&bytes[..count])?;
        this.try_send()?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.session.seal_end();
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.stream).poll_shutdown(context)
    }
}
