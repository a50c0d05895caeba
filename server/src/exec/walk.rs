//! [`Walk`]: one call of a walk over all keys, as it goes from shard to shard.

use super::Part;
use super::arguments::{decode_cursor, encode_cursor};
use crate::error::ReplyError;

/// One call of a walk over all keys: where it has come to, and what it has found so far.
#[derive(Debug)]
pub(crate) struct Walk {
    /// The shard that it has come to.
    pub(crate) shard: usize,
    /// Where in that shard's database; 0 at its beginning, and again behind its end.
    pub(crate) inner: u64,
    /// Keys it has looked at.
    pub(crate) seen: u64,
    /// Buckets of tables it has visited.
    pub(crate) buckets: u64,
    /// It has looked at as much as it was to.
    pub(crate) is_full: bool,
    /// The elements that it has found.
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

    /// Goes on to the next shard; false when this call is over.
    pub(crate) fn advance(&mut self, shards: usize) -> bool {
        let goes_on = self.inner == 0 && !self.is_full && !self.found.is_cut && self.shard + 1 < shards;
        self.shard += usize::from(goes_on);
        goes_on
    }

    /// What was found, and where the next call goes on.
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
