//! Deletes the keys of slots that have gone to another node, in slices at the end of turns.
//!
//! Clients are sent elsewhere for these slots already. If one of them comes back before all of it is deleted, the first command
//! that runs on it deletes the rest before (`dispatch/batch.rs`), so that nothing that is stored then is deleted.

use std::sync::Arc;

use super::EventLoop;
use super::batches::count_memory;
use crate::cluster::Doomed;
use crate::exec::Partition;
use crate::exec::view::{Held, Lent};
use crate::limits::{DOOMED_KEYS_AT_ONCE, DOOMED_SLICE_NS};

impl EventLoop {
    /// Deletes keys of this shard's doomed slots for the time of a slice.
    pub(super) fn delete_doomed(&mut self) {
        if !self.may_delete_doomed() {
            return;
        }
        let mesh = Arc::clone(&self.reach.mesh);
        let Some(mut held) = mesh.cell(self.index).own() else {
            return;
        };
        let partition = held.get();
        if let Some(slots) = self.node.doomed(self.index).and_then(Doomed::take) {
            partition.doom(slots);
        }
        if self.node.replication.following.is_replica() {
            // The primary decides now.
            partition.forget_doomed();
        }
        let environment = self.environment();
        let clock = &self.node.clock;
        let until_ns = clock.elapsed_ns() + DOOMED_SLICE_NS;
        let stamp = environment.stamp;
        let is_left = count_memory(partition, &environment, |partition| {
            loop {
                let is_left = partition.delete_doomed(DOOMED_KEYS_AT_ONCE, &stamp);
                partition.record_removals(environment.recorder);
                if !is_left || clock.elapsed_ns() >= until_ns {
                    return is_left;
                }
            }
        });
        // The end of a key may be what a command waits for.
        self.serve_own(held.get());
        drop(held);
        self.has_doomed_keys = is_left;
    }

    /// Deletes all keys of doomed slots in partitions that a command is about to run on. That is hardly ever the case.
    pub(super) fn delete_doomed_in(&self, partitions: &mut Lent) {
        let is_doomed = |partition: &Partition| {
            partition.has_doomed() || self.node.doomed(partition.shard).is_some_and(Doomed::is_new)
        };
        let has_doomed = partitions.iter().flatten().any(|partition| is_doomed(partition));
        if !has_doomed || !self.node.may_delete_doomed(self.now_ms()) {
            return;
        }
        let environment = self.environment();
        Held::Many(partitions).each(|partition| {
            if let Some(slots) = self.node.doomed(partition.shard).and_then(Doomed::take) {
                partition.doom(slots);
            }
            partition.delete_doomed(usize::MAX, &environment.stamp);
            partition.record_removals(environment.recorder);
        });
    }

    /// Whether there are keys to delete now: nothing changes while writes are paused.
    pub(super) fn may_delete_doomed(&self) -> bool {
        (self.has_doomed_keys || self.node.doomed(self.index).is_some_and(Doomed::is_new))
            && self.node.pause.active(self.now_ms()).is_none()
    }
}
