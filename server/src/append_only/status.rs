//! [`Status`]: what is known of the append-only file without looking at it.

use std::fs;
use std::sync::Arc;

use crate::journal::directory::Directory;
use crate::journal::manifest::{Manifest, Part};
use crate::journal::tap::Increment;

/// State and figures of the append-only file.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    /// Whether it is on.
    pub(crate) phase: Phase,
    /// Time at which the rewrite that is under way began, Unix microseconds; none without one.
    pub(crate) rewriting_since_us: Option<i64>,
    /// A rewrite begins when nothing else is under way.
    pub(crate) is_scheduled: bool,
    /// Duration of the last rewrite, seconds; -1 before the first one.
    pub(crate) last_rewrite_s: i64,
    /// The last rewrite failed.
    pub(crate) has_failed: bool,
    /// Number of rewrites that have begun.
    pub(crate) rewrites: u64,
    /// Number of rewrites that have failed since the last one that did not.
    pub(crate) failures: u32,
    /// Time before which no rewrite begins by itself, Unix microseconds.
    pub(super) retry_us: i64,
    /// Minutes for which rewrites that begin by themselves wait after failures; 0 while they do not.
    pub(super) delay_minutes: i64,
    /// Bytes of the base.
    pub(crate) base_bytes: u64,
    /// Bytes of the increments other than the one that is written, and that which a rewrite under way has replaced.
    pub(crate) older_bytes: u64,
    /// The increment that is written when a rewrite begins, and is not any more from its cut on.
    pub(super) replaced: Option<Arc<Increment>>,
    /// Bytes of all files after the last rewrite, or of the base at the start: growth is measured against that.
    pub(crate) rewritten_bytes: u64,
    /// Number of units that lacked effects and that a rewrite has made up for.
    pub(super) torn_mended: u64,
}

/// Phase of the append-only file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The append-only file is switched off.
    #[default]
    Off,
    /// The append-only file is on, and its first base is not complete.
    First,
    /// The append-only file is on.
    On,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            phase: Phase::Off,
            rewriting_since_us: None,
            is_scheduled: false,
            last_rewrite_s: -1,
            has_failed: false,
            rewrites: 0,
            failures: 0,
            retry_us: 0,
            delay_minutes: 0,
            base_bytes: 0,
            older_bytes: 0,
            replaced: None,
            rewritten_bytes: 0,
            torn_mended: 0,
        }
    }
}

impl Status {
    /// Whether the first base is being written: without it, what was appended so far is of no use.
    pub(crate) fn is_first_base_missing(&self) -> bool {
        self.phase == Phase::First && self.rewriting_since_us.is_some()
    }

    /// Takes the sizes of the files but the `current` increment, which is written. No rewrite is under way.
    pub(super) fn measure(&mut self, directory: &Directory, manifest: &Manifest, current: Option<&Part>) {
        // A file that cannot be looked at counts as empty here; whoever loads it reports what is wrong with it.
        let size = |part: &Part| fs::metadata(directory.path_of(&part.name)).map_or(0, |found| found.len());
        self.base_bytes = manifest.base.as_ref().map_or(0, size);
        let older = manifest.increments.iter().filter(|&part| Some(part) != current);
        self.older_bytes = older.map(size).sum();
        self.replaced = None;
    }
}
