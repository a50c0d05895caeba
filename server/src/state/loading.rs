//! [`Loading`]: whether the node loads its data, how far it has come, and what the last load has brought.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// State of the load of data.
#[derive(Debug, Default)]
pub(crate) struct Loading {
    is_under_way: AtomicBool,
    /// Data is being loaded beside that of the node, which is served meanwhile.
    is_beside: AtomicBool,
    /// The load is to end without a result.
    is_given_up: AtomicBool,
    started_s: AtomicI64,
    bytes_total: AtomicU64,
    bytes_loaded: AtomicU64,
    used_memory: AtomicU64,
    keys_loaded: AtomicU64,
    keys_expired: AtomicU64,
}

/// Progress of a load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Unix time of its beginning, seconds.
    pub(crate) started_s: i64,
    /// Bytes of all files.
    pub(crate) bytes_total: u64,
    /// Bytes that were read.
    pub(crate) bytes_loaded: u64,
    /// Memory that the writer of the file used, as it says; 0 if it does not.
    pub(crate) used_memory: u64,
}

impl Loading {
    /// Begins a load: from here on, commands that need the data are refused.
    pub(crate) fn begin(&self, now_s: i64) {
        self.start_figures(now_s);
        self.is_under_way.store(true, Ordering::Release);
    }

    /// Begins a load beside the data of the node: only what cannot be done meanwhile is refused.
    pub(crate) fn begin_beside(&self, now_s: i64) {
        self.start_figures(now_s);
        self.is_beside.store(true, Ordering::Release);
    }

    fn start_figures(&self, now_s: i64) {
        self.started_s.store(now_s, Ordering::Relaxed);
        for figure in [&self.bytes_total, &self.bytes_loaded, &self.used_memory] {
            figure.store(0, Ordering::Relaxed);
        }
    }

    /// Ends a load.
    pub(crate) fn end(&self) {
        self.is_under_way.store(false, Ordering::Release);
        self.is_beside.store(false, Ordering::Release);
    }

    /// Has the load end without a result.
    pub(crate) fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Release);
    }

    /// Allows loads again.
    pub(crate) fn go_on(&self) {
        self.is_given_up.store(false, Ordering::Release);
    }

    /// Whether the load is to end without a result.
    pub(crate) fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::Acquire)
    }

    /// Whether data is being loaded.
    #[inline]
    pub(crate) fn is_under_way(&self) -> bool {
        self.is_under_way.load(Ordering::Acquire)
    }

    /// Whether data is being loaded beside that of the node.
    #[inline]
    pub(crate) fn is_beside(&self) -> bool {
        self.is_beside.load(Ordering::Acquire)
    }

    /// Adds to the number of bytes that are to be loaded.
    pub(crate) fn expect(&self, bytes: u64) {
        self.bytes_total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes the number of bytes that were read.
    pub(crate) fn note_bytes(&self, bytes: u64) {
        self.bytes_loaded.store(bytes, Ordering::Relaxed);
    }

    /// Notes how much memory the writer of the file used.
    pub(crate) fn note_used_memory(&self, bytes: u64) {
        self.used_memory.store(bytes, Ordering::Relaxed);
    }

    /// Notes what a snapshot file has brought.
    pub(crate) fn note_keys(&self, loaded: u64, expired: u64) {
        self.keys_loaded.store(loaded, Ordering::Relaxed);
        self.keys_expired.store(expired, Ordering::Relaxed);
    }

    /// Number of keys that the last snapshot file brought.
    pub(crate) fn keys_loaded(&self) -> u64 {
        self.keys_loaded.load(Ordering::Relaxed)
    }

    /// Number of keys in the last snapshot file that had expired.
    pub(crate) fn keys_expired(&self) -> u64 {
        self.keys_expired.load(Ordering::Relaxed)
    }

    /// Progress of the load; none without one.
    pub(crate) fn progress(&self) -> Option<Progress> {
        (self.is_under_way() || self.is_beside()).then(|| Progress {
            started_s: self.started_s.load(Ordering::Relaxed),
            bytes_total: self.bytes_total.load(Ordering::Relaxed),
            bytes_loaded: self.bytes_loaded.load(Ordering::Relaxed),
            used_memory: self.used_memory.load(Ordering::Relaxed),
        })
    }
}

impl Progress {
    /// The part that is loaded, percent.
    pub(crate) fn percent(&self) -> f64 {
        match self.bytes_total {
            0 => 0.0,
            total => self.bytes_loaded as f64 / total as f64 * 100.0,
        }
    }

    /// Seconds until the load ends, if it goes on as it did; as in Redis a second as long as that cannot be told.
    pub(crate) fn seconds_left(&self, now_s: i64) -> i64 {
        let elapsed = now_s - self.started_s;
        if elapsed == 0 {
            return 1;
        }
        // The number of bytes may have grown since the other one was read.
        let left = self.bytes_total.abs_diff(self.bytes_loaded);
        (elapsed as f64 * left as f64 / (self.bytes_loaded + 1) as f64) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_while_there_is_some() {
        let loading = Loading::default();
        assert!(loading.progress().is_none());
        loading.begin(100);
        loading.expect(4000);
        let progress = loading.progress().unwrap();
        assert_eq!((progress.percent(), progress.seconds_left(100)), (0.0, 1));
        loading.note_bytes(999);
        let progress = loading.progress().unwrap();
        assert_eq!((progress.percent(), progress.seconds_left(110)), (24.975, 30));
        loading.end();
        assert!(loading.progress().is_none());
        loading.begin_beside(150);
        assert!(loading.is_beside() && !loading.is_under_way());
        assert_eq!(loading.progress().unwrap().started_s, 150);
        loading.end();
        assert!(loading.progress().is_none());
        loading.begin(200);
        assert_eq!(loading.progress().unwrap().bytes_total, 0);
    }
}
