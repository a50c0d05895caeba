//! Runs a batch of commands on one partition; the entries that they need are prefetched.

use std::panic::{AssertUnwindSafe, catch_unwind};

use shardis_protocol::{Arguments, Bypass, Encoder};
use shardis_storage::entry::Entry;
use shardis_storage::key::Key;
use shardis_storage::memory::{self, Buffer};
use shardis_storage::value::MemberAhead;
use smallvec::SmallVec;

use super::account;
use super::behind_snapshot::Queue;
use super::execution::{Access, Call, Environment, Execution, fail};
use super::plan::Routed;
use super::redirect::{self, is_plain_task};
use super::serve::serve_ready;
use crate::cluster::{Doomed, SeenMap, SlotMap};
use crate::daemon::call_commands;
use crate::error::ReplyError;
use crate::exec::Partition;
use crate::exec::view::Held;
use crate::exec::waiter::Waiting;
use crate::journal::Position;
use crate::limits::{BATCH_BYTES, HEAVY_BYTES, PREFETCH_BATCH};
use crate::observe::slowlog::{Slow, Words};
use crate::shard::bypass::SocketBypass;
use crate::shard::inbox::{Source, Task};

/// Destination of the replies of a batch.
pub(crate) trait Replies {
    /// The place that the reply of a task goes to.
    fn begin(&mut self, task: &Task) -> Place<'_>;
    /// Completes the reply of a task, which starts at `start` of the buffer.
    fn end(&mut self, task: &Task, start: usize);
    /// Has the reply of a task encoded, and completes it. `start` tells where it starts as soon as that is known. Returns the least
    /// number of its bytes.
    #[inline]
    fn answer(&mut self, task: &Task, start: &mut usize, encode: impl FnOnce(&mut Place<'_>)) -> usize {
        let mut place = self.begin(task);
        *start = place.out.len();
        encode(&mut place);
        let appended = place.out.len() - *start;
        let passed = place.bypass.map_or(0, |bypass| bypass.passed());
        self.end(task, *start);
        if passed > 0 {
            self.note_passed(task, passed);
        }
        appended | passed
    }
    /// Passes over a task that waits.
    fn pass_over(&mut self, task: &Task);
    /// Notes that a part of a reply was sent past the buffer.
    fn note_passed(&mut self, task: &Task, bytes: usize);
    /// The buffer for the error of a task that has panicked. The part of its reply that is there from `start` on is to be
    /// dropped.
    fn retract(&mut self, task: &Task, start: usize) -> &mut Vec<u8>;
}

/// The place that a reply goes to.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    /// The buffer that it is appended to.
    pub(crate) out: &'a mut Vec<u8>,
    /// The way past the buffer, if there is one now.
    pub(crate) bypass: Option<SocketBypass<'a>>,
}

/// Commands of a batch that need further handling after it has run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Commands that panicked: their clients have been sent an error.
    pub(crate) panicked: SmallVec<[Task; 0]>,
    /// Commands that were slow.
    pub(crate) slow: Vec<(Task, Slow)>,
    /// Indexes of the commands that had effects.
    pub(crate) wrote: Vec<usize>,
    /// Indexes of the commands that wait for a snapshot.
    pub(crate) waiting: Vec<usize>,
    /// Number of commands that have run or wait; the rest of the batch is to run later.
    pub(crate) done: usize,
}

/// Bound on the part of a batch that runs at once, so that no pipeline makes a turn long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slice {
    /// Time on the node's stopwatch after which no further command begins.
    until_ns: u64,
    /// Bytes moved by the large commands that have run.
    moved: usize,
    /// The bound is reached.
    is_over: bool,
}

impl Slice {
    /// A slice that ends at a time, but not before some commands have run.
    pub(crate) fn until(until_ns: u64) -> Self {
        Self {
            until_ns,
            moved: 0,
            is_over: false,
        }
    }

    /// Notes that commands have run.
    #[inline]
    fn note(&mut self, now_ns: u64, moved: usize) {
        self.moved += moved;
        self.is_over = now_ns >= self.until_ns || self.moved >= BATCH_BYTES;
    }
}

/// Runs a batch of commands on one partition, in order. Short commands share a look at the clock; a long one begins
/// with a look of its own, and so does the command after it. Stops when the slice is over.
pub(crate) fn run_batch(
    partition: &mut Partition,
    tasks: &[Task],
    source: &mut Source,
    replies: &mut impl Replies,
    queue: Queue<'_>,
    environment: &mut Environment<'_>,
    mut slice: Slice,
) -> Report {
    let _witness = call_commands(&raw const *source, &raw const *tasks);
    let mut report = Report::default();
    let (mut done, mut start) = (0, 0);
    let newer_slots = environment.newer_slots();
    let checks = Checks::on(partition, queue, newer_slots.as_deref(), environment);
    let mut recorded = environment.recorder.recorded();
    while done < tasks.len() && !slice.is_over {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            while done < tasks.len() && !slice.is_over {
                let group = next_group(&tasks[done..]);
                let mut watch = Stopwatch::start(environment.clock.elapsed_ns());
                look_before(group, done == 0, watch.since_ns, environment);
                prefetch(partition, group, source);
                let mut timed = done;
                for task in group {
                    let out = (&mut *replies, &mut report);
                    if checks.stop((tasks, done), partition, source, out, environment) {
                        watch.lap(&tasks[timed..done], false, source, &mut report, environment);
                        done += 1;
                        timed = done;
                        continue;
                    }
                    let reply = (&mut *replies, &mut start);
                    let moved = run_task(partition, task, source, reply, environment, &mut watch.words);
                    if environment.recorder.is_on() {
                        note_effects(&mut report, done, &mut recorded, environment);
                    }
                    done += 1;
                    if moved >= HEAVY_BYTES || environment.times_each() {
                        let lap = &tasks[timed..done];
                        watch.lap(lap, moved >= HEAVY_BYTES, source, &mut report, environment);
                        environment.keep_fresh(watch.since_ns);
                        timed = done;
                        slice.note(watch.since_ns, if moved >= HEAVY_BYTES { moved } else { 0 });
                        if slice.is_over {
                            break;
                        }
                    }
                }
                watch.lap(&tasks[timed..done], false, source, &mut report, environment);
                slice.note(watch.since_ns, 0);
            }
        }));
        if let (Err(_), Some(task)) = (outcome, tasks.get(done)) {
            end_panicked(task, (&mut *replies, start), &mut report, environment);
            note_effects(&mut report, done, &mut recorded, environment);
            done += 1;
        }
    }
    report.done = done;
    report
}

/// Looks at the clock for the next commands: for the first ones of a batch and a long one in any case.
#[inline]
fn look_before(group: &[Task], is_first: bool, now_ns: u64, environment: &mut Environment<'_>) {
    if is_first || group[0].command.row.runs.is_long() {
        environment.look(now_ns);
    } else {
        environment.keep_fresh(now_ns);
    }
}

/// Reasons for which a command of a batch does not run now.
struct Checks<'a> {
    /// The commands that wait on the partition, if there may be any.
    queue: Option<Queue<'a>>,
    /// The map of slots, in a cluster.
    slots: Option<SeenMap<'a>>,
    /// The partition has keys that belong to another node.
    has_doomed: bool,
}

impl<'a> Checks<'a> {
    /// The checks of commands on a partition; `newer` is a map of slots that is newer than the turn's, if there is any.
    fn on(
        partition: &Partition,
        queue: Queue<'a>,
        newer: Option<&'a SlotMap>,
        environment: &Environment<'a>,
    ) -> Self {
        let doomed = environment.node.doomed(partition.shard);
        Self {
            queue: queue.is_needed(partition).then_some(queue),
            slots: environment
                .slots
                .map(|known| newer.map_or(known, |newer| known.with(newer))),
            has_doomed: partition.has_doomed() || doomed.is_some_and(Doomed::is_new),
        }
    }

    /// Passes over a command that has to wait, or sends its client elsewhere. False if it runs, as nearly all do.
    #[inline]
    fn stop(
        &self,
        (tasks, index): (&[Task], usize),
        partition: &mut Partition,
        source: &Source,
        out: (&mut impl Replies, &mut Report),
        environment: &Environment<'_>,
    ) -> bool {
        let is_plain = |slots| is_plain_task(slots, &tasks[index]);
        if self.queue.is_none() && !self.has_doomed && self.slots.is_none_or(is_plain) {
            return false;
        }
        self.look_closely((tasks, index), partition, source, out, environment)
    }

    #[cold]
    fn look_closely(
        &self,
        (tasks, index): (&[Task], usize),
        partition: &mut Partition,
        source: &Source,
        (replies, report): (&mut impl Replies, &mut Report),
        environment: &Environment<'_>,
    ) -> bool {
        let task = &tasks[index];
        if let Some(queue) = &self.queue
            && queue.holds(partition, (tasks, index), &report.waiting, source, environment)
        {
            pass_over((tasks, index), replies, report);
            return true;
        }
        let is_elsewhere = |slots: SeenMap<'_>| {
            let held = (&*partition, source, environment.hashing);
            if is_plain_task(slots, task) {
                None
            } else {
                redirect::of_task(task, slots, held)
            }
        };
        let Some(error) = self.slots.and_then(is_elsewhere) else {
            let node = environment.node;
            if node.may_delete_doomed(environment.stamp.now_ms) {
                partition.delete_if_doomed(task.slot, node.doomed(partition.shard), &environment.stamp);
            }
            return false;
        };
        send_elsewhere(task, &error, replies, environment);
        true
    }
}

/// Replies with a redirect to a command that this node does not serve.
#[cold]
fn send_elsewhere(
    task: &Task,
    error: &ReplyError,
    replies: &mut impl Replies,
    environment: &Environment<'_>,
) {
    let line = error.line();
    environment.stats.refused(Some(task.command.id), &line);
    let out = replies.begin(task).out;
    let start = out.len();
    Encoder::new(out, task.modes.resp()).error(&line);
    replies.end(task, start);
}

/// Notes that a command waits.
#[cold]
fn pass_over((tasks, index): (&[Task], usize), replies: &mut impl Replies, report: &mut Report) {
    replies.pass_over(&tasks[index]);
    report.waiting.push(index);
}

/// The next commands that are prefetched and timed together: short ones in a group, a long one by itself.
#[inline]
fn next_group(tasks: &[Task]) -> &[Task] {
    let tasks = &tasks[..tasks.len().min(PREFETCH_BATCH)];
    match tasks.iter().position(|task| task.command.row.runs.is_long()) {
        None => tasks,
        Some(long) => &tasks[..long.max(1)],
    }
}

/// Stopwatch that times the commands of a group in laps.
///
/// Looking at the clock for each command would cost more than some commands do. A lap covers several commands, which
/// share its time evenly; it ends early after a command that moved many bytes, since such a command can be slow. That
/// command is charged with all the time beyond what the others usually take.
struct Stopwatch {
    since_ns: u64,
    /// The words of the last command, where its request was consumed by running it.
    words: Option<Words>,
}

impl Stopwatch {
    fn start(now_ns: u64) -> Self {
        Self {
            since_ns: now_ns,
            words: None,
        }
    }

    /// Ends a lap and counts its commands; `heavy` if the last one moved many bytes.
    fn lap(
        &mut self,
        tasks: &[Task],
        heavy: bool,
        source: &Source,
        report: &mut Report,
        environment: &Environment<'_>,
    ) {
        let Some((last, others)) = tasks.split_last() else {
            return;
        };
        let now_ns = environment.clock.elapsed_ns();
        let nanos = now_ns - self.since_ns;
        self.since_ns = now_ns;
        let stats = environment.stats;
        let mut share = nanos / tasks.len() as u64;
        if heavy {
            share = share.min(stats.usual_ns.get());
        } else if !last.command.row.runs.is_long() {
            stats.usual_ns.set(share);
        }
        let own = if heavy {
            nanos - share * others.len() as u64
        } else {
            share
        };
        if own == share {
            count(tasks, share, environment);
        } else {
            count(others, share, environment);
            count(std::slice::from_ref(last), own, environment);
        }
        if own.max(share) >= environment.slow_from_ns {
            self.report(tasks, (share, own), source, report, environment);
        }
        self.words = None;
    }

    /// Reports the slow commands of a lap; `own` is the time of the last one.
    #[cold]
    fn report(
        &mut self,
        tasks: &[Task],
        (share, own): (u64, u64),
        source: &Source,
        report: &mut Report,
        environment: &Environment<'_>,
    ) {
        for (index, task) in tasks.iter().enumerate() {
            let is_last = index + 1 == tasks.len();
            let nanos = if is_last { own } else { share };
            if nanos < environment.slow_from_ns {
                continue;
            }
            // A request with buffers of its own always ends its lap, and its words were kept.
            let kept = if is_last { self.words.take() } else { None };
            let words = kept.unwrap_or_else(|| account::words(task.command, source.arguments(task, &[])));
            report
                .slow
                .push((*task, account::slow(task.command, words, nanos)));
        }
    }
}

/// Counts commands that took `nanos` each.
fn count(tasks: &[Task], nanos: u64, environment: &Environment<'_>) {
    let tracked = environment.settings.latency_tracking;
    // Neighbours are mostly the same command: they are counted with one addition.
    for alike in tasks.chunk_by(|task, next| task.command.id == next.command.id) {
        let count = alike.len() as u64;
        environment.stats.ran(alike[0].command.id, count, nanos, tracked);
    }
}

/// Prefetches for the next commands: first the buckets of their keys, then the entries, then the members that they
/// name.
#[inline]
fn prefetch(partition: &Partition, group: &[Task], source: &Source) {
    if group.len() < 2 {
        return;
    }
    for task in group {
        partition
            .keyspace
            .database(usize::from(task.db))
            .prefetch_bucket(task.hash, task.slot);
    }
    for task in group {
        partition
            .keyspace
            .database(usize::from(task.db))
            .prefetch_entry(task.hash, task.slot);
    }
    let mut members = SmallVec::<[MemberAhead<'_>; PREFETCH_BATCH]>::new();
    for task in group {
        let (Some(member), true) = (task.command.row.member, task.detached == 0) else {
            continue;
        };
        let args = source.arguments(task, &[]);
        let key = Key {
            bytes: args.at(usize::from(task.key)),
            hash: task.hash,
            slot: task.slot,
        };
        let entry = partition.keyspace.database(usize::from(task.db)).peek(&key);
        let collection = entry.and_then(Entry::collection);
        members.extend(collection.and_then(|found| found.look_ahead(args.at(usize::from(member)))));
    }
    members.into_iter().for_each(MemberAhead::fetch);
}

/// Runs a command, after noting where its reply starts, since it may panic. Returns the least number of bytes that it
/// moved, allocated or freed; fills `words` where running the command consumes its request.
#[inline]
fn run_task<R: Replies>(
    partition: &mut Partition,
    task: &Task,
    source: &mut Source,
    (replies, start): (&mut R, &mut usize),
    environment: &Environment<'_>,
    words: &mut Option<Words>,
) -> usize {
    if task.detached > 0 {
        *words = run_task_with_buffers(partition, task, source, (replies, start), environment);
        // However much of them is stored.
        return HEAVY_BYTES;
    }
    let balance = memory::thread_balance();
    let args = source.arguments(task, &[]);
    let moved = replies.answer(task, start, |place| {
        run_on(partition, task, args, None, place, environment);
    });
    moved | (memory::thread_balance() - balance).unsigned_abs() as usize
}

/// Runs a command whose request has arguments in buffers of their own, one of which its row may keep. Returns the
/// words of the request for the slow log, if the command may be slow.
#[cold]
fn run_task_with_buffers<R: Replies>(
    partition: &mut Partition,
    task: &Task,
    source: &mut Source,
    (replies, start): (&mut R, &mut usize),
    environment: &Environment<'_>,
) -> Option<Words> {
    let mut buffers = std::mem::take(&mut source.detached[task.detached as usize - 1]);
    // No partition was charged when they were received. Here they are charged to the partition whose command stores
    // or drops them.
    partition.memory_bytes += buffers.iter().map(|buffer| buffer.capacity() as i64).sum::<i64>();
    let words = (environment.slow_from_ns < u64::MAX).then(|| {
        let slices: SmallVec<[&[u8]; 4]> = buffers.iter().map(|buffer| &**buffer).collect();
        account::words(task.command, source.arguments(task, &slices))
    });
    let adopted = task.command.row.adopts.map(usize::from).and_then(|position| {
        let index = source.arguments(task, &[]).detached(position)?;
        Some((position, std::mem::take(&mut buffers[index])))
    });
    let slices: SmallVec<[&[u8]; 4]> = buffers.iter().map(|buffer| &**buffer).collect();
    let mut place = Place {
        bypass: None,
        ..replies.begin(task)
    };
    *start = place.out.len();
    run_on(
        partition,
        task,
        source.arguments(task, &slices),
        adopted,
        &mut place,
        environment,
    );
    replies.end(task, *start);
    words
}

/// Ends the reply of a command that has panicked, which starts at `start`, with an error.
fn end_panicked<R: Replies>(
    task: &Task,
    (replies, start): (&mut R, usize),
    report: &mut Report,
    environment: &Environment<'_>,
) {
    report.panicked.push(*task);
    let out = replies.retract(task, start);
    let start = start.min(out.len());
    fail(
        task.command,
        &ReplyError::Internal,
        out,
        start,
        task.modes.resp(),
        environment,
    );
    replies.end(task, start);
}

/// Notes that a command had effects, if more was recorded than before.
fn note_effects(report: &mut Report, index: usize, recorded: &mut u64, environment: &Environment<'_>) {
    let now = environment.recorder.recorded();
    if std::mem::replace(recorded, now) < now {
        report.wrote.push(index);
    }
}

/// Runs a command on the partition, then serves the tickets whose keys it made ready.
#[inline]
fn run_on(
    partition: &mut Partition,
    task: &Task,
    args: Arguments<'_>,
    adopted: Option<(usize, Buffer)>,
    place: &mut Place<'_>,
    environment: &Environment<'_>,
) {
    let call = Call {
        command: task.command,
        args,
        db: task.db,
        client: task.client,
        modes: task.modes,
        wrote_to: Position::default(),
        routed: Routed {
            index: task.key,
            hash: task.hash,
            slot: task.slot,
        },
        origin: task.modes.origin(),
        waiting: Waiting::Denied,
    };
    // What a reply tells of must not leave before the messages to trackers about it are in the mailboxes of their loops.
    let may_pass = !partition.door.invalidations.are_raised();
    let access = Access::Partitions(Held::One(partition));
    let bypass = place.bypass.as_mut().filter(|_| may_pass);
    let bypass = bypass.map(|bypass| bypass as &mut dyn Bypass);
    Execution::begin(call, adopted, place.out)
        .with_bypass(bypass)
        .run(None, access, environment);
    if partition.door.waiters.has_ready() {
        serve_ready(Held::One(partition), environment);
    }
}
