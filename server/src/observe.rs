//! What the node tells about itself.

pub mod process;
pub mod stats;
