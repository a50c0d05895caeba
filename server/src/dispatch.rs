//! From a request to its reply: which command it is, whether it may run, where it runs, and running it.
//!
//! [`admission`] decides whether, [`plan`] decides where, [`run`] does it, and [`transaction`] what MULTI queued. None of them knows a socket, and none waits.

pub mod admission;
pub mod plan;
pub mod run;
pub mod transaction;
