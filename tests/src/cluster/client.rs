//! A client of a cluster: follows MOVED and ASK, waits out TRYAGAIN, and tells a command that certainly did not run from one that may
//! have.
//!
//! A timeout, or a connection that ends before the reply, says nothing about the command. It is never sent again: a test that counts
//! writes must know how often each was sent.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::reply::Reply;
use crate::slot;

/// Redirects that a command follows at most.
const REDIRECTS_MAX: usize = 16;

/// Time before a command whose slot is on its way is sent again.
const TRY_AGAIN: Duration = Duration::from_millis(5);

/// Longest wait for a reply, unless another is asked for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest wait of WAIT for replicas, milliseconds.
const WAIT_MS: u64 = 300;

/// Fate of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// An answer came from the node that has the slot.
    Answered(Reply),
    /// The command did not run: no node took it.
    Refused(String),
    /// The command may have run.
    Unknown(String),
}

impl Fate {
    /// The reply.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn reply(self) -> Reply {
        match self {
            Fate::Answered(reply) => reply,
            other => panic!("no reply: {other:?}"),
        }
    }
}

/// Redirects that a client has met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redirects {
    /// MOVED.
    pub moved: u64,
    /// ASK.
    pub ask: u64,
    /// TRYAGAIN.
    pub try_again: u64,
}

/// A client that knows all nodes of a cluster, and remembers who has which slot.
pub struct ClusterClient {
    seeds: Vec<SocketAddr>,
    /// Seed that the next command of an unknown slot is sent to.
    next_seed: usize,
    owners: BTreeMap<u16, SocketAddr>,
    connections: BTreeMap<SocketAddr, Client>,
    patience: Duration,
    redirects: Redirects,
}

/// An answer to one attempt.
enum Attempt {
    Ended(Fate),
    Again,
    Ask(SocketAddr),
}

impl ClusterClient {
    /// A client of these nodes.
    #[must_use]
    pub fn new(seeds: impl IntoIterator<Item = SocketAddr>) -> ClusterClient {
        ClusterClient {
            seeds: seeds.into_iter().collect(),
            next_seed: 0,
            owners: BTreeMap::new(),
            connections: BTreeMap::new(),
            patience: PATIENCE,
            redirects: Redirects::default(),
        }
    }

    /// Sets the longest wait for a reply.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> ClusterClient {
        self.patience = patience;
        self
    }

    /// Redirects met so far.
    #[must_use]
    pub fn redirects(&self) -> Redirects {
        self.redirects
    }

    /// Sends a command about a key to the node that has its slot.
    pub fn call(&mut self, key: &str, words: &[&str]) -> Fate {
        self.follow(key, words, None)
    }

    /// Sets a key.
    ///
    /// # Panics
    /// When that is not answered by OK.
    pub fn set(&mut self, key: &str, value: &str) {
        let reply = self.call(key, &["SET", key, value]).reply();
        assert_eq!(reply.text(), "OK", "SET {key}");
    }

    /// Sends a write to the node that has its slot, and waits there until so many replicas have it. Without them its fate is unknown.
    pub fn write_and_wait(&mut self, key: &str, words: &[&str], replicas: i64) -> Fate {
        self.follow(key, words, Some(replicas))
    }

    /// Node that the last command about a slot was answered by.
    #[must_use]
    pub fn owner(&self, slot: u16) -> Option<SocketAddr> {
        self.owners.get(&slot).copied()
    }

    /// Calls until there is an answer that is no error, or `patience` is over; only for commands that may run twice.
    ///
    /// # Errors
    /// The last fate.
    pub fn insist(&mut self, key: &str, words: &[&str], patience: Duration) -> Result<Reply, String> {
        let deadline = Instant::now() + patience;
        loop {
            match self.call(key, words) {
                Fate::Answered(reply) if !reply.is_error() => return Ok(reply),
                fate if Instant::now() > deadline => return Err(format!("{words:?}: {fate:?}")),
                _ => sleep(TRY_AGAIN),
            }
        }
    }

    fn follow(&mut self, key: &str, words: &[&str], replicas: Option<i64>) -> Fate {
        let slot = slot::of(key.as_bytes());
        let mut asked = None;
        for _ in 0..REDIRECTS_MAX {
            let to = asked.or_else(|| self.owner(slot)).unwrap_or_else(|| self.seed());
            match self.attempt(slot, to, words, asked.take().is_some(), replicas) {
                Attempt::Ended(fate) => {
                    self.note(slot, to, &fate);
                    return fate;
                }
                Attempt::Again => {}
                Attempt::Ask(address) => asked = Some(address),
            }
        }
        Fate::Refused(format!("{REDIRECTS_MAX} redirects"))
    }

    /// Any node that is known.
    fn seed(&mut self) -> SocketAddr {
        self.next_seed = (self.next_seed + 1) % self.seeds.len();
        self.seeds[self.next_seed]
    }

    /// Forgets what a failure has shown to be wrong.
    fn note(&mut self, slot: u16, node: SocketAddr, fate: &Fate) {
        if matches!(fate, Fate::Answered(_)) {
            return;
        }
        self.owners.remove(&slot);
        if matches!(fate, Fate::Unknown(_)) {
            self.connections.remove(&node);
        }
    }

    /// Sends a command to a node, after ASKING if it was sent there by ASK, and before WAIT if replicas are to have it.
    fn attempt(
        &mut self,
        slot: u16,
        to: SocketAddr,
        words: &[&str],
        is_asked: bool,
        replicas: Option<i64>,
    ) -> Attempt {
        let patience = self.patience;
        let client = match self.connection(to) {
            Ok(client) => client,
            Err(error) => return Attempt::Ended(Fate::Refused(error.to_string())),
        };
        let reply = if is_asked {
            client
                .send(&["ASKING"])
                .and_then(|()| client.send(words))
                .and_then(|()| {
                    client.read_within(patience)?;
                    client.read_within(patience)
                })
        } else {
            client.send(words).and_then(|()| client.read_within(patience))
        };
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => return Attempt::Ended(Fate::Unknown(error.to_string())),
        };
        if reply.is_error() {
            return self.redirected(slot, reply);
        }
        if !is_asked {
            self.owners.insert(slot, to);
        }
        match replicas {
            Some(replicas) => Attempt::Ended(self.wait(to, replicas, reply)),
            None => Attempt::Ended(Fate::Answered(reply)),
        }
    }

    fn connection(&mut self, to: SocketAddr) -> std::io::Result<&mut Client> {
        match self.connections.entry(to) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => Ok(unknown.insert(Client::connect(to)?)),
        }
    }

    /// Waits until replicas have what was written.
    fn wait(&mut self, to: SocketAddr, replicas: i64, reply: Reply) -> Fate {
        let patience = self.patience;
        let Some(client) = self.connections.get_mut(&to) else {
            return Fate::Unknown("the connection is gone".to_owned());
        };
        let milliseconds = WAIT_MS.to_string();
        let words = ["WAIT", &replicas.to_string(), &milliseconds];
        let waited = client.send(&words).and_then(|()| client.read_within(patience));
        match waited.map(|reply| reply.integer()) {
            Ok(Some(count)) if count >= replicas => Fate::Answered(reply),
            Ok(count) => Fate::Unknown(format!("WAIT: {count:?}")),
            Err(error) => Fate::Unknown(error.to_string()),
        }
    }

    /// Reads an error: a redirect, one that says that the command did not run, or the command's own.
    fn redirected(&mut self, slot: u16, reply: Reply) -> Attempt {
        let text = reply.text();
        let mut words = text.split_ascii_whitespace();
        match (words.next(), words.nth(1).and_then(address)) {
            (Some("MOVED"), Some(address)) => {
                self.redirects.moved += 1;
                self.owners.insert(slot, address);
                Attempt::Again
            }
            (Some("ASK"), Some(address)) => {
                self.redirects.ask += 1;
                Attempt::Ask(address)
            }
            (Some("TRYAGAIN"), _) => {
                self.redirects.try_again += 1;
                sleep(TRY_AGAIN);
                Attempt::Again
            }
            (
                Some("CLUSTERDOWN" | "LOADING" | "READONLY" | "MASTERDOWN" | "MISCONF" | "MOVED" | "ASK"),
                _,
            ) => Attempt::Ended(Fate::Refused(text)),
            _ => Attempt::Ended(Fate::Answered(reply)),
        }
    }
}

/// The address in a redirect; all nodes of tests are on this machine.
fn address(text: &str) -> Option<SocketAddr> {
    let port = text.rsplit_once(':')?.1.parse().ok()?;
    Some((Ipv4Addr::LOCALHOST, port).into())
}
