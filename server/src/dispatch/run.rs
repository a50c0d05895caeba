//! Running commands on a partition: a batch with its entries prefetched, or one command over several partitions.
//!
//! A panic in a handler ends that command alone: its client gets an error, and everything else goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};

use shardis_protocol::{Arguments, Encoder, Resp};
use shardis_storage::key::KeyHasher;
use shardis_storage::memory::Buffer;
use smallvec::SmallVec;

use super::plan::Routed;
use crate::clock::Clock;
use crate::config::Settings;
use crate::error::ReplyError;
use crate::exec::effect::Outcome;
use crate::exec::view::Held;
use crate::exec::{CommandResult, Context, Effect, Effects, Part, Partition, Stamp, View};
use crate::limits::PREFETCH_BATCH;
use crate::observe::stats::LoopStats;
use crate::shard::inbox::{Modes, Source, Task};
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
}

/// Where the replies of a batch go.
pub(crate) trait Replies {
    /// Where to encode the reply of a task.
    fn begin(&mut self, task: &Task) -> &mut Vec<u8>;
    /// The reply of the task, from `start` of that buffer on, is complete.
    fn end(&mut self, task: &Task, start: usize);
}

/// Runs a batch of commands on one partition, in order. Returns the commands that panicked: their clients have been
/// answered with an error.
pub(crate) fn run_batch(
    partition: &mut Partition,
    tasks: &[Task],
    source: &mut Source,
    replies: &mut impl Replies,
    environment: &Environment<'_>,
) -> SmallVec<[Task; 0]> {
    let mut panicked = SmallVec::new();
    let (mut done, mut start) = (0, 0);
    while done < tasks.len() {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            while done < tasks.len() {
                let group = next_group(&tasks[done..]);
                let begin_ns = environment.clock.elapsed_ns();
                prefetch(partition, group);
                for task in group {
                    start = replies.begin(task).len();
                    run_task(partition, task, source, replies, environment);
                    done += 1;
                }
                count(
                    group,
                    environment.clock.elapsed_ns() - begin_ns,
                    environment.stats,
                );
            }
        }));
        if outcome.is_err() {
            let task = tasks[done];
            // What the handler had written of its reply is dropped with the rest of its work.
            let out = replies.begin(&task);
            out.truncate(start);
            Encoder::new(out, task.modes.resp()).error(ReplyError::Internal.line());
            replies.end(&task, start);
            panicked.push(task);
            done += 1;
        }
    }
    panicked
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

/// Counts a group of commands that took so long together.
fn count(group: &[Task], nanos: u64, stats: &LoopStats) {
    let share = nanos / group.len().max(1) as u64;
    for task in group {
        stats.ran(task.command.id, share);
    }
}

/// Brings the entries of the next commands into the caches, bucket lines first.
#[inline]
fn prefetch(partition: &Partition, group: &[Task]) {
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
}

#[inline]
fn run_task(
    partition: &mut Partition,
    task: &Task,
    source: &mut Source,
    replies: &mut impl Replies,
    environment: &Environment<'_>,
) {
    if task.detached > 0 {
        return run_task_with_buffers(partition, task, source, replies, environment);
    }
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
    };
    run_call(Held::One(partition), call, None, out, environment);
    replies.end(task, start);
}

/// As [`run_task`], for a request with arguments in buffers of their own; a row may keep one of them.
#[cold]
fn run_task_with_buffers(
    partition: &mut Partition,
    task: &Task,
    source: &mut Source,
    replies: &mut impl Replies,
    environment: &Environment<'_>,
) {
    let mut buffers = std::mem::take(&mut source.detached[task.detached as usize - 1]);
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
    };
    run_call(Held::One(partition), call, adopted, out, environment);
    replies.end(task, start);
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
    } = call;
    let (Runs::OnKeys(handler)
    | Runs::OnKeysLong(handler)
    | Runs::OnAllShards(handler)
    | Runs::OnCursorShard(handler)) = command.row.runs
    else {
        unreachable!("only commands on keys are planned to run on partitions");
    };
    let mut effects = Effects::new(held.journals());
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
        };
        handler(&mut context)
    };
    if result.is_err() {
        environment.stats.failed(command.id);
    }
    finish(result, start, out, modes.resp());
    record(held, &mut effects, db, args);
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
        if !partition.expired.is_empty() {
            partition.journal_expired();
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
        };
        handler(&mut context)?
    };
    record(held, &mut effects, db, args);
    Ok(Part { count, bytes })
}
