//! Key specifications: the positions of keys in a request, with one iterator over (position, flags) that routing, ACL
//! checks and COMMAND GETKEYS share.

use shardis_protocol::Arguments;

use crate::error::ReplyError;

bitflags::bitflags! {
    /// Use of the keys that a specification finds.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct KeyFlags: u16 {
        /// Reads and changes the value.
        const RW = 1 << 0;
        /// Only reads.
        const RO = 1 << 1;
        /// Overwrites any value.
        const OW = 1 << 2;
        /// Removes.
        const RM = 1 << 3;
        /// Returns or copies user data.
        const ACCESS = 1 << 4;
        /// Changes user data in a way that depends on it.
        const UPDATE = 1 << 5;
        /// Adds user data, regardless of the present value.
        const INSERT = 1 << 6;
        /// Removes user data.
        const DELETE = 1 << 7;
        /// Not a key, but routed like one.
        const NOT_KEY = 1 << 8;
        /// The specification may not find all keys.
        const INCOMPLETE = 1 << 9;
        /// The use depends on the options of the request.
        const VARIABLE_FLAGS = 1 << 10;
    }
}

impl KeyFlags {
    /// Names of the set flags, as COMMAND INFO shows them.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        [
            (Self::RW, "RW"),
            (Self::RO, "RO"),
            (Self::OW, "OW"),
            (Self::RM, "RM"),
            (Self::ACCESS, "access"),
            (Self::UPDATE, "update"),
            (Self::INSERT, "insert"),
            (Self::DELETE, "delete"),
            (Self::NOT_KEY, "not_key"),
            (Self::INCOMPLETE, "incomplete"),
            (Self::VARIABLE_FLAGS, "variable_flags"),
        ]
        .into_iter()
        .filter(move |(flag, _)| self.contains(*flag))
        .map(|(_, name)| name)
    }
}

/// Start of the search for keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BeginSearch {
    /// At this argument.
    Index(u8),
    /// After this word, looked for from this argument on (backwards from the end when negative).
    Keyword(&'static str, i8),
    /// Not described in COMMAND INFO; `find` alone determines the keys.
    Unknown,
}

/// Method of finding keys from the start of the search.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FindKeys {
    /// Every `step`-th argument up to `last`, which counts from the start when positive or zero and from the end of
    /// the request when negative. With a `limit` of 2 or more and `last` of -1, only the first 1/limit of the rest.
    Range {
        /// Offset of the last key.
        last: i16,
        /// Distance between keys.
        step: u8,
        /// Divisor of the rest.
        limit: u8,
    },
    /// As many keys as an argument says.
    Count {
        /// Offset of the argument that holds the number of keys.
        index: u8,
        /// Offset of the first key.
        first: u8,
        /// Distance between keys.
        step: u8,
    },
    /// At most one key, at the position that this function finds in the request.
    Told(fn(Arguments<'_>) -> Option<usize>),
    /// No key in the request: the names of keys are made from stored values, so that they may be on any shard.
    Derived(Derivation),
}

/// Functions about keys whose names are made from stored values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Derivation {
    /// Tells whether a request has such keys.
    pub(crate) exists: fn(Arguments<'_>) -> bool,
    /// Checks a request of a user who may not read all keys.
    pub(crate) check: fn(Arguments<'_>) -> Result<(), ReplyError>,
}

/// One key specification.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeySpec {
    /// Use of the keys.
    pub(crate) flags: KeyFlags,
    /// Start of the search.
    pub(crate) begin: BeginSearch,
    /// Method of the search.
    pub(crate) find: FindKeys,
    /// A remark in COMMAND INFO.
    pub(crate) notes: Option<&'static str>,
    /// Finds the first key where the general rule would mistake another word for it; then replaces `begin`.
    pub(crate) locate: Option<fn(Arguments<'_>) -> Option<usize>>,
    /// Determines the use of the keys if it depends on the request; then replaces `flags`.
    pub(crate) decide: Option<fn(Arguments<'_>) -> KeyFlags>,
}

impl KeySpec {
    /// One key at argument `index`.
    pub(crate) const fn at(index: u8) -> Self {
        Self {
            flags: KeyFlags::empty(),
            begin: BeginSearch::Index(index),
            find: FindKeys::Range {
                last: 0,
                step: 1,
                limit: 0,
            },
            notes: None,
            locate: None,
            decide: None,
        }
    }

    /// Keys from argument `index` to the end, every `step`-th.
    pub(crate) const fn from(index: u8, step: u8) -> Self {
        Self::at(index).range(-1, step, 0)
    }

    /// As many keys as argument `index` says, directly after it.
    pub(crate) const fn counted(index: u8) -> Self {
        let mut spec = Self::at(index);
        spec.find = FindKeys::Count {
            index: 0,
            first: 1,
            step: 1,
        };
        spec
    }

    /// Sets the distance between counted keys, in words.
    pub(crate) const fn every(mut self, step: u8) -> Self {
        if let FindKeys::Count { index, first, .. } = self.find {
            self.find = FindKeys::Count { index, first, step };
        }
        self
    }

    /// Keys after a word.
    pub(crate) const fn after(word: &'static str, from: i8) -> Self {
        let mut spec = Self::at(0);
        spec.begin = BeginSearch::Keyword(word, from);
        spec
    }

    /// At most one key, at the position that `find` returns.
    pub(crate) const fn told(find: fn(Arguments<'_>) -> Option<usize>) -> Self {
        Self::unknown(FindKeys::Told(find))
    }

    /// Keys whose names are made from stored values.
    pub(crate) const fn derived(derivation: Derivation) -> Self {
        Self::unknown(FindKeys::Derived(derivation))
    }

    const fn unknown(find: FindKeys) -> Self {
        let mut spec = Self::at(0);
        spec.begin = BeginSearch::Unknown;
        spec.find = find;
        spec
    }

    /// Sets an explicit range.
    pub(crate) const fn range(mut self, last: i16, step: u8, limit: u8) -> Self {
        self.find = FindKeys::Range { last, step, limit };
        self
    }

    const fn with(mut self, flags: KeyFlags) -> Self {
        self.flags = self.flags.union(flags);
        self
    }

    /// Reads and changes the value.
    pub(crate) const fn read_write(self) -> Self {
        self.with(KeyFlags::RW)
    }

    /// Whether its keys are only read, in every request.
    pub(crate) fn is_read_only(&self) -> bool {
        self.flags.contains(KeyFlags::RO) && self.decide.is_none()
    }

    /// Only reads.
    pub(crate) const fn read_only(self) -> Self {
        self.with(KeyFlags::RO)
    }

    /// Overwrites.
    pub(crate) const fn overwrite(self) -> Self {
        self.with(KeyFlags::OW)
    }

    /// Removes.
    pub(crate) const fn remove(self) -> Self {
        self.with(KeyFlags::RM)
    }

    /// Returns user data.
    pub(crate) const fn access(self) -> Self {
        self.with(KeyFlags::ACCESS)
    }

    /// Changes user data depending on it.
    pub(crate) const fn update(self) -> Self {
        self.with(KeyFlags::UPDATE)
    }

    /// Adds user data.
    pub(crate) const fn insert(self) -> Self {
        self.with(KeyFlags::INSERT)
    }

    /// Takes user data away.
    pub(crate) const fn delete(self) -> Self {
        self.with(KeyFlags::DELETE)
    }

    /// Not a key, but routed like one.
    pub(crate) const fn not_key(self) -> Self {
        self.with(KeyFlags::NOT_KEY)
    }

    /// May miss keys.
    pub(crate) const fn incomplete(self) -> Self {
        self.with(KeyFlags::INCOMPLETE)
    }

    /// Sets the function that determines the use of the keys from a request's options.
    pub(crate) const fn variable(mut self, decide: fn(Arguments<'_>) -> KeyFlags) -> Self {
        self.decide = Some(decide);
        self.with(KeyFlags::VARIABLE_FLAGS)
    }

    /// Sets the function that finds the exact position of the first key, if there is one.
    pub(crate) const fn located(mut self, locate: fn(Arguments<'_>) -> Option<usize>) -> Self {
        self.locate = Some(locate);
        self
    }

    /// Adds a remark.
    pub(crate) const fn notes(mut self, text: &'static str) -> Self {
        self.notes = Some(text);
        self
    }

    /// First, last and step, if the specification is a range from a fixed position.
    fn legacy_range(&self) -> Option<LegacyRange> {
        match (self.begin, self.find) {
            (BeginSearch::Index(first), FindKeys::Range { last, step, .. }) => {
                let first = i64::from(first);
                let last = if last < 0 {
                    i64::from(last)
                } else {
                    first + i64::from(last)
                };
                Some(LegacyRange {
                    first,
                    last,
                    step: i64::from(step),
                })
            }
            _ => None,
        }
    }

    /// Whether the arguments found are not keys.
    pub(crate) fn is_not_key(&self) -> bool {
        self.flags.contains(KeyFlags::NOT_KEY)
    }

    /// Use of the keys in this request.
    #[inline]
    pub(crate) fn flags_in(&self, args: Arguments<'_>) -> KeyFlags {
        match self.decide {
            // The fixed part of the declaration only says that it varies.
            Some(decide) => decide(args),
            None => self.flags,
        }
    }

    /// The positions of keys in a request. Complexity: O(1) for an index, O(words) for a keyword.
    ///
    /// # Errors
    /// When the number of keys is missing, no integer, or larger than the request.
    pub(crate) fn positions(&self, args: Arguments<'_>) -> Result<Positions, BadKeyCount> {
        let start = match self.locate {
            Some(locate) => locate(args),
            None => self.start(args),
        };
        let Some(start) = start else {
            return Ok(Positions::NONE);
        };
        match self.find {
            FindKeys::Range { last, step, limit } => Ok(range(args.len(), start, last, step, limit)),
            FindKeys::Count { index, first, step } => counted(args, start, index, first, step),
            FindKeys::Told(find) => Ok(find(args).map_or(Positions::NONE, Positions::one)),
            FindKeys::Derived(_) => Ok(Positions::NONE),
        }
    }

    /// Whether a request has keys that it does not contain.
    pub(crate) fn derives_keys(&self, args: Arguments<'_>) -> bool {
        self.derivation()
            .is_some_and(|derivation| (derivation.exists)(args))
    }

    /// Functions about keys that a request does not contain; none where there are no such keys.
    pub(crate) fn derivation(&self) -> Option<Derivation> {
        match self.find {
            FindKeys::Derived(derivation) => Some(derivation),
            _ => None,
        }
    }

    fn start(&self, args: Arguments<'_>) -> Option<usize> {
        match self.begin {
            BeginSearch::Index(index) => (usize::from(index) < args.len()).then_some(usize::from(index)),
            BeginSearch::Keyword(word, from) if from >= 0 => (usize::from(from.unsigned_abs())..args.len())
                .find(|&i| args.at(i).eq_ignore_ascii_case(word.as_bytes()))
                .map(|i| i + 1)
                .filter(|&i| i < args.len()),
            BeginSearch::Keyword(word, from) => {
                let last = args.len().checked_sub(usize::from(from.unsigned_abs()))?;
                (1..=last)
                    .rev()
                    .find(|&i| args.at(i).eq_ignore_ascii_case(word.as_bytes()))
                    .map(|i| i + 1)
                    .filter(|&i| i < args.len())
            }
            BeginSearch::Unknown => Some(0),
        }
    }
}

fn range(words: usize, start: usize, last: i16, step: u8, limit: u8) -> Positions {
    let end = if last >= 0 {
        start + usize::from(last.unsigned_abs())
    } else {
        let from_end = usize::from(last.unsigned_abs());
        let Some(end) = words.checked_sub(from_end) else {
            return Positions::NONE;
        };
        if last == -1 && limit > 1 {
            start + ((words - start) / usize::from(limit)).saturating_sub(1)
        } else {
            end
        }
    };
    if end < start || end >= words {
        return Positions::NONE;
    }
    Positions {
        next: start,
        end: end + 1,
        step: usize::from(step),
    }
}

fn counted(
    args: Arguments<'_>,
    start: usize,
    index: u8,
    first: u8,
    step: u8,
) -> Result<Positions, BadKeyCount> {
    let text = args.get(start + usize::from(index)).ok_or(BadKeyCount)?;
    let count = shardis_storage::number::parse_i64(text).ok_or(BadKeyCount)?;
    let count = usize::try_from(count).map_err(|_| BadKeyCount)?;
    if count == 0 {
        return Ok(Positions::NONE);
    }
    let first = start + usize::from(first);
    let step = usize::from(step);
    let end = count
        .checked_sub(1)
        .and_then(|n| n.checked_mul(step))
        .and_then(|n| n.checked_add(first + 1));
    match end {
        Some(end) if end <= args.len() => Ok(Positions {
            next: first,
            end,
            step,
        }),
        _ => Err(BadKeyCount),
    }
}

/// First key, last key and step: the description of keys in COMMAND before there were key specifications.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LegacyRange {
    /// Position of the first key; 0 when there is none.
    pub(crate) first: i64,
    /// Position of the last key, from the end of the request when negative.
    pub(crate) last: i64,
    /// Distance between keys.
    pub(crate) step: i64,
}

/// The range that sums up the specifications of a command, and whether it omits keys (the flag `movablekeys`).
pub(crate) fn legacy_range(specs: &[KeySpec]) -> (LegacyRange, bool) {
    let mut movable = specs.iter().any(|spec| spec.flags.contains(KeyFlags::INCOMPLETE));
    if let [spec] = specs
        && let Some(range) = spec.legacy_range()
    {
        return (range, movable);
    }
    let mut whole: Option<LegacyRange> = None;
    for spec in specs {
        // Adjacent ranges with step 1 are joined into one range; all others are omitted.
        match spec.legacy_range().filter(|range| range.step == 1) {
            Some(range) if whole.is_none_or(|whole| whole.last == range.first - 1) => {
                whole = Some(LegacyRange {
                    first: whole.map_or(range.first, |whole| whole.first),
                    ..range
                });
            }
            _ => movable = true,
        }
    }
    (whole.unwrap_or_default(), movable)
}

/// Error: the number of keys in a request is missing or invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadKeyCount;

/// Positions of keys among the arguments, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Positions {
    next: usize,
    end: usize,
    step: usize,
}

impl Positions {
    const NONE: Self = Self {
        next: 0,
        end: 0,
        step: 1,
    };

    const fn one(position: usize) -> Self {
        Self {
            next: position,
            end: position + 1,
            step: 1,
        }
    }
}

impl Iterator for Positions {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.next >= self.end {
            return None;
        }
        let position = self.next;
        self.next += self.step;
        Some(position)
    }
}

/// Every key of a request with its use, in the order of the specifications.
///
/// # Errors
/// When a number of keys is missing or invalid.
pub(crate) fn keys_of(
    specs: &'static [KeySpec],
    args: Arguments<'_>,
    mut visit: impl FnMut(usize, KeyFlags),
) -> Result<(), BadKeyCount> {
    for spec in specs {
        let flags = spec.flags_in(args);
        for position in spec.positions(args)? {
            visit(position, flags);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifications_are_summed_up() {
        let counted = KeySpec::counted(1);
        let store = KeySpec::after("STORE", 2);
        for (specs, first, last, step, movable) in [
            (&[][..], 0, 0, 0, false),
            (&[KeySpec::at(1)], 1, 1, 1, false),
            (&[KeySpec::from(1, 2)], 1, -1, 2, false),
            (&[KeySpec::at(1), KeySpec::at(2)], 1, 2, 1, false),
            (&[KeySpec::at(2), KeySpec::from(3, 1)], 2, -1, 1, false),
            (&[KeySpec::at(1), counted], 1, 1, 1, true),
            (&[counted], 0, 0, 0, true),
            (&[KeySpec::at(1), store], 1, 1, 1, true),
            (&[KeySpec::at(1).incomplete()], 1, 1, 1, true),
        ] {
            assert_eq!(
                legacy_range(specs),
                (LegacyRange { first, last, step }, movable),
                "{specs:?}"
            );
        }
    }
}
