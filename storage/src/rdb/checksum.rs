//! The checksum of payloads and files: CRC-64 by Jones' polynomial, reflected, begun at 0.

use crc::{CRC_64_REDIS, Crc, Table};

/// Sixteen tables: sixteen bytes at a time.
static CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_REDIS);

/// A checksum over bytes that come in pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksum(u64);

impl Checksum {
    /// The checksum of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut sum = Self::default();
        sum.update(bytes);
        sum
    }

    /// Goes on with the bytes that follow.
    pub fn update(&mut self, bytes: &[u8]) {
        // The algorithm reflects its register: what it takes to begin with is the present sum, reflected.
        let mut digest = CRC.digest_with_initial(self.0.reverse_bits());
        digest.update(bytes);
        self.0 = digest.finalize();
    }

    /// The sum, as it is written behind the bytes: eight bytes, the lowest first.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.to_le_bytes()
    }

    /// The sum.
    #[must_use]
    pub fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_redis() {
        assert_eq!(Checksum::of(b"123456789").value(), 0xe9c6_d914_c4b8_d9ca);
        assert_eq!(Checksum::of(b"").value(), 0);
    }

    #[test]
    fn pieces_add_up() {
        let bytes: Vec<u8> = (0..5000u32).map(|n| ((n * n) >> 3) as u8).collect();
        for cut in [0, 1, 15, 16, 17, 4999, 5000] {
            let mut sum = Checksum::of(&bytes[..cut]);
            sum.update(&bytes[cut..]);
            assert_eq!(sum, Checksum::of(&bytes));
        }
    }
}
