//! Walking a tree in either order.

use super::Order;
use super::node::{Child, Inner, Leaf};

/// No tree is higher: every node that is split leaves 31 slots behind, and 31 to the power of 12 is far beyond 64 bits.
const HEIGHT_MAX: usize = 12;

/// Entries of a tree in order, from some rank on.
pub(crate) struct Range<'a, T> {
    /// The way to the leaf: inner nodes, each with the slot taken.
    path: [Option<(&'a Inner<T>, usize)>; HEIGHT_MAX],
    height: usize,
    /// The current leaf; none when the range is exhausted.
    leaf: Option<&'a Leaf<T>>,
    at: usize,
    left: usize,
    order: Order,
}

impl<'a, T: Copy> Range<'a, T> {
    /// The `count` entries, which there are, from a rank on.
    #[inline]
    pub(super) fn new(root: Option<&'a Child<T>>, start: usize, count: usize, order: Order) -> Self {
        let mut range = Range {
            path: [None; HEIGHT_MAX],
            height: 0,
            leaf: None,
            at: 0,
            left: count,
            order,
        };
        if count > 0 {
            range.descend(root, start);
        }
        range
    }

    /// Descends from `node`, `height` steps below the root, to the entry of that rank in it.
    #[inline]
    fn descend(&mut self, mut node: Option<&'a Child<T>>, mut rank: usize) {
        while let Some(Child::Inner(inner)) = node {
            let (slot, rest) = inner.slot_at(rank);
            self.path[self.height] = Some((inner, slot));
            self.height += 1;
            (node, rank) = (inner.children[slot].as_ref(), rest);
        }
        if let Some(Child::Leaf(leaf)) = node {
            (self.leaf, self.at) = (Some(&**leaf), rank);
        }
    }

    /// Moves to the next leaf in the order.
    fn turn(&mut self) {
        self.leaf = None;
        while let Some(height) = self.height.checked_sub(1)
            && let Some((inner, slot)) = self.path[height]
        {
            let next = match self.order {
                Order::Ascending => Some(slot + 1).filter(|next| *next < inner.len),
                Order::Descending => slot.checked_sub(1),
            };
            if let Some(next) = next {
                self.path[height] = Some((inner, next));
                let rank = match self.order {
                    Order::Ascending => 0,
                    Order::Descending => inner.counts[next] - 1,
                };
                self.descend(inner.children[next].as_ref(), rank);
                return;
            }
            self.height = height;
        }
    }

    /// The item `distance` places ahead, if it is in the same leaf: what a caller may prefetch.
    #[inline]
    pub(crate) fn ahead(&self, distance: usize) -> Option<T> {
        let leaf = self.leaf?;
        let at = match self.order {
            Order::Ascending => self.at + distance,
            Order::Descending => self.at.checked_sub(distance)?,
        };
        leaf.items[..leaf.len].get(at).copied()
    }
}

impl<T: Copy> Iterator for Range<'_, T> {
    type Item = (f64, T);

    #[inline]
    fn next(&mut self) -> Option<(f64, T)> {
        self.left = self.left.checked_sub(1)?;
        let leaf = self.leaf?;
        let entry = (leaf.scores[self.at], leaf.items[self.at]);
        if self.left > 0 {
            match self.order {
                Order::Ascending if self.at + 1 < leaf.len => self.at += 1,
                Order::Descending if self.at > 0 => self.at -= 1,
                _ => self.turn(),
            }
        }
        Some(entry)
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<T: Copy> ExactSizeIterator for Range<'_, T> {}
