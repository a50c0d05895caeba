//! The header of a packet: what every packet says about its sender.
//!
//! ```text
//!    0 "RCmb"   4 length    8 version   10 port    12 type      14 count      16 current epoch   24 config epoch
//!   32 offset  40 sender   80 slots   2128 primary 2168 ip    2214 extensions 2216 (30 unused)
//! 2246 other port         2248 bus port           2250 flags  2252 state      2253 manual flags  2256 end
//! ```

use std::sync::Arc;

use super::{PREFIX_BYTES, PacketError};
use crate::node::{Flags, HOST_BYTES_MAX, Host, NAME_BYTES, NodeId, host};
use crate::slot::{SLOT_SET_BYTES, SlotSet};

/// Length of a header.
pub const HEADER_BYTES: usize = 2256;

/// Version of the protocol.
pub(super) const VERSION: u16 = 1;

const SIGNATURE: [u8; 4] = *b"RCmb";

/// Length of the field of an address: its text and at least one NUL.
pub(super) const IP_FIELD_BYTES: usize = HOST_BYTES_MAX + 1;

bitflags::bitflags! {
    /// First byte of the message flags.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct ManualFlags: u8 {
        /// The sender, a primary, has paused its clients for a manual failover.
        const PAUSED = 1;
        /// A vote is due although the primary works: it is a manual failover.
        const FORCE_ACK = 2;
        /// Extensions follow the gossip.
        const EXTENSIONS = 4;
    }
}

/// Fields about a packet as a whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefix {
    pub(super) len: u32,
    pub(super) version: u16,
    pub(super) kind: u16,
    /// Number of gossip entries.
    pub(super) count: u16,
}

impl Prefix {
    /// The first fields of a packet, if it has the signature.
    pub(super) fn read(bytes: &[u8; PREFIX_BYTES]) -> Option<Prefix> {
        (field(bytes, 0) == SIGNATURE).then(|| Prefix {
            len: u32::from_be_bytes(field(bytes, 4)),
            version: u16::from_be_bytes(field(bytes, 8)),
            kind: u16::from_be_bytes(field(bytes, 12)),
            count: u16::from_be_bytes(field(bytes, 14)),
        })
    }
}

/// The sender of a packet, by its own account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Port for clients, of the kind that the bus uses: with TLS if the bus does.
    pub port: u16,
    /// Port for clients of the other kind.
    pub other_port: u16,
    /// Port of the bus.
    pub bus_port: u16,
    /// Its current epoch.
    pub current_epoch: u64,
    /// Epoch of its claim to its slots; a replica tells its primary's.
    pub config_epoch: u64,
    /// Its replication offset.
    pub offset: u64,
    /// Its name.
    pub sender: NodeId,
    /// Its slots; a replica tells its primary's.
    pub slots: Arc<SlotSet>,
    /// The primary that it is a replica of.
    pub primary: Option<NodeId>,
    /// The address that it announces; empty for the one that it connects from.
    pub ip: Host,
    /// Its flags.
    pub flags: Flags,
    /// Whether it believes the cluster to work.
    pub is_ok: bool,
    /// Its part in a manual failover. Whether extensions follow is derived from the body.
    pub manual: ManualFlags,
}

impl Header {
    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, PacketError> {
        let flags = u16::from_be_bytes(field(bytes, 2250));
        let manual = ManualFlags::from_bits_truncate(bytes[2253]);
        Ok(Header {
            port: u16::from_be_bytes(field(bytes, 10)),
            other_port: u16::from_be_bytes(field(bytes, 2246)),
            bus_port: u16::from_be_bytes(field(bytes, 2248)),
            current_epoch: epoch(field(bytes, 16))?,
            config_epoch: epoch(field(bytes, 24))?,
            offset: u64::from_be_bytes(field(bytes, 32)),
            sender: NodeId::from_text(&field(bytes, 40)).ok_or(PacketError::Name)?,
            slots: Arc::new(SlotSet::from_bytes(&field::<SLOT_SET_BYTES>(bytes, 80))),
            primary: optional_name(&field(bytes, 2128))?,
            ip: ip_text(&field(bytes, 2168))?,
            // Bits of other dialects are not ours to judge.
            flags: Flags::from_bits_truncate(flags),
            is_ok: bytes[2252] == 0,
            manual: manual.difference(ManualFlags::EXTENSIONS),
        })
    }

    pub(super) fn encode(&self, prefix: Prefix, extensions: u16, out: &mut Vec<u8>) {
        let start = out.len();
        let extended = ManualFlags::from_bits_retain(if extensions == 0 { 0 } else { 4 });
        out.extend(SIGNATURE);
        out.extend(prefix.len.to_be_bytes());
        for number in [prefix.version, self.port, prefix.kind, prefix.count] {
            out.extend(number.to_be_bytes());
        }
        for number in [self.current_epoch, self.config_epoch, self.offset] {
            out.extend(number.to_be_bytes());
        }
        out.extend(self.sender.to_text());
        out.extend(self.slots.to_bytes());
        out.extend(self.primary.map_or([0; NAME_BYTES], NodeId::to_text));
        out.extend(ip_field(&self.ip));
        out.extend(extensions.to_be_bytes());
        out.extend([0; 30]);
        for number in [self.other_port, self.bus_port, self.flags.bits()] {
            out.extend(number.to_be_bytes());
        }
        out.push(u8::from(!self.is_ok));
        out.extend([(self.manual | extended).bits(), 0, 0]);
        debug_assert_eq!(out.len() - start, HEADER_BYTES);
    }
}

/// Number of extensions that a packet announces; the field counts only if the flag is there.
pub(super) fn extensions(bytes: &[u8; HEADER_BYTES]) -> u16 {
    if ManualFlags::from_bits_truncate(bytes[2253]).contains(ManualFlags::EXTENSIONS) {
        u16::from_be_bytes(field(bytes, 2214))
    } else {
        0
    }
}

/// The field of `N` bytes at a place that lies inside by the layout.
pub(super) fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

pub(super) fn epoch(bytes: [u8; 8]) -> Result<u64, PacketError> {
    let epoch = u64::from_be_bytes(bytes);
    if epoch <= super::EPOCH_MAX {
        Ok(epoch)
    } else {
        Err(PacketError::Epoch)
    }
}

/// Two numbers of 32 bits.
pub(super) fn u32_pair(bytes: &[u8; 8]) -> [u32; 2] {
    [
        u32::from_be_bytes(field(bytes, 0)),
        u32::from_be_bytes(field(bytes, 4)),
    ]
}

/// Zeros stand for no name.
fn optional_name(text: &[u8; NAME_BYTES]) -> Result<Option<NodeId>, PacketError> {
    if *text == [0; NAME_BYTES] {
        return Ok(None);
    }
    NodeId::from_text(text).map(Some).ok_or(PacketError::Name)
}

/// The text in front of the first NUL; there must be one.
pub(super) fn nul_terminated(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    std::str::from_utf8(&bytes[..end]).ok()
}

pub(super) fn ip_text(bytes: &[u8; IP_FIELD_BYTES]) -> Result<Host, PacketError> {
    nul_terminated(bytes).and_then(host).ok_or(PacketError::Address)
}

pub(super) fn ip_field(ip: &Host) -> [u8; IP_FIELD_BYTES] {
    let mut field = [0; IP_FIELD_BYTES];
    field[..ip.len()].copy_from_slice(ip.as_bytes());
    field
}
