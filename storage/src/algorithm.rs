//! Arithmetic over plain bytes: no keyspace, no commands, no state.

pub mod bitmap;
pub mod lcs;
pub mod lzf;
