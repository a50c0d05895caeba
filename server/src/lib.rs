//! shardis: a Redis-compatible, sharded, in-memory server.
//!
//! As a library it runs inside another program: see [`Server::builder`]. As a program it is `shardis-server`, whose
//! start is in [`program`].
//!
//! The map, from the outside in: [`builder`] and [`node`] start and stop; `links` are those to other nodes; `event_loop` is the work of each shard's
//! thread; `connection` holds a client's input and output; `dispatch` decides whether, where and how a command runs;
//! `commands` are the commands; `shard` has the parts that loops are made of; `spec` declares commands, and `exec` is
//! what their handlers get; the rest are leaves. Arrows between them point downwards in this order.

#![deny(unsafe_code)]

pub mod builder;
pub mod config;
pub mod node;
pub mod program;

mod acl;
mod append_only;
mod audit;
mod bus;
mod clock;
mod cluster;
mod commands;
mod connection;
mod control;
mod daemon;
mod dispatch;
mod error;
mod event_loop;
mod exec;
mod feed;
mod hashing;
mod journal;
mod limits;
mod links;
mod loading;
mod log;
mod machine;
mod observe;
mod pubsub;
mod replication;
mod saving;
mod scripting;
mod shard;
mod spec;
mod state;
mod tls;
mod tracking;

pub use builder::cluster::{Cluster, ClusterBuilder, ClusterError, ClusterNode};
pub use builder::{BuildError, Builder, EffectReceiver, Server, TlsAuthority, TlsIdentity};
pub use exec::{Effect, KeyspaceEvent};
pub use feed::SlowListener;
pub use loading::LoadError;
pub use node::StartError;

/// The examples of the README, which are run as tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
