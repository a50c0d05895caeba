//! Keyspace events: what happened to a key, for those who chose it by `notify-keyspace-events`. They are published on
//! channels, and sent to whoever has embedded the node and asked for them.

use std::sync::Arc;

use crate::feed::Feed;
use crate::pubsub::Hub;

/// Something that happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyspaceEvent {
    /// The database of the key.
    pub db: u16,
    /// What happened, by the name that Redis gives it: `set`, `lpush`, `expired`…
    pub name: &'static str,
    /// The key.
    pub key: Vec<u8>,
}

/// Takes the events of a shard.
#[derive(Debug)]
pub(crate) struct EventSink {
    listener: Option<Feed<KeyspaceEvent>>,
    pubsub: Arc<Hub>,
}

impl EventSink {
    /// Publishes events, and sends them to a listener if there is one.
    pub(crate) fn new(listener: Option<Feed<KeyspaceEvent>>, pubsub: Arc<Hub>) -> Self {
        Self { listener, pubsub }
    }
}

/// Tells those who listen what happened to a key. Whether they chose this class of events was asked before.
pub(crate) fn tell(events: Option<&EventSink>, db: u16, name: &'static str, key: &[u8]) {
    let Some(events) = events else { return };
    if let Some(listener) = &events.listener {
        listener.send(KeyspaceEvent {
            db,
            name,
            key: key.to_vec(),
        });
    }
    events.pubsub.publish_event(db, name, key);
}
