//! A connection that sends one PING after another and remembers the longest time for which its loop was deaf.
//!
//! A wait has three parts. While the thread of the loop, or that of the probe, is ready to run and gets no processor, the machine
//! is busy with others: that says nothing about the server, and the kernel tells how long it was. The rest is deafness:
//! the loop did something else, or waited for something else.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::Shared;
use crate::client::Client;
use crate::process::Process;

/// Time between two PINGs.
const PERIOD: Duration = Duration::from_millis(1);

/// PINGs by which a probe finds the thread that answers it.
const SEARCH_PINGS: usize = 200;

/// A probe of one loop.
pub(super) struct Probe {
    client: Client,
    /// File with the kernel's figures about the loop's thread.
    thread: String,
}

/// A wait for an answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wait {
    /// From the request to the answer.
    pub all: Duration,
    /// Time in which the loop or the probe was ready to run and got no processor.
    pub queued: Duration,
    /// Processor time of the loop meanwhile.
    pub ran: Duration,
}

impl Wait {
    /// Time in which the loop could have answered, and did not.
    #[must_use]
    pub fn deaf(&self) -> Duration {
        // The kernel's clock and this program's are looked at one after the other, so that the parts may exceed the whole.
        self.all.saturating_sub(self.queued)
    }
}

/// Processor time of a thread, and time for which it was ready and had none.
#[derive(Clone, Copy, Default)]
struct Scheduled {
    ran: Duration,
    queued: Duration,
}

impl Scheduled {
    /// Reads the `schedstat` of a thread.
    fn of(path: &str) -> Self {
        let text = fs::read_to_string(path).unwrap_or_default();
        let mut nanos = text
            .split_ascii_whitespace()
            .map(|word| Duration::from_nanos(word.parse().unwrap_or_default()));
        Self {
            ran: nanos.next().unwrap_or_default(),
            queued: nanos.next().unwrap_or_default(),
        }
    }
}

impl Probe {
    /// Connects to a server that has nothing else to do. No command of other clients may kill a probe, or evict it.
    pub(super) fn connect(server: &Process) -> Self {
        let mut client = server.connect();
        client.line("CLIENT SETNAME probe");
        client.line("CLIENT NO-EVICT on");
        let thread = thread_that_answers(&mut client, server.pid());
        Self { client, thread }
    }

    /// Sends PINGs until the run is over. Returns the wait in which the loop was deaf for longest.
    pub(super) fn listen(mut self, shared: &Shared) -> Wait {
        let mut longest = Wait::default();
        while !shared.is_over() {
            match self.ping() {
                Ok(wait) if wait.deaf() > longest.deaf() => longest = wait,
                Ok(_) => {}
                Err(fault) => {
                    shared.faults.add(fault);
                    break;
                }
            }
            sleep(PERIOD);
        }
        longest
    }

    fn ping(&mut self) -> Result<Wait, String> {
        const OWN: &str = "/proc/thread-self/schedstat";
        let before = [&self.thread, OWN].map(Scheduled::of);
        let begin = Instant::now();
        let reply = self.client.try_call(&["PING"]);
        let all = begin.elapsed();
        let after = [&self.thread, OWN].map(Scheduled::of);
        match reply {
            Ok(reply) if reply.bytes() == b"PONG" => {}
            Ok(reply) => return Err(format!("PING was answered {reply}")),
            Err(error) => return Err(format!("a probe got no answer: {error}")),
        }
        let queued = after
            .iter()
            .zip(&before)
            .map(|(after, before)| after.queued - before.queued);
        Ok(Wait {
            all,
            queued: queued.sum(),
            ran: after[0].ran - before[0].ran,
        })
    }
}

/// The thread of a server that works most when a client sends PINGs.
fn thread_that_answers(client: &mut Client, pid: u32) -> String {
    let threads: Vec<String> = fs::read_dir(format!("/proc/{pid}/task"))
        .expect("a running process has threads")
        .filter_map(|entry| Some(entry.ok()?.path().join("schedstat").display().to_string()))
        .collect();
    let ran = |thread: &String| Scheduled::of(thread).ran;
    let before: Vec<Duration> = threads.iter().map(ran).collect();
    for _ in 0..SEARCH_PINGS {
        client.line("PING");
    }
    let worked = |(thread, before): (String, Duration)| (ran(&thread).saturating_sub(before), thread);
    let busiest = threads.into_iter().zip(before).map(worked).max();
    busiest.map(|(_, thread)| thread).unwrap_or_default()
}
