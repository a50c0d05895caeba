//! The options that SCAN, HSCAN, SSCAN and ZSCAN have in common.

use shardis_storage::glob;

use super::arguments::{Options, is};
use crate::error::ReplyError;

/// Default of COUNT: number of elements that a call visits.
const COUNT: usize = 10;

/// Options of one call of a SCAN command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScanOptions<'a> {
    pattern: &'a [u8],
    /// About how many elements to visit, at least 1.
    pub(crate) count: usize,
}

impl<'a> ScanOptions<'a> {
    /// Reads MATCH and COUNT.
    ///
    /// # Errors
    /// [`ReplyError::Syntax`] for other words and for a count below 1, [`ReplyError::NotInteger`].
    pub(crate) fn parse(options: Options<'a>) -> Result<Self, ReplyError> {
        Self::parse_with(options, |_, _| Ok(false))
    }

    /// Like [`parse`](Self::parse), with options of a single command: `other` says whether a word is one of them, and
    /// reads the arguments that belong to it.
    ///
    /// # Errors
    /// The errors of [`parse`](Self::parse) and of `other`.
    pub(crate) fn parse_with(
        mut options: Options<'a>,
        mut other: impl FnMut(&'a [u8], &mut Options<'a>) -> Result<bool, ReplyError>,
    ) -> Result<Self, ReplyError> {
        let mut parsed = Self {
            pattern: b"*",
            count: COUNT,
        };
        while let Some(word) = options.word() {
            if is(word, "COUNT") {
                let count = usize::try_from(options.int()?).ok().filter(|count| *count > 0);
                parsed.count = count.ok_or(ReplyError::Syntax)?;
            } else if is(word, "MATCH") {
                parsed.pattern = options.value()?;
            } else if !other(word, &mut options)? {
                return Err(ReplyError::Syntax);
            }
        }
        Ok(parsed)
    }

    /// Whether an element of that name matches the pattern.
    #[inline]
    pub(crate) fn accept(&self, name: &[u8]) -> bool {
        self.pattern == b"*" || glob::matches(self.pattern, name, false)
    }
}
