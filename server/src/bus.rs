//! The cluster bus: real sockets and a real file for the machine in the crate `cluster`.
//!
//! | module | subject |
//! |---|---|
//! | [`driver`] | the task that brings the machine its events and carries out what it decides |
//! | [`actions`] | decisions that change what this node is for its clients; facts about it |
//! | [`link`] | a connection: frames in, a bounded queue out |
//! | [`listener`] | connections that other nodes open |
//! | [`failures`] | what the log tells of connections that fail |
//! | [`file`], [`saver`] | nodes.conf, locked and replaced as a whole |
//!
//! The file is read and the port opened when the node starts, before anything else can happen; the task begins when the data is
//! loaded. It runs on the control thread, for which loops never wait.

mod actions;
mod driver;
mod failures;
mod file;
mod link;
mod listener;
mod saver;

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shardis_cluster::Machine;
use shardis_cluster::node::{Address, NodeId};
use shardis_cluster::nodes_file;
use tokio::task::spawn_local;

use self::driver::Driver;
use self::failures::Failures;
use self::file::{NodesFile, NodesFileError};
use self::listener::Reception;
use self::saver::Saver;
use crate::clock::Clock;
use crate::cluster::{Cluster, Ports, now, options};
use crate::config::{Primary, Settings};
use crate::connection::binding::{Transport, rebind};
use crate::log::Log;
use crate::shard::Mesh;
use crate::state::{Node, Seed};

/// Distance from a node's client port to that of its bus, unless `cluster-port` says otherwise.
const BUS_PORT_DISTANCE: u16 = 10_000;

/// Error that prevents the bus of a node from starting.
#[derive(Debug)]
pub(crate) enum BusError {
    /// The client port is so high that there is no port for the bus.
    PortTooHigh,
    /// The port of the bus cannot be listened on.
    Listen(u16, io::Error),
    /// The file of nodes cannot be used.
    File(NodesFileError),
    /// The file of nodes cannot be written.
    Save(String, io::Error),
}

impl fmt::Display for BusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortTooHigh => f.write_str(
                "Redis port number too high for cluster mode. Cluster bus port number is by default 10000 more than the Redis port. \
                 Redis port number must be 55535 or less.",
            ),
            Self::Listen(port, error) => {
                write!(f, "Failed listening on port {port} (cluster), aborting. {error}")
            }
            Self::File(error) => error.fmt(f),
            Self::Save(path, error) => {
                write!(f, "Can't write the cluster configuration file {path}: {error}")
            }
        }
    }
}

impl std::error::Error for BusError {}

/// The parts of a bus that are opened before its task begins.
#[derive(Debug)]
pub(crate) struct Bus {
    listeners: Vec<TcpListener>,
    file: NodesFile,
    /// The port that it listens on.
    pub(crate) port: u16,
}

impl Bus {
    /// Opens the port and the file of a node that is part of a cluster. With `any_port` the bus takes any port that is free, unless one
    /// is configured. Returns the node's place in the cluster, too.
    ///
    /// # Errors
    /// When the port or the file cannot be used.
    pub(crate) fn open(
        settings: &Settings,
        any_port: bool,
        seed: Seed,
        clock: &Arc<Clock>,
        log: &Log,
    ) -> Result<(Self, Cluster), BusError> {
        let port = match settings.cluster_port {
            0 if any_port => 0,
            0 => first_port(settings)
                .checked_add(BUS_PORT_DISTANCE)
                .ok_or(BusError::PortTooHigh)?,
            port => port,
        };
        let bound = rebind(&[], settings, (Transport::Plain, port), log)
            .map_err(|error| BusError::Listen(port, error))?;
        let port = bound.first().map_or(port, |bound| bound.address.port());
        let listeners = bound.into_iter().filter_map(|bound| bound.into_std()).collect();
        let path = settings.dir.path().join(&settings.cluster_config_file);
        let (mut file, text) = NodesFile::open(path).map_err(BusError::File)?;
        let ports = Ports {
            client: settings.port,
            bus: port,
        };
        let machine = machine(settings, ports, &text, &file, (seed, clock, log))?;
        let text = nodes_file::print(machine.view(), now(clock), machine.options().is_tls);
        // A node that cannot keep its word must not give it.
        file.save(&text, true)
            .map_err(|error| BusError::Save(file.path().display().to_string(), error))?;
        let cluster = Cluster::new(machine, Arc::clone(clock));
        cluster.note_bus_port(port);
        Ok((
            Self {
                listeners,
                file,
                port,
            },
            cluster,
        ))
    }
}

/// The port of clients from which others derive that of the bus: the one of the kind that the bus uses, or the only one there is.
fn first_port(settings: &Settings) -> u16 {
    let address = Address {
        tcp_port: settings.port,
        tls_port: settings.tls_port,
        ..Address::default()
    };
    address.client_port(settings.tls_cluster)
}

/// The machine of a node: it goes on from the file, or begins.
fn machine(
    settings: &Settings,
    ports: Ports,
    text: &str,
    file: &NodesFile,
    (seed, clock, log): (Seed, &Arc<Clock>, &Log),
) -> Result<Machine, BusError> {
    let moment = now(clock);
    // Nodes with the same chosen seed differ in their ports; with a random seed, each start has names of its own.
    let mut chance = StdRng::seed_from_u64(seed.number ^ u64::from(ports.bus).rotate_right(16));
    let mut name = || NodeId::new(std::array::from_fn(|_| chance.random()));
    let (id, shard) = (name(), name());
    let seed = chance.random();
    let options = options(settings, ports);
    let known = nodes_file::parse(text, moment, options.is_tls, seed).map_err(|error| {
        let path = file.path().to_owned();
        BusError::File(NodesFileError::Text(path, error))
    })?;
    Ok(match known {
        Some(view) => {
            log.notice(format_args!("Node configuration loaded, I'm {}", view.me().id));
            Machine::resume(view, shard, options, moment, seed)
        }
        None => {
            log.notice(format_args!("No cluster configuration found, I'm {id}"));
            Machine::new(id, shard, options, moment, seed)
        }
    })
}

/// The primary that a node follows from its start, as its file says, with the port of the kind that its links use.
pub(crate) fn primary_at_start(cluster: &Cluster, is_tls: bool) -> Option<Primary> {
    cluster.read(|machine, _| {
        let view = machine.view();
        let primary = view.me().primary.filter(|_| view.me().is_replica())?;
        let address = view[primary].address;
        (!address.ip.is_empty()).then(|| Primary {
            host: address.ip.to_string(),
            port: address.client_port(is_tls),
        })
    })
}

/// Runs the bus from when the data is loaded until the node ends.
pub(crate) async fn serve(node: Arc<Node>, mesh: Arc<Mesh>, bus: Option<Bus>) {
    let (Some(bus), Some(cluster)) = (bus, &node.cluster) else {
        return;
    };
    cluster.begun().await;
    let failures = Rc::new(Failures::new(Arc::clone(&node)));
    let Some(mut driver) = Driver::new((Arc::clone(&node), mesh), Saver::new(bus.file), &failures) else {
        return;
    };
    let reception = Rc::new(Reception::new(Arc::clone(&node), driver.sender(), failures));
    for listener in bus.listeners {
        let (node, reception) = (Arc::clone(&node), Rc::clone(&reception));
        spawn_local(async move {
            if let Err(error) = reception.accept(listener).await {
                node.log
                    .warning(format_args!("The cluster bus does not listen any more: {error}"));
            }
        });
    }
    // The node has been told to stop where the bus cannot go on.
    let _ = driver.run().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_the_bus_follows_that_of_the_kind_that_it_uses() {
        for (port, tls_port, tls_cluster, first) in [
            (1, 0, false, 1),
            (1, 2, false, 1),
            (1, 2, true, 2),
            (0, 2, true, 2),
            (0, 2, false, 2),
            (1, 0, true, 1),
        ] {
            let settings = Settings {
                port,
                tls_port,
                tls_cluster,
                ..Settings::default()
            };
            assert_eq!(first_port(&settings), first, "{port} {tls_port} {tls_cluster}");
        }
    }
}
