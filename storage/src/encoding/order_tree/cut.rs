//! Cuts: a search divides the entries of a tree into those before the cut and those behind it.

/// A place in the order of a tree. All entries before it precede all others.
pub(crate) trait Cut<T> {
    /// Number of these entries, which are in order, that are before the cut.
    fn count(&self, scores: &[f64], items: &[T]) -> usize;
}

/// Divides by score, and entries of the same score by their items.
pub(crate) struct ScoreCut<F> {
    /// Entries of lower scores are before the cut, those of higher ones behind it.
    pub(crate) score: f64,
    /// Whether an item of just this score is before the cut.
    pub(crate) ties: F,
}

impl<T: Copy, F: Fn(T) -> bool> Cut<T> for ScoreCut<F> {
    #[inline]
    fn count(&self, scores: &[f64], items: &[T]) -> usize {
        // Comparing all scores of a node takes no longer than bisecting them: there are no branches to guess wrong, and
        // the lines of a node that is not in the caches arrive together and not one after the other.
        let lower: usize = scores.iter().map(|score| usize::from(*score < self.score)).sum();
        let equal = scores[lower..]
            .iter()
            .take_while(|score| **score == self.score)
            .count();
        if equal == 0 {
            return lower;
        }
        lower + items[lower..lower + equal].partition_point(|item| (self.ties)(*item))
    }
}

/// Divides by items, whatever their scores.
pub(crate) struct ItemCut<F>(pub(crate) F);

impl<T: Copy, F: Fn(T) -> bool> Cut<T> for ItemCut<F> {
    fn count(&self, _scores: &[f64], items: &[T]) -> usize {
        items.partition_point(|item| (self.0)(*item))
    }
}

/// Behind all entries.
pub(crate) struct End;

impl<T> Cut<T> for End {
    fn count(&self, scores: &[f64], _items: &[T]) -> usize {
        scores.len()
    }
}
