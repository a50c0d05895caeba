//! [`Doomed`]: slots that have gone to another node, and whose keys the loop of a shard has still to hear of.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use shardis_cluster::{Slot, SlotSet};

/// Slots whose keys one shard is to delete.
#[derive(Debug, Default)]
pub(crate) struct Doomed {
    is_new: AtomicBool,
    slots: Mutex<Option<Box<SlotSet>>>,
}

impl Doomed {
    /// Adds slots. The caller rings the loop.
    pub(super) fn add(&self, slots: &SlotSet) {
        let mut known = self.slots.lock();
        known.get_or_insert_default().extend(slots.iter());
        self.is_new.store(true, Ordering::Release);
    }

    /// Takes one slot out: it has come back. False if it is not among them.
    pub(crate) fn remove(&self, slot: Slot) -> bool {
        let mut known = self.slots.lock();
        known.as_mut().is_some_and(|slots| slots.remove(slot))
    }

    /// Whether there are any.
    #[inline]
    pub(crate) fn is_new(&self) -> bool {
        self.is_new.load(Ordering::Acquire)
    }

    /// Takes the slots over, for the partition of the shard.
    pub(crate) fn take(&self) -> Option<Box<SlotSet>> {
        let mut known = self.slots.lock();
        self.is_new.store(false, Ordering::Release);
        known.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_added_up_until_they_are_taken_over() {
        let doomed = Doomed::default();
        assert!(!doomed.is_new() && doomed.take().is_none());
        let of = |number| SlotSet::from_iter(Slot::new(number));
        doomed.add(&of(1));
        doomed.add(&of(9));
        assert!(doomed.is_new());
        doomed.add(&of(7));
        let back = Slot::new(7).unwrap();
        assert!(doomed.remove(back) && !doomed.remove(back));
        assert_eq!(
            doomed.take().map(|slots| slots.to_string()).as_deref(),
            Some("1 9")
        );
        assert!(!doomed.is_new() && doomed.take().is_none());
    }
}
