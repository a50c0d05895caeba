//! A connection that sends one PING after another and remembers the longest wait for an answer.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::Shared;
use crate::client::Client;
use crate::process::Process;

/// Time between two PINGs.
const PERIOD: Duration = Duration::from_millis(1);

/// A probe of one loop.
pub(super) struct Probe {
    client: Client,
}

impl Probe {
    /// Connects to a server. No command of other clients may kill a probe, or evict it.
    pub(super) fn connect(server: &Process) -> Self {
        let mut client = server.connect();
        client.line("CLIENT SETNAME probe");
        client.line("CLIENT NO-EVICT on");
        Self { client }
    }

    /// Sends PINGs until the run is over. Returns the longest wait.
    pub(super) fn listen(mut self, shared: &Shared) -> Duration {
        let mut longest = Duration::ZERO;
        while !shared.is_over() {
            let begin = Instant::now();
            match self.client.try_call(&["PING"]) {
                Ok(reply) if reply.bytes() == b"PONG" => {}
                Ok(reply) => shared.faults.add(format!("PING was answered {reply}")),
                Err(error) => {
                    shared.faults.add(format!("a probe got no answer: {error}"));
                    break;
                }
            }
            longest = longest.max(begin.elapsed());
            sleep(PERIOD);
        }
        longest
    }
}
