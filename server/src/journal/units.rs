//! The stream of a primary as bytes: where its commands end, and what they mean for who passes them on.
//!
//! A [`Scanner`] looks at no payload but the words that matter here; what a command does is found out where it runs.

use super::Record;
use super::record::{Audience, Scope};

/// The longest line of a stream that is not of the usual form, bytes.
const LINE_BYTES_MAX: usize = 64 << 10;

/// The longest length of a word or number of words, digits.
const DIGITS_MAX: usize = 20;

/// Meaning of a command for who passes the stream on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// A change to repeat.
    Change,
    /// The choice of this database.
    Select(u16),
    /// The beginning of what belongs together.
    Multi,
    /// The end of what belongs together.
    Exec,
    /// A request for an acknowledgement.
    GetAck,
    /// Something for replicas that changes no data: PING, PUBLISH, REPLCONF, an empty line.
    Remark,
}

/// A command in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scanned {
    /// Place of its beginning.
    pub(crate) begin: usize,
    /// Place of its end.
    pub(crate) end: usize,
    /// Its meaning.
    pub(crate) meaning: Meaning,
}

/// Error: the bytes are no commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Finds the ends of commands in bytes that come piece by piece. It looks at no byte of a long word twice.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    /// Place where the next command begins.
    begin: usize,
    /// The command that is not complete.
    partial: Option<Partial>,
}

/// A command of which some words are known.
#[derive(Clone, Copy, Debug)]
struct Partial {
    /// Words that are missing.
    missing: usize,
    /// Place of the next word's length.
    at: usize,
    /// Places of the first two words.
    words: [(usize, usize); 2],
    /// Number of words so far.
    count: usize,
}

impl Scanner {
    /// The next command in `bytes`, of which more may have come; none if it is not complete.
    ///
    /// # Errors
    /// When the bytes are no command.
    pub(crate) fn next(&mut self, bytes: &[u8]) -> Result<Option<Scanned>, Malformed> {
        let mut partial = match self.partial.take() {
            Some(partial) => partial,
            None => match bytes.get(self.begin) {
                None => return Ok(None),
                Some(b'*') => match number(bytes, self.begin + 1)? {
                    None => return Ok(None),
                    Some((missing, at)) => Partial {
                        // None is an empty line, and fewer are nothing.
                        missing: usize::try_from(missing).map_err(|_| Malformed)?,
                        at,
                        words: [(0, 0); 2],
                        count: 0,
                    },
                },
                Some(_) => return self.line(bytes),
            },
        };
        while partial.missing > 0 {
            if !partial.take_word(bytes)? {
                self.partial = Some(partial);
                return Ok(None);
            }
        }
        let [first, second] = partial.words.map(|(begin, end)| &bytes[begin..end]);
        Ok(Some(self.found(partial.at, meaning(first, second))))
    }

    fn found(&mut self, end: usize, meaning: Meaning) -> Scanned {
        let begin = std::mem::replace(&mut self.begin, end);
        Scanned { begin, end, meaning }
    }

    /// A command on a line of its own.
    fn line(&mut self, bytes: &[u8]) -> Result<Option<Scanned>, Malformed> {
        let rest = &bytes[self.begin..];
        let Some(length) = memchr::memchr(b'\n', rest) else {
            return if rest.len() > LINE_BYTES_MAX {
                Err(Malformed)
            } else {
                Ok(None)
            };
        };
        let mut words = rest[..length]
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty());
        let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let end = self.begin + length + 1;
        Ok(Some(self.found(end, meaning(first, second))))
    }

    /// The bytes up to `end`, which is where a command ends, were taken away.
    pub(crate) fn forget(&mut self, end: usize) {
        self.begin -= end;
        if let Some(partial) = &mut self.partial {
            partial.at -= end;
            for (begin, end_of_word) in &mut partial.words[..partial.count.min(2)] {
                *begin -= end;
                *end_of_word -= end;
            }
        }
    }
}

impl Partial {
    /// Takes the next word; false if it is not complete.
    fn take_word(&mut self, bytes: &[u8]) -> Result<bool, Malformed> {
        match bytes.get(self.at) {
            None => return Ok(false),
            Some(b'$') => {}
            Some(_) => return Err(Malformed),
        }
        let Some((length, begin)) = number(bytes, self.at + 1)? else {
            return Ok(false);
        };
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| begin.checked_add(length))
            .ok_or(Malformed)?;
        if bytes.len() < end + 2 {
            return Ok(false);
        }
        if let Some(word) = self.words.get_mut(self.count) {
            *word = (begin, end);
        }
        (self.missing, self.count, self.at) = (self.missing - 1, self.count + 1, end + 2);
        Ok(true)
    }
}

/// The number that begins at `at`, and where the line behind its own begins; none if its line is not complete.
fn number(bytes: &[u8], at: usize) -> Result<Option<(i64, usize)>, Malformed> {
    let rest = bytes.get(at..).unwrap_or_default();
    let mut value = 0_i64;
    let (is_negative, digits) = match rest.first() {
        Some(b'-') => (true, &rest[1..]),
        _ => (false, rest),
    };
    for (index, &byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' if index < DIGITS_MAX => {
                let grown = value
                    .checked_mul(10)
                    .and_then(|value| value.checked_add(i64::from(byte - b'0')));
                value = grown.ok_or(Malformed)?;
            }
            b'\r' if index > 0 => {
                let value = if is_negative { -value } else { value };
                let end = at + usize::from(is_negative) + index;
                return Ok((bytes.len() >= end + 2).then_some((value, end + 2)));
            }
            _ => return Err(Malformed),
        }
    }
    Ok(None)
}

fn meaning(first: &[u8], second: &[u8]) -> Meaning {
    let is = |word: &[u8]| first.eq_ignore_ascii_case(word);
    match first.len() {
        0 => Meaning::Remark,
        4 if is(b"ping") => Meaning::Remark,
        4 if is(b"exec") => Meaning::Exec,
        5 if is(b"multi") => Meaning::Multi,
        6 if is(b"select") => {
            let db = std::str::from_utf8(second)
                .ok()
                .and_then(|text| text.parse().ok());
            db.map_or(Meaning::Change, Meaning::Select)
        }
        7 if is(b"publish") => Meaning::Remark,
        8 if is(b"spublish") => Meaning::Remark,
        8 if is(b"replconf") && second.eq_ignore_ascii_case(b"getack") => Meaning::GetAck,
        8 if is(b"replconf") => Meaning::Remark,
        _ => Meaning::Change,
    }
}

/// The units of a piece of the stream that consists of whole ones, as a loop would have recorded them. `db` is the database that was
/// selected before it.
pub(super) fn record_of(bytes: &[u8], mut db: u16) -> Record {
    let (mut record, mut scanner, mut is_within) = (Record::default(), Scanner::default(), false);
    while let Ok(Some(Scanned { begin, end, meaning })) = scanner.next(bytes) {
        match meaning {
            Meaning::Select(selected) => db = selected,
            Meaning::Multi => {
                record.begin_unit();
                is_within = true;
            }
            Meaning::Exec if is_within => {
                record.end_unit();
                is_within = false;
            }
            Meaning::Exec | Meaning::GetAck | Meaning::Remark => {}
            Meaning::Change => {
                record.begin_unit();
                record.add(
                    Scope {
                        db,
                        audience: Audience::All,
                    },
                    |effects| {
                        effects.append_bytes(&bytes[begin..end]);
                    },
                );
                record.end_unit();
            }
        }
    }
    record
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn command(words: &[&[u8]]) -> Vec<u8> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes
    }

    fn scan(bytes: &[u8]) -> Vec<(usize, Meaning)> {
        let mut scanner = Scanner::default();
        let next = || {
            scanner
                .next(bytes)
                .unwrap()
                .map(|found| (found.end, found.meaning))
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn meanings_of_commands() {
        for (words, expected) in [
            (&["SET", "key", "*3\r\n"][..], Meaning::Change),
            (&["select", "11"], Meaning::Select(11)),
            (&["MULTI"], Meaning::Multi),
            (&["EXEC"], Meaning::Exec),
            (&["PING"], Meaning::Remark),
            (&["REPLCONF", "GETACK", "*"], Meaning::GetAck),
            (&["PUBLISH", "channel", "text"], Meaning::Remark),
            (&["FUNCTION", "LOAD", "text"], Meaning::Change),
        ] {
            let words: Vec<_> = words.iter().map(|word| word.as_bytes()).collect();
            let bytes = command(&words);
            assert_eq!(scan(&bytes), [(bytes.len(), expected)], "{words:?}");
        }
        assert_eq!(
            scan(b"\nPING\r\n*0\r\n"),
            [(1, Meaning::Remark), (7, Meaning::Remark), (11, Meaning::Remark)]
        );
    }

    #[test]
    fn what_is_no_command() {
        for bytes in [
            &b"*1\r\n+PING\r\n"[..],
            b"*x\r\n",
            b"*-1\r\n",
            b"*1\r\n$-1\r\n",
            b"*1\r\n$99999999999999999999\r\n",
        ] {
            assert_eq!(
                Scanner::default().next(bytes),
                Err(Malformed),
                "{}",
                bytes.escape_ascii()
            );
        }
    }

    #[test]
    fn the_record_of_a_piece_has_no_remarks() {
        let piece = [
            command(&[b"SELECT", b"3"]),
            command(&[b"MULTI"]),
            command(&[b"SET", b"a", b"1"]),
            command(&[b"SELECT", b"4"]),
            command(&[b"SET", b"b", b"2"]),
            command(&[b"EXEC"]),
            command(&[b"PING"]),
            command(&[b"DEL", b"a"]),
        ]
        .concat();
        let record = record_of(&piece, 0);
        let units: Vec<Vec<u16>> = record
            .units()
            .map(|unit| unit.effects().map(|(scope, _)| scope.db).collect())
            .collect();
        assert_eq!(units, [vec![3, 4], vec![4]]);
    }

    proptest! {
        /// However the bytes are cut, the same commands are found.
        #[test]
        fn commands_are_found_in_pieces(
            commands in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..5), 1..20),
            cuts in prop::collection::vec(1..60_usize, 1..60),
        ) {
            let encoded: Vec<Vec<u8>> = commands
                .iter()
                .map(|words| command(&words.iter().map(Vec::as_slice).collect::<Vec<_>>()))
                .collect();
            let all = encoded.concat();
            let (mut scanner, mut bytes, mut found, mut left) = (Scanner::default(), Vec::new(), Vec::new(), &all[..]);
            for cut in cuts.iter().cycle() {
                let (piece, rest) = left.split_at((*cut).min(left.len()));
                left = rest;
                bytes.extend_from_slice(piece);
                let mut taken = 0;
                while let Some(scanned) = scanner.next(&bytes).unwrap() {
                    found.push(bytes[scanned.begin..scanned.end].to_vec());
                    taken = scanned.end;
                }
                bytes.drain(..taken);
                scanner.forget(taken);
                if left.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(found, encoded);
        }
    }
}
