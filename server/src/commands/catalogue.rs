//! The commands as rules of users name them, and the users that a configuration names.

use std::path::Path;

use super::registry;
use crate::acl::{AccessControl, BadRule, Catalogue, Known, User, UserDefaults, Users};
use crate::config::{Config, ConfigError, Declaration, Settings};
use crate::spec::{Category, Registered};

/// The commands as rules name them.
#[derive(Debug)]
pub(crate) struct Rows;

impl Catalogue for Rows {
    fn len(&self) -> usize {
        registry().rows()
    }

    fn command(&self, name: &[u8]) -> Option<Known> {
        registry().find(name).map(known)
    }

    fn subcommand(&self, command: &Known, name: &[u8]) -> Option<u16> {
        if command.subcommands.is_empty() {
            return None;
        }
        registry().row(command.id).subcommand(name).map(|row| row.id)
    }

    /// A container in a category brings all of its subcommands, as in Redis.
    fn category(&self, name: &[u8]) -> Option<Vec<u16>> {
        let category = Category::by_name(name)?;
        let is_in = |row: &Registered| row.row.categories().contains(category);
        let mut found = Vec::new();
        for command in registry().all() {
            if is_in(command) {
                found.push(command.id);
            }
            let subcommands = command.subcommands.iter();
            found.extend(
                subcommands
                    .filter(|row| is_in(command) || is_in(row))
                    .map(|row| row.id),
            );
        }
        Some(found)
    }
}

/// A command and its subcommands, which have the numbers behind its own.
fn known(command: &Registered) -> Known {
    let first = command.id + 1;
    let count = u16::try_from(command.subcommands.len()).expect("rows are numbered by 16 bits");
    Known {
        id: command.id,
        subcommands: first..first + count,
    }
}

/// Reason for which the users of a configuration cannot be taken.
#[derive(Debug)]
pub(crate) enum BadUsers {
    /// A line is wrong.
    Line(ConfigError),
    /// There are lines for users, and a file of users as well.
    Both,
    /// The file of users is wrong.
    File(String),
}

/// The access control of a node that is about to start.
///
/// # Errors
/// When the users that the configuration names cannot be taken.
pub(crate) fn access_control(config: &Config) -> Result<AccessControl, BadUsers> {
    let settings = config.settings();
    let defaults = UserDefaults::from(&*settings);
    let mut users = Users::initial(settings.requirepass.get(), defaults, &Rows);
    let file = settings.path(&settings.aclfile);
    if file.is_some() && !config.users().is_empty() {
        return Err(BadUsers::Both);
    }
    for (index, line) in config.users().iter().enumerate() {
        let is_repeated = config.users()[..index]
            .iter()
            .any(|earlier| earlier.args.first() == line.args.first());
        users.set(declared(line, is_repeated, defaults).map_err(BadUsers::Line)?);
    }
    if let Some(file) = file {
        users.take_over(&read(&file, &settings).map_err(BadUsers::File)?);
    }
    Ok(AccessControl::new(users, &Rows))
}

/// The user that a line of the configuration declares.
fn declared(line: &Declaration, is_repeated: bool, defaults: UserDefaults) -> Result<User, ConfigError> {
    let wrong = |word: &[u8], why: &str| {
        line.error(format!(
            "Error in user declaration '{}': {why}",
            String::from_utf8_lossy(word)
        ))
    };
    let (name, rules) = line.args.split_first().ok_or_else(|| wrong(b"", "no name"))?;
    if is_repeated {
        return Err(wrong(
            name,
            "Duplicate user found. A user can only be defined once in config files",
        ));
    }
    if !Users::is_valid_name(name) {
        return Err(wrong(name, "Spaces not allowed in ACL usernames"));
    }
    // The default user exists, and begins with nothing.
    let reset = Users::is_default(name).then_some(&b"reset"[..]);
    User::new(name, defaults, &Rows)
        .with(
            reset.into_iter().chain(rules.iter().map(Vec::as_slice)),
            defaults,
            &Rows,
        )
        .map_err(|bad| match bad {
            BadRule::Word(word, error) => wrong(&word, &error.to_string()),
            BadRule::Unmatched(word) => wrong(&word, "Unmatched parenthesis in selector definition."),
        })
}

/// Reads a file of users.
///
/// # Errors
/// The text with which Redis tells that the file cannot be read, or which of its lines are wrong.
pub(crate) fn read(file: &Path, settings: &Settings) -> Result<Users, String> {
    let text = std::fs::read(file).map_err(|error| {
        let error = crate::error::describe(&error);
        format!("Error loading ACLs, opening file '{}': {error}", file.display())
    })?;
    Users::parse(&text, file, UserDefaults::from(settings), &Rows).map_err(|bad| bad.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(id: u16) -> &'static str {
        &registry().row(id).full_name
    }

    #[test]
    fn subcommands_have_the_numbers_behind_their_container() {
        for command in registry().all() {
            let known = Rows.command(command.row.name.as_bytes()).unwrap();
            assert_eq!(known.id, command.id);
            let ids: Vec<_> = command.subcommands.iter().map(|row| row.id).collect();
            assert_eq!(
                known.subcommands.clone().collect::<Vec<_>>(),
                ids,
                "{}",
                command.full_name
            );
            for row in &command.subcommands {
                assert_eq!(
                    Rows.subcommand(&known, row.row.name.to_ascii_uppercase().as_bytes()),
                    Some(row.id)
                );
            }
        }
        assert!(Rows.command(b"nonsense").is_none());
    }

    #[test]
    fn a_category_has_the_subcommands_of_its_containers() {
        let names = |category: &str| -> Vec<_> {
            Rows.category(category.as_bytes())
                .unwrap()
                .into_iter()
                .map(name_of)
                .collect()
        };
        let dangerous = names("Dangerous");
        assert!(dangerous.contains(&"config|set") && !dangerous.contains(&"config|help"));
        assert!(names("slow").contains(&"config|help") && !names("write").contains(&"get"));
        assert!(Rows.category(b"nonsense").is_none());
    }
}
