//! The harness behind the integration tests: servers as child processes, a client that shows every byte of a
//! reply, and the engines that set a shardis server beside a real redis-server.
//!
//! * [`process`] starts and stops programs; [`node`] and [`redis`] know which ones.
//! * [`client`] speaks to them and [`reply`] is what comes back, as it was on the wire; [`loops`] connects to a chosen loop.
//! * [`tls`] makes certificates, and has clients speak TLS.
//! * [`info`] reads what a server says about itself, [`procfs`] what the kernel says about it; [`wait`] waits for either.
//! * [`novelty`] lists the intended differences from the references; [`diff`] compares two replies under a rule, and
//!   [`score`] doubles in the notations of several versions; [`dialogue`] reads and runs the files of `cases/`.
//! * [`generate`] makes random commands and [`duel`] plays them; [`history`] records what concurrent clients saw, and
//!   checks it.
//! * [`faults`] makes the files of a server fail, and kills it at a chosen operation; [`crash`] compares what it kept with
//!   what it had promised. [`replication`] has servers follow each other, and [`cluster`] has them form clusters.
//!
//! Nothing here uses code of the server, because an oracle with the same parser would share its faults. Every wait has
//! an end, so that a broken server fails a test instead of hanging it. Functions of the harness panic with a message
//! where a test would: all their callers are tests.

#![expect(
    clippy::disallowed_methods,
    reason = "tests watch real processes, so they use the real clock"
)]

pub mod client;
pub mod cluster;
pub mod crash;
pub mod dialogue;
pub mod diff;
pub mod duel;
pub mod faults;
pub mod generate;
pub mod history;
pub mod info;
pub mod loops;
pub mod node;
pub mod novelty;
pub mod process;
pub mod procfs;
pub mod redis;
pub mod replication;
pub mod reply;
pub mod score;
pub mod slot;
pub mod stress;
pub mod tls;
pub mod wait;
