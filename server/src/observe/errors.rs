//! Counts of error replies by their code, the first word of their line.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// The most codes that are distinguished; further ones are counted as [`OTHERS`].
const CODES_MAX: usize = 128;

/// Length of the longest word that counts as a code, bytes.
const CODE_BYTES_MAX: usize = 64;

/// Name for the codes beyond [`CODES_MAX`].
const OTHERS: &[u8] = b"ERRORSTATS_OVERFLOW";

/// Error counts of one loop. The lock is taken for each error by the loop, and rarely by a reader.
#[derive(Debug, Default)]
pub(crate) struct ErrorCounts {
    by_code: Mutex<BTreeMap<Box<[u8]>, u64>>,
}

impl ErrorCounts {
    /// Counts an error by its line without the leading `-`.
    pub(crate) fn add(&self, line: &[u8]) {
        let code = line.split(|&byte| byte == b' ').next().unwrap_or_default();
        let code = &code[..code.len().min(CODE_BYTES_MAX)];
        let mut by_code = self.by_code.lock();
        if let Some(count) = by_code.get_mut(code) {
            *count += 1;
            return;
        }
        let code = if by_code.len() < CODES_MAX { code } else { OTHERS };
        *by_code.entry(code.into()).or_default() += 1;
    }

    /// Resets the counts.
    pub(crate) fn reset(&self) {
        self.by_code.lock().clear();
    }

    /// Adds the counts to sums over several loops.
    pub(crate) fn add_to(&self, sum: &mut BTreeMap<Box<[u8]>, u64>) {
        for (code, count) in &*self.by_code.lock() {
            *sum.entry(code.clone()).or_default() += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(counts: &ErrorCounts) -> Vec<(String, u64)> {
        let mut sum = BTreeMap::new();
        counts.add_to(&mut sum);
        sum.into_iter()
            .map(|(code, count)| (String::from_utf8_lossy(&code).into_owned(), count))
            .collect()
    }

    #[test]
    fn counts_by_the_first_word() {
        let counts = ErrorCounts::default();
        for line in ["ERR syntax error", "WRONGTYPE no", "ERR other", "ALONE"] {
            counts.add(line.as_bytes());
        }
        let expected = [("ALONE", 1), ("ERR", 2), ("WRONGTYPE", 1)];
        assert_eq!(
            sum(&counts),
            expected.map(|(code, count)| (code.to_owned(), count))
        );
        counts.reset();
        assert!(sum(&counts).is_empty());
    }

    #[test]
    fn codes_are_bounded() {
        let counts = ErrorCounts::default();
        for number in 0..1000 {
            counts.add(format!("E{number:03} text").as_bytes());
        }
        let sum = sum(&counts);
        assert_eq!(sum.len(), CODES_MAX + 1);
        assert_eq!(
            sum.iter()
                .find(|(code, _)| code.as_bytes() == OTHERS)
                .map(|&(_, count)| count),
            Some(1000 - CODES_MAX as u64)
        );
    }
}
