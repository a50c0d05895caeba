//! [`Transfer`]: a snapshot for the replicas that have asked at about the same time.

use std::rc::Rc;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use shardis_storage::rdb::Dialect;
use tokio::sync::oneshot;

use super::Link;
use crate::config::Settings;
use crate::journal::Position;
use crate::journal::backlog::{BacklogBounds, Cursor};
use crate::replication::Introduction;
use crate::saving::{Delivery, Job, Payload, PayloadReader, Selection, payload_path};
use crate::state::Node;

/// Contents of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Contents {
    /// Parts of the data.
    selection: Selection,
    /// Fields that expire are in Valkey's form.
    is_valkey: bool,
}

/// A link that waits for a snapshot.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) link: Rc<Link>,
    /// Time since which it waits, Unix microseconds.
    pub(super) since_us: i64,
    pub(super) start: oneshot::Sender<Start>,
}

/// The beginning of what a link sends.
#[derive(Debug)]
pub(super) struct Start {
    /// Place of the link in the stream, at the cut.
    pub(super) cursor: Cursor,
    /// The snapshot.
    pub(super) reader: PayloadReader,
    pub(super) delivery: Delivery,
    /// Bytes that mark the end of the snapshot.
    pub(super) mark: String,
    /// Id of the history.
    pub(super) id: String,
    /// Offset of the cut.
    pub(super) offset: u64,
}

/// A snapshot that waits for its cut, or is being made.
#[derive(Debug)]
pub(super) struct Transfer {
    payload: Arc<Payload>,
    contents: Contents,
    /// Links that take part and wait for the cut, each with its place in the snapshot.
    joined: Vec<(Waiter, PayloadReader)>,
    /// The place of the cut in the stream, which the backlog keeps from there on; none before the cut.
    cut: Arc<Mutex<Option<(Position, Cursor)>>>,
    mark: String,
}

impl Waiter {
    /// Whether the link is gone.
    pub(super) fn is_over(&self) -> bool {
        self.start.is_closed()
    }

    /// The contents of its snapshot.
    pub(super) fn contents(&self) -> Contents {
        let Introduction {
            selection, is_valkey, ..
        } = self.link.introduction;
        Contents { selection, is_valkey }
    }

    /// The form in which its snapshot comes.
    pub(super) fn delivery(&self, settings: &Settings) -> Delivery {
        if settings.repl_diskless_sync && self.link.introduction.knows_mark {
            Delivery::Live
        } else {
            Delivery::Whole
        }
    }

    /// Whether it can take part in a snapshot of these parts, in this form.
    pub(super) fn fits(&self, content: Contents, delivery: Delivery) -> bool {
        self.contents() == content && (delivery == Delivery::Whole || self.link.introduction.knows_mark)
    }
}

impl Transfer {
    /// A snapshot for some of those that wait, and the job that makes it.
    pub(super) fn begin(
        node: &Arc<Node>,
        contents: Contents,
        delivery: Delivery,
        waiters: Vec<Waiter>,
    ) -> (Self, Job) {
        let settings = node.settings.load();
        let payload = Payload::new(delivery, payload_path(&settings));
        let joined = waiters
            .into_iter()
            .filter_map(|waiter| Some((waiter, payload.join()?)))
            .collect();
        let cut = Arc::default();
        let mut job = Job::for_replicas(&settings, contents.selection, payload.writer());
        if contents.is_valkey {
            job.dialect = Some(Dialect::Valkey);
        }
        job.at_cut = Some(Box::new(at_cut(node, &cut, BacklogBounds::new(&settings))));
        let transfer = Self {
            payload,
            contents,
            joined,
            cut,
            mark: node.ids.fresh(),
        };
        (transfer, job)
    }

    /// Gives back those that wait, since the job cannot begin now.
    pub(super) fn abandon(self) -> Vec<Waiter> {
        self.joined.into_iter().map(|(waiter, _)| waiter).collect()
    }

    /// Whether the snapshot is still to come, or on its way.
    pub(super) fn is_under_way(&self) -> bool {
        self.payload.is_under_way()
    }

    /// Whether a link wants it.
    pub(super) fn is_wanted(&self) -> bool {
        self.payload.has_readers()
    }

    /// Forgets the links that are gone.
    pub(super) fn forget_gone(&mut self) {
        self.joined.retain(|(waiter, _)| !waiter.is_over());
    }

    /// Has the links begin to send, when the cut was made.
    pub(super) fn start_joined(&mut self, node: &Node) {
        let mut cut = self.cut.lock();
        let Some((position, _)) = &*cut else { return };
        let id = node.replication.history.lock().id().to_owned();
        for (waiter, reader) in self.joined.drain(..) {
            let Some(cursor) = node.journal.cursor(*position) else {
                // It took too long to come here: the link ends, and the replica asks again.
                continue;
            };
            // A link that has gone meanwhile needs it no more.
            let _ = waiter.start.send(Start {
                cursor,
                reader,
                delivery: self.payload.delivery(),
                mark: self.mark.clone(),
                id: id.clone(),
                offset: position.offset(),
            });
        }
        if self.payload.delivery() == Delivery::Live {
            // Nobody can join any more, so that the backlog need not reach back for that.
            *cut = None;
        }
    }

    /// Takes one in that has come later, if that is possible.
    pub(super) fn take_in(&mut self, waiter: Waiter, node: &Node) -> Result<(), Waiter> {
        let delivery = self.payload.delivery();
        if !waiter.fits(self.contents, delivery) {
            return Err(waiter);
        }
        let is_early = {
            let cut = self.cut.lock();
            let position = cut.as_ref().map(|(position, _)| *position);
            // Before the cut anybody may; after it those for whom everything is kept.
            delivery == Delivery::Whole
                && position.is_none_or(|position| node.journal.cursor(position).is_some())
        };
        match is_early.then(|| self.payload.join()).flatten() {
            Some(reader) => {
                self.joined.push((waiter, reader));
                Ok(())
            }
            None => Err(waiter),
        }
    }
}

/// Notes the place of the cut in the stream, which is kept from there on.
fn at_cut(
    node: &Arc<Node>,
    cut: &Arc<Mutex<Option<(Position, Cursor)>>>,
    bounds: BacklogBounds,
) -> impl FnOnce() + Send + 'static {
    let (node, cut): (Weak<Node>, _) = (Arc::downgrade(node), Arc::clone(cut));
    move || {
        let Some(node) = node.upgrade() else { return };
        let position = node.journal.open_backlog(bounds);
        *cut.lock() = node.journal.cursor(position).map(|cursor| (position, cursor));
        node.control_bell.notify_one();
    }
}
