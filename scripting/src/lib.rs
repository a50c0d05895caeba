//! Scripts and functions: Lua 5.1 as Redis offers it, without a server.
//!
//! | module | subject |
//! |---|---|
//! | [`engine`] | an interpreter: compiles and runs scripts and functions, and writes their replies |
//! | [`host`] | the server, as a script sees it: runs commands, logs, says whether the script goes on |
//! | [`cache`] | the scripts that a node knows, by their digests |
//! | [`functions`] | the function libraries of a node, and their form in DUMP and snapshots |
//! | [`shebang`] | the first line of a script or library |
//! | [`error`] | error texts |
//! | [`words`] | words of a command in memory that is used again |
//! | [`limits`] | every bound of the above, named |
//!
//! The crate does no I/O, reads no clock and starts no thread. It knows no keys, shards or connections: whatever a
//! script does beyond its own values goes through [`Host`].
//!
//! A script cannot reach what other scripts see or leave anything behind, cannot use more memory than the engine has,
//! and cannot go on once the host has stopped it. Code is text only. Library functions whose time grows faster than
//! their input ask the host as often as the interpreter does, and nothing that a script can nest is followed by recursion
//! without a bound. Work on one very long string, such as to join two, is a single step.
//!
//! Scripts see what they would see in Redis 7, but for this:
//! - `string.dump` is missing, and `unpack` returns fewer than 7500 values ([`limits::UNPACKED_MAX`]), not up to 8000;
//! - what a script sets with `cjson.encode_max_depth` and its kin, or with `collectgarbage`, holds until it ends;
//! - the depth of patterns, replies and encoded tables has bounds ([`limits`]) where Redis runs into those of its stack or
//!   its memory;
//! - an error of `next`, `pairs`, `rawset`, `setmetatable`, `unpack`, `table.concat`, `table.insert` or `table.sort`, raised
//!   in the call by which a function returns (`return unpack(t)`), does not name the line: that function is gone by then.

//!
//! `unsafe` code is in `engine/stack.rs`, whose header has its rules, `engine/stack/call.rs` and `engine/stack/launch.rs`, and nowhere
//! else.

#![deny(unsafe_code)]

pub mod cache;
pub mod engine;
pub mod error;
pub mod functions;
pub mod host;
mod library;
pub mod limits;
mod number;
pub mod shebang;
pub mod words;

pub use cache::{CacheStats, Cached, Digest, Origin, Script, ScriptCache};
pub use engine::{Engine, FunctionRow, Options, Outcome, Release, Version};
pub use error::{HeaderError, LoadError};
pub use functions::{Functions, FunctionsError, FunctionsStats, Library, RestorePolicy};
pub use host::{Host, LogLevel, Stop, Targets, Verdict};
pub use shebang::{FLAG_NAMES, Flags};
pub use words::Words;
