//! [`Freeze`]: the standstill of a node inside another program, as if its process had been stopped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Time between two looks whether a node ends that is to stand still.
const LOOK: Duration = Duration::from_millis(50);

/// The standstill of a node: its loops and its control thread wait where they pass here.
#[derive(Debug, Default)]
pub(crate) struct Freeze {
    is_on: AtomicBool,
    /// Number of threads that stand still.
    standing: Mutex<usize>,
    changed: Condvar,
}

impl Freeze {
    /// Holds the calling thread for as long as the node stands still.
    #[inline]
    pub(crate) fn pass(&self) {
        if self.is_on.load(Ordering::Relaxed) {
            self.stand();
        }
    }

    #[cold]
    fn stand(&self) {
        let mut standing = self.standing.lock();
        *standing += 1;
        self.changed.notify_all();
        while self.is_on.load(Ordering::Relaxed) {
            self.changed.wait(&mut standing);
        }
        *standing -= 1;
    }

    /// Begins a standstill, and waits until so many threads stand still. `ring` wakes them, and `is_over` says that they end instead.
    pub(crate) fn begin(&self, threads: usize, ring: impl FnOnce(), is_over: impl Fn() -> bool) {
        self.is_on.store(true, Ordering::Relaxed);
        ring();
        let mut standing = self.standing.lock();
        while *standing < threads && !is_over() {
            self.changed.wait_for(&mut standing, LOOK);
        }
    }

    /// Ends it.
    pub(crate) fn end(&self) {
        // Under the lock, so that no thread begins to wait between its look and this.
        let _standing = self.standing.lock();
        self.is_on.store(false, Ordering::Relaxed);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn threads_stand_still_until_it_ends() {
        let (freeze, steps) = (Freeze::default(), AtomicUsize::new(0));
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        freeze.pass();
                        steps.fetch_add(1, Ordering::Relaxed);
                        std::thread::yield_now();
                    }
                });
            }
            for _ in 0..10 {
                freeze.begin(3, || {}, || false);
                let before = steps.load(Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
                assert_eq!(steps.load(Ordering::Relaxed), before);
                freeze.end();
                while steps.load(Ordering::Relaxed) == before {
                    std::thread::yield_now();
                }
            }
            is_over.store(true, Ordering::Relaxed);
        });
    }
}
