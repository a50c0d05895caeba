//! The longest common subsequence of two strings, for LCS.
//!
//! The textbook table holds the length for every pair of prefixes. Its rows only ever grow by 0 or 1 from one column to the
//! next, so a row fits in one bit per column, and 64 columns are computed at once with an addition and three logical
//! operations (Hyyrö, "Bit-parallel LCS-length computation revisited", 2004). That takes a 32nd of the table's memory and
//! about a 64th of its time.
//!
//! Of several longest subsequences, the one that Redis reports is found: reading from the ends of both strings, a
//! pair of equal bytes is always taken; otherwise the last byte of the second string is skipped unless that would
//! lose length.

/// Columns in a block: bits of a word.
const BLOCK: usize = u64::BITS as usize;

/// Bytes of the table of 32-bit lengths that Redis allocates for strings of these lengths. LCS is refused when this
/// exceeds `proto-max-bulk-len`; holding to the same measure also bounds the time.
#[must_use]
pub fn table_bytes(a_len: usize, b_len: usize) -> u64 {
    let side = |len: usize| (len as u64).saturating_add(1);
    side(a_len)
        .saturating_mul(side(b_len))
        .saturating_mul(size_of::<u32>() as u64)
}

/// Bytes that an [`Alignment`] of strings of these lengths takes.
#[must_use]
pub fn alignment_bytes(a_len: usize, b_len: usize) -> u64 {
    let words = (a_len as u64).saturating_mul(b_len.div_ceil(BLOCK) as u64);
    words
        .saturating_mul(size_of::<u64>() as u64)
        .saturating_add(a_len as u64)
}

/// The length of the longest common subsequence.
///
/// O(|a| × |b| / 64) time, one byte of memory per byte of the shorter string.
#[must_use]
pub fn length(a: &[u8], b: &[u8]) -> usize {
    let (rows, columns) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    sweep(rows, columns, |_| ())
}

/// Computes the whole table and returns the length in its last corner.
///
/// The table is walked in blocks of 64 columns, each from the first row to the last. `on_word` gets the word of each row in
/// that order: bit k is **clear** where the length grows from column k to column k + 1 of the block.
fn sweep(rows: &[u8], columns: &[u8], mut on_word: impl FnMut(u64)) -> usize {
    // Carries of a row's addition out of the blocks before.
    let mut carries = vec![0u8; rows.len()];
    let mut length = 0;
    for block in columns.chunks(BLOCK) {
        let places = symbol_places(block);
        let mut word = u64::MAX;
        for (symbol, carry) in rows.iter().zip(&mut carries) {
            let hits = word & places[usize::from(*symbol)];
            let (sum, carry_hits) = word.overflowing_add(hits);
            let (sum, carry_in) = sum.overflowing_add(u64::from(*carry));
            *carry = u8::from(carry_hits | carry_in);
            word = sum | (word & !hits);
            on_word(word);
        }
        // Bits beyond the end of the last block have no hits and stay set.
        length += word.count_zeros() as usize;
    }
    length
}

/// For each byte value, the bits of the columns that hold it.
fn symbol_places(block: &[u8]) -> [u64; 256] {
    let mut places = [0; 256];
    for (column, symbol) in block.iter().enumerate() {
        places[usize::from(*symbol)] |= 1 << column;
    }
    places
}

/// A stretch of equal bytes in both strings that is part of the longest common subsequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// Start in the first string.
    pub a_start: usize,
    /// Start in the second string.
    pub b_start: usize,
    /// Bytes it has, at least one.
    pub len: usize,
}

impl Match {
    /// The last byte of it in the first string.
    #[must_use]
    pub fn a_last(&self) -> usize {
        self.a_start + self.len - 1
    }

    /// The last byte of it in the second string.
    #[must_use]
    pub fn b_last(&self) -> usize {
        self.b_start + self.len - 1
    }
}

/// The longest common subsequence of two strings, with the data to locate it.
#[derive(Debug, Clone)]
pub struct Alignment<'s> {
    a: &'s [u8],
    b: &'s [u8],
    length: usize,
    /// The words of [`sweep`], a row for each byte of `a`: block after block, row after row.
    words: Vec<u64>,
}

impl<'s> Alignment<'s> {
    /// Aligns two strings. O(|a| × |b| / 64) time, [`alignment_bytes`] of memory.
    #[must_use]
    pub fn new(a: &'s [u8], b: &'s [u8]) -> Alignment<'s> {
        let mut words = Vec::with_capacity(a.len().saturating_mul(b.len().div_ceil(BLOCK)));
        let length = sweep(a, b, |word| words.push(word));
        Alignment { a, b, length, words }
    }

    /// The length of the subsequence.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// The subsequence itself. O(|a| + |b|).
    #[must_use]
    pub fn subsequence(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length];
        let mut end = self.length;
        for found in self.matches() {
            let start = end - found.len;
            bytes[start..end].copy_from_slice(&self.a[found.a_start..found.a_start + found.len]);
            end = start;
        }
        bytes
    }

    /// The stretches of the subsequence from the last to the first. O(|a| + |b|) for all of them.
    #[must_use]
    pub fn matches(&self) -> Matches<'_> {
        Matches {
            alignment: self,
            a_end: self.a.len(),
            b_end: self.b.len(),
        }
    }

    /// Whether `a[..=a_last]` has a longer subsequence in common with `b[..=b_last]` than with `b[..b_last]`.
    fn needs_column(&self, a_last: usize, b_last: usize) -> bool {
        let word = self.words[(b_last / BLOCK) * self.a.len() + a_last];
        word >> (b_last % BLOCK) & 1 == 0
    }
}

/// Iterator of [`Alignment::matches`].
#[derive(Debug, Clone)]
pub struct Matches<'m> {
    alignment: &'m Alignment<'m>,
    /// Bytes of each string that have not been walked over yet.
    a_end: usize,
    b_end: usize,
}

impl Matches<'_> {
    fn ends_are_equal(&self) -> bool {
        self.a_end > 0
            && self.b_end > 0
            && self.alignment.a[self.a_end - 1] == self.alignment.b[self.b_end - 1]
    }
}

impl Iterator for Matches<'_> {
    type Item = Match;

    fn next(&mut self) -> Option<Match> {
        while !self.ends_are_equal() {
            if self.a_end == 0 || self.b_end == 0 {
                return None;
            }
            if self.alignment.needs_column(self.a_end - 1, self.b_end - 1) {
                self.a_end -= 1;
            } else {
                self.b_end -= 1;
            }
        }
        let a_end = self.a_end;
        while self.ends_are_equal() {
            self.a_end -= 1;
            self.b_end -= 1;
        }
        Some(Match {
            a_start: self.a_end,
            b_start: self.b_end,
            len: a_end - self.a_end,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stretches(a: &str, b: &str) -> Vec<(usize, usize, usize)> {
        Alignment::new(a.as_bytes(), b.as_bytes())
            .matches()
            .map(|m| (m.a_start, m.b_start, m.len))
            .collect()
    }

    /// Two strings, what they share, and where: start in one, start in the other, length.
    type Case = (
        &'static str,
        &'static str,
        &'static str,
        &'static [(usize, usize, usize)],
    );

    /// Answers of the real server.
    #[test]
    fn known_alignments() {
        let cases: &[Case] = &[
            ("ohmytext", "mynewtext", "mytext", &[(4, 5, 4), (2, 0, 2)]),
            ("", "abc", "", &[]),
            ("abc", "", "", &[]),
            ("", "", "", &[]),
            ("abc", "abc", "abc", &[(0, 0, 3)]),
            ("abc", "xyz", "", &[]),
            ("aaa", "aa", "aa", &[(1, 0, 2)]),
            ("aa", "aaa", "aa", &[(0, 1, 2)]),
            ("ab", "ba", "b", &[(1, 0, 1)]),
            ("abcbdab", "bdcaba", "bdab", &[(5, 3, 2), (3, 0, 2)]),
        ];
        for (a, b, subsequence, matches) in cases {
            let alignment = Alignment::new(a.as_bytes(), b.as_bytes());
            assert_eq!(alignment.subsequence(), subsequence.as_bytes(), "{a:?} {b:?}");
            assert_eq!(alignment.length(), subsequence.len());
            assert_eq!(stretches(a, b), *matches, "{a:?} {b:?}");
        }
    }

    #[test]
    fn matches_know_their_ends() {
        let last = Alignment::new(b"ohmytext", b"mynewtext")
            .matches()
            .next()
            .unwrap();
        assert_eq!((last.a_last(), last.b_last()), (7, 8));
    }

    #[test]
    fn memory_is_told_beforehand() {
        assert_eq!(table_bytes(0, 0), 4);
        assert_eq!(table_bytes(11_584, 11_583), 4 * 11_585 * 11_584);
        assert_eq!(table_bytes(usize::MAX, usize::MAX), u64::MAX);
        assert_eq!(alignment_bytes(10, 64), 10 * 8 + 10);
        assert_eq!(alignment_bytes(10, 65), 2 * 10 * 8 + 10);
        assert_eq!(alignment_bytes(usize::MAX, usize::MAX), u64::MAX);
    }

    /// The textbook: a full table, and the walk back through it.
    fn naive(a: &[u8], b: &[u8]) -> (usize, Vec<u8>) {
        let mut table = vec![vec![0usize; b.len() + 1]; a.len() + 1];
        for i in 1..=a.len() {
            for j in 1..=b.len() {
                table[i][j] = match a[i - 1] == b[j - 1] {
                    true => table[i - 1][j - 1] + 1,
                    false => table[i - 1][j].max(table[i][j - 1]),
                };
            }
        }
        let (mut i, mut j) = (a.len(), b.len());
        let mut reversed = Vec::new();
        while i > 0 && j > 0 {
            if a[i - 1] == b[j - 1] {
                reversed.push(a[i - 1]);
                (i, j) = (i - 1, j - 1);
            } else if table[i - 1][j] > table[i][j - 1] {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        reversed.reverse();
        (table[a.len()][b.len()], reversed)
    }

    proptest! {
        #[test]
        fn agrees_with_the_textbook(a in "[a-c]{0,200}", b in "[a-d]{0,200}") {
            let (a, b) = (a.as_bytes(), b.as_bytes());
            let (expected_length, expected) = naive(a, b);
            let alignment = Alignment::new(a, b);
            prop_assert_eq!(length(a, b), expected_length);
            prop_assert_eq!(alignment.length(), expected_length);
            prop_assert_eq!(alignment.subsequence(), expected);
        }

        #[test]
        fn matches_are_equal_stretches_in_order(a: Vec<u8>, b: Vec<u8>) {
            let alignment = Alignment::new(&a, &b);
            let (mut a_end, mut b_end, mut total) = (a.len(), b.len(), 0);
            for found in alignment.matches() {
                prop_assert!(found.len > 0 && found.a_last() < a_end && found.b_last() < b_end);
                prop_assert_eq!(&a[found.a_start..=found.a_last()], &b[found.b_start..=found.b_last()]);
                (a_end, b_end) = (found.a_start, found.b_start);
                total += found.len;
            }
            prop_assert_eq!(total, alignment.length());
        }
    }
}
