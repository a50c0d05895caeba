//! Commands in RESP, as replicas and the append-only file repeat them.

use shardis_protocol::Arguments;
use smallvec::SmallVec;

/// Commands in RESP, one behind the other.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    bytes: Vec<u8>,
    /// The end of each command in `bytes`.
    ends: SmallVec<[usize; 1]>,
}

impl Encoded {
    /// Appends a command, given by its words.
    pub(crate) fn push<'w>(&mut self, words: impl ExactSizeIterator<Item = &'w [u8]>) {
        self.push_length(b'*', words.len());
        for word in words {
            self.push_length(b'$', word.len());
            self.bytes.reserve(word.len() + 2);
            self.bytes.extend_from_slice(word);
            self.bytes.extend_from_slice(b"\r\n");
        }
        self.ends.push(self.bytes.len());
    }

    fn push_length(&mut self, mark: u8, length: usize) {
        if let Ok(digit @ 0..=9) = u8::try_from(length) {
            return self.bytes.extend_from_slice(&[mark, b'0' + digit, b'\r', b'\n']);
        }
        self.bytes.push(mark);
        let mut number = itoa::Buffer::new();
        self.bytes.extend_from_slice(number.format(length).as_bytes());
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Appends a request, as the bytes in which it came if those are what [`push`](Self::push) writes.
    #[inline]
    pub(crate) fn push_request(&mut self, request: Arguments<'_>) {
        match request.encoded() {
            Some(bytes) => {
                self.bytes.extend_from_slice(bytes);
                self.ends.push(self.bytes.len());
            }
            None => self.push(request.iter()),
        }
    }

    /// Appends commands that are encoded already.
    pub(crate) fn append(&mut self, commands: &Self) {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(&commands.bytes);
        self.ends.extend(commands.ends.iter().map(|end| begin + end));
    }

    /// Appends a command that is encoded already.
    pub(crate) fn append_bytes(&mut self, command: &[u8]) {
        self.bytes.extend_from_slice(command);
        self.ends.push(self.bytes.len());
    }

    /// Number of commands.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The command at `index`.
    pub(crate) fn at(&self, index: usize) -> &[u8] {
        let begin = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[begin..self.ends[index]]
    }

    /// The commands.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.at(index))
    }

    /// The bytes of all commands.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Removes all commands, and keeps memory for others, but not more than `kept` bytes.
    pub(crate) fn clear(&mut self, kept: usize) {
        self.ends.clear();
        self.bytes.clear();
        self.bytes.shrink_to(kept);
    }
}

/// The words of an encoded command.
pub(crate) fn words(command: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = command;
    let mut words = Vec::with_capacity(length(&mut rest));
    while !rest.is_empty() {
        let length = length(&mut rest);
        words.push(rest[..length].to_vec());
        rest = &rest[length + 2..];
    }
    words
}

/// Takes the number that a mark and a line break enclose.
fn length(rest: &mut &[u8]) -> usize {
    let mut number = 0;
    // Nearly all of them have one or two digits.
    for (index, &byte) in rest.iter().enumerate().skip(1) {
        if byte == b'\r' {
            *rest = &rest[index + 2..];
            break;
        }
        number = number * 10 + usize::from(byte - b'0');
    }
    number
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_what_is_decoded(commands in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..150), 1..5), 0..5,
        )) {
            let mut encoded = Encoded::default();
            for command in &commands {
                let mut one = Encoded::default();
                one.push(command.iter().map(Vec::as_slice));
                encoded.append(&one);
            }
            let decoded: Vec<_> = encoded.iter().map(words).collect();
            prop_assert_eq!(encoded.len(), commands.len());
            prop_assert_eq!(decoded, commands);
        }
    }

    #[test]
    fn it_is_what_replicas_read() {
        let mut encoded = Encoded::default();
        encoded.push([b"SET".as_slice(), b"k", b""].into_iter());
        assert_eq!(
            encoded.iter().collect::<Vec<_>>(),
            [b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n"]
        );
    }
}
