//! [`Ignored`]: nodes whose packets do not reach this one, for programs that embed a cluster and cut it in two.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use shardis_cluster::node::NodeId;

use super::Cluster;

/// The nodes that are not heard.
#[derive(Debug, Default)]
pub(super) struct Ignored {
    /// Whether there are any.
    has_any: AtomicBool,
    ids: Mutex<BTreeSet<NodeId>>,
}

impl Cluster {
    /// Keeps packets of these nodes from this one, beside those of nodes that it does not hear already.
    pub(crate) fn ignore(&self, ids: impl Iterator<Item = NodeId>) {
        self.ignored.ids.lock().extend(ids);
        self.ignored.has_any.store(true, Ordering::Relaxed);
    }

    /// Lets packets of all nodes through again.
    pub(crate) fn hear_all(&self) {
        self.ignored.has_any.store(false, Ordering::Relaxed);
        self.ignored.ids.lock().clear();
    }

    /// Whether packets of this node are not to be heard.
    pub(crate) fn ignores(&self, id: &NodeId) -> bool {
        self.ignored.has_any.load(Ordering::Relaxed) && self.ignored.ids.lock().contains(id)
    }
}
