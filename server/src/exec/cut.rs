//! The cut of a snapshot: the instant at which all partitions begin their parts of it.

use super::held::Held;
use crate::config::Settings;
use crate::saving::{Content, Plan, Purpose, StreamPoint};
use crate::state::{Node, REDIS_VERSION};

/// Makes the cut of the job that waits for one, on the partitions of all shards, whose effects have all been handed over. Nothing
/// happens while the node's last snapshot has not been cleared away in all of them: it is then to be tried again later.
pub(crate) fn make_cut(held: &mut Held<'_>, node: &Node, settings: &Settings) {
    let (content, mut is_clear) = (content_of(held, node), true);
    held.each(|partition| is_clear &= !partition.keyspace.has_snapshot());
    if !is_clear {
        return;
    }
    let plan = Plan::new(settings, &content);
    let Some((snapshot, job)) = node.persistence.start(plan, content) else {
        return;
    };
    if job.selection.keys {
        let writer = plan.in_dialect(job.dialect).entry_writer(job.form);
        held.each(|partition| partition.begin_snapshot(&snapshot, &*writer));
    }
    if let Some(at_cut) = job.at_cut {
        at_cut();
    }
    if job.selection.keys {
        node.persistence.publish(&snapshot);
    }
}

/// The content of a node whose partitions are all held.
pub(crate) fn content_of(held: &mut Held<'_>, node: &Node) -> Content {
    let mut content = Content {
        shards: node.shards,
        version: REDIS_VERSION,
        libraries: node.scripts.sources(),
        used_bytes: node.known_bytes().unsigned_abs(),
        now_ms: node.clock.now_us() / 1000,
        stream: stream_point(node),
        ..Content::default()
    };
    held.each(|partition| partition.add_to(&mut content));
    content
}

/// The place of the data in the stream that replicas follow, or will follow from here on; none if nobody does.
fn stream_point(node: &Node) -> Option<StreamPoint> {
    let is_for_replicas = node.persistence.purpose() == Some(Purpose::Replicas);
    // From the snapshot for a replica on, the stream of a primary selects its databases anew.
    let db = if is_for_replicas && !node.replication.following.is_replica() {
        Some(0)
    } else {
        node.journal.selected()
    };
    Some(StreamPoint {
        id: node.replication.history.lock().id().to_owned(),
        offset: node.journal.end().offset(),
        db: db?,
    })
}
