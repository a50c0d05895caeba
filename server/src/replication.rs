//! Replication: what a node is for other nodes, as all its loops share it.
//!
//! A node is a primary, or the replica of one. [`History`] names the stream that its data follows from. [`Replicas`] are the nodes that
//! follow this one, as their links publish them. [`Following`] is the part of a replica: its primary and the state of the link to it.
//! [`Failover`] is the change from the one to the other. This module has state and no sockets: the links are in `links.rs`.

mod failover;
mod history;
mod introduction;
mod primary;
mod replicas;
mod rounds;

use std::sync::atomic::{AtomicI64, AtomicU64};

use parking_lot::Mutex;

pub(crate) use self::failover::{Asked, Failover, FailoverStage};
pub(crate) use self::history::History;
pub(crate) use self::introduction::{Introduction, SyncRequest, parse_filter, reads_valkey_form};
pub(crate) use self::primary::{Following, Link, LinkStage, Transfer};
pub(crate) use self::replicas::{Replica, Replicas, Stage};
pub(crate) use self::rounds::{Incoming, Round, Rounds};

/// The part of a node in replication.
#[derive(Debug)]
pub(crate) struct Replication {
    /// Names of the stream that the data follows from.
    pub(crate) history: Mutex<History>,
    /// The nodes that follow this one.
    pub(crate) replicas: Replicas,
    /// The primary that the node follows, if there is one.
    pub(crate) following: Following,
    /// The handover of its role to a replica.
    pub(crate) failover: Failover,
    /// Signs that its data or files are not what they should be.
    pub(crate) divergence: Divergence,
}

/// Signs that the data or the files of a node are not what its primary, or its past, has made them.
#[derive(Debug, Default)]
pub(crate) struct Divergence {
    /// Commands of the primary or of a file that failed here, since CONFIG RESETSTAT.
    pub(crate) errors: AtomicU64,
    /// Time of the last log line about a disk that cannot be written to, Unix microseconds.
    pub(crate) told_us: AtomicI64,
}

impl Replication {
    /// A primary of so many loops, whose data begins a history of this id.
    pub(crate) fn new(id: String, loops: usize) -> Self {
        Self {
            history: Mutex::new(History::new(id)),
            replicas: Replicas::default(),
            following: Following::new(loops),
            failover: Failover::default(),
            divergence: Divergence::default(),
        }
    }
}
