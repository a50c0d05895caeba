//! Counts replies without looking at them.
//!
//! A [`Skipper`] takes the bytes that a connection received, in pieces of any size, and returns the number of replies that
//! they complete.
//! It reads only the header lines: the payload of a bulk string is stepped over by its length. It keeps no bytes except
//! a header line that was cut in two, which is bounded.

use std::io::{Error, ErrorKind, Result};

/// No header line and no error text is longer; what is longer is not a reply.
const LINE_BYTES_MAX: usize = 4096;

/// Position of one connection in its stream of replies.
#[derive(Debug)]
pub(crate) struct Skipper {
    /// Payload bytes, with their CR LF, still to be stepped over.
    payload: usize,
    /// Elements still to come before the present reply is complete; a simple reply is one element.
    elements: usize,
    /// The beginning of a header line whose end has not arrived.
    line: Vec<u8>,
    nulls: u64,
}

/// Content that a header line announces.
enum Header {
    /// None.
    Scalar,
    Null,
    /// So many payload bytes, CR LF included.
    Payload(usize),
    /// So many elements.
    Elements(usize),
    /// So many elements, and after them the reply that they belong to.
    Attributes(usize),
}

impl Skipper {
    /// A skipper at the start of a reply.
    pub(crate) fn new() -> Self {
        Self {
            payload: 0,
            elements: 1,
            line: Vec::new(),
            nulls: 0,
        }
    }

    /// Number of nulls so far: a benchmark of reads that find nothing measures little.
    pub(crate) fn nulls(&self) -> u64 {
        self.nulls
    }

    /// Takes in `received` and returns how many replies it completed.
    ///
    /// # Errors
    /// An error reply, as its own text; bytes that are not RESP.
    pub(crate) fn advance(&mut self, received: &[u8]) -> Result<usize> {
        let mut replies = 0;
        let mut rest = received;
        while !rest.is_empty() {
            if self.payload > 0 {
                let passed = self.payload.min(rest.len());
                rest = &rest[passed..];
                self.payload -= passed;
                if self.payload == 0 {
                    replies += self.element_done();
                }
                continue;
            }
            let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
                self.keep(rest)?;
                break;
            };
            let (part, after) = rest.split_at(end + 1);
            rest = after;
            let header = if self.line.is_empty() {
                read_header(part)?
            } else {
                self.keep(part)?;
                let header = read_header(&self.line)?;
                self.line.clear();
                header
            };
            replies += self.apply(header);
        }
        Ok(replies)
    }

    fn keep(&mut self, part: &[u8]) -> Result<()> {
        if self.line.len() + part.len() > LINE_BYTES_MAX {
            return Err(malformed("a line without an end"));
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    /// Returns 1 if that completed a reply, else 0.
    fn apply(&mut self, header: Header) -> usize {
        match header {
            Header::Payload(bytes) => {
                self.payload = bytes;
                return 0;
            }
            Header::Attributes(count) => {
                self.elements += count;
                return 0;
            }
            Header::Elements(count) => self.elements += count,
            Header::Null => self.nulls += 1,
            Header::Scalar => {}
        }
        self.element_done()
    }

    fn element_done(&mut self) -> usize {
        self.elements -= 1;
        if self.elements > 0 {
            return 0;
        }
        self.elements = 1;
        1
    }
}

/// Reads a header line, given with its CR LF.
fn read_header(line: &[u8]) -> Result<Header> {
    let Some((&kind, text)) = line.strip_suffix(b"\r\n").and_then(<[u8]>::split_first) else {
        return Err(malformed("an empty or unfinished line"));
    };
    match kind {
        b'$' | b'=' => Ok(length(text)?.map_or(Header::Null, |bytes| Header::Payload(bytes + 2))),
        b'+' | b':' | b',' | b'#' | b'(' => Ok(Header::Scalar),
        b'*' | b'~' | b'>' => Ok(length(text)?.map_or(Header::Null, Header::Elements)),
        b'%' => Ok(length(text)?.map_or(Header::Null, |pairs| Header::Elements(2 * pairs))),
        b'|' => Ok(Header::Attributes(2 * length(text)?.unwrap_or(0))),
        b'_' => Ok(Header::Null),
        b'-' => Err(Error::other(String::from_utf8_lossy(line).trim_end().to_owned())),
        _ => Err(malformed(&String::from_utf8_lossy(line))),
    }
}

/// A length, `None` for the -1 that says null. Ten digits hold the length of every reply.
fn length(digits: &[u8]) -> Result<Option<usize>> {
    if digits == b"-1" {
        return Ok(None);
    }
    if digits.is_empty() || digits.len() > 10 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(malformed("a length that is no number"));
    }
    Ok(Some(
        digits
            .iter()
            .fold(0, |value, digit| value * 10 + usize::from(digit - b'0')),
    ))
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("not a reply: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLIES: &[u8] =
        b"+OK\r\n:12\r\n$5\r\na\r\nbc\r\n$-1\r\n*2\r\n$1\r\nx\r\n*1\r\n:1\r\n*0\r\n*-1\r\n$0\r\n\r\n\
        %1\r\n+a\r\n,1.5\r\n|1\r\n+k\r\n+v\r\n#t\r\n_\r\n";
    const COUNT: usize = 11;

    #[test]
    fn counts_every_kind_of_reply() {
        let mut skipper = Skipper::new();
        assert_eq!(skipper.advance(REPLIES).unwrap(), COUNT);
        assert_eq!(skipper.nulls(), 3);
    }

    #[test]
    fn pieces_of_any_size_count_the_same() {
        for size in 1..REPLIES.len() {
            let mut skipper = Skipper::new();
            let total: usize = REPLIES
                .chunks(size)
                .map(|piece| skipper.advance(piece).unwrap())
                .sum();
            assert_eq!((total, skipper.nulls()), (COUNT, 3), "pieces of {size}");
        }
    }

    #[test]
    fn an_error_reply_is_reported_with_its_text() {
        let error = Skipper::new().advance(b"+OK\r\n-ERR no\r\n").unwrap_err();
        assert_eq!(error.to_string(), "-ERR no");
    }

    #[test]
    fn garbage_is_refused() {
        for bad in [
            &b"hello\r\n"[..],
            b"\r\n",
            b"$x\r\n",
            b"$99999999999\r\n",
            b"+OK\n",
            &[b'+'; 5000],
        ] {
            assert_eq!(
                Skipper::new().advance(bad).unwrap_err().kind(),
                ErrorKind::InvalidData
            );
        }
    }
}
