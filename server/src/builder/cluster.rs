//! Embedding: a cluster inside another program, above all inside its tests.
//!
//! Its nodes are whole servers, which speak to each other over the cluster bus and replicate as they do in processes of their own; each
//! keeps its data in a folder. What happens to nodes in production can happen to them here: they stop and start again, stand still, and
//! cannot hear each other.

mod node;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use parking_lot::Mutex;
use shardis_cluster::event::{Command, CommandError};
use shardis_cluster::node::NodeId;
use shardis_cluster::view::View;
use shardis_cluster::{SLOTS, Slot, slot_of};
use tempfile::TempDir;

pub use self::node::ClusterNode;
use super::{BuildError, Builder, Server, TlsAuthority};

/// Node timeout unless another is chosen: long enough for a busy machine, short enough for a test.
const NODE_TIMEOUT: Duration = Duration::from_secs(2);

/// Time between two looks at nodes, and the number of looks until a cluster that does not come to be whole counts as broken.
const LOOK: Duration = Duration::from_millis(5);
const LOOKS_MAX: u32 = 12_000;

/// Time by which a manual clock is moved at once: nodes that saw more of it pass would take each other for failed.
const STEP: Duration = Duration::from_millis(100);

/// Builder of a cluster.
///
/// ```no_run
/// let cluster = shardis::Cluster::builder().primaries(3).replicas(1).start()?;
/// // Any client library for clusters takes these.
/// println!("{:?}", cluster.urls());
/// # Ok::<(), shardis::ClusterError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ClusterBuilder {
    primaries: usize,
    replicas: usize,
    shards: usize,
    node_timeout: Duration,
    directives: Vec<(String, Vec<u8>)>,
    clock: Option<Duration>,
    seed: Option<u64>,
    log: bool,
    is_secure: bool,
}

impl Default for ClusterBuilder {
    fn default() -> Self {
        Self {
            primaries: 3,
            replicas: 0,
            shards: 1,
            node_timeout: NODE_TIMEOUT,
            directives: Vec::new(),
            clock: None,
            seed: None,
            log: false,
            is_secure: false,
        }
    }
}

impl ClusterBuilder {
    /// Number of primaries, which share the slots evenly; 3 by default. With fewer than three, nobody can replace one that fails.
    #[must_use]
    pub fn primaries(mut self, primaries: usize) -> Self {
        self.primaries = primaries;
        self
    }

    /// Number of replicas of each primary; none by default.
    #[must_use]
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// Number of shards of each node; 1 by default, 0 for one per core.
    #[must_use]
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = shards;
        self
    }

    /// Time without a sign of life after which a node counts as failed; 2 seconds by default.
    #[must_use]
    pub fn node_timeout(mut self, node_timeout: Duration) -> Self {
        self.node_timeout = node_timeout;
        self
    }

    /// Adds a line of redis.conf to the configuration of all nodes, as [`Builder::directive`] does.
    #[must_use]
    pub fn directive(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.directives.push((name.into(), value.into()));
        self
    }

    /// Makes everything of the cluster use TLS: clients, the bus, replicas and MIGRATE. All certificates come from one throw-away
    /// authority, [`Cluster::tls_authority`], which also makes those of clients; they are asked for if the directive `tls-auth-clients`
    /// is added.
    ///
    /// ```
    /// let cluster = shardis::Cluster::builder().primaries(1).tls_self_signed().start()?;
    /// let authority = cluster.tls_authority().expect("the authority of a secured cluster");
    /// assert!(cluster.urls()[0].starts_with("rediss://") && authority.certificate_file().exists());
    /// # Ok::<(), shardis::ClusterError>(())
    /// ```
    #[must_use]
    pub fn tls_self_signed(mut self) -> Self {
        self.is_secure = true;
        self
    }

    /// Makes the time of all nodes stand still, once the cluster has come to be whole, until [`Cluster::advance`] moves it. It begins
    /// at `start` after the Unix epoch, and has moved by some seconds when [`start`](Self::start) returns: nodes cannot find each other
    /// while no time passes.
    #[must_use]
    pub fn manual_clock(mut self, start: Duration) -> Self {
        self.clock = Some(start);
        self
    }

    /// Makes everything random within nodes repeatable.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Writes the logs of all nodes to standard output.
    #[must_use]
    pub fn log_to_stdout(mut self) -> Self {
        self.log = true;
        self
    }

    /// Starts the nodes on free ports of 127.0.0.1. When this returns, every slot answers, every replica follows its primary, and all
    /// nodes agree about that.
    ///
    /// # Errors
    /// When a node does not start, or the cluster does not come to be whole.
    pub fn start(self) -> Result<Cluster, ClusterError> {
        if self.primaries == 0 {
            return Err(ClusterError::NotWhole(
                "a cluster has at least one primary".to_owned(),
            ));
        }
        let folder = TempDir::new().map_err(ClusterError::Folder)?;
        let authority = match self.is_secure {
            true => Some(TlsAuthority::new().map_err(ClusterError::Authority)?),
            false => None,
        };
        let count = self.primaries * (1 + self.replicas);
        let cluster = Cluster {
            nodes: Vec::with_capacity(count),
            common: Arc::new(Common {
                time: self.clock.map(Mutex::new),
                authority,
                builder: self,
            }),
            folder,
        };
        cluster.with_nodes(count)?.formed()
    }

    /// The builder of a node.
    fn node(&self, index: usize, folder: &str) -> Builder {
        let timeout_ms = self.node_timeout.as_millis().to_string();
        let mut builder = Server::builder()
            .shards(self.shards)
            .directive("cluster-enabled", "yes")
            .directive("cluster-node-timeout", timeout_ms)
            .directive("dir", quoted(folder))
            // What a node has answered for is in its file when it is killed; a disk that loses power is not part of this.
            .directive("appendonly", "yes")
            .directive("appendfsync", "no")
            .directive("repl-diskless-sync-delay", "0")
            .directive("repl-ping-replica-period", "1");
        if self.is_secure {
            builder = builder
                .directive("tls-cluster", "yes")
                .directive("tls-replication", "yes");
        }
        for (name, value) in &self.directives {
            builder = builder.directive(name.clone(), value.clone());
        }
        if let Some(seed) = self.seed {
            builder = builder.seed(seed.wrapping_add(index as u64));
        }
        if self.log {
            builder = builder.log_to_stdout();
        }
        builder
    }
}

/// A word of a configuration file, in quotes.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The parts of a cluster that its nodes need to start again.
#[derive(Debug)]
struct Common {
    builder: ClusterBuilder,
    /// The time of all nodes, if it stands still.
    time: Option<Mutex<Duration>>,
    /// The authority of all certificates, if the cluster uses TLS.
    authority: Option<TlsAuthority>,
}

impl Common {
    /// The builder of a node, which begins with the time that it is for the others.
    fn node(&self, index: usize, folder: &str) -> Builder {
        let mut builder = self.builder.node(index, folder);
        if let Some(authority) = &self.authority {
            builder = builder.secured_by(authority.clone());
        }
        match &self.time {
            Some(time) => builder.manual_clock(*time.lock()),
            None => builder,
        }
    }
}

/// A cluster inside this process. Dropping it stops its nodes and deletes their data.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<ClusterNode>,
    common: Arc<Common>,
    /// The folder of the nodes' folders, which is deleted last.
    folder: TempDir,
}

impl Cluster {
    /// A builder with defaults for tests: three primaries without replicas, of one shard each, and a node timeout of 2 seconds.
    #[must_use]
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }

    /// The nodes: primaries first, as they were at the start, then their replicas, the first of each before the second of any.
    pub fn nodes(&self) -> &[ClusterNode] {
        &self.nodes
    }

    /// The authority of the certificates of all nodes, if the cluster uses TLS: see [`ClusterBuilder::tls_self_signed`].
    pub fn tls_authority(&self) -> Option<&TlsAuthority> {
        self.common.authority.as_ref()
    }

    /// URLs of all nodes, for client libraries.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(ClusterNode::url).collect()
    }

    /// Index of the node that owns the slot of a key, if the nodes that run agree on one.
    pub fn primary_of(&self, key: impl AsRef<[u8]>) -> Option<usize> {
        let slot = slot_of(key.as_ref());
        let owner = |index: usize| {
            let look = |view: &View| view.owner(slot).map(|owner| view[owner].id);
            self.nodes[index].look(look).flatten()
        };
        let mut owners = self.awake().map(owner);
        let first = owners.next()??;
        let is_agreed = owners.all(|other| other == Some(first));
        is_agreed.then(|| self.index_of(first)).flatten()
    }

    /// Waits until every slot is served by a node that is up, as all nodes see it that are up, and replicas have their primaries' data.
    /// False if that does not come to be within a minute. With a manual clock, time passes meanwhile.
    pub fn await_whole(&self) -> bool {
        self.await_that(|| self.is_served()).is_ok()
    }

    /// Keeps the nodes of one side and those of the other from hearing each other on the bus. Clients, and replicas, still reach all.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn partition(&self, one: &[usize], other: &[usize]) {
        for (deaf, mute) in [(one, other), (other, one)] {
            for &index in deaf {
                self.nodes[index].ignore(mute.iter().map(|&mute| self.nodes[mute].id));
            }
        }
    }

    /// Ends all partitions.
    pub fn heal(&self) {
        self.nodes.iter().for_each(ClusterNode::hear_all);
    }

    /// Moves a manual clock forward, in steps between which nodes can speak to each other. False when the nodes have real clocks.
    pub fn advance(&self, by: Duration) -> bool {
        let Some(time) = &self.common.time else {
            return false;
        };
        let mut left = by;
        while !left.is_zero() {
            let step = left.min(STEP);
            left -= step;
            *time.lock() += step;
            self.nodes.iter().for_each(|node| node.advance(step));
        }
        true
    }

    /// Starts the nodes.
    fn with_nodes(mut self, count: usize) -> Result<Self, ClusterError> {
        for index in 0..count {
            let folder = self.folder.path().join(index.to_string());
            std::fs::create_dir(&folder).map_err(ClusterError::Folder)?;
            self.nodes
                .push(ClusterNode::start(index, folder, Arc::clone(&self.common))?);
        }
        Ok(self)
    }

    /// Makes a cluster of nodes that know only themselves.
    fn formed(self) -> Result<Self, ClusterError> {
        let primaries = self.common.builder.primaries;
        for (index, node) in self.nodes[..primaries].iter().enumerate() {
            node.order(Command::AddSlots(vec![share(index, primaries)]))?;
            node.order(Command::SetConfigEpoch(index as u64 + 1))?;
        }
        let (first, others) = self.nodes.split_first().expect("a cluster has nodes");
        for node in others {
            node.order(first.invitation())?;
        }
        self.await_that(|| self.is_acquainted())?;
        for (index, node) in self.nodes.iter().enumerate().skip(primaries) {
            node.order(Command::Replicate {
                primary: self.nodes[index % primaries].id,
                has_keys: false,
            })?;
        }
        self.await_that(|| self.is_served())?;
        Ok(self)
    }

    /// Whether all nodes know each other by their names.
    fn is_acquainted(&self) -> Result<(), String> {
        for index in self.awake() {
            let known = |view: &View| view.nodes().filter(|(_, node)| !node.is_in_handshake()).count();
            let known = self.nodes[index].look(known);
            if known != Some(self.nodes.len()) {
                return Err(format!(
                    "node {index} knows {known:?} of {} nodes",
                    self.nodes.len()
                ));
            }
        }
        Ok(())
    }

    /// Whether all nodes that are up see every slot served by one that is up, and are replicas in order or none.
    fn is_served(&self) -> Result<(), String> {
        let up: Vec<NodeId> = self.awake().map(|index| self.nodes[index].id).collect();
        let mut agreed: Option<Vec<Option<NodeId>>> = None;
        for index in self.awake() {
            let node = &self.nodes[index];
            let seen = node.look(|view| (view.is_ok, owners_in(view), replicas_in(view)));
            let Some((is_ok, owners, replicas)) = seen else {
                continue;
            };
            if !is_ok
                || owners
                    .iter()
                    .any(|owner| owner.is_none_or(|owner| !up.contains(&owner)))
            {
                return Err(format!("node {index} sees slots that are not served"));
            }
            if agreed.get_or_insert_with(|| owners.clone()) != &owners {
                return Err(format!(
                    "node {index} sees other owners of slots than another one"
                ));
            }
            let wanted = up.len() - owners.iter().collect::<BTreeSet<_>>().len();
            if replicas.iter().filter(|id| up.contains(id)).count() < wanted {
                return Err(format!("node {index} does not know of all replicas"));
            }
            node.has_data()
                .map_err(|reason| format!("node {index} {reason}"))?;
        }
        Ok(())
    }

    /// Indices of the nodes that run and do not stand still.
    fn awake(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|&index| self.nodes[index].is_awake())
    }

    fn index_of(&self, id: NodeId) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == id)
    }

    /// Waits until something is so.
    fn await_that(&self, is_so: impl Fn() -> Result<(), String>) -> Result<(), ClusterError> {
        let mut last = String::new();
        for _ in 0..LOOKS_MAX {
            match is_so() {
                Ok(()) => return Ok(()),
                Err(reason) => last = reason,
            }
            if !self.advance(STEP) {
                sleep(LOOK);
            }
        }
        Err(ClusterError::NotWhole(last))
    }
}

/// The slots of one of so many primaries.
fn share(index: usize, primaries: usize) -> RangeInclusive<Slot> {
    let first = index * SLOTS / primaries;
    let end = (index + 1) * SLOTS / primaries;
    let slot = |number: usize| {
        let number = u16::try_from(number).ok();
        number
            .and_then(Slot::new)
            .expect("a slot below the number of slots")
    };
    slot(first)..=slot(end - 1)
}

/// The owner of each slot in a view.
fn owners_in(view: &View) -> Vec<Option<NodeId>> {
    Slot::all()
        .map(|slot| view.owner(slot).map(|owner| view[owner].id))
        .collect()
}

/// The replicas in a view.
fn replicas_in(view: &View) -> Vec<NodeId> {
    let replicas = view
        .nodes()
        .filter(|(_, node)| node.is_replica() && node.primary.is_some());
    replicas.map(|(_, node)| node.id).collect()
}

/// Error that prevents a cluster from being built.
#[derive(Debug)]
pub enum ClusterError {
    /// A node does not start.
    Node(BuildError),
    /// The folder for the data of the nodes cannot be made.
    Folder(io::Error),
    /// The authority of the certificates cannot be made.
    Authority(io::Error),
    /// The nodes run, and do not come to be a whole cluster.
    NotWhole(String),
}

impl fmt::Display for ClusterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(error) => error.fmt(f),
            Self::Folder(error) => write!(f, "no folder for the nodes of a cluster: {error}"),
            Self::Authority(error) => write!(f, "no certificates for the nodes of a cluster: {error}"),
            Self::NotWhole(reason) => write!(f, "the cluster is not whole: {reason}"),
        }
    }
}

impl std::error::Error for ClusterError {}

impl From<BuildError> for ClusterError {
    fn from(error: BuildError) -> Self {
        Self::Node(error)
    }
}

impl From<CommandError> for ClusterError {
    fn from(error: CommandError) -> Self {
        Self::NotWhole(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primaries_share_all_slots() {
        for primaries in [1, 2, 3, 5, 7, 1000] {
            let shares: Vec<_> = (0..primaries).map(|index| share(index, primaries)).collect();
            assert_eq!(shares[0].start().number(), 0);
            assert_eq!(*shares[primaries - 1].end(), Slot::LAST);
            for pair in shares.windows(2) {
                assert_eq!(pair[0].end().number() + 1, pair[1].start().number());
            }
        }
    }

    #[test]
    fn a_folder_is_one_word_of_the_configuration() {
        assert_eq!(quoted("a b"), "\"a b\"");
        assert_eq!(quoted("\"\\"), "\"\\\"\\\\\"");
    }
}
