//! Arithmetic over plain bytes: no keyspace, no commands, no state.

pub mod bitmap;
pub mod geohash;
pub mod hyperloglog;
pub mod lcs;
pub mod lzf;
