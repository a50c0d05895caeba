//! Running a batch of commands on one partition, with the entries that they need brought into the caches ahead.

use std::panic::{AssertUnwindSafe, catch_unwind};

use shardis_protocol::Arguments;
use shardis_storage::entry::Entry;
use shardis_storage::key::Key;
use shardis_storage::memory::{self, Buffer};
use shardis_storage::value::MemberAhead;
use smallvec::SmallVec;

use super::account;
use super::execution::{Access, Call, Environment, Execution, fail};
use super::plan::Routed;
use super::serve::serve_ready;
use crate::error::ReplyError;
use crate::exec::Partition;
use crate::exec::view::Held;
use crate::exec::waiter::Waiting;
use crate::limits::{HEAVY_BYTES, PREFETCH_BATCH};
use crate::observe::slowlog::{Slow, Words};
use crate::shard::inbox::{Source, Task};

/// Where the replies of a batch go.
pub(crate) trait Replies {
    /// Where to encode the reply of a task.
    fn begin(&mut self, task: &Task) -> &mut Vec<u8>;
    /// The reply of the task, from `start` of that buffer on, is complete.
    fn end(&mut self, task: &Task, start: usize);
}

/// What there is to say of a batch that has run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Commands that panicked: their clients have been answered with an error.
    pub(crate) panicked: SmallVec<[Task; 0]>,
    /// Commands that were slow.
    pub(crate) slow: Vec<(Task, Slow)>,
}

/// Runs a batch of commands on one partition, in order. Short commands share a look at the clock; a long one begins with its
/// own, and so does what comes behind it.
pub(crate) fn run_batch(
    partition: &mut Partition,
    tasks: &[Task],
    source: &mut Source,
    replies: &mut impl Replies,
    environment: &mut Environment<'_>,
) -> Report {
    let mut report = Report::default();
    let (mut done, mut start) = (0, 0);
    while done < tasks.len() {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            while done < tasks.len() {
                let group = next_group(&tasks[done..]);
                let mut watch = Stopwatch::start(environment.clock.elapsed_ns());
                if done == 0 || group[0].command.row.runs.is_long() {
                    environment.look(watch.since_ns);
                } else {
                    environment.keep_fresh(watch.since_ns);
                }
                prefetch(partition, group, source);
                let mut timed = done;
                for task in group {
                    let reply = (&mut *replies, &mut start);
                    let moved = run_task(partition, task, source, reply, environment, &mut watch.words);
                    done += 1;
                    if moved >= HEAVY_BYTES || environment.times_each() {
                        let lap = &tasks[timed..done];
                        watch.lap(lap, moved >= HEAVY_BYTES, source, &mut report, environment);
                        environment.keep_fresh(watch.since_ns);
                        timed = done;
                    }
                }
                watch.lap(&tasks[timed..done], false, source, &mut report, environment);
            }
        }));
        if outcome.is_err() {
            let Some(&task) = tasks.get(done) else { break };
            // What the handler had written of its reply is dropped with the rest of its work.
            fail(
                task.command,
                &ReplyError::Internal,
                replies.begin(&task),
                start,
                task.modes.resp(),
                environment,
            );
            replies.end(&task, start);
            report.panicked.push(task);
            done += 1;
        }
    }
    report
}

/// The commands that are prefetched and timed together: short ones in a batch, a long one by itself.
#[inline]
fn next_group(tasks: &[Task]) -> &[Task] {
    let tasks = &tasks[..tasks.len().min(PREFETCH_BATCH)];
    match tasks.iter().position(|task| task.command.row.runs.is_long()) {
        None => tasks,
        Some(long) => &tasks[..long.max(1)],
    }
}

/// Times the commands of a group in laps.
///
/// To look at the clock for each of them would cost more than some of them do. A lap covers several and they share its
/// time evenly; it ends early behind a command that moved many bytes, which alone can make a short one slow. That one is
/// charged with all that goes beyond what the others usually take.
struct Stopwatch {
    since_ns: u64,
    /// The words of the command that ran last, where they are gone with it.
    words: Option<Words>,
}

impl Stopwatch {
    fn start(now_ns: u64) -> Self {
        Self {
            since_ns: now_ns,
            words: None,
        }
    }

    /// Counts the commands since the last lap, the last of them heavy or not.
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

    /// Puts down those of a lap that were slow; `own` is the time of the last one.
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
            // A request with buffers of its own ends its lap, and has left its words behind.
            let kept = if is_last { self.words.take() } else { None };
            let words = kept.unwrap_or_else(|| account::words(task.command, source.arguments(task, &[])));
            report
                .slow
                .push((*task, account::slow(task.command, words, nanos)));
        }
    }
}

/// Counts commands that took so long each.
fn count(tasks: &[Task], nanos: u64, environment: &Environment<'_>) {
    let tracked = environment.settings.latency_tracking;
    // Neighbours are mostly the same command: one addition for all of them.
    for alike in tasks.chunk_by(|task, next| task.command.id == next.command.id) {
        let count = alike.len() as u64;
        environment.stats.ran(alike[0].command.id, count, nanos, tracked);
    }
}

/// Brings the entries of the next commands into the caches, bucket lines first, and then the members that they name.
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

/// Runs a command, and notes where its reply starts before it may panic. Returns how many bytes it moved, allocated or freed
/// at least; `words` is filled where what it said goes with it.
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
        return usize::MAX;
    }
    let balance = memory::thread_balance();
    let out = replies.begin(task);
    *start = out.len();
    run_on(
        partition,
        task,
        source.arguments(task, &[]),
        None,
        out,
        environment,
    );
    let moved = (out.len() - *start) | (memory::thread_balance() - balance).unsigned_abs() as usize;
    replies.end(task, *start);
    moved
}

/// As [`run_task`], for a request with arguments in buffers of their own; a row may keep one of them. Returns what the slow
/// log would show of the request, if it may be slow.
#[cold]
fn run_task_with_buffers<R: Replies>(
    partition: &mut Partition,
    task: &Task,
    source: &mut Source,
    (replies, start): (&mut R, &mut usize),
    environment: &Environment<'_>,
) -> Option<Words> {
    let mut buffers = std::mem::take(&mut source.detached[task.detached as usize - 1]);
    // They were received for nobody's account. Whatever becomes of them, stored or dropped, happens on this one.
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
    let out = replies.begin(task);
    *start = out.len();
    run_on(
        partition,
        task,
        source.arguments(task, &slices),
        adopted,
        out,
        environment,
    );
    replies.end(task, *start);
    words
}

/// Runs a command on the partition, and whoever waited for what it did.
#[inline]
fn run_on(
    partition: &mut Partition,
    task: &Task,
    args: Arguments<'_>,
    adopted: Option<(usize, Buffer)>,
    out: &mut Vec<u8>,
    environment: &Environment<'_>,
) {
    let call = Call {
        command: task.command,
        args,
        db: task.db,
        modes: task.modes,
        routed: Routed {
            index: task.key,
            hash: task.hash,
            slot: task.slot,
        },
        waiting: Waiting::Denied,
    };
    let access = Access::Partitions(Held::One(partition));
    Execution::begin(call, adopted, out).run(None, access, environment);
    if partition.waiters.has_ready() {
        serve_ready(Held::One(partition), environment);
    }
}
