//! The faults that the threads of a run report, the first few of them.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Enough to see what is wrong.
const KEPT: usize = 5;

/// The faults of a run.
#[derive(Default)]
pub(super) struct Faults(Mutex<Vec<String>>);

impl Faults {
    /// Notes a fault.
    pub(super) fn add(&self, text: String) {
        let mut faults = self.lock();
        if faults.len() < KEPT {
            faults.push(text);
        }
    }

    /// Whether there is none so far.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Takes all that were noted.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
