//! [`Tap`]: bytes of the journal on their way to the files of the append-only file.
//!
//! It lies under the lock of the stream, so that its place in the stream is exact: at a switch of files, what was appended before goes to
//! the old file, and what follows to the new one, whoever writes when. Each file begins with a SELECT, as its reader does not know what
//! the file before it ended with.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::manifest::Part;
use super::record::{Audience, Record};

/// An increment that is open for writing.
#[derive(Debug)]
pub(crate) struct Increment {
    pub(super) file: File,
    /// Its name, and its number among the increments.
    pub(crate) part: Part,
    /// Bytes that it is known to have, up to the end of the last whole write.
    size: AtomicU64,
}

/// Bytes for one increment.
#[derive(Debug)]
pub(super) struct Stretch {
    pub(super) increment: Arc<Increment>,
    pub(super) bytes: Vec<u8>,
}

/// Bytes that were appended to the journal and that no writer has fetched yet.
#[derive(Debug)]
pub(super) struct Tap {
    /// Stretches in order; the last one grows.
    stretches: VecDeque<Stretch>,
    /// The database that the reader of the last file has selected there.
    selected: Option<u16>,
    /// The time that the last annotation in the last file told, Unix seconds.
    stamped_s: i64,
}

impl Increment {
    /// A file with so many bytes.
    pub(crate) fn new(file: File, part: Part, size: u64) -> Self {
        Self {
            file,
            part,
            size: AtomicU64::new(size),
        }
    }

    /// Its size, bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// Notes that it has grown.
    pub(super) fn grow(&self, bytes: usize) {
        self.size.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Tap {
    /// A tap that fills a file.
    pub(super) fn new(increment: Arc<Increment>) -> Self {
        let mut tap = Self {
            stretches: VecDeque::new(),
            selected: None,
            stamped_s: 0,
        };
        tap.switch(increment);
        tap
    }

    /// Has what follows go to another file.
    pub(super) fn switch(&mut self, increment: Arc<Increment>) {
        let bytes = Vec::new();
        self.stretches.push_back(Stretch { increment, bytes });
        self.selected = None;
    }

    /// The file that what follows goes to.
    pub(super) fn current(&self) -> Option<&Arc<Increment>> {
        self.stretches.back().map(|stretch| &stretch.increment)
    }

    /// Takes units in, behind an annotation with the time if there is one to be told.
    #[inline]
    pub(super) fn take(&mut self, record: &Record, now_s: Option<i64>) {
        let Some(Stretch { bytes, .. }) = self.stretches.back_mut() else {
            return;
        };
        if let Some(now_s) = now_s.filter(|&now_s| now_s > self.stamped_s) {
            self.stamped_s = now_s;
            bytes.extend_from_slice(format!("#TS:{now_s}\r\n").as_bytes());
        }
        record.render(Audience::All, &mut self.selected, |piece| {
            bytes.extend_from_slice(piece);
        });
    }

    /// Moves everything to the end of `queue`; leaves `spare` to be filled.
    pub(super) fn fetch(&mut self, queue: &mut VecDeque<Stretch>, spare: &mut Vec<u8>) {
        let last = self.stretches.len() - 1;
        queue.extend(self.stretches.drain(..last));
        if let Some(Stretch { increment, bytes }) = self.stretches.front_mut()
            && !bytes.is_empty()
        {
            queue.push_back(Stretch {
                increment: Arc::clone(increment),
                bytes: std::mem::replace(bytes, std::mem::take(spare)),
            });
        }
    }

    /// Number of bytes that no writer has fetched.
    pub(super) fn bytes(&self) -> usize {
        self.stretches.iter().map(|stretch| stretch.bytes.len()).sum()
    }
}
