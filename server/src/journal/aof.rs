//! [`Aof`]: how the journal reaches the append-only file, and the disk.
//!
//! | `appendfsync` | who writes | who syncs | a reply leaves |
//! |---|---|---|---|
//! | `no` | the loops, at the end of a turn | the system | when what it tells of is written |
//! | `everysec` | the loops, at the end of a turn | a thread, once a second | when what it tells of is written |
//! | `always` | a thread | the thread, in groups | when all that was in the journal is synced |
//!
//! A process that is killed loses nothing that was written. While `everysec` syncs, writes are put off for up to two seconds, since the
//! system may hold them up until the sync is over, and replies leave all the same. A file gets no byte before the one that it follows
//! is on disk, however long that takes: a loss of power must not leave a gap between two files.
//!
//! A write that fails is cut off the file, kept, and tried again; meanwhile the node refuses writes. A *sync* that fails is never trusted
//! again: the system may have dropped what it could not write, and would call the next sync a success. The node refuses writes until a
//! rewrite has replaced the file. Under `always` either fault is the end of the node, and no reply leaves any more: clients must not be
//! told of what may be lost.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::tap::{Increment, Stretch, Tap};
use super::{Journal, Position};
use crate::clock::Clock;
use crate::config::AppendFsync;
use crate::error::describe;
use crate::limits::{AOF_BUFFER_KEPT_BYTES, AOF_FAULT_LOG_NS, AOF_POSTPONE_NS};
use crate::log::Log;

/// State of writing the append-only file.
#[derive(Debug, Default)]
pub(crate) struct Aof {
    /// [`Mode`].
    mode: AtomicU8,
    /// Whether the file contains annotations with the time.
    tells_time: AtomicBool,
    writer: Mutex<Writer>,
    /// Bytes that the writer has and the file has not.
    queued: AtomicUsize,
    /// The [`Position`] up to which the file is written.
    written: AtomicU64,
    /// The [`Position`] up to which it is on disk.
    synced: AtomicU64,
    /// The [`Position`] up to which replies may leave under `always`.
    passed: AtomicU64,
    /// Error of the last write, as the system numbers it; 0 if it was none.
    write_error: AtomicI32,
    /// Error of a sync whose file is still in use; 0 without one.
    sync_error: AtomicI32,
    /// Number of syncs that have failed.
    failed_syncs: AtomicU64,
    /// Number of units that entered the file without all of their effects.
    torn: AtomicU64,
    /// Held by whoever syncs: what others have begun to sync is not yet on disk.
    syncing: Mutex<()>,
    is_syncing: AtomicBool,
    /// The files make up the data.
    is_complete: AtomicBool,
    /// A snapshot is being written.
    is_saving: AtomicBool,
    /// Number of writes that went on although a sync took too long.
    delayed: AtomicU64,
    /// Pause before each write, microseconds, for tests.
    pub(crate) pause_us: AtomicU64,
    /// The thread has been called.
    is_called: Mutex<bool>,
    bell: Condvar,
}

/// The policy in effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Mode {
    Off,
    Never,
    EverySecond,
    Always,
}

/// Bytes on their way from the tap to the file.
#[derive(Debug, Default)]
struct Writer {
    /// Stretches that are not written, the first one maybe in part.
    queue: VecDeque<Stretch>,
    /// Memory for the next stretch.
    spare: Vec<u8>,
    /// Files with bytes that were written and not synced, in order.
    unsynced: Vec<Arc<Increment>>,
    /// Time since which writes are put off because a sync is running, on the node's stopwatch.
    postponed_since_ns: Option<u64>,
    /// Time of the last log line about a failed write, on the node's stopwatch.
    logged_ns: Option<u64>,
}

/// Whether a write may be put off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Urgency {
    /// While a sync is running, for a time.
    Usual,
    /// Not at all.
    Now,
}

/// Result of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    /// Everything is written.
    All,
    /// Something is left: it was put off, or could not be written.
    Some,
    /// The rest is for the next file and can be put off no longer, but what was written before is not on disk.
    UpToNextFile,
}

/// The parts of a node that writing reports to.
#[derive(Clone, Copy)]
pub(crate) struct Reporter<'a> {
    pub(crate) log: &'a Log,
    /// Takes an event for the latency monitor, and its duration in microseconds.
    pub(crate) note: &'a dyn Fn(&'static str, u64),
}

/// Events for the latency monitor, by the names that Redis gives them.
mod event {
    /// A write to the file.
    pub(super) const WRITE: &str = "aof-write";
    /// A write to the file while it was being synced.
    pub(super) const WRITE_PENDING_FSYNC: &str = "aof-write-pending-fsync";
    /// A write to the file while a snapshot was being written.
    pub(super) const WRITE_ACTIVE_CHILD: &str = "aof-write-active-child";
    /// A write to the file beside nothing else.
    pub(super) const WRITE_ALONE: &str = "aof-write-alone";
    /// A sync of the file that replies waited for.
    pub(super) const FSYNC_ALWAYS: &str = "aof-fsync-always";
}

/// Error of the append-only file that no policy but the end of the node can answer.
#[derive(Debug)]
pub(crate) struct FatalError;

/// Numbers of faults that only a rewrite mends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Syncs that have failed.
    pub(crate) failed_syncs: u64,
    /// Units that entered the file without all of their effects.
    pub(crate) torn: u64,
}

/// Figures about writing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WriteFigures {
    /// Bytes that wait to be written.
    pub(crate) buffered: usize,
    /// Whether a sync is running.
    pub(crate) is_syncing: bool,
    /// Number of writes that went on although a sync took too long.
    pub(crate) delayed: u64,
    /// The last write has failed.
    pub(crate) is_failing: bool,
}

impl From<AppendFsync> for Mode {
    fn from(policy: AppendFsync) -> Self {
        match policy {
            AppendFsync::Never => Self::Never,
            AppendFsync::EverySecond => Self::EverySecond,
            AppendFsync::Always => Self::Always,
        }
    }
}

impl Aof {
    fn mode(&self) -> Mode {
        match self.mode.load(Ordering::Relaxed) {
            0 => Mode::Off,
            1 => Mode::Never,
            2 => Mode::EverySecond,
            _ => Mode::Always,
        }
    }

    /// Whether the journal is written to a file.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.mode.load(Ordering::Relaxed) != Mode::Off as u8
    }

    /// Applies the directives.
    pub(crate) fn configure(&self, policy: AppendFsync, tells_time: bool) {
        if self.is_on() {
            self.mode.store(Mode::from(policy) as u8, Ordering::Relaxed);
        }
        self.tells_time.store(tells_time, Ordering::Relaxed);
    }

    /// Whether a reply may leave whose connection waits for a position.
    #[inline]
    pub(super) fn lets_pass(&self, position: Position) -> bool {
        self.mode.load(Ordering::Relaxed) != Mode::Always as u8
            || self.passed.load(Ordering::SeqCst) >= position.0
    }

    /// The time for an annotation, Unix seconds, if the file contains such.
    #[inline]
    pub(super) fn stamp(&self, clock: &Clock) -> Option<i64> {
        self.tells_time
            .load(Ordering::Relaxed)
            .then(|| clock.now_us() / 1_000_000)
    }

    /// Notes whether the files make up the data: not before the first base is complete.
    pub(crate) fn complete(&self, is_complete: bool) {
        self.is_complete.store(is_complete, Ordering::SeqCst);
    }

    /// The number of the system's error for which the node refuses writes.
    #[inline]
    pub(crate) fn error(&self) -> Option<i32> {
        let number = match self.write_error.load(Ordering::Relaxed) {
            0 => self.sync_error.load(Ordering::Relaxed),
            number => number,
        };
        (number != 0).then_some(number)
    }

    /// Whether the file needs a new base: a part of it may be lost.
    pub(crate) fn is_distrusted(&self) -> bool {
        self.sync_error.load(Ordering::Relaxed) != 0
    }

    /// Faults of the file so far, which only a rewrite mends.
    pub(crate) fn faults(&self) -> Faults {
        Faults {
            failed_syncs: self.failed_syncs.load(Ordering::Relaxed),
            torn: self.torn.load(Ordering::Relaxed),
        }
    }

    /// Notes that something enters the file that has no place in the stream, whose end this is: the file is behind that again.
    pub(super) fn note_beside(&self, end: Position) {
        for reached in [&self.written, &self.synced, &self.passed] {
            reached.fetch_min(end.0.saturating_sub(1), Ordering::SeqCst);
        }
    }

    /// Notes that the stream goes on at another position. The file has all that was before.
    pub(super) fn jump(&self, to: Position) {
        for reached in [&self.written, &self.synced, &self.passed] {
            reached.store(to.0, Ordering::SeqCst);
        }
    }

    /// Notes that not all effects of a unit enter the file.
    pub(super) fn note_torn(&self) {
        self.torn.fetch_add(1, Ordering::Relaxed);
    }

    /// Trusts the file again: a rewrite has replaced it, all of which is on disk.
    pub(crate) fn trust(&self) {
        self.sync_error.store(0, Ordering::Relaxed);
    }

    /// Notes whether a snapshot is being written, during which `no-appendfsync-on-rewrite` lets nothing be synced.
    pub(crate) fn note_saving(&self, is_saving: bool) {
        self.is_saving.store(is_saving, Ordering::Relaxed);
    }

    /// Has the thread look at what there is to do.
    pub(crate) fn call(&self) {
        *self.is_called.lock() = true;
        self.bell.notify_one();
    }

    /// Waits until the thread is called, or some time has passed: then false.
    pub(crate) fn await_call(&self, limit: Duration) -> bool {
        let mut is_called = self.is_called.lock();
        if !*is_called {
            self.bell.wait_for(&mut is_called, limit);
        }
        std::mem::take(&mut is_called)
    }
}

impl Journal {
    /// Has what follows go to a file: the first one, or the next one. To be called at a cut, while nobody else uses a partition.
    pub(crate) fn fill(&self, increment: Arc<Increment>, policy: AppendFsync) {
        let mut stream = self.stream.lock();
        let end = stream.end.0;
        match &mut stream.tap {
            Some(tap) => tap.switch(increment),
            None => {
                stream.tap = Some(Tap::new(increment));
                // The stream before this point is not in the file, and nobody waits for it.
                for position in [&self.aof.written, &self.aof.synced, &self.aof.passed] {
                    position.store(end, Ordering::SeqCst);
                }
                self.aof.mode.store(Mode::from(policy) as u8, Ordering::Relaxed);
            }
        }
        self.is_read.store(true, Ordering::Release);
    }

    /// Drops what waits for a file whose rewrite has failed, and has what follows go nowhere. The caller has written and synced
    /// what is to be kept.
    pub(crate) fn stop_filling(&self) {
        let aof = &self.aof;
        let mut writer = aof.writer.lock();
        let mut stream = self.stream.lock();
        stream.tap = None;
        self.is_read.store(stream.has_reader(), Ordering::Release);
        aof.mode.store(Mode::Off as u8, Ordering::Relaxed);
        aof.complete(false);
        *writer = Writer::default();
        aof.queued.store(0, Ordering::Relaxed);
        aof.write_error.store(0, Ordering::Relaxed);
        aof.sync_error.store(0, Ordering::Relaxed);
    }

    /// The file that is being written.
    pub(crate) fn increment(&self) -> Option<Arc<Increment>> {
        self.stream.lock().tap.as_ref().and_then(Tap::current).cloned()
    }

    /// Figures about writing.
    pub(crate) fn write_figures(&self) -> WriteFigures {
        // The writer may be held for as long as the disk takes.
        let queued = self.aof.queued.load(Ordering::Relaxed);
        let tapped = self.stream.lock().tap.as_ref().map_or(0, Tap::bytes);
        WriteFigures {
            buffered: queued + tapped,
            is_syncing: self.aof.is_syncing.load(Ordering::Relaxed),
            delayed: self.aof.delayed.load(Ordering::Relaxed),
            is_failing: self.aof.write_error.load(Ordering::Relaxed) != 0,
        }
    }

    /// Sees to the file at the end of a turn, before its replies leave. Returns the position that they wait for.
    #[inline]
    pub(crate) fn settle(&self, reporter: &Reporter<'_>) -> Position {
        match self.aof.mode() {
            Mode::Off => Position::default(),
            Mode::Always => self.settle_with_thread(),
            Mode::Never | Mode::EverySecond => {
                if self.aof.written.load(Ordering::SeqCst) < self.end().0 {
                    self.write(Urgency::Usual, reporter);
                }
                Position::default()
            }
        }
    }

    /// Calls the thread if there is something to write. Replies wait for all of it: a command may have read what is not synced.
    fn settle_with_thread(&self) -> Position {
        let end = self.end();
        if self.aof.passed.load(Ordering::SeqCst) >= end.0 {
            return Position::default();
        }
        self.aof.call();
        end
    }

    /// Writes and syncs what was appended, file by file. False after a failure, which is noted.
    pub(crate) fn write_and_sync(&self, reporter: &Reporter<'_>) -> bool {
        loop {
            let is_complete = self.write(Urgency::Now, reporter);
            if !self.sync(reporter) || self.aof.error().is_some() {
                return false;
            }
            if is_complete {
                return true;
            }
        }
    }

    /// Writes what was appended, and what an earlier write has left. A failure is noted and tried again later. False when something
    /// is left for later.
    ///
    /// A write that has been put off for as long as it may be, because the file before is not on disk, is made after another sync,
    /// here and now: that takes as long as the disk does, but a loss of power leaves no gap, and a killed process has told of nothing that
    /// it alone knows.
    fn write(&self, urgency: Urgency, reporter: &Reporter<'_>) -> bool {
        match self.try_to_write(urgency, reporter) {
            Written::All => true,
            Written::Some => false,
            Written::UpToNextFile => {
                reporter.log.notice(format_args!(
                    "Asynchronous AOF fsync is taking too long (disk is busy?). The next AOF file is written when it is over."
                ));
                self.sync(reporter) && self.try_to_write(urgency, reporter) == Written::All
            }
        }
    }

    fn try_to_write(&self, urgency: Urgency, reporter: &Reporter<'_>) -> Written {
        let aof = &self.aof;
        let mut writer = aof.writer.lock();
        if urgency == Urgency::Usual && self.is_put_off(&mut writer, reporter) {
            return Written::Some;
        }
        let end = self.fetch(&mut writer);
        if writer.queue.is_empty() {
            aof.written.store(end.0, Ordering::SeqCst);
            return Written::All;
        }
        // `no` promises nothing for a loss of power, but that a killed process loses nothing it has told of.
        let overtakes = urgency == Urgency::Usual && aof.mode() == Mode::Never;
        let begin_ns = self.clock.elapsed_ns();
        if let pause @ 1.. = aof.pause_us.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_micros(pause));
        }
        aof.queued.store(writer.queued(), Ordering::Relaxed);
        let outcome = writer.write_queue(overtakes, reporter.log, || self.clock.elapsed_ns());
        aof.queued.store(writer.queued(), Ordering::Relaxed);
        let us = (self.clock.elapsed_ns() - begin_ns) / 1000;
        (reporter.note)(event::WRITE, us);
        (reporter.note)(self.company(), us);
        match outcome {
            Ok(false) if urgency == Urgency::Usual && self.has_waited(&writer) => Written::UpToNextFile,
            Ok(false) => {
                writer.postponed_since_ns.get_or_insert(begin_ns);
                aof.call();
                Written::Some
            }
            Ok(true) => {
                writer.postponed_since_ns = None;
                aof.written.store(end.0, Ordering::SeqCst);
                if aof.write_error.swap(0, Ordering::Relaxed) != 0 {
                    writer.logged_ns = None;
                    reporter.log.warning(format_args!(
                        "AOF write error looks solved, the server can write again."
                    ));
                }
                Written::All
            }
            Err(error) => {
                aof.write_error.store(number(&error), Ordering::Relaxed);
                Written::Some
            }
        }
    }

    /// Whether a write has been put off for as long as it may be.
    fn has_waited(&self, writer: &Writer) -> bool {
        let now_ns = self.clock.elapsed_ns();
        writer
            .postponed_since_ns
            .is_some_and(|since_ns| now_ns - since_ns >= AOF_POSTPONE_NS)
    }

    /// Whether a file must be synced before the next one is written, or should have been.
    fn must_sync(&self) -> bool {
        let writer = self.aof.writer.lock();
        let next = writer.queue.front();
        next.is_some_and(|next| writer.has_unsynced_before(&next.increment)) || writer.unsynced.len() > 1
    }

    /// The latency event of a write that goes on beside something else, or alone.
    fn company(&self) -> &'static str {
        if self.aof.is_syncing.load(Ordering::Relaxed) {
            event::WRITE_PENDING_FSYNC
        } else if self.aof.is_saving.load(Ordering::Relaxed) {
            event::WRITE_ACTIVE_CHILD
        } else {
            event::WRITE_ALONE
        }
    }

    /// Whether a write waits for the end of a sync, which may hold it up in the system.
    fn is_put_off(&self, writer: &mut Writer, reporter: &Reporter<'_>) -> bool {
        let is_syncing = self.aof.is_syncing.load(Ordering::SeqCst);
        if self.aof.mode() != Mode::EverySecond || !is_syncing {
            return false;
        }
        writer.postponed_since_ns.get_or_insert(self.clock.elapsed_ns());
        if !self.has_waited(writer) {
            return true;
        }
        self.aof.delayed.fetch_add(1, Ordering::Relaxed);
        reporter.log.notice(format_args!(
            "Asynchronous AOF fsync is taking too long (disk is busy?). Writing the AOF buffer without waiting for fsync to \
             complete, this may slow down the server."
        ));
        false
    }

    /// Moves what the tap has to the writer. Returns the end of it.
    fn fetch(&self, writer: &mut Writer) -> Position {
        let mut stream = self.stream.lock();
        if let Some(tap) = &mut stream.tap {
            tap.fetch(&mut writer.queue, &mut writer.spare);
        }
        stream.end
    }

    /// Whether everything before a position is on disk.
    pub(crate) fn has_synced(&self, position: Position) -> bool {
        let aof = &self.aof;
        aof.is_complete.load(Ordering::SeqCst) && aof.synced.load(Ordering::SeqCst) >= position.0
    }

    /// The offset up to which the stream is on disk; none while it goes to no file.
    pub(crate) fn synced_to(&self) -> Option<u64> {
        let synced = self.aof.synced.load(Ordering::SeqCst);
        (self.aof.is_on() && self.aof.is_complete.load(Ordering::SeqCst)).then_some(synced)
    }

    /// Whether something was written and not synced, or appended and not written.
    pub(crate) fn has_unsynced(&self) -> bool {
        self.aof.synced.load(Ordering::SeqCst) < self.end().0
    }

    /// Writes what is left and syncs the file, as far as the policy asks for it; `is_tick` once a second. For the thread.
    ///
    /// # Errors
    /// When the node has to end.
    pub(crate) fn keep(
        &self,
        is_tick: bool,
        may_sync: bool,
        reporter: &Reporter<'_>,
        ring: impl Fn(),
    ) -> Result<(), FatalError> {
        match self.aof.mode() {
            Mode::Off => {}
            mode @ (Mode::Never | Mode::EverySecond) => {
                self.write_rest(reporter);
                let is_due = is_tick && mode == Mode::EverySecond && self.has_unsynced();
                // Between two files there is no choice: the next one waits for the sync.
                if may_sync && is_due || self.must_sync() {
                    self.sync(reporter);
                    self.ring_awaiting(&ring);
                    self.write_rest(reporter);
                }
            }
            Mode::Always => self.keep_always(may_sync, reporter, ring)?,
        }
        Ok(())
    }

    /// Writes what no loop has written: what was put off or has failed.
    fn write_rest(&self, reporter: &Reporter<'_>) {
        if self.aof.written.load(Ordering::SeqCst) < self.end().0 {
            self.write(Urgency::Usual, reporter);
        }
    }

    fn keep_always(
        &self,
        may_sync: bool,
        reporter: &Reporter<'_>,
        ring: impl Fn(),
    ) -> Result<(), FatalError> {
        let aof = &self.aof;
        while aof.passed.load(Ordering::SeqCst) < self.end().0 {
            let is_complete = self.write(Urgency::Now, reporter);
            if let Some(number) = aof.error() {
                let error = describe(&io::Error::from_raw_os_error(number));
                reporter.log.warning(format_args!(
                    "Can't recover from AOF write error when the AOF fsync policy is 'always': {error}. Exiting..."
                ));
                return Err(FatalError);
            }
            let written = aof.written.load(Ordering::SeqCst);
            if may_sync || !is_complete {
                let begin_ns = self.clock.elapsed_ns();
                if !self.sync(reporter) {
                    reporter.log.warning(format_args!(
                        "Can't persist AOF for fsync error when the AOF fsync policy is 'always'. Exiting..."
                    ));
                    return Err(FatalError);
                }
                let us = (self.clock.elapsed_ns() - begin_ns) / 1000;
                (reporter.note)(event::FSYNC_ALWAYS, us);
            }
            aof.passed.fetch_max(written, Ordering::SeqCst);
            self.ring_awaiting(&ring);
        }
        Ok(())
    }

    /// Writes and syncs everything, so that no reply has to wait: the node stops.
    pub(crate) fn pass_all(&self, reporter: &Reporter<'_>) {
        if self.aof.mode() != Mode::Always {
            return;
        }
        if self.write_and_sync(reporter) {
            let synced = self.aof.synced.load(Ordering::SeqCst);
            self.aof.passed.fetch_max(synced, Ordering::SeqCst);
        }
    }

    /// Syncs what was written. False after a failure, which is noted.
    pub(crate) fn sync(&self, reporter: &Reporter<'_>) -> bool {
        let aof = &self.aof;
        let _syncing = aof.syncing.lock();
        let (files, written) = {
            let mut writer = aof.writer.lock();
            // With the lock: what is not in these files is synced already.
            let written = aof.written.load(Ordering::SeqCst);
            (std::mem::take(&mut writer.unsynced), written)
        };
        aof.is_syncing.store(true, Ordering::SeqCst);
        let outcome = files.iter().try_for_each(|increment| increment.file.sync_data());
        aof.is_syncing.store(false, Ordering::SeqCst);
        match outcome {
            Ok(()) if !aof.is_distrusted() => {
                aof.synced.fetch_max(written, Ordering::SeqCst);
                true
            }
            Ok(()) => true,
            Err(error) => {
                aof.failed_syncs.fetch_add(1, Ordering::Relaxed);
                if aof.sync_error.swap(number(&error), Ordering::Relaxed) == 0 {
                    reporter
                        .log
                        .warning(format_args!("Fail to fsync the AOF file: {}", describe(&error)));
                }
                false
            }
        }
    }
}

impl Writer {
    /// Number of bytes in the queue.
    fn queued(&self) -> usize {
        self.queue.iter().map(|stretch| stretch.bytes.len()).sum()
    }

    /// Whether another file than this one has bytes that are not synced: it comes before it.
    fn has_unsynced_before(&self, increment: &Arc<Increment>) -> bool {
        self.unsynced
            .iter()
            .any(|unsynced| !Arc::ptr_eq(unsynced, increment))
    }

    /// Writes the queue, up to the first file before which another one must be synced, unless it `overtakes` that: a loss of power
    /// must not leave a file whose end is torn and bytes in the next one. True when nothing is left.
    ///
    /// # Errors
    /// The error of the system. What could not be written is still in the queue, and not in the file.
    fn write_queue(&mut self, overtakes: bool, log: &Log, now_ns: impl Fn() -> u64) -> io::Result<bool> {
        while let Some(Stretch { increment, .. }) = self.queue.front() {
            let increment = Arc::clone(increment);
            if !overtakes && self.has_unsynced_before(&increment) {
                return Ok(false);
            }
            let Some(Stretch { bytes, .. }) = self.queue.front_mut() else {
                break;
            };
            if !bytes.is_empty() && !self.unsynced.iter().any(|known| Arc::ptr_eq(known, &increment)) {
                self.unsynced.push(Arc::clone(&increment));
            }
            let (written, outcome) = write_all(&increment, bytes);
            if let Err(error) = outcome {
                let may_log = self
                    .logged_ns
                    .is_none_or(|logged_ns| now_ns() - logged_ns >= AOF_FAULT_LOG_NS);
                if may_log {
                    self.logged_ns = Some(now_ns());
                    tell_fault(log, &error, written, bytes.len());
                }
                if written > 0 {
                    cut_back(&increment, bytes, written, may_log.then_some(log));
                }
                return Err(error);
            }
            increment.grow(written);
            let Some(Stretch { mut bytes, .. }) = self.queue.pop_front() else {
                break;
            };
            bytes.clear();
            bytes.shrink_to(AOF_BUFFER_KEPT_BYTES);
            self.spare = bytes;
        }
        Ok(true)
    }
}

/// Writes bytes to the end of a file. Returns the number of those that were written.
fn write_all(increment: &Increment, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match (&increment.file).write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

/// Takes a part of a write back that has failed after that; if even this fails, goes on behind it later.
fn cut_back(increment: &Increment, bytes: &mut Vec<u8>, written: usize, log: Option<&Log>) {
    let Err(error) = increment.file.set_len(increment.size()) else {
        return;
    };
    increment.grow(written);
    bytes.drain(..written);
    if let Some(log) = log {
        log.warning(format_args!(
            "Could not remove short write from the append-only file. The file may be refused the next time it is loaded. \
             ftruncate: {}",
            describe(&error)
        ));
    }
}

fn tell_fault(log: &Log, error: &io::Error, written: usize, expected: usize) {
    let error = describe(error);
    if written == 0 {
        log.warning(format_args!("Error writing to the AOF file: {error}"));
    } else {
        log.warning(format_args!(
            "Short write while writing to the AOF file: (nwritten={written}, expected={expected}): {error}"
        ));
    }
}

/// The number of a system's error. One that has none is reported as an error of input and output.
fn number(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

#[cfg(test)]
mod tests;
