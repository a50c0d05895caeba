//! A reply exactly as it was on the wire, RESP2 or RESP3, and its one-line text form.
//!
//! The parser is deliberately simple and starts over when bytes are missing. The text form is what reports print
//! and what the expectations in `cases/` are written in:
//!
//! ```text
//! +OK   -ERR text   :42   "bulk \x00"   nil   nil-array   [a, b]   {key: value}   ~[a, b]   >[a, b]
//! ,1.5 (double)   #t   (123 (big number)   =txt:"verbatim"   |{attribute: value} reply
//! ```

use std::fmt::{self, Display, Formatter, Write as _};

/// One reply. Byte strings are kept as sent; nothing is converted but integers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reply {
    /// `+text`
    Simple(Vec<u8>),
    /// `-text`, and RESP3's `!` form.
    Error(Vec<u8>),
    /// `:number`
    Integer(i64),
    /// `$length` and bytes
    Bulk(Vec<u8>),
    /// `$-1`, RESP2's missing string.
    NullBulk,
    /// `*-1`, RESP2's missing array.
    NullArray,
    /// `_`, RESP3's only null.
    Null,
    /// `*`
    Array(Vec<Reply>),
    /// `%`, in the order sent.
    Map(Vec<(Reply, Reply)>),
    /// `~`
    Set(Vec<Reply>),
    /// `>`
    Push(Vec<Reply>),
    /// `,`: the digits as sent.
    Double(Vec<u8>),
    /// `#`
    Boolean(bool),
    /// `(`: the digits as sent.
    BigNumber(Vec<u8>),
    /// `=`: three letters of format, then the text.
    Verbatim([u8; 3], Vec<u8>),
    /// `|`: remarks, and the reply they are about.
    Attributed(Vec<(Reply, Reply)>, Box<Reply>),
}

/// Deeper nesting than any real reply has; a guard for the parser's own stack.
const DEPTH_MAX: usize = 64;

/// More elements than any reply of a test has; a guard against a corrupt length.
const ELEMENTS_MAX: usize = 1 << 24;

impl Reply {
    /// Parses the reply at the front of `input`: the reply and its length in bytes, or `None` when more bytes are
    /// needed.
    ///
    /// # Errors
    /// A description of the first byte sequence that is not RESP.
    pub fn parse(input: &[u8]) -> Result<Option<(Reply, usize)>, String> {
        let mut parser = Parser { input, at: 0 };
        Ok(parser.reply(0)?.map(|reply| (reply, parser.at)))
    }

    /// True for `-` replies.
    #[must_use]
    pub fn is_error(&self) -> bool {
        matches!(self, Reply::Error(_))
    }

    /// True for any of the three nulls.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Reply::Null | Reply::NullBulk | Reply::NullArray)
    }

    /// The number in an integer reply.
    #[must_use]
    pub fn integer(&self) -> Option<i64> {
        if let Reply::Integer(number) = self {
            Some(*number)
        } else {
            None
        }
    }

    /// The text of a simple, bulk, verbatim, double or error reply, lossily as UTF-8; empty for all others.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    /// The bytes of a simple, bulk, verbatim, double or error reply; empty for all others.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Reply::Simple(bytes)
            | Reply::Error(bytes)
            | Reply::Bulk(bytes)
            | Reply::Double(bytes)
            | Reply::BigNumber(bytes)
            | Reply::Verbatim(_, bytes) => bytes,
            _ => &[],
        }
    }

    /// The elements of an array, set or push; empty for all others.
    #[must_use]
    pub fn items(&self) -> &[Reply] {
        match self {
            Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => items,
            _ => &[],
        }
    }

    /// The pairs of a map, or of an array that RESP2 sends in its place; empty for all others.
    #[must_use]
    pub fn pairs(&self) -> Vec<(&Reply, &Reply)> {
        match self {
            Reply::Map(pairs) => pairs.iter().map(|(key, value)| (key, value)).collect(),
            _ => self
                .items()
                .chunks_exact(2)
                .map(|pair| (&pair[0], &pair[1]))
                .collect(),
        }
    }

    /// The value under `key` in a map, or in an array that RESP2 sends in its place.
    #[must_use]
    pub fn field(&self, key: &str) -> Option<&Reply> {
        self.pairs()
            .into_iter()
            .find(|(name, _)| name.bytes() == key.as_bytes())
            .map(|(_, value)| value)
    }
}

/// The unread rest of a buffer.
struct Parser<'a> {
    input: &'a [u8],
    at: usize,
}

impl<'a> Parser<'a> {
    /// One reply with all it contains; `None` when the input ends within it.
    fn reply(&mut self, depth: usize) -> Result<Option<Reply>, String> {
        if depth > DEPTH_MAX {
            return Err(format!("a reply nested deeper than {DEPTH_MAX}"));
        }
        let Some(line) = self.line()? else { return Ok(None) };
        let (&mark, rest) = line
            .split_first()
            .ok_or("an empty line where a reply should begin")?;
        let reply = match mark {
            b'+' => Reply::Simple(rest.to_vec()),
            b'-' => Reply::Error(rest.to_vec()),
            b':' => Reply::Integer(number(rest)?),
            b',' => Reply::Double(rest.to_vec()),
            b'(' => Reply::BigNumber(rest.to_vec()),
            b'_' if rest.is_empty() => Reply::Null,
            b'#' if rest == b"t" || rest == b"f" => Reply::Boolean(rest == b"t"),
            b'$' if rest == b"-1" => Reply::NullBulk,
            b'*' if rest == b"-1" => Reply::NullArray,
            b'$' | b'!' | b'=' => {
                let Some(bytes) = self.payload(length(rest)?)? else {
                    return Ok(None);
                };
                blob(mark, bytes)?
            }
            b'*' | b'~' | b'>' => {
                let Some(items) = self.replies(length(rest)?, depth)? else {
                    return Ok(None);
                };
                match mark {
                    b'*' => Reply::Array(items),
                    b'~' => Reply::Set(items),
                    _ => Reply::Push(items),
                }
            }
            b'%' | b'|' => {
                let Some(items) = self.replies(length(rest)? * 2, depth)? else {
                    return Ok(None);
                };
                let pairs = in_pairs(items);
                if mark == b'%' {
                    Reply::Map(pairs)
                } else {
                    let Some(about) = self.reply(depth + 1)? else {
                        return Ok(None);
                    };
                    Reply::Attributed(pairs, Box::new(about))
                }
            }
            _ => {
                return Err(format!(
                    "a reply cannot begin with {:?}",
                    String::from_utf8_lossy(line)
                ));
            }
        };
        Ok(Some(reply))
    }

    /// `count` replies in a row.
    fn replies(&mut self, count: usize, depth: usize) -> Result<Option<Vec<Reply>>, String> {
        let mut items = Vec::with_capacity(count.min(1024));
        for _ in 0..count {
            let Some(item) = self.reply(depth + 1)? else {
                return Ok(None);
            };
            items.push(item);
        }
        Ok(Some(items))
    }

    /// The line up to the next CR LF, without it.
    fn line(&mut self) -> Result<Option<&'a [u8]>, String> {
        let rest = &self.input[self.at..];
        let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
            return Ok(None);
        };
        let line = rest[..end]
            .strip_suffix(b"\r")
            .ok_or("a line that ends in LF without CR")?;
        self.at += end + 1;
        Ok(Some(line))
    }

    /// `length` bytes followed by CR LF.
    fn payload(&mut self, length: usize) -> Result<Option<&'a [u8]>, String> {
        let rest = &self.input[self.at..];
        if rest.len() < length + 2 {
            return Ok(None);
        }
        if &rest[length..length + 2] != b"\r\n" {
            return Err(format!("a payload of {length} bytes is not followed by CR LF"));
        }
        self.at += length + 2;
        Ok(Some(&rest[..length]))
    }
}

/// The reply that a length-prefixed payload stands for.
fn blob(mark: u8, bytes: &[u8]) -> Result<Reply, String> {
    match mark {
        b'$' => Ok(Reply::Bulk(bytes.to_vec())),
        b'!' => Ok(Reply::Error(bytes.to_vec())),
        _ => match bytes {
            [a, b, c, b':', text @ ..] => Ok(Reply::Verbatim([*a, *b, *c], text.to_vec())),
            _ => Err("a verbatim string without its format".to_owned()),
        },
    }
}

/// A flat list as pairs.
fn in_pairs(items: Vec<Reply>) -> Vec<(Reply, Reply)> {
    let mut items = items.into_iter();
    let mut pairs = Vec::new();
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        pairs.push((key, value));
    }
    pairs
}

/// A decimal number as headers carry it.
fn number(digits: &[u8]) -> Result<i64, String> {
    let text = String::from_utf8_lossy(digits);
    text.parse()
        .map_err(|_| format!("{text:?} where a number should be"))
}

/// A length as headers carry it.
fn length(digits: &[u8]) -> Result<usize, String> {
    let length = number(digits)?;
    usize::try_from(length)
        .ok()
        .filter(|&length| length <= ELEMENTS_MAX.max(1 << 30))
        .ok_or_else(|| format!("{length} where a length should be"))
}

impl Display for Reply {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Simple(text) => write!(f, "+{}", plain(text)),
            Reply::Error(text) => write!(f, "-{}", plain(text)),
            Reply::Integer(number) => write!(f, ":{number}"),
            Reply::Bulk(bytes) => f.write_str(&quoted(bytes)),
            Reply::NullBulk | Reply::Null => f.write_str("nil"),
            Reply::NullArray => f.write_str("nil-array"),
            Reply::Array(items) => list(f, "", items),
            Reply::Set(items) => list(f, "~", items),
            Reply::Push(items) => list(f, ">", items),
            Reply::Map(pairs) => map(f, "", pairs),
            Reply::Double(digits) => write!(f, ",{}", plain(digits)),
            Reply::Boolean(value) => f.write_str(if *value { "#t" } else { "#f" }),
            Reply::BigNumber(digits) => write!(f, "({}", plain(digits)),
            Reply::Verbatim(format, text) => write!(f, "={}:{}", plain(format), quoted(text)),
            Reply::Attributed(pairs, about) => {
                map(f, "|", pairs)?;
                write!(f, " {about}")
            }
        }
    }
}

/// `[a, b]` after a mark.
fn list(f: &mut Formatter<'_>, mark: &str, items: &[Reply]) -> fmt::Result {
    write!(f, "{mark}[")?;
    for (i, item) in items.iter().enumerate() {
        write!(f, "{}{item}", if i == 0 { "" } else { ", " })?;
    }
    f.write_char(']')
}

/// `{key: value}` after a mark.
fn map(f: &mut Formatter<'_>, mark: &str, pairs: &[(Reply, Reply)]) -> fmt::Result {
    write!(f, "{mark}{{")?;
    for (i, (key, value)) in pairs.iter().enumerate() {
        write!(f, "{}{key}: {value}", if i == 0 { "" } else { ", " })?;
    }
    f.write_char('}')
}

/// Longer byte strings are cut in reports.
const SHOWN_BYTES_MAX: usize = 4096;

/// Bytes without quotation marks, control characters escaped.
fn plain(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes.iter().take(SHOWN_BYTES_MAX) {
        match byte {
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
    }
    if bytes.len() > SHOWN_BYTES_MAX {
        let _ = write!(text, "... ({} bytes)", bytes.len());
    }
    text
}

/// Bytes in quotation marks, as the case files and redis-cli write them.
#[must_use]
pub fn quoted(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
    for &byte in bytes.iter().take(SHOWN_BYTES_MAX) {
        match byte {
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
    }
    text.push('"');
    if bytes.len() > SHOWN_BYTES_MAX {
        let _ = write!(text, "... ({} bytes)", bytes.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIRE: &[(&[u8], &str)] = &[
        (b"+OK\r\n", "+OK"),
        (b"-ERR no\r\n", "-ERR no"),
        (b"!5\r\nERR x\r\n", "-ERR x"),
        (b":-7\r\n", ":-7"),
        (b"$4\r\na\r\nb\r\n", r#""a\r\nb""#),
        (b"$0\r\n\r\n", r#""""#),
        (b"$-1\r\n", "nil"),
        (b"*-1\r\n", "nil-array"),
        (b"_\r\n", "nil"),
        (b"*2\r\n:1\r\n*1\r\n+a\r\n", "[:1, [+a]]"),
        (b"%1\r\n+a\r\n:1\r\n", "{+a: :1}"),
        (b"~1\r\n$1\r\na\r\n", r#"~["a"]"#),
        (b">2\r\n+a\r\n#t\r\n", ">[+a, #t]"),
        (b",1.5\r\n", ",1.5"),
        (b"(123\r\n", "(123"),
        (b"=7\r\ntxt:abc\r\n", r#"=txt:"abc""#),
        (b"|1\r\n+a\r\n+b\r\n:3\r\n", "|{+a: +b} :3"),
    ];

    #[test]
    fn every_type_parses_and_prints() {
        for (wire, text) in WIRE {
            let (reply, length) = Reply::parse(wire).unwrap().unwrap();
            assert_eq!((reply.to_string().as_str(), length), (*text, wire.len()));
        }
    }

    #[test]
    fn a_cut_reply_is_never_taken_for_a_whole_one() {
        for (wire, text) in WIRE {
            for cut in 0..wire.len() {
                assert_eq!(
                    Reply::parse(&wire[..cut]),
                    Ok(None),
                    "{text} cut after {cut} bytes"
                );
            }
        }
    }

    #[test]
    fn what_is_not_resp_is_refused() {
        for wire in [
            &b"hello\r\n"[..],
            b"+OK\n",
            b":x\r\n",
            b"$1\r\nabc\r\n",
            b"*-2\r\n",
            b"\r\n",
            b"=3\r\nabc\r\n",
        ] {
            assert!(Reply::parse(wire).is_err(), "{wire:?}");
        }
    }
}
