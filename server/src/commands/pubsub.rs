//! Publish and subscribe: SUBSCRIBE and its kin, PUBLISH, PUBSUB. The [`Hub`](crate::pubsub::Hub) decides who gets a
//! message.

use shardis_protocol::Encoder;

use crate::error::ReplyError;
use crate::exec::arguments::bad_subcommand;
use crate::exec::{CommandResult, Session};
use crate::pubsub::Topic;
use crate::spec::{Arg, Arity, Channels, Command, Doc, Flags, Group, KeySpec, Runs};

/// Flags of commands that may run in any state of the dataset.
const ANY_TIME: Flags = Flags::PUBSUB
    .union(Flags::LOADING)
    .union(Flags::STALE)
    .union(Flags::ORDERED);

/// Common part of the rows that begin subscriptions.
const JOIN: Command = Command {
    arity: Arity::AtLeast(2),
    flags: ANY_TIME
        .union(Flags::NOSCRIPT)
        .union(Flags::WHILE_SUBSCRIBED)
        .union(Flags::PUSHES),
    ..Command::BLANK
};

/// Common part of the rows that end subscriptions.
const LEAVE: Command = Command {
    arity: Arity::AtLeast(1),
    flags: JOIN.flags.union(Flags::LEAVES),
    ..Command::BLANK
};

/// Common part of the rows that publish.
const PUBLISH: Command = Command {
    arity: Arity::Exactly(3),
    flags: ANY_TIME.union(Flags::FAST).union(Flags::MAY_REPLICATE),
    ..Command::BLANK
};

/// Common part of the rows that ask about subscriptions.
const ASK: Command = Command {
    arity: Arity::AtLeast(2),
    flags: ANY_TIME,
    ..Command::BLANK
};

const DOC: Doc = Doc {
    since: "2.0.0",
    group: Group::PubSub,
    ..Doc::BLANK
};

/// Key specification of shard channels, which are routed like keys.
const SHARD_CHANNELS: &[KeySpec] = &[KeySpec::from(1, 1).not_key()];

const MESSAGE: Arg = Arg::string("message");

pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "subscribe",
        channels: Channels::All,
        runs: Runs::OnSession(subscribe),
        doc: &Doc {
            complexity: "O(N) for N channels",
            summary: "Has this connection get the messages of channels.",
            args: &[Arg::string("channel").multiple()],
            ..DOC
        },
        ..JOIN
    },
    Command {
        name: "unsubscribe",
        runs: Runs::OnSession(unsubscribe),
        doc: &Doc {
            complexity: "O(N) for N subscribers of the channels",
            summary: "Ends that, for all channels if none is named.",
            args: &[Arg::string("channel").optional().multiple()],
            ..DOC
        },
        ..LEAVE
    },
    Command {
        name: "psubscribe",
        channels: Channels::Patterns,
        runs: Runs::OnSession(psubscribe),
        doc: &Doc {
            complexity: "O(N) for N patterns",
            summary: "Has this connection get the messages of all channels whose names match patterns.",
            args: &[Arg::pattern("pattern").multiple()],
            ..DOC
        },
        ..JOIN
    },
    Command {
        name: "punsubscribe",
        runs: Runs::OnSession(punsubscribe),
        doc: &Doc {
            complexity: "O(N) for N subscribers of the patterns",
            summary: "Ends that, for all patterns if none is named.",
            args: &[Arg::pattern("pattern").optional().multiple()],
            ..DOC
        },
        ..LEAVE
    },
    Command {
        name: "ssubscribe",
        channels: Channels::All,
        keys: SHARD_CHANNELS,
        runs: Runs::OnSession(ssubscribe),
        doc: &Doc {
            since: "7.0.0",
            complexity: "O(N) for N shard channels",
            summary: "Has this connection get the messages of shard channels.",
            args: &[Arg::string("shardchannel").multiple()],
            ..DOC
        },
        ..JOIN
    },
    Command {
        name: "sunsubscribe",
        keys: SHARD_CHANNELS,
        runs: Runs::OnSession(sunsubscribe),
        doc: &Doc {
            since: "7.0.0",
            complexity: "O(N) for N subscribers of the shard channels",
            summary: "Ends that, for all shard channels if none is named.",
            args: &[Arg::string("shardchannel").optional().multiple()],
            ..DOC
        },
        ..LEAVE
    },
    Command {
        name: "publish",
        channels: Channels::First,
        runs: Runs::OnSession(publish),
        doc: &Doc {
            complexity: "O(N+M) for N subscribers of the channel and M patterns that anybody is subscribed to",
            summary: "Sends a message to all who are subscribed to a channel.",
            args: &[Arg::string("channel"), MESSAGE],
            ..DOC
        },
        ..PUBLISH
    },
    Command {
        name: "spublish",
        channels: Channels::First,
        keys: &[KeySpec::at(1).not_key()],
        runs: Runs::OnSession(spublish),
        doc: &Doc {
            since: "7.0.0",
            complexity: "O(N) for N subscribers of the shard channel",
            summary: "Sends a message to all who are subscribed to a shard channel.",
            args: &[Arg::string("shardchannel"), MESSAGE],
            ..DOC
        },
        ..PUBLISH
    },
    PUBSUB,
];

const PUBSUB: Command = Command {
    name: "pubsub",
    arity: Arity::AtLeast(2),
    runs: Runs::Container,
    doc: &Doc {
        since: "2.8.0",
        complexity: "That of the subcommand",
        summary: "Groups commands that tell who is subscribed to what.",
        ..DOC
    },
    subcommands: &[
        Command {
            name: "channels",
            runs: Runs::OnSession(channels),
            doc: &Doc {
                since: "2.8.0",
                complexity: "O(N) for N channels with subscribers",
                summary: "Lists channels that have subscribers.",
                args: &[Arg::pattern("pattern").optional()],
                ..DOC
            },
            ..ASK
        },
        Command {
            name: "help",
            arity: Arity::Exactly(2),
            flags: Flags::LOADING.union(Flags::STALE),
            runs: Runs::OnSession(help),
            doc: &Doc {
                since: "6.2.0",
                complexity: "O(1)",
                summary: "Lists the subcommands.",
                ..DOC
            },
            ..ASK
        },
        Command {
            name: "numpat",
            arity: Arity::Exactly(2),
            runs: Runs::OnSession(numpat),
            doc: &Doc {
                since: "2.8.0",
                complexity: "O(1)",
                summary: "Counts the patterns that anybody is subscribed to.",
                ..DOC
            },
            ..ASK
        },
        Command {
            name: "numsub",
            runs: Runs::OnSession(numsub),
            doc: &Doc {
                since: "2.8.0",
                complexity: "O(N) for N channels named",
                summary: "Counts the subscribers of channels.",
                args: &[Arg::string("channel").optional().multiple()],
                ..DOC
            },
            ..ASK
        },
        Command {
            name: "shardchannels",
            runs: Runs::OnSession(shardchannels),
            doc: &Doc {
                since: "7.0.0",
                complexity: "O(N) for N shard channels with subscribers",
                summary: "Lists shard channels that have subscribers.",
                args: &[Arg::pattern("pattern").optional()],
                ..DOC
            },
            ..ASK
        },
        Command {
            name: "shardnumsub",
            runs: Runs::OnSession(shardnumsub),
            doc: &Doc {
                since: "7.0.0",
                complexity: "O(N) for N shard channels named",
                summary: "Counts the subscribers of shard channels.",
                args: &[Arg::string("shardchannel").optional().multiple()],
                ..DOC
            },
            ..ASK
        },
    ],
    ..Command::BLANK
};

fn subscribe(session: &mut Session<'_>) -> CommandResult {
    join(session, Topic::Channel, b"subscribe");
    Ok(())
}

fn psubscribe(session: &mut Session<'_>) -> CommandResult {
    join(session, Topic::Pattern, b"psubscribe");
    Ok(())
}

fn ssubscribe(session: &mut Session<'_>) -> CommandResult {
    // The two older commands are allowed within MULTI, because clients have always been able to send them there.
    if session.client.denies_blocking() {
        return Err(ReplyError::Fixed(
            "ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client",
        ));
    }
    join(session, Topic::ShardChannel, b"ssubscribe");
    Ok(())
}

fn unsubscribe(session: &mut Session<'_>) -> CommandResult {
    leave(session, Topic::Channel, b"unsubscribe");
    Ok(())
}

fn punsubscribe(session: &mut Session<'_>) -> CommandResult {
    leave(session, Topic::Pattern, b"punsubscribe");
    Ok(())
}

fn sunsubscribe(session: &mut Session<'_>) -> CommandResult {
    leave(session, Topic::ShardChannel, b"sunsubscribe");
    Ok(())
}

/// Subscribes to each name, and confirms each subscription.
fn join(session: &mut Session<'_>, topic: Topic, verb: &[u8]) {
    let Session {
        args,
        client,
        node,
        reply,
        ..
    } = session;
    let seat = client.seat;
    let subscriptions = client.subscriptions.get_or_insert_default();
    for name in args.tail(1).iter() {
        if !subscriptions.of(topic).contains(name) {
            let shared = node.pubsub.join(topic, name, seat);
            subscriptions.insert(topic, shared);
        }
        confirm(reply, verb, Some(name), subscriptions.counted_with(topic));
    }
}

/// Ends the subscription to each name, or all if no name is given. Confirms each, or that there was none.
fn leave(session: &mut Session<'_>, topic: Topic, verb: &[u8]) {
    let Session {
        args,
        client,
        node,
        reply,
        ..
    } = session;
    let seat = client.seat;
    let subscriptions = client.subscriptions.get_or_insert_default();
    if args.len() > 1 {
        for name in args.tail(1).iter() {
            if subscriptions.remove(topic, name) {
                node.pubsub.leave(topic, name, seat);
            }
            confirm(reply, verb, Some(name), subscriptions.counted_with(topic));
        }
    } else {
        let names = subscriptions.take(topic);
        let others = subscriptions.counted_with(topic);
        if names.is_empty() {
            confirm(reply, verb, None, others);
        }
        for (left, name) in (0..names.len()).rev().zip(names) {
            node.pubsub.leave(topic, &name, seat);
            confirm(reply, verb, Some(&name), others + left);
        }
    }
    if subscriptions.is_empty() {
        client.subscriptions = None;
    }
}

/// Confirms that a subscription began or ended; `count` is the number of subscriptions now.
fn confirm(reply: &mut Encoder<'_>, verb: &[u8], name: Option<&[u8]>, count: usize) {
    reply.push(3);
    reply.bulk(verb);
    match name {
        Some(name) => reply.bulk(name),
        None => reply.null(),
    }
    reply.integer(count as i64);
}

fn publish(session: &mut Session<'_>) -> CommandResult {
    let (channel, message) = (session.args.at(1), session.args.at(2));
    let receivers = session.node.pubsub.publish(channel, message);
    published(session, false, receivers);
    Ok(())
}

fn spublish(session: &mut Session<'_>) -> CommandResult {
    let (channel, message) = (session.args.at(1), session.args.at(2));
    let receivers = session.node.pubsub.publish_on_shard(channel, message);
    published(session, true, receivers);
    Ok(())
}

/// Has the message reach the subscribers of other nodes, whether or not it had receivers here: over the bus of the cluster, else as an
/// effect that replicas repeat.
fn published(session: &mut Session<'_>, is_sharded: bool, receivers: usize) {
    match &session.node.cluster {
        Some(cluster) => {
            let (channel, message) = (session.args.at(1), session.args.at(2));
            if let Some(number) = cluster.publish_message(is_sharded, channel, message) {
                session.client.awaits_bus = Some(number);
            }
        }
        None => session.repeat_on_replicas(),
    }
    session.reply.integer(receivers as i64);
}

fn channels(session: &mut Session<'_>) -> CommandResult {
    list(session, Topic::Channel)
}

fn shardchannels(session: &mut Session<'_>) -> CommandResult {
    list(session, Topic::ShardChannel)
}

fn list(session: &mut Session<'_>, topic: Topic) -> CommandResult {
    if session.args.len() > 3 {
        return Err(bad_subcommand(session.args));
    }
    let names = session.node.pubsub.names(topic, session.args.get(2));
    session.reply.array(names.len());
    names.iter().for_each(|name| session.reply.bulk(name));
    Ok(())
}

fn numpat(session: &mut Session<'_>) -> CommandResult {
    let count = session.node.pubsub.count(Topic::Pattern);
    session.reply.integer(count as i64);
    Ok(())
}

fn numsub(session: &mut Session<'_>) -> CommandResult {
    count_subscribers(session, Topic::Channel);
    Ok(())
}

fn shardnumsub(session: &mut Session<'_>) -> CommandResult {
    count_subscribers(session, Topic::ShardChannel);
    Ok(())
}

fn count_subscribers(session: &mut Session<'_>, topic: Topic) {
    let names = session.args.tail(2);
    session.reply.array(2 * names.len());
    for name in names.iter() {
        session.reply.bulk(name);
        let count = session.node.pubsub.subscribers(topic, name);
        session.reply.integer(count as i64);
    }
}

fn help(session: &mut Session<'_>) -> CommandResult {
    session.help(&[
        "CHANNELS [<pattern>]",
        "    Channels that have subscribers, those that match the pattern if there is one.",
        "NUMPAT",
        "    How many patterns anybody is subscribed to.",
        "NUMSUB [<channel> ...]",
        "    How many subscribers each of the channels has by its name; those by a pattern are not counted.",
        "SHARDCHANNELS [<pattern>]",
        "    As CHANNELS, of shard channels.",
        "SHARDNUMSUB [<shardchannel> ...]",
        "    As NUMSUB, of shard channels.",
    ])
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use crate::commands::testing::Shell;
    use crate::pubsub::{Publication, Seat};

    /// A shell whose client can be addressed.
    fn seated() -> Shell {
        let mut shell = Shell::new();
        shell.client.seat = Seat::new(0, 7, shell.client.id);
        shell
    }

    /// Messages that wait for the loop, as text.
    fn mail(shell: &Shell) -> Vec<String> {
        let mut taken: VecDeque<Publication> = VecDeque::new();
        assert!(shell.node.pubsub.mailbox(0).take(&mut taken).is_empty());
        taken
            .iter()
            .map(|publication| {
                assert!(
                    publication
                        .subscribers
                        .iter()
                        .all(|subscriber| subscriber.connection == 7)
                );
                let text = String::from_utf8(publication.message.to_vec()).unwrap();
                text.split("\r\n")
                    .skip(2)
                    .step_by(2)
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect()
    }

    #[test]
    fn subscriptions_are_confirmed_and_counted() {
        let mut shell = seated().resp3();
        shell.check(&[
            ("UNSUBSCRIBE", ">[\"unsubscribe\", nil, :0]"),
            (
                "SUBSCRIBE a a b",
                ">[\"subscribe\", \"a\", :1] >[\"subscribe\", \"a\", :1] >[\"subscribe\", \"b\", :2]",
            ),
            ("PSUBSCRIBE a*", ">[\"psubscribe\", \"a*\", :3]"),
            ("SSUBSCRIBE a", ">[\"ssubscribe\", \"a\", :1]"),
            ("PUBSUB NUMSUB a c", "[\"a\", :1, \"c\", :0]"),
            ("PUBSUB NUMPAT", ":1"),
            ("PUBSUB SHARDCHANNELS", "[\"a\"]"),
            ("PUBSUB SHARDNUMSUB a", "[\"a\", :1]"),
            ("PUBSUB CHANNELS b*", "[\"b\"]"),
            (
                "PUBSUB CHANNELS a b",
                "-ERR unknown subcommand or wrong number of arguments for 'CHANNELS'. Try PUBSUB HELP.",
            ),
        ]);
        let info = shell.run("CLIENT INFO").reply;
        assert!(
            info.contains(" flags=P ") && info.contains(" sub=2 psub=1 ssub=1 "),
            "{info}"
        );
        shell.check(&[
            (
                "UNSUBSCRIBE b c",
                ">[\"unsubscribe\", \"b\", :2] >[\"unsubscribe\", \"c\", :2]",
            ),
            ("UNSUBSCRIBE", ">[\"unsubscribe\", \"a\", :1]"),
            ("PUNSUBSCRIBE", ">[\"punsubscribe\", \"a*\", :0]"),
            ("SUNSUBSCRIBE", ">[\"sunsubscribe\", \"a\", :0]"),
            ("PUBSUB CHANNELS", "[]"),
        ]);
        assert!(!shell.client.is_subscriber());
    }

    #[test]
    fn messages_are_addressed_once_for_each_subscription() {
        let mut shell = seated();
        shell.check(&[
            ("PUBLISH news x", ":0"),
            ("SUBSCRIBE news", "[\"subscribe\", \"news\", :1]"),
            ("PSUBSCRIBE n?ws", "[\"psubscribe\", \"n?ws\", :2]"),
            ("PSUBSCRIBE other*", "[\"psubscribe\", \"other*\", :3]"),
            ("SSUBSCRIBE news", "[\"ssubscribe\", \"news\", :1]"),
            ("PUBLISH news one", ":2"),
            ("PUBLISH nows two", ":1"),
            ("PUBLISH nope three", ":0"),
            ("SPUBLISH news four", ":1"),
            ("SPUBLISH nows five", ":0"),
        ]);
        assert_eq!(
            mail(&shell),
            [
                "message news one",
                "pmessage n?ws news one",
                "pmessage n?ws nows two",
                "smessage news four"
            ]
        );
        shell.check(&[
            ("RESET", "+RESET"),
            ("PUBLISH news x", ":0"),
            ("SPUBLISH news x", ":0"),
        ]);
        assert!(mail(&shell).is_empty());
    }

    #[test]
    fn a_resp2_subscriber_is_answered_in_kind() {
        let mut shell = seated();
        shell.check(&[
            ("PING", "+PONG"),
            ("SSUBSCRIBE a", "[\"ssubscribe\", \"a\", :1]"),
            ("PING", "[\"pong\", \"\"]"),
            ("PING x", "[\"pong\", \"x\"]"),
        ]);
        let mut shell = seated().resp3();
        shell.check(&[
            ("SUBSCRIBE a", ">[\"subscribe\", \"a\", :1]"),
            ("PING x", "\"x\""),
        ]);
    }

    #[test]
    fn a_transaction_may_not_subscribe_to_shard_channels() {
        let mut shell = seated();
        shell.client.transaction_us = Some(0);
        shell.check(&[
            (
                "SSUBSCRIBE a",
                "-ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client",
            ),
            ("SUBSCRIBE a", "[\"subscribe\", \"a\", :1]"),
        ]);
    }
}
