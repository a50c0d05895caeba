//! [`Quicklist`]: a long list as a sequence of packs.
//!
//! ```text
//!  Tree ──┬─ … ──┬─ Node: pack of 8 KiB      the ends: never compressed, where lists are pushed to and popped from
//!         │      ├─ Node: pack, compressed
//!         │      └─ Node: one large element
//!         └─ … ──── Node: pack of 8 KiB
//! ```
//! `list-max-listpack-size` bounds the size of a pack ([`NodeLimit`]); an element that is too large for any pack has
//! a node to itself. The first of several nodes stores its elements in reverse once it is changed at the front:
//! pushing and popping there then happens at the end of a pack and moves nothing. With `list-compress-depth`, all
//! nodes but so many at each end are compressed, and decompressed for reading. Both bounds are taken from the
//! configuration when the list is created, and stay with it.
//!
//! An element in the middle is found in O(log nodes + one pack); see the tree. Elements are passed to a closure
//! rather than returned, since those of a compressed node exist only while they are read.

pub(crate) mod limit;
pub(crate) mod node;
mod tree;

use std::ops::ControlFlow;

use self::limit::NodeLimit;
use self::node::{Contents, Needle, Node};
use self::tree::{Spot, Target, Tree};
use super::listpack::Listpack;
use crate::memory::boxed::CountedBox;
use crate::memory::compact_vec::CompactVec;
use crate::memory::thread_balance;
use crate::value::StringRef;

/// One of the two ends of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The end of the first element, the left one in the names of commands.
    Front,
    /// The end of the last element, the right one.
    Back,
}

/// Direction of a walk through a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the first element to the last.
    Forward,
    /// From the last element to the first.
    Backward,
}

impl Direction {
    /// The way back.
    #[inline]
    #[must_use]
    pub fn opposite(self) -> Self {
        match self {
            Self::Forward => Self::Backward,
            Self::Backward => Self::Forward,
        }
    }
}

/// A list of any length. The module describes its layout.
pub(crate) struct Quicklist {
    tree: Tree,
    /// Bytes allocated for the tree and all below it.
    allocated: i64,
    limit: NodeLimit,
    /// Number of nodes at each end that are never compressed; 0 compresses none.
    depth: usize,
}

/// An element to be inserted into a list.
#[derive(Clone, Copy)]
struct Incoming<'a> {
    value: StringRef<'a>,
    len: usize,
    /// The element gets a node to itself.
    large: bool,
}

impl Incoming<'_> {
    fn into_node(self) -> Node {
        if self.large {
            Node::plain(self.value)
        } else {
            Node::packed(self.value)
        }
    }

    fn fits(&self, node: &Node, limit: NodeLimit) -> bool {
        !self.large && node.accepts(self.len, limit)
    }
}

impl Quicklist {
    /// An empty list with these limits.
    pub(crate) fn new(limit: NodeLimit, depth: usize) -> Self {
        Self {
            tree: Tree::default(),
            allocated: 0,
            limit,
            depth,
        }
    }

    /// Number of elements.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.tree.elements()
    }

    /// Number of nodes.
    #[inline]
    pub(crate) fn nodes(&self) -> usize {
        self.tree.nodes()
    }

    /// The bytes allocated, this struct in its box included. O(1).
    pub(crate) fn memory(&self) -> usize {
        CountedBox::<Self>::memory() + usize::try_from(self.allocated).unwrap_or(0)
    }

    // ----- reading

    /// Calls `read` with the element at `index`; `None` when there is none.
    pub(crate) fn get<R>(&self, index: usize, read: impl FnOnce(StringRef<'_>) -> R) -> Option<R> {
        if index >= self.len() {
            return None;
        }
        let (node, offset) = self.tree.find(Target::Element(index))?;
        Some(node.read_at(offset, read))
    }

    /// Calls `visit` with the elements from the one at `start` on in one direction, until it breaks.
    #[inline]
    pub(crate) fn visit<F>(&self, start: usize, direction: Direction, visit: &mut F) -> ControlFlow<()>
    where
        F: FnMut(StringRef<'_>) -> ControlFlow<()>,
    {
        self.tree.visit(start, direction, visit)
    }

    /// Shows what is in a node; `None` when there is no such node.
    pub(crate) fn node<R>(&self, number: usize, read: impl FnOnce(Contents<'_>) -> R) -> Option<R> {
        if number >= self.nodes() {
            return None;
        }
        let (node, _) = self.tree.find(Target::Node(number))?;
        Some(node.read(read))
    }

    /// Shows what is in the nodes, in order. O(size).
    pub(crate) fn visit_nodes(&self, visit: &mut impl FnMut(Contents<'_>)) {
        self.tree.visit_nodes(&mut |node| node.read(&mut *visit));
    }

    /// Whether inner nodes are compressed.
    pub(crate) fn compresses(&self) -> bool {
        self.depth > 0
    }

    /// Limit of its nodes, in the notation of `list-max-listpack-size`.
    pub(crate) fn node_limit(&self) -> i32 {
        self.limit.size()
    }

    // ----- changing

    /// Puts an element at one end. Amortised O(log nodes + one pack). Elements of `large_min` bytes or more get a node to
    /// themselves, as those do that no pack could take.
    #[inline]
    pub(crate) fn push(&mut self, end: End, value: StringRef<'_>, large_min: usize) {
        let incoming = self.incoming(value, large_min);
        let limit = self.limit;
        let joins = self.tree.end(end).is_some_and(|node| incoming.fits(node, limit));
        self.counted(|list| {
            if joins {
                if let Some(node) = list.change_end(end, 1) {
                    node.push(end, value);
                }
                return;
            }
            list.tree.edit(list.end(end), 1, |spot| {
                let behind = usize::from(end == End::Back && !spot.nodes.is_empty());
                spot.nodes.insert(spot.index + behind, incoming.into_node());
            });
            list.settle_borders();
        });
    }

    /// Shows the element at one end and removes it; `None` when the list is empty.
    #[inline]
    pub(crate) fn pop<R>(&mut self, end: End, read: impl FnOnce(StringRef<'_>) -> R) -> Option<R> {
        let node = self.tree.end(end)?;
        let (count, result) = (node.count(), node.read_end(end, read));
        self.counted(|list| {
            if count > 1 {
                if let Some(node) = list.change_end(end, -1) {
                    node.pop(end);
                }
                return;
            }
            list.tree.edit(list.end(end), -1, |spot| {
                spot.nodes.remove(spot.index);
            });
            list.settle_borders();
        });
        Some(result)
    }

    /// The node at one end, to which the caller adds `change` elements there. More such changes are likely to come, and the
    /// first node of several is hardly changed anywhere but at the front.
    #[inline]
    fn change_end(&mut self, end: End, change: isize) -> Option<&mut Node> {
        let several = self.nodes() > 1;
        let node = self.tree.change_end(end, change)?;
        if end == End::Front && several && node.gains_by_reversal() {
            node.reverse();
        }
        Some(node)
    }

    /// Puts an element before the one at `index`, or at the end; the index is at most the length.
    pub(crate) fn insert(&mut self, index: usize, value: StringRef<'_>, large_min: usize) {
        if index == self.len() {
            return self.push(End::Back, value, large_min);
        }
        let incoming = self.incoming(value, large_min);
        self.edit_middle(index, 1, |spot, limit| {
            insert(spot.nodes, spot.index, spot.offset, incoming, limit);
        });
    }

    /// Puts another element in the place of the one at `index`, which exists.
    pub(crate) fn set(&mut self, index: usize, value: StringRef<'_>, large_min: usize) {
        let incoming = self.incoming(value, large_min);
        self.edit_middle(index, 0, |spot, limit| {
            let node = &mut spot.nodes[spot.index];
            if node.count() == 1 {
                *node = incoming.into_node();
            } else if incoming.large || !node.replace(spot.offset, value, limit) {
                node.remove(spot.offset, 1);
                insert(spot.nodes, spot.index, spot.offset, incoming, limit);
            }
        });
    }

    /// Removes `count` elements from the one at `start` on; there are so many. O(log nodes + nodes removed).
    pub(crate) fn remove_range(&mut self, start: usize, count: usize) {
        self.counted(|list| {
            list.tree.remove_range(start, count);
            list.settle_ends();
        });
    }

    /// Removes up to `max` elements equal to `needle`, the first there are in `direction`; returns how many. O(n).
    pub(crate) fn remove_equal(&mut self, needle: &Needle<'_>, direction: Direction, max: usize) -> usize {
        let mut left = max;
        self.counted(|list| {
            list.tree.sweep(direction, &mut |node| {
                node.remove_equal(needle, direction, &mut left);
                if left == 0 {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
            list.settle_ends();
        });
        max - left
    }

    /// Appends a pack as a node of its own, however large it is.
    pub(crate) fn append_pack(&mut self, pack: Listpack) {
        let count = pack.len();
        if count == 0 {
            return;
        }
        // The pack's memory has been allocated before.
        self.allocated += pack.memory() as i64;
        self.counted(|list| list.append(Node::of_pack(pack), count));
    }

    /// Appends an element as a node of its own, however small it is.
    pub(crate) fn append_plain(&mut self, element: &[u8]) {
        self.counted(|list| list.append(Node::plain(StringRef::Bytes(element)), 1));
    }

    fn append(&mut self, node: Node, count: usize) {
        self.tree.edit(self.end(End::Back), count as isize, |spot| {
            let behind = spot.nodes.len();
            spot.nodes.insert(behind, node);
        });
        self.settle_borders();
    }

    /// Whether the list is one pack (or an element that could be in one, of fewer than `large_min` bytes) and small
    /// enough to be no more than that.
    #[inline]
    pub(crate) fn suits_pack(&self, limit: NodeLimit, large_min: usize, shrinking: bool) -> bool {
        self.nodes() == 1
            && self.tree.find(Target::Node(0)).is_some_and(|(node, _)| {
                let len = node.raw_len();
                !(node.is_plain() && len >= large_min) && limit.suits_whole_list(len, node.count(), shrinking)
            })
    }

    /// Takes the elements out as one pack, which [suits](Quicklist::suits_pack) them.
    pub(crate) fn take_pack(&mut self) -> Listpack {
        self.tree.take_only().map_or_else(Listpack::new, Node::into_pack)
    }

    /// Frees the list from its end, up to about `budget` allocations; returns their number. The list is empty when
    /// all are freed, and may only be drained further or dropped before.
    pub(crate) fn drain(&mut self, budget: usize) -> usize {
        let mut freed = 0;
        self.counted(|list| {
            while freed < budget && list.nodes() > 0 {
                freed += list.drain_node();
            }
        });
        freed
    }

    /// Frees the last node or a slice of it; returns what that cost.
    fn drain_node(&mut self) -> usize {
        let last = self.end(End::Back);
        let count = self.tree.find(last).map_or(0, |(node, _)| node.count());
        let trimmed = self
            .tree
            .edit(last, 0, |spot| spot.nodes[spot.index].trim(DRAIN_SLICE));
        if trimmed {
            return DRAIN_SLICE_COST;
        }
        self.tree.edit(last, -(count as isize), |spot| {
            spot.nodes.remove(spot.index);
        });
        1
    }

    // ----- within

    /// The node at one end.
    #[inline]
    fn end(&self, end: End) -> Target {
        match end {
            End::Front => Target::Node(0),
            End::Back => Target::Node(self.nodes().saturating_sub(1)),
        }
    }

    #[inline]
    fn incoming<'a>(&self, value: StringRef<'a>, large_min: usize) -> Incoming<'a> {
        let len = value.len();
        Incoming {
            value,
            len,
            large: len >= large_min || self.limit.exceeded_alone(len),
        }
    }

    /// Changes the node of an element and its neighbours, by which the list gains `change` elements.
    fn edit_middle(&mut self, index: usize, change: isize, edit: impl FnOnce(Spot<'_>, NodeLimit)) {
        let limit = self.limit;
        self.counted(|list| {
            let nodes = list.nodes();
            let number = list.tree.edit(Target::Element(index), change, |spot| {
                let number = spot.number;
                edit(spot, limit);
                number
            });
            if list.depth > 0 {
                (number.saturating_sub(1)..number + EDIT_REACH).for_each(|number| list.settle(number));
            }
            if list.nodes() != nodes {
                list.settle_borders();
            }
        });
    }

    /// Does something that may allocate and free, and accounts for it.
    #[inline]
    fn counted<R>(&mut self, change: impl FnOnce(&mut Self) -> R) -> R {
        let before = thread_balance();
        let result = change(self);
        self.allocated += thread_balance() - before;
        result
    }

    // ----- compression

    /// Compresses or decompresses the node with this number, if it exists, depending on its position.
    fn settle(&mut self, number: usize) {
        let Some((node, _)) = self.tree.find(Target::Node(number)) else {
            return;
        };
        let inner = number >= self.depth && number + self.depth < self.nodes();
        if node.is_compressed() != inner {
            self.tree.edit(Target::Node(number), 0, |spot| {
                let node = &mut spot.nodes[spot.index];
                if inner { node.compress() } else { node.decompress() }
            });
        }
    }

    /// Brings the nodes up to date that may have come to lie on another side of a border between compressed and
    /// uncompressed ones, after an edit.
    #[inline]
    fn settle_borders(&mut self) {
        if self.depth > 0 {
            self.settle_within(self.depth.saturating_sub(EDIT_REACH), self.depth + EDIT_REACH);
        }
    }

    /// Brings both ends up to date, after more than one edit.
    fn settle_ends(&mut self) {
        if self.depth > 0 {
            self.settle_within(0, self.depth + 1);
        }
    }

    /// Settles the nodes that have from `near` to below `far` nodes between themselves and an end.
    fn settle_within(&mut self, near: usize, far: usize) {
        let nodes = self.nodes();
        for number in near..far.min(nodes) {
            self.settle(number);
            self.settle(nodes - 1 - number);
        }
    }
}

/// Up to so many nodes, from the one before the spot on, can be new or changed after an edit.
const EDIT_REACH: usize = 4;
/// Size of the slices in which a large element is freed, bytes.
const DRAIN_SLICE: usize = 1 << 20;
/// Cost of freeing a slice, compared with a small allocation.
const DRAIN_SLICE_COST: usize = 64;

/// Puts an element before the one at `offset` of a node, or behind its last.
fn insert(
    nodes: &mut CompactVec<Node>,
    index: usize,
    offset: usize,
    incoming: Incoming<'_>,
    limit: NodeLimit,
) {
    let count = nodes[index].count();
    let value = incoming.value;
    if incoming.fits(&nodes[index], limit) {
        nodes[index].insert(offset, value);
    } else if offset == 0 && index > 0 && incoming.fits(&nodes[index - 1], limit) {
        nodes[index - 1].push(End::Back, value);
    } else if offset == count && index + 1 < nodes.len() && incoming.fits(&nodes[index + 1], limit) {
        nodes[index + 1].push(End::Front, value);
    } else if offset == 0 || offset == count {
        nodes.insert(index + usize::from(offset > 0), incoming.into_node());
    } else {
        insert_between_halves(nodes, index, offset, incoming, limit);
    }
}

/// Cuts a full node and puts an element between the halves; these then join their neighbours where that is possible.
fn insert_between_halves(
    nodes: &mut CompactVec<Node>,
    index: usize,
    offset: usize,
    incoming: Incoming<'_>,
    limit: NodeLimit,
) {
    let tail = nodes[index].split_off(offset);
    nodes.insert(index + 1, tail);
    let (head, tail) = (&nodes[index], &nodes[index + 1]);
    let tail_is_shorter = tail.raw_len() < head.raw_len();
    let mut tail_index = index + 1;
    if tail_is_shorter && incoming.fits(tail, limit) {
        nodes[tail_index].push(End::Front, incoming.value);
    } else if incoming.fits(head, limit) {
        nodes[index].push(End::Back, incoming.value);
    } else {
        nodes.insert(tail_index, incoming.into_node());
        tail_index += 1;
    }
    merge(nodes, tail_index, limit);
    if index > 0 {
        merge(nodes, index - 1, limit);
    }
}

/// Merges a node with the next one, if there is one and the limit allows it.
fn merge(nodes: &mut CompactVec<Node>, index: usize, limit: NodeLimit) {
    if index + 1 < nodes.len() && nodes[index].can_merge(&nodes[index + 1], limit) {
        let next = nodes.remove(index + 1);
        nodes[index].merge(next);
    }
}

impl Clone for Quicklist {
    fn clone(&self) -> Self {
        let mut twin = Self::new(self.limit, self.depth);
        twin.counted(|twin| twin.tree = self.tree.clone());
        twin
    }
}

#[cfg(test)]
impl Quicklist {
    /// Checks what holds between changes: the invariants of the tree, and that exactly the inner nodes are compressed
    /// that can be.
    pub(crate) fn check(&self) {
        self.tree.check();
        let (mut number, nodes) = (0, self.nodes());
        self.tree.visit_nodes(&mut |node| {
            let inner = self.depth > 0 && number >= self.depth && number + self.depth < nodes;
            let mut twin = node.clone();
            twin.decompress();
            twin.compress();
            assert_eq!(
                node.is_compressed(),
                inner && twin.is_compressed(),
                "node {number} of {nodes}"
            );
            number += 1;
        });
    }
}
