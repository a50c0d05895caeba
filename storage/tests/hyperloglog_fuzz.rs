//! The fuzz target of HyperLogLog values over seeded data: values that a server may be given, and such ones damaged.

#[path = "../../tests/fuzz/src/hyperloglog.rs"]
mod hyperloglog;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use shardis_storage::algorithm::hyperloglog::Sketch;

/// Number of values that are tried.
const ROUNDS: u64 = 600;

#[test]
fn values_agree_with_themselves_however_damaged() {
    for seed in 0..ROUNDS {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut sketch = Sketch::new();
        for _ in 0..rng.random_range(0..300) {
            sketch
                .add(&rng.random::<u32>().to_le_bytes(), 3000)
                .expect("a value of our own is intact");
        }
        if rng.random_ratio(1, 8) {
            sketch.make_dense().expect("a value of our own is intact");
        }
        let mut data = vec![rng.random_range(0..8), rng.random(), rng.random()];
        data.extend_from_slice(sketch.as_bytes());
        for _ in 0..rng.random_range(0..4) {
            let place = rng.random_range(0..data.len());
            match rng.random_range(0..3) {
                0 => data[place] = rng.random(),
                1 => drop(data.remove(place)),
                _ => data.insert(place, rng.random()),
            }
        }
        hyperloglog::check(&data);
    }
}
