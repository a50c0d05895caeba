//! Commands of Redis that a later version of this program will have.
//!
//! They have no rows: a request for one gets the error for an unknown command, and COMMAND does not list them. But
//! `rename-command` must know their names, so that a configuration written for Redis is accepted now and has the same
//! meaning later; and COMMAND GETKEYS, which runs nothing, can find the keys of a request for another server.

use shardis_protocol::Arguments;

use crate::exec::arguments::is;
use crate::spec::{Arity, KeySpec};

/// A command of which only the name and the shape of its requests are known.
#[derive(Debug)]
pub(crate) struct Later {
    /// Lower-case name.
    pub(crate) name: &'static str,
    /// Number of words of a request.
    pub(crate) arity: Arity,
    /// Specifications of its keys.
    pub(crate) keys: &'static [KeySpec],
    /// A request may have no keys despite the key specifications.
    pub(crate) keys_are_optional: bool,
}

/// All of these commands, by name.
pub(crate) static LATER: &[Later] = &[
    without_keys("acl", Arity::AtLeast(2)),
    script("eval", WRITTEN_BY_SCRIPT),
    script("eval_ro", READ_BY_SCRIPT),
    script("evalsha", WRITTEN_BY_SCRIPT),
    script("evalsha_ro", READ_BY_SCRIPT),
    without_keys("failover", Arity::AtLeast(1)),
    script("fcall", WRITTEN_BY_SCRIPT),
    script("fcall_ro", READ_BY_SCRIPT),
    without_keys("function", Arity::AtLeast(2)),
    with_keys("migrate", Arity::AtLeast(6), MIGRATED),
    without_keys("psync", Arity::AtLeast(3)),
    without_keys("replconf", Arity::AtLeast(1)),
    without_keys("replicaof", Arity::Exactly(3)),
    with_keys("restore-asking", Arity::AtLeast(4), RESTORED),
    without_keys("script", Arity::AtLeast(2)),
    without_keys("slaveof", Arity::Exactly(3)),
    without_keys("sync", Arity::Exactly(1)),
];

const RESTORED: &[KeySpec] = &[KeySpec::at(1).overwrite().update()];

const READ_BY_SCRIPT: &[KeySpec] = &[KeySpec::counted(2).read_only().access()];

/// Keys of a script. Its access to them is unknown, so that the most far-reaching one is assumed.
const WRITTEN_BY_SCRIPT: &[KeySpec] = &[KeySpec::counted(2).read_write().access().update()];

const MIGRATED: &[KeySpec] = &[
    KeySpec::at(3)
        .read_write()
        .access()
        .delete()
        .located(single_migrated_key),
    KeySpec::after("KEYS", -2)
        .range(-1, 1, 0)
        .read_write()
        .access()
        .delete()
        .incomplete(),
];

/// Index of the single key of MIGRATE. That argument is empty if several keys follow the word KEYS.
fn single_migrated_key(args: Arguments<'_>) -> Option<usize> {
    let has_several = args.at(3).is_empty() && args.tail(6).iter().any(|word| is(word, "KEYS"));
    (!has_several).then_some(3)
}

const fn with_keys(name: &'static str, arity: Arity, keys: &'static [KeySpec]) -> Later {
    Later {
        name,
        arity,
        keys,
        keys_are_optional: false,
    }
}

const fn without_keys(name: &'static str, arity: Arity) -> Later {
    with_keys(name, arity, &[])
}

/// A command that runs a script or function: argument 2 is the number of its keys, which may be zero.
const fn script(name: &'static str, keys: &'static [KeySpec]) -> Later {
    Later {
        keys_are_optional: true,
        ..with_keys(name, Arity::AtLeast(3), keys)
    }
}

/// The number of the command of that name, ignoring case.
pub(crate) fn find(name: &[u8]) -> Option<u16> {
    let index = LATER
        .iter()
        .position(|later| later.name.as_bytes().eq_ignore_ascii_case(name))?;
    u16::try_from(index).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::registry;

    #[test]
    fn what_has_come_is_no_longer_to_come() {
        for later in LATER {
            assert!(
                registry().find(later.name.as_bytes()).is_none(),
                "{} is a row now: remove it here",
                later.name
            );
        }
        assert!(LATER.is_sorted_by_key(|later| later.name));
    }
}
