//! Dealing of new connections to loops in turn, without those that are held up.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use crate::limits::HELD_UP_US;

/// Deals the new connections of a node to its loops.
#[derive(Debug)]
pub(crate) struct Deal {
    /// Start of each loop's turn, Unix microseconds; 0 between two turns.
    turns_from_us: Vec<AtomicI64>,
    /// Number of connections dealt so far.
    dealt: AtomicUsize,
}

impl Deal {
    /// A deal for so many loops.
    pub(crate) fn new(loops: usize) -> Self {
        Self {
            turns_from_us: (0..loops).map(|_| AtomicI64::new(0)).collect(),
            dealt: AtomicUsize::new(0),
        }
    }

    /// Notes that a turn of a loop begins.
    #[inline]
    pub(crate) fn begin_turn(&self, index: usize, now_us: i64) {
        self.turns_from_us[index].store(now_us, Ordering::Relaxed);
    }

    /// Notes that a loop is between two turns.
    #[inline]
    pub(crate) fn end_turn(&self, index: usize) {
        self.turns_from_us[index].store(0, Ordering::Relaxed);
    }

    /// The loop for the next connection.
    pub(crate) fn next(&self, now_us: i64) -> usize {
        let (first, loops) = (
            self.dealt.fetch_add(1, Ordering::Relaxed),
            self.turns_from_us.len(),
        );
        let mut in_turn = (0..loops).map(|step| (first + step) % loops);
        in_turn
            .find(|&index| !self.is_held_up(index, now_us))
            .unwrap_or(first % loops)
    }

    fn is_held_up(&self, index: usize, now_us: i64) -> bool {
        let from_us = self.turns_from_us[index].load(Ordering::Relaxed);
        from_us > 0 && now_us - from_us > HELD_UP_US
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_dealt_in_turn() {
        let deal = Deal::new(3);
        assert_eq!([(); 7].map(|()| deal.next(0)), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn a_loop_that_is_held_up_is_passed_over_unless_all_are() {
        let deal = Deal::new(2);
        deal.begin_turn(0, 1_000);
        assert_eq!(deal.next(2_000), 0);
        let later_us = 2_000 + HELD_UP_US;
        assert_eq!([(); 3].map(|()| deal.next(later_us)), [1, 1, 1]);
        deal.begin_turn(1, 1_000);
        assert_eq!([(); 2].map(|()| deal.next(later_us)), [0, 1]);
        deal.end_turn(0);
        assert_eq!([(); 2].map(|()| deal.next(later_us)), [0, 0]);
    }
}
