//! [`Invalidations`]: the part of a partition that knows which trackers have read its keys, and collects what its changes have to
//! tell until the partition is let go of.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Tracking;
use super::broadcast::{Collected, Collector};
use super::table::{Readers, Remembered, Table};
use crate::limits::TRACKED_KEYS_DROPPED_AT_ONCE;

/// Readers of the keys of a partition, and changes that they are to be told of.
#[derive(Debug, Default)]
pub(crate) struct Invalidations {
    /// The trackers of the node.
    shared: Arc<Tracking>,
    table: Table,
    /// Number of the client whose command runs on the partition.
    pub(crate) writer: u32,
    /// Keys that have changed, with their readers.
    keys: Vec<ReadKey>,
    /// Keys that have changed and have prefixes that somebody has asked for.
    collector: Collector,
    /// All keys may have changed: the client that has caused it.
    all: Option<u32>,
    /// There is something to tell.
    is_raised: bool,
}

/// A key that has changed, with the trackers that have read it and the one that has changed it.
#[derive(Debug)]
pub(super) struct ReadKey {
    /// Place in the order of such changes over all partitions.
    order: u64,
    pub(super) key: Box<[u8]>,
    pub(super) readers: Readers,
    pub(super) writer: u32,
}

/// All that the changes of partitions have to tell.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(super) keys: Vec<ReadKey>,
    pub(super) broadcasts: Vec<Collected>,
    pub(super) all: Option<u32>,
}

impl Told {
    /// Adds what another partition has to tell of the same command or transaction.
    pub(crate) fn add(&mut self, other: Self) {
        self.keys.extend(other.keys);
        self.keys.sort_by_key(|key| key.order);
        for collected in other.broadcasts {
            match self.broadcasts.iter_mut().find(|known| known.is_like(&collected)) {
                Some(known) => known.add(&collected),
                None => self.broadcasts.push(collected),
            }
        }
        self.all = other.all.or(self.all);
    }
}

impl Invalidations {
    /// No reads yet; trackers of this node are told.
    pub(crate) fn new(shared: Arc<Tracking>) -> Self {
        Self {
            shared,
            ..Self::default()
        }
    }

    /// Whether a change of a key may concern a tracker.
    #[inline]
    pub(crate) fn concern_somebody(&self) -> bool {
        !self.table.is_empty() || self.shared.prefixes_version() != 0
    }

    /// Whether there is something to tell.
    #[inline]
    pub(crate) fn are_raised(&self) -> bool {
        self.is_raised
    }

    /// Notes that a tracker has read a key. It is told of the next change.
    pub(crate) fn remember(&mut self, key: &[u8], reader: u32) {
        match self.table.remember(key, reader) {
            Remembered::Nothing => return,
            Remembered::Reader => {}
            Remembered::Key => {
                self.shared.keys.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.shared.items.fetch_add(1, Ordering::Relaxed);
        self.drop_excess();
    }

    /// Drops keys while those of all partitions exceed their bound, some at a time. Their readers are told as of a change.
    pub(crate) fn drop_excess(&mut self) {
        for _ in 0..TRACKED_KEYS_DROPPED_AT_ONCE {
            if self.table.is_empty() || !self.shared.claim_excess_key() {
                return;
            }
            if let Some(taken) = self.table.take_any() {
                self.raise(taken, 0);
            }
        }
    }

    /// Notes that a key changes. `writer` is the number of the client that changes it; 0 if none does.
    #[inline(never)]
    pub(crate) fn changed(&mut self, key: &[u8], writer: u32) {
        if let Some(taken) = self.table.take(key) {
            self.shared.keys.fetch_sub(1, Ordering::Relaxed);
            self.raise(taken, writer);
        }
        if self.shared.prefixes_version() != 0 {
            self.is_raised |= self.collector.note(&self.shared, key, writer);
        }
    }

    /// Notes a key for its readers that is no longer in the table, nor counted.
    fn raise(&mut self, (key, readers): (Box<[u8]>, Readers), writer: u32) {
        self.shared.items.fetch_sub(readers.len(), Ordering::Relaxed);
        let order = self.shared.order.fetch_add(1, Ordering::Relaxed);
        self.keys.push(ReadKey {
            order,
            key,
            readers,
            writer,
        });
        self.is_raised = true;
    }

    /// Notes that all keys may change. `writer` is the number of the client that causes it; 0 if none does.
    pub(crate) fn all_changed(&mut self, writer: u32) {
        let keys = self.table.len();
        let items = self.table.clear();
        self.shared.keys.fetch_sub(keys, Ordering::Relaxed);
        self.shared.items.fetch_sub(items, Ordering::Relaxed);
        if self.shared.is_on() {
            self.all = Some(writer);
            self.is_raised = true;
        }
    }

    /// Leaves what is to be told in the mailboxes of loops. To be called before the partition is let go of.
    #[inline]
    pub(crate) fn hand_out(&mut self) {
        if self.is_raised {
            let told = self.take();
            self.shared.tell(told);
        }
    }

    /// Takes what is to be told.
    #[cold]
    pub(crate) fn take(&mut self) -> Told {
        self.is_raised = false;
        Told {
            keys: std::mem::take(&mut self.keys),
            broadcasts: self.collector.take(),
            all: self.all.take(),
        }
    }
}
