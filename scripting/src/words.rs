//! [`Words`]: words of a command or a script, in one piece of memory that serves one command after the other.

use shardis_protocol::{Arguments, Span};

use crate::limits::KEPT_BYTES;

/// Words in memory of their own, which is used again.
#[derive(Debug, Default)]
pub struct Words {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

impl Words {
    /// Removes all words.
    #[inline]
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.spans.clear();
        if self.bytes.capacity() > KEPT_BYTES || self.spans.capacity() > KEPT_BYTES {
            self.bytes.shrink_to(KEPT_BYTES);
            self.spans.shrink_to(KEPT_BYTES);
        }
    }

    /// Adds a word. False if it does not fit: it would lie out of the reach of a span.
    #[inline]
    #[must_use]
    pub fn push(&mut self, word: &[u8]) -> bool {
        let Some(span) = Span::new(self.bytes.len(), word.len()) else {
            return false;
        };
        self.spans.push(span);
        self.bytes.extend_from_slice(word);
        true
    }

    /// Replaces all words by others. Those that do not fit are left out.
    pub fn fill<'w>(&mut self, words: impl Iterator<Item = &'w [u8]>) {
        self.clear();
        for word in words {
            if !self.push(word) {
                debug_assert!(false, "words of a request fit within the reach of spans");
                return;
            }
        }
    }

    /// Number of bytes of all words together.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The words.
    #[inline]
    #[must_use]
    pub fn arguments(&self) -> Arguments<'_> {
        Arguments::new(&self.bytes, &self.spans, &[])
    }
}
