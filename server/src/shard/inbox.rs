//! What loops send each other: the whole vocabulary, one closed enum.

use std::sync::Arc;

use shardis_protocol::{Arguments, Requests, Span};
use shardis_storage::memory::Buffer;

use super::chunk::Chunk;
use super::poll::Socket;
use crate::error::ReplyError;
use crate::exec::waiter::{Retry, Served, Ticket};
use crate::exec::{Modes, OwnedRequest, Part, Partition, Peer, Walk};
use crate::limits::{BATCH_KEPT_BYTES, CHUNK_BYTES, CHUNKS_PER_TURN_MAX};
use crate::observe::slowlog::Slow;
use crate::spec::Registered;

/// A message to a loop.
#[derive(Debug)]
pub(crate) enum Message {
    /// Run these commands on your partition and send them back.
    Run(Box<Batch>),
    /// Your commands have run: here are the replies.
    Done(Box<Batch>),
    /// Lend your partition to this loop's operation.
    Lend {
        /// The loop that asks.
        borrower: usize,
        /// Its operation.
        operation: usize,
    },
    /// The partition that your operation asked for.
    Lent {
        /// The operation.
        operation: usize,
        /// The partition.
        partition: Box<Partition>,
    },
    /// The partition of your shard, which you found lent, is back in its cell.
    Returned,
    /// Do your part of a command over all shards or loops.
    Gather(Arc<Gather>),
    /// Go on with a walk over the shards, which has come to yours.
    Walk(Box<Walking>),
    /// A part of a command that you gather.
    Gathered {
        /// The gathering loop's number for it.
        gathering: usize,
        /// Which shard or loop did it.
        from: usize,
        /// What came of it.
        part: Result<Part, ReplyError>,
        /// How long it took, nanoseconds.
        nanos: u64,
    },
    /// A command that waited has run here: answer it.
    Served(Box<Served>),
    /// Nobody is to be served from your queues by this ticket any more.
    Withdraw(Arc<Ticket>),
    /// Keys of one of these two shards, of which yours is one, are ready and need the other: serve them when yours is at hand.
    Serve(Retry),
    /// Say when all commands that you have admitted so far have run, as your part of a gathering.
    Fence {
        /// The loop that asks.
        origin: usize,
        /// Its number for it.
        gathering: usize,
    },
    /// Lines for the monitors among your connections.
    Monitor(Arc<[u8]>),
    /// A new connection for you.
    Connect {
        /// Its socket.
        socket: Socket,
        /// Where it comes from.
        peer: Peer,
    },
}

/// A command over all shards or loops, as each of them gets it.
#[derive(Debug)]
pub(crate) struct Gather {
    /// The loop that asks and merges.
    pub(crate) origin: usize,
    /// Its number for it.
    pub(crate) gathering: usize,
    /// The command.
    pub(crate) command: &'static Registered,
    /// The request.
    pub(crate) request: OwnedRequest,
    /// The client's database.
    pub(crate) db: u16,
    /// What it must know of the client.
    pub(crate) modes: Modes,
    /// The client's id.
    pub(crate) client: u64,
}

/// A call of a walk over the shards, on its way from one to the next and back to the loop that began it.
#[derive(Debug)]
pub(crate) struct Walking {
    /// The command.
    pub(crate) gather: Arc<Gather>,
    /// How far it has come.
    pub(crate) walk: Walk,
    /// How long it took so far, nanoseconds.
    pub(crate) nanos: u64,
}

/// A command on its way to a shard and back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task {
    /// Its row.
    pub(crate) command: &'static Registered,
    /// Hash of the key that routed it.
    pub(crate) hash: u64,
    /// The connection on the loop it came from.
    pub(crate) connection: u32,
    /// Low bits of the client's id: tells a reused connection number.
    pub(crate) client: u32,
    /// Its place in the order of the connection's replies.
    pub(crate) sequence: u32,
    /// Its first span.
    pub(crate) first_span: u32,
    /// How many spans.
    pub(crate) spans: u32,
    /// Its detached buffers, counted from 1; 0 when it has none.
    pub(crate) detached: u32,
    /// Which chunk its spans are over.
    pub(crate) chunk: u16,
    /// Slot of the key that routed it.
    pub(crate) slot: u16,
    /// The client's database.
    pub(crate) db: u16,
    /// Argument that is the key that routed it.
    pub(crate) key: u8,
    /// What else there is to know of the client.
    pub(crate) modes: Modes,
}

impl Task {
    /// Where its request lies.
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

/// Where a request lies in a [`Source`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    /// Which chunk its spans are over.
    pub(crate) chunk: u16,
    /// Its first span.
    pub(crate) first_span: u32,
    /// How many spans.
    pub(crate) spans: u32,
    /// Its detached buffers, counted from 1; 0 when it has none.
    pub(crate) detached: u32,
}

/// Commands and the bytes they lie in.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// Read chunks.
    pub(crate) chunks: Vec<Chunk>,
    /// Spans over them.
    pub(crate) spans: Vec<Span>,
    /// Big arguments in buffers of their own, by request.
    pub(crate) detached: Vec<Vec<Buffer>>,
    /// The chunk that requests are copied to which lie elsewhere.
    copies: Option<u16>,
}

impl Source {
    /// The arguments of a task, given its big ones.
    #[inline]
    pub(crate) fn arguments<'a>(&'a self, task: &Task, buffers: &'a [&'a [u8]]) -> Arguments<'a> {
        self.arguments_at(task.location(), buffers)
    }

    /// Takes in requests that lie in one of the chunks. Returns where their spans begin.
    #[inline]
    pub(crate) fn add(&mut self, requests: &Requests) -> u32 {
        let first_span = self.spans.len() as u32;
        self.spans.extend_from_slice(requests.spans());
        first_span
    }

    /// Takes in the big arguments of a request; returns their number, counted from 1.
    #[cold]
    pub(crate) fn add_buffers(&mut self, buffers: Vec<Buffer>) -> u32 {
        self.detached.push(buffers);
        self.detached.len() as u32
    }

    /// Takes in a request that lies elsewhere. Copies share chunks: there may be more requests than numbers for chunks.
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

    /// Whether a turn has used up its chunks: what is still to be read waits for the next one.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.chunks.len() >= CHUNKS_PER_TURN_MAX
    }

    /// Drops the big arguments that were taken in last.
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

    /// The arguments of a request, given its big ones.
    #[inline]
    pub(crate) fn arguments_at<'a>(&'a self, location: Location, buffers: &'a [&'a [u8]]) -> Arguments<'a> {
        let first = location.first_span as usize;
        let spans = &self.spans[first..first + location.spans as usize];
        Arguments::new(&self.chunks[usize::from(location.chunk)], spans, buffers)
    }

    /// Forgets everything but keeps the memory. Chunks are handed to `free`.
    pub(crate) fn clear(&mut self, free: impl FnMut(Chunk)) {
        self.chunks.drain(..).for_each(free);
        self.copies = None;
        self.spans.clear();
        self.detached.clear();
    }
}

/// Commands for one shard from one loop, and on the way back their replies.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The loop that sent it.
    pub(crate) origin: usize,
    /// The shard that is to run it.
    pub(crate) target: usize,
    /// The commands.
    pub(crate) tasks: Vec<Task>,
    /// Where their arguments lie.
    pub(crate) source: Source,
    /// Their replies, one after another.
    pub(crate) replies: Vec<u8>,
    /// Where the reply of each task ends.
    pub(crate) ends: Vec<usize>,
    /// Those of the commands that were slow.
    pub(crate) slow: Vec<(Task, Slow)>,
    /// A reply of so many bytes got too long to be sent, and is not whole.
    pub(crate) reply_bytes_max: usize,
}

impl Batch {
    /// Takes over commands of a turn, with the bytes they lie in.
    pub(crate) fn pack(&mut self, origin: usize, target: usize, tasks: &mut Vec<Task>, source: &mut Source) {
        self.origin = origin;
        self.target = target;
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

    /// Forgets everything but keeps the memory. Chunks are handed to `free`.
    pub(crate) fn clear(&mut self, free: impl FnMut(Chunk)) {
        self.tasks.clear();
        self.source.clear(free);
        if self.replies.capacity() > BATCH_KEPT_BYTES {
            self.replies = Vec::new();
        }
        self.replies.clear();
        self.ends.clear();
        self.slow.clear();
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
