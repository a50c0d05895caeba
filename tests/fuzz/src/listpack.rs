//! One run over arbitrary bytes taken for a pack, as a snapshot or a migrated key may bring them: what is accepted can be
//! read in any way, says the same each time, and survives being changed; what a collection makes of it likewise.
//!
//! The same body runs under the fuzzer and, over seeded data, as a plain test of the `storage` crate.

use shardis_storage::encoding::intset::Intset;
use shardis_storage::encoding::listpack::Listpack;
use shardis_storage::key::KeyHasher;
use shardis_storage::value::hash::{Hash, HashLimits};
use shardis_storage::value::set::{Set, SetLimits};
use shardis_storage::value::sorted_set::{SortedSet, SortedSetLimits};
use shardis_storage::value::{INT_TEXT_MAX, StringRef};

/// The first two bytes of a run, which say how the others are taken; behind them stand the bytes.
const PLAN_BYTES: usize = 2;

/// Place of the number of elements in the header of a pack.
const COUNT: std::ops::Range<usize> = 4..6;

/// Panics if a pack, an intset or a collection contradicts itself over `data`.
pub(crate) fn check(data: &[u8]) {
    let Some((&[framed, at], bytes)) = data.split_first_chunk::<PLAN_BYTES>() else {
        return;
    };
    let bytes = if framed & 1 == 0 {
        bytes.to_vec()
    } else {
        frame(bytes)
    };
    if let Some(pack) = Listpack::from_bytes(&bytes) {
        check_pack(&pack, &bytes);
        check_changes(pack.clone(), usize::from(at));
        check_collections(pack);
    }
    if let Some(ints) = Intset::from_bytes(&bytes) {
        assert_eq!(ints.as_bytes(), bytes);
        assert!(ints.iter().is_sorted());
        assert!(ints.iter().all(|int| ints.contains(int)));
    }
}

/// The elements in `bytes` with the header and the end that a pack of them has: else hardly any data were a pack.
fn frame(bytes: &[u8]) -> Vec<u8> {
    let total = u32::try_from(bytes.len() + 7).expect("a run is far below 4 GiB");
    let unknown_count = [0xff, 0xff];
    [&total.to_le_bytes()[..], &unknown_count, bytes, &[0xff]].concat()
}

fn text(element: StringRef<'_>) -> Vec<u8> {
    element.as_bytes(&mut [0; INT_TEXT_MAX]).to_vec()
}

/// Checks that a pack reads the same in both directions and by position, and that its elements are found.
fn check_pack(pack: &Listpack, bytes: &[u8]) {
    let written = pack.to_bytes();
    assert_eq!((written.len(), pack.byte_len()), (bytes.len(), bytes.len()));
    // Only a count that the header left open may be told now.
    let count_is_open = bytes[COUNT] == [0xff, 0xff];
    assert!(count_is_open || written[COUNT] == bytes[COUNT]);
    assert_eq!(
        (&written[..COUNT.start], &written[COUNT.end..]),
        (&bytes[..COUNT.start], &bytes[COUNT.end..])
    );
    let elements: Vec<_> = pack.iter().map(text).collect();
    assert_eq!(elements.len(), pack.len());
    let mut backwards: Vec<_> = pack.iter().rev().map(text).collect();
    backwards.reverse();
    assert_eq!(backwards, elements);
    let mut position = pack.first();
    for element in &elements {
        let here = position.expect("there is a position for each element");
        assert_eq!(text(pack.at(here)), *element);
        assert!(pack.equals(here, element) && pack.contains(element));
        position = pack.next(here);
    }
    assert_eq!(position, None);
    // Written anew, the elements are the same, whatever encodings they had.
    let mut again = Listpack::new();
    elements.iter().for_each(|element| again.push_back(element));
    assert!(again.iter().map(text).eq(elements));
    assert!(Listpack::from_bytes(&again.to_bytes()).is_some());
}

/// Checks that an accepted pack stays one when it is changed.
fn check_changes(mut pack: Listpack, at: usize) {
    let len = pack.len();
    pack.push_front(b"first");
    pack.push_back(b"-1000");
    let index = isize::try_from(at % (len + 2)).unwrap_or_default();
    if let Some(position) = pack.seek(index) {
        pack.replace(position, b"a longer text than most others");
        pack.remove(position);
    }
    assert_eq!(pack.len(), len + 1);
    assert!(Listpack::from_bytes(&pack.to_bytes()).is_some());
}

/// A collection has what its pack has, and none is made of a pack that is not one.
fn check_collections(pack: Listpack) {
    let hasher = KeyHasher::new(7);
    let elements = pack.len();
    let hash_limits = HashLimits {
        listpack_entries: 8,
        listpack_value: 16,
        hasher,
    };
    if let Some(hash) = Hash::from_listpack(pack.clone(), &hash_limits) {
        assert_eq!(
            (hash.len() * 2, hash.iter(i64::MIN).count() * 2),
            (elements, elements)
        );
    }
    if let Some(hash) = Hash::from_listpack_ex(&pack, &hash_limits) {
        assert_eq!(hash.len() * 3, elements);
    }
    let set_limits = SetLimits {
        intset_entries: 8,
        listpack_entries: 8,
        listpack_value: 16,
        hasher,
    };
    if let Some(set) = Set::from_listpack(pack.clone(), &set_limits) {
        assert_eq!((set.len(), set.iter().count()), (elements, elements));
    }
    let sorted_limits = SortedSetLimits {
        listpack_entries: 8,
        listpack_value: 16,
        hasher,
    };
    if let Some(set) = SortedSet::from_listpack(pack, &sorted_limits) {
        assert_eq!(set.len() * 2, elements);
        assert!(set.iter().map(|(_, score)| score).is_sorted());
    }
}
