//! [`OwnVolatile`]: the keys of a writable replica that its own clients have written.
//!
//! Keys that come from the primary stay until the primary removes them. Those that clients have given a time to live here are unknown there:
//! they expire here. All that clients write is noted; what turns out not to expire is forgotten at the next look.

use std::collections::BTreeSet;
use std::ops::Bound;

/// Keys that clients of a replica have written, with their databases.
#[derive(Debug, Default)]
pub(crate) struct OwnVolatile {
    keys: BTreeSet<(u16, Box<[u8]>)>,
    /// The key that was looked at last.
    looked_at: Option<(u16, Box<[u8]>)>,
}

impl OwnVolatile {
    /// Number of keys.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Notes that a client has written a key.
    pub(crate) fn note(&mut self, db: u16, key: &[u8]) {
        self.keys.insert((db, key.into()));
    }

    /// Forgets the keys of a database, which were removed.
    pub(crate) fn forget_all(&mut self, db: u16) {
        self.keys.retain(|(of, _)| *of != db);
    }

    /// Notes that two databases were exchanged.
    pub(crate) fn swap(&mut self, first: u16, second: u16) {
        let exchanged = |db: u16| match db {
            db if db == first => second,
            db if db == second => first,
            db => db,
        };
        let keys = std::mem::take(&mut self.keys);
        self.keys = keys.into_iter().map(|(db, key)| (exchanged(db), key)).collect();
    }

    /// The next keys to look at, going round all of them.
    pub(crate) fn next(&mut self, count: usize) -> Vec<(u16, Box<[u8]>)> {
        let after = self.looked_at.take().map_or(Bound::Unbounded, Bound::Excluded);
        let mut found: Vec<_> = self
            .keys
            .range((after, Bound::Unbounded))
            .take(count)
            .cloned()
            .collect();
        let missing = count - found.len();
        let from_start = self.keys.iter().take(missing.min(self.keys.len() - found.len()));
        found.extend(from_start.cloned());
        self.looked_at = found.last().cloned();
        found
    }

    /// Forgets a key.
    pub(crate) fn forget(&mut self, key: &(u16, Box<[u8]>)) {
        self.keys.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_go_round() {
        let mut own = OwnVolatile::default();
        assert!(own.next(3).is_empty());
        for (db, key) in [(0, "a"), (0, "b"), (1, "a"), (2, "c")] {
            own.note(db, key.as_bytes());
            own.note(db, key.as_bytes());
        }
        let names = |own: &mut OwnVolatile| {
            let next = own.next(3);
            let shown = next.iter().map(|(db, key)| format!("{db}{}", key.escape_ascii()));
            shown.collect::<Vec<_>>()
        };
        assert_eq!(names(&mut own), ["0a", "0b", "1a"]);
        assert_eq!(names(&mut own), ["2c", "0a", "0b"]);
        own.forget(&(1, b"a"[..].into()));
        assert_eq!(names(&mut own), ["2c", "0a", "0b"]);
        own.forget_all(0);
        assert_eq!((names(&mut own), own.len()), (vec!["2c".to_owned()], 1));
    }
}
