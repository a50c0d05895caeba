//! A change of roles: promotion, demotion, and the manual failover, in which primary and replica agree on the moment.
//!
//! In an agreed one the replica asks its primary to pause; the primary tells the offset at which it has; when the
//! replica has got there it asks for votes, which are due although the primary works. Both give up after a while.

use super::Machine;
use crate::event::{Action, Actions, CommandError, FailoverMode};
use crate::node::NodeKey;
use crate::wire::{Body, Header, ManualFlags, PingKind};

/// Time after which both sides give up.
const MANUAL_TIMEOUT_MS: u64 = 5_000;

/// Time for which the primary pauses: longer, so that it takes no write after the replica was elected.
const PAUSE_MS: u64 = 2 * MANUAL_TIMEOUT_MS;

/// State of a manual failover, on either side.
#[derive(Debug, Default)]
pub(super) struct ManualFailover {
    /// When it is given up, while one is under way.
    end_ms: Option<u64>,
    /// On the primary: the replica that has asked.
    replica: Option<NodeKey>,
    /// On the primary: it takes no writes, so that its offset is the last one.
    is_paused: bool,
    /// On the replica: offset at which the primary has paused.
    primary_offset: Option<u64>,
    /// On the replica: the election may start.
    can_start: bool,
}

impl ManualFailover {
    pub(super) fn is_under_way(&self) -> bool {
        self.end_ms.is_some()
    }

    /// Whether this replica may ask for votes although its primary works.
    pub(super) fn can_start(&self) -> bool {
        self.can_start && self.is_under_way()
    }

    /// On the primary, the replica that waits for an offset.
    pub(super) fn replica(&self) -> Option<NodeKey> {
        self.replica.filter(|_| self.is_under_way())
    }

    /// Whether this primary takes no writes for it.
    pub(super) fn is_paused(&self) -> bool {
        self.is_paused && self.is_under_way()
    }

    pub(super) fn drop_node(&mut self, key: NodeKey) {
        if self.replica == Some(key) {
            self.replica = None;
        }
    }
}

impl Machine {
    /// Makes this replica the primary in place of the one it had. The epoch of its claim was raised before.
    pub(super) fn promote(&mut self, primary: NodeKey, actions: &mut Actions) {
        let me = self.view.my_key();
        self.view.make_primary(me);
        for slot in self.view.slots_of(primary).iter() {
            self.view.set_owner(slot, Some(me));
        }
        actions.save(true);
        self.due.health = true;
        self.end_manual(actions);
        self.election.reset();
        // The others hear of the new owner before a client of this node can write: the action that promotes comes last.
        self.due.tell_all = false;
        self.pong_to(actions, |_, _| true);
        actions.push(Action::Promote);
    }

    /// Makes this node a replica of `primary`.
    pub(super) fn become_replica(&mut self, primary: NodeKey, actions: &mut Actions) {
        let me = self.view.my_key();
        debug_assert_ne!(primary, me);
        let shard = self.view.shard_of(primary);
        let is_foreign = self.view.shard_of(me) != shard;
        self.view.make_replica(me, Some(primary));
        self.view.close_slots();
        self.view.me_mut().shard = Some(shard);
        self.election.reset();
        self.due.health = true;
        self.due.tell_all = true;
        actions.save(true);
        self.follow(primary, is_foreign, actions);
        // Only a node that is a replica already goes on with the writes that it has held back: it redirects them.
        self.end_manual(actions);
    }

    /// Tells the server where to replicate from, and whether the data there are of another shard.
    pub(super) fn follow(&self, primary: NodeKey, is_foreign: bool, actions: &mut Actions) {
        let node = &self.view[primary];
        actions.push(Action::Replicate {
            primary: node.id,
            address: node.address,
            is_foreign,
        });
    }

    /// A replica of a replica goes to the head of the chain. A circle is left alone: claims to slots resolve it.
    pub(super) fn leave_sub_replica(&mut self, actions: &mut Actions) {
        let me = self.view.my_key();
        let Some(primary) = self.view.me().primary else {
            return;
        };
        let Some(head) = self.view[primary].primary.filter(|&head| head != me) else {
            return;
        };
        if self.view[head].primary == Some(primary) {
            return;
        }
        actions.notice(format!(
            "I'm a sub-replica! Reconfiguring myself as a replica of grandmaster {}",
            self.view[head].id
        ));
        self.become_replica(head, actions);
    }

    /// `CLUSTER FAILOVER`.
    pub(super) fn start_manual(
        &mut self,
        mode: FailoverMode,
        actions: &mut Actions,
    ) -> Result<(), CommandError> {
        let me = self.view.me();
        if me.is_primary() {
            return Err(CommandError::FailoverOnPrimary);
        }
        let primary = me.primary.ok_or(CommandError::FailoverWithoutPrimary)?;
        let is_reached = !self.view[primary].is_failed() && self.view[primary].link().is_some();
        if mode == FailoverMode::Agreed && !is_reached {
            return Err(CommandError::FailoverOfADeadPrimary);
        }
        self.end_manual(actions);
        self.election.reset();
        self.manual.end_ms = Some(self.now.monotonic_ms + MANUAL_TIMEOUT_MS);
        match mode {
            FailoverMode::Agreed => {
                actions.warn("Manual failover user request accepted.");
                self.send(primary, Body::ManualStart, actions);
            }
            FailoverMode::Force => {
                actions.warn("Forced failover user request accepted.");
                self.manual.can_start = true;
                self.due.election = true;
            }
            FailoverMode::Takeover => {
                actions.warn("Taking over the master (user request).");
                self.bump_epoch(actions);
                self.promote(primary, actions);
            }
        }
        Ok(())
    }

    /// A replica asks this primary to pause.
    pub(super) fn receive_manual_start(&mut self, sender: NodeKey, actions: &mut Actions) {
        let me = self.view.my_key();
        if self.view[sender].primary != Some(me) || !self.view.me().is_primary() {
            return;
        }
        let now_ms = self.now.monotonic_ms;
        self.manual = ManualFailover {
            end_ms: Some(now_ms + MANUAL_TIMEOUT_MS),
            replica: Some(sender),
            ..ManualFailover::default()
        };
        actions.warn(format!(
            "Manual failover requested by replica {}.",
            self.view[sender].id
        ));
        actions.push(Action::PauseWrites {
            until_ms: now_ms + PAUSE_MS,
        });
        // A write may be under way in the server: the offset is told when it says that there is none.
    }

    /// No write is under way: the replica is told the last offset at once.
    pub(super) fn tell_pause(&mut self, actions: &mut Actions) {
        if let Some(replica) = self.manual.replica() {
            self.manual.is_paused = true;
            self.ping(replica, PingKind::Ping, actions);
        }
    }

    /// The primary has paused: its offset is the last one.
    pub(super) fn note_pause(&mut self, sender: NodeKey, header: &Header, actions: &mut Actions) {
        let is_awaited = self.manual.is_under_way()
            && self.view.me().primary == Some(sender)
            && self.manual.primary_offset.is_none();
        if is_awaited && header.manual.contains(ManualFlags::PAUSED) {
            self.manual.primary_offset = Some(header.offset);
            self.due.manual = true;
            actions.warn(format!(
                "Received replication offset for paused master manual failover: {}",
                header.offset
            ));
        }
    }

    /// The replica has all data: the election may start.
    pub(super) fn advance_manual(&mut self, actions: &mut Actions) {
        let has_all = self.manual.primary_offset == Some(self.facts.replication_offset);
        if self.manual.is_under_way() && !self.manual.can_start && has_all {
            self.manual.can_start = true;
            self.election.reset();
            self.due.election = true;
            actions.warn("All master replication stream processed, manual failover can start.");
        }
    }

    pub(super) fn expire_manual(&mut self, actions: &mut Actions) {
        if self
            .manual
            .end_ms
            .is_some_and(|end_ms| self.now.monotonic_ms > end_ms)
        {
            actions.warn("Manual failover timed out.");
            self.end_manual(actions);
        }
    }

    /// Ends a manual failover, done or not; a primary takes writes again.
    pub(super) fn end_manual(&mut self, actions: &mut Actions) {
        let ended = std::mem::take(&mut self.manual);
        if ended.is_under_way() && ended.replica.is_some() {
            actions.push(Action::ResumeWrites);
        }
    }
}
