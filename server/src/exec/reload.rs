//! [`Reload`]: reads the node's files again while a command holds all partitions, for DEBUG. The reader of files is a layer above
//! commands. [`Errand`]: such work, on a thread of its own.

use std::fmt;

use super::CommandResult;
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

/// Work of a command on the partitions of all shards that takes so long that the loop of the connection leaves it to a thread. The
/// command has written no reply: that is OK, or the error.
pub(crate) struct Errand(Box<Work>);

type Work = dyn FnOnce(&Node, &dyn Reload, &mut Held<'_>) -> CommandResult + Send;

impl Errand {
    /// The errand to do this work.
    pub(crate) fn new(
        work: impl FnOnce(&Node, &dyn Reload, &mut Held<'_>) -> CommandResult + Send + 'static,
    ) -> Self {
        Self(Box::new(work))
    }

    /// Does the work.
    ///
    /// # Errors
    /// The error to reply with.
    pub(crate) fn run(self, node: &Node, reload: &dyn Reload, held: &mut Held<'_>) -> CommandResult {
        (self.0)(node, reload, held)
    }
}

impl fmt::Debug for Errand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Errand").finish_non_exhaustive()
    }
}
