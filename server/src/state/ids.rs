//! The ids of a run and of the histories of its data: forty hexadecimal digits each, which clients can read.
//!
//! They come from the same seed as the hashes of keys, by a generator that cannot be inverted: with the seed, an
//! attacker could choose keys that collide.

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The id of a run, and the source of those of histories.
#[derive(Debug)]
pub(crate) struct Ids {
    run: String,
    chance: Mutex<StdRng>,
}

impl Ids {
    /// New ids, for a node that starts at this time, Unix microseconds: runs with the same seed have different ids.
    pub(crate) fn new(seed: u64, started_us: i64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed ^ (started_us as u64).rotate_left(20));
        Self {
            run: digits(&mut chance),
            chance: Mutex::new(chance),
        }
    }

    /// The id of this run.
    pub(crate) fn run(&self) -> &str {
        &self.run
    }

    /// An id that no history has had.
    pub(crate) fn fresh(&self) -> String {
        digits(&mut self.chance.lock())
    }
}

/// Forty hexadecimal digits.
fn digits(chance: &mut StdRng) -> String {
    let words: [u64; 3] = std::array::from_fn(|_| chance.random());
    let mut text = words.map(|word| format!("{word:016x}")).concat();
    text.truncate(40);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_forty_digits_and_differ() {
        let (ids, later) = (Ids::new(7, 1), Ids::new(7, 2));
        let names = [
            ids.run().to_owned(),
            ids.fresh(),
            ids.fresh(),
            later.run().to_owned(),
        ];
        for (index, name) in names.iter().enumerate() {
            assert!(
                name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit()),
                "{name}"
            );
            assert!(!names[..index].contains(name), "{name}");
        }
    }

    #[test]
    fn names_do_not_tell_the_seed() {
        // If an id were a product of the seed, that of twice the seed would be twice as large.
        let number = |seed| u64::from_str_radix(&Ids::new(seed, 0).run()[..16], 16).unwrap();
        assert_ne!(number(2), number(1).wrapping_mul(2));
    }
}
