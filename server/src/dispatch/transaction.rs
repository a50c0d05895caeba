//! EXEC: runs the queued commands of a client in order, on partitions that nobody else uses meanwhile.

use std::sync::Arc;

use shardis_protocol::{Encoder, Resp};

use super::account;
use super::execution::{Access, Call, Caller, Environment, Execution};
use super::plan::Routed;
use super::rights::check_queued;
use crate::commands::registry;
use crate::config::Settings;
use crate::error::ReplyError;
use crate::exec::client::{Queued, Suspended};
use crate::exec::view::{Held, Lent};
use crate::exec::waiter::Waiting;
use crate::exec::watch::WatchList;
use crate::exec::{Closing, Modes};
use crate::exec::{CommandResult, Stamp};
use crate::journal::{Record, Unit};
use crate::spec::Flags;

/// The partitions of a transaction, by shard.
type Partitions<'a> = &'a mut Lent;

/// Runs the queue and writes the reply of EXEC. A command that needs the parts of all loops, and has not got them, suspends the
/// transaction: it is the client's again, and goes on when it is run for the next time.
///
/// # Errors
/// When there is no queue, or a command could not be queued.
pub(crate) fn exec(
    caller: &mut Caller<'_>,
    partitions: Partitions<'_>,
    out: &mut Vec<u8>,
    environment: &Environment<'_>,
) -> CommandResult {
    let resp = caller.client.resp;
    let Some(mut transaction) = caller.client.transaction.take() else {
        return Err(ReplyError::ExecWithoutMulti);
    };
    let start = out.len();
    let suspended = if let Some(suspended) = transaction.suspended.take() {
        out.extend_from_slice(&suspended.replies);
        suspended
    } else {
        let watching = caller.client.watching.take();
        if transaction.failed {
            return Err(ReplyError::ExecAborted);
        }
        if watching.is_some_and(|watching| has_changed(&watching, partitions, environment)) {
            Encoder::new(out, resp).null_array();
            return Ok(());
        }
        Encoder::new(out, resp).array(transaction.queue.len());
        caller.client.transaction_us = Some(environment.clock.now_us());
        Suspended::default()
    };
    let queue = transaction.queue.iter().enumerate().skip(suspended.next);
    let unit = OneUnit {
        partitions,
        unit: Some(environment.recorder.resume(suspended.unit)),
    };
    let mut is_leaving = suspended.is_leaving;
    let next = run_queue(
        caller,
        queue,
        &mut *unit.partitions,
        (out, start),
        &mut is_leaving,
        environment,
    );
    if let Some(next) = next {
        transaction.suspended = Some(Suspended {
            next,
            replies: out.split_off(start),
            unit: unit.suspend(),
            is_leaving,
        });
        caller.client.transaction = Some(transaction);
    } else {
        caller.client.transaction_us = None;
    }
    Ok(())
}

/// Runs the commands of a queue in order, up to the first one that lacks the parts it needs, whose index is returned. The reply
/// of EXEC begins at `start`. A client that has killed its own connection gets nothing behind the reply to that, as in Redis; the
/// commands run all the same.
fn run_queue<'q>(
    caller: &mut Caller<'_>,
    queue: impl Iterator<Item = (usize, &'q Queued)>,
    partitions: Partitions<'_>,
    (out, start): (&mut Vec<u8>, usize),
    is_leaving: &mut bool,
    environment: &Environment<'_>,
) -> Option<usize> {
    // The commands of a transaction have one time, as in Redis since 7.2. It is that of the transaction's begin.
    let now_us = caller.client.transaction_us;
    let now_ms = now_us.map_or(environment.stamp.now_ms, |now_us| now_us / 1000);
    let (mut changed, mut stamp) = (None, environment.stamp.at(now_ms, environment.settings));
    caller.now_ms = now_ms;
    for (index, queued) in queue {
        if queued.parts.is_none() && !caller.client.script.is_under_way() {
            // Parts have been run for a command that was checked before.
            if let Err(error) = check_queued(caller.client, caller.node, queued) {
                refuse_queued(caller, &error, (&mut *out, *is_leaving), environment);
                continue;
            }
            if registry().row(queued.command.id).row.runs.is_on_every_loop() {
                return Some(index);
            }
        }
        let begin_ns = environment.clock.elapsed_ns();
        let here = Environment {
            stamp,
            // The limit applies to the reply of EXEC, which all these replies are part of.
            reply_bytes_max: environment.reply_bytes_max.saturating_sub(out.len() - start),
            ..under(environment, &changed)
        };
        let before = out.len();
        run_queued(caller, queued, partitions, out, &here);
        if caller.client.departs() || caller.client.script.is_under_way() {
            return Some(index);
        }
        if *is_leaving {
            out.truncate(before);
        }
        *is_leaving = caller.client.closing != Closing::No;
        let nanos = environment.clock.elapsed_ns() - begin_ns;
        if registry().row(queued.command.id).row.flags.contains(Flags::ADMIN) {
            // A changed directive applies to the commands after it, and to the accounting of this one.
            let settings = caller.node.settings.load_full();
            stamp = Stamp::on(caller.node, &settings, stamp.now_ms);
            changed = Some(settings);
        }
        account_for(caller, queued, nanos, &under(environment, &changed));
    }
    None
}

/// Puts an error in the place of the reply to a command of the queue that may not run.
#[cold]
fn refuse_queued(
    caller: &Caller<'_>,
    error: &ReplyError,
    (out, is_leaving): (&mut Vec<u8>, bool),
    environment: &Environment<'_>,
) {
    environment.stats.answered_error(&error.line());
    if !is_leaving {
        Encoder::new(out, caller.client.resp).error(error.line());
    }
}

/// The environment of a transaction, with settings that one of its commands has changed.
#[inline]
fn under<'a>(environment: &Environment<'a>, changed: &'a Option<Arc<Settings>>) -> Environment<'a> {
    match changed {
        None => *environment,
        Some(settings) => Environment {
            settings,
            slow_from_ns: account::slow_from_ns(settings),
            ..*environment
        },
    }
}

/// Counts a command of the queue, and enters it into the slow log and the latency monitor.
fn account_for(caller: &mut Caller<'_>, queued: &Queued, nanos: u64, environment: &Environment<'_>) {
    let (command, args) = (registry().row(queued.command.id), queued.request.arguments());
    let settings = environment.settings;
    environment
        .stats
        .ran(command.id, 1, nanos, settings.latency_tracking);
    if nanos >= environment.slow_from_ns {
        let slow = account::slow(command, account::words(command, args), nanos);
        account::enter(caller.node, settings, Some(caller.client), slow);
    }
    if let Some(lines) = &mut caller.lines {
        account::show(lines, caller.node, caller.client, command, args);
    }
}

/// Whether a watched key has been changed, or has expired since.
fn has_changed(watching: &WatchList, partitions: &Lent, environment: &Environment<'_>) -> bool {
    let shards = partitions.len();
    let now_ms = environment.stamp.now_ms;
    watching.token.is_touched()
        || watching.keys.iter().any(|watched| {
            let shard = shardis_cluster::slot::shard_of(watched.slot, shards);
            let partition = partitions[shard].as_ref();
            partition.is_some_and(|partition| partition.has_expired(watched, &watching.token, now_ms))
        })
}

/// The unit of a transaction. Dropping it, also in a panic, ends the unit, with the removals that a command found before it
/// panicked.
struct OneUnit<'a> {
    partitions: Partitions<'a>,
    /// None when its effects have been set aside.
    unit: Option<Unit<'a>>,
}

impl OneUnit<'_> {
    /// Sets the effects so far aside, until the transaction goes on.
    fn suspend(mut self) -> Record {
        self.take_removals();
        self.unit.take().map(Unit::suspend).unwrap_or_default()
    }

    fn take_removals(&mut self) {
        let Some(unit) = &self.unit else { return };
        for partition in self.partitions.iter_mut().flatten() {
            unit.add_all(partition.door.removals.drain(..));
        }
    }
}

impl Drop for OneUnit<'_> {
    fn drop(&mut self) {
        self.take_removals();
    }
}

fn run_queued(
    caller: &mut Caller<'_>,
    queued: &Queued,
    partitions: Partitions<'_>,
    out: &mut Vec<u8>,
    environment: &Environment<'_>,
) {
    let mut modes = Modes::empty();
    modes.set(Modes::RESP3, caller.client.resp == Resp::V3);
    modes.set(Modes::NO_TOUCH, caller.client.no_touch);
    modes.set(Modes::PRIMARY, caller.client.is_primary);
    modes.set(Modes::TRACKS, caller.client.notes_reads());
    let call = Call {
        command: registry().row(queued.command.id),
        args: queued.request.arguments(),
        db: caller.client.db,
        client: caller.client.seat.subscriber.client,
        modes,
        wrote_to: caller.client.wrote_to,
        routed: Routed::default(),
        origin: modes.origin(),
        waiting: Waiting::Denied,
    };
    let access = match &queued.parts {
        Some(parts) => Access::Parts(parts),
        None => Access::Partitions(Held::Many(partitions)),
    };
    Execution::begin(call, None, out).run(Some(caller), access, environment);
}
