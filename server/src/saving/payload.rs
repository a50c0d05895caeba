//! [`Payload`]: a snapshot for replicas, on its way from the thread that writes it to the links that send it.
//!
//! The bytes are kept until all links have passed them on: some in memory, the rest in a file without a name. So the slowest link holds
//! up neither the others nor the snapshot, and nothing grows without end but the file, up to the length of the snapshot. If that file
//! cannot be written, the snapshot waits for the slowest link. Links that come to know the length first get all of it from the file.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::spill::create_nameless;
use crate::limits::{PAYLOAD_BYTES_MAX, PAYLOAD_READ_BYTES, PAYLOAD_STEP};

/// A snapshot for replicas.
#[derive(Debug)]
pub(crate) struct Payload {
    state: Mutex<State>,
    delivery: Delivery,
    /// Path of the file, as long as it has a name.
    path: PathBuf,
    /// Tells the writer that links have passed something on.
    room: Condvar,
    /// Tells links that there is more.
    bell: Notify,
}

/// Time at which links get the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// As soon as they are there.
    Live,
    /// When all are there, so that the length is known.
    Whole,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes in memory, from `kept_begin` on.
    kept: VecDeque<Arc<Vec<u8>>>,
    kept_begin: u64,
    kept_bytes: usize,
    /// The file, with the bytes from `file_begin` to `kept_begin`.
    file: Option<Arc<File>>,
    file_begin: u64,
    /// Place of each reader, by its number.
    readers: BTreeMap<u64, u64>,
    next_reader: u64,
    /// Whether the snapshot is complete; none while it is being written.
    outcome: Option<bool>,
}

/// The end of a payload that is written to. Dropping it ends the payload: in failure, unless it was completed.
#[derive(Debug)]
pub(crate) struct PayloadWriter(Arc<Payload>);

/// Place of a link in a payload. Dropping it ends what is kept for it.
#[derive(Debug)]
pub(crate) struct PayloadReader {
    payload: Arc<Payload>,
    number: u64,
    at: u64,
}

/// Bytes that a link passes on next.
#[derive(Clone, Debug)]
pub(crate) enum Load {
    /// In memory, from this index on.
    Kept(Arc<Vec<u8>>, usize),
    /// In the file: at this place, so many.
    Filed(Arc<File>, u64, usize),
}

/// Error: the snapshot was not completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PayloadFailed;

impl State {
    fn end(&self) -> u64 {
        self.kept_begin + self.kept_bytes as u64
    }

    /// Forgets what all readers have passed on.
    fn forget_read(&mut self) {
        let read = self.readers.values().copied().min().unwrap_or(self.end());
        if self.file_begin < self.kept_begin && read >= self.kept_begin {
            // Bytes that cannot be cut off are overwritten.
            let _ = self.file.as_ref().map(|file| file.set_len(0));
            self.file_begin = self.kept_begin;
        }
        while let Some(first) = self.kept.front()
            && self.kept_begin + first.len() as u64 <= read
        {
            self.drop_first();
            self.file_begin = self.kept_begin;
        }
    }

    fn drop_first(&mut self) {
        if let Some(first) = self.kept.pop_front() {
            self.kept_begin += first.len() as u64;
            self.kept_bytes -= first.len();
        }
    }

    /// Moves the first bytes in memory to the file.
    fn file_first(&mut self, path: &Path) -> io::Result<()> {
        let Some(first) = self.kept.front() else {
            return Ok(());
        };
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(Arc::new(create_nameless(path)?)),
        };
        file.write_all_at(first, self.kept_begin - self.file_begin)?;
        self.drop_first();
        Ok(())
    }

    /// The bytes from a place on.
    fn load(&self, at: u64) -> Option<Load> {
        if at < self.kept_begin {
            let file = Arc::clone(self.file.as_ref()?);
            let left = usize::try_from(self.kept_begin - at).unwrap_or(usize::MAX);
            return Some(Load::Filed(
                file,
                at - self.file_begin,
                left.min(PAYLOAD_READ_BYTES),
            ));
        }
        let mut begin = self.kept_begin;
        for bytes in &self.kept {
            let end = begin + bytes.len() as u64;
            if at < end {
                return Some(Load::Kept(Arc::clone(bytes), (at - begin) as usize));
            }
            begin = end;
        }
        None
    }
}

impl Payload {
    /// An empty payload. `path` is a free name for a file.
    pub(crate) fn new(delivery: Delivery, path: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            delivery,
            path,
            room: Condvar::new(),
            bell: Notify::new(),
        })
    }

    /// The end that is written to; to be taken once.
    pub(crate) fn writer(self: &Arc<Self>) -> PayloadWriter {
        PayloadWriter(Arc::clone(self))
    }

    /// The time at which links get the bytes.
    pub(crate) fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// A reader, from the beginning on; none if that is gone, or nothing will come.
    pub(crate) fn join(self: &Arc<Self>) -> Option<PayloadReader> {
        let mut state = self.state.lock();
        let is_whole = match self.delivery {
            Delivery::Live => state.end() == 0,
            Delivery::Whole => true,
        };
        if !is_whole || state.outcome == Some(false) {
            return None;
        }
        let number = state.next_reader;
        state.next_reader += 1;
        state.readers.insert(number, 0);
        Some(PayloadReader {
            payload: Arc::clone(self),
            number,
            at: 0,
        })
    }

    /// Whether a link wants it.
    pub(crate) fn has_readers(&self) -> bool {
        !self.state.lock().readers.is_empty()
    }

    /// Whether it is being written.
    pub(crate) fn is_under_way(&self) -> bool {
        self.state.lock().outcome.is_none()
    }

    fn end(&self, outcome: bool) {
        self.state.lock().outcome.get_or_insert(outcome);
        self.bell.notify_waiters();
    }
}

impl PayloadWriter {
    /// Appends bytes, for as long as they are wanted.
    ///
    /// # Errors
    /// When no link reads them, or there is room for them neither in memory nor in a file.
    pub(super) fn push(&self, bytes: &[u8], is_wanted: impl Fn() -> bool) -> io::Result<()> {
        let payload = &*self.0;
        let mut state = payload.state.lock();
        state.kept.push_back(Arc::new(bytes.to_vec()));
        state.kept_bytes += bytes.len();
        let kept_max = match payload.delivery {
            Delivery::Live => PAYLOAD_BYTES_MAX,
            Delivery::Whole => 0,
        };
        loop {
            if state.readers.is_empty() {
                return Err(io::Error::new(
                    io::ErrorKind::BrokenPipe,
                    "no replica waits for it",
                ));
            }
            if payload.delivery == Delivery::Live {
                state.forget_read();
            }
            if state.kept_bytes <= kept_max {
                break;
            }
            match state.file_first(&payload.path) {
                Err(error) if payload.delivery == Delivery::Whole || !is_wanted() => return Err(error),
                Err(_) => {
                    // The disk is full, or there is none: the slowest link makes room.
                    payload.bell.notify_waiters();
                    payload.room.wait_for(&mut state, PAYLOAD_STEP);
                }
                Ok(()) => {}
            }
        }
        drop(state);
        if payload.delivery == Delivery::Live {
            payload.bell.notify_waiters();
        }
        Ok(())
    }

    /// Notes that the snapshot is complete.
    pub(super) fn complete(&self) {
        self.0.end(true);
    }
}

impl Drop for PayloadWriter {
    fn drop(&mut self) {
        self.0.end(false);
    }
}

impl PayloadReader {
    /// Notes that `passed` more bytes were passed on, and returns those behind them as soon as they may be; none at the end.
    ///
    /// # Errors
    /// When the snapshot was not completed.
    pub(crate) async fn next(&mut self, passed: usize) -> Result<Option<Load>, PayloadFailed> {
        self.at += passed as u64;
        let payload = Arc::clone(&self.payload);
        loop {
            // In this order, or a ring might be missed.
            let mut rung = std::pin::pin!(payload.bell.notified());
            rung.as_mut().enable();
            {
                let mut state = payload.state.lock();
                state.readers.insert(self.number, self.at);
                payload.room.notify_one();
                let may_read = payload.delivery == Delivery::Live || state.outcome.is_some();
                let load = may_read.then(|| state.load(self.at)).flatten();
                match (state.outcome, load) {
                    (Some(false), _) => return Err(PayloadFailed),
                    (_, Some(load)) => return Ok(Some(load)),
                    (Some(true), None) => return Ok(None),
                    (None, None) => {}
                }
            }
            rung.await;
        }
    }

    /// The length of the snapshot, when it is complete.
    ///
    /// # Errors
    /// When it was not completed.
    pub(crate) async fn length(&mut self) -> Result<u64, PayloadFailed> {
        self.next(0).await?;
        Ok(self.payload.state.lock().end())
    }
}

impl Drop for PayloadReader {
    fn drop(&mut self) {
        self.payload.state.lock().readers.remove(&self.number);
        self.payload.room.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("shardis-payload-{name}-{}", std::process::id()))
    }

    /// All bytes that a reader gets now, and whether they are the last.
    fn read(reader: &mut PayloadReader) -> (Vec<u8>, Result<bool, PayloadFailed>) {
        let (mut bytes, mut passed) = (Vec::new(), 0);
        loop {
            let mut next = Box::pin(reader.next(passed));
            let next = match next.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending => return (bytes, Ok(false)),
                Poll::Ready(next) => next,
            };
            passed = match next {
                Err(failed) => return (bytes, Err(failed)),
                Ok(None) => return (bytes, Ok(true)),
                Ok(Some(Load::Kept(kept, from))) => {
                    bytes.extend_from_slice(&kept[from..]);
                    kept.len() - from
                }
                Ok(Some(Load::Filed(file, at, count))) => {
                    let begin = bytes.len();
                    bytes.resize(begin + count, 0);
                    file.read_exact_at(&mut bytes[begin..], at).unwrap();
                    count
                }
            };
        }
    }

    #[test]
    fn every_reader_gets_all_of_it_at_its_own_pace() {
        let payload = Payload::new(Delivery::Live, path("live"));
        let writer = payload.writer();
        let (mut quick, mut slow) = (payload.join().unwrap(), payload.join().unwrap());
        let (mut all, mut quickly, mut slowly) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..200_usize {
            let bytes = vec![round as u8; 100_000 + round];
            writer.push(&bytes, || true).unwrap();
            all.extend(bytes);
            quickly.extend(read(&mut quick).0);
            assert_eq!(quickly.len(), all.len());
            assert!(payload.state.lock().kept_bytes <= PAYLOAD_BYTES_MAX);
            if round % 80 == 79 {
                slowly.extend(read(&mut slow).0);
            }
        }
        assert!(payload.state.lock().file.is_some() && !path("live").exists());
        assert!(payload.join().is_none(), "the beginning is gone");
        writer.complete();
        drop(writer);
        assert_eq!(read(&mut quick), (Vec::new(), Ok(true)));
        let (rest, outcome) = read(&mut slow);
        slowly.extend(rest);
        assert!(slowly == all && quickly == all);
        assert_eq!(outcome, Ok(true));
    }

    #[test]
    fn a_whole_one_is_read_when_it_is_complete() {
        let payload = Payload::new(Delivery::Whole, path("whole"));
        let writer = payload.writer();
        let mut first = payload.join().unwrap();
        writer.push(b"one", || true).unwrap();
        let mut second = payload.join().unwrap();
        writer.push(b"two", || true).unwrap();
        assert_eq!(read(&mut first), (Vec::new(), Ok(false)));
        writer.complete();
        for reader in [&mut first, &mut second] {
            assert_eq!(read(reader), (b"onetwo".to_vec(), Ok(true)));
        }
    }

    #[test]
    fn it_fails_for_all_or_when_nobody_is_left() {
        let payload = Payload::new(Delivery::Live, path("failing"));
        let writer = payload.writer();
        let (mut stays, leaves) = (payload.join().unwrap(), payload.join().unwrap());
        writer.push(b"x", || true).unwrap();
        drop(leaves);
        writer.push(b"y", || true).unwrap();
        drop(writer);
        assert_eq!(read(&mut stays).1, Err(PayloadFailed));
        assert!(payload.join().is_none() && !payload.is_under_way());

        let payload = Payload::new(Delivery::Live, path("unwanted"));
        let writer = payload.writer();
        drop(payload.join().unwrap());
        assert!(writer.push(b"x", || true).is_err() && !payload.has_readers());
    }

    #[test]
    fn without_a_file_the_slowest_makes_room() {
        let payload = Payload::new(Delivery::Live, PathBuf::from("/nowhere/at/all"));
        let writer = payload.writer();
        let mut reader = payload.join().unwrap();
        let tries = std::cell::Cell::new(0);
        let is_wanted = || {
            tries.set(tries.get() + 1);
            tries.get() < 3
        };
        let full = vec![1; PAYLOAD_BYTES_MAX];
        writer.push(&full, || true).unwrap();
        assert!(writer.push(b"x", is_wanted).is_err(), "it was given up meanwhile");
        assert_eq!(read(&mut reader).0.len(), full.len() + 1);
        writer.push(&full, || true).unwrap();
        assert_eq!(read(&mut reader).0.len(), full.len());
    }
}
