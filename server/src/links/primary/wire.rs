//! [`Wire`]: the socket of the link to the primary, with lines and commands on it, and the reasons for which it is lost.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::timeout;

use crate::config::Primary;
use crate::connection::node_stream::NodeStream;
use crate::connection::outgoing::connect;
use crate::journal::encoded::Encoded;
use crate::limits::{LINK_LINE_BYTES_MAX, LINK_READ_BYTES};
use crate::state::Node;

/// Reason for which a link to the primary is lost.
#[derive(Debug)]
pub(super) enum Lost {
    /// The link cannot be opened.
    Connect(io::Error),
    /// The socket fails.
    Io(io::Error),
    /// The primary was silent for too long.
    Silent(&'static str),
    /// The primary has closed it, or a client has.
    Ended,
    /// The primary has answered with something else than expected.
    Refused(String),
    /// The snapshot cannot be received or loaded.
    Load(String),
    /// The stream is no stream of commands, so that the data cannot follow it.
    Broken,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "Error condition on socket for SYNC: {error}"),
            Self::Io(error) => write!(f, "I/O error on the link to the master: {error}"),
            Self::Silent(reason) => f.write_str(reason),
            Self::Ended => f.write_str("The master has closed the connection"),
            Self::Refused(reason) => f.write_str(reason),
            Self::Load(reason) => write!(f, "Failed trying to load the MASTER synchronization DB: {reason}"),
            Self::Broken => f.write_str(
                "Protocol error from the master: the stream cannot be applied. A full resynchronization follows.",
            ),
        }
    }
}

impl From<io::Error> for Lost {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The socket of a link.
#[derive(Debug)]
pub(super) struct Wire {
    node: Arc<Node>,
    stream: NodeStream,
    /// Bytes that have come and were not used.
    pub(super) received: Vec<u8>,
    /// Bytes that the socket has not taken.
    unsent: Vec<u8>,
}

impl Wire {
    /// Opens the link, over TLS if `tls-replication` says so now.
    pub(super) async fn open(node: &Arc<Node>, primary: &Primary) -> Result<Self, Lost> {
        let settings = node.settings.load_full();
        let connecting = async {
            let stream = connect(&primary.host, primary.port, &settings.bind_source_addr).await?;
            // Small messages to the primary, which should not wait.
            stream.set_nodelay(true)?;
            if settings.tls_replication {
                let contexts = node.tls.contexts();
                NodeStream::secure(stream, contexts.as_deref(), &primary.host).await
            } else {
                Ok(NodeStream::plain(stream))
            }
        };
        let stream = timeout(Duration::from_secs(u64::from(settings.repl_timeout)), connecting)
            .await
            .map_err(|_| Lost::Silent("Timeout connecting to the MASTER..."))?
            .map_err(Lost::Connect)?;
        let wire = Self {
            node: Arc::clone(node),
            stream,
            received: Vec::new(),
            unsent: Vec::new(),
        };
        node.log.notice(format_args!("MASTER <-> REPLICA sync started"));
        Ok(wire)
    }

    /// Our address and that of the primary.
    pub(super) fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.stream.local_addr()?, self.stream.peer_addr()?))
    }

    /// Number of its file descriptor.
    pub(super) fn fd(&self) -> i32 {
        self.stream.as_raw_fd()
    }

    /// Time for which the primary may be silent.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs(u64::from(self.node.settings.load().repl_timeout))
    }

    /// Sends a command, without waiting: what the socket does not take now is sent with [`flush`](Self::flush).
    pub(super) fn command(&mut self, words: &[&[u8]]) -> Result<(), Lost> {
        let mut encoded = Encoded::default();
        encoded.push(words.iter().copied());
        self.send(encoded.as_bytes())
    }

    /// Sends bytes, like [`command`](Self::command).
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        self.unsent.extend_from_slice(bytes);
        self.flush()
    }

    /// Whether everything has been sent.
    pub(super) fn has_sent(&self) -> bool {
        self.unsent.is_empty() && !self.stream.has_sealed()
    }

    /// Sends what the socket takes now.
    pub(super) fn flush(&mut self) -> Result<(), Lost> {
        self.stream.flush()?;
        while !self.unsent.is_empty() {
            match self.stream.try_write(&self.unsent) {
                Ok(count) => {
                    self.unsent.drain(..count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits until the socket takes more.
    pub(super) async fn writable(&self) {
        // An error shows when it is written to.
        let _ = self.stream.writable().await;
    }

    /// Waits for bytes from the primary and appends them to a buffer; at least one.
    pub(super) async fn read(&self, buffer: &mut Vec<u8>) -> Result<usize, Lost> {
        loop {
            self.stream.readable().await?;
            buffer.reserve(LINK_READ_BYTES);
            match self.stream.try_read_buf(buffer) {
                Ok(0) => return Err(Lost::Ended),
                Ok(count) => {
                    let replication = &self.node.replication;
                    replication.following.note_heard(self.node.clock.now_us());
                    let figures = &replication.replicas.figures;
                    figures.bytes_in.fetch_add(count as u64, Ordering::Relaxed);
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for more bytes, for as long as the primary may be silent.
    pub(super) async fn receive(&mut self, silence: &'static str) -> Result<(), Lost> {
        let deadline = tokio::time::Instant::now() + self.patience();
        let mut received = std::mem::take(&mut self.received);
        let read = loop {
            tokio::select! {
                read = self.read(&mut received) => break read,
                () = self.writable(), if !self.has_sent() => {}
                () = tokio::time::sleep_until(deadline) => break Err(Lost::Silent(silence)),
            }
            self.flush()?;
        };
        self.received = received;
        read.map(|_| ())
    }

    /// The next line from the primary, without its end.
    pub(super) async fn line(&mut self, silence: &'static str) -> Result<String, Lost> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.received) {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(line.trim_ascii()).into_owned());
            }
            if self.received.len() > LINK_LINE_BYTES_MAX {
                return Err(Lost::Refused("The master sends a line without an end".to_owned()));
            }
            self.receive(silence).await?;
        }
    }

    /// The next line that is not empty: until the primary has an answer it sends empty ones.
    pub(super) async fn answer(&mut self, silence: &'static str) -> Result<String, Lost> {
        loop {
            let line = self.line(silence).await?;
            if !line.is_empty() {
                return Ok(line);
            }
        }
    }
}
