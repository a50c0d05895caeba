//! Saving of a node's data to files: what is under way, who waits for it, and how the last saves went.
//!
//! A [`Job`] goes through three states. It *waits* until its cut can be made: until an earlier one has ended and loops have
//! cleared away what that has left in the partitions. At the *cut*, all partitions are held at once, and each begins its part of
//! the [`Snapshot`]. From then on it is *under way*: loops save slices of their partitions, and a thread of its own writes them
//! (`writer.rs`). There is one job at a time, and one of each kind of request for another.
//!
//! This module knows neither partitions nor loops: `exec/cut.rs` makes the cut, `event_loop/snapshot.rs` saves the slices.

mod job;
mod payload;
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

pub(crate) use self::job::{AtEnd, Form, Job, Purpose, Refused, SaveError, Selection, payload_path};
pub(crate) use self::payload::{Delivery, Load, Payload, PayloadFailed, PayloadReader};
pub(crate) use self::snapshot::{Content, Plan, Snapshot, StreamPoint};
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
    /// A number that clients wait for, and that no job has yet.
    reserved: Option<u64>,
    /// The jobs that ended last, by number, and whether they succeeded.
    ended: Vec<(u64, bool)>,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    began_us: i64,
    job: Job,
}

/// Jobs that were given up. Whoever gave them up ends them when it does not hold the state any more: their ends may begin other ones.
#[derive(Debug, Default)]
struct GivenUp {
    /// One whose cut was not made.
    waiting: Option<Job>,
    /// There is one that was under way: its thread ends it.
    is_under_way: bool,
}

impl GivenUp {
    /// Ends the jobs that nobody else ends; false if there were none.
    fn end(self) -> bool {
        let was_waiting = self.waiting.is_some();
        if let Some(job) = self.waiting {
            job.end(Err(&SaveError::GivenUp));
        }
        was_waiting || self.is_under_way
    }
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
        self.begin_if_free(&mut self.state.lock(), job, now_us)
    }

    /// Gives up the jobs whose purposes `choose` takes, and begins this one in their place. No other thread can begin one in between.
    ///
    /// # Errors
    /// Those of [`begin`](Self::begin).
    pub(crate) fn begin_instead(
        &self,
        job: Job,
        now_us: i64,
        choose: impl Fn(Purpose) -> bool,
    ) -> Result<u64, Refused> {
        let (given_up, begun) = {
            let mut state = self.state.lock();
            let given_up = self.give_up_locked(&mut state, choose);
            (given_up, self.begin_if_free(&mut state, job, now_us))
        };
        given_up.end();
        begun
    }

    fn begin_if_free(&self, state: &mut State, job: Job, now_us: i64) -> Result<u64, Refused> {
        match state.purpose() {
            Some(other) if job.purpose.waits_for(other) && state.waiting.is_none() => {}
            Some(by) => {
                return Err(Refused {
                    by,
                    number: state.going_on(),
                });
            }
            None => {}
        }
        Ok(self.begin_locked(state, job, now_us))
    }

    fn begin_locked(&self, state: &mut State, job: Job, now_us: i64) -> u64 {
        state.number += 1;
        let number = state.number;
        if job.purpose.is_save() {
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

    /// Gives up the jobs whose purposes `choose` takes. False when there are none.
    pub(crate) fn give_up(&self, choose: impl Fn(Purpose) -> bool) -> bool {
        let given_up = self.give_up_locked(&mut self.state.lock(), choose);
        given_up.end()
    }

    fn give_up_locked(&self, state: &mut State, choose: impl Fn(Purpose) -> bool) -> GivenUp {
        let mut given_up = GivenUp::default();
        if let Some(waiting) = state.waiting.take_if(|waiting| choose(waiting.job.purpose)) {
            self.is_awaited.store(false, Ordering::Release);
            self.end_locked(state, waiting.number, false);
            given_up.waiting = Some(waiting.job);
        }
        let chosen = state
            .under_way
            .as_ref()
            .filter(|snapshot| choose(snapshot.purpose));
        if chosen.is_some_and(|snapshot| snapshot.give_up()) {
            self.announce();
            given_up.is_under_way = true;
        }
        given_up
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
    pub(crate) fn start(self: &Arc<Self>, plan: Plan, mut content: Content) -> Option<(Arc<Snapshot>, Job)> {
        let mut state = self.state.lock();
        let is_free = state.under_way.is_none();
        let waiting = state.waiting.take_if(|_| is_free)?;
        self.is_awaited.store(false, Ordering::Release);
        let Waiting {
            number,
            began_us,
            mut job,
        } = waiting;
        content.select(job.selection);
        let (snapshot, pieces) = Snapshot::new(number, job.purpose, began_us, &content);
        let snapshot = Arc::new(snapshot);
        let assignment = Assignment {
            file: job.file(),
            payload: job.payload.take(),
            at_end: job.at_end.take(),
            plan: plan.in_dialect(job.dialect),
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
        if purpose.is_save() {
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

    /// A number that clients can wait for until it is released.
    pub(crate) fn reserve(&self) -> u64 {
        let mut state = self.state.lock();
        state.number += 1;
        state.reserved = Some(state.number);
        state.number
    }

    /// Answers the clients that wait for a reserved number.
    pub(crate) fn release(&self, number: u64, succeeded: bool) {
        let mut state = self.state.lock();
        state.reserved = None;
        self.end_locked(&mut state, number, succeeded);
    }

    /// Whether a job has succeeded; none while it has not ended.
    pub(crate) fn outcome(&self, number: u64) -> Option<bool> {
        let state = self.state.lock();
        let known = state.ended.iter().find(|(ended, _)| *ended == number);
        // A job that is neither known nor going on ended long ago, and nobody can tell how.
        let goes_on = state.reserved == Some(number)
            || state
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
            // One that was given up goes on until its outcome is known.
            purpose: waiting
                .map(|waiting| waiting.job.purpose)
                .or(snapshot.map(|snapshot| snapshot.purpose)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn job(purpose: Purpose) -> Job {
        Job::dump(purpose, &Settings::default())
    }

    /// The thread of the append-only file begins its next rewrite as soon as it hears that the last one was given up: the job for whose
    /// sake that happened is there by then.
    #[test]
    fn no_other_job_begins_before_the_one_that_takes_a_place() {
        let persistence = Arc::new(Persistence::new(0));
        let (again, refusal) = (Arc::clone(&persistence), Arc::new(Mutex::new(None)));
        let mut rewrite = job(Purpose::AofBase);
        let noted = Arc::clone(&refusal);
        rewrite.at_end = Some(Box::new(move |outcome| {
            assert!(matches!(outcome, Err(SaveError::GivenUp)));
            *noted.lock() = Some(again.begin(job(Purpose::AofBase), 0));
        }));
        persistence.begin(rewrite, 0).unwrap();
        let shutdown = Purpose::Shutdown { insists: false };
        let number = persistence
            .begin_instead(job(shutdown), 0, |purpose| !purpose.is_shutdown())
            .unwrap();
        assert_eq!(persistence.purpose(), Some(shutdown));
        let by = Refused { by: shutdown, number };
        assert_eq!(refusal.lock().take(), Some(Err(by)));
        // Another one does not take its place.
        let refused = persistence.begin_instead(job(shutdown), 0, |purpose| !purpose.is_shutdown());
        assert_eq!(refused, Err(by));
        assert!(persistence.give_up(Purpose::is_shutdown));
        assert!(!persistence.give_up(Purpose::is_shutdown));
    }

    /// A save that waits for a rewrite is not all that stands before a shutdown.
    #[test]
    fn what_waits_and_what_is_under_way_are_given_up() {
        let persistence = Arc::new(Persistence::new(0));
        let spawn = |assignment: Assignment| Ok(std::thread::spawn(move || drop(assignment)));
        persistence.connect(spawn, || {}, |_| {});
        persistence.begin(job(Purpose::AofBase), 0).unwrap();
        let content = Content {
            shards: 1,
            ..Content::default()
        };
        let plan = Plan::new(&Settings::default(), &content);
        let (rewrite, _) = persistence.start(plan, content).unwrap();
        let save = persistence.begin(job(Purpose::Command), 0).unwrap();
        let shutdown = Purpose::Shutdown { insists: false };
        persistence
            .begin_instead(job(shutdown), 0, |purpose| !purpose.is_shutdown())
            .unwrap();
        assert!(rewrite.is_given_up());
        assert_eq!(persistence.outcome(save), Some(false));
        assert_eq!(persistence.purpose(), Some(shutdown));
    }
}
