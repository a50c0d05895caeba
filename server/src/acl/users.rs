//! [`Users`]: all users of a node, and the file that keeps them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use super::user::Fault;
use super::{Catalogue, RuleError, User, UserDefaults};

/// Name of the user that a connection begins as.
pub(crate) const DEFAULT_USER: &[u8] = b"default";

/// All users, by name. There is always a default user. A table never changes: another one takes its place.
#[derive(Clone, Debug)]
pub(crate) struct Users {
    by_name: BTreeMap<Box<[u8]>, Arc<User>>,
    /// Number of users that have been added so far, removed ones included.
    added: u64,
    /// Number of tables whose place this one has taken.
    version: u64,
}

/// Reasons for which a file is not loaded, one behind the other, as ACL LOAD shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadFile(String);

impl std::fmt::Display for BadFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}WARNING: ACL errors detected, no change to the previously active ACL rules was performed",
            self.0
        )
    }
}

impl Users {
    /// The default user alone, who may do everything without a password.
    ///
    /// # Panics
    /// Never: its rules are right.
    pub(crate) fn new(defaults: UserDefaults, catalogue: &dyn Catalogue) -> Self {
        let mut users = Self {
            by_name: BTreeMap::new(),
            added: 0,
            version: 0,
        };
        let rules = ["on", "nopass", "allkeys", "allchannels", "allcommands"];
        let user = User::new(DEFAULT_USER, defaults, catalogue).with(
            rules.iter().map(|rule| rule.as_bytes()),
            defaults,
            catalogue,
        );
        users.set(user.expect("these rules go together"));
        users
    }

    /// The user of a name.
    pub(crate) fn find(&self, name: &[u8]) -> Option<&Arc<User>> {
        self.by_name.get(name)
    }

    /// The user that a connection begins as.
    ///
    /// # Panics
    /// Never: there is always a default user.
    pub(crate) fn default_user(&self) -> &Arc<User> {
        self.find(DEFAULT_USER).expect("there is always a default user")
    }

    /// Number of tables whose place this one has taken.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The table that is to take the place of this one, still equal to it.
    pub(super) fn next(&self) -> Self {
        Self {
            version: self.version + 1,
            ..self.clone()
        }
    }

    /// Adds a user, or puts it in the place of the one with its name.
    pub(crate) fn set(&mut self, user: User) {
        let id = match self.find(user.name()) {
            Some(known) => known.id(),
            None => {
                self.added += 1;
                self.added
            }
        };
        self.by_name
            .insert(user.name().into(), Arc::new(user.with_id(id)));
    }

    /// Takes over all users of another table, and no others. A user stays the same one if its name does.
    pub(crate) fn take_over(&mut self, other: &Self) {
        self.by_name.retain(|name, _| other.by_name.contains_key(name));
        for user in other.all() {
            self.set(User::clone(user));
        }
    }

    /// Removes a user; false if there is none of this name.
    pub(crate) fn remove(&mut self, name: &[u8]) -> bool {
        debug_assert!(name != DEFAULT_USER, "there is always a default user");
        self.by_name.remove(name).is_some()
    }

    /// All users, in the order of their names.
    pub(crate) fn all(&self) -> impl ExactSizeIterator<Item = &Arc<User>> {
        self.by_name.values()
    }

    /// The users that a file names, and the default user if it does not. `path` is for the messages.
    ///
    /// # Errors
    /// When a line of it is wrong: then all wrong lines are told.
    pub(crate) fn parse(
        text: &[u8],
        path: &Path,
        defaults: UserDefaults,
        catalogue: &dyn Catalogue,
    ) -> Result<Self, BadFile> {
        let mut users = Self::new(defaults, catalogue);
        let mut faults = String::new();
        let mut named: Vec<&[u8]> = Vec::new();
        for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
            let (place, line) = (format!("{}:{}", path.display(), index + 1), line.trim_ascii());
            if line.is_empty() {
                continue;
            }
            let mut words = line.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
            let (Some(b"user"), Some(name)) = (words.next(), words.next()) else {
                let _ = write!(
                    faults,
                    "{place} should start with user keyword followed by the username. "
                );
                continue;
            };
            if named.contains(&name) {
                let _ = write!(
                    faults,
                    "WARNING: Duplicate user '{}' found on line {}. ",
                    name.escape_ascii(),
                    index + 1
                );
                continue;
            }
            named.push(name);
            match User::new(name, defaults, catalogue).with_all(words, defaults, catalogue) {
                Ok((user, wrong)) => {
                    describe(&wrong, &place, &mut faults);
                    users.set(user);
                }
                Err(_) => {
                    let _ = write!(faults, "{place}: Unmatched parenthesis in selector definition.");
                }
            }
        }
        if faults.is_empty() {
            Ok(users)
        } else {
            Err(BadFile(faults))
        }
    }

    /// The text of a file that names all users.
    pub(crate) fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        for user in self.all() {
            text.extend_from_slice(&user.describe());
            text.push(b'\n');
        }
        text
    }
}

/// Tells the rules of a line that cannot be applied: all that name unknown commands, and the first of the others, without its
/// words, which may be secret.
fn describe(wrong: &[Fault], place: &str, faults: &mut String) {
    let mut is_told = false;
    for (word, error) in wrong {
        // Writing to a string does not fail.
        if *error == RuleError::UnknownCommand {
            let word = word.escape_ascii();
            let _ = write!(faults, "{place}: Error in applying operation '{word}': {error}. ");
        } else if !std::mem::replace(&mut is_told, true) {
            let _ = write!(faults, "{place}: {error}. ");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::user::tests::{DEFAULTS, Few};

    fn parse(text: &str) -> Result<Users, String> {
        Users::parse(text.as_bytes(), Path::new("/a"), DEFAULTS, &Few).map_err(|bad| bad.to_string())
    }

    #[test]
    fn files_are_read_and_written() {
        let users = parse("\n   \n  user b on +get ~k*\nuser a off (+set ~x)\n").unwrap();
        let text = String::from_utf8(users.text()).unwrap();
        assert_eq!(
            text,
            "user a off resetchannels -@all (~x resetchannels -@all +set)\nuser b on ~k* resetchannels -@all +get\nuser default on \
             nopass ~* &* +@all\n"
        );
        let again = parse(&text).unwrap();
        assert_eq!(again.text(), users.text());
        assert!(
            parse("user default off")
                .unwrap()
                .find(DEFAULT_USER)
                .is_some_and(|user| user.flags().eq(["off"]))
        );
    }

    #[test]
    fn a_user_stays_the_same_one_as_long_as_its_name_stays() {
        let mut users = parse("user a on\nuser b on").unwrap();
        let id = |users: &Users, name: &str| users.find(name.as_bytes()).map(|user| user.id());
        let [a, b] = ["a", "b"].map(|name| id(&users, name).unwrap());
        assert_ne!(a, b);
        users.take_over(&parse("user a off\nuser c on").unwrap());
        assert_eq!([id(&users, "a"), id(&users, "b")], [Some(a), None]);
        assert!(users.find(b"a").is_some_and(|user| user.flags().eq(["off"])));
        users.take_over(&parse("user b on").unwrap());
        assert!(id(&users, "b").is_some_and(|again| again != b));
        assert_eq!(users.all().len(), 2, "and the default user");
    }

    #[test]
    fn all_wrong_lines_are_told_and_none_is_taken() {
        const END: &str =
            "WARNING: ACL errors detected, no change to the previously active ACL rules was performed";
        for (text, expected) in [
            (
                "usr a on\n",
                "/a:1 should start with user keyword followed by the username. ",
            ),
            (
                "user\n",
                "/a:1 should start with user keyword followed by the username. ",
            ),
            (
                "# comment\n",
                "/a:1 should start with user keyword followed by the username. ",
            ),
            (
                "user a on\nuser b foo\nuser c +nosuch\n",
                "/a:2: Syntax error. /a:3: Error in applying operation '+nosuch': Unknown command or category name in ACL. ",
            ),
            (
                "user a on\nuser a off",
                "WARNING: Duplicate user 'a' found on line 2. ",
            ),
            (
                "user a (+get",
                "/a:1: Unmatched parenthesis in selector definition.",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), format!("{expected}{END}"), "{text}");
        }
    }
}
