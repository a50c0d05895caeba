//! Lines of words, as people type or write them: inline requests, and the lines of a configuration file.
//!
//! Words are separated by white space. A part in double quotes knows the escapes `\n \r \t \b \a \xHH` and takes any
//! other escaped byte as it is; a part in single quotes knows `\'` only. A closing quote ends its word. Promise: words
//! are unescaped where they stand, which works because no escape grows, so that nothing is allocated.

use crate::error::ProtocolError;

/// Splits a line (without its end), and passes each word on with the place where it begins. The line is
/// overwritten. Complexity: O(bytes).
///
/// # Errors
/// [`ProtocolError::UnbalancedQuotes`] if a quote is not closed, or is closed within a word.
pub fn split(line: &mut [u8], mut found: impl FnMut(usize, &[u8])) -> Result<(), ProtocolError> {
    let mut read = 0;
    loop {
        read += line[read..].iter().take_while(|&&byte| is_space(byte)).count();
        if read == line.len() {
            return Ok(());
        }
        let start = read;
        let (end, written) = word(line, start)?;
        found(start, &line[start..written]);
        read = end;
    }
}

/// Unescapes the word at `start` in place; returns the position where the next one may begin and the end of the
/// written bytes.
fn word(line: &mut [u8], start: usize) -> Result<(usize, usize), ProtocolError> {
    let (mut read, mut write) = (start, start);
    while let Some(&byte) = line.get(read) {
        match byte {
            b'"' | b'\'' => return quoted(line, byte, read + 1, write),
            // Vertical tab and form feed separate words only where a word could begin.
            b' ' | b'\t' | b'\r' | b'\n' => break,
            _ => {
                line[write] = byte;
                (read, write) = (read + 1, write + 1);
            }
        }
    }
    Ok((read, write))
}

/// Unescapes the rest of a word from behind its opening `quote` on.
fn quoted(
    line: &mut [u8],
    quote: u8,
    mut read: usize,
    mut write: usize,
) -> Result<(usize, usize), ProtocolError> {
    loop {
        let rest = line.get(read..).unwrap_or(&[]);
        let (byte, taken) = match *rest {
            [] => return Err(ProtocolError::UnbalancedQuotes),
            [byte, ref after @ ..] if byte == quote => {
                return match after.first() {
                    Some(&next) if !is_space(next) => Err(ProtocolError::UnbalancedQuotes),
                    _ => Ok((read + 1, write)),
                };
            }
            [b'\\', b'\'', ..] if quote == b'\'' => (b'\'', 2),
            [b'\\', escaped, ref after @ ..] if quote == b'"' => escape(escaped, after),
            [byte, ..] => (byte, 1),
        };
        line[write] = byte;
        (read, write) = (read + taken, write + 1);
    }
}

/// Byte that a backslash and `escaped` stand for when `after` follows, and the length of the whole sequence.
fn escape(escaped: u8, after: &[u8]) -> (u8, usize) {
    match escaped {
        b'n' => (b'\n', 2),
        b'r' => (b'\r', 2),
        b't' => (b'\t', 2),
        b'b' => (0x08, 2),
        b'a' => (0x07, 2),
        b'x' => match (after.first().and_then(hex), after.get(1).and_then(hex)) {
            (Some(high), Some(low)) => (high << 4 | low, 4),
            _ => (b'x', 2),
        },
        other => (other, 2),
    }
}

fn hex(digit: &u8) -> Option<u8> {
    char::from(*digit).to_digit(16).map(|value| value as u8)
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, ProtocolError> {
        let mut words = Vec::new();
        split(&mut line.to_vec(), |_, word| words.push(word.to_vec()))?;
        Ok(words)
    }

    /// Each row was answered the same by a real server.
    #[test]
    fn words_are_split_and_unescaped() {
        for (line, expected) in [
            (&b""[..], &[][..]),
            (b" \t\x0b\x0c\r ", &[]),
            (b"PING", &[&b"PING"[..]]),
            (b"  SET a\tb ", &[b"SET", b"a", b"b"]),
            (b"ECHO a\rb", &[b"ECHO", b"a", b"b"]),
            (b"ECHO a\x0bb", &[b"ECHO", b"a\x0bb"]),
            (b"\x0b\x0cECHO \x0ba", &[b"ECHO", b"a"]),
            (
                br#"ECHO "a\n\r\t\b\a\x41\q\"z""#,
                &[b"ECHO", b"a\n\r\t\x08\x07Aq\"z"],
            ),
            (br#"ECHO "\xzz\x4""#, &[b"ECHO", b"xzzx4"]),
            (br#"ECHO "\xfF\x00""#, &[b"ECHO", b"\xff\0"]),
            (br"ECHO 'a\'b\n'", &[b"ECHO", br"a'b\n"]),
            (br"ECHO a\n", &[b"ECHO", br"a\n"]),
            (br#"ECHO a"b c""#, &[b"ECHO", b"ab c"]),
            (b"ECHO a'b c'", &[b"ECHO", b"ab c"]),
            (b"'' \"\"", &[b"", b""]),
            (b"\"a\"\x0b'b'\tc", &[b"a", b"b", b"c"]),
            (b"\xff\xfe", &[b"\xff\xfe"]),
        ] {
            assert_eq!(words(line).unwrap(), expected, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn quotes_must_be_balanced() {
        for line in [
            &br#"ECHO "a"#[..],
            b"ECHO 'a",
            b"ECHO \"",
            b"ECHO '",
            br#"ECHO "a\"#,
            br#"ECHO "a\""#,
            br"ECHO 'a\'",
            br#"ECHO "a"b"#,
            b"ECHO 'a'b",
            b"ECHO 'a''b'",
        ] {
            assert_eq!(
                words(line),
                Err(ProtocolError::UnbalancedQuotes),
                "{}",
                line.escape_ascii()
            );
        }
    }
}
