//! EXEC: runs what a client queued, one command after the other, on partitions that nobody else sees meanwhile.

use shardis_protocol::Encoder;

use super::plan::Routed;
use super::run::{self, Call, Environment};
use crate::commands::registry;
use crate::error::ReplyError;
use crate::exec::arguments::decode_cursor;
use crate::exec::client::Queued;
use crate::exec::view::Held;
use crate::exec::watch::WatchList;
use crate::exec::{Client, Effect, Part, Partition, Session};
use crate::shard::inbox::Modes;
use crate::spec::Runs;
use crate::state::Node;

/// Whose transaction it is.
#[derive(Debug)]
pub(crate) struct Caller<'a> {
    /// The client.
    pub(crate) client: &'a mut Client,
    /// Its node.
    pub(crate) node: &'a Node,
    /// Unix time in milliseconds.
    pub(crate) now_ms: i64,
}

/// The partitions of a transaction, by shard.
type Partitions<'a> = &'a mut [Option<Box<Partition>>];

/// Runs the queue and writes the reply of EXEC.
pub(crate) fn exec(
    caller: &mut Caller<'_>,
    partitions: Partitions<'_>,
    out: &mut Vec<u8>,
    environment: &Environment<'_>,
) {
    let resp = caller.client.resp;
    let Some(transaction) = caller.client.transaction.take() else {
        return Encoder::new(out, resp).error(ReplyError::ExecWithoutMulti.line());
    };
    let watching = caller.client.watching.take();
    if transaction.failed {
        return Encoder::new(out, resp).error(ReplyError::ExecAborted.line());
    }
    if watching.is_some_and(|watching| has_changed(&watching, partitions, environment)) {
        return Encoder::new(out, resp).null_array();
    }
    Encoder::new(out, resp).array(transaction.queue.len());
    as_one_unit(partitions, caller.client.db, |partitions| {
        for queued in &transaction.queue {
            run_queued(caller, queued, partitions, out, environment);
        }
    });
}

/// Whether a watched key was changed, or has expired since.
fn has_changed(watching: &WatchList, partitions: Partitions<'_>, environment: &Environment<'_>) -> bool {
    let shards = partitions.len();
    watching.token.is_touched()
        || watching
            .keys
            .iter()
            .filter(|watched| !watched.expired)
            .any(|watched| {
                let hash = environment.hasher.hash(&watched.key);
                let key = shardis_storage::key::Key {
                    bytes: &watched.key,
                    hash,
                    slot: watched.slot,
                };
                let shard = shardis_cluster::slot::shard_of(watched.slot, shards);
                let database = partitions[shard]
                    .as_ref()
                    .map(|found| found.keyspace.database(usize::from(watched.db)));
                database
                    .and_then(|database| database.peek(&key))
                    .is_some_and(|entry| entry.is_expired(environment.stamp.now_ms))
            })
}

/// Has the effects of all commands enter the journal between MULTI and EXEC.
fn as_one_unit(partitions: Partitions<'_>, db: u16, run: impl FnOnce(&mut [Option<Box<Partition>>])) {
    let journal = partitions
        .iter()
        .flatten()
        .find_map(|partition| partition.journal.clone());
    let Some(journal) = journal else {
        return run(partitions);
    };
    let (collector, collected) = crossbeam_channel::unbounded();
    for partition in partitions.iter_mut().flatten() {
        partition.journal = Some(collector.clone());
    }
    run(partitions);
    for partition in partitions.iter_mut().flatten() {
        partition.journal = Some(journal.clone());
    }
    let effects: Vec<Effect> = collected.try_iter().collect();
    let first_db = effects.first().map_or(db, |effect| effect.db);
    let last_db = effects.last().map_or(db, |effect| effect.db);
    if !effects.is_empty() {
        let mark = |word: &[u8], db| Effect {
            db,
            words: vec![word.to_vec()],
        };
        let unit = std::iter::once(mark(b"MULTI", first_db))
            .chain(effects)
            .chain([mark(b"EXEC", last_db)]);
        for effect in unit {
            // A closed channel means that the listener has gone; effects then go nowhere.
            let _ = journal.send(effect);
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
    let Caller { client, node, now_ms } = caller;
    let (command, args) = (registry().row(queued.command.id), queued.request.arguments());
    let (db, resp, start) = (client.db, client.resp, out.len());
    let mut modes = Modes::empty();
    modes.set(Modes::RESP3, resp == shardis_protocol::Resp::V3);
    modes.set(Modes::NO_TOUCH, client.no_touch);
    let call = Call {
        command,
        args,
        db,
        modes,
        routed: Routed::default(),
    };
    match command.row.runs {
        Runs::OnSession(handler) => {
            let mut session = Session {
                args,
                reply: Encoder::new(out, resp),
                client,
                node,
                now_ms: *now_ms,
            };
            let result = handler(&mut session);
            run::finish(result, start, out, resp);
        }
        Runs::OnEveryShard(_, merge) => {
            let parts: Result<Vec<Part>, ReplyError> = partitions
                .iter_mut()
                .flatten()
                .map(|partition| run::run_part(Held::One(partition), command, args, db, resp, environment))
                .collect();
            let result = parts.and_then(|parts| {
                merge(
                    &mut Session {
                        args,
                        reply: Encoder::new(out, resp),
                        client,
                        node,
                        now_ms: *now_ms,
                    },
                    &parts,
                )
            });
            run::finish(result, start, out, resp);
        }
        Runs::OnCursorShard(_) => match decode_cursor(args.at(1), partitions.len()) {
            Ok((shard, _)) => match &mut partitions[shard] {
                Some(partition) => run::run_call(Held::One(partition), call, None, out, environment),
                None => unreachable!("the shard of a cursor is among those of its transaction"),
            },
            Err(error) => run::finish(Err(error), start, out, resp),
        },
        Runs::OnKeys(_) | Runs::OnKeysLong(_) | Runs::OnAllShards(_) => {
            run::run_call(Held::Many(partitions), call, None, out, environment);
        }
        Runs::OnEveryLoop(_, merge) => {
            let parts = queued.parts.clone().unwrap_or(Ok(Vec::new()));
            let result = parts.and_then(|parts| {
                merge(
                    &mut Session {
                        args,
                        reply: Encoder::new(out, resp),
                        client,
                        node,
                        now_ms: *now_ms,
                    },
                    &parts,
                )
            });
            run::finish(result, start, out, resp);
        }
        Runs::OnSessionAndKeys(_) | Runs::Exec | Runs::Container => {
            unreachable!("such commands are not queued")
        }
    }
}
