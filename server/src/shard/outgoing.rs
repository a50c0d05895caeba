//! [`Outgoing`]: bytes on their way to a socket, as a queue of chunks, of which the last one grows.
//!
//! The replies to a slow reader pile up. In one growing buffer they would be copied each time it doubles, and sent
//! bytes would have to be moved out at its front. A chunk is closed when it is full, and freed as a whole once it is
//! sent.

use std::collections::VecDeque;
use std::io::IoSlice;

use crate::limits::{LARGE_OUTPUT_BYTES, OUTPUT_CHUNK_BYTES, OUTPUT_KEPT_BYTES};

/// Unsent bytes of one connection.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// Closed chunks, ahead of `tail`; none while everything fits the tail. Boxed, because few connections have any.
    closed: Option<Box<Closed>>,
    /// The chunk that replies are appended to.
    tail: Vec<u8>,
    /// Bytes of the first chunk that have been sent; less than its length unless everything is sent.
    sent: usize,
}

#[derive(Debug, Default)]
struct Closed {
    /// The chunks, none of them empty.
    chunks: VecDeque<Vec<u8>>,
    /// The sum of their lengths.
    bytes: usize,
    /// The sum of their capacities.
    capacity: usize,
}

/// The most chunks in one system call.
const SLICES_MAX: usize = 16;

/// The bytes for one system call.
pub(crate) type Slices<'a> = smallvec::SmallVec<[IoSlice<'a>; SLICES_MAX]>;

impl Outgoing {
    /// The chunk to append to. Bytes that are in it must stay.
    #[inline]
    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.tail
    }

    /// The tail, and how many of its bytes have been sent, for a reply that may be sent ahead of the turn's end; none if
    /// other chunks come first. To be followed by [`settle`](Self::settle).
    #[inline]
    pub(crate) fn tail_and_sent(&mut self) -> (&mut Vec<u8>, Option<&mut usize>) {
        let sent = self.closed.is_none().then_some(&mut self.sent);
        (&mut self.tail, sent)
    }

    /// Empties the tail if all of it has been sent.
    pub(crate) fn settle(&mut self) {
        if self.is_empty() {
            self.start_anew();
        }
    }

    /// Whether bytes of the tail beyond `start` have been sent.
    pub(crate) fn has_sent_beyond(&self, start: usize) -> bool {
        self.closed.is_none() && self.sent > start
    }

    /// Bytes in the tail.
    #[inline]
    pub(crate) fn tail_len(&self) -> usize {
        self.tail.len()
    }

    /// Unsent bytes in the tail.
    pub(crate) fn unsent_tail_len(&self) -> usize {
        self.tail.len() - if self.has_closed() { 0 } else { self.sent }
    }

    /// The unsent bytes, when there are no closed chunks.
    pub(crate) fn unsent_tail(&self) -> &[u8] {
        debug_assert!(!self.has_closed(), "closed chunks come first");
        &self.tail[self.sent..]
    }

    /// Number of unsent bytes.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.closed.as_ref().map_or(0, |closed| closed.bytes) + self.tail.len() - self.sent
    }

    /// Whether everything is sent.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.sent == self.tail.len() && self.closed.is_none()
    }

    /// Closes the tail when it is full, or when another `appended` bytes would make it reallocate. True when the tail
    /// is large.
    #[inline]
    pub(crate) fn close_if_full(&mut self, appended: usize) -> bool {
        let is_large = self.tail.len() >= LARGE_OUTPUT_BYTES;
        if is_large {
            self.close_full(appended);
        }
        is_large
    }

    #[cold]
    fn close_full(&mut self, appended: usize) {
        if self.is_empty() {
            // It has been sent while it grew.
            return;
        }
        let spare = self.tail.capacity() - self.tail.len();
        if self.tail.len() < OUTPUT_CHUNK_BYTES && spare >= appended {
            return;
        }
        let closed = self.closed.get_or_insert_default();
        // A connection that has filled a chunk is likely to fill the next one.
        let full = std::mem::replace(&mut self.tail, Vec::with_capacity(OUTPUT_CHUNK_BYTES));
        closed.push(full);
    }

    /// Appends a chunk as it is.
    pub(crate) fn push_chunk(&mut self, chunk: Vec<u8>) {
        let closed = self.closed.get_or_insert_default();
        if !self.tail.is_empty() {
            closed.push(std::mem::take(&mut self.tail));
        }
        closed.push(chunk);
    }

    /// The unsent bytes at the front, as many chunks as one system call accepts.
    pub(crate) fn slices(&self) -> Slices<'_> {
        let closed = self.closed.iter().flat_map(|closed| &closed.chunks);
        let mut slices: Slices<'_> = closed
            .map(Vec::as_slice)
            .chain(std::iter::once(self.tail.as_slice()))
            .take(SLICES_MAX)
            .map(IoSlice::new)
            .collect();
        if let Some(first) = slices.first_mut() {
            first.advance(self.sent);
        }
        slices
    }

    /// Removes `count` sent bytes at the front.
    pub(crate) fn advance(&mut self, count: usize) {
        assert!(count <= self.len(), "more was sent than there is");
        self.sent += count;
        while let Some(closed) = &mut self.closed
            && let Some(first) = closed.chunks.front()
            && self.sent >= first.len()
        {
            self.sent -= first.len();
            closed.forget_first();
            if closed.chunks.is_empty() {
                self.closed = None;
            }
        }
        if self.is_empty() {
            self.start_anew();
        }
    }

    /// Empties the sent tail; its memory is reused unless it is more than a connection keeps.
    fn start_anew(&mut self) {
        self.sent = 0;
        if self.tail.capacity() > OUTPUT_KEPT_BYTES {
            self.tail = Vec::new();
        } else {
            self.tail.clear();
        }
    }

    /// Takes the first chunk, to be sent as it is, and the number of its bytes that have been sent. `spare` is an
    /// empty buffer that may replace the tail.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "a ring takes chunks whole")
    )]
    pub(crate) fn take_first(&mut self, spare: Vec<u8>) -> (Vec<u8>, usize) {
        let sent = std::mem::take(&mut self.sent);
        let Some(closed) = &mut self.closed else {
            return (std::mem::replace(&mut self.tail, spare), sent);
        };
        let first = closed.forget_first();
        if closed.chunks.is_empty() {
            self.closed = None;
        }
        (first, sent)
    }

    /// Whether there are closed chunks.
    #[inline]
    pub(crate) fn has_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Bytes of the closed chunks, and their number.
    pub(crate) fn closed(&self) -> (usize, usize) {
        self.closed
            .as_ref()
            .map_or((0, 0), |closed| (closed.capacity, closed.chunks.len()))
    }

    /// Capacity of the tail.
    pub(crate) fn tail_capacity(&self) -> usize {
        self.tail.capacity()
    }

    /// Bytes allocated for the queue.
    #[inline]
    pub(crate) fn memory(&self) -> usize {
        let closed = self.closed.as_ref();
        self.tail.capacity() + closed.map_or(0, |closed| closed.capacity + size_of::<Closed>())
    }

    /// Frees the memory of sent bytes.
    pub(crate) fn release(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

impl Closed {
    fn push(&mut self, chunk: Vec<u8>) {
        self.bytes += chunk.len();
        self.capacity += chunk.capacity();
        self.chunks.push_back(chunk);
    }

    fn forget_first(&mut self) -> Vec<u8> {
        let first = self
            .chunks
            .pop_front()
            .expect("there are closed chunks only while some are queued");
        self.bytes -= first.len();
        self.capacity -= first.capacity();
        first
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All unsent bytes.
    fn contents(outgoing: &Outgoing) -> Vec<u8> {
        let mut copy = Vec::new();
        if let Some(closed) = &outgoing.closed {
            closed
                .chunks
                .iter()
                .for_each(|chunk| copy.extend_from_slice(chunk));
        }
        copy.extend_from_slice(&outgoing.tail);
        copy.split_off(outgoing.sent)
    }

    proptest! {
        /// Pieces of any size are sent in order, whatever is sent at once, and only whole chunks are held beside
        /// them.
        #[test]
        fn what_goes_in_comes_out(steps in prop::collection::vec((any::<bool>(), 0..100_000_usize), 1..40)) {
            let (mut outgoing, mut model) = (Outgoing::default(), VecDeque::new());
            for (number, (append, size)) in (0_u8..).zip(steps) {
                if append {
                    if size >= 2 * LARGE_OUTPUT_BYTES {
                        outgoing.push_chunk(vec![number; size]);
                    } else {
                        outgoing.tail().extend(std::iter::repeat_n(number, size));
                        outgoing.close_if_full(size);
                    }
                    model.extend(std::iter::repeat_n(number, size));
                } else {
                    let count = size.min(outgoing.slices().iter().map(|slice| slice.len()).sum());
                    outgoing.advance(count);
                    model.drain(..count);
                }
                prop_assert_eq!(outgoing.len(), model.len());
                prop_assert_eq!(outgoing.is_empty(), model.is_empty());
                prop_assert!(contents(&outgoing).iter().eq(&model));
                prop_assert!(outgoing.memory() >= outgoing.len());
            }
        }

        /// The same holds when chunks are taken whole.
        #[test]
        fn chunks_are_taken_in_order(sizes in prop::collection::vec(1..100_000_usize, 1..20)) {
            let (mut outgoing, mut expected, mut taken) = (Outgoing::default(), Vec::new(), Vec::new());
            for (number, size) in (0_u8..).zip(sizes) {
                outgoing.tail().extend(std::iter::repeat_n(number, size));
                outgoing.close_if_full(size);
                expected.extend(std::iter::repeat_n(number, size));
            }
            while !outgoing.is_empty() {
                outgoing.advance(1);
                taken.push(expected[taken.len()]);
                let (chunk, sent) = outgoing.take_first(Vec::new());
                taken.extend_from_slice(&chunk[sent..]);
            }
            prop_assert_eq!(taken, expected);
        }
    }

    #[test]
    fn a_chunk_does_not_grow_beyond_the_piece_that_fills_it() {
        let mut outgoing = Outgoing::default();
        for _ in 0..1000 {
            outgoing.tail().extend_from_slice(&[0; 1000]);
            outgoing.close_if_full(1000);
        }
        let (bytes, chunks) = outgoing.closed();
        assert!(bytes <= chunks * 2 * OUTPUT_CHUNK_BYTES, "{bytes} in {chunks}");
        assert!(
            outgoing.memory() <= 1_000_000 + 3 * OUTPUT_CHUNK_BYTES,
            "{}",
            outgoing.memory()
        );
    }

    #[test]
    fn memory_of_what_is_sent_is_used_again_or_given_back() {
        let mut outgoing = Outgoing::default();
        outgoing.tail().extend_from_slice(&[0; 1000]);
        let capacity = outgoing.tail_capacity();
        outgoing.advance(1000);
        assert_eq!(outgoing.tail_capacity(), capacity);
        outgoing.tail().extend_from_slice(&[0; 2 * OUTPUT_KEPT_BYTES]);
        outgoing.advance(2 * OUTPUT_KEPT_BYTES);
        assert_eq!(outgoing.memory(), 0);
    }
}
