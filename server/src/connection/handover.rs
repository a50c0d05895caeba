//! [`Handover`]: a connection that leaves its loop to become a link of the control thread, and [`LinkClients`], where it stays a client.
//!
//! Links are clients for CLIENT LIST and CLIENT KILL, which loop 0 asks for them beside its own connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::exec::client::BufferSizes;
use crate::exec::{Client, Closing};
use crate::replication::SyncRequest;
use crate::shard::poll::Socket;

/// A connection that leaves its loop.
#[derive(Debug)]
pub(crate) struct Handover {
    /// The client.
    pub(crate) client: Client,
    /// Its socket, which no loop waits for any more.
    pub(crate) socket: Socket,
    /// Bytes that were received and belong to no command that has run.
    pub(crate) unparsed: Vec<u8>,
    /// The command by which it leaves.
    pub(crate) request: SyncRequest,
}

/// The clients of a node that are links, and the way to become one.
#[derive(Debug)]
pub(crate) struct LinkClients {
    sender: UnboundedSender<Handover>,
    /// The end that links come out of, until somebody takes it.
    receiver: Mutex<Option<UnboundedReceiver<Handover>>>,
    all: Mutex<Vec<Arc<LinkClient>>>,
}

/// A client that is a link.
#[derive(Debug)]
pub(crate) struct LinkClient {
    client: Mutex<Client>,
    /// Rung when the link has to end.
    pub(crate) end: Notify,
    /// Bytes received so far.
    pub(crate) bytes_in: AtomicU64,
    /// Bytes sent so far.
    pub(crate) bytes_out: AtomicU64,
    /// Bytes that wait to be sent.
    pub(crate) unsent: AtomicU64,
}

impl Default for LinkClients {
    fn default() -> Self {
        let (sender, receiver) = unbounded_channel();
        Self {
            sender,
            receiver: Mutex::new(Some(receiver)),
            all: Mutex::default(),
        }
    }
}

impl LinkClients {
    /// Hands a connection over. It is closed if the node is ending.
    pub(crate) fn hand_over(&self, handover: Handover) {
        let _ = self.sender.send(handover);
    }

    /// The end that connections come out of; once.
    pub(crate) fn receiver(&self) -> Option<UnboundedReceiver<Handover>> {
        self.receiver.lock().take()
    }

    /// Adds a client.
    pub(crate) fn add(&self, client: Client) -> Arc<LinkClient> {
        let link = Arc::new(LinkClient {
            client: Mutex::new(client),
            end: Notify::new(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            unsent: AtomicU64::new(0),
        });
        self.all.lock().push(Arc::clone(&link));
        link
    }

    /// Removes a client.
    pub(crate) fn remove(&self, link: &Arc<LinkClient>) {
        self.all.lock().retain(|other| !Arc::ptr_eq(other, link));
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<LinkClient>> {
        self.all.lock().clone()
    }

    /// Ends the links whose clients were told to go.
    pub(crate) fn end_killed(&self) {
        for link in self.all.lock().iter() {
            if link.lock().closing != Closing::No {
                link.end.notify_one();
            }
        }
    }
}

impl LinkClient {
    /// The client.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Client> {
        self.client.lock()
    }

    /// Sizes for CLIENT LIST.
    pub(crate) fn measure(&self) -> BufferSizes {
        let unsent = self.unsent.load(Ordering::Relaxed) as usize;
        BufferSizes {
            chunks: usize::from(unsent > 0),
            chunk_bytes: unsent,
            total: size_of::<Self>() + unsent,
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            ..BufferSizes::default()
        }
    }
}
