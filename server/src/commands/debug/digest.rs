//! Digests of data: equal for equal data, whatever its order of arrival, its encodings, or the number of shards.
//!
//! They are computed as in Redis, so that two servers can be compared: ordered data is *mixed* in, unordered data is
//! *added*, both by means of SHA-1.

use std::fmt;

use sha1_smol::Sha1;
use shardis_storage::entry::Entry;
use shardis_storage::value::hash::Field;
use shardis_storage::value::list::Direction;
use shardis_storage::value::stream::{Order, StreamId};
use shardis_storage::value::{CollectionRef, INT_TEXT_MAX, Kind, StringRef};

use crate::commands::sorted_sets::walk::precise;
use crate::exec::View;
use crate::exec::view::Held;

/// Mixed in for a key that has an expiry.
const VOLATILE: &[u8] = b"!!expire!!";

/// Added to a field of a hash that has an expiry.
const VOLATILE_FIELD: &[u8] = b"!!hexpire!!";

/// Number that Redis uses for a type of values.
fn number_of(kind: Kind) -> u32 {
    match kind {
        Kind::String => 0,
        Kind::List => 1,
        Kind::Set => 2,
        Kind::SortedSet => 3,
        Kind::Hash => 4,
        Kind::Stream => 6,
    }
}

/// A digest under construction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Digest([u8; 20]);

impl Digest {
    /// Adds unordered data. Adding the same bytes twice removes them again.
    fn add(&mut self, bytes: &[u8]) {
        let sum = Sha1::from(bytes).digest().bytes();
        for (byte, add) in self.0.iter_mut().zip(sum) {
            *byte ^= add;
        }
    }

    /// Mixes in data that follows what was mixed in before.
    fn mix(&mut self, bytes: &[u8]) {
        self.add(bytes);
        self.0 = Sha1::from(self.0).digest().bytes();
    }

    fn mix_text(&mut self, text: StringRef<'_>) {
        self.mix(text.as_bytes(&mut [0; INT_TEXT_MAX]));
    }

    /// Mixes in a value, and whether it expires.
    fn mix_value(&mut self, entry: &Entry, now_ms: i64) {
        self.mix(&number_of(entry.kind()).to_be_bytes());
        if let Some(string) = entry.string() {
            self.mix_text(string);
        }
        if let Some(collection) = entry.collection() {
            self.mix_collection(collection, now_ms);
        }
        if entry.expiry().is_some() {
            self.add(VOLATILE);
        }
    }

    fn mix_collection(&mut self, collection: CollectionRef<'_>, now_ms: i64) {
        match collection {
            CollectionRef::List(list) => {
                list.range(0, Direction::Forward, list.len(), |element| {
                    self.mix_text(element);
                });
            }
            CollectionRef::Set(set) => {
                let mut scratch = [0; INT_TEXT_MAX];
                set.iter()
                    .for_each(|member| self.add(member.as_bytes(&mut scratch)));
            }
            CollectionRef::SortedSet(set) => {
                for (member, score) in set.iter() {
                    let mut part = Self::default();
                    part.mix_text(member);
                    part.mix(precise(score).as_bytes());
                    self.merge(part);
                }
            }
            CollectionRef::Hash(hash) => hash
                .iter(now_ms)
                .for_each(|field| self.merge(Self::of_field(field))),
            CollectionRef::Stream(stream) => {
                let entries = stream.log().range(StreamId::MIN, StreamId::MAX, Order::Ascending);
                for entry in entries {
                    self.mix(format!("{}.{}", entry.id.ms, entry.id.seq).as_bytes());
                    for (field, value) in entry.fields() {
                        self.mix_text(field);
                        self.mix_text(value);
                    }
                }
            }
        }
    }

    fn of_field(field: Field<'_>) -> Self {
        let mut part = Self::default();
        part.mix_text(field.name);
        part.mix_text(field.value);
        if field.expiry.is_some() {
            part.add(VOLATILE_FIELD);
        }
        part
    }

    /// Adds another digest, in any order.
    fn merge(&mut self, part: Self) {
        self.add(&part.0);
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The digest of a value without its key.
pub(super) fn of_value(entry: &Entry, now_ms: i64) -> Digest {
    let mut digest = Digest::default();
    digest.mix_value(entry, now_ms);
    digest
}

/// A digest of all that replicas have in common with their primary: all databases, with times of expiry. Complexity: O(bytes of all data).
pub(super) fn of_replicated(held: &mut Held<'_>) -> Digest {
    let mut all = Digest::default();
    held.each(|partition| {
        for db in 0..partition.keyspace.databases() {
            partition.keyspace.database(db).for_each(|entry| {
                let mut digest = Digest::default();
                digest.mix(&(db as u32).to_be_bytes());
                digest.mix(entry.key());
                // At the beginning of time nothing has expired.
                digest.mix_value(entry, 0);
                digest.mix(&entry.expiry().unwrap_or(-1).to_be_bytes());
                all.add(&digest.0);
            });
        }
    });
    all
}

/// The digest of all databases. Complexity: O(bytes of all data).
pub(super) fn of_all(keyspace: &mut View<'_>, databases: usize) -> Digest {
    let mut all = Digest::default();
    let now_ms = keyspace.stamp.now_ms;
    for db in 0..databases {
        let mut keys = 0;
        keyspace
            .held()
            .each(|partition| keys += partition.keyspace.database(db).len());
        if keys == 0 {
            continue;
        }
        all.mix(&(db as u32).to_be_bytes());
        keyspace.held().each(|partition| {
            partition.keyspace.database(db).for_each(|entry| {
                let mut digest = Digest::default();
                digest.mix(entry.key());
                digest.mix_value(entry, now_ms);
                all.add(&digest.0);
            });
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use crate::commands::testing::Shell;

    #[test]
    fn digests_are_those_of_redis() {
        let nothing = format!("+{}", "0".repeat(40));
        for shards in [1, 3] {
            let mut shell = Shell::over(shards);
            shell.check(&[("DEBUG DIGEST", &nothing), ("SET a b", "+OK")]);
            // A real server reports this digest for the same data.
            shell.check(&[("DEBUG DIGEST", "+479783d7290f02957dfbe3408a858ba13eea1709")]);
            shell.client.db = 3;
            shell.check(&[
                ("SET a b", "+OK"),
                ("DEBUG DIGEST", "+0f9362b5548e001416dcf69ab48bd718ef882ab0"),
            ]);
            shell.client.db = 0;
            shell.check(&[
                ("EXPIRE a 1000", ":1"),
                ("DEBUG DIGEST", "+fe33682e3276584a5447a4e4093c19d45c13b8c3"),
            ]);
        }
    }

    #[test]
    fn values_have_digests_of_their_own() {
        let mut shell = Shell::over(2);
        shell.run("SET iii 123");
        shell.run("SET ttl x EX 100");
        let zeros = "0".repeat(40);
        shell.check(&[(
            "DEBUG DIGEST-VALUE iii ttl nokey",
            &format!(
                "[+89f7f51b707418f666d5b45e053bd5bbbf82ac2b, +0745672cb1bf060476eedeb8a28f5ffe1ff5a2be, +{zeros}]"
            ),
        )]);
    }
}
