//! Eviction: removes keys while the memory that the node has counted exceeds `maxmemory`.
//!
//! Any loop that finds the limit exceeded evicts from every shard that is its own or free at this moment, from each in
//! proportion to the memory it holds. So no loop has to be woken, and one shard can give up what another cannot. A loop spends a bounded time of each turn on it; commands go on running while only time is
//! missing. They are refused only when no shard has anything left to evict.

use shardis_storage::keyspace::eviction::Policy;

use super::EventLoop;
use super::batches::count_memory;
use crate::dispatch::room::give_up;
use crate::dispatch::serve::serve_ready;
use crate::exec::view::Held;
use crate::limits::EVICT_SLICE_US;
use crate::observe::latency;

/// State of the node's memory, as commands have to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Memory is within the limit, or eviction is suspended.
    Enough,
    /// Memory exceeds the limit, but eviction goes on.
    Coming,
    /// Memory exceeds the limit, and nothing is left to evict.
    None,
}

/// Result of evicting from one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Evicted {
    /// The requested bytes were freed.
    Enough,
    /// Fewer bytes were freed, because nothing is left.
    All,
    /// Fewer bytes were freed, because the slice of time was used up.
    Some,
    /// Nothing was freed: the shard is taken.
    Taken,
}

impl EventLoop {
    /// Evicts keys if the node exceeds its limit. Without a limit this costs a comparison.
    #[inline]
    pub(super) fn make_room(&mut self) -> Room {
        if self.node.excess_bytes() == 0 {
            if self.evicting.is_over {
                self.note_end_of_excess();
            }
            return Room::Enough;
        }
        self.evict()
    }

    /// Ends the period in which memory exceeded its limit, and counts its duration.
    #[cold]
    fn note_end_of_excess(&mut self) {
        self.evicting.is_over = false;
        let stats = &self.node.stats[self.index];
        let since_us = stats.over_memory_since_us.get();
        if let Ok(us) = u64::try_from(self.now_us - since_us.cast_signed()) {
            stats.over_memory_us.add(us);
        }
        stats.over_memory_since_us.set(0);
    }

    #[cold]
    fn evict(&mut self) -> Room {
        if self.node.pause.active(self.now_ms()).is_some() || self.node.replication.following.is_changing() {
            // A client that pauses writes wants the data to stay as it is. While the node becomes a primary, a removal would be in
            // nobody's stream.
            return Room::Enough;
        }
        if self.settings.replica_ignore_maxmemory && self.node.replication.following.is_replica() {
            // The primary evicts for its replicas as well.
            return Room::Enough;
        }
        if !self.evicting.is_over {
            self.evicting.is_over = true;
            let since = self.now_us.cast_unsigned();
            self.node.stats[self.index].over_memory_since_us.set(since);
        }
        if self.settings.maxmemory_policy.policy() == Policy::NoEviction {
            return Room::None;
        }
        let slice_us = slice_us(self.settings.maxmemory_eviction_tenacity);
        // The first keys of a turn go whatever the slice is.
        if self.evicting.spent_us > 0 && self.evicting.spent_us >= slice_us {
            return Room::Coming;
        }
        let begin_us = self.elapsed_us();
        let room = self.evict_from_all(begin_us, slice_us);
        let us = self.elapsed_us() - begin_us;
        self.evicting.spent_us += us;
        self.evicting.goes_on = room == Room::Coming && self.evicting.spent_us >= slice_us;
        self.node
            .note_latency(&self.settings, latency::EVICTION_CYCLE, us.cast_unsigned());
        room
    }

    /// Evicts from all shards: once for their shares of the excess, then for what is still missing.
    fn evict_from_all(&mut self, begin_us: i64, slice_us: i64) -> Room {
        let shards = self.reach.mesh.len();
        let first = self.node.shard_to_evict_from();
        let mut is_taken = false;
        for shares in [true, false] {
            for shard in (0..shards).map(|step| (first + step) % shards) {
                let excess = self.node.excess_bytes();
                if excess == 0 {
                    return Room::Enough;
                }
                let wanted = if shares { self.share(shard, excess) } else { excess };
                match self.evict_from(shard, wanted, (begin_us, slice_us)) {
                    Evicted::Some => return Room::Coming,
                    Evicted::Taken => is_taken = true,
                    Evicted::Enough | Evicted::All => {}
                }
            }
        }
        match self.node.excess_bytes() {
            0 => Room::Enough,
            // The loop that uses the shard evicts from it as soon as it is done.
            _ if is_taken => Room::Coming,
            _ => Room::None,
        }
    }

    /// Share of an excess that a shard has to give up, in proportion to the memory it holds.
    fn share(&self, shard: usize, excess: u64) -> u64 {
        let held = |shard: usize| u128::from(self.node.memory[shard].get());
        let all: u128 = (0..self.node.shards).map(held).sum();
        // Other loops change the figures between the two reads, so that a share may come out above the whole.
        let share = (u128::from(excess) * held(shard)).div_ceil(all.max(1));
        u64::try_from(share).unwrap_or(excess)
    }

    /// Evicts keys of a shard until it holds `wanted` bytes less, or the slice that began at `begin_us` is over.
    fn evict_from(&self, shard: usize, wanted: u64, (begin_us, slice_us): (i64, i64)) -> Evicted {
        let environment = self.environment();
        let cell = environment.mesh.cell(shard);
        let held = if shard == self.index {
            cell.own()
        } else {
            cell.borrow(1)
        };
        let Some(mut held) = held else {
            return Evicted::Taken;
        };
        let target = held.get().memory_bytes - wanted.cast_signed();
        let mut deleted_us = begin_us;
        while held.get().memory_bytes > target {
            let found = count_memory(held.get(), &environment, |partition| {
                let found = give_up(partition, &environment);
                if partition.door.waiters.has_ready() {
                    serve_ready(Held::One(partition), &environment);
                }
                found
            });
            if !found {
                return Evicted::All;
            }
            let now_us = self.elapsed_us();
            let us = now_us - std::mem::replace(&mut deleted_us, now_us);
            self.node
                .note_latency(&self.settings, latency::EVICTION_DEL, us.cast_unsigned());
            if self.evicting.spent_us + now_us - begin_us >= slice_us {
                return Evicted::Some;
            }
        }
        Evicted::Enough
    }

    fn elapsed_us(&self) -> i64 {
        (self.node.clock.elapsed_ns() / 1000).cast_signed()
    }
}

/// Duration of a slice of eviction, microseconds per turn. Up to 10, the tenacity counts tenths of the usual slice; each further
/// step makes the slice longer by 15 percent, and the last one endless.
fn slice_us(tenacity: u8) -> i64 {
    match tenacity {
        0..=10 => EVICT_SLICE_US * i64::from(tenacity) / 10,
        100.. => i64::MAX,
        steps => (EVICT_SLICE_US as f64 * 1.15_f64.powi(i32::from(steps) - 10)) as i64,
    }
}

/// State of a loop's evictions.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Evicting {
    /// Time of this turn spent on eviction, microseconds.
    pub(super) spent_us: i64,
    /// The slice of this turn was used up: the loop must not sleep.
    pub(super) goes_on: bool,
    /// Memory exceeded its limit when this loop last looked.
    is_over: bool,
}

impl Evicting {
    /// Resets the time spent, at the start of a turn.
    pub(super) fn begin_turn(&mut self) {
        self.spent_us = 0;
        self.goes_on = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenacity_makes_slices_longer() {
        assert_eq!(
            (slice_us(0), slice_us(5), slice_us(10)),
            (0, EVICT_SLICE_US / 2, EVICT_SLICE_US)
        );
        assert!((1..100).all(|tenacity| slice_us(tenacity) > slice_us(tenacity - 1)));
        assert_eq!(slice_us(11), EVICT_SLICE_US * 115 / 100);
        assert_eq!(slice_us(100), i64::MAX);
    }
}
