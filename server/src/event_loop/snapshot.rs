//! Saves slices of this loop's partition while a snapshot is under way, makes the cut of the next one, and answers clients that
//! wait for the end of a save.
//!
//! Slices are taken at the end of turns. While there are commands to run, they take a share of the time; otherwise one follows the
//! other, and so they do while a command waits for a large value that is saved in slices. What they save goes to the thread that writes it, for which no loop ever waits: while too much is on its way, or it is
//! another shard's turn to save a large value, the loop does not save.

use std::sync::Arc;

use shardis_protocol::Encoder;
use shardis_storage::keyspace::Progress;

use super::EventLoop;
use super::batches::count_memory;
use crate::connection::Gate;
use crate::exec::Partition;
use crate::exec::client::AwaitedSave;
use crate::limits::{SAVE_IDLE_SLICE_NS, SAVE_RETRY_US, SAVE_SHARE_PERCENT, SAVE_SLICE_NS, SAVE_STEP_BYTES};
use crate::saving::{Job, Purpose, Snapshot};

/// A loop's part in a snapshot.
#[derive(Debug, Default)]
pub(super) struct Saving {
    /// The snapshot, until the partition is rid of it.
    snapshot: Option<Arc<Snapshot>>,
    /// The node's news about snapshots that the loop has seen.
    version: u64,
    /// The partition knows that the snapshot was given up.
    is_given_up: bool,
    /// Time before which the loop does not save, Unix microseconds.
    rests_until_us: i64,
    /// The loop waits until its lane has room.
    is_full: bool,
    /// Commands wait for a large value of the snapshot, as the snapshot was told.
    is_awaited: bool,
    /// A job waits for its cut, which this loop makes.
    awaits_cut: bool,
    /// Time since which partitions were taken when a cut was to be made, on the node's stopwatch.
    pub(super) taken_since_ns: Option<u64>,
    /// The partitions are being lent for a cut.
    pub(super) is_lending: bool,
    /// Clients that wait for the end of a job.
    clients: Vec<SaveWait>,
}

/// A client that waits for the end of a job.
#[derive(Debug)]
struct SaveWait {
    save: AwaitedSave,
    connection: usize,
    /// Sequence number of its reply.
    sequence: u32,
    /// The reply if the job succeeds.
    reply: Vec<u8>,
}

impl Saving {
    /// Time at which the loop goes on, Unix microseconds; none if it has nothing to save, or waits to be woken.
    pub(super) fn next_us(&self) -> Option<i64> {
        (self.snapshot.is_some() && !self.is_full).then_some(self.rests_until_us)
    }

    /// Whether the loop may sleep, for all that it has to save.
    pub(super) fn may_sleep(&self, shard: usize) -> bool {
        match &self.snapshot {
            Some(snapshot) if self.is_full => !snapshot.lane(shard).flow.has_room(),
            _ => true,
        }
    }
}

/// Result of a slice.
struct Slice {
    progress: Progress,
    elapsed_ns: u64,
    /// Number of entries that were saved.
    entries: u64,
}

impl EventLoop {
    /// Saves a slice. `others_wait` if there were commands to run in this turn.
    pub(super) fn save(&mut self, others_wait: bool) {
        let version = self.node.persistence.version();
        if version != self.saving.version {
            self.saving.version = version;
            self.look_at_snapshot();
        }
        self.look_at_cut();
        self.save_next(others_wait);
        self.retry_behind();
    }

    fn save_next(&mut self, others_wait: bool) {
        let Some(snapshot) = self.saving.snapshot.clone() else {
            return;
        };
        if self.saving.is_full {
            if !snapshot.is_given_up() && !snapshot.lane(self.index).flow.has_room() {
                return;
            }
            self.saving.is_full = false;
        }
        // A snapshot that was given up is cleared away at once.
        if self.now_us >= self.saving.rests_until_us || snapshot.is_given_up() {
            self.save_slice(&snapshot, others_wait);
        }
    }

    /// Tries again what waits for a snapshot. Some of it may go on now.
    fn retry_behind(&mut self) {
        if !self.reach.behind_snapshot.is_empty() {
            self.retry_batches();
        }
        if !self.clients.behind_snapshot.is_empty() {
            let numbers = std::mem::take(&mut self.clients.behind_snapshot);
            self.try_again(numbers);
        }
        if !self.reach.operations_behind.is_empty() {
            self.resume_operations();
        }
        if self.reach.serves_behind {
            self.serve_behind_snapshot();
        }
    }

    fn retry_batches(&mut self) {
        let mut batches = std::mem::take(&mut self.reach.behind_snapshot).into_iter();
        while let Some(mut batch) = batches.next() {
            let Some(done) = self.run_arrived(&mut batch) else {
                // The partition is lent.
                self.reach.behind_snapshot.push(batch);
                return self.reach.behind_snapshot.extend(batches);
            };
            if batch.waiting.len() == done {
                // None has run.
                batch.waiting.clear();
                batch.ends.clear();
                self.reach.behind_snapshot.push(batch);
                continue;
            }
            let behind = batch.split_waiting();
            let rest = batch.split_off(done);
            self.send_back(batch);
            self.reach.behind_snapshot.extend(behind.into_iter().chain(rest));
        }
    }

    /// Whether something waits for a snapshot on this loop.
    fn has_behind(&self) -> bool {
        !self.reach.behind_snapshot.is_empty()
            || !self.clients.behind_snapshot.is_empty()
            || !self.reach.operations_behind.is_empty()
            || self.reach.serves_behind
    }

    /// Takes in news: another snapshot, jobs that have ended, or one that waits for its cut.
    fn look_at_snapshot(&mut self) {
        self.look_for_snapshot(0);
        self.answer_saved();
        if self.index == 0 {
            let (now_us, settings) = (self.now_us, &self.settings);
            self.node
                .persistence
                .begin_scheduled(now_us, || Job::dump(Purpose::Background, settings));
        }
    }

    /// Takes the current snapshot over, if there is one after that of the job `last`, and the loop has none.
    fn look_for_snapshot(&mut self, last: u64) {
        let saving = &mut self.saving;
        if saving.snapshot.is_none() {
            let current = self.node.persistence.current();
            saving.snapshot = current.filter(|snapshot| snapshot.number > last);
            saving.is_given_up = false;
            saving.is_awaited = false;
            saving.rests_until_us = 0;
        }
    }

    /// Makes the cut of the job that waits for one, on loop 0.
    fn look_at_cut(&mut self) {
        self.saving.awaits_cut = self.index == 0 && self.node.persistence.awaits_cut();
        if !self.saving.awaits_cut {
            self.saving.taken_since_ns = None;
        } else if !self.saving.is_lending && self.applying.is_settled() {
            self.begin_cut();
            self.saving.awaits_cut = self.node.persistence.awaits_cut();
        }
    }

    /// Has the partition save for the time of a slice.
    fn save_slice(&mut self, snapshot: &Arc<Snapshot>, others_wait: bool) {
        let mesh = Arc::clone(&self.reach.mesh);
        let Some(mut held) = mesh.cell(self.index).own() else {
            return self.rest_from_saving(SAVE_RETRY_US);
        };
        if !held.get().keyspace.has_snapshot() || held.get().snapshot != snapshot.number {
            // All is saved, or another cut has been made since; if there was one, its snapshot is the current one.
            self.saving.snapshot = None;
            drop(held);
            return self.look_for_snapshot(snapshot.number);
        }
        if snapshot.is_given_up() && !self.saving.is_given_up {
            held.get().give_up_snapshot();
            self.saving.is_given_up = true;
        }
        let is_awaited = held.get().keyspace.is_snapshot_awaited();
        if std::mem::replace(&mut self.saving.is_awaited, is_awaited) != is_awaited {
            snapshot.note_awaited(is_awaited);
        }
        let shares = others_wait && !is_awaited;
        let budget_ns = if shares { SAVE_SLICE_NS } else { SAVE_IDLE_SLICE_NS };
        let slice = self.save_for(held.get(), snapshot, budget_ns);
        drop(held);
        self.account_save(&slice, shares);
        match slice.progress {
            Progress::Done => {
                self.saving.snapshot = None;
                snapshot.finish_lane();
            }
            Progress::Held if !snapshot.lane(self.index).flow.has_room() => self.saving.is_full = true,
            Progress::Held => self.rest_from_saving(SAVE_RETRY_US),
            Progress::More => {}
        }
    }

    fn save_for(&self, partition: &mut Partition, snapshot: &Snapshot, budget_ns: u64) -> Slice {
        let flow = &snapshot.lane(self.index).flow;
        let clock = &self.node.clock;
        let (begin_ns, entries) = (clock.elapsed_ns(), flow.entries());
        let elapsed_ns = || clock.elapsed_ns() - begin_ns;
        let is_delayed = self.settings.rdb_key_save_delay != 0;
        let bytes = if is_delayed { 1 } else { SAVE_STEP_BYTES };
        let progress = count_memory(partition, &self.environment(), |partition| {
            loop {
                let progress = partition.save_some(bytes, |saved| snapshot.send(self.index, saved));
                if progress != Progress::More || is_delayed || elapsed_ns() >= budget_ns {
                    return progress;
                }
            }
        });
        Slice {
            progress,
            elapsed_ns: elapsed_ns(),
            entries: flow.entries() - entries,
        }
    }

    /// Rests after a slice, so that commands get their share of the time if it `shares` that, and for as long as `rdb-key-save-delay` wants.
    fn account_save(&mut self, slice: &Slice, shares: bool) {
        let share = SAVE_SHARE_PERCENT;
        // A slice of more time has been interrupted, which is no reason for a longer rest.
        let worked_ns = slice.elapsed_ns.min(4 * SAVE_IDLE_SLICE_NS);
        let rest_ns = if shares {
            worked_ns * (100 - share) / share
        } else {
            0
        };
        let entries = slice.entries.cast_signed();
        let delay_us = match i64::from(self.settings.rdb_key_save_delay) {
            // Shards save at the same time, a single child does not.
            delay @ 0.. => delay * entries * self.node.shards as i64,
            delay => entries / -delay,
        };
        self.rest_from_saving((rest_ns / 1000).cast_signed() + delay_us);
    }

    /// Keeps the reply of a client until a job has ended.
    pub(super) fn wait_for_save(
        &mut self,
        save: AwaitedSave,
        (connection, sequence): (usize, u32),
        reply: Vec<u8>,
    ) {
        self.clients[connection].gate = Gate::UnderWay;
        self.saving.clients.push(SaveWait {
            save,
            connection,
            sequence,
            reply,
        });
        self.answer_saved();
    }

    /// Answers the clients whose jobs have ended.
    fn answer_saved(&mut self) {
        if self.node.shutdown.is_requested() {
            // The client that asked for the shutdown gets no reply but the end of the connection.
            return;
        }
        let persistence = &self.node.persistence;
        let has_ended = |wait: &mut SaveWait| persistence.outcome(wait.save.number).is_some();
        let ended: Vec<SaveWait> = self.saving.clients.extract_if(.., has_ended).collect();
        for wait in ended {
            let succeeded = self.node.persistence.outcome(wait.save.number) == Some(true);
            self.answer_after_save(wait, succeeded);
        }
    }

    fn answer_after_save(&mut self, wait: SaveWait, succeeded: bool) {
        let number = wait.connection;
        // The connection still exists: it is closed only after its command has run.
        let connection = &mut self.clients[number];
        connection.gate = Gate::Open;
        match wait.save.failure.filter(|_| !succeeded) {
            None => connection.output.deliver(wait.sequence, &wait.reply),
            Some(error) => {
                let (out, start) = connection.output.begin_at(wait.sequence);
                Encoder::new(out, connection.client.resp).error(error.line());
                self.node.stats[self.index].answered_error(&error.line());
                connection.output.end(wait.sequence, start)
            }
        };
        self.clients.mark_dirty(number);
        self.clients.wake_if_it_may_go_on(number);
    }

    /// Whether the loop has something to save now.
    pub(super) fn is_saving(&self) -> bool {
        self.saving
            .next_us()
            .is_some_and(|next_us| next_us <= self.now_us)
    }

    /// Time at which the loop has to look again at what is saved, Unix microseconds.
    pub(super) fn saves_next_us(&self) -> Option<i64> {
        let retries = self.saving.awaits_cut || self.has_behind();
        let retry_us = retries.then_some(self.now_us + SAVE_RETRY_US);
        self.saving.next_us().into_iter().chain(retry_us).min()
    }

    /// Has the loop not save for a while. A manual clock stands still: with it, nothing rests.
    fn rest_from_saving(&mut self, us: i64) {
        let rests = us > 0 && self.node.clock.is_real();
        self.saving.rests_until_us = if rests { self.node.clock.now_us() + us } else { 0 };
    }
}
