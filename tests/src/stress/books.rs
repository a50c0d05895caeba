//! The memory of a server before, during and after a run, as the server and the kernel tell it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{
    LEFT_BYTES_MAX, LEFT_BYTES_PER_LOOP, MAXMEMORY, RESIDENT_BYTES_PER_LOOP, RESIDENT_EXCESS_PERCENT,
    RESIDENT_GROWTH_PERCENT, SHARD_LEFT_BYTES_MAX,
};
use crate::client::Client;
use crate::info::{figure, of_shards};
use crate::process::Process;
use crate::procfs::resident_bytes;

/// Figures of one server over a run.
pub(super) struct Books {
    client: Client,
    pid: u32,
    at_start: Figures,
    used_bytes_max: u64,
    /// Resident memory at many moments of each half of the run.
    resident_bytes: [Vec<u64>; 2],
    /// Figures of the allocator when most was resident.
    allocator_then: String,
    resident_bytes_end: u64,
    /// The run is long enough for its halves to be compared.
    halves_compare: bool,
}

/// Memory at one moment, in bytes.
#[derive(Clone, Debug)]
struct Figures {
    used: u64,
    /// Data of each shard.
    shards: Vec<u64>,
    resident: u64,
}

impl Books {
    /// Opens the books of a server that has done nothing yet.
    pub(super) fn open(server: &Process, halves_compare: bool) -> Self {
        let mut client = server.connect();
        client.line("CLIENT SETNAME books");
        client.line("CLIENT NO-EVICT on");
        let at_start = figures(&mut client, server.pid());
        Self {
            client,
            pid: server.pid(),
            used_bytes_max: at_start.used,
            resident_bytes: [Vec::new(), Vec::new()],
            allocator_then: String::new(),
            resident_bytes_end: at_start.resident,
            halves_compare,
            at_start,
        }
    }

    /// Notes the memory of this moment, in a half of the run.
    pub(super) fn note(&mut self, half: usize) {
        let now = figures(&mut self.client, self.pid);
        self.used_bytes_max = self.used_bytes_max.max(now.used);
        if now.resident > self.resident_max() {
            self.allocator_then = allocator(&mut self.client);
        }
        self.resident_bytes[half].push(now.resident);
    }

    fn resident_max(&self) -> u64 {
        let noted = self.resident_bytes.iter().flatten().copied();
        noted.fold(self.at_start.resident, u64::max)
    }

    /// Resident memory of a half of the run, as it was most of the time: peaks are chance, a leak is not.
    fn usual_resident(&self, half: usize) -> u64 {
        let mut noted = self.resident_bytes[half].clone();
        noted.sort_unstable();
        noted
            .get(noted.len() / 2)
            .copied()
            .unwrap_or(self.at_start.resident)
    }

    /// Most memory that the server said to use.
    pub(super) fn used_bytes_max(&self) -> u64 {
        self.used_bytes_max
    }

    /// Resident memory at the start, at its highest, and at the end.
    pub(super) fn resident_bytes(&self) -> [u64; 3] {
        [
            self.at_start.resident,
            self.resident_max(),
            self.resident_bytes_end,
        ]
    }

    /// The commands that the server remembers as slow, the slowest first: microseconds and the first words of each.
    pub(super) fn slow_commands(&mut self) -> String {
        let entries = self.client.try_call(&["SLOWLOG", "GET", "128"]);
        let mut slow: Vec<(i64, String)> = entries
            .iter()
            .flat_map(|reply| reply.items())
            .filter_map(|entry| match entry.items() {
                [_, _, us, words, ..] => {
                    let words: Vec<String> = words.items().iter().take(4).map(|word| word.text()).collect();
                    Some((us.integer()?, words.join(" ").chars().take(60).collect()))
                }
                _ => None,
            })
            .collect();
        slow.sort_by_key(|(us, _)| -us);
        slow.truncate(5);
        format!("{slow:?}")
    }

    /// Empties the server, waits until it is idle, and returns the faults in its books.
    pub(super) fn close(&mut self, patience: Duration) -> Vec<String> {
        for line in [
            &["CLIENT", "UNPAUSE"][..],
            &["CONFIG", "SET", "maxmemory", "0"],
            &["FLUSHALL"],
        ] {
            if let Err(error) = self.client.try_call(line) {
                return vec![format!("{} was not answered: {error}", line.join(" "))];
            }
        }
        let deadline = Instant::now() + patience;
        loop {
            let faults = self.faults();
            if faults.is_empty() || Instant::now() > deadline {
                return faults;
            }
            sleep(Duration::from_millis(200));
        }
    }

    fn faults(&mut self) -> Vec<String> {
        let now = figures(&mut self.client, self.pid);
        self.resident_bytes_end = now.resident;
        let mut faults = Vec::new();
        for (shard, (&before, &after)) in self.at_start.shards.iter().zip(&now.shards).enumerate() {
            if after.abs_diff(before) > SHARD_LEFT_BYTES_MAX {
                faults.push(format!(
                    "shard {shard} is empty and holds {after} bytes; {before} at the start"
                ));
            }
        }
        let loops = self.at_start.shards.len() as u64;
        if now.used > self.at_start.used + LEFT_BYTES_MAX + LEFT_BYTES_PER_LOOP * loops {
            faults.push(format!(
                "used_memory is {} of an empty server; {} at the start",
                now.used, self.at_start.used
            ));
        }
        let resident_max = self.at_start.resident
            + MAXMEMORY * (100 + RESIDENT_EXCESS_PERCENT) / 100
            + RESIDENT_BYTES_PER_LOOP * loops;
        if self.resident_max() > resident_max {
            faults.push(format!(
                "resident memory rose to {} under a limit of {MAXMEMORY}, when the allocator said {}",
                self.resident_max(),
                self.allocator_then
            ));
        }
        let [first, second] = [0, 1].map(|half| self.usual_resident(half));
        if self.halves_compare && second > first + first * RESIDENT_GROWTH_PERCENT / 100 {
            faults.push(format!(
                "resident memory was mostly {first} in the first half, and {second} in the second"
            ));
        }
        for field in ["blocked_clients", "lazyfree_pending_objects", "tracking_clients"] {
            let value = figure(&mut self.client, field);
            if value > 0 {
                faults.push(format!("{field} stays at {value}"));
            }
        }
        faults
    }
}

fn figures(client: &mut Client, pid: u32) -> Figures {
    Figures {
        used: figure(client, "used_memory"),
        shards: of_shards(client, "memory"),
        resident: resident_bytes(pid).expect("a running process"),
    }
}

/// Fields of INFO about the allocator and clients' buffers.
fn allocator(client: &mut Client) -> String {
    let info = client.try_call(&["INFO", "memory"]).map(|reply| reply.text());
    let text = info.unwrap_or_default();
    let told = text.lines().filter(|line| {
        let (name, _) = line.split_once(':').unwrap_or_default();
        matches!(
            name,
            "allocator_allocated"
                | "allocator_active"
                | "allocator_resident"
                | "used_memory_dataset"
                | "mem_clients_normal"
        )
    });
    told.collect::<Vec<_>>().join(" ")
}
