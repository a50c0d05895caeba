//! The keyspace of one owner: table, entries, values, expiry, memory accounting.
//!
//! A [`keyspace::Keyspace`] is the front door: the databases of one shard. It has one owner at a time, is
//! [`Send`], and does no I/O, starts no thread and reads no clock: time and randomness are arguments.
//!
//! All its memory is allocated through [`memory`], which counts the allocations of each thread, so that a shard's
//! memory is known and not estimated.
//!
//! `unsafe` code is in these files and no others. Each states its invariants in its header and has a safe interface.
//!
//! | file | why |
//! |---|---|
//! | `memory.rs`, `memory/global.rs` | the allocator, and what it counts |
//! | `memory/compact.rs`, `memory/compact_vec.rs`, `memory/boxed.rs` | buffers, vectors and boxes that know their bytes |
//! | `entry.rs` | a key and its value in one allocation |
//! | `element.rs` | a member, field or score in one allocation |
//! | `table.rs`, `table/raw.rs` | buckets of tagged pointers, and what may be put there |
//! | `keyspace/store.rs` | who owns an entry and who merely points at it |
//! | `keyspace/calendar.rs` | pointers to entries, by when these expire |
//! | `encoding/member_table.rs` | a table that owns its elements |
//! | `encoding/scored_table.rs`, `value/hash/table.rs` | elements of such a table, in an order as well |

pub mod algorithm;
pub mod commands;
pub mod element;
pub mod encoding;
pub mod entry;
pub mod glob;
pub mod key;
pub mod keyspace;
pub mod memory;
pub mod number;
pub mod rdb;
mod release;
pub mod table;
pub mod value;
mod window;
