//! Decides where a command runs; no other module does.

use shardis_cluster::Slot;
use shardis_protocol::Arguments;
use shardis_storage::number::parse_i64;
use smallvec::SmallVec;

use crate::commands::registry;
use crate::error::ReplyError;
use crate::exec::Client;
use crate::exec::arguments::decode_cursor;
use crate::hashing::Hashing;
use crate::spec::key_spec::keys_of;
use crate::spec::{KeyShape, Registered, Runs, ScriptKind};

/// Place where a command runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The loop of its connection.
    Session,
    /// One shard.
    Shard {
        /// The shard.
        shard: usize,
        /// The key that determines the shard.
        key: Routed,
    },
    /// The loop of its connection, with the partitions of these shards.
    Lend(ShardSet),
    /// The loop of its connection, with the partitions of these shards; the handler works on the client as well.
    LendToSession(ShardSet),
    /// The loop of its connection, with the partitions that the client's transaction needs.
    Exec,
    /// The loop of its connection, with the partitions of a script, which depend on how it has behaved.
    Script(ScriptKind),
    /// Every shard, which each run a part.
    EveryShard,
    /// Every loop, which each run a part.
    EveryLoop,
    /// On this shard and those that follow it, one after the other.
    From(usize),
}

/// The key that routed a command, with its hash, so that it is hashed only once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Routed {
    /// Index of its argument; 0 when there is no key.
    pub(crate) index: u8,
    /// Its hash.
    pub(crate) hash: u64,
    /// Its slot.
    pub(crate) slot: u16,
}

impl Routed {
    #[inline]
    fn at(index: usize, bytes: &[u8], hashing: Hashing) -> Self {
        let key = hashing.key(bytes);
        // An index that does not fit in a byte is dropped: 0 is the command's name, so the key is hashed again.
        Self {
            index: u8::try_from(index).unwrap_or(0),
            hash: key.hash,
            slot: key.slot,
        }
    }
}

/// Decides where a command runs.
///
/// # Errors
/// When its keys cannot be determined, or its cursor is invalid.
#[inline]
pub(crate) fn place(
    command: &Registered,
    args: Arguments<'_>,
    hashing: Hashing,
) -> Result<Place, ReplyError> {
    let shards = hashing.shards();
    match command.row.runs {
        Runs::OnKeys(_) | Runs::OnKeysLong(_) => match command.keys {
            KeyShape::One(index) => {
                let (shard, key) = place_at(index, args, hashing);
                Ok(Place::Shard { shard, key })
            }
            _ => place_of_keys(command, args, hashing),
        },
        Runs::OnSession(_) | Runs::Container => Ok(Place::Session),
        Runs::OnEveryShard(..) => Ok(Place::EveryShard),
        Runs::OnEveryLoop(..) => Ok(Place::EveryLoop),
        Runs::OnAllShards(_) => Ok(Place::Lend(ShardSet::all(shards))),
        Runs::Blocking(_) => Ok(Place::Lend(shards_of_keys(command, args, hashing))),
        Runs::OnSlot(_) => {
            // The handler reports the error of a slot that does not exist, on any shard.
            let slot = parse_i64(args.at(2)).and_then(|slot| u16::try_from(slot).ok());
            let slot = slot.and_then(Slot::new).unwrap_or_default();
            Ok(Place::Shard {
                shard: hashing.shard_of(slot.number()),
                key: Routed::default(),
            })
        }
        Runs::OnCursorShards(..) => {
            let (shard, _) = decode_cursor(args.at(1), shards)?;
            let key = Routed::default();
            Ok(match shards {
                1 => Place::Shard { shard, key },
                _ => Place::From(shard),
            })
        }
        Runs::OnSessionAndKeys(_) => Ok(Place::LendToSession(shards_of_keys(command, args, hashing))),
        Runs::OnSessionAndAllShards(_) => Ok(Place::LendToSession(ShardSet::all(shards))),
        Runs::Exec => Ok(Place::Exec),
        Runs::Script(kind) => Ok(Place::Script(kind)),
    }
}

/// The shard and the key of a command with one key at a fixed position, as nearly all commands have. `None` for all
/// others, which [`place`] decides on.
#[inline]
pub(crate) fn place_of_one_key(
    command: &Registered,
    args: Arguments<'_>,
    hashing: Hashing,
) -> Option<(usize, Routed)> {
    match (command.row.runs, command.keys) {
        (Runs::OnKeys(_) | Runs::OnKeysLong(_), KeyShape::One(index)) => Some(place_at(index, args, hashing)),
        _ => None,
    }
}

#[inline]
fn place_at(index: u8, args: Arguments<'_>, hashing: Hashing) -> (usize, Routed) {
    let key = Routed::at(usize::from(index), args.at(usize::from(index)), hashing);
    (hashing.shard_of(key.slot), key)
}

fn place_of_keys(command: &Registered, args: Arguments<'_>, hashing: Hashing) -> Result<Place, ReplyError> {
    let shards = hashing.shards();
    let mut first = None;
    let mut set = ShardSet::none(shards);
    keys_of(command.row.keys, args, |index, _| {
        if first.is_none() {
            first = Some(Routed::at(index, args.at(index), hashing));
        }
        if shards > 1 {
            set.insert(hashing.shard_of(hashing.slot(args.at(index))));
        }
    })
    .unwrap_or_default();
    if shards > 1 && derives_keys(command, args) {
        return Ok(Place::Lend(ShardSet::all(shards)));
    }
    // Without a readable key the handler will reply with its own error, on any shard.
    let key = first.unwrap_or_default();
    if set.len() > 1 {
        Ok(Place::Lend(set))
    } else {
        Ok(Place::Shard {
            shard: hashing.shard_of(key.slot),
            key,
        })
    }
}

/// Whether a request uses keys that only stored data determines: they may be on any shard.
fn derives_keys(command: &Registered, args: Arguments<'_>) -> bool {
    command.row.keys.iter().any(|spec| spec.derives_keys(args))
}

/// The shards of all keys of a request, as far as they can be determined; the handler reports the error for the rest.
fn shards_of_keys(command: &Registered, args: Arguments<'_>, hashing: Hashing) -> ShardSet {
    let mut set = ShardSet::none(hashing.shards());
    keys_of(command.row.keys, args, |index, _| {
        set.insert(hashing.shard_of(hashing.slot(args.at(index))));
    })
    .unwrap_or_default();
    set
}

/// The shards that a command runs on. Empty when it needs none, or cannot be placed: it will then fail to run, with
/// the same error.
pub(crate) fn shards_of(command: &Registered, args: Arguments<'_>, hashing: Hashing) -> ShardSet {
    let shards = hashing.shards();
    match place(command, args, hashing) {
        Ok(Place::Shard { shard, .. }) => {
            let mut set = ShardSet::none(shards);
            set.insert(shard);
            set
        }
        Ok(Place::Lend(set) | Place::LendToSession(set)) => set,
        // In a transaction, a script can touch whatever it likes: it cannot begin anew.
        Ok(Place::EveryShard | Place::Script(_)) => ShardSet::all(shards),
        Ok(Place::From(first)) => {
            let mut set = ShardSet::none(shards);
            (first..shards).for_each(|shard| set.insert(shard));
            set
        }
        Ok(Place::Session | Place::EveryLoop | Place::Exec) | Err(_) => ShardSet::none(shards),
    }
}

/// The shards that a client's transaction touches: those of its queued commands and of its watched keys.
pub(crate) fn shards_of_transaction(client: &Client, hashing: Hashing) -> ShardSet {
    let mut set = ShardSet::none(hashing.shards());
    for queued in client
        .transaction
        .iter()
        .flat_map(|transaction| &transaction.queue)
    {
        let command = registry().row(queued.command.id);
        set.extend(&shards_of(command, queued.request.arguments(), hashing));
    }
    for watched in client.watching.iter().flat_map(|watching| &watching.keys) {
        set.insert(hashing.shard_of(watched.slot));
    }
    set
}

/// A set of shards, in ascending order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShardSet {
    words: SmallVec<[u64; 2]>,
}

impl ShardSet {
    /// The empty set, for a node of so many shards.
    pub(crate) fn none(shards: usize) -> Self {
        Self {
            words: SmallVec::from_elem(0, shards.div_ceil(64)),
        }
    }

    /// The set of all shards of a node.
    pub(crate) fn all(shards: usize) -> Self {
        let mut set = Self::none(shards);
        (0..shards).for_each(|shard| set.insert(shard));
        set
    }

    /// Adds a shard.
    pub(crate) fn insert(&mut self, shard: usize) {
        self.words[shard / 64] |= 1 << (shard % 64);
    }

    /// Adds the shards of another set of the same node.
    pub(crate) fn extend(&mut self, other: &Self) {
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
    }

    /// Number of shards in the set.
    pub(crate) fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Its shards, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        self.words.iter().enumerate().flat_map(|(index, &word)| {
            let mut left = word;
            std::iter::from_fn(move || {
                let lowest = (left != 0).then(|| index * 64 + left.trailing_zeros() as usize)?;
                left &= left - 1;
                Some(lowest)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_iterate_in_ascending_order() {
        let mut set = ShardSet::none(130);
        for shard in [129, 3, 64, 0] {
            set.insert(shard);
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 3, 64, 129]);
        assert_eq!(set.len(), 4);
        assert_eq!(ShardSet::all(70).len(), 70);
        assert_eq!(ShardSet::none(70).len(), 0);
    }
}
