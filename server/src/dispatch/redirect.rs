//! Redirects: whether this node of a cluster serves a request, or which error sends its client elsewhere.
//!
//! A request is asked about twice: before it is admitted, so that the error comes in its place among all others, and again when
//! the partition of its keys is held, because the map of slots, or the keys of a slot that moves, may have changed
//! since. A request that runs has passed the second look, so that nothing is written that leaves with its slot unnoticed.

use shardis_cluster::redirect::decide;
use shardis_cluster::{Asker, KeysHere, Owner, Redirect, Slot, SlotState, SlotView, Transfer};
use shardis_protocol::Arguments;
use shardis_storage::key::Key;
use smallvec::SmallVec;

use crate::cluster::SeenMap;
use crate::commands::registry;
use crate::error::ReplyError;
use crate::exec::client::Queued;
use crate::exec::{Client, Modes, Partition};
use crate::hashing::Hashing;
use crate::shard::inbox::{Source, Task};
use crate::spec::key_spec::keys_of;
use crate::spec::{Flags, KeyShape, KeySpec, Registered};

/// Requests that are decided on together: a single one, or with EXEC all that a client has queued.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asked<'a> {
    /// One request.
    One(&'static Registered, Arguments<'a>),
    /// The requests of a transaction.
    Queue(&'a [Queued]),
}

impl<'a> Asked<'a> {
    /// A request of a client. `None` if it has no keys, so that every node serves it.
    pub(crate) fn of(client: &'a Client, command: &'static Registered, args: Arguments<'a>) -> Option<Self> {
        if command.row.runs.is_exec() {
            let transaction = client.transaction.as_deref();
            return transaction.map(|transaction| Self::Queue(&transaction.queue));
        }
        (command.keys != KeyShape::None).then_some(Self::One(command, args))
    }

    /// Calls `visit` with each key. A request whose keys cannot be told fails when it runs, wherever that is.
    fn each_key(self, mut visit: impl FnMut(&'a [u8])) {
        let mut visit_all = |command: &Registered, args: Arguments<'a>| match command.keys {
            KeyShape::None => {}
            KeyShape::One(index) => visit(args.at(usize::from(index))),
            KeyShape::General => {
                let mut keys = SmallVec::<[usize; 16]>::new();
                if keys_of(command.row.keys, args, |index, _| keys.push(index)).is_ok() {
                    keys.into_iter().for_each(|index| visit(args.at(index)));
                }
            }
        };
        match self {
            Self::One(command, args) => visit_all(command, args),
            Self::Queue(queue) => {
                for queued in queue {
                    visit_all(registry().row(queued.command.id), queued.request.arguments());
                }
            }
        }
    }

    fn asker(self, modes: Modes) -> Asker {
        let any = |flag: Flags| match self {
            Self::One(command, _) => command.row.flags.contains(flag),
            Self::Queue(queue) => queue
                .iter()
                .any(|queued| registry().row(queued.command.id).row.flags.contains(flag)),
        };
        let only = match self {
            Self::One(command, _) => Some(command),
            Self::Queue(_) => None,
        };
        Asker {
            writes: any(Flags::WRITE),
            reads_replicas: modes.contains(Modes::READS_REPLICAS),
            asking: modes.contains(Modes::ASKING)
                || only.is_some_and(|command| command.row.flags.contains(Flags::ASKING)),
            shard_channels: only
                .is_some_and(|command| command.row.keys.first().is_some_and(KeySpec::is_not_key)),
            migrates: only.is_some_and(|command| command.row.flags.contains(Flags::MIGRATES)),
        }
    }

    /// Presence of the keys, by `is_here`.
    pub(crate) fn count_keys(self, hashing: Hashing, mut is_here: impl FnMut(&Key<'_>) -> bool) -> KeysHere {
        let mut here = KeysHere {
            present: 0,
            missing: 0,
            several: false,
        };
        let mut first = None;
        self.each_key(|bytes| {
            here.several |= *first.get_or_insert(bytes) != bytes;
            let is_present = is_here(&hashing.key(bytes));
            here.present += usize::from(is_present);
            here.missing += usize::from(!is_present);
        });
        here
    }
}

/// Decides whether this node serves what a client of these modes asks for. `keys_here` is called if that depends on the presence of
/// the keys, which are in this slot then.
///
/// # Errors
/// The redirect.
pub(crate) fn check(
    asked: Asked<'_>,
    modes: Modes,
    slots: SeenMap<'_>,
    hashing: Hashing,
    keys_here: impl FnOnce(Slot) -> KeysHere,
) -> Result<(), ReplyError> {
    let told = slots.told_to(modes.contains(Modes::TLS));
    decide_on(asked, modes, &told, hashing, keys_here)
        .map_err(|redirect| ReplyError::Redirected(redirect.to_string()))
}

/// Decides like [`check`].
///
/// # Errors
/// The redirect as such.
pub(crate) fn decide_on<'m>(
    asked: Asked<'_>,
    modes: Modes,
    slots: &'m SeenMap<'_>,
    hashing: Hashing,
    keys_here: impl FnOnce(Slot) -> KeysHere,
) -> Result<(), Redirect<'m>> {
    let (mut first, mut other) = (None, None);
    asked.each_key(|key| {
        let slot = Slot::new(hashing.slot(key));
        if first.is_none() {
            first = slot;
        } else if slot != first {
            other = slot;
        }
    });
    let Some(slot) = first else { return Ok(()) };
    let both = first.into_iter().chain(other);
    decide(both, slots, asked.asker(modes), || keys_here(slot))
}

/// Whether a command whose keys are all in one slot runs here whatever they are, as nearly all do.
#[inline]
pub(crate) fn is_plain(slots: SeenMap<'_>, slot: u16, command: &Registered, reads_replicas: bool) -> bool {
    slots.is_settled(slot)
        || reads_replicas && slots.is_replicated(slot) && !command.row.flags.contains(Flags::WRITE)
}

/// Whether a command of a batch, whose keys are all in one slot, runs here whatever they are.
#[inline]
pub(crate) fn is_plain_task(slots: SeenMap<'_>, task: &Task) -> bool {
    let reads_replicas = task.modes.contains(Modes::READS_REPLICAS);
    is_plain(slots, task.slot, task.command, reads_replicas) || task.modes.contains(Modes::PRIMARY)
}

/// The redirect for a command of a batch that is not plain, when its partition is held; none if it runs here.
#[cold]
pub(crate) fn of_task(
    task: &Task,
    slots: SeenMap<'_>,
    (partition, source, hashing): (&Partition, &Source, Hashing),
) -> Option<ReplyError> {
    let buffers: SmallVec<[&[u8]; 4]> = source.buffers(task.location()).collect();
    let asked = Asked::One(task.command, source.arguments(task, &buffers));
    let keys_here = |_| asked.count_keys(hashing, |key| partition.has(key));
    check(asked, task.modes, slots, hashing, keys_here).err()
}

/// The redirect for a command that waits for a key of this slot; none if it goes on waiting. While the cluster does not work, none
/// does: what it waits for is a write.
pub(crate) fn of_waiting(
    slot: Slot,
    command: &Registered,
    modes: Modes,
    slots: SeenMap<'_>,
) -> Option<ReplyError> {
    let told = slots.told_to(modes.contains(Modes::TLS));
    let SlotState { owner, transfer } = told.slot(slot);
    let only_reads = modes.contains(Modes::READS_REPLICAS) && !command.row.flags.contains(Flags::WRITE);
    let redirect = match owner {
        _ if !slots.is_healthy() => Redirect::Down,
        Owner::Me => return None,
        Owner::MyPrimary(_) if only_reads => return None,
        _ if transfer == Transfer::Importing => return None,
        Owner::Nobody => Redirect::Unserved,
        Owner::MyPrimary(to) | Owner::Other(to) => Redirect::Moved { slot, to },
    };
    Some(ReplyError::Redirected(redirect.to_string()))
}

#[cfg(test)]
mod tests {
    // The rules themselves are tested where they are decided, in the crate `cluster`; here is what is asked of them.
    use super::*;
    use crate::exec::OwnedRequest;

    fn asked(line: &str, ask: impl FnOnce(Asked<'_>)) {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let request = OwnedRequest::of(words.iter().copied());
        let command = crate::dispatch::admission::find(request.arguments(), None, &Default::default());
        ask(Asked::One(command.expect("a command"), request.arguments()));
    }

    #[test]
    fn presence_counts_each_key_as_often_as_it_is_named() {
        let hashing = Hashing::new(shardis_storage::key::KeyHasher::new(1), 1, true);
        for (line, present, missing, several) in [
            ("GET here", 1, 0, false),
            ("MGET gone gone", 0, 2, false),
            ("MSET here 1 gone 2 here 3", 2, 1, true),
            ("XREAD STREAMS here gone 0 0", 1, 1, true),
            ("ZUNION x here", 0, 0, false),
        ] {
            asked(line, |asked| {
                let counted = asked.count_keys(hashing, |key| key.bytes == b"here");
                let expected = KeysHere {
                    present,
                    missing,
                    several,
                };
                assert_eq!(counted, expected, "{line}");
            });
        }
    }

    #[test]
    fn the_row_and_the_client_tell_what_is_asked() {
        let plain = Asker::default();
        for (line, modes, expected) in [
            ("GET a", Modes::empty(), plain),
            (
                "SET a 1",
                Modes::ASKING,
                Asker {
                    writes: true,
                    asking: true,
                    ..plain
                },
            ),
            (
                "GET a",
                Modes::READS_REPLICAS,
                Asker {
                    reads_replicas: true,
                    ..plain
                },
            ),
            (
                "SSUBSCRIBE a",
                Modes::empty(),
                Asker {
                    shard_channels: true,
                    ..plain
                },
            ),
            (
                "SPUBLISH a b",
                Modes::empty(),
                Asker {
                    shard_channels: true,
                    ..plain
                },
            ),
        ] {
            asked(line, |asked| assert_eq!(asked.asker(modes), expected, "{line}"));
        }
    }
}
