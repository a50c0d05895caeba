//! [`Reception`]: connections that other nodes open, with the handshake of those over TLS, and the signs of life that the system asks of
//! all connections.
//!
//! A stranger can begin a handshake and fall silent, or send something else: it has the time of a node that is given up, and the oldest
//! of too many makes room. So a node that the others trust gets in whatever strangers do.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::mpsc::Sender;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::timeout;

use super::driver::News;
use super::failures::Failures;
use crate::connection::node_stream::NodeStream;
use crate::limits::{BUS_ACCEPT_RETRY, BUS_HANDSHAKES_MAX, TLS_HANDSHAKE_MS};
use crate::state::Node;

/// Acceptance of connections on all addresses of a bus.
#[derive(Debug)]
pub(super) struct Reception {
    node: Arc<Node>,
    news: Sender<News>,
    failures: Rc<Failures>,
    /// Handshakes that are under way, by number.
    handshakes: RefCell<BTreeMap<u64, AbortHandle>>,
    /// Number of handshakes that were begun.
    begun: Cell<u64>,
}

impl Reception {
    pub(super) fn new(node: Arc<Node>, news: Sender<News>, failures: Rc<Failures>) -> Self {
        Self {
            node,
            news,
            failures,
            handshakes: RefCell::default(),
            begun: Cell::new(0),
        }
    }

    /// Accepts connections on one address until the driver has ended. `tls-cluster` as it is then tells whether one is over TLS.
    pub(super) async fn accept(self: Rc<Self>, listener: TcpListener) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        while !self.news.is_closed() {
            let Ok((stream, peer)) = listener.accept().await else {
                // Too many files are open, or the caller has gone: neither is a reason to give up.
                tokio::time::sleep(BUS_ACCEPT_RETRY).await;
                continue;
            };
            let settings = self.node.settings.load_full();
            // A connection without these properties works, too.
            let _ = set_up(&stream, settings.cluster_node_timeout);
            if settings.tls_cluster {
                self.begin_handshake(stream, peer);
            } else {
                let _ = self.news.send(News::Accepted(NodeStream::plain(stream))).await;
            }
        }
        Ok(())
    }

    fn begin_handshake(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr) {
        let number = self.begun.get() + 1;
        self.begun.set(number);
        let this = Rc::clone(self);
        let task = spawn_local(async move {
            let outcome = this.shake_hands(stream).await;
            this.handshakes.borrow_mut().remove(&number);
            match outcome {
                Ok(stream) => {
                    let _ = this.news.send(News::Accepted(stream)).await;
                }
                Err(error) => this.failures.tell(format!(
                    "Error accepting a connection of the cluster bus from {}: {error}",
                    peer.ip()
                )),
            }
        });
        let mut handshakes = self.handshakes.borrow_mut();
        handshakes.insert(number, task.abort_handle());
        if handshakes.len() > BUS_HANDSHAKES_MAX
            && let Some((_, oldest)) = handshakes.pop_first()
        {
            oldest.abort();
        }
    }

    async fn shake_hands(&self, stream: TcpStream) -> io::Result<NodeStream> {
        let contexts = self.node.tls.contexts();
        let accepting = NodeStream::accept(stream, contexts.as_deref());
        timeout(self.patience(), accepting).await.unwrap_or_else(|_| {
            let silence = "the peer did not complete its handshake in time";
            Err(io::Error::new(io::ErrorKind::TimedOut, silence))
        })
    }

    /// Time for a handshake.
    fn patience(&self) -> Duration {
        let node_timeout_ms = self.node.settings.load().cluster_node_timeout;
        Duration::from_millis(node_timeout_ms.min(TLS_HANDSHAKE_MS.cast_unsigned()))
    }
}

/// Sets a connection up: packets leave at once, and a peer whose host has vanished is noticed although this node only reads.
pub(super) fn set_up(stream: &TcpStream, node_timeout_ms: u64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let interval = Duration::from_secs((node_timeout_ms * 2 / 1_000).clamp(1, 3_600));
    let keepalive = TcpKeepalive::new()
        .with_time(interval)
        .with_interval(interval / 3 + Duration::from_secs(1))
        .with_retries(3);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
