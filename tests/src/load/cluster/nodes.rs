//! Nodes of a cluster, each the owner of an even part of the slots.

use std::io::{Error, Result};
use std::net::{Ipv4Addr, TcpListener};
use std::thread;
use std::time::Duration;

use shardis_tests::slot::SLOTS;

use super::super::now;
use super::super::placement::Placement;
use super::super::server::{Program, Server};

/// Longest time until all nodes agree.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);
const NODE_TIMEOUT_MS: &str = "5000";

/// A cluster without replicas.
pub(super) struct Nodes {
    servers: Vec<Server>,
}

impl Nodes {
    /// Starts so many nodes, anywhere.
    pub(super) fn start(program: &Program, count: usize) -> Result<Self> {
        Self::start_at(program, count, Placement::Free)
    }

    /// Starts so many nodes, and returns when each says that the cluster works.
    pub(super) fn start_at(program: &Program, count: usize, placement: Placement) -> Result<Self> {
        let mut nodes = Self { servers: Vec::new() };
        let mut bus_ports = Vec::new();
        for _ in 0..count {
            let bus_port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            bus_ports.push(bus_port);
            let bus_port = bus_port.to_string();
            let options = [
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus_port,
                "--cluster-node-timeout",
                NODE_TIMEOUT_MS,
            ];
            nodes.servers.push(program.start(placement, &options)?);
        }
        nodes.join(&bus_ports)?;
        Ok(nodes)
    }

    fn join(&self, bus_ports: &[u16]) -> Result<()> {
        for (index, server) in self.servers.iter().enumerate() {
            let (first, behind) = (self.first_slot(index), self.first_slot(index + 1));
            let mut client = server.client()?;
            client.call(&format!("CLUSTER ADDSLOTSRANGE {first} {}", behind - 1))?;
            client.call(&format!("CLUSTER SET-CONFIG-EPOCH {}", index + 1))?;
        }
        let mut first = self.servers[0].client()?;
        for (index, bus_port) in bus_ports.iter().enumerate().skip(1) {
            first.call(&format!("CLUSTER MEET 127.0.0.1 {} {bus_port}", self.port(index)))?;
        }
        let start = now();
        while !self.agree()? {
            if start.elapsed() > PATIENCE {
                return Err(Error::other(format!("no cluster within {PATIENCE:?}")));
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    fn agree(&self) -> Result<bool> {
        let known = format!("cluster_known_nodes:{}", self.servers.len());
        for server in &self.servers {
            let reply = server.client()?.call("CLUSTER INFO")?;
            let text = reply.text().unwrap_or_default();
            if !text.contains("cluster_state:ok") || !text.contains(&known) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The first slot of a node; behind the last node, the number of slots.
    pub(super) fn first_slot(&self, index: usize) -> u16 {
        (usize::from(SLOTS) * index / self.servers.len()) as u16
    }

    /// Number of nodes.
    pub(super) fn len(&self) -> usize {
        self.servers.len()
    }

    /// One of the nodes.
    pub(super) fn server(&self, index: usize) -> &Server {
        &self.servers[index]
    }

    /// Its port for clients.
    pub(super) fn port(&self, index: usize) -> u16 {
        self.servers[index].address().port()
    }

    /// Its name.
    pub(super) fn id(&self, index: usize) -> Result<String> {
        let reply = self.servers[index].client()?.call("CLUSTER MYID")?;
        Ok(reply.text().unwrap_or_default().to_owned())
    }

    /// CPU time of all nodes so far.
    pub(super) fn cpu(&self) -> Result<Duration> {
        self.servers.iter().map(Server::cpu).sum()
    }
}
