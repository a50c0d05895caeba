//! Digests of data: equal for equal data, whatever the order it came in, the encodings, or the number of shards.
//!
//! They are made as Redis makes them, so that two servers can be compared: what has an order is *mixed* in, what has none
//! is *added*, and SHA-1 stands behind both.

use std::fmt;

use sha1_smol::Sha1;
use shardis_storage::entry::Entry;
use shardis_storage::value::INT_TEXT_MAX;

use crate::exec::View;

/// Mixed in for a key that has a time to live.
const VOLATILE: &[u8] = b"!!expire!!";

/// Stands for a string among the types of values.
const STRING: u32 = 0;

/// A digest in the making.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Digest([u8; 20]);

impl Digest {
    /// Adds something that may come in any order. What is added twice is gone.
    fn add(&mut self, bytes: &[u8]) {
        let sum = Sha1::from(bytes).digest().bytes();
        for (byte, add) in self.0.iter_mut().zip(sum) {
            *byte ^= add;
        }
    }

    /// Mixes in something that comes after what was there.
    fn mix(&mut self, bytes: &[u8]) {
        self.add(bytes);
        self.0 = Sha1::from(self.0).digest().bytes();
    }

    /// Mixes in a value and whether it expires.
    fn mix_value(&mut self, entry: &Entry) {
        self.mix(&STRING.to_be_bytes());
        if let Some(string) = entry.string() {
            self.mix(string.as_bytes(&mut [0; INT_TEXT_MAX]));
        }
        if entry.expiry().is_some() {
            self.add(VOLATILE);
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The digest of a value without its key.
pub(super) fn of_value(entry: &Entry) -> Digest {
    let mut digest = Digest::default();
    digest.mix_value(entry);
    digest
}

/// The digest of so many databases. Complexity: O(bytes of all data).
pub(super) fn of_all(keyspace: &mut View<'_>, databases: usize) -> Digest {
    let mut all = Digest::default();
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
                digest.mix_value(entry);
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
            // Taken from a server with the same data.
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
