//! Schedules of faults: the same things happen to a cluster of any kind, under the same load, and what was lost is counted.

use std::fmt::{self, Display, Formatter};
use std::time::{Duration, Instant};

use super::audit::Audit;
use super::load::{Load, Work};
use super::{Cluster, Plan};
use crate::replication::member::Kind;

/// Node timeout under faults.
const TIMEOUT_MS: u64 = 2_000;

/// Writes before a fault, and after each of its turns. Where a replica is waited for that has gone, they take long.
const WRITES: u64 = 400;
const WRITES_WITH_WAIT: u64 = 100;

/// A fault of one or more primaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They are killed, and started again when others have taken over.
    Kill,
    /// They are stopped, and go on when others have taken over.
    Stop,
    /// They no longer hear the other nodes, nor these them; clients and replicas reach all.
    Cut,
    /// All nodes of the cluster are killed at once, and started again.
    KillAll,
    /// They are killed and lose all their files; others take over, and newcomers become their replicas.
    Wipe,
}

/// A cluster, its load and its fault.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Kinds of the nodes, primaries first.
    pub kinds: Vec<Kind>,
    /// Number of primaries; the other nodes are their replicas.
    pub primaries: usize,
    /// Primaries that the fault strikes.
    pub victims: usize,
    /// The fault.
    pub fault: Fault,
    /// Replicas that must have a write before it counts as acknowledged.
    pub wait: i64,
}

/// Result of a schedule.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Writes that were kept and lost.
    pub audit: Audit,
    /// Time until others had taken over.
    pub takeover: Option<Duration>,
    /// The longest time that a list had to wait for its next acknowledgement.
    pub pause_max: Duration,
}

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let takeover = self.takeover.map_or_else(
            || "no takeover".to_owned(),
            |time| format!("takeover in {time:.1?}"),
        );
        write!(
            f,
            "{}; {takeover}, longest pause {:.1?}",
            self.audit, self.pause_max
        )
    }
}

impl Schedule {
    /// Three primaries with a replica each, of which one primary is struck.
    #[must_use]
    pub fn of(kind: Kind, fault: Fault) -> Schedule {
        Schedule {
            kinds: vec![kind; 6],
            primaries: 3,
            victims: 1,
            fault,
            wait: 0,
        }
    }

    /// Has a write count only when so many replicas have it.
    #[must_use]
    pub fn wait(mut self, replicas: i64) -> Schedule {
        self.wait = replicas;
        self
    }

    /// Strikes so many of so many primaries, which have a replica each.
    #[must_use]
    pub fn victims(mut self, victims: usize, primaries: usize) -> Schedule {
        self.kinds = vec![self.kinds[0]; 2 * primaries];
        self.primaries = primaries;
        self.victims = victims;
        self
    }

    /// Lets it happen.
    ///
    /// # Panics
    /// When the cluster does not come to be whole again, or has what was never written.
    #[must_use]
    pub fn run(&self) -> Outcome {
        let mut cluster = self.plan().create();
        let work = Work {
            wait: self.wait,
            ..Work::default()
        };
        let load = Load::start(&cluster, work);
        let writes = if self.wait > 0 { WRITES_WITH_WAIT } else { WRITES };
        load.await_more(writes);
        let victims = cluster.primaries(0)[..self.victims].to_vec();
        let takeover = self.strike(&mut cluster, &victims);
        load.await_more(writes);
        self.relent(&mut cluster, &victims);
        cluster.await_whole();
        load.await_more(writes);
        let written = load.stop();
        let outcome = Outcome {
            audit: Audit::of(&written.ledger, &mut cluster.client()),
            takeover,
            pause_max: written.pause_max,
        };
        outcome.audit.assert_sound();
        outcome
    }

    fn plan(&self) -> Plan {
        let replicas = self.kinds.len() / self.primaries - 1;
        let plan = Plan::of(&self.kinds).replicas(replicas).timeout_ms(TIMEOUT_MS);
        match self.fault {
            Fault::Cut => plan.severable(),
            Fault::KillAll => plan.with(&["appendonly yes", "appendfsync always"]),
            Fault::Kill | Fault::Stop | Fault::Wipe => plan,
        }
    }

    /// Begins the fault, and waits until the cluster has come to terms with it.
    fn strike(&self, cluster: &mut Cluster, victims: &[usize]) -> Option<Duration> {
        let others: Vec<usize> = (0..cluster.len())
            .filter(|index| !victims.contains(index))
            .collect();
        let start = Instant::now();
        match self.fault {
            Fault::Kill | Fault::Wipe => victims
                .iter()
                .for_each(|&victim| cluster.member_mut(victim).kill()),
            Fault::Stop => victims.iter().for_each(|&victim| cluster.member(victim).freeze()),
            Fault::Cut => cluster.bus().split(victims, &others),
            Fault::KillAll => {
                (0..cluster.len()).for_each(|index| cluster.member_mut(index).kill());
                (0..cluster.len()).for_each(|index| cluster.member_mut(index).start_again());
                cluster.await_agreement(&cluster.running());
                return None;
            }
        }
        await_takeover(cluster, victims, &others);
        Some(start.elapsed())
    }

    /// Ends the fault.
    fn relent(&self, cluster: &mut Cluster, victims: &[usize]) {
        match self.fault {
            Fault::Kill => victims
                .iter()
                .for_each(|&victim| cluster.member_mut(victim).start_again()),
            Fault::Stop => victims.iter().for_each(|&victim| cluster.member(victim).thaw()),
            Fault::Cut => cluster.bus().heal(),
            Fault::KillAll => {}
            Fault::Wipe => {
                forget(cluster, victims);
                victims.iter().for_each(|&victim| replace(cluster, victim));
            }
        }
    }
}

/// Waits until other nodes own the slots of the victims, and those that are left agree.
///
/// # Panics
/// When that does not happen.
pub fn await_takeover(cluster: &Cluster, victims: &[usize], others: &[usize]) {
    cluster.await_that("a takeover", || {
        let view = super::view::View::of(cluster.member(others[0]))?;
        view.is_served()?;
        let owners = view.lines.iter().filter(|line| !line.slots.is_empty());
        let owner = owners
            .filter_map(|line| cluster.index_of(line))
            .find(|index| victims.contains(index));
        owner.map_or(Ok(()), |owner| Err(format!("node {owner} still owns slots")))
    });
}

/// Has all nodes that are left forget those that are gone. All of them at once and first of all: newcomers never hear of a node that
/// is dead already, so that they could not be told to forget it.
fn forget(cluster: &Cluster, gone: &[usize]) {
    let running = cluster.running();
    let view = cluster.await_agreement(&running);
    for &victim in gone {
        let port = cluster.member(victim).port();
        let old = view.lines.iter().find(|line| line.port == port);
        let old = &old.expect("the cluster knows it").id;
        for &index in &running {
            let reply = cluster.member(index).client().call(&["CLUSTER", "FORGET", old]);
            assert_eq!(reply.text(), "OK", "CLUSTER FORGET at node {index}");
        }
    }
}

/// Starts a node again without any of its files; it joins as the replica that its old self would now be.
fn replace(cluster: &mut Cluster, victim: usize) {
    let running = cluster.running();
    cluster.await_agreement(&running);
    let heir = cluster.primary_without_replica(running[0]);
    cluster.member(victim).forget_everything();
    cluster.member_mut(victim).start_again();
    cluster.introduce(victim);
    cluster.join_as_replica(victim, heir, heir);
}
