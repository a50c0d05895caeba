//! Client-side caching: the clients that are told when keys change, and the messages on their way to them.
//!
//! A *tracker* in default mode is told once about each key that it has read; one in broadcasting mode is told about all keys that
//! begin with one of its prefixes. Each partition knows which trackers have read its keys, and collects what its changes have to
//! tell ([`Invalidations`]). Before the partition is let go of, that becomes messages in the mailboxes of the loops that carry the
//! receivers. A loop empties its mailbox after it has received anything from anybody, and before it answers that.
//!
//! Promises:
//! - what a client is told after a change, by whomever, comes behind the message about that change: the message is in the
//!   mailbox before any other thread can see the new value, so that no writer waits for the loops of trackers;
//! - a message about a key comes behind the reply that the tracker has read the key with, if both go to one connection;
//! - who does not track pays for a look at a flag where a key changes;
//! - the table of keys and the mailboxes are bounded: what is dropped is told as a change, of that key or of all keys.
//!
//! Locks are taken in this order: the registry, a mailbox.

mod broadcast;
mod invalidations;
mod mailbox;
mod state;
mod table;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use foldhash::fast::RandomState;
use parking_lot::RwLock;
use shardis_protocol::{Encoder, Resp};
use smallvec::SmallVec;

use crate::pubsub::Seat;
use broadcast::{Collected, Prefixes};
use invalidations::ReadKey;
pub(crate) use invalidations::{Invalidations, Told};
use mailbox::Mailbox;
pub(crate) use mailbox::{Content, Notice, Receiver, Route};
pub(crate) use state::{Caching, TrackingModes, TrackingState};

/// The trackers of a node, and the messages on their way to them.
pub(crate) struct Tracking {
    registry: RwLock<Registry>,
    /// Version of the table of prefixes; 0 while nobody is in broadcasting mode.
    prefixes_version: AtomicU64,
    /// Number of trackers.
    clients: AtomicUsize,
    /// Number of prefixes.
    prefixes: AtomicUsize,
    /// Messages on their way to each loop.
    mailboxes: Vec<Mailbox>,
    /// Keys in the tables of all partitions.
    keys: AtomicUsize,
    /// Number of changes of such keys.
    order: AtomicU64,
    /// Readers of all these keys.
    items: AtomicUsize,
    /// The directive `tracking-table-max-keys`; 0 for no limit.
    keys_max: AtomicUsize,
    /// Wakes a loop.
    ring: OnceLock<Arc<dyn Fn(usize) + Send + Sync>>,
}

/// The trackers and their prefixes.
#[derive(Debug, Default)]
struct Registry {
    /// By number.
    trackers: HashMap<u32, Tracker, RandomState>,
    /// Numbers of the trackers of each prefix.
    prefixes: BTreeMap<Arc<[u8]>, Vec<u32>>,
    /// Version of the prefixes and of their trackers.
    version: u64,
    /// The prefixes as partitions use them, if it is that of this version.
    snapshot: Option<Arc<Prefixes>>,
}

/// A client that is told of changes. Its number is the low half of its id.
#[derive(Debug)]
struct Tracker {
    seat: Seat,
    modes: TrackingModes,
    /// The client that gets its messages instead.
    redirect: Option<Redirect>,
    /// Set when the client that gets its messages has gone.
    is_broken: Arc<AtomicBool>,
    /// Its prefixes.
    prefixes: Vec<Arc<[u8]>>,
}

/// The client that gets the messages of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Redirect {
    /// Its id.
    pub(crate) client: u64,
    /// Its address.
    pub(crate) seat: Seat,
}

/// The wish of a client to track.
#[derive(Debug)]
pub(crate) struct Wish<'a> {
    /// The modes.
    pub(crate) modes: TrackingModes,
    /// The client that is to get the messages instead.
    pub(crate) redirect: Option<Redirect>,
    /// Prefixes to add in broadcasting mode; an empty one stands for all keys.
    pub(crate) prefixes: &'a [&'a [u8]],
}

/// Loops to be woken.
type Rung = SmallVec<[u16; 8]>;

/// Receivers by loop.
type Groups = SmallVec<[(u16, SmallVec<[Receiver; 2]>); 2]>;

impl Tracker {
    /// The address of a message to this tracker.
    fn address(&self) -> (u16, Receiver) {
        let (seat, route) = match self.redirect {
            None => (self.seat, Route::Own),
            Some(_) if self.is_broken.load(Ordering::Relaxed) => (self.seat, Route::Broken),
            Some(redirect) => (redirect.seat, Route::Redirected),
        };
        let receiver = Receiver {
            subscriber: seat.subscriber,
            tracker: self.seat.subscriber.client,
            route,
            spares_own: self.modes.contains(TrackingModes::NOLOOP),
        };
        (seat.of_loop, receiver)
    }
}

impl Registry {
    /// Removes a tracker. True if it had prefixes.
    fn remove(&mut self, number: u32) -> bool {
        let Some(tracker) = self.trackers.remove(&number) else {
            return false;
        };
        for prefix in &tracker.prefixes {
            if let Some(numbers) = self.prefixes.get_mut(prefix) {
                numbers.retain(|&known| known != number);
                if numbers.is_empty() {
                    self.prefixes.remove(prefix);
                }
            }
        }
        !tracker.prefixes.is_empty()
    }

    /// Adds a prefix of a tracker. Returns the shared name.
    fn add_prefix(&mut self, prefix: &[u8], number: u32) -> Arc<[u8]> {
        let shared = match self.prefixes.get_key_value(prefix) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::from(prefix),
        };
        let numbers = self.prefixes.entry(Arc::clone(&shared)).or_default();
        if !numbers.contains(&number) {
            numbers.push(number);
        }
        shared
    }

    /// The prefixes and the addresses of those who have asked for them.
    fn prefixes(&self) -> Prefixes {
        let audiences = self.prefixes.iter().map(|(prefix, numbers)| {
            let mut groups = Groups::new();
            for tracker in numbers.iter().filter_map(|number| self.trackers.get(number)) {
                add_to(&mut groups, tracker.address());
            }
            (Arc::clone(prefix), groups)
        });
        Prefixes::new(self.version, audiences)
    }
}

/// Adds a receiver to those of its loop.
fn add_to(groups: &mut Groups, (of_loop, receiver): (u16, Receiver)) {
    match groups.iter_mut().find(|(known, _)| *known == of_loop) {
        Some((_, receivers)) => receivers.push(receiver),
        None => groups.push((of_loop, SmallVec::from_slice(&[receiver]))),
    }
}

impl Default for Tracking {
    /// The trackers of data that no client reaches yet: there are none.
    fn default() -> Self {
        Self::new(0)
    }
}

impl Tracking {
    /// No trackers, on so many loops.
    pub(crate) fn new(loops: usize) -> Self {
        Self {
            registry: RwLock::default(),
            prefixes_version: AtomicU64::new(0),
            clients: AtomicUsize::new(0),
            prefixes: AtomicUsize::new(0),
            mailboxes: (0..loops).map(|_| Mailbox::default()).collect(),
            keys: AtomicUsize::new(0),
            order: AtomicU64::new(0),
            items: AtomicUsize::new(0),
            keys_max: AtomicUsize::new(0),
            ring: OnceLock::new(),
        }
    }

    /// Sets the function that wakes a loop; once, at start.
    pub(crate) fn connect_bells(&self, ring: Arc<dyn Fn(usize) + Send + Sync>) {
        let _ = self.ring.set(ring);
    }

    /// Bounds the keys in the tables of all partitions; 0 sets no bound.
    pub(crate) fn bound_keys(&self, keys_max: u64) {
        let keys_max = usize::try_from(keys_max).unwrap_or(usize::MAX);
        self.keys_max.store(keys_max, Ordering::Relaxed);
    }

    /// Has a client track, or track differently. None if another client of the same number tracks: there are 2³² numbers.
    pub(crate) fn join(
        &self,
        seat: Seat,
        known: Option<TrackingState>,
        wish: &Wish<'_>,
    ) -> Option<TrackingState> {
        let number = seat.subscriber.client;
        let mut registry = self.registry.write();
        if known.is_none() && registry.trackers.contains_key(&number) {
            return None;
        }
        let had_prefixes = registry.remove(number);
        let mut state = known.unwrap_or_default();
        state.change(wish);
        let prefixes = state.prefixes.iter();
        let prefixes: Vec<_> = prefixes
            .map(|prefix| registry.add_prefix(prefix, number))
            .collect();
        let tracker = Tracker {
            seat,
            modes: wish.modes,
            redirect: wish.redirect,
            is_broken: state.broken_flag(),
            prefixes,
        };
        let concerns_prefixes = had_prefixes || !tracker.prefixes.is_empty();
        registry.trackers.insert(number, tracker);
        self.changed(&mut registry, concerns_prefixes);
        Some(state)
    }

    /// Ends the tracking of a client. What partitions know of its reads is dropped when they come upon it.
    pub(crate) fn leave(&self, seat: Seat) {
        let mut registry = self.registry.write();
        let had_prefixes = registry.remove(seat.subscriber.client);
        self.changed(&mut registry, had_prefixes);
    }

    /// Notes that the client has gone which gets the messages of a tracker, and has the tracker told.
    #[cold]
    pub(crate) fn lost_target(&self, number: u32) {
        let mut registry = self.registry.write();
        let Some(tracker) = registry.trackers.get(&number) else {
            return;
        };
        tracker.is_broken.store(true, Ordering::Relaxed);
        let (of_loop, receiver) = tracker.address();
        let has_prefixes = !tracker.prefixes.is_empty();
        self.changed(&mut registry, has_prefixes);
        drop(registry);
        let mut rung = Rung::new();
        let notice = Notice::new(Content::All { writer: 0 }, [receiver]);
        self.put(of_loop, notice, &mut rung);
        self.ring(&rung);
    }

    /// Publishes a change of the trackers. If it concerns one with prefixes, these are looked up anew with the next change of a key.
    fn changed(&self, registry: &mut Registry, concerns_prefixes: bool) {
        self.clients.store(registry.trackers.len(), Ordering::SeqCst);
        if !concerns_prefixes {
            return;
        }
        registry.version += 1;
        registry.snapshot = None;
        self.prefixes.store(registry.prefixes.len(), Ordering::Relaxed);
        let version = if registry.prefixes.is_empty() {
            0
        } else {
            registry.version
        };
        self.prefixes_version.store(version, Ordering::SeqCst);
    }

    /// Whether anybody tracks.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.clients.load(Ordering::Relaxed) > 0
    }

    /// Version of the table of prefixes; 0 while nobody is in broadcasting mode.
    #[inline]
    fn prefixes_version(&self) -> u64 {
        self.prefixes_version.load(Ordering::Acquire)
    }

    /// The prefixes at this moment.
    #[cold]
    fn snapshot(&self) -> Arc<Prefixes> {
        let mut registry = self.registry.write();
        if let Some(known) = &registry.snapshot {
            return Arc::clone(known);
        }
        let made = Arc::new(registry.prefixes());
        registry.snapshot = Some(Arc::clone(&made));
        made
    }

    /// Leaves what the changes of partitions have to tell in the mailboxes of the loops that it concerns.
    pub(crate) fn tell(&self, told: Told) {
        let mut rung = Rung::new();
        if !told.keys.is_empty() {
            self.tell_readers(told.keys, &mut rung);
        }
        for collected in told.broadcasts {
            self.broadcast(collected, &mut rung);
        }
        if let Some(writer) = told.all {
            self.put_all(writer, &mut rung);
        }
        self.ring(&rung);
    }

    /// Tells all trackers that any key may have changed. `writer` is the number of the client that has caused it.
    fn put_all(&self, writer: u32, rung: &mut Rung) {
        let mut groups = Groups::new();
        for tracker in self.registry.read().trackers.values() {
            add_to(&mut groups, tracker.address());
        }
        for (of_loop, receivers) in groups {
            let notice = Notice::new(Content::All { writer }, receivers);
            self.put(of_loop, notice, rung);
        }
    }

    /// Tells the readers of keys that the keys have changed.
    fn tell_readers(&self, keys: Vec<ReadKey>, rung: &mut Rung) {
        let registry = self.registry.read();
        for read in keys {
            let ReadKey {
                key, readers, writer, ..
            } = read;
            let mut groups = Groups::new();
            for number in readers.iter() {
                let Some(tracker) = registry.trackers.get(number) else {
                    continue;
                };
                let spares = tracker.modes.contains(TrackingModes::NOLOOP) && *number == writer;
                if !spares && !tracker.modes.contains(TrackingModes::BCAST) {
                    add_to(&mut groups, tracker.address());
                }
            }
            if groups.is_empty() {
                continue;
            }
            let array = Arc::new(encode_keys(std::iter::once(&*key)));
            for (of_loop, receivers) in groups {
                let array = Arc::clone(&array);
                self.put(
                    of_loop,
                    Notice::new(Content::Key { array, writer }, receivers),
                    rung,
                );
            }
        }
    }

    /// Tells those in broadcasting mode which keys with their prefixes have changed.
    fn broadcast(&self, collected: Collected, rung: &mut Rung) {
        collected.each_prefix(|audience, changes| {
            let changes = Arc::new(changes);
            for (of_loop, receivers) in audience {
                let content = Content::Keys(Arc::clone(&changes));
                self.put(*of_loop, Notice::new(content, receivers.iter().copied()), rung);
            }
        });
    }

    fn put(&self, of_loop: u16, notice: Notice, rung: &mut Rung) {
        self.mailboxes[usize::from(of_loop)].put(notice);
        if !rung.contains(&of_loop) {
            rung.push(of_loop);
        }
    }

    fn ring(&self, loops: &Rung) {
        if let Some(ring) = self.ring.get() {
            loops.iter().for_each(|&of_loop| ring(usize::from(of_loop)));
        }
    }

    /// The mailbox of a loop.
    #[inline]
    pub(crate) fn mailbox(&self, of_loop: usize) -> &Mailbox {
        &self.mailboxes[of_loop]
    }

    /// All receivers on a loop.
    #[cold]
    pub(crate) fn receivers_on(&self, of_loop: usize) -> Vec<Receiver> {
        let registry = self.registry.read();
        let addresses = registry.trackers.values().map(Tracker::address);
        addresses
            .filter(|(known, _)| usize::from(*known) == of_loop)
            .map(|(_, receiver)| receiver)
            .collect()
    }

    /// Whether the keys in all tables exceed their bound.
    #[inline]
    pub(crate) fn has_excess_keys(&self) -> bool {
        self.exceeds_bound(self.keys.load(Ordering::Relaxed))
    }

    /// Whether so many keys are more than there may be. A bound of 0 is none.
    #[inline]
    fn exceeds_bound(&self, keys: usize) -> bool {
        let keys_max = self.keys_max.load(Ordering::Relaxed);
        keys_max > 0 && keys > keys_max
    }

    /// Takes one key off the number of all, if that exceeds its bound: the caller drops one. Partitions that drop keys at the same
    /// time drop no more than exceed the bound.
    fn claim_excess_key(&self) -> bool {
        let less = |keys: usize| self.exceeds_bound(keys).then(|| keys - 1);
        self.keys
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }

    /// Figures for INFO, without a lock: reports of crashes show them, too.
    pub(crate) fn figures(&self) -> Figures {
        Figures {
            clients: self.clients.load(Ordering::Relaxed),
            keys: self.keys.load(Ordering::Relaxed),
            items: self.items.load(Ordering::Relaxed),
            prefixes: self.prefixes.load(Ordering::Relaxed),
        }
    }
}

/// Figures for INFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Trackers.
    pub(crate) clients: usize,
    /// Keys in the tables of all partitions.
    pub(crate) keys: usize,
    /// Readers of all these keys.
    pub(crate) items: usize,
    /// Prefixes of all trackers, each once.
    pub(crate) prefixes: usize,
}

/// An array of keys, as messages contain it: it is the same in both protocols.
fn encode_keys<'k>(keys: impl ExactSizeIterator<Item = &'k [u8]>) -> Vec<u8> {
    let mut array = Vec::new();
    let mut encoder = Encoder::new(&mut array, Resp::V2);
    encoder.array(keys.len());
    keys.for_each(|key| encoder.bulk(key));
    array
}

impl fmt::Debug for Tracking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracking")
            .field("clients", &self.clients)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
