//! Clusters, observed from outside: nodes of several kinds, made one by `redis-cli --cluster create`, under writers that never rest,
//! with nodes that die, sleep, lose their disk and cannot hear each other.
//!
//! * [`Cluster`] starts nodes, joins them, and waits until all of them say the same; [`view`] reads what they say.
//! * [`bus`] stands between the nodes: a cut there leaves clients untouched.
//! * [`client`] follows redirects, and says for certain what failed; [`load`] writes with it, and [`audit`] compares what was
//!   acknowledged with what is there.
//! * [`schedule`] has the same faults happen to clusters of different kinds.
//!
//! With `SHARDIS_SERVER` set to a redis-server, all of it judges Redis: a way to see that a test is right.

pub mod audit;
pub mod bus;
pub mod client;
pub mod load;
pub mod schedule;
pub mod view;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use self::bus::Bus;
use self::client::ClusterClient;
use self::view::{NodeLine, View};
use crate::client::Client;
use crate::process::{BUS_OFFSET, Finished, Launch, cluster_port};
use crate::redis;
use crate::replication::member::{Kind, Member, PATIENCE};
use crate::tls::Authority;
use crate::wait::retry;

/// Longest time for a run of redis-cli: a debug build on a busy machine needs some.
const TOOL_PATIENCE: Duration = Duration::from_secs(120);

/// Questions of redis-cli that are answered.
const QUESTIONS_MAX: usize = 8;

/// Node timeout of a cluster of which no node is to fail, even on a machine that is busy for seconds.
const CALM_TIMEOUT_MS: u64 = 15_000;

/// Nodes, not yet started.
#[derive(Clone, Debug)]
pub struct Plan {
    kinds: Vec<Kind>,
    replicas: usize,
    timeout_ms: u64,
    directives: Vec<String>,
    has_bus: bool,
    authority: Option<Arc<Authority>>,
}

impl Plan {
    /// Nodes of these kinds, all of them primaries.
    #[must_use]
    pub fn of(kinds: &[Kind]) -> Plan {
        Plan {
            kinds: kinds.to_vec(),
            replicas: 0,
            timeout_ms: CALM_TIMEOUT_MS,
            directives: Vec::new(),
            has_bus: false,
            authority: None,
        }
    }

    /// Gives each primary so many of the nodes as replicas.
    #[must_use]
    pub fn replicas(mut self, replicas: usize) -> Plan {
        self.replicas = replicas;
        self
    }

    /// Sets the node timeout.
    #[must_use]
    pub fn timeout_ms(mut self, timeout_ms: u64) -> Plan {
        self.timeout_ms = timeout_ms;
        self
    }

    /// Adds lines to the configuration of all nodes.
    #[must_use]
    pub fn with(mut self, directives: &[&str]) -> Plan {
        let directives = directives.iter().map(|&directive| directive.to_owned());
        self.directives.extend(directives);
        self
    }

    /// Puts a [`Bus`] between the nodes.
    #[must_use]
    pub fn severable(mut self) -> Plan {
        self.has_bus = true;
        self
    }

    /// Has the bus and replication use TLS, with certificates of one authority. Nodes serve a port for TLS, which redis-cli is given,
    /// beside the plain one.
    #[must_use]
    pub fn secured(mut self) -> Plan {
        self.authority = Some(Arc::new(Authority::new()));
        self
    }

    /// Starts the nodes, each for itself.
    ///
    /// # Panics
    /// When one does not start.
    #[must_use]
    pub fn start(self) -> Cluster {
        let mut cluster = Cluster {
            bus: self.has_bus.then(Bus::default),
            plan: self,
            members: Vec::new(),
            tls_ports: Vec::new(),
        };
        for kind in cluster.plan.kinds.clone() {
            cluster.add(kind);
        }
        cluster
    }

    /// Starts the nodes and has redis-cli make a cluster of them.
    ///
    /// # Panics
    /// When that fails, or they do not agree.
    #[must_use]
    pub fn create(self) -> Cluster {
        let cluster = self.start();
        let addresses: Vec<String> = (0..cluster.len()).map(|index| cluster.address(index)).collect();
        let replicas = cluster.plan.replicas.to_string();
        let output = cluster.cli(
            ["create", "--cluster-yes", "--cluster-replicas", &replicas]
                .into_iter()
                .chain(addresses.iter().map(String::as_str)),
        );
        assert!(output.contains("[OK] All 16384 slots covered."), "{output}");
        cluster.await_whole();
        cluster
    }
}

/// Nodes that are, or become, a cluster. They are killed when this is dropped.
pub struct Cluster {
    plan: Plan,
    members: Vec<Member>,
    /// Ports for TLS of the nodes of a plan that is [`secured`](Plan::secured).
    tls_ports: Vec<u16>,
    bus: Option<Bus>,
}

/// Lines of the configuration of a node whose bus and links use TLS.
fn lines_for_tls(authority: &Authority, tls_port: u16) -> Vec<String> {
    let options = authority.options(tls_port);
    let lines = options
        .chunks(2)
        .map(|pair| format!("{} {}", pair[0].trim_start_matches('-'), pair[1]));
    lines
        .chain(["tls-cluster yes".to_owned(), "tls-replication yes".to_owned()])
        .collect()
}

impl Cluster {
    /// Starts one more node, which knows no other; returns its index.
    ///
    /// # Panics
    /// When it does not start.
    pub fn add(&mut self, kind: Kind) -> usize {
        let door = self.bus.as_ref().map(Bus::add);
        let mut directives = vec![
            "cluster-enabled yes".to_owned(),
            format!("cluster-node-timeout {}", self.plan.timeout_ms),
            // Without pings a replica could not tell how old its data are.
            "repl-ping-replica-period 1".to_owned(),
            "repl-timeout 10".to_owned(),
        ];
        directives.extend(door.map(|port| format!("cluster-announce-bus-port {port}")));
        if let Some(authority) = &self.plan.authority {
            let tls_port = cluster_port();
            directives.extend(lines_for_tls(authority, tls_port));
            self.tls_ports.push(tls_port);
        }
        directives.extend(self.plan.directives.iter().cloned());
        let directives: Vec<&str> = directives.iter().map(String::as_str).collect();
        let member = Member::start_with_bus(kind, &directives);
        let index = self.members.len();
        if let Some(bus) = &self.bus {
            bus.lead_to(index, member.port() + BUS_OFFSET);
        }
        self.members.push(member);
        self.introduce(index);
        index
    }

    /// Tells the bus which node has which id; needed again after a node has got a new one.
    ///
    /// # Panics
    /// When the node does not say.
    pub fn introduce(&self, index: usize) {
        if let Some(bus) = &self.bus {
            bus.introduce(index, &self.id(index));
        }
    }

    /// Has a new node join as a replica of a primary, by way of the node `known`.
    ///
    /// # Panics
    /// When redis-cli fails.
    pub fn join_as_replica(&self, new: usize, known: usize, primary: usize) {
        let (new, known, id) = (self.address(new), self.address(known), self.id(primary));
        let place = ["--cluster-slave", "--cluster-master-id", &id];
        self.cli(["add-node", &new, &known].into_iter().chain(place));
    }

    /// Number of nodes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are no nodes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Node timeout of all nodes.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.plan.timeout_ms)
    }

    /// A node.
    #[must_use]
    pub fn member(&self, index: usize) -> &Member {
        &self.members[index]
    }

    /// A node, to be killed or started again.
    pub fn member_mut(&mut self, index: usize) -> &mut Member {
        &mut self.members[index]
    }

    /// The bus between the nodes.
    ///
    /// # Panics
    /// When there is none: see [`Plan::severable`].
    #[must_use]
    pub fn bus(&self) -> &Bus {
        self.bus.as_ref().expect("a cluster with a bus")
    }

    /// Id of a node.
    ///
    /// # Panics
    /// When it does not say.
    #[must_use]
    pub fn id(&self, index: usize) -> String {
        self.member(index).client().line("CLUSTER MYID").text()
    }

    /// Address of a node, as redis-cli is given it.
    #[must_use]
    pub fn address(&self, index: usize) -> String {
        match self.tls_ports.get(index) {
            Some(port) => format!("127.0.0.1:{port}"),
            None => self.member(index).address().to_string(),
        }
    }

    /// Port for TLS of a node.
    ///
    /// # Panics
    /// When the plan was not [`secured`](Plan::secured).
    #[must_use]
    pub fn tls_port(&self, index: usize) -> u16 {
        self.tls_ports[index]
    }

    /// The authority of all nodes.
    ///
    /// # Panics
    /// When the plan was not [`secured`](Plan::secured).
    #[must_use]
    pub fn authority(&self) -> &Authority {
        self.plan.authority.as_deref().expect("a cluster over TLS")
    }

    /// A client of a node over TLS.
    ///
    /// # Panics
    /// When it cannot connect.
    #[must_use]
    pub fn tls_client(&self, index: usize) -> Client {
        let address = ([127, 0, 0, 1], self.tls_port(index)).into();
        let config = self.authority().client(Some("server"));
        Client::connect_tls(address, &config)
            .unwrap_or_else(|error| panic!("connect to {address}: {error}\n{}", self.logs()))
    }

    /// A client that knows all nodes.
    #[must_use]
    pub fn client(&self) -> ClusterClient {
        ClusterClient::new(self.members.iter().map(Member::address))
    }

    /// Runs `redis-cli --cluster` to its end. What it asks is answered by yes: `--cluster-yes` is not enough for all questions.
    pub fn try_cli<'a>(&self, options: impl IntoIterator<Item = &'a str>) -> Finished {
        let options: Vec<&str> = options.into_iter().collect();
        let authority = self.plan.authority.as_ref();
        let secured = authority.map_or_else(Vec::new, |authority| authority.tool_options("server"));
        Launch::new(&redis::tool("redis-cli"))
            .with(&secured)
            .with(&["--cluster"])
            .with(&options)
            .input(&"yes\n".repeat(QUESTIONS_MAX))
            .finish(TOOL_PATIENCE)
    }

    /// Runs `redis-cli --cluster` to its end, which must be a good one; returns its output.
    ///
    /// # Panics
    /// When it fails; the message has what it printed, and the logs.
    pub fn cli<'a>(&self, options: impl IntoIterator<Item = &'a str>) -> String {
        let options: Vec<&str> = options.into_iter().collect();
        let finished = self.try_cli(options.iter().copied());
        assert_eq!(
            finished.code,
            Some(0),
            "redis-cli --cluster {}: {}\n{}",
            options.join(" "),
            finished.text(),
            self.logs()
        );
        finished.output
    }

    /// Indices of the nodes that run.
    #[must_use]
    pub fn running(&self) -> Vec<usize> {
        let runs = |index: &usize| self.members[*index].runs();
        (0..self.members.len()).filter(runs).collect()
    }

    /// Waits until all nodes are up, own all slots together and say the same of each other.
    ///
    /// # Panics
    /// When they do not.
    pub fn await_whole(&self) {
        let running = self.running();
        let is_whole = || {
            let view = self.common_view(&running)?;
            view.is_whole()?;
            self.have_data(&view)
        };
        self.await_that("a whole cluster", is_whole);
    }

    /// Whether every replica has its primary's data.
    fn have_data(&self, view: &View) -> Result<(), String> {
        for line in view.lines.iter().filter(|line| line.primary.is_some()) {
            let Some(index) = self.index_of(line) else {
                continue;
            };
            let status = self.members[index].field("master_link_status")?;
            if status != "up" {
                return Err(format!("the link of replica {index} is {status}"));
            }
        }
        Ok(())
    }

    /// Waits until these nodes hold the cluster for served, and say the same of all nodes, some of which may have failed.
    ///
    /// # Panics
    /// When they do not.
    pub fn await_agreement(&self, among: &[usize]) -> View {
        let mut agreed = None;
        self.await_that("one view", || {
            let view = self.common_view(among)?;
            view.is_served()?;
            agreed = Some(view);
            Ok(())
        });
        agreed.expect("a view that was agreed on")
    }

    /// The view of these nodes, if they have one and answer.
    ///
    /// # Errors
    /// The first difference.
    pub fn common_view(&self, among: &[usize]) -> Result<View, String> {
        let mut views = Vec::new();
        for &index in among {
            let view = View::of(&self.members[index]).map_err(|reason| format!("node {index}: {reason}"))?;
            views.push(view);
        }
        let Some(first) = views.first() else {
            return Err("no node runs".to_owned());
        };
        for (index, view) in among.iter().zip(&views) {
            first
                .agrees_with(view)
                .map_err(|reason| format!("nodes {} and {index}: {reason}", among[0]))?;
        }
        Ok(views.swap_remove(0))
    }

    /// Index of the node that a line is about, if it is one of these.
    #[must_use]
    pub fn index_of(&self, line: &NodeLine) -> Option<usize> {
        self.members.iter().position(|member| member.port() == line.port)
    }

    /// Index of the node that owns a slot, as another node sees it.
    ///
    /// # Errors
    /// When that node does not answer, or nobody owns the slot.
    pub fn owner(&self, slot: u16, seen_by: usize) -> Result<usize, String> {
        let view = View::of(&self.members[seen_by])?;
        let line = view
            .owner(slot)
            .ok_or_else(|| format!("nobody owns slot {slot}"))?;
        self.index_of(line)
            .ok_or_else(|| format!("a stranger owns slot {slot}: {line:?}"))
    }

    /// Indices of the primaries that own slots, as a node sees them.
    ///
    /// # Panics
    /// When that node does not answer.
    #[must_use]
    pub fn primaries(&self, seen_by: usize) -> Vec<usize> {
        let view = View::of(&self.members[seen_by]).expect("a node that answers");
        let owners = view.lines.iter().filter(|line| !line.slots.is_empty());
        let owners: BTreeSet<usize> = owners.filter_map(|line| self.index_of(line)).collect();
        owners.into_iter().collect()
    }

    /// Indices of the replicas of a node, as it sees them.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn replicas_of(&self, index: usize) -> Vec<usize> {
        let view = View::of(&self.members[index]).expect("a node that answers");
        let id = self.id(index);
        let replicas = view
            .lines
            .iter()
            .filter(|line| line.primary.as_ref() == Some(&id));
        replicas.filter_map(|line| self.index_of(line)).collect()
    }

    /// Index of a primary with slots that no node follows, as a node sees it.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn primary_without_replica(&self, seen_by: usize) -> usize {
        let mut primaries = self.primaries(seen_by).into_iter();
        primaries
            .find(|&primary| self.member(primary).runs() && self.replicas_of(primary).is_empty())
            .expect("a primary that nobody follows")
    }

    /// Waits until something is so.
    ///
    /// # Panics
    /// When it is not; the message has the reason and the logs.
    pub fn await_that(&self, what: &str, attempt: impl FnMut() -> Result<(), String>) {
        retry(PATIENCE, attempt)
            .unwrap_or_else(|reason| panic!("{what}: not within {PATIENCE:?}: {reason}\n{}", self.logs()));
    }

    /// Keys of all primaries together.
    ///
    /// # Panics
    /// When one does not answer.
    #[must_use]
    pub fn key_count(&self) -> i64 {
        let running = self.running();
        let size = |index: usize| self.member(index).client().line("DBSIZE").integer();
        let primaries = self.primaries(running[0]).into_iter();
        primaries.map(|index| size(index).expect("a number")).sum()
    }

    /// The ends of all logs.
    #[must_use]
    pub fn logs(&self) -> String {
        let tails: Vec<String> = self.members.iter().map(Member::tail).collect();
        tails.join("\n")
    }
}
