//! Memory and processor time of a node. Where the process is the node's own, the allocator and the system tell those of the
//! process; an embedded node tells what it has counted itself, and nothing of its host's is put down to it.

use std::sync::atomic::Ordering;

use shardis_storage::memory::{self, AllocatorStats};

use super::Node;
use crate::observe::process;
use crate::observe::threads::CpuTime;

/// Memory in use.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Bytes in use: of the process where it is the node's own, else those that the node has counted.
    pub(crate) used: u64,
    /// The memory of the process; none where it is not the node's own.
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
    /// The figures at this moment; `counted` bytes stand in for those in use where the allocator does not tell them.
    fn now(counted: u64) -> Self {
        let resident = process::resident_bytes();
        let mut allocator = memory::jemalloc_stats();
        if allocator.allocated == 0 {
            // The system's allocator says nothing: what is counted is all that is known to be in use, and what is resident
            // is all that can hold it.
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
    /// Measures the memory in use, and keeps its peak. Where the process is the node's own, all of it counts against
    /// `maxmemory`; of an embedding process much belongs to the host.
    pub(crate) fn measure_memory(&self) -> Usage {
        let known = self.known_bytes();
        let process = self
            .daemon
            .is_some()
            .then(|| ProcessMemory::now(known.cast_unsigned()));
        let used = process.map_or(known.cast_unsigned(), |process| {
            process.allocator.allocated as u64
        });
        if process.is_some() {
            self.other_bytes
                .store(used.cast_signed() - known, Ordering::Relaxed);
        }
        self.memory_peak.fetch_max(used, Ordering::Relaxed);
        Usage { used, process }
    }

    /// The most bytes that were noticed to be in use.
    pub(crate) fn memory_peak(&self) -> u64 {
        self.memory_peak.load(Ordering::Relaxed)
    }

    /// The processor time that the node has taken: all of its process's, or its own threads'.
    pub(crate) fn cpu_time(&self) -> CpuTime {
        match &self.daemon {
            Some(_) => CpuTime::of_process(),
            None => self.threads.cpu_time(),
        }
    }
}
