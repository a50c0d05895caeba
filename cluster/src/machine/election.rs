//! Elections: a replica of a failed primary asks the voters for its place, and a voter gives one vote in an epoch.
//!
//! Safety rests on the disk and on counting: a voter's last epoch is on disk before the vote leaves, and so is the epoch of a request. Only a
//! majority of the voters elects, and two majorities have a voter in common. Redis 7.0 besides refuses a second vote for
//! the replicas of one primary within two node timeouts. That adds nothing to safety and blocks a candidate whose first
//! election was split, so it is not done here.

use std::collections::BTreeSet;

use super::Machine;
use crate::event::{Actions, BrokenRule};
use crate::node::{Flags, NodeKey};
use crate::wire::{Body, Header, ManualFlags};

/// Time between the failure of a primary and the first request for votes, so that the failure is known everywhere.
const DELAY_FIXED_MS: u64 = 500;

/// Most of the random time besides, which keeps replicas apart.
const DELAY_RANDOM_MS: u64 = 500;

/// Time for each sibling that has more data.
const DELAY_RANK_MS: u64 = 1_000;

/// Time in which votes count, in node timeouts, and at least.
const VOTE_TIMEOUTS: u64 = 2;
const VOTE_MIN_MS: u64 = 2_000;

/// Time between two elections of a replica, in times in which votes count.
const RETRY_VOTES: u64 = 2;

/// Time for each primary with a smaller name that has failed too: one epoch has one winner, so the replicas of many
/// ask one after the other.
const DELAY_QUEUE_MS: u64 = 50;

/// Time after which a request whose epoch others wanted too is given up for a new one: a part of the node timeout, and
/// its bounds. Redis 7 waits four node timeouts, in which the slots of most of many failed primaries stay unserved.
const CONTEST_PART: u64 = 8;
const CONTEST_MIN_MS: u64 = 500;
const CONTEST_MAX_MS: u64 = 2_000;

/// An election that this replica runs.
#[derive(Debug, Default)]
pub(super) struct Election {
    /// When the request is or was due.
    at_ms: Option<u64>,
    /// Number of siblings with more data when that was last looked at.
    rank: u64,
    /// Epoch of the request, once it has been sent.
    epoch: Option<u64>,
    votes: BTreeSet<NodeKey>,
    /// When the request is given up if it is contested.
    contest_end_ms: u64,
    /// Whether another replica has asked in the same epoch or a later one.
    is_contested: bool,
    /// Reason that the log gave last for not running.
    blocked_by: Option<&'static str>,
}

impl Election {
    pub(super) fn drop_node(&mut self, key: NodeKey) {
        self.votes.remove(&key);
    }

    /// Another primary, another election.
    pub(super) fn reset(&mut self) {
        *self = Election::default();
    }
}

impl Machine {
    /// Votes for a replica that asks, if nothing speaks against it.
    pub(super) fn receive_vote_request(&mut self, sender: NodeKey, header: &Header, actions: &mut Actions) {
        if self
            .election
            .epoch
            .is_some_and(|epoch| header.current_epoch >= epoch)
        {
            self.election.is_contested = true;
        }
        if !self.view.me().is_voter() {
            return;
        }
        let id = self.view[sender].id;
        match self.objection(sender, header) {
            Some(objection) => actions.warn(format!("Failover auth denied to {id}: {objection}")),
            None => self.vote(sender, actions),
        }
    }

    fn objection(&self, sender: NodeKey, header: &Header) -> Option<String> {
        let (current, last) = (self.view.current_epoch, self.view.last_vote_epoch);
        let asked = header.current_epoch;
        if asked < current {
            return Some(format!("reqEpoch ({asked}) < curEpoch({current})"));
        }
        if last >= current && !self.options.is_broken(BrokenRule::OneVoteAnEpoch) {
            return Some(format!("already voted for epoch {current}"));
        }
        let node = &self.view[sender];
        if node.is_primary() {
            return Some("it is a master node".to_owned());
        }
        let Some(primary) = node.primary else {
            return Some("I don't know its master".to_owned());
        };
        if !self.view[primary].is_failed() && !header.manual.contains(ManualFlags::FORCE_ACK) {
            return Some("its master is up".to_owned());
        }
        self.old_claim(header)
    }

    /// A replica that does not know the latest owner of a slot would take it back from it.
    fn old_claim(&self, header: &Header) -> Option<String> {
        if self.options.is_broken(BrokenRule::NoVoteForOldClaims) {
            return None;
        }
        let asked = header.config_epoch;
        header.slots.iter().find_map(|slot| {
            let epoch = self.view[self.view.owner(slot)?].config_epoch;
            (epoch > asked).then(|| format!("slot {slot} epoch ({epoch}) > reqEpoch ({asked})"))
        })
    }

    fn vote(&mut self, sender: NodeKey, actions: &mut Actions) {
        let epoch = self.view.current_epoch;
        self.view.last_vote_epoch = epoch;
        if !self.options.is_broken(BrokenRule::SaveBeforeVote) {
            actions.save(true);
        }
        actions.warn(format!(
            "Failover auth granted to {} for epoch {epoch}",
            self.view[sender].id
        ));
        self.send(sender, Body::AuthAck, actions);
    }

    pub(super) fn receive_vote(&mut self, sender: NodeKey, header: &Header) {
        let counts = self.view[sender].is_voter()
            && self
                .election
                .epoch
                .is_some_and(|epoch| header.current_epoch >= epoch);
        if counts && self.election.votes.insert(sender) {
            self.due.election = true;
        }
    }

    /// Starts an election, waits for its time, asks for votes, counts them.
    pub(super) fn advance_election(&mut self, actions: &mut Actions) {
        let Some(primary) = self.runs_for() else {
            self.election.blocked_by = None;
            return;
        };
        let is_manual = self.manual.can_start();
        if !is_manual && self.data_are_too_old() {
            self.note_blocked(
                "Disconnected from master for longer than allowed. Please check the \
                 'cluster-replica-validity-factor' configuration option.",
                actions,
            );
            return;
        }
        let now_ms = self.now.monotonic_ms;
        let vote_ms = (VOTE_TIMEOUTS * self.options.node_timeout_ms).max(VOTE_MIN_MS);
        let is_lost = self.election.is_contested && now_ms > self.election.contest_end_ms;
        let at_ms = match self.election.at_ms {
            Some(at_ms) if !is_lost && now_ms <= at_ms.saturating_add(vote_ms * RETRY_VOTES) => at_ms,
            _ => self.schedule_election(primary, is_manual, actions),
        };
        let at_ms = self.delay_for_rank(primary, at_ms, is_manual, actions);
        if now_ms < at_ms {
            self.note_blocked("Waiting the delay before I can start a new failover.", actions);
        } else if now_ms - at_ms > vote_ms {
            self.note_blocked("Failover attempt expired.", actions);
        } else if let Some(epoch) = self.election.epoch {
            self.count_votes(primary, epoch, actions);
        } else {
            self.ask_for_votes(is_manual, actions);
        }
    }

    /// The primary in whose place this node runs, if it does.
    fn runs_for(&self) -> Option<NodeKey> {
        let me = self.view.me();
        let primary = me.primary.filter(|_| me.is_replica())?;
        let is_manual = self.manual.can_start();
        let is_due = is_manual || (self.view[primary].is_failed() && !me.flags.contains(Flags::NOFAILOVER));
        (is_due && self.view[primary].slots > 0).then_some(primary)
    }

    /// Data are too old if this node lost its primary long before the others did.
    fn data_are_too_old(&self) -> bool {
        let options = &self.options;
        if options.replica_validity_factor == 0 {
            return false;
        }
        let Some(as_of_ms) = self.facts.data_as_of_ms else {
            return true;
        };
        // The age contains the time in which the failure was found out.
        let limit_ms =
            options.node_timeout_ms * (options.replica_validity_factor + 1) + options.replica_ping_period_ms;
        self.now.monotonic_ms - as_of_ms > limit_ms
    }

    fn note_blocked(&mut self, reason: &'static str, actions: &mut Actions) {
        if self.election.blocked_by != Some(reason) {
            self.election.blocked_by = Some(reason);
            actions.notice(format!("Currently unable to failover: {reason}"));
        }
    }

    /// Sets the time of the request: later for a replica that has less data than its siblings. They are told this
    /// node's offset first.
    fn schedule_election(&mut self, primary: NodeKey, is_manual: bool, actions: &mut Actions) -> u64 {
        let now_ms = self.now.monotonic_ms;
        let rank = if is_manual { 0 } else { self.rank(primary) };
        let delay_ms = if is_manual {
            0
        } else {
            DELAY_FIXED_MS
                + self.random.u64(..DELAY_RANDOM_MS)
                + rank * DELAY_RANK_MS
                + self.place_in_queue(primary) * DELAY_QUEUE_MS
        };
        self.election = Election {
            at_ms: Some(now_ms + delay_ms),
            rank,
            ..Election::default()
        };
        actions.notice(format!(
            "Start of election delayed for {delay_ms} milliseconds (rank #{rank}, offset {}).",
            self.facts.replication_offset
        ));
        let me = self.view.my_key();
        self.pong_to(actions, |key, node| key != me && node.primary == Some(primary));
        now_ms + delay_ms
    }

    /// Number of siblings that have more data and may run.
    fn rank(&self, primary: NodeKey) -> u64 {
        let me = self.view.my_key();
        let better = self.view.replicas(primary).filter(|&(key, node)| {
            key != me
                && !node.flags.contains(Flags::NOFAILOVER)
                && node.replication_offset > self.facts.replication_offset
        });
        better.count() as u64
    }

    /// Number of failed primaries whose replicas ask before those of this one.
    fn place_in_queue(&self, primary: NodeKey) -> u64 {
        let id = self.view[primary].id;
        let before = self
            .view
            .voters()
            .filter(|(_, node)| node.is_failed() && node.id < id);
        before.count() as u64
    }

    /// A sibling may tell of more data while this node waits.
    fn delay_for_rank(
        &mut self,
        primary: NodeKey,
        at_ms: u64,
        is_manual: bool,
        actions: &mut Actions,
    ) -> u64 {
        let rank = self.rank(primary);
        if is_manual || self.election.epoch.is_some() || rank <= self.election.rank {
            return at_ms;
        }
        let added_ms = (rank - self.election.rank) * DELAY_RANK_MS;
        self.election.rank = rank;
        self.election.at_ms = Some(at_ms + added_ms);
        actions.notice(format!(
            "Replica rank updated to #{rank}, added {added_ms} milliseconds of delay."
        ));
        at_ms + added_ms
    }

    fn ask_for_votes(&mut self, is_manual: bool, actions: &mut Actions) {
        let epoch = self.next_epoch();
        let contest_ms = (self.options.node_timeout_ms / CONTEST_PART).clamp(CONTEST_MIN_MS, CONTEST_MAX_MS);
        self.election.epoch = Some(epoch);
        self.election.contest_end_ms =
            self.now.monotonic_ms + contest_ms + self.random.u64(..DELAY_RANDOM_MS);
        actions.notice(format!("Starting a failover election for epoch {epoch}."));
        actions.save(true);
        let mut request = self.packet(Body::AuthRequest);
        request.header.manual.set(ManualFlags::FORCE_ACK, is_manual);
        self.broadcast_packet(request, actions, |_, _| true);
    }

    fn count_votes(&mut self, primary: NodeKey, epoch: u64, actions: &mut Actions) {
        let needed = self.view.majority();
        if self.election.votes.len() < needed && !self.options.is_broken(BrokenRule::MajorityElects) {
            self.note_blocked("Waiting for votes, but majority still not reached.", actions);
            return;
        }
        actions.notice("Failover election won: I'm the new master.");
        actions.notice(format!("configEpoch set to {epoch} after successful failover"));
        let me = self.view.me_mut();
        me.config_epoch = me.config_epoch.max(epoch);
        self.promote(primary, actions);
    }
}
