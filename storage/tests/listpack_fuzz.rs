//! The body of the fuzz target `listpack` over seeded data: what the fuzzer checks must hold here as well.

#[path = "../../tests/fuzz/src/listpack.rs"]
mod listpack;

use proptest::collection::vec;
use proptest::prelude::*;

/// Elements as the format has them, whole and damaged: encoding, data, length of both.
const FRAGMENTS: &[&[u8]] = &[
    &[0x00, 0x01],
    &[0x07, 0x01],
    &[0x81, b'a', 0x02],
    &[0x81, b'b', 0x02],
    &[0x81, b'7', 0x02],
    &[0x80, 0x01],
    &[0xdf, 0xff, 0x02],
    &[0xf1, 0xe8, 0x03, 0x03],
    &[0xf2, 0x00, 0x00, 0x01, 0x04],
    &[0xf4, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x09],
    &[0xf0, 0x01, 0, 0, 0, b'x', 0x06],
    &[0xe0, 0x01, b'y', 0x03],
    &[0x83, b'1', b'.', b'5', 0x04],
    &[0x83, b'i', b'n', b'f', 0x04],
    &[0xff],
    &[0x81, b'a', 0x03],
    &[0xf0, 0xff, 0xff, 0xff, 0xff],
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn what_is_accepted_can_be_used(
        plan: [u8; 2],
        fragments in vec(prop_oneof![
            20 => proptest::sample::select(&FRAGMENTS[..14]).prop_map(<[u8]>::to_vec),
            1 => proptest::sample::select(FRAGMENTS).prop_map(<[u8]>::to_vec),
            1 => vec(any::<u8>(), 0..6),
        ], 0..24),
    ) {
        listpack::check(&[&plan[..], &fragments.concat()].concat());
    }
}
