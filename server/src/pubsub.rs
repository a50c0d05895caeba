//! Publish and subscribe: the subscriptions of all loops, and the messages on their way to them.
//!
//! All loops of a node share one [`Hub`]. A publisher looks the audience up and leaves one message for each loop that
//! carries some of it, together with the list of receivers; the loops append it to their connections' outputs. So the
//! number that PUBLISH returns is the number of connections that the message was addressed to, and no publisher waits
//! for a socket.
//!
//! Promises:
//! - while nobody listens to anything, publishing costs two loads; subscribers of other channels add nothing to the
//!   cost, except patterns, which are compared one by one;
//! - the messages of one channel reach all its subscribers in one order, and those of one publisher in the order in
//!   which it sent them, whatever their channels;
//! - a client that has unsubscribed gets the messages addressed to it before that, and nothing after the confirmation
//!   ([`Hub::hush`]);
//! - the messages that wait for a slow loop are bounded: a connection that misses a message is closed, like a slow
//!   reader.
//!
//! Locks are taken in this order: `publishing`, a stripe of a directory, patterns, a mailbox. A thread that holds one
//! waits only for the next ones.

mod audience;
mod directory;
mod mailbox;
mod message;

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{RwLock, RwLockWriteGuard};
use shardis_storage::glob;
use smallvec::SmallVec;

use crate::config::KeyspaceEvents;
pub(crate) use audience::{Audience, Seat, Subscriber};
use directory::{Directory, Names};
use mailbox::Mailbox;
pub(crate) use mailbox::{Missed, Publication};

/// The name of a channel, or a pattern. All users share one allocation.
pub(crate) type Name = Arc<[u8]>;

/// Kind of name that can be subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topic {
    /// A channel, of SUBSCRIBE.
    Channel,
    /// A pattern, of PSUBSCRIBE.
    Pattern,
    /// A shard channel, of SSUBSCRIBE.
    ShardChannel,
}

impl Topic {
    /// All kinds.
    pub(crate) const ALL: [Self; 3] = [Self::Channel, Self::Pattern, Self::ShardChannel];
}

/// The subscribers of each name, and the messages on their way to them.
pub(crate) struct Hub {
    /// Locked for reading by publishers, and for writing by a loop that must be sure that no further message is sent
    /// to it.
    publishing: RwLock<()>,
    channels: Directory,
    shard_channels: Directory,
    patterns: RwLock<Names>,
    /// Number of patterns; without any, publishers need not look at them.
    pattern_count: AtomicUsize,
    /// Messages on their way to each loop.
    mailboxes: Vec<Mailbox>,
    /// The flags `K` and `E` of `notify-keyspace-events`.
    event_channels: AtomicU8,
    /// Wakes a loop.
    ring: OnceLock<Arc<dyn Fn(usize) + Send + Sync>>,
}

const KEYSPACE: u8 = 1;
const KEYEVENT: u8 = 2;

thread_local! {
    /// This thread has hushed the hub, and may publish all the same.
    static HUSHING: Cell<bool> = const { Cell::new(false) };
}

/// Guard: while it lives, only this thread publishes.
#[derive(Debug)]
pub(crate) struct Hush<'a> {
    _publishing: RwLockWriteGuard<'a, ()>,
}

impl Drop for Hush<'_> {
    fn drop(&mut self) {
        HUSHING.set(false);
    }
}

impl Hub {
    /// A hub for so many loops, without subscribers.
    pub(crate) fn new(loops: usize, seed: u64) -> Self {
        Self {
            publishing: RwLock::new(()),
            channels: Directory::new(seed),
            shard_channels: Directory::new(seed),
            patterns: RwLock::new(directory::no_names(seed)),
            pattern_count: AtomicUsize::new(0),
            mailboxes: (0..loops).map(|_| Mailbox::default()).collect(),
            event_channels: AtomicU8::new(0),
            ring: OnceLock::new(),
        }
    }

    /// Sets the function that wakes a loop; once, at start.
    pub(crate) fn connect_bells(&self, ring: Arc<dyn Fn(usize) + Send + Sync>) {
        let _ = self.ring.set(ring);
    }

    /// Sets the kinds of channels that keyspace events are published on.
    pub(crate) fn choose_events(&self, chosen: KeyspaceEvents) {
        let keyspace = u8::from(chosen.contains(KeyspaceEvents::KEYSPACE)) * KEYSPACE;
        let keyevent = u8::from(chosen.contains(KeyspaceEvents::KEYEVENT)) * KEYEVENT;
        self.event_channels.store(keyspace | keyevent, Ordering::Release);
    }

    /// Adds a subscriber of a topic, which must not be one yet. Returns the shared name.
    pub(crate) fn join(&self, topic: Topic, name: &[u8], seat: Seat) -> Name {
        match topic {
            Topic::Channel => self.channels.join(name, seat),
            Topic::ShardChannel => self.shard_channels.join(name, seat),
            Topic::Pattern => {
                let mut patterns = self.patterns.write();
                let name = directory::join(&mut patterns, name, seat);
                self.pattern_count.store(patterns.len(), Ordering::Release);
                name
            }
        }
    }

    /// Removes a subscriber. Messages published before are still on their way unless [`hush`](Self::hush) was called.
    pub(crate) fn leave(&self, topic: Topic, name: &[u8], seat: Seat) {
        match topic {
            Topic::Channel => self.channels.leave(name, seat),
            Topic::ShardChannel => self.shard_channels.leave(name, seat),
            Topic::Pattern => {
                let mut patterns = self.patterns.write();
                directory::leave(&mut patterns, name, seat);
                self.pattern_count.store(patterns.len(), Ordering::Release);
            }
        }
    }

    /// Keeps all other threads from publishing. All messages published before are in the mailboxes then.
    pub(crate) fn hush(&self) -> Hush<'_> {
        let publishing = self.publishing.write();
        HUSHING.set(true);
        Hush {
            _publishing: publishing,
        }
    }

    /// Publishes on a channel: to its subscribers, then to those of matching patterns. Returns the number of times that
    /// the message was addressed. Complexity: O(subscribers + patterns).
    pub(crate) fn publish(&self, channel: &[u8], payload: &[u8]) -> usize {
        if !self.has_subscribers() {
            return 0;
        }
        let _publishing = (!HUSHING.get()).then(|| self.publishing.read());
        let mut rung = Rung::default();
        let mut receivers = 0;
        // The stripe stays locked to the end, so that all loops get the messages of a channel in one order.
        let stripe = self.channels.lock(channel);
        if let Some(audience) = stripe.get(channel) {
            let encoded = message::encode(&[b"message", channel, payload]);
            receivers += self.address(audience, encoded, &mut rung);
        }
        if self.pattern_count.load(Ordering::Acquire) > 0 {
            for (pattern, audience) in self.patterns.read().iter() {
                if glob::matches(pattern, channel, false) {
                    let encoded = message::encode(&[b"pmessage", pattern, channel, payload]);
                    receivers += self.address(audience, encoded, &mut rung);
                }
            }
        }
        drop(stripe);
        self.ring(&rung);
        receivers
    }

    /// Publishes on a shard channel. Returns the number of times that the message was addressed.
    pub(crate) fn publish_on_shard(&self, channel: &[u8], payload: &[u8]) -> usize {
        if self.shard_channels.count() == 0 {
            return 0;
        }
        let _publishing = (!HUSHING.get()).then(|| self.publishing.read());
        let mut rung = Rung::default();
        let mut receivers = 0;
        let stripe = self.shard_channels.lock(channel);
        if let Some(audience) = stripe.get(channel) {
            let encoded = message::encode(&[b"smessage", channel, payload]);
            receivers = self.address(audience, encoded, &mut rung);
        }
        drop(stripe);
        self.ring(&rung);
        receivers
    }

    /// Publishes a keyspace event: on the channel of the key, then on that of the event, as far as they were chosen.
    #[cold]
    pub(crate) fn publish_event(&self, db: u16, event: &str, key: &[u8]) {
        let chosen = self.event_channels.load(Ordering::Acquire);
        if !self.has_subscribers() {
            return;
        }
        if chosen & KEYSPACE != 0 {
            self.publish(&message::event_channel("keyspace", db, key), event.as_bytes());
        }
        if chosen & KEYEVENT != 0 {
            self.publish(&message::event_channel("keyevent", db, event.as_bytes()), key);
        }
    }

    /// Leaves a message for each loop that carries some of an audience. Returns the number of connections.
    fn address(&self, audience: &Audience, message: Vec<u8>, rung: &mut Rung) -> usize {
        let message = Arc::new(message);
        let mut receivers = 0;
        for (of_loop, subscribers) in audience.by_loop() {
            receivers += subscribers.len();
            self.mailboxes[usize::from(*of_loop)].put(Publication {
                message: Arc::clone(&message),
                subscribers: Arc::clone(subscribers),
            });
            if !rung.contains(of_loop) {
                rung.push(*of_loop);
            }
        }
        receivers
    }

    fn ring(&self, loops: &Rung) {
        if let Some(ring) = self.ring.get() {
            loops.iter().for_each(|&of_loop| ring(usize::from(of_loop)));
        }
    }

    #[inline]
    fn has_subscribers(&self) -> bool {
        self.channels.count() > 0 || self.pattern_count.load(Ordering::Acquire) > 0
    }

    /// The mailbox of a loop.
    #[inline]
    pub(crate) fn mailbox(&self, of_loop: usize) -> &Mailbox {
        &self.mailboxes[of_loop]
    }

    /// Number of names of a kind that have subscribers.
    pub(crate) fn count(&self, topic: Topic) -> usize {
        match topic {
            Topic::Channel => self.channels.count(),
            Topic::ShardChannel => self.shard_channels.count(),
            Topic::Pattern => self.pattern_count.load(Ordering::Acquire),
        }
    }

    /// The channels that have subscribers and match a pattern; all if there is none. Complexity: O(channels).
    pub(crate) fn names(&self, topic: Topic, pattern: Option<&[u8]>) -> Vec<Name> {
        let mut names = Vec::new();
        self.directory(topic).each(|name| {
            if pattern.is_none_or(|pattern| glob::matches(pattern, name, false)) {
                names.push(Arc::clone(name));
            }
        });
        names
    }

    /// Number of subscribers to a channel.
    pub(crate) fn subscribers(&self, topic: Topic, channel: &[u8]) -> usize {
        let stripe = self.directory(topic).lock(channel);
        stripe.get(channel).map_or(0, Audience::len)
    }

    /// Directory of a kind of channels. Patterns have none.
    fn directory(&self, topic: Topic) -> &Directory {
        match topic {
            Topic::ShardChannel => &self.shard_channels,
            Topic::Channel | Topic::Pattern => &self.channels,
        }
    }
}

/// Loops to be woken.
type Rung = SmallVec<[u16; 8]>;

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("channels", &self.channels.count())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
