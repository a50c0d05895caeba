//! Suspicion and failure: a node that does not answer is suspected; if a majority of the voters suspect it, it has
//! failed, and everybody is told.

use super::Machine;
use crate::event::{Actions, BrokenRule, Level};
use crate::node::{Flags, NodeId, NodeKey};
use crate::wire::Body;

/// Time for which the report of a voter counts, in node timeouts.
const REPORT_TIMEOUTS: u64 = 2;

/// Most replicas of a suspected primary that are told at once.
const REPORTED_REPLICAS_MAX: usize = 8;

/// Time after which a primary that is back is taken for working, in node timeouts: until then a replica may replace it.
const UNDO_TIMEOUTS: u64 = 2;

impl Machine {
    /// This node has waited for an answer too long.
    pub(super) fn suspect(&mut self, key: NodeKey, actions: &mut Actions) {
        let node = &mut self.view[key];
        if !node.is_failing() {
            node.flags.insert(Flags::PFAIL);
            actions.log(Level::Debug, format!("*** NODE {} possibly failing", node.id));
            self.due.health = true;
            self.report_to_replicas(key, actions);
        }
        // The others may have reported it first.
        self.fail_if_agreed(key, actions);
    }

    /// Reports a suspected primary to its replicas, who are the ones to act. Pings alone carry a report to each node
    /// rarely in a large cluster: the gossip about pongs spares most of them.
    fn report_to_replicas(&mut self, key: NodeKey, actions: &mut Actions) {
        if !self.view[key].is_voter() || !self.view.me().is_voter() {
            return;
        }
        let replicas: Vec<NodeKey> = self.view.replicas(key).map(|(replica, _)| replica).collect();
        for replica in replicas.into_iter().take(REPORTED_REPLICAS_MAX) {
            self.report(replica, key, actions);
        }
    }

    /// A voter says that a node fails, or that it does not.
    pub(super) fn note_report(
        &mut self,
        reporter: NodeKey,
        key: NodeKey,
        is_failing: bool,
        actions: &mut Actions,
    ) {
        let now_ms = self.now.monotonic_ms;
        let names = || (self.view[reporter].id, self.view[key].id);
        if is_failing {
            let (reporter_id, id) = names();
            if self.view[key].reports.insert(reporter, now_ms).is_none() {
                let line = format!("Node {reporter_id} reported node {id} as not reachable.");
                actions.log(Level::Verbose, line);
            }
            self.fail_if_agreed(key, actions);
        } else if self.view[key].reports.contains_key(&reporter) {
            let (reporter_id, id) = names();
            self.view[key].reports.remove(&reporter);
            let line = format!("Node {reporter_id} reported node {id} is back online.");
            actions.log(Level::Verbose, line);
        }
    }

    /// Number of voters whose report about a node still counts.
    pub(super) fn count_reports(&mut self, key: NodeKey) -> usize {
        let (now_ms, max_ms) = (
            self.now.monotonic_ms,
            REPORT_TIMEOUTS * self.options.node_timeout_ms,
        );
        let reports = &mut self.view[key].reports;
        reports.retain(|_, at_ms| now_ms - *at_ms <= max_ms);
        reports.len()
    }

    fn fail_if_agreed(&mut self, key: NodeKey, actions: &mut Actions) {
        let node = &self.view[key];
        if !node.flags.contains(Flags::PFAIL) || node.is_failed() {
            return;
        }
        let mine = usize::from(self.view.me().is_voter());
        let needed = match self.options.is_broken(BrokenRule::MajorityFails) {
            true => 0,
            false => self.view.majority(),
        };
        // When half of a large cluster dies each ping tells of all of them: reports whose time is over are looked for only
        // when there would be enough with them.
        if node.reports.len() + mine < needed || self.count_reports(key) + mine < needed {
            return;
        }
        actions.notice(format!(
            "Marking node {} as failing (quorum reached).",
            self.view[key].id
        ));
        self.mark_failed(key, actions);
        let body = Body::Fail(self.view[key].id);
        self.broadcast(body, actions, |_, _| true);
    }

    pub(super) fn mark_failed(&mut self, key: NodeKey, actions: &mut Actions) {
        let node = &mut self.view[key];
        node.flags.remove(Flags::PFAIL);
        node.flags.insert(Flags::FAIL);
        node.failed_ms = self.now.monotonic_ms;
        self.view.touch();
        self.due.health = true;
        self.due.election = true;
        actions.save(false);
    }

    pub(super) fn receive_fail(&mut self, sender: NodeKey, id: NodeId, actions: &mut Actions) {
        let Some(key) = self.view.find_known(&id) else {
            return;
        };
        if key == self.view.my_key() || self.view[key].is_failed() {
            return;
        }
        actions.notice(format!(
            "FAIL message received from {} about {id}",
            self.view[sender].id
        ));
        self.mark_failed(key, actions);
    }

    /// A failed node answers again. A replica or a primary without slots works at once; a primary with slots only if
    /// nobody has taken them for so long that nobody will.
    pub(super) fn clear_failure_if_due(&mut self, key: NodeKey, actions: &mut Actions) {
        let (now_ms, undo_ms) = (
            self.now.monotonic_ms,
            UNDO_TIMEOUTS * self.options.node_timeout_ms,
        );
        let node = &mut self.view[key];
        let reason = match (node.is_replica(), node.slots) {
            (true, _) => "replica is reachable again.",
            (false, 0) => "master without slots is reachable again.",
            _ if now_ms - node.failed_ms > undo_ms => {
                "is reachable again and nobody is serving its slots after some time."
            }
            _ => return,
        };
        node.flags.remove(Flags::FAIL);
        actions.notice(format!("Clear FAIL state for node {}: {reason}", node.id));
        self.view.touch();
        self.due.health = true;
        actions.save(false);
    }
}
