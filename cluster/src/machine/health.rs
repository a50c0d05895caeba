//! Whether the cluster works, as far as this node can see.
//!
//! The cluster does not work if a slot is unserved (where full coverage is required) or if this node reaches only a minority of the
//! voters: then others may have elected somebody in its place. A primary that was cut off, suspended or restarted waits
//! a little before it takes writes again, so that the others can tell it what has happened.

use super::Machine;
use crate::event::{Action, Actions, Now};
use crate::node::Flags;
use crate::slot::SLOTS;

/// Time for which a restarted primary takes no writes.
const WRITABLE_DELAY_MS: u64 = 2_000;

/// Bounds of the time for which a primary that was in a minority takes no writes; within them it is the node timeout.
const REJOIN_DELAY_MIN_MS: u64 = 500;
const REJOIN_DELAY_MAX_MS: u64 = 5_000;

/// Moments that delay the return to work.
#[derive(Debug)]
pub(super) struct Health {
    started_ms: u64,
    /// When this node last reached only a minority.
    minority_ms: Option<u64>,
}

impl Health {
    pub(super) fn new(now: Now) -> Self {
        Health {
            started_ms: now.monotonic_ms,
            minority_ms: None,
        }
    }
}

impl Machine {
    pub(super) fn judge_health(&mut self, actions: &mut Actions) {
        let now_ms = self.now.monotonic_ms;
        let is_ok = self.is_covered() && self.reaches_majority();
        if is_ok == self.view.is_ok || (is_ok && self.waits_to_rejoin(now_ms)) {
            return;
        }
        self.view.is_ok = is_ok;
        self.view.touch();
        actions.notice(format!(
            "Cluster state changed: {}",
            if is_ok { "ok" } else { "fail" }
        ));
        actions.push(Action::StateChanged { is_ok });
    }

    /// Whether all slots are served, or need not be.
    fn is_covered(&self) -> bool {
        !self.options.require_full_coverage || self.view.served_slots() == SLOTS
    }

    fn reaches_majority(&mut self) -> bool {
        let reached = self.view.voters().filter(|(_, node)| !node.is_failing()).count();
        let is_majority = reached >= self.view.majority();
        if !is_majority {
            self.health.minority_ms = Some(self.now.monotonic_ms);
        }
        is_majority
    }

    /// Only primaries wait: a replica serves what it has anyway.
    fn waits_to_rejoin(&self, now_ms: u64) -> bool {
        if !self.view.me().is_primary() {
            return false;
        }
        let delay_ms = self
            .options
            .node_timeout_ms
            .clamp(REJOIN_DELAY_MIN_MS, REJOIN_DELAY_MAX_MS);
        let was_in_minority = self
            .health
            .minority_ms
            .is_some_and(|at_ms| now_ms - at_ms < delay_ms);
        was_in_minority || now_ms - self.health.started_ms < WRITABLE_DELAY_MS
    }

    /// A node that did not run for longer than others wait for it must hear from them before it goes on, and must not
    /// take its own absence for theirs.
    pub(super) fn note_suspension(&mut self, actions: &mut Actions) {
        let now_ms = self.now.monotonic_ms;
        let pause_ms = now_ms - std::mem::replace(&mut self.last_tick_ms, now_ms);
        if pause_ms <= self.options.node_timeout_ms {
            return;
        }
        actions.warn(format!(
            "This node did not run for {pause_ms} ms: it waits for the other nodes."
        ));
        for index in 0..self.view.len() {
            let key = self.view.keys()[index];
            let node = &mut self.view[key];
            if node.ping_sent_ms != 0 {
                node.ping_sent_ms = now_ms;
            }
        }
        let is_alone = self.view.voters().all(|(key, _)| key == self.view.my_key());
        if !is_alone && self.view.me().flags.contains(Flags::PRIMARY) {
            self.health.minority_ms = Some(now_ms);
            self.view.is_ok = false;
            self.view.touch();
            actions.notice("Cluster state changed: fail");
            actions.push(Action::StateChanged { is_ok: false });
            self.due.health = true;
        }
    }
}
