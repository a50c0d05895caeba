//! Replicas that move: a primary whose last working replica died gets one from a primary that has several.
//!
//! All replicas of the richest primaries see the same orphan, and only the one with the smallest name moves. That is
//! agreement enough: if views differ two may move, and one of them moves on later.

use std::collections::BTreeMap;

use super::Machine;
use crate::event::Actions;
use crate::node::{Flags, NodeKey};

/// Time for which a primary must have been without a replica: a failover may be going on.
const ORPHAN_MS: u64 = 5_000;

/// Fewest working replicas of a primary that gives one away.
const GIVER_REPLICAS_MIN: usize = 2;

/// Working replicas of each primary, counted anew at each tick.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    working: BTreeMap<NodeKey, usize>,
}

impl Machine {
    /// Moves this replica to an orphaned primary, if it is the one to move.
    pub(super) fn consider_migration(&mut self, actions: &mut Actions) {
        self.count_working_replicas();
        let richest = self.orphans.working.values().copied().max().unwrap_or_default();
        let Some(primary) = self.view.me().primary else {
            return;
        };
        let target = self.find_orphan();
        let siblings = self.working_replicas(primary);
        let is_giver =
            siblings == richest && richest >= GIVER_REPLICAS_MIN && siblings > self.options.migration_barrier;
        if !self.options.allow_replica_migration || !self.view.is_ok || !is_giver {
            return;
        }
        if let Some(target) = target
            && self.is_smallest_of_the_richest(richest)
        {
            actions.notice(format!("Migrating to orphaned master {}", self.view[target].id));
            self.become_replica(target, actions);
        }
    }

    fn count_working_replicas(&mut self) {
        self.orphans.working.clear();
        for (_, node) in self.view.nodes() {
            let Some(primary) = node.primary.filter(|_| node.is_replica() && !node.is_failing()) else {
                continue;
            };
            *self.orphans.working.entry(primary).or_default() += 1;
        }
    }

    fn working_replicas(&self, primary: NodeKey) -> usize {
        self.orphans.working.get(&primary).copied().unwrap_or_default()
    }

    /// A working primary with slots that had replicas and has had none that works for a while.
    fn find_orphan(&mut self) -> Option<NodeKey> {
        let now_ms = self.now.monotonic_ms;
        let mut found = None;
        for index in 0..self.view.len() {
            let key = self.view.keys()[index];
            let node = &self.view[key];
            let is_orphan = node.is_voter()
                && node.flags.contains(Flags::MIGRATE_TO)
                && !node.is_failing()
                && self.working_replicas(key) == 0;
            let orphaned_ms = match (is_orphan, node.orphaned_ms) {
                (false, _) => 0,
                (true, 0) => now_ms,
                (true, since_ms) => since_ms,
            };
            self.view[key].orphaned_ms = orphaned_ms;
            if is_orphan && now_ms - orphaned_ms > ORPHAN_MS && found.is_none() {
                found = Some(key);
            }
        }
        found
    }

    fn is_smallest_of_the_richest(&self, richest: usize) -> bool {
        let candidates = self.view.nodes().filter(|(_, node)| {
            let primary = node.primary.filter(|_| node.is_replica() && !node.is_failing());
            primary.is_some_and(|primary| self.working_replicas(primary) == richest)
        });
        candidates.map(|(_, node)| node.id).min() == Some(self.view.me().id)
    }
}
