//! EXEC: runs what a client queued, one command after the other, on partitions that nobody else sees meanwhile.

use std::sync::Arc;

use crossbeam_channel::Receiver;
use shardis_protocol::{Arguments, Encoder, Resp};

use super::account;
use super::plan::Routed;
use super::run::{self, Call, Environment};
use crate::commands::registry;
use crate::config::Settings;
use crate::error::ReplyError;
use crate::exec::Modes;
use crate::exec::arguments::decode_cursor;
use crate::exec::client::Queued;
use crate::exec::partition::Journal;
use crate::exec::view::Held;
use crate::exec::waiter::Waiting;
use crate::exec::watch::WatchList;
use crate::exec::{Client, CommandResult, Effect, Part, Partition, Session, Stamp, View};
use crate::spec::{Flags, Registered, Runs};
use crate::state::Node;

/// Whose transaction it is.
#[derive(Debug)]
pub(crate) struct Caller<'a> {
    /// The client.
    pub(crate) client: &'a mut Client,
    /// Its node.
    pub(crate) node: &'a Node,
    /// Where effects go; none when nobody listens.
    pub(crate) journal: Option<&'a Journal>,
    /// Unix time in milliseconds.
    pub(crate) now_ms: i64,
    /// Takes the lines of what runs, for monitors; none when there are none.
    pub(crate) lines: Option<&'a mut Vec<u8>>,
}

/// The partitions of a transaction, by shard.
type Partitions<'a> = &'a mut [Option<Box<Partition>>];

/// Runs the queue and writes the reply of EXEC.
///
/// # Errors
/// When there is no queue, or it could not be filled.
pub(crate) fn exec(
    caller: &mut Caller<'_>,
    partitions: Partitions<'_>,
    out: &mut Vec<u8>,
    environment: &Environment<'_>,
) -> CommandResult {
    let resp = caller.client.resp;
    let Some(transaction) = caller.client.transaction.take() else {
        return Err(ReplyError::ExecWithoutMulti);
    };
    let watching = caller.client.watching.take();
    if transaction.failed {
        return Err(ReplyError::ExecAborted);
    }
    if watching.is_some_and(|watching| has_changed(&watching, partitions, environment)) {
        Encoder::new(out, resp).null_array();
        return Ok(());
    }
    Encoder::new(out, resp).array(transaction.queue.len());
    caller.client.denies_blocking = true;
    as_one_unit(caller, partitions, |caller, partitions| {
        run_queue(caller, &transaction.queue, partitions, out, environment);
    });
    caller.client.denies_blocking = false;
    Ok(())
}

/// Runs the commands of a queue, one after the other.
fn run_queue(
    caller: &mut Caller<'_>,
    queue: &[Queued],
    partitions: Partitions<'_>,
    out: &mut Vec<u8>,
    environment: &Environment<'_>,
) {
    let mut changed: Option<(Arc<Settings>, Stamp)> = None;
    for queued in queue {
        let begin_ns = environment.clock.elapsed_ns();
        run_queued(caller, queued, partitions, out, &under(environment, &changed));
        let nanos = environment.clock.elapsed_ns() - begin_ns;
        if registry().row(queued.command.id).row.flags.contains(Flags::ADMIN) {
            // What it changed holds for what follows it, and for what becomes known of itself.
            let settings = caller.node.settings.load_full();
            let stamp = Stamp::on(caller.node, &settings, environment.stamp.now_ms);
            changed = Some((settings, stamp));
        }
        account_for(caller, queued, nanos, &under(environment, &changed));
    }
}

/// The environment of a transaction under what one of its commands has changed.
#[inline]
fn under<'a>(environment: &Environment<'a>, changed: &'a Option<(Arc<Settings>, Stamp)>) -> Environment<'a> {
    match changed {
        None => *environment,
        Some((settings, stamp)) => Environment {
            settings,
            stamp: *stamp,
            slow_from_ns: account::slow_from_ns(settings),
            ..*environment
        },
    }
}

/// Counts a command of the queue, and tells those who want to know of it.
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

/// Whether a watched key was changed, or has expired since.
fn has_changed(watching: &WatchList, partitions: Partitions<'_>, environment: &Environment<'_>) -> bool {
    let shards = partitions.len();
    let now_ms = environment.stamp.now_ms;
    watching.token.is_touched()
        || watching.keys.iter().any(|watched| {
            let shard = shardis_cluster::slot::shard_of(watched.slot, shards);
            let partition = partitions[shard].as_ref();
            partition.is_some_and(|partition| partition.has_expired(watched, &watching.token, now_ms))
        })
}

/// Has the effects of all commands enter the journal between MULTI and EXEC.
fn as_one_unit(
    caller: &mut Caller<'_>,
    partitions: Partitions<'_>,
    run: impl FnOnce(&mut Caller<'_>, Partitions<'_>),
) {
    let Some(journal) = caller.journal else {
        return run(caller, partitions);
    };
    let (collector, collected) = crossbeam_channel::unbounded();
    let unit = Unit::begin(partitions, journal, &collector, collected);
    let mut collecting = Caller {
        client: caller.client,
        node: caller.node,
        journal: Some(&collector),
        now_ms: caller.now_ms,
        lines: caller.lines.as_deref_mut(),
    };
    run(&mut collecting, &mut *unit.partitions);
}

/// Partitions whose effects are collected. With its end, be that a panic, they have the journal again, and what was
/// collected enters it as one unit.
struct Unit<'a> {
    partitions: Partitions<'a>,
    journal: &'a Journal,
    collected: Receiver<Effect>,
}

impl<'a> Unit<'a> {
    /// Has the partitions report to the collector instead of the journal.
    fn begin(
        partitions: Partitions<'a>,
        journal: &'a Journal,
        collector: &Journal,
        collected: Receiver<Effect>,
    ) -> Self {
        for partition in partitions.iter_mut().flatten() {
            partition.journal = Some(collector.clone());
        }
        Self {
            partitions,
            journal,
            collected,
        }
    }
}

impl Drop for Unit<'_> {
    fn drop(&mut self) {
        for partition in self.partitions.iter_mut().flatten() {
            partition.journal = Some(self.journal.clone());
        }
        let effects: Vec<Effect> = self.collected.try_iter().collect();
        let (Some(first), Some(last)) = (effects.first(), effects.last()) else {
            return;
        };
        let mark = |word: &[u8], db| Effect {
            db,
            words: vec![word.to_vec()],
        };
        let (begin, end) = (mark(b"MULTI", first.db), mark(b"EXEC", last.db));
        for effect in std::iter::once(begin).chain(effects).chain([end]) {
            // A closed channel means that the listener has gone; effects then go nowhere.
            let _ = self.journal.send(effect);
        }
    }
}

fn run_queued(
    caller: &mut Caller<'_>,
    queued: &Queued,
    partitions: Partitions<'_>,
    out: &mut Vec<u8>,
    environment: &Environment<'_>,
) {
    let (command, args) = (registry().row(queued.command.id), queued.request.arguments());
    let (db, resp, start) = (caller.client.db, caller.client.resp, out.len());
    let result = match command.row.runs {
        Runs::OnSession(handler) => handler(&mut caller.session(args, out)),
        Runs::OnEveryShard(_, merge) => partitions
            .iter_mut()
            .flatten()
            .map(|partition| run::run_part(Held::One(partition), command, args, db, resp, environment))
            .collect::<Result<Vec<Part>, ReplyError>>()
            .and_then(|parts| merge(&mut caller.session(args, out), &parts)),
        Runs::OnEveryLoop(_, merge) => {
            let parts = queued.parts.clone().unwrap_or(Ok(Vec::new()));
            parts.and_then(|parts| merge(&mut caller.session(args, out), &parts))
        }
        Runs::OnCursorShard(_) => {
            decode_cursor(args.at(1), partitions.len()).map(|(shard, _)| match &mut partitions[shard] {
                Some(partition) => run::run_call(
                    Held::One(partition),
                    caller.call(command, args),
                    None,
                    out,
                    environment,
                ),
                None => unreachable!("the shard of a cursor is among those of its transaction"),
            })
        }
        Runs::OnKeys(_) | Runs::OnKeysLong(_) | Runs::OnAllShards(_) | Runs::Blocking(_) => {
            run::run_call(
                Held::Many(partitions),
                caller.call(command, args),
                None,
                out,
                environment,
            );
            Ok(())
        }
        Runs::OnSessionAndAllShards(handler) => {
            let held = Held::Many(partitions);
            let mut view = View::new(held, environment.hasher, environment.stamp, db);
            handler(&mut caller.session(args, out), &mut view)
        }
        Runs::OnSessionAndKeys(_) | Runs::Exec | Runs::Container => {
            unreachable!("such commands are not queued")
        }
    };
    if let Err(error) = &result {
        environment.stats.failed(command.id, &error.line());
    }
    run::finish(result, start, out, resp);
}

impl Caller<'_> {
    /// The client with one of its queued requests, for commands on the client and the node.
    fn session<'s>(&'s mut self, args: Arguments<'s>, out: &'s mut Vec<u8>) -> Session<'s> {
        let reply = Encoder::new(out, self.client.resp);
        Session {
            args,
            reply,
            client: self.client,
            node: self.node,
            journal: self.journal,
            now_ms: self.now_ms,
        }
    }

    /// A queued command on keys.
    fn call<'s>(&self, command: &'static Registered, args: Arguments<'s>) -> Call<'s> {
        let mut modes = Modes::empty();
        modes.set(Modes::RESP3, self.client.resp == Resp::V3);
        modes.set(Modes::NO_TOUCH, self.client.no_touch);
        Call {
            command,
            args,
            db: self.client.db,
            modes,
            routed: Routed::default(),
            waiting: Waiting::Denied,
        }
    }
}
