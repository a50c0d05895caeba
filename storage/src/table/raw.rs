//! UNSAFE: buckets of tagged pointers to entries, grown by linear hashing.
//!
//! An entry is anything [`Keyed`], a pointer that leads to a key: entries of the keyspace, and elements of large
//! collections.
//!
//! ```text
//!  a bucket: 64 bytes, one cache line           a place: 8 bytes
//! +----+----+----+----+----+----+----+----+    +-----------+------------------------------+---+
//! | 0  | 1  | 2  | 3  | 4  | 5  | 6  | 7  |    | tag, 16   | address, 48                  | c |
//! +----+----+----+----+----+----+----+----+    +-----------+------------------------------+---+
//! ```
//! A place is empty (null), an entry with the top 16 bits of its hash, or, place 7 alone and told by the lowest bit, the
//! address of an overflow bucket.
//!
//! Invariants:
//! - The chain of a bucket is filled from the front without gaps; every overflow bucket holds at least two entries.
//! - An entry is in the chain of the bucket that `home` computes from its hash.
//! - Buckets `0..buckets` are initialised, those up to `capacity` only allocated.
//! - Every entry in the table is alive and its key does not change, as the code that inserts it promises. So reading
//!   keys is safe here, and so is the rest of the module.
//!
//! The table never owns an entry. Dropping the table frees only its buckets.

use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use rand::RngExt;
use rand::rngs::SmallRng;

use super::{Ahead, Keyed, SEGMENT_BUCKETS, TableStats, advance};
use crate::key::KeyHasher;
use crate::memory::{Zeroed, alloc, dealloc, usable_size};

/// Places in a bucket.
const PLACES: usize = 8;
/// The place that may hold the address of an overflow bucket.
const LAST: usize = PLACES - 1;
const BUCKET_BYTES: usize = size_of::<Bucket>();
const TAG_SHIFT: u32 = 48;
const ADDRESS_MASK: usize = (1 << TAG_SHIFT) - 1;
const CHAIN: usize = 1;

/// Splits above 13/2 entries a bucket, merges below 11/2.
const FULL: (u64, u64) = (13, 2);
const SPARSE: (u64, u64) = (11, 2);

/// A directory begins with room for this many segments.
const DIRECTORY_MIN: u32 = 8;

/// One place of a bucket.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Place(*mut u8);

impl Place {
    const EMPTY: Self = Self(ptr::null_mut());

    #[inline]
    fn entry(tag: u16, entry: impl Keyed) -> Self {
        Self(
            entry
                .as_ptr()
                .as_ptr()
                .map_addr(|address| address | usize::from(tag) << TAG_SHIFT),
        )
    }

    #[inline]
    fn chain(bucket: NonNull<Bucket>) -> Self {
        Self(bucket.as_ptr().cast::<u8>().map_addr(|address| address | CHAIN))
    }

    #[inline]
    fn is_empty(self) -> bool {
        self.0.is_null()
    }

    #[inline]
    fn tag(self) -> u16 {
        (self.0.addr() >> TAG_SHIFT) as u16
    }

    /// The entry here, in a place that is not a chain.
    #[inline]
    fn as_entry<P: Keyed>(self) -> Option<P> {
        let ptr = NonNull::new(self.0.map_addr(|address| address & ADDRESS_MASK))?;
        // SAFETY: places that are neither empty nor chains are made of entries only, in a table all of one type.
        Some(unsafe { P::from_ptr(ptr) })
    }

    /// The overflow bucket here, if the place is a chain.
    #[inline]
    fn as_chain(self) -> Option<NonNull<Bucket>> {
        if self.0.addr() & CHAIN == 0 {
            return None;
        }
        NonNull::new(self.0.map_addr(|address| address & !CHAIN).cast())
    }
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Bucket {
    places: [Place; PLACES],
}

const _: () = assert!(BUCKET_BYTES == 64 && TAG_SHIFT == 48);

impl Bucket {
    const EMPTY: Self = Self {
        places: [Place::EMPTY; PLACES],
    };

    /// One bit for each place that may hold an entry and carries `tag`; empty ones too when it is 0.
    ///
    /// Without branches: whether there is a chain is as good as random, and a wrong guess, found out only when the bucket
    /// arrives from memory, would keep the processor from working on the next command meanwhile.
    #[inline]
    fn matches(&self, tag: u16) -> u32 {
        let matches = self.tagged(tag);
        let chained = (self.places[LAST].0.addr() & CHAIN) as u32;
        matches & !(chained << LAST)
    }

    /// One bit for each place that carries `tag`, be it a chain or not.
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    fn tagged(&self, tag: u16) -> u32 {
        let places = self.places.iter().enumerate();
        places.fold(0, |tagged, (index, place)| {
            tagged | u32::from(place.tag() == tag) << index
        })
    }

    /// One bit for each place that carries `tag`, be it a chain or not: all eight compared at once, with instructions that
    /// every processor of this architecture has.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[inline]
    fn tagged(&self, tag: u16) -> u32 {
        use std::arch::x86_64::{
            __m128, __m128i, _mm_castps_si128, _mm_cmpeq_epi16, _mm_load_ps, _mm_movemask_epi8,
            _mm_packs_epi16, _mm_packs_epi32, _mm_set1_epi16, _mm_shuffle_ps, _mm_srai_epi32,
        };
        /// The upper halves of two places and of the two behind them.
        const UPPER_HALVES: i32 = 0b11_01_11_01;
        let pairs = ptr::from_ref(&self.places).cast::<f32>();
        // SAFETY: SSE2 is part of the architecture. A bucket is four aligned pairs of places, of which any bytes may be read
        // as numbers; no arithmetic is done on them.
        unsafe {
            let pair = |index: usize| -> __m128 { _mm_load_ps(pairs.add(index * 4)) };
            // A tag is the upper half of the upper half of a place: shifted down with its sign it fits 16 bits.
            let tags = |first: usize| -> __m128i {
                let upper = _mm_shuffle_ps::<UPPER_HALVES>(pair(first), pair(first + 1));
                _mm_srai_epi32::<16>(_mm_castps_si128(upper))
            };
            let all = _mm_packs_epi32(tags(0), tags(2));
            let equal = _mm_cmpeq_epi16(all, _mm_set1_epi16(tag.cast_signed()));
            // The mask has two bytes for each place, and one after another packing.
            (_mm_movemask_epi8(_mm_packs_epi16(equal, equal)) & 0xff).cast_unsigned()
        }
    }

    /// The bucket chained to this one.
    #[inline]
    fn next(&self) -> Option<NonNull<Self>> {
        self.places[LAST].as_chain()
    }

    /// The places that may hold entries.
    #[inline]
    fn own(&self) -> &[Place] {
        let end = if self.next().is_some() { LAST } else { PLACES };
        &self.places[..end]
    }

    /// Number of entries here, not counting those behind the chain.
    #[inline]
    fn len(&self) -> usize {
        self.own().iter().filter(|place| !place.is_empty()).count()
    }

    #[inline]
    fn entries<P: Keyed>(&self) -> impl Iterator<Item = P> + '_ {
        self.own().iter().map_while(|place| place.as_entry())
    }
}

/// Position of an entry. Good until the table changes in any other way than through the position.
#[derive(Clone, Copy)]
pub(crate) struct Position {
    home: NonNull<Bucket>,
    bucket: NonNull<Bucket>,
    place: usize,
}

/// A table of entries it does not own. All zero bytes are an empty table, which has allocated nothing.
pub(crate) struct RawTable<P: Keyed> {
    /// With `capacity` up to [`SEGMENT_BUCKETS`], the buckets; above, the directory of segments; null with none.
    root: *mut u8,
    len: usize,
    buckets: u32,
    /// Buckets allocated.
    capacity: u32,
    /// The next power of two from `buckets`, minus one.
    mask: u32,
    /// Overflow buckets.
    overflow: u32,
    /// Segments the directory has room for.
    directory: u32,
    entries: PhantomData<P>,
}

// SAFETY: the table owns its buckets; the entries are plain memory, for which the code that inserts them is
// responsible.
unsafe impl<P: Keyed> Send for RawTable<P> {}
// SAFETY: nothing changes through a shared reference.
unsafe impl<P: Keyed> Sync for RawTable<P> {}
// SAFETY: null, and zero for all figures, is what `new` gives.
unsafe impl<P: Keyed> Zeroed for RawTable<P> {}

impl<P: Keyed> RawTable<P> {
    pub(crate) const fn new() -> Self {
        Self {
            root: ptr::null_mut(),
            len: 0,
            buckets: 0,
            capacity: 0,
            mask: 0,
            overflow: 0,
            directory: 0,
            entries: PhantomData,
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The index of the bucket that entries of `hash` are in. There is at least one bucket.
    #[inline]
    fn index(&self, hash: u64) -> u32 {
        let index = hash as u32 & self.mask;
        // Addresses beyond the last bucket have not been split off yet: they are with their parents.
        if index < self.buckets {
            index
        } else {
            index & (self.mask >> 1)
        }
    }

    /// The bucket of that index, which is below `capacity`.
    #[inline]
    fn bucket(&self, index: u32) -> NonNull<Bucket> {
        debug_assert!(index < self.capacity);
        // SAFETY: below `capacity` the bucket is allocated, in the one array or in the segment the directory tells.
        unsafe {
            let start = if self.capacity <= SEGMENT_BUCKETS {
                return NonNull::new_unchecked(self.root.cast::<Bucket>().add(index as usize));
            } else {
                self.root
                    .cast::<*mut Bucket>()
                    .add((index / SEGMENT_BUCKETS) as usize)
                    .read()
            };
            NonNull::new_unchecked(start.add((index % SEGMENT_BUCKETS) as usize))
        }
    }

    #[inline]
    fn home(&self, hash: u64) -> NonNull<Bucket> {
        self.bucket(self.index(hash))
    }

    #[inline]
    fn tag(hash: u64) -> u16 {
        (hash >> TAG_SHIFT) as u16
    }

    /// Finds the entry that `wanted` accepts among those with the same tag of the hash.
    #[inline]
    fn find_by(&self, hash: u64, wanted: impl Fn(P) -> bool) -> Option<(Position, P)> {
        if self.buckets == 0 {
            return None;
        }
        let tag = Self::tag(hash);
        let home = self.home(hash);
        let mut at = home;
        loop {
            // SAFETY: buckets of a chain are alive, and nobody changes them while the table is borrowed.
            let bucket = unsafe { at.as_ref() };
            let mut matches = bucket.matches(tag);
            while matches != 0 {
                let place = matches.trailing_zeros() as usize;
                matches &= matches - 1;
                if let Some(entry) = bucket.places[place].as_entry()
                    && wanted(entry)
                {
                    return Some((
                        Position {
                            home,
                            bucket: at,
                            place,
                        },
                        entry,
                    ));
                }
            }
            at = bucket.next()?;
        }
    }

    /// Finds an entry by its key.
    #[inline]
    pub(crate) fn find(&self, hash: u64, key: &[u8]) -> Option<(Position, P)> {
        // SAFETY: entries in the table are alive.
        self.find_by(hash, |entry| unsafe { entry.key() } == key)
    }

    /// Finds an entry by its address, without looking at it.
    #[inline]
    pub(crate) fn find_entry(&self, hash: u64, entry: P) -> Option<Position> {
        self.find_by(hash, |other| other == entry)
            .map(|(position, _)| position)
    }

    /// Puts another entry in the place of the one at `position`.
    ///
    /// # Safety
    /// The position is of this table and still good; the key is the same; and as for [`RawTable::insert`].
    #[inline]
    pub(crate) unsafe fn replace(&mut self, position: Position, entry: P) {
        // SAFETY: a good position names a place that holds an entry.
        unsafe {
            let place = &mut (*position.bucket.as_ptr()).places[position.place];
            *place = Place::entry(place.tag(), entry);
        }
    }

    /// Adds an entry that the table does not have.
    ///
    /// # Safety
    /// `hash` is that of the entry's key by `hasher`, which is the one of all entries here. The entry stays alive and
    /// its key as it is until it is removed or the table is dropped or drained.
    #[inline]
    pub(crate) unsafe fn insert(&mut self, hash: u64, entry: P, hasher: &KeyHasher) {
        assert!(
            entry.as_ptr().addr().get() <= ADDRESS_MASK,
            "an address of more than 48 bits"
        );
        if self.buckets == 0 {
            self.set_capacity(1);
            self.push_bucket();
        }
        let home = self.home(hash);
        self.push(home, Place::entry(Self::tag(hash), entry));
        self.len += 1;
        if self.len as u64 * FULL.1 > u64::from(self.buckets) * FULL.0 {
            self.split(hasher);
        }
    }

    /// Takes an entry out.
    ///
    /// # Safety
    /// The position is of this table and still good.
    pub(crate) unsafe fn remove(&mut self, position: Position) {
        let (mut last, mut before) = (position.home, None);
        // SAFETY: the buckets of the chain are alive, and the table is borrowed mutably. The chain's last entry fills
        // the gap, and an overflow bucket that is left with one entry gives it back to the place that led to it.
        unsafe {
            while let Some(next) = last.as_ref().next() {
                before = Some(last);
                last = next;
            }
            let tail = last.as_ref().len() - 1;
            let moved = last.as_ref().places[tail];
            (*position.bucket.as_ptr()).places[position.place] = moved;
            (*last.as_ptr()).places[tail] = Place::EMPTY;
            if let Some(before) = before
                && tail == 1
            {
                (*before.as_ptr()).places[LAST] = last.as_ref().places[0];
                self.free_overflow(last);
            }
        }
        self.len -= 1;
        self.shrink();
    }

    /// Adds to the end of a chain.
    fn push(&mut self, home: NonNull<Bucket>, place: Place) {
        let mut at = home;
        // SAFETY: the buckets of the chain are alive, and the table is borrowed mutably.
        unsafe {
            while let Some(next) = at.as_ref().next() {
                at = next;
            }
            let len = at.as_ref().len();
            if len < PLACES {
                (*at.as_ptr()).places[len] = place;
                return;
            }
            let overflow = alloc(BUCKET_BYTES, BUCKET_BYTES).cast::<Bucket>();
            let mut bucket = Bucket::EMPTY;
            bucket.places[0] = at.as_ref().places[LAST];
            bucket.places[1] = place;
            overflow.write(bucket);
            (*at.as_ptr()).places[LAST] = Place::chain(overflow);
            self.overflow += 1;
        }
    }

    /// # Safety
    /// The overflow bucket is of this table and no chain leads to it any more.
    unsafe fn free_overflow(&mut self, bucket: NonNull<Bucket>) {
        // SAFETY: overflow buckets are allocated one by one.
        unsafe { dealloc(bucket.cast(), BUCKET_BYTES, BUCKET_BYTES) };
        self.overflow -= 1;
    }

    /// Empties the chain of a bucket and hands over what was in it.
    fn take_chain(&mut self, home: NonNull<Bucket>, mut each: impl FnMut(&mut Self, Place)) {
        // SAFETY: the buckets of the chain are alive; each overflow bucket is copied out and freed before what it held is
        // handed over, the home bucket emptied, so that no chain leads to what is freed.
        unsafe {
            let mut bucket = home.replace(Bucket::EMPTY);
            loop {
                let next = bucket.next().map(|next| {
                    let copy = next.read();
                    self.free_overflow(next);
                    copy
                });
                for place in bucket.own().iter().take_while(|place| !place.is_empty()) {
                    each(self, *place);
                }
                match next {
                    Some(next) => bucket = next,
                    None => return,
                }
            }
        }
    }

    /// Initialises one more bucket, for which there is room.
    fn push_bucket(&mut self) -> NonNull<Bucket> {
        let index = self.buckets;
        let bucket = self.bucket(index);
        // SAFETY: below `capacity` buckets are allocated.
        unsafe { bucket.write(Bucket::EMPTY) };
        self.buckets += 1;
        self.mask |= index;
        bucket
    }

    /// Splits the next bucket in turn.
    fn split(&mut self, hasher: &KeyHasher) {
        if self.buckets == self.capacity {
            if self.capacity > u32::MAX - SEGMENT_BUCKETS {
                // At 28 thousand million entries chains grow longer instead.
                return;
            }
            self.set_capacity(capacity_above(self.capacity));
        }
        let index = self.buckets;
        let child = self.push_bucket();
        let parent = self.bucket(index & (self.mask >> 1));
        let mask = self.mask;
        self.take_chain(parent, |table, place| {
            let Some(entry) = place.as_entry::<P>() else {
                return;
            };
            // SAFETY: entries in the table are alive.
            let hash = hasher.hash(unsafe { entry.key() });
            table.push(
                if hash as u32 & mask == index {
                    child
                } else {
                    parent
                },
                place,
            );
        });
        self.prefetch_next_split();
    }

    /// Asks for the entries the next split will have to hash, which then are there when it comes.
    #[inline]
    fn prefetch_next_split(&self) {
        let index = self.buckets;
        let parent = index & ((self.mask | index) >> 1);
        // SAFETY: buckets below `buckets` are initialised; a parent is.
        for entry in unsafe { self.bucket(parent).as_ref() }.entries::<P>() {
            prefetch(entry.as_ptr().as_ptr());
        }
    }

    /// Undoes splits while the table is sparse, at most two: removing one entry at a time it never lags behind.
    fn shrink(&mut self) {
        if self.len == 0 {
            self.free_all();
            return;
        }
        for _ in 0..2 {
            if self.buckets == 1 || self.len as u64 * SPARSE.1 >= u64::from(self.buckets) * SPARSE.0 {
                return;
            }
            self.merge();
        }
    }

    /// Merges the last bucket with its parent.
    fn merge(&mut self) {
        let index = self.buckets - 1;
        let parent = self.bucket(index & (self.mask >> 1));
        self.take_chain(self.bucket(index), |table, place| table.push(parent, place));
        self.pop_bucket();
    }

    /// Forgets the last bucket, which is empty and not the only one, and frees what room is not likely to be used soon.
    fn pop_bucket(&mut self) {
        self.buckets -= 1;
        if self.buckets == (self.mask >> 1) + 1 {
            self.mask >>= 1;
        }
        let wanted = capacity_below(self.capacity, self.buckets);
        if wanted < self.capacity {
            self.set_capacity(wanted);
        }
    }

    /// Allocates or frees room for buckets: one array up to a segment's size, one segment more or less beyond.
    #[cold]
    fn set_capacity(&mut self, capacity: u32) {
        debug_assert!(capacity >= self.buckets && capacity > 0);
        let old = self.capacity;
        // SAFETY: each case sets `root` to the form that its description gives for the new capacity, moves the buckets
        // in use, and frees what is not referred to any more, with the size it was allocated with.
        unsafe {
            if old > SEGMENT_BUCKETS && capacity > old {
                self.add_segment();
            } else if old > SEGMENT_BUCKETS {
                self.drop_segment();
            } else if capacity > SEGMENT_BUCKETS {
                // The array is as large as a segment and becomes the first.
                let directory = alloc(directory_bytes(DIRECTORY_MIN), 8).cast::<*mut Bucket>();
                directory.write(self.root.cast());
                self.root = directory.cast().as_ptr();
                self.directory = DIRECTORY_MIN;
                self.add_segment();
            } else {
                let moved = alloc(bucket_bytes(capacity), BUCKET_BYTES);
                if let Some(root) = NonNull::new(self.root) {
                    moved.copy_from_nonoverlapping(root, bucket_bytes(self.buckets));
                    dealloc(root, bucket_bytes(old), BUCKET_BYTES);
                }
                self.root = moved.as_ptr();
            }
        }
        self.capacity = capacity;
    }

    /// # Safety
    /// There is a directory, and `capacity` is a whole number of segments; the caller adds one.
    unsafe fn add_segment(&mut self) {
        let segments = self.capacity / SEGMENT_BUCKETS;
        // SAFETY: the directory has room for `directory` segments and holds `segments`; it moves before it overflows.
        // 8 bytes for 6,650 keys: copying it is no pause worth avoiding (120 KB at 100 million keys).
        unsafe {
            if segments == self.directory {
                let moved = alloc(directory_bytes(self.directory * 2), 8);
                let root = NonNull::new_unchecked(self.root);
                moved.copy_from_nonoverlapping(root, directory_bytes(segments));
                dealloc(root, directory_bytes(self.directory), 8);
                self.root = moved.as_ptr();
                self.directory *= 2;
            }
            let segment = alloc(bucket_bytes(SEGMENT_BUCKETS), BUCKET_BYTES).cast::<Bucket>();
            self.root
                .cast::<*mut Bucket>()
                .add(segments as usize)
                .write(segment.as_ptr());
        }
    }

    /// # Safety
    /// There is a directory of at least two segments, and no bucket of the last is in use; the caller takes one off.
    unsafe fn drop_segment(&mut self) {
        let last = self.capacity / SEGMENT_BUCKETS - 1;
        // SAFETY: the last segment is unused. When one remains it becomes the root and the directory goes.
        unsafe {
            let directory = self.root.cast::<*mut Bucket>();
            let segment = NonNull::new_unchecked(directory.add(last as usize).read());
            dealloc(segment.cast(), bucket_bytes(SEGMENT_BUCKETS), BUCKET_BYTES);
            if last == 1 {
                let first = directory.read();
                dealloc(
                    NonNull::new_unchecked(self.root),
                    directory_bytes(self.directory),
                    8,
                );
                self.root = first.cast();
                self.directory = 0;
            }
        }
    }

    /// Frees all buckets of a table that is empty, or whose entries are to be forgotten.
    fn free_all(&mut self) {
        while self.buckets > 0 {
            self.drain_bucket(|_| {});
        }
    }

    /// Empties and frees the last bucket and hands its entries to `each`, which owns them from then on if the owner
    /// of the table did. Until the table is empty, nothing else may be called: look-ups would miss entries.
    pub(crate) fn drain_bucket(&mut self, mut each: impl FnMut(P)) {
        let Some(index) = self.buckets.checked_sub(1) else {
            return;
        };
        if let Some(next) = index.checked_sub(1) {
            // SAFETY: buckets below `buckets` are initialised.
            for entry in unsafe { self.bucket(next).as_ref() }.entries::<P>() {
                prefetch(entry.as_ptr().as_ptr());
            }
        }
        self.take_chain(self.bucket(index), |table, place| {
            table.len -= 1;
            if let Some(entry) = place.as_entry() {
                each(entry);
            }
        });
        if index > 0 {
            self.pop_bucket();
            return;
        }
        // SAFETY: with one bucket left the capacity is below a segment's, so that the root is the array.
        unsafe {
            debug_assert!(self.capacity <= SEGMENT_BUCKETS && self.overflow == 0);
            dealloc(
                NonNull::new_unchecked(self.root),
                bucket_bytes(self.capacity),
                BUCKET_BYTES,
            );
        }
        // Nothing is left that dropping the old value would free.
        std::mem::forget(std::mem::replace(self, Self::new()));
    }

    /// Calls `visit` for every entry of a bucket and its chain.
    #[inline]
    fn visit_bucket(&self, index: u32, mut visit: impl FnMut(P)) {
        let mut at = Some(self.bucket(index));
        while let Some(bucket) = at {
            // SAFETY: the buckets of a chain are alive, and nobody changes them while the table is borrowed.
            let bucket = unsafe { bucket.as_ref() };
            bucket.entries().for_each(&mut visit);
            at = bucket.next();
        }
    }

    /// Calls `visit` for every entry.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(P)) {
        for index in 0..self.buckets {
            self.visit_bucket(index, &mut visit);
        }
    }

    /// The entries, in the order of the buckets.
    #[inline]
    pub(crate) fn iter(&self) -> Iter<'_, P> {
        Iter {
            table: self,
            bucket: &Bucket::EMPTY,
            place: 0,
            next: 0,
            left: self.len,
        }
    }

    /// Visits the bucket at `cursor` and returns the next cursor, 0 at the end.
    pub(crate) fn scan(&self, cursor: u32, visit: impl FnMut(P)) -> u32 {
        if self.buckets == 0 {
            return 0;
        }
        let mut index = cursor & self.mask;
        let half = self.mask >> 1;
        // The bucket's address is one bit shorter if it has not been split in the present round.
        let mut mask = self.mask;
        if index >= self.buckets {
            index &= half;
            mask = half;
        } else if index <= half && index + half + 1 >= self.buckets {
            mask = half;
        }
        self.visit_bucket(index, visit);
        advance(cursor, mask)
    }

    /// Visits the bucket at `index`, or the first one past the end: a ring that stays as it is between calls that change
    /// nothing. Returns the next index.
    pub(crate) fn visit_from(&self, index: u32, mut visit: impl FnMut(P)) -> u32 {
        if self.buckets == 0 {
            return 0;
        }
        let index = if index < self.buckets { index } else { 0 };
        self.visit_bucket(index, &mut visit);
        index + 1
    }

    /// A random entry, each with the same probability. Expected O(1).
    pub(crate) fn sample(&self, rng: &mut SmallRng) -> Option<P> {
        /// Tables up to this size are counted through, which is exact and cheap.
        const SMALL: usize = 32;
        /// No chain is longer: a bucket that is the next to be split has 11 entries on average, and one in ten millions of such
        /// buckets more than this.
        const CHAIN_MAX: usize = 32;
        /// With 5.5 entries a bucket one try in six hits; no table that has shrunk as it should needs so many.
        const TRIES: usize = 400;
        /// Number of buckets that are fetched from memory together, as the first one often has no entry at the chosen
        /// index.
        const TRIES_AT_ONCE: usize = 4;

        if self.len == 0 {
            return None;
        }
        if self.len <= SMALL {
            return self.nth(rng.random_range(0..self.len));
        }
        for _ in 0..TRIES / TRIES_AT_ONCE {
            // A bucket and one of as many places as the longest chain has: an entry is as likely as any other.
            let tries: [(u32, usize); TRIES_AT_ONCE] = std::array::from_fn(|_| {
                let index = rng.random_range(0..self.buckets);
                prefetch(self.bucket(index).as_ptr().cast());
                (index, rng.random_range(0..CHAIN_MAX))
            });
            for (index, place) in tries {
                if let Some(entry) = self.entry_at(index, place) {
                    return Some(entry);
                }
            }
        }
        self.nth(rng.random_range(0..self.len))
    }

    /// The entry at a place of a bucket's chain, if the chain is that long.
    fn entry_at(&self, index: u32, place: usize) -> Option<P> {
        let (mut seen, mut found) = (0, None);
        self.visit_bucket(index, |entry| {
            if seen == place {
                found = Some(entry);
            }
            seen += 1;
        });
        found
    }

    /// A random bucket of a table that has entries, which is asked for.
    pub(crate) fn random_bucket(&self, rng: &mut SmallRng) -> u32 {
        let index = rng.random_range(0..self.buckets);
        prefetch(self.bucket(index).as_ptr().cast());
        index
    }

    /// Visits some entries of a bucket, one on average over all buckets: each entry of the table with the same probability.
    pub(crate) fn sample_from(&self, bucket: u32, rng: &mut SmallRng, mut visit: impl FnMut(P)) {
        // Every so many-th one, as a bucket has entries on average, from a random one on. Both are multiplied by the number of
        // buckets, which makes them whole.
        let (step, width) = (self.len as u64, u64::from(self.buckets));
        let mut next = rng.random_range(0..step);
        let mut end = 0;
        self.visit_bucket(bucket, |entry| {
            end += width;
            while next < end {
                next += step;
                visit(entry);
            }
        });
    }

    /// Visits the entries of some buckets that stand together, which are about `count`, and one if there is any: each entry
    /// of the table with the same probability, as buckets are visited as a whole, the full ones as often as the sparse ones. What
    /// stands together is chance, as hashes are, and costs a fraction of as many samples: neighbours share their buckets'
    /// cache lines, and their own are fetched all at once.
    ///
    /// The places of the samples to come are asked for ahead of time, in two steps, so that none waits for memory.
    pub(crate) fn sample_run(
        &self,
        count: usize,
        ahead: &mut Ahead,
        rng: &mut SmallRng,
        mut visit: impl FnMut(P),
    ) {
        if self.len == 0 {
            return;
        }
        let run = self.buckets_of(count);
        for index in self.run(ahead.bucket(2, self.buckets), run) {
            prefetch(self.bucket(index).as_ptr().cast());
        }
        for index in self.run(ahead.bucket(1, self.buckets), run) {
            self.visit_bucket(index, |entry| prefetch(entry.as_ptr().as_ptr()));
        }
        let mut found = false;
        for index in self.run(ahead.bucket(0, self.buckets), run) {
            self.visit_bucket(index, |entry| {
                found = true;
                visit(entry);
            });
        }
        ahead.advance();
        if !found && let Some(entry) = self.sample(rng) {
            visit(entry);
        }
    }

    /// Number of buckets that have `count` entries or somewhat more on average; not more than there are.
    fn buckets_of(&self, count: usize) -> u32 {
        let buckets = u64::from(self.buckets);
        (count as u64 * buckets).div_ceil(self.len as u64).min(buckets) as u32
    }

    /// The indexes of so many buckets from one on, in a ring.
    fn run(&self, first: u32, count: u32) -> impl Iterator<Item = u32> + use<P> {
        let buckets = self.buckets;
        (first..first + count).map(move |index| if index < buckets { index } else { index - buckets })
    }

    /// The entry of that number in the table's order.
    fn nth(&self, number: usize) -> Option<P> {
        let mut left = number;
        let mut chosen = None;
        for index in 0..self.buckets {
            self.visit_bucket(index, |entry| {
                if left == 0 && chosen.is_none() {
                    chosen = Some(entry);
                }
                left = left.saturating_sub(1);
            });
            if chosen.is_some() {
                break;
            }
        }
        chosen
    }

    /// Asks for the bucket of `hash`.
    #[inline]
    pub(crate) fn prefetch_bucket(&self, hash: u64) {
        if self.buckets > 0 {
            prefetch(self.home(hash).as_ptr().cast());
        }
    }

    /// Asks for the entry of `hash`, going by the tag; the bucket should have arrived.
    #[inline]
    pub(crate) fn prefetch_entry(&self, hash: u64) {
        if self.buckets == 0 {
            return;
        }
        // SAFETY: the bucket is alive, and nobody changes it while the table is borrowed.
        let bucket = unsafe { self.home(hash).as_ref() };
        let matches = bucket.matches(Self::tag(hash));
        if matches == 0 {
            if let Some(next) = bucket.next() {
                prefetch(next.as_ptr().cast());
            }
            return;
        }
        let entry = bucket.places[matches.trailing_zeros() as usize]
            .0
            .map_addr(|a| a & ADDRESS_MASK);
        prefetch(entry);
        // Entries are not aligned to lines: key and value mostly reach into the next.
        prefetch(entry.wrapping_add(56));
    }

    pub(crate) fn stats(&self) -> TableStats {
        let buckets = if self.capacity <= SEGMENT_BUCKETS {
            if self.capacity == 0 {
                0
            } else {
                usable_size(bucket_bytes(self.capacity))
            }
        } else {
            (self.capacity / SEGMENT_BUCKETS) as usize * bucket_bytes(SEGMENT_BUCKETS)
        };
        let directory = if self.directory == 0 {
            0
        } else {
            usable_size(directory_bytes(self.directory))
        };
        TableStats {
            entries: self.len,
            buckets: self.buckets as usize,
            overflow_buckets: self.overflow as usize,
            bytes: buckets + directory + self.overflow as usize * BUCKET_BYTES,
        }
    }
}

/// The entries of a table.
pub(crate) struct Iter<'a, P: Keyed> {
    table: &'a RawTable<P>,
    /// Its place: a bucket, of those behind their homes or not, and the index in it.
    bucket: &'a Bucket,
    place: usize,
    /// The bucket after that one and its chain.
    next: u32,
    left: usize,
}

impl<'a, P: Keyed> Iter<'a, P> {
    /// The bucket to go on with when this one is exhausted.
    #[inline]
    fn following(&mut self) -> Option<&'a Bucket> {
        if let Some(chained) = self.bucket.next() {
            // SAFETY: the buckets of a chain are alive, and nobody changes them while the table is borrowed.
            return Some(unsafe { chained.as_ref() });
        }
        if self.next == self.table.buckets {
            return None;
        }
        let bucket = self.table.bucket(self.next);
        self.next += 1;
        if self.next < self.table.buckets {
            // The next entries are prefetched together, while those of this bucket are visited.
            // SAFETY: buckets below `buckets` are initialised.
            for entry in unsafe { self.table.bucket(self.next).as_ref() }.entries::<P>() {
                prefetch(entry.as_ptr().as_ptr());
            }
        }
        // SAFETY: as above.
        Some(unsafe { bucket.as_ref() })
    }
}

impl<P: Keyed> Iterator for Iter<'_, P> {
    type Item = P;

    #[inline]
    fn next(&mut self) -> Option<P> {
        loop {
            let place = self.bucket.own().get(self.place);
            if let Some(entry) = place.and_then(|place| place.as_entry()) {
                self.place += 1;
                self.left -= 1;
                return Some(entry);
            }
            self.bucket = self.following()?;
            self.place = 0;
        }
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<P: Keyed> Drop for RawTable<P> {
    fn drop(&mut self) {
        self.free_all();
    }
}

#[inline]
const fn bucket_bytes(buckets: u32) -> usize {
    buckets as usize * BUCKET_BYTES
}

#[inline]
const fn directory_bytes(segments: u32) -> usize {
    segments as usize * size_of::<*mut Bucket>()
}

/// The capacity that follows: steps of a quarter, which are size classes, up to a segment; then segments.
fn capacity_above(capacity: u32) -> u32 {
    if capacity >= SEGMENT_BUCKETS {
        return capacity + SEGMENT_BUCKETS;
    }
    capacity + (1 << capacity.ilog2() >> 2).max(1)
}

/// The capacity to keep for `buckets`: the present one until half of the array, or a segment and a quarter, is
/// unused; then less, but with a spare step, so that the table does not grow again at once.
fn capacity_below(capacity: u32, buckets: u32) -> u32 {
    if capacity > SEGMENT_BUCKETS {
        let unused = buckets + SEGMENT_BUCKETS + SEGMENT_BUCKETS / 4 <= capacity;
        return if unused {
            capacity - SEGMENT_BUCKETS
        } else {
            capacity
        };
    }
    if buckets <= capacity / 2 {
        capacity_above(buckets).min(capacity)
    } else {
        capacity
    }
}

/// Asks the processor for the line at an address, which need not be valid.
#[inline]
pub(crate) fn prefetch(address: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch has no effect but on the cache.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    // SAFETY: a prefetch has no effect but on the cache.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use rand::SeedableRng as _;

    use super::*;
    use crate::entry::{EntryBox, EntryPtr, NewValue};
    use crate::memory::thread_balance;

    const HASHER: KeyHasher = KeyHasher::new(23);

    fn name(n: u32) -> [u8; 4] {
        n.to_le_bytes()
    }

    proptest! {
        #[test]
        fn places_are_found_by_their_tags(tags in proptest::array::uniform8(0u16..4), high: bool, address: u32) {
            let tag_of = |tag: u16| if high { tag | 0x8000 } else { tag };
            let place = |tag| Place(ptr::without_provenance_mut(usize::from(tag_of(tag)) << TAG_SHIFT | address as usize & !1));
            let bucket = Bucket { places: tags.map(place) };
            for tag in 0..4 {
                let expected = (0..PLACES).filter(|&index| tags[index] == tag).map(|index| 1 << index).sum::<u32>();
                prop_assert_eq!(bucket.matches(tag_of(tag)), expected);
            }
            prop_assert_eq!(bucket.matches(tag_of(4)), 0);
        }
    }

    fn put(table: &mut RawTable<EntryPtr>, n: u32) -> EntryPtr {
        let entry = EntryBox::new(&name(n), 0, None, NewValue::Int(0)).into_ptr();
        // SAFETY: the hash is that of the key, and the entry lives until `take`.
        unsafe { table.insert(HASHER.hash(&name(n)), entry, &HASHER) };
        entry
    }

    fn take(table: &mut RawTable<EntryPtr>, n: u32, entry: EntryPtr) {
        let position = table.find_entry(HASHER.hash(&name(n)), entry).unwrap();
        // SAFETY: the position was just found, and with the removal the entry is ours again.
        unsafe {
            table.remove(position);
            drop(EntryBox::from_ptr(entry));
        }
    }

    /// Checks what the header of the file promises.
    fn check(table: &RawTable<EntryPtr>) {
        assert!(table.buckets <= table.capacity);
        assert!(table.buckets == 0 || table.mask == table.buckets.next_power_of_two() - 1);
        let (mut entries, mut overflow) = (0, 0);
        for index in 0..table.buckets {
            let mut at = Some(table.bucket(index));
            while let Some(bucket) = at {
                // SAFETY: buckets in use are alive.
                let bucket = unsafe { bucket.as_ref() };
                let is_overflow = at != Some(table.bucket(index));
                overflow += u32::from(is_overflow);
                assert!(
                    !is_overflow || bucket.len() >= 2,
                    "an overflow bucket for one entry"
                );
                assert_eq!(bucket.entries::<EntryPtr>().count(), bucket.len(), "a gap");
                assert!(bucket.next().is_none() || bucket.len() == LAST);
                for entry in bucket.entries::<EntryPtr>() {
                    // SAFETY: entries in the table are alive.
                    let hash = HASHER.hash(unsafe { entry.key() });
                    assert_eq!(table.index(hash), index, "an entry is not at home");
                    entries += 1;
                }
                at = bucket.next();
            }
        }
        assert_eq!((entries, overflow), (table.len, table.overflow));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 3 } else { 40 }))]
        #[test]
        fn invariants_hold_at_any_size(
            waves in proptest::collection::vec((0u32..if cfg!(miri) { 60 } else { 9000 }, any::<bool>()), 1..8)
        ) {
            let start = thread_balance();
            let mut table = RawTable::new();
            let mut present: HashMap<u32, EntryPtr> = HashMap::new();
            for (count, add) in waves {
                for n in 0..count {
                    if add {
                        present.entry(n).or_insert_with(|| put(&mut table, n));
                    } else if let Some(entry) = present.remove(&n) {
                        take(&mut table, n, entry);
                    }
                    if n % 701 == 0 {
                        check(&table);
                    }
                }
                check(&table);
                prop_assert_eq!(table.len(), present.len());
                for (n, entry) in &present {
                    let found = table.find(HASHER.hash(&name(*n)), &name(*n));
                    prop_assert_eq!(found.map(|(_, found)| found), Some(*entry));
                }
            }
            let entry_bytes = 24 * present.len() as i64;
            prop_assert_eq!(thread_balance() - start, table.stats().bytes as i64 + entry_bytes);
            let mut left = present.len();
            while table.len() > 0 {
                // SAFETY: the table gives the entry up.
                table.drain_bucket(|entry| unsafe {
                    left -= 1;
                    drop(EntryBox::from_ptr(entry));
                });
            }
            prop_assert_eq!(left, 0);
            drop(table);
            prop_assert_eq!(thread_balance(), start);
        }
    }

    /// A table of the keys that have a number.
    struct Numbered {
        table: RawTable<EntryPtr>,
        entries: HashMap<EntryAddress, u32>,
    }

    type EntryAddress = usize;

    fn address(entry: EntryPtr) -> EntryAddress {
        entry.as_ptr().addr().get()
    }

    impl Numbered {
        fn with(count: u32) -> Self {
            let mut numbered = Self {
                table: RawTable::new(),
                entries: HashMap::new(),
            };
            numbered.grow(count);
            numbered
        }

        /// Adds keys until there are so many.
        fn grow(&mut self, count: u32) {
            for n in self.entries.len() as u32..count {
                let entry = put(&mut self.table, n);
                self.entries.insert(address(entry), n);
            }
        }

        /// Takes those with the highest numbers out, until so many are left.
        fn shrink(&mut self, count: u32) {
            let mut going: Vec<(u32, EntryPtr)> = Vec::new();
            self.table.for_each(|entry| {
                let n = self.entries[&address(entry)];
                if n >= count {
                    going.push((n, entry));
                }
            });
            for (n, entry) in going {
                take(&mut self.table, n, entry);
                self.entries.remove(&address(entry));
            }
        }
    }

    impl Drop for Numbered {
        fn drop(&mut self) {
            self.shrink(0);
        }
    }

    /// Asserts that all numbers were drawn about equally often.
    fn assert_alike(hits: &[u32], tolerance_percent: u32, what: &str) {
        let mean = hits.iter().sum::<u32>() / hits.len() as u32;
        let (least, most) = (hits.iter().min().unwrap(), hits.iter().max().unwrap());
        assert!(
            *least >= mean * (100 - tolerance_percent) / 100
                && *most <= mean * (100 + tolerance_percent) / 100,
            "{what}: {least} to {most} times, {mean} on average"
        );
    }

    #[test]
    #[cfg_attr(miri, ignore = "it counts what is drawn very often")]
    fn runs_draw_every_entry_equally_often_at_any_fill() {
        for size in [1, 5, 12, 70, 850, 1000, 1100, 1300, 1600] {
            for count in [1, 5, 10, 64] {
                let mut numbered = Numbered::with(size * 2);
                numbered.shrink(size);
                let (mut ahead, mut rng) = (Ahead::default(), SmallRng::seed_from_u64(1));
                let mut hits = vec![0; size as usize];
                for _ in 0..300 * numbered.table.buckets {
                    numbered.table.sample_run(count, &mut ahead, &mut rng, |entry| {
                        hits[numbered.entries[&address(entry)] as usize] += 1;
                    });
                }
                assert_alike(&hits, 10, &format!("{size} entries, {count} at a time"));
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "it counts what is drawn very often")]
    fn runs_draw_every_entry_equally_often_while_the_table_grows_and_shrinks() {
        const SIZE: u32 = 1000;
        let mut numbered = Numbered::with(SIZE);
        let (mut ahead, mut rng) = (Ahead::default(), SmallRng::seed_from_u64(1));
        let mut hits = vec![0; SIZE as usize];
        let mut draw = |numbered: &Numbered| {
            for _ in 0..30 {
                numbered.table.sample_run(5, &mut ahead, &mut rng, |entry| {
                    let n = numbered.entries[&address(entry)] as usize;
                    hits.get_mut(n).into_iter().for_each(|hits| *hits += 1);
                });
            }
        };
        for size in SIZE..3 * SIZE {
            numbered.grow(size);
            draw(&numbered);
        }
        for size in (SIZE..3 * SIZE).rev() {
            numbered.shrink(size);
            draw(&numbered);
        }
        assert_alike(&hits, 20, "in the midst of changes");
    }

    #[test]
    #[cfg_attr(miri, ignore = "it counts what is drawn very often")]
    fn buckets_of_any_fill_give_up_each_entry_equally_often() {
        for size in [1, 5, 12, 70, 1000, 1300] {
            let numbered = Numbered::with(size);
            let mut rng = SmallRng::seed_from_u64(1);
            let mut hits = vec![0; size as usize];
            for _ in 0..2000 {
                for bucket in 0..numbered.table.buckets {
                    numbered.table.sample_from(bucket, &mut rng, |entry| {
                        hits[numbered.entries[&address(entry)] as usize] += 1;
                    });
                }
            }
            assert_alike(&hits, 30, &format!("{size} entries"));
        }
    }

    /// Samples are drawn evenly, as the chi-square test sees it, also where some buckets are about to be split and have twice as many
    /// entries as others, some of them long chains.
    #[test]
    #[cfg_attr(miri, ignore = "it counts what is drawn very often")]
    fn single_samples_are_even() {
        const DRAWS: u32 = 400;
        for size in [20, 33, 100, 700, 1000, 1200, 1340, 1400] {
            let numbered = Numbered::with(size);
            let mut rng = SmallRng::seed_from_u64(7);
            let mut hits = vec![0_u32; size as usize];
            for _ in 0..size * DRAWS {
                let entry = numbered.table.sample(&mut rng).unwrap();
                hits[numbered.entries[&address(entry)] as usize] += 1;
            }
            let mean = f64::from(DRAWS);
            let chi_square: f64 = hits
                .iter()
                .map(|&hits| (f64::from(hits) - mean).powi(2) / mean)
                .sum();
            let freedom = f64::from(size - 1);
            // The statistic has this mean and twice that variance; four deviations are one seed in thirty thousand.
            let deviations = (chi_square - freedom) / (2.0 * freedom).sqrt();
            assert!(
                deviations.abs() < 4.0,
                "{size} entries: {deviations:.1} standard deviations"
            );
        }
    }

    #[test]
    fn the_first_array_becomes_a_segment_without_a_gap_in_capacities() {
        let mut capacity = 1;
        while capacity < SEGMENT_BUCKETS {
            let next = capacity_above(capacity);
            assert!(next > capacity && next <= SEGMENT_BUCKETS);
            assert_eq!(
                usable_size(bucket_bytes(next)),
                bucket_bytes(next),
                "{next} buckets are a size class"
            );
            capacity = next;
        }
        assert_eq!(capacity, SEGMENT_BUCKETS);
    }
}
