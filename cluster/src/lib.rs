//! Hash slots, and what one node of a cluster believes and decides.
//!
//! | module | subject |
//! |---|---|
//! | [`slot`] | the slot of a key, the shard of a slot, sets of slots |
//! | [`redirect`] | whether a node serves a command, and the redirect for the client if it does not |
//! | [`machine`] | a node as a state machine: `(now, event) → actions` |
//! | [`event`] | the vocabulary of the machine: events, commands, actions, directives |
//! | [`node`] | a node as others see it |
//! | [`view`] | the nodes and the owners of slots, as one node believes; reports of them for clients |
//! | [`wire`] | packets of the bus, as Redis 7 sends them |
//! | [`nodes_file`] | the file in which a node keeps its view |
//!
//! The crate does no I/O, reads no clock and starts no thread: all its input, randomness too, is in arguments. What a
//! peer sends never makes it panic and never makes it allocate more than the peer has sent.
//!
//! The server drives a machine from one task. It brings a tick every [`event::TICK_MS`], each packet, the ups and downs
//! of connections, commands of clients and facts about itself, and carries out the actions in order. Three things keep
//! a cluster safe, and they are the server's part: a save that is durable ends before the next action begins; a node
//! whose file cannot be saved stops; and a node that did not run for a while ([`Machine::is_stale`]) serves nobody
//! before its next tick.

#![forbid(unsafe_code)]

pub mod event;
pub mod machine;
pub mod node;
pub mod nodes_file;
pub mod redirect;
pub mod slot;
pub mod view;
pub mod wire;

pub use machine::Machine;
pub use redirect::{Asker, Endpoint, KeysHere, Owner, Redirect, SlotState, SlotView, Transfer};
pub use slot::{SLOTS, Slot, SlotSet, hash_tag, shard_of, shard_of_key, slot_of};
