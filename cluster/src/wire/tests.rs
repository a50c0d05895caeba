//! Tests of the codec: packets of real nodes, packets of ours, and damaged ones.

use proptest::prelude::*;

use super::extension::Forgotten;
use super::*;
use crate::node::{Flags, host};
use crate::slot::Slot;

/// Packets as redis-server 7.0.15 (and one as valkey-server 9.1.2) sent them to a socket that had said MEET.
const RECORDED: [(&str, &[u8]); 8] = [
    ("ping", include_bytes!("../../tests/packets/ping.bin")),
    (
        "ping, with a host name",
        include_bytes!("../../tests/packets/ping_hostname.bin"),
    ),
    ("pong", include_bytes!("../../tests/packets/pong_importing.bin")),
    (
        "pong of Valkey",
        include_bytes!("../../tests/packets/pong_valkey.bin"),
    ),
    ("fail", include_bytes!("../../tests/packets/fail.bin")),
    ("publish", include_bytes!("../../tests/packets/publish.bin")),
    ("update", include_bytes!("../../tests/packets/update.bin")),
    (
        "start of a manual failover",
        include_bytes!("../../tests/packets/manual_start.bin"),
    ),
];

/// Bits that only Valkey knows and that are sent as zero: flags, and the byte of what the sender supports.
const VALKEY_BYTES: [usize; 2] = [2250, 2253];

fn recorded(name: &str) -> &'static [u8] {
    RECORDED.iter().find(|(known, _)| *known == name).unwrap().1
}

fn decode(name: &str) -> Packet {
    Packet::decode(recorded(name)).unwrap()
}

fn encode(packet: &Packet) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(&mut bytes);
    assert_eq!(bytes.len(), packet.len());
    bytes
}

#[test]
fn packets_of_real_nodes_are_written_as_they_were_read() {
    for (name, bytes) in RECORDED {
        let mut expected = bytes.to_vec();
        if name.contains("Valkey") {
            VALKEY_BYTES.iter().for_each(|&at| expected[at] = 0);
        }
        assert!(encode(&Packet::decode(bytes).unwrap()) == expected, "{name}");
        let prefix = bytes.first_chunk().unwrap();
        assert_eq!(frame_len(prefix, 1 << 20), Ok(bytes.len()), "{name}");
    }
}

#[test]
fn headers_of_real_nodes_say_what_they_meant() {
    let ping = decode("ping");
    let header = &ping.header;
    assert_eq!(
        (header.port, header.other_port, header.bus_port),
        (21_312, 0, 31_312)
    );
    assert_eq!(
        (header.config_epoch, header.current_epoch, header.offset),
        (3, 3, 0)
    );
    assert_eq!(header.slots.to_string(), "10001-16383");
    assert_eq!(
        (header.flags, header.primary),
        (Flags::PRIMARY | Flags::MYSELF, None)
    );
    assert!(header.is_ok && header.ip.is_empty() && header.manual.is_empty());
    let Body::Ping {
        kind: PingKind::Ping,
        gossip,
        ..
    } = &ping.body
    else {
        panic!("a ping")
    };
    assert_eq!(gossip.len(), 3);
    assert!(
        gossip
            .iter()
            .all(|entry| entry.ip.as_str() == "127.0.0.1" && entry.bus_port == entry.port + 10_000)
    );
    assert!(gossip.iter().all(|entry| entry.pong_received_s > 1_700_000_000));
}

#[test]
fn bodies_of_real_nodes_say_what_they_meant() {
    let Body::Ping { extensions, .. } = decode("ping, with a host name").body else {
        panic!("a ping")
    };
    assert_eq!(extensions.hostname.as_deref(), Some("host-1.example"));
    let Body::Publish {
        is_sharded: false,
        channel,
        message,
    } = decode("publish").body
    else {
        panic!("a message")
    };
    assert_eq!(
        (channel.as_slice(), message.as_slice()),
        (&b"news"[..], &b"hello"[..])
    );
    let Body::Update {
        config_epoch: 1,
        slots,
        ..
    } = decode("update").body
    else {
        panic!("an update")
    };
    assert_eq!(slots.to_string(), "0-5000");
    let start = decode("start of a manual failover");
    assert_eq!(start.body, Body::ManualStart);
    assert!(start.header.flags.contains(Flags::REPLICA) && start.header.primary.is_some());
    assert!(matches!(decode("fail").body, Body::Fail(_)));
}

fn ping_with(extensions: Extensions) -> Packet {
    let Body::Ping { kind, gossip, .. } = decode("ping").body else {
        panic!("a ping")
    };
    Packet {
        header: decode("ping").header,
        body: Body::Ping {
            kind,
            gossip,
            extensions,
        },
    }
}

fn all_extensions() -> Extensions {
    let id = decode("ping").header.sender;
    Extensions {
        hostname: Some("host-7.example.org".into()),
        human_name: Some("the_seventh".into()),
        forgotten: vec![Forgotten { id, ttl_s: 60 }],
        shard: Some(id),
    }
}

#[test]
fn every_kind_of_packet_is_read_as_it_was_written() {
    let id = decode("ping").header.sender;
    let slots: SlotSet = Slot::all().step_by(7).collect();
    let publish = |is_sharded| Body::Publish {
        is_sharded,
        channel: b"c".to_vec(),
        message: vec![0; 300],
    };
    let bodies = [
        ping_with(all_extensions()).body,
        ping_with(Extensions::default()).body,
        Body::Fail(id),
        publish(false),
        publish(true),
        Body::AuthRequest,
        Body::AuthAck,
        Body::Update {
            id,
            config_epoch: EPOCH_MAX,
            slots: Box::new(slots),
        },
        Body::ManualStart,
        Body::Module,
    ];
    for body in bodies {
        let mut header = decode("ping").header;
        header.primary = Some(id);
        header.ip = host("fe80::1").unwrap();
        header.manual = ManualFlags::PAUSED | ManualFlags::FORCE_ACK;
        header.is_ok = false;
        let packet = Packet { header, body };
        let bytes = encode(&packet);
        assert_eq!(frame_len(bytes.first_chunk().unwrap(), 1 << 20), Ok(bytes.len()));
        assert_eq!(Packet::decode(&bytes), Ok(packet));
    }
}

#[test]
fn a_stream_that_is_no_bus_is_closed() {
    let prefix: &[u8; PREFIX_BYTES] = recorded("ping").first_chunk().unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = *prefix;
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        frame_len(&changed, 100_000)
    };
    assert_eq!(with(0, b"GET "), Err(FrameError::BadSignature));
    assert_eq!(with(4, &2_255u32.to_be_bytes()), Err(FrameError::TooShort(2_255)));
    assert_eq!(
        with(4, &u32::MAX.to_be_bytes()),
        Err(FrameError::TooLong(u32::MAX as usize))
    );
    // A published message may be as long as the bound, a vote not a byte longer than a header.
    let mut publish = *prefix;
    publish[4..8].copy_from_slice(&100_000u32.to_be_bytes());
    publish[12..14].copy_from_slice(&4u16.to_be_bytes());
    assert_eq!(frame_len(&publish, 100_000), Ok(100_000));
    publish[12..14].copy_from_slice(&6u16.to_be_bytes());
    assert_eq!(frame_len(&publish, 100_000), Err(FrameError::TooLong(100_000)));
}

/// A recorded packet with some bytes changed and its length set right or not.
fn damaged(name: &str, changes: &[(usize, &[u8])]) -> Result<Packet, PacketError> {
    let mut bytes = recorded(name).to_vec();
    for (at, change) in changes {
        bytes[*at..at + change.len()].copy_from_slice(change);
    }
    Packet::decode(&bytes)
}

#[test]
fn what_does_not_fit_is_dropped() {
    let zeros = [0; 40];
    for (name, changes, error) in [
        ("ping", &[(8, &[0, 2][..])][..], PacketError::Version(2)),
        ("ping", &[(12, &[0, 11])], PacketError::Type(11)),
        ("ping", &[(12, &[0x80, 0])], PacketError::Type(0x8000)),
        ("ping", &[(4, &[0, 0, 9, 0])], PacketError::Length),
        ("ping", &[(14, &[0, 4])], PacketError::Length),
        ("ping", &[(14, &[0, 2])], PacketError::Length),
        ("ping", &[(14, &[255, 255])], PacketError::Length),
        ("ping", &[(40, &zeros)], PacketError::Name),
        ("ping", &[(40, b"A")], PacketError::Name),
        ("ping", &[(2128, b"a")], PacketError::Name),
        ("ping", &[(2168, b"1.2.3.4\n")], PacketError::Address),
        ("ping", &[(2168, &[b'1'; 46])], PacketError::Address),
        ("ping", &[(16, &[255; 8])], PacketError::Epoch),
        ("ping", &[(24, &[128; 8])], PacketError::Epoch),
        ("ping", &[(2256, b"/etc")], PacketError::Name),
        ("ping", &[(2256 + 48, b"a b")], PacketError::Address),
        // Extensions are announced where there are none, and the other way round.
        ("ping", &[(2253, &[4]), (2214, &[0, 1])], PacketError::Extension),
        ("ping, with a host name", &[(2253, &[0])], PacketError::Length),
        (
            "ping, with a host name",
            &[(2214, &[0, 2])],
            PacketError::Extension,
        ),
        (
            "ping, with a host name",
            &[(2568, &[0, 0, 0, 7])],
            PacketError::Extension,
        ),
        (
            "ping, with a host name",
            &[(2568, &[0, 0, 0, 32])],
            PacketError::Extension,
        ),
        (
            "ping, with a host name",
            &[(2568, &[0, 0, 0, 8])],
            PacketError::Extension,
        ),
        (
            "ping, with a host name",
            &[(2576, b"a,b")],
            PacketError::Extension,
        ),
        (
            "ping, with a host name",
            &[(2576, &[b'a'; 16])],
            PacketError::Extension,
        ),
        ("fail", &[(2256, b"-")], PacketError::Name),
        ("publish", &[(2256, &[0, 0, 0, 5])], PacketError::Length),
        // Their sum is right modulo 2^32.
        (
            "publish",
            &[(2256, &[255; 4]), (2260, &[0, 0, 0, 10])],
            PacketError::Length,
        ),
        ("update", &[(2256, &[255; 8])], PacketError::Epoch),
        ("update", &[(2264, &zeros)], PacketError::Name),
        (
            "start of a manual failover",
            &[(12, &[0, 3])],
            PacketError::Length,
        ),
        (
            "start of a manual failover",
            &[(12, &[0, 9])],
            PacketError::Length,
        ),
    ] {
        assert_eq!(damaged(name, changes), Err(error), "{name} {changes:?}");
    }
    for (name, bytes) in RECORDED {
        for len in [0, 8, 2_255, bytes.len() - 1] {
            assert_eq!(
                Packet::decode(&bytes[..len]),
                Err(PacketError::Length),
                "{name} cut at {len}"
            );
        }
    }
}

#[test]
fn extensions_of_other_dialects_are_skipped() {
    let packet = ping_with(all_extensions());
    let mut bytes = encode(&packet);
    let shard_at = bytes.len() - 48;
    bytes[shard_at + 4..shard_at + 6].copy_from_slice(&[0, 9]);
    let Body::Ping { extensions, .. } = Packet::decode(&bytes).unwrap().body else {
        panic!("a ping")
    };
    assert_eq!(
        extensions,
        Extensions {
            shard: None,
            ..all_extensions()
        }
    );
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(
        which in 0..RECORDED.len(),
        changes in proptest::collection::vec((0usize..5_000, any::<u8>()), 1..20),
        cut in 0usize..3_000,
    ) {
        let mut bytes = RECORDED[which].1.to_vec();
        bytes.truncate(bytes.len().max(2_256 + cut % 200).min(bytes.len()));
        for (at, byte) in changes {
            let len = bytes.len();
            bytes[at % len] = byte;
        }
        let len = (bytes.len() as u32).to_be_bytes();
        bytes[4..8].copy_from_slice(&len);
        if let Ok(packet) = Packet::decode(&bytes) {
            let again = encode(&packet);
            prop_assert_eq!(Packet::decode(&again), Ok(packet));
        }
    }
}
