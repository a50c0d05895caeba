//! Keyspace events: what happened to a key, for those who chose it by `notify-keyspace-events`.

use crossbeam_channel::Sender;

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
pub(crate) type EventSink = Sender<KeyspaceEvent>;

/// Tells those who listen what happened to a key. Whether they chose this class of events was asked before.
pub(crate) fn tell(events: Option<&EventSink>, db: u16, name: &'static str, key: &[u8]) {
    if let Some(events) = events {
        // A closed channel means that the listener has gone; events then go nowhere.
        let _ = events.send(KeyspaceEvent {
            db,
            name,
            key: key.to_vec(),
        });
    }
}
