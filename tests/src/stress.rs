//! A server under everything at once: random commands of all families, moves between shards, clients that wait, are killed,
//! paused and cut off, values that fill the memory, keys and fields that expire.
//!
//! Three things are watched. No reply may be missing or out of place: every pipeline ends with a token that must come back
//! last. No loop may be deaf: a probe on each loop sends PINGs, and the longest time for which it was not answered is held
//! against that of an idle server beside it, without the time for which the machine gave the threads no processor. No memory may stay behind: when all clients
//! have gone and the data has been flushed, the shards hold what they held before, and so does the process.
//!
//! [`roles`] are the clients, [`probe`] measures deafness, [`books`] reads the server's figures about memory.

mod books;
mod faults;
mod probe;
mod roles;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::node;
use crate::process::Process;
use books::Books;
use faults::Faults;
use probe::Probe;
pub use probe::Wait;

/// Memory limit of the server, small enough to be reached all the time.
const MAXMEMORY: u64 = 48 << 20;

/// Longest wait for a server to become idle after its clients have gone.
const IDLE_PATIENCE: Duration = Duration::from_secs(20);

/// Memory that may stay in use beyond the start's: tables of the node, threads' caches.
const LEFT_BYTES_MAX: u64 = 2 << 20;

/// Memory that each loop may leave in use beside that: its buffers, and the distributions of the durations of some 200 commands,
/// of which each takes up to 12 KB as its durations differ.
const LEFT_BYTES_PER_LOOP: u64 = 3 << 19;

/// Bytes that one empty shard may hold beyond the start's: a table that once was large keeps its smallest form.
const SHARD_LEFT_BYTES_MAX: u64 = 4 << 10;

/// Resident memory that a server may keep beyond its limit and its start, in per cent of the limit: as much again as FLUSHALL ASYNC
/// is still freeing while new data take other pages, and half as much for fragmentation and for pages that were freed within
/// the last quarter of a second: after that the system gets them back.
const RESIDENT_EXCESS_PERCENT: u64 = 150;

/// Growth of the usual resident memory from the first half of a run to the second, in per cent: more is a leak.
const RESIDENT_GROWTH_PERCENT: u64 = 15;

/// Shortest run whose halves are long enough to be compared.
const COMPARABLE: Duration = Duration::from_secs(60);

/// Resident memory that each loop may have beside that: 2.5 MB of receive buffers, its thread's cache of up to 2 MB, and partly
/// used pages of small sizes.
const RESIDENT_BYTES_PER_LOOP: u64 = 6 << 20;

/// A run against one server.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Shards of the server.
    pub shards: usize,
    /// Length of the run; the checks at its end come on top.
    pub time: Duration,
    /// Seed of all clients.
    pub seed: u64,
    /// Longest time for which a loop may be deaf, beyond that of the idle server's.
    pub deaf_max: Duration,
    /// Longest rest of a client between two pipelines.
    pub rest_max: Duration,
}

/// Figures of a run that found no fault.
#[derive(Debug)]
pub struct Outcome {
    /// Pipelines that were answered in full.
    pub pipelines: u64,
    /// Connections that the server or the run itself ended.
    pub ended: u64,
    /// The wait in which a loop was deaf for longest, and that of the idle server's.
    pub longest_wait: (Wait, Wait),
    /// Most memory that the server said to use.
    pub used_bytes_max: u64,
    /// Resident memory at the start, at its highest, and at the end.
    pub resident_bytes: [u64; 3],
}

/// State that all threads of a run share.
struct Shared {
    server: Process,
    over: AtomicBool,
    pipelines: AtomicU64,
    ended: AtomicU64,
    faults: Faults,
    rest_max: Duration,
}

impl Shared {
    /// Lets a client rest between two pipelines.
    fn rest(&self) {
        if !self.rest_max.is_zero() {
            thread::sleep(rand::random_range(Duration::ZERO..=self.rest_max));
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// Carries a plan out.
///
/// # Errors
/// The faults that were found, with the seed.
///
/// # Panics
/// When a server does not start, or a thread of the run cannot.
pub fn run(plan: Plan) -> Result<Outcome, String> {
    let server = start(plan.shards);
    let idle = start(1);
    // The first connections: they are dealt evenly, so that there is one on each loop.
    let probes: Vec<Probe> = (0..plan.shards).map(|_| Probe::connect(&server)).collect();
    let idle_probe = Probe::connect(&idle);
    let mut books = Books::open(&server, plan.time >= COMPARABLE);
    let shared = Arc::new(Shared {
        server,
        over: AtomicBool::new(false),
        pipelines: AtomicU64::new(0),
        ended: AtomicU64::new(0),
        faults: Faults::default(),
        rest_max: plan.rest_max,
    });
    let probing: Vec<_> = probes
        .into_iter()
        .chain([idle_probe])
        .map(|probe| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || probe.listen(&shared))
        })
        .collect();
    let clients = roles::spawn(plan, &shared);
    let end = Instant::now() + plan.time;
    let middle = Instant::now() + plan.time / 2;
    while Instant::now() < end && shared.faults.is_empty() {
        thread::sleep(Duration::from_millis(200));
        books.note(usize::from(Instant::now() > middle));
    }
    shared.over.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().expect("a client thread does not panic");
    }
    let mut waits: Vec<Wait> = probing
        .into_iter()
        .map(|probe| probe.join().expect("a probe does not panic"))
        .collect();
    let idle_wait = waits.pop().unwrap_or_default();
    let longest = waits.into_iter().max_by_key(Wait::deaf).unwrap_or_default();
    let longest_wait = (longest, idle_wait);
    judge(plan, &shared, &mut books, longest_wait)
}

fn start(shards: usize) -> Process {
    node::launch(shards)
        .with(&[
            "--enable-debug-command",
            "yes",
            "--maxmemory",
            &MAXMEMORY.to_string(),
            "--maxmemory-policy",
            "allkeys-lru",
            // Clients that do not read are evicted before they take more than this together.
            "--maxmemory-clients",
            &(MAXMEMORY / 2).to_string(),
            "--notify-keyspace-events",
            "KEA",
        ])
        .serve()
}

/// Looks at what the run has left behind.
fn judge(
    plan: Plan,
    shared: &Shared,
    books: &mut Books,
    longest_wait: (Wait, Wait),
) -> Result<Outcome, String> {
    let mut faults = shared.faults.take();
    let (wait, idle_wait) = longest_wait;
    if wait.deaf() > idle_wait.deaf() + plan.deaf_max {
        faults.push(format!(
            "a loop was deaf for {:?} ({wait:?}); that of the idle server for {:?} ({idle_wait:?}) at most; slow commands: {}",
            wait.deaf(),
            idle_wait.deaf(),
            books.slow_commands()
        ));
    }
    if shared.server.log().contains("panicked") {
        faults.push(format!("the log tells of a panic:\n{}", shared.server.log()));
    }
    faults.extend(books.close(IDLE_PATIENCE));
    if faults.is_empty() {
        return Ok(Outcome {
            pipelines: shared.pipelines.load(Ordering::Relaxed),
            ended: shared.ended.load(Ordering::Relaxed),
            longest_wait,
            used_bytes_max: books.used_bytes_max(),
            resident_bytes: books.resident_bytes(),
        });
    }
    Err(format!(
        "{} shards, seed {}:\n- {}",
        plan.shards,
        plan.seed,
        faults.join("\n- ")
    ))
}
