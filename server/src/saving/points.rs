//! Save points: when a save in the background is due by itself.

use super::Persistence;
use crate::config::SavePoints;
use crate::limits::SAVE_RETRY_S;

/// A save that is due, and the save point that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SaveDue {
    /// Changes of the save point.
    pub(crate) changes: u64,
    /// Seconds of the save point.
    pub(crate) seconds: u64,
}

impl Persistence {
    /// The save that is due at this time, if one is; `changes` counts the changes to the data. After a failure the next attempt
    /// is made some seconds later.
    pub(crate) fn save_due(
        &self,
        points: &SavePoints,
        changes: impl FnOnce() -> u64,
        now_us: i64,
    ) -> Option<SaveDue> {
        let state = self.state.lock();
        let since_s = now_us / 1_000_000 - self.last_save_s();
        let since_attempt_s = (now_us - state.figures.tried_us) / 1_000_000;
        if !state.is_idle() || self.has_failed() && since_attempt_s <= SAVE_RETRY_S {
            return None;
        }
        // With the lock: no save ends between the two looks.
        let unsaved = changes() - self.changes_saved();
        let is_due = |seconds: u64, wanted: u64| {
            unsaved >= wanted && u64::try_from(since_s).is_ok_and(|since_s| since_s > seconds)
        };
        let due = points
            .0
            .iter()
            .find(|point| is_due(point.seconds, point.changes))?;
        Some(SaveDue {
            changes: due.changes,
            seconds: due.seconds,
        })
    }
}
