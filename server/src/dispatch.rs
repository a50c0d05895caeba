//! From a request to its reply: finds its command, checks whether it may run, decides where, and runs it.
//!
//! [`admission`] checks, with [`rights`] for the rules of users and [`redirect`] for a node of a cluster, [`plan`] decides
//! where, [`execution`] runs one command, [`batch`] many on one partition, [`transaction`] those that MULTI queued,
//! [`script`] those that scripts call, and [`serve`] those that waited, for which [`room`] evicts. [`account`] and
//! [`auditing`] tell logs of commands, [`witness`] what was running in a crash. None of them knows a socket, and none waits.

pub(crate) mod account;
pub(crate) mod admission;
pub(crate) mod auditing;
pub(crate) mod batch;
pub(crate) mod behind_snapshot;
pub(crate) mod execution;
pub(crate) mod plan;
pub(crate) mod redirect;
pub(crate) mod rights;
pub(crate) mod room;
pub(crate) mod script;
pub(crate) mod serve;
pub(crate) mod transaction;
pub(crate) mod witness;
