//! The cluster as one node believes it to be: the nodes, the owners of slots, the epochs.
//!
//! The owner of a slot changes in [`View::set_owner`] and nowhere else; it keeps the counts of slots and the version.
//! A key of a node is only used while the node is known: [`View::remove`] erases all traces of it.
//!
//! `view/reports.rs` holds what clients are told of a view.

mod reports;

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher};
use std::ops::{Index, IndexMut, RangeInclusive};
use std::sync::Arc;

pub(crate) use reports::unix_ms;
pub use reports::{ClientView, HealthWord, Info, LinkLine, Shard, ShardNode, SlotRange};

use crate::node::{Flags, Node, NodeId, NodeKey, ShardId};
use crate::slot::{SLOTS, Slot, SlotSet};

/// Most nodes that a view takes in, those in handshake included. A key must fit into 16 bits, and one value stands for
/// no node.
pub const NODES_MAX: usize = 16_384;

/// Entry of the table of owners for a slot without one.
const NOBODY: u16 = u16::MAX;

const _: () = assert!(NODES_MAX < NOBODY as usize);

/// A hash with a seed, so that peers cannot choose names that collide; the order of nodes never depends on it.
#[derive(Clone, Copy, Debug)]
struct Seeded(u64);

impl BuildHasher for Seeded {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

/// The slots that a node claims in its packets, kept while the view does not change.
#[derive(Debug)]
struct Claims {
    of: NodeKey,
    version: u64,
    slots: Arc<SlotSet>,
}

/// One node's belief about the cluster.
#[derive(Debug)]
pub struct View {
    /// Nodes by key; those that were removed leave holes.
    nodes: Vec<Option<Box<Node>>>,
    /// Keys of the holes.
    holes: Vec<NodeKey>,
    /// Keys of all nodes, in no order that means anything.
    live: Vec<NodeKey>,
    by_id: HashMap<NodeId, NodeKey, Seeded>,
    /// Key of the owner of each slot, or [`NOBODY`].
    owners: Box<[u16; SLOTS]>,
    /// Slots that their owner no longer claims: any other primary may take them.
    unclaimed: SlotSet,
    migrating: BTreeMap<Slot, NodeKey>,
    importing: BTreeMap<Slot, NodeKey>,
    me: NodeKey,
    /// Number of the primaries with slots: reports and votes are held against it for each entry of each ping.
    voter_count: usize,
    claims: Claims,
    version: u64,
    /// The greatest epoch that this node has heard of.
    pub current_epoch: u64,
    /// Epoch of this node's last vote.
    pub last_vote_epoch: u64,
    /// Whether the cluster works, as far as this node can see.
    pub is_ok: bool,
}

impl Index<NodeKey> for View {
    type Output = Node;

    fn index(&self, key: NodeKey) -> &Node {
        self.nodes[usize::from(key.0)]
            .as_deref()
            .expect("keys are of known nodes")
    }
}

impl IndexMut<NodeKey> for View {
    fn index_mut(&mut self, key: NodeKey) -> &mut Node {
        self.nodes[usize::from(key.0)]
            .as_deref_mut()
            .expect("keys are of known nodes")
    }
}

impl View {
    /// The view of a node that knows only itself.
    #[must_use]
    pub fn new(mut me: Node, hash_seed: u64) -> Self {
        me.flags.insert(Flags::MYSELF);
        let key = NodeKey(0);
        let mut by_id = HashMap::with_hasher(Seeded(hash_seed));
        by_id.insert(me.id, key);
        View {
            nodes: vec![Some(Box::new(me))],
            holes: Vec::new(),
            live: vec![key],
            by_id,
            owners: Box::new([NOBODY; SLOTS]),
            unclaimed: SlotSet::new(),
            migrating: BTreeMap::new(),
            importing: BTreeMap::new(),
            me: key,
            voter_count: 0,
            claims: Claims {
                of: key,
                version: 0,
                slots: Arc::default(),
            },
            version: 0,
            current_epoch: 0,
            last_vote_epoch: 0,
            is_ok: false,
        }
    }

    /// Number of changes so far to the owners of slots, the open slots, and the roles and addresses of nodes.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Notes that what clients are told of slots has changed.
    pub(crate) fn touch(&mut self) {
        self.version += 1;
    }

    /// This node's key.
    #[must_use]
    pub fn my_key(&self) -> NodeKey {
        self.me
    }

    /// This node.
    #[must_use]
    pub fn me(&self) -> &Node {
        &self[self.me]
    }

    pub(crate) fn me_mut(&mut self) -> &mut Node {
        let me = self.me;
        &mut self[me]
    }

    /// Number of nodes, this one and those in handshake included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether there are no nodes; there is always this one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Keys of all nodes.
    #[must_use]
    pub fn keys(&self) -> &[NodeKey] {
        &self.live
    }

    /// All nodes with their keys.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeKey, &Node)> {
        self.live.iter().map(|&key| (key, &self[key]))
    }

    /// The node of this name.
    #[must_use]
    pub fn find(&self, id: &NodeId) -> Option<NodeKey> {
        self.by_id.get(id).copied()
    }

    /// The node of this name, unless it is in handshake: then its name is only ours.
    #[must_use]
    pub fn find_known(&self, id: &NodeId) -> Option<NodeKey> {
        self.find(id).filter(|&key| !self[key].is_in_handshake())
    }

    /// Takes a node in; `None` if there are too many or it is known.
    pub(crate) fn insert(&mut self, node: Node) -> Option<NodeKey> {
        if self.live.len() == NODES_MAX || self.by_id.contains_key(&node.id) {
            return None;
        }
        let key = self.holes.pop().unwrap_or(NodeKey(self.nodes.len() as u16));
        self.by_id.insert(node.id, key);
        self.live.push(key);
        if usize::from(key.0) == self.nodes.len() {
            self.nodes.push(None);
        }
        self.nodes[usize::from(key.0)] = Some(Box::new(node));
        self.version += 1;
        Some(key)
    }

    /// Forgets a node and everything that refers to it.
    pub(crate) fn remove(&mut self, key: NodeKey) {
        assert_ne!(key, self.me, "a node always knows itself");
        self.disown_all(key);
        self.migrating.retain(|_, to| *to != key);
        self.importing.retain(|_, from| *from != key);
        self.set_primary(key, None);
        let live = std::mem::take(&mut self.live);
        for &other in &live {
            let node = &mut self[other];
            node.reports.remove(&key);
            if node.primary == Some(key) {
                node.primary = None;
            }
        }
        self.live = live;
        self.live.retain(|&other| other != key);
        let id = self[key].id;
        self.by_id.remove(&id);
        self.nodes[usize::from(key.0)] = None;
        self.holes.push(key);
        self.version += 1;
    }

    /// Gives a node its true name; `false` if another node has it.
    pub(crate) fn rename(&mut self, key: NodeKey, id: NodeId) -> bool {
        if self.by_id.contains_key(&id) {
            return false;
        }
        let old = std::mem::replace(&mut self[key].id, id);
        self.by_id.remove(&old);
        self.by_id.insert(id, key);
        self.version += 1;
        true
    }

    /// The owner of a slot.
    #[inline]
    #[must_use]
    pub fn owner(&self, slot: Slot) -> Option<NodeKey> {
        let owner = self.owners[slot.index()];
        (owner != NOBODY).then_some(NodeKey(owner))
    }

    /// Makes `owner` the owner of `slot`: the one function through which ownership changes. Returns the one before.
    pub(crate) fn set_owner(&mut self, slot: Slot, owner: Option<NodeKey>) -> Option<NodeKey> {
        let before = self.owner(slot);
        self.unclaimed.remove(slot);
        if before == owner {
            return before;
        }
        if let Some(before) = before {
            self.alter(before, |node| node.slots -= 1);
        }
        if let Some(owner) = owner {
            self.alter(owner, |node| node.slots += 1);
        }
        self.owners[slot.index()] = owner.map_or(NOBODY, |key| key.0);
        if before == Some(self.me) {
            self.migrating.remove(&slot);
        }
        self.version += 1;
        before
    }

    /// Changes the slots or the role of a node, which may make it a voter or end that.
    fn alter(&mut self, key: NodeKey, change: impl FnOnce(&mut Node)) {
        let node = &mut self[key];
        let was_voter = node.is_voter();
        change(node);
        let is_voter = node.is_voter();
        self.voter_count += usize::from(is_voter);
        self.voter_count -= usize::from(was_voter);
    }

    /// Takes all slots from a node.
    pub(crate) fn disown_all(&mut self, key: NodeKey) {
        for slot in self.slots_of(key).iter() {
            self.set_owner(slot, None);
        }
    }

    /// The slots of a node. O(number of slots).
    #[must_use]
    pub fn slots_of(&self, key: NodeKey) -> SlotSet {
        let mut set = SlotSet::new();
        if self[key].slots > 0 {
            set.extend(Slot::all().filter(|slot| self.owners[slot.index()] == key.0));
        }
        set
    }

    /// The longest ranges of slots of every node, by the index of its key. O(slots + nodes).
    pub(crate) fn ranges_by_node(&self) -> Vec<Vec<RangeInclusive<Slot>>> {
        let mut ranges = vec![Vec::new(); self.nodes.len()];
        let mut next = 0;
        for run in self.owners.chunk_by(|one, other| one == other) {
            let start = next;
            next += run.len();
            if run[0] != NOBODY {
                ranges[usize::from(run[0])].push(Slot::at(start)..=Slot::at(next - 1));
            }
        }
        ranges
    }

    /// Whether a node owns exactly these slots, and none of them counts as given up. O(number of slots in the set).
    #[must_use]
    pub fn owns_exactly(&self, key: NodeKey, slots: &SlotSet) -> bool {
        let mut count = 0;
        let all_are_its = slots.ranges().all(|range| {
            let owners = &self.owners[range.start().index()..=range.end().index()];
            count += owners.len();
            owners.iter().all(|&owner| owner == key.0)
        });
        let is_exact = all_are_its && count == usize::from(self[key].slots);
        is_exact && (self.unclaimed.is_empty() || !slots.iter().any(|slot| self.unclaimed.contains(slot)))
    }

    /// Whether a slot has no owner, or one that no longer claims it.
    #[must_use]
    pub fn is_unclaimed(&self, slot: Slot) -> bool {
        self.owner(slot).is_none() || self.unclaimed.contains(slot)
    }

    /// Notes that the owner of a slot does not claim it, or claims it again.
    pub(crate) fn set_unclaimed(&mut self, slot: Slot, is_unclaimed: bool) {
        if is_unclaimed {
            self.unclaimed.insert(slot);
        } else {
            self.unclaimed.remove(slot);
        }
    }

    /// The node whose slots and epoch this one tells in its packets: itself or its primary.
    #[must_use]
    pub fn claimant(&self) -> NodeKey {
        self.me()
            .primary
            .filter(|_| self.me().is_replica())
            .unwrap_or(self.me)
    }

    /// The slots that this node tells in its packets. O(1) unless the view has changed.
    pub(crate) fn claims(&mut self) -> Arc<SlotSet> {
        let of = self.claimant();
        if self.claims.version != self.version || self.claims.of != of {
            self.claims = Claims {
                of,
                version: self.version,
                slots: Arc::new(self.slots_of(of)),
            };
        }
        Arc::clone(&self.claims.slots)
    }

    /// Slots that leave this node, and where they go.
    #[must_use]
    pub fn migrating(&self) -> &BTreeMap<Slot, NodeKey> {
        &self.migrating
    }

    /// Slots that come to this node, and where from.
    #[must_use]
    pub fn importing(&self) -> &BTreeMap<Slot, NodeKey> {
        &self.importing
    }

    pub(crate) fn set_migrating(&mut self, slot: Slot, to: Option<NodeKey>) {
        Self::set_open(&mut self.migrating, slot, to);
        self.version += 1;
    }

    pub(crate) fn set_importing(&mut self, slot: Slot, from: Option<NodeKey>) {
        Self::set_open(&mut self.importing, slot, from);
        self.version += 1;
    }

    fn set_open(open: &mut BTreeMap<Slot, NodeKey>, slot: Slot, other: Option<NodeKey>) {
        match other {
            Some(other) => open.insert(slot, other),
            None => open.remove(&slot),
        };
    }

    /// No slot is on the move any more.
    pub(crate) fn close_slots(&mut self) {
        self.migrating.clear();
        self.importing.clear();
        self.version += 1;
    }

    /// Makes a node a replica of `primary`, or detaches a replica from its primary.
    pub(crate) fn set_primary(&mut self, key: NodeKey, primary: Option<NodeKey>) {
        let before = std::mem::replace(&mut self[key].primary, primary);
        if before == primary {
            return;
        }
        if let Some(before) = before
            && self.replicas(before).next().is_none()
        {
            self[before].flags.remove(Flags::MIGRATE_TO);
        }
        if let Some(primary) = primary {
            self[primary].flags.insert(Flags::MIGRATE_TO);
        }
        self.version += 1;
    }

    /// Makes a node a primary; `false` if it was one.
    pub(crate) fn make_primary(&mut self, key: NodeKey) -> bool {
        if self[key].is_primary() {
            return false;
        }
        let was_replica_of_one = self[key].primary.is_some();
        // An old file may have it in another shard than its primary: it takes the place of that one, in its shard.
        let shard = self[key].primary.and_then(|primary| self[primary].shard);
        self[key].shard = shard.or(self[key].shard);
        self.set_primary(key, None);
        let had_primary = was_replica_of_one && key != self.me;
        self.alter(key, |node| {
            node.flags.remove(Flags::REPLICA);
            node.flags.insert(Flags::PRIMARY);
            node.flags.set(Flags::MIGRATE_TO, had_primary);
        });
        self.version += 1;
        true
    }

    /// Makes a node a replica, of `primary` if that is known. Its slots are nobody's then.
    pub(crate) fn make_replica(&mut self, key: NodeKey, primary: Option<NodeKey>) {
        if !self[key].is_replica() {
            self.disown_all(key);
            self.alter(key, |node| {
                node.flags.remove(Flags::PRIMARY | Flags::MIGRATE_TO);
                node.flags.insert(Flags::REPLICA);
            });
            self.version += 1;
        }
        self.set_primary(key, primary);
    }

    /// The replicas of a node. O(number of nodes).
    pub fn replicas(&self, primary: NodeKey) -> impl Iterator<Item = (NodeKey, &Node)> {
        self.nodes()
            .filter(move |(_, node)| node.primary == Some(primary) && node.is_replica())
    }

    /// The primaries with slots: they elect, and a majority of them makes the cluster. O(number of nodes).
    pub fn voters(&self) -> impl Iterator<Item = (NodeKey, &Node)> {
        self.nodes().filter(|(_, node)| node.is_voter())
    }

    /// Number of voters that are a majority. O(1).
    #[must_use]
    pub fn majority(&self) -> usize {
        self.voter_count / 2 + 1
    }

    /// Number of slots whose owner has not failed. O(number of nodes).
    #[must_use]
    pub fn served_slots(&self) -> usize {
        let working = self.nodes().filter(|(_, node)| !node.is_failed());
        working.map(|(_, node)| usize::from(node.slots)).sum()
    }

    /// The epoch of a node's claim: for a replica its primary's.
    #[must_use]
    pub fn config_epoch(&self, key: NodeKey) -> u64 {
        let node = &self[key];
        node.primary
            .map_or(node.config_epoch, |primary| self[primary].config_epoch)
    }

    /// The greatest epoch that any node has.
    #[must_use]
    pub fn max_epoch(&self) -> u64 {
        let epochs = self.nodes().map(|(_, node)| node.config_epoch);
        epochs.fold(self.current_epoch, u64::max)
    }

    /// The shard of a node: a replica's is its primary's. A node that tells none (Redis 7.0) has its own name for one.
    #[must_use]
    pub fn shard_of(&self, key: NodeKey) -> ShardId {
        let head = self[key].primary.unwrap_or(key);
        let node = &self[head];
        node.shard.unwrap_or(node.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Address;

    fn view() -> View {
        let node = |byte| Node::new(NodeId::new([byte; 20]), Flags::PRIMARY, Address::default(), 1);
        let mut view = View::new(node(1), 7);
        for byte in 2..5 {
            view.insert(node(byte)).unwrap();
        }
        view
    }

    fn slot(number: u16) -> Slot {
        Slot::new(number).unwrap()
    }

    #[test]
    fn counts_follow_owners() {
        let mut view = view();
        let [a, b, c, _] = *view.keys() else {
            panic!("four nodes")
        };
        for number in 0..100 {
            view.set_owner(slot(number), Some(if number < 60 { a } else { b }));
        }
        assert_eq!((view[a].slots, view[b].slots, view[c].slots), (60, 40, 0));
        assert_eq!((view.voters().count(), view.majority()), (2, 2));
        assert!(view.owns_exactly(b, &view.slots_of(b)) && !view.owns_exactly(a, &view.slots_of(b)));
        let version = view.version();
        view.set_owner(slot(0), Some(a));
        assert_eq!(view.version(), version, "nothing changed");
        view.make_replica(b, Some(a));
        assert_eq!((view[b].slots, view.owner(slot(70))), (0, None));
        assert_eq!(
            (view.voters().count(), view.majority()),
            (1, 1),
            "a replica does not vote"
        );
        assert_eq!(view.served_slots(), 60);
        view[a].flags.insert(Flags::FAIL);
        assert_eq!(view.served_slots(), 0, "those of a failed node are not served");
        assert!(view[a].flags.contains(Flags::MIGRATE_TO));
        assert_eq!(view.replicas(a).count(), 1);
    }

    #[test]
    fn nothing_refers_to_a_removed_node() {
        let mut view = view();
        let [a, b, c, d] = *view.keys() else {
            panic!("four nodes")
        };
        view.set_owner(slot(5), Some(b));
        view.set_importing(slot(5), Some(b));
        view.set_owner(slot(6), Some(a));
        view.set_migrating(slot(6), Some(b));
        view.make_replica(c, Some(b));
        view[d].reports.insert(b, 3);
        let id = view[b].id;
        view.remove(b);
        assert_eq!(
            (view.owner(slot(5)), view[c].primary, view.find(&id)),
            (None, None, None)
        );
        assert!(view.importing().is_empty() && view.migrating().is_empty() && view[d].reports.is_empty());
        let again = view
            .insert(Node::new(
                NodeId::new([9; 20]),
                Flags::PRIMARY,
                Address::default(),
                1,
            ))
            .unwrap();
        assert_eq!((again, view[again].slots), (b, 0), "a key is used again, clean");
    }

    #[test]
    fn a_slot_that_was_lost_no_longer_migrates() {
        let mut view = view();
        let [a, b, ..] = *view.keys() else {
            panic!("four nodes")
        };
        view.set_owner(slot(6), Some(a));
        view.set_migrating(slot(6), Some(b));
        view.set_owner(slot(6), Some(b));
        assert!(view.migrating().is_empty());
    }
}
