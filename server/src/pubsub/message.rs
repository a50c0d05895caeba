//! Encoding of messages, and names of the channels of keyspace events.

use std::io::Write;

use shardis_protocol::{Encoder, Resp};

/// A message encoded for RESP2; in RESP3 the first byte is `>`.
pub(super) fn encode(words: &[&[u8]]) -> Vec<u8> {
    let bytes: usize = words.iter().map(|word| word.len() + WORD_FRAME_BYTES).sum();
    let mut message = Vec::with_capacity(bytes + ARRAY_FRAME_BYTES);
    let mut encoder = Encoder::new(&mut message, Resp::V2);
    encoder.push(words.len());
    words.iter().for_each(|word| encoder.bulk(word));
    message
}

/// Bytes of a word's frame: `$`, the length and two line ends. Enough for any usual length.
const WORD_FRAME_BYTES: usize = 32;

/// Bytes of an array header: `*3` and a line end.
const ARRAY_FRAME_BYTES: usize = 4;

/// Channel of a keyspace event: `__keyspace@0__:key` or `__keyevent@0__:del`.
pub(super) fn event_channel(kind: &str, db: u16, name: &[u8]) -> Vec<u8> {
    let mut channel = Vec::with_capacity(name.len() + 24);
    // Writing to a Vec cannot fail.
    let _ = write!(channel, "__{kind}@{db}__:");
    channel.extend_from_slice(name);
    channel
}
