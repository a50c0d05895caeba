//! From a request to its reply: finds its command, checks whether it may run, decides where, and runs it.
//!
//! [`admission`] checks, [`plan`] decides where, [`execution`] runs one command, [`batch`] many on one partition,
//! [`transaction`] those that MULTI queued, and [`serve`] those that waited, for which [`room`] evicts. [`witness`] tells what
//! was running in a crash. None of them knows a socket, and none waits.

pub(crate) mod account;
pub(crate) mod admission;
pub(crate) mod batch;
pub(crate) mod behind_snapshot;
pub(crate) mod execution;
pub(crate) mod plan;
pub(crate) mod room;
pub(crate) mod serve;
pub(crate) mod transaction;
pub(crate) mod witness;
