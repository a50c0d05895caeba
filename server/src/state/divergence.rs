//! Commands that fail on a replica and did not on its primary, and disks that a replica cannot write to: its data or its files do not follow
//! the primary any more, and directives say what comes of that.

use std::sync::atomic::Ordering;

use super::{Denial, Node};
use crate::config::PropagationError;
use crate::limits::DISK_ERROR_LOG_US;

impl Node {
    /// Notes that a command of the primary's stream has failed. The node ends if `propagation-error-behavior` wants that, unless clients may
    /// write to it, so that its data differs anyhow.
    pub(crate) fn note_divergence(&self, error: &[u8], command: &str) {
        self.replication.divergence.errors.fetch_add(1, Ordering::Relaxed);
        self.log.warning(format_args!(
            "== CRITICAL == This replica is sending an error to its master: '{}' after processing the command '{command}'",
            error.escape_ascii()
        ));
        let settings = self.settings.load();
        if settings.replica_read_only && settings.propagation_error_behavior != PropagationError::Ignore {
            self.log.warning(format_args!(
                "This replica panicked sending an error to its master after processing the command '{command}'"
            ));
            self.fail();
        }
    }

    /// Notes that the primary's changes come while they cannot be saved. The node ends, unless `replica-ignore-disk-write-errors` has it go
    /// on; false if it does.
    pub(crate) fn may_apply(&self, denial: Denial) -> bool {
        if denial == Denial::Replicas {
            return true;
        }
        if !self.settings.load().replica_ignore_disk_write_errors {
            self.log
                .warning(format_args!("Replica was unable to write command to disk."));
            self.fail();
            return false;
        }
        let (now_us, told_us) = (self.clock.now_us(), &self.replication.divergence.told_us);
        if now_us - told_us.load(Ordering::Relaxed) > DISK_ERROR_LOG_US {
            told_us.store(now_us, Ordering::Relaxed);
            self.log.warning(format_args!(
                "Replica is applying a command even though it is unable to write to disk."
            ));
        }
        true
    }
}
