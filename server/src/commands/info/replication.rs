//! The section `replication` of INFO.

use super::{Gathered, line};
use crate::config::Primary;
use crate::exec::Session;
use crate::replication::{Link, LinkStage, Stage, Transfer};
use crate::state::Node;

/// Writes the section.
pub(super) fn replication(text: &mut String, session: &Session<'_>, _: &Gathered) {
    let node = session.node;
    let link = node.replication.following.link();
    let role = if link.primary.is_some() { "slave" } else { "master" };
    line!(text, "role:{role}");
    if let Some(primary) = &link.primary {
        follower(text, session, primary, &link);
    }
    replicas(text, node);
    line!(
        text,
        "master_failover_state:{}",
        node.replication.failover.stage().name()
    );
    history(text, node);
    backlog(text, node);
}

/// Writes what a replica knows of its primary.
fn follower(text: &mut String, session: &Session<'_>, primary: &Primary, link: &Link) {
    let (node, settings) = (session.node, session.node.settings.load());
    let (following, now_us) = (&node.replication.following, node.clock.now_us());
    let is_up = link.stage == LinkStage::Connected;
    let seconds_since = |us: i64| (now_us - us) / 1_000_000;
    line!(text, "master_host:{}", primary.host);
    line!(text, "master_port:{}", primary.port);
    line!(text, "master_link_status:{}", if is_up { "up" } else { "down" });
    let heard_s = if is_up {
        seconds_since(following.heard_us())
    } else {
        -1
    };
    line!(text, "master_last_io_seconds_ago:{heard_s}");
    let is_syncing = link.stage == LinkStage::Transfer;
    line!(text, "master_sync_in_progress:{}", u8::from(is_syncing));
    let offset = if link.is_resumable {
        node.journal.end().offset()
    } else {
        0
    };
    line!(
        text,
        "slave_read_repl_offset:{}",
        if is_up { following.read_to() } else { offset }
    );
    line!(text, "slave_repl_offset:{offset}");
    if let Some(transfer) = &link.transfer {
        transferred(text, transfer, seconds_since(transfer.heard_us));
    }
    if !is_up {
        line!(
            text,
            "master_link_down_since_seconds:{}",
            seconds_since(link.down_since_us)
        );
    }
    if let Some(failure) = &link.failure {
        // Shown until a full synchronisation succeeds.
        line!(
            text,
            "master_sync_last_error:{}",
            failure.replace(['\r', '\n'], " ")
        );
    }
    line!(text, "slave_priority:{}", settings.replica_priority);
    line!(text, "slave_read_only:{}", u8::from(settings.replica_read_only));
    line!(text, "replica_announced:{}", u8::from(settings.replica_announced));
}

/// Writes the progress of a transfer.
fn transferred(text: &mut String, transfer: &Transfer, heard_s: i64) {
    let total = transfer.bytes_total.map_or(0, u64::cast_signed);
    let bytes = transfer.bytes.cast_signed();
    let percent = match transfer.bytes_total {
        Some(total) if total > 0 => transfer.bytes as f64 / total as f64 * 100.0,
        _ => 0.0,
    };
    line!(text, "master_sync_total_bytes:{total}");
    line!(text, "master_sync_read_bytes:{bytes}");
    line!(text, "master_sync_left_bytes:{}", total - bytes);
    line!(text, "master_sync_perc:{percent:.2}");
    line!(text, "master_sync_last_io_seconds_ago:{heard_s}");
}

/// Writes the replicas of this node.
fn replicas(text: &mut String, node: &Node) {
    let (settings, replicas) = (node.settings.load(), &node.replication.replicas);
    let all = replicas.all();
    line!(text, "connected_slaves:{}", all.len());
    if settings.min_replicas_to_write > 0 && settings.min_replicas_max_lag > 0 {
        line!(text, "min_slaves_good_slaves:{}", replicas.healthy());
    }
    let waiting = all
        .iter()
        .filter(|replica| replica.stage() == Stage::Waits)
        .count();
    let now_us = node.clock.now_us();
    for (number, replica) in all.iter().enumerate() {
        line!(
            text,
            "slave{number}:ip={},port={},state={},offset={},lag={}",
            replica.address,
            replica.port,
            replica.stage().name(),
            replica.acknowledged(),
            replica.lag_s(now_us)
        );
    }
    line!(text, "replicas_waiting_psync:{waiting}");
}

/// Writes the ids of the stream, and its end.
fn history(text: &mut String, node: &Node) {
    let history = node.replication.history.lock();
    line!(text, "master_replid:{}", history.id());
    line!(text, "master_replid2:{}", history.second_id());
    line!(text, "master_repl_offset:{}", node.journal.end());
    line!(text, "second_repl_offset:{}", history.second_offset());
}

/// Writes what is kept of the stream.
fn backlog(text: &mut String, node: &Node) {
    let backlog = node.journal.backlog();
    line!(text, "repl_backlog_active:{}", u8::from(backlog.is_some()));
    line!(
        text,
        "repl_backlog_size:{}",
        node.settings.load().repl_backlog_size
    );
    let backlog = backlog.unwrap_or_default();
    line!(text, "repl_backlog_first_byte_offset:{}", backlog.first);
    line!(text, "repl_backlog_histlen:{}", backlog.length);
}
