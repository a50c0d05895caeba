//! LZF, the light compression of Redis's RDB files and of the inner blocks of lists.
//!
//! The format is that of Marc Lehmann's LibLZF. A compressed text is a run of items, each of which begins with a control
//! byte:
//! ```text
//! 000nnnnn                        then n + 1 literal bytes
//! nnnddddd dddddddd               n in 1..=6: copy n + 2 bytes from d + 1 bytes back
//! 111ddddd nnnnnnnn dddddddd      copy n + 9 bytes from d + 1 bytes back
//! ```
//! A copy may overlap its own output, so that a distance of 1 repeats a byte. Neither lengths nor a checksum are part
//! of the format: the owner of a compressed text stores the length of the original beside it.
//!
//! Both directions check every bound: corrupt input is refused, never followed.

/// The longest run of literal bytes.
const LITERALS_MAX: usize = 32;
/// Greatest distance of a copy: 13 bits.
const DISTANCE_MAX: usize = 1 << 13;
/// The shortest copy worth its two bytes, which is also what is hashed to find it.
const COPY_MIN: usize = 3;
/// The longest copy: seven in the control byte, another byte, and two that every copy has.
const COPY_MAX: usize = 7 + 255 + 2;
/// From this length on a copy takes three bytes.
const COPY_LONG: usize = 7 + 2;

/// log2 of the number of buckets in the table of recent positions, one for each distance that can be encoded.
const TABLE_BITS: u32 = 13;

/// Compresses `input` into `output` and returns how many bytes of it that took; `None` when it does not fit, or when the
/// input is longer than the format's users can tell (32 bits).
///
/// Give an `output` shorter than the input by what compression has to gain to be worth it. O(length of `input`).
#[must_use]
pub fn compress(input: &[u8], output: &mut [u8]) -> Option<usize> {
    u32::try_from(input.len()).ok()?;
    // Position after the one where three bytes with this hash were last seen; 0 for never.
    let mut seen = [0u32; 1 << TABLE_BITS];
    let mut writer = Writer::new(output);
    let mut at = 0;
    let mut literals = 0;
    while at + COPY_MIN <= input.len() {
        let slot = &mut seen[bucket(input, at)];
        let candidate = std::mem::replace(slot, at as u32 + 1) as usize;
        let length = match candidate.checked_sub(1) {
            Some(from) if at - from <= DISTANCE_MAX => common(input, from, at),
            _ => 0,
        };
        if length < COPY_MIN {
            at += 1;
            continue;
        }
        writer.literals(&input[literals..at])?;
        writer.copy(at + 1 - candidate, length)?;
        at += length;
        literals = at;
        // One place inside the copy keeps long repetitions in view, at little cost.
        if at + 1 < input.len() {
            seen[bucket(input, at - 1)] = at as u32;
        }
    }
    writer.literals(&input[literals..])?;
    Some(writer.len)
}

/// The bucket of the three bytes at `at`.
#[inline]
fn bucket(input: &[u8], at: usize) -> usize {
    let bytes = &input[at..at + COPY_MIN];
    let word = u32::from(bytes[0]) << 16 | u32::from(bytes[1]) << 8 | u32::from(bytes[2]);
    (word.wrapping_mul(0x9e37_79b1) >> (u32::BITS - TABLE_BITS)) as usize
}

/// Number of bytes from `from` and from `at` on that agree, at most [`COPY_MAX`]. `from` is less than `at`.
#[inline]
fn common(input: &[u8], from: usize, at: usize) -> usize {
    let limit = COPY_MAX.min(input.len() - at);
    let earlier = &input[from..from + limit];
    let later = &input[at..at + limit];
    earlier.iter().zip(later).take_while(|(a, b)| a == b).count()
}

/// Compressed items going into a slice that may be too short for them.
struct Writer<'a> {
    output: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    fn new(output: &'a mut [u8]) -> Self {
        Self { output, len: 0 }
    }

    /// The next `count` bytes of the output, if it has them.
    #[inline]
    fn take(&mut self, count: usize) -> Option<&mut [u8]> {
        let room = self.output.get_mut(self.len..self.len + count)?;
        self.len += count;
        Some(room)
    }

    fn literals(&mut self, bytes: &[u8]) -> Option<()> {
        for run in bytes.chunks(LITERALS_MAX) {
            let (control, room) = self.take(1 + run.len())?.split_first_mut()?;
            *control = (run.len() - 1) as u8;
            room.copy_from_slice(run);
        }
        Some(())
    }

    fn copy(&mut self, distance: usize, length: usize) -> Option<()> {
        let far = distance - 1;
        let high = (far >> 8) as u8;
        let low = far as u8;
        if length < COPY_LONG {
            let control = ((length - 2) << 5) as u8 | high;
            self.take(2)?.copy_from_slice(&[control, low]);
        } else {
            let rest = (length - COPY_LONG) as u8;
            self.take(3)?.copy_from_slice(&[0b1110_0000 | high, rest, low]);
        }
        Some(())
    }
}

/// Decompresses `input` into `output`, which is as long as the original. `None` when the input is corrupt or its
/// original has another length; what `output` holds then means nothing. O(length of `output`).
#[must_use]
pub fn decompress(input: &[u8], output: &mut [u8]) -> Option<()> {
    let mut input = input;
    let mut at = 0;
    while let [control, rest @ ..] = input {
        let control = usize::from(*control);
        if control < LITERALS_MAX {
            let (literals, rest) = rest.split_at_checked(control + 1)?;
            output.get_mut(at..at + literals.len())?.copy_from_slice(literals);
            at += literals.len();
            input = rest;
            continue;
        }
        let (length, low, rest) = match (control >> 5, rest) {
            (7, [length, low, rest @ ..]) => (usize::from(*length) + COPY_LONG, low, rest),
            (length @ 1..=6, [low, rest @ ..]) => (length + 2, low, rest),
            _ => return None,
        };
        let distance = ((control & 0x1f) << 8 | usize::from(*low)) + 1;
        let from = at.checked_sub(distance)?;
        copy_back(output.get_mut(from..at + length)?, distance);
        at += length;
        input = rest;
    }
    (at == output.len()).then_some(())
}

/// Fills `text` beyond its first `distance` bytes by repeating the byte `distance` positions before each.
#[inline]
fn copy_back(text: &mut [u8], distance: usize) {
    // Every round doubles what can be copied at once.
    let mut filled = distance;
    while filled < text.len() {
        let count = filled.min(text.len() - filled);
        text.copy_within(..count, filled);
        filled += count;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compressed(input: &[u8]) -> Option<Vec<u8>> {
        let mut output = vec![0; input.len() + input.len() / LITERALS_MAX + 1];
        let len = compress(input, &mut output)?;
        output.truncate(len);
        Some(output)
    }

    fn decompressed(input: &[u8], len: usize) -> Option<Vec<u8>> {
        let mut output = vec![0; len];
        decompress(input, &mut output)?;
        Some(output)
    }

    /// The format read in the plainest way, byte by byte.
    fn naive(mut input: &[u8]) -> Vec<u8> {
        let mut output = Vec::new();
        while let Some((&control, rest)) = input.split_first() {
            let n = usize::from(control >> 5);
            if n == 0 {
                let count = usize::from(control) + 1;
                output.extend(&rest[..count]);
                input = &rest[count..];
                continue;
            }
            let (n, rest) = if n == 7 {
                (7 + usize::from(rest[0]), &rest[1..])
            } else {
                (n, rest)
            };
            let back = (usize::from(control & 31) << 8) + usize::from(rest[0]) + 1;
            for _ in 0..n + 2 {
                output.push(output[output.len() - back]);
            }
            input = &rest[1..];
        }
        output
    }

    #[test]
    fn known_texts() {
        assert_eq!(compressed(b""), Some(vec![]));
        assert_eq!(compressed(b"abc"), Some(b"\x02abc".to_vec()));
        // One literal, then a copy of nine from one byte back: 111 00000, 0 more, distance 0.
        assert_eq!(compressed(b"aaaaaaaaaa"), Some(vec![0, b'a', 0xe0, 0, 0]));
        assert_eq!(
            decompressed(&[0, b'a', 0xe0, 0, 0], 10),
            Some(b"aaaaaaaaaa".to_vec())
        );
        // Two literals, then a copy of four from two bytes back.
        assert_eq!(
            decompressed(&[1, b'a', b'b', 0x40, 1], 6),
            Some(b"ababab".to_vec())
        );
    }

    #[test]
    fn corrupt_texts_are_refused() {
        let cases: &[(&[u8], usize)] = &[
            (b"\x02ab", 3),            // literals cut off
            (b"\x00a", 2),             // shorter than told
            (b"\x01ab", 1),            // longer than told
            (&[0x20, 0], 3),           // a copy from before the beginning
            (&[0, b'a', 0x20, 1], 4),  // likewise, by one byte
            (&[0, b'a', 0x20], 4),     // distance cut off
            (&[0, b'a', 0xe0, 0], 10), // likewise in a long copy
            (&[0, b'a', 0xe0], 10),
            (&[0, b'a', 0xe0, 1, 0], 10), // a copy beyond the end
        ];
        for (input, len) in cases {
            assert_eq!(decompressed(input, *len), None, "{input:?}");
        }
    }

    #[test]
    fn an_output_too_short_is_told() {
        let text = b"no three letters here come twice";
        let full = compressed(text).unwrap();
        let mut output = vec![0; full.len()];
        assert_eq!(compress(text, &mut output), Some(full.len()));
        for len in 0..full.len() {
            assert_eq!(compress(text, &mut output[..len]), None, "{len}");
        }
    }

    #[test]
    fn repetitive_text_becomes_short() {
        let text: Vec<u8> = (0..1000)
            .flat_map(|n| format!("element:{n:06},").into_bytes())
            .collect();
        let len = compressed(&text).unwrap().len();
        assert!(len < text.len() / 2, "{len} of {}", text.len());
        let zeros = vec![0; 100_000];
        assert!(compressed(&zeros).unwrap().len() < 1_300);
    }

    /// Bytes of few values and copies of what came before: what finds every kind of item.
    fn text() -> impl Strategy<Value = Vec<u8>> {
        let piece = (
            any::<u16>(),
            0usize..600,
            proptest::collection::vec(0u8..4, 0..60),
        );
        proptest::collection::vec(piece, 0..60).prop_map(|pieces| {
            let mut text: Vec<u8> = Vec::new();
            for (back, count, fresh) in pieces {
                text.extend(fresh);
                let from = text.len().saturating_sub(usize::from(back) % 10_000);
                text.extend_from_within(from..(from + count).min(text.len()));
            }
            text
        })
    }

    proptest! {
        #[test]
        fn what_is_compressed_comes_back(text in text()) {
            let short = compressed(&text).unwrap();
            prop_assert_eq!(&naive(&short), &text);
            prop_assert_eq!(decompressed(&short, text.len()), Some(text));
        }

        #[test]
        fn any_bytes_come_back(text: Vec<u8>) {
            let short = compressed(&text).unwrap();
            prop_assert_eq!(decompressed(&short, text.len()), Some(text));
        }

        #[test]
        fn any_bytes_are_survived(input: Vec<u8>, len in 0usize..2000) {
            let _ = decompressed(&input, len);
        }
    }
}
