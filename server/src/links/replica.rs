//! Links to replicas: from the command by which a client becomes one, to the end of its connection.
//!
//! A link is one task. It continues a replica that lacks only what the backlog still has; any other one waits for a snapshot, which
//! those that come at about the same time share (`transfer.rs`), and then follows the stream from the cut of that snapshot on
//! (`output.rs`). Meanwhile it listens to what the replica says (`input.rs`). The [`Hub`] knows all links: it begins snapshots, pings,
//! and ends links that are silent or too slow.

mod hub;
mod input;
mod output;
mod transfer;

use std::cell::Cell;
use std::future::pending;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::sleep;

use self::hub::Hub;
use crate::connection::handover::{Handover, LinkClient, LinkClients};
use crate::connection::session_stream::SessionStream;
use crate::exec::Closing;
use crate::journal::backlog::CursorCut;
use crate::limits::FAILOVER_LOOK;
use crate::replication::{FailoverStage, Introduction, Replica, SyncRequest};
use crate::saving::PayloadFailed;
use crate::shard::poll::Socket;
use crate::state::Node;

/// A link to a replica.
#[derive(Debug)]
struct Link {
    replica: Arc<Replica>,
    client: Arc<LinkClient>,
    introduction: Introduction,
    /// Rung once a second.
    tick: Notify,
    /// Rung when the replica has acknowledged something.
    acknowledged: Notify,
    /// Number of its cursor in the backlog, if it has one.
    cursor: Cell<Option<u64>>,
    /// Number of changes of the stream's history when it began.
    history: u64,
    /// Time at which it last got on with sending, Unix microseconds.
    sent_us: Cell<i64>,
    /// Reason for which the hub ends it.
    reason: Cell<Option<&'static str>>,
}

/// Cause of the end of a link.
#[derive(Debug)]
enum End {
    /// The connection is closed, or broke.
    Lost(io::Error),
    /// The replica has what it came for.
    Complete,
    /// The snapshot was not completed.
    NoSnapshot,
    /// The replica was slower than its output limit allows.
    TooSlow,
    /// The replica does not keep to the protocol.
    Protocol,
    /// CLIENT KILL, or the hub.
    Ended,
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

impl From<PayloadFailed> for End {
    fn from(_: PayloadFailed) -> Self {
        Self::NoSnapshot
    }
}

impl From<CursorCut> for End {
    fn from(_: CursorCut) -> Self {
        Self::TooSlow
    }
}

/// The reading and the writing half of a socket.
type Halves = (Box<dyn AsyncRead + Unpin>, Box<dyn AsyncWrite + Unpin>);

/// Carries the links to replicas.
pub(super) async fn serve(node: Arc<Node>, clients: Arc<LinkClients>) {
    let Some(mut arriving) = clients.receiver() else {
        return;
    };
    let hub = Rc::new(Hub::new(Arc::clone(&node), clients));
    loop {
        // In this order, or a ring might be missed.
        let mut rung = pin!(node.links_bell.notified());
        rung.as_mut().enable();
        hub.look();
        tokio::select! {
            handover = arriving.recv() => match handover {
                Some(handover) => {
                    await_role(&node).await;
                    hub.look();
                    begin(&hub, handover);
                }
                None => return,
            },
            () = rung => {}
            () = look_again(&node) => {}
        }
    }
}

/// Waits until a node that becomes a primary has ended its history as a replica: a replica is to get a place in the new one.
async fn await_role(node: &Node) {
    loop {
        let mut rung = pin!(node.links_bell.notified());
        rung.as_mut().enable();
        if !node.replication.following.is_changing() {
            return;
        }
        rung.await;
    }
}

/// Waits for a moment, if time may end a failover. A manual clock rings when it is advanced.
async fn look_again(node: &Node) {
    if node.replication.failover.stage() != FailoverStage::None && node.clock.is_real() {
        sleep(FAILOVER_LOOK).await;
    } else {
        pending::<()>().await;
    }
}

/// Begins a link.
fn begin(hub: &Rc<Hub>, handover: Handover) {
    let Handover {
        mut client,
        socket,
        unparsed,
        request,
    } = handover;
    let introduction = client
        .introduction
        .take()
        .map_or_else(Introduction::default, |said| *said);
    let link = hub.add(client, introduction);
    // Its user may have gone while the connection was on no loop's list, and on none of the links'.
    if !link.client.lock().follow_users(&hub.node.acl, Closing::Now) {
        link.client.end.notify_one();
    }
    let halves = match halves(socket, hub.node.settings.load().repl_disable_tcp_nodelay) {
        Ok(halves) => halves,
        Err(error) => return hub.remove(&link, &End::Lost(error)),
    };
    let hub = Rc::clone(hub);
    tokio::task::spawn_local(async move {
        let end = run(&hub, &link, halves, unparsed, &request).await;
        hub.remove(&link, &end);
    });
}

/// Listens to a replica and sends to it, until one of both ends.
async fn run(hub: &Hub, link: &Rc<Link>, halves: Halves, unparsed: Vec<u8>, request: &SyncRequest) -> End {
    let (input, output) = halves;
    tokio::select! {
        end = input::listen(hub, link, input, unparsed) => end,
        end = output::feed(hub, link, output, request) => match end {
            Ok(()) => End::Complete,
            Err(end) => end,
        },
        () = link.client.end.notified() => End::Ended,
    }
}

/// Makes a socket of a loop one of the control thread.
fn halves(socket: Socket, is_delayed: bool) -> io::Result<Halves> {
    Ok(match socket {
        Socket::Tcp(stream) => {
            let stream = tokio::net::TcpStream::from_std(stream.into())?;
            if is_delayed {
                stream.set_nodelay(false)?;
            }
            let (input, output) = stream.into_split();
            (Box::new(input), Box::new(output))
        }
        Socket::Unix(stream) => {
            let (input, output) = tokio::net::UnixStream::from_std(stream.into())?.into_split();
            (Box::new(input), Box::new(output))
        }
        Socket::Tls(secured) => {
            let (stream, session) = secured.into_parts();
            let stream = tokio::net::TcpStream::from_std(stream.into())?;
            if is_delayed {
                stream.set_nodelay(false)?;
            }
            let (input, output) = tokio::io::split(SessionStream::new(stream, session));
            (Box::new(input), Box::new(output))
        }
        Socket::Primary(_) => return Err(io::ErrorKind::NotConnected.into()),
    })
}
