//! CLUSTER, and the commands that clients of a cluster send to its nodes.
//!
//! On a node that is not part of a cluster a faulty request gets the error for its fault first, as in Redis.
//!
//! | module | subject |
//! |---|---|
//! | [`topology`] | the cluster as this node sees it |
//! | [`administration`] | changes of the cluster |
//! | [`keys`] | slots and their keys, and what a connection says about redirects |

mod administration;
mod keys;
mod topology;

use shardis_cluster::node::{NodeId, NodeKey};
use shardis_cluster::view::View;

use crate::cluster::Cluster;
use crate::error::ReplyError;
use crate::exec::Session;
use crate::spec::argument::Deprecated;
use crate::spec::{Arg, Arity, Audited, Category, Command, Doc, Flags, Group, Runs};

const fn with_flags(flags: Flags) -> Command {
    Command {
        flags,
        ..Command::BLANK
    }
}

/// The node's place in a cluster.
fn place<'a>(session: &Session<'a>) -> Result<&'a Cluster, ReplyError> {
    session.node.cluster.as_ref().ok_or(ReplyError::ClusterDisabled)
}

/// The error for a name that no known node has.
fn unknown(name: &[u8]) -> ReplyError {
    ReplyError::Bytes([b"ERR Unknown node ", name].concat())
}

/// The known node of this name.
fn known(view: &View, name: &[u8]) -> Result<NodeKey, ReplyError> {
    let id = name.try_into().ok().and_then(NodeId::from_text);
    id.and_then(|id| view.find(&id)).ok_or_else(|| unknown(name))
}

/// Common part of the rows of subcommands that describe the cluster.
const ANYBODY: Command = with_flags(Flags::STALE);

/// Common part of the rows of subcommands that give operators information.
const READER: Command = with_flags(Flags::ADMIN.union(Flags::STALE));

/// Common part of the rows of subcommands that change the cluster.
const OPERATOR: Command = with_flags(Flags::ADMIN.union(Flags::STALE).union(Flags::NO_ASYNC_LOADING));

const RESET: Command = with_flags(Flags::ADMIN.union(Flags::STALE).union(Flags::NOSCRIPT));

const HELP: Command = with_flags(Flags::LOADING.union(Flags::STALE));

const DOC: Doc = Doc {
    since: "3.0.0",
    group: Group::Cluster,
    complexity: "O(1)",
    ..Doc::BLANK
};

const TOPOLOGY: &[&str] = &["nondeterministic_output"];

const NODE: &[Arg] = &[Arg::string("node-id")];
const SLOT: &[Arg] = &[Arg::integer("slot")];
const SLOTS: &[Arg] = &[Arg::integer("slot").multiple()];
const RANGES: &[Arg] =
    &[Arg::block("range", &[Arg::integer("start-slot"), Arg::integer("end-slot")]).multiple()];

pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "asking",
        arity: Arity::Exactly(1),
        flags: Flags::FAST,
        acl: Category::CONNECTION,
        runs: Runs::OnSession(keys::asking),
        doc: &Doc {
            summary: "Has the next command run although its slot is only on its way to this node.",
            ..DOC
        },
        ..Command::BLANK
    },
    Command {
        name: "readonly",
        arity: Arity::Exactly(1),
        flags: Flags::LOADING.union(Flags::STALE).union(Flags::FAST),
        acl: Category::CONNECTION,
        runs: Runs::OnSession(keys::readonly),
        doc: &Doc {
            summary: "Lets this connection read from a replica.",
            ..DOC
        },
        ..Command::BLANK
    },
    Command {
        name: "readwrite",
        arity: Arity::Exactly(1),
        flags: Flags::LOADING.union(Flags::STALE).union(Flags::FAST),
        acl: Category::CONNECTION,
        runs: Runs::OnSession(keys::readwrite),
        doc: &Doc {
            summary: "Ends what READONLY began.",
            ..DOC
        },
        ..Command::BLANK
    },
    Command {
        name: "cluster",
        arity: Arity::AtLeast(2),
        runs: Runs::Container,
        doc: &Doc {
            complexity: "That of the subcommand",
            summary: "Groups commands about the cluster.",
            ..DOC
        },
        subcommands: SUBCOMMANDS,
        ..Command::BLANK
    },
];

const SUBCOMMANDS: &[Command] = &[
    Command {
        name: "addslots",
        arity: Arity::AtLeast(3),
        runs: Runs::OnSessionAndAllShards(administration::add_slots),
        audited: Some(&Audited::TOPOLOGY),
        doc: &Doc {
            complexity: "O(N) for N slots",
            summary: "Makes this node the owner of slots that nobody owns.",
            args: SLOTS,
            ..DOC
        },
        ..OPERATOR
    },
    Command {
        name: "addslotsrange",
        arity: Arity::AtLeast(4),
        runs: Runs::OnSessionAndAllShards(administration::add_slot_ranges),
        audited: Some(&Audited::TOPOLOGY),
        doc: &Doc {
            since: "7.0.0",
            complexity: "O(N) for N slots",
            summary: "Makes this node the owner of ranges of slots that nobody owns.",
            args: RANGES,
            ..DOC
        },
        ..OPERATOR
    },
    Command {
        name: "bumpepoch",
        arity: Arity::Exactly(2),
        tips: TOPOLOGY,
        runs: Runs::OnSession(administration::bump_epoch),
        audited: Some(&Audited::TOPOLOGY),
        doc: &Doc {
            summary: "Raises the configuration epoch of this node above all others.",
            ..DOC
        },
        ..OPERATOR
    },
    Command {
        name: "count-failure-reports",
        arity: Arity::Exactly(3),
        tips: TOPOLOGY,
        runs: Runs::OnSession(topology::count_failure_reports),
        doc: &Doc {
            complexity: "O(N) for N reports",
            summary: "Counts the nodes that take another one for failed.",
            args: NODE,
            ..DOC
        },
        ..READER
    },
    Command {
        name: "countkeysinslot",
        arity: Arity::Exactly(3),
        runs: Runs::OnSlot(keys::count_in_slot),
        doc: &Doc {
            summary: "Counts the keys of a slot on this node.",
            args: SLOT,
            ..DOC
        },
        ..ANYBODY
    },
    Command {
        name: "delslots",
        arity: Arity::AtLeast(3),
        runs: Runs::OnSessionAndAllShards(administration::del_slots),
        audited: Some(&Audited::TOPOLOGY),
        doc: &Doc {
            complexity: "O(N) for N slots",
            summary: "Has this node forget who owns slots.",
            args: SLOTS,
            ..DOC
        },
        ..OPERATOR
    },
    Command {
        name: "delslotsrange",
        arity: Arity::AtLeast(4),
        runs: Runs::OnSessionAndAllShards(administration::del_slot_ranges),
        audited: Some(&Audited::TOPOLOGY),
        doc: &Doc {
            since: "7.0.0",
            complexity: "O(N) for N slots",
            summary: "Has this node forget who owns ranges of slots.",
            args: RANGES,
            ..DOC
        },
        ..OPERATOR
    },
    Command {
        name: "failover",
        arity: Arity::AtLeast(2),
        runs: Runs::OnSession(administration::failover),
        audited: Some(&Audited::TOPOLOGY),
        doc: &Doc {
            summary: "Has this replica take the place of its primary.",
            args: &[Arg::one_of(
                "options",
                &[Arg::flag("force", "FORCE"), Arg::flag("takeover", "TAKEOVER")],
            )
            .optional()],
            ..DOC
        },
        ..OPERATOR
    },
    Command {
        name: "flushslots",
        arity: Arity::Exactly(2),
        runs: Runs::OnSessionAndAllShards(administration::flush_slots),
        audited: Some(&Audited::TOPOLOGY),
        doc: &Doc {
            summary: "Has this node forget who owns any slot.",
            ..DOC
        },
        ..OPERATOR
    },
    Command {
        name: "forget",
        arity: Arity::Exactly(3),
        runs: Runs::OnSession(administration::forget),
        audited: Some(&Audited::TOPOLOGY),
        doc: &Doc {
            summary: "Removes a node from those that this node knows.",
            args: NODE,
            ..DOC
        },
        ..OPERATOR
    },
    Command {
        name: "getkeysinslot",
        arity: Arity::Exactly(4),
        runs: Runs::OnSlot(keys::names_in_slot),
        tips: TOPOLOGY,
        doc: &Doc {
            complexity: "O(N) for N keys asked for",
            summary: "Names keys of a slot on this node.",
            args: &[Arg::integer("slot"), Arg::integer("count")],
            ..DOC
        },
        ..ANYBODY
    },
    Command {
        name: "help",
        arity: Arity::Exactly(2),
        runs: Runs::OnSession(topology::help),
        doc: &Doc {
            since: "5.0.0",
            summary: "Lists the subcommands.",
            ..DOC
        },
        ..HELP
    },
    Command {
        name: "info",
        arity: Arity::Exactly(2),
        tips: TOPOLOGY,
        runs: Runs::OnSession(topology::info),
        doc: &Doc {
            summary: "Describes the state of the cluster as this node sees it.",
            ..DOC
        },
        ..ANYBODY
    },
    Command {
        name: "keyslot",
        arity: Arity::Exactly(3),
        runs: Runs::OnSession(keys::slot),
        doc: &Doc {
            complexity: "O(N) for a key of N bytes",
            summary: "Tells the slot of a key.",
            args: &[Arg::string("key")],
            ..DOC
        },
        ..ANYBODY
    },
    Command {
        name: "links",
        arity: Arity::Exactly(2),
        tips: TOPOLOGY,
        runs: Runs::OnSession(topology::links),
        doc: &Doc {
            since: "7.0.0",
            complexity: "O(N) for N nodes",
            summary: "Describes the connections between this node and the others.",
            ..DOC
        },
        ..ANYBODY
    },
    Command {
        name: "meet",
        arity: Arity::AtLeast(4),
        runs: Runs::OnSession(administration::meet),
        audited: Some(&Audited::TOPOLOGY),
        doc: &Doc {
            summary: "Has this node and another one get to know each other.",
            history: &[("4.0.0", "The port of the cluster bus.")],
            args: &[
                Arg::string("ip"),
                Arg::integer("port"),
                Arg::integer("cluster-bus-port").since("4.0.0").optional(),
            ],
            ..DOC
        },
        ..OPERATOR
    },
    Command {
        name: "myid",
        arity: Arity::Exactly(2),
        runs: Runs::OnSession(topology::myid),
        doc: &Doc {
            summary: "Tells the id of this node.",
            ..DOC
        },
        ..ANYBODY
    },
    Command {
        name: "myshardid",
        arity: Arity::Exactly(2),
        tips: TOPOLOGY,
        runs: Runs::OnSession(topology::myshardid),
        doc: &Doc {
            since: "7.2.0",
            summary: "Tells the id of the shard that this node belongs to.",
            ..DOC
        },
        ..ANYBODY
    },
    Command {
        name: "nodes",
        arity: Arity::Exactly(2),
        tips: TOPOLOGY,
        runs: Runs::OnSession(topology::nodes),
        doc: &Doc {
            complexity: "O(N) for N nodes",
            summary: "Describes the nodes that this node knows, in the form of its nodes file.",
            ..DOC
        },
        ..ANYBODY
    },
    Command {
        name: "replicas",
        arity: Arity::Exactly(3),
        tips: TOPOLOGY,
        runs: Runs::OnSession(topology::replicas),
        doc: &Doc {
            since: "5.0.0",
            complexity: "O(N) for N replicas",
            summary: "Describes the replicas of a node.",
            args: NODE,
            ..DOC
        },
        ..READER
    },
    Command {
        name: "replicate",
        arity: Arity::Exactly(3),
        runs: Runs::OnSessionAndAllShards(administration::replicate),
        audited: Some(&Audited::TOPOLOGY),
        doc: &Doc {
            summary: "Makes this node a replica of another one.",
            args: NODE,
            ..DOC
        },
        ..OPERATOR
    },
    Command {
        name: "reset",
        arity: Arity::AtLeast(2),
        runs: Runs::OnSessionAndAllShards(administration::reset),
        audited: Some(&Audited::TOPOLOGY),
        doc: &Doc {
            complexity: "O(N) for N known nodes",
            summary: "Has this node leave the cluster.",
            args: &[Arg::one_of(
                "reset-type",
                &[Arg::flag("hard", "HARD"), Arg::flag("soft", "SOFT")],
            )
            .optional()],
            ..DOC
        },
        ..RESET
    },
    Command {
        name: "saveconfig",
        arity: Arity::Exactly(2),
        runs: Runs::OnSession(administration::save_config),
        doc: &Doc {
            summary: "Writes the nodes file.",
            ..DOC
        },
        ..OPERATOR
    },
    Command {
        name: "set-config-epoch",
        arity: Arity::Exactly(3),
        runs: Runs::OnSession(administration::set_config_epoch),
        audited: Some(&Audited::TOPOLOGY),
        doc: &Doc {
            summary: "Sets the configuration epoch of a new node.",
            args: &[Arg::integer("config-epoch")],
            ..DOC
        },
        ..OPERATOR
    },
    Command {
        name: "setslot",
        arity: Arity::AtLeast(4),
        runs: Runs::OnSessionAndAllShards(administration::set_slot),
        audited: Some(&Audited::TOPOLOGY),
        doc: &Doc {
            summary: "Says who owns a slot, or that it is on its way to another node.",
            args: &[
                Arg::integer("slot"),
                Arg::one_of(
                    "subcommand",
                    &[
                        Arg::string("importing").display("node-id").token("IMPORTING"),
                        Arg::string("migrating").display("node-id").token("MIGRATING"),
                        Arg::string("node").display("node-id").token("NODE"),
                        Arg::flag("stable", "STABLE"),
                    ],
                ),
            ],
            ..DOC
        },
        ..OPERATOR
    },
    Command {
        name: "shards",
        arity: Arity::Exactly(2),
        tips: TOPOLOGY,
        runs: Runs::OnSession(topology::shards),
        doc: &Doc {
            since: "7.0.0",
            complexity: "O(N) for N nodes",
            summary: "Describes the shards of the cluster, their slots and their nodes.",
            ..DOC
        },
        ..ANYBODY
    },
    Command {
        name: "slaves",
        arity: Arity::Exactly(3),
        tips: TOPOLOGY,
        runs: Runs::OnSession(topology::replicas),
        doc: &Doc {
            complexity: "O(N) for N replicas",
            summary: "Describes the replicas of a node.",
            deprecated: Some(Deprecated {
                since: "5.0.0",
                replaced_by: "`CLUSTER REPLICAS`",
            }),
            args: NODE,
            ..DOC
        },
        ..READER
    },
    Command {
        name: "slots",
        arity: Arity::Exactly(2),
        tips: TOPOLOGY,
        runs: Runs::OnSession(topology::slots),
        doc: &Doc {
            complexity: "O(N) for N ranges of slots",
            summary: "Tells which nodes serve which slots.",
            deprecated: Some(Deprecated {
                since: "7.0.0",
                replaced_by: "`CLUSTER SHARDS`",
            }),
            history: &[
                ("4.0.0", "The ids of nodes."),
                ("7.0.0", "More about how to reach nodes."),
            ],
            ..DOC
        },
        ..ANYBODY
    },
];

#[cfg(test)]
mod tests {
    use crate::commands::testing::Shell;

    #[test]
    fn there_is_no_cluster() {
        let disabled = "-ERR This instance has cluster support disabled";
        Shell::new().check(&[
            ("CLUSTER INFO", disabled),
            ("CLUSTER HELP", disabled),
            ("cluster addslots 1 2", disabled),
            ("CLUSTER KEYSLOT x", disabled),
            ("READONLY", disabled),
            ("READWRITE", disabled),
            ("ASKING", disabled),
            (
                "CLUSTER KEYSLOT",
                "-ERR wrong number of arguments for 'cluster|keyslot' command",
            ),
        ]);
    }
}
