//! The arguments of LMPOP, ZMPOP and their blocking forms: `numkeys key … END [COUNT count]`.

use std::ops::Range;

use shardis_protocol::Arguments;

use crate::error::ReplyError;
use crate::exec::Options;
use crate::exec::arguments::{count_from, is};

/// A request to take up to `count` elements from one end of the first key that has any.
pub(super) struct PopRequest<End> {
    /// Indexes of the arguments that are keys.
    pub(super) keys: Range<usize>,
    pub(super) end: End,
    pub(super) count: usize,
}

impl<End> PopRequest<End> {
    /// Reads the request from argument `at` on, which is the number of keys. `end_of` reads the word for the end.
    pub(super) fn parse(
        args: Arguments<'_>,
        at: usize,
        end_of: impl Fn(&[u8]) -> Result<End, ReplyError>,
    ) -> Result<Self, ReplyError> {
        let keys = count_from(args.at(at), 1, ReplyError::NumkeysNotPositive)?;
        let first = at + 1;
        let behind = first.saturating_add(keys);
        let mut options = Options::new(args, behind);
        let end = end_of(options.value()?)?;
        let mut count = None;
        while let Some(word) = options.word() {
            if count.is_some() || !is(word, "COUNT") {
                return Err(ReplyError::Syntax);
            }
            // A wrong count is reported before faults after it.
            count = Some(count_from(options.value()?, 1, ReplyError::CountNotPositive)?);
        }
        Ok(Self {
            keys: first..behind,
            end,
            count: count.unwrap_or(1),
        })
    }
}
