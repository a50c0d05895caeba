//! Commands about replication: what this node is in it, and those by which a client becomes a replica.

use crate::config::{AuditEvents, Primary};
use crate::error::ReplyError;
use crate::exec::arguments::{int, int_within, is};
use crate::exec::client::BufferSizes;
use crate::exec::{CommandResult, Session};
use crate::replication::{
    Asked, FailoverStage, Introduction, LinkStage, Stage, SyncRequest, parse_filter, reads_valkey_form,
};
use crate::saving::Selection;
use crate::spec::argument::Deprecated;
use crate::spec::{Arg, Arity, Audited, Category, Command, Doc, Flags, Group, Runs};

/// Longest address that a replica can announce, bytes.
const ADDRESS_BYTES_MAX: usize = 255;

/// Words of REPLICAOF and its old name.
const PRIMARY: &[Arg] = &[Arg::one_of(
    "args",
    &[
        Arg::block("host-port", &[Arg::string("host"), Arg::integer("port")]),
        Arg::block("no-one", &[Arg::flag("no", "NO"), Arg::flag("one", "ONE")]),
    ],
)];

/// Words of FAILOVER.
const FAILOVER: &[Arg] = &[
    Arg::block(
        "target",
        &[
            Arg::string("host"),
            Arg::integer("port"),
            Arg::flag("force", "FORCE").optional(),
        ],
    )
    .token("TO")
    .optional(),
    Arg::flag("abort", "ABORT").optional(),
    Arg::integer("milliseconds").token("TIMEOUT").optional(),
];

/// Flags of REPLICAOF and its old name.
const CHANGES_ROLE: Flags = Flags::ADMIN
    .union(Flags::NOSCRIPT)
    .union(Flags::STALE)
    .union(Flags::NO_ASYNC_LOADING);

/// PSYNC changes the role of this node only if it asks for that.
const TAKES_OVER: Audited = Audited {
    events: |args| match args.get(3) {
        Some(word) if is(word, "FAILOVER") => AuditEvents::TOPOLOGY,
        _ => AuditEvents::empty(),
    },
    ..Audited::TOPOLOGY
};

pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "replicaof",
        arity: Arity::Exactly(3),
        flags: CHANGES_ROLE,
        acl: Category::ADMIN.union(Category::DANGEROUS),
        runs: Runs::OnSession(replicaof),
        audited: Some(&Audited::TOPOLOGY),
        doc: &Doc {
            since: "5.0.0",
            group: Group::Server,
            complexity: "O(1)",
            summary: "Makes the node the replica of another one, or a primary.",
            args: PRIMARY,
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "slaveof",
        arity: Arity::Exactly(3),
        flags: CHANGES_ROLE,
        acl: Category::ADMIN.union(Category::DANGEROUS),
        runs: Runs::OnSession(replicaof),
        audited: Some(&Audited::TOPOLOGY),
        doc: &Doc {
            since: "1.0.0",
            group: Group::Server,
            complexity: "O(1)",
            summary: "The old name of REPLICAOF.",
            deprecated: Some(Deprecated {
                since: "5.0.0",
                replaced_by: "`REPLICAOF`",
            }),
            args: PRIMARY,
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "failover",
        arity: Arity::AtLeast(1),
        flags: Flags::ADMIN.union(Flags::NOSCRIPT).union(Flags::STALE),
        acl: Category::ADMIN.union(Category::DANGEROUS),
        runs: Runs::OnSession(failover),
        audited: Some(&Audited::TOPOLOGY),
        doc: &Doc {
            since: "6.2.0",
            group: Group::Server,
            complexity: "O(1)",
            summary: "Has a replica that has everything become the primary of this node.",
            args: FAILOVER,
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "role",
        arity: Arity::Exactly(1),
        flags: Flags::NOSCRIPT
            .union(Flags::LOADING)
            .union(Flags::STALE)
            .union(Flags::FAST),
        acl: Category::ADMIN.union(Category::DANGEROUS),
        runs: Runs::OnSession(role),
        doc: &Doc {
            since: "2.8.12",
            group: Group::Server,
            complexity: "O(1)",
            summary: "Tells what this node is in replication, and who is connected to it in that capacity.",
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "replconf",
        arity: Arity::AtLeast(1),
        flags: Flags::ADMIN
            .union(Flags::NOSCRIPT)
            .union(Flags::LOADING)
            .union(Flags::STALE)
            .union(Flags::ALLOW_BUSY),
        runs: Runs::OnSession(replconf),
        doc: &Doc {
            since: "3.0.0",
            group: Group::Server,
            complexity: "O(1)",
            summary: "Introduces a replica to its primary, and acknowledges what it has.",
            system: true,
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "psync",
        arity: Arity::AtLeast(3),
        flags: SYNC_FLAGS,
        runs: Runs::OnSession(psync),
        audited: Some(&TAKES_OVER),
        doc: &Doc {
            since: "2.8.0",
            group: Group::Server,
            summary: "Makes the client a replica, which gets what it lacks, or all data, and then every change.",
            args: &[Arg::string("replicationid"), Arg::integer("offset")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "sync",
        arity: Arity::Exactly(1),
        flags: SYNC_FLAGS,
        runs: Runs::OnSession(sync),
        doc: &Doc {
            since: "1.0.0",
            group: Group::Server,
            summary: "Makes the client a replica, which gets all data, and then every change.",
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
];

/// REPLICAOF host port | NO ONE
fn replicaof(session: &mut Session<'_>) -> CommandResult {
    let (host, port) = (session.args.at(1), session.args.at(2));
    let (node, following) = (session.node, &session.node.replication.following);
    if node.settings.load().cluster_enabled {
        return Err(ReplyError::Fixed("ERR REPLICAOF not allowed in cluster mode."));
    }
    if node.replication.failover.stage() != FailoverStage::None {
        return Err(ReplyError::Fixed("ERR REPLICAOF not allowed while failing over."));
    }
    if is(host, "NO") && is(port, "ONE") {
        if following.is_replica() {
            node.log.notice(format_args!(
                "MASTER MODE enabled (user request from '{}')",
                session
                    .client
                    .describe(&BufferSizes::default(), session.now_ms, 0)
            ));
            node.follow(None, false);
        }
        session.reply.ok();
        return Ok(());
    }
    let port = int(port).ok().and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or(ReplyError::Fixed("ERR Invalid master port"))?;
    let host = String::from_utf8_lossy(host).into_owned();
    let primary = Primary { host, port };
    if following.link().primary.as_ref() == Some(&primary) {
        node.log.notice(format_args!(
            "REPLICAOF would result into synchronization with the master we are already connected with. No operation performed."
        ));
        session.reply.simple("OK Already connected to specified master");
        return Ok(());
    }
    node.log.notice(format_args!(
        "REPLICAOF {}:{port} enabled (user request from '{}')",
        primary.host,
        session
            .client
            .describe(&BufferSizes::default(), session.now_ms, 0)
    ));
    node.follow(Some(primary), true);
    session.reply.ok();
    Ok(())
}

/// FAILOVER [TO host port [FORCE]] [ABORT] [TIMEOUT milliseconds]
fn failover(session: &mut Session<'_>) -> CommandResult {
    let node = session.node;
    if node.settings.load().cluster_enabled {
        return Err(ReplyError::Fixed(
            "ERR FAILOVER not allowed in cluster mode. Use CLUSTER FAILOVER command instead.",
        ));
    }
    if session.args.len() == 2 && is(session.args.at(1), "ABORT") {
        if !node.abort_failover("Failover manually aborted") {
            return Err(ReplyError::Fixed("ERR No failover in progress."));
        }
    } else {
        node.begin_failover(asked(session)?)?;
    }
    session.reply.ok();
    Ok(())
}

/// The handover that the words of FAILOVER ask for.
fn asked(session: &Session<'_>) -> Result<Asked, ReplyError> {
    let (mut target, mut timeout_us, mut insists) = (None, None, false);
    let mut words = session.args.tail(1).iter();
    while let Some(word) = words.next() {
        let left = words.len();
        if is(word, "TIMEOUT") && left >= 1 && timeout_us.is_none() {
            let ms = int(words.next().unwrap_or_default())?;
            if ms <= 0 {
                return Err(ReplyError::Fixed("ERR FAILOVER timeout must be greater than 0"));
            }
            timeout_us = Some(ms.saturating_mul(1000).min(TIMEOUT_US_MAX));
        } else if is(word, "TO") && left >= 2 && target.is_none() {
            let host = String::from_utf8_lossy(words.next().unwrap_or_default()).into_owned();
            target = Some((host, int(words.next().unwrap_or_default())?));
        } else if is(word, "FORCE") && !insists {
            insists = true;
        } else {
            return Err(ReplyError::Syntax);
        }
    }
    Ok(Asked {
        target,
        timeout_us,
        insists,
        fence: 0,
        until_us: None,
        was_told: false,
    })
}

/// The longest timeout of FAILOVER that is told apart from none, microseconds: a thousand years.
const TIMEOUT_US_MAX: i64 = 1000 * 366 * 86_400 * 1_000_000;

const SYNC_FLAGS: Flags = Flags::ADMIN
    .union(Flags::NOSCRIPT)
    .union(Flags::NO_ASYNC_LOADING)
    .union(Flags::NO_MULTI)
    .union(Flags::ORDERED);

/// Replies with the role: of a primary with the replication offset and the replicas that follow its stream, of a replica with its
/// primary and the state of the link.
fn role(session: &mut Session<'_>) -> CommandResult {
    let link = session.node.replication.following.link();
    if let Some(Primary { host, port }) = &link.primary {
        let offset = session.node.journal.end().offset().cast_signed();
        session.reply.array(5);
        session.reply.bulk(b"slave");
        session.reply.bulk(host.as_bytes());
        session.reply.integer(i64::from(*port));
        session.reply.bulk(link.stage.name().as_bytes());
        let is_known = link.stage == LinkStage::Connected;
        session.reply.integer(if is_known { offset } else { -1 });
        return Ok(());
    }
    let mut replicas = session.node.replication.replicas.all();
    replicas.retain(|replica| replica.stage() == Stage::Follows);
    session.reply.array(3);
    session.reply.bulk(b"master");
    session
        .reply
        .integer(session.node.journal.end().offset().cast_signed());
    session.reply.array(replicas.len());
    for replica in replicas {
        session.reply.array(3);
        session.reply.bulk(replica.address.as_bytes());
        session.reply.bulk(replica.port.to_string().as_bytes());
        session.reply.bulk(replica.acknowledged().to_string().as_bytes());
    }
    Ok(())
}

/// REPLCONF [option value [option value ...]]
fn replconf(session: &mut Session<'_>) -> CommandResult {
    let options = session.args.tail(1);
    if !options.len().is_multiple_of(2) {
        return Err(ReplyError::Syntax);
    }
    let mut said = session
        .client
        .introduction
        .take()
        .map_or_else(Introduction::default, |said| *said);
    let mut words = options.iter();
    let mut outcome = Ok(());
    while let (Ok(()), Some(option), Some(value)) = (&outcome, words.next(), words.next()) {
        if is(option, "ACK") || is(option, "GETACK") {
            // They are for the link between a primary and its replica, and have no reply.
            session.client.introduction = Some(Box::new(said));
            return Ok(());
        }
        outcome = introduce(&mut said, option, value);
    }
    session.client.introduction = Some(Box::new(said));
    outcome.map(|()| session.reply.ok())
}

/// Notes one statement of a replica.
fn introduce(said: &mut Introduction, option: &[u8], value: &[u8]) -> Result<(), ReplyError> {
    match option {
        word if is(word, "listening-port") => {
            // Redis keeps any number, and shows it.
            said.port = int(value)?;
        }
        word if is(word, "ip-address") => {
            if value.len() > ADDRESS_BYTES_MAX {
                return Err(ReplyError::Text(format!(
                    "ERR REPLCONF ip-address provided by replica instance is too long: {} bytes",
                    value.len()
                )));
            }
            said.address = Some(String::from_utf8_lossy(value).into_owned());
        }
        word if is(word, "capa") => {
            said.knows_mark |= is(value, "eof");
            said.knows_ids |= is(value, "psync2");
        }
        word if is(word, "version") => {
            // Only Valkey tells one; Redis does not know the option.
            said.is_valkey = reads_valkey_form(value).ok_or_else(|| {
                let value = String::from_utf8_lossy(value);
                ReplyError::Text(format!("ERR Unrecognized version format: {value}"))
            })?;
        }
        word if is(word, "rdb-only") => said.is_snapshot_only = int_within(value, 0, 1)? == 1,
        word if is(word, "rdb-filter-only") => {
            said.selection = parse_filter(value).map_err(|word| {
                ReplyError::Text(format!(
                    "ERR Unsupported rdb-filter-only option: {}",
                    String::from_utf8_lossy(word)
                ))
            })?;
        }
        word => {
            return Err(ReplyError::Text(format!(
                "ERR Unrecognized REPLCONF option: {}",
                String::from_utf8_lossy(word)
            )));
        }
    }
    Ok(())
}

/// PSYNC replicationid offset
fn psync(session: &mut Session<'_>) -> CommandResult {
    if session.client.monitor {
        return Ok(());
    }
    let id = String::from_utf8_lossy(session.args.at(1)).into_owned();
    let takes_over = session.args.get(3).is_some_and(|word| is(word, "FAILOVER"));
    if takes_over {
        check_take_over(session, &id)?;
    }
    let next = int(session.args.at(2))?;
    if takes_over {
        take_over(session);
    }
    ask(session, SyncRequest::Partial { id, next })
}

/// Checks that a replica may become the primary of its own one, which asks for that.
fn check_take_over(session: &Session<'_>, id: &str) -> Result<(), ReplyError> {
    let node = session.node;
    node.log
        .notice(format_args!("Failover request received for replid {id}."));
    if !node.replication.following.is_replica() {
        return Err(ReplyError::Fixed("ERR PSYNC FAILOVER can't be sent to a master."));
    }
    if !node.replication.history.lock().id().eq_ignore_ascii_case(id) {
        return Err(ReplyError::Fixed(
            "ERR PSYNC FAILOVER replid must match my replid.",
        ));
    }
    Ok(())
}

/// Makes the node a primary.
fn take_over(session: &Session<'_>) {
    session.node.follow(None, false);
    session.node.log.notice(format_args!(
        "MASTER MODE enabled (failover request from '{}')",
        session
            .client
            .describe(&BufferSizes::default(), session.now_ms, 0)
    ));
}

/// SYNC
fn sync(session: &mut Session<'_>) -> CommandResult {
    if session.client.monitor {
        return Ok(());
    }
    ask(session, SyncRequest::Full)
}

/// Has the client become a replica. There is no reply: what it gets is sent by its link.
fn ask(session: &mut Session<'_>, request: SyncRequest) -> CommandResult {
    let said = session.client.introduction.as_deref();
    if said.is_some_and(|said| said.selection != Selection::ALL && !said.knows_mark) {
        return Err(ReplyError::Fixed("ERR Filtered replica requires EOF capability"));
    }
    if session.node.replication.failover.stage() != FailoverStage::None {
        return Err(ReplyError::Fixed("NOMASTERLINK Can't SYNC while failing over"));
    }
    let link = session.node.replication.following.link();
    if link.primary.is_some() && link.stage != LinkStage::Connected {
        return Err(ReplyError::Fixed(
            "NOMASTERLINK Can't SYNC while not connected with my master",
        ));
    }
    session.client.sync_request = Some(request);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::testing::Shell;
    use crate::replication::{Introduction, SyncRequest};
    use crate::saving::Selection;

    #[test]
    fn a_lone_primary() {
        Shell::new().check(&[("ROLE", "[\"master\", :0, []]")]);
    }

    #[test]
    fn a_replica_introduces_itself() {
        let mut shell = Shell::new();
        shell.check(&[
            ("REPLCONF", "+OK"),
            ("REPLCONF listening-port", "-ERR syntax error"),
            (
                "REPLCONF listening-port x",
                "-ERR value is not an integer or out of range",
            ),
            ("REPLCONF foo 1", "-ERR Unrecognized REPLCONF option: foo"),
            (
                "REPLCONF rdb-filter-only keys",
                "-ERR Unsupported rdb-filter-only option: keys",
            ),
            ("REPLCONF listening-port 7001 ip-address host.example", "+OK"),
            ("REPLCONF capa eof capa psync2 capa unheard-of", "+OK"),
            ("REPLCONF ACK 5", ""),
            ("REPLCONF GETACK *", ""),
            ("REPLCONF rdb-only 1", "+OK"),
            ("REPLCONF rdb-filter-only functions", "+OK"),
        ]);
        let said = shell.client.introduction.as_deref().unwrap();
        assert_eq!(
            *said,
            Introduction {
                port: 7001,
                address: Some("host.example".to_owned()),
                knows_mark: true,
                knows_ids: true,
                is_snapshot_only: true,
                selection: Selection {
                    keys: false,
                    functions: true
                },
                is_valkey: false,
            }
        );
        shell.check(&[("REPLCONF version 9.1.2", "+OK")]);
        assert!(shell.client.introduction.as_deref().unwrap().is_valkey);
    }

    #[test]
    fn a_client_asks_for_data() {
        let mut shell = Shell::new();
        shell.check(&[
            ("PSYNC ? x", "-ERR value is not an integer or out of range"),
            ("PSYNC ? -1", ""),
        ]);
        let request = shell.client.sync_request.take();
        let id = "?".to_owned();
        assert_eq!(request, Some(SyncRequest::Partial { id, next: -1 }));
        shell.check(&[
            ("REPLCONF rdb-filter-only \"\"", "+OK"),
            ("SYNC", "-ERR Filtered replica requires EOF capability"),
            ("REPLCONF capa eof", "+OK"),
            ("SYNC", ""),
        ]);
        assert_eq!(shell.client.sync_request, Some(SyncRequest::Full));
    }

    #[test]
    fn a_monitor_gets_no_reply() {
        let mut shell = Shell::new();
        shell.check(&[("MONITOR", "+OK"), ("SYNC", ""), ("PSYNC ? -1", "")]);
        assert_eq!(shell.client.sync_request, None);
    }
}
