//! [`Turn`]: the data that a loop collects in a turn, namely the bytes read, the requests in them, and the commands
//! by shard.

use shardis_protocol::{Arguments, Requests};

use crate::connection::Connection;
use crate::dispatch::plan::Routed;
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

    /// Makes a command of a connection a task for a shard. True unless its arguments had to be copied, because they
    /// are not in the memory of the turn.
    #[inline]
    pub(super) fn push(
        &mut self,
        (number, connection): (usize, &mut Connection),
        command: &'static Registered,
        args: Arguments<'_>,
        (shard, key): (usize, Routed),
        location: Option<Location>,
    ) -> bool {
        let is_in_turn = location.is_some();
        let location = location.unwrap_or_else(|| self.source.copy(args));
        let modes = connection.modes();
        connection.count_reply_mode();
        self.long[shard] |= command.is_long(args);
        self.tasks[shard].push(Task {
            command,
            hash: key.hash,
            connection: number as u32,
            client: connection.client.id as u32,
            sequence: connection.output.issue(),
            first_span: location.first_span,
            spans: location.spans,
            detached: location.detached,
            chunk: location.chunk,
            slot: key.slot,
            db: connection.client.db,
            key: key.index,
            modes,
        });
        is_in_turn
    }

    /// Packs the commands for a shard into a batch that can be sent.
    pub(super) fn pack(&mut self, origin: usize, shard: usize) -> Box<Batch> {
        let mut batch = self.batches.pop().unwrap_or_default();
        batch.pack(origin, shard, &mut self.tasks[shard], &mut self.source);
        batch
    }

    /// Packs some of the commands for a shard, by index, into a batch of their own.
    pub(super) fn pack_some(&mut self, origin: usize, shard: usize, indexes: &[usize]) -> Box<Batch> {
        let mut some: Vec<Task> = indexes.iter().map(|&index| self.tasks[shard][index]).collect();
        let mut batch = self.batches.pop().unwrap_or_default();
        batch.pack(origin, shard, &mut some, &mut self.source);
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
