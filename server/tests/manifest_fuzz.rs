//! The body of the fuzz target `manifest` over seeded data: lines as a manifest has them, damaged here and there.

#[path = "../../tests/fuzz/src/manifest.rs"]
mod manifest;

use proptest::collection::vec;
use proptest::prelude::*;

/// A line that names a file of some kind and number.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        9 => proptest::sample::select(&manifest::FILES[..]),
        1 => proptest::sample::select(vec!["missing", "../x", "", "appendonly.aof.manifest", "."]),
    ];
    let kind = prop_oneof![6 => Just("i"), 2 => Just("b"), 1 => Just("h"), 1 => Just("z")];
    (name, kind, 0..5_u8).prop_map(|(name, kind, sequence)| {
        format!("file \"{name}\" seq {sequence} type {kind}\n").into_bytes()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn manifests_are_refused_or_begun_with(
        lines in vec(line(), 0..4),
        damage in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut data = lines.concat();
        if let Some((at, byte)) = damage
            && !data.is_empty()
        {
            let at = at.index(data.len());
            data[at] = byte;
        }
        let directory = tempfile::tempdir().expect("a directory");
        manifest::check(directory.path(), &data);
    }
}

/// The next increment must not take the place of this base.
#[test]
fn a_base_with_the_name_of_an_increment_stays() {
    let directory = tempfile::tempdir().expect("a directory");
    manifest::check(directory.path(), b"file appendonly.aof.1.incr.aof seq 1 type b\n");
}
