//! Users, and their rules on commands, keys and channels.
//!
//! A [`User`] has passwords and one or more [`Selector`]s: a request is permitted if one selector permits the command together with
//! all of its keys and channels. Rules are words (`rule.rs`), applied one after the other; what they amount to is printed in a normal
//! form, which has the same effect when it is read again.
//!
//! Nothing here knows rows or requests: a command is a number, which the [`Catalogue`] gives to its name, and keys come with the
//! [`Rights`] that the command needs on them. [`AccessControl`] is what a running node has of all this.

mod commands;
mod control;
mod log;
mod pattern;
mod rule;
mod selector;
mod user;
mod users;

pub(crate) use self::commands::{Catalogue, Known};
pub(crate) use self::control::{AccessControl, RefusalReason};
pub(crate) use self::log::Refusal;
pub(crate) use self::pattern::Rights;
pub(crate) use self::rule::{RuleError, may_be_secret};
pub(crate) use self::selector::{Access, Denied, OnKey, Reason, Selector};
pub(crate) use self::user::{BadRule, User, UserDefaults};
pub(crate) use self::users::{DEFAULT_USER, Users};
