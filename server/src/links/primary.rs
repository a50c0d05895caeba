//! The link of a replica to its primary.
//!
//! [`serve`] brings the node to the role that is wanted. As a replica it opens the link, agrees with the primary on where to go on
//! (`handshake.rs`), receives a snapshot if that is nowhere (`receive.rs`), and follows the stream (`stream.rs`), until the link is lost: then
//! all of that begins again. The future of a link may be dropped at any point where it waits: what is half done then is undone by what it
//! holds, or is of no consequence.

mod handshake;
mod payload;
mod receive;
mod stream;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use self::handshake::Agreed;
use self::receive::Loader;
use self::wire::{Lost, Wire};
use crate::config::Primary;
use crate::journal::backlog::BacklogBounds;
use crate::limits::{LINK_RETRY, LINK_RETRY_MAX};
use crate::replication::{Following, LinkStage};
use crate::shard::Mesh;
use crate::state::Node;

/// Keeps the role of the node, and the link of a replica, for as long as the node runs.
pub(super) async fn serve(node: Arc<Node>, mesh: Arc<Mesh>) {
    let (mut version, mut was_replica) = (0, false);
    let mut own = None;
    loop {
        let wanted = node.replication.following.version();
        if wanted == version {
            node.replication.following.wanted.notified().await;
            continue;
        }
        version = wanted;
        let mut keeper = Keeper::new(Arc::clone(&node), Arc::clone(&mesh), version);
        keeper.own = own.take();
        keeper.settle().await;
        match keeper.following().link().primary {
            Some(primary) => {
                keeper.begin_to_follow(was_replica).await;
                was_replica = true;
                tokio::select! {
                    () = keeper.keep(&primary) => {}
                    () = changed(&node, version) => {}
                }
            }
            None if was_replica => {
                keeper.lead();
                was_replica = false;
            }
            None => keeper.following().note_changed(),
        }
        own = keeper.own.take();
        if let Some(loader) = keeper.loader.take() {
            loader.give_up().await;
        }
    }
}

/// Waits until something else is wanted than in this version.
async fn changed(node: &Node, version: u64) {
    let following = &node.replication.following;
    while following.version() == version {
        following.wanted.notified().await;
    }
}

/// Keeper of the link to one primary.
struct Keeper {
    node: Arc<Node>,
    mesh: Arc<Mesh>,
    /// Version of what is wanted.
    version: u64,
    /// The thread that loads a snapshot.
    loader: Option<Loader>,
    /// Wait before another try after a full synchronisation that has failed.
    patience: Duration,
    /// The stream that the node led until it became a replica, and has not been told to continue or to leave.
    own: Option<OwnStream>,
}

/// The end of a stream that a node led itself.
#[derive(Clone, Debug)]
struct OwnStream {
    /// Id of the history.
    id: String,
    /// Offset of its end.
    end: u64,
    /// The largest offset that a replica has acknowledged, as far as that is known.
    acknowledged: Option<u64>,
}

impl Keeper {
    fn new(node: Arc<Node>, mesh: Arc<Mesh>, version: u64) -> Self {
        Self {
            node,
            mesh,
            version,
            loader: None,
            patience: LINK_RETRY,
            own: None,
        }
    }

    fn following(&self) -> &Following {
        &self.node.replication.following
    }

    /// Waits until nothing of an earlier link is applied any more.
    async fn settle(&self) {
        if let Some(rounds) = self.following().rounds() {
            while !rounds.is_over() {
                rounds.progress.notified().await;
            }
        }
    }

    /// Has the journal follow the primary's stream, as soon as all that clients wrote before is in its own.
    async fn begin_to_follow(&mut self, was_replica: bool) {
        let node = Arc::clone(&self.node);
        let following = &node.replication.following;
        while !following.has_passed(self.version) {
            following.wanted.notified().await;
        }
        node.journal.follow(true);
        if !was_replica && node.journal.backlog().is_some() {
            self.own = Some(OwnStream {
                id: node.replication.history.lock().id().to_owned(),
                end: node.journal.end().offset(),
                acknowledged: node.replication.replicas.acknowledged(),
            });
        }
        if !was_replica && following.link().is_resumable {
            node.log.notice(format_args!(
                "Before turning into a replica, using my own master parameters to synthesize a cached master: I may be able to \
                 synchronize with the new master with just a partial transfer."
            ));
        }
    }

    /// Has the journal lead a stream of its own.
    fn lead(&self) {
        let node = &self.node;
        let end = node.journal.end().offset();
        let mut history = node.replication.history.lock();
        history.fork(node.ids.fresh(), end);
        node.log.notice(format_args!(
            "Setting secondary replication ID to {}, valid up to offset: {}. New replication ID is {}",
            history.second_id(),
            history.second_offset(),
            history.id()
        ));
        drop(history);
        // They learn of the new id when they come back.
        node.replication.replicas.end_all();
        node.replication.replicas.begin_at(Some(end));
        node.journal.follow(false);
        self.following().note_changed();
        node.ring_all();
    }

    /// Opens the link again and again.
    async fn keep(&mut self, primary: &Primary) {
        loop {
            let Primary { host, port } = primary;
            self.node
                .log
                .notice(format_args!("Connecting to MASTER {host}:{port}"));
            let Err(lost) = self.link(primary).await;
            let was_connected = self.following().link().stage == LinkStage::Connected;
            self.note_lost(&lost, was_connected);
            self.settle().await;
            if was_connected {
                self.node
                    .log
                    .notice(format_args!("Reconnecting to MASTER {host}:{port}"));
                continue;
            }
            let pause = if matches!(lost, Lost::Load(_)) {
                self.patience = (self.patience * 2).min(LINK_RETRY_MAX);
                self.patience
            } else {
                LINK_RETRY
            };
            sleep(pause).await;
        }
    }

    /// Opens the link, and follows the primary until it is lost.
    async fn link(&mut self, primary: &Primary) -> Result<std::convert::Infallible, Lost> {
        self.enter(LinkStage::Connecting);
        let mut wire = Wire::open(&self.node, primary).await?;
        self.enter(LinkStage::Handshake);
        let agreed = self.agree(&mut wire).await?;
        let db = match agreed {
            Agreed::Continue { id } => {
                // The primary has all of it.
                self.own = None;
                self.resume(id)
            }
            Agreed::Full { origin } => self.synchronise(&mut wire, origin).await?,
        };
        self.patience = LINK_RETRY;
        self.follow(&mut wire, db).await
    }

    /// Notes how far the link has come.
    fn enter(&self, stage: LinkStage) {
        self.following().change(self.version, |link| {
            link.stage = stage;
            link.has_followed |= stage == LinkStage::Connected;
        });
        self.node.apply_role_rules();
    }

    /// Goes on with the stream where it was lost. Returns the database that is selected there.
    fn resume(&self, id: Option<String>) -> u16 {
        let (node, log) = (&self.node, &self.node.log);
        log.notice(format_args!("Successful partial resynchronization with master."));
        let mut history = node.replication.history.lock();
        if let Some(id) = id.filter(|id| id != history.id()) {
            log.warning(format_args!("Master replication ID changed to {id}"));
            history.rename(id, node.journal.end().offset());
            // They learn of it when they come back.
            node.replication.replicas.end_all();
        }
        drop(history);
        node.journal
            .keep_followed(BacklogBounds::new(&node.settings.load()));
        log.notice(format_args!(
            "MASTER <-> REPLICA sync: Master accepted a Partial Resynchronization."
        ));
        self.following().stream_db()
    }

    /// Tells what of the stream that this node led itself is given up, with its data.
    fn tell_discarded(&mut self) {
        let Some(OwnStream {
            id,
            end,
            acknowledged,
        }) = self.own.take()
        else {
            return;
        };
        let log = &self.node.log;
        match acknowledged {
            Some(acknowledged) if acknowledged < end => log.warning(format_args!(
                "The data of this node as a primary is discarded: {} bytes of its stream, from offset {} to {end} of the history {id}, \
                 had been acknowledged by no replica",
                end - acknowledged,
                acknowledged + 1
            )),
            Some(_) => log.notice(format_args!(
                "The data of this node as a primary is discarded: a replica had acknowledged all of its stream, up to offset {end} of \
                 the history {id}"
            )),
            None => log.warning(format_args!(
                "The data of this node as a primary is discarded, up to offset {end} of the history {id}"
            )),
        }
    }

    fn note_lost(&self, lost: &Lost, was_connected: bool) {
        let (log, now_us) = (&self.node.log, self.node.clock.now_us());
        match lost {
            Lost::Ended if was_connected => {}
            lost => log.warning(format_args!("{lost}")),
        }
        if was_connected {
            log.notice(format_args!("Connection with master lost."));
            log.notice(format_args!("Caching the disconnected master state."));
        }
        self.following().change(self.version, |link| {
            link.stage = LinkStage::Waiting;
            link.transfer = None;
            if was_connected {
                link.down_since_us = now_us;
            }
            match lost {
                Lost::Broken => link.is_resumable = false,
                Lost::Load(reason) => link.failure = Some(reason.clone()),
                _ => {}
            }
        });
        self.node.apply_role_rules();
    }
}
