//! Patterns: KEYS, SCAN MATCH, PSUBSCRIBE, ACL rules, CONFIG GET.
//!
//! | in a pattern | matches |
//! |---|---|
//! | `*` | any bytes, none included |
//! | `?` | one byte |
//! | `[ab]`, `[a-z]`, `[^a]` | one byte of the class, or one outside it |
//! | `\x` | `x` itself |
//!
//! Bytes are compared, not characters. Every pattern is valid, and a malformed one has the meaning of Redis: a class
//! that is not closed ends with the pattern; a range may be reversed; `[]` matches nothing and `[^]` any byte; a
//! single `\` at the end is literal. Two peculiarities are kept because clients can see them: a `*` does not match an
//! empty text (commands treat the whole pattern `*` separately), and ranges compare bytes as signed numbers, so that
//! 0x80 to 0xff sort before 0x00.
//!
//! One thing differs: Redis gives up on a pattern with more than 1,000 stars to protect its stack. There is no recursion
//! here, hence no limit.

use memchr::{memchr, memchr2};

/// Whether all of `text` matches `pattern`; `nocase` makes ASCII letters equal in either case.
///
/// Each element between two stars is tried at each place at most once: O(length of `pattern` × length of `text`) at
/// worst, about O(length of `text`) for what people write. Does not allocate.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8], nocase: bool) -> bool {
    if text.is_empty() {
        return pattern.is_empty();
    }
    let mut pattern = pattern;
    let mut rest = text;
    // The part behind the last star, and where in the text it was tried last. Only the last star needs to be tried
    // again: what came before it matched as early as possible, which leaves the most to what comes after.
    let mut retry: Option<(Segment<'_>, &[u8])> = None;
    loop {
        if let Some(after) = skip_stars(pattern) {
            if after.is_empty() {
                return true;
            }
            let segment = Segment::new(after, nocase);
            let Some(candidate) = segment.next_candidate(rest) else {
                return false;
            };
            (pattern, rest) = (after, candidate);
            retry = Some((segment, candidate));
            continue;
        }
        match (pattern.is_empty(), rest.split_first()) {
            (true, None) => return true,
            // Every element takes one byte, so starting the segment later cannot help.
            (false, None) => return false,
            (false, Some((byte, after))) => {
                if let Some(next) = match_one(pattern, *byte, nocase) {
                    (pattern, rest) = (next, after);
                    continue;
                }
                let Some((segment, tried)) = retry else {
                    return false;
                };
                let Some(candidate) = segment.next_candidate(&tried[1..]) else {
                    return false;
                };
                (pattern, rest) = (segment.pattern, candidate);
                retry = Some((segment, candidate));
            }
            (true, Some(_)) => {
                // The last segment matched with text left over. It always takes as many bytes as it did now, so the
                // one place left for it is the end of the text.
                let Some((segment, tried)) = retry else {
                    return false;
                };
                let last = &text[text.len() - (tried.len() - rest.len())..];
                (pattern, rest) = (segment.pattern, last);
                retry = Some((segment, last));
            }
        }
    }
}

fn is_special(byte: u8) -> bool {
    matches!(byte, b'*' | b'?' | b'[' | b'\\')
}

/// Rest of `pattern` behind one or more stars; `None` if it does not begin with a star.
fn skip_stars(pattern: &[u8]) -> Option<&[u8]> {
    let stars = pattern.iter().take_while(|byte| **byte == b'*').count();
    (stars > 0).then(|| &pattern[stars..])
}

/// Part of a pattern behind a star.
#[derive(Clone, Copy)]
struct Segment<'p> {
    pattern: &'p [u8],
    /// The byte a match begins with, in both cases, where that is a plain one.
    first: Option<(u8, u8)>,
}

impl<'p> Segment<'p> {
    fn new(pattern: &'p [u8], nocase: bool) -> Segment<'p> {
        let first = pattern
            .first()
            .filter(|byte| !is_special(**byte))
            .map(|byte| match nocase {
                true => (byte.to_ascii_lowercase(), byte.to_ascii_uppercase()),
                false => (*byte, *byte),
            });
        Segment { pattern, first }
    }

    /// The earliest place in `text` where a match can begin.
    fn next_candidate<'t>(&self, text: &'t [u8]) -> Option<&'t [u8]> {
        let start = match self.first {
            None => 0,
            Some((lower, upper)) if lower == upper => memchr(lower, text)?,
            Some((lower, upper)) => memchr2(lower, upper, text)?,
        };
        Some(&text[start..])
    }
}

/// Matches the first element of a pattern, which is neither empty nor at a star, against one byte. Returns what follows
/// the element.
fn match_one(pattern: &[u8], byte: u8, nocase: bool) -> Option<&[u8]> {
    match pattern {
        [b'?', rest @ ..] => Some(rest),
        [b'[', class @ ..] => match_class(class, byte, nocase),
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => is_same(*literal, byte, nocase).then_some(rest),
        [] => None,
    }
}

/// Matches what follows a `[`. A backslash takes the next byte as it is, in its own case only; it does so neither as
/// the end of a range nor as the last byte of the pattern.
fn match_class(class: &[u8], byte: u8, nocase: bool) -> Option<&[u8]> {
    let (negated, mut class) = match class {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut found = false;
    loop {
        class = match class {
            [b'\\', literal, rest @ ..] => {
                found |= *literal == byte;
                rest
            }
            [b']', rest @ ..] => return (found != negated).then_some(rest),
            [from, b'-', to, rest @ ..] => {
                found |= is_in_range(*from, *to, byte, nocase);
                rest
            }
            [literal, rest @ ..] => {
                found |= is_same(*literal, byte, nocase);
                rest
            }
            [] => return (found != negated).then_some(class),
        }
    }
}

/// Ends are put in order before case is folded, so `[Z-a]` without case is empty, as it is in Redis.
fn is_in_range(from: u8, to: u8, byte: u8, nocase: bool) -> bool {
    let (from, to) = if (from as i8) <= to as i8 {
        (from, to)
    } else {
        (to, from)
    };
    let fold = |byte: u8| {
        if nocase {
            byte.to_ascii_lowercase() as i8
        } else {
            byte as i8
        }
    };
    (fold(from)..=fold(to)).contains(&fold(byte))
}

fn is_same(a: u8, b: u8, nocase: bool) -> bool {
    a == b || (nocase && a.eq_ignore_ascii_case(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        for text in yes {
            assert!(
                matches(pattern.as_bytes(), text.as_bytes(), false),
                "{pattern:?} should match {text:?}"
            );
        }
        for text in no {
            assert!(
                !matches(pattern.as_bytes(), text.as_bytes(), false),
                "{pattern:?} should not match {text:?}"
            );
        }
    }

    #[test]
    fn stars_and_question_marks() {
        check("", &[""], &["a"]);
        check("*", &["a", "abc", "*"], &[""]);
        check("**", &["a", "abc"], &[""]);
        check("?", &["a", "?"], &["", "ab"]);
        check("abc", &["abc"], &["", "ab", "abcd", "xabc"]);
        check("a*", &["a", "ab", "abc"], &["", "ba"]);
        check("*a", &["a", "ba", "aa", "baaa"], &["", "ab"]);
        check("a*c", &["ac", "abc", "acc", "abcbc"], &["a", "c", "acb"]);
        check(
            "*ab*",
            &["ab", "xab", "abx", "aab", "xaabx"],
            &["", "a", "ba", "axb"],
        );
        check("h?llo", &["hello", "hallo"], &["hllo", "heello"]);
        check("?*", &["a", "ab"], &[""]);
        check("*?", &["a", "ab"], &[""]);
        check("*?b?*", &["aba", "xxbx"], &["ab", "ba", "b"]);
        check("a*b*c*d", &["abcd", "a1b2c3d", "abcdbcd"], &["abdc", "abcde"]);
        check("*aab", &["aaab", "aab", "aabaab"], &["aaba", "ab"]);
        check("*a?c*", &["aabc", "xaxc", "aacabc"], &["acb", "aa"]);
    }

    #[test]
    fn classes() {
        check("[abc]", &["a", "b", "c"], &["", "d", "ab", "["]);
        check("h[a-c]llo", &["hallo", "hbllo"], &["hdllo", "h-llo"]);
        check("[^a-c]", &["d", "^"], &["a", "b", "c", ""]);
        check("[z-a]", &["a", "m", "z"], &["A", "-"]);
        check("[^^]", &["a"], &["^"]);
        check("[!a]", &["!", "a"], &["b"]);
        check("[]", &[], &["", "]", "a", "[]"]);
        check("[]a]", &[], &["]", "a", "a]"]);
        check("[^]", &["a", "]"], &["", "ab"]);
        check("[^]a]", &["xa]"], &["x", "a"]);
        check("[--a]", &["-", ".", "A", "a"], &[",", "b"]);
        check("[a-c-e]", &["a", "b", "c", "-", "e"], &["d"]);
        check("*[ab]c", &["ac", "xbc", "abac"], &["c", "xc", "acb"]);
    }

    #[test]
    fn classes_that_are_not_closed() {
        check("[", &[], &["", "[", "a"]);
        check("[^", &["a", "["], &["", "ab"]);
        check("[a", &["a"], &["b", "[a", ""]);
        check("[^a", &["b"], &["a"]);
        check("[a-", &["a", "-"], &["b"]);
        check("[a-]", &["]", "^", "_", "`", "a"], &["b", "-", "a]"]);
        check("x[ab*", &["xa", "xb", "x*"], &["x", "xab"]);
    }

    #[test]
    fn backslashes() {
        check("\\*", &["*"], &["a", "\\*", ""]);
        check("\\a", &["a"], &["\\a"]);
        check("\\", &["\\"], &["", "a"]);
        check("a\\", &["a\\"], &["a"]);
        check("\\\\", &["\\"], &["\\\\"]);
        check("*\\*", &["*", "a*"], &["a", "*a"]);
        check("[\\]a]", &["]", "a"], &["\\"]);
        check("[\\", &["\\"], &["[", "a"]);
        check("[a\\-z]", &["a", "-", "z"], &["b", "\\"]);
        check("[\\a-z]", &["a", "-", "z"], &["b"]);
        check("[a-\\z]", &["\\", "]", "a", "z"], &["b", "-"]);
    }

    #[test]
    fn ranges_compare_signed_bytes() {
        let matched = |pattern: &[u8]| {
            (0..=255)
                .filter(|byte| matches(pattern, &[*byte], false))
                .collect::<Vec<u8>>()
        };
        assert_eq!(matched(b"[\x80-\x90]"), (0x80..=0x90).collect::<Vec<_>>());
        assert_eq!(matched(b"[a-\xff]"), (0..=b'a').chain([0xff]).collect::<Vec<_>>());
        assert_eq!(
            matched(b"[\x01-\x80]"),
            (0..=1).chain(0x80..=0xff).collect::<Vec<_>>()
        );
    }

    #[test]
    fn case_can_be_ignored() {
        let cases = [
            ("MAX*MORY", "maxmemory", true),
            ("max*", "MAXMEMORY", true),
            ("*MEM*", "maxmemory", true),
            ("\\Max*", "maxmemory", true),
            ("[M]ax", "max", true),
            ("[^M]ax", "max", false),
            ("[\\M]ax", "max", false),
            ("[^\\M]ax", "max", true),
            ("[A-Z]ax", "max", true),
            ("[z-A]ax", "max", true),
            ("[Z-a]ax", "max", false),
            ("\u{c9}", "\u{e9}", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes(), true),
                expected,
                "{pattern:?} on {text:?}"
            );
        }
        assert!(!matches(b"A", b"a", false));
    }

    #[test]
    fn many_stars_are_cheap() {
        let text = "a".repeat(30_000);
        assert!(!matches(
            "a*".repeat(2_000).as_bytes(),
            format!("{}b", "x".repeat(9)).as_bytes(),
            false
        ));
        assert!(!matches(
            format!("{}b", "a*".repeat(100)).as_bytes(),
            text.as_bytes(),
            false
        ));
        assert!(matches("*a".repeat(3_000).as_bytes(), text.as_bytes(), false));
        assert!(!matches("*?b".repeat(3_000).as_bytes(), text.as_bytes(), false));
    }

    /// The definition, by recursion: exponential, so for small patterns only.
    fn naive(pattern: &[u8], text: &[u8], nocase: bool) -> bool {
        fn go(pattern: &[u8], text: &[u8], nocase: bool) -> bool {
            match (pattern, text) {
                ([], text) => text.is_empty(),
                ([b'*', rest @ ..], text) => (0..=text.len()).any(|taken| go(rest, &text[taken..], nocase)),
                (_, []) => false,
                (pattern, [byte, after @ ..]) => {
                    match_one(pattern, *byte, nocase).is_some_and(|rest| go(rest, after, nocase))
                }
            }
        }
        if text.is_empty() {
            pattern.is_empty()
        } else {
            go(pattern, text, nocase)
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[abA*?\\[\\]^\\\\-]{0,10}", text in "[abA*\\]^\\\\-]{0,9}", nocase: bool) {
            prop_assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes(), nocase),
                naive(pattern.as_bytes(), text.as_bytes(), nocase)
            );
        }

        #[test]
        fn agrees_with_the_definition_on_stars(pattern in "[ab*?]{0,12}", text in "[ab]{0,14}") {
            prop_assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes(), false),
                naive(pattern.as_bytes(), text.as_bytes(), false)
            );
        }

        #[test]
        fn any_bytes_are_survived(pattern: Vec<u8>, text: Vec<u8>, nocase: bool) {
            prop_assert_eq!(matches(&pattern, &text, nocase), naive(&pattern, &text, nocase));
        }
    }
}
