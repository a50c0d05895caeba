//! Packets of the cluster bus, as Redis 7 sends them.
//!
//! A packet is a [`Header`] of 2,256 bytes and a body that its type decides; integers are big-endian. Anyone who can
//! connect to the bus can write to it: [`frame_len`] decides from the first bytes whether the rest is read at all, and
//! [`Packet::decode`] accepts only what is consistent and cannot spoil the file of nodes. Nothing is allocated by a
//! number that a packet announces before it was compared with the bytes that are there.
//!
//! | module | part of a packet |
//! |---|---|
//! | [`header`] | what every packet says about its sender |
//! | [`gossip`] | what a ping says about other nodes |
//! | [`extension`] | what a ping may add about its sender |

pub mod extension;
pub mod gossip;
pub mod header;

use std::fmt;

pub use extension::Extensions;
pub use gossip::Gossip;
pub use header::{HEADER_BYTES, Header, ManualFlags};

use crate::node::{NAME_BYTES, NodeId};
use crate::slot::{SLOT_SET_BYTES, SlotSet};
use header::Prefix;

/// Bytes of a frame that [`frame_len`] needs.
pub const PREFIX_BYTES: usize = 16;

/// The greatest epoch that is believed. A greater one is an attack or a fault: counting on from it would overflow.
pub const EPOCH_MAX: u64 = i64::MAX as u64;

/// Length of a packet that tells of a failed node.
const FAIL_BYTES: usize = HEADER_BYTES + NAME_BYTES;

/// Length of the body of an update: an epoch, a name, a set of slots.
const UPDATE_BYTES: usize = 8 + NAME_BYTES + SLOT_SET_BYTES;

/// Length of the two lengths in front of a published message.
const PUBLISH_LENGTHS_BYTES: usize = 8;

/// Length of the fixed part of a module's message: a number, a length, a type.
const MODULE_FIXED_BYTES: usize = 8 + 4 + 1;

/// The three kinds of a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PingKind {
    /// Asks for a pong.
    Ping,
    /// Answers a ping, or tells news unasked.
    Pong,
    /// A ping that asks a stranger to take the sender in.
    Meet,
}

/// Numbers of the packet types.
mod kind {
    pub(super) const PING: u16 = 0;
    pub(super) const PONG: u16 = 1;
    pub(super) const MEET: u16 = 2;
    pub(super) const FAIL: u16 = 3;
    pub(super) const PUBLISH: u16 = 4;
    pub(super) const AUTH_REQUEST: u16 = 5;
    pub(super) const AUTH_ACK: u16 = 6;
    pub(super) const UPDATE: u16 = 7;
    pub(super) const MANUAL_START: u16 = 8;
    pub(super) const MODULE: u16 = 9;
    pub(super) const PUBLISH_SHARD: u16 = 10;
}

/// A packet of the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// About its sender.
    pub header: Header,
    /// Its message.
    pub body: Body,
}

/// The message of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The heartbeat.
    Ping {
        /// Its kind.
        kind: PingKind,
        /// About other nodes.
        gossip: Vec<Gossip>,
        /// More about the sender.
        extensions: Extensions,
    },
    /// A majority holds this node for failed.
    Fail(NodeId),
    /// A message to the subscribers of a channel.
    Publish {
        /// Whether the channel is sharded.
        is_sharded: bool,
        /// The channel.
        channel: Vec<u8>,
        /// The message.
        message: Vec<u8>,
    },
    /// A replica asks for votes.
    AuthRequest,
    /// A vote.
    AuthAck,
    /// The sender's claim is out of date: this node owns these slots in this epoch.
    Update {
        /// The owner.
        id: NodeId,
        /// Epoch of its claim.
        config_epoch: u64,
        /// Its slots.
        slots: Box<SlotSet>,
    },
    /// A replica asks its primary to pause for a manual failover.
    ManualStart,
    /// A message between modules, which shardis does not have.
    Module,
}

/// A stream that is no bus or a frame that is too long: the link is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The first bytes are not the bus's.
    BadSignature,
    /// Shorter than a header.
    TooShort(usize),
    /// Longer than its type can need, or than the bound.
    TooLong(usize),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::BadSignature => f.write_str("bad signature"),
            FrameError::TooShort(len) => write!(f, "a frame of {len} bytes is shorter than a header"),
            FrameError::TooLong(len) => write!(f, "a frame of {len} bytes is too long"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Reason for which a packet is dropped. The link stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketError {
    /// Another version of the protocol.
    Version(u16),
    /// A type that this version does not know.
    Type(u16),
    /// The length does not fit to the type or to the lengths inside.
    Length,
    /// A name that is no name.
    Name,
    /// An address that is no address.
    Address,
    /// A malformed extension.
    Extension,
    /// An epoch beyond [`EPOCH_MAX`].
    Epoch,
}

impl fmt::Display for PacketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PacketError::Version(version) => write!(f, "version {version} of the protocol"),
            PacketError::Type(number) => write!(f, "unknown type {number}"),
            PacketError::Length => f.write_str("inconsistent length"),
            PacketError::Name => f.write_str("malformed name"),
            PacketError::Address => f.write_str("malformed address"),
            PacketError::Extension => f.write_str("malformed extension"),
            PacketError::Epoch => f.write_str("impossible epoch"),
        }
    }
}

impl std::error::Error for PacketError {}

/// Length of the frame that begins with `prefix`, if it is one that is worth reading. `len_max` bounds published
/// messages and packets of unknown types, which are read to be skipped.
///
/// # Errors
/// If the link is to be closed.
pub fn frame_len(prefix: &[u8; PREFIX_BYTES], len_max: usize) -> Result<usize, FrameError> {
    let Some(prefix) = Prefix::read(prefix) else {
        return Err(FrameError::BadSignature);
    };
    let len = prefix.len as usize;
    let max = match prefix.kind {
        kind::PING | kind::PONG | kind::MEET => {
            HEADER_BYTES + usize::from(prefix.count) * gossip::ENTRY_BYTES + extension::BYTES_MAX
        }
        kind::FAIL => FAIL_BYTES,
        kind::AUTH_REQUEST | kind::AUTH_ACK | kind::MANUAL_START => HEADER_BYTES,
        kind::UPDATE => HEADER_BYTES + UPDATE_BYTES,
        _ => len_max,
    };
    match len {
        _ if len < HEADER_BYTES => Err(FrameError::TooShort(len)),
        _ if len > max => Err(FrameError::TooLong(len)),
        _ => Ok(len),
    }
}

impl Body {
    /// Number of the packet's type on the bus.
    fn number(&self) -> u16 {
        match self {
            Body::Ping { kind, .. } => ping_number(*kind),
            Body::Fail(_) => kind::FAIL,
            Body::Publish {
                is_sharded: false, ..
            } => kind::PUBLISH,
            Body::Publish { is_sharded: true, .. } => kind::PUBLISH_SHARD,
            Body::AuthRequest => kind::AUTH_REQUEST,
            Body::AuthAck => kind::AUTH_ACK,
            Body::Update { .. } => kind::UPDATE,
            Body::ManualStart => kind::MANUAL_START,
            Body::Module => kind::MODULE,
        }
    }

    /// The same as an index.
    pub(crate) fn index(&self) -> usize {
        usize::from(self.number())
    }
}

impl Packet {
    /// Reads one frame, whole.
    ///
    /// # Errors
    /// If the packet is to be dropped.
    pub fn decode(frame: &[u8]) -> Result<Packet, PacketError> {
        let (head, rest) = frame
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(PacketError::Length)?;
        let prefix = head
            .first_chunk()
            .and_then(Prefix::read)
            .ok_or(PacketError::Length)?;
        if prefix.version != header::VERSION {
            return Err(PacketError::Version(prefix.version));
        }
        if prefix.len as usize != frame.len() {
            return Err(PacketError::Length);
        }
        let body = decode_body(head, prefix, rest)?;
        let header = Header::decode(head)?;
        Ok(Packet { header, body })
    }

    /// Length of the packet on the bus.
    #[must_use]
    pub fn len(&self) -> usize {
        HEADER_BYTES
            + match &self.body {
                Body::Ping {
                    gossip, extensions, ..
                } => gossip.len() * gossip::ENTRY_BYTES + extensions.len(),
                Body::Fail(_) => NAME_BYTES,
                Body::Publish { channel, message, .. } => {
                    PUBLISH_LENGTHS_BYTES + channel.len() + message.len()
                }
                Body::Update { .. } => UPDATE_BYTES,
                Body::AuthRequest | Body::AuthAck | Body::ManualStart => 0,
                Body::Module => MODULE_FIXED_BYTES,
            }
    }

    /// Whether the packet has no bytes; it always has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Appends the packet to `out` as the bus carries it.
    ///
    /// # Panics
    /// If a published message is longer than 4 GiB or a ping tells of more than 65,535 nodes: the caller bounds both.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (count, extensions) = match &self.body {
            Body::Ping {
                gossip, extensions, ..
            } => {
                let count = u16::try_from(gossip.len()).expect("a view has fewer nodes");
                (count, extensions.count())
            }
            _ => (0, 0),
        };
        let prefix = Prefix {
            len: u32::try_from(self.len()).expect("messages are bounded"),
            version: header::VERSION,
            kind: self.body.number(),
            count,
        };
        self.header.encode(prefix, extensions, out);
        self.encode_body(out);
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        match &self.body {
            Body::Ping {
                gossip, extensions, ..
            } => {
                gossip.iter().for_each(|entry| entry.encode(out));
                extensions.encode(out);
            }
            Body::Fail(id) => out.extend(id.to_text()),
            Body::Publish { channel, message, .. } => {
                for part in [channel, message] {
                    let len = u32::try_from(part.len()).expect("messages are bounded");
                    out.extend(len.to_be_bytes());
                }
                out.extend_from_slice(channel);
                out.extend_from_slice(message);
            }
            Body::Update {
                id,
                config_epoch,
                slots,
            } => {
                out.extend(config_epoch.to_be_bytes());
                out.extend(id.to_text());
                out.extend(slots.to_bytes());
            }
            Body::AuthRequest | Body::AuthAck | Body::ManualStart => {}
            Body::Module => out.extend([0; MODULE_FIXED_BYTES]),
        }
    }
}

fn ping_number(ping: PingKind) -> u16 {
    match ping {
        PingKind::Ping => kind::PING,
        PingKind::Pong => kind::PONG,
        PingKind::Meet => kind::MEET,
    }
}

fn decode_body(head: &[u8; HEADER_BYTES], prefix: Prefix, rest: &[u8]) -> Result<Body, PacketError> {
    let empty = |body| {
        if rest.is_empty() {
            Ok(body)
        } else {
            Err(PacketError::Length)
        }
    };
    match prefix.kind {
        kind::PING => decode_ping(PingKind::Ping, head, prefix, rest),
        kind::PONG => decode_ping(PingKind::Pong, head, prefix, rest),
        kind::MEET => decode_ping(PingKind::Meet, head, prefix, rest),
        kind::FAIL => {
            let name = rest.try_into().map_err(|_| PacketError::Length)?;
            NodeId::from_text(name).map(Body::Fail).ok_or(PacketError::Name)
        }
        kind::PUBLISH => decode_publish(false, rest),
        kind::PUBLISH_SHARD => decode_publish(true, rest),
        kind::AUTH_REQUEST => empty(Body::AuthRequest),
        kind::AUTH_ACK => empty(Body::AuthAck),
        kind::UPDATE => decode_update(rest),
        kind::MANUAL_START => empty(Body::ManualStart),
        kind::MODULE => decode_module(rest),
        unknown => Err(PacketError::Type(unknown)),
    }
}

/// The entries must fit before they are read, and the extensions must be what is left.
fn decode_ping(
    kind: PingKind,
    head: &[u8; HEADER_BYTES],
    prefix: Prefix,
    rest: &[u8],
) -> Result<Body, PacketError> {
    let (entries, extensions) = rest
        .split_at_checked(usize::from(prefix.count) * gossip::ENTRY_BYTES)
        .ok_or(PacketError::Length)?;
    let (entries, _) = entries.as_chunks::<{ gossip::ENTRY_BYTES }>();
    Ok(Body::Ping {
        kind,
        gossip: entries.iter().map(Gossip::decode).collect::<Result<_, _>>()?,
        extensions: Extensions::decode(header::extensions(head), extensions)?,
    })
}

fn decode_publish(is_sharded: bool, rest: &[u8]) -> Result<Body, PacketError> {
    let (lengths, texts) = rest
        .split_first_chunk::<PUBLISH_LENGTHS_BYTES>()
        .ok_or(PacketError::Length)?;
    let [channel_len, message_len] = header::u32_pair(lengths);
    // Their sum can exceed 32 bits.
    if u64::from(channel_len) + u64::from(message_len) != texts.len() as u64 {
        return Err(PacketError::Length);
    }
    let (channel, message) = texts.split_at(channel_len as usize);
    Ok(Body::Publish {
        is_sharded,
        channel: channel.to_vec(),
        message: message.to_vec(),
    })
}

fn decode_update(rest: &[u8]) -> Result<Body, PacketError> {
    let (epoch, rest) = rest.split_first_chunk::<8>().ok_or(PacketError::Length)?;
    let (name, slots) = rest
        .split_first_chunk::<NAME_BYTES>()
        .ok_or(PacketError::Length)?;
    let slots = slots.try_into().map_err(|_| PacketError::Length)?;
    Ok(Body::Update {
        id: NodeId::from_text(name).ok_or(PacketError::Name)?,
        config_epoch: header::epoch(*epoch)?,
        slots: Box::new(SlotSet::from_bytes(slots)),
    })
}

/// The number of a module's message is in the sender's byte order and means nothing here; the length behind it counts.
fn decode_module(rest: &[u8]) -> Result<Body, PacketError> {
    let (fixed, data) = rest
        .split_first_chunk::<MODULE_FIXED_BYTES>()
        .ok_or(PacketError::Length)?;
    let [_, _, _, _, _, _, _, _, a, b, c, d, _] = *fixed;
    if u32::from_be_bytes([a, b, c, d]) as usize == data.len() {
        Ok(Body::Module)
    } else {
        Err(PacketError::Length)
    }
}

#[cfg(test)]
mod tests;
