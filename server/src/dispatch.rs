//! From a request to its reply: which command it is, whether it may run, where it runs, and running it.
//!
//! [`admission`] decides whether, [`plan`] decides where, [`run`] does it, and [`transaction`] what MULTI queued. None of them knows a socket, and none waits.

pub(crate) mod account;
pub(crate) mod admission;
pub(crate) mod plan;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod transaction;
