//! Room for commands of clients that waited: like every other command, they run when keys have been evicted that the node
//! has no memory for.
//!
//! The loop does the same for the requests that it reads (`event_loop/evict.rs`), before they get a place to run. A
//! waiting command is served in the midst of others, on partitions whose figures are otherwise published only afterwards.

use shardis_storage::keyspace::eviction::lfu::LfuOptions;
use shardis_storage::keyspace::eviction::{EvictionOptions, Policy};
use shardis_storage::memory::thread_balance;

use super::execution::Environment;
use super::serve::serve_ready;
use crate::exec::Partition;
use crate::exec::view::Held;
use crate::limits::{EVICT_RELEASE_SLICE, EVICT_SLICE_US};
use crate::state::Node;
use crate::tracking::Told;

/// An amount of memory to free within a bounded time.
struct Goal {
    /// The thread's balance at which enough is freed, bytes.
    balance: i64,
    /// End of the time, on the node's stopwatch.
    until_ns: u64,
}

/// The part of a partition that was evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pursued {
    /// Some of it: there may be more.
    Some,
    /// All that the policy finds.
    All,
}

/// Number of keys that are evicted between two looks at the clock.
const EVICTED_AT_ONCE: usize = 16;

/// Evicts keys while the node exceeds its limit, from the partitions that are held and from those that are free. False when
/// nothing is left to evict and the limit is still exceeded, so that a command that may take memory must not run.
pub(crate) fn make_room(mut held: Held<'_>, environment: &Environment<'_>) -> bool {
    let excess = environment.node.excess_bytes();
    if excess == 0 || environment.node.pause.active(environment.stamp.now_ms).is_some() {
        return true;
    }
    if environment.settings.maxmemory_policy.policy() == Policy::NoEviction {
        return false;
    }
    let goal = Goal {
        balance: thread_balance() - excess.cast_signed(),
        until_ns: environment.clock.elapsed_ns() + EVICT_SLICE_US.cast_unsigned() * 1000,
    };
    let first = environment.node.shard_to_evict_from();
    let mut is_left = false;
    loop {
        let mut is_taken = false;
        for shard in (0..environment.shards).map(|step| (first + step) % environment.shards) {
            if goal.is_reached() {
                return true;
            }
            let pursued = if held.holds(shard) {
                Some(evict_here(shard, &mut held, &goal, environment))
            } else {
                evict_elsewhere(shard, &mut held, &goal, environment)
            };
            match pursued {
                None => is_taken = true,
                Some(pursued) => is_left |= pursued == Pursued::Some,
            }
        }
        if !is_taken || goal.is_late(environment) {
            return goal.is_reached() || is_left || is_taken;
        }
    }
}

/// Evicts from a shard that is held.
fn evict_here(shard: usize, held: &mut Held<'_>, goal: &Goal, environment: &Environment<'_>) -> Pursued {
    let mut pursued = Pursued::All;
    held.each(|partition| {
        if partition.shard == shard {
            pursued = goal.pursue(partition, environment);
        }
    });
    held.book();
    held.each(|partition| {
        // The command that made the keys ready may still have arguments here, so that an empty partition may take some memory.
        environment.node.memory[partition.shard].set(partition.memory_bytes.cast_unsigned());
    });
    pursued
}

/// Evicts from a shard that is not held; none when it is taken.
fn evict_elsewhere(
    shard: usize,
    held: &mut Held<'_>,
    goal: &Goal,
    environment: &Environment<'_>,
) -> Option<Pursued> {
    let mut borrowed = environment.mesh.cell(shard).borrow(1)?;
    let partition = borrowed.get();
    let begin = thread_balance();
    partition.begin_use();
    let pursued = goal.pursue(partition, environment);
    serve_ready(Held::One(&mut *partition), environment);
    partition.book();
    publish(partition, environment.node);
    environment.hand_over();
    held.leave_out(thread_balance() - begin);
    Some(pursued)
}

impl Goal {
    /// Evicts keys of a partition until enough is freed, the time is over, or nothing is left.
    fn pursue(&self, partition: &mut Partition, environment: &Environment<'_>) -> Pursued {
        loop {
            // Some keys go however little time there is, so that a node with nothing to give up finds that out.
            for _ in 0..EVICTED_AT_ONCE {
                if self.is_reached() {
                    return Pursued::Some;
                }
                if !give_up(partition, environment) {
                    return Pursued::All;
                }
            }
            if self.is_late(environment) {
                return Pursued::Some;
            }
        }
    }

    /// Whether enough is freed.
    fn is_reached(&self) -> bool {
        thread_balance() <= self.balance
    }

    /// Whether the time is over.
    fn is_late(&self, environment: &Environment<'_>) -> bool {
        environment.clock.elapsed_ns() >= self.until_ns
    }
}

/// Frees memory of a partition: garbage if there is some, else the key that the policy chooses. False when it has
/// neither.
pub(crate) fn give_up(partition: &mut Partition, environment: &Environment<'_>) -> bool {
    if partition.keyspace.pending_release() > 0 {
        partition.release(EVICT_RELEASE_SLICE);
        return true;
    }
    let settings = environment.settings;
    let options = EvictionOptions {
        policy: settings.maxmemory_policy.policy(),
        samples: settings.maxmemory_samples as usize,
        lfu: LfuOptions {
            log_factor: settings.lfu_log_factor,
            decay_minutes: settings.lfu_decay_time,
        },
    };
    let stamp = &environment.stamp;
    let lazily = settings.lazyfree_lazy_eviction;
    let found = partition.evict(options, stamp.now_ms, lazily, stamp.events);
    partition.record_removals(environment.recorder);
    found
}

/// Publishes what the use of a partition has led to, before it is let go of: messages to trackers, its memory, and the number of
/// changes.
pub(crate) fn publish(partition: &mut Partition, node: &Node) {
    partition.door.invalidations.hand_out();
    node.changes[partition.shard].set(partition.door.figures.changes);
    node.memory[partition.shard].set(partition.counted_bytes());
    node.garbage[partition.shard].set(partition.keyspace.pending_release() as u64);
}

/// Publishes what the common use of partitions has led to, like [`publish`]. Trackers are told of it as of one change.
pub(crate) fn publish_all<'p>(partitions: impl Iterator<Item = &'p mut Partition>, node: &Node) {
    let mut told: Option<Told> = None;
    for partition in partitions {
        if partition.door.invalidations.are_raised() {
            let more = partition.door.invalidations.take();
            told.get_or_insert_default().add(more);
        }
        publish(partition, node);
    }
    if let Some(told) = told {
        node.tracking.tell(told);
    }
}
