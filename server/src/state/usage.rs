//! What a node takes of the machine. A node that has the process to itself is told by the allocator and the system, about all
//! of the process; one that is embedded knows what it has counted itself, and nothing of its host's is put down to it.

use std::sync::atomic::Ordering;

use shardis_storage::memory::{self, AllocatorStats};

use super::Node;
use crate::observe::process;
use crate::observe::threads::CpuTime;

/// How much memory is in use.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Bytes in use: of the process where it is the node's own, else those that the node has counted.
    pub(crate) used: u64,
    /// What is known of the process; none where it is not the node's own.
    pub(crate) process: Option<ProcessMemory>,
}

/// The memory of the process, bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProcessMemory {
    /// What the allocator says.
    pub(crate) allocator: AllocatorStats,
    /// Resident in memory.
    pub(crate) resident: u64,
}

impl ProcessMemory {
    /// What is known at this moment, if the node has counted so many bytes.
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
    /// Looks at how much memory is in use, and remembers the most that there ever was. Where the process is the node's own,
    /// all of it counts against `maxmemory`; embedded, it would be the host's as well.
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
