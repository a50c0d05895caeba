//! [`Audited`]: the part of a row that says what the audit log tells of its command.

use shardis_protocol::Arguments;

use crate::config::AuditEvents;

/// Entry in the audit log of a command that has run.
#[derive(Debug)]
pub(crate) struct Audited {
    /// The kinds of events that a request is; none if it changes nothing that the audit log tells of.
    pub(crate) events: fn(Arguments<'_>) -> AuditEvents,
    /// Tells which arguments are secrets, where the audit log shows more, or less, than the row's `conceals` does.
    pub(crate) conceals: Option<fn(Arguments<'_>, usize) -> bool>,
    /// The user that a login claims to be.
    pub(crate) claims: Option<for<'a> fn(Arguments<'a>) -> &'a [u8]>,
}

impl Audited {
    /// Every request changes users.
    pub(crate) const USERS: Self = Self {
        events: |_| AuditEvents::USERS,
        conceals: None,
        claims: None,
    };

    /// Every request changes the configuration.
    pub(crate) const CONFIG: Self = Self {
        events: |_| AuditEvents::CONFIG,
        ..Self::USERS
    };

    /// Every request changes the topology.
    pub(crate) const TOPOLOGY: Self = Self {
        events: |_| AuditEvents::TOPOLOGY,
        ..Self::USERS
    };
}
