//! The access of a request, as the rules of users look at it: its command, and the keys and channels that it touches.
//!
//! The keys are those that the row's specifications find, the same that route the request: no command can touch another one.

use shardis_protocol::Arguments;
use smallvec::SmallVec;

use super::key_spec::keys_of;
use super::{Channels, Flags, KeyFlags, KeyShape, KeySpec, Registered};
use crate::acl::{Access, Denied, OnKey, Rights, User};
use crate::error::ReplyError;

/// A key of a request: its position, its bytes, the rights that the command needs on it.
type Key<'a> = (usize, &'a [u8], Rights);

/// Channels of a request, with their positions.
type ChannelsOf<'a> = SmallVec<[(usize, &'a [u8]); 4]>;

impl Registered {
    /// Checks a request against the rules of a user.
    ///
    /// # Errors
    /// The word of the request that is denied.
    #[inline]
    pub(crate) fn check_access(&self, user: &User, args: Arguments<'_>) -> Result<(), Denied> {
        self.with_access(user, args, |access| user.check(access))
    }

    /// Whether the rules of a user permit a request on one key at a fixed position.
    #[inline]
    pub(crate) fn permits_on_key(&self, user: &User, args: Arguments<'_>) -> bool {
        let is_plain = self.row.channels == Channels::None && !self.row.flags.contains(Flags::NO_AUTH);
        match (self.keys, self.row.keys) {
            (KeyShape::One(index), [spec]) if is_plain && !spec.is_not_key() => user.permits_on_key(&OnKey {
                command: self.id,
                first_argument: args.get(1),
                key: args.at(usize::from(index)),
                needed: rights(spec.flags_in(args)),
            }),
            _ => self.check_access(user, args).is_ok(),
        }
    }

    /// Checks a request that may read keys which it does not name: its user must be permitted to read all keys with the command.
    ///
    /// # Errors
    /// The error that the command replies with.
    pub(crate) fn check_derivation(&self, user: &User, args: Arguments<'_>) -> Result<(), ReplyError> {
        let Some(derivation) = self.row.keys.iter().find_map(KeySpec::derivation) else {
            return Ok(());
        };
        let checked = self.with_access(user, args, |access| {
            user.check(&Access {
                reads_other_keys: true,
                ..*access
            })
        });
        checked.or_else(|_| (derivation.check)(args))
    }

    /// Calls `check` with a request as rules look at it.
    #[inline]
    fn with_access<R>(&self, user: &User, args: Arguments<'_>, check: impl FnOnce(&Access<'_>) -> R) -> R {
        let keys = match self.keys {
            KeyShape::One(index) => one_key(&self.row.keys[0], usize::from(index), args),
            KeyShape::General if !user.permits_all_keys() => all_keys(self.row.keys, args),
            KeyShape::None | KeyShape::General => SmallVec::new(),
        };
        let channels: ChannelsOf<'_> = self
            .row
            .channels
            .positions(args)
            .map(|position| (position, args.at(position)))
            .collect();
        check(&Access {
            command: self.id,
            is_open: self.row.flags.contains(Flags::NO_AUTH),
            first_argument: args.get(1),
            keys: &keys,
            reads_other_keys: false,
            channels: &channels,
            are_patterns: self.row.channels == Channels::Patterns,
        })
    }
}

/// The key of a request that has one at a fixed position, unless the argument there is only routed like a key.
#[inline]
fn one_key<'a>(spec: &KeySpec, index: usize, args: Arguments<'a>) -> SmallVec<[Key<'a>; 8]> {
    let mut keys = SmallVec::new();
    if !spec.is_not_key() {
        keys.push((index, args.at(index), rights(spec.flags_in(args))));
    }
    keys
}

/// All keys that a request names. None if their number is wrong: the command then fails by itself.
fn all_keys<'a>(specs: &'static [KeySpec], args: Arguments<'a>) -> SmallVec<[Key<'a>; 8]> {
    let mut keys = SmallVec::new();
    let found = keys_of(specs, args, |position, flags| {
        if !flags.contains(KeyFlags::NOT_KEY) {
            keys.push((position, args.at(position), rights(flags)));
        }
    });
    if found.is_err() {
        keys.clear();
    }
    keys
}

/// The rights that a command needs on a key which it uses in this way.
#[inline]
fn rights(flags: KeyFlags) -> Rights {
    let mut rights = Rights::empty();
    rights.set(Rights::READ, flags.contains(KeyFlags::ACCESS));
    rights.set(
        Rights::WRITE,
        flags.intersects(KeyFlags::INSERT | KeyFlags::DELETE | KeyFlags::UPDATE),
    );
    rights
}
