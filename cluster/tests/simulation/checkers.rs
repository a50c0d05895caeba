//! Rules that hold at every step, whatever the network does.
//!
//! A checker notes what went wrong instead of panicking, so that a test of a broken rule can ask for it.

use std::collections::{BTreeMap, BTreeSet};

use shardis_cluster::Machine;
use shardis_cluster::SlotSet;
use shardis_cluster::event::{Action, Level};
use shardis_cluster::node::NodeId;
use shardis_cluster::wire::{Body, Packet};

/// Claims, votes and what was wrong with them.
#[derive(Default)]
pub(crate) struct Checkers {
    /// Violations, with their times.
    pub(crate) violations: Vec<String>,
    /// Number of primaries with slots of the cluster under test: a majority of them elects.
    pub(crate) voters: usize,
    /// Nodes that were promoted, with the epochs of their claims.
    pub(crate) promotions: Vec<(u64, NodeId, u64)>,
    /// Nodes that were declared failed, and by whom.
    pub(crate) failures: Vec<(u64, NodeId, NodeId)>,
    /// Whether nodes are promoted without votes, by order.
    pub(crate) has_takeovers: bool,
    /// Whether epochs are taken without votes, as the move of a slot does: then two nodes may take the same one at once,
    /// and have to notice.
    pub(crate) has_bumps: bool,
    /// Whether log lines are printed: for a person who replays a seed.
    pub(crate) is_loud: bool,
    /// Slots that each node has claimed in an epoch, ever.
    claims: BTreeMap<u64, BTreeMap<NodeId, SlotSet>>,
    /// Voters by epoch and candidate.
    votes: BTreeMap<u64, BTreeMap<NodeId, NodeId>>,
    requests: BTreeSet<(u64, NodeId)>,
    versions: BTreeMap<usize, (NodeId, u64, u64)>,
}

impl Checkers {
    /// Looks at an action before it is carried out.
    pub(crate) fn see(&mut self, now_ms: u64, machine: &Machine, action: &Action) {
        let me = machine.view().me().id;
        match action {
            Action::Send { link, packet } if packet.body == Body::AuthAck => {
                let mut nodes = machine.view().nodes();
                let to = nodes.find(|(_, node)| node.link() == Some(*link));
                self.see_vote(
                    now_ms,
                    me,
                    packet.header.current_epoch,
                    to.map(|(_, node)| node.id),
                );
            }
            Action::Broadcast { packet, .. } => self.see_packet(now_ms, me, packet),
            Action::Promote => self.see_promotion(now_ms, machine),
            Action::Log(level, text) if self.is_loud && *level != Level::Debug => {
                println!("{now_ms:>8} {:.6} {text}", me.to_string());
            }
            _ => {}
        }
    }

    fn see_vote(&mut self, now_ms: u64, me: NodeId, epoch: u64, candidate: Option<NodeId>) {
        let candidate = candidate.expect("a vote goes to a known node");
        let before = self.votes.entry(epoch).or_default().insert(me, candidate);
        if let Some(before) = before {
            let text = format!("{me} votes twice in epoch {epoch}: for {before} and {candidate}");
            self.violate(now_ms, text);
        }
    }

    fn see_packet(&mut self, now_ms: u64, me: NodeId, packet: &Packet) {
        let epoch = packet.header.current_epoch;
        match packet.body {
            Body::AuthRequest if !self.requests.insert((epoch, me)) => {
                self.violate(now_ms, format!("{me} asks twice in epoch {epoch}"));
            }
            Body::Fail(id) => self.failures.push((now_ms, id, me)),
            _ => {}
        }
    }

    /// Checks that the promise of a packet is in the sender's file when the packet leaves.
    pub(crate) fn check_file(&mut self, now_ms: u64, packet: &Packet, synced: &str) {
        let variable = match packet.body {
            Body::AuthAck => "lastVoteEpoch",
            Body::AuthRequest => "currentEpoch",
            _ => return,
        };
        let mut words = synced.lines().last().unwrap_or_default().split(' ');
        let value = words.find(|word| *word == variable).and_then(|_| words.next());
        let on_disk = value.and_then(|value| value.parse::<u64>().ok());
        if on_disk.is_none_or(|on_disk| on_disk < packet.header.current_epoch) {
            let text = format!(
                "{} promises epoch {} with {variable} {on_disk:?} on its disk",
                packet.header.sender, packet.header.current_epoch
            );
            self.violate(now_ms, text);
        }
    }

    /// An election needs the votes of a majority, whatever the candidate believes a majority to be.
    fn see_promotion(&mut self, now_ms: u64, machine: &Machine) {
        let me = machine.view().me();
        let epoch = me.config_epoch;
        self.promotions.push((now_ms, me.id, epoch));
        let votes = self.votes.get(&epoch).map_or(0, |votes| {
            votes.values().filter(|candidate| **candidate == me.id).count()
        });
        let needed = self.voters / 2 + 1;
        if votes < needed && !self.has_takeovers {
            let text = format!(
                "{} is promoted in epoch {epoch} by {votes} votes of {needed}",
                me.id
            );
            self.violate(now_ms, text);
        }
    }

    /// Looks at a node after an event: a slot has one owner in one epoch, for ever.
    pub(crate) fn look(&mut self, now_ms: u64, index: usize, machine: &Machine) {
        let view = machine.view();
        let me = view.me();
        let state = (me.id, view.version(), me.config_epoch);
        if !me.is_voter() || self.versions.insert(index, state) == Some(state) {
            return;
        }
        let majority = view.voters().count() / 2 + 1;
        if view.majority() != majority {
            let text = format!(
                "{} takes {} for a majority, not {majority}",
                me.id,
                view.majority()
            );
            self.violate(now_ms, text);
        }
        let slots = view.slots_of(view.my_key());
        let in_epoch = self.claims.entry(me.config_epoch).or_default();
        let other = in_epoch
            .iter()
            .filter(|(id, _)| **id != me.id)
            .find_map(|(id, theirs)| {
                theirs
                    .iter()
                    .find(|slot| slots.contains(*slot))
                    .map(|slot| (*id, slot))
            });
        in_epoch.entry(me.id).or_default().extend(slots.iter());
        if let Some((id, slot)) = other.filter(|_| !self.has_bumps) {
            let text = format!("{} and {id} own slot {slot} in epoch {}", me.id, me.config_epoch);
            self.violate(now_ms, text);
        }
    }

    pub(crate) fn violate(&mut self, now_ms: u64, text: String) {
        self.violations.push(format!("{now_ms} ms: {text}"));
    }
}
