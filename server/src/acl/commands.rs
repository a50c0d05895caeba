//! [`CommandRules`]: the commands that a selector permits, and the rules that have led there.

use std::collections::BTreeMap;
use std::ops::Range;

use super::RuleError;

/// The commands as rules name them. Their names are those of Redis, whatever `rename-command` says.
pub(crate) trait Catalogue: std::fmt::Debug + Sync {
    /// Number of commands, subcommands included; every number of a command is below.
    fn len(&self) -> usize;

    /// The command of a name, without subcommands.
    fn command(&self, name: &[u8]) -> Option<Known>;

    /// The number of a command's subcommand.
    fn subcommand(&self, command: &Known, name: &[u8]) -> Option<u16>;

    /// The numbers of the commands in a category, given without its `@`; none if there is no such category.
    fn category(&self, name: &[u8]) -> Option<Vec<u16>>;
}

/// A command that a rule names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// Its number.
    pub(crate) id: u16,
    /// The numbers of its subcommands.
    pub(crate) subcommands: Range<u16>,
}

/// The commands that a selector permits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CommandRules {
    /// A bit for each command.
    permitted: Box<[u64]>,
    /// First arguments with which a command is permitted that is not permitted as a whole; in lower case.
    first_arguments: BTreeMap<u16, Vec<Box<[u8]>>>,
    /// Commands that come with later versions are permitted.
    includes_future: bool,
    /// The rules since the last one on all commands that have not been superseded, in lower case, each with its sign.
    rules: Vec<Box<[u8]>>,
}

const WORD_BITS: usize = u64::BITS as usize;

impl CommandRules {
    /// No command.
    pub(super) fn none(catalogue: &dyn Catalogue) -> Self {
        Self {
            permitted: vec![0; catalogue.len().div_ceil(WORD_BITS)].into(),
            first_arguments: BTreeMap::new(),
            includes_future: false,
            rules: Vec::new(),
        }
    }

    /// Permits all commands, or none.
    pub(super) fn set_all(&mut self, permits: bool) {
        self.permitted.fill(if permits { u64::MAX } else { 0 });
        self.includes_future = permits;
        self.first_arguments.clear();
        self.rules.clear();
    }

    /// Applies a rule without its sign: `get`, `config|get`, `select|0`, `@read`.
    pub(super) fn apply(
        &mut self,
        permits: bool,
        rule: &[u8],
        catalogue: &dyn Catalogue,
    ) -> Result<(), RuleError> {
        if let Some(category) = rule.strip_prefix(b"@") {
            if category.eq_ignore_ascii_case(b"all") {
                self.set_all(permits);
                return Ok(());
            }
            let commands = catalogue.category(category).ok_or(RuleError::UnknownCommand)?;
            commands.into_iter().for_each(|id| self.set(id, permits));
        } else {
            self.apply_to_command(permits, rule, catalogue)?;
        }
        self.note(permits, rule);
        Ok(())
    }

    fn apply_to_command(
        &mut self,
        permits: bool,
        rule: &[u8],
        catalogue: &dyn Catalogue,
    ) -> Result<(), RuleError> {
        let mut words = rule.splitn(2, |&byte| byte == b'|');
        let name = words.next().unwrap_or_default();
        let command = catalogue.command(name).ok_or(RuleError::UnknownCommand)?;
        let Some(word) = words.next() else {
            self.set(command.id, permits);
            command.subcommands.for_each(|id| self.set(id, permits));
            return Ok(());
        };
        match catalogue.subcommand(&command, word) {
            Some(id) => self.set(id, permits),
            None if word.is_empty() && permits => return Err(RuleError::Syntax),
            None if !permits || !command.subcommands.is_empty() || word.contains(&b'|') => {
                return Err(self.unknown_word(&command, word, catalogue));
            }
            None => self.add_first_argument(command.id, word),
        }
        Ok(())
    }

    /// The error for a rule whose second word is no subcommand and cannot be a first argument.
    fn unknown_word(&self, command: &Known, word: &[u8], catalogue: &dyn Catalogue) -> RuleError {
        let parent = word.split(|&byte| byte == b'|').next().unwrap_or_default();
        let is_of_subcommand = word.contains(&b'|') && catalogue.subcommand(command, parent).is_some();
        if is_of_subcommand {
            RuleError::TooDeep
        } else {
            RuleError::UnknownCommand
        }
    }

    fn add_first_argument(&mut self, command: u16, word: &[u8]) {
        let known = self.first_arguments.entry(command).or_default();
        let word = word.to_ascii_lowercase().into_boxed_slice();
        if !known.contains(&word) {
            known.push(word);
        }
    }

    /// Permits a command or does not; what was said about its first arguments is superseded.
    fn set(&mut self, id: u16, permits: bool) {
        let (word, bit) = (usize::from(id) / WORD_BITS, usize::from(id) % WORD_BITS);
        if permits {
            self.permitted[word] |= 1 << bit;
        } else {
            self.permitted[word] &= !(1 << bit);
        }
        self.first_arguments.remove(&id);
    }

    /// Notes a rule behind those that it does not supersede: the same one with either sign, and those on subcommands of its command.
    fn note(&mut self, permits: bool, rule: &[u8]) {
        let rule = rule.to_ascii_lowercase();
        let is_superseded = |before: &[u8]| {
            let rest = before[1..].strip_prefix(rule.as_slice());
            rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'|')
        };
        self.rules.retain(|before| !is_superseded(before));
        let sign = if permits { b"+" } else { b"-" };
        self.rules.push([sign, rule.as_slice()].concat().into());
    }

    /// Whether all commands are permitted, those of later versions as well.
    pub(super) fn is_all(&self) -> bool {
        self.includes_future && self.rules.is_empty()
    }

    /// Whether a command is permitted with these words behind its name.
    #[inline]
    pub(super) fn permits(&self, id: u16, first_argument: Option<&[u8]>) -> bool {
        let (word, bit) = (usize::from(id) / WORD_BITS, usize::from(id) % WORD_BITS);
        self.permitted[word] & (1 << bit) != 0 || self.permits_with(id, first_argument)
    }

    #[cold]
    fn permits_with(&self, id: u16, first_argument: Option<&[u8]>) -> bool {
        let (Some(known), Some(argument)) = (self.first_arguments.get(&id), first_argument) else {
            return false;
        };
        known.iter().any(|known| known.eq_ignore_ascii_case(argument))
    }

    /// Appends the rules that lead here.
    pub(super) fn describe(&self, text: &mut Vec<u8>) {
        text.extend_from_slice(if self.includes_future { b"+@all" } else { b"-@all" });
        for rule in &self.rules {
            text.push(b' ');
            text.extend_from_slice(rule);
        }
    }
}
