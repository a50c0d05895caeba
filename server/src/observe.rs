//! What the node tells about itself.

pub(crate) mod process;
pub(crate) mod stats;
