//! [`Matcher`]: patterns of Lua 5.1.
//!
//! Equal to those of the reference in every result, with two bounds more: the depth of nested choices, because each
//! takes a frame of the native stack, and a look at the host every so many steps, because a pattern can take
//! exponential time.

use std::ops::Range;

use crate::limits::{PATTERN_CAPTURES_MAX, PATTERN_DEPTH_MAX};

/// Error in a pattern, or the reason why matching ended.
#[derive(Debug)]
pub(crate) enum PatternError {
    /// The pattern is wrong.
    Invalid(&'static str),
    /// The script was stopped.
    Stopped(mlua::Error),
}

use PatternError::Invalid;

type Result<T> = std::result::Result<T, PatternError>;

/// Part of the text that a pattern captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Capture {
    /// These bytes.
    Bytes(Range<usize>),
    /// A position, from 1.
    Position(usize),
}

#[derive(Clone, Copy)]
struct Open {
    start: usize,
    len: Len,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Len {
    Unfinished,
    Position,
    Bytes(usize),
}

/// A pattern and a text that it is matched with.
pub(crate) struct Matcher<'a, P> {
    text: &'a [u8],
    pattern: &'a [u8],
    captures: [Open; PATTERN_CAPTURES_MAX],
    level: usize,
    depth: usize,
    /// Called at each step.
    step: P,
}

/// Bytes that make a pattern more than a plain text.
const SPECIALS: &[u8] = b"^$*+?.([%-";

/// The part of a pattern that counts: a pattern ends at its first zero byte.
pub(crate) fn effective(pattern: &[u8]) -> &[u8] {
    let end = pattern.iter().position(|&byte| byte == 0);
    &pattern[..end.unwrap_or(pattern.len())]
}

/// Whether a pattern is a plain text.
pub(crate) fn is_plain(pattern: &[u8]) -> bool {
    !effective(pattern).iter().any(|byte| SPECIALS.contains(byte))
}

impl<'a, P: FnMut() -> std::result::Result<(), mlua::Error>> Matcher<'a, P> {
    /// A matcher of `pattern`, of which an anchor at the beginning has been removed.
    pub(crate) fn new(text: &'a [u8], pattern: &'a [u8], step: P) -> Self {
        let empty = Open {
            start: 0,
            len: Len::Unfinished,
        };
        Matcher {
            text,
            pattern: effective(pattern),
            captures: [empty; PATTERN_CAPTURES_MAX],
            level: 0,
            depth: 0,
            step,
        }
    }

    /// End of the match that begins at `start`, if there is one.
    pub(crate) fn match_at(&mut self, start: usize) -> Result<Option<usize>> {
        self.level = 0;
        self.depth = 0;
        self.matches(start, 0)
    }

    /// The first match that begins at `start` or later; exactly there if `anchored`.
    pub(crate) fn search(&mut self, start: usize, anchored: bool) -> Result<Option<Range<usize>>> {
        let last = if anchored { start } else { self.text.len() };
        for at in start..=last {
            if let Some(end) = self.match_at(at)? {
                return Ok(Some(at..end));
            }
        }
        Ok(None)
    }

    /// Number of captures of the last match.
    pub(crate) fn captures(&self) -> usize {
        self.level
    }

    /// A capture of the last match. Number 0 is the whole match if the pattern has no captures.
    pub(crate) fn capture(&self, index: usize, whole: &Range<usize>) -> Result<Capture> {
        if index >= self.level {
            return if index == 0 {
                Ok(Capture::Bytes(whole.clone()))
            } else {
                Err(Invalid("invalid capture index"))
            };
        }
        let Open { start, len } = self.captures[index];
        match len {
            Len::Unfinished => Err(Invalid("unfinished capture")),
            Len::Position => Ok(Capture::Position(start + 1)),
            Len::Bytes(len) => Ok(Capture::Bytes(start..start + len)),
        }
    }

    fn matches(&mut self, at: usize, p: usize) -> Result<Option<usize>> {
        if self.depth >= PATTERN_DEPTH_MAX {
            return Err(Invalid("pattern too complex"));
        }
        self.depth += 1;
        let end = self.matches_here(at, p);
        self.depth -= 1;
        end
    }

    fn matches_here(&mut self, mut at: usize, mut p: usize) -> Result<Option<usize>> {
        loop {
            self.took_step()?;
            let Some(&item) = self.pattern.get(p) else {
                return Ok(Some(at));
            };
            match (item, self.pattern.get(p + 1)) {
                (b'(', Some(b')')) => return self.start_capture(at, p + 2, Len::Position),
                (b'(', _) => return self.start_capture(at, p + 1, Len::Unfinished),
                (b')', _) => return self.end_capture(at, p + 1),
                (b'$', None) => return Ok((at == self.text.len()).then_some(at)),
                (b'%', Some(b'b')) => match self.balanced(at, p + 2)? {
                    Some(end) => (at, p) = (end, p + 4),
                    None => return Ok(None),
                },
                (b'%', Some(b'f')) => match self.frontier(at, p + 2)? {
                    Some(end_of_set) => p = end_of_set,
                    None => return Ok(None),
                },
                (b'%', Some(digit)) if digit.is_ascii_digit() => match self.repeated_capture(at, *digit)? {
                    Some(end) => (at, p) = (end, p + 2),
                    None => return Ok(None),
                },
                _ => match self.single(at, p)? {
                    Next::End(end) => return Ok(end),
                    Next::Go(next_at, next_p) => (at, p) = (next_at, next_p),
                },
            }
        }
    }

    /// One character class with what follows it: `?`, `*`, `+`, `-` or nothing.
    fn single(&mut self, at: usize, p: usize) -> Result<Next> {
        let end = self.class_end(p)?;
        let is_match = at < self.text.len() && self.is_in_class(self.text[at], p, end);
        Ok(match self.pattern.get(end) {
            Some(b'?') => {
                if is_match && let Some(found) = self.matches(at + 1, end + 1)? {
                    return Ok(Next::End(Some(found)));
                }
                Next::Go(at, end + 1)
            }
            Some(b'*') => Next::End(self.longest(at, p, end)?),
            Some(b'+') if is_match => Next::End(self.longest(at + 1, p, end)?),
            Some(b'+') => Next::End(None),
            Some(b'-') => Next::End(self.shortest(at, p, end)?),
            _ if is_match => Next::Go(at + 1, end),
            _ => Next::End(None),
        })
    }

    fn longest(&mut self, at: usize, p: usize, end: usize) -> Result<Option<usize>> {
        let mut count = 0;
        while at + count < self.text.len() && self.is_in_class(self.text[at + count], p, end) {
            self.took_step()?;
            count += 1;
        }
        for count in (0..=count).rev() {
            if let Some(found) = self.matches(at + count, end + 1)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn shortest(&mut self, mut at: usize, p: usize, end: usize) -> Result<Option<usize>> {
        loop {
            if let Some(found) = self.matches(at, end + 1)? {
                return Ok(Some(found));
            }
            if at >= self.text.len() || !self.is_in_class(self.text[at], p, end) {
                return Ok(None);
            }
            at += 1;
        }
    }

    fn start_capture(&mut self, at: usize, p: usize, len: Len) -> Result<Option<usize>> {
        if self.level >= PATTERN_CAPTURES_MAX {
            return Err(Invalid("too many captures"));
        }
        self.captures[self.level] = Open { start: at, len };
        self.level += 1;
        let found = self.matches(at, p)?;
        if found.is_none() {
            self.level -= 1;
        }
        Ok(found)
    }

    fn end_capture(&mut self, at: usize, p: usize) -> Result<Option<usize>> {
        let open = (0..self.level)
            .rev()
            .find(|&index| self.captures[index].len == Len::Unfinished)
            .ok_or(Invalid("invalid pattern capture"))?;
        self.captures[open].len = Len::Bytes(at - self.captures[open].start);
        let found = self.matches(at, p)?;
        if found.is_none() {
            self.captures[open].len = Len::Unfinished;
        }
        Ok(found)
    }

    /// `%1`: what was captured, once more.
    fn repeated_capture(&mut self, at: usize, digit: u8) -> Result<Option<usize>> {
        let index = usize::from(digit).wrapping_sub(usize::from(b'1'));
        if index >= self.level {
            return Err(Invalid("invalid capture index"));
        }
        let Open { start, len } = self.captures[index];
        match len {
            Len::Unfinished => Err(Invalid("invalid capture index")),
            // A position has no bytes that could come again.
            Len::Position => Ok(None),
            Len::Bytes(len) => {
                let captured = &self.text[start..start + len];
                Ok(self.text[at..].starts_with(captured).then_some(at + len))
            }
        }
    }

    /// `%bxy`: from an x to its y.
    fn balanced(&mut self, at: usize, p: usize) -> Result<Option<usize>> {
        let Some(&[open, close]) = self.pattern.get(p..p + 2) else {
            return Err(Invalid("unbalanced pattern"));
        };
        if self.text.get(at) != Some(&open) {
            return Ok(None);
        }
        let mut level = 1;
        for position in at + 1..self.text.len() {
            self.took_step()?;
            let byte = self.text[position];
            if byte == close {
                level -= 1;
                if level == 0 {
                    return Ok(Some(position + 1));
                }
            } else if byte == open {
                level += 1;
            }
        }
        Ok(None)
    }

    /// `%f[set]`: the place where a set begins. Returns the end of the set in the pattern.
    fn frontier(&mut self, at: usize, p: usize) -> Result<Option<usize>> {
        if self.pattern.get(p) != Some(&b'[') {
            return Err(Invalid("missing '[' after '%f' in pattern"));
        }
        let end = self.class_end(p)?;
        let before = if at == 0 { 0 } else { self.text[at - 1] };
        let here = self.text.get(at).copied().unwrap_or(0);
        let is_border = !self.is_in_set(before, p, end - 1) && self.is_in_set(here, p, end - 1);
        Ok(is_border.then_some(end))
    }

    /// End of the class that begins at `p`.
    fn class_end(&self, p: usize) -> Result<usize> {
        match self.pattern[p] {
            b'%' if p + 1 >= self.pattern.len() => Err(Invalid("malformed pattern (ends with '%')")),
            b'%' => Ok(p + 2),
            b'[' => self.set_end(p + 1),
            _ => Ok(p + 1),
        }
    }

    fn set_end(&self, mut p: usize) -> Result<usize> {
        if self.pattern.get(p) == Some(&b'^') {
            p += 1;
        }
        // The first byte belongs to the set, also if it is a bracket.
        loop {
            let byte = *self
                .pattern
                .get(p)
                .ok_or(Invalid("malformed pattern (missing ']')"))?;
            p += 1;
            if byte == b'%' && p < self.pattern.len() {
                p += 1;
            }
            if self.pattern.get(p) == Some(&b']') {
                return Ok(p + 1);
            }
        }
    }

    fn is_in_class(&self, byte: u8, p: usize, end: usize) -> bool {
        match self.pattern[p] {
            b'.' => true,
            b'%' => is_of_class(byte, self.pattern[p + 1]),
            b'[' => self.is_in_set(byte, p, end - 1),
            other => other == byte,
        }
    }

    /// Whether a byte is in the set from `p` to its closing bracket at `close`.
    fn is_in_set(&self, byte: u8, mut p: usize, close: usize) -> bool {
        let set = self.pattern;
        let is_inverted = set[p + 1] == b'^';
        p += usize::from(is_inverted) + 1;
        while p < close {
            let is_found = if set[p] == b'%' {
                p += 1;
                is_of_class(byte, set[p])
            } else if set[p + 1] == b'-' && p + 2 < close {
                p += 2;
                (set[p - 2]..=set[p]).contains(&byte)
            } else {
                set[p] == byte
            };
            if is_found {
                return !is_inverted;
            }
            p += 1;
        }
        is_inverted
    }

    #[inline]
    fn took_step(&mut self) -> Result<()> {
        (self.step)().map_err(PatternError::Stopped)
    }
}

/// Way on after one class of a pattern.
enum Next {
    End(Option<usize>),
    Go(usize, usize),
}

/// Whether a byte belongs to a class such as `%a`; `%A` is its complement.
fn is_of_class(byte: u8, class: u8) -> bool {
    let is_member = match class.to_ascii_lowercase() {
        b'a' => byte.is_ascii_alphabetic(),
        b'c' => byte.is_ascii_control(),
        b'd' => byte.is_ascii_digit(),
        b'l' => byte.is_ascii_lowercase(),
        b'p' => byte.is_ascii_punctuation(),
        b's' => matches!(byte, b' ' | b'\t'..=b'\r'),
        b'u' => byte.is_ascii_uppercase(),
        b'w' => byte.is_ascii_alphanumeric(),
        b'x' => byte.is_ascii_hexdigit(),
        b'z' => byte == 0,
        _ => return class == byte,
    };
    is_member != class.is_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(text: &str, pattern: &str) -> std::result::Result<Option<Range<usize>>, &'static str> {
        Matcher::new(text.as_bytes(), pattern.as_bytes(), || Ok(()))
            .search(0, false)
            .map_err(|error| match error {
                Invalid(text) => text,
                PatternError::Stopped(_) => "stopped",
            })
    }

    #[test]
    fn items_match() {
        for (text, pattern, found) in [
            ("hello", "l+", Some(2..4)),
            ("hello", "l-o", Some(2..5)),
            ("hello", "x?", Some(0..0)),
            ("f(a(b)c)d", "%b()", Some(1..8)),
            ("THE (quick) fox", "%f[%a]%a+%f[%A]", Some(0..3)),
            ("abab", "(a)(b)%1%2", Some(0..4)),
            ("a]b", "[]]", Some(1..2)),
            ("a-b", "[a-]+", Some(0..2)),
            ("a^b", "[b^]+", Some(1..3)),
            ("abc", "b$", None),
            ("abc", "c$", Some(2..3)),
            ("1.5", "%d+%.%d*", Some(0..3)),
            ("", ".-", Some(0..0)),
        ] {
            assert_eq!(find(text, pattern), Ok(found), "{pattern}");
        }
    }

    #[test]
    fn wrong_patterns_are_errors() {
        for (pattern, error) in [
            ("%", "malformed pattern (ends with '%')"),
            ("[a", "malformed pattern (missing ']')"),
            ("[^", "malformed pattern (missing ']')"),
            ("(a", "unfinished capture"),
            ("a)", "invalid pattern capture"),
            ("%1", "invalid capture index"),
            ("%bx", "unbalanced pattern"),
            ("%fa", "missing '[' after '%f' in pattern"),
        ] {
            let mut matcher = Matcher::new(b"aaa", pattern.as_bytes(), || Ok(()));
            let result = matcher
                .search(0, false)
                .and_then(|found| matcher.capture(0, &found.unwrap_or(0..0)));
            assert!(
                matches!(result, Err(Invalid(text)) if text == error),
                "{pattern}: {result:?}"
            );
        }
    }

    #[test]
    fn depth_is_bounded() {
        let pattern = "a?".repeat(100_000);
        let text = "a".repeat(100_000);
        assert_eq!(find(&text, &pattern), Err("pattern too complex"));
    }

    #[test]
    fn a_step_can_end_it() {
        let (text, pattern) = ("a".repeat(40), "a*".repeat(20) + "b");
        let mut steps = 0;
        let mut matcher = Matcher::new(text.as_bytes(), pattern.as_bytes(), || {
            steps += 1;
            if steps > 1000 {
                Err(mlua::Error::StackError)
            } else {
                Ok(())
            }
        });
        assert!(matches!(matcher.search(0, false), Err(PatternError::Stopped(_))));
    }
}
