//! [`Following`]: the primary of a replica, and the state of the link to it.
//!
//! What a node is to follow is *wanted* by whoever asks for it (REPLICAOF, the configuration); the link, on the control thread, brings the
//! node there. A change of role takes effect for clients at once. It reaches the journal later: when a node becomes a replica, as soon as
//! all loops have done what they admitted before; when it becomes a primary, as soon as the round is applied that was begun.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU16, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Rounds;
use crate::config::Primary;

/// The primary of a node, and the state of the link to it.
#[derive(Debug)]
pub(crate) struct Following {
    /// The node is a replica.
    is_replica: AtomicBool,
    /// Clients cannot write: the node is a replica, and its directive does not allow it.
    refuses_writes: AtomicBool,
    /// The node is a replica without a link in order, and its directive wants it to tell so.
    is_stale: AtomicBool,
    /// The node becomes a primary: writes wait.
    is_changing: AtomicBool,
    /// Number of changes of what is wanted.
    version: AtomicU64,
    /// By loop: the version for which it has done all that it admitted before.
    passed: Vec<AtomicU64>,
    /// Wakes the link when something else is wanted, or a loop has passed.
    pub(crate) wanted: Notify,
    state: Mutex<Link>,
    /// The rounds that a loop is to apply.
    rounds: Mutex<Option<Arc<Rounds>>>,
    /// There is something to see for the loop that applies rounds.
    has_news: AtomicBool,
    /// Time of the last byte from the primary, Unix microseconds; 0 before the first one.
    heard_us: AtomicI64,
    /// The database that is selected where the stream was left.
    stream_db: AtomicU16,
    /// Bytes of the stream that were received, and are applied or wait for that: an offset.
    read_to: AtomicU64,
}

/// State of a link to a primary.
#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    /// The primary; none if the node is one itself.
    pub(crate) primary: Option<Primary>,
    /// Stage that the link has reached.
    pub(crate) stage: LinkStage,
    /// Time at which the link was lost, or was begun for the first time, Unix microseconds.
    pub(crate) down_since_us: i64,
    /// The transfer of a snapshot that is under way.
    pub(crate) transfer: Option<Transfer>,
    /// Reason for which the last full synchronisation failed.
    pub(crate) failure: Option<String>,
    /// The history and offset of the primary that a link would ask to continue from are known.
    pub(crate) is_resumable: bool,
    /// The stream of this primary has been followed.
    pub(crate) has_followed: bool,
}

/// Progress of the transfer of a snapshot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    /// Bytes in all; none if that is not known.
    pub(crate) bytes_total: Option<u64>,
    /// Bytes received.
    pub(crate) bytes: u64,
    /// Time of the last ones, Unix microseconds.
    pub(crate) heard_us: i64,
}

/// Stage of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LinkStage {
    /// The link waits to be opened.
    #[default]
    Waiting,
    /// The link is being opened.
    Connecting,
    /// The two nodes agree on what follows.
    Handshake,
    /// A snapshot is received or loaded.
    Transfer,
    /// The stream is followed.
    Connected,
}

impl LinkStage {
    /// Its name in the reply of ROLE.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Waiting => "connect",
            Self::Connecting => "connecting",
            Self::Handshake => "handshake",
            Self::Transfer => "sync",
            Self::Connected => "connected",
        }
    }
}

impl Following {
    /// The state of a primary of so many loops.
    pub(super) fn new(loops: usize) -> Self {
        Self {
            is_replica: AtomicBool::new(false),
            refuses_writes: AtomicBool::new(false),
            is_stale: AtomicBool::new(false),
            is_changing: AtomicBool::new(false),
            version: AtomicU64::new(0),
            passed: (0..loops).map(|_| AtomicU64::new(0)).collect(),
            wanted: Notify::new(),
            state: Mutex::default(),
            rounds: Mutex::default(),
            has_news: AtomicBool::new(false),
            heard_us: AtomicI64::new(0),
            stream_db: AtomicU16::new(0),
            read_to: AtomicU64::new(0),
        }
    }

    /// Whether the node is a replica.
    #[inline]
    pub(crate) fn is_replica(&self) -> bool {
        self.is_replica.load(Ordering::Relaxed)
    }

    /// Whether clients cannot write because the node is a replica.
    #[inline]
    pub(crate) fn refuses_writes(&self) -> bool {
        self.refuses_writes.load(Ordering::Relaxed)
    }

    /// Whether clients are to be told that the link to the primary is down.
    #[inline]
    pub(crate) fn is_stale(&self) -> bool {
        self.is_stale.load(Ordering::Relaxed)
    }

    /// Whether writes wait until the node has become a primary.
    #[inline]
    pub(crate) fn is_changing(&self) -> bool {
        self.is_changing.load(Ordering::SeqCst)
    }

    /// Whether keys that expire are left to a primary: the node is a replica, or it becomes a primary and the journal does not know yet
    /// of that role, so that replicas would not hear of a removal.
    #[inline]
    pub(crate) fn leaves_removals(&self) -> bool {
        // In this order: `want` sets them in the other one.
        self.is_replica.load(Ordering::SeqCst) || self.is_changing()
    }

    /// Has the writes of clients wait, instead of being refused, until a node that takes over has become a primary: others hear of that
    /// first, and send their clients here.
    pub(crate) fn await_promotion(&self) {
        let state = self.state.lock();
        if self.is_replica() {
            // In this order: who finds that writes are not refused finds that they wait.
            self.is_changing.store(true, Ordering::SeqCst);
            self.refuses_writes.store(false, Ordering::SeqCst);
        }
        drop(state);
    }

    /// Has the node follow this primary, or none; `resumes` tells whether a node that was no replica may continue a history. The caller
    /// applies the rules, and rings all loops.
    pub(crate) fn want(&self, primary: Option<Primary>, now_us: i64, resumes: bool) {
        let mut state = self.state.lock();
        let was_replica = self.is_replica();
        if was_replica && primary.is_none() {
            // In this order: who finds that the node is no replica finds that it is not a primary yet.
            self.is_changing.store(true, Ordering::SeqCst);
            self.is_replica.store(false, Ordering::SeqCst);
        } else {
            self.is_replica.store(primary.is_some(), Ordering::SeqCst);
            self.is_changing.store(false, Ordering::SeqCst);
        }
        *state = Link {
            primary,
            down_since_us: now_us,
            is_resumable: if was_replica { state.is_resumable } else { resumes },
            ..Link::default()
        };
        self.version.fetch_add(1, Ordering::SeqCst);
        drop(state);
        self.wanted.notify_one();
    }

    /// Applies the rules for clients of a replica: it `reads_only`, and it `serves_stale` data.
    pub(crate) fn rule(&self, reads_only: bool, serves_stale: bool) {
        let state = self.state.lock();
        let is_replica = self.is_replica();
        self.refuses_writes
            .store(is_replica && reads_only, Ordering::SeqCst);
        let is_down = is_replica && state.stage != LinkStage::Connected;
        self.is_stale.store(is_down && !serves_stale, Ordering::SeqCst);
    }

    /// Notes that the journal knows of the node's role.
    pub(crate) fn note_changed(&self) {
        self.is_changing.store(false, Ordering::SeqCst);
    }

    /// Number of changes of what is wanted.
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    /// Notes that a loop has done all that it admitted before this version.
    pub(crate) fn pass(&self, of_loop: usize, version: u64) {
        self.passed[of_loop].store(version, Ordering::SeqCst);
        self.wanted.notify_one();
    }

    /// Whether all loops have done what they admitted before this version.
    pub(crate) fn has_passed(&self, version: u64) -> bool {
        self.passed
            .iter()
            .all(|passed| passed.load(Ordering::SeqCst) >= version)
    }

    /// The state of the link.
    pub(crate) fn link(&self) -> Link {
        self.state.lock().clone()
    }

    /// Calls `act` on the state of the link, unless something else is wanted than in this version.
    pub(crate) fn change(&self, version: u64, act: impl FnOnce(&mut Link)) {
        let mut state = self.state.lock();
        if self.version() == version {
            act(&mut state);
        }
    }

    /// Has a loop apply these rounds. The caller rings it.
    pub(crate) fn exchange(&self, rounds: Arc<Rounds>) {
        *self.rounds.lock() = Some(rounds);
        self.tell_loop();
    }

    /// The rounds to apply.
    pub(crate) fn rounds(&self) -> Option<Arc<Rounds>> {
        self.rounds.lock().clone()
    }

    /// Has the loop that applies rounds look at them. The caller rings it.
    pub(crate) fn tell_loop(&self) {
        self.has_news.store(true, Ordering::SeqCst);
    }

    /// Whether there is something to see for the loop that applies rounds.
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        self.has_news.load(Ordering::SeqCst)
    }

    /// Whether there has been something to see since the last call.
    #[inline]
    pub(crate) fn take_news(&self) -> bool {
        self.has_news.load(Ordering::Relaxed) && self.has_news.swap(false, Ordering::SeqCst)
    }

    /// Notes that bytes have come from the primary.
    pub(crate) fn note_heard(&self, now_us: i64) {
        self.heard_us.store(now_us, Ordering::Relaxed);
    }

    /// Time of the last byte from the primary, Unix microseconds.
    pub(crate) fn heard_us(&self) -> i64 {
        self.heard_us.load(Ordering::Relaxed)
    }

    /// Notes which database is selected where the stream is left.
    pub(crate) fn note_stream_db(&self, db: u16) {
        self.stream_db.store(db, Ordering::SeqCst);
    }

    /// The database that is selected where the stream was left.
    pub(crate) fn stream_db(&self) -> u16 {
        self.stream_db.load(Ordering::SeqCst)
    }

    /// Notes up to which offset the stream has come.
    pub(crate) fn note_read(&self, offset: u64) {
        self.read_to.store(offset, Ordering::Relaxed);
    }

    /// The offset up to which the stream has come.
    pub(crate) fn read_to(&self) -> u64 {
        self.read_to.load(Ordering::Relaxed)
    }
}
