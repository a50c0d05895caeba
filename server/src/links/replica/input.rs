//! The words of a replica: acknowledgements, and empty lines while it loads. It gets no replies, which would break the stream.

use std::sync::atomic::Ordering;

use shardis_protocol::{Arguments, Limits, RequestParser, Requests, Wants};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::hub::Hub;
use super::{End, Link};
use crate::commands::registry;
use crate::exec::arguments::is;
use crate::limits::{PARSED_AT_ONCE, REPLICA_REQUEST_BYTES_MAX};
use crate::replication::Stage;

/// Bytes that are read at once.
const READ_BYTES: usize = 4096;

/// Listens until the connection ends.
pub(super) async fn listen(
    hub: &Hub,
    link: &Link,
    mut input: impl AsyncRead + Unpin,
    mut unparsed: Vec<u8>,
) -> End {
    let (mut parser, mut requests) = (RequestParser::new(), Requests::default());
    loop {
        if take_requests(hub, link, &mut parser, &mut requests, &mut unparsed).is_none()
            || unparsed.len() > REPLICA_REQUEST_BYTES_MAX
        {
            return End::Protocol;
        }
        let begin = unparsed.len();
        unparsed.resize(begin + READ_BYTES, 0);
        let read = input.read(&mut unparsed[begin..]).await;
        let count = match read {
            Ok(0) => return End::Lost(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) => return End::Lost(error),
        };
        unparsed.truncate(begin + count);
        link.client.bytes_in.fetch_add(count as u64, Ordering::Relaxed);
        link.replica.hear(hub.node.clock.now_us());
    }
}

/// Takes the complete requests out of the bytes. None if they are no requests.
fn take_requests(
    hub: &Hub,
    link: &Link,
    parser: &mut RequestParser,
    requests: &mut Requests,
    unparsed: &mut Vec<u8>,
) -> Option<()> {
    let limits = Limits {
        bulk_bytes_max: REPLICA_REQUEST_BYTES_MAX,
        ..Limits::default()
    };
    loop {
        requests.clear();
        let progress = parser
            .parse(unparsed, 0, &limits, requests, PARSED_AT_ONCE)
            .ok()?;
        for request in requests.iter() {
            obey(hub, link, request.arguments(unparsed, &[]));
        }
        unparsed.drain(..progress.consumed);
        if progress.wants != Wants::Room || unparsed.is_empty() {
            return Some(());
        }
    }
}

/// Acts on a request.
fn obey(hub: &Hub, link: &Link, args: Arguments<'_>) {
    let is_acknowledgement = args.len() >= 3 && is(args.at(0), "REPLCONF") && is(args.at(1), "ACK");
    let offset = is_acknowledgement.then(|| number(args.at(2))).flatten();
    let Some(offset) = offset else {
        let name = String::from_utf8_lossy(args.at(0));
        return hub.node.log.verbose(format_args!(
            "Replica {} has sent a command that is not for its link: {name}",
            link.replica.name()
        ));
    };
    let stored = (args.len() >= 5 && is(args.at(3), "FACK")).then(|| number(args.at(4)));
    link.replica.acknowledge(offset, stored.flatten());
    hub.node.replication.replicas.note_acknowledged(offset);
    {
        let mut client = link.client.lock();
        client.active_ms = hub.node.clock.now_us() / 1000;
        client.last_command = registry().find(b"replconf").map(|command| command.tag());
    }
    // What comes before the end of a snapshot tells nothing about that.
    if matches!(link.replica.stage(), Stage::Loads | Stage::Done) {
        link.acknowledged.notify_one();
    }
    hub.note_acknowledged();
}

fn number(word: &[u8]) -> Option<u64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}
