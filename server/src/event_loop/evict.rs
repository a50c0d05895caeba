//! Making room: keys go while the node's data takes more than `maxmemory`.
//!
//! Every shard gives up a share of the excess that is in proportion to the memory it holds, within a bound of time per
//! turn. What a loop cannot know in a turn, whether other shards have done theirs, it does not wait for.

use shardis_storage::keyspace::eviction::lfu::LfuOptions;
use shardis_storage::keyspace::eviction::{EvictionOptions, Policy};

use super::EventLoop;
use super::batches::count_memory;
use crate::limits::EVICT_SLICE_US;
use crate::observe::latency;

impl EventLoop {
    /// Evicts keys of this shard if the node is over its limit, and finds out whether commands that need memory must be
    /// refused.
    pub(super) fn make_room(&mut self) {
        self.out_of_memory = false;
        let limit = self.settings.maxmemory;
        let excess = if limit == 0 {
            0
        } else {
            self.used_bytes().saturating_sub(limit)
        };
        if excess == 0 {
            return self.note_end_of_excess();
        }
        let stats = &self.node.stats[self.index];
        if stats.over_memory_since_us.get() == 0 {
            stats.over_memory_since_us.set(self.now_us as u64);
        }
        let policy = self.settings.maxmemory_policy.policy();
        let evicted = policy != Policy::NoEviction && self.evict(excess);
        let still_over = self.used_bytes() > limit;
        if still_over && self.reach.mesh.len() > 1 {
            // The others may not have noticed.
            self.node.ring_all();
        }
        self.out_of_memory = still_over && !evicted;
    }

    /// Memory is within its limit: the time for which it was not is over, if there was one.
    fn note_end_of_excess(&self) {
        let stats = &self.node.stats[self.index];
        let since_us = stats.over_memory_since_us.get();
        if since_us > 0 {
            stats
                .over_memory_us
                .add((self.now_us as u64).saturating_sub(since_us));
            stats.over_memory_since_us.set(0);
        }
    }

    fn used_bytes(&self) -> u64 {
        self.node.memory.iter().map(|memory| memory.get()).sum()
    }

    /// Evicts this shard's share of `excess`. False when there was nothing to evict.
    fn evict(&mut self, excess: u64) -> bool {
        let mesh = std::sync::Arc::clone(&self.reach.mesh);
        // While the partition is lent nothing is known of it; the next turn sees to it.
        let Some(mut held) = mesh.cell(self.index).own() else {
            return true;
        };
        let (used, own) = (self.used_bytes().max(1), self.node.memory[self.index].get());
        let share = u64::try_from(u128::from(excess) * u128::from(own) / u128::from(used)).unwrap_or(excess);
        let target = held.get().memory_bytes - share.max(1) as i64;
        let options = EvictionOptions {
            policy: self.settings.maxmemory_policy.policy(),
            samples: self.settings.maxmemory_samples as usize,
            lfu: LfuOptions {
                log_factor: self.settings.lfu_log_factor,
                decay_minutes: self.settings.lfu_decay_time,
            },
        };
        let (now_ms, lazily) = (self.now_ms(), self.settings.lazyfree_lazy_eviction);
        let begin_us = self.node.clock.now_us();
        let (mut evicted, mut done_us) = (false, begin_us);
        while held.get().memory_bytes > target {
            let found = count_memory(held.get(), &self.node, |partition| {
                let found = partition.evict(options, now_ms, lazily, self.stamp.events);
                partition.journal_removals();
                found
            });
            if !found {
                break;
            }
            evicted = true;
            let deleted_us = done_us;
            done_us = self.node.clock.now_us();
            let us = (done_us - deleted_us).max(0) as u64;
            self.node.note_latency(&self.settings, latency::EVICTION_DEL, us);
            if done_us - begin_us > EVICT_SLICE_US {
                break;
            }
        }
        let us = (done_us - begin_us).max(0) as u64;
        self.node
            .note_latency(&self.settings, latency::EVICTION_CYCLE, us);
        evicted || share == 0
    }
}
