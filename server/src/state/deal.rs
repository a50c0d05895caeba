//! Dealing new connections to loops: each goes to the loop that carries the fewest of those that are not held up.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::limits::HELD_UP_US;

/// What is known of each loop of a node to whoever accepts connections for all of them.
#[derive(Debug)]
pub(crate) struct Deal {
    loops: Vec<Load>,
    /// The loop that is dealt to next where several carry as few. Held while a loop is chosen, so that two that accept at the
    /// same moment do not choose the same one.
    next: Mutex<usize>,
}

/// One loop.
#[derive(Debug, Default)]
struct Load {
    connections: AtomicUsize,
    /// When its turn began, Unix microseconds; 0 between two turns.
    turn_from_us: AtomicI64,
}

impl Deal {
    /// The deal of so many loops that carry nothing yet.
    pub(crate) fn new(loops: usize) -> Self {
        Self {
            loops: (0..loops).map(|_| Load::default()).collect(),
            next: Mutex::new(0),
        }
    }

    /// Notes that a turn of a loop begins.
    #[inline]
    pub(crate) fn begin_turn(&self, index: usize, now_us: i64) {
        self.loops[index].turn_from_us.store(now_us, Ordering::Relaxed);
    }

    /// Notes that a loop is between two turns.
    #[inline]
    pub(crate) fn end_turn(&self, index: usize) {
        self.loops[index].turn_from_us.store(0, Ordering::Relaxed);
    }

    /// Chooses the loop that is to carry a new connection, and counts it there.
    pub(crate) fn choose(&self, now_us: i64) -> usize {
        let mut next = self.next.lock();
        let in_turn = || (0..self.loops.len()).map(|step| (*next + step) % self.loops.len());
        let is_held_up = |&index: &usize| {
            let from_us = self.loops[index].turn_from_us.load(Ordering::Relaxed);
            from_us > 0 && now_us - from_us > HELD_UP_US
        };
        let carried = |&index: &usize| self.loops[index].connections.load(Ordering::Relaxed);
        let free = in_turn().filter(|index| !is_held_up(index)).min_by_key(carried);
        let chosen = free.or_else(|| in_turn().min_by_key(carried));
        let chosen = chosen.expect("a node has a loop");
        *next = (chosen + 1) % self.loops.len();
        self.loops[chosen].connections.fetch_add(1, Ordering::Relaxed);
        chosen
    }

    /// Counts a connection that a loop carries no more.
    pub(crate) fn left(&self, index: usize) {
        self.loops[index].connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_dealt_evenly_and_gaps_are_filled() {
        let deal = Deal::new(3);
        let chosen: Vec<usize> = (0..6).map(|_| deal.choose(0)).collect();
        assert_eq!(chosen, [0, 1, 2, 0, 1, 2]);
        deal.left(1);
        deal.left(1);
        assert_eq!((deal.choose(0), deal.choose(0)), (1, 1));
        assert_eq!(deal.choose(0), 2);
    }

    #[test]
    fn a_loop_that_is_held_up_is_passed_over_unless_all_are() {
        let deal = Deal::new(2);
        deal.begin_turn(0, 1_000);
        assert_eq!(deal.choose(2_000), 0);
        let later_us = 2_000 + HELD_UP_US;
        assert_eq!([(); 3].map(|()| deal.choose(later_us)), [1, 1, 1]);
        deal.begin_turn(1, 1_000);
        assert_eq!(deal.choose(later_us), 0);
        deal.end_turn(0);
        assert_eq!(deal.choose(later_us), 0);
    }
}
