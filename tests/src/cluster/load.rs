//! Writers that never rest: each has lists of its own, appends numbers to them that are never used again, and remembers the fate of
//! each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use super::Cluster;
use super::audit::Audit;
use super::client::{ClusterClient, Fate, Redirects};
use crate::wait::wait_until;

/// Lists of a writer at any time: enough that each primary has some of them.
const LISTS: usize = 24;

/// Numbers after which a list is left alone, and another one begins.
const LIST_LENGTH: u64 = 128;

/// Time before the next number after one that was refused.
const REFUSED: Duration = Duration::from_millis(10);

/// Longest wait of a writer for a reply.
const WRITER_PATIENCE: Duration = Duration::from_millis(1500);

/// A number that was sent to a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The server has answered.
    Acknowledged,
    /// The server certainly did not append it.
    Refused,
    /// The server may have appended it.
    Unknown,
}

/// The numbers that were sent to each list, in order.
pub type Ledger = BTreeMap<String, Vec<(u64, Sent)>>;

/// The work of a load.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Number of writers.
    pub writers: usize,
    /// Replicas that must have a number before it counts as acknowledged.
    pub wait: i64,
    /// Time of a writer between two numbers.
    pub pause: Duration,
}

impl Default for Work {
    fn default() -> Work {
        Work {
            writers: 4,
            wait: 0,
            pause: Duration::from_millis(1),
        }
    }
}

/// Writers at work.
pub struct Load {
    is_over: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    writers: Vec<JoinHandle<(Ledger, Redirects, Duration)>>,
}

/// Result of a load.
pub struct Written {
    /// Fates of all numbers.
    pub ledger: Ledger,
    /// Redirects met by all writers.
    pub redirects: Redirects,
    /// The longest time that a list had to wait for its next acknowledgement.
    pub pause_max: Duration,
}

impl Load {
    /// Sets writers to work on a cluster.
    #[must_use]
    pub fn start(cluster: &Cluster, work: Work) -> Load {
        let is_over = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let writer = |number: usize| {
            let writer = Writer {
                number,
                work,
                client: cluster.client().patience(WRITER_PATIENCE),
                is_over: Arc::clone(&is_over),
                acknowledged: Arc::clone(&acknowledged),
                ledger: Ledger::new(),
                last: BTreeMap::new(),
                pause_max: Duration::ZERO,
            };
            spawn(move || writer.run())
        };
        let writers = (0..work.writers).map(writer).collect();
        Load {
            is_over,
            acknowledged,
            writers,
        }
    }

    /// Numbers acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many more numbers were acknowledged.
    ///
    /// # Panics
    /// When they are not.
    pub fn await_more(&self, count: u64) {
        let wanted = self.acknowledged() + count;
        wait_until(&format!("{count} more writes"), || self.acknowledged() >= wanted);
    }

    /// Ends the writers.
    ///
    /// # Panics
    /// When one has panicked.
    #[must_use]
    pub fn stop(self) -> Written {
        self.is_over.store(true, Ordering::Relaxed);
        let mut written = Written {
            ledger: Ledger::new(),
            redirects: Redirects::default(),
            pause_max: Duration::ZERO,
        };
        for writer in self.writers {
            let (ledger, redirects, pause) = writer.join().expect("a writer that ends well");
            written.ledger.extend(ledger);
            written.redirects.moved += redirects.moved;
            written.redirects.ask += redirects.ask;
            written.redirects.try_again += redirects.try_again;
            written.pause_max = written.pause_max.max(pause);
        }
        written
    }

    /// Ends the writers, and compares what they were told with what is there.
    ///
    /// # Panics
    /// When a list cannot be read.
    #[must_use]
    pub fn audit(self, cluster: &Cluster) -> Audit {
        Audit::of(&self.stop().ledger, &mut cluster.client())
    }
}

/// One writer.
struct Writer {
    number: usize,
    work: Work,
    client: ClusterClient,
    is_over: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    ledger: Ledger,
    /// Moment of the last acknowledgement of each of its places for a list.
    last: BTreeMap<usize, Instant>,
    pause_max: Duration,
}

impl Writer {
    fn run(mut self) -> (Ledger, Redirects, Duration) {
        for step in 0.. {
            if self.is_over.load(Ordering::Relaxed) {
                break;
            }
            let place = step % LISTS;
            self.append(place, (step / LISTS) as u64);
            sleep(self.work.pause);
        }
        (self.ledger, self.client.redirects(), self.pause_max)
    }

    /// Appends a number to the list that is in this place now.
    fn append(&mut self, place: usize, number: u64) {
        let list = format!("load:{}:{place}:{}", self.number, number / LIST_LENGTH);
        let text = number.to_string();
        let words = ["RPUSH", &list, &text];
        let fate = match self.work.wait {
            0 => self.client.call(&list, &words),
            replicas => self.client.write_and_wait(&list, &words, replicas),
        };
        let sent = match fate {
            Fate::Answered(reply) => {
                assert!(reply.integer().is_some(), "{words:?}: {reply}");
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
                let before = self.last.insert(place, Instant::now());
                let pause = before.map_or(Duration::ZERO, |before| before.elapsed());
                self.pause_max = self.pause_max.max(pause);
                Sent::Acknowledged
            }
            Fate::Refused(_) => {
                sleep(REFUSED);
                Sent::Refused
            }
            Fate::Unknown(_) => Sent::Unknown,
        };
        self.ledger.entry(list).or_default().push((number, sent));
    }
}
