//! A client of a cluster that goes where redirects send it.

use std::io::{Error, Result};
use std::thread;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use shardis_tests::slot::{self, SLOTS};

use super::super::client::Client;
use super::super::now;
use super::nodes::Nodes;

/// Between two commands, so that what waits is seen and not the load itself.
const REST: Duration = Duration::from_micros(200);
/// Requests of a fill that are sent at a time.
const FILL_PIPELINE: usize = 200;
const VALUE: &str = "vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv";

/// Connections to all nodes, without pipelines.
pub(super) struct Wanderer {
    /// Port and connection of each node.
    nodes: Vec<(u16, Client)>,
    /// Owner of each slot.
    owners: Vec<usize>,
    random: SmallRng,
    waits: Vec<Duration>,
}

impl Wanderer {
    /// Connects to all nodes; the slots are where they were at first.
    pub(super) fn connect(cluster: &Nodes, seed: u64) -> Result<Self> {
        let mut nodes = Vec::new();
        let mut owners = vec![0; usize::from(SLOTS)];
        for index in 0..cluster.len() {
            nodes.push((cluster.port(index), cluster.server(index).client()?));
            owners[usize::from(cluster.first_slot(index))..].fill(index);
        }
        Ok(Self {
            nodes,
            owners,
            random: SmallRng::seed_from_u64(seed),
            waits: Vec::new(),
        })
    }

    /// Writes all keys below `keys` that a node owns.
    pub(super) fn fill(&mut self, node: usize, keys: u64) -> Result<()> {
        let owned: Vec<_> = (0..keys)
            .map(name)
            .filter(|key| self.owner(key) == node)
            .collect();
        let client = &mut self.nodes[node].1;
        for part in owned.chunks(FILL_PIPELINE) {
            let lines: String = part.iter().map(|key| format!("SET {key} {VALUE}\r\n")).collect();
            client.send_lines(&lines)?;
            for _ in part {
                client.receive()?;
            }
        }
        Ok(())
    }

    /// Writes one of so many keys.
    pub(super) fn write(&mut self, keys: u64) -> Result<()> {
        let key = name(self.random.random_range(0..keys));
        let request = format!("SET {key} {VALUE}");
        let mut node = self.owner(&key);
        let mut is_sent = false;
        while let Err(error) = self.send(node, is_sent, &request) {
            let text = error.to_string();
            let code = text.split(' ').next().unwrap_or_default();
            is_sent = code == "ASK";
            match code {
                "ASK" => node = self.target(&text)?,
                "MOVED" => {
                    node = self.target(&text)?;
                    self.owners[usize::from(slot::of(key.as_bytes()))] = node;
                }
                "TRYAGAIN" => {}
                _ => return Err(error),
            }
        }
        thread::sleep(REST);
        Ok(())
    }

    /// The waits so far, each from a request to its reply.
    pub(super) fn into_waits(self) -> Vec<Duration> {
        self.waits
    }

    fn owner(&self, key: &str) -> usize {
        self.owners[usize::from(slot::of(key.as_bytes()))]
    }

    fn send(&mut self, node: usize, is_sent: bool, request: &str) -> Result<()> {
        let client = &mut self.nodes[node].1;
        let start = now();
        if is_sent {
            client.call("ASKING")?;
        }
        let result = client.call(request);
        self.waits.push(start.elapsed());
        result.map(drop)
    }

    /// The node that a redirect names.
    fn target(&self, redirect: &str) -> Result<usize> {
        let port = redirect
            .rsplit(':')
            .next()
            .and_then(|port| port.parse::<u16>().ok());
        let known = self.nodes.iter().position(|(known, _)| Some(*known) == port);
        known.ok_or_else(|| Error::other(format!("a redirect to nobody: {redirect}")))
    }
}

fn name(number: u64) -> String {
    format!("key:{number:012}")
}
