//! [`LongScripts`]: the scripts of a node that run for long, as other clients see them. A short script never appears here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::error::ReplyError;

/// A script that runs for long.
#[derive(Debug)]
pub(crate) struct LongScript {
    /// The script is a function.
    pub(crate) is_function: bool,
    /// Its name: the digest of a script.
    pub(crate) name: Box<[u8]>,
    /// The request that called it.
    pub(crate) words: Vec<Box<[u8]>>,
    /// Time of its beginning, on the node's stopwatch, nanoseconds.
    pub(crate) began_ns: u64,
    /// The primary has sent it.
    pub(crate) is_of_primary: bool,
    /// By shard, whether it holds the partition.
    holds: Vec<AtomicBool>,
    has_written: AtomicBool,
    is_killed: AtomicBool,
    /// The script has run for longer than `busy-reply-threshold`.
    is_busy: AtomicBool,
}

/// The scripts of a node that run for long.
#[derive(Debug, Default)]
pub(crate) struct LongScripts {
    all: Mutex<Vec<Arc<LongScript>>>,
    /// Number of all.
    count: AtomicUsize,
    /// Number of those that have run for longer than `busy-reply-threshold`.
    busy: AtomicUsize,
    /// Number of changes: who waits for a script looks again after each.
    changes: AtomicU64,
}

/// Description of a script that is to be noted as one that runs for long.
#[derive(Debug)]
pub(crate) struct Noted<'a> {
    pub(crate) is_function: bool,
    pub(crate) name: &'a [u8],
    pub(crate) words: Vec<Box<[u8]>>,
    pub(crate) began_ns: u64,
    pub(crate) is_of_primary: bool,
    pub(crate) shards: usize,
}

impl LongScript {
    /// Notes that the script holds the partition of a shard.
    pub(crate) fn hold(&self, shard: usize) {
        self.holds[shard].store(true, Ordering::Release);
    }

    /// Whether the script holds the partition of a shard.
    pub(crate) fn holds(&self, shard: usize) -> bool {
        self.holds[shard].load(Ordering::Acquire)
    }

    /// Notes that the script has begun to change data: it cannot be killed any more.
    pub(crate) fn note_write(&self) {
        self.has_written.store(true, Ordering::Release);
    }

    /// Whether a client has asked for its end.
    pub(crate) fn is_killed(&self) -> bool {
        self.is_killed.load(Ordering::Acquire)
    }

    /// Whether it has run for longer than `busy-reply-threshold`.
    pub(crate) fn is_busy(&self) -> bool {
        self.is_busy.load(Ordering::Acquire)
    }

    /// The error for commands that need what it holds.
    pub(crate) fn busy_error(&self) -> ReplyError {
        ReplyError::Fixed(if self.is_function {
            "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE."
        } else {
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
        })
    }
}

impl LongScripts {
    /// Notes a script that runs for long.
    pub(crate) fn note(&self, noted: Noted<'_>) -> Arc<LongScript> {
        let script = Arc::new(LongScript {
            is_function: noted.is_function,
            name: noted.name.into(),
            words: noted.words,
            began_ns: noted.began_ns,
            is_of_primary: noted.is_of_primary,
            holds: (0..noted.shards).map(|_| AtomicBool::new(false)).collect(),
            has_written: AtomicBool::new(false),
            is_killed: AtomicBool::new(false),
            is_busy: AtomicBool::new(false),
        });
        self.all.lock().push(Arc::clone(&script));
        self.count.fetch_add(1, Ordering::AcqRel);
        script
    }

    /// Notes that a script has run for longer than `busy-reply-threshold`.
    pub(crate) fn note_busy(&self, script: &LongScript) {
        if !script.is_busy.swap(true, Ordering::AcqRel) {
            self.busy.fetch_add(1, Ordering::AcqRel);
            self.changes.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Removes a script that has ended.
    pub(crate) fn remove(&self, script: &Arc<LongScript>) {
        self.all.lock().retain(|known| !Arc::ptr_eq(known, script));
        self.count.fetch_sub(1, Ordering::AcqRel);
        if script.is_busy() {
            self.busy.fetch_sub(1, Ordering::AcqRel);
        }
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether commands may have to be told that a script is busy.
    #[inline]
    pub(crate) fn any_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire) > 0
    }

    /// Number of changes so far: scripts that have ended or become busy.
    #[inline]
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Whether one of these shards is held by a script that runs for long.
    #[inline]
    pub(crate) fn hold_any(&self, mut shards: impl Iterator<Item = usize>) -> bool {
        self.count.load(Ordering::Acquire) > 0 && {
            let all = self.all.lock();
            shards.any(|shard| all.iter().any(|script| script.holds(shard)))
        }
    }

    /// A busy script for which this holds.
    pub(crate) fn find_busy(&self, is_such: impl Fn(&LongScript) -> bool) -> Option<Arc<LongScript>> {
        let all = self.all.lock();
        all.iter()
            .find(|script| script.is_busy() && is_such(script))
            .cloned()
    }

    /// The first function that runs for long.
    pub(crate) fn first_function(&self) -> Option<Arc<LongScript>> {
        let all = self.all.lock();
        all.iter().find(|script| script.is_function).cloned()
    }

    /// Has scripts, or functions, end.
    ///
    /// # Errors
    /// When there are none, or they cannot be killed.
    pub(crate) fn kill(&self, functions: bool) -> Result<(), ReplyError> {
        let all = self.all.lock();
        let mut refusal = ReplyError::Fixed("NOTBUSY No scripts in execution right now.");
        let mut has_killed = false;
        for script in all.iter() {
            if script.is_function != functions {
                if !has_killed {
                    refusal = script.busy_error();
                }
            } else if script.is_of_primary {
                refusal = ReplyError::Fixed(
                    "UNKILLABLE The busy script was sent by a master instance in the context of replication and cannot be killed.",
                );
            } else if script.has_written.load(Ordering::Acquire) {
                refusal = ReplyError::Fixed(
                    "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait \
                     the script termination or kill the server in a hard way using the SHUTDOWN NOSAVE command.",
                );
            } else {
                script.is_killed.store(true, Ordering::Release);
                has_killed = true;
            }
        }
        if has_killed { Ok(()) } else { Err(refusal) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(name: &str, is_function: bool) -> Noted<'_> {
        Noted {
            is_function,
            name: name.as_bytes(),
            words: Vec::new(),
            began_ns: 0,
            is_of_primary: false,
            shards: 2,
        }
    }

    #[test]
    fn scripts_and_functions_are_killed_apart_and_not_after_a_write() {
        let long = LongScripts::default();
        let text = |result: Result<(), ReplyError>| result.map_err(|error| error.to_string()[..6].to_owned());
        assert_eq!(text(long.kill(false)), Err("NOTBUS".to_owned()));
        let script = long.note(noted("s", false));
        assert_eq!(text(long.kill(true)), Err("BUSY R".to_owned()));
        assert_eq!(long.kill(false), Ok(()));
        assert!(script.is_killed());
        let function = long.note(noted("f", true));
        function.note_write();
        assert_eq!(text(long.kill(true)), Err("UNKILL".to_owned()));
        long.note_busy(&function);
        long.note_busy(&function);
        function.hold(1);
        assert!(long.find_busy(|script| script.holds(1)).is_some());
        assert!(long.find_busy(|script| script.holds(0)).is_none());
        long.remove(&script);
        long.remove(&function);
        assert!(!long.any_busy());
        assert_eq!(text(long.kill(false)), Err("NOTBUS".to_owned()));
    }
}
