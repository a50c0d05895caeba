//! Writing the primitives of the format, of which only a window may be wanted.
//!
//! A value is written part by part (see `encode`), and a part is as short as its longest text. A text that does not fit
//! a step is cut: the part is written again in the next step, and the sink drops the bytes that were written before.

use super::opcode::special;
use crate::algorithm::lzf;
use crate::encoding::listpack::{FRAME_BYTES, Listpack};
use crate::number::parse_i64;
use crate::value::stream::StreamId;
use crate::value::{INT_TEXT_MAX, StringRef, format_int};
use crate::window::Window;

/// Texts of up to this many bytes are written as integers if they spell a 32-bit one.
const INT_TEXT_BYTES: usize = 11;
/// Texts of up to this many bytes are not compressed.
const COMPRESS_MIN: usize = 20;
/// The least number of bytes that compression must save.
const COMPRESS_GAIN: usize = 4;

/// A place for the bytes of a part, or for a window of them.
pub(super) struct Sink<'a> {
    window: Window<'a>,
    /// Longest text that is compressed, bytes.
    compress_max: usize,
    /// Buffer for compressed texts.
    packed: &'a mut Vec<u8>,
}

impl<'a> Sink<'a> {
    /// A sink whose bytes go to a window.
    pub(super) fn new(window: Window<'a>, compress_max: usize, packed: &'a mut Vec<u8>) -> Self {
        Self {
            window,
            compress_max,
            packed,
        }
    }

    /// Whether bytes did not fit.
    pub(super) fn is_cut(&self) -> bool {
        self.window.is_cut()
    }

    /// Bytes as they are.
    #[inline]
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.window.bytes(bytes);
    }

    /// A length, a count, or another unsigned number.
    #[inline]
    pub(super) fn number(&mut self, number: u64) {
        match number {
            0..64 => self.bytes(&[number as u8]),
            64..16_384 => self.bytes(&(number as u16 | 0x4000).to_be_bytes()),
            16_384..=0xffff_ffff => {
                self.bytes(&[special::LENGTH_32]);
                self.bytes(&(number as u32).to_be_bytes());
            }
            _ => {
                self.bytes(&[special::LENGTH_64]);
                self.bytes(&number.to_be_bytes());
            }
        }
    }

    /// A number of things in memory.
    #[inline]
    pub(super) fn count(&mut self, count: usize) {
        self.number(count as u64);
    }

    /// An id as two numbers.
    pub(super) fn split_id(&mut self, id: StreamId) {
        self.number(id.ms);
        self.number(id.seq);
    }

    /// An id as sixteen bytes.
    pub(super) fn id(&mut self, id: StreamId) {
        self.bytes(&id_bytes(id));
    }

    /// A time or another number of eight bytes.
    pub(super) fn long(&mut self, value: i64) {
        self.bytes(&value.to_le_bytes());
    }

    /// A text.
    #[inline]
    pub(super) fn text(&mut self, text: StringRef<'_>) {
        match text {
            StringRef::Bytes(bytes) => self.text_of(bytes),
            StringRef::Int(int) => {
                if !self.small_int(int) {
                    self.plain(&[format_int(int, &mut [0; INT_TEXT_MAX])]);
                }
            }
        }
    }

    /// A text of these bytes: as an integer if it spells a small one, else compressed if that helps.
    #[inline]
    pub(super) fn text_of(&mut self, bytes: &[u8]) {
        let is_int = bytes.len() <= INT_TEXT_BYTES && parse_i64(bytes).is_some_and(|int| self.small_int(int));
        if !is_int && !self.compressed(bytes) {
            self.plain(&[bytes]);
        }
    }

    /// A pack, as a text.
    pub(super) fn pack(&mut self, pack: &Listpack) {
        if (COMPRESS_MIN + 1..=self.compress_max).contains(&pack.byte_len()) {
            self.text_of(&pack.to_bytes());
        } else {
            self.plain(&pack.in_parts(&mut [0; FRAME_BYTES]));
        }
    }

    fn plain(&mut self, parts: &[&[u8]]) {
        self.count(parts.iter().map(|part| part.len()).sum());
        parts.iter().for_each(|part| self.bytes(part));
    }

    /// Writes an integer of at most 32 bits; false if it has more.
    fn small_int(&mut self, int: i64) -> bool {
        let mark = |form| special::MARK | form;
        if let Ok(int) = i8::try_from(int) {
            self.bytes(&[mark(special::INT_8), int.cast_unsigned()]);
        } else if let Ok(int) = i16::try_from(int) {
            let [low, high] = int.to_le_bytes();
            self.bytes(&[mark(special::INT_16), low, high]);
        } else if let Ok(int) = i32::try_from(int) {
            self.bytes(&[mark(special::INT_32)]);
            self.bytes(&int.to_le_bytes());
        } else {
            return false;
        }
        true
    }

    /// Writes a text compressed; false if that saves too little.
    fn compressed(&mut self, bytes: &[u8]) -> bool {
        if !(COMPRESS_MIN + 1..=self.compress_max).contains(&bytes.len()) {
            return false;
        }
        let mut packed = std::mem::take(self.packed);
        packed.resize(bytes.len() - COMPRESS_GAIN, 0);
        let len = lzf::compress(bytes, &mut packed);
        if let Some(len) = len {
            self.bytes(&[special::MARK | special::LZF]);
            self.count(len);
            self.count(bytes.len());
            self.bytes(&packed[..len]);
        }
        *self.packed = packed;
        len.is_some()
    }
}

/// An id as sixteen bytes, the highest first.
pub(super) fn id_bytes(id: StreamId) -> [u8; 16] {
    (u128::from(id.ms) << 64 | u128::from(id.seq)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &[u8], compress_max: usize) -> Vec<u8> {
        let (mut out, mut packed) = (Vec::new(), Vec::new());
        Sink::new(Window::whole(&mut out), compress_max, &mut packed).text_of(text);
        out
    }

    /// Texts of up to 20 bytes, and those that compression would make less than 4 bytes shorter, are written as they are.
    #[test]
    fn texts_are_compressed_where_that_helps() {
        let is_compressed = |text: &[u8]| written(text, usize::MAX)[0] == special::MARK | special::LZF;
        assert!(!is_compressed(&[b'a'; 20]));
        assert!(is_compressed(&[b'a'; 21]));
        // Nothing comes twice in the first 24 bytes: they take one more, and a copy of up to 8 bytes takes 2.
        let alphabet = b"abcdefghijklmnopqrstuvwx";
        for (repeated, helps) in [(0, false), (6, false), (7, true), (8, true)] {
            let text = [alphabet, &alphabet[..repeated]].concat();
            assert_eq!(is_compressed(&text), helps, "{repeated} bytes are repeated");
            let plain = [&[text.len() as u8], &text[..]].concat();
            let here = written(&text, usize::MAX);
            assert!(here.len() <= plain.len(), "{repeated} bytes are repeated");
            assert_eq!(here == plain, !helps, "{repeated} bytes are repeated");
        }
        assert_eq!(
            written(&[b'a'; 63], 62)[0],
            63,
            "it is longer than what is compressed"
        );
        assert_eq!(written(&[b'a'; 63], 0)[0], 63, "nothing is compressed");
    }
}
