//! The partitions that a command holds, and the account that books memory to them.
//!
//! The allocator counts by thread. The user of a single partition books to it all that the thread allocates. With
//! several partitions an [`Account`] knows which of them is in use and since which balance of the thread, and books
//! the difference when the command turns to another one. Memory that the command has *in hand* (a result that is not
//! stored yet, a value being moved between keys) belongs to no partition until it is stored; a moved value carries
//! its size from one partition to the other. At the end of a command nothing is left in hand.

use std::ops::{Deref, DerefMut};

use shardis_cluster::slot::shard_of;
use shardis_storage::key::Key;
use shardis_storage::memory::thread_balance;
use smallvec::SmallVec;

use super::partition::Partition;

/// Books the memory of several partitions while one thread uses them.
#[derive(Debug)]
pub(crate) struct Account {
    /// Balance of the thread up to which everything is booked, bytes.
    since: i64,
    /// Shard whose partition is in use; none while the command works with memory in hand.
    shard: Option<usize>,
    /// Bytes allocated for each partition, by shard.
    taken: SmallVec<[i64; 8]>,
    /// Bytes in hand.
    in_hand: i64,
}

impl Account {
    /// An account that starts at the thread's present balance.
    pub(crate) fn begin(shards: usize) -> Self {
        Self {
            since: thread_balance(),
            shard: None,
            taken: SmallVec::from_elem(0, shards),
            in_hand: 0,
        }
    }

    /// Books what was allocated since the last call; what follows belongs to `shard`, or is in hand for `None`.
    #[inline]
    pub(crate) fn turn_to(&mut self, shard: Option<usize>) {
        let now = thread_balance();
        let taken = now - self.since;
        match self.shard {
            Some(shard) => self.taken[shard] += taken,
            None => self.in_hand += taken,
        }
        self.since = now;
        self.shard = shard;
    }

    /// Notes that memory in hand moves to a partition, or from it if `bytes` are negative.
    fn carry(&mut self, shard: usize, bytes: i64) {
        self.taken[shard] += bytes;
        self.in_hand -= bytes;
    }

    /// Excludes bytes that are booked elsewhere.
    fn leave_out(&mut self, bytes: i64) {
        self.since += bytes;
    }

    /// Ends a command. Everything it had in hand has been stored or freed.
    #[inline]
    pub(crate) fn end_command(&mut self) {
        self.turn_to(None);
        debug_assert_eq!(self.in_hand, 0, "what a command had in hand is booked to nobody");
    }

    /// Takes the bytes allocated for a partition since it was added.
    pub(crate) fn take(&mut self, shard: usize) -> i64 {
        std::mem::take(&mut self.taken[shard])
    }
}

/// Partitions of several shards, by shard index, and their account.
#[derive(Debug)]
pub(crate) struct Lent {
    partitions: SmallVec<[Option<Box<Partition>>; 8]>,
    account: Account,
}

impl Lent {
    /// An empty collection, for a node of so many shards.
    pub(crate) fn new(shards: usize) -> Self {
        Self {
            partitions: (0..shards).map(|_| None).collect(),
            account: Account::begin(shards),
        }
    }

    /// The shards whose partitions are here, ascending.
    pub(crate) fn shards(&self) -> impl DoubleEndedIterator<Item = usize> {
        let partitions = self.partitions.iter().enumerate();
        partitions.filter_map(|(shard, partition)| partition.as_ref().map(|_| shard))
    }

    /// Starts the use of the partitions: from here on, allocations of this thread are booked to them.
    pub(crate) fn begin(&mut self) {
        self.account.since = thread_balance();
    }

    /// Ends the use of the partitions, and books to each what was allocated for it.
    pub(crate) fn settle(&mut self) {
        self.account.end_command();
        self.book();
    }

    /// Books to each partition what was allocated for it so far.
    fn book(&mut self) {
        for (partition, taken) in self.partitions.iter_mut().zip(&mut self.account.taken) {
            let taken = std::mem::take(taken);
            match partition {
                Some(partition) => partition.memory_bytes += taken,
                None => debug_assert_eq!(taken, 0, "memory was booked to a partition that is not here"),
            }
        }
    }

    /// Adds the partition of one more shard.
    pub(crate) fn add(&mut self, partition: Box<Partition>) {
        let shard = partition.shard;
        debug_assert!(self.partitions[shard].is_none(), "a partition is in one place");
        self.partitions[shard] = Some(partition);
    }

    /// Takes the partition of a shard out, after booking to it what was allocated for it.
    pub(crate) fn remove(&mut self, shard: usize) -> Option<Box<Partition>> {
        self.account.turn_to(None);
        let mut partition = self.partitions[shard].take()?;
        partition.memory_bytes += self.account.take(shard);
        Some(partition)
    }

    /// Calls `act` with the partition of one shard, which is used by itself meanwhile.
    ///
    /// # Panics
    /// When the partition is not here.
    #[inline]
    pub(crate) fn alone<R>(&mut self, shard: usize, act: impl FnOnce(&mut Partition) -> R) -> R {
        self.account.turn_to(None);
        let partition = self.partitions[shard]
            .as_deref_mut()
            .expect("the partition that a command needs is here");
        partition.begin_use();
        let result = act(partition);
        partition.book();
        self.begin();
        result
    }

    /// Turns to the partition of a shard: allocations are booked to it until the next turn.
    #[inline]
    pub(crate) fn turn_to(&mut self, shard: usize) -> Option<&mut Partition> {
        self.account.turn_to(Some(shard));
        self.partitions[shard].as_deref_mut()
    }
}

impl Deref for Lent {
    type Target = [Option<Box<Partition>>];

    #[inline]
    fn deref(&self) -> &Self::Target {
        &self.partitions
    }
}

impl DerefMut for Lent {
    #[inline]
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.partitions
    }
}

/// The partitions that a command holds.
pub(crate) enum Held<'a> {
    /// The partition of one shard.
    One(&'a mut Partition),
    /// The partitions of two shards: a waiting command takes from one and puts into the other.
    Two([&'a mut Partition; 2], &'a mut Account),
    /// The partitions of several shards.
    Many(&'a mut Lent),
}

impl Held<'_> {
    /// The same partitions, borrowed for a shorter time.
    #[inline]
    pub(crate) fn reborrow(&mut self) -> Held<'_> {
        match self {
            Self::One(partition) => Held::One(partition),
            Self::Two([first, second], account) => Held::Two([first, second], account),
            Self::Many(lent) => Held::Many(lent),
        }
    }

    /// Calls `act` on each partition.
    #[inline]
    pub(crate) fn each(&mut self, mut act: impl FnMut(&mut Partition)) {
        match self {
            Self::One(partition) => act(partition),
            Self::Two(both, account) => {
                for partition in both {
                    account.turn_to(Some(partition.shard));
                    act(partition);
                }
                account.turn_to(None);
            }
            Self::Many(lent) => {
                for shard in 0..lent.len() {
                    if let Some(partition) = lent.turn_to(shard) {
                        act(partition);
                    }
                }
                lent.account.turn_to(None);
            }
        }
    }

    /// The first partition: figures that concern all of them are counted there.
    #[inline]
    pub(crate) fn first(&mut self) -> Option<&mut Partition> {
        match self {
            Self::One(partition) | Self::Two([partition, _], _) => Some(partition),
            Self::Many(lent) => lent.iter_mut().find_map(|held| held.as_deref_mut()),
        }
    }

    /// Turns to the partition of a slot, if it is held. A single partition is assumed to be the one of the slot.
    #[inline]
    pub(crate) fn find(&mut self, slot: u16) -> Option<&mut Partition> {
        let (partition, _) = self.turn(|shards| shard_of(slot, shards))?;
        Some(partition)
    }

    /// The partition of a slot, for work that allocates nothing in it or frees again what it allocated.
    #[inline]
    pub(crate) fn beside(&mut self, slot: u16) -> Option<&mut Partition> {
        self.beside_shard(|shards| shard_of(slot, shards))
    }

    /// The partition of the shard that `choose` selects, given the number of shards; for the same kind of work as
    /// [`beside`](Self::beside).
    #[inline]
    pub(crate) fn beside_shard(&mut self, choose: impl FnOnce(usize) -> usize) -> Option<&mut Partition> {
        let (partition, account) = self.turn(choose)?;
        if let Some(account) = account {
            account.turn_to(None);
        }
        Some(partition)
    }

    /// Turns to the partition of a slot. Returns it with the account, if there is one, which the caller must turn
    /// away afterwards.
    #[inline]
    pub(super) fn split(&mut self, slot: u16) -> Option<(&mut Partition, Option<&mut Account>)> {
        self.turn(|shards| shard_of(slot, shards))
    }

    #[inline]
    fn turn(
        &mut self,
        choose: impl FnOnce(usize) -> usize,
    ) -> Option<(&mut Partition, Option<&mut Account>)> {
        match self {
            Self::One(partition) => Some((partition, None)),
            Self::Two(both, account) => {
                let shard = choose(account.taken.len());
                account.turn_to(Some(shard));
                let partition = both.iter_mut().find(|partition| partition.shard == shard)?;
                Some((partition, Some(account)))
            }
            Self::Many(lent) => {
                let Lent { partitions, account } = &mut **lent;
                let shard = choose(partitions.len());
                account.turn_to(Some(shard));
                Some((partitions[shard].as_deref_mut()?, Some(account)))
            }
        }
    }

    /// Notes the number of the client whose command runs on the partitions from now on.
    #[inline]
    pub(crate) fn note_writer(&mut self, client: u32) {
        match self {
            Self::One(partition) => partition.door.invalidations.writer = client,
            Self::Two(both, _) => both
                .iter_mut()
                .for_each(|partition| partition.door.invalidations.writer = client),
            Self::Many(lent) => lent
                .iter_mut()
                .flatten()
                .for_each(|partition| partition.door.invalidations.writer = client),
        }
    }

    /// Notes that a tracker has read a key, if the partition of the key is held.
    pub(crate) fn remember_read(&mut self, key: &Key<'_>, client: u32) {
        if let Some(partition) = self.beside(key.slot) {
            partition.door.invalidations.remember(key.bytes, client);
        }
    }

    /// The partition of a slot, for reading only.
    #[inline]
    pub(super) fn peek(&self, slot: u16) -> Option<&Partition> {
        match self {
            Self::One(partition) => Some(partition),
            Self::Two(both, account) => {
                let shard = shard_of(slot, account.taken.len());
                both.iter()
                    .find(|partition| partition.shard == shard)
                    .map(|partition| &**partition)
            }
            Self::Many(lent) => lent[shard_of(slot, lent.len())].as_deref(),
        }
    }

    /// Turns away from all partitions: what is allocated next is in hand.
    #[inline]
    pub(super) fn turn_away(&mut self) {
        if let Some(account) = self.account() {
            account.turn_to(None);
        }
    }

    /// Notes that memory in hand moves to the partition of a slot, or from it if `bytes` are negative.
    #[inline]
    pub(super) fn carry(&mut self, slot: u16, bytes: i64) {
        if let Some(account) = self.account() {
            account.carry(shard_of(slot, account.taken.len()), bytes);
        }
    }

    /// Books to each partition what was allocated for it so far, so that its figure is the present one.
    pub(crate) fn book(&mut self) {
        match self {
            Self::One(partition) => partition.book(),
            Self::Two(both, account) => both
                .iter_mut()
                .for_each(|partition| partition.memory_bytes += account.take(partition.shard)),
            Self::Many(lent) => lent.book(),
        }
    }

    /// Excludes bytes that this thread has just allocated and that are booked elsewhere.
    pub(crate) fn leave_out(&mut self, bytes: i64) {
        match self {
            // The user of a single partition books to it all that the thread allocates, these bytes included.
            Self::One(partition) => partition.memory_bytes -= bytes,
            Self::Two(_, account) => account.leave_out(bytes),
            Self::Many(lent) => lent.account.leave_out(bytes),
        }
    }

    /// Ends a command: nothing may be left in hand.
    #[inline]
    pub(crate) fn end_command(&mut self) {
        if let Some(account) = self.account() {
            account.end_command();
        }
    }

    #[inline]
    fn account(&mut self) -> Option<&mut Account> {
        match self {
            Self::One(_) => None,
            Self::Two(_, account) => Some(account),
            Self::Many(lent) => Some(&mut lent.account),
        }
    }

    /// Whether the partition of a shard is held.
    pub(crate) fn holds(&self, shard: usize) -> bool {
        match self {
            Self::One(partition) => partition.shard == shard,
            Self::Two(both, _) => both.iter().any(|partition| partition.shard == shard),
            Self::Many(lent) => lent[shard].is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use shardis_storage::memory::Buffer;

    use super::*;

    #[test]
    fn what_is_taken_is_booked_to_the_partition_that_is_worked_on() {
        let mut account = Account::begin(3);
        let in_hand = Buffer::zeroed(1000);
        account.turn_to(Some(1));
        let first = Buffer::zeroed(5000);
        account.turn_to(Some(2));
        let second = Buffer::zeroed(100_000);
        account.turn_to(None);
        let sizes = [&first, &second, &in_hand].map(|buffer| buffer.capacity() as i64);
        account.carry(2, sizes[2]);
        account.end_command();
        assert_eq!(
            [1, 2].map(|shard| account.take(shard)),
            [sizes[0], sizes[1] + sizes[2]]
        );
        account.turn_to(Some(1));
        drop(first);
        account.turn_to(Some(2));
        drop((second, in_hand));
        account.end_command();
        assert_eq!(
            [1, 2].map(|shard| account.take(shard)),
            [-sizes[0], -sizes[1] - sizes[2]]
        );
    }

    #[test]
    fn what_somebody_else_has_booked_is_left_out() {
        let mut account = Account::begin(2);
        account.turn_to(Some(0));
        let other = Buffer::zeroed(5000);
        account.leave_out(other.capacity() as i64);
        let own = Buffer::zeroed(300);
        account.end_command();
        assert_eq!(account.take(0), own.capacity() as i64);
        drop(other);
    }

    #[test]
    #[should_panic(expected = "booked to nobody")]
    #[cfg(debug_assertions)]
    fn what_stays_in_hand_is_noticed() {
        let mut account = Account::begin(2);
        let _lost = Buffer::zeroed(300);
        account.end_command();
    }
}
