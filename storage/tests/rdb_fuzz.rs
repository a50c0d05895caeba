//! The bodies of the fuzz targets `rdb_payload` and `rdb_file` over seeded data: what the fuzzer checks must hold here.

#[path = "../../tests/fuzz/src/rdb.rs"]
mod rdb;

use proptest::collection::vec;
use proptest::prelude::*;

/// Values as they are written, without their versions and checksums, and pieces of such.
const FRAGMENTS: &[&[u8]] = &[
    b"\x00\x05hello",
    b"\x01\x03\x01a\xc0\x05\x01b",
    b"\x02\x03\x01a\xc0\x05\x01b",
    b"\x03\x02\x01a\x031.5\x01b\xfe",
    b"\x04\x02\x01a\x01b\x01c\xc0\x07",
    b"\x05\x02\x01a\0\0\0\0\0\0\xf0\x3f\x01b\0\0\0\0\0\0\0\0",
    b"\x09\x0b\x01\x03foo\x03\x00bar\xff",
    b"\x0a\x10\x10\0\0\0\x0d\0\0\0\x02\0\0\x01a\x03\xf2\xff",
    b"\x0b\x0e\x02\0\0\0\x03\0\0\0\x01\0\x02\0,\x01",
    b"\x0c\x10\x10\0\0\0\x0d\0\0\0\x02\0\0\x01a\x03\xf2\xff",
    b"\x0e\x01\x10\x10\0\0\0\x0d\0\0\0\x02\0\0\x01a\x03\xf2\xff",
    b"\x10\x12\x12\0\0\0\x04\0\x81f\x02\x81v\x02\x81g\x02\x07\x01\xff",
    b"\x11\x14\x14\0\0\0\x04\0\x81m\x02\x831.5\x04\x81n\x02\x02\x01\xff",
    b"\x12\x01\x02\x0f\x0f\0\0\0\x03\0\x81a\x02\x01\x01\x81b\x02\xff",
    b"\x12\x02\x01\x05plain\x02\x0f\x0f\0\0\0\x03\0\x81a\x02\x01\x01\x81b\x02\xff",
    b"\x13\x01\x10\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01\x1d\x1d\0\0\0\x0a\0\x01\x01\0\x01\x01\x01\x81f\x02\0\x01\x02\
      \x01\0\x01\0\x01\x81v\x02\x04\x01\xff\x01\x01\x01\x01\x01\0\0\x01\x01\x01g\x01\x01\x01\x01\0\0\0\0\0\0\0\x01\0\0\0\
      \0\0\0\0\x01n\xd1\xfc!\xa2\x01\0\0\x01\x01\x01cn\xd1\xfc!\xa2\x01\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01",
    b"\x14\x0d\x0d\0\0\0\x02\0\x81a\x02\x81b\x02\xff",
    b"\x16\x02\x01a\x01b\x05\0\0\0\0\0\0\0\x01c\x01d\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x18\xe8\x03\0\0\0\0\0\0\x02\x05\x01a\x01b\x00\x01c\x01d",
    b"\x19\x05\0\0\0\0\0\0\0\x17\x17\0\0\0\x06\0\x81a\x02\x81b\x02\x05\x01\x81c\x02\x81d\x02\0\x01\xff",
    b"\xc3\x09@d\x01xx\xe0W\x00\x01xx",
    b"\xfc\xe8\x03\0\0\0\0\0\0",
    b"\xfd\x01\0\0\0",
    b"\xfe\x01",
    b"\xfb\x05\x01",
    b"\xfa\x01a\x01b",
    b"\xf8\x40\x64",
    b"\xf9\x07",
    b"\xf4\x01\x02\x03",
    b"\x81\xff\xff\xff\xff\xff\xff\xff\xff",
];

/// A value, perhaps damaged.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let damage = vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (proptest::sample::select(FRAGMENTS), damage).prop_map(|(fragment, damage)| {
        let mut bytes = fragment.to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn payloads_are_refused_or_are_values(plan: u8, value in value()) {
        rdb::check_payload(&[&[plan], &value[..]].concat());
    }

    #[test]
    fn files_are_refused_or_can_be_written(plan: u8, records in vec((value(), vec(any::<u8>(), 0..3)), 0..6)) {
        let mut data = vec![plan];
        for (mut value, key) in records {
            // A key stands between the type and the value.
            let mut named = vec![key.len() as u8];
            named.extend(key);
            if value[0] < 32 {
                value.splice(1..1, named);
            }
            data.extend(value);
        }
        rdb::check_file(&data);
    }
}
