//! The subcommands of CLUSTER that describe the cluster as this node sees it.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use shardis_cluster::event::EndpointKind;
use shardis_cluster::machine::PacketCounts;
use shardis_cluster::node::{LinkId, Node, NodeKey};
use shardis_cluster::view::{ShardNode, View};
use shardis_cluster::{Endpoint, Machine};
use shardis_protocol::Encoder;

use super::{known, place};
use crate::cluster::Cluster;
use crate::error::ReplyError;
use crate::exec::{CommandResult, Session};

/// Names of the kinds of packets in CLUSTER INFO, in the order of their numbers on the bus.
const PACKETS: [&str; 11] = [
    "ping",
    "pong",
    "meet",
    "fail",
    "publish",
    "auth-req",
    "auth-ack",
    "update",
    "mfstart",
    "module",
    "publishshard",
];

pub(super) fn myid(session: &mut Session<'_>) -> CommandResult {
    let id = place(session)?.read(|machine, _| machine.view().me().id);
    session.reply.bulk(&id.to_text());
    Ok(())
}

pub(super) fn myshardid(session: &mut Session<'_>) -> CommandResult {
    let id = place(session)?.read(|machine, _| machine.view().shard_of(machine.view().my_key()));
    session.reply.bulk(&id.to_text());
    Ok(())
}

pub(super) fn nodes(session: &mut Session<'_>) -> CommandResult {
    let is_tls = session.client.is_tls;
    let text = place(session)?.read(|machine, now| machine.view().nodes_text(now, is_tls));
    session.reply.verbatim(*b"txt", text.as_bytes());
    Ok(())
}

/// CLUSTER REPLICAS node-id, and its old name
pub(super) fn replicas(session: &mut Session<'_>) -> CommandResult {
    let (cluster, name, is_tls) = (place(session)?, session.args.at(2), session.client.is_tls);
    let lines = cluster.read(|machine, now| {
        let view = machine.view();
        let primary = known(view, name)?;
        if view[primary].is_replica() {
            return Err(ReplyError::Fixed("ERR The specified node is not a master"));
        }
        let replicas = view.replicas(primary);
        let lines = replicas.map(|(key, _)| view.node_text(key, now, is_tls));
        Ok(lines.collect::<Vec<_>>())
    })?;
    session.reply.array(lines.len());
    for line in lines {
        session.reply.bulk(line.trim_end_matches('\n').as_bytes());
    }
    Ok(())
}

pub(super) fn slots(session: &mut Session<'_>) -> CommandResult {
    let (cluster, is_tls, reply) = (place(session)?, session.client.is_tls, &mut session.reply);
    cluster.read(|machine, _| {
        let told = machine.for_client(is_tls);
        let ranges = machine.view().slot_ranges();
        reply.array(ranges.len());
        for range in ranges {
            reply.array(3 + range.replicas.len());
            reply.integer(i64::from(range.start.number()));
            reply.integer(i64::from(range.end.number()));
            for key in std::iter::once(range.primary).chain(range.replicas) {
                write_slot_node(reply, machine, (key, told.endpoint(key)));
            }
        }
    });
    Ok(())
}

/// Writes a node of CLUSTER SLOTS: how it is reached, its name, and how else it could be called.
fn write_slot_node(reply: &mut Encoder<'_>, machine: &Machine, (key, endpoint): (NodeKey, Endpoint<'_>)) {
    let (node, preferred) = (&machine.view()[key], machine.options().preferred_endpoint);
    reply.array(4);
    // Null means the name that clients use already.
    match preferred {
        EndpointKind::Unknown => reply.null(),
        _ => reply.bulk(endpoint.host.as_bytes()),
    }
    reply.integer(i64::from(endpoint.port));
    reply.bulk(&node.id.to_text());
    let ip = (preferred != EndpointKind::Ip).then_some(("ip", node.address.ip.as_str()));
    let hostname = (preferred != EndpointKind::Hostname && !node.hostname.is_empty())
        .then_some(("hostname", &*node.hostname));
    let others = [ip, hostname];
    reply.map(others.iter().flatten().count());
    for (name, value) in others.into_iter().flatten() {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
}

pub(super) fn shards(session: &mut Session<'_>) -> CommandResult {
    let (cluster, reply) = (place(session)?, &mut session.reply);
    cluster.read(|machine, _| {
        let shards = machine.view().shards();
        reply.array(shards.len());
        for shard in shards {
            reply.map(2);
            reply.bulk(b"slots");
            reply.array(2 * shard.slots.ranges().count());
            for range in shard.slots.ranges() {
                reply.integer(i64::from(range.start().number()));
                reply.integer(i64::from(range.end().number()));
            }
            reply.bulk(b"nodes");
            reply.array(shard.nodes.len());
            for node in &shard.nodes {
                write_shard_node(reply, machine, node);
            }
        }
    });
    Ok(())
}

/// Writes a node of CLUSTER SHARDS.
fn write_shard_node(reply: &mut Encoder<'_>, machine: &Machine, shard_node: &ShardNode) {
    let node = &machine.view()[shard_node.key];
    let ports = [
        ("port", node.address.tcp_port),
        ("tls-port", node.address.tls_port),
    ];
    let ports = ports.into_iter().filter(|&(_, port)| port != 0);
    let has_hostname = !node.hostname.is_empty();
    reply.map(6 + ports.clone().count() + usize::from(has_hostname));
    write_text(reply, "id", &node.id.to_string());
    for (name, port) in ports {
        write_number(reply, name, i64::from(port));
    }
    write_text(reply, "ip", &node.address.ip);
    reply.bulk(b"endpoint");
    // The host is the same for clients of all kinds, and all ports are told.
    reply.bulk(machine.for_client(false).endpoint(shard_node.key).host.as_bytes());
    if has_hostname {
        write_text(reply, "hostname", &node.hostname);
    }
    write_text(
        reply,
        "role",
        if node.is_replica() { "replica" } else { "master" },
    );
    let offset = shard_node.replication_offset.cast_signed();
    write_number(reply, "replication-offset", offset);
    write_text(reply, "health", &shard_node.health.to_string());
}

fn write_text(reply: &mut Encoder<'_>, name: &str, value: &str) {
    reply.bulk(name.as_bytes());
    reply.bulk(value.as_bytes());
}

fn write_number(reply: &mut Encoder<'_>, name: &str, value: i64) {
    reply.bulk(name.as_bytes());
    reply.integer(value);
}

pub(super) fn links(session: &mut Session<'_>) -> CommandResult {
    let cluster = place(session)?;
    let lines: Vec<_> = cluster.read(|machine, _| machine.view().links().collect());
    // One that is still being opened has no figures.
    let open = lines
        .into_iter()
        .filter_map(|line| Some((line, cluster.link_figures(line.link)?)));
    let open: Vec<_> = open.collect();
    session.reply.array(open.len());
    for (line, figures) in open {
        let unsent = figures.unsent.load(Ordering::Relaxed);
        let reply = &mut session.reply;
        reply.map(6);
        let direction = match line.link {
            LinkId::Outbound(_) => "to",
            LinkId::Inbound(_) => "from",
        };
        write_text(reply, "direction", direction);
        write_text(reply, "node", &line.node.to_string());
        write_number(reply, "create-time", figures.opened_ms);
        write_text(reply, "events", if unsent > 0 { "rw" } else { "r" });
        let allocated = figures.allocated.load(Ordering::Relaxed);
        write_number(reply, "send-buffer-allocated", allocated as i64);
        write_number(reply, "send-buffer-used", unsent as i64);
    }
    Ok(())
}

pub(super) fn info(session: &mut Session<'_>) -> CommandResult {
    let text = info_text(place(session)?);
    session.reply.verbatim(*b"txt", text.as_bytes());
    Ok(())
}

/// The text of CLUSTER INFO.
fn info_text(cluster: &Cluster) -> String {
    let (info, traffic) = cluster.read(|machine, _| (machine.view().info(), *machine.traffic()));
    let mut text = String::new();
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{name}:{value}\r\n");
    };
    line("cluster_state", &if info.is_ok { "ok" } else { "fail" });
    line("cluster_slots_assigned", &info.slots_assigned);
    line("cluster_slots_ok", &info.slots_ok);
    line("cluster_slots_pfail", &info.slots_pfail);
    line("cluster_slots_fail", &info.slots_fail);
    line("cluster_known_nodes", &info.known_nodes);
    line("cluster_size", &info.size);
    line("cluster_current_epoch", &info.current_epoch);
    line("cluster_my_epoch", &info.my_epoch);
    for (way, counts) in [("sent", &traffic.sent), ("received", &traffic.received)] {
        write_counts(&mut line, way, counts);
    }
    let figures = cluster.figures();
    let overrun = figures.overrun_links.load(Ordering::Relaxed);
    line("total_cluster_links_buffer_limit_exceeded", &overrun);
    // Figures that Redis does not have.
    line("cluster_failures_survived", &info.failures_survived);
    let dropped = figures.dropped_packets.load(Ordering::Relaxed);
    line("cluster_packets_dropped", &dropped);
    let broken = figures.broken_links.load(Ordering::Relaxed);
    line("cluster_links_broken", &broken);
    text
}

fn write_counts(line: &mut impl FnMut(&str, &dyn std::fmt::Display), way: &str, counts: &PacketCounts) {
    for (name, count) in PACKETS.iter().zip(counts).filter(|(_, count)| **count > 0) {
        line(&format!("cluster_stats_messages_{name}_{way}"), count);
    }
    line(
        &format!("cluster_stats_messages_{way}"),
        &counts.iter().sum::<u64>(),
    );
}

/// CLUSTER COUNT-FAILURE-REPORTS node-id
pub(super) fn count_failure_reports(session: &mut Session<'_>) -> CommandResult {
    let (cluster, name) = (place(session)?, session.args.at(2));
    let id = cluster.read(|machine, _| id_of(machine.view(), name))?;
    super::administration::order(session, shardis_cluster::event::Command::CountFailureReports(id))
}

/// The name of a known node that is called by it.
fn id_of(view: &View, name: &[u8]) -> Result<shardis_cluster::node::NodeId, ReplyError> {
    let node: &Node = &view[known(view, name)?];
    Ok(node.id)
}

pub(super) fn help(session: &mut Session<'_>) -> CommandResult {
    place(session)?;
    session.help(&[
        "ADDSLOTS <slot> [<slot> ...]",
        "    This node becomes the owner of slots that nobody owns.",
        "ADDSLOTSRANGE <start slot> <end slot> [<start slot> <end slot> ...]",
        "    As ADDSLOTS, for ranges of slots.",
        "BUMPEPOCH",
        "    Raises the configuration epoch of this node above all others.",
        "COUNT-FAILURE-REPORTS <node-id>",
        "    How many nodes take the node for failed.",
        "COUNTKEYSINSLOT <slot>",
        "    How many keys of the slot this node has.",
        "DELSLOTS <slot> [<slot> ...]",
        "    This node forgets who owns the slots.",
        "DELSLOTSRANGE <start slot> <end slot> [<start slot> <end slot> ...]",
        "    As DELSLOTS, for ranges of slots.",
        "FAILOVER [FORCE|TAKEOVER]",
        "    This replica takes the place of its primary.",
        "FLUSHSLOTS",
        "    This node forgets all slots that it owns.",
        "FORGET <node-id>",
        "    The node is known no more, and not taken in for a minute.",
        "GETKEYSINSLOT <slot> <count>",
        "    Names of keys of the slot that this node has.",
        "INFO",
        "    The state of the cluster as this node sees it.",
        "KEYSLOT <key>",
        "    The slot of the key.",
        "LINKS",
        "    The connections of the cluster bus.",
        "MEET <ip> <port> [<bus-port>]",
        "    This node and the one there get to know each other.",
        "MYID",
        "    The id of this node.",
        "MYSHARDID",
        "    The id of the shard of this node.",
        "NODES",
        "    The nodes that this node knows, a line for each.",
        "REPLICAS <node-id>",
        "    The replicas of the node, as lines of NODES.",
        "REPLICATE <node-id>",
        "    This node becomes a replica of the node.",
        "RESET [HARD|SOFT]",
        "    This node leaves the cluster.",
        "SAVECONFIG",
        "    Writes the nodes file.",
        "SET-CONFIG-EPOCH <epoch>",
        "    Sets the configuration epoch of a new node.",
        "SETSLOT <slot> (IMPORTING <node-id>|MIGRATING <node-id>|STABLE|NODE <node-id>)",
        "    Who owns the slot, or that it is on its way.",
        "SHARDS",
        "    The shards, their slots and their nodes.",
        "SLOTS",
        "    Which nodes serve which slots.",
    ])
}
