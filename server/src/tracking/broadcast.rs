//! Broadcasting mode: the prefixes that clients have asked for, and the changed keys that have them.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use super::{Groups, Tracking, encode_keys};

/// Receivers of the messages about one prefix, by loop.
pub(super) type Audience = Groups;

/// The prefixes that clients have asked for at one time. It never changes.
#[derive(Debug)]
pub(super) struct Prefixes {
    version: u64,
    /// Bit set of the bytes that prefixes begin with.
    first: [u64; 4],
    /// Number of the empty prefix, which all keys have.
    empty: Option<u32>,
    /// Numbers of the other prefixes, by their length, ascending.
    by_length: Vec<(usize, Numbers)>,
    audiences: Vec<Audience>,
}

/// Numbers of prefixes of one length.
type Numbers = HashMap<Arc<[u8]>, u32, RandomState>;

impl Prefixes {
    /// Prefixes in ascending order, with the receivers of each.
    pub(super) fn new(version: u64, audiences: impl Iterator<Item = (Arc<[u8]>, Audience)>) -> Self {
        let mut prefixes = Self {
            version,
            first: [0; 4],
            empty: None,
            by_length: Vec::new(),
            audiences: Vec::new(),
        };
        for (prefix, audience) in audiences {
            prefixes.add(prefix);
            prefixes.audiences.push(audience);
        }
        prefixes.by_length.sort_unstable_by_key(|&(len, _)| len);
        prefixes
    }

    fn add(&mut self, prefix: Arc<[u8]>) {
        let number = self.audiences.len() as u32;
        let Some(&first) = prefix.first() else {
            self.empty = Some(number);
            return;
        };
        self.first[usize::from(first >> 6)] |= 1 << (first & 63);
        let len = prefix.len();
        match self.by_length.iter_mut().find(|(known, _)| *known == len) {
            Some((_, numbers)) => {
                numbers.insert(prefix, number);
            }
            None => {
                let mut numbers = Numbers::default();
                numbers.insert(prefix, number);
                self.by_length.push((len, numbers));
            }
        }
    }

    /// Calls `visit` with the number of each prefix of a key.
    #[inline]
    fn each_of(&self, key: &[u8], mut visit: impl FnMut(u32)) {
        if let Some(empty) = self.empty {
            visit(empty);
        }
        let Some(&first) = key.first() else { return };
        if self.first[usize::from(first >> 6)] & (1 << (first & 63)) == 0 {
            return;
        }
        for (len, numbers) in &self.by_length {
            let Some(prefix) = key.get(..*len) else { return };
            if let Some(&number) = numbers.get(prefix) {
                visit(number);
            }
        }
    }
}

/// A changed key that has a prefix. Its name is a range of [`Collected::names`].
#[derive(Clone, Copy, Debug)]
struct Found {
    prefix: u32,
    start: u32,
    len: u32,
    /// Number of the client that has changed it; 0 if none or several have.
    writer: u32,
}

impl Found {
    fn name(self, names: &[u8]) -> &[u8] {
        &names[self.start as usize..][..self.len as usize]
    }
}

/// Changed keys under one version of the prefixes.
#[derive(Debug)]
pub(super) struct Collected {
    prefixes: Arc<Prefixes>,
    names: Vec<u8>,
    found: Vec<Found>,
}

impl Collected {
    /// Whether other changes came under the same version of the prefixes.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.prefixes.version == other.prefixes.version
    }

    /// Adds changes that came under the same version of the prefixes.
    pub(super) fn add(&mut self, other: &Self) {
        let start = self.names.len() as u32;
        self.names.extend_from_slice(&other.names);
        self.found.extend(other.found.iter().map(|found| Found {
            start: start + found.start,
            ..*found
        }));
    }

    /// Calls `tell` with the receivers of each prefix and the changed keys that have it, each once, in ascending order.
    pub(super) fn each_prefix(self, mut tell: impl FnMut(&Audience, Changes)) {
        let Self {
            prefixes,
            names,
            mut found,
        } = self;
        found.sort_unstable_by(|one, other| {
            let by_name = || one.name(&names).cmp(other.name(&names));
            one.prefix.cmp(&other.prefix).then_with(by_name)
        });
        found.dedup_by(|next, kept| {
            let is_same = next.prefix == kept.prefix && next.name(&names) == kept.name(&names);
            if is_same && next.writer != kept.writer {
                // None of several writers knows of the others.
                kept.writer = 0;
            }
            is_same
        });
        let names = Arc::new(names);
        for of_prefix in found.chunk_by(|one, other| one.prefix == other.prefix) {
            let changes = Changes::new(Arc::clone(&names), of_prefix);
            tell(&prefixes.audiences[of_prefix[0].prefix as usize], changes);
        }
    }
}

/// Changed keys with one prefix.
#[derive(Debug)]
pub(crate) struct Changes {
    names: Arc<Vec<u8>>,
    found: Vec<Found>,
    /// The encoded array of their names.
    array: Vec<u8>,
}

impl Changes {
    fn new(names: Arc<Vec<u8>>, found: &[Found]) -> Self {
        let array = encode_keys(found.iter().map(|found| found.name(&names)));
        Self {
            names,
            found: found.to_vec(),
            array,
        }
    }

    /// The encoded array of all names.
    pub(crate) fn array(&self) -> &[u8] {
        &self.array
    }

    /// Whether a client has changed any of the keys.
    pub(crate) fn has_writer(&self, number: u32) -> bool {
        self.found.iter().any(|found| found.writer == number)
    }

    /// The encoded array of the names for which `keep` holds, given the name and the number of the client that has changed the
    /// key. None if it holds for no name.
    pub(crate) fn array_of(&self, keep: impl Fn(&[u8], u32) -> bool) -> Option<Vec<u8>> {
        let kept = self
            .found
            .iter()
            .filter(|found| keep(found.name(&self.names), found.writer));
        let kept: SmallVec<[&[u8]; 16]> = kept.map(|found| found.name(&self.names)).collect();
        (!kept.is_empty()).then(|| encode_keys(kept.into_iter()))
    }

    /// Bytes allocated for the changes.
    pub(super) fn bytes(&self) -> usize {
        self.array.len() + self.names.len() + self.found.len() * size_of::<Found>()
    }
}

/// Collects changed keys while a partition is used.
#[derive(Debug, Default)]
pub(super) struct Collector {
    /// The prefixes as of the last change.
    prefixes: Option<Arc<Prefixes>>,
    names: Vec<u8>,
    found: Vec<Found>,
    /// Keys that changed under earlier prefixes.
    earlier: Vec<Collected>,
}

impl Collector {
    /// Notes that a key changes. False if nobody has asked for any of its prefixes.
    pub(super) fn note(&mut self, shared: &Tracking, key: &[u8], writer: u32) -> bool {
        let version = shared.prefixes_version();
        if self
            .prefixes
            .as_ref()
            .is_none_or(|prefixes| prefixes.version != version)
        {
            self.renew(shared);
        }
        let Self {
            prefixes: Some(prefixes),
            names,
            found,
            ..
        } = self
        else {
            return false;
        };
        let (start, before) = (names.len(), found.len());
        prefixes.each_of(key, |prefix| {
            if found.len() == before {
                names.extend_from_slice(key);
            }
            found.push(Found {
                prefix,
                start: start as u32,
                len: key.len() as u32,
                writer,
            });
        });
        found.len() > before
    }

    /// Takes over the present prefixes.
    #[cold]
    fn renew(&mut self, shared: &Tracking) {
        self.set_aside();
        self.prefixes = Some(shared.snapshot());
    }

    fn set_aside(&mut self) {
        if let Some(prefixes) = &self.prefixes
            && !self.found.is_empty()
        {
            self.earlier.push(Collected {
                prefixes: Arc::clone(prefixes),
                names: std::mem::take(&mut self.names),
                found: std::mem::take(&mut self.found),
            });
        }
    }

    /// Takes all that was collected.
    pub(super) fn take(&mut self) -> Vec<Collected> {
        self.set_aside();
        std::mem::take(&mut self.earlier)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefixes(names: &[Vec<u8>]) -> Prefixes {
        Prefixes::new(1, names.iter().map(|name| (Arc::from(&**name), Audience::new())))
    }

    proptest! {
        #[test]
        fn a_key_has_the_prefixes_it_begins_with(
            names in prop::collection::btree_set(prop::collection::vec(0..3_u8, 0..4), 0..12),
            key in prop::collection::vec(0..3_u8, 0..6),
        ) {
            let names: Vec<Vec<u8>> = names.into_iter().collect();
            let mut found = Vec::new();
            prefixes(&names).each_of(&key, |number| found.push(number as usize));
            found.sort_unstable();
            let expected: Vec<usize> = (0..names.len()).filter(|&number| key.starts_with(&names[number])).collect();
            prop_assert_eq!(found, expected);
        }
    }

    /// The messages about changes of keys by writers, one for each prefix: names with writers.
    fn told(names: &[&[u8]], changes: &[(&[u8], u32)]) -> Vec<Vec<(Vec<u8>, u32)>> {
        let names: Vec<Vec<u8>> = names.iter().map(|name| name.to_vec()).collect();
        let mut collector = Collector {
            prefixes: Some(Arc::new(prefixes(&names))),
            ..Collector::default()
        };
        let shared = Tracking::default();
        shared
            .prefixes_version
            .store(1, std::sync::atomic::Ordering::Relaxed);
        for (key, writer) in changes {
            collector.note(&shared, key, *writer);
        }
        let mut told = Vec::new();
        for collected in collector.take() {
            collected.each_prefix(|_, changes| {
                let found = changes.found.iter();
                told.push(
                    found
                        .map(|found| (found.name(&changes.names).to_vec(), found.writer))
                        .collect(),
                );
            });
        }
        told
    }

    #[test]
    fn each_key_is_told_once_for_a_prefix() {
        let key = |name: &[u8], writer| (name.to_vec(), writer);
        assert_eq!(
            told(
                &[b"", b"a", b"b"],
                &[(b"az", 1), (b"c", 2), (b"ab", 1), (b"az", 1), (b"c", 3)]
            ),
            [
                vec![key(b"ab", 1), key(b"az", 1), key(b"c", 0)],
                vec![key(b"ab", 1), key(b"az", 1)],
            ]
        );
        assert!(told(&[b"a"], &[(b"b", 1), (b"", 1)]).is_empty());
        assert_eq!(told(&[b"", b"a"], &[(b"", 1)]), [vec![key(b"", 1)]]);
    }

    #[test]
    fn names_can_be_left_out() {
        let names = Arc::new(b"abab".to_vec());
        let found = [(0, 1, 5), (1, 2, 6)].map(|(start, len, writer)| Found {
            prefix: 0,
            start,
            len,
            writer,
        });
        let changes = Changes::new(names, &found);
        assert_eq!(changes.array(), b"*2\r\n$1\r\na\r\n$2\r\nba\r\n");
        assert!(changes.has_writer(6) && !changes.has_writer(7));
        assert_eq!(
            changes.array_of(|_, writer| writer == 6).unwrap(),
            b"*1\r\n$2\r\nba\r\n"
        );
        assert_eq!(changes.array_of(|name, _| name == b"x"), None);
    }
}
