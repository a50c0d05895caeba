//! The policies without a ranking: any key, wherever it is.

use rand::RngExt;
use rand::rngs::SmallRng;

use super::draw;
use crate::entry::Entry;
use crate::keyspace::{Database, Keyspace};

/// A random key of all databases, and the database it is in.
pub(super) fn pick<'a>(
    keyspace: &'a Keyspace,
    volatile: bool,
    rng: &mut SmallRng,
) -> Option<(usize, &'a Entry)> {
    let count = |database: &Database| {
        if volatile {
            database.volatile_len()
        } else {
            database.len()
        }
    };
    let total: usize = (0..keyspace.databases())
        .map(|index| count(keyspace.database(index)))
        .sum();
    if total == 0 {
        return None;
    }
    let mut left = rng.random_range(0..total);
    for index in 0..keyspace.databases() {
        let database = keyspace.database(index);
        match left.checked_sub(count(database)) {
            Some(rest) => left = rest,
            None => return Some((index, draw(database, volatile, rng)?)),
        }
    }
    None
}
