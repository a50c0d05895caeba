//! The subcommands of `CLUSTER` that change something.

use std::ops::RangeInclusive;

use super::Machine;
use super::handshake::BAN_MS;
use crate::event::{Action, Actions, Command, CommandError, Reply};
use crate::node::{Flags, NodeId, NodeKey, ShardId};
use crate::slot::{Slot, SlotSet};
use crate::wire::extension::Forgotten;

impl Machine {
    pub(super) fn command(&mut self, tag: u64, command: Command, actions: &mut Actions) {
        let reply = match self.carry_out(command, actions) {
            Ok(reply) => reply,
            Err(error) => Reply::Error(error),
        };
        actions.push(Action::Reply { tag, reply });
    }

    fn carry_out(&mut self, command: Command, actions: &mut Actions) -> Result<Reply, CommandError> {
        match command {
            Command::BumpEpoch => return Ok(self.bump(actions)),
            Command::CountFailureReports(id) => {
                let key = self.named(&id)?;
                return Ok(Reply::Number(self.count_reports(key) as u64));
            }
            Command::Meet { ip, port, bus_port } => self.meet(ip, port, bus_port)?,
            Command::Forget(id) => self.forget_by_order(id, actions)?,
            Command::AddSlots(ranges) => self.assign(&ranges, true, actions)?,
            Command::DelSlots(ranges) => self.assign(&ranges, false, actions)?,
            Command::FlushSlots { has_keys } => self.flush_slots(has_keys, actions)?,
            Command::SetSlotMigrating(slot, node) => self.set_migrating(slot, node, actions)?,
            Command::SetSlotImporting(slot, node) => self.set_importing(slot, node, actions)?,
            Command::SetSlotStable(slot) => self.set_stable(slot, actions)?,
            Command::SetSlotNode { slot, node, has_keys } => {
                self.set_slot_node(slot, node, has_keys, actions)?;
            }
            Command::Replicate { primary, has_keys } => self.replicate(primary, has_keys, actions)?,
            Command::Failover(mode) => self.start_manual(mode, actions)?,
            Command::Reset {
                hard,
                shard,
                has_keys,
            } => self.reset(hard, shard, has_keys, actions)?,
            Command::SetConfigEpoch(epoch) => self.set_config_epoch(epoch, actions)?,
            Command::SaveConfig => actions.save(true),
            Command::AdoptSlots(slots) => self.adopt_slots(&slots, actions),
        }
        Ok(Reply::Ok)
    }

    fn named(&self, id: &NodeId) -> Result<NodeKey, CommandError> {
        self.view.find(id).ok_or(CommandError::UnknownNode(*id))
    }

    fn bump(&mut self, actions: &mut Actions) -> Reply {
        Reply::Status(match self.bump_epoch(actions) {
            Some(epoch) => format!("BUMPED {epoch}"),
            None => format!("STILL {}", self.view.me().config_epoch),
        })
    }

    /// The ban is told to the others too, so that one order is enough.
    fn forget_by_order(&mut self, id: NodeId, actions: &mut Actions) -> Result<(), CommandError> {
        let Some(key) = self.view.find(&id) else {
            let is_banned = self.bans.contains(&id, self.now.monotonic_ms);
            return if is_banned {
                Ok(())
            } else {
                Err(CommandError::UnknownNode(id))
            };
        };
        if key == self.view.my_key() {
            return Err(CommandError::ForgetsItself);
        }
        if self.view.me().primary == Some(key) {
            return Err(CommandError::ForgetsItsPrimary);
        }
        self.forget(key, BAN_MS, actions);
        self.tell_forgotten(
            Forgotten {
                id,
                ttl_s: BAN_MS / 1_000,
            },
            actions,
        );
        Ok(())
    }

    /// All slots change or none.
    fn assign(
        &mut self,
        ranges: &[RangeInclusive<Slot>],
        adds: bool,
        actions: &mut Actions,
    ) -> Result<(), CommandError> {
        let mut seen = SlotSet::new();
        let numbers = ranges
            .iter()
            .flat_map(|range| range.start().number()..=range.end().number());
        for slot in numbers.filter_map(Slot::new) {
            match self.view.owner(slot) {
                Some(_) if adds => return Err(CommandError::SlotIsBusy(slot)),
                None if !adds => return Err(CommandError::SlotIsUnassigned(slot)),
                _ if !seen.insert(slot) => return Err(CommandError::SlotIsNamedTwice(slot)),
                _ => {}
            }
        }
        let me = self.view.my_key();
        for slot in seen.iter() {
            if adds && self.view.importing().contains_key(&slot) {
                self.view.set_importing(slot, None);
            }
            self.view.set_owner(slot, adds.then_some(me));
        }
        self.slots_were_ordered(actions);
        Ok(())
    }

    /// The others hear of it with the next pings, not at once: redis-cli first gives a slot to one node, in a new epoch, and then
    /// takes it from the one before. If that one heard of the new owner earlier, it would delete the keys that are still to be moved.
    fn slots_were_ordered(&mut self, actions: &mut Actions) {
        self.due.health = true;
        actions.save(false);
    }

    fn flush_slots(&mut self, has_keys: bool, actions: &mut Actions) -> Result<(), CommandError> {
        if has_keys {
            return Err(CommandError::FlushesSlotsWithKeys);
        }
        self.view.disown_all(self.view.my_key());
        self.slots_were_ordered(actions);
        Ok(())
    }

    /// The other end of an open slot, which only a primary can be and only a primary can order.
    fn other_end(&self, id: &NodeId) -> Result<NodeKey, CommandError> {
        let key = self.view.find(id).ok_or(CommandError::UnknownTarget(*id))?;
        if self.view[key].is_replica() {
            return Err(CommandError::TargetIsNoPrimary);
        }
        Ok(key)
    }

    fn must_be_primary(&self) -> Result<(), CommandError> {
        if self.view.me().is_replica() {
            return Err(CommandError::SetSlotOnReplica);
        }
        Ok(())
    }

    fn set_migrating(&mut self, slot: Slot, id: NodeId, actions: &mut Actions) -> Result<(), CommandError> {
        self.must_be_primary()?;
        if self.view.owner(slot) != Some(self.view.my_key()) {
            return Err(CommandError::NotTheOwner(slot));
        }
        let to = self.other_end(&id)?;
        self.view.set_migrating(slot, Some(to));
        self.slots_were_ordered(actions);
        Ok(())
    }

    fn set_importing(&mut self, slot: Slot, id: NodeId, actions: &mut Actions) -> Result<(), CommandError> {
        self.must_be_primary()?;
        if self.view.owner(slot) == Some(self.view.my_key()) {
            return Err(CommandError::IsTheOwner(slot));
        }
        let from = self.other_end(&id)?;
        self.view.set_importing(slot, Some(from));
        self.slots_were_ordered(actions);
        Ok(())
    }

    fn set_stable(&mut self, slot: Slot, actions: &mut Actions) -> Result<(), CommandError> {
        self.must_be_primary()?;
        self.view.set_importing(slot, None);
        self.view.set_migrating(slot, None);
        self.slots_were_ordered(actions);
        Ok(())
    }

    /// The end of a slot's move. At its target the claim needs an epoch that beats the source's, and there is nobody
    /// to ask for it.
    fn set_slot_node(
        &mut self,
        slot: Slot,
        id: NodeId,
        has_keys: bool,
        actions: &mut Actions,
    ) -> Result<(), CommandError> {
        self.must_be_primary()?;
        let me = self.view.my_key();
        let key = self.named(&id)?;
        if self.view[key].is_replica() {
            return Err(CommandError::TargetIsNoPrimary);
        }
        let was_mine = self.view.owner(slot) == Some(me);
        if was_mine && key != me && has_keys {
            return Err(CommandError::SlotHasKeys(slot));
        }
        if !has_keys {
            self.view.set_migrating(slot, None);
        }
        self.view.set_owner(slot, Some(key));
        if key == me && self.view.importing().contains_key(&slot) {
            if self.bump_epoch(actions).is_some() {
                actions.warn(format!("configEpoch updated after importing slot {slot}"));
            }
            self.view.set_importing(slot, None);
            // All keys are here: clients shall come as soon as possible.
            self.due.tell_all = true;
        }
        self.slots_were_ordered(actions);
        if was_mine && key != me && self.view.me().slots == 0 && self.options.allow_replica_migration {
            self.follow_last_slot(key, actions);
        }
        Ok(())
    }

    /// A primary that has given its last slot away becomes a replica of the node that got it.
    fn follow_last_slot(&mut self, key: NodeKey, actions: &mut Actions) {
        actions.warn(format!(
            "Lost my last slot during slot migration. Reconfiguring myself as a replica of {}",
            self.view[key].id
        ));
        self.become_replica(key, actions);
    }

    fn replicate(&mut self, id: NodeId, has_keys: bool, actions: &mut Actions) -> Result<(), CommandError> {
        let primary = self.named(&id)?;
        let me = self.view.me();
        if primary == self.view.my_key() {
            return Err(CommandError::ReplicatesItself);
        }
        if self.view[primary].is_replica() {
            return Err(CommandError::ReplicatesAReplica);
        }
        if me.is_primary() && (me.slots > 0 || has_keys) {
            return Err(CommandError::ReplicatesWithData);
        }
        self.become_replica(primary, actions);
        Ok(())
    }

    fn set_config_epoch(&mut self, epoch: u64, actions: &mut Actions) -> Result<(), CommandError> {
        if self.view.len() > 1 {
            return Err(CommandError::EpochWithOtherNodes);
        }
        if self.view.me().config_epoch != 0 {
            return Err(CommandError::EpochIsSet);
        }
        if epoch > crate::wire::EPOCH_MAX {
            return Err(CommandError::EpochIsInvalid(epoch.cast_signed()));
        }
        self.view.me_mut().config_epoch = epoch;
        self.view.current_epoch = self.view.current_epoch.max(epoch);
        actions.warn(format!("configEpoch set to {epoch} via CLUSTER SET-CONFIG-EPOCH"));
        self.slots_were_ordered(actions);
        Ok(())
    }

    /// Forgets everybody. A hard reset also takes a new name and begins with the first epoch.
    fn reset(
        &mut self,
        hard: Option<NodeId>,
        shard: ShardId,
        has_keys: bool,
        actions: &mut Actions,
    ) -> Result<(), CommandError> {
        let me = self.view.my_key();
        if self.view.me().is_primary() && has_keys {
            return Err(CommandError::ResetWithKeys);
        }
        self.end_manual(actions);
        self.election.reset();
        if self.view.make_primary(me) {
            actions.push(Action::Promote);
            actions.push(Action::DropAll);
        }
        self.view.close_slots();
        for slot in Slot::all() {
            self.view.set_owner(slot, None);
        }
        let others: Vec<NodeKey> = self
            .view
            .keys()
            .iter()
            .copied()
            .filter(|&key| key != me)
            .collect();
        for key in others {
            self.remove_node(key, actions);
        }
        if let Some(id) = hard {
            let old = self.view.me().id;
            self.view.rename(me, id);
            self.view.current_epoch = 0;
            self.view.last_vote_epoch = 0;
            self.view.me_mut().config_epoch = 0;
            actions.notice(format!("Node hard reset, now I'm {id} and no longer {old}"));
        }
        let node = self.view.me_mut();
        node.shard = Some(shard);
        node.flags.remove(Flags::MIGRATE_TO);
        self.due.health = true;
        actions.save(true);
        Ok(())
    }

    /// Never deletes at the start: keys in slots that nobody owns mean that the file is older than the data.
    fn adopt_slots(&mut self, with_keys: &SlotSet, actions: &mut Actions) {
        let me = self.view.my_key();
        if self.view.me().is_replica() {
            return;
        }
        for slot in with_keys.iter() {
            match self.view.owner(slot) {
                Some(owner) if owner == me => {}
                None => {
                    actions.notice(format!(
                        "I have keys for unassigned slot {slot}. Taking responsibility for it."
                    ));
                    self.view.set_owner(slot, Some(me));
                }
                Some(owner) => {
                    if !self.view.importing().contains_key(&slot) {
                        actions.notice(format!(
                            "I have keys for slot {slot}, but the slot is assigned to another node. \
                             Setting it to importing state."
                        ));
                        self.view.set_importing(slot, Some(owner));
                    }
                }
            }
        }
        self.slots_were_ordered(actions);
    }
}
