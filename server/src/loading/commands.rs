//! [`CommandFile`]: the commands of an append-only file, one after the other.
//!
//! ```text
//! *2\r\n $3\r\n DEL\r\n $1\r\n k\r\n      a command
//! #TS:1700000000\r\n                      an annotation, between commands
//! ```
//! The form is that of requests without any of the leniencies for clients: what is not exactly so has been damaged.

use std::io::{self, Read};

use shardis_protocol::{Arguments, Span};

use crate::limits::ANNOTATION_BYTES_MAX;

/// Bytes that are read at once.
const WINDOW: usize = 256 * 1024;

/// The longest line that announces a count or a length: a mark, a number and the line's end.
const HEADER_BYTES_MAX: usize = 23;

/// Reader of the commands of a file.
#[derive(Debug)]
pub(super) struct CommandFile<R> {
    source: R,
    /// Bytes that were read, from some entry on.
    buffer: Vec<u8>,
    /// Place in the buffer of the entry after the last one.
    at: usize,
    /// Place of the buffer in the file.
    passed: u64,
    /// Arguments of the last command, as places behind `command`.
    spans: Vec<Span>,
    /// Place in the buffer of the last command.
    command: usize,
}

/// Reason for which a file cannot be read further.
#[derive(Debug)]
pub(super) enum Fault {
    /// The file ends within an entry.
    Short,
    /// The bytes are no entry.
    Format,
    /// The system refuses to read.
    Io(io::Error),
}

/// The beginning of some bytes, taken for an entry.
enum Parsed {
    /// A command of so many bytes.
    Command(usize),
    /// An annotation of so many bytes.
    Annotation(usize),
    /// An entry begins, and has at least so many bytes.
    Longer(usize),
}

impl<R: Read> CommandFile<R> {
    /// The commands of a source, which begins at this place in its file.
    pub(super) fn new(source: R, offset: u64) -> Self {
        Self {
            source,
            buffer: Vec::new(),
            at: 0,
            passed: offset,
            spans: Vec::new(),
            command: 0,
        }
    }

    /// Place in the file behind the last entry.
    pub(super) fn offset(&self) -> u64 {
        self.passed + self.at as u64
    }

    /// The last command.
    pub(super) fn arguments(&self) -> Arguments<'_> {
        Arguments::new(&self.buffer[self.command..self.at], &self.spans, &[])
    }

    /// Reads the next command; false at the end of the file.
    ///
    /// # Errors
    /// When the bytes up to the end of the next command are not what they should be.
    pub(super) fn next(&mut self) -> Result<bool, Fault> {
        loop {
            match self.parse()? {
                Parsed::Command(bytes) => {
                    self.command = self.at;
                    self.at += bytes;
                    return Ok(true);
                }
                Parsed::Annotation(bytes) => self.at += bytes,
                Parsed::Longer(bytes) => {
                    let begun = self.buffer.len() > self.at;
                    match self.fill(bytes)? {
                        true => {}
                        false if begun => return Err(Fault::Short),
                        false => return Ok(false),
                    }
                }
            }
        }
    }

    /// Whether there are bytes from here on, and all of them are zeros. Reads the file up to its end or to another byte.
    pub(super) fn is_zero_from_here(&mut self) -> bool {
        loop {
            let rest = &self.buffer[self.at..];
            if rest.iter().any(|&byte| byte != 0) {
                return false;
            }
            self.at = self.buffer.len();
            match self.fill(1) {
                Ok(true) => {}
                Ok(false) => return true,
                Err(_) => return false,
            }
        }
    }

    /// Reads on, until so many bytes of the entry are there if the file has them. False at its end.
    fn fill(&mut self, bytes: usize) -> Result<bool, Fault> {
        self.buffer.drain(..self.at);
        self.passed += self.at as u64;
        self.at = 0;
        // Twice as much each time: a long entry is looked at a few times only.
        let wanted = bytes
            .saturating_sub(self.buffer.len())
            .max(self.buffer.len())
            .max(WINDOW);
        let before = self.buffer.len();
        // Memory grows with the bytes that come, whatever length is announced.
        self.source
            .by_ref()
            .take(wanted as u64)
            .read_to_end(&mut self.buffer)
            .map_err(Fault::Io)?;
        Ok(self.buffer.len() > before)
    }

    fn parse(&mut self) -> Result<Parsed, Fault> {
        let bytes = &self.buffer[self.at..];
        match bytes.first() {
            None => Ok(Parsed::Longer(1)),
            Some(b'#') => annotation(bytes),
            Some(b'*') => command(bytes, &mut self.spans),
            Some(_) => Err(Fault::Format),
        }
    }
}

fn annotation(bytes: &[u8]) -> Result<Parsed, Fault> {
    let line = &bytes[..bytes.len().min(ANNOTATION_BYTES_MAX)];
    match memchr::memchr(b'\n', line) {
        Some(end) => Ok(Parsed::Annotation(end + 1)),
        None if line.len() == ANNOTATION_BYTES_MAX => Err(Fault::Format),
        None => Ok(Parsed::Longer(bytes.len() + 1)),
    }
}

fn command(bytes: &[u8], spans: &mut Vec<Span>) -> Result<Parsed, Fault> {
    spans.clear();
    let Some((count, mut at)) = header(bytes, b'*')? else {
        return Ok(Parsed::Longer(bytes.len() + 1));
    };
    if count == 0 {
        return Err(Fault::Format);
    }
    for _ in 0..count {
        let Some((len, header_bytes)) = header(&bytes[at..], b'$')? else {
            return Ok(Parsed::Longer(bytes.len() + 1));
        };
        let start = at + header_bytes;
        let span = Span::new(start, len).ok_or(Fault::Format)?;
        let end = start + len;
        match bytes.get(end..end + 2) {
            Some(b"\r\n") => {}
            Some(_) => return Err(Fault::Format),
            None => return Ok(Parsed::Longer(end + 2)),
        }
        spans.push(span);
        at = end + 2;
    }
    Ok(Parsed::Command(at))
}

/// The number in a line that begins with `mark`, and the bytes of the line; none if the bytes end within it.
fn header(bytes: &[u8], mark: u8) -> Result<Option<(usize, usize)>, Fault> {
    let line = &bytes[..bytes.len().min(HEADER_BYTES_MAX)];
    let Some((&first, rest)) = line.split_first() else {
        return Ok(None);
    };
    if first != mark {
        return Err(Fault::Format);
    }
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match &rest[digits..] {
        [b'\r', b'\n', ..] if digits > 0 => {
            let number = std::str::from_utf8(&rest[..digits])
                .ok()
                .and_then(|digits| digits.parse().ok());
            let number = number.ok_or(Fault::Format)?;
            Ok(Some((number, 1 + digits + 2)))
        }
        [] | [b'\r'] if line.len() < HEADER_BYTES_MAX => Ok(None),
        _ => Err(Fault::Format),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The commands of a file, and how it ends.
    fn read(bytes: &[u8], pace: usize) -> (Vec<String>, u64, &'static str) {
        /// A source that gives a few bytes at a time.
        struct Trickle<'a>(&'a [u8], usize);
        impl Read for Trickle<'_> {
            fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
                let len = self.1.min(self.0.len()).min(target.len());
                target[..len].copy_from_slice(&self.0[..len]);
                self.0 = &self.0[len..];
                Ok(len)
            }
        }
        let (mut file, mut found) = (CommandFile::new(Trickle(bytes, pace), 100), Vec::new());
        loop {
            let ended = match file.next() {
                Ok(true) => {
                    let words = file
                        .arguments()
                        .iter()
                        .map(|word| word.escape_ascii().to_string());
                    found.push(words.collect::<Vec<_>>().join(" "));
                    continue;
                }
                Ok(false) => "end",
                Err(Fault::Short) => "short",
                Err(Fault::Format) => "format",
                Err(Fault::Io(_)) => "io",
            };
            return (found, file.offset(), ended);
        }
    }

    #[test]
    fn commands_and_annotations_are_read() {
        let long = "x".repeat(700_000);
        let text = format!(
            "#TS:1700000000\r\n*1\r\n$4\r\nPING\r\n#any\n*3\r\n$3\r\nSET\r\n$0\r\n\r\n$700000\r\n{long}\r\n*2\r\n$1\r\na\r\n$2\r\n\r\n\r\n"
        );
        for pace in [1, 1000, 1 << 20] {
            let (found, offset, ended) = read(text.as_bytes(), pace);
            assert_eq!((ended, offset), ("end", 100 + text.len() as u64));
            assert_eq!(
                found,
                ["PING".to_owned(), format!("SET  {long}"), "a \\r\\n".to_owned()]
            );
        }
    }

    #[test]
    fn a_cut_is_short_wherever_it_is_and_anything_else_is_damage() {
        let text = b"*1\r\n$4\r\nPING\r\n#TS:1\r\n*2\r\n$3\r\nDEL\r\n$1\r\nk\r\n";
        for len in 0..text.len() {
            let (found, offset, ended) = read(&text[..len], 7);
            let (count, good) = match len {
                0..14 => (0, 0),
                14..21 => (1, 14),
                _ => (1, 21),
            };
            assert_eq!((found.len(), offset), (count, 100 + good), "{len}");
            let is_whole = len as u64 == good;
            assert_eq!(ended, if is_whole { "end" } else { "short" }, "{len}");
        }
        for bad in [
            "PING\r\n",
            "*0\r\n",
            "*-1\r\n",
            "*x\r\n",
            "*\r\n",
            "*1\n$4\r\nPING\r\n",
            "*1\r\n4\r\nPING\r\n",
            "*1\r\n$4\r\nPINGxx",
            "*1\r\n$-1\r\n",
            "*1\r\n$99999999999999999999\r\n",
            "*111111111111111111111111111",
            "\0\0\0\0",
            "*1\r\n:4\r\n",
        ] {
            let (found, offset, ended) = read([&text[..14], bad.as_bytes()].concat().as_slice(), 3);
            assert_eq!((found.len(), offset, ended), (1, 114, "format"), "{bad:?}");
        }
        let long = format!("#{}", "x".repeat(2000));
        assert_eq!(read(long.as_bytes(), 100).2, "format");
        // No length makes memory grow beyond the file.
        assert_eq!(read(b"*1\r\n$4000000000\r\nx", 100).2, "short");
    }
}
