//! [`Replicas`]: the replicas that follow this node, as their links publish them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

/// The replicas of a node, and what became of those before.
#[derive(Debug, Default)]
pub(crate) struct Replicas {
    all: Mutex<Vec<Arc<Replica>>>,
    /// Number of them.
    count: AtomicUsize,
    /// Number of those that are online and have been heard of within `min-replicas-max-lag`.
    healthy: AtomicU32,
    /// A client waits for acknowledgements: replicas are to be asked for them.
    is_asked_for: AtomicBool,
    /// Number of changes of the stream's history.
    histories: AtomicU64,
    /// The largest offset that a replica has acknowledged since the node is a primary; -1 while that is not known.
    acknowledged: AtomicI64,
    /// Figures for INFO, reset by CONFIG RESETSTAT.
    pub(crate) figures: SyncFigures,
}

/// Numbers of synchronisations, and bytes of links.
#[derive(Debug, Default)]
pub(crate) struct SyncFigures {
    /// With all data.
    pub(crate) full: AtomicU64,
    /// With what was missing.
    pub(crate) partial: AtomicU64,
    /// Requests for what was missing that could not be served.
    pub(crate) partial_refused: AtomicU64,
    /// Replicas that were slower than their output limit allows.
    pub(crate) too_slow: AtomicU64,
    /// Bytes sent to replicas.
    pub(crate) bytes_out: AtomicU64,
    /// Bytes received from the primary.
    pub(crate) bytes_in: AtomicU64,
    /// Bytes of the last second, per second; not reset.
    pub(crate) bytes_out_per_second: AtomicU64,
    /// Bytes of the last second, per second; not reset.
    pub(crate) bytes_in_per_second: AtomicU64,
}

impl SyncFigures {
    /// Begins to count anew.
    pub(crate) fn reset(&self) {
        let of_syncs = [&self.full, &self.partial, &self.partial_refused];
        let of_links = [&self.too_slow, &self.bytes_out, &self.bytes_in];
        for figure in of_syncs.into_iter().chain(of_links) {
            figure.store(0, Ordering::Relaxed);
        }
    }
}

/// State of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    /// Waiting for a snapshot.
    Waits,
    /// Being sent a snapshot while it is made.
    Receives,
    /// Being sent a snapshot that was made before.
    Copies,
    /// Loading a snapshot, of which it has everything.
    Loads,
    /// Done: it has a snapshot, and nothing is sent to it any more.
    Done,
    /// Following the stream.
    Follows,
}

impl Stage {
    /// Its name in INFO, as Redis has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Waits | Self::Receives => "wait_bgsave",
            Self::Copies | Self::Done => "send_bulk",
            Self::Loads | Self::Follows => "online",
        }
    }
}

/// One replica.
#[derive(Debug)]
pub(crate) struct Replica {
    /// Id of its client.
    pub(crate) id: u64,
    /// Address at which it can be reached.
    pub(crate) address: String,
    /// Port on which it listens; 0 if that is not known.
    pub(crate) port: i64,
    stage: AtomicU8,
    /// Offset up to which it has applied the stream.
    acknowledged: AtomicU64,
    /// Offset up to which it has the stream in its append-only file, on disk.
    stored: AtomicU64,
    /// Time at which it was last heard of, or something was sent to it before it could answer, Unix microseconds.
    heard_us: AtomicI64,
}

impl Replica {
    /// A replica that waits for a snapshot.
    pub(crate) fn new(id: u64, address: String, port: i64, now_us: i64) -> Self {
        Self {
            id,
            address,
            port,
            stage: AtomicU8::new(Stage::Waits as u8),
            acknowledged: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            heard_us: AtomicI64::new(now_us),
        }
    }

    /// Its name in the log.
    pub(crate) fn name(&self) -> String {
        match self.port {
            0 => format!("client id #{}", self.id),
            port => format!("{}:{port}", self.address),
        }
    }

    /// Its state.
    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Waits,
            1 => Stage::Receives,
            2 => Stage::Copies,
            3 => Stage::Loads,
            4 => Stage::Done,
            _ => Stage::Follows,
        }
    }

    /// Notes that it has reached a state.
    pub(crate) fn reach(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
    }

    /// Notes that it was heard of.
    pub(crate) fn hear(&self, now_us: i64) {
        self.heard_us.store(now_us, Ordering::Relaxed);
    }

    /// Notes what it has acknowledged.
    pub(crate) fn acknowledge(&self, offset: u64, stored: Option<u64>) {
        self.acknowledged.fetch_max(offset, Ordering::AcqRel);
        if let Some(stored) = stored {
            self.stored.fetch_max(stored, Ordering::AcqRel);
        }
    }

    /// The offset that it has acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }

    /// Time for which it was not heard of, microseconds.
    pub(crate) fn silent_us(&self, now_us: i64) -> i64 {
        now_us - self.heard_us.load(Ordering::Relaxed)
    }

    /// Seconds of lag, as INFO shows them.
    pub(crate) fn lag_s(&self, now_us: i64) -> i64 {
        match self.stage() {
            Stage::Follows => now_us / 1_000_000 - self.heard_us.load(Ordering::Relaxed) / 1_000_000,
            Stage::Waits | Stage::Receives | Stage::Copies | Stage::Loads | Stage::Done => 0,
        }
    }

    /// Whether this is its address and port.
    pub(crate) fn is_at(&self, (host, port): &(String, i64)) -> bool {
        self.address == *host && self.port == *port
    }

    fn follows(&self) -> bool {
        self.stage() == Stage::Follows
    }
}

impl Replicas {
    /// Adds a replica.
    pub(crate) fn add(&self, replica: Arc<Replica>) {
        let mut all = self.all.lock();
        all.push(replica);
        self.count.store(all.len(), Ordering::Release);
    }

    /// Removes a replica. Returns the number of those that are left.
    pub(crate) fn remove(&self, id: u64) -> usize {
        let mut all = self.all.lock();
        all.retain(|replica| replica.id != id);
        self.count.store(all.len(), Ordering::Release);
        all.len()
    }

    /// The replica with this address and port.
    pub(crate) fn find(&self, target: &(String, i64)) -> Option<Arc<Replica>> {
        let all = self.all.lock();
        all.iter().find(|replica| replica.is_at(target)).cloned()
    }

    /// All replicas, in the order in which they came.
    pub(crate) fn all(&self) -> Vec<Arc<Replica>> {
        self.all.lock().clone()
    }

    /// Number of replicas.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Number of replicas that have applied the stream up to an offset.
    pub(crate) fn having(&self, offset: u64) -> usize {
        self.number(|replica| replica.acknowledged() >= offset)
    }

    /// Number of replicas that have the stream on disk up to an offset.
    pub(crate) fn storing(&self, offset: u64) -> usize {
        self.number(|replica| replica.stored.load(Ordering::Acquire) >= offset)
    }

    fn number(&self, fits: impl Fn(&Replica) -> bool) -> usize {
        if self.count() == 0 {
            return 0;
        }
        let all = self.all.lock();
        all.iter()
            .filter(|replica| replica.follows() && fits(replica))
            .count()
    }

    /// Counts the replicas that are online and were heard of within so many seconds.
    pub(crate) fn count_healthy(&self, lag_max_s: u32, now_us: i64) {
        let healthy = self.number(|replica| replica.lag_s(now_us) <= i64::from(lag_max_s));
        self.healthy.store(healthy as u32, Ordering::Release);
    }

    /// Their number, as of the last count.
    #[inline]
    pub(crate) fn healthy(&self) -> u32 {
        self.healthy.load(Ordering::Acquire)
    }

    /// Has the replicas asked what they have.
    pub(crate) fn ask(&self) {
        self.is_asked_for.store(true, Ordering::Release);
    }

    /// Notes that one of them has acknowledged an offset.
    pub(crate) fn note_acknowledged(&self, offset: u64) {
        self.acknowledged
            .fetch_max(offset.cast_signed(), Ordering::Relaxed);
    }

    /// The largest offset that one of them has acknowledged; none if that was before this run of the node.
    pub(crate) fn acknowledged(&self) -> Option<u64> {
        u64::try_from(self.acknowledged.load(Ordering::Relaxed)).ok()
    }

    /// Begins to note acknowledgements anew. The node leads the stream from this offset on; none if others may have a part of it already.
    pub(crate) fn begin_at(&self, offset: Option<u64>) {
        let offset = offset.map_or(-1, u64::cast_signed);
        self.acknowledged.store(offset, Ordering::Relaxed);
    }

    /// Has all links end: the replicas must learn that the history is another one, of which their links pass nothing on. The caller rings
    /// the control thread.
    pub(crate) fn end_all(&self) {
        self.histories.fetch_add(1, Ordering::SeqCst);
    }

    /// Number of changes of the stream's history: a link that began when there were less is to end.
    pub(crate) fn histories(&self) -> u64 {
        self.histories.load(Ordering::SeqCst)
    }

    /// Whether the replicas are to be asked what they have, once.
    pub(crate) fn take_asked(&self) -> bool {
        self.is_asked_for.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_follow_are_counted() {
        let replicas = Replicas::default();
        for id in 1..=3 {
            replicas.add(Arc::new(Replica::new(id, "10.0.0.1".to_owned(), 6379, 5_000_000)));
        }
        let all = replicas.all();
        all[0].acknowledge(100, Some(50));
        all[1].acknowledge(200, None);
        all[2].acknowledge(300, Some(300));
        assert_eq!(replicas.having(100), 0, "none of them follows");
        all[0].reach(Stage::Follows);
        all[1].reach(Stage::Follows);
        assert_eq!([100, 101, 201].map(|offset| replicas.having(offset)), [2, 1, 0]);
        assert_eq!([50, 51].map(|offset| replicas.storing(offset)), [1, 0]);
        // An old acknowledgement changes nothing.
        all[1].acknowledge(90, None);
        assert_eq!(replicas.having(200), 1);
        all[1].hear(9_000_000);
        replicas.count_healthy(3, 9_500_000);
        assert_eq!(replicas.healthy(), 1);
        replicas.count_healthy(4, 9_500_000);
        assert_eq!(replicas.healthy(), 2);
        assert_eq!(replicas.remove(2), 2);
        assert_eq!(replicas.having(200), 0);
    }
}
