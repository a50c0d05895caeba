//! What `rename-command` did to the names of commands of one node.

use std::collections::{BTreeSet, HashMap};

/// Names that `rename-command` gave and took away.
#[derive(Debug, Default)]
pub(crate) struct Renames {
    /// Every name that a line was about, in lower case.
    meanings: HashMap<Vec<u8>, Meaning>,
    /// Rows that have no name any more.
    disabled: BTreeSet<u16>,
}

/// What a name stands for that `rename-command` was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The row with this number.
    Row(u16),
    /// The command of a later version with this number.
    Later(u16),
    /// Nothing: the name was taken away.
    Nothing,
}

impl Renames {
    /// Whether every command has its own name.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.meanings.is_empty()
    }

    /// What a name stands for, in any case; `None` when no line was about it.
    pub(crate) fn meaning(&self, name: &[u8]) -> Option<Meaning> {
        if self.is_empty() {
            return None;
        }
        self.meanings.get(&name.to_ascii_lowercase()).copied()
    }

    /// Whether a row has no name any more.
    #[inline]
    pub(crate) fn is_disabled(&self, id: u16) -> bool {
        self.disabled.contains(&id)
    }

    /// Takes a name away from what it stands for, and gives that a new one; an empty one disables it.
    pub(crate) fn rename(&mut self, old: &[u8], meaning: Meaning, new: &[u8]) {
        self.meanings.insert(old.to_ascii_lowercase(), Meaning::Nothing);
        if !new.is_empty() {
            self.meanings.insert(new.to_ascii_lowercase(), meaning);
        } else if let Meaning::Row(id) = meaning {
            self.disabled.insert(id);
        }
    }
}
