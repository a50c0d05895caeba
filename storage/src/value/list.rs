//! [`List`]: the value of a list key, and when it changes its encoding.
//!
//! A list is one pack (`listpack`) while it stays within one node's limit, and a [`Quicklist`] beyond. It becomes one
//! before elements are added that would not fit, by the lengths of their texts alone, even if none of them is added in
//! the end; and becomes a pack again when a change leaves it one node of at most half of the limit. Both as Redis 7.2.
//!
//! Elements are shown to a closure: they may lie compressed in memory, and exist as such only while they are read.

use std::ops::ControlFlow;

pub use crate::encoding::quicklist::{Direction, End};

use super::{Encoding, StringRef};
use crate::encoding::listpack::Listpack;
use crate::encoding::quicklist::Quicklist;
use crate::encoding::quicklist::limit::NodeLimit;
use crate::encoding::quicklist::node::{self, Needle};
use crate::memory::boxed::CountedBox;

/// What the configuration says of lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListLimits {
    /// `list-max-listpack-size`: how large a pack may become, in elements, or, from -1 to -5, 4 to 64 KiB.
    pub listpack_size: i32,
    /// `list-compress-depth`: how many packs at each end are never compressed; 0 compresses none.
    pub compress_depth: u32,
    /// Elements of so many bytes are not put into packs (`DEBUG QUICKLIST-PACKED-THRESHOLD`).
    pub packed_threshold: usize,
}

impl Default for ListLimits {
    fn default() -> Self {
        Self {
            listpack_size: -2,
            compress_depth: 0,
            packed_threshold: 1 << 30,
        }
    }
}

/// Where to put an element, as seen from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Nearer to the front.
    Before,
    /// Nearer to the back.
    After,
}

/// A sequence of strings, open at both ends. An empty one allocates nothing.
#[derive(Clone)]
pub struct List(Form);

#[derive(Clone)]
enum Form {
    Pack(Listpack),
    Quick(CountedBox<Quicklist>),
}

const _: () = assert!(size_of::<List>() <= 24);

impl List {
    /// An empty list.
    #[must_use]
    pub const fn new() -> Self {
        Self(Form::Pack(Listpack::new()))
    }

    /// How many elements there are. O(1) but for packs of more than 65,534 elements.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Pack(pack) => pack.len(),
            Form::Quick(quick) => quick.len(),
        }
    }

    /// Whether there is no element.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match &self.0 {
            Form::Pack(pack) => pack.is_empty(),
            Form::Quick(quick) => quick.len() == 0,
        }
    }

    /// `listpack` or `quicklist`.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        match &self.0 {
            Form::Pack(_) => Encoding::Listpack,
            Form::Quick(_) => Encoding::Quicklist,
        }
    }

    /// The bytes allocated outside the value itself. O(1).
    #[must_use]
    pub fn memory(&self) -> usize {
        match &self.0 {
            Form::Pack(pack) => pack.memory(),
            Form::Quick(quick) => quick.memory(),
        }
    }

    /// How many packs, or elements by themselves, the list is made of.
    #[must_use]
    pub fn nodes(&self) -> usize {
        match &self.0 {
            Form::Pack(_) => 1,
            Form::Quick(quick) => quick.nodes(),
        }
    }

    // ----- reading

    /// Shows the element at `index`; `None` when there is none. O(log n + one pack).
    pub fn get<R>(&self, index: usize, read: impl FnOnce(StringRef<'_>) -> R) -> Option<R> {
        match &self.0 {
            Form::Pack(pack) => {
                let position = pack.seek(isize::try_from(index).ok()?)?;
                Some(read(pack.at(position)))
            }
            Form::Quick(quick) => quick.get(index, read),
        }
    }

    /// Shows the elements from the one at `start` on in one direction, until told to stop; none when there is no such
    /// element. O(log n + elements shown).
    #[inline]
    pub fn visit<F>(&self, start: usize, direction: Direction, mut visit: F) -> ControlFlow<()>
    where
        F: FnMut(StringRef<'_>) -> ControlFlow<()>,
    {
        match &self.0 {
            Form::Pack(pack) => node::visit_pack(pack, start, direction, &mut visit),
            Form::Quick(quick) => quick.visit(start, direction, &mut visit),
        }
    }

    /// Shows `count` elements, or as many as there are, from the one at `start` on in one direction.
    #[inline]
    pub fn range<F>(&self, start: usize, direction: Direction, count: usize, mut read: F)
    where
        F: FnMut(StringRef<'_>),
    {
        let mut left = count;
        if left == 0 {
            return;
        }
        let _stopped_early = self.visit(start, direction, |element| {
            read(element);
            left -= 1;
            if left == 0 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
    }

    /// Shows the indices of the elements equal to `needle`, the first in `direction` first, until told to stop. At most
    /// `compared_max` elements are looked at.
    pub fn positions<F>(&self, needle: &[u8], direction: Direction, compared_max: usize, mut found: F)
    where
        F: FnMut(usize) -> ControlFlow<()>,
    {
        let needle = Needle::new(needle);
        let Some(last) = self.len().checked_sub(1) else {
            return;
        };
        let start = match direction {
            Direction::Forward => 0,
            Direction::Backward => last,
        };
        let mut compared = 0;
        let _stopped_early = self.visit(start, direction, |element| {
            if compared == compared_max {
                return ControlFlow::Break(());
            }
            let index = start.abs_diff(compared);
            compared += 1;
            if needle.equals(element) {
                found(index)
            } else {
                ControlFlow::Continue(())
            }
        });
    }

    // ----- changing

    /// Puts elements at one end, one after the other.
    #[inline]
    pub fn extend<'v, I>(&mut self, end: End, values: I, limits: &ListLimits)
    where
        I: Iterator<Item = &'v [u8]> + Clone,
    {
        self.make_room(values.clone(), limits);
        for value in values {
            self.push_within(end, StringRef::Bytes(value), limits);
        }
    }

    /// Puts an element at one end.
    #[inline]
    pub fn push(&mut self, end: End, value: StringRef<'_>, limits: &ListLimits) {
        // Integers are not counted: in Redis they have no text at this point.
        let text = match value {
            StringRef::Int(_) => &[],
            StringRef::Bytes(bytes) => bytes,
        };
        self.make_room(std::iter::once(text), limits);
        self.push_within(end, value, limits);
    }

    #[inline]
    fn push_within(&mut self, end: End, value: StringRef<'_>, limits: &ListLimits) {
        match &mut self.0 {
            Form::Pack(pack) => node::push(pack, end, value),
            Form::Quick(quick) => quick.push(end, value, limits.packed_threshold),
        }
    }

    /// Shows the element at one end and removes it; `None` when the list is empty.
    #[inline]
    pub fn pop<R>(
        &mut self,
        end: End,
        limits: &ListLimits,
        read: impl FnOnce(StringRef<'_>) -> R,
    ) -> Option<R> {
        match &mut self.0 {
            Form::Pack(pack) if pack.is_empty() => None,
            Form::Pack(pack) => Some(node::pop(pack, end, read)),
            Form::Quick(quick) => {
                let result = quick.pop(end, read);
                self.shrink(limits);
                result
            }
        }
    }

    /// Puts an element beside the first that equals `pivot`; false when there is none. O(n).
    pub fn insert(&mut self, side: Side, pivot: &[u8], value: &[u8], limits: &ListLimits) -> bool {
        self.make_room(std::iter::once(value), limits);
        match &mut self.0 {
            Form::Pack(pack) => {
                let Some(position) = pack.position(pivot) else {
                    return false;
                };
                match side {
                    Side::Before => pack.insert_before(position, value),
                    Side::After => pack.insert_after(position, value),
                };
                true
            }
            Form::Quick(_) => {
                let mut pivot_index = None;
                self.positions(pivot, Direction::Forward, usize::MAX, |index| {
                    pivot_index = Some(index);
                    ControlFlow::Break(())
                });
                let (Some(index), Form::Quick(quick)) = (pivot_index, &mut self.0) else {
                    return false;
                };
                let index = index + usize::from(side == Side::After);
                quick.insert(index, StringRef::Bytes(value), limits.packed_threshold);
                true
            }
        }
    }

    /// Puts another element in the place of the one at `index`; false when there is none. O(log n + one pack).
    pub fn set(&mut self, index: usize, value: &[u8], limits: &ListLimits) -> bool {
        self.make_room(std::iter::once(value), limits);
        if index >= self.len() {
            return false;
        }
        match &mut self.0 {
            Form::Pack(pack) => {
                let position = pack.seek(index as isize).expect("the index is below the length");
                pack.replace(position, value);
            }
            Form::Quick(quick) => quick.set(index, StringRef::Bytes(value), limits.packed_threshold),
        }
        self.shrink(limits);
        true
    }

    /// Removes up to `max` elements equal to `needle`, the first there are in `direction`; returns how many. O(n).
    pub fn remove_equal(
        &mut self,
        needle: &[u8],
        direction: Direction,
        max: usize,
        limits: &ListLimits,
    ) -> usize {
        let needle = Needle::new(needle);
        let removed = match &mut self.0 {
            Form::Pack(pack) => {
                let mut left = max;
                node::remove_equal(pack, &needle, direction, &mut left)
            }
            Form::Quick(quick) => quick.remove_equal(&needle, direction, max),
        };
        if removed > 0 {
            self.shrink(limits);
        }
        removed
    }

    /// Removes `count` elements, or as many as there are, from the one at `start` on. O(log n + packs removed).
    pub fn remove_range(&mut self, start: usize, count: usize, limits: &ListLimits) {
        let len = self.len();
        let start = start.min(len);
        self.remove_within(start, count.min(len - start));
        self.shrink(limits);
    }

    /// Removes all but `count` elements, or as many as there are, from the one at `start` on.
    pub fn keep_range(&mut self, start: usize, count: usize, limits: &ListLimits) {
        let len = self.len();
        let start = start.min(len);
        let end = start.saturating_add(count).min(len);
        self.remove_within(end, len - end);
        self.remove_within(0, start);
        self.shrink(limits);
    }

    /// Removes elements that exist.
    fn remove_within(&mut self, start: usize, count: usize) {
        match &mut self.0 {
            Form::Pack(pack) => pack.remove_range(start as isize, count),
            Form::Quick(quick) => quick.remove_range(start, count),
        }
    }

    // ----- encoding

    /// Becomes a quicklist when a pack would get too large with these elements.
    #[inline]
    fn make_room<'v>(&mut self, values: impl Iterator<Item = &'v [u8]>, limits: &ListLimits) {
        if let Form::Pack(pack) = &self.0 {
            let (bytes, elements) = values.fold((pack.byte_len(), pack.len()), |(bytes, elements), value| {
                (bytes.saturating_add(value.len()), elements + 1)
            });
            if NodeLimit::new(limits.listpack_size).exceeded_by(bytes, elements) {
                self.become_quick(limits);
            }
        }
    }

    #[cold]
    fn become_quick(&mut self, limits: &ListLimits) {
        if let Form::Pack(pack) = &mut self.0 {
            let mut quick = empty_quicklist(limits);
            quick.append_pack(std::mem::take(pack));
            self.0 = Form::Quick(CountedBox::new(quick));
        }
    }

    /// Becomes a pack when little enough is left.
    #[inline]
    fn shrink(&mut self, limits: &ListLimits) {
        self.try_pack(limits, true);
    }

    fn try_pack(&mut self, limits: &ListLimits, shrinking: bool) {
        let limit = NodeLimit::new(limits.listpack_size);
        if let Form::Quick(quick) = &mut self.0
            && quick.suits_pack(limit, limits.packed_threshold, shrinking)
        {
            self.0 = Form::Pack(quick.take_pack());
        }
    }

    /// Takes the encoding that a new list of these elements would have, for one that was built in some other way.
    pub fn settle(&mut self, limits: &ListLimits) {
        self.make_room(std::iter::empty(), limits);
        self.try_pack(limits, false);
    }

    // ----- freeing

    /// What freeing the list costs, in small allocations.
    #[must_use]
    pub fn free_cost(&self) -> usize {
        self.nodes()
    }

    /// Frees the list from its end, up to about `budget` small allocations; returns how many. It is empty when all are
    /// gone, and may only be drained further or dropped before.
    pub fn drain(&mut self, budget: usize) -> usize {
        match &mut self.0 {
            Form::Pack(pack) => {
                pack.clear();
                1
            }
            Form::Quick(quick) => {
                let freed = quick.drain(budget);
                if quick.len() == 0 {
                    *self = Self::new();
                }
                freed
            }
        }
    }
}

impl Default for List {
    fn default() -> Self {
        Self::new()
    }
}

fn empty_quicklist(limits: &ListLimits) -> Quicklist {
    Quicklist::new(
        NodeLimit::new(limits.listpack_size),
        limits.compress_depth as usize,
    )
}
