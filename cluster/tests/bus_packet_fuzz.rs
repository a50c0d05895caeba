//! The body of the fuzz target `bus_packet` over seeded data: what the fuzzer checks must hold here as well.

#[path = "../../tests/fuzz/src/bus_packet.rs"]
mod bus_packet;

/// Packets that real nodes have sent, and with a plan each a run.
const RECORDED: [&[u8]; 5] = [
    include_bytes!("packets/ping.bin"),
    include_bytes!("packets/ping_hostname.bin"),
    include_bytes!("packets/fail.bin"),
    include_bytes!("packets/update.bin"),
    include_bytes!("packets/manual_start.bin"),
];

/// Runs over recorded packets in which a few bytes are changed, and over plain garbage.
#[test]
fn no_packet_upsets_a_node() {
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..1_000 {
        let mut data = Vec::new();
        for _ in 0..random.usize(1..6) {
            let mut packet = RECORDED[random.usize(..RECORDED.len())].to_vec();
            if random.u8(..8) == 0 {
                packet.iter_mut().for_each(|byte| *byte = random.u8(..));
            }
            for _ in 0..random.usize(..6) {
                let at = random.usize(..packet.len());
                packet[at] = random.u8(..);
            }
            // The type, and names of nodes that are known: else most packets concern nobody.
            packet[13] = if random.bool() {
                random.u8(..11)
            } else {
                packet[13]
            };
            let known = 1 + random.u8(..5);
            let at = if packet.len() == 4_352 { 2_264 } else { 2_256 };
            if random.bool() && packet.len() >= at + 40 {
                packet[at..at + 40].copy_from_slice(format!("{known:02}").repeat(20).as_bytes());
            }
            let len = (packet.len() as u16).to_be_bytes();
            data.extend([random.u8(..), len[0], len[1]]);
            data.extend(packet);
        }
        bus_packet::check(&data);
    }
}
