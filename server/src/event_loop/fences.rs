//! Fences: a loop reports when all that it had admitted before some moment has run, here and on other shards.
//!
//! Work that is under way belongs to the *era* in which it was begun. A fence closes the present era and waits for the end of its work,
//! while what is admitted meanwhile belongs to the next one: loops pass fences that are never quiet. Two eras have work at most, as the
//! next one is closed when the one before has ended.

use super::EventLoop;
use super::reach::{Reach, Work};
use crate::connection::Gate;
use crate::exec::Part;
use crate::journal::Position;
use crate::shard::inbox::{Batch, Message, PartRun};

/// Eras of a loop's work.
#[derive(Debug)]
pub(super) struct Eras {
    /// The first era that may have work: the present one, or the one before it.
    oldest: u64,
    /// The era of what is begun now.
    present: u64,
    /// Batches under way on other shards: those of even eras, and those of odd ones.
    batches: [u32; 2],
    /// Number of times that this shard's partition was seen here without stuck keys.
    sightings: u64,
}

/// A moment in a loop's work.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    era: u64,
    sightings: u64,
}

/// A fence of a client that waits for the end of what was under way at its mark.
#[derive(Clone, Copy, Debug)]
pub(super) struct Awaited {
    /// Index of the loop that asks.
    origin: usize,
    /// The asking loop's number for the gathering.
    gathering: usize,
    mark: Mark,
}

/// The fence of the node that a loop is to pass next.
#[derive(Clone, Copy, Debug)]
pub(super) struct OfNode {
    number: u64,
    mark: Mark,
    /// All loops have run out: nothing more makes keys stuck.
    is_behind_all: bool,
}

impl Default for Eras {
    fn default() -> Self {
        Self {
            oldest: 1,
            present: 1,
            batches: [0; 2],
            sightings: 0,
        }
    }
}

impl Eras {
    /// The era of what is begun now.
    #[inline]
    pub(super) fn present(&self) -> u64 {
        self.present
    }

    /// This moment.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            era: self.present,
            sightings: self.sightings,
        }
    }

    /// Notes that a batch of an era goes to another shard.
    #[inline]
    pub(super) fn note_sent(&mut self, era: u64) {
        self.batches[parity(era)] += 1;
    }

    /// Notes that it is back.
    #[inline]
    pub(super) fn note_back(&mut self, era: u64) {
        self.batches[parity(era)] -= 1;
    }

    /// Whether all work of an era has run, and of those before it. `has_work` tells it of what is not a batch on another shard. The
    /// present era is closed first.
    fn has_ended(&mut self, era: u64, has_work: impl Fn(u64) -> bool) -> bool {
        debug_assert!(era <= self.present, "nothing is asked about work to come");
        while era >= self.oldest {
            if self.oldest == self.present {
                self.present += 1;
            }
            if self.batches[parity(self.oldest)] > 0 || has_work(self.oldest) {
                return false;
            }
            self.oldest += 1;
        }
        true
    }
}

/// Place of an era among those that have work.
#[inline]
fn parity(era: u64) -> usize {
    (era % 2) as usize
}

impl Reach {
    /// Whether all work of an era has run, and of those before it.
    fn has_ended(&mut self, era: u64) -> bool {
        let Self {
            eras,
            operations,
            operations_behind,
            operations_behind_script,
            waiting,
            behind_snapshot,
            own,
            ..
        } = self;
        eras.has_ended(era, |era| {
            let is_of_it = |batch: &Batch| batch.origin == *own && batch.era <= era;
            operations.iter().any(|(_, operation)| operation.era <= era)
                || operations_behind
                    .iter()
                    .chain(&*operations_behind_script)
                    .any(|operation| operation.era <= era)
                || waiting
                    .iter()
                    .any(|work| matches!(work, Work::Run(batch) if is_of_it(batch)))
                || behind_snapshot.iter().any(|batch| is_of_it(batch))
        })
    }
}

impl EventLoop {
    /// Sends the reply of a command once everything that was admitted before it has run, on every loop. All loops see
    /// the command's change already, and admit nothing more that it forbids.
    pub(super) fn begin_fence(&mut self, number: usize, sequence: u32, reply: Vec<u8>) {
        self.clients[number].gate = Gate::UnderWay;
        let gathering = self.gather_for_fence(number, sequence, reply);
        let origin = self.index;
        self.await_fence(origin, gathering);
        for shard in (0..self.reach.mesh.len()).filter(|&shard| shard != origin) {
            self.reach.send(shard, Message::Fence { origin, gathering });
        }
    }

    /// Takes a fence in, to pass it when all that was admitted before has run.
    pub(super) fn await_fence(&mut self, origin: usize, gathering: usize) {
        let mark = self.reach.eras.mark();
        self.reach.fences.push(Awaited {
            origin,
            gathering,
            mark,
        });
    }

    /// Reports to the waiting fences if everything has run that this loop had admitted before them.
    pub(super) fn pass_fences(&mut self) {
        if self.reach.fences.is_empty() {
            return;
        }
        let mut fences = std::mem::take(&mut self.reach.fences);
        let passed = fences.iter().take_while(|fence| self.has_run(fence.mark)).count();
        if passed > 0 {
            self.follow_users();
        }
        for Awaited {
            origin, gathering, ..
        } in fences.drain(..passed)
        {
            let part = PartRun {
                result: Ok(Part::default()),
                nanos: 0,
                end: Position::default(),
            };
            self.send_part(origin, gathering, part);
        }
        fences.append(&mut self.reach.fences);
        self.reach.fences = fences;
    }

    /// Reports to the node's own fence.
    pub(super) fn pass_fence_of_node(&mut self) {
        while let Some(number) = self.node.fence.asked_of(self.index) {
            let asked = OfNode {
                number,
                mark: self.reach.eras.mark(),
                is_behind_all: false,
            };
            let mut next = *self.reach.fence_of_node.get_or_insert(asked);
            if !next.is_behind_all {
                if !self.has_run_out(next) {
                    return;
                }
                next = OfNode {
                    mark: asked.mark,
                    is_behind_all: true,
                    ..next
                };
                self.reach.fence_of_node = Some(next);
            }
            if self.has_stuck_keys(next.mark) {
                return;
            }
            self.reach.fence_of_node = None;
            self.node.fence.pass(self.index, next.number);
        }
    }

    /// Whether all loops have run what they had admitted before a fence of the node.
    fn has_run_out(&mut self, next: OfNode) -> bool {
        if !self.reach.has_ended(next.mark.era) {
            return false;
        }
        if self.node.fence.run_out(self.index, next.number) {
            self.node.ring_all();
        }
        self.node.fence.have_run_out(next.number)
    }

    /// Whether everything has run that this loop had admitted up to the end of the era of a mark.
    pub(super) fn has_run(&mut self, mark: Mark) -> bool {
        self.reach.has_ended(mark.era) && !self.has_stuck_keys(mark)
    }

    /// Whether a waiting command of this shard is still to be served with a shard that is taken. The partition may be lent whenever this
    /// loop looks: then it counts that it was here after the mark.
    fn has_stuck_keys(&mut self, mark: Mark) -> bool {
        let has_stuck = self.look_for_stuck_keys();
        has_stuck.unwrap_or(self.reach.eras.sightings == mark.sightings)
    }

    /// Whether a waiting command of this shard is still to be served with a shard that is taken; none while the partition is lent.
    pub(super) fn look_for_stuck_keys(&mut self) -> Option<bool> {
        let mut held = self.reach.mesh.cell(self.index).own()?;
        let has_stuck = held.get().door.waiters.has_stuck();
        if !has_stuck {
            self.reach.eras.sightings += 1;
        }
        Some(has_stuck)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: fn(u64) -> bool = |_| false;

    #[test]
    fn an_era_ends_while_later_ones_have_work() {
        let mut eras = Eras::default();
        let first = eras.present();
        eras.note_sent(first);
        assert!(!eras.has_ended(first, NOTHING));
        let second = eras.present();
        assert_ne!(first, second, "what is begun now does not count");
        eras.note_sent(second);
        assert!(!eras.has_ended(second, NOTHING), "the first has work");
        eras.note_back(first);
        assert!(eras.has_ended(first, NOTHING));
        assert!(!eras.has_ended(second, NOTHING), "it was closed, and has work");
        let third = eras.present();
        assert_ne!(second, third);
        eras.note_sent(third);
        assert!(!eras.has_ended(third, NOTHING), "the second has work");
        assert_eq!(eras.present(), third, "two eras have work at most");
        eras.note_back(second);
        assert!(eras.has_ended(second, NOTHING));
        assert!(!eras.has_ended(third, NOTHING));
        eras.note_back(third);
        assert!(eras.has_ended(third, NOTHING));
    }

    #[test]
    fn work_that_is_no_batch_counts() {
        let mut eras = Eras::default();
        let era = eras.present();
        assert!(!eras.has_ended(era, |asked| asked == era));
        assert!(!eras.has_ended(era, |asked| asked <= era));
        assert!(eras.has_ended(era, |asked| asked > era), "that is of later eras");
    }

    #[test]
    fn a_loop_without_work_passes_at_once() {
        let mut eras = Eras::default();
        for _ in 0..3 {
            let era = eras.present();
            assert!(eras.has_ended(era, NOTHING));
        }
    }
}
