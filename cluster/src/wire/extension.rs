//! Extensions of a ping: what its sender says about itself beyond the header, and which nodes it has forgotten.
//!
//! Each one is its length with this header (u32), its type (u16), two unused bytes, and data padded to eight bytes.
//! Types of other dialects are skipped. Redis 7.0 knows only the host name and warns in its log about others, so the
//! machine adds them only for nodes that have shown that they know them.

use super::PacketError;
use super::header::{field, nul_terminated};
use crate::node::{LABEL_BYTES_MAX, NAME_BYTES, NodeId, ShardId, is_hostname, is_human_name};

/// Longest extensions of one packet that are read. Those of all known types take less than a tenth of it.
pub(super) const BYTES_MAX: usize = 16 * 1024;

/// Most forgotten nodes in one packet.
pub const FORGOTTEN_MAX: usize = 64;

const HEADER_BYTES: usize = 8;
const FORGOTTEN_BYTES: usize = HEADER_BYTES + NAME_BYTES + 8;

/// Numbers of the extension types.
mod kind {
    pub(super) const HOSTNAME: u16 = 0;
    pub(super) const HUMAN_NAME: u16 = 1;
    pub(super) const FORGOTTEN: u16 = 2;
    pub(super) const SHARD: u16 = 3;
}

const _: () = assert!(
    FORGOTTEN_MAX * FORGOTTEN_BYTES + 2 * (HEADER_BYTES + LABEL_BYTES_MAX + 8) + 48 < BYTES_MAX,
    "a node must accept what it sends"
);

/// A node that the sender has been told to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// The node.
    pub id: NodeId,
    /// Seconds for which it is not to be taken in again.
    pub ttl_s: u64,
}

/// The extensions of one ping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// The sender's host name.
    pub hostname: Option<Box<str>>,
    /// The sender's name for people.
    pub human_name: Option<Box<str>>,
    /// Nodes to forget.
    pub forgotten: Vec<Forgotten>,
    /// The sender's shard.
    pub shard: Option<ShardId>,
}

impl Extensions {
    /// Reads so many extensions, which take all of `bytes`.
    pub(super) fn decode(count: u16, mut bytes: &[u8]) -> Result<Extensions, PacketError> {
        let mut extensions = Extensions::default();
        for _ in 0..count {
            let (head, _) = bytes
                .split_first_chunk::<HEADER_BYTES>()
                .ok_or(PacketError::Extension)?;
            let len = u32::from_be_bytes(field(head, 0)) as usize;
            if len < HEADER_BYTES || !len.is_multiple_of(8) {
                return Err(PacketError::Extension);
            }
            let (whole, rest) = bytes.split_at_checked(len).ok_or(PacketError::Extension)?;
            extensions.read(u16::from_be_bytes(field(head, 4)), &whole[HEADER_BYTES..])?;
            bytes = rest;
        }
        if bytes.is_empty() {
            Ok(extensions)
        } else {
            Err(PacketError::Length)
        }
    }

    fn read(&mut self, number: u16, data: &[u8]) -> Result<(), PacketError> {
        match number {
            kind::HOSTNAME => self.hostname = Some(label(data, is_hostname)?),
            kind::HUMAN_NAME => self.human_name = Some(label(data, is_human_name)?),
            kind::FORGOTTEN => {
                let data: &[u8; NAME_BYTES + 8] = data.try_into().map_err(|_| PacketError::Extension)?;
                if self.forgotten.len() == FORGOTTEN_MAX {
                    return Err(PacketError::Extension);
                }
                self.forgotten.push(Forgotten {
                    id: NodeId::from_text(&field(data, 0)).ok_or(PacketError::Name)?,
                    ttl_s: u64::from_be_bytes(field(data, NAME_BYTES)),
                });
            }
            kind::SHARD => {
                let name = data.try_into().map_err(|_| PacketError::Extension)?;
                self.shard = Some(NodeId::from_text(name).ok_or(PacketError::Name)?);
            }
            _ => {}
        }
        Ok(())
    }

    fn labels(&self) -> impl Iterator<Item = (u16, &str)> {
        let hostname = self.hostname.as_deref().map(|text| (kind::HOSTNAME, text));
        let human_name = self.human_name.as_deref().map(|text| (kind::HUMAN_NAME, text));
        hostname.into_iter().chain(human_name)
    }

    /// Number of extensions.
    pub(super) fn count(&self) -> u16 {
        let count = self.labels().count() + self.forgotten.len() + usize::from(self.shard.is_some());
        count as u16
    }

    /// Their length.
    pub(super) fn len(&self) -> usize {
        let labels: usize = self.labels().map(|(_, text)| HEADER_BYTES + padded(text)).sum();
        let shard = self.shard.map_or(0, |_| HEADER_BYTES + NAME_BYTES);
        labels + self.forgotten.len() * FORGOTTEN_BYTES + shard
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for (number, text) in self.labels() {
            begin(number, padded(text), out);
            let end = out.len() + padded(text);
            out.extend(text.bytes());
            out.resize(end, 0);
        }
        for forgotten in &self.forgotten {
            begin(kind::FORGOTTEN, NAME_BYTES + 8, out);
            out.extend(forgotten.id.to_text());
            out.extend(forgotten.ttl_s.to_be_bytes());
        }
        if let Some(shard) = self.shard {
            begin(kind::SHARD, NAME_BYTES, out);
            out.extend(shard.to_text());
        }
    }
}

fn begin(number: u16, data_len: usize, out: &mut Vec<u8>) {
    out.extend(((HEADER_BYTES + data_len) as u32).to_be_bytes());
    out.extend(number.to_be_bytes());
    out.extend([0, 0]);
}

/// Length of a text with at least one NUL behind it.
fn padded(text: &str) -> usize {
    (text.len() + 1).next_multiple_of(8)
}

fn label(data: &[u8], is_valid: fn(&str) -> bool) -> Result<Box<str>, PacketError> {
    nul_terminated(data)
        .filter(|text| is_valid(text))
        .map(Box::from)
        .ok_or(PacketError::Extension)
}
