//! [`Turn`]: the data that a loop collects in a turn, namely the bytes read, the requests in them, and the commands
//! by shard.

use shardis_protocol::{Arguments, Requests};

use crate::connection::Connection;
use crate::dispatch::plan::Routed;
use crate::exec::Modes;
use crate::limits::OUTPUT_KEPT_BYTES;
use crate::shard::chunk::ChunkPool;
use crate::shard::inbox::{Batch, Location, Source, Task};
use crate::spec::Registered;

/// Data collected in a turn. Its memory is reused turn after turn.
#[derive(Debug)]
pub(super) struct Turn {
    /// Supplies chunks to read into.
    pub(super) pool: ChunkPool,
    /// Chunks, and the requests in them.
    pub(super) source: Source,
    /// The chunk that is being filled, and the number of bytes in it.
    pub(super) filled: Option<(u16, usize)>,
    /// The request that was parsed last.
    pub(super) requests: Requests,
    /// Commands to run, by shard.
    pub(super) tasks: Vec<Vec<Task>>,
    /// Whether a shard has commands whose cost is not constant, by shard.
    pub(super) long: Vec<bool>,
    /// Receives replies that are not sent to anybody.
    pub(super) scratch: Vec<u8>,
    /// Lines about this turn's commands, for all monitors of the node.
    pub(super) lines: Vec<u8>,
    #[expect(clippy::vec_box, reason = "batches travel as boxes, and come back as such")]
    batches: Vec<Box<Batch>>,
}

/// The client that tasks come from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender {
    /// Number of its connection on this loop.
    connection: u32,
    /// Low bits of its id.
    client: u32,
    /// Its database.
    db: u16,
    /// Its modes.
    modes: Modes,
}

impl Sender {
    /// The client of a connection, in its present state.
    #[inline]
    pub(super) fn of(number: usize, connection: &Connection) -> Self {
        Self {
            connection: number as u32,
            client: connection.client.id as u32,
            db: connection.client.db,
            modes: connection.modes(),
        }
    }
}

/// Number of empty batches that are kept for reuse.
const BATCHES_KEPT: usize = 32;

/// Tasks of a shard, and spans, that there is always room for.
const KEPT_COUNT: usize = 1024;

impl Turn {
    /// An empty turn, for a node of so many shards.
    pub(super) fn new(shards: usize) -> Self {
        Self {
            pool: ChunkPool::default(),
            source: Source::default(),
            filled: None,
            requests: Requests::new(),
            tasks: vec![Vec::new(); shards],
            long: vec![false; shards],
            scratch: Vec::new(),
            lines: Vec::new(),
            batches: Vec::new(),
        }
    }

    /// Makes a command a task for a shard. It comes from the sender, under a sequence number.
    #[inline]
    pub(super) fn push_task(
        &mut self,
        (sender, sequence): (Sender, u32),
        command: &'static Registered,
        args: Arguments<'_>,
        (shard, key): (usize, Routed),
        location: Location,
    ) {
        self.long[shard] |= command.is_long(args);
        self.tasks[shard].push(Task {
            command,
            hash: key.hash,
            connection: sender.connection,
            client: sender.client,
            sequence,
            first_span: location.first_span,
            spans: location.spans,
            detached: location.detached,
            chunk: location.chunk,
            slot: key.slot,
            db: sender.db,
            key: key.index,
            modes: sender.modes,
        });
    }

    /// Like [`push_task`](Self::push_task), for arguments that are not in the memory of the turn: they are copied.
    pub(super) fn push_copy(
        &mut self,
        sender: (Sender, u32),
        command: &'static Registered,
        args: Arguments<'_>,
        target: (usize, Routed),
    ) {
        let location = self.source.copy(args);
        self.push_task(sender, command, args, target, location);
    }

    /// Packs the commands for a shard into a batch that can be sent, of this era. The `route` leads from this loop to the shard.
    pub(super) fn pack(&mut self, route: (usize, usize), era: u64) -> Box<Batch> {
        let mut batch = self.batches.pop().unwrap_or_default();
        batch.pack(route, era, &mut self.tasks[route.1], &mut self.source);
        batch
    }

    /// Packs some of the commands for a shard, by index, into a batch of their own.
    pub(super) fn pack_some(&mut self, route: (usize, usize), indexes: &[usize], era: u64) -> Box<Batch> {
        let tasks = &self.tasks[route.1];
        let mut some: Vec<Task> = indexes.iter().map(|&index| tasks[index]).collect();
        let mut batch = self.batches.pop().unwrap_or_default();
        batch.pack(route, era, &mut some, &mut self.source);
        batch
    }

    /// Takes back a batch whose replies have been delivered.
    pub(super) fn recycle(&mut self, mut batch: Box<Batch>) {
        let pool = &mut self.pool;
        batch.clear(|chunk| pool.put(chunk));
        if self.batches.len() < BATCHES_KEPT {
            self.batches.push(batch);
        }
    }

    /// Gives back half of the memory that is kept for later turns, and what a large turn has left: called once a second.
    pub(super) fn release_half(&mut self) {
        self.pool.release_half();
        self.batches.truncate(self.batches.len() / 2);
        self.tasks
            .iter_mut()
            .for_each(|tasks| tasks.shrink_to(KEPT_COUNT));
        self.source.spans.shrink_to(KEPT_COUNT);
        self.scratch.shrink_to(OUTPUT_KEPT_BYTES);
        self.lines.shrink_to(OUTPUT_KEPT_BYTES);
    }

    /// Releases the chunks that were read into.
    pub(super) fn end_reading(&mut self) {
        let Self {
            pool, source, filled, ..
        } = self;
        *filled = None;
        source.clear(|chunk| pool.put(chunk));
    }
}
