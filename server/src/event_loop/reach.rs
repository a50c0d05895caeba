//! [`Reach`]: a loop's work under way on other shards and loops, and the work that waits here for this shard's
//! partition.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use slab::Slab;

use super::EventLoop;
use super::fences::{Awaited, Eras, OfNode};
use super::gather::Gathering;
use super::lend::Operation;
use super::scripts::Aside;
use crate::cluster::{SeenMap, SlotMap};
use crate::config::Settings;
use crate::dispatch::account;
use crate::dispatch::behind_snapshot::Queue;
use crate::dispatch::execution::Environment;
use crate::exec::waiter::{Outbox, Retry, Ticket};
use crate::exec::{Reload, Stamp};
use crate::journal::Recorder;
use crate::shard::Mesh;
use crate::shard::inbox::{Batch, Gather, Message, Walking};
use crate::state::Node;

/// One loop's access to the shards of the node, and its work under way there.
#[derive(Debug)]
pub(super) struct Reach {
    /// The shard of this loop.
    pub(super) own: usize,
    /// All shards.
    pub(super) mesh: Arc<Mesh>,
    /// Work for this shard that waits until its partition is back.
    pub(super) waiting: VecDeque<Work>,
    /// Commands for this shard that wait for a snapshot.
    #[expect(clippy::vec_box, reason = "batches travel as boxes")]
    pub(super) behind_snapshot: Vec<Box<Batch>>,
    /// Operations of this loop that wait for a snapshot.
    pub(super) operations_behind: Vec<Operation>,
    /// Operations of this loop that wait until a script lets go of the interpreter.
    pub(super) operations_behind_script: Vec<Operation>,
    /// Keys of this shard, for which commands wait, are stuck until a snapshot has saved more.
    pub(super) serves_behind: bool,
    /// The work that waits can go on: a turn had no time for it, and the partition is here unless it was lent since.
    pub(super) goes_on: bool,
    /// Commands over several shards that connections of this loop wait for.
    pub(super) operations: Slab<Operation>,
    /// The script of this loop that is not at its end.
    pub(super) script: Option<Aside>,
    /// Number of changes among long scripts that the loop knows of.
    pub(super) script_changes: u64,
    /// Commands over all shards or loops that connections of this loop wait for.
    pub(super) gatherings: Slab<Gathering>,
    /// Number of batches under way, by shard: while there are any, further commands are sent as batches as well, to
    /// keep the order.
    pub(super) under_way: Vec<u32>,
    /// Results of serving tickets that have not been handled yet.
    pub(super) outbox: RefCell<Outbox>,
    /// The map of slots, in a cluster.
    pub(super) slots: Option<Arc<SlotMap>>,
    /// The node may have been suspended, so that the map may be wrong.
    pub(super) is_stale: bool,
    /// Records the effects of what this loop runs.
    pub(super) recorder: Recorder,
    /// Records nothing.
    silent: Recorder,
    /// Reads the node's files again.
    pub(super) reload: Option<Arc<dyn Reload>>,
    /// Eras of the work under way.
    pub(super) eras: Eras,
    /// Fences that wait until everything admitted before them has run.
    pub(super) fences: Vec<Awaited>,
    /// The fence of the node that this loop is to pass next.
    pub(super) fence_of_node: Option<OfNode>,
}

/// Work that needs this shard's partition.
#[derive(Debug)]
pub(super) enum Work {
    Run(Box<Batch>),
    Lend {
        borrower: usize,
        operation: usize,
        is_urgent: bool,
    },
    Gather(Arc<Gather>),
    Walk(Box<Walking>),
    Withdraw(Arc<Ticket>),
    Serve(Retry),
}

impl Reach {
    /// The reach of the loop of shard `own`, with no work under way.
    pub(super) fn new(own: usize, mesh: Arc<Mesh>, recorder: Recorder) -> Self {
        Self {
            own,
            waiting: VecDeque::new(),
            behind_snapshot: Vec::new(),
            operations_behind: Vec::new(),
            operations_behind_script: Vec::new(),
            serves_behind: false,
            goes_on: false,
            operations: Slab::new(),
            script: None,
            script_changes: 0,
            gatherings: Slab::new(),
            under_way: vec![0; mesh.len()],
            outbox: RefCell::default(),
            slots: None,
            is_stale: false,
            recorder,
            silent: Recorder::default(),
            reload: None,
            eras: Eras::default(),
            fences: Vec::new(),
            fence_of_node: None,
            mesh,
        }
    }

    /// Sends a batch to the loop of its shard.
    pub(super) fn send_batch(&mut self, batch: Box<Batch>) {
        self.note_sent(&batch);
        self.send(batch.target, Message::Run(batch));
    }

    /// Notes that a batch is under way on another shard.
    pub(super) fn note_sent(&mut self, batch: &Batch) {
        self.under_way[batch.target] += 1;
        self.eras.note_sent(batch.era);
    }

    /// Notes that a batch is under way no more.
    pub(super) fn note_back(&mut self, batch: &Batch) {
        self.under_way[batch.target] -= 1;
        self.eras.note_back(batch.era);
    }

    /// Sends a message to a loop.
    pub(super) fn send(&self, shard: usize, message: Message) {
        self.mesh.send(shard, message);
    }

    /// The commands that wait for a snapshot, as those of this loop see them that run on a shard in place.
    pub(super) fn queue_on(&self, shard: usize) -> Queue<'_> {
        // If a command of this loop waits on another shard, that one is not borrowed.
        let is_own = shard == self.own;
        let batches = if is_own {
            self.behind_snapshot.as_slice()
        } else {
            &[]
        };
        Queue {
            origin: self.own,
            batches,
        }
    }

    /// The map of slots as this turn sees it, in a cluster.
    #[inline]
    pub(super) fn seen_slots(&self) -> Option<SeenMap<'_>> {
        Some(self.slots.as_ref()?.seen(self.is_stale))
    }

    /// The environment of the commands that run on this loop now.
    #[inline]
    pub(super) fn environment<'a>(
        &'a self,
        node: &'a Node,
        settings: &'a Settings,
        (stamp, looked_ns): (Stamp, u64),
    ) -> Environment<'a> {
        Environment {
            hashing: node.hashing,
            stamp: stamp.renewed(node, settings),
            settings,
            shards: node.shards,
            node,
            slots: self.seen_slots(),
            looked_ns,
            clock: &node.clock,
            stats: &node.stats[self.own],
            slow_from_ns: account::slow_from_ns(settings),
            mesh: &self.mesh,
            reload: self.reload.as_deref(),
            outbox: &self.outbox,
            recorder: &self.recorder,
            silent: &self.silent,
            reply_bytes_max: settings.client_output_buffer_limit.reply_bytes_max(),
        }
    }
}

impl EventLoop {
    /// Does work that needs this shard's partition, or queues it until the partition is back or there is time for it.
    pub(super) fn work(&mut self, work: Work) {
        if let Work::Lend { is_urgent: true, .. } = work {
            if let Err(work) = self.try_work(work) {
                self.reach.waiting.push_front(work);
            }
            return;
        }
        if !self.reach.waiting.is_empty() {
            return self.reach.waiting.push_back(work);
        }
        if matches!(work, Work::Run(_)) && self.is_turn_over() {
            self.reach.goes_on = true;
            return self.reach.waiting.push_back(work);
        }
        if let Err(work) = self.try_work(work) {
            self.reach.waiting.push_back(work);
        }
    }

    /// Does the queued work of this shard after its partition came back, until it is lent again.
    pub(super) fn returned(&mut self) {
        // The owner must look for its partition once, before other loops may borrow it again.
        self.look_for_stuck_keys();
        self.do_waiting();
    }

    /// Does queued work that an earlier turn had no time for.
    pub(super) fn go_on(&mut self) {
        if self.reach.goes_on {
            self.do_waiting();
        }
    }

    /// Does queued work as long as the partition is here and the turn has time.
    fn do_waiting(&mut self) {
        self.reach.goes_on = false;
        while let Some(work) = self.reach.waiting.pop_front() {
            if let Err(work) = self.try_work(work) {
                return self.reach.waiting.push_front(work);
            }
            if self.reach.goes_on || self.is_turn_over() {
                self.reach.goes_on = !self.reach.waiting.is_empty();
                return;
            }
        }
    }

    /// Does the work, or returns it when the partition is lent.
    fn try_work(&mut self, work: Work) -> Result<(), Work> {
        match work {
            Work::Run(mut batch) => {
                let Some(done) = self.run_arrived(&mut batch) else {
                    return Err(Work::Run(batch));
                };
                let behind = batch.split_waiting();
                let rest = batch.split_off(done);
                self.send_back(batch);
                self.reach.behind_snapshot.extend(behind);
                if let Some(rest) = rest {
                    // Ahead of everything else: it came first.
                    self.reach.waiting.push_front(Work::Run(rest));
                    self.reach.goes_on = true;
                }
            }
            Work::Lend {
                borrower, operation, ..
            } => match self.reach.mesh.cell(self.index).take() {
                Some(partition) => self.reach.send(borrower, Message::Lent { operation, partition }),
                None => return Err(work),
            },
            Work::Withdraw(ticket) => {
                if !self.withdraw(&ticket) {
                    return Err(Work::Withdraw(ticket));
                }
            }
            Work::Serve(retry) => {
                if !self.serve_stuck(retry) {
                    return Err(Work::Serve(retry));
                }
            }
            Work::Walk(walking) => {
                if let Some(walking) = self.walk_on(walking) {
                    return Err(Work::Walk(walking));
                }
            }
            Work::Gather(gather) => {
                if !self.take_part_of_shard(&gather) {
                    return Err(Work::Gather(gather));
                }
            }
        }
        Ok(())
    }
}
