//! Keyspace events: what happened to a key, for the classes that `notify-keyspace-events` chooses. They are published
//! on channels, and sent to an embedding program that asked for them.

use std::sync::Arc;

use crate::feed::{Feed, Weighed};
use crate::pubsub::Hub;

/// Something that happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyspaceEvent {
    /// The database of the key.
    pub db: u16,
    /// Name of the event, as in Redis: `set`, `lpush`, `expired`…
    pub name: &'static str,
    /// The key.
    pub key: Vec<u8>,
}

impl Weighed for KeyspaceEvent {
    fn bytes(&self) -> u64 {
        (size_of::<Self>() + self.key.capacity()) as u64
    }
}

/// Receiver of the keyspace events of a shard.
#[derive(Debug)]
pub(crate) struct EventSink {
    listener: Option<Feed<KeyspaceEvent>>,
    pubsub: Arc<Hub>,
}

impl EventSink {
    /// A sink that publishes events, and also sends them to `listener` if there is one.
    pub(crate) fn new(listener: Option<Feed<KeyspaceEvent>>, pubsub: Arc<Hub>) -> Self {
        Self { listener, pubsub }
    }
    /// Sends an event to those who listen. The caller has checked that its class is chosen.
    pub(super) fn tell(&self, db: u16, name: &'static str, key: &[u8]) {
        if let Some(listener) = &self.listener {
            listener.send(KeyspaceEvent {
                db,
                name,
                key: key.to_vec(),
            });
        }
        self.pubsub.publish_event(db, name, key);
    }
}
