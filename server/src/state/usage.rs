//! Memory and processor time of a node. Where the process is the node's own, the figures are those of the allocator
//! and the system for the process; an embedded node reports what it has counted itself, without the share of its
//! host.

use std::sync::atomic::Ordering;

use shardis_storage::memory::{self, AllocatorStats};

use super::Node;
use crate::observe::process;
use crate::observe::threads::CpuTime;

/// Memory in use.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Bytes in use: those of the process if it is the node's own, else those that the node has counted.
    pub(crate) used: u64,
    /// The memory of the process; none if it is not the node's own.
    pub(crate) process: Option<ProcessMemory>,
}

/// The memory of the process, bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProcessMemory {
    /// Statistics of the allocator.
    pub(crate) allocator: AllocatorStats,
    /// Resident bytes.
    pub(crate) resident: u64,
}

impl ProcessMemory {
    /// The figures at this moment; `counted` replaces the bytes in use if the allocator does not report them.
    fn now(counted: u64) -> Self {
        let resident = process::resident_bytes();
        let mut allocator = memory::jemalloc_stats();
        if allocator.allocated == 0 {
            // The system's allocator reports nothing: the counted bytes are the best lower bound of those in use, and
            // the resident ones the best upper bound.
            allocator = AllocatorStats {
                allocated: counted as usize,
                active: resident as usize,
                resident: resident as usize,
                mapped: resident as usize,
            };
        }
        Self { allocator, resident }
    }
}

impl Node {
    /// Measures the memory in use, and keeps its peak. If the process is the node's own, all of it counts against
    /// `maxmemory`; in an embedding process much belongs to the host.
    pub(crate) fn measure_memory(&self) -> Usage {
        let known = self.known_bytes();
        let process = self
            .daemon
            .is_some()
            .then(|| ProcessMemory::now(known.cast_unsigned()));
        let used = process.map_or(known.cast_unsigned(), |process| {
            process.allocator.allocated as u64
        });
        let (backlog, for_links) = self.journal.backlog_memory();
        let other = match process {
            // Bytes that wait to be written to the append-only file cause no eviction, nor do those that only slow links need.
            Some(_) => {
                let excluded = self.journal.write_figures().buffered as u64 + for_links;
                used.cast_signed() - known - excluded.cast_signed()
            }
            None => backlog.cast_signed(),
        };
        self.other_bytes.store(other, Ordering::Relaxed);
        self.memory_peak.fetch_max(used, Ordering::Relaxed);
        Usage { used, process }
    }

    /// The most bytes in use that were noticed.
    pub(crate) fn memory_peak(&self) -> u64 {
        self.memory_peak.load(Ordering::Relaxed)
    }

    /// Processor time of the node: that of the process if it is the node's own, else that of its threads.
    pub(crate) fn cpu_time(&self) -> CpuTime {
        match &self.daemon {
            Some(_) => CpuTime::of_process(),
            None => self.threads.cpu_time(),
        }
    }
}
