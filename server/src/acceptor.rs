//! The acceptor of a node of several loops: a thread that accepts new connections and deals them to the loops.
//!
//! If every loop waited for the listeners, a new connection would wake all of them, and all but one in vain. If one loop did, a
//! new connection would wait while that loop is held up by a long command. The acceptor runs no command, so that a connection
//! costs two wakes, whatever the number of loops: that of the acceptor, and that of the loop that gets it.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::config::IoBackend;
use crate::connection::incoming::Incoming;
use crate::connection::listener::Listeners;
use crate::limits::ACCEPTS_PER_TURN;
use crate::shard::Mesh;
use crate::shard::doorbell::Wake as _;
use crate::shard::inbox::Message;
use crate::shard::poll::{Event, Poll};
use crate::state::Node;

/// Longest wait for connections; the waker ends it sooner.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// Pause before the next attempt when the process is out of file descriptors.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(10);

/// State of the thread.
#[derive(Debug)]
struct Acceptor {
    node: Arc<Node>,
    mesh: Arc<Mesh>,
    poll: Poll,
    incoming: Incoming,
}

/// Starts the acceptor of the loops of `mesh`. The thread ends when the node is to stop.
///
/// # Errors
/// The error of the system call.
pub(crate) fn start(
    node: &Arc<Node>,
    mesh: &Arc<Mesh>,
    listeners: Arc<Listeners>,
) -> io::Result<JoinHandle<io::Result<()>>> {
    let (poll, waker) = Poll::new(IoBackend::Epoll)?;
    node.connect_acceptor(move || waker.wake());
    let acceptor = Acceptor {
        node: Arc::clone(node),
        mesh: Arc::clone(mesh),
        incoming: Incoming::new(listeners, &poll)?,
        poll,
    };
    std::thread::Builder::new()
        .name("acceptor".to_owned())
        .spawn(move || acceptor.run())
}

impl Acceptor {
    fn run(mut self) -> io::Result<()> {
        if self.node.daemon.is_some() {
            crate::daemon::guard_thread();
        }
        let node = Arc::clone(&self.node);
        let _entered = node.threads.enter();
        while !node.shutdown.is_requested() {
            self.incoming.follow(&self.poll);
            self.deal();
            self.wait()?;
        }
        Ok(())
    }

    /// Waits until a listener has connections, or something about the node has changed.
    fn wait(&mut self) -> io::Result<()> {
        let timeout = match (self.incoming.has_more(), self.incoming.is_short()) {
            (true, _) => Duration::ZERO,
            (false, true) => SHORTAGE_PAUSE,
            (false, false) => WAIT_MAX,
        };
        let incoming = &mut self.incoming;
        self.poll.wait(timeout, |event| {
            if let Event::Accept { listener } = event {
                incoming.mark_ready(listener);
            }
        })
    }

    /// Accepts connections that wait, and deals them to the loops.
    fn deal(&mut self) {
        let keepalive_s = self.node.settings.load().tcp_keepalive;
        for _ in 0..ACCEPTS_PER_TURN {
            let Some((socket, peer)) = self.incoming.next(keepalive_s) else {
                return;
            };
            let target = self.node.deal.next(self.node.clock.now_us());
            self.mesh.send(target, Message::Connect { socket, peer });
        }
    }
}
