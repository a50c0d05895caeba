//! The keyspace of one owner: table, entries, values, expiry, memory accounting.

pub mod algorithm;
pub mod glob;
pub mod number;
