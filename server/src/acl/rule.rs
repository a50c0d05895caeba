//! [`Rule`]: a word of an ACL, parsed.

use std::fmt;

use super::Rights;
use super::pattern::is_valid;

/// A word that changes a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule<'a> {
    /// `on`, `off`
    Enable(bool),
    /// `nopass`
    NoPassword,
    /// `resetpass`
    ResetPasswords,
    /// `>password`
    AddPassword(&'a [u8]),
    /// `<password`
    RemovePassword(&'a [u8]),
    /// `#hash`
    AddHash(&'a [u8]),
    /// `!hash`
    RemoveHash(&'a [u8]),
    /// `sanitize-payload`, `skip-sanitize-payload`
    Sanitize(bool),
    /// `reset`
    Reset,
    /// `(rules)`
    AddSelector(&'a [u8]),
    /// `clearselectors`
    ClearSelectors,
    /// A rule of the user's first selector.
    OfSelector(SelectorRule<'a>),
}

/// A word that changes a selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SelectorRule<'a> {
    /// `allkeys`, `~*`
    AllKeys,
    /// `resetkeys`
    ResetKeys,
    /// `~pattern`, `%R~pattern`
    Key(Rights, &'a [u8]),
    /// `allchannels`, `&*`
    AllChannels,
    /// `resetchannels`
    ResetChannels,
    /// `&pattern`
    Channel(&'a [u8]),
    /// `allcommands`, `nocommands`
    AllCommands(bool),
    /// `+command`, `-@category`; without the sign
    Command(bool, &'a [u8]),
}

/// Reason for which a rule cannot be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RuleError {
    /// The word is no rule.
    Syntax,
    /// The rule names a command, subcommand or category that does not exist.
    UnknownCommand,
    /// The rule is about a first argument of a subcommand.
    TooDeep,
    /// The rule adds a pattern of keys to one that all keys match.
    KeysExist,
    /// The rule adds a pattern of channels to one that all channels match.
    ChannelsExist,
    /// The rule removes a password that the user does not have.
    NoSuchPassword,
    /// The word is not the hash of a password.
    BadHash,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syntax => "Syntax error",
            Self::UnknownCommand => "Unknown command or category name in ACL",
            Self::TooDeep => "Allowing first-arg of a subcommand is not supported",
            Self::KeysExist => {
                "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any effect. Try \
                 'resetkeys' to start with an empty list of patterns"
            }
            Self::ChannelsExist => {
                "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any effect. \
                 Try 'resetchannels' to start with an empty list of channels"
            }
            Self::NoSuchPassword => "The password you are trying to remove from the user does not exist",
            Self::BadHash => {
                "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
            }
        })
    }
}

impl<'a> Rule<'a> {
    /// The rule of a word.
    pub(super) fn parse(word: &'a [u8]) -> Result<Self, RuleError> {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        Ok(match word {
            [b'>', password @ ..] => Self::AddPassword(password),
            [b'<', password @ ..] => Self::RemovePassword(password),
            [b'#', hash @ ..] => Self::AddHash(hash),
            [b'!', hash @ ..] => Self::RemoveHash(hash),
            [b'(', rules @ .., b')'] => Self::AddSelector(rules),
            _ if is("on") => Self::Enable(true),
            _ if is("off") => Self::Enable(false),
            _ if is("nopass") => Self::NoPassword,
            _ if is("resetpass") => Self::ResetPasswords,
            _ if is("sanitize-payload") => Self::Sanitize(true),
            _ if is("skip-sanitize-payload") => Self::Sanitize(false),
            _ if is("reset") => Self::Reset,
            _ if is("clearselectors") => Self::ClearSelectors,
            _ => Self::OfSelector(SelectorRule::parse(word)?),
        })
    }
}

impl<'a> SelectorRule<'a> {
    /// The rule of a word.
    pub(super) fn parse(word: &'a [u8]) -> Result<Self, RuleError> {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        Ok(match word {
            b"~*" => Self::AllKeys,
            b"&*" => Self::AllChannels,
            [b'~', pattern @ ..] => Self::Key(Rights::all(), checked(pattern)?),
            [b'%', rest @ ..] => {
                let (rights, pattern) = split_rights(rest)?;
                Self::Key(rights, checked(pattern)?)
            }
            [b'&', pattern @ ..] => Self::Channel(checked(pattern)?),
            [b'+', rule @ ..] => Self::Command(true, rule),
            [b'-', rule @ ..] => Self::Command(false, rule),
            _ if is("allkeys") => Self::AllKeys,
            _ if is("resetkeys") => Self::ResetKeys,
            _ if is("allchannels") => Self::AllChannels,
            _ if is("resetchannels") => Self::ResetChannels,
            _ if is("allcommands") => Self::AllCommands(true),
            _ if is("nocommands") => Self::AllCommands(false),
            _ => return Err(RuleError::Syntax),
        })
    }
}

/// Splits `RW~pattern`. Without `~` the pattern is empty, as in Redis.
fn split_rights(rest: &[u8]) -> Result<(Rights, &[u8]), RuleError> {
    let end = rest.iter().position(|&byte| byte == b'~').unwrap_or(rest.len());
    let mut rights = Rights::empty();
    for letter in &rest[..end] {
        rights |= match letter.to_ascii_uppercase() {
            b'R' => Rights::READ,
            b'W' => Rights::WRITE,
            _ => return Err(RuleError::Syntax),
        };
    }
    if rights.is_empty() {
        return Err(RuleError::Syntax);
    }
    Ok((rights, rest.get(end + 1..).unwrap_or_default()))
}

/// Whether a word of ACL SETUSER is a password, or its hash, or may be one that was typed without its sign.
pub(crate) fn may_be_secret(word: &[u8]) -> bool {
    // The words of a selector are rules like others, but for the brackets of the first one and the last one.
    let word = word.strip_prefix(b"(").unwrap_or(word);
    let word = word.strip_suffix(b")").unwrap_or(word);
    match Rule::parse(word) {
        Ok(Rule::AddPassword(_) | Rule::RemovePassword(_) | Rule::AddHash(_) | Rule::RemoveHash(_)) => true,
        Ok(_) => false,
        Err(_) => true,
    }
}

fn checked(pattern: &[u8]) -> Result<&[u8], RuleError> {
    if is_valid(pattern) {
        Ok(pattern)
    } else {
        Err(RuleError::Syntax)
    }
}

/// Joins the words that make up a selector, from the one with `(` at its beginning to the one with `)` at its end.
///
/// # Errors
/// The first word of a selector that does not end.
pub(super) fn join_selectors<'a>(words: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Vec<u8>>, Vec<u8>> {
    let mut joined: Vec<Vec<u8>> = Vec::new();
    let mut open: Option<(&[u8], Vec<u8>)> = None;
    for word in words {
        match &mut open {
            None if word.first() == Some(&b'(') && word.last() != Some(&b')') => {
                open = Some((word, word.to_vec()));
            }
            None => joined.push(word.to_vec()),
            Some((_, text)) => {
                text.push(b' ');
                text.extend_from_slice(word);
                if word.last() == Some(&b')') {
                    joined.extend(open.take().map(|(_, text)| text));
                }
            }
        }
    }
    match open {
        None => Ok(joined),
        Some((first, _)) => Err(first.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_told_from_rules() {
        for word in [">pw", "<pw", "#abc", "!abc", "pw", "", "(>pw", "%X~a"] {
            assert!(may_be_secret(word.as_bytes()), "{word}");
        }
        for word in [
            "on",
            "~orders:*",
            "%R~a",
            "&news",
            "+get",
            "-@all",
            "(~a",
            "+get)",
            "(+get)",
            "reset",
        ] {
            assert!(!may_be_secret(word.as_bytes()), "{word}");
        }
    }
}
