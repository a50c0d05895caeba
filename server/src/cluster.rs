//! [`Cluster`]: this node's place in a cluster, as the threads of the node share it.
//!
//! Whoever changes what the node believes publishes a new [`SlotMap`]; loops read the newest one in every turn, and again
//! whenever they take a partition.

mod core;
mod doomed;
mod ignored;
mod options;
mod slot_map;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use shardis_cluster::{Machine, SlotSet};

use self::core::Core;
pub(crate) use self::core::{Batch, LinkFigures, now};
pub(crate) use self::doomed::Doomed;
use self::ignored::Ignored;
pub(crate) use self::options::{Ports, concerns_machine, options};
pub(crate) use self::slot_map::{SeenMap, SlotMap};
use crate::clock::Clock;

/// The place of a node in its cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// The newest map of slots.
    map: ArcSwap<SlotMap>,
    /// Its number.
    version: AtomicU64,
    core: Core,
    ignored: Ignored,
    /// By shard: slots that have gone to another node, and whose keys are to be deleted.
    doomed: Vec<Doomed>,
}

impl Cluster {
    /// The place of a node that begins with the view of a machine, whose time is that of a clock.
    pub(crate) fn new(machine: Machine, clock: Arc<Clock>) -> Self {
        Self {
            map: ArcSwap::from_pointee(SlotMap::of(&machine)),
            version: AtomicU64::new(0),
            core: Core::new(machine, clock),
            ignored: Ignored::default(),
            doomed: Vec::new(),
        }
    }

    /// The same place, of a node with so many shards.
    pub(crate) fn of_shards(mut self, shards: usize) -> Self {
        self.doomed.resize_with(shards, Doomed::default);
        self
    }

    /// Slots whose keys the loop of a shard has still to hear of.
    #[inline]
    pub(crate) fn doomed(&self, shard: usize) -> Option<&Doomed> {
        self.doomed.get(shard)
    }

    /// Dooms the keys of slots, while the machine is locked: nobody can take a slot back before its old keys are known to be doomed.
    fn doom(&self, slots: &SlotSet) {
        self.doomed.iter().for_each(|doomed| doomed.add(slots));
    }

    /// Has all commands from now on follow the view of the machine. One thread at a time may do so.
    pub(crate) fn publish(&self, machine: &Machine) {
        let number = self.version() + 1;
        self.map.store(Arc::new(SlotMap::of(machine).numbered(number)));
        // Behind the map: whoever finds the number finds this map, or a later one.
        self.version.store(number, Ordering::Release);
    }

    /// Number of the newest map. Whoever takes a partition after [`publish`](Self::publish) returned to another user of
    /// that partition sees the number that was published.
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The newest map.
    pub(crate) fn map(&self) -> Arc<SlotMap> {
        self.map.load_full()
    }
}

#[cfg(test)]
mod tests {
    use shardis_cluster::event::{Action, Command, Options, Reply};
    use shardis_cluster::node::NodeId;
    use shardis_cluster::{Owner, Slot, SlotView};

    use super::*;

    #[test]
    fn a_command_is_decided_and_published_at_once() {
        let clock = Arc::new(Clock::real());
        let id = NodeId::new([1; 20]);
        let machine = Machine::new(id, id, Options::default(), now(&clock), 1);
        let cluster = Cluster::new(machine, clock);
        let mut batches = cluster.batches().unwrap();
        assert_eq!((cluster.version(), cluster.map().number()), (0, 0));
        let slot = Slot::new(5).unwrap();
        let (reply, number) = cluster.order(Command::AddSlots(vec![slot..=slot]));
        assert_eq!(
            (reply, cluster.version(), cluster.map().number()),
            (Reply::Ok, 1, 1)
        );
        assert_eq!(cluster.map().seen(false).slot(slot).owner, Owner::Me);
        assert!(!cluster.has_carried_out(number));
        let batch = batches.try_recv().unwrap();
        assert!(matches!(batch.actions[0], Action::Save { .. }), "{batch:?}");
        cluster.note_carried_out(&batch);
        assert!(cluster.has_carried_out(number) && batches.try_recv().is_err());
    }

    #[test]
    fn nobody_is_told_of_a_message_when_nobody_is_there() {
        let clock = Arc::new(Clock::real());
        let id = NodeId::new([1; 20]);
        let machine = Machine::new(id, id, Options::default(), now(&clock), 1);
        let cluster = Cluster::new(machine, clock);
        let mut batches = cluster.batches().unwrap();
        cluster.publish_message(false, b"channel", b"message");
        assert!(batches.try_recv().is_err());
    }
}
