//! Sends keys to other nodes, for MIGRATE.
//!
//! Connections are kept for a while, because tools move keys of a slot a few at a time. Where one fails before anything was
//! confirmed, the keys are sent once more over a new one, as it may have been closed long ago.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::{sleep, timeout};

use crate::connection::node_stream::NodeStream;
use crate::connection::outgoing::connect_to_any;
use crate::error::ReplyError;
use crate::exec::departure::{Cargo, Landed, Target};
use crate::journal::encoded::Encoded;
use crate::limits::{
    LINK_LINE_BYTES_MAX, LINK_READ_BYTES, MIGRATION_SOCKET_IDLE, MIGRATION_SOCKETS_MAX, MIGRATION_WRITE_BYTES,
};
use crate::shard::Mesh;
use crate::shard::departures::{Departures, Shipment};
use crate::shard::inbox::Message;
use crate::state::Node;

/// Carries keys away, for as long as the node runs.
pub(super) async fn serve(node: Arc<Node>, mesh: Arc<Mesh>, departures: Arc<Departures>) {
    let Some(mut shipments) = departures.take_receiver() else {
        return;
    };
    let kept = Rc::new(RefCell::new(Kept::default()));
    while let Some(Shipment {
        origin,
        operation,
        cargo,
    }) = shipments.recv().await
    {
        let (node, mesh, kept) = (Arc::clone(&node), Arc::clone(&mesh), Rc::clone(&kept));
        tokio::task::spawn_local(async move {
            let landed = carry(&node, &cargo, &kept).await;
            // A node that ends does not wait until connections are idle.
            drop(node);
            mesh.send(origin, Message::Landed { operation, landed });
            sleep(MIGRATION_SOCKET_IDLE).await;
            kept.borrow_mut().age(&cargo.target);
        });
    }
}

/// A connection to another node.
#[derive(Debug)]
struct Socket {
    stream: NodeStream,
    /// Bytes that have come and were not used.
    received: Vec<u8>,
    /// The database that is selected, if that is known.
    db: Option<i64>,
}

/// Connections that are not in use, each with the number of transports that have ended at its node since.
#[derive(Debug, Default)]
struct Kept {
    sockets: HashMap<Target, Socket>,
    /// Transports by target whose end is less than the time ago for which connections are kept.
    recent: HashMap<Target, usize>,
}

impl Kept {
    fn take(&mut self, target: &Target) -> Option<Socket> {
        self.sockets.remove(target)
    }

    fn keep(&mut self, target: &Target, socket: Socket) {
        if self.sockets.len() < MIGRATION_SOCKETS_MAX {
            self.sockets.insert(target.clone(), socket);
        }
    }

    /// Notes that a transport has ended.
    fn note(&mut self, target: &Target) {
        *self.recent.entry(target.clone()).or_default() += 1;
    }

    /// Notes that the end of a transport is long ago. Without a more recent one, the connection is closed.
    fn age(&mut self, target: &Target) {
        let Some(recent) = self.recent.get_mut(target) else {
            return;
        };
        *recent -= 1;
        if *recent == 0 {
            self.recent.remove(target);
            self.sockets.remove(target);
        }
    }
}

/// Failure of a transport.
#[derive(Debug)]
struct Failure {
    /// The reply to the client.
    error: ReplyError,
    /// A new connection may do better.
    may_retry: bool,
    /// Keys that were confirmed before.
    confirmed: Vec<bool>,
}

const CONNECTING: &str = "IOERR error or timeout connecting to the client";
const WRITING: &str = "IOERR error or timeout writing to target instance";
const READING: &str = "IOERR error or timeout reading to target instance";

impl Failure {
    fn new(error: &'static str, cause: &io::Error) -> Self {
        Self {
            error: ReplyError::Fixed(error),
            may_retry: cause.kind() != io::ErrorKind::TimedOut,
            confirmed: Vec::new(),
        }
    }
}

/// Sends keys, and reads what became of them.
async fn carry(node: &Node, cargo: &Cargo, kept: &RefCell<Kept>) -> Landed {
    let mut may_retry = true;
    let landed = loop {
        match attempt(node, cargo, kept).await {
            Ok(landed) => break landed,
            Err(failure) if failure.may_retry && may_retry => may_retry = false,
            Err(failure) => {
                break Landed {
                    confirmed: failure.confirmed,
                    error: Some(failure.error),
                };
            }
        }
    };
    kept.borrow_mut().note(&cargo.target);
    landed
}

async fn attempt(node: &Node, cargo: &Cargo, kept: &RefCell<Kept>) -> Result<Landed, Failure> {
    let before = kept.borrow_mut().take(&cargo.target);
    let mut socket = match before {
        Some(socket) => socket,
        None => Socket::open(node, cargo).await?,
    };
    let landed = socket.exchange(cargo).await?;
    kept.borrow_mut().keep(&cargo.target, socket);
    Ok(landed)
}

/// Waits for something of a connection, for a while.
async fn within<T>(patience: Duration, wait: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(patience, wait)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

impl Socket {
    /// Opens a connection, over TLS if `tls-cluster` says so. That it is refused shows in Redis when the socket is written to, but
    /// with TLS at once.
    async fn open(node: &Node, cargo: &Cargo) -> Result<Self, Failure> {
        let Target { host, port } = &cargo.target;
        let unreachable = || Failure {
            error: ReplyError::Fixed(CONNECTING),
            may_retry: false,
            confirmed: Vec::new(),
        };
        let settings = node.settings.load_full();
        let addresses = within(cargo.patience, lookup_host((host.as_str(), *port))).await;
        let addresses = addresses.map_err(|_| unreachable())?;
        let opened = within(
            cargo.patience,
            connect_to_any(addresses, &settings.bind_source_addr),
        )
        .await;
        let opened = opened.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
        let is_secure = settings.tls_cluster;
        let stream = opened.map_err(|cause| match cause.kind() {
            io::ErrorKind::TimedOut => unreachable(),
            _ if is_secure => unreachable(),
            _ => Failure::new(WRITING, &cause),
        })?;
        let stream = match is_secure {
            false => NodeStream::plain(stream),
            true => {
                let contexts = node.tls.contexts();
                let securing = NodeStream::secure(stream, contexts.as_deref(), host);
                within(cargo.patience, securing).await.map_err(|cause| {
                    node.log.warning(format_args!(
                        "No TLS session with {host}:{port} for MIGRATE: {cause}"
                    ));
                    unreachable()
                })?
            }
        };
        Ok(Self {
            stream,
            received: Vec::new(),
            db: None,
        })
    }

    async fn exchange(&mut self, cargo: &Cargo) -> Result<Landed, Failure> {
        let selects = self.db != Some(cargo.db);
        let mut greeting = Encoded::default();
        if let Some(login) = &cargo.login {
            greeting.append(login);
        }
        if selects {
            let db = cargo.db.to_string();
            greeting.push([b"SELECT".as_slice(), db.as_bytes()].into_iter());
        }
        for bytes in [greeting.as_bytes(), cargo.commands.as_bytes()] {
            let sent = self.send(bytes, cargo.patience).await;
            sent.map_err(|cause| Failure::new(WRITING, &cause))?;
        }
        let mut error = None;
        for _ in 0..greeting.len() {
            let line = self.line(cargo.patience).await;
            let line = line.map_err(|cause| Failure::new(READING, &cause))?;
            error = error.or_else(|| refusal(&line));
        }
        let landed = self.read_confirmations(cargo, error).await?;
        self.db = landed.error.is_none().then_some(cargo.db);
        Ok(landed)
    }

    /// Reads the reply for each key. With an error of the greeting none of them is confirmed.
    async fn read_confirmations(
        &mut self,
        cargo: &Cargo,
        greeting: Option<ReplyError>,
    ) -> Result<Landed, Failure> {
        let (mut confirmed, mut error) = (Vec::new(), greeting.clone());
        for _ in 0..cargo.commands.len() {
            let line = match self.line(cargo.patience).await {
                Ok(line) => line,
                Err(cause) => {
                    let failure = Failure::new(READING, &cause);
                    return Err(Failure {
                        may_retry: failure.may_retry && confirmed.is_empty() && error.is_none(),
                        // The error that the other node has told before says more.
                        error: error.unwrap_or(failure.error),
                        confirmed,
                    });
                }
            };
            let refused = refusal(&line);
            confirmed.push(greeting.is_none() && refused.is_none());
            error = error.or(refused);
        }
        Ok(Landed { confirmed, error })
    }

    async fn send(&mut self, bytes: &[u8], patience: Duration) -> io::Result<()> {
        for part in bytes.chunks(MIGRATION_WRITE_BYTES) {
            within(patience, self.stream.write_all(part)).await?;
        }
        Ok(())
    }

    /// The next line, without its end.
    async fn line(&mut self, patience: Duration) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.received) {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return Ok(line.trim_ascii_end().to_vec());
            }
            if self.received.len() > LINK_LINE_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.received.reserve(LINK_READ_BYTES);
            if within(patience, self.stream.read_buf(&mut self.received)).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// The error for the client, if a line is one.
fn refusal(line: &[u8]) -> Option<ReplyError> {
    let said = line.strip_prefix(b"-")?;
    Some(ReplyError::Bytes(
        [b"ERR Target instance replied with error: ", said].concat(),
    ))
}
