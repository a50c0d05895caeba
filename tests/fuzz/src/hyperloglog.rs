//! One HyperLogLog made of arbitrary bytes: whatever they are, nothing panics, and what succeeds agrees with itself.
//!
//! The first bytes of the data choose the elements that are added and the limit of the sparse encoding; the others are the
//! value. The same body runs under the fuzzer and, over seeded data, as a plain test of the `storage` crate.

use shardis_storage::algorithm::hyperloglog::{Corrupt, Encoding, Registers, Sketch, cardinality, runs};

/// Panics if a HyperLogLog contradicts itself over `data`.
pub(crate) fn check(data: &[u8]) {
    let Some((&[elements, limit, seed], value)) = data.split_first_chunk::<3>() else {
        return;
    };
    let Some(mut sketch) = Sketch::load(value) else {
        assert_eq!(Encoding::of(value), None);
        return;
    };
    let sparse_bytes_max = usize::from(limit) * 16;
    let registers = Registers::of(value);
    check_intact(value, &registers);
    for element in 0..elements {
        let before = sketch.clone();
        match sketch.add(&[seed, element], sparse_bytes_max) {
            Ok(changed) => assert_eq!(changed, sketch != before),
            Err(Corrupt) => assert_eq!(sketch, before),
        }
    }
    let Ok(mut merged) = Registers::of(sketch.as_bytes()) else {
        return;
    };
    if merged.merge(value).is_ok() && sketch.raise_all(&merged, sparse_bytes_max).is_ok() {
        let raised = Registers::of(sketch.as_bytes()).expect("it was intact before");
        assert_eq!(raised.values(), merged.values());
        sketch.make_dense().expect("it was intact before");
        assert_eq!(cardinality(sketch.as_bytes()), Ok(merged.cardinality()));
    }
}

/// Checks that a value which can be counted has registers that can be read, and runs if it is sparse.
fn check_intact(value: &[u8], registers: &Result<Registers, Corrupt>) {
    let count = cardinality(value);
    assert_eq!(
        count,
        registers
            .as_ref()
            .map(Registers::cardinality)
            .map_err(|error| *error)
    );
    if Encoding::of(value) == Some(Encoding::Sparse) {
        let readable = runs(value).all(|run| run.is_ok());
        assert_eq!(readable, count.is_ok());
    }
}
