//! The body of the fuzz target `request` over seeded data: what the fuzzer checks must hold here as well.

#[path = "../../tests/fuzz/src/request.rs"]
mod request;

use proptest::collection::vec;
use proptest::prelude::*;

const FRAGMENTS: &[&[u8]] = &[
    b"*1\r\n",
    b"*2\r\n",
    b"*3\r\n",
    b"*-1\r\n",
    b"$0\r\n\r\n",
    b"$1\r\n",
    b"$3\r\nabc\r\n",
    b"$40000\r\n",
    b"\r\n",
    b"PING\r\n",
    b"SET \"a b\" '' \\x41\n",
    b"\"",
    b"'",
    b"\\",
    b"\r",
    b"\n",
    b"\0",
    b"*",
    b"$",
    b"0",
    b"12",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn pieces_mean_what_the_whole_means(
        plan: [u8; 5],
        fragments in vec(prop_oneof![
            8 => proptest::sample::select(FRAGMENTS).prop_map(<[u8]>::to_vec),
            2 => vec(any::<u8>(), 0..6),
            1 => Just(vec![b'x'; 40_000]),
        ], 0..30),
    ) {
        request::check(&[&plan[..], &fragments.concat()].concat());
    }
}
