//! Hash slots: the part of a key that is hashed, the slot it falls into, the shard that holds it, and sets of slots.
//!
//! The key space of a cluster is cut into 16,384 slots. A key's slot is the CRC16 of the key, modulo 16,384; the CRC
//! is the one known as XMODEM (polynomial 0x1021, no reflection, initial value 0). A key with a tag in braces is hashed
//! by the tag alone, which lets a client keep keys together.

use std::fmt;
use std::ops::RangeInclusive;

/// Number of slots.
pub const SLOTS: usize = 16_384;

/// A hash slot, below [`SLOTS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// The last slot.
    pub const LAST: Slot = Slot(SLOTS as u16 - 1);

    /// The slot with this number, if there is one.
    #[inline]
    #[must_use]
    pub const fn new(number: u16) -> Option<Slot> {
        if (number as usize) < SLOTS {
            Some(Slot(number))
        } else {
            None
        }
    }

    /// The slot's number.
    #[inline]
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The slot's number as an index.
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The slot at an index.
    ///
    /// # Panics
    /// If there is no such slot.
    pub(crate) fn at(index: usize) -> Slot {
        assert!(index < SLOTS, "there are {SLOTS} slots");
        Slot(index as u16)
    }

    /// All slots, in order.
    pub fn all() -> impl DoubleEndedIterator<Item = Slot> + ExactSizeIterator + Clone {
        (0..SLOTS as u16).map(Slot)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The part of `key` that is hashed: the text between the first `{` and the first `}` after it, unless it is empty;
/// else the whole key. O(n).
#[inline]
#[must_use]
pub fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = find_brace(key) else {
        return key;
    };
    let behind = &key[open + 1..];
    match behind.iter().position(|&byte| byte == b'}') {
        None | Some(0) => key,
        Some(close) => &behind[..close],
    }
}

/// Index of the first `{`. Nearly every key has none, which is found out eight bytes at a time; the last eight may
/// overlap the ones before.
#[inline]
fn find_brace(key: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const BRACES: u64 = b'{' as u64 * ONES;
    // A byte that is zero borrows from its highest bit; one that is not either keeps that bit or had it set.
    let has_brace = |block: &[u8; 8]| {
        let differences = u64::from_ne_bytes(*block) ^ BRACES;
        differences.wrapping_sub(ONES) & !differences & (ONES << 7) != 0
    };
    let possible = match key.last_chunk::<8>() {
        Some(last) => has_brace(last) || key.as_chunks::<8>().0.iter().any(has_brace),
        None => true,
    };
    if possible {
        key.iter().position(|&byte| byte == b'{')
    } else {
        None
    }
}

/// The slot of `key`. O(n).
#[inline]
#[must_use]
pub fn slot_of(key: &[u8]) -> Slot {
    Slot(crc16(hash_tag(key)) % SLOTS as u16)
}

/// The shard, below `shards`, that holds `slot`. Neighbouring slots go to different shards, so any contiguous range of
/// slots is spread as evenly as can be.
///
/// # Panics
/// If there are no shards.
#[inline]
#[must_use]
pub const fn shard_of(slot: u16, shards: usize) -> usize {
    slot as usize % shards
}

/// The shard of a key's slot, of so many.
#[inline]
pub fn shard_of_key(key: &[u8], shards: usize) -> usize {
    shard_of(slot_of(key).number(), shards)
}

/// `TABLES[n][byte]` is what `byte` contributes to the CRC when `n` bytes follow it.
static TABLES: [[u16; 256]; 8] = tables();

const fn tables() -> [[u16; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                crc << 1 ^ 0x1021
            };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut follow = 1;
    while follow < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before: u16 = tables[follow - 1][byte];
            tables[follow][byte] = before << 8 ^ tables[0][(before >> 8) as usize];
            byte += 1;
        }
        follow += 1;
    }
    tables
}

/// CRC16/XMODEM. A CRC is linear: eight bytes contribute independently of each other, so that their table look-ups
/// can run in parallel, unlike byte by byte. Only the two bytes that meet the present CRC depend on it. The odd bytes
/// come first, because the CRC is still zero there.
#[inline]
fn crc16(bytes: &[u8]) -> u16 {
    let (odd, blocks) = bytes.as_rchunks::<8>();
    let mut crc = 0u16;
    for (table, &byte) in TABLES.iter().zip(odd.iter().rev()) {
        crc ^= table[usize::from(byte)];
    }
    for &[a, b, c, d, e, f, g, h] in blocks {
        let [high, low] = crc.to_be_bytes();
        let ahead = TABLES[5][usize::from(c)]
            ^ TABLES[4][usize::from(d)]
            ^ TABLES[3][usize::from(e)]
            ^ TABLES[2][usize::from(f)]
            ^ TABLES[1][usize::from(g)]
            ^ TABLES[0][usize::from(h)];
        crc = ahead ^ (TABLES[7][usize::from(a ^ high)] ^ TABLES[6][usize::from(b ^ low)]);
    }
    crc
}

const WORD_BITS: usize = u64::BITS as usize;

/// A set of slots: one bit each, 2 KiB in all.
#[derive(Clone, PartialEq, Eq)]
pub struct SlotSet {
    words: [u64; SLOTS / WORD_BITS],
}

/// The size of a set as the cluster bus sends it.
pub const SLOT_SET_BYTES: usize = SLOTS / 8;

impl SlotSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        SlotSet {
            words: [0; SLOTS / WORD_BITS],
        }
    }

    /// The set of all slots.
    #[must_use]
    pub const fn all() -> Self {
        SlotSet {
            words: [u64::MAX; SLOTS / WORD_BITS],
        }
    }

    /// Adds `slot`; returns whether it was missing. O(1).
    pub fn insert(&mut self, slot: Slot) -> bool {
        let (word, bit) = Self::place(slot);
        let was_missing = self.words[word] & bit == 0;
        self.words[word] |= bit;
        was_missing
    }

    /// Removes `slot`; returns whether it was present. O(1).
    pub fn remove(&mut self, slot: Slot) -> bool {
        let (word, bit) = Self::place(slot);
        let was_there = self.words[word] & bit != 0;
        self.words[word] &= !bit;
        was_there
    }

    /// Whether `slot` is in the set. O(1).
    #[inline]
    #[must_use]
    pub fn contains(&self, slot: Slot) -> bool {
        let (word, bit) = Self::place(slot);
        self.words[word] & bit != 0
    }

    /// Number of slots in the set. O(number of slots / 64).
    #[must_use]
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether no slot is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// The slots of the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = Slot> {
        self.ranges()
            .flat_map(|range| (range.start().0..=range.end().0).map(Slot))
    }

    /// The longest ranges of slots that the set consists of, in order.
    pub fn ranges(&self) -> impl Iterator<Item = RangeInclusive<Slot>> {
        let mut from = 0;
        std::iter::from_fn(move || {
            let start = self.next(from, true)?;
            let end = self.next(start, false).unwrap_or(SLOTS);
            from = end;
            Some(Slot(start as u16)..=Slot(end as u16 - 1))
        })
    }

    /// The set as the cluster bus sends it: slot `n` is bit `n % 8`, counted from the lowest, of byte `n / 8`.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; SLOT_SET_BYTES] {
        let mut bytes = [0; SLOT_SET_BYTES];
        let (places, _) = bytes.as_chunks_mut::<8>();
        for (place, word) in places.iter_mut().zip(&self.words) {
            *place = word.to_le_bytes();
        }
        bytes
    }

    /// The set that [`SlotSet::to_bytes`] makes `bytes` of.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; SLOT_SET_BYTES]) -> Self {
        let mut set = SlotSet::new();
        let (places, _) = bytes.as_chunks::<8>();
        for (word, place) in set.words.iter_mut().zip(places) {
            *word = u64::from_le_bytes(*place);
        }
        set
    }

    /// The first number from `from` on that is in the set, or that is not.
    fn next(&self, from: usize, present: bool) -> Option<usize> {
        let flip = if present { 0 } else { u64::MAX };
        let mut word = from / WORD_BITS;
        let mut bits = (self.words.get(word)? ^ flip) & (u64::MAX << (from % WORD_BITS));
        while bits == 0 {
            word += 1;
            bits = self.words.get(word)? ^ flip;
        }
        Some(word * WORD_BITS + bits.trailing_zeros() as usize)
    }

    fn place(slot: Slot) -> (usize, u64) {
        (slot.index() / WORD_BITS, 1 << (slot.index() % WORD_BITS))
    }
}

impl Default for SlotSet {
    fn default() -> Self {
        SlotSet::new()
    }
}

impl Extend<Slot> for SlotSet {
    fn extend<T: IntoIterator<Item = Slot>>(&mut self, slots: T) {
        for slot in slots {
            self.insert(slot);
        }
    }
}

impl FromIterator<Slot> for SlotSet {
    fn from_iter<T: IntoIterator<Item = Slot>>(slots: T) -> Self {
        let mut set = SlotSet::new();
        set.extend(slots);
        set
    }
}

/// The notation of slots in `CLUSTER NODES`: `0-99 200`.
impl fmt::Display for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_ranges(f, self.ranges())
    }
}

/// Writes ranges as texts have them: `0-5460 7000`.
pub(crate) fn write_ranges(
    f: &mut impl fmt::Write,
    ranges: impl IntoIterator<Item = RangeInclusive<Slot>>,
) -> fmt::Result {
    for (index, range) in ranges.into_iter().enumerate() {
        let gap = if index == 0 { "" } else { " " };
        let (start, end) = range.into_inner();
        if start == end {
            write!(f, "{gap}{start}")?;
        } else {
            write!(f, "{gap}{start}-{end}")?;
        }
    }
    Ok(())
}

impl fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn slot(number: u16) -> Slot {
        Slot::new(number).unwrap()
    }

    #[test]
    fn a_slot_is_one_of_16384() {
        assert_eq!(Slot::new(16_383), Some(Slot::LAST));
        assert_eq!(Slot::new(16_384), None);
        assert_eq!(Slot::all().len(), SLOTS);
    }

    #[test]
    fn the_tag_is_what_the_first_braces_enclose() {
        for (key, tag) in [
            ("", ""),
            ("key", "key"),
            ("{user1000}.following", "user1000"),
            ("foo{}{bar}", "foo{}{bar}"),
            ("foo{{bar}}zap", "{bar"),
            ("foo{bar}{zap}", "bar"),
            ("foo{bar", "foo{bar"),
            ("foo}bar{x}", "x"),
            ("{", "{"),
            ("}{", "}{"),
            ("{}", "{}"),
            ("a{b}", "b"),
        ] {
            assert_eq!(hash_tag(key.as_bytes()), tag.as_bytes(), "{key}");
        }
    }

    /// The numbers are a real server's answers to CLUSTER KEYSLOT; the first CRC is the algorithm's published check.
    #[test]
    fn known_keys_fall_into_known_slots() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (key, number) in [
            ("", 0),
            ("foo", 12_182),
            ("bar", 5_061),
            ("hello", 866),
            ("somekey", 11_058),
            ("foo{hash_tag}", 2_515),
            ("{user1000}.following", 3_443),
            ("user1000", 3_443),
            ("key:000000000001", 8_924),
        ] {
            assert_eq!(slot_of(key.as_bytes()).number(), number, "{key}");
        }
    }

    #[test]
    fn ranges_are_maximal() {
        let mut set = SlotSet::new();
        assert_eq!((set.ranges().next(), set.is_empty()), (None, true));
        set.extend([0, 1, 2, 63, 64, 128, 16_382, 16_383].map(slot));
        assert_eq!(set.to_string(), "0-2 63-64 128 16382-16383");
        assert_eq!(format!("{set:?}"), "{0-2 63-64 128 16382-16383}");
        assert_eq!(SlotSet::all().to_string(), "0-16383");
        assert_eq!(SlotSet::all().len(), SLOTS);
        let mut all_but_one = SlotSet::all();
        assert!(all_but_one.remove(slot(16_383)));
        assert_eq!(all_but_one.to_string(), "0-16382");
    }

    #[test]
    fn bytes_are_in_the_order_of_the_bus() {
        let set: SlotSet = [slot(0), slot(9), slot(16_383)].into_iter().collect();
        let bytes = set.to_bytes();
        assert_eq!((bytes[0], bytes[1], bytes[2047]), (0b1, 0b10, 0b1000_0000));
        assert_eq!(bytes.iter().map(|byte| byte.count_ones()).sum::<u32>(), 3);
    }

    fn any_slot() -> impl Strategy<Value = Slot> {
        prop_oneof![0u16..200, 16_300u16..16_384, 0u16..16_384].prop_map(|number| Slot::new(number).unwrap())
    }

    proptest! {
        #[test]
        fn the_crc_is_that_of_the_crate(bytes in vec(any::<u8>(), 0..70)) {
            prop_assert_eq!(crc16(&bytes), crc16::State::<crc16::XMODEM>::calculate(&bytes));
        }

        #[test]
        fn a_tag_decides(prefix in "[^{]{0,9}", tag in "[^}]{1,20}", rest in ".{0,9}") {
            let key = format!("{prefix}{{{tag}}}{rest}");
            prop_assert_eq!(slot_of(key.as_bytes()).number(), crc16(tag.as_bytes()) % 16_384);
        }

        #[test]
        fn ranges_of_slots_spread_evenly(from in 0u16..16_384, len in 1usize..5_000, shards in 1usize..130) {
            let mut load = vec![0usize; shards];
            for number in (from..16_384).take(len) {
                load[shard_of(number, shards)] += 1;
            }
            prop_assert!(load.iter().max().unwrap() - load.iter().min().unwrap() <= 1);
        }

        #[test]
        fn a_set_is_a_set(
            inserted in btree_set(any_slot(), 0..300),
            removed in btree_set(any_slot(), 0..300),
        ) {
            let mut set: SlotSet = inserted.iter().copied().collect();
            let mut model: BTreeSet<Slot> = inserted;
            for &slot in &removed {
                prop_assert_eq!(set.contains(slot), model.contains(&slot));
                prop_assert_eq!(set.remove(slot), model.remove(&slot));
            }
            for &slot in removed.iter().step_by(3) {
                prop_assert_eq!(set.insert(slot), model.insert(slot));
                prop_assert!(!set.insert(slot));
            }
            prop_assert_eq!(set.len(), model.len());
            prop_assert_eq!(set.is_empty(), model.is_empty());
            prop_assert!(set.iter().eq(model.iter().copied()));
            prop_assert!(set.ranges().zip(set.ranges().skip(1)).all(|(a, b)| a.end().0 + 1 < b.start().0));
            prop_assert_eq!(SlotSet::from_bytes(&set.to_bytes()), set);
        }
    }
}
