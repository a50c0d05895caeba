//! The figures of shards about their data, gathered for INFO and MEMORY STATS.

use crate::error::ReplyError;
use crate::exec::{Context, Part};

/// Figures of a shard, encoded as numbers in this order; the figures of each database follow.
#[derive(Clone, Copy, Debug)]
pub(in crate::commands) enum Figure {
    Commands,
    Hits,
    Misses,
    Expired,
    ExpiredFields,
    Evicted,
    Changes,
    ExpireTimeCaps,
    Garbage,
    Freed,
    Memory,
    Keys,
    KeysAwaited,
    KeysAwaitedGone,
    Stale,
    WatchedKeys,
    OwnVolatile,
}

/// Number of figures of a shard.
const FIGURES: usize = Figure::OwnVolatile as usize + 1;

/// Number of figures of a database: keys, volatile keys, average time to live, table bytes, bytes of the table of
/// volatile keys.
const DATABASE_FIGURES: usize = 5;

/// Encodes the figures of one shard.
pub(in crate::commands) fn figures_of_shard(ctx: &mut Context<'_>) -> Result<u64, ReplyError> {
    let mut numbers = Vec::new();
    let now_ms = ctx.now_ms();
    ctx.keyspace.held().each(|partition| {
        let (figures, keyspace) = (&partition.door.figures, &partition.keyspace);
        let stale = (0..keyspace.databases()).map(|index| keyspace.database(index).stale_len(now_ms));
        let (awaited, awaited_gone) = partition.door.waiters.key_counts();
        let shard: [u64; FIGURES] = [
            figures.commands,
            figures.hits,
            figures.misses,
            figures.expired,
            figures.expired_fields,
            figures.evicted,
            figures.changes,
            figures.expire_time_caps,
            keyspace.pending_objects() as u64,
            figures.freed,
            partition.counted_bytes(),
            keyspace.len() as u64,
            awaited,
            awaited_gone,
            stale.sum::<usize>() as u64,
            partition.door.watches.watched_keys(),
            partition.own_volatile.len() as u64,
        ];
        numbers.extend(shard);
        for index in 0..keyspace.databases() {
            let database = keyspace.database(index);
            // For an empty database the walk over its tables is skipped.
            let (table, volatile) = if database.is_empty() {
                (0, 0)
            } else {
                (
                    database.table_stats().bytes,
                    database.volatile_table_stats().bytes,
                )
            };
            let numbers_of_database: [u64; DATABASE_FIGURES] = [
                database.len() as u64,
                database.volatile_len() as u64,
                database.average_ttl_ms(now_ms) as u64,
                table as u64,
                volatile as u64,
            ];
            numbers.extend(numbers_of_database);
        }
    });
    for number in numbers {
        ctx.reply.raw(&number.to_le_bytes());
    }
    Ok(1)
}

/// The figures of all shards.
#[derive(Debug)]
pub(in crate::commands) struct Gathered {
    shards: Vec<Vec<u64>>,
}

/// Figures of a database, summed over all shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::commands) struct DatabaseFigures {
    /// Number of the database.
    pub(in crate::commands) index: usize,
    /// Number of keys.
    pub(in crate::commands) keys: u64,
    /// Number of keys with an expiry.
    pub(in crate::commands) volatile: u64,
    /// Average time to live of the keys with an expiry, milliseconds.
    pub(in crate::commands) average_ttl_ms: u64,
    /// Bytes of its tables of keys.
    pub(in crate::commands) table_bytes: u64,
    /// Bytes of its tables of volatile keys.
    pub(in crate::commands) volatile_bytes: u64,
}

impl Gathered {
    /// Decodes the figures of all shards.
    pub(in crate::commands) fn decode(parts: &[Part]) -> Self {
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .rev()
                .fold(0, |value, &byte| value << 8 | u64::from(byte))
        };
        Self {
            shards: parts
                .iter()
                .map(|part| part.bytes.chunks_exact(8).map(number).collect())
                .collect(),
        }
    }

    fn sum_at(&self, index: usize) -> u64 {
        self.shards.iter().filter_map(|figures| figures.get(index)).sum()
    }

    /// The sum of a figure over all shards.
    pub(in crate::commands) fn sum(&self, figure: Figure) -> u64 {
        self.sum_at(figure as usize)
    }

    /// A figure of one shard.
    pub(in crate::commands) fn of_shard(&self, shard: usize, figure: Figure) -> u64 {
        let figures = self.shards.get(shard);
        figures
            .and_then(|figures| figures.get(figure as usize))
            .copied()
            .unwrap_or(0)
    }

    /// Share of the keys with an expiry that have expired and are still stored, percent.
    pub(in crate::commands) fn stale_percent(&self) -> f64 {
        let volatile: u64 = self.databases().map(|database| database.volatile).sum();
        self.sum(Figure::Stale) as f64 * 100.0 / volatile.max(1) as f64
    }

    /// The databases that have keys.
    pub(in crate::commands) fn databases(&self) -> impl Iterator<Item = DatabaseFigures> {
        let count = self.shards.first().map_or(0, |figures| {
            figures.len().saturating_sub(FIGURES) / DATABASE_FIGURES
        });
        (0..count)
            .map(|index| self.database(index))
            .filter(|database| database.keys > 0)
    }

    fn database(&self, index: usize) -> DatabaseFigures {
        let at = FIGURES + index * DATABASE_FIGURES;
        let volatile = self.sum_at(at + 1);
        let weighted: u64 = self
            .shards
            .iter()
            .filter_map(|figures| Some(figures.get(at + 1)?.saturating_mul(*figures.get(at + 2)?)))
            .fold(0, u64::saturating_add);
        DatabaseFigures {
            index,
            keys: self.sum_at(at),
            volatile,
            average_ttl_ms: weighted.checked_div(volatile).unwrap_or(0),
            table_bytes: self.sum_at(at + 3),
            volatile_bytes: self.sum_at(at + 4),
        }
    }
}
