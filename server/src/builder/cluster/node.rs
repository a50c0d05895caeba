//! A node of a cluster inside this process, and what can happen to it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use parking_lot::Mutex;
use shardis_cluster::event::{Command, CommandError, Reply};
use shardis_cluster::node::{NodeId, host};
use shardis_cluster::view::View;

use super::Common;
use crate::builder::{BuildError, Server};
use crate::replication::LinkStage;
use crate::state::Node;

/// Looks at a node for its tick after a step of a manual clock, and the time between two of them.
const TICK_LOOKS_MAX: u32 = 1_000;
const TICK_LOOK: Duration = Duration::from_micros(200);

/// A node of a [`Cluster`](super::Cluster), which keeps its address, its name and its data when it is stopped and started again.
#[derive(Debug)]
pub struct ClusterNode {
    index: usize,
    folder: PathBuf,
    common: Arc<Common>,
    pub(super) id: NodeId,
    address: SocketAddr,
    bus_port: u16,
    state: Mutex<State>,
}

/// The server of a node.
#[derive(Debug)]
enum State {
    Up(Server),
    /// All its threads stand still.
    Paused(Server),
    Down,
}

impl ClusterNode {
    /// Starts a node for the first time.
    pub(super) fn start(index: usize, folder: PathBuf, common: Arc<Common>) -> Result<Self, BuildError> {
        let server = common.node(index, &folder.display().to_string()).start()?;
        let bus = server.running.state.cluster.as_ref();
        let bus = bus.expect("a node of a cluster has a bus");
        let (id, bus_port) =
            bus.read(|machine, _| (machine.view().me().id, machine.options().announced.bus_port));
        Ok(Self {
            index,
            folder,
            common,
            id,
            address: server.address(),
            bus_port,
            state: Mutex::new(State::Up(server)),
        })
    }

    /// Address that clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL for client libraries.
    pub fn url(&self) -> String {
        match &*self.state.lock() {
            State::Up(server) | State::Paused(server) => server.url(),
            State::Down => {
                let scheme = match self.common.authority {
                    Some(_) => "rediss",
                    None => "redis",
                };
                format!("{scheme}://{}/", self.address)
            }
        }
    }

    /// The node's id, as CLUSTER MYID gives it.
    pub fn id(&self) -> String {
        self.id.to_string()
    }

    /// Whether the node runs: it was not stopped or killed, and no client has shut it down. A paused one runs.
    pub fn is_running(&self) -> bool {
        match &*self.state.lock() {
            State::Up(server) | State::Paused(server) => server.is_running(),
            State::Down => false,
        }
    }

    /// Whether the node takes itself for a primary. A replica becomes one when it has replaced its own.
    pub fn is_primary(&self) -> bool {
        self.look(|view| view.me().is_primary()).unwrap_or(false)
    }

    /// Stops the node in good order, as SIGTERM does: its replicas get what they lack, and its data is brought to the disk.
    pub fn stop(&self) {
        if let Some(server) = self.take() {
            server.stop_in_order();
        }
    }

    /// Ends the node as it is, as SIGKILL does. It keeps what it has answered for: the data of a process that dies is in the system's
    /// hands already.
    pub fn kill(&self) {
        if let Some(server) = self.take() {
            server.stop();
        }
    }

    /// Starts the node again, at its old address and with its data, unless it runs.
    ///
    /// # Errors
    /// When it does not start, for example because another program has taken its port.
    pub fn restart(&self) -> Result<(), BuildError> {
        let mut state = self.state.lock();
        if !matches!(&*state, State::Down) {
            return Ok(());
        }
        let builder = self.common.node(self.index, &self.folder.display().to_string());
        let bus_port = self.bus_port.to_string();
        let server = builder
            .port(self.address.port())
            .directive("cluster-port", bus_port)
            .start()?;
        *state = State::Up(server);
        Ok(())
    }

    /// Has all threads of the node stand still, as SIGSTOP does, until [`resume`](Self::resume). Its connections stay open.
    pub fn pause(&self) {
        let mut state = self.state.lock();
        *state = match std::mem::replace(&mut *state, State::Down) {
            State::Up(server) => {
                server.running.state.freeze();
                State::Paused(server)
            }
            other => other,
        };
    }

    /// Has a paused node go on.
    pub fn resume(&self) {
        let mut state = self.state.lock();
        *state = match std::mem::replace(&mut *state, State::Down) {
            State::Paused(server) => {
                server.running.state.debug.freeze.end();
                State::Up(server)
            }
            other => other,
        };
    }

    /// Takes the server of a node that is to end.
    fn take(&self) -> Option<Server> {
        self.resume();
        match std::mem::replace(&mut *self.state.lock(), State::Down) {
            State::Up(server) | State::Paused(server) => Some(server),
            State::Down => None,
        }
    }

    /// Whether the node runs, and does not stand still.
    pub(super) fn is_awake(&self) -> bool {
        matches!(&*self.state.lock(), State::Up(server) if server.is_running())
    }

    /// Calls `look` on the node's view, if it is awake.
    pub(super) fn look<R>(&self, look: impl FnOnce(&View) -> R) -> Option<R> {
        self.with(|node| {
            let cluster = node.cluster.as_ref().expect("a node of a cluster");
            cluster.read(|machine, _| look(machine.view()))
        })
    }

    /// Has the node carry out a command about the cluster.
    pub(super) fn order(&self, command: Command) -> Result<(), CommandError> {
        let reply = self.with(|node| {
            let cluster = node.cluster.as_ref().expect("a node of a cluster");
            cluster.order(command).0
        });
        match reply {
            Some(Reply::Error(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// The command by which another node meets this one.
    pub(super) fn invitation(&self) -> Command {
        Command::Meet {
            ip: host(&self.address.ip().to_string()).expect("an address is a host"),
            port: self.address.port(),
            bus_port: self.bus_port,
        }
    }

    /// Keeps packets of these nodes from this one, beside those that are kept from it already.
    pub(super) fn ignore(&self, ids: impl Iterator<Item = NodeId>) {
        self.with(|node| {
            let cluster = node.cluster.as_ref().expect("a node of a cluster");
            cluster.ignore(ids);
        });
    }

    /// Lets packets of all nodes through again.
    pub(super) fn hear_all(&self) {
        self.with(|node| {
            let cluster = node.cluster.as_ref().expect("a node of a cluster");
            cluster.hear_all();
        });
    }

    /// Whether the node is a primary, or a replica that follows its own.
    pub(super) fn has_data(&self) -> Result<(), &'static str> {
        let is_in_order = self.with(|node| {
            let following = &node.replication.following;
            let is_replica = self.look_at(node, |view| view.me().is_replica());
            !is_replica || following.link().stage == LinkStage::Connected
        });
        match is_in_order {
            Some(false) => Err("is a replica without a link to its primary"),
            _ => Ok(()),
        }
    }

    fn look_at<R>(&self, node: &Node, look: impl FnOnce(&View) -> R) -> R {
        let cluster = node.cluster.as_ref().expect("a node of a cluster");
        cluster.read(|machine, _| look(machine.view()))
    }

    /// Moves the manual clock of the node, and waits until its machine has noticed.
    pub(super) fn advance(&self, step: Duration) {
        let state = self.state.lock();
        match &*state {
            State::Up(server) => {
                server.advance(step);
                let node = &server.running.state;
                let cluster = node.cluster.as_ref().expect("a node of a cluster");
                for _ in 0..TICK_LOOKS_MAX {
                    if cluster.has_ticked() || !server.is_running() {
                        break;
                    }
                    sleep(TICK_LOOK);
                }
            }
            // Time passes for a process that is stopped, too.
            State::Paused(server) => {
                server.advance(step);
            }
            State::Down => {}
        }
    }

    /// Calls `act` with the node, if it is awake.
    fn with<R>(&self, act: impl FnOnce(&Node) -> R) -> Option<R> {
        match &*self.state.lock() {
            State::Up(server) if server.is_running() => Some(act(&server.running.state)),
            _ => None,
        }
    }
}
