//! [`Table`]: the keys of a partition that trackers have read, with their readers.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// The keys that trackers have read.
///
/// A hash table doubles at once. So there are many small ones, none of which takes long to do that.
#[derive(Debug, Default)]
pub(super) struct Table {
    hasher: RandomState,
    /// [`PARTS`] tables, or none as long as no key was ever read.
    parts: Vec<HashTable<Known>>,
    keys: usize,
    /// The part that a key is dropped from next.
    next: usize,
}

/// A key, and the trackers that have read it.
#[derive(Debug)]
struct Known {
    key: Box<[u8]>,
    readers: Readers,
}

/// Numbers of trackers, ascending. Most keys have one reader.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Readers {
    /// One tracker.
    One(u32),
    /// Several trackers. The box keeps keys with one reader small.
    #[expect(
        clippy::box_collection,
        reason = "a vector is three words, most keys need none of them"
    )]
    Several(Box<Vec<u32>>),
}

/// Effect of a read on the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remembered {
    /// The reader was known.
    Nothing,
    /// The key has one more reader.
    Reader,
    /// The key was not in the table.
    Key,
}

/// Number of tables; a power of two.
const PARTS: usize = 1024;

/// Entries of a part from which on its memory is freed when it gets empty.
const KEPT_ENTRIES: usize = 64;

impl Readers {
    /// The trackers.
    pub(super) fn iter(&self) -> std::slice::Iter<'_, u32> {
        match self {
            Self::One(number) => std::slice::from_ref(number).iter(),
            Self::Several(numbers) => numbers.iter(),
        }
    }

    /// Number of trackers.
    pub(super) fn len(&self) -> usize {
        self.iter().len()
    }

    /// Adds a tracker. False if it was there.
    fn add(&mut self, number: u32) -> bool {
        match self {
            Self::One(known) if *known == number => false,
            Self::One(known) => {
                let both = vec![number.min(*known), number.max(*known)];
                *self = Self::Several(Box::new(both));
                true
            }
            Self::Several(numbers) => match numbers.binary_search(&number) {
                Ok(_) => false,
                Err(place) => {
                    numbers.insert(place, number);
                    true
                }
            },
        }
    }
}

impl Table {
    /// Whether no key is known.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.keys == 0
    }

    /// Number of keys.
    pub(super) fn len(&self) -> usize {
        self.keys
    }

    /// Notes that a tracker has read a key.
    pub(super) fn remember(&mut self, key: &[u8], reader: u32) -> Remembered {
        if self.parts.is_empty() {
            self.parts.resize_with(PARTS, HashTable::new);
        }
        let hash = self.hasher.hash_one(key);
        let hasher = |known: &Known| self.hasher.hash_one(&*known.key);
        match self.parts[part_of(hash)].entry(hash, |known| *known.key == *key, hasher) {
            Entry::Occupied(mut known) => {
                if known.get_mut().readers.add(reader) {
                    Remembered::Reader
                } else {
                    Remembered::Nothing
                }
            }
            Entry::Vacant(place) => {
                place.insert(Known {
                    key: key.into(),
                    readers: Readers::One(reader),
                });
                self.keys += 1;
                Remembered::Key
            }
        }
    }

    /// Takes a key out, with its readers.
    pub(super) fn take(&mut self, key: &[u8]) -> Option<(Box<[u8]>, Readers)> {
        if self.is_empty() {
            return None;
        }
        let hash = self.hasher.hash_one(key);
        let part = &mut self.parts[part_of(hash)];
        let found = part.find_entry(hash, |known| *known.key == *key).ok()?;
        let (Known { key, readers }, _) = found.remove();
        self.taken(part_of(hash));
        Some((key, readers))
    }

    /// Takes any key out, with its readers.
    pub(super) fn take_any(&mut self) -> Option<(Box<[u8]>, Readers)> {
        let parts = (0..self.parts.len()).map(|step| (self.next + step) % PARTS);
        let index = parts.into_iter().find(|&index| !self.parts[index].is_empty())?;
        self.next = (index + 1) % PARTS;
        let Known { key, readers } = self.parts[index].extract_if(|_| true).next()?;
        self.taken(index);
        Some((key, readers))
    }

    /// Notes that a key was taken out of a part.
    fn taken(&mut self, index: usize) {
        self.keys -= 1;
        let part = &mut self.parts[index];
        if part.is_empty() && part.capacity() > KEPT_ENTRIES {
            *part = HashTable::new();
        }
    }

    /// Removes all keys. Returns the number of their readers.
    pub(super) fn clear(&mut self) -> usize {
        let known = self.parts.iter().flat_map(|part| part.iter());
        let items = known.map(|known| known.readers.len()).sum();
        self.parts = Vec::new();
        self.keys = 0;
        items
    }
}

/// The part that a hash belongs to. The tables themselves use other bits.
fn part_of(hash: u64) -> usize {
    (hash >> 40) as usize % PARTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_counts_once() {
        let mut table = Table::default();
        assert_eq!(table.remember(b"k", 7), Remembered::Key);
        assert_eq!(table.remember(b"k", 7), Remembered::Nothing);
        assert_eq!(table.remember(b"k", 3), Remembered::Reader);
        assert_eq!(table.remember(b"k", 9), Remembered::Reader);
        assert_eq!(table.remember(b"k", 7), Remembered::Nothing);
        assert_eq!(table.take(b"x"), None);
        let (key, readers) = table.take(b"k").unwrap();
        assert_eq!(
            (&*key, readers.iter().copied().collect::<Vec<_>>()),
            (&b"k"[..], vec![3, 7, 9])
        );
        assert!(table.is_empty() && table.take(b"k").is_none());
    }

    #[test]
    fn any_key_is_taken_once() {
        let mut table = Table::default();
        for number in 0..5000_u32 {
            table.remember(&number.to_be_bytes(), number % 3);
        }
        let mut taken = std::collections::HashSet::new();
        while let Some((key, _)) = table.take_any() {
            assert!(taken.insert(key));
        }
        assert_eq!((taken.len(), table.len()), (5000, 0));
    }

    #[test]
    fn nothing_is_left_of_a_cleared_table() {
        let mut table = Table::default();
        for number in 0..100_u32 {
            table.remember(&[number as u8 % 10], number);
        }
        assert_eq!((table.len(), table.clear()), (10, 100));
        assert!(table.is_empty() && table.take_any().is_none());
    }
}
