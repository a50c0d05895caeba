//! Patterns of keys and channels.

use shardis_storage::glob;

bitflags::bitflags! {
    /// Rights on a key: those that a command needs, and those that a pattern permits.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub(crate) struct Rights: u8 {
        /// User data of the key is returned or copied.
        const READ = 1 << 0;
        /// User data of the key is added, changed or removed.
        const WRITE = 1 << 1;
    }
}

/// The first bytes of a key as one number, with zeros behind a shorter key: it tells at a glance which patterns cannot match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head(u64);

/// Number of bytes in a [`Head`].
const HEAD_BYTES: usize = size_of::<u64>();

impl Head {
    /// The head of a key.
    #[inline]
    pub(super) fn of(key: &[u8]) -> Self {
        Self(match key.first_chunk() {
            Some(first) => u64::from_le_bytes(*first),
            None => Self::of_short(key),
        })
    }

    #[inline]
    fn of_short(key: &[u8]) -> u64 {
        let shifted = key
            .iter()
            .enumerate()
            .map(|(index, &byte)| u64::from(byte) << (8 * index));
        shifted.fold(0, |head, byte| head | byte)
    }
}

/// A pattern of keys, and the rights on keys that match it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyPattern {
    pub(super) rights: Rights,
    /// Nothing but a star follows the literal beginning, as in most patterns.
    is_prefix: bool,
    /// Number of leading bytes that stand for themselves.
    literal_bytes: usize,
    /// Head of the literal beginning, and the bits of it that are known. No pattern has zero bytes, so that the head of a key which is
    /// shorter than the beginning differs.
    head: u64,
    known: u64,
    pattern: Box<[u8]>,
}

impl KeyPattern {
    /// A pattern with its rights.
    pub(super) fn new(rights: Rights, pattern: &[u8]) -> Self {
        let is_special = |byte: &u8| matches!(byte, b'*' | b'?' | b'[' | b'\\');
        let literal_bytes = pattern.iter().position(is_special).unwrap_or(pattern.len());
        let begin = &pattern[..literal_bytes.min(HEAD_BYTES)];
        Self {
            rights,
            is_prefix: &pattern[literal_bytes..] == b"*",
            literal_bytes,
            head: Head::of_short(begin),
            known: Head::of_short(&[0xff; HEAD_BYTES][..begin.len()]),
            pattern: pattern.into(),
        }
    }

    /// Whether it is this pattern.
    pub(super) fn is(&self, pattern: &[u8]) -> bool {
        *self.pattern == *pattern
    }

    /// Whether a key, with this head, may be used in this way because of the pattern.
    #[inline]
    pub(super) fn permits(&self, key: &[u8], head: Head, needed: Rights) -> bool {
        head.0 & self.known == self.head && self.rights.contains(needed) && self.matches(key)
    }

    /// Whether a key matches whose head does.
    #[inline]
    fn matches(&self, key: &[u8]) -> bool {
        // To Redis a star matches nothing at the end of a key, but not the empty key.
        if self.is_prefix && self.literal_bytes <= HEAD_BYTES && !key.is_empty() {
            return true;
        }
        self.matches_all(key)
    }

    fn matches_all(&self, key: &[u8]) -> bool {
        let (literal, pattern) = self.pattern.split_at(self.literal_bytes);
        match key.strip_prefix(literal) {
            None => false,
            Some(b"") => glob::matches(&self.pattern, key, false),
            Some(rest) => self.is_prefix || glob::matches(pattern, rest, false),
        }
    }

    /// Whether any key may be used in this way.
    pub(super) fn permits_all(&self, needed: Rights) -> bool {
        self.rights.contains(needed) && self.is(b"*")
    }

    /// Appends the pattern as the rule that adds it.
    pub(super) fn describe(&self, text: &mut Vec<u8>) {
        text.extend_from_slice(match self.rights {
            Rights::READ => b"%R~".as_slice(),
            Rights::WRITE => b"%W~",
            _ => b"~",
        });
        text.extend_from_slice(&self.pattern);
    }
}

/// Whether a pattern may be part of a rule: rules are separated by spaces in files.
pub(super) fn is_valid(pattern: &[u8]) -> bool {
    !pattern
        .iter()
        .any(|&byte| byte == 0 || byte.is_ascii_whitespace() || byte == 0x0b)
}

/// Whether a channel may be used because of a pattern. Who subscribes to a pattern must be permitted that very pattern.
pub(super) fn permits_channel(pattern: &[u8], channel: &[u8], is_pattern: bool) -> bool {
    if is_pattern {
        pattern == channel
    } else {
        glob::matches(pattern, channel, false)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        /// The comparison of the literal beginning changes nothing.
        #[test]
        fn keys_match_as_by_the_whole_pattern(
            begin in "[ab]{0,10}",
            pattern in "[ab*?\\\\\\[\\]^-]{0,4}",
            cut in 0_usize..12,
            key in "[ab\\x00*?\\\\\\[\\]^-]{0,4}",
        ) {
            let key = [&begin.as_bytes()[..begin.len().min(cut)], key.as_bytes()].concat();
            let pattern = [begin.as_bytes(), pattern.as_bytes()].concat();
            let permits = KeyPattern::new(Rights::READ, &pattern).permits(&key, Head::of(&key), Rights::READ);
            prop_assert_eq!(permits, glob::matches(&pattern, &key, false));
        }
    }
}
