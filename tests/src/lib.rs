//! The harness behind the integration tests: servers as child processes, a client that shows every byte of a
//! reply, and the engines that set a shardis server beside a real redis-server.
//!
//! * [`process`] starts and stops programs; [`node`] and [`redis`] know which ones.
//! * [`client`] speaks to them and [`reply`] is what comes back, as it was on the wire; [`loops`] connects to a chosen loop.
//! * [`info`] reads what a server says about itself, [`procfs`] what the kernel says about it; [`wait`] waits for either.
//! * [`novelty`] lists in what the references rightly differ; [`diff`] compares two replies under a rule ([`score`] knows how doubles were printed); [`dialogue`] reads and runs the files of `cases/`;
//!   [`generate`] makes random commands and [`duel`] plays them; [`history`] records what concurrent clients saw and judges it.
//!
//! Nothing here uses code of the server: an oracle that shares the defendant's parser proves little. Every wait
//! has an end, so that a broken server fails a test and never hangs it. The harness panics where a test would:
//! its callers are tests, and a message that says what went wrong is what they would make of an error anyhow.

#![expect(
    clippy::disallowed_methods,
    reason = "tests watch real processes, so they use the real clock"
)]

pub mod client;
pub mod dialogue;
pub mod diff;
pub mod duel;
pub mod generate;
pub mod history;
pub mod info;
pub mod loops;
pub mod node;
pub mod novelty;
pub mod process;
pub mod procfs;
pub mod redis;
pub mod reply;
pub mod score;
pub mod slot;
pub mod stress;
pub mod wait;
