//! [`Reload`]: reads the node's files again while a command holds all partitions, for DEBUG. The reader of files is a layer above
//! commands.

use std::fmt;

use super::view::Held;
use crate::state::Node;

/// Treatment of the data that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reloading {
    /// The data stays; else the file's replaces it.
    pub(crate) keeps: bool,
    /// Keys that are there already, or twice in the file, are replaced; else they are an error.
    pub(crate) merges: bool,
}

/// Reader of the node's files.
pub(crate) trait Reload: fmt::Debug + Send + Sync {
    /// Loads the snapshot file that the directives name into the partitions of all shards. After an error, which is logged, these
    /// are as before.
    ///
    /// # Errors
    /// The reason, as it was logged.
    fn snapshot(&self, node: &Node, held: &mut Held<'_>, how: Reloading) -> Result<(), String>;

    /// Replaces the data in the partitions of all shards by that of the append-only file. After an error, which is logged, these
    /// are as before.
    ///
    /// # Errors
    /// The reason, as it was logged.
    fn append_only(&self, node: &Node, held: &mut Held<'_>) -> Result<(), String>;
}
