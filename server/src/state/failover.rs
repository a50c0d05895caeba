//! FAILOVER: the steps by which a primary hands its role over to one of its replicas, without losing a write that it has acknowledged.
//!
//! Writes are held back from the beginning. When all that was admitted before is in the journal, and a replica has acknowledged the end of
//! that, the node follows this replica. Its link asks the replica to be the primary; the answer ends the handover, and clients that waited
//! to write are told that they may not do so here.

use std::sync::Arc;

use super::{Node, PauseCauses};
use crate::config::Primary;
use crate::error::ReplyError;
use crate::replication::{Asked, FailoverStage, Replica, Stage};

impl Node {
    /// Begins to hand the role over, as FAILOVER asks.
    ///
    /// # Errors
    /// When that is not possible now.
    pub(crate) fn begin_failover(&self, mut asked: Asked) -> Result<(), ReplyError> {
        let failover = &self.replication.failover;
        let mut place = failover.lock();
        self.check_failover(&asked)?;
        asked.until_us = asked.timeout_us.map(|us| self.clock.now_us() + us);
        match &asked.target {
            Some((host, port)) => self
                .log
                .notice(format_args!("FAILOVER requested to {host}:{port}.")),
            None => self
                .log
                .notice(format_args!("FAILOVER requested to any replica.")),
        }
        // In this order: a loop that sees the request admits no further writes.
        self.pause.hold(PauseCauses::FAILOVER);
        asked.fence = self.fence.ask();
        *place = Some(asked);
        failover.enter(FailoverStage::WaitsForSync, &mut place);
        drop(place);
        self.ring_all();
        Ok(())
    }

    /// Checks that a handover can begin.
    fn check_failover(&self, asked: &Asked) -> Result<(), ReplyError> {
        let error = |text| Err(ReplyError::Fixed(text));
        if self.replication.failover.stage() != FailoverStage::None {
            return error("ERR FAILOVER already in progress.");
        }
        if self.replication.following.is_replica() {
            return error("ERR FAILOVER is not valid when server is a replica.");
        }
        if self.replication.replicas.count() == 0 {
            return error("ERR FAILOVER requires connected replicas.");
        }
        if asked.insists && (asked.timeout_us.is_none() || asked.target.is_none()) {
            return error("ERR FAILOVER with force option requires both a timeout and target HOST and IP.");
        }
        let Some(target) = &asked.target else {
            return Ok(());
        };
        match self.replication.replicas.find(target) {
            None => error("ERR FAILOVER target HOST and PORT is not a replica."),
            Some(replica) if replica.stage() != Stage::Follows => {
                error("ERR FAILOVER target replica is not online.")
            }
            Some(_) => Ok(()),
        }
    }

    /// Goes on with a handover, if it need not wait any more. Called by the links whenever something has come.
    pub(crate) fn look_at_failover(&self) {
        let failover = &self.replication.failover;
        if failover.stage() == FailoverStage::None {
            return;
        }
        let mut place = failover.lock();
        let Some(asked) = place.as_mut() else { return };
        let is_late = asked
            .until_us
            .is_some_and(|until_us| self.clock.now_us() >= until_us);
        match failover.stage() {
            FailoverStage::None => {}
            FailoverStage::UnderWay => {
                // One that was asked may be the primary by now: then the answer must be waited for.
                if is_late && !asked.was_told {
                    self.give_up_failover(&mut place, "Failover target cannot be reached");
                }
            }
            FailoverStage::WaitsForSync if is_late && !asked.insists => {
                self.give_up_failover(&mut place, "Replica never caught up before timeout");
            }
            FailoverStage::WaitsForSync if is_late => {
                if let Some((host, port)) = &asked.target {
                    self.log.notice(format_args!(
                        "Failover to {host}:{port} time out exceeded, failing over."
                    ));
                }
                self.follow_target(&mut place);
            }
            FailoverStage::WaitsForSync => {
                let Some(replica) = self.synced_replica(asked) else {
                    return;
                };
                let (host, port) = (replica.address.clone(), replica.port);
                self.log.notice(format_args!(
                    "Failover target {host}:{port} is synced, failing over."
                ));
                asked.target = Some((host, port));
                self.follow_target(&mut place);
            }
        }
    }

    /// A replica that has everything and may be the target.
    fn synced_replica(&self, asked: &Asked) -> Option<Arc<Replica>> {
        // In this order: what was admitted before may still move the end.
        if !self.fence.has_passed(asked.fence) {
            return None;
        }
        let end = self.journal.end().offset();
        let mut all = self.replication.replicas.all();
        all.retain(|replica| {
            let is_wanted = match &asked.target {
                Some(target) => replica.is_at(target),
                None => replica.port != 0,
            };
            is_wanted && replica.stage() == Stage::Follows && replica.acknowledged() == end
        });
        all.into_iter().next()
    }

    /// Becomes the replica of the target.
    fn follow_target(&self, place: &mut Option<Asked>) {
        let failover = &self.replication.failover;
        let Some(asked) = place else { return };
        let target = asked.target.clone().and_then(|(host, port)| {
            let port = u16::try_from(port).ok()?;
            Some(Primary { host, port })
        });
        let Some(primary) = target else {
            return self.give_up_failover(place, "Failover target listens on no port");
        };
        asked.until_us = asked.timeout_us.map(|us| self.clock.now_us() + us);
        failover.enter(FailoverStage::UnderWay, place);
        self.audit_topology(&format!(
            "hands its role over to {}:{}",
            primary.host, primary.port
        ));
        self.follow(Some(primary), true);
    }

    /// Gives a handover up, as FAILOVER ABORT asks; false when there is none.
    pub(crate) fn abort_failover(&self, reason: &str) -> bool {
        let mut place = self.replication.failover.lock();
        let is_there = place.is_some();
        if is_there {
            self.give_up_failover(&mut place, reason);
        }
        is_there
    }

    fn give_up_failover(&self, place: &mut Option<Asked>, reason: &str) {
        let failover = &self.replication.failover;
        let target = place.as_ref().and_then(|asked| asked.target.as_ref());
        match target {
            Some((host, port)) => self
                .log
                .notice(format_args!("FAILOVER to {host}:{port} aborted: {reason}")),
            None => self
                .log
                .notice(format_args!("FAILOVER to any replica aborted: {reason}")),
        }
        let was_under_way = failover.stage() == FailoverStage::UnderWay;
        failover.enter(FailoverStage::None, place);
        if was_under_way {
            // Writes wait on until the node is a primary again.
            self.audit_topology("is a primary again, as the handover of its role was given up");
            self.follow(None, false);
        }
        self.release_failover();
    }

    /// Ends a handover: the target is the primary.
    pub(crate) fn end_failover(&self) {
        let failover = &self.replication.failover;
        let mut place = failover.lock();
        if place.is_none() {
            return;
        }
        failover.enter(FailoverStage::None, &mut place);
        drop(place);
        self.release_failover();
    }

    fn release_failover(&self) {
        self.pause.release(PauseCauses::FAILOVER);
        self.ring_all();
    }
}
