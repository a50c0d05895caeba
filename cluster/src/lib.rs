//! Hash slots and cluster decisions as pure functions.
//!
//! | module | subject |
//! |---|---|
//! | [`slot`] | the slot of a key, the shard of a slot, sets of slots |
//! | [`redirect`] | whether a node serves a command, and the redirect for the client if it does not |
//!
//! The crate does no I/O, reads no clock and starts no thread: all its input is in arguments.

#![forbid(unsafe_code)]

pub mod redirect;
pub mod slot;

pub use redirect::{Asker, Endpoint, KeysHere, Owner, Redirect, SlotState, SlotView, Transfer};
pub use slot::{SLOTS, Slot, SlotSet, hash_tag, shard_of, shard_of_key, slot_of};
