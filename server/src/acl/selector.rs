//! [`Selector`]: commands together with keys and channels on which they are permitted.

use super::commands::{Catalogue, CommandRules};
use super::pattern::{Head, KeyPattern, permits_channel};
use super::rule::SelectorRule;
use super::{Rights, RuleError};

/// Commands together with keys and channels on which they are permitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selector {
    commands: CommandRules,
    has_all_keys: bool,
    keys: Vec<KeyPattern>,
    has_all_channels: bool,
    channels: Vec<Box<[u8]>>,
}

/// A request as rules look at it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access<'a> {
    /// Number of the command.
    pub(crate) command: u16,
    /// Any user may send the command, even one that has not authenticated.
    pub(crate) is_open: bool,
    /// Word behind the name of the command.
    pub(crate) first_argument: Option<&'a [u8]>,
    /// Keys, each with its position in the request and the rights that are needed.
    pub(crate) keys: &'a [(usize, &'a [u8], Rights)],
    /// The command reads keys whose names are not in the request.
    pub(crate) reads_other_keys: bool,
    /// Channels, each with its position in the request.
    pub(crate) channels: &'a [(usize, &'a [u8])],
    /// The channels are patterns that are subscribed to.
    pub(crate) are_patterns: bool,
}

/// A request on one key as rules look at it, which no user may send without a permission.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnKey<'a> {
    /// Number of the command.
    pub(crate) command: u16,
    /// Word behind the name of the command.
    pub(crate) first_argument: Option<&'a [u8]>,
    /// The key.
    pub(crate) key: &'a [u8],
    /// The rights that the command needs on it.
    pub(crate) needed: Rights,
}

/// Refusal of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Denied {
    /// The reason.
    pub(crate) reason: Reason,
    /// Position of the word that is refused.
    pub(crate) position: usize,
}

/// Reason for which a request is refused, the one that is told first last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// The command is not permitted.
    Command,
    /// The command is not permitted on a key.
    Key,
    /// The command is not permitted on a channel.
    Channel,
}

impl Selector {
    /// A selector that permits nothing, but all channels where that is the default.
    pub(crate) fn new(has_all_channels: bool, catalogue: &dyn Catalogue) -> Self {
        Self {
            commands: CommandRules::none(catalogue),
            has_all_keys: false,
            keys: Vec::new(),
            has_all_channels,
            channels: Vec::new(),
        }
    }

    /// Applies a rule. After an error nothing has changed.
    pub(super) fn apply(
        &mut self,
        rule: SelectorRule<'_>,
        catalogue: &dyn Catalogue,
    ) -> Result<(), RuleError> {
        match rule {
            SelectorRule::AllKeys => {
                self.has_all_keys = true;
                self.keys.clear();
            }
            SelectorRule::ResetKeys => {
                self.has_all_keys = false;
                self.keys.clear();
            }
            SelectorRule::Key(..) if self.has_all_keys => return Err(RuleError::KeysExist),
            SelectorRule::Key(rights, pattern) => self.add_key(rights, pattern),
            SelectorRule::AllChannels => {
                self.has_all_channels = true;
                self.channels.clear();
            }
            SelectorRule::ResetChannels => {
                self.has_all_channels = false;
                self.channels.clear();
            }
            SelectorRule::Channel(_) if self.has_all_channels => return Err(RuleError::ChannelsExist),
            SelectorRule::Channel(pattern) => {
                if !self.channels.iter().any(|known| **known == *pattern) {
                    self.channels.push(pattern.into());
                }
            }
            SelectorRule::AllCommands(permits) => self.commands.set_all(permits),
            SelectorRule::Command(permits, rule) => self.commands.apply(permits, rule, catalogue)?,
        }
        Ok(())
    }

    fn add_key(&mut self, rights: Rights, pattern: &[u8]) {
        match self.keys.iter_mut().find(|known| known.is(pattern)) {
            Some(known) => known.rights |= rights,
            None => self.keys.push(KeyPattern::new(rights, pattern)),
        }
    }

    /// Whether the selector permits everything.
    pub(crate) fn is_unrestricted(&self) -> bool {
        self.has_all_keys && self.has_all_channels && self.commands.is_all()
    }

    /// Whether all keys may be used.
    #[inline]
    pub(crate) fn permits_every_key(&self) -> bool {
        self.has_all_keys
    }

    /// Checks a request.
    ///
    /// # Errors
    /// The first word of it that is refused.
    pub(crate) fn check(&self, access: &Access<'_>) -> Result<(), Denied> {
        if !access.is_open && !self.commands.permits(access.command, access.first_argument) {
            return Err(Denied {
                reason: Reason::Command,
                position: 0,
            });
        }
        let is_refused = |&&(_, key, needed): &&(usize, &[u8], Rights)| !self.permits_key(key, needed);
        if let Some(&(position, ..)) = access.keys.iter().find(is_refused) {
            let reason = Reason::Key;
            return Err(Denied { reason, position });
        }
        if access.reads_other_keys && !self.permits_all_keys(Rights::READ) {
            return Err(Denied {
                reason: Reason::Key,
                position: 0,
            });
        }
        let is_refused =
            |&&(_, channel): &&(usize, &[u8])| !self.permits_channel(channel, access.are_patterns);
        match access.channels.iter().find(is_refused) {
            None => Ok(()),
            Some(&(position, _)) => Err(Denied {
                reason: Reason::Channel,
                position,
            }),
        }
    }

    /// Whether a key may be used in this way.
    #[inline]
    pub(super) fn permits_key(&self, key: &[u8], needed: Rights) -> bool {
        self.has_all_keys || self.has_pattern_for(key, Head::of(key), needed)
    }

    #[inline]
    fn has_pattern_for(&self, key: &[u8], head: Head, needed: Rights) -> bool {
        self.keys.iter().any(|pattern| pattern.permits(key, head, needed))
    }

    /// Whether a request on one key is permitted.
    #[inline]
    pub(super) fn permits_on_key(&self, access: &OnKey<'_>, head: Head) -> bool {
        self.commands.permits(access.command, access.first_argument)
            && (self.has_all_keys || self.has_pattern_for(access.key, head, access.needed))
    }

    /// Whether any key may be used in this way.
    fn permits_all_keys(&self, needed: Rights) -> bool {
        self.has_all_keys || self.keys.iter().any(|pattern| pattern.permits_all(needed))
    }

    /// Whether a channel may be used, or a pattern of channels be subscribed to.
    pub(crate) fn permits_channel(&self, channel: &[u8], is_pattern: bool) -> bool {
        self.has_all_channels
            || self
                .channels
                .iter()
                .any(|pattern| permits_channel(pattern, channel, is_pattern))
    }

    /// The rules on keys, as ACL GETUSER shows them.
    pub(crate) fn describe_keys(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if self.has_all_keys {
            text.extend_from_slice(b"~*");
        }
        for (index, pattern) in self.keys.iter().enumerate() {
            if index > 0 {
                text.push(b' ');
            }
            pattern.describe(&mut text);
        }
        text
    }

    /// The rules on channels, as ACL GETUSER shows them.
    pub(crate) fn describe_channels(&self) -> Vec<u8> {
        if self.has_all_channels {
            return b"&*".to_vec();
        }
        let rules: Vec<_> = self
            .channels
            .iter()
            .map(|channel| [b"&", &**channel].concat())
            .collect();
        rules.join(&b' ')
    }

    /// The rules on commands, as ACL GETUSER shows them.
    pub(crate) fn describe_commands(&self) -> Vec<u8> {
        let mut text = Vec::new();
        self.commands.describe(&mut text);
        text
    }

    /// All rules, as files contain them.
    pub(super) fn describe(&self, text: &mut Vec<u8>) {
        let keys = self.describe_keys();
        if !keys.is_empty() {
            text.extend_from_slice(&keys);
            text.push(b' ');
        }
        if !self.has_all_channels {
            text.extend_from_slice(b"resetchannels ");
        }
        let channels = self.describe_channels();
        if !channels.is_empty() {
            text.extend_from_slice(&channels);
            text.push(b' ');
        }
        self.commands.describe(text);
    }
}
