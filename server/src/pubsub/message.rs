//! The form of messages and of the channels of keyspace events.

use std::io::Write;

use shardis_protocol::{Encoder, Resp};

/// A message as RESP2 sends it; RESP3 has `>` for the first byte.
pub(super) fn encode(words: &[&[u8]]) -> Vec<u8> {
    let bytes: usize = words.iter().map(|word| word.len() + WORD_FRAME_BYTES).sum();
    let mut message = Vec::with_capacity(bytes + ARRAY_FRAME_BYTES);
    let mut encoder = Encoder::new(&mut message, Resp::V2);
    encoder.push(words.len());
    words.iter().for_each(|word| encoder.bulk(word));
    message
}

/// `$` and the length with its line end, and the line end behind the bytes: what most words need at most.
const WORD_FRAME_BYTES: usize = 32;

/// `*3` and a line end.
const ARRAY_FRAME_BYTES: usize = 4;

/// `__keyspace@0__:key` or `__keyevent@0__:del`.
pub(super) fn event_channel(kind: &str, db: u16, name: &[u8]) -> Vec<u8> {
    let mut channel = Vec::with_capacity(name.len() + 24);
    // Writing to a Vec cannot fail.
    let _ = write!(channel, "__{kind}@{db}__:");
    channel.extend_from_slice(name);
    channel
}
