//! Commands in RESP, as replicas and the append-only file repeat them.

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
        let mut number = itoa::Buffer::new();
        self.bytes.push(b'*');
        self.bytes
            .extend_from_slice(number.format(words.len()).as_bytes());
        self.bytes.extend_from_slice(b"\r\n");
        for word in words {
            self.bytes.push(b'$');
            self.bytes.extend_from_slice(number.format(word.len()).as_bytes());
            self.bytes.extend_from_slice(b"\r\n");
            self.bytes.extend_from_slice(word);
            self.bytes.extend_from_slice(b"\r\n");
        }
        self.ends.push(self.bytes.len());
    }

    /// Appends commands that are encoded already.
    pub(crate) fn append(&mut self, commands: &Self) {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(&commands.bytes);
        self.ends.extend(commands.ends.iter().map(|end| begin + end));
    }

    /// Number of commands.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The commands.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins
            .zip(&self.ends)
            .map(|(begin, &end)| &self.bytes[begin..end])
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
    let end = memchr::memchr(b'\r', rest).expect("a length ends with a line break");
    let digits = &rest[1..end];
    *rest = &rest[end + 2..];
    digits
        .iter()
        .fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
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
