//! [`User`]: passwords, and selectors of what is permitted.

use sha2::{Digest, Sha256};

use super::pattern::Head;
use super::rule::{Rule, SelectorRule, join_selectors};
use super::{Access, Catalogue, Denied, OnKey, Rights, RuleError, Selector};
use crate::config::{ChannelDefault, Settings};

/// A user. It never changes: rules make another one, which takes its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    name: Box<[u8]>,
    /// Number by which a client knows its user: another one of the same name, added later, has another number.
    id: u64,
    is_enabled: bool,
    has_no_password: bool,
    /// The choice of `sanitize-payload`; none if no rule has made it.
    sanitizes: Option<bool>,
    /// SHA-256 of each password, in hexadecimal.
    passwords: Vec<Hash>,
    root: Selector,
    selectors: Vec<Selector>,
}

/// Hash of a password: 64 lower-case hexadecimal digits.
type Hash = [u8; 64];

/// A word that cannot be applied, and the reason.
pub(super) type Fault = (Vec<u8>, RuleError);

/// Properties of new users that directives choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UserDefaults {
    /// `acl-pubsub-default allchannels`
    pub(crate) has_all_channels: bool,
}

impl From<&Settings> for UserDefaults {
    fn from(settings: &Settings) -> Self {
        Self {
            has_all_channels: settings.acl_pubsub_default == ChannelDefault::AllChannels,
        }
    }
}

/// A rule that cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BadRule {
    /// This word, for this reason.
    Word(Vec<u8>, RuleError),
    /// A selector begins with this word and does not end.
    Unmatched(Vec<u8>),
}

impl User {
    /// A user that may do nothing, and cannot log in.
    pub(crate) fn new(name: &[u8], defaults: UserDefaults, catalogue: &dyn Catalogue) -> Self {
        Self {
            name: name.into(),
            id: 0,
            is_enabled: false,
            has_no_password: false,
            sanitizes: None,
            passwords: Vec::new(),
            root: Selector::new(defaults.has_all_channels, catalogue),
            selectors: Vec::new(),
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &[u8] {
        &self.name
    }

    /// Number by which a client knows its user; 0 as long as it is in no table.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The same user with a number.
    pub(super) fn with_id(self, id: u64) -> Self {
        Self { id, ..self }
    }

    /// Whether anybody may act as this user without a password.
    pub(crate) fn is_open(&self) -> bool {
        self.is_enabled && self.has_no_password
    }

    /// Whether anybody may act as this user at all.
    pub(crate) fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// Whether it logs in with any password.
    pub(crate) fn has_no_password(&self) -> bool {
        self.has_no_password
    }

    /// The hashes of its passwords, as ACL GETUSER shows them.
    pub(crate) fn passwords(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.passwords.iter().map(|hash| hash.as_slice())
    }

    /// The selector that rules outside parentheses change.
    pub(crate) fn root(&self) -> &Selector {
        &self.root
    }

    /// The other selectors.
    pub(crate) fn selectors(&self) -> &[Selector] {
        &self.selectors
    }

    /// The user that rules make of this one.
    ///
    /// # Errors
    /// The first rule that cannot be applied.
    pub(crate) fn with<'w>(
        &self,
        words: impl Iterator<Item = &'w [u8]>,
        defaults: UserDefaults,
        catalogue: &dyn Catalogue,
    ) -> Result<Self, BadRule> {
        let (user, faults) = self.with_all(words, defaults, catalogue)?;
        match faults.into_iter().next() {
            None => Ok(user),
            Some((word, error)) => Err(BadRule::Word(word, error)),
        }
    }

    /// The user that rules make of this one, and the rules that cannot be applied.
    ///
    /// # Errors
    /// When a selector does not end.
    pub(super) fn with_all<'w>(
        &self,
        words: impl Iterator<Item = &'w [u8]>,
        defaults: UserDefaults,
        catalogue: &dyn Catalogue,
    ) -> Result<(Self, Vec<Fault>), BadRule> {
        let mut user = self.clone();
        let mut faults = Vec::new();
        for word in join_selectors(words).map_err(BadRule::Unmatched)? {
            if let Err(error) = user.apply(&word, defaults, catalogue) {
                faults.push((word, error));
            }
        }
        Ok((user, faults))
    }

    fn apply(
        &mut self,
        word: &[u8],
        defaults: UserDefaults,
        catalogue: &dyn Catalogue,
    ) -> Result<(), RuleError> {
        match Rule::parse(word)? {
            Rule::Enable(is_enabled) => self.is_enabled = is_enabled,
            Rule::NoPassword => {
                self.has_no_password = true;
                self.passwords.clear();
            }
            Rule::ResetPasswords => {
                self.has_no_password = false;
                self.passwords.clear();
            }
            Rule::AddPassword(password) => self.add_hash(hash_of(password)),
            Rule::RemovePassword(password) => self.remove_hash(&hash_of(password))?,
            Rule::AddHash(text) => self.add_hash(parse_hash(text)?),
            Rule::RemoveHash(text) => self.remove_hash(&parse_hash(text)?)?,
            Rule::Sanitize(sanitizes) => self.sanitizes = Some(sanitizes),
            Rule::Reset => {
                *self = Self {
                    sanitizes: Some(true),
                    ..Self::new(&self.name, defaults, catalogue)
                };
            }
            Rule::AddSelector(rules) => {
                let mut selector = Selector::new(defaults.has_all_channels, catalogue);
                let words = rules
                    .split(u8::is_ascii_whitespace)
                    .filter(|word| !word.is_empty());
                for word in words {
                    selector.apply(SelectorRule::parse(word)?, catalogue)?;
                }
                self.selectors.push(selector);
            }
            Rule::ClearSelectors => self.selectors.clear(),
            Rule::OfSelector(rule) => self.root.apply(rule, catalogue)?,
        }
        Ok(())
    }

    fn add_hash(&mut self, hash: Hash) {
        self.has_no_password = false;
        if !self.passwords.contains(&hash) {
            self.passwords.push(hash);
        }
    }

    fn remove_hash(&mut self, hash: &Hash) -> Result<(), RuleError> {
        let index = self.passwords.iter().position(|known| known == hash);
        self.passwords.remove(index.ok_or(RuleError::NoSuchPassword)?);
        Ok(())
    }

    /// Whether the user may log in with a password. All hashes are compared, and every byte of them, so that the time this takes
    /// tells nothing about them.
    pub(crate) fn accepts(&self, password: &[u8]) -> bool {
        let given = hash_of(password);
        let is_known = self
            .passwords
            .iter()
            .fold(false, |is_known, known| is_known | is_same(known, &given));
        self.is_enabled && (self.has_no_password || is_known)
    }

    /// Whether every request is permitted.
    #[inline]
    pub(crate) fn is_unrestricted(&self) -> bool {
        self.root.is_unrestricted()
    }

    /// Whether the first selector permits all keys, so that those of a request need not be looked for.
    #[inline]
    pub(crate) fn permits_all_keys(&self) -> bool {
        self.selectors.is_empty() && self.root.permits_every_key()
    }

    /// Checks a request.
    ///
    /// # Errors
    /// When no selector permits it: the refusal that came closest.
    pub(crate) fn check(&self, access: &Access<'_>) -> Result<(), Denied> {
        let Err(mut closest) = self.root.check(access) else {
            return Ok(());
        };
        for selector in &self.selectors {
            match selector.check(access) {
                Ok(()) => return Ok(()),
                Err(denied) => closest = closest.max(denied),
            }
        }
        Err(closest)
    }

    /// Whether a selector permits to read a key.
    pub(crate) fn may_read(&self, key: &[u8]) -> bool {
        let selectors = std::iter::once(self.root()).chain(self.selectors());
        selectors
            .into_iter()
            .any(|selector| selector.permits_key(key, Rights::READ))
    }

    /// Whether a request on one key is permitted. The same as [`check`](Self::check), in less time.
    #[inline]
    pub(crate) fn permits_on_key(&self, access: &OnKey<'_>) -> bool {
        let head = Head::of(access.key);
        self.root.permits_on_key(access, head)
            || self
                .selectors
                .iter()
                .any(|selector| selector.permits_on_key(access, head))
    }

    /// Whether a channel may still be used.
    pub(crate) fn permits_channel(&self, channel: &[u8], is_pattern: bool) -> bool {
        std::iter::once(&self.root)
            .chain(&self.selectors)
            .any(|selector| selector.permits_channel(channel, is_pattern))
    }

    /// Names of its properties, as ACL GETUSER shows them.
    pub(crate) fn flags(&self) -> impl Iterator<Item = &'static str> {
        let sanitizes = self.sanitizes.map(|sanitizes| match sanitizes {
            true => "sanitize-payload",
            false => "skip-sanitize-payload",
        });
        let enabled = if self.is_enabled { "on" } else { "off" };
        [Some(enabled), self.has_no_password.then_some("nopass"), sanitizes]
            .into_iter()
            .flatten()
    }

    /// The line of a file that makes the user.
    pub(crate) fn describe(&self) -> Vec<u8> {
        let mut line = [b"user ", &*self.name].concat();
        for flag in self.flags() {
            line.push(b' ');
            line.extend_from_slice(flag.as_bytes());
        }
        for hash in &self.passwords {
            line.extend_from_slice(b" #");
            line.extend_from_slice(hash);
        }
        line.push(b' ');
        self.root.describe(&mut line);
        for selector in &self.selectors {
            line.extend_from_slice(b" (");
            selector.describe(&mut line);
            line.push(b')');
        }
        line
    }
}

/// Whether two hashes are equal, in a time that does not depend on where they differ.
fn is_same(known: &Hash, given: &Hash) -> bool {
    let differing = known
        .iter()
        .zip(given)
        .fold(0, |differing, (known, given)| differing | (known ^ given));
    std::hint::black_box(differing) == 0
}

fn hash_of(password: &[u8]) -> Hash {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hash = [0; 64];
    for (digits, byte) in hash.chunks_exact_mut(2).zip(Sha256::digest(password)) {
        digits.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    hash
}

fn parse_hash(text: &[u8]) -> Result<Hash, RuleError> {
    let hash: Hash = text.try_into().map_err(|_| RuleError::BadHash)?;
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if hash.iter().all(is_digit) {
        Ok(hash)
    } else {
        Err(RuleError::BadHash)
    }
}

#[cfg(test)]
pub(super) mod tests;
