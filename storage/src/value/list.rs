//! [`List`]: the value of a list key, and when it changes its encoding.
//!
//! A list is one pack (`listpack`) while it stays within one node's limit, and a [`Quicklist`] beyond. It becomes one
//! before elements are added that would not fit, by the lengths of their texts alone, even if none of them is added in
//! the end; and becomes a pack again when a change leaves it one node of at most half of the limit. Both as Redis 7.2.
//!
//! Elements are shown to a closure: they may lie compressed in memory, and exist as such only while they are read.

use std::ops::ControlFlow;

use smallvec::SmallVec;

pub use crate::encoding::quicklist::node::Contents;
pub use crate::encoding::quicklist::{Direction, End};

use super::{Encoding, StringRef};
use crate::encoding::listpack::Listpack;
use crate::encoding::quicklist::Quicklist;
use crate::encoding::quicklist::limit::NodeLimit;
use crate::encoding::quicklist::node::{self, Needle};
use crate::memory::boxed::CountedBox;

/// Bounds on lists from the configuration.
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

/// Side of another element on which to put one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Nearer to the front.
    Before,
    /// Nearer to the back.
    After,
}

/// A detached element, between two places.
#[derive(Clone, Debug)]
pub struct Element(Owned);

#[derive(Clone, Debug)]
enum Owned {
    Int(i64),
    Bytes(SmallVec<[u8; 64]>),
}

impl Element {
    /// A copy of an element.
    #[inline]
    #[must_use]
    pub fn of(element: StringRef<'_>) -> Self {
        Self(match element {
            StringRef::Int(int) => Owned::Int(int),
            StringRef::Bytes(bytes) => Owned::Bytes(SmallVec::from_slice(bytes)),
        })
    }

    /// The element, as in a list.
    #[inline]
    #[must_use]
    pub fn as_ref(&self) -> StringRef<'_> {
        match &self.0 {
            Owned::Int(int) => StringRef::Int(*int),
            Owned::Bytes(bytes) => StringRef::Bytes(bytes),
        }
    }
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

    /// Number of elements. O(1) but for packs of more than 65,534 elements.
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

    /// Number of packs, or elements by themselves, that make up the list.
    #[must_use]
    pub fn nodes(&self) -> usize {
        match &self.0 {
            Form::Pack(_) => 1,
            Form::Quick(quick) => quick.nodes(),
        }
    }

    /// The pack, while the list is one.
    #[must_use]
    pub fn as_listpack(&self) -> Option<&Listpack> {
        match &self.0 {
            Form::Pack(pack) => Some(pack),
            Form::Quick(_) => None,
        }
    }

    /// An empty list in the making: its nodes are appended as they are, and [`List::settle`] ends it.
    #[must_use]
    pub(crate) fn of_nodes(limits: &ListLimits) -> Self {
        Self(Form::Quick(CountedBox::new(empty_quicklist(limits))))
    }

    /// Appends a pack to a list in the making, as a node of its own.
    pub(crate) fn append_pack(&mut self, pack: Listpack) {
        if let Form::Quick(quick) = &mut self.0 {
            quick.append_pack(pack);
        }
    }

    /// Appends an element to a list in the making, as a node of its own.
    pub(crate) fn append_plain(&mut self, element: &[u8]) {
        if let Form::Quick(quick) = &mut self.0 {
            quick.append_plain(element);
        }
    }

    /// Shows what is in a node; a list that is a pack has one. `None` when there is no such node. O(log nodes + node).
    pub fn node<R>(&self, number: usize, read: impl FnOnce(Contents<'_>) -> R) -> Option<R> {
        match &self.0 {
            Form::Pack(pack) => (number == 0).then(|| read(Contents::Pack(pack))),
            Form::Quick(quick) => quick.node(number, read),
        }
    }

    /// Shows what is in the nodes, in order; a list that is a pack has one. O(size).
    pub fn visit_nodes(&self, mut visit: impl FnMut(Contents<'_>)) {
        match &self.0 {
            Form::Pack(pack) => visit(Contents::Pack(pack)),
            Form::Quick(quick) => quick.visit_nodes(&mut visit),
        }
    }

    /// Rules of a quicklist's nodes: the limit in the notation of `list-max-listpack-size`, and whether inner nodes
    /// are compressed.
    #[must_use]
    pub fn node_rules(&self) -> Option<(i32, bool)> {
        match &self.0 {
            Form::Pack(_) => None,
            Form::Quick(quick) => Some((quick.node_limit(), quick.compresses())),
        }
    }

    // ----- reading

    /// Calls `read` with the element at `index`; `None` when there is none. O(log n + one pack).
    pub fn get<R>(&self, index: usize, read: impl FnOnce(StringRef<'_>) -> R) -> Option<R> {
        match &self.0 {
            Form::Pack(pack) => {
                let position = pack.seek(isize::try_from(index).ok()?)?;
                Some(read(pack.at(position)))
            }
            Form::Quick(quick) => quick.get(index, read),
        }
    }

    /// Calls `visit` with the elements from the one at `start` on in one direction, until it breaks; with none when
    /// there is no such element. O(log n + elements visited).
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

    /// Calls `visit` with the indices of the elements equal to `needle`, the first in `direction` first, until it
    /// breaks. Compares at most `compared_max` elements.
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
        // Integers do not count, because in Redis they have no text at this point.
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
        let result = self.pop_within(end, read);
        self.shrink(limits);
        result
    }

    #[inline]
    fn pop_within<R>(&mut self, end: End, read: impl FnOnce(StringRef<'_>) -> R) -> Option<R> {
        match &mut self.0 {
            Form::Pack(pack) if pack.is_empty() => None,
            Form::Pack(pack) => Some(node::pop(pack, end, read)),
            Form::Quick(quick) => quick.pop(end, read),
        }
    }

    /// Moves the element at one end to an end, and shows it; `None` when the list is empty.
    pub fn rotate<R>(
        &mut self,
        from: End,
        to: End,
        limits: &ListLimits,
        read: impl FnOnce(StringRef<'_>) -> R,
    ) -> Option<R> {
        let element = self.pop_within(from, Element::of)?;
        self.push(to, element.as_ref(), limits);
        // Shrinks only after the push, so that a list of just over half the limit does not become a pack in between.
        self.shrink(limits);
        Some(read(element.as_ref()))
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

    /// Replaces the element at `index`; false when there is none. O(log n + one pack).
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

    /// Cost of freeing the list, in small allocations.
    #[must_use]
    pub fn free_cost(&self) -> usize {
        self.nodes()
    }

    /// Frees the list from its end, up to about `budget` small allocations; returns their number. The list is empty
    /// when all are freed, and may only be drained further or dropped before.
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::memory::thread_balance;

    fn text(element: StringRef<'_>) -> Vec<u8> {
        element.as_bytes(&mut [0; 20]).to_vec()
    }

    fn all(list: &List) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        list.range(0, Direction::Forward, usize::MAX, |element| {
            found.push(text(element));
        });
        found
    }

    fn of(count: usize, limits: &ListLimits) -> List {
        let mut list = List::new();
        for n in 0..count {
            list.push(
                End::Back,
                StringRef::Bytes(format!("element:{n:06}").as_bytes()),
                limits,
            );
        }
        list
    }

    fn in_elements(listpack_size: i32) -> ListLimits {
        ListLimits {
            listpack_size,
            ..ListLimits::default()
        }
    }

    #[test]
    fn an_empty_list_allocates_nothing() {
        let start = thread_balance();
        let mut list = List::new();
        assert_eq!(
            (list.len(), list.memory(), list.encoding()),
            (0, 0, Encoding::Listpack)
        );
        assert_eq!(list.pop(End::Back, &ListLimits::default(), text), None);
        assert_eq!(list.get(0, text), None);
        assert_eq!(thread_balance(), start);
    }

    #[test]
    fn growing_beyond_the_limit_and_shrinking_to_half_of_it_change_the_encoding() {
        let limits = in_elements(4);
        let mut list = of(4, &limits);
        assert_eq!(list.encoding(), Encoding::Listpack);
        list.push(End::Front, StringRef::Int(1), &limits);
        assert_eq!((list.encoding(), list.nodes()), (Encoding::Quicklist, 2));
        for (len, encoding) in [
            (4, Encoding::Quicklist),
            (3, Encoding::Quicklist),
            (2, Encoding::Listpack),
        ] {
            list.pop(End::Front, &limits, text);
            assert_eq!((list.len(), list.encoding()), (len, encoding));
        }
        assert_eq!(all(&list), [b"element:000002", b"element:000003"]);
    }

    #[test]
    fn bytes_are_counted_before_elements_are_added() {
        let limits = in_elements(-1);
        let big = vec![b'x'; 4000];
        let mut list = List::new();
        list.extend(End::Back, [&big[..], &[b'y'; 89]].into_iter(), &limits);
        assert_eq!(list.encoding(), Encoding::Listpack, "7 + 4000 + 89 bytes");
        assert!(!list.insert(Side::Before, b"missing", b"z", &limits));
        assert_eq!(
            list.encoding(),
            Encoding::Quicklist,
            "though nothing was inserted"
        );
        assert!(list.set(0, b"small", &limits));
        assert_eq!(list.encoding(), Encoding::Listpack);
    }

    #[test]
    fn a_large_element_has_a_node_to_itself() {
        let limits = in_elements(-2);
        let huge = vec![b'h'; 50_000];
        let mut list = of(10, &limits);
        assert!(list.insert(Side::After, b"element:000004", &huge, &limits));
        assert_eq!(
            (list.nodes(), list.len(), list.get(5, |e| e.len())),
            (3, 11, Some(50_000))
        );
        assert!(list.set(5, b"17", &limits));
        assert_eq!(list.get(5, |element| element == StringRef::Int(17)), Some(true));
        let threshold = ListLimits {
            packed_threshold: 5,
            ..in_elements(2)
        };
        let mut list = List::new();
        list.extend(
            End::Back,
            [&b"12"[..], b"3", b"12345", b"678901"].into_iter(),
            &threshold,
        );
        assert_eq!(list.nodes(), 3);
        list.remove_range(0, 3, &threshold);
        assert_eq!(
            list.encoding(),
            Encoding::Quicklist,
            "a single element too large for a pack"
        );
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes too long under Miri")]
    fn inner_nodes_are_compressed() {
        let plain = of(20_000, &ListLimits::default());
        let limits = ListLimits {
            compress_depth: 1,
            ..ListLimits::default()
        };
        let compressed = of(20_000, &limits);
        assert_eq!(all(&plain), all(&compressed));
        assert!(
            compressed.memory() * 2 < plain.memory(),
            "{} of {}",
            compressed.memory(),
            plain.memory()
        );
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes too long under Miri")]
    fn long_lists_are_full_throughout() {
        let limits = ListLimits::default();
        let list = of(100_000, &limits);
        let per_element = list.memory() as f64 / 100_000.0;
        // Fourteen bytes of text and two of framing.
        assert!(per_element < 16.5, "{per_element} bytes");
        let mut front = List::new();
        for n in (0..100_000).rev() {
            front.push(
                End::Front,
                StringRef::Bytes(format!("element:{n:06}").as_bytes()),
                &limits,
            );
        }
        assert!((front.memory() as f64) < 1.65e6);
        assert_eq!(all(&front), all(&list));
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes too long under Miri")]
    fn a_large_list_is_drained_in_slices() {
        let start = thread_balance();
        let mut list = of(20_000, &ListLimits::default());
        list.push(
            End::Back,
            StringRef::Bytes(&vec![7; 4 << 20]),
            &ListLimits::default(),
        );
        let mut slices = 0;
        while !list.is_empty() {
            assert!(list.drain(8) > 0);
            slices += 1;
        }
        drop(list);
        assert!(slices > 5, "{slices}");
        assert_eq!(thread_balance(), start);
    }

    /// Short texts of few kinds, so that many are equal, and some that are large for a pack.
    fn value() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            8 => (0u32..6).prop_map(|n| n.to_string().into_bytes()),
            4 => "[a-c]{0,3}".prop_map(String::into_bytes),
            2 => vec(0u8..3, 40..120),
            1 => (0u8..3, 3000usize..9000).prop_map(|(byte, len)| vec![byte; len]),
        ]
    }

    fn limits() -> impl Strategy<Value = ListLimits> {
        let size = prop_oneof![Just(-1), Just(-2), 1i32..6, Just(30)];
        (
            size,
            prop_oneof![Just(0u32), 0u32..4],
            prop_oneof![Just(1usize << 30), Just(4usize)],
        )
            .prop_map(|(listpack_size, compress_depth, packed_threshold)| ListLimits {
                listpack_size,
                compress_depth,
                packed_threshold,
            })
    }

    #[derive(Clone, Debug)]
    enum Step {
        Extend(bool, Vec<Vec<u8>>),
        Pop(bool, usize),
        Rotate(bool, bool),
        Set(usize, Vec<u8>),
        Insert(bool, Vec<u8>, Vec<u8>),
        Remove(bool, usize, Vec<u8>),
        RemoveRange(usize, usize),
        Keep(usize, usize),
        Clone,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (any::<bool>(), vec(value(), 1..20)).prop_map(|(front, values)| Step::Extend(front, values)),
            2 => (any::<bool>(), 1usize..12).prop_map(|(front, count)| Step::Pop(front, count)),
            2 => (any::<bool>(), any::<bool>()).prop_map(|(from, to)| Step::Rotate(from, to)),
            3 => (any::<usize>(), value()).prop_map(|(index, value)| Step::Set(index, value)),
            3 => (any::<bool>(), value(), value()).prop_map(|(before, pivot, value)| Step::Insert(before, pivot, value)),
            1 => (any::<bool>(), 1usize..9, value()).prop_map(|(front, max, needle)| Step::Remove(front, max, needle)),
            1 => (any::<usize>(), 0usize..30).prop_map(|(start, count)| Step::RemoveRange(start, count)),
            1 => (0usize..10, any::<usize>()).prop_map(|(start, count)| Step::Keep(start, count)),
            1 => Just(Step::Clone),
        ]
    }

    fn end(front: bool) -> End {
        if front { End::Front } else { End::Back }
    }

    fn direction(forward: bool) -> Direction {
        if forward {
            Direction::Forward
        } else {
            Direction::Backward
        }
    }

    fn apply(list: &mut List, model: &mut VecDeque<Vec<u8>>, step: Step, limits: &ListLimits) {
        let len = model.len();
        match step {
            Step::Extend(front, values) => {
                list.extend(end(front), values.iter().map(|value| &value[..]), limits);
                for value in values {
                    if front {
                        model.push_front(value);
                    } else {
                        model.push_back(value);
                    }
                }
            }
            Step::Pop(front, count) => {
                for _ in 0..count {
                    let expected = if front {
                        model.pop_front()
                    } else {
                        model.pop_back()
                    };
                    assert_eq!(list.pop(end(front), limits, text), expected);
                }
            }
            Step::Rotate(from_front, to_front) => {
                let moved = if from_front {
                    model.pop_front()
                } else {
                    model.pop_back()
                };
                if let Some(element) = &moved {
                    let place = if to_front { 0 } else { model.len() };
                    model.insert(place, element.clone());
                }
                let shown = list.rotate(end(from_front), end(to_front), limits, text);
                assert_eq!(shown, moved);
            }
            Step::Set(index, value) => {
                let index = index % (len + 1);
                assert_eq!(list.set(index, &value, limits), index < len);
                if index < len {
                    model[index] = value;
                }
            }
            Step::Insert(before, pivot, value) => {
                let side = if before { Side::Before } else { Side::After };
                let place = model.iter().position(|element| *element == pivot);
                assert_eq!(list.insert(side, &pivot, &value, limits), place.is_some());
                if let Some(place) = place {
                    model.insert(place + usize::from(!before), value);
                }
            }
            Step::Remove(forward, max, needle) => {
                let mut found: Vec<usize> = (0..len).filter(|index| model[*index] == needle).collect();
                if !forward {
                    found.reverse();
                }
                found.truncate(max);
                assert_eq!(
                    list.remove_equal(&needle, direction(forward), max, limits),
                    found.len()
                );
                found.sort_unstable();
                for index in found.into_iter().rev() {
                    model.remove(index);
                }
            }
            Step::RemoveRange(start, count) => {
                let start = start % (len + 1);
                list.remove_range(start, count, limits);
                model.drain(start..(start + count).min(len));
            }
            Step::Keep(start, count) => {
                let count = (len / 2).max(count % (len + 1));
                list.keep_range(start, count, limits);
                *model = model.iter().skip(start).take(count).cloned().collect();
            }
            Step::Clone => *list = list.clone(),
        }
    }

    fn compare(list: &List, model: &VecDeque<Vec<u8>>, probe: usize) {
        assert_eq!(list.len(), model.len());
        assert_eq!(VecDeque::from(all(list)), *model);
        let index = probe % (model.len() + 1);
        assert_eq!(list.get(index, text).as_ref(), model.get(index));
        let mut backward = Vec::new();
        list.range(index, Direction::Backward, 7, |element| {
            backward.push(text(element));
        });
        let expected: Vec<_> = match model.get(index) {
            Some(_) => model.iter().take(index + 1).rev().take(7).cloned().collect(),
            None => Vec::new(),
        };
        assert_eq!(backward, expected);
        if let Some(needle) = model.get(index) {
            for forward in [true, false] {
                let mut found = Vec::new();
                list.positions(needle, direction(forward), usize::MAX, |index| {
                    found.push(index);
                    ControlFlow::Continue(())
                });
                let mut expected: Vec<_> = (0..model.len())
                    .filter(|index| model[*index] == *needle)
                    .collect();
                if !forward {
                    expected.reverse();
                }
                assert_eq!(found, expected);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 128 }))]

        #[test]
        fn it_behaves_as_a_deque(limits in limits(), steps in vec((step(), any::<usize>()), 1..60)) {
            let start = thread_balance();
            let mut list = List::new();
            let mut model = VecDeque::new();
            for (step, probe) in steps {
                apply(&mut list, &mut model, step, &limits);
                compare(&list, &model, probe);
                prop_assert_eq!(thread_balance() - start, list.memory() as i64);
                if let Form::Quick(quick) = &list.0 {
                    quick.check();
                }
            }
            drop(list);
            prop_assert_eq!(thread_balance(), start);
        }
    }
}
