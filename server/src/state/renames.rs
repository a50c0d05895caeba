//! [`Renames`]: the names of one node's commands after its `rename-command` lines.

use std::collections::{BTreeSet, HashMap};

/// Names that `rename-command` gave and took away.
#[derive(Debug, Default)]
pub(crate) struct Renames {
    /// The meanings of all names in those lines, in lower case.
    meanings: HashMap<Vec<u8>, Meaning>,
    /// Rows without a name.
    disabled: BTreeSet<u16>,
}

/// Meaning of a name in `rename-command`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The row with this number.
    Row(u16),
    /// None: the name was taken away.
    Nothing,
}

impl Renames {
    /// Whether every command has its own name.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.meanings.is_empty()
    }

    /// The meaning of a name, ignoring case; `None` if it is in no line.
    pub(crate) fn meaning(&self, name: &[u8]) -> Option<Meaning> {
        if self.is_empty() {
            return None;
        }
        self.meanings.get(&name.to_ascii_lowercase()).copied()
    }

    /// Whether a row has no name.
    #[inline]
    pub(crate) fn is_disabled(&self, id: u16) -> bool {
        self.disabled.contains(&id)
    }

    /// Takes a name away from its command, and gives the command a new one; an empty one disables the command.
    pub(crate) fn rename(&mut self, old: &[u8], meaning: Meaning, new: &[u8]) {
        self.meanings.insert(old.to_ascii_lowercase(), Meaning::Nothing);
        if !new.is_empty() {
            self.meanings.insert(new.to_ascii_lowercase(), meaning);
        } else if let Meaning::Row(id) = meaning {
            self.disabled.insert(id);
        }
    }
}
