//! Figures and records that the node keeps about itself.

pub(crate) mod errors;
pub(crate) mod histogram;
pub(crate) mod latency;
pub(crate) mod monitor;
pub(crate) mod process;
pub(crate) mod slowlog;
pub(crate) mod sparkline;
pub(crate) mod stats;
pub(crate) mod threads;
