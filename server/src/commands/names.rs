//! Look-up of commands by the names that a node's configuration gives them.
//!
//! `rename-command` changes the name that a client has to send. Like in Redis, the output of COMMAND, statistics and
//! errors keep the name of the row.

use super::registry;
use crate::spec::Registered;
use crate::state::{Meaning, Renames};

/// The command of a name, ignoring case.
#[inline]
pub(crate) fn find(name: &[u8], renames: &Renames) -> Option<&'static Registered> {
    if renames.is_empty() {
        return registry().find(name);
    }
    match renames.meaning(name) {
        None => registry().find(name),
        Some(Meaning::Row(id)) => Some(registry().row(id)),
        Some(Meaning::Nothing) => None,
    }
}

/// The command of a full name: `get`, `client|id`.
pub(crate) fn find_full(name: &[u8], renames: &Renames) -> Option<&'static Registered> {
    let mut words = name.split(|&byte| byte == b'|');
    let command = find(words.next()?, renames)?;
    match (words.next(), words.next()) {
        (None, _) => Some(command),
        (Some(word), None) => command.subcommand(word),
        _ => None,
    }
}

/// The top-level commands that clients can reach by a name, in the order of the families.
pub(crate) fn all(renames: &Renames) -> impl Iterator<Item = &'static Registered> {
    registry()
        .all()
        .iter()
        .copied()
        .filter(|command| !renames.is_disabled(command.id))
}

/// Applies one line of `rename-command`.
///
/// # Errors
/// The fault of the line, in the words of Redis.
pub(crate) fn rename(renames: &mut Renames, old: &[u8], new: &[u8]) -> Result<(), &'static str> {
    let meaning = meaning(old, renames).ok_or("No such command in rename-command")?;
    if !new.is_empty() && self::meaning(new, renames).is_some() {
        return Err("Target command name already exists");
    }
    renames.rename(old, meaning, new);
    Ok(())
}

/// The command that a name means now; `None` when the name is free.
fn meaning(name: &[u8], renames: &Renames) -> Option<Meaning> {
    match renames.meaning(name) {
        Some(Meaning::Nothing) => None,
        Some(meaning) => Some(meaning),
        None => registry().find(name).map(|command| Meaning::Row(command.id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renamed(lines: &[(&str, &str)]) -> Renames {
        let mut renames = Renames::default();
        for (old, new) in lines {
            rename(&mut renames, old.as_bytes(), new.as_bytes()).unwrap();
        }
        renames
    }

    fn name(given: &str, renames: &Renames) -> Option<&'static str> {
        find_full(given.as_bytes(), renames).map(|command| command.full_name.as_str())
    }

    #[test]
    fn a_new_name_replaces_the_old_one() {
        let renames = renamed(&[
            ("GET", "hole"),
            ("Set", ""),
            ("client", "KRANT"),
            ("hole", "fetch"),
        ]);
        for (given, found) in [
            ("get", None),
            ("hole", None),
            ("Fetch", Some("get")),
            ("set", None),
            ("krant|id", Some("client|id")),
            ("client|id", None),
            ("krant|id|x", None),
            ("mget", Some("mget")),
        ] {
            assert_eq!(name(given, &renames), found, "{given}");
        }
        let listed: Vec<_> = all(&renames).map(|command| command.full_name.as_str()).collect();
        assert!(listed.contains(&"get") && listed.contains(&"client") && !listed.contains(&"set"));
    }

    #[test]
    fn a_name_may_be_given_once() {
        let mut renames = renamed(&[("get", "hole"), ("eval", "run"), ("restore", "")]);
        for (old, new, error) in [
            ("get", "x", "No such command in rename-command"),
            ("nonsense", "x", "No such command in rename-command"),
            ("restore", "x", "No such command in rename-command"),
            ("client|id", "x", "No such command in rename-command"),
            ("mget", "hole", "Target command name already exists"),
            ("mget", "MGET", "Target command name already exists"),
            ("mget", "run", "Target command name already exists"),
            ("mget", "evalsha", "Target command name already exists"),
        ] {
            assert_eq!(
                rename(&mut renames, old.as_bytes(), new.as_bytes()),
                Err(error),
                "{old} {new}"
            );
        }
        // A name that was taken away is free again.
        assert_eq!(rename(&mut renames, b"mget", b"get"), Ok(()));
        assert_eq!(rename(&mut renames, b"set", b"restore"), Ok(()));
        assert_eq!(
            (name("get", &renames), name("restore", &renames)),
            (Some("mget"), Some("set"))
        );
    }
}
