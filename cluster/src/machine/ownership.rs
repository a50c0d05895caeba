//! Claims to slots, the epochs that decide between them, and the collision of two equal ones.
//!
//! A primary claims its slots in each packet, with the epoch of its claim; the greater epoch wins. A claim that is
//! beaten is answered with an update about the node that beats it, so that a node that was away learns what it lost.

use super::Machine;
use crate::event::{Action, Actions, BrokenRule};
use crate::node::{NodeId, NodeKey};
use crate::slot::SlotSet;
use crate::wire::{Body, Header};

impl Machine {
    /// Takes the role and the slots that a node tells of itself in a ping.
    pub(super) fn receive_claims(&mut self, sender: NodeKey, header: &Header, actions: &mut Actions) {
        let node = &mut self.view[sender];
        if header.current_epoch < node.told_epoch {
            // A packet on the node's other connection has overtaken this one: what it says is over.
            return;
        }
        node.told_epoch = header.current_epoch;
        self.receive_role(sender, header, actions);
        let claimant = if self.view[sender].is_primary() {
            Some(sender)
        } else {
            self.view[sender].primary
        };
        let is_news = claimant.is_some_and(|claimant| !self.view.owns_exactly(claimant, &header.slots));
        if self.view[sender].is_primary() && is_news {
            self.take_slots(sender, header.config_epoch, &header.slots, actions);
        }
        if let Some(claimant) = claimant.filter(|_| is_news) {
            self.correct(sender, claimant, header, actions);
        }
        self.resolve_collision(sender, header, actions);
        self.leave_sub_replica(actions);
    }

    fn receive_role(&mut self, sender: NodeKey, header: &Header, actions: &mut Actions) {
        let Some(primary) = &header.primary else {
            if self.view.make_primary(sender) {
                self.due.health = true;
                actions.save(false);
            }
            return;
        };
        let primary = self.view.find_known(primary).filter(|&primary| primary != sender);
        let node = &self.view[sender];
        if node.is_voter()
            && let Some(primary) = primary
        {
            // The packet tells the slots of the node's primary. Were they not taken with the role, they would be
            // nobody's until that one is heard.
            let id = self.view[primary].id;
            self.receive_update(id, header.config_epoch, &header.slots, actions);
        }
        let node = &self.view[sender];
        if node.is_primary() || (node.primary != primary && primary.is_some()) {
            self.view.make_replica(sender, primary);
            self.due.health = true;
            actions.save(false);
        }
    }

    /// Gives slots to a primary that claims them with an epoch, where the claim wins. If they were the last ones of
    /// this node or of its primary, it becomes a replica of the claimant.
    pub(super) fn take_slots(&mut self, sender: NodeKey, epoch: u64, slots: &SlotSet, actions: &mut Actions) {
        let (me, mine) = (self.view.my_key(), self.view.claimant());
        if sender == me {
            return;
        }
        let mut lost = SlotSet::new();
        let mut lost_by_mine = 0;
        for slot in slots.iter() {
            let owner = self.view.owner(slot);
            if owner == Some(sender) {
                self.view.set_unclaimed(slot, false);
                continue;
            }
            let wins = self.view.is_unclaimed(slot)
                || owner.is_some_and(|owner| self.view[owner].config_epoch < epoch)
                || self.options.is_broken(BrokenRule::GreaterEpochOwns);
            // A slot on its way here stays with its old owner until the operator says otherwise.
            if !wins || self.view.importing().contains_key(&slot) {
                continue;
            }
            lost_by_mine += usize::from(owner == Some(mine));
            if owner == Some(me) {
                lost.insert(slot);
            }
            self.view.set_owner(slot, Some(sender));
            self.due.health = true;
            actions.save(true);
        }
        self.note_unclaimed(sender, slots);
        self.accept_loss(sender, slots.len(), lost_by_mine, lost, actions);
    }

    /// Slots that a primary has but no longer claims stay with it, so that clients go on, until another one claims
    /// them with whatever epoch.
    fn note_unclaimed(&mut self, sender: NodeKey, slots: &SlotSet) {
        for slot in self.view.slots_of(sender).iter() {
            if !slots.contains(slot) {
                self.view.set_unclaimed(slot, true);
            }
        }
    }

    fn accept_loss(
        &mut self,
        winner: NodeKey,
        claimed: usize,
        lost_by_mine: usize,
        lost: SlotSet,
        actions: &mut Actions,
    ) {
        let mine = self.view.claimant();
        // If all that it claims was this shard's, it has taken the shard over as a whole.
        let follows = self.options.allow_replica_migration || claimed == lost_by_mine;
        if lost_by_mine > 0 && follows && self.view[mine].slots == 0 && winner != mine {
            actions.notice(format!(
                "Configuration change detected. Reconfiguring myself as a replica of {}",
                self.view[winner].id
            ));
            self.become_replica(winner, actions);
        } else if !lost.is_empty() {
            actions.push(Action::DropKeys(Box::new(lost)));
        }
    }

    /// Tells a node whose claim is beaten who beats it: one owner for each packet, the next one follows.
    fn correct(&mut self, sender: NodeKey, claimant: NodeKey, header: &Header, actions: &mut Actions) {
        let beating = header.slots.iter().find_map(|slot| {
            let owner = self.view.owner(slot).filter(|&owner| owner != claimant)?;
            let beats = self.view[owner].config_epoch > header.config_epoch && !self.view.is_unclaimed(slot);
            beats.then_some(owner)
        });
        if let Some(owner) = beating
            && !self.options.is_broken(BrokenRule::TellOldClaims)
        {
            let body = Body::Update {
                id: self.view[owner].id,
                config_epoch: self.view[owner].config_epoch,
                slots: Box::new(self.view.slots_of(owner)),
            };
            self.send(sender, body, actions);
        }
    }

    pub(super) fn receive_update(
        &mut self,
        id: NodeId,
        config_epoch: u64,
        slots: &SlotSet,
        actions: &mut Actions,
    ) {
        let Some(key) = self.view.find_known(&id) else {
            return;
        };
        if key == self.view.my_key() || self.view[key].config_epoch >= config_epoch {
            return;
        }
        self.view.make_primary(key);
        self.view[key].config_epoch = config_epoch;
        actions.save(true);
        self.take_slots(key, config_epoch, slots, actions);
    }

    /// Two primaries with one epoch: the one with the smaller name takes a new one. Both may see it, one acts.
    fn resolve_collision(&mut self, sender: NodeKey, header: &Header, actions: &mut Actions) {
        let me = self.view.me();
        let both_are_primaries = me.is_primary() && self.view[sender].is_primary();
        if !both_are_primaries || header.config_epoch != me.config_epoch || self.view[sender].id <= me.id {
            return;
        }
        let epoch = self.next_epoch();
        self.view.me_mut().config_epoch = epoch;
        self.due.tell_all = true;
        actions.log(
            crate::event::Level::Verbose,
            format!(
                "WARNING: configEpoch collision with node {}. configEpoch set to {epoch}",
                self.view[sender].id
            ),
        );
        actions.save(true);
    }

    /// Begins a new epoch.
    pub(super) fn next_epoch(&mut self) -> u64 {
        self.view.current_epoch += 1;
        self.view.current_epoch
    }

    /// Takes the greatest epoch of all without asking anybody: what an operator orders wins. `None` if this node has it
    /// already.
    pub(super) fn bump_epoch(&mut self, actions: &mut Actions) -> Option<u64> {
        let max = self.view.max_epoch();
        let mine = self.view.me().config_epoch;
        if mine != 0 && mine == max {
            return None;
        }
        self.view.current_epoch = max;
        let epoch = self.next_epoch();
        self.view.me_mut().config_epoch = epoch;
        actions.warn(format!("New configEpoch set to {epoch}"));
        actions.save(true);
        Some(epoch)
    }
}
