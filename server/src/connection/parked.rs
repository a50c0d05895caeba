//! Replies that came before those of earlier commands, until it is their turn, and messages that have to follow replies to come.
//!
//! They lie one behind the other in chunks, so that a small one costs no allocation. A chunk goes when the last of its replies
//! has left; a large reply has one of its own, and leaves as a whole. In one growing buffer they would be copied each
//! time it doubles, and what has left would stay until all has.

use std::collections::VecDeque;

use crate::limits::{LARGE_OUTPUT_BYTES, OUTPUT_CHUNK_BYTES, OUTPUT_KEPT_BYTES};
use crate::shard::outgoing::Outgoing;

/// Early replies of one connection.
#[derive(Debug, Default)]
pub(super) struct Parked {
    /// Place of the reply of command `next_reply + index`, if it has come.
    places: VecDeque<Option<Place>>,
    /// The last one is open: replies are appended to it.
    chunks: VecDeque<Chunk>,
    /// Number of the first chunk.
    first: usize,
    /// Messages, each with the number of replies in all that have left when it is its turn.
    messages: VecDeque<(usize, Vec<u8>)>,
    /// Replies that have left so far.
    left: usize,
    /// Bytes of the replies and messages that have not left.
    bytes: usize,
    /// Replies are dropped instead.
    refused: bool,
}

/// Place of a reply.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Number of its chunk.
    chunk: usize,
    start: usize,
    end: usize,
}

#[derive(Debug, Default)]
struct Chunk {
    bytes: Vec<u8>,
    /// Replies in it that have not left.
    replies: usize,
}

impl Parked {
    /// A place for replies that are dropped.
    pub(super) fn refused() -> Self {
        Self {
            refused: true,
            ..Self::default()
        }
    }

    /// Whether replies are dropped.
    pub(super) fn is_refused(&self) -> bool {
        self.refused
    }

    /// The buffer that the next reply is appended to.
    #[inline]
    pub(super) fn tail(&mut self) -> &mut Vec<u8> {
        if self.chunks.is_empty() {
            self.chunks.push_back(Chunk::default());
        }
        let last = self.chunks.len() - 1;
        &mut self.chunks[last].bytes
    }

    /// Begins a chunk for a reply of this length, if it is large.
    pub(super) fn make_room(&mut self, len: usize) {
        let is_used = self.chunks.back().is_some_and(|chunk| !chunk.bytes.is_empty());
        if len >= LARGE_OUTPUT_BYTES && is_used {
            self.chunks.push_back(Chunk::default());
        }
    }

    /// Parks the reply of the command `index` places behind the next one; it lies in the tail from `start` on. Returns whether
    /// much is parked.
    pub(super) fn park(&mut self, index: usize, start: usize) -> bool {
        if self.refused {
            self.chunks.clear();
            return false;
        }
        if self.places.len() <= index {
            self.places.resize(index + 1, None);
        }
        let number = self.first + self.chunks.len() - 1;
        let Some(last) = self.chunks.back_mut() else {
            return false;
        };
        let end = last.bytes.len();
        last.replies += 1;
        self.places[index] = Some(Place {
            chunk: number,
            start,
            end,
        });
        self.bytes += end - start;
        if end >= OUTPUT_CHUNK_BYTES {
            self.chunks.push_back(Chunk::default());
        }
        self.bytes >= LARGE_OUTPUT_BYTES
    }

    /// Has a message follow so many replies that have not left.
    pub(super) fn put_message(&mut self, replies: usize, message: Vec<u8>) {
        if !self.refused {
            self.bytes += message.len();
            self.messages.push_back((self.left + replies, message));
        }
    }

    /// The next command has been answered: moves the replies behind it to the output, up to one that has not come, and the messages
    /// between them. Returns the number of replies moved.
    pub(super) fn unpark(&mut self, output: &mut Outgoing) -> u32 {
        // The place of the reply that was just completed.
        self.places.pop_front();
        self.note_left(output);
        let mut count = 0;
        while let Some(&Some(place)) = self.places.front() {
            self.places.pop_front();
            self.move_reply(place, output);
            self.note_left(output);
            count += 1;
        }
        count
    }

    /// Notes that a reply has left, and moves the messages to the output whose turn it is.
    fn note_left(&mut self, output: &mut Outgoing) {
        self.left += 1;
        while let Some((_, message)) = self.messages.pop_front_if(|(behind, _)| *behind <= self.left) {
            self.bytes -= message.len();
            output.tail().extend_from_slice(&message);
            output.close_if_full(message.len());
        }
    }

    fn move_reply(&mut self, place: Place, output: &mut Outgoing) {
        let is_open = place.chunk == self.first + self.chunks.len() - 1;
        let chunk = &mut self.chunks[place.chunk - self.first];
        chunk.replies -= 1;
        let len = place.end - place.start;
        // Empty replies may lie behind it.
        let is_alone = chunk.replies == 0 && place.start == 0 && place.end == chunk.bytes.len();
        self.bytes -= len;
        if is_alone && len >= LARGE_OUTPUT_BYTES {
            output.push_chunk(std::mem::take(&mut chunk.bytes));
        } else {
            output
                .tail()
                .extend_from_slice(&chunk.bytes[place.start..place.end]);
            output.close_if_full(len);
        }
        if chunk.replies == 0 {
            if is_open && chunk.bytes.capacity() <= OUTPUT_KEPT_BYTES {
                chunk.bytes.clear();
            } else {
                chunk.bytes = Vec::new();
            }
        }
        while self.chunks.len() > 1 && self.chunks[0].replies == 0 {
            self.chunks.pop_front();
            self.first += 1;
        }
    }

    /// Whether no reply and no message is parked.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty() && self.messages.is_empty()
    }

    /// Whether it holds more memory than an idle connection keeps.
    pub(super) fn is_large(&self) -> bool {
        self.memory() > OUTPUT_KEPT_BYTES
    }

    /// Bytes of parked replies and messages.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Memory it holds.
    pub(super) fn memory(&self) -> usize {
        let chunks = self.chunks.iter().map(|chunk| chunk.bytes.capacity());
        let messages = self.messages.iter().map(|(_, message)| message.capacity());
        size_of::<Self>() + chunks.sum::<usize>() + messages.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parks a reply of `len` bytes as that of the command `index` places behind the next one.
    fn park(parked: &mut Parked, index: usize, len: usize) {
        parked.make_room(len);
        let tail = parked.tail();
        let start = tail.len();
        tail.resize(start + len, b'x');
        parked.park(index, start);
    }

    #[test]
    fn chunks_go_with_the_last_of_their_replies() {
        const LEN: usize = OUTPUT_CHUNK_BYTES / 4;
        const REPLIES: usize = 400;
        let (mut parked, mut output) = (Parked::default(), Outgoing::default());
        // One reply late in the order is missing, so that those behind it stay.
        for index in (1..REPLIES).filter(|&index| index != REPLIES - 10) {
            park(&mut parked, index, LEN);
        }
        assert!(parked.memory() >= (REPLIES - 10) * LEN);
        assert_eq!(parked.unpark(&mut output), REPLIES as u32 - 11);
        assert_eq!((parked.bytes(), output.len()), (9 * LEN, (REPLIES - 11) * LEN));
        assert!(parked.chunks.len() <= 5, "{} chunks", parked.chunks.len());
        assert!(parked.memory() <= 16 * LEN + 1024, "{} bytes", parked.memory());
    }

    #[test]
    fn the_open_chunk_is_used_again() {
        let (mut parked, mut output) = (Parked::default(), Outgoing::default());
        for _ in 0..500 {
            park(&mut parked, 1, 100);
            assert_eq!(parked.unpark(&mut output), 1);
        }
        assert!(parked.memory() <= 4096, "{} bytes", parked.memory());
    }

    #[test]
    fn a_large_reply_leaves_without_a_copy() {
        let (mut parked, mut output) = (Parked::default(), Outgoing::default());
        park(&mut parked, 1, 10);
        park(&mut parked, 2, LARGE_OUTPUT_BYTES);
        let place = parked.chunks[1].bytes.as_ptr();
        assert_eq!(parked.unpark(&mut output), 2);
        assert_eq!(output.len(), LARGE_OUTPUT_BYTES + 10);
        assert!(output.slices().iter().any(|slice| slice.as_ptr() == place));
    }
}
