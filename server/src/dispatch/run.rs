//! Running commands on a partition: a batch with its entries prefetched, or one command over several partitions.
//!
//! A panic in a handler ends that command alone: its client gets an error, and everything else goes on.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use shardis_protocol::{Arguments, Encoder, Resp};
use shardis_storage::entry::Entry;
use shardis_storage::key::{Key, KeyHasher};
use shardis_storage::memory::{self, Buffer};
use shardis_storage::value::MemberAhead;
use smallvec::SmallVec;

use super::account;
use super::plan::{self, Routed};
use super::serve::serve_ready;
use crate::clock::Clock;
use crate::config::Settings;
use crate::error::ReplyError;
use crate::exec::Modes;
use crate::exec::effect::Outcome;
use crate::exec::view::Held;
use crate::exec::waiter::{Outbox, Waiting};
use crate::exec::{CommandResult, Context, Effect, Effects, Part, Partition, Stamp, View};
use crate::limits::{HEAVY_BYTES, PREFETCH_BATCH, TIMED_EACH_BELOW_NS};
use crate::observe::slowlog::{Slow, Words};
use crate::observe::stats::LoopStats;
use crate::shard::Mesh;
use crate::shard::inbox::{Source, Task};
use crate::spec::{Registered, Runs};

/// What all commands of a turn share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Environment<'a> {
    /// How keys are hashed.
    pub(crate) hasher: KeyHasher,
    /// Time and rules of access.
    pub(crate) stamp: Stamp,
    /// The running configuration.
    pub(crate) settings: &'a Settings,
    /// How many shards the node has.
    pub(crate) shards: usize,
    /// For measuring how long commands take.
    pub(crate) clock: &'a Clock,
    /// Counters of the loop that runs them.
    pub(crate) stats: &'a LoopStats,
    /// From how many nanoseconds on a command is slow.
    pub(crate) slow_from_ns: u64,
    /// All shards, for what has to reach beyond those it was given.
    pub(crate) mesh: &'a Mesh,
    /// Takes what becomes known while waiting commands are served.
    pub(crate) outbox: &'a RefCell<Outbox>,
}

impl Environment<'_> {
    /// Whether each command is timed by itself: somebody wants to know of commands so fast that the average over a batch
    /// would not tell them.
    fn times_each(&self) -> bool {
        self.slow_from_ns < TIMED_EACH_BELOW_NS
    }
}

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

/// Runs a batch of commands on one partition, in order.
pub(crate) fn run_batch(
    partition: &mut Partition,
    tasks: &[Task],
    source: &mut Source,
    replies: &mut impl Replies,
    environment: &Environment<'_>,
) -> Report {
    let mut report = Report::default();
    let (mut done, mut start) = (0, 0);
    while done < tasks.len() {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            while done < tasks.len() {
                let group = next_group(&tasks[done..]);
                let mut watch = Stopwatch::start(environment);
                prefetch(partition, group, source);
                let mut timed = done;
                for task in group {
                    start = replies.begin(task).len();
                    let moved = run_task(partition, task, source, replies, environment, &mut watch.words);
                    done += 1;
                    if moved >= HEAVY_BYTES || environment.times_each() {
                        watch.lap(&tasks[timed..done], moved >= HEAVY_BYTES, source, &mut report);
                        timed = done;
                    }
                }
                watch.lap(&tasks[timed..done], false, source, &mut report);
            }
        }));
        if outcome.is_err() {
            let Some(&task) = tasks.get(done) else { break };
            // What the handler had written of its reply is dropped with the rest of its work.
            let out = replies.begin(&task);
            out.truncate(start);
            Encoder::new(out, task.modes.resp()).error(ReplyError::Internal.line());
            replies.end(&task, start);
            environment
                .stats
                .failed(task.command.id, &ReplyError::Internal.line());
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
    match tasks
        .iter()
        .position(|task| !matches!(task.command.row.runs, Runs::OnKeys(_)))
    {
        None => tasks,
        Some(long) => &tasks[..long.max(1)],
    }
}

/// Times the commands of a group in laps.
///
/// To look at the clock for each of them would cost more than some of them do. A lap covers several and they share its
/// time evenly; it ends early behind a command that moved many bytes, which alone can make a short one slow. That one is
/// charged with all that goes beyond what the others usually take.
struct Stopwatch<'e> {
    environment: &'e Environment<'e>,
    since_ns: u64,
    /// The words of the command that ran last, where they are gone with it.
    words: Option<Words>,
}

impl<'e> Stopwatch<'e> {
    fn start(environment: &'e Environment<'e>) -> Self {
        Self {
            environment,
            since_ns: environment.clock.elapsed_ns(),
            words: None,
        }
    }

    /// Counts the commands since the last lap, the last of them heavy or not.
    fn lap(&mut self, tasks: &[Task], heavy: bool, source: &Source, report: &mut Report) {
        let Some((last, others)) = tasks.split_last() else {
            return;
        };
        let now_ns = self.environment.clock.elapsed_ns();
        let nanos = now_ns - self.since_ns;
        self.since_ns = now_ns;
        let stats = self.environment.stats;
        let mut share = nanos / tasks.len() as u64;
        if heavy {
            share = share.min(stats.usual_ns.get());
        } else if matches!(last.command.row.runs, Runs::OnKeys(_)) {
            stats.usual_ns.set(share);
        }
        let own = if heavy {
            nanos - share * others.len() as u64
        } else {
            share
        };
        if own == share {
            self.count(tasks, share);
        } else {
            self.count(others, share);
            self.count(std::slice::from_ref(last), own);
        }
        if own.max(share) >= self.environment.slow_from_ns {
            self.report(tasks, share, own, source, report);
        }
        self.words = None;
    }

    fn count(&self, tasks: &[Task], nanos: u64) {
        let tracked = self.environment.settings.latency_tracking;
        // Neighbours are mostly the same command: one addition for all of them.
        for alike in tasks.chunk_by(|task, next| task.command.id == next.command.id) {
            let count = alike.len() as u64;
            self.environment
                .stats
                .ran(alike[0].command.id, count, nanos, tracked);
        }
    }

    /// Puts down those of a lap that were slow; `own` is the time of the last one.
    #[cold]
    fn report(&mut self, tasks: &[Task], share: u64, own: u64, source: &Source, report: &mut Report) {
        for (index, task) in tasks.iter().enumerate() {
            let is_last = index + 1 == tasks.len();
            let nanos = if is_last { own } else { share };
            if nanos < self.environment.slow_from_ns {
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

/// Runs a command. Returns how many bytes it moved, allocated or freed at least; `words` is filled where what it said goes
/// with it.
#[inline]
fn run_task(
    partition: &mut Partition,
    task: &Task,
    source: &mut Source,
    replies: &mut impl Replies,
    environment: &Environment<'_>,
    words: &mut Option<Words>,
) -> usize {
    if task.detached > 0 {
        *words = run_task_with_buffers(partition, task, source, replies, environment);
        return usize::MAX;
    }
    let balance = memory::thread_balance();
    let out = replies.begin(task);
    let start = out.len();
    let routed = Routed {
        index: task.key,
        hash: task.hash,
        slot: task.slot,
    };
    let call = Call {
        command: task.command,
        args: source.arguments(task, &[]),
        db: task.db,
        modes: task.modes,
        routed,
        waiting: Waiting::Denied,
    };
    run_call(Held::One(partition), call, None, out, environment);
    if partition.waiters.has_ready() {
        serve_ready(Held::One(partition), environment);
    }
    let moved = (out.len() - start) | (memory::thread_balance() - balance).unsigned_abs() as usize;
    replies.end(task, start);
    moved
}

/// As [`run_task`], for a request with arguments in buffers of their own; a row may keep one of them. Returns what the slow
/// log would show of the request, if it may be slow.
#[cold]
fn run_task_with_buffers(
    partition: &mut Partition,
    task: &Task,
    source: &mut Source,
    replies: &mut impl Replies,
    environment: &Environment<'_>,
) -> Option<Words> {
    let mut buffers = std::mem::take(&mut source.detached[task.detached as usize - 1]);
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
    let start = out.len();
    let routed = Routed {
        index: task.key,
        hash: task.hash,
        slot: task.slot,
    };
    let args = source.arguments(task, &slices);
    let call = Call {
        command: task.command,
        args,
        db: task.db,
        modes: task.modes,
        routed,
        waiting: Waiting::Denied,
    };
    run_call(Held::One(partition), call, adopted, out, environment);
    if partition.waiters.has_ready() {
        serve_ready(Held::One(partition), environment);
    }
    replies.end(task, start);
    words
}

/// One command about to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    /// Its row.
    pub(crate) command: &'static Registered,
    /// Its arguments.
    pub(crate) args: Arguments<'a>,
    /// The client's database.
    pub(crate) db: u16,
    /// What it must know of the client.
    pub(crate) modes: Modes,
    /// The key that routed it.
    pub(crate) routed: Routed,
    /// Whether it may wait.
    pub(crate) waiting: Waiting<'a>,
}

/// Runs one command on the partitions it was given, writes its reply and hands its effects to the journal.
#[inline]
pub(crate) fn run_call(
    mut held: Held<'_>,
    call: Call<'_>,
    adopted: Option<(usize, Buffer)>,
    out: &mut Vec<u8>,
    environment: &Environment<'_>,
) {
    let Call {
        command,
        args,
        db,
        modes,
        routed,
        waiting,
    } = call;
    let (Runs::OnKeys(handler)
    | Runs::OnKeysLong(handler)
    | Runs::OnAllShards(handler)
    | Runs::OnCursorShard(handler)
    | Runs::Blocking(handler)) = command.row.runs
    else {
        unreachable!("only commands on keys are planned to run on partitions");
    };
    let mut effects = Effects::new(held.journals());
    count_on_shards(&mut held, &call, environment);
    let start = out.len();
    let result = {
        let mut view = View::new(held.reborrow(), environment.hasher, environment.stamp, db);
        view.no_touch = modes.contains(Modes::NO_TOUCH);
        let mut context = Context {
            args,
            reply: Encoder::new(out, modes.resp()),
            keyspace: view,
            effects: &mut effects,
            settings: environment.settings,
            shards: environment.shards,
            routed: (routed.index > 0).then_some((usize::from(routed.index), routed.hash, routed.slot)),
            adopted,
            waiting,
        };
        handler(&mut context)
    };
    if let Err(error) = &result {
        environment.stats.failed(command.id, &error.line());
    }
    finish(result, start, out, modes.resp());
    record(held, &mut effects, db, args);
}

/// Counts a command on the shards of its keys. Of those that were lent together, for a transaction, it may touch only some.
/// One that waited and is served now was counted when it came.
#[inline]
fn count_on_shards(held: &mut Held<'_>, call: &Call<'_>, environment: &Environment<'_>) {
    if matches!(call.waiting, Waiting::Served(_)) {
        return;
    }
    match held {
        Held::One(partition) => partition.figures.commands += 1,
        Held::Two(both, _) => both
            .iter_mut()
            .for_each(|partition| partition.figures.commands += 1),
        Held::Many(partitions) => {
            let shards = plan::shards_of(call.command, call.args, environment.hasher, environment.shards);
            for shard in shards.iter() {
                if let Some(partition) = partitions.get_mut(shard).and_then(Option::as_mut) {
                    partition.figures.commands += 1;
                }
            }
        }
    }
}

/// Writes the error of a command that failed, in place of whatever it had written.
#[inline]
pub(crate) fn finish(result: CommandResult, start: usize, out: &mut Vec<u8>, resp: Resp) {
    if let Err(error) = result {
        out.truncate(start);
        Encoder::new(out, resp).error(error.line());
    }
}

/// Hands the effects of a command to the journal, the removal of expired keys first.
#[inline]
pub(crate) fn record(mut held: Held<'_>, effects: &mut Effects, db: u16, args: Arguments<'_>) {
    let changes = effects.changes();
    held.each(|partition| {
        if !partition.removals.is_empty() {
            partition.journal_removals();
        }
    });
    let Some(partition) = held.first() else { return };
    partition.figures.changes += changes;
    if !effects.is_recording() {
        return;
    }
    let commands = match effects.take() {
        Outcome::Nothing => return,
        Outcome::Verbatim => vec![args.iter().map(<[u8]>::to_vec).collect()],
        Outcome::Commands(commands) => commands,
    };
    if let Some(journal) = &partition.journal {
        for words in commands {
            // A closed channel means that the listener has gone; effects then go nowhere.
            let _ = journal.send(Effect { db, words });
        }
    }
}

/// Runs one shard's part of a command over every shard.
///
/// # Errors
/// What the handler says.
pub(crate) fn run_part(
    mut held: Held<'_>,
    command: &'static Registered,
    args: Arguments<'_>,
    db: u16,
    resp: Resp,
    environment: &Environment<'_>,
) -> Result<Part, ReplyError> {
    let Runs::OnEveryShard(handler, _) = command.row.runs else {
        unreachable!("only commands on every shard have parts");
    };
    let mut effects = Effects::new(held.journals());
    let mut bytes = Vec::new();
    let count = {
        let mut context = Context {
            args,
            reply: Encoder::new(&mut bytes, resp),
            keyspace: View::new(held.reborrow(), environment.hasher, environment.stamp, db),
            effects: &mut effects,
            settings: environment.settings,
            shards: environment.shards,
            routed: None,
            adopted: None,
            waiting: Waiting::Denied,
        };
        handler(&mut context)?
    };
    record(held, &mut effects, db, args);
    Ok(Part { count, bytes })
}
