//! WATCH: a token per client, marked by whoever changes a key that the client watches.
//!
//! A shard keeps, for each watched key, the tokens of its watchers. A client forgets its watches by dropping its token;
//! shards drop dead tokens when they come across them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// Says whether something its client watches has changed.
#[derive(Debug, Default)]
pub(crate) struct WatchToken {
    touched: AtomicBool,
}

impl WatchToken {
    /// Whether a watched key was changed.
    pub(crate) fn is_touched(&self) -> bool {
        self.touched.load(Ordering::Acquire)
    }

    /// Notes that a watched key was changed.
    pub(crate) fn touch(&self) {
        self.touched.store(true, Ordering::Release);
    }
}

/// A key that a client watches.
#[derive(Debug)]
pub(crate) struct WatchedKey {
    /// Its database.
    pub(crate) db: u16,
    /// Its hash slot.
    pub(crate) slot: u16,
    /// The key.
    pub(crate) key: Box<[u8]>,
    /// It was there when WATCH ran, but past its time to live: its removal then changes nothing.
    pub(crate) expired: bool,
}

/// What one client watches.
#[derive(Debug, Default)]
pub(crate) struct WatchList {
    /// Shared with the shards of the keys.
    pub(crate) token: Arc<WatchToken>,
    /// The keys, each once. They are added by [`WatchList::push`].
    pub(crate) keys: Vec<WatchedKey>,
    /// Bytes of the keys' names.
    key_bytes: usize,
}

impl WatchList {
    /// Whether the key is already watched.
    pub(crate) fn contains(&self, db: u16, key: &[u8]) -> bool {
        self.keys
            .iter()
            .any(|watched| watched.db == db && *watched.key == *key)
    }

    /// Adds a key that it does not contain.
    pub(crate) fn push(&mut self, watched: WatchedKey) {
        self.key_bytes += watched.key.len();
        self.keys.push(watched);
    }

    /// Bytes that are allocated for it: here, and where the shards of the keys have them.
    pub(crate) fn memory(&self) -> usize {
        let of_a_key =
            size_of::<WatchedKey>() + size_of::<Watchers>() + size_of::<(Box<[u8]>, Weak<WatchToken>)>();
        size_of::<Self>() + size_of::<WatchToken>() + self.keys.capacity() * of_a_key + 2 * self.key_bytes
    }
}

/// The tokens of a key's watchers.
type Watchers = Vec<Weak<WatchToken>>;

/// The watched keys of one shard.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    by_key: HashMap<(u16, Box<[u8]>), Watchers>,
}

impl Watches {
    /// Whether nothing is watched: all that most writes need to know.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Adds a watcher of a key.
    pub(crate) fn add(&mut self, db: u16, key: &[u8], token: &Arc<WatchToken>) {
        let watchers = self.by_key.entry((db, key.into())).or_default();
        watchers.retain(|watcher| watcher.strong_count() > 0);
        watchers.push(Arc::downgrade(token));
    }

    /// Marks the watchers of a key, which are thereby done. Complexity: O(watchers of the key).
    pub(crate) fn touch(&mut self, db: u16, key: &[u8]) {
        // The map's key type owns its bytes; a write to a shard with watches pays for one short copy.
        if let Some(watchers) = self.by_key.remove(&(db, Box::from(key))) {
            mark(&watchers);
        }
    }

    /// Marks the watchers of all keys of a database for which `changed` says so. Complexity: O(watched keys).
    pub(crate) fn touch_where(&mut self, db: u16, mut changed: impl FnMut(&[u8]) -> bool) {
        self.by_key.retain(|(watched_db, key), watchers| {
            let touched = *watched_db == db && changed(key);
            if touched {
                mark(watchers);
            }
            !touched
        });
    }

    /// Drops tokens whose clients are gone. Complexity: O(watched keys).
    pub(crate) fn prune(&mut self) {
        self.by_key.retain(|_, watchers| {
            watchers.retain(|watcher| watcher.strong_count() > 0);
            !watchers.is_empty()
        });
        if self.by_key.is_empty() {
            self.by_key.shrink_to_fit();
        }
    }
}

fn mark(watchers: &[Weak<WatchToken>]) {
    for token in watchers.iter().filter_map(Weak::upgrade) {
        token.touch();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_the_watchers_of_a_key_and_nobody_else() {
        let (mut watches, mine, other) = (Watches::default(), Arc::default(), Arc::<WatchToken>::default());
        watches.add(0, b"k", &mine);
        watches.add(1, b"k", &other);
        watches.touch(0, b"x");
        assert!(!mine.is_touched());
        watches.touch(0, b"k");
        assert!(mine.is_touched() && !other.is_touched());
    }

    #[test]
    fn forgets_clients_that_are_gone() {
        let mut watches = Watches::default();
        let token = Arc::default();
        watches.add(0, b"k", &token);
        drop(token);
        watches.prune();
        assert!(watches.is_empty());
    }

    #[test]
    fn touches_what_a_flush_removes() {
        let (mut watches, kept, gone) = (Watches::default(), Arc::default(), Arc::<WatchToken>::default());
        watches.add(0, b"kept", &kept);
        watches.add(0, b"gone", &gone);
        watches.touch_where(0, |key| key == b"gone");
        assert!(gone.is_touched() && !kept.is_touched());
    }
}
