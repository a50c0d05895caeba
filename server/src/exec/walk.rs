//! [`Walk`]: the state of one call of a walk over all keys, which moves from shard to shard.

use super::Part;
use super::arguments::{decode_cursor, encode_cursor};
use crate::error::ReplyError;

/// The state of one call of a walk over all keys: its position, and the elements found so far.
#[derive(Debug)]
pub(crate) struct Walk {
    /// Index of the shard that the walk has reached.
    pub(crate) shard: usize,
    /// Cursor within that shard's database; 0 at its beginning, and again behind its end.
    pub(crate) inner: u64,
    /// Number of keys visited.
    pub(crate) seen: u64,
    /// Number of buckets visited.
    pub(crate) buckets: u64,
    /// The call has visited as many keys as COUNT asks for.
    pub(crate) is_full: bool,
    /// The elements found.
    pub(crate) found: Part,
}

impl Walk {
    /// A call that begins at a cursor.
    ///
    /// # Errors
    /// [`ReplyError::InvalidCursor`].
    pub(crate) fn at(cursor: &[u8], shards: usize) -> Result<Self, ReplyError> {
        let (shard, inner) = decode_cursor(cursor, shards)?;
        Ok(Self {
            shard,
            inner,
            seen: 0,
            buckets: 0,
            is_full: false,
            found: Part::default(),
        })
    }

    /// Moves to the next shard; false when this call is finished.
    pub(crate) fn advance(&mut self, shards: usize) -> bool {
        let goes_on = self.inner == 0 && !self.is_full && !self.found.is_cut && self.shard + 1 < shards;
        self.shard += usize::from(goes_on);
        goes_on
    }

    /// The elements found, and the cursor for the next call.
    pub(crate) fn end(self, shards: usize) -> Part {
        let cursor = encode_cursor(self.shard, self.inner, shards);
        Part { cursor, ..self.found }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_goes_on_with_the_next_shard_until_it_is_full() {
        let mut walk = Walk::at(b"1", 3).expect("a cursor");
        assert_eq!((walk.shard, walk.inner), (1, 0));
        assert!(walk.advance(3));
        assert_eq!(walk.shard, 2);
        assert!(!walk.advance(3), "there is no further shard");
        assert_eq!(walk.end(3).cursor, 0);

        let mut walk = Walk::at(b"0", 3).expect("a cursor");
        walk.is_full = true;
        assert!(!walk.advance(3));
        assert_eq!(walk.end(3).cursor, 1, "the next call begins with the next shard");

        let mut walk = Walk::at(b"6", 3).expect("a cursor");
        assert_eq!((walk.shard, walk.inner), (0, 2));
        assert!(!walk.advance(3), "this shard has more");
        assert_eq!(walk.end(3).cursor, 6);
    }
}
