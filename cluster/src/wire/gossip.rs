//! The entry of a ping about one other node.
//!
//! ```text
//! 0 name   40 ping sent, s   44 pong received, s   48 ip   94 port   96 bus port   98 flags   100 other port   102 (2 unused)
//! ```

use super::PacketError;
use super::header::{field, ip_field, ip_text};
use crate::node::{Flags, Host, NodeId};

/// Length of an entry.
pub(super) const ENTRY_BYTES: usize = 104;

/// One node, as the sender of a ping sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gossip {
    /// Its name.
    pub id: NodeId,
    /// Unix time in seconds at which the ping was sent that it has not answered; 0 if none is pending.
    pub ping_sent_s: u32,
    /// Unix time in seconds of its last pong.
    pub pong_received_s: u32,
    /// Its address.
    pub ip: Host,
    /// Port for clients, of the kind that the bus uses.
    pub port: u16,
    /// Port of the bus.
    pub bus_port: u16,
    /// Its flags.
    pub flags: Flags,
    /// Port for clients of the other kind.
    pub other_port: u16,
}

impl Gossip {
    pub(super) fn decode(bytes: &[u8; ENTRY_BYTES]) -> Result<Gossip, PacketError> {
        let flags = u16::from_be_bytes(field(bytes, 98));
        Ok(Gossip {
            id: NodeId::from_text(&field(bytes, 0)).ok_or(PacketError::Name)?,
            ping_sent_s: u32::from_be_bytes(field(bytes, 40)),
            pong_received_s: u32::from_be_bytes(field(bytes, 44)),
            ip: ip_text(&field(bytes, 48))?,
            port: u16::from_be_bytes(field(bytes, 94)),
            bus_port: u16::from_be_bytes(field(bytes, 96)),
            flags: Flags::from_bits_truncate(flags),
            other_port: u16::from_be_bytes(field(bytes, 100)),
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.id.to_text());
        out.extend(self.ping_sent_s.to_be_bytes());
        out.extend(self.pong_received_s.to_be_bytes());
        out.extend(ip_field(&self.ip));
        for number in [self.port, self.bus_port, self.flags.bits(), self.other_port, 0] {
            out.extend(number.to_be_bytes());
        }
    }
}
