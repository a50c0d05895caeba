//! Commands that wait for a snapshot: those that would change what it has still to save, while that is too large to be saved at
//! once or too much is on its way to the file; and all that change data once the node saves it for the last time.
//!
//! Only such a command waits, and the later ones of its connection on the same shard. A command that does not ask here is
//! correct all the same: what it changes is then saved at once, however long that takes.

use shardis_protocol::Arguments;
use shardis_storage::key::Key;
use smallvec::SmallVec;

use super::execution::Environment;
use crate::commands::registry;
use crate::exec::change::Reached;
use crate::exec::{Client, Partition};
use crate::hashing::Hashing;
use crate::shard::inbox::{Batch, Source, Task};
use crate::spec::key_spec::{KeyFlags, keys_of};
use crate::spec::{Flags, KeyShape, KeySpec, Registered};

/// Batches of commands that wait on a shard, as those see them that come after.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queue<'a> {
    /// The loop of the commands that are to run now.
    pub(crate) origin: usize,
    /// The batches that wait.
    pub(crate) batches: &'a [Box<Batch>],
}

impl Queue<'_> {
    /// Whether a command of its connection waits.
    fn has_one_before(&self, task: &Task) -> bool {
        self.batches
            .iter()
            .filter(|batch| batch.origin == self.origin)
            .any(|batch| batch.tasks.iter().any(|waiting| is_of_same(waiting, task)))
    }

    /// Whether commands on a partition have to be looked at one by one.
    pub(crate) fn is_needed(&self, partition: &Partition) -> bool {
        !self.batches.is_empty() || partition.may_hold_back()
    }

    /// Whether a command of a batch has to wait. `waiting` are the indexes of those before it that do.
    pub(crate) fn holds(
        &self,
        partition: &mut Partition,
        (tasks, index): (&[Task], usize),
        waiting: &[usize],
        source: &Source,
        environment: &Environment<'_>,
    ) -> bool {
        let task = &tasks[index];
        if waiting.iter().any(|&before| is_of_same(&tasks[before], task)) || self.has_one_before(task) {
            return true;
        }
        if !changes_data(task.command) {
            return false;
        }
        if environment.node.is_sealed(partition.seal) {
            return true;
        }
        let buffers: SmallVec<[&[u8]; 4]> = source.buffers(task.location()).collect();
        let args = source.arguments(task, &buffers);
        let reached = reached(task.command, task.db);
        if let KeyShape::One(index) = task.command.keys {
            let (bytes, hash, slot) = (args.at(usize::from(index)), task.hash, task.slot);
            return partition.holds_back(reached, &Key { bytes, hash, slot });
        }
        any_changed_key(task.command, args, environment.hashing, |key| {
            partition.holds_back(reached, key)
        })
    }
}

fn is_of_same(one: &Task, other: &Task) -> bool {
    one.connection == other.connection && one.client == other.client
}

/// Whether a command may change data.
fn changes_data(command: &Registered) -> bool {
    command.row.flags.intersects(Flags::WRITE | Flags::MAY_REPLICATE)
}

/// The databases that a command may change, of a client of the database `db`.
pub(super) fn reached(command: &Registered, db: u16) -> Reached {
    if command.row.flags.contains(Flags::ELSEWHERE) {
        Reached::All
    } else {
        Reached::One(db)
    }
}

/// Whether `waits` holds for one of the keys that a command may change.
pub(super) fn any_changed_key(
    command: &Registered,
    args: Arguments<'_>,
    hashing: Hashing,
    mut waits: impl FnMut(&Key<'_>) -> bool,
) -> bool {
    let mut found = false;
    // A command that writes and says of all its keys that it only reads them changes what is not a part of the value in Redis's
    // terms: the groups of a stream.
    let reads_all = command.row.keys.iter().all(KeySpec::is_read_only);
    // The handler reports a number of keys that is wrong.
    let _ = keys_of(command.row.keys, args, |index, flags| {
        let may_change = reads_all || !flags.contains(KeyFlags::RO);
        found = found || may_change && waits(&hashing.key(args.at(index)));
    });
    found
}

/// Whether a command over several shards, or one of those that EXEC runs, has to wait. `waits` tells that of a key in those
/// databases; `is_sealed` that data must not change at all.
pub(crate) fn spanning_waits(
    client: &Client,
    (command, args): (&'static Registered, Arguments<'_>),
    hashing: Hashing,
    is_sealed: bool,
    mut waits: impl FnMut(Reached, &Key<'_>) -> bool,
) -> bool {
    let mut one_waits = |command: &Registered, args: Arguments<'_>, reached: Reached| {
        changes_data(command)
            && (is_sealed || any_changed_key(command, args, hashing, |key| waits(reached, key)))
    };
    match &client.transaction {
        Some(transaction) if command.row.runs.is_exec() => transaction.queue.iter().any(|queued| {
            let command = registry().row(queued.command.id);
            one_waits(command, queued.request.arguments(), Reached::All)
        }),
        _ => one_waits(command, args, reached(command, client.db)),
    }
}
