//! Saving of a node's data to files: what is under way, who waits for it, and how the last saves went.
//!
//! A [`Job`] goes through three states. It *waits* until its cut can be made: until an earlier one has ended and loops have
//! cleared away what that has left in the partitions. At the *cut*, all partitions are held at once, and each begins its part of
//! the [`Snapshot`]. From then on it is *under way*: loops save slices of their partitions, and a thread of its own writes them
//! (`writer.rs`). There is one job at a time, and one of each kind of request for another.
//!
//! This module knows neither partitions nor loops: `exec/cut.rs` makes the cut, `event_loop/snapshot.rs` saves the slices.

mod job;
mod points;
mod snapshot;
mod spill;
mod writer;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

pub(crate) use self::job::{AtEnd, Form, Job, Purpose, Refused, SaveError};
pub(crate) use self::snapshot::{Content, Plan, Snapshot};
pub(crate) use self::writer::{Assignment, write_at_once};

/// State of saving, shared by all loops and the thread that writes.
#[derive(Debug)]
pub(crate) struct Persistence {
    state: Mutex<State>,
    /// The snapshot that loops work on, or that was the last one.
    current: ArcSwapOption<Snapshot>,
    /// Number of times that the current snapshot, or what waits for its cut, has changed.
    version: AtomicU64,
    /// A job waits for its cut.
    is_awaited: AtomicBool,
    /// Number of the job that saves the data before the node stops; 0 when there is none.
    sealed_by: AtomicU64,
    /// The last save in the background failed.
    has_failed: AtomicBool,
    /// Time of the last successful save, seconds of Unix time.
    last_save_s: AtomicI64,
    /// Changes to the data up to the cut of the last successful save.
    changes_saved: AtomicU64,
    hooks: OnceLock<Hooks>,
}

/// Means of the node that saving needs.
struct Hooks {
    /// Starts the thread that writes.
    spawn: Box<dyn Fn(Assignment) -> io::Result<JoinHandle<()>> + Send + Sync>,
    /// Has all loops look at what has changed.
    ring_all: Box<dyn Fn() + Send + Sync>,
    /// Wakes a loop.
    ring: Box<dyn Fn(usize) + Send + Sync>,
}

#[derive(Debug, Default)]
struct State {
    /// Number of the job that was begun last.
    number: u64,
    waiting: Option<Waiting>,
    under_way: Option<Arc<Snapshot>>,
    /// The thread that writes, or has written last.
    thread: Option<JoinHandle<()>>,
    /// A save in the background begins when nothing else is under way.
    is_scheduled: bool,
    figures: Figures,
    /// The jobs that ended last, by number, and whether they succeeded.
    ended: Vec<(u64, bool)>,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    began_us: i64,
    job: Job,
}

/// Figures about saves, for INFO.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    /// Saves begun since the start of the node.
    pub(crate) saves: u64,
    /// Time that the last save in the background took, seconds; -1 before the first one.
    pub(crate) last_time_s: i64,
    /// Bytes of the last snapshot that were written early because they were about to change.
    pub(crate) last_ahead: u64,
    /// Time at which the last save in the background began, Unix microseconds.
    tried_us: i64,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            saves: 0,
            last_time_s: -1,
            last_ahead: 0,
            tried_us: 0,
        }
    }
}

/// Progress of the job that waits or is under way, for INFO.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct UnderWay {
    /// Purpose of the job; none when there is none.
    pub(crate) purpose: Option<Purpose>,
    /// Time since it began, seconds.
    pub(crate) seconds: i64,
    /// Keys that are saved.
    pub(crate) keys_done: u64,
    /// Keys that there were at the cut.
    pub(crate) keys_all: u64,
}

/// The most ended jobs that are remembered, for clients that wait for one of them.
const ENDED_MAX: usize = 64;

impl Persistence {
    /// The state of a node that started at this time.
    pub(crate) fn new(started_us: i64) -> Self {
        Self {
            state: Mutex::default(),
            current: ArcSwapOption::empty(),
            version: AtomicU64::new(0),
            is_awaited: AtomicBool::new(false),
            sealed_by: AtomicU64::new(0),
            has_failed: AtomicBool::new(false),
            last_save_s: AtomicI64::new(started_us / 1_000_000),
            changes_saved: AtomicU64::new(0),
            hooks: OnceLock::new(),
        }
    }

    /// Sets the means of the node; once, at start.
    pub(crate) fn connect(
        &self,
        spawn: impl Fn(Assignment) -> io::Result<JoinHandle<()>> + Send + Sync + 'static,
        ring_all: impl Fn() + Send + Sync + 'static,
        ring: impl Fn(usize) + Send + Sync + 'static,
    ) {
        let _ = self.hooks.set(Hooks {
            spawn: Box::new(spawn),
            ring_all: Box::new(ring_all),
            ring: Box::new(ring),
        });
    }

    /// Begins a job: its cut is made as soon as possible. Returns its number.
    ///
    /// # Errors
    /// When another one is under way that was not given up, and that the job does not wait for.
    pub(crate) fn begin(&self, job: Job, now_us: i64) -> Result<u64, Refused> {
        let mut state = self.state.lock();
        let may_wait = job.purpose.waits_for_base() && state.waiting.is_none();
        match state.purpose() {
            Some(Purpose::AofBase) if may_wait => {}
            Some(by) => {
                return Err(Refused {
                    by,
                    number: state.going_on(),
                });
            }
            None => {}
        }
        Ok(self.begin_locked(&mut state, job, now_us))
    }

    fn begin_locked(&self, state: &mut State, job: Job, now_us: i64) -> u64 {
        state.number += 1;
        let number = state.number;
        if job.purpose != Purpose::AofBase {
            state.figures.saves += 1;
        }
        if job.purpose == Purpose::Background {
            state.figures.tried_us = now_us;
            state.is_scheduled = false;
        }
        state.waiting = Some(Waiting {
            number,
            began_us: now_us,
            job,
        });
        self.is_awaited.store(true, Ordering::Release);
        self.announce();
        number
    }

    /// Has a save in the background begin when nothing else is under way.
    pub(crate) fn schedule(&self) {
        self.state.lock().is_scheduled = true;
        self.announce();
    }

    /// Begins the save that was scheduled, if there is one and nothing is under way. `job` makes it.
    pub(crate) fn begin_scheduled(&self, now_us: i64, job: impl FnOnce() -> Job) {
        let mut state = self.state.lock();
        if state.is_scheduled && state.is_idle() {
            self.begin_locked(&mut state, job(), now_us);
        }
    }

    /// Drops what was scheduled; false if nothing was.
    pub(crate) fn unschedule(&self) -> bool {
        std::mem::take(&mut self.state.lock().is_scheduled)
    }

    /// Gives the job up, if its purpose is one of those that `choose` takes. False when there is none.
    pub(crate) fn give_up(&self, choose: impl Fn(Purpose) -> bool) -> bool {
        let mut state = self.state.lock();
        let waiting = state.waiting.take_if(|waiting| choose(waiting.job.purpose));
        if let Some(waiting) = waiting {
            self.is_awaited.store(false, Ordering::Release);
            self.end_locked(&mut state, waiting.number, false);
            drop(state);
            waiting.job.end(Err(&SaveError::GivenUp));
            return true;
        }
        let Some(snapshot) = state
            .under_way
            .as_ref()
            .filter(|snapshot| choose(snapshot.purpose))
        else {
            return false;
        };
        let is_first = snapshot.give_up();
        drop(state);
        self.announce();
        is_first
    }

    /// Purpose of the job that waits or is under way.
    pub(crate) fn purpose(&self) -> Option<Purpose> {
        self.state.lock().purpose()
    }

    /// Whether a job waits for its cut.
    pub(crate) fn is_awaited(&self) -> bool {
        self.is_awaited.load(Ordering::Acquire)
    }

    /// Whether a job waits for its cut, which can be made.
    #[inline]
    pub(crate) fn awaits_cut(&self) -> bool {
        self.is_awaited.load(Ordering::Acquire) && self.state.lock().under_way.is_none()
    }

    /// The number of this module's news: loops look at the current snapshot when it has changed.
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The snapshot that loops work on, or that was the last one.
    pub(crate) fn current(&self) -> Option<Arc<Snapshot>> {
        self.current.load_full()
    }

    /// Starts the job that waits: its snapshot of the `content`, and the thread that writes it. All partitions are held, and
    /// nothing else is under way. The caller begins the partitions' parts, and then [publishes](Self::publish) the snapshot.
    /// None when no job waits, or its thread cannot be started.
    pub(crate) fn start(self: &Arc<Self>, plan: Plan, content: Content) -> Option<(Arc<Snapshot>, Job)> {
        let mut state = self.state.lock();
        let is_free = state.under_way.is_none();
        let waiting = state.waiting.take_if(|_| is_free)?;
        self.is_awaited.store(false, Ordering::Release);
        let Waiting {
            number,
            began_us,
            mut job,
        } = waiting;
        let (snapshot, pieces) = Snapshot::new(number, job.purpose, began_us, &content);
        let snapshot = Arc::new(snapshot);
        let assignment = Assignment {
            file: job.file(),
            at_end: job.at_end.take(),
            plan,
            content,
            snapshot: Arc::clone(&snapshot),
            pieces,
            persistence: Arc::clone(self),
        };
        let spawned = match self.hooks.get() {
            Some(hooks) => (hooks.spawn)(assignment),
            None => Err(io::Error::other("the node has not started")),
        };
        match spawned {
            Ok(thread) => {
                if job.purpose.is_shutdown() {
                    self.sealed_by.store(number, Ordering::Release);
                }
                state.under_way = Some(Arc::clone(&snapshot));
                state.thread = Some(thread);
                Some((snapshot, job))
            }
            Err(_) => {
                self.note_failure(job.purpose);
                // The assignment has gone with the closure that was to be the thread, and what was to happen at the end with it.
                self.end_locked(&mut state, number, false);
                None
            }
        }
    }

    /// Has loops work on a snapshot.
    pub(crate) fn publish(&self, snapshot: &Arc<Snapshot>) {
        self.current.store(Some(Arc::clone(snapshot)));
        self.announce();
    }

    /// Notes the end of a job that was under way.
    fn end(&self, snapshot: &Snapshot, outcome: Result<(), &SaveError>, now_us: i64) {
        let mut state = self.state.lock();
        let purpose = snapshot.purpose;
        if purpose.is_shutdown() && outcome.is_err() {
            self.sealed_by.store(0, Ordering::Release);
        }
        if purpose == Purpose::Background {
            state.figures.last_time_s = (now_us - snapshot.began_us) / 1_000_000;
        }
        if purpose != Purpose::AofBase {
            state.figures.last_ahead = snapshot.ahead();
            match outcome {
                Ok(()) => {
                    self.last_save_s.store(now_us / 1_000_000, Ordering::Release);
                    self.changes_saved.store(snapshot.changes, Ordering::Release);
                    self.has_failed.store(false, Ordering::Release);
                }
                Err(SaveError::GivenUp) => {}
                Err(SaveError::File(_)) => self.note_failure(purpose),
            }
        }
        // It stays the current one: some loops may still have to clear away what it has left in their partitions.
        state.under_way = None;
        self.end_locked(&mut state, snapshot.number, outcome.is_ok());
    }

    fn note_failure(&self, purpose: Purpose) {
        if purpose == Purpose::Background {
            self.has_failed.store(true, Ordering::Release);
        }
    }

    fn end_locked(&self, state: &mut State, number: u64, succeeded: bool) {
        if state.ended.len() == ENDED_MAX {
            state.ended.remove(0);
        }
        state.ended.push((number, succeeded));
        self.announce();
    }

    /// Whether a job has succeeded; none while it has not ended.
    pub(crate) fn outcome(&self, number: u64) -> Option<bool> {
        let state = self.state.lock();
        let known = state.ended.iter().find(|(ended, _)| *ended == number);
        // What is neither known nor going on ended long ago, and nobody can tell how.
        let goes_on = state
            .waiting
            .as_ref()
            .is_some_and(|waiting| waiting.number == number)
            || state
                .under_way
                .as_ref()
                .is_some_and(|snapshot| snapshot.number == number);
        known
            .map(|&(_, succeeded)| succeeded)
            .or((!goes_on).then_some(false))
    }

    /// Gives up what is under way, and waits until its thread has ended: the node stops.
    pub(crate) fn stop(&self) {
        self.unschedule();
        self.give_up(|_| true);
        let thread = self.state.lock().thread.take();
        if let Some(thread) = thread {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }

    /// Makes loops look at what has changed.
    fn announce(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
        if let Some(hooks) = self.hooks.get() {
            (hooks.ring_all)();
        }
    }

    /// Wakes a loop that has room for more.
    fn ring(&self, shard: usize) {
        if let Some(hooks) = self.hooks.get() {
            (hooks.ring)(shard);
        }
    }

    /// Number of the job that saves the data before the node stops; 0 when there is none.
    #[inline]
    pub(crate) fn sealed_by(&self) -> u64 {
        self.sealed_by.load(Ordering::Acquire)
    }

    /// Whether the last save in the background failed.
    #[inline]
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// Time of the last successful save, or of the start, seconds of Unix time.
    pub(crate) fn last_save_s(&self) -> i64 {
        self.last_save_s.load(Ordering::Acquire)
    }

    /// Changes to the data up to the cut of the last successful save.
    pub(crate) fn changes_saved(&self) -> u64 {
        self.changes_saved.load(Ordering::Acquire)
    }

    /// Figures about saves.
    pub(crate) fn figures(&self) -> Figures {
        self.state.lock().figures
    }

    /// Progress of the job that waits or is under way.
    pub(crate) fn under_way(&self, now_us: i64) -> UnderWay {
        let state = self.state.lock();
        let snapshot = state.under_way.as_deref();
        let waiting = state.waiting.as_ref();
        let began_us = snapshot
            .map(|snapshot| snapshot.began_us)
            .or(waiting.map(|waiting| waiting.began_us));
        UnderWay {
            purpose: state.purpose(),
            seconds: began_us.map_or(-1, |began_us| (now_us - began_us) / 1_000_000),
            keys_done: snapshot.map_or(0, Snapshot::keys_done),
            keys_all: snapshot.map_or(0, |snapshot| snapshot.keys),
        }
    }
}

impl State {
    /// Purpose of the job that waits, or is under way and was not given up.
    fn purpose(&self) -> Option<Purpose> {
        let waiting = self.waiting.as_ref().map(|waiting| waiting.job.purpose);
        let under_way = self.under_way.as_ref().filter(|snapshot| !snapshot.is_given_up());
        waiting.or(under_way.map(|snapshot| snapshot.purpose))
    }

    /// Number of that job; 0 when there is none.
    fn going_on(&self) -> u64 {
        let waiting = self.waiting.as_ref().map(|waiting| waiting.number);
        let under_way = self.under_way.as_ref().map(|snapshot| snapshot.number);
        waiting.or(under_way).unwrap_or_default()
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_none() && self.under_way.is_none()
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").finish_non_exhaustive()
    }
}
