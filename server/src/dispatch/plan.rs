//! Where does it run? The only place that decides.

use shardis_protocol::Arguments;
use smallvec::SmallVec;

use crate::commands::registry;
use crate::error::ReplyError;
use crate::exec::Client;
use crate::exec::arguments::decode_cursor;
use crate::exec::hashing::Hashing;
use crate::spec::key_spec::keys_of;
use crate::spec::{KeyShape, Registered, Runs};

/// Where a command runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On the loop of its connection.
    Session,
    /// On one shard.
    Shard {
        /// The shard.
        shard: usize,
        /// The key that says so.
        key: Routed,
    },
    /// With these shards lent.
    Lend(ShardSet),
    /// On the loop of its connection, with these shards lent.
    LendToSession(ShardSet),
    /// On the loop of its connection, with the shards of the client's transaction lent.
    Exec,
    /// On every shard by itself.
    EveryShard,
    /// On every loop by itself.
    EveryLoop,
    /// On this shard and those that follow it, one after the other.
    From(usize),
}

/// The key that routed a command, hashed once and carried all the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Routed {
    /// Its argument; 0 when there is none.
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
        // A position that does not fit is not remembered: 0 is the command's name, so the key is hashed again.
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
/// When its keys cannot be told, or its cursor is none.
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
    }
}

/// The shard and the key of a command on one key at a fixed place: nearly every command there is. `None` for all others,
/// which [`place`] decides on.
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
    // Without a readable key the handler will answer with its own error: any shard will do for that.
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

/// Whether a request has keys that only its data tells: they may be anywhere.
fn derives_keys(command: &Registered, args: Arguments<'_>) -> bool {
    command.row.keys.iter().any(|spec| spec.derives_keys(args))
}

/// The shards of all keys of a request; of those that can be told, for the rest is up to the handler's own error.
fn shards_of_keys(command: &Registered, args: Arguments<'_>, hashing: Hashing) -> ShardSet {
    let mut set = ShardSet::none(hashing.shards());
    keys_of(command.row.keys, args, |index, _| {
        set.insert(hashing.shard_of(hashing.slot(args.at(index))));
    })
    .unwrap_or_default();
    set
}

/// The shards that a command runs on; none when it needs none, or cannot be placed: then it will fail to run, with the same
/// error.
pub(crate) fn shards_of(command: &Registered, args: Arguments<'_>, hashing: Hashing) -> ShardSet {
    let shards = hashing.shards();
    match place(command, args, hashing) {
        Ok(Place::Shard { shard, .. }) => {
            let mut set = ShardSet::none(shards);
            set.insert(shard);
            set
        }
        Ok(Place::Lend(set) | Place::LendToSession(set)) => set,
        Ok(Place::EveryShard) => ShardSet::all(shards),
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

/// A set of shards, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShardSet {
    words: SmallVec<[u64; 2]>,
}

impl ShardSet {
    /// No shard of so many.
    pub(crate) fn none(shards: usize) -> Self {
        Self {
            words: SmallVec::from_elem(0, shards.div_ceil(64)),
        }
    }

    /// All of so many.
    pub(crate) fn all(shards: usize) -> Self {
        let mut set = Self::none(shards);
        (0..shards).for_each(|shard| set.insert(shard));
        set
    }

    /// Adds a shard.
    pub(crate) fn insert(&mut self, shard: usize) {
        self.words[shard / 64] |= 1 << (shard % 64);
    }

    /// Adds another set of as many shards.
    pub(crate) fn extend(&mut self, other: &Self) {
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
    }

    /// How many are in it.
    pub(crate) fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Its shards, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        self.words.iter().enumerate().flat_map(|(index, &word)| {
            (0..64)
                .filter(move |bit| word >> bit & 1 == 1)
                .map(move |bit| index * 64 + bit)
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
