//! Inline requests: one line of words, as people type them into a raw connection.
//!
//! Promise: a line is written to only once it is complete.

use crate::arguments::Span;
use crate::error::ProtocolError;
use crate::words;

/// Appends the words of `line` (without its end) to `spans`, as if `line` began at `origin` of the base.
pub(super) fn split(line: &mut [u8], origin: usize, spans: &mut Vec<Span>) -> Result<(), ProtocolError> {
    words::split(line, |start, word| {
        spans.push(Span::within_reach(origin + start, word.len()));
    })
}
