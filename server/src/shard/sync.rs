//! The primitives under `cell` and `doorbell`, replaced by those of loom for model checking.

#[cfg(not(shardis_loom))]
pub(crate) use parking_lot::{Mutex, MutexGuard};
#[cfg(not(shardis_loom))]
pub(crate) use std::hint::spin_loop;
#[cfg(not(shardis_loom))]
pub(crate) use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(shardis_loom)]
pub(crate) use loom::hint::spin_loop;
#[cfg(shardis_loom)]
pub(crate) use loom::sync::MutexGuard;
#[cfg(shardis_loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, Ordering};

/// Loom's mutex with the interface of `parking_lot`'s.
#[cfg(shardis_loom)]
#[derive(Debug)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

#[cfg(shardis_loom)]
impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Tries once, since time does not pass in a model: the limit is over at once.
    pub(crate) fn try_lock_for(&self, _: std::time::Duration) -> Option<MutexGuard<'_, T>> {
        self.try_lock()
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok()
    }
}
