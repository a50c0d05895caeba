//! A node as others see it: its name, addresses, role, epochs, and what is known of its health.
//!
//! Texts that come from peers or from the file are checked here, when they become values: a name is 40 hexadecimal
//! digits, a host or a label has only characters that cannot break a line of nodes.conf.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use arrayvec::ArrayString;

/// Length of a name in its text form.
pub const NAME_BYTES: usize = 40;

/// Longest address or host name in the field of an address.
pub const HOST_BYTES_MAX: usize = 45;

/// Longest label: an announced host name or a name for people.
pub const LABEL_BYTES_MAX: usize = 255;

/// Name of a node: 160 random bits, written as 40 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; NAME_BYTES / 2]);

impl NodeId {
    /// The name of these bits. The caller brings randomness.
    #[must_use]
    pub const fn new(bits: [u8; NAME_BYTES / 2]) -> Self {
        NodeId(bits)
    }

    /// The bits of the name.
    #[must_use]
    pub const fn bits(&self) -> &[u8; NAME_BYTES / 2] {
        &self.0
    }

    /// Reads the text form; `None` if it is anything but 40 lower-case hexadecimal digits.
    #[must_use]
    pub fn from_text(text: &[u8; NAME_BYTES]) -> Option<Self> {
        let mut bits = [0; NAME_BYTES / 2];
        let (pairs, _) = text.as_chunks::<2>();
        for (bits, [high, low]) in bits.iter_mut().zip(pairs) {
            *bits = hex_digit(*high)? << 4 | hex_digit(*low)?;
        }
        Some(NodeId(bits))
    }

    /// The text form.
    #[must_use]
    pub fn to_text(self) -> [u8; NAME_BYTES] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; NAME_BYTES];
        let (pairs, _) = text.as_chunks_mut::<2>();
        for (pair, bits) in pairs.iter_mut().zip(self.0) {
            *pair = [DIGITS[usize::from(bits >> 4)], DIGITS[usize::from(bits & 15)]];
        }
        text
    }
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl FromStr for NodeId {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let text = text.as_bytes().try_into().map_err(|_| NotAName)?;
        NodeId::from_text(text).ok_or(NotAName)
    }
}

/// The text is no name of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAName;

impl fmt::Display for NotAName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name is 40 lower-case hexadecimal digits")
    }
}

impl std::error::Error for NotAName {}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_text()
            .iter()
            .try_for_each(|&digit| fmt::Write::write_char(f, char::from(digit)))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Name of a shard: of a primary and its replicas. It has the form of a node's name.
pub type ShardId = NodeId;

/// An IP address, or a host name where one is announced in its place; empty when not known.
pub type Host = ArrayString<HOST_BYTES_MAX>;

/// Reads a host; `None` if it is too long or has a character that an address or a host name has not.
#[must_use]
pub fn host(text: &str) -> Option<Host> {
    let is_allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b':' | b'-' | b'_' | b'%');
    text.bytes().all(is_allowed).then(|| Host::from(text).ok())?
}

/// Whether `text` may be announced as a host name: letters, digits, hyphens and dots.
#[must_use]
pub fn is_hostname(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    text.len() <= LABEL_BYTES_MAX && text.bytes().all(is_allowed)
}

/// Whether `text` may be a node's name for people: graphic ASCII without the separators of nodes.conf.
#[must_use]
pub fn is_human_name(text: &str) -> bool {
    let is_allowed =
        |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b',' | b'=' | b'"' | b'\'' | b'\\');
    text.len() <= LABEL_BYTES_MAX && text.bytes().all(is_allowed)
}

/// Addresses of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// The host.
    pub ip: Host,
    /// Port for clients without TLS; 0 if there is none.
    pub tcp_port: u16,
    /// Port for clients with TLS; 0 if there is none.
    pub tls_port: u16,
    /// Port of the bus.
    pub bus_port: u16,
}

impl Address {
    /// Port for a client with or without TLS: the one of its kind, or the only one there is.
    #[must_use]
    pub fn client_port(&self, is_tls: bool) -> u16 {
        match (is_tls, self.tcp_port, self.tls_port) {
            (false, 0, port) | (true, port, 0) | (false, port, _) | (true, _, port) => port,
        }
    }
}

bitflags::bitflags! {
    /// Flags of a node, with the bits they have on the bus.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Flags: u16 {
        /// A primary.
        const PRIMARY = 1;
        /// A replica.
        const REPLICA = 2;
        /// Suspected by this node.
        const PFAIL = 4;
        /// Failed, as a majority agrees.
        const FAIL = 8;
        /// This node itself.
        const MYSELF = 16;
        /// Met but not yet named.
        const HANDSHAKE = 32;
        /// Its address is not known.
        const NOADDR = 64;
        /// The next packet to it is a MEET.
        const MEET = 128;
        /// A primary that had replicas, so one may migrate to it.
        const MIGRATE_TO = 256;
        /// A replica that never starts an election.
        const NOFAILOVER = 512;
    }
}

impl Flags {
    /// Flags that do not depend on the observer: what a node says about itself.
    pub const TOLD: Flags = Flags::PRIMARY
        .union(Flags::REPLICA)
        .union(Flags::MIGRATE_TO)
        .union(Flags::NOFAILOVER);

    /// Either sign of failure.
    pub const FAILING: Flags = Flags::PFAIL.union(Flags::FAIL);

    /// The words of `CLUSTER NODES`, in its order.
    const WORDS: [(Flags, &'static str); 8] = [
        (Flags::MYSELF, "myself"),
        (Flags::PRIMARY, "master"),
        (Flags::REPLICA, "slave"),
        (Flags::PFAIL, "fail?"),
        (Flags::FAIL, "fail"),
        (Flags::HANDSHAKE, "handshake"),
        (Flags::NOADDR, "noaddr"),
        (Flags::NOFAILOVER, "nofailover"),
    ];

    /// Reads the words that `Display` writes.
    #[must_use]
    pub fn from_words(text: &str) -> Option<Flags> {
        let mut flags = Flags::empty();
        for word in text.split(',').filter(|&word| word != "noflags") {
            let &(flag, _) = Self::WORDS.iter().find(|(_, known)| *known == word)?;
            flags |= flag;
        }
        Some(flags)
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gap = "";
        for (flag, word) in Self::WORDS {
            // A failed node is no longer only suspected.
            let is_hidden = flag == Flags::PFAIL && self.contains(Flags::FAIL);
            if self.contains(flag) && !is_hidden {
                write!(f, "{gap}{word}")?;
                gap = ",";
            }
        }
        f.write_str(if gap.is_empty() { "noflags" } else { "" })
    }
}

/// Index of a node in a view. It stays the same while the node is known, and may be used again afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeKey(pub(crate) u16);

/// A connection of the bus. The machine numbers those it opens, the server those it accepts; neither uses a number
/// twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkId {
    /// Opened by this node.
    Outbound(u64),
    /// Accepted by this node.
    Inbound(u64),
}

/// The connection that this node opens to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// Its number.
    pub number: u64,
    /// When it was asked for, in monotonic milliseconds.
    pub since_ms: u64,
    /// Whether it is established.
    pub is_up: bool,
}

/// A node as this one believes it to be. All times are monotonic milliseconds of this node; 0 is never.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name; random while the node is in handshake.
    pub id: NodeId,
    /// Its shard; not known while the node has not told it.
    pub shard: Option<ShardId>,
    /// Its addresses.
    pub address: Address,
    /// Host name that it announces; empty for none.
    pub hostname: Box<str>,
    /// Name for people that it announces; empty for none.
    pub human_name: Box<str>,
    /// Its flags.
    pub flags: Flags,
    /// The primary that it is a replica of.
    pub primary: Option<NodeKey>,
    /// Epoch of its claim to its slots.
    pub config_epoch: u64,
    /// The greatest current epoch that it has told: a packet with a lower one was overtaken by a later one.
    pub told_epoch: u64,
    /// Number of slots that it owns; kept by the view.
    pub slots: u16,
    /// When the ping was sent that it has not answered.
    pub ping_sent_ms: u64,
    /// When its last pong came.
    pub pong_received_ms: u64,
    /// When its last bytes came.
    pub data_received_ms: u64,
    /// When it was marked as failed.
    pub failed_ms: u64,
    /// Since when it has slots but no working replica.
    pub orphaned_ms: u64,
    /// When this node heard of it first.
    pub known_ms: u64,
    /// Replication offset that it has told.
    pub replication_offset: u64,
    /// Connection to it.
    pub outbound: Option<Outbound>,
    /// Whether it has shown that it knows more extensions than the host name; not known until its first ping.
    pub speaks_extensions: Option<bool>,
    /// Number of the connection from it.
    pub inbound: Option<u64>,
    /// Not before this time is a connection to it tried again.
    pub reconnect_ms: u64,
    /// Wait after the next failed try.
    pub reconnect_wait_ms: u64,
    /// Voting nodes that report it as failing, and when they last did. Bounded by the number of nodes.
    pub reports: BTreeMap<NodeKey, u64>,
}

impl Node {
    /// A node that nothing is known of but its name, role and address.
    pub(crate) fn new(id: NodeId, flags: Flags, address: Address, now_ms: u64) -> Self {
        Node {
            id,
            shard: None,
            address,
            hostname: Box::default(),
            human_name: Box::default(),
            flags,
            primary: None,
            config_epoch: 0,
            told_epoch: 0,
            slots: 0,
            ping_sent_ms: 0,
            pong_received_ms: 0,
            data_received_ms: 0,
            failed_ms: 0,
            orphaned_ms: 0,
            known_ms: now_ms,
            replication_offset: 0,
            outbound: None,
            speaks_extensions: None,
            inbound: None,
            reconnect_ms: 0,
            reconnect_wait_ms: 0,
            reports: BTreeMap::new(),
        }
    }

    /// Whether it is a primary.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.flags.contains(Flags::PRIMARY)
    }

    /// Whether it is a replica.
    #[must_use]
    pub fn is_replica(&self) -> bool {
        self.flags.contains(Flags::REPLICA)
    }

    /// Whether it is a primary with slots: such nodes elect and report failures.
    #[must_use]
    pub fn is_voter(&self) -> bool {
        self.is_primary() && self.slots > 0
    }

    /// Whether it is in handshake.
    #[must_use]
    pub fn is_in_handshake(&self) -> bool {
        self.flags.contains(Flags::HANDSHAKE)
    }

    /// Whether a majority holds it for failed.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.flags.contains(Flags::FAIL)
    }

    /// Whether it is suspected or failed.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.flags.intersects(Flags::FAILING)
    }

    /// Link on which packets to it go, if it is established.
    #[must_use]
    pub fn link(&self) -> Option<LinkId> {
        self.outbound
            .filter(|outbound| outbound.is_up)
            .map(|outbound| LinkId::Outbound(outbound.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_forty_lower_case_digits() {
        let text = "07c37dfeb235213a872192d90877d0cd55635b91";
        let id: NodeId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        for wrong in [&text[1..], &text.to_uppercase(), &text.replace('c', "g"), ""] {
            assert_eq!(wrong.parse::<NodeId>(), Err(NotAName), "{wrong}");
        }
        let greater: NodeId = "17c37dfeb235213a872192d90877d0cd55635b91".parse().unwrap();
        assert!(id < greater, "names have the order of their texts");
    }

    #[test]
    fn no_text_can_break_a_line_of_the_file() {
        for wrong in ["a b", "a,b", "a\nb", "a=b", "a\0", "é"] {
            assert!(host(wrong).is_none(), "{wrong:?}");
            assert!(!is_hostname(wrong) && !is_human_name(wrong), "{wrong:?}");
        }
        assert_eq!(host("::1").unwrap().as_str(), "::1");
        assert!(host(&"1".repeat(46)).is_none());
        assert!(is_hostname("node-1.example.org") && !is_hostname("node_1"));
        assert!(is_human_name("node_1") && !is_human_name(&"n".repeat(256)));
    }

    #[test]
    fn flags_are_fixed_words() {
        for (flags, words) in [
            (Flags::MYSELF | Flags::PRIMARY, "myself,master"),
            (
                Flags::REPLICA | Flags::FAIL | Flags::PFAIL | Flags::NOADDR,
                "slave,fail,noaddr",
            ),
            (Flags::PRIMARY | Flags::PFAIL, "master,fail?"),
            (Flags::MEET | Flags::HANDSHAKE, "handshake"),
            (Flags::MIGRATE_TO, "noflags"),
        ] {
            assert_eq!(flags.to_string(), words);
            assert_eq!(Flags::from_words(words).unwrap().to_string(), words);
        }
        assert_eq!(Flags::from_words("master,unheard"), None);
    }
}
