//! [`Fence`]: the moment from which on nothing runs any more that any loop had admitted before.
//!
//! Whoever has changed what is admitted asks for it, and rings the loops. A loop has run out when all that it had admitted before it saw
//! the request has run, here and on other shards. That may have left keys for whose waiting clients no shard was free, here or
//! elsewhere: a loop passes the fence when all loops have run out and no such key is left in its shard.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// The requests of a node's own tasks, and how far the loops are.
#[derive(Debug)]
pub(crate) struct Fence {
    /// Number of the last request.
    asked: AtomicU64,
    /// By loop: number of the last request before which it has run all.
    run_out: Vec<AtomicU64>,
    /// By loop: number of the last request that it has passed.
    passed: Vec<AtomicU64>,
    progress: Notify,
}

impl Fence {
    /// The fence of so many loops.
    pub(super) fn new(loops: usize) -> Self {
        Self {
            asked: AtomicU64::new(0),
            run_out: (0..loops).map(|_| AtomicU64::new(0)).collect(),
            passed: (0..loops).map(|_| AtomicU64::new(0)).collect(),
            progress: Notify::new(),
        }
    }

    /// Asks all loops to pass, and returns the number of the request. The caller rings them.
    pub(crate) fn ask(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Number of the last request, if a loop has not passed it.
    #[inline]
    pub(crate) fn asked_of(&self, of_loop: usize) -> Option<u64> {
        let asked = self.asked.load(Ordering::SeqCst);
        (self.passed[of_loop].load(Ordering::Relaxed) < asked).then_some(asked)
    }

    /// Notes that a loop has run all that it had admitted before it saw a request. True if it was the last one: the caller rings the others.
    pub(crate) fn run_out(&self, of_loop: usize, number: u64) -> bool {
        let before = self.run_out[of_loop].swap(number, Ordering::SeqCst);
        before < number && self.have_run_out(number)
    }

    /// Whether all loops have run what they had admitted before they saw a request.
    pub(crate) fn have_run_out(&self, number: u64) -> bool {
        has_reached(&self.run_out, number)
    }

    /// Notes that a loop has passed a request.
    pub(crate) fn pass(&self, of_loop: usize, number: u64) {
        self.passed[of_loop].store(number, Ordering::SeqCst);
        self.progress.notify_waiters();
    }

    /// Whether all loops have passed a request.
    pub(crate) fn has_passed(&self, number: u64) -> bool {
        has_reached(&self.passed, number)
    }

    /// Waits until all loops have passed a request.
    pub(crate) async fn passed(&self, number: u64) {
        loop {
            let mut progress = std::pin::pin!(self.progress.notified());
            // In this order, or the last pass might be missed.
            progress.as_mut().enable();
            if self.has_passed(number) {
                return;
            }
            progress.await;
        }
    }
}

fn has_reached(loops: &[AtomicU64], number: u64) -> bool {
    loops
        .iter()
        .all(|reached| reached.load(Ordering::SeqCst) >= number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_passed_by_all_loops() {
        let fence = Fence::new(2);
        assert_eq!(fence.asked_of(0), None);
        let first = fence.ask();
        assert!(!fence.run_out(0, first) && !fence.have_run_out(first));
        assert!(fence.run_out(1, first) && fence.have_run_out(first));
        assert!(!fence.run_out(1, first), "they were told");
        fence.pass(0, first);
        assert!(!fence.has_passed(first));
        let second = fence.ask();
        assert_eq!(
            (fence.asked_of(0), fence.asked_of(1)),
            (Some(second), Some(second))
        );
        fence.pass(1, second);
        assert_eq!(fence.asked_of(1), None);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(fence.passed(first));
        fence.pass(0, second);
        runtime.block_on(fence.passed(second));
    }
}
