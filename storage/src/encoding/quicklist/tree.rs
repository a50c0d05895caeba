//! The nodes of a quicklist in order, in a tree that counts.
//!
//! A leaf is a run of nodes, an inner branch a run of branches, at most [`FANOUT`] each; every branch knows the
//! number of nodes and of elements below it. So any node is found by its number or by one of its elements in O(log
//! nodes), and nothing that grows is larger than one run: there is no pause at any size.
//!
//! All leaves are equally deep. A branch that gets too full is split, at its edge if the list grows there, so that lists
//! which only grow are full throughout; one that gets too empty joins a neighbour where the two have room to spare.
//! Nothing points upwards or sideways: changes are made on the way down, and counts brought up to date on the way back.
//!
//! Invariant: the size of a branch is the sum of the sizes of what is below it; only the root of an empty tree has
//! nothing below it.

use std::ops::ControlFlow;

use super::node::Node;
use super::{Direction, End};
use crate::memory::compact_vec::CompactVec;
use crate::value::StringRef;

/// Most nodes of a leaf or branches of an inner branch, between changes. Small in tests, for deep trees.
const FANOUT: usize = if cfg!(test) { 8 } else { 64 };
/// With fewer, a branch looks for a neighbour to join.
const SPARSE: usize = FANOUT / 4;
/// Most parts of two neighbours that join, so that the next few changes do not split them again.
const JOINED_MAX: usize = FANOUT * 3 / 4;

/// The tree.
#[derive(Clone, Default)]
pub(super) struct Tree {
    root: Branch,
}

#[derive(Clone, Default)]
struct Branch {
    size: Size,
    below: Below,
}

#[derive(Clone)]
enum Below {
    Leaf(CompactVec<Node>),
    Inner(CompactVec<Branch>),
}

/// Size of a part of the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Size {
    nodes: usize,
    elements: usize,
}

/// Description of the wanted node.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// The one with this number.
    Node(usize),
    /// The node that has this element.
    Element(usize),
}

/// A node in its leaf, to be changed along with its neighbours.
pub(super) struct Spot<'a> {
    /// The nodes of the leaf. None may be left empty, and at most two may be added.
    pub(super) nodes: &'a mut CompactVec<Node>,
    /// The place of the node among them.
    pub(super) index: usize,
    /// The number of the node in the whole list.
    pub(super) number: usize,
    /// Number of elements of the node before the one looked for.
    pub(super) offset: usize,
}

impl Tree {
    /// Number of elements.
    #[inline]
    pub(super) fn elements(&self) -> usize {
        self.root.size.elements
    }

    /// Number of nodes.
    #[inline]
    pub(super) fn nodes(&self) -> usize {
        self.root.size.nodes
    }

    /// The node, and the number of its elements before the one looked for.
    pub(super) fn find(&self, target: Target) -> Option<(&Node, usize)> {
        let mut branch = &self.root;
        let mut target = target;
        loop {
            match &branch.below {
                Below::Leaf(nodes) => {
                    let (index, before) = route(nodes, branch.size, target);
                    return Some((nodes.get(index)?, target.behind(before).offset()));
                }
                Below::Inner(branches) => {
                    let (index, before) = route(branches, branch.size, target);
                    target = target.behind(before);
                    branch = branches.get(index)?;
                }
            }
        }
    }

    /// The node at one end.
    #[inline]
    pub(super) fn end(&self, end: End) -> Option<&Node> {
        let mut branch = &self.root;
        loop {
            branch = match (&branch.below, end) {
                (Below::Leaf(nodes), End::Front) => return nodes.first(),
                (Below::Leaf(nodes), End::Back) => return nodes.last(),
                (Below::Inner(branches), End::Front) => branches.first()?,
                (Below::Inner(branches), End::Back) => branches.last()?,
            };
        }
    }

    /// The node at one end, for the caller to give it `change` elements more; it is not to be emptied.
    #[inline]
    pub(super) fn change_end(&mut self, end: End, change: isize) -> Option<&mut Node> {
        let mut branch = &mut self.root;
        loop {
            branch.size.elements = branch.size.elements.wrapping_add_signed(change);
            branch = match (&mut branch.below, end) {
                (Below::Leaf(nodes), End::Front) => return nodes.first_mut(),
                (Below::Leaf(nodes), End::Back) => return nodes.last_mut(),
                (Below::Inner(branches), End::Front) => branches.first_mut()?,
                (Below::Inner(branches), End::Back) => branches.last_mut()?,
            };
        }
    }

    /// Changes a node and its neighbours in the leaf, by which the list gains `change` elements. In an empty tree the
    /// spot is the beginning of an empty leaf, else the target must exist.
    #[inline]
    pub(super) fn edit<R>(&mut self, target: Target, change: isize, edit: impl FnOnce(Spot<'_>) -> R) -> R {
        let growth = match target {
            Target::Node(0) => Some(End::Front),
            Target::Node(number) if number + 1 == self.nodes() => Some(End::Back),
            _ => None,
        };
        let result = self.root.edit(target, 0, change, growth, edit);
        self.settle_root(growth);
        result
    }

    /// Removes `count` elements from the one at `start` on; there are so many.
    pub(super) fn remove_range(&mut self, start: usize, count: usize) {
        if count > 0 {
            self.root.remove_range(start, count);
            self.settle_root(None);
        }
    }

    /// Calls `visit` with the elements from the one at `start` on in one direction, until it breaks.
    #[inline]
    pub(super) fn visit<F>(&self, start: usize, direction: Direction, visit: &mut F) -> ControlFlow<()>
    where
        F: FnMut(StringRef<'_>) -> ControlFlow<()>,
    {
        if start < self.elements() {
            self.root.visit(start, direction, visit)?;
        }
        ControlFlow::Continue(())
    }

    /// Calls `change` with the nodes in one direction until it breaks; then removes the empty ones.
    pub(super) fn sweep<F>(&mut self, direction: Direction, change: &mut F)
    where
        F: FnMut(&mut Node) -> ControlFlow<()>,
    {
        let _stopped_early = self.root.sweep(direction, change);
        self.settle_root(None);
    }

    /// Takes the node out of a tree that has only one.
    pub(super) fn take_only(&mut self) -> Option<Node> {
        match &mut self.root.below {
            Below::Leaf(nodes) if nodes.len() == 1 => {
                let node = nodes.remove(0);
                self.root = Branch::default();
                Some(node)
            }
            _ => None,
        }
    }

    /// Makes the root neither too full nor needlessly high.
    #[inline]
    fn settle_root(&mut self, growth: Option<End>) {
        if self.root.width() > FANOUT {
            let sibling = self.root.split(growth);
            let old = std::mem::take(&mut self.root);
            self.root = Branch::inner([old, sibling].into_iter().collect());
        }
        while let Below::Inner(branches) = &mut self.root.below
            && branches.len() <= 1
        {
            self.root = if branches.is_empty() {
                Branch::default()
            } else {
                branches.remove(0)
            };
        }
    }
}

impl Target {
    /// Whether the target is within `size` from the beginning.
    #[inline]
    fn is_within(self, size: Size) -> bool {
        match self {
            Self::Node(number) => number < size.nodes,
            Self::Element(index) => index < size.elements,
        }
    }

    /// Whether the beginning is nearer than the end, of a `total` size.
    #[inline]
    fn is_early(self, total: Size) -> bool {
        match self {
            Self::Node(number) => number < total.nodes / 2,
            Self::Element(index) => index < total.elements / 2,
        }
    }

    /// The target relative to the end of a part of size `before`.
    #[inline]
    fn behind(self, before: Size) -> Self {
        match self {
            Self::Node(number) => Self::Node(number - before.nodes),
            Self::Element(index) => Self::Element(index - before.elements),
        }
    }

    /// Number of elements of its node before the one looked for, when nothing precedes the node.
    #[inline]
    fn offset(self) -> usize {
        match self {
            Self::Node(_) => 0,
            Self::Element(index) => index,
        }
    }
}

impl Size {
    #[inline]
    fn plus(self, other: Self) -> Self {
        Self {
            nodes: self.nodes + other.nodes,
            elements: self.elements + other.elements,
        }
    }

    #[inline]
    fn minus(self, other: Self) -> Self {
        Self {
            nodes: self.nodes - other.nodes,
            elements: self.elements - other.elements,
        }
    }
}

/// Part of a run: a node or a branch.
trait Part {
    fn size(&self) -> Size;

    /// Removes some of the elements, not all.
    fn remove_range(&mut self, start: usize, count: usize);

    fn visit<F>(&self, start: usize, direction: Direction, visit: &mut F) -> ControlFlow<()>
    where
        F: FnMut(StringRef<'_>) -> ControlFlow<()>;

    /// May leave the part empty.
    fn sweep<F>(&mut self, direction: Direction, change: &mut F) -> ControlFlow<()>
    where
        F: FnMut(&mut Node) -> ControlFlow<()>;
}

impl Part for Node {
    #[inline]
    fn size(&self) -> Size {
        Size {
            nodes: 1,
            elements: self.count(),
        }
    }

    fn remove_range(&mut self, start: usize, count: usize) {
        let compressed = self.is_compressed();
        self.remove(start, count);
        if compressed {
            self.compress();
        }
    }

    #[inline]
    fn visit<F>(&self, start: usize, direction: Direction, visit: &mut F) -> ControlFlow<()>
    where
        F: FnMut(StringRef<'_>) -> ControlFlow<()>,
    {
        Self::visit(self, start, direction, visit)
    }

    #[inline]
    fn sweep<F>(&mut self, _direction: Direction, change: &mut F) -> ControlFlow<()>
    where
        F: FnMut(&mut Node) -> ControlFlow<()>,
    {
        change(self)
    }
}

impl Part for Branch {
    #[inline]
    fn size(&self) -> Size {
        self.size
    }

    fn remove_range(&mut self, start: usize, count: usize) {
        self.size = match &mut self.below {
            Below::Leaf(nodes) => {
                remove_range(nodes, start, count);
                total(nodes)
            }
            Below::Inner(branches) => {
                remove_range(branches, start, count);
                join_sparse(branches);
                total(branches)
            }
        };
    }

    fn visit<F>(&self, start: usize, direction: Direction, visit: &mut F) -> ControlFlow<()>
    where
        F: FnMut(StringRef<'_>) -> ControlFlow<()>,
    {
        match &self.below {
            Below::Leaf(nodes) => visit_run(nodes, self.size, start, direction, visit),
            Below::Inner(branches) => visit_run(branches, self.size, start, direction, visit),
        }
    }

    fn sweep<F>(&mut self, direction: Direction, change: &mut F) -> ControlFlow<()>
    where
        F: FnMut(&mut Node) -> ControlFlow<()>,
    {
        let flow;
        self.size = match &mut self.below {
            Below::Leaf(nodes) => {
                flow = sweep_run(nodes, direction, change);
                total(nodes)
            }
            Below::Inner(branches) => {
                flow = sweep_run(branches, direction, change);
                join_sparse(branches);
                total(branches)
            }
        };
        flow
    }
}

impl Branch {
    fn leaf(nodes: CompactVec<Node>) -> Self {
        Self {
            size: total(&nodes),
            below: Below::Leaf(nodes),
        }
    }

    fn inner(branches: CompactVec<Self>) -> Self {
        Self {
            size: total(&branches),
            below: Below::Inner(branches),
        }
    }

    /// Number of its parts.
    #[inline]
    fn width(&self) -> usize {
        match &self.below {
            Below::Leaf(nodes) => nodes.len(),
            Below::Inner(branches) => branches.len(),
        }
    }

    /// See [`Tree::edit`]. `number` nodes of the list come before this branch.
    fn edit<R>(
        &mut self,
        target: Target,
        number: usize,
        change: isize,
        growth: Option<End>,
        edit: impl FnOnce(Spot<'_>) -> R,
    ) -> R {
        let result = match &mut self.below {
            Below::Leaf(nodes) => {
                let (index, before) = route(nodes, self.size, target);
                let result = edit(Spot {
                    nodes,
                    index,
                    number: number + index,
                    offset: target.behind(before).offset(),
                });
                self.size.nodes = nodes.len();
                result
            }
            Below::Inner(branches) => {
                let (index, before) = route(branches, self.size, target);
                let branch = &mut branches[index];
                let others = self.size.nodes - branch.size.nodes;
                let result = branch.edit(target.behind(before), number + before.nodes, change, growth, edit);
                self.size.nodes = others + branch.size.nodes;
                settle(branches, index, growth);
                result
            }
        };
        self.size.elements = self.size.elements.wrapping_add_signed(change);
        result
    }

    /// Cuts off the later half, or, where the list grows at an end, leaves all there can be on the other side.
    fn split(&mut self, growth: Option<End>) -> Self {
        let width = self.width();
        let at = match growth {
            Some(End::Front) => width - FANOUT,
            Some(End::Back) => FANOUT,
            None => width / 2,
        };
        let sibling = match &mut self.below {
            Below::Leaf(nodes) => Self::leaf(nodes.split_off(at)),
            Below::Inner(branches) => Self::inner(branches.split_off(at)),
        };
        self.size = self.size.minus(sibling.size);
        sibling
    }

    /// Takes in what is below the neighbour behind.
    fn join(&mut self, other: Self) {
        self.size = self.size.plus(other.size);
        match (&mut self.below, other.below) {
            (Below::Leaf(own), Below::Leaf(others)) => own.append(others),
            (Below::Inner(own), Below::Inner(others)) => own.append(others),
            _ => unreachable!("neighbours are equally high"),
        }
    }
}

impl Default for Below {
    fn default() -> Self {
        Self::Leaf(CompactVec::new())
    }
}

/// The size of a run.
fn total<P: Part>(parts: &[P]) -> Size {
    parts
        .iter()
        .fold(Size::default(), |sum, part| sum.plus(part.size()))
}

/// Index of the part that contains the target, and the size of the parts before it; the parts have a `total` size.
/// Walks from the nearer end.
#[inline]
fn route<P: Part>(parts: &[P], total: Size, target: Target) -> (usize, Size) {
    if target.is_early(total) {
        let mut before = Size::default();
        for (index, part) in parts.iter().enumerate() {
            let behind = before.plus(part.size());
            if target.is_within(behind) {
                return (index, before);
            }
            before = behind;
        }
    } else {
        let mut before = total;
        for (index, part) in parts.iter().enumerate().rev() {
            before = before.minus(part.size());
            if !target.is_within(before) {
                return (index, before);
            }
        }
    }
    (0, Size::default())
}

/// Removes `count` elements from `start` on: those parts as a whole of which nothing is left.
fn remove_range<P: Part>(parts: &mut CompactVec<P>, start: usize, count: usize) {
    let (mut index, mut start, mut left) = (0, start, count);
    while index < parts.len() && start >= parts[index].size().elements {
        start -= parts[index].size().elements;
        index += 1;
    }
    if start > 0 {
        let cut = left.min(parts[index].size().elements - start);
        parts[index].remove_range(start, cut);
        left -= cut;
        index += 1;
    }
    let mut end = index;
    while end < parts.len() && parts[end].size().elements <= left {
        left -= parts[end].size().elements;
        end += 1;
    }
    parts.remove_range(index..end);
    if left > 0 {
        parts[index].remove_range(0, left);
    }
}

/// Shows the elements of a run, of a `total` size, from the one at `start` on, which exists.
#[inline]
fn visit_run<P, F>(
    parts: &[P],
    total: Size,
    start: usize,
    direction: Direction,
    visit: &mut F,
) -> ControlFlow<()>
where
    P: Part,
    F: FnMut(StringRef<'_>) -> ControlFlow<()>,
{
    let (index, before) = route(parts, total, Target::Element(start));
    parts[index].visit(start - before.elements, direction, visit)?;
    match direction {
        Direction::Forward => parts[index + 1..]
            .iter()
            .try_for_each(|part| part.visit(0, direction, visit)),
        Direction::Backward => parts[..index]
            .iter()
            .rev()
            .try_for_each(|part| part.visit(part.size().elements - 1, direction, visit)),
    }
}

/// Sweeps over a run, see [`Tree::sweep`], and removes the parts that are empty then.
fn sweep_run<P, F>(parts: &mut CompactVec<P>, direction: Direction, change: &mut F) -> ControlFlow<()>
where
    P: Part,
    F: FnMut(&mut Node) -> ControlFlow<()>,
{
    let flow = match direction {
        Direction::Forward => parts
            .iter_mut()
            .try_for_each(|part| part.sweep(direction, change)),
        Direction::Backward => parts
            .iter_mut()
            .rev()
            .try_for_each(|part| part.sweep(direction, change)),
    };
    for index in (0..parts.len()).rev() {
        if parts[index].size().elements == 0 {
            parts.remove(index);
        }
    }
    flow
}

/// Splits the branch at `index` when it is too full, and joins or removes it when it is too empty.
#[inline]
fn settle(branches: &mut CompactVec<Branch>, index: usize, growth: Option<End>) {
    let width = branches[index].width();
    if width > FANOUT {
        let sibling = branches[index].split(growth);
        branches.insert(index + 1, sibling);
    } else if width == 0 {
        branches.remove(index);
    } else if width < SPARSE && !join(branches, index) && index > 0 {
        join(branches, index - 1);
    }
}

/// Joins a branch with the next one, if there is one and the two have room to spare.
fn join(branches: &mut CompactVec<Branch>, index: usize) -> bool {
    let fits = branches
        .get(index + 1)
        .is_some_and(|next| branches[index].width() + next.width() <= JOINED_MAX);
    if fits {
        let next = branches.remove(index + 1);
        branches[index].join(next);
    }
    fits
}

/// Joins neighbours of which one is too empty, after many changes at once.
fn join_sparse(branches: &mut CompactVec<Branch>) {
    for index in (1..branches.len()).rev() {
        if branches[index - 1].width() < SPARSE || branches[index].width() < SPARSE {
            join(branches, index - 1);
        }
    }
}

impl Tree {
    /// Shows the nodes in order.
    pub(super) fn visit_nodes(&self, visit: &mut impl FnMut(&Node)) {
        self.root.visit_nodes(visit);
    }
}

impl Branch {
    fn visit_nodes(&self, visit: &mut impl FnMut(&Node)) {
        match &self.below {
            Below::Leaf(nodes) => nodes.iter().for_each(visit),
            Below::Inner(branches) => branches.iter().for_each(|branch| branch.visit_nodes(visit)),
        }
    }
}

#[cfg(test)]
impl Tree {
    /// Checks the invariants: sizes, equal depths, nothing too full, and nothing empty but the root.
    pub(super) fn check(&self) {
        if self.nodes() > 0 {
            self.root.check();
        } else {
            assert_eq!((self.elements(), self.root.width()), (0, 0));
        }
        assert!(matches!(self.root.below, Below::Leaf(_)) || self.root.width() > 1);
    }
}

#[cfg(test)]
impl Branch {
    /// Returns the depth below.
    fn check(&self) -> usize {
        assert!((1..=FANOUT).contains(&self.width()));
        match &self.below {
            Below::Leaf(nodes) => {
                assert_eq!(self.size, total(nodes));
                assert!(nodes.iter().all(|node| node.count() > 0));
                0
            }
            Below::Inner(branches) => {
                assert_eq!(self.size, total(branches));
                let depths: Vec<_> = branches.iter().map(Self::check).collect();
                assert!(depths.iter().all(|depth| *depth == depths[0]));
                depths[0] + 1
            }
        }
    }
}
