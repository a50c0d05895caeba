//! The names of a run and of the history of its data: forty hexadecimal digits each, which clients are told.
//!
//! They come from the same seed as the hashes of keys, by a generator that does not let anybody find its way back: who knew
//! the seed could choose keys that collide.

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The names of a node.
#[derive(Debug)]
pub(crate) struct Ids {
    run: String,
    changing: Mutex<Changing>,
}

#[derive(Debug)]
struct Changing {
    replication: String,
    chance: StdRng,
}

impl Ids {
    /// New names, for a node that started at this time, Unix microseconds: with the same seed each run has its own.
    pub(crate) fn new(seed: u64, started_us: i64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed ^ (started_us as u64).rotate_left(20));
        Self {
            run: digits(&mut chance),
            changing: Mutex::new(Changing {
                replication: digits(&mut chance),
                chance,
            }),
        }
    }

    /// The name of this run.
    pub(crate) fn run(&self) -> &str {
        &self.run
    }

    /// The name of the history of the data.
    pub(crate) fn replication(&self) -> String {
        self.changing.lock().replication.clone()
    }

    /// Gives that history another name.
    pub(crate) fn change_replication(&self) {
        let mut changing = self.changing.lock();
        changing.replication = digits(&mut changing.chance);
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
        let first = ids.replication();
        ids.change_replication();
        let names = [
            ids.run().to_owned(),
            first,
            ids.replication(),
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
        // Were a name a product of the seed, that of twice the seed would be twice as much.
        let number = |seed| u64::from_str_radix(&Ids::new(seed, 0).run()[..16], 16).unwrap();
        assert_ne!(number(2), number(1).wrapping_mul(2));
    }
}
