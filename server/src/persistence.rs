//! Data on disk: how it gets there and back.
//!
//! [`load`] reads files into partitions that nobody uses yet, away from the loops.

pub(crate) mod load;
