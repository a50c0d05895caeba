//! Replication, observed from outside: servers of several kinds that follow each other, writers that never rest, and the question
//! whether all of them have the same data.
//!
//! * [`member`] is one server of any kind: it is started, stopped, killed and started again under one interface.
//! * [`seeder`] writes every type of value, expiries and transactions to a primary until it is told to stop.
//! * [`equality`] waits until offsets are equal, and then compares the data; [`chain`] does all of that for a row of servers, and
//!   [`topology`] for servers that change places.
//! * [`proxy`] stands between a replica and its primary and is a bad network; [`pair`] has one of each.
//! * [`sentinels`] are real Sentinels that watch members.

pub mod chain;
pub mod equality;
pub mod member;
pub mod pair;
pub mod proxy;
pub mod seeder;
pub mod sentinels;
pub mod topology;
