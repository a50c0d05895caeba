//! The policy by expiry: keys that expire soonest are evicted first.

use crate::entry::Entry;

/// Score for eviction: the sooner the expiry, the higher.
pub(super) fn score(entry: &Entry) -> u64 {
    // Flipping the sign bit makes the order of signed times that of unsigned numbers.
    let at = entry.expiry().unwrap_or(i64::MAX) as u64 ^ 1 << 63;
    u64::MAX - at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{EntryBox, NewValue};

    #[test]
    fn sooner_scores_higher_across_the_sign() {
        let score_at = |at| score(&EntryBox::new(b"k", 0, Some(at), NewValue::Int(0)));
        assert!(score_at(-5) > score_at(0) && score_at(0) > score_at(5) && score_at(5) > score_at(i64::MAX));
    }
}
