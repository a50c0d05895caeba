//! [`AccessControl`]: the users of a running node, and its log of refusals.
//!
//! The users are one table that never changes; another one takes its place. Its version is an atomic of its own: the path of a
//! command compares that with the version that its client knows, and looks at the table only after a change.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};

use super::log::{AclLog, Refusal};
use super::{Catalogue, DEFAULT_USER, User, UserDefaults, Users};

/// The users of a running node, and its log of refusals.
#[derive(Debug)]
pub(crate) struct AccessControl {
    catalogue: &'static dyn Catalogue,
    users: ArcSwap<Users>,
    /// Version of the table, stored after the table itself.
    version: AtomicU64,
    /// Held while another table is being made.
    changing: Mutex<()>,
    log: Mutex<AclLog>,
    /// Number of refusals, by [`RefusalReason`]. CONFIG RESETSTAT leaves them alone, as in Redis.
    refusals: [AtomicU64; RefusalReason::ALL.len()],
}

/// The kind of thing that a refusal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusalReason {
    /// A wrong user name or password.
    Auth,
    /// A command.
    Command,
    /// A key.
    Key,
    /// A channel.
    Channel,
    /// The name in a certificate.
    TlsCertificate,
}

impl RefusalReason {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [
        Self::Auth,
        Self::Command,
        Self::Key,
        Self::Channel,
        Self::TlsCertificate,
    ];

    /// Its name in ACL LOG.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Command => "command",
            Self::Key => "key",
            Self::Channel => "channel",
            Self::TlsCertificate => "tls-cert",
        }
    }
}

impl AccessControl {
    /// The access control of a node that begins with these users.
    pub(crate) fn new(users: Users, catalogue: &'static dyn Catalogue) -> Self {
        Self {
            catalogue,
            version: AtomicU64::new(users.version()),
            users: ArcSwap::from_pointee(users),
            changing: Mutex::new(()),
            log: Mutex::default(),
            refusals: [const { AtomicU64::new(0) }; RefusalReason::ALL.len()],
        }
    }

    /// The users as they are now.
    pub(crate) fn users(&self) -> Arc<Users> {
        self.users.load_full()
    }

    /// Version of the users.
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Changes users, unless the change fails: then nothing has changed.
    ///
    /// # Errors
    /// That of the change.
    pub(crate) fn change<T, E>(&self, change: impl FnOnce(&mut Users) -> Result<T, E>) -> Result<T, E> {
        let _held = self.changing.lock();
        let mut users = self.users.load().next();
        let result = change(&mut users)?;
        let version = users.version();
        self.users.store(Arc::new(users));
        self.version.store(version, Ordering::Release);
        Ok(result)
    }

    /// Gives the default user one password, or none: the meaning of `requirepass`.
    pub(crate) fn set_default_password(&self, password: Option<&[u8]>, defaults: UserDefaults) {
        let changed = self.change(|users| {
            let user = with_password(users.default_user(), password, defaults, self.catalogue)?;
            users.set(user);
            Ok::<_, super::BadRule>(())
        });
        changed.expect("a password is no rule that can be wrong");
    }

    /// Counts a refusal, and adds it to the log.
    pub(crate) fn refuse(&self, refusal: Refusal, now_ms: i64, len_max: usize) {
        self.refusals[refusal.reason as usize].fetch_add(1, Ordering::Relaxed);
        self.log.lock().add(refusal, now_ms, len_max);
    }

    /// Number of refusals for a reason.
    pub(crate) fn refused(&self, reason: RefusalReason) -> u64 {
        self.refusals[reason as usize].load(Ordering::Relaxed)
    }

    /// The log of refusals.
    pub(crate) fn log(&self) -> MutexGuard<'_, AclLog> {
        self.log.lock()
    }
}

/// A user with one password, or none.
fn with_password(
    user: &User,
    password: Option<&[u8]>,
    defaults: UserDefaults,
    catalogue: &dyn Catalogue,
) -> Result<User, super::BadRule> {
    let rule = password.map_or_else(|| b"nopass".to_vec(), |password| [b">", password].concat());
    user.with([b"resetpass", &*rule].into_iter(), defaults, catalogue)
}

impl Users {
    /// The users that a node begins with when nothing names any: the default user, with the password of `requirepass`.
    pub(crate) fn initial(
        password: Option<&[u8]>,
        defaults: UserDefaults,
        catalogue: &dyn Catalogue,
    ) -> Self {
        let mut users = Self::new(defaults, catalogue);
        let user = with_password(users.default_user(), password, defaults, catalogue);
        users.set(user.expect("a password is no rule that can be wrong"));
        users
    }

    /// Whether clients must authenticate before they may do anything.
    pub(crate) fn demand_authentication(&self) -> bool {
        !self.default_user().is_open()
    }

    /// Whether a user name may stand in a file, where words are separated by spaces.
    pub(crate) fn is_valid_name(name: &[u8]) -> bool {
        super::pattern::is_valid(name)
    }

    /// Whether this name is that of the user that always exists.
    pub(crate) fn is_default(name: &[u8]) -> bool {
        name == DEFAULT_USER
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::user::tests::{DEFAULTS, Few};

    #[test]
    fn a_change_that_fails_changes_nothing() {
        let control = AccessControl::new(Users::initial(None, DEFAULTS, &Few), &Few);
        let (before, version) = (control.users(), control.version());
        let failed: Result<(), &str> = control.change(|users| {
            users.set(User::new(b"a", DEFAULTS, &Few));
            Err("no")
        });
        assert!(failed.is_err() && Arc::ptr_eq(&before, &control.users()) && version == control.version());
        let done: Result<(), ()> = control.change(|users| {
            users.set(User::new(b"a", DEFAULTS, &Few));
            Ok(())
        });
        assert!(done.is_ok() && control.users().find(b"a").is_some() && control.version() == version + 1);
    }

    #[test]
    fn the_default_user_has_one_password_or_none() {
        let control = AccessControl::new(Users::initial(Some(b"a"), DEFAULTS, &Few), &Few);
        let accepts = |password: &[u8]| control.users().default_user().accepts(password);
        assert!(accepts(b"a") && !accepts(b"b") && control.users().demand_authentication());
        control.set_default_password(Some(b"b"), DEFAULTS);
        assert!(accepts(b"b") && !accepts(b"a"));
        control.set_default_password(None, DEFAULTS);
        assert!(accepts(b"anything") && !control.users().demand_authentication());
    }

    #[test]
    fn refusals_are_counted_by_reason() {
        let control = AccessControl::new(Users::initial(None, DEFAULTS, &Few), &Few);
        let refusal = |reason| Refusal {
            reason,
            context: "toplevel",
            object: b"x".as_slice().into(),
            user: b"u".as_slice().into(),
            client: String::new(),
        };
        control.refuse(refusal(RefusalReason::Key), 0, 10);
        control.refuse(refusal(RefusalReason::Key), 0, 10);
        control.refuse(refusal(RefusalReason::Auth), 0, 10);
        assert_eq!(
            RefusalReason::ALL.map(|reason| control.refused(reason)),
            [1, 0, 2, 0, 0]
        );
        assert_eq!(control.log().entries().len(), 2);
    }
}
