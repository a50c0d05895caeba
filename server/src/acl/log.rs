//! [`AclLog`]: requests that were refused, for ACL LOG.
//!
//! The node has one log, behind a lock that only refusals take. A refusal like a recent one is counted there, so that a client that
//! tries again and again, or guesses passwords, fills no memory and hides nothing else.

use std::collections::VecDeque;

use super::RefusalReason;

/// Refusals with so many others behind them are not looked at when another one comes.
const RECENT: usize = 10;

/// Time for which refusals that are alike count as one, milliseconds.
const ALIKE_MS: i64 = 60_000;

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The reason.
    pub(crate) reason: RefusalReason,
    /// `toplevel`, `multi` or `lua`.
    pub(crate) context: &'static str,
    /// The command, key or channel that was refused.
    pub(crate) object: Box<[u8]>,
    /// Name of the user.
    pub(crate) user: Box<[u8]>,
    /// The client, as CLIENT LIST shows it.
    pub(crate) client: String,
}

/// A refusal in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogEntry {
    /// Id of the entry: ascending, and never reused.
    pub(crate) id: u64,
    /// Number of refusals that are alike.
    pub(crate) count: u64,
    /// The last of them.
    pub(crate) refusal: Refusal,
    /// Time of the first one, Unix milliseconds.
    pub(crate) created_ms: i64,
    /// Time of the last one, Unix milliseconds.
    pub(crate) updated_ms: i64,
}

/// The refusals of a node, newest first.
#[derive(Debug, Default)]
pub(crate) struct AclLog {
    entries: VecDeque<LogEntry>,
    next_id: u64,
}

impl AclLog {
    /// Adds a refusal, and drops entries beyond `len_max`.
    pub(crate) fn add(&mut self, refusal: Refusal, now_ms: i64, len_max: usize) {
        let alike = self
            .entries
            .iter()
            .take(RECENT)
            .position(|entry| entry.is_like(&refusal, now_ms));
        let known = alike.and_then(|index| self.entries.remove(index));
        let entry = match known {
            Some(known) => LogEntry {
                count: known.count + 1,
                refusal,
                updated_ms: now_ms,
                ..known
            },
            None => {
                let id = self.next_id;
                self.next_id += 1;
                LogEntry {
                    id,
                    count: 1,
                    refusal,
                    created_ms: now_ms,
                    updated_ms: now_ms,
                }
            }
        };
        self.entries.push_front(entry);
        self.entries.truncate(len_max);
    }

    /// The entries, newest first.
    pub(crate) fn entries(&self) -> impl ExactSizeIterator<Item = &LogEntry> {
        self.entries.iter()
    }

    /// Drops all entries. Ids go on.
    pub(crate) fn clear(&mut self) {
        self.entries = VecDeque::new();
    }
}

impl LogEntry {
    fn is_like(&self, refusal: &Refusal, now_ms: i64) -> bool {
        let known = &self.refusal;
        now_ms - self.updated_ms <= ALIKE_MS
            && known.reason == refusal.reason
            && known.context == refusal.context
            && known.object == refusal.object
            && known.user == refusal.user
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(object: &str, client: &str) -> Refusal {
        Refusal {
            reason: RefusalReason::Key,
            context: "toplevel",
            object: object.as_bytes().into(),
            user: b"u".as_slice().into(),
            client: client.to_owned(),
        }
    }

    #[test]
    fn refusals_that_are_alike_are_one_entry() {
        let mut log = AclLog::default();
        log.add(refusal("a", "1"), 1_000, 128);
        log.add(refusal("b", "1"), 2_000, 128);
        log.add(refusal("a", "2"), 60_000, 128);
        let seen: Vec<_> = log
            .entries()
            .map(|entry| {
                (
                    entry.id,
                    entry.count,
                    entry.refusal.client.as_str(),
                    entry.created_ms,
                )
            })
            .collect();
        assert_eq!(seen, [(0, 2, "2", 1_000), (1, 1, "1", 2_000)]);
        log.add(refusal("a", "3"), 120_001, 128);
        assert_eq!(log.entries().len(), 3, "the last one like it is too old");
        log.add(refusal("c", "3"), 120_001, 2);
        assert_eq!(log.entries().map(|entry| entry.id).collect::<Vec<_>>(), [3, 2]);
        log.clear();
        log.add(refusal("c", "3"), 120_001, 2);
        assert_eq!(
            log.entries().next().map(|entry| (entry.id, entry.count)),
            Some((4, 1))
        );
    }

    #[test]
    fn guesses_take_no_memory() {
        let mut log = AclLog::default();
        for index in 0..10_000 {
            log.add(refusal(&(index % 7).to_string(), "1"), index, 128);
        }
        assert_eq!(log.entries().len(), 7);
    }
}
