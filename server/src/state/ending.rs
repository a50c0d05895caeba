//! The stop of a node: at once, when replicas have what was written, or when the data is saved.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::{Node, PauseCauses};
use crate::config::ShutdownOptions;
use crate::replication::Stage;
use crate::saving::{Job, Purpose, SaveError};

/// Error: the data should be saved before the node stops, and cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CannotSave;

/// The request to stop the node.
#[derive(Debug, Default)]
pub(crate) struct Shutdown {
    requested: Arc<AtomicBool>,
    /// A fault has ended the node.
    has_failed: AtomicBool,
    /// A stop waits for replicas, or for the save behind that.
    is_waiting: AtomicBool,
    waiting: Mutex<Option<WaitingEnd>>,
}

/// A stop that waits for replicas.
#[derive(Clone, Copy, Debug)]
struct WaitingEnd {
    options: ShutdownOptions,
    /// Number by which the clients that asked for it wait.
    number: u64,
    /// End of the wait, Unix microseconds.
    until_us: i64,
    /// Number of the job that saves the data behind it, once that has begun.
    job: Option<u64>,
}

impl Shutdown {
    /// The flag that is set by the request.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.requested)
    }

    /// Requests the stop of the node. The loops notice it in their next turn.
    pub(crate) fn request(&self) {
        self.requested.store(true, Ordering::Release);
    }

    /// Whether the node is to stop.
    #[inline]
    pub(crate) fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }

    /// Whether a stop waits for replicas.
    pub(crate) fn is_waiting(&self) -> bool {
        self.is_waiting.load(Ordering::Acquire)
    }

    fn set_waiting(&self, waiting: Option<WaitingEnd>) {
        *self.waiting.lock() = waiting;
        self.is_waiting.store(waiting.is_some(), Ordering::Release);
    }
}

impl Node {
    /// Stops the node, in the manner that a signal or a command asks for: at once, or when replicas have everything and the data is
    /// saved. Then the number of the job that clients wait for is returned.
    ///
    /// # Errors
    /// When the data is to be saved first, which cannot be begun: then the node goes on.
    pub(crate) fn end(&self, options: ShutdownOptions) -> Result<Option<u64>, CannotSave> {
        if self.loading.is_under_way() {
            self.log.warning(format_args!(
                "Received shutdown signal during loading, exiting now."
            ));
            self.shutdown.request();
            self.ring_all();
            return Ok(None);
        }
        let waiting = *self.shutdown.waiting.lock();
        if let Some(waiting) = waiting.filter(|_| !options.now) {
            return Ok(Some(waiting.number));
        }
        self.log.notice(format_args!("User requested shutdown..."));
        let timeout_s = self.settings.load().shutdown_timeout;
        if options.now || timeout_s == 0 || self.lagging().1 == 0 {
            return self.end_now(options);
        }
        self.log
            .notice(format_args!("Waiting for replicas before shutting down."));
        let number = self.persistence.reserve();
        self.shutdown.set_waiting(Some(WaitingEnd {
            options,
            number,
            until_us: self.clock.now_us() + i64::from(timeout_s) * 1_000_000,
            job: None,
        }));
        self.pause.hold(PauseCauses::SHUTDOWN);
        self.ring_all();
        Ok(Some(number))
    }

    /// Goes on with a stop that waits, if it need not wait any more.
    pub(crate) fn end_when_ready(&self) {
        let waiting = *self.shutdown.waiting.lock();
        let Some(waiting) = waiting else { return };
        if let Some(job) = waiting.job {
            if self.persistence.outcome(job) == Some(false) {
                self.stop_waiting(waiting);
            }
            return;
        }
        if self.lagging().1 > 0 && self.clock.now_us() < waiting.until_us {
            return;
        }
        match self.end_now(waiting.options) {
            Ok(None) => self.persistence.release(waiting.number, true),
            Ok(job) => self.shutdown.set_waiting(Some(WaitingEnd { job, ..waiting })),
            Err(CannotSave) => {
                self.log.warning(format_args!(
                    "Errors trying to shut down the server. Check the logs for more information."
                ));
                self.stop_waiting(waiting);
            }
        }
    }

    /// Has the node go on after a stop that was waiting.
    fn stop_waiting(&self, waiting: WaitingEnd) {
        self.shutdown.set_waiting(None);
        self.pause.release(PauseCauses::SHUTDOWN);
        self.persistence.release(waiting.number, false);
        self.ring_all();
    }

    /// Number of replicas, and of those that lack something.
    fn lagging(&self) -> (usize, usize) {
        let mut all = self.replication.replicas.all();
        all.retain(|replica| replica.stage() != Stage::Done);
        let end = self.journal.end().offset();
        let lagging = all.iter().filter(|replica| replica.acknowledged() < end).count();
        (all.len(), lagging)
    }

    fn report_lagging(&self) {
        let (count, lagging) = self.lagging();
        if count == 0 {
            return;
        }
        let (end, now_us) = (self.journal.end().offset(), self.clock.now_us());
        for replica in self.replication.replicas.all() {
            if replica.stage() != Stage::Done && replica.acknowledged() < end {
                self.log.warning(format_args!(
                    "Lagging replica {} reported offset {} behind master, lag={}, state={}.",
                    replica.name(),
                    end - replica.acknowledged(),
                    replica.lag_s(now_us),
                    replica.stage().name()
                ));
            }
        }
        self.log.notice(format_args!(
            "{} of {count} replicas are in sync when shutting down.",
            count - lagging
        ));
    }

    /// Stops the node at once, or when its data is saved.
    fn end_now(&self, options: ShutdownOptions) -> Result<Option<u64>, CannotSave> {
        self.report_lagging();
        if self.append_only.status().is_first_base_missing() {
            if !options.force {
                self.log.warning(format_args!("Writing initial AOF, can't exit"));
                return Err(CannotSave);
            }
            self.log
                .warning(format_args!("Writing initial AOF. Exit anyway."));
        }
        let settings = self.settings.load();
        if options.nosave || !options.save && settings.save.0.is_empty() {
            self.shutdown.request();
            self.ring_all();
            return Ok(None);
        }
        self.persistence.unschedule();
        self.log
            .notice(format_args!("Saving the final RDB snapshot before exiting."));
        let insists = options.force;
        let requested = self.shutdown.flag();
        let mut job = Job::dump(Purpose::Shutdown { insists }, &settings);
        job.at_end = Some(Box::new(move |outcome| {
            if outcome.is_ok() || insists && !matches!(outcome, Err(SaveError::GivenUp)) {
                requested.store(true, Ordering::Release);
            }
        }));
        let now_us = self.clock.now_us();
        let begun = self
            .persistence
            .begin_instead(job, now_us, |purpose| !purpose.is_shutdown());
        match begun {
            Ok(number) => Ok(Some(number)),
            Err(refused) if refused.by.is_shutdown() => Ok(Some(refused.number)),
            Err(_) => Err(CannotSave),
        }
    }

    /// Ends a stop that waits until replicas have everything or data is saved; false when there is none.
    pub(crate) fn go_on(&self) -> bool {
        let is_saving = self.persistence.give_up(Purpose::is_shutdown);
        let waiting = *self.shutdown.waiting.lock();
        if let Some(waiting) = waiting {
            self.stop_waiting(waiting);
        }
        let is_ended = is_saving || waiting.is_some();
        if is_ended {
            self.log.notice(format_args!("Shutdown manually aborted."));
        }
        is_ended
    }

    /// Whether the node stops, at once or when its data is saved.
    pub(crate) fn is_ending(&self) -> bool {
        self.shutdown.is_requested()
            || self.shutdown.is_waiting()
            || self.persistence.purpose().is_some_and(Purpose::is_shutdown)
    }

    /// Stops the node after a fault that it must not outlive: the program ends with an error.
    pub(crate) fn fail(&self) {
        self.shutdown.has_failed.store(true, Ordering::Release);
        self.shutdown.request();
        self.ring_all();
    }

    /// Whether a fault has ended the node.
    pub(crate) fn has_failed(&self) -> bool {
        self.shutdown.has_failed.load(Ordering::Acquire)
    }
}
