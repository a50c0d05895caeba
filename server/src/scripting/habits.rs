//! [`Habits`]: what is known of a script or function from its earlier runs, on whichever loop they were.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::limits::SCRIPT_CLEAN_RUNS;

/// Knowledge about a script. Loops share it; each figure is a hint, and none needs another one to be of the same time.
#[derive(Debug, Default)]
pub(crate) struct Habits {
    /// Runs that touched no key but those in slots of declared ones, up to those needed.
    clean_runs: AtomicU32,
    /// A run has touched another key.
    has_strayed: AtomicBool,
    /// A run has taken long.
    is_slow: AtomicBool,
}

impl Habits {
    /// Whether the script gets the shards of its declared keys only.
    #[inline]
    pub(crate) fn is_trusted(&self) -> bool {
        !self.has_strayed() && self.clean_runs.load(Ordering::Relaxed) >= SCRIPT_CLEAN_RUNS
    }

    /// Whether a run has touched a key that was not declared.
    #[inline]
    pub(crate) fn has_strayed(&self) -> bool {
        self.has_strayed.load(Ordering::Relaxed)
    }

    /// Notes a run that touched nothing but what it had declared.
    #[inline]
    pub(crate) fn note_clean(&self) {
        if self.clean_runs.load(Ordering::Relaxed) < SCRIPT_CLEAN_RUNS {
            self.clean_runs.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that a run has touched another key: the script gets all shards from now on.
    pub(crate) fn note_stray(&self) {
        self.has_strayed.store(true, Ordering::Relaxed);
    }

    /// Whether a run has taken long.
    #[inline]
    pub(crate) fn is_slow(&self) -> bool {
        self.is_slow.load(Ordering::Relaxed)
    }

    /// Notes that a run takes long.
    pub(crate) fn note_slow(&self) {
        self.is_slow.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_takes_time_and_ends_for_good() {
        let habits = Habits::default();
        for _ in 0..SCRIPT_CLEAN_RUNS {
            assert!(!habits.is_trusted());
            habits.note_clean();
        }
        assert!(habits.is_trusted());
        habits.note_stray();
        habits.note_clean();
        assert!(!habits.is_trusted());
    }
}
