//! The messages between loops, in one closed enum, and the batches and requests in them.

use std::sync::Arc;

use shardis_protocol::{Arguments, Requests, Span};
use shardis_storage::memory::Buffer;

use super::chunk::Chunk;
use super::poll::Socket;
use crate::error::ReplyError;
use crate::exec::CommandResult;
use crate::exec::departure::Landed;
use crate::exec::view::Lent;
use crate::exec::waiter::{Retry, Served, Ticket};
use crate::exec::{Modes, OwnedRequest, Part, Partition, Peer, Walk};
use crate::journal::Position;
use crate::limits::{BATCH_KEPT_BYTES, CHUNK_BYTES, CHUNKS_PER_TURN_MAX};
use crate::observe::slowlog::Slow;
use crate::spec::Registered;

/// A message to a loop.
#[derive(Debug)]
pub(crate) enum Message {
    /// Asks the loop to run these commands on its partition, and to send them back.
    Run(Box<Batch>),
    /// Returns commands that have run, with their replies.
    Done(Box<Batch>),
    /// Asks the loop to lend its partition to an operation.
    Lend {
        /// Index of the loop that asks.
        borrower: usize,
        /// Number of its operation.
        operation: usize,
        /// The request comes before all that waits for the partition.
        is_urgent: bool,
    },
    /// Asks the loop to give up a shard that a script needs.
    GiveWay(Box<GiveWay>),
    /// Brings the partition that an operation has asked for.
    Lent {
        /// Number of the operation.
        operation: usize,
        /// The partition.
        partition: Box<Partition>,
    },
    /// Brings the partitions of an operation back from a thread that did its errand.
    Back {
        /// Number of the operation.
        operation: usize,
        /// Partitions and reply.
        back: Box<Back>,
    },
    /// Tells the loop what became of the keys that an operation has sent to another node.
    Landed {
        /// Number of the operation.
        operation: usize,
        /// The outcome.
        landed: Landed,
    },
    /// Tells the loop that its shard's partition, which it found lent, is back in its cell.
    Returned,
    /// Asks the loop for its part of a command over all shards or loops.
    Gather(Arc<Gather>),
    /// Asks the loop to continue a walk over the shards, which has reached its shard.
    Walk(Box<Walking>),
    /// Brings a part of a command that the loop gathers.
    Gathered {
        /// The gathering loop's number for the command.
        gathering: usize,
        /// Index of the shard or loop that ran the part.
        from: usize,
        /// The part.
        part: PartRun,
    },
    /// Tells the loop that a command that waited has run, and is to be answered.
    Served(Box<Served>),
    /// Asks the loop to remove this ticket from its queues.
    Withdraw(Arc<Ticket>),
    /// Asks the loop, whose shard is one of the two, to serve the ready keys of one that need the other.
    Serve(Retry),
    /// Asks the loop to report, as its part of a gathering, when all commands that it has admitted so far have run.
    Fence {
        /// Index of the loop that asks.
        origin: usize,
        /// The asking loop's number for the gathering.
        gathering: usize,
    },
    /// Brings lines for the monitors on the loop.
    Monitor(Arc<[u8]>),
    /// Brings a new connection for the loop.
    Connect {
        /// Its socket.
        socket: Socket,
        /// Address of the client.
        peer: Peer,
    },
}

/// Request of a script that has changed something and needs a further shard.
#[derive(Clone, Debug)]
pub(crate) struct GiveWay {
    /// The shard.
    pub(crate) shard: usize,
    /// Shards that it has.
    pub(crate) holds: Vec<usize>,
    /// Time since which it waits, and its loop: the lesser one comes first.
    pub(crate) rank: (u64, usize),
    /// The wait has lasted for so long that it may be part of a larger circle.
    pub(crate) is_impatient: bool,
}

/// End of an errand.
#[derive(Debug)]
pub(crate) struct Back {
    /// The partitions that it was done on.
    pub(crate) lent: Lent,
    /// The reply: OK or an error.
    pub(crate) result: CommandResult,
    /// Time that it took, nanoseconds.
    pub(crate) nanos: u64,
}

/// A command over all shards or loops, as each of them receives it.
#[derive(Debug)]
pub(crate) struct Gather {
    /// Index of the loop that asks and merges.
    pub(crate) origin: usize,
    /// Number of the gathering on that loop.
    pub(crate) gathering: usize,
    /// The command.
    pub(crate) command: &'static Registered,
    /// The request.
    pub(crate) request: OwnedRequest,
    /// The client's database.
    pub(crate) db: u16,
    /// Modes of the client.
    pub(crate) modes: Modes,
    /// The client's id.
    pub(crate) client: u64,
}

/// A call of a walk over the shards, on its way from shard to shard and back to the loop that began it.
#[derive(Debug)]
pub(crate) struct Walking {
    /// The command.
    pub(crate) gather: Arc<Gather>,
    /// State of the walk.
    pub(crate) walk: Walk,
    /// Time taken so far, nanoseconds.
    pub(crate) nanos: u64,
    /// The end of its effects in the journal: it removes expired keys that it finds.
    pub(crate) end: Position,
}

/// A part of a command that a shard or loop has run.
#[derive(Debug)]
pub(crate) struct PartRun {
    /// The result.
    pub(crate) result: Result<Part, ReplyError>,
    /// The duration, nanoseconds.
    pub(crate) nanos: u64,
    /// The end of its effects in the journal; the beginning of the journal if it had none.
    pub(crate) end: Position,
}

/// A command on its way to a shard and back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task {
    /// Its row.
    pub(crate) command: &'static Registered,
    /// Hash of the key that routed it.
    pub(crate) hash: u64,
    /// Number of the connection on its loop.
    pub(crate) connection: u32,
    /// Low bits of the client's id: detects a reused connection number.
    pub(crate) client: u32,
    /// Sequence number of its reply on the connection.
    pub(crate) sequence: u32,
    /// Index of its first span.
    pub(crate) first_span: u32,
    /// Number of its spans.
    pub(crate) spans: u32,
    /// Index of its detached buffers, counted from 1; 0 when it has none.
    pub(crate) detached: u32,
    /// Index of the chunk that its spans refer to.
    pub(crate) chunk: u16,
    /// Slot of the key that routed it.
    pub(crate) slot: u16,
    /// The client's database.
    pub(crate) db: u16,
    /// Index of the argument that routed it.
    pub(crate) key: u8,
    /// Modes of the client.
    pub(crate) modes: Modes,
}

impl Task {
    /// Position of its request.
    #[inline]
    pub(crate) fn location(&self) -> Location {
        Location {
            chunk: self.chunk,
            first_span: self.first_span,
            spans: self.spans,
            detached: self.detached,
        }
    }
}

/// Position of a request in a [`Source`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    /// Index of the chunk that its spans refer to.
    pub(crate) chunk: u16,
    /// Index of its first span.
    pub(crate) first_span: u32,
    /// Number of its spans.
    pub(crate) spans: u32,
    /// Index of its detached buffers, counted from 1; 0 when it has none.
    pub(crate) detached: u32,
}

/// The memory that the requests of commands are in.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// Read chunks.
    pub(crate) chunks: Vec<Chunk>,
    /// Spans over them.
    pub(crate) spans: Vec<Span>,
    /// Big arguments in buffers of their own, by request.
    pub(crate) detached: Vec<Vec<Buffer>>,
    /// Index of the chunk that other requests are copied to.
    copies: Option<u16>,
}

impl Source {
    /// The arguments of a task; `buffers` are its big ones.
    #[inline]
    pub(crate) fn arguments<'a>(&'a self, task: &Task, buffers: &'a [&'a [u8]]) -> Arguments<'a> {
        self.arguments_at(task.location(), buffers)
    }

    /// Adds requests in one of the chunks. Returns the index of their first span.
    #[inline]
    pub(crate) fn add(&mut self, requests: &Requests) -> u32 {
        let first_span = self.spans.len() as u32;
        self.spans.extend_from_slice(requests.spans());
        first_span
    }

    /// Adds the big arguments of a request; returns their index, counted from 1.
    #[cold]
    pub(crate) fn add_buffers(&mut self, buffers: Vec<Buffer>) -> u32 {
        self.detached.push(buffers);
        self.detached.len() as u32
    }

    /// Copies a request from elsewhere. Copies share chunks: there may be more requests than indexes for chunks.
    pub(crate) fn copy(&mut self, args: Arguments<'_>) -> Location {
        let number = self.chunk_of_copies();
        let Some(chunk) = Arc::get_mut(&mut self.chunks[usize::from(number)]) else {
            unreachable!("a chunk that is copied to is not shared")
        };
        let first_span = self.spans.len();
        for arg in args.iter() {
            let span = Span::new(chunk.len(), arg.len());
            self.spans
                .push(span.expect("the query buffer limit keeps a request within the reach of spans"));
            chunk.extend_from_slice(arg);
        }
        Location {
            chunk: number,
            first_span: first_span as u32,
            spans: (self.spans.len() - first_span) as u32,
            detached: 0,
        }
    }

    /// The chunk that the next request is copied to.
    fn chunk_of_copies(&mut self) -> u16 {
        let has_room = |chunk: &Chunk| chunk.len() < CHUNK_BYTES && Arc::strong_count(chunk) == 1;
        if let Some(number) = self.copies
            && has_room(&self.chunks[usize::from(number)])
        {
            return number;
        }
        let number = u16::try_from(self.chunks.len());
        let number = number.expect("a turn that has used up its chunks takes in no more");
        self.chunks.push(Chunk::default());
        self.copies = Some(number);
        number
    }

    /// Whether the turn has used up its chunks: further reads wait for the next turn.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.chunks.len() >= CHUNKS_PER_TURN_MAX
    }

    /// Removes the big arguments that were added last.
    #[cold]
    pub(crate) fn drop_buffers(&mut self) {
        self.detached.pop();
    }

    /// The big arguments of a request.
    #[inline]
    pub(crate) fn buffers(&self, location: Location) -> impl Iterator<Item = &[u8]> {
        let index = (location.detached as usize).checked_sub(1);
        index
            .into_iter()
            .flat_map(|index| &self.detached[index])
            .map(|buffer| &**buffer)
    }

    /// The arguments of a request; `buffers` are its big ones.
    #[inline]
    pub(crate) fn arguments_at<'a>(&'a self, location: Location, buffers: &'a [&'a [u8]]) -> Arguments<'a> {
        let first = location.first_span as usize;
        let spans = &self.spans[first..first + location.spans as usize];
        Arguments::new(&self.chunks[usize::from(location.chunk)], spans, buffers)
    }

    /// Removes everything but keeps the memory. Chunks are handed to `free`.
    pub(crate) fn clear(&mut self, free: impl FnMut(Chunk)) {
        self.chunks.drain(..).for_each(free);
        self.copies = None;
        self.spans.clear();
        self.detached.clear();
    }
}

/// Commands from one loop for one shard, and on the way back their replies.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Index of the loop that sent it.
    pub(crate) origin: usize,
    /// Index of the shard that runs it.
    pub(crate) target: usize,
    /// Era of the sending loop's work that it belongs to.
    pub(crate) era: u64,
    /// The commands.
    pub(crate) tasks: Vec<Task>,
    /// Memory of their requests.
    pub(crate) source: Source,
    /// Their replies, one after another.
    pub(crate) replies: Vec<u8>,
    /// End of each task's reply in `replies`.
    pub(crate) ends: Vec<usize>,
    /// The slow ones of the commands.
    pub(crate) slow: Vec<(Task, Slow)>,
    /// Indexes of those that had effects.
    pub(crate) wrote: Vec<usize>,
    /// The end of these effects in the journal.
    pub(crate) position: Position,
    /// Connections whose replies got too long to be sent, and are incomplete.
    pub(crate) over: Vec<u32>,
    /// Size from which a reply is too long to be sent, and incomplete, bytes.
    pub(crate) reply_bytes_max: usize,
    /// Indexes of those that have not run, and come back as a batch of their own.
    pub(crate) waiting: Vec<usize>,
    /// The rest of the batch is still to run, and comes back as a batch of its own.
    pub(crate) goes_on: bool,
}

impl Batch {
    /// Takes over commands of a turn, with the memory of their requests. The `route` leads from a loop to a shard.
    pub(crate) fn pack(
        &mut self,
        route: (usize, usize),
        era: u64,
        tasks: &mut Vec<Task>,
        source: &mut Source,
    ) {
        (self.origin, self.target) = route;
        self.era = era;
        self.source.chunks.extend(source.chunks.iter().cloned());
        for mut task in tasks.drain(..) {
            let first = task.first_span as usize;
            let spans = &source.spans[first..first + task.spans as usize];
            task.first_span = self.source.spans.len() as u32;
            self.source.spans.extend_from_slice(spans);
            if let Some(index) = (task.detached as usize).checked_sub(1) {
                self.source
                    .detached
                    .push(std::mem::take(&mut source.detached[index]));
                task.detached = self.source.detached.len() as u32;
            }
            self.tasks.push(task);
        }
    }

    fn route(&self) -> (usize, usize) {
        (self.origin, self.target)
    }

    /// Copies the commands that wait to a batch of their own; none when no command does.
    pub(crate) fn split_waiting(&mut self) -> Option<Box<Self>> {
        let mut waiting: Vec<Task> = self.waiting.iter().map(|&index| self.tasks[index]).collect();
        (!waiting.is_empty()).then(|| {
            let mut batch = Box::<Self>::default();
            batch.pack(self.route(), self.era, &mut waiting, &mut self.source);
            batch
        })
    }

    /// Cuts off the commands that have not run, as a batch of their own; none when all have.
    pub(crate) fn split_off(&mut self, done: usize) -> Option<Box<Self>> {
        let mut rest = self.tasks.split_off(done);
        self.goes_on = !rest.is_empty();
        self.goes_on.then(|| {
            let mut batch = Box::<Self>::default();
            batch.pack(self.route(), self.era, &mut rest, &mut self.source);
            batch
        })
    }

    /// Removes everything but keeps the memory. Chunks are handed to `free`.
    pub(crate) fn clear(&mut self, free: impl FnMut(Chunk)) {
        self.goes_on = false;
        self.tasks.clear();
        self.source.clear(free);
        if self.replies.capacity() > BATCH_KEPT_BYTES {
            self.replies = Vec::new();
        }
        self.replies.clear();
        self.ends.clear();
        self.slow.clear();
        self.wrote.clear();
        self.waiting.clear();
        self.over.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_requests_can_be_copied_than_there_are_numbers_for_chunks() {
        let mut source = Source::default();
        let word = |number: usize| format!("{number:08}");
        let locations: Vec<Location> = (0..100_000)
            .map(|number| {
                let request = OwnedRequest::of([b"GET".as_slice(), word(number).as_bytes()].into_iter());
                source.copy(request.arguments())
            })
            .collect();
        for (number, &location) in locations.iter().enumerate() {
            let args = source.arguments_at(location, &[]);
            assert_eq!((args.len(), args.at(1)), (2, word(number).as_bytes()));
        }
        assert!(!source.is_full());
        source.clear(drop);
        assert_eq!(
            source
                .copy(OwnedRequest::of([b"a".as_slice()].into_iter()).arguments())
                .chunk,
            0
        );
    }

    #[test]
    fn a_chunk_of_copies_that_is_under_way_is_left_alone() {
        let mut source = Source::default();
        let request = OwnedRequest::of([b"GET".as_slice(), b"a"].into_iter());
        let first = source.copy(request.arguments());
        let under_way = Arc::clone(&source.chunks[usize::from(first.chunk)]);
        let second = source.copy(request.arguments());
        assert_ne!(first.chunk, second.chunk);
        assert_eq!(under_way.len(), 4);
    }
}
