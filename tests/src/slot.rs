//! The hash slot of a key, computed the plain way: bit by bit, as a check on the server's fast one.

/// Number of hash slots.
pub const SLOTS: u16 = 16384;

/// The hash slot of `key`: CRC16 (polynomial 0x1021, start 0) of its hash tag, or of all of it without one.
#[must_use]
pub fn of(key: &[u8]) -> u16 {
    let crc = tag(key).iter().fold(0_u16, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| {
            if crc & 0x8000 == 0 {
                crc << 1
            } else {
                crc << 1 ^ 0x1021
            }
        })
    });
    crc % SLOTS
}

/// Bytes between the first `{` and the next `}`, unless there are none.
fn tag(key: &[u8]) -> &[u8] {
    let tagged = key.iter().position(|&byte| byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.iter()
            .position(|&byte| byte == b'}')
            .map(|close| &rest[..close])
    });
    tagged.filter(|tag| !tag.is_empty()).unwrap_or(key)
}

/// For each of `shards` shards one key name that starts with `prefix` and lives there (shard = slot modulo
/// shards).
#[must_use]
pub fn one_key_per_shard(prefix: &str, shards: usize) -> Vec<String> {
    let on = |shard: usize| {
        (0..)
            .map(|i| format!("{prefix}{i}"))
            .find(|key| usize::from(of(key.as_bytes())) % shards == shard)
    };
    (0..shards).filter_map(on).collect()
}

/// A key of a shard, of so many, whose name begins with a prefix.
///
/// # Panics
/// If there is no such shard.
#[must_use]
pub fn key_of_shard(prefix: &str, shard: usize, shards: usize) -> String {
    assert!(shard < shards, "shard {shard} of {shards}");
    let mut names = (0..).map(|number| format!("{prefix}{number}"));
    let found = names.find(|name| usize::from(of(name.as_bytes())) % shards == shard);
    found.expect("there is one among all names")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_published_values() {
        assert_eq!(of(b"123456789"), 0x31c3);
        assert_eq!(of(b"foo"), 12182);
        assert_eq!(of(b"{foo}bar"), 12182);
        assert_eq!(of(b"{}foo"), of(b"{}foo"));
        assert_ne!(of(b"{}foo"), of(b"foo"));
    }

    #[test]
    fn finds_a_key_for_every_shard() {
        let keys = one_key_per_shard("k", 7);
        let shards: Vec<_> = keys
            .iter()
            .map(|key| usize::from(of(key.as_bytes())) % 7)
            .collect();
        assert_eq!(shards, (0..7).collect::<Vec<_>>());
    }
}
