//! The parts of a shard: the cell that holds its data, the inbox and doorbell that reach its loop, and the poll of
//! its sockets. [`Mesh`] is all shards of a node as one loop sees them.
//!
//! Nothing here knows a command; the loop itself is in `event_loop`.

pub(crate) mod bypass;
pub(crate) mod cell;
pub(crate) mod chunk;
pub(crate) mod departures;
pub(crate) mod doorbell;
pub(crate) mod inbox;
pub(crate) mod outgoing;
pub(crate) mod poll;
pub(crate) mod session;
pub(crate) mod sync;

use crossbeam_channel::{Receiver, Sender};

use self::cell::Cell;
use self::doorbell::Doorbell;
use self::inbox::Message;
use self::poll::Waker;
use crate::exec::Partition;

/// All shards of a node, reachable from each of its loops.
#[derive(Debug)]
pub(crate) struct Mesh {
    shards: Vec<Member>,
}

/// One shard of a node, as every loop reaches it.
#[derive(Debug)]
struct Member {
    cell: Cell<Partition>,
    inbox: Sender<Message>,
    bell: Doorbell<Waker>,
}

impl Mesh {
    /// Joins partitions and the wakers of their loops. Also returns the receiving end of each inbox.
    pub(crate) fn new(
        shards: impl IntoIterator<Item = (Partition, Waker)>,
    ) -> (Self, Vec<Receiver<Message>>) {
        let mut receivers = Vec::new();
        let shards = shards
            .into_iter()
            .map(|(partition, waker)| {
                // The type has no bound, but the requests under way of a connection are bounded, and so are
                // connections.
                let (inbox, receiver) = crossbeam_channel::unbounded();
                receivers.push(receiver);
                Member {
                    cell: Cell::new(partition),
                    inbox,
                    bell: Doorbell::new(waker),
                }
            })
            .collect();
        (Self { shards }, receivers)
    }

    /// Number of shards.
    pub(crate) fn len(&self) -> usize {
        self.shards.len()
    }

    /// The cell of a shard's data.
    #[inline]
    pub(crate) fn cell(&self, shard: usize) -> &Cell<Partition> {
        &self.shards[shard].cell
    }

    /// The doorbell of a shard's loop.
    #[inline]
    pub(crate) fn bell(&self, shard: usize) -> &Doorbell<Waker> {
        &self.shards[shard].bell
    }

    /// Puts a message into a shard's inbox and wakes its loop if it sleeps.
    pub(crate) fn send(&self, shard: usize, message: Message) {
        let member = &self.shards[shard];
        // The receiver is dropped only when the loop ends, at the end of the node; the message does not matter then.
        if member.inbox.send(message).is_ok() {
            member.bell.ring();
        }
    }

    /// Wakes a loop if it sleeps.
    pub(crate) fn ring(&self, shard: usize) {
        self.shards[shard].bell.ring();
    }
}
