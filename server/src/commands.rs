//! The list of command families, and look-up by name.

pub(crate) mod acl;
pub(crate) mod append_only;
pub(crate) mod bitmaps;
pub(crate) mod catalogue;
pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod command;
pub(crate) mod config;
pub(crate) mod connection;
pub(crate) mod debug;
pub(crate) mod dump;
pub(crate) mod geo;
pub(crate) mod hash_expiry;
pub(crate) mod hashes;
pub(crate) mod hyperloglog;
pub(crate) mod info;
pub(crate) mod keys;
pub(crate) mod latency;
pub(crate) mod lists;
pub(crate) mod memory;
pub(crate) mod migrate;
pub(crate) mod module;
pub(crate) mod monitor;
pub(crate) mod names;
pub(crate) mod object;
pub(crate) mod persistence;
mod pop;
pub(crate) mod pubsub;
pub(crate) mod replication;
pub(crate) mod scripting;
pub(crate) mod server;
pub(crate) mod sets;
pub(crate) mod slowlog;
pub(crate) mod sort;
pub(crate) mod sorted_sets;
pub(crate) mod streams;
pub(crate) mod strings;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod transactions;
pub(crate) mod wait;

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::spec::{Command, KeyShape, Registered};

/// Every family. The order is that of the registry's numbers.
const FAMILIES: &[&[Command]] = &[
    strings::COMMANDS,
    strings::compare::COMMANDS,
    bitmaps::COMMANDS,
    hyperloglog::COMMANDS,
    sets::COMMANDS,
    hashes::COMMANDS,
    hash_expiry::COMMANDS,
    sorted_sets::COMMANDS,
    sorted_sets::range::COMMANDS,
    sorted_sets::combine::COMMANDS,
    sorted_sets::pop::COMMANDS,
    sorted_sets::walk::COMMANDS,
    sorted_sets::blocking::COMMANDS,
    geo::COMMANDS,
    geo::search::COMMANDS,
    lists::COMMANDS,
    lists::blocking::COMMANDS,
    streams::COMMANDS,
    streams::trim::COMMANDS,
    streams::read::COMMANDS,
    streams::groups::COMMANDS,
    streams::acknowledge::COMMANDS,
    streams::claim::COMMANDS,
    streams::info::COMMANDS,
    sort::COMMANDS,
    keys::COMMANDS,
    dump::COMMANDS,
    migrate::COMMANDS,
    object::COMMANDS,
    connection::COMMANDS,
    client::COMMANDS,
    transactions::COMMANDS,
    scripting::COMMANDS,
    scripting::functions::COMMANDS,
    pubsub::COMMANDS,
    server::COMMANDS,
    command::COMMANDS,
    config::COMMANDS,
    info::COMMANDS,
    memory::COMMANDS,
    slowlog::COMMANDS,
    latency::COMMANDS,
    monitor::COMMANDS,
    debug::COMMANDS,
    cluster::COMMANDS,
    module::COMMANDS,
    replication::COMMANDS,
    wait::COMMANDS,
    persistence::COMMANDS,
    append_only::COMMANDS,
    acl::COMMANDS,
    #[cfg(test)]
    testing::COMMANDS,
];

/// Length of the longest command name that look-up considers, bytes.
const NAME_BYTES_MAX: usize = 32;

/// All commands of this program, by name.
#[derive(Debug)]
pub(crate) struct Registry {
    by_name: HashMap<Box<[u8]>, &'static Registered, foldhash::fast::FixedState>,
    /// All top-level commands, in the order of the families.
    all: Vec<&'static Registered>,
    /// All rows, subcommands included, by their numbers.
    rows: Vec<&'static Registered>,
}

/// The registry. It is built from constants at first use, and never changes.
pub(crate) fn registry() -> &'static Registry {
    static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::build);
    &REGISTRY
}

impl Registry {
    fn build() -> Self {
        let mut registry = Self {
            by_name: HashMap::default(),
            all: Vec::new(),
            rows: Vec::new(),
        };
        let mut next = 0;
        for row in FAMILIES.iter().copied().flatten() {
            // The registry lives as long as the process, so that its rows may be leaked.
            let known: &'static Registered = Box::leak(Box::new(register(row, None, &mut next)));
            registry.by_name.insert(row.name.as_bytes().into(), known);
            registry.all.push(known);
            registry.rows.push(known);
            registry.rows.extend(&known.subcommands);
        }
        registry
    }

    /// The command of that name, ignoring case. Complexity: O(length of the name).
    #[inline]
    pub(crate) fn find(&self, name: &[u8]) -> Option<&'static Registered> {
        let mut lower = [0_u8; NAME_BYTES_MAX];
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        self.by_name.get(&*lower).copied()
    }

    /// All top-level commands.
    pub(crate) fn all(&self) -> &[&'static Registered] {
        &self.all
    }

    /// Number of rows, subcommands included.
    pub(crate) fn rows(&self) -> usize {
        self.rows.len()
    }

    /// The row with this number.
    ///
    /// # Panics
    /// When there is no such row: numbers come from the registry only.
    #[inline]
    pub(crate) fn row(&self, id: u16) -> &'static Registered {
        self.rows[usize::from(id)]
    }
}

fn register(row: &'static Command, parent: Option<&str>, next: &mut usize) -> Registered {
    let full_name = match parent {
        Some(parent) => format!("{parent}|{}", row.name),
        None => row.name.to_owned(),
    };
    let id = u16::try_from(*next).expect("there are far fewer than 65,536 commands");
    *next += 1;
    let subcommands = row
        .subcommands
        .iter()
        .map(|sub| register(sub, Some(row.name), next))
        .collect();
    Registered {
        row,
        id,
        keys: KeyShape::of(row),
        full_name,
        subcommands,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Flags, KeySpec, Runs};

    fn every_row() -> Vec<&'static Registered> {
        registry()
            .all()
            .iter()
            .flat_map(|known| std::iter::once(*known).chain(&known.subcommands))
            .collect()
    }

    #[test]
    fn names_are_unique_and_found_in_any_case() {
        let mut names: Vec<_> = every_row().iter().map(|known| known.full_name.clone()).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        assert_eq!(registry().find(b"GeT").unwrap().row.name, "get");
        assert!(registry().find(b"nonsense").is_none());
        assert!(registry().find(&[b'x'; 100]).is_none());
    }

    #[test]
    fn numbers_find_their_rows() {
        for known in every_row() {
            assert!(
                std::ptr::eq(registry().row(known.id), known),
                "{}",
                known.full_name
            );
        }
    }

    #[test]
    fn rows_are_consistent() {
        for known in every_row() {
            let (row, name) = (known.row, &known.full_name);
            assert!(
                !row.flags.contains(Flags::WRITE | Flags::READONLY),
                "{name}: writes and only reads"
            );
            assert!(
                !matches!(row.runs, Runs::Container) || !row.subcommands.is_empty(),
                "{name}: container"
            );
            let on_keys = matches!(
                row.runs,
                Runs::OnKeys(_)
                    | Runs::OnKeysLong(_)
                    | Runs::OnSessionAndKeys(_)
                    | Runs::Blocking(_)
                    | Runs::Script(_)
            );
            assert_eq!(
                matches!(row.runs, Runs::Blocking(_)),
                row.flags.contains(Flags::BLOCKING),
                "{name}: blocking"
            );
            assert!(
                row.keys.iter().all(KeySpec::is_not_key) || on_keys,
                "{name}: has keys that its routing class does not use"
            );
            assert!(
                !matches!(row.runs, Runs::OnKeys(_) | Runs::OnKeysLong(_)) || !row.keys.is_empty(),
                "{name}: no keys"
            );
            let least = match row.arity {
                crate::spec::Arity::Exactly(words) | crate::spec::Arity::AtLeast(words) => words,
            };
            assert!(
                row.member.is_none_or(|member| member < least),
                "{name}: its member may be missing"
            );
            assert!(
                !row.doc.summary.is_empty() && !row.doc.since.is_empty(),
                "{name}: documentation"
            );
            assert!(
                row.name
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'-' | b'_')),
                "{name}"
            );
        }
    }
}
