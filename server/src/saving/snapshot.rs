//! [`Snapshot`]: the content of all partitions at one instant, on its way from the loops to the thread that writes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender};
use shardis_storage::commands::CommandWriter;
use shardis_storage::entry::Entry;
use shardis_storage::keyspace::eviction::{Policy, lfu, lru};
use shardis_storage::keyspace::{Baton, EntryWriter, Flow, Lane, Saved};
use shardis_storage::rdb::file::{Header, RecordWriter, Usage};
use shardis_storage::rdb::{Dialect, WriteOptions};

use super::{Form, Purpose, Selection};
use crate::config::{FieldExpiryFormat, Settings};
use crate::limits::{COMPRESSED_BYTES_MAX, LARGE_ENTRY_BYTES, UNWRITTEN_BYTES_MAX};

/// A snapshot that is under way.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Number of its job.
    pub(crate) number: u64,
    /// Purpose of its job.
    pub(crate) purpose: Purpose,
    /// Time at which its job began, Unix microseconds.
    pub(crate) began_us: i64,
    /// Keys at the cut.
    pub(crate) keys: u64,
    /// Changes to the data up to the cut.
    pub(crate) changes: u64,
    lanes: Vec<Lane>,
    pieces: Sender<Piece>,
    is_given_up: AtomicBool,
    /// Number of shards on which commands wait for a large value.
    awaiting: AtomicUsize,
}

/// A message to the thread that writes.
#[derive(Debug)]
pub(super) enum Piece {
    /// A shard has saved these bytes.
    Saved(usize, Saved),
    /// A shard has saved all.
    Done,
    /// Nothing more is wanted.
    GivenUp,
}

/// The data of all partitions at the cut.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    /// Number of shards.
    pub(crate) shards: usize,
    /// Number of keys, and of those that expire, by database.
    pub(crate) databases: Vec<(usize, usize)>,
    /// Some hash has fields that expire.
    pub(crate) has_field_expiries: bool,
    /// Changes to the data so far.
    pub(crate) changes: u64,
    /// Bytes of memory in use.
    pub(crate) used_bytes: u64,
    /// The version of Redis that the node is compatible with.
    pub(crate) version: &'static str,
    /// Sources of function libraries.
    pub(crate) libraries: Vec<Vec<u8>>,
    /// Unix time, milliseconds.
    pub(crate) now_ms: i64,
    /// Place of the data in the stream that replicas follow, if there is one.
    pub(crate) stream: Option<StreamPoint>,
}

/// A place in the stream that replicas follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamPoint {
    /// The id of its history.
    pub(crate) id: String,
    /// The number of bytes before it.
    pub(crate) offset: u64,
    /// The database that is selected there.
    pub(crate) db: u16,
}

impl Content {
    /// Leaves only these parts.
    pub(super) fn select(&mut self, selection: Selection) {
        if !selection.keys {
            // Then no shard has anything to save.
            self.shards = 0;
            self.databases.clear();
        }
        if !selection.functions {
            self.libraries.clear();
        }
    }
}

/// The way in which a file is written, from the settings at the cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(super) options: WriteOptions,
    pub(super) header: Header,
    pub(super) is_summed: bool,
    pub(super) is_synced_early: bool,
    /// Likewise, where the file is the base of an append-only file.
    pub(super) is_base_synced_early: bool,
    /// A file of commands begins with the time.
    pub(super) is_timed: bool,
    usage: UsageRule,
}

/// Whether the use of keys is saved.
#[derive(Clone, Copy, Debug)]
enum UsageRule {
    /// No: eviction does not look at it.
    None,
    /// Yes, as the time since the last one, at this time.
    Idle { now_ms: i64 },
    /// Yes, as a count, at this time.
    Frequency { now_ms: i64, options: lfu::LfuOptions },
}

impl Plan {
    /// The plan for a file of the `content`.
    pub(crate) fn new(settings: &Settings, content: &Content) -> Self {
        let now_ms = content.now_ms;
        Self {
            options: WriteOptions {
                compress_max: if settings.rdbcompression {
                    COMPRESSED_BYTES_MAX
                } else {
                    0
                },
                dialect: match settings.rdb_field_expiry_format {
                    FieldExpiryFormat::Redis => Dialect::Redis,
                    FieldExpiryFormat::Valkey => Dialect::Valkey,
                },
            },
            header: if content.has_field_expiries {
                Header::FieldExpiry
            } else {
                Header::Common
            },
            is_summed: settings.rdbchecksum,
            is_synced_early: settings.rdb_save_incremental_fsync,
            is_base_synced_early: settings.aof_rewrite_incremental_fsync,
            is_timed: settings.aof_timestamp_enabled,
            usage: match settings.maxmemory_policy.policy() {
                Policy::AllKeysLru | Policy::VolatileLru => UsageRule::Idle { now_ms },
                Policy::AllKeysLfu | Policy::VolatileLfu => UsageRule::Frequency {
                    now_ms,
                    options: lfu::LfuOptions {
                        log_factor: settings.lfu_log_factor,
                        decay_minutes: settings.lfu_decay_time,
                    },
                },
                Policy::NoEviction | Policy::AllKeysRandom | Policy::VolatileRandom | Policy::VolatileTtl => {
                    UsageRule::None
                }
            },
        }
    }

    /// The same plan with hashes that have fields which expire in this form, if one is given.
    pub(crate) fn in_dialect(mut self, dialect: Option<Dialect>) -> Self {
        self.options.dialect = dialect.unwrap_or(self.options.dialect);
        self
    }

    /// Writes entries in the form of the file.
    pub(crate) fn entry_writer(&self, form: Form) -> Box<dyn EntryWriter> {
        match form {
            Form::Rdb => Box::new(Records {
                writer: RecordWriter::new(self.header, self.options),
                usage: self.usage,
            }),
            Form::Commands => Box::<Commands>::default(),
        }
    }
}

/// Writes entries as records of a snapshot file.
#[derive(Debug)]
struct Records {
    writer: RecordWriter,
    usage: UsageRule,
}

impl EntryWriter for Records {
    fn another(&self) -> Box<dyn EntryWriter> {
        Box::new(Self {
            writer: self.writer.another(),
            usage: self.usage,
        })
    }

    fn begin(&mut self, entry: &Entry, out: &mut Vec<u8>) {
        let usage = match self.usage {
            UsageRule::None => None,
            UsageRule::Idle { now_ms } => {
                Some(Usage::Idle(u64::from(lru::idle_seconds(entry.clock(), now_ms))))
            }
            UsageRule::Frequency { now_ms, options } => {
                Some(Usage::Frequency(lfu::frequency(entry.clock(), now_ms, options)))
            }
        };
        self.writer.begin(entry, usage, out);
    }

    fn step(&mut self, entry: &Entry, out: &mut Vec<u8>, budget: usize) -> bool {
        self.writer.step(entry, out, budget)
    }
}

/// Writes entries as commands.
#[derive(Debug, Default)]
struct Commands(CommandWriter);

impl EntryWriter for Commands {
    fn another(&self) -> Box<dyn EntryWriter> {
        Box::<Self>::default()
    }

    fn begin(&mut self, _: &Entry, _: &mut Vec<u8>) {
        self.0 = CommandWriter::new();
    }

    fn step(&mut self, entry: &Entry, out: &mut Vec<u8>, budget: usize) -> bool {
        self.0.step(entry, out, budget)
    }
}

impl Snapshot {
    /// The snapshot of a job, and the end of its queue for the thread that writes.
    pub(super) fn new(
        number: u64,
        purpose: Purpose,
        began_us: i64,
        content: &Content,
    ) -> (Self, Receiver<Piece>) {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let baton = Arc::<Baton>::default();
        let lane = |_| Lane {
            flow: Arc::new(Flow::new(UNWRITTEN_BYTES_MAX)),
            baton: Arc::clone(&baton),
            large: LARGE_ENTRY_BYTES,
        };
        let snapshot = Self {
            number,
            purpose,
            began_us,
            keys: content.databases.iter().map(|&(keys, _)| keys as u64).sum(),
            changes: content.changes,
            lanes: (0..content.shards).map(lane).collect(),
            pieces: sender,
            is_given_up: AtomicBool::new(false),
            awaiting: AtomicUsize::new(0),
        };
        (snapshot, receiver)
    }

    /// The lane of a shard.
    pub(crate) fn lane(&self, shard: usize) -> &Lane {
        &self.lanes[shard]
    }

    /// Hands bytes of a shard to the thread that writes. Never waits: their number is bounded by the lane.
    pub(crate) fn send(&self, shard: usize, saved: Saved) {
        // A thread that has ended needs nothing more.
        let _ = self.pieces.send(Piece::Saved(shard, saved));
    }

    /// Tells the thread that writes that a shard has saved all.
    pub(crate) fn finish_lane(&self) {
        let _ = self.pieces.send(Piece::Done);
    }

    /// Notes that bytes of a shard were written. True when there was no room in its lane, and is now.
    pub(super) fn written(&self, shard: usize, bytes: usize) -> bool {
        self.lanes[shard].flow.written(bytes)
    }

    /// Gives the snapshot up; false if it was before.
    pub(super) fn give_up(&self) -> bool {
        let is_first = !self.is_given_up.swap(true, Ordering::AcqRel);
        let _ = self.pieces.send(Piece::GivenUp);
        is_first
    }

    /// Whether nothing more of it is wanted.
    pub(crate) fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::Acquire)
    }

    /// Notes that commands of one more shard wait for a large value, or of one less.
    pub(crate) fn note_awaited(&self, is_awaited: bool) {
        if is_awaited {
            self.awaiting.fetch_add(1, Ordering::Relaxed);
        } else {
            self.awaiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether commands wait for a large value.
    pub(super) fn is_awaited(&self) -> bool {
        self.awaiting.load(Ordering::Relaxed) > 0
    }

    /// Keys saved so far.
    pub(super) fn keys_done(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.flow.entries()).sum()
    }

    /// Bytes saved so far because they were about to change.
    pub(super) fn ahead(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.flow.ahead()).sum()
    }
}
