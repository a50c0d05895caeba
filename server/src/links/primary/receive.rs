//! Full synchronisation: receives a snapshot, has it loaded beside the data that there is, and puts it in the place of that.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{Sender, channel};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::Keeper;
use super::handshake::Place;
use super::payload::Payload;
use super::wire::{Lost, Wire};
use crate::config::{DisklessLoad, Settings};
use crate::journal::backlog::BacklogBounds;
use crate::limits::SNAPSHOT_PIECES;
use crate::loading::install::{is_empty, try_install};
use crate::loading::transfer::{Piece, Reception, Way, receive};
use crate::loading::{LoadError, Loaded};
use crate::replication::{LinkStage, Transfer};
use crate::shard::Mesh;
use crate::state::Node;

/// The thread that loads a snapshot.
pub(super) struct Loader {
    thread: JoinHandle<Result<Loaded, LoadError>>,
    /// Pieces for it; none when it has all.
    pieces: Option<Sender<Piece>>,
    node: Arc<Node>,
}

impl Loader {
    fn start(node: &Arc<Node>, reception: Reception) -> Self {
        let (pieces, arriving) = channel(SNAPSHOT_PIECES);
        let loading = Arc::clone(node);
        loading.loading.go_on();
        let thread = spawn_blocking(move || {
            if loading.daemon.is_some() {
                crate::daemon::guard_thread();
            }
            let _entered = loading.threads.enter();
            receive(&loading, arriving, &reception)
        });
        Self {
            thread,
            pieces: Some(pieces),
            node: Arc::clone(node),
        }
    }

    /// Ends it, whatever it is doing.
    pub(super) async fn give_up(mut self) {
        self.node.loading.give_up();
        drop(self.pieces.take());
        // The data that it has loaded is dropped.
        let _ = self.thread.await;
    }
}

impl Keeper {
    /// Receives a snapshot and makes it the data of this node, at a place in the primary's history. Returns the database that is selected
    /// in the stream behind it.
    pub(super) async fn synchronise(&mut self, wire: &mut Wire, origin: Option<Place>) -> Result<u16, Lost> {
        if let Some(former) = self.loader.take() {
            former.give_up().await;
        }
        self.enter(LinkStage::Transfer);
        let mut payload = self.announced(wire).await?;
        let is_marked = matches!(payload, Payload::Marked { .. });
        let settings = self.node.settings.load_full();
        let is_same = origin
            .as_ref()
            .is_some_and(|origin| origin.id == self.node.replication.history.lock().id());
        let reception = Reception {
            way: way(&settings, &self.node, &self.mesh).await,
            size: payload.len(),
            excludes: !(settings.repl_diskless_load == DisklessLoad::SwapDb && is_same),
            wants_keys: settings.replica_refuse_empty_primary && !is_without_keys(&self.mesh).await,
        };
        self.tell_way(&payload, &reception.way);
        self.loader = Some(Loader::start(&self.node, reception));
        self.pass(wire, &mut payload).await?;
        let loaded = self.loaded(wire).await?;
        let db = loaded.told.db.unwrap_or(0);
        self.following().note_stream_db(db);
        self.install(loaded, origin, db).await;
        if is_marked {
            self.acknowledge(wire)?;
        }
        Ok(db)
    }

    /// The line in front of the snapshot.
    async fn announced(&self, wire: &mut Wire) -> Result<Payload, Lost> {
        let line = wire.answer("Timeout receiving bulk data from MASTER...").await?;
        if let Some(error) = line.strip_prefix('-') {
            return Err(Lost::Refused(format!(
                "MASTER aborted replication with an error: {error}"
            )));
        }
        let payload = line.strip_prefix('$').and_then(Payload::announced);
        let payload = payload.ok_or_else(|| {
            Lost::Refused(format!(
                "Bad protocol from MASTER, the first byte is not '$' (we received '{line}'), are you sure the host and port are \
                 right?"
            ))
        })?;
        let now_us = self.node.clock.now_us();
        self.following().change(self.version, |link| {
            link.transfer = Some(Transfer {
                bytes_total: payload.len(),
                bytes: 0,
                heard_us: now_us,
            });
        });
        Ok(payload)
    }

    fn tell_way(&self, payload: &Payload, way: &Way) {
        let (log, to) = (
            &self.node.log,
            match way {
                Way::File { .. } => "disk",
                Way::Direct => "parser",
            },
        );
        match payload.len() {
            Some(bytes) => log.notice(format_args!(
                "MASTER <-> REPLICA sync: receiving {bytes} bytes from master to {to}"
            )),
            None => log.notice(format_args!(
                "MASTER <-> REPLICA sync: receiving streamed RDB from master with EOF to {to}"
            )),
        }
    }

    /// Passes the snapshot on to the thread that loads it, up to its end.
    async fn pass(&mut self, wire: &mut Wire, payload: &mut Payload) -> Result<(), Lost> {
        const SILENT: &str = "Timeout receiving bulk data from MASTER... If the problem persists try to set the 'repl-timeout' \
             parameter in redis.conf to a larger value.";
        let Some(pieces) = self.loader.as_mut().and_then(|loader| loader.pieces.take()) else {
            return Err(Lost::Ended);
        };
        loop {
            let mut out = Vec::new();
            let behind = payload.take(std::mem::take(&mut wire.received), &mut out);
            self.count(out.len());
            if !out.is_empty() && !self.pass_piece(wire, &pieces, Piece::Bytes(out)).await? {
                // The thread has ended: its reason is looked at next.
                return Ok(());
            }
            if let Some(behind) = behind {
                wire.received = behind;
                self.pass_piece(wire, &pieces, Piece::End).await?;
                return Ok(());
            }
            wire.receive(SILENT).await.map_err(|lost| match lost {
                Lost::Ended => {
                    Lost::Refused("I/O error trying to sync with MASTER: connection lost".to_owned())
                }
                lost => lost,
            })?;
        }
    }

    /// Passes a piece on; false if the thread has ended. While that is slow, the primary is told that this node lives.
    async fn pass_piece(&self, wire: &mut Wire, pieces: &Sender<Piece>, piece: Piece) -> Result<bool, Lost> {
        let mut ticks = seconds();
        let sending = pieces.send(piece);
        tokio::pin!(sending);
        loop {
            tokio::select! {
                sent = &mut sending => return Ok(sent.is_ok()),
                _ = ticks.tick() => wire.send(b"\n")?,
            }
        }
    }

    /// Counts bytes of the snapshot.
    fn count(&self, bytes: usize) {
        let now_us = self.node.clock.now_us();
        self.following().change(self.version, |link| {
            if let Some(transfer) = &mut link.transfer {
                transfer.bytes += bytes as u64;
                transfer.heard_us = now_us;
            }
        });
    }

    /// Waits until the snapshot is loaded. The primary is told every second that this node lives.
    async fn loaded(&mut self, wire: &mut Wire) -> Result<Loaded, Lost> {
        let log = &self.node.log;
        log.notice(format_args!("MASTER <-> REPLICA sync: Loading DB in memory"));
        let Some(loader) = &mut self.loader else {
            return Err(Lost::Ended);
        };
        let mut ticks = seconds();
        let joined = loop {
            tokio::select! {
                joined = &mut loader.thread => break joined,
                _ = ticks.tick() => wire.send(b"\n")?,
            }
        };
        self.loader = None;
        match joined {
            Ok(loaded) => loaded.map_err(|error| Lost::Load(error.describe())),
            Err(_) => Err(Lost::Load("the thread that loads it panicked".to_owned())),
        }
    }

    /// Puts the data of the primary in the place of this node's, at one instant, and has the journal go on where the snapshot was made.
    async fn install(&mut self, mut loaded: Loaded, origin: Option<Place>, db: u16) {
        let (node, settings) = (Arc::clone(&self.node), self.node.settings.load_full());
        let has_file = node.append_only.is_on();
        if has_file {
            turn_off_file(&node, &settings).await;
        }
        // The data that this node saves is what goes.
        node.persistence.unschedule();
        node.persistence.give_up(|purpose| !purpose.is_shutdown());
        let Place { id, offset } = origin.unwrap_or_else(|| Place {
            id: node.ids.fresh(),
            offset: 0,
        });
        loop {
            let at_instant = || {
                node.journal.jump(offset, Some(db), BacklogBounds::new(&settings));
                node.replication.history.lock().take_over(id.clone());
            };
            match try_install(&node, &self.mesh, loaded, at_instant) {
                Ok(()) => break,
                Err(again) => loaded = again,
            }
            sleep(Duration::from_millis(1)).await;
        }
        self.tell_discarded();
        // They follow what was here before.
        node.replication.replicas.end_all();
        self.following().change(self.version, |link| {
            link.transfer = None;
            link.failure = None;
            link.is_resumable = true;
        });
        if has_file && node.append_only.turn_on(&settings, &node.log).is_err() {
            node.log.warning(format_args!(
                "The append-only file could not be switched on again after the full synchronisation."
            ));
        }
        node.log
            .notice(format_args!("MASTER <-> REPLICA sync: Finished with success"));
    }
}

/// A tick each second, from a second on.
pub(super) fn seconds() -> tokio::time::Interval {
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    ticks
}

/// The way that a snapshot takes under these directives.
async fn way(settings: &Settings, node: &Node, mesh: &Mesh) -> Way {
    let is_direct = match settings.repl_diskless_load {
        DisklessLoad::Disabled => false,
        DisklessLoad::OnEmptyDb => is_without_keys(mesh).await,
        DisklessLoad::SwapDb => true,
    };
    if is_direct {
        return Way::Direct;
    }
    let path = settings.dump_path();
    let name = format!(
        "temp-{}.{}.rdb",
        node.clock.now_us() / 1_000_000,
        std::process::id()
    );
    let temporary = path.parent().unwrap_or(Path::new("")).join(name);
    let is_persistent = settings.appendonly || !settings.save.0.is_empty();
    Way::File {
        temporary,
        path,
        is_removed: settings.rdb_del_sync_files && !is_persistent,
    }
}

/// Whether the node has no keys, as soon as no shard is taken.
async fn is_without_keys(mesh: &Mesh) -> bool {
    loop {
        match is_empty(mesh) {
            Some(is_empty) => return is_empty,
            None => sleep(Duration::from_millis(1)).await,
        }
    }
}

/// Switches the append-only file off, on a thread that may wait for the disk.
async fn turn_off_file(node: &Arc<Node>, settings: &Arc<Settings>) {
    let (node, settings) = (Arc::clone(node), Arc::clone(settings));
    let turned_off = spawn_blocking(move || {
        node.reporting(&settings, |reporter| node.append_only.turn_off(reporter));
    });
    // A panic was reported when it happened.
    let _ = turned_off.await;
}
