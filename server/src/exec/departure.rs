//! Keys that leave for another node: MIGRATE, from its first run to its second.
//!
//! The command runs twice. First it copies the values and marks their keys as leaving; then a task of the control thread sends the
//! copies, while loops go on; at last it runs again, and removes the keys that the other node has confirmed. A key that is leaving
//! can be read, but whoever would change it waits ([`Partition::holds_back`](super::Partition::holds_back)): so what is removed is
//! what was sent, and no write in between is lost.

use std::collections::HashMap;
use std::time::Duration;

use crate::error::ReplyError;
use crate::journal::encoded::Encoded;

/// The keys of a partition that are leaving, each with the client whose command it is.
#[derive(Debug, Default)]
pub(crate) struct Leaving(HashMap<Box<[u8]>, u64>);

impl Leaving {
    /// Whether no key is leaving.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a key is leaving.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.0.contains_key(key)
    }

    /// Marks a key as leaving because of a command of this client.
    pub(crate) fn mark(&mut self, key: &[u8], client: u64) {
        let before = self.0.insert(key.into(), client);
        debug_assert!(
            before.is_none_or(|before| before == client),
            "a key leaves once at a time"
        );
    }

    /// Ends that. False if it has ended before: the data was replaced meanwhile, and the key is another one.
    pub(crate) fn unmark(&mut self, key: &[u8], client: u64) -> bool {
        if self.0.get(key) != Some(&client) {
            return false;
        }
        self.0.remove(key);
        if self.0.is_empty() {
            self.0.shrink_to_fit();
        }
        true
    }

    /// Ends that for all keys: the data is replaced.
    pub(crate) fn clear(&mut self) {
        self.0 = HashMap::new();
    }
}

/// The node that keys are sent to, as a connection to it is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    /// Its address or name.
    pub(crate) host: String,
    /// Its port.
    pub(crate) port: u16,
}

/// The commands that carry keys to another node.
#[derive(Debug)]
pub(crate) struct Cargo {
    /// The node.
    pub(crate) target: Target,
    /// Its database.
    pub(crate) db: i64,
    /// AUTH with the arguments, if the client has given any.
    pub(crate) login: Option<Encoded>,
    /// Time after which a silent node is given up.
    pub(crate) patience: Duration,
    /// A command for each key.
    pub(crate) commands: Encoded,
}

/// Outcome of a transport.
#[derive(Debug)]
pub(crate) struct Landed {
    /// By key, whether the other node has confirmed that it has it.
    pub(crate) confirmed: Vec<bool>,
    /// The reply, if not all went well.
    pub(crate) error: Option<ReplyError>,
}

/// A command whose keys are leaving.
#[derive(Debug)]
pub(crate) struct Departure {
    /// The keys that are sent, in order.
    pub(crate) keys: Vec<Box<[u8]>>,
    /// The keys stay here as well.
    pub(crate) is_copy: bool,
    /// The commands to be sent; none once they are on their way.
    pub(crate) cargo: Option<Cargo>,
    /// The outcome, once there is one.
    pub(crate) landed: Option<Landed>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_taken_away_by_the_client_that_set_it() {
        let mut leaving = Leaving::default();
        leaving.mark(b"a", 1);
        assert!(leaving.contains(b"a") && !leaving.contains(b"b"));
        assert!(!leaving.unmark(b"a", 2) && leaving.contains(b"a"));
        assert!(leaving.unmark(b"a", 1) && leaving.is_empty());
        leaving.mark(b"a", 1);
        leaving.clear();
        assert!(!leaving.unmark(b"a", 1));
    }
}
