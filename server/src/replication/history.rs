//! [`History`]: the ids of the stream that a node's data follows from.
//!
//! Two nodes whose data is at the same offset of the same id have the same data. A node that becomes primary goes on under an id of its
//! own, and remembers the one before it up to the offset of that moment: others that followed the same stream can still continue.

/// The ids of a node's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct History {
    id: String,
    second: Option<Second>,
}

/// An id that the history had before.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Second {
    id: String,
    /// The first byte, counted from 1, that need not be the same any more.
    valid_to: u64,
}

/// The id of no history.
const NO_ID: &str = "0000000000000000000000000000000000000000";

impl History {
    /// The beginning of a history.
    pub(crate) fn new(id: String) -> Self {
        Self { id, second: None }
    }

    /// Its id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The id that it had before; zeros if there is none.
    pub(crate) fn second_id(&self) -> &str {
        self.second.as_ref().map_or(NO_ID, |second| &second.id)
    }

    /// The offset up to which that id is valid; -1 if there is none.
    pub(crate) fn second_offset(&self) -> i64 {
        let second = self.second.as_ref();
        second.map_or(-1, |second| second.valid_to.cast_signed())
    }

    /// Whether the data of another node has become this one, that follows the history `id` and asks for the byte `asked`, counted
    /// from 1, as its next one.
    pub(crate) fn covers(&self, id: &[u8], asked: u64) -> bool {
        let is_second =
            |second: &Second| second.id.as_bytes().eq_ignore_ascii_case(id) && asked <= second.valid_to;
        self.id.as_bytes().eq_ignore_ascii_case(id) || self.second.as_ref().is_some_and(is_second)
    }

    /// Begins another history, of which no other node can have a part.
    pub(crate) fn change(&mut self, fresh: String) {
        *self = Self::new(fresh);
    }

    /// Goes on under a new id: the node becomes a primary at the offset `end`.
    pub(crate) fn fork(&mut self, fresh: String, end: u64) {
        self.rename(fresh, end);
    }

    /// Goes on under the id that the primary has taken; the old one is valid up to the offset `end`.
    pub(crate) fn rename(&mut self, id: String, end: u64) {
        let id = std::mem::replace(&mut self.id, id);
        self.second = Some(Second {
            id,
            valid_to: end + 1,
        });
    }

    /// Takes over the history of a primary, with its data.
    pub(crate) fn take_over(&mut self, id: String) {
        *self = Self::new(id);
    }

    /// Goes on where a file ends that tells the id `id` and the offset `end`, under an id of its own.
    pub(crate) fn resume(&mut self, id: String, end: u64) {
        self.second = Some(Second {
            id,
            valid_to: end + 1,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> String {
        digit.to_string().repeat(40)
    }

    #[test]
    fn a_lone_history() {
        let history = History::new(id('a'));
        assert_eq!((history.second_id(), history.second_offset()), (NO_ID, -1));
        assert!(history.covers(id('a').as_bytes(), 1_000));
        assert!(history.covers(id('A').as_bytes(), 1));
        assert!(
            !history.covers(id('b').as_bytes(), 1)
                && !history.covers(b"?", 1)
                && !history.covers(NO_ID.as_bytes(), 1)
        );
    }

    #[test]
    fn the_id_before_a_promotion_is_valid_up_to_there() {
        let mut history = History::new(id('a'));
        history.fork(id('b'), 100);
        assert_eq!((history.id(), history.second_id()), (&*id('b'), &*id('a')));
        assert_eq!(history.second_offset(), 101);
        // Whoever has all 100 bytes asks for the one behind them.
        assert!(history.covers(id('a').as_bytes(), 101) && !history.covers(id('a').as_bytes(), 102));
        assert!(history.covers(id('b').as_bytes(), 102));
        history.rename(id('c'), 200);
        assert!(!history.covers(id('a').as_bytes(), 1) && history.covers(id('b').as_bytes(), 201));
        history.take_over(id('d'));
        assert_eq!(history, History::new(id('d')));
    }
}
