//! [`Backlog`]: the last bytes of the stream, for replicas that follow it or return to it.
//!
//! It lies under the lock of the stream, so that its end is that of the journal. Its bytes are in chunks: a full one never changes,
//! and is read by any number of links without the lock; of the last one, links copy what they lack. A link reads through a
//! [`Cursor`]. The backlog keeps as many bytes as `repl-backlog-size` says, and all that a cursor has not passed on yet. A cursor that
//! keeps more than its limit allows is *cut*: the backlog no longer keeps anything for it, and its link ends.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Journal, Position};
use crate::config::Settings;
use crate::limits::{BACKLOG_CHUNK_BYTES_MAX, BACKLOG_CHUNK_BYTES_MIN, BACKLOG_CHUNKS};

/// The last bytes of the stream.
#[derive(Debug)]
pub(super) struct Backlog {
    bounds: BacklogBounds,
    /// Full chunks, in order.
    chunks: VecDeque<Chunk>,
    /// The chunk that is being filled.
    tail: Vec<u8>,
    /// Place of the first byte of the tail in the stream.
    tail_begin: u64,
    /// Cursors by number.
    cursors: BTreeMap<u64, Reading>,
    next_cursor: u64,
    /// Cursors that were cut, until their links are told.
    cut: Vec<Overrun>,
    /// A link waits for further bytes.
    is_awaited: bool,
    /// Effects are missing in it: who follows it does not have the same data any more.
    is_broken: bool,
}

/// A full chunk.
#[derive(Debug)]
struct Chunk {
    begin: u64,
    bytes: Arc<Vec<u8>>,
}

impl Chunk {
    fn end(&self) -> u64 {
        self.begin + self.bytes.len() as u64
    }
}

/// State of a cursor.
#[derive(Clone, Copy, Debug)]
struct Reading {
    /// Place of the first byte that was not passed on.
    at: u64,
    /// Time since which more is kept for it than the soft limit allows, seconds of the node's stopwatch.
    over_since_s: Option<u64>,
}

/// Bounds of the backlog, from the directives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BacklogBounds {
    /// Bytes that are kept in any case: `repl-backlog-size`.
    size: u64,
    /// Limits on what a link has not sent: `client-output-buffer-limit replica`. None where that is 0.
    hard: Option<u64>,
    soft: Option<u64>,
    soft_seconds: u64,
}

impl BacklogBounds {
    /// The bounds that the directives set. A limit below the size of the backlog would have links cut for bytes that are kept in any
    /// case, again and again.
    pub(crate) fn new(settings: &Settings) -> Self {
        let size = settings.repl_backlog_size;
        let limit = settings.client_output_buffer_limit.replica;
        let bound = |bytes: u64| (bytes > 0).then_some(bytes.max(size));
        Self {
            size,
            hard: bound(limit.hard_bytes),
            soft: bound(limit.soft_bytes),
            soft_seconds: limit.soft_seconds,
        }
    }

    fn chunk_bytes(&self) -> usize {
        (self.size as usize / BACKLOG_CHUNKS).clamp(BACKLOG_CHUNK_BYTES_MIN, BACKLOG_CHUNK_BYTES_MAX)
    }
}

/// Figures of the backlog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BacklogFigures {
    /// Place of its first byte in the stream, counted from 1.
    pub(crate) first: u64,
    /// Bytes that it keeps.
    pub(crate) length: u64,
    /// Bytes allocated for it.
    pub(crate) memory: u64,
    /// Bytes of that which it keeps for links alone, beyond its size.
    pub(crate) for_links: u64,
}

/// Bytes of the stream that a link passes on next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Bytes of a full chunk.
    Shared(Arc<Vec<u8>>, Range<usize>),
    /// A copy of bytes of the chunk that is being filled.
    Copied(Vec<u8>),
}

impl Piece {
    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(bytes, range) => &bytes[range.clone()],
            Self::Copied(bytes) => bytes,
        }
    }
}

/// Error: the backlog keeps nothing for a cursor any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CursorCut;

/// A cursor whose link was slower than its limit allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overrun {
    /// Number of the cursor.
    pub(crate) cursor: u64,
    /// Bytes that it had not passed on.
    pub(crate) unsent: u64,
    /// The soft limit was exceeded for too long, not the hard one.
    pub(crate) is_soft: bool,
}

/// Place of a link in the stream. Dropping it ends what the backlog keeps for it.
#[derive(Debug)]
pub(crate) struct Cursor {
    journal: Arc<Journal>,
    number: u64,
}

impl Backlog {
    /// An empty backlog at this place in the stream.
    pub(super) fn new(bounds: BacklogBounds, end: u64) -> Self {
        Self {
            bounds,
            chunks: VecDeque::new(),
            tail: Vec::with_capacity(bounds.chunk_bytes()),
            tail_begin: end,
            cursors: BTreeMap::new(),
            next_cursor: 1,
            cut: Vec::new(),
            is_awaited: false,
            is_broken: false,
        }
    }

    /// Notes that effects are missing.
    pub(super) fn note_broken(&mut self) {
        self.is_broken = true;
    }

    /// Begins anew at another place in the stream. Cursors in what was kept before are cut, and their numbers are not used again.
    pub(super) fn restart(place: &mut Option<Box<Self>>, bounds: BacklogBounds, end: u64) {
        let mut backlog = Self::new(bounds, end);
        if let Some(former) = place {
            (backlog.next_cursor, backlog.is_awaited) = (former.next_cursor, former.is_awaited);
        }
        *place = Some(Box::new(backlog));
    }

    fn begin(&self) -> u64 {
        self.chunks.front().map_or(self.tail_begin, |chunk| chunk.begin)
    }

    fn end(&self) -> u64 {
        self.tail_begin + self.tail.len() as u64
    }

    /// Appends bytes of the stream.
    #[inline]
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while self.tail.len() + bytes.len() > self.tail.capacity() {
            let (fitting, rest) = bytes.split_at(self.tail.capacity() - self.tail.len());
            self.tail.extend_from_slice(fitting);
            bytes = rest;
            self.begin_chunk();
        }
        self.tail.extend_from_slice(bytes);
    }

    /// Closes the last chunk, and begins another one.
    fn begin_chunk(&mut self) {
        let (begin, capacity) = (self.tail_begin, self.bounds.chunk_bytes());
        self.tail_begin = self.end();
        let bytes = Arc::new(std::mem::take(&mut self.tail));
        if !bytes.is_empty() {
            self.chunks.push_back(Chunk { begin, bytes });
        }
        self.cut_slow();
        let spare = self.trim().filter(|spare| spare.capacity() == capacity);
        self.tail = spare.unwrap_or_else(|| Vec::with_capacity(capacity));
    }

    /// Drops the chunks that nobody needs. Returns the memory of one of them, if no link reads it.
    fn trim(&mut self) -> Option<Vec<u8>> {
        let kept_from = self.tail_begin.checked_sub(self.bounds.size)?;
        let needed_from = self.cursors.values().map(|reading| reading.at).min();
        let kept_from = needed_from.map_or(kept_from, |needed| needed.min(kept_from));
        let mut freed = None;
        while let Some(chunk) = self.chunks.pop_front_if(|chunk| chunk.end() <= kept_from) {
            freed = Arc::try_unwrap(chunk.bytes).ok();
        }
        freed.map(|mut bytes| {
            bytes.clear();
            bytes
        })
    }

    /// Bytes from this place on, as many as are in one chunk; none at the end.
    fn read(&self, at: u64) -> Option<Piece> {
        if at >= self.tail_begin {
            let rest = &self.tail[(at - self.tail_begin) as usize..];
            return (!rest.is_empty()).then(|| Piece::Copied(rest.to_vec()));
        }
        let index = self.chunks.partition_point(|chunk| chunk.end() <= at);
        let chunk = &self.chunks[index];
        let from = (at - chunk.begin) as usize;
        Some(Piece::Shared(Arc::clone(&chunk.bytes), from..chunk.bytes.len()))
    }

    /// Cuts the cursors that have exceeded the soft limit for too long.
    fn cut_late(&mut self, now_s: u64) {
        let Some(soft) = self.bounds.soft else { return };
        let (end, seconds) = (self.end(), self.bounds.soft_seconds);
        for (&cursor, reading) in &mut self.cursors {
            let unsent = end - reading.at;
            if unsent <= soft {
                reading.over_since_s = None;
            } else if now_s - *reading.over_since_s.get_or_insert(now_s) > seconds {
                let is_soft = true;
                self.cut.push(Overrun {
                    cursor,
                    unsent,
                    is_soft,
                });
            }
        }
    }

    /// Cuts the cursors that exceed the hard limit.
    fn cut_slow(&mut self) {
        let Some(hard) = self.bounds.hard else { return };
        let end = self.end();
        for (&cursor, reading) in &self.cursors {
            let unsent = end - reading.at;
            if unsent > hard {
                let is_soft = false;
                self.cut.push(Overrun {
                    cursor,
                    unsent,
                    is_soft,
                });
            }
        }
        self.forget_cut();
    }

    /// Keeps nothing any more for the cursors that were cut.
    fn forget_cut(&mut self) {
        for Overrun { cursor, .. } in &self.cut {
            self.cursors.remove(cursor);
        }
    }

    fn figures(&self) -> BacklogFigures {
        let length = self.end() - self.begin();
        let capacities: usize = self.chunks.iter().map(|chunk| chunk.bytes.capacity()).sum();
        // Only whole chunks go, and the last one is not full: up to two more than the size are history all the same.
        let kept = self.bounds.size + 2 * self.bounds.chunk_bytes() as u64;
        BacklogFigures {
            first: self.begin() + 1,
            length,
            memory: (capacities + self.tail.capacity()) as u64,
            for_links: length - length.min(kept),
        }
    }

    /// Whether a link is to be told of further bytes.
    #[inline]
    pub(super) fn take_awaited(&mut self) -> bool {
        std::mem::take(&mut self.is_awaited)
    }
}

impl Journal {
    /// Has the stream kept for replicas, from its end on unless it is kept already, and has its readers select their database anew.
    /// Returns the end. To be called at a cut, while nobody else uses a partition.
    pub(crate) fn open_backlog(&self, bounds: BacklogBounds) -> Position {
        let mut stream = self.stream.lock();
        let end = stream.end;
        if !stream.follows {
            stream.selected = None;
        }
        stream
            .backlog
            .get_or_insert_with(|| Box::new(Backlog::new(bounds, end.0)));
        self.is_read.store(true, Ordering::Release);
        end
    }

    /// Whether effects are missing in the backlog, which is then of no use.
    pub(crate) fn has_broken_backlog(&self) -> bool {
        let stream = self.stream.lock();
        stream.backlog.as_ref().is_some_and(|backlog| backlog.is_broken)
    }

    /// Notes that the data has changed in another way than the backlog tells.
    pub(crate) fn break_backlog(&self) {
        if let Some(backlog) = &mut self.stream.lock().backlog {
            backlog.note_broken();
        }
    }

    /// Keeps the stream no longer.
    pub(crate) fn close_backlog(&self) {
        let mut stream = self.stream.lock();
        stream.backlog = None;
        self.is_read.store(stream.has_reader(), Ordering::Release);
    }

    /// The database that replicas have selected at the end of the stream, 0 if the next command selects one; none while nothing is
    /// kept for them.
    pub(crate) fn selected(&self) -> Option<u16> {
        let stream = self.stream.lock();
        stream
            .backlog
            .as_ref()
            .map(|_| stream.selected.unwrap_or_default())
    }

    /// Applies other bounds to the backlog.
    pub(crate) fn bound_backlog(&self, bounds: BacklogBounds) {
        if let Some(backlog) = &mut self.stream.lock().backlog {
            backlog.bounds = bounds;
            backlog.trim();
        }
    }

    /// Figures of the backlog; none while there is none.
    pub(crate) fn backlog(&self) -> Option<BacklogFigures> {
        self.stream
            .lock()
            .backlog
            .as_ref()
            .map(|backlog| backlog.figures())
    }

    /// Bytes allocated for the backlog, as far as they count against `maxmemory`, and those that do not.
    pub(crate) fn backlog_memory(&self) -> (u64, u64) {
        let figures = self.backlog().unwrap_or_default();
        (figures.memory - figures.for_links, figures.for_links)
    }

    /// The cursors of links that are slower than the limits allow, which were cut.
    pub(crate) fn take_cut_cursors(&self) -> Vec<Overrun> {
        let now_s = self.clock.elapsed_ns() / 1_000_000_000;
        let mut stream = self.stream.lock();
        let Some(backlog) = &mut stream.backlog else {
            return Vec::new();
        };
        backlog.cut_slow();
        backlog.cut_late(now_s);
        backlog.forget_cut();
        backlog.trim();
        std::mem::take(&mut backlog.cut)
    }

    /// Bytes that the cursor of this number has not passed on; none if it was cut, or has ended.
    pub(crate) fn unsent_of(&self, cursor: u64) -> Option<u64> {
        let stream = self.stream.lock();
        let reading = stream.backlog.as_ref()?.cursors.get(&cursor)?;
        Some(stream.end.0 - reading.at)
    }

    /// A cursor at a place in the stream; none if the backlog does not reach back to there, or ends before.
    pub(crate) fn cursor(self: &Arc<Self>, at: Position) -> Option<Cursor> {
        let mut stream = self.stream.lock();
        let backlog = stream.backlog.as_mut()?;
        if at.0 < backlog.begin() || at.0 > backlog.end() {
            return None;
        }
        let number = backlog.next_cursor;
        backlog.next_cursor += 1;
        let over_since_s = None;
        backlog.cursors.insert(
            number,
            Reading {
                at: at.0,
                over_since_s,
            },
        );
        Some(Cursor {
            journal: Arc::clone(self),
            number,
        })
    }

    /// Appends bytes to the stream that are no effects of commands, for replicas alone: whole commands, as they are. Without a backlog
    /// nobody would read them.
    pub(crate) fn append_raw(&self, bytes: &[u8]) {
        let mut stream = self.stream.lock();
        if stream.follows {
            // The stream is that of the primary, which has its own.
            return;
        }
        let Some(backlog) = &mut stream.backlog else {
            return;
        };
        backlog.push(bytes);
        stream.end.0 += bytes.len() as u64;
        self.publish(stream);
    }

    /// Wakes links that wait for further bytes.
    #[cold]
    pub(super) fn ring_links(&self) {
        self.links.notify_waiters();
    }
}

impl Cursor {
    /// Number of the cursor.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Notes that `sent` more bytes were passed on, and returns those behind them; none at the end of the stream.
    ///
    /// # Errors
    /// When the cursor was cut.
    pub(crate) fn advance(&mut self, sent: usize) -> Result<Option<Piece>, CursorCut> {
        let mut stream = self.journal.stream.lock();
        let backlog = stream.backlog.as_mut().ok_or(CursorCut)?;
        let reading = backlog.cursors.get_mut(&self.number).ok_or(CursorCut)?;
        reading.at += sent as u64;
        let at = reading.at;
        let piece = backlog.read(at);
        backlog.is_awaited |= piece.is_none();
        Ok(piece)
    }

    /// The bytes behind those that were passed on, as soon as there are some; `sent` more were.
    ///
    /// # Errors
    /// When the cursor was cut.
    pub(crate) async fn next(&mut self, sent: usize) -> Result<Piece, CursorCut> {
        let journal = Arc::clone(&self.journal);
        let mut sent = sent;
        loop {
            // In this order, or a ring might be missed.
            let mut rung = std::pin::pin!(journal.links.notified());
            rung.as_mut().enable();
            if let Some(piece) = self.advance(std::mem::take(&mut sent))? {
                return Ok(piece);
            }
            rung.await;
        }
    }

    /// Bytes that were not passed on.
    pub(crate) fn unsent(&self) -> u64 {
        self.journal.unsent_of(self.number).unwrap_or_default()
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        if let Some(backlog) = &mut self.journal.stream.lock().backlog {
            backlog.cursors.remove(&self.number);
            backlog.trim();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: BacklogBounds = BacklogBounds {
        size: 20_000,
        hard: Some(80_000),
        soft: None,
        soft_seconds: 0,
    };

    fn kept(bounds: BacklogBounds) -> Arc<Journal> {
        let clock = crate::clock::Clock::manual(std::time::Duration::ZERO);
        let journal = Arc::new(Journal::new(Arc::new(clock)));
        journal.open_backlog(bounds);
        journal
    }

    /// Bytes that show their places in the stream.
    fn bytes(from: usize, count: usize) -> Vec<u8> {
        (from..from + count).map(|at| (at % 251) as u8).collect()
    }

    fn read_all(cursor: &mut Cursor) -> Vec<u8> {
        let (mut read, mut sent) = (Vec::new(), 0);
        while let Some(piece) = cursor.advance(sent).unwrap() {
            read.extend_from_slice(piece.bytes());
            sent = piece.bytes().len();
        }
        read
    }

    proptest! {
        #[test]
        fn a_cursor_reads_what_was_appended(counts in prop::collection::vec(1..30_000_usize, 1..20), from in 0..5_usize) {
            let journal = kept(BacklogBounds { hard: None, ..BOUNDS });
            let (mut end, mut cursor, mut begin) = (0, None, 0);
            let mut read = Vec::new();
            for (index, &count) in counts.iter().enumerate() {
                if index == from {
                    (cursor, begin) = (journal.cursor(journal.end()), end);
                }
                journal.append_raw(&bytes(end, count));
                end += count;
                if let Some(cursor) = cursor.as_mut().filter(|_| index % 3 == 0) {
                    read.extend(read_all(cursor));
                }
            }
            if let Some(cursor) = &mut cursor {
                read.extend(read_all(cursor));
                prop_assert_eq!(cursor.unsent(), 0);
                prop_assert_eq!(read, bytes(begin, end - begin));
            }
        }
    }

    #[test]
    fn it_keeps_its_size_and_at_most_two_chunks_more() {
        let journal = kept(BOUNDS);
        for at in 0..100 {
            journal.append_raw(&bytes(at * 1000, 1000));
            let figures = journal.backlog().unwrap();
            assert_eq!(figures.first + figures.length, (at as u64 + 1) * 1000 + 1);
            assert!(
                figures.length >= BOUNDS.size.min(journal.end().offset()),
                "{figures:?}"
            );
            assert!(
                figures.length <= BOUNDS.size + 2 * BACKLOG_CHUNK_BYTES_MIN as u64,
                "{figures:?}"
            );
            assert_eq!(figures.for_links, 0, "{figures:?}");
        }
        let first = journal.backlog().unwrap().first - 1;
        assert!(journal.cursor(Position::at(first - 1)).is_none());
        assert!(journal.cursor(Position::at(first)).is_some());
        assert!(
            journal.cursor(journal.end()).is_some(),
            "a replica that lacks nothing"
        );
        assert!(journal.cursor(Position::at(journal.end().offset() + 1)).is_none());
    }

    #[test]
    fn a_slow_cursor_keeps_more_up_to_its_limit() {
        let journal = kept(BOUNDS);
        let mut slow = journal.cursor(journal.end()).unwrap();
        journal.append_raw(&bytes(0, 80_000));
        assert_eq!(journal.take_cut_cursors(), []);
        assert_eq!(journal.backlog().unwrap().first, 1);
        assert!(journal.backlog().unwrap().for_links > 0);
        journal.append_raw(b"x");
        let [overrun] = journal.take_cut_cursors()[..] else {
            panic!("it is cut")
        };
        assert_eq!(
            (overrun.cursor, overrun.unsent, overrun.is_soft),
            (slow.number(), 80_001, false)
        );
        assert_eq!(slow.advance(0), Err(CursorCut));
        assert!(
            journal.backlog().unwrap().first > 1,
            "nothing is kept for it any more"
        );
    }

    #[test]
    fn the_soft_limit_cuts_a_cursor_that_exceeds_it_for_too_long() {
        let clock = Arc::new(crate::clock::Clock::manual(std::time::Duration::ZERO));
        let journal = Arc::new(Journal::new(Arc::clone(&clock)));
        journal.open_backlog(BacklogBounds {
            hard: None,
            soft: Some(20_000),
            soft_seconds: 10,
            ..BOUNDS
        });
        let mut cursor = journal.cursor(journal.end()).unwrap();
        journal.append_raw(&bytes(0, 20_001));
        let after = |seconds| {
            clock.advance(std::time::Duration::from_secs(seconds));
            journal.take_cut_cursors()
        };
        assert_eq!(after(0), []);
        assert_eq!(after(10), []);
        // Once it has caught up, the time begins anew.
        let piece = cursor.advance(0).unwrap().unwrap();
        let passed = piece.bytes().len();
        cursor.advance(passed).unwrap();
        assert_eq!(after(1), []);
        journal.append_raw(&bytes(0, passed));
        assert_eq!(after(5), []);
        assert_eq!(after(10), []);
        let [overrun] = after(1)[..] else {
            panic!("it is cut")
        };
        assert_eq!((overrun.unsent, overrun.is_soft), (20_001, true));
        assert_eq!(after(100), [], "it is told once");
    }

    #[test]
    fn a_limit_below_the_size_of_the_backlog_cuts_nobody() {
        let mut settings = Settings::default();
        settings.client_output_buffer_limit.replica.hard_bytes = 1000;
        settings.client_output_buffer_limit.replica.soft_bytes = 10;
        settings.client_output_buffer_limit.replica.soft_seconds = 0;
        let journal = kept(BacklogBounds::new(&settings));
        let _cursor = journal.cursor(journal.end()).unwrap();
        journal.append_raw(&bytes(0, settings.repl_backlog_size as usize));
        assert!(journal.take_cut_cursors().is_empty());
        journal.append_raw(b"x");
        assert_eq!(journal.take_cut_cursors().len(), 1);
    }

    #[test]
    fn without_a_backlog_nothing_is_kept() {
        let journal = kept(BOUNDS);
        let mut cursor = journal.cursor(journal.end()).unwrap();
        assert!(journal.is_read());
        journal.close_backlog();
        assert!(!journal.is_read());
        assert_eq!(cursor.advance(0), Err(CursorCut));
        assert!(journal.cursor(journal.end()).is_none() && journal.backlog().is_none());
        journal.append_raw(b"abc");
        assert_eq!(journal.open_backlog(BOUNDS), Position::at(0));
        journal.append_raw(b"abc");
        assert_eq!(journal.end(), Position::at(3));
    }
}
