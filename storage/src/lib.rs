//! The keyspace of one owner: table, entries, values, expiry, memory accounting.
//!
//! A [`keyspace::Keyspace`] is the front door: the databases of one shard. It has one owner at a time, is
//! [`Send`], and does no I/O, starts no thread and reads no clock: time and randomness are arguments.
//!
//! Everything it holds is allocated through [`memory`], which counts what each thread takes and gives back, so
//! that a shard's memory is known and not estimated.
//!
//! `unsafe` lives in [`memory`] (the allocator), [`entry`] (one key and its value in one allocation), `table::raw`
//! (buckets of tagged pointers) and `keyspace::store` (who owns an entry and who merely points at it). Each states
//! its invariants in its header and offers a safe face to the rest.

pub mod algorithm;
pub mod element;
pub mod encoding;
pub mod entry;
pub mod glob;
pub mod key;
pub mod keyspace;
pub mod memory;
pub mod number;
mod release;
pub mod table;
pub mod value;
