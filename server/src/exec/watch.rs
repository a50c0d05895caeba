//! WATCH: each client has a token, which is marked by a change of any key that the client watches.
//!
//! A shard keeps, for each watched key, the tokens of its watchers. A client forgets its watches by dropping its
//! token; shards drop dead tokens when they find them.
//!
//! A key that had expired before WATCH ran is as good as missing: its removal, by expiry or with its whole database,
//! is no change. Its watcher is *stale* until the removal.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use super::change::State;

/// Flag of a client: a key that it watches has changed.
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
}

/// The keys that one client watches.
#[derive(Debug, Default)]
pub(crate) struct WatchList {
    /// Token shared with the shards of the keys.
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

    /// Adds a key that is not in the list.
    pub(crate) fn push(&mut self, watched: WatchedKey) {
        self.key_bytes += watched.key.len();
        self.keys.push(watched);
    }

    /// Bytes allocated for the watches: in this list, and in the shards of the keys.
    pub(crate) fn memory(&self) -> usize {
        let of_a_key =
            size_of::<WatchedKey>() + size_of::<(Box<[u8]>, Vec<Watcher>)>() + size_of::<Watcher>();
        size_of::<Self>() + size_of::<WatchToken>() + self.keys.capacity() * of_a_key + 2 * self.key_bytes
    }
}

/// One client that watches a key.
#[derive(Debug)]
struct Watcher {
    token: Weak<WatchToken>,
    /// The key had expired when the client began to watch it, and is still stored.
    is_stale: bool,
}

/// The watched keys of one shard, by database.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    databases: HashMap<u16, HashMap<Box<[u8]>, Vec<Watcher>>>,
}

impl Watches {
    /// Whether no key is watched: most writes need to know no more.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.databases.is_empty()
    }

    /// Number of keys with a watcher that is not marked yet. Complexity: O(watchers).
    pub(crate) fn watched_keys(&self) -> u64 {
        let is_live = |watcher: &Watcher| {
            let token = watcher.token.upgrade();
            token.is_some_and(|token| !token.is_touched())
        };
        let keys = self.databases.values().flat_map(HashMap::values);
        keys.filter(|watchers| watchers.iter().any(is_live)).count() as u64
    }

    /// Adds a watcher of a key, which `is_stale` if the key has expired.
    pub(crate) fn add(&mut self, db: u16, key: &[u8], token: &Arc<WatchToken>, is_stale: bool) {
        let keys = self.databases.entry(db).or_default();
        let watchers = keys.entry(key.into()).or_default();
        watchers.retain(|watcher| watcher.token.strong_count() > 0);
        watchers.push(Watcher {
            token: Arc::downgrade(token),
            is_stale,
        });
    }

    /// Whether the key had expired when the client of a token began to watch it.
    pub(crate) fn is_stale(&self, db: u16, key: &[u8], token: &Arc<WatchToken>) -> bool {
        let watchers = self.databases.get(&db).and_then(|keys| keys.get(key));
        watchers
            .into_iter()
            .flatten()
            .any(|watcher| watcher.is_stale && std::ptr::eq(watcher.token.as_ptr(), Arc::as_ptr(token)))
    }

    /// Marks and removes the watchers of a key. Complexity: O(watchers of the key).
    pub(super) fn touch(&mut self, db: u16, key: &[u8]) {
        self.settle_key(db, key, |_| Fate::Marked);
    }

    /// Handles the removal of an expired key: stale watchers are not marked.
    pub(super) fn expired(&mut self, db: u16, key: &[u8]) {
        self.settle_key(db, key, |is_stale| {
            Fate::after(is_stale, State::Stale, State::Missing)
        });
    }

    /// Handles the removal of all keys of a database; `state` gives the state of a key before. Complexity: O(watched
    /// keys).
    pub(super) fn emptied(&mut self, db: u16, state: impl Fn(&[u8]) -> State) {
        self.replaced(db, |key| (state(key), State::Missing));
    }

    /// Handles the replacement of a database by another one; `states` gives the state of a key before and after.
    /// Complexity: O(watched keys).
    pub(super) fn replaced(&mut self, db: u16, states: impl Fn(&[u8]) -> (State, State)) {
        let Some(keys) = self.databases.get_mut(&db) else {
            return;
        };
        keys.retain(|key, watchers| {
            let (before, after) = states(key);
            settle(watchers, |is_stale| Fate::after(is_stale, before, after))
        });
        self.drop_if_empty(db);
    }

    /// Drops tokens whose clients are gone. Complexity: O(watched keys).
    pub(crate) fn prune(&mut self) {
        self.databases.retain(|_, keys| {
            keys.retain(|_, watchers| {
                watchers.retain(|watcher| watcher.token.strong_count() > 0);
                !watchers.is_empty()
            });
            !keys.is_empty()
        });
        if self.databases.is_empty() {
            self.databases.shrink_to_fit();
        }
    }

    fn settle_key(&mut self, db: u16, key: &[u8], fate: impl Fn(bool) -> Fate) {
        let Some(keys) = self.databases.get_mut(&db) else {
            return;
        };
        let Some(watchers) = keys.get_mut(key) else { return };
        if !settle(watchers, fate) {
            keys.remove(key);
            self.drop_if_empty(db);
        }
    }

    fn drop_if_empty(&mut self, db: u16) {
        if self.databases.get(&db).is_some_and(HashMap::is_empty) {
            self.databases.remove(&db);
        }
    }
}

/// Effect of a change of a key on one of its watchers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The watcher is marked: its EXEC will fail.
    Marked,
    /// The watcher goes on watching, stale or not.
    Watches { is_stale: bool },
}

impl Fate {
    /// The fate of a watcher when its key goes from one state to another.
    fn after(is_stale: bool, before: State, after: State) -> Self {
        let is_stale = match (is_stale, before, after) {
            (_, State::Missing, State::Missing) => is_stale,
            (true, _, State::Missing) => false,
            (true, _, State::Stale) | (false, State::Missing, State::Stale) => true,
            _ => return Self::Marked,
        };
        Self::Watches { is_stale }
    }
}

/// Applies a fate to each watcher; false when no watcher is left.
fn settle(watchers: &mut Vec<Watcher>, fate: impl Fn(bool) -> Fate) -> bool {
    watchers.retain_mut(|watcher| match fate(watcher.is_stale) {
        Fate::Watches { is_stale } => {
            watcher.is_stale = is_stale;
            true
        }
        Fate::Marked => {
            if let Some(token) = watcher.token.upgrade() {
                token.touch();
            }
            false
        }
    });
    !watchers.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_the_watchers_of_a_key_and_nobody_else() {
        let (mut watches, mine, other) = (Watches::default(), Arc::default(), Arc::<WatchToken>::default());
        watches.add(0, b"k", &mine, false);
        watches.add(1, b"k", &other, false);
        watches.touch(0, b"x");
        assert!(!mine.is_touched());
        watches.touch(0, b"k");
        assert!(mine.is_touched() && !other.is_touched());
        watches.touch(1, b"k");
        assert!(other.is_touched() && watches.is_empty());
    }

    #[test]
    fn forgets_clients_that_are_gone() {
        let mut watches = Watches::default();
        let token = Arc::default();
        watches.add(0, b"k", &token, false);
        drop(token);
        watches.prune();
        assert!(watches.is_empty());
    }

    /// Whether a watcher that was stale or not is marked by a change between two states, and whether it is stale then.
    fn after(is_stale: bool, before: State, after: State) -> (bool, bool) {
        let (mut watches, token) = (Watches::default(), Arc::default());
        watches.add(3, b"k", &token, is_stale);
        watches.replaced(3, |_| (before, after));
        (token.is_touched(), watches.is_stale(3, b"k", &token))
    }

    #[test]
    fn what_was_past_its_time_may_go_and_nothing_may_come() {
        use State::{Live, Missing, Stale};
        for (is_stale, before, now, marked, stays_stale) in [
            (false, Missing, Missing, false, false),
            (false, Missing, Stale, false, true),
            (false, Missing, Live, true, false),
            (false, Stale, Missing, true, false),
            (false, Live, Missing, true, false),
            (false, Live, Live, true, false),
            (true, Stale, Missing, false, false),
            (true, Stale, Stale, false, true),
            (true, Stale, Live, true, false),
        ] {
            let got = after(is_stale, before, now);
            assert_eq!(got, (marked, stays_stale), "{is_stale} {before:?} {now:?}");
        }
    }

    #[test]
    fn a_key_that_expires_marks_who_saw_it_alive() {
        let (mut watches, saw_it, found_it_stale) =
            (Watches::default(), Arc::default(), Arc::<WatchToken>::default());
        watches.add(0, b"k", &saw_it, false);
        watches.add(0, b"k", &found_it_stale, true);
        watches.expired(0, b"k");
        assert!(saw_it.is_touched() && !found_it_stale.is_touched());
        assert!(!watches.is_stale(0, b"k", &found_it_stale));
        watches.touch(0, b"k");
        assert!(found_it_stale.is_touched() && watches.is_empty());
    }
}
