//! [`Identity`]: the user that a client acts as, and what follows from it for the client's requests.

use std::sync::Arc;

use super::client::{Client, Closing};
use crate::acl::{AccessControl, RefusalReason, User, Users};
use crate::limits::REFUSED_BYTES_MAX;
use crate::pubsub::Topic;

/// The user that a client acts as.
#[derive(Debug)]
pub(crate) struct Identity {
    user: Arc<User>,
    /// The client has given a password, or none was needed when it connected.
    has_authenticated: bool,
    standing: Standing,
    /// Version of the users that the other fields correspond to.
    version: u64,
}

/// Checks that a client's requests need because of its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// None: everything is permitted.
    Unrestricted,
    /// The rules of the user decide.
    Restricted,
    /// The client has to authenticate first.
    Unauthenticated,
}

/// Result of taking over a change of the users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// There was none.
    Unchanged,
    /// The user may have other rules.
    Changed,
    /// The user does not exist any more.
    Gone,
}

impl Identity {
    /// The identity of a client that has just connected.
    pub(crate) fn of_new_client(users: &Users) -> Self {
        let user = Arc::clone(users.default_user());
        let mut identity = Self {
            has_authenticated: user.is_open(),
            user,
            standing: Standing::Unauthenticated,
            version: users.version(),
        };
        identity.settle(users);
        identity
    }

    /// The identity of a client that no rule applies to: the primary of this node, whose requests have been checked there.
    pub(crate) fn of_primary(users: &Users) -> Self {
        Self {
            user: Arc::clone(users.default_user()),
            has_authenticated: true,
            standing: Standing::Unrestricted,
            version: users.version(),
        }
    }

    /// The user.
    pub(crate) fn user(&self) -> &Arc<User> {
        &self.user
    }

    /// Checks that the client's requests need.
    #[inline]
    pub(crate) fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether the client has given a password, or needed none when it connected.
    pub(crate) fn has_authenticated(&self) -> bool {
        self.has_authenticated
    }

    /// Has the client act as a user, whose password it has given.
    pub(crate) fn authenticate(&mut self, user: &Arc<User>, users: &Users) {
        self.user = Arc::clone(user);
        self.has_authenticated = true;
        self.settle(users);
    }

    /// Takes over a change of the users, if there was one.
    #[inline]
    pub(crate) fn renew(&mut self, control: &AccessControl) -> Renewal {
        if self.version == control.version() {
            return Renewal::Unchanged;
        }
        self.take_over(&control.users())
    }

    #[cold]
    fn take_over(&mut self, users: &Users) -> Renewal {
        let same = users
            .find(self.user.name())
            .filter(|user| user.id() == self.user.id());
        let renewal = match same {
            Some(user) => {
                self.user = Arc::clone(user);
                Renewal::Changed
            }
            None => {
                self.user = Arc::clone(users.default_user());
                self.has_authenticated = false;
                Renewal::Gone
            }
        };
        self.settle(users);
        renewal
    }

    /// Determines what follows from the user.
    fn settle(&mut self, users: &Users) {
        self.version = users.version();
        self.standing = if !self.has_authenticated && users.demand_authentication() {
            Standing::Unauthenticated
        } else if self.user.is_unrestricted() {
            Standing::Unrestricted
        } else {
            Standing::Restricted
        };
    }
}

/// A request that was refused, until its client's connection enters it into the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The reason.
    pub(crate) reason: RefusalReason,
    /// The command, key or channel that was refused.
    pub(crate) object: Box<[u8]>,
    /// Name of the user.
    pub(crate) user: Box<[u8]>,
    /// Origin of the request: `toplevel`, `multi` or `lua`.
    pub(crate) context: &'static str,
}

impl Client {
    /// Takes over a change of the users, if there was one. A client whose user is gone, or has lost one of the client's channels, is
    /// cut off in this way. False when its connection is to be closed at once.
    #[inline]
    pub(crate) fn follow_users(&mut self, control: &AccessControl, cut_off: Closing) -> bool {
        if !self.is_primary {
            match self.identity.renew(control) {
                Renewal::Unchanged => {}
                Renewal::Changed => self.cut_off_if(Self::has_lost_channels, cut_off),
                Renewal::Gone => self.cut_off_if(|_| true, cut_off),
            }
        }
        self.closing != Closing::Now
    }

    #[cold]
    fn cut_off_if(&mut self, is_due: fn(&Self) -> bool, cut_off: Closing) {
        if self.closing == Closing::No && is_due(self) {
            self.closing = cut_off;
        }
    }

    /// Whether a subscription is one that the user may not have.
    fn has_lost_channels(&self) -> bool {
        let Some(subscriptions) = &self.subscriptions else {
            return false;
        };
        let user = self.identity.user();
        Topic::ALL.iter().any(|&topic| {
            let is_pattern = topic == Topic::Pattern;
            let mut names = subscriptions.of(topic).iter();
            names.any(|name| !user.permits_channel(name, is_pattern))
        })
    }

    /// Notes that a request of the client was refused, for the log.
    #[cold]
    pub(crate) fn note_refusal(&mut self, reason: RefusalReason, object: &[u8], user: Option<&[u8]>) {
        let context = if self.is_in_transaction() {
            "multi"
        } else {
            "toplevel"
        };
        self.note_refusal_in(context, reason, object, user);
    }

    /// Notes that a request of the client was refused, which came from there, for the log.
    pub(crate) fn note_refusal_in(
        &mut self,
        context: &'static str,
        reason: RefusalReason,
        object: &[u8],
        user: Option<&[u8]>,
    ) {
        let user = user.unwrap_or(self.identity.user().name());
        let kept = |text: &[u8]| text[..text.len().min(REFUSED_BYTES_MAX)].into();
        self.refused.push(Refused {
            reason,
            object: kept(object),
            user: kept(user),
            context,
        });
    }
}
