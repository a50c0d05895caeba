//! From a request to its reply: which command it is, whether it may run, where it runs, and running it.
//!
//! [`admission`] decides whether, [`plan`] decides where, [`execution`] runs one command, [`batch`] many on one partition,
//! [`transaction`] what MULTI queued, and [`serve`] those that waited. None of them knows a socket, and none waits.

pub(crate) mod account;
pub(crate) mod admission;
pub(crate) mod batch;
pub(crate) mod execution;
pub(crate) mod plan;
pub(crate) mod serve;
pub(crate) mod transaction;
