//! [`Builder`]: the thread that builds the data of one shard out of the records that it is sent.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use shardis_storage::key::Key;
use shardis_storage::keyspace::eviction::{lfu, lru};
use shardis_storage::memory::thread_balance;
use shardis_storage::rdb::file::{Usage, ValueError};

use super::parcel::{Arrival, Record};
use super::{Failure, LoadReason, Rules};
use crate::daemon;
use crate::exec::Partition;
use crate::limits::LOGGED_KEYS_MAX;

/// Keys whose places in the table are prefetched together.
const PREFETCHED: usize = 32;

/// Thread that builds the data of one shard.
pub(super) struct Builder<'a> {
    rules: &'a Rules<'a>,
    shard: usize,
    arrival: Arrival,
    /// Number of keys stored.
    keys: u64,
}

impl<'a> Builder<'a> {
    /// A builder for what arrives.
    pub(super) fn new(rules: &'a Rules<'a>, shard: usize, arrival: Arrival) -> Self {
        Self {
            rules,
            shard,
            arrival,
            keys: 0,
        }
    }

    /// Builds until nothing arrives any more. Returns the partition, to which is booked what was allocated for it, and the
    /// number of its keys.
    ///
    /// # Errors
    /// When a value cannot be decoded, or a key is there twice.
    pub(super) fn run(mut self) -> Result<(Partition, u64), Failure> {
        let node = self.rules.node;
        if node.daemon.is_some() {
            daemon::guard_thread();
        }
        let _entered = node.threads.enter();
        let mut partition = Partition::new(self.shard, node.keyspace_options(self.shard), 0, Arc::default());
        let balance = thread_balance();
        let mut has_more = self.arrival.next();
        while has_more {
            self.store_whole_values(&mut partition)?;
            if self.arrival.goes_on() {
                self.store_long_value(&mut partition)?;
            } else {
                has_more = self.arrival.next();
            }
        }
        partition.memory_bytes += thread_balance() - balance;
        Ok((partition, self.keys))
    }

    /// Stores what is whole in the parcel.
    fn store_whole_values(&mut self, partition: &mut Partition) -> Result<(), Failure> {
        let whole = self.arrival.len() - usize::from(self.arrival.goes_on());
        let mut hashes = [0; PREFETCHED];
        for begin in (0..whole).step_by(PREFETCHED) {
            let group = begin..whole.min(begin + PREFETCHED);
            for (index, hash) in group.clone().zip(&mut hashes) {
                let (record, key) = self.arrival.record(index);
                *hash = self.rules.hasher.hash(key);
                let database = partition.keyspace.database(usize::from(record.db));
                database.prefetch_bucket(*hash, record.slot);
            }
            for (index, hash) in group.zip(hashes) {
                let (record, bytes) = self.arrival.record(index);
                let key = Key {
                    bytes,
                    hash,
                    slot: record.slot,
                };
                let (value, limits) = (self.arrival.value(index), &self.rules.limits);
                let clock = self.clock(record.head.usage);
                let merges = self.rules.merges;
                let stored = record.head.form.decode(value, limits, |value| {
                    if merges {
                        partition.unload(record.db, &key);
                    }
                    partition.load(record.db, &key, value, record.head.expiry, clock)
                });
                self.keys += u64::from(self.rules.accept(stored, &record, bytes)?);
            }
        }
        Ok(())
    }

    /// Stores the last value of the parcel, which goes on in those that follow.
    fn store_long_value(&mut self, partition: &mut Partition) -> Result<(), Failure> {
        let (record, bytes) = self.arrival.record(self.arrival.len() - 1);
        let (name, clock) = (bytes.to_vec(), self.clock(record.head.usage));
        let key = self.rules.hasher.key(&name, record.slot);
        let merges = self.rules.merges;
        let stored = record
            .head
            .form
            .decode_from(self.arrival.rest(), &self.rules.limits, |value| {
                if merges {
                    partition.unload(record.db, &key);
                }
                partition.load(record.db, &key, value, record.head.expiry, clock)
            });
        self.keys += u64::from(self.rules.accept(stored, &record, &name)?);
        Ok(())
    }

    /// The access clock of a key. A use that does not suit the eviction policy is ignored.
    fn clock(&self, usage: Option<Usage>) -> u32 {
        let stamp = &self.rules.stamp;
        match usage {
            // The clock counts modulo less than 32 bits.
            Some(Usage::Idle(seconds)) if stamp.lfu.is_none() => {
                lru::idle_since(seconds as u32, stamp.now_ms)
            }
            Some(Usage::Frequency(count)) if stamp.lfu.is_some() => lfu::with_frequency(count, stamp.now_ms),
            _ => stamp.clock,
        }
    }
}

impl Rules<'_> {
    /// Whether a key was stored; false if it was left out.
    fn accept(&self, stored: Result<bool, ValueError>, record: &Record, key: &[u8]) -> Result<bool, Failure> {
        let (offset, reason) = match stored {
            Ok(true) => return Ok(true),
            Ok(false) => (0, LoadReason::Duplicate),
            Err(error) if record.head.form.is_left_out(&error.error) => {
                if self.left_out.fetch_add(1, Ordering::Relaxed) < LOGGED_KEYS_MAX {
                    self.node.log.warning(format_args!(
                        "The file's key '{}' is left out: {}",
                        key.escape_ascii(),
                        error.error
                    ));
                }
                return Ok(false);
            }
            Err(error) if error.is_cut_off() => (error.offset, LoadReason::Stopped),
            Err(error) => (error.offset, LoadReason::Format(error.error)),
        };
        Err(Failure {
            offset: Some(record.offset + offset),
            key: Some(key.to_vec()),
            reason,
        })
    }
}
