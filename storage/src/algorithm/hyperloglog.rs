//! HyperLogLog over plain bytes: how many distinct elements were seen, to within a percent, in at most 12 KiB.
//!
//! The bytes are those of Redis, so that a value moves both ways. A header of 16 bytes:
//!
//! ```text
//!  0..4    4          5..8     8..16
//! +------+----------+--------+----------------------------------------------------+
//! | HYLL | encoding | unused | cardinality, little endian; bit 63 set: out of date |
//! +------+----------+--------+----------------------------------------------------+
//! ```
//! Behind it stand 16,384 registers. Dense (encoding 0), they take 6 bits each, the first in the lowest bits. Sparse
//! (encoding 1), they are runs:
//!
//! ```text
//! 00nnnnnn            n + 1 registers of 0
//! 01nnnnnn nnnnnnnn   n + 1 registers of 0
//! 1vvvvvnn            n + 1 registers of v + 1
//! ```
//! An element's hash (MurmurHash64A) chooses a register by its low 14 bits; the register keeps the longest row of zeros
//! that the other bits of such hashes began with, plus one. The estimate is that of Otmar Ertl, "New cardinality
//! estimation algorithms for HyperLogLog sketches", 2017.
//!
//! Values come from clients and may hold any bytes; no code here panics because of them. Runs that do not add up to all
//! registers are [`Corrupt`].

use std::fmt;

/// The seed that all values share: without it they could not be merged.
const SEED: u64 = 0xadc8_3b19;

/// Bits of a hash that choose the register.
const INDEX_BITS: u32 = 14;
/// Bits of a hash that are looked at for zeros.
const PATTERN_BITS: u32 = 64 - INDEX_BITS;
/// Number of registers.
pub const REGISTERS: usize = 1 << INDEX_BITS;
/// A register has 6 bits: 64 values, of which 0 to 51 occur.
const REGISTER_VALUES: usize = 64;

const MAGIC: &[u8; 4] = b"HYLL";
const HEADER: usize = 16;
const ENCODING_AT: usize = 4;
/// Position of the cardinality's last byte, whose highest bit marks the cardinality as outdated.
const STALE_AT: usize = HEADER - 1;
const STALE: u8 = 1 << 7;

/// Length of a dense value.
pub const DENSE_BYTES: usize = HEADER + REGISTERS * 6 / 8;

/// The highest value that a run of the sparse encoding can have.
const RUN_VALUE_MAX: u8 = 32;
/// The most registers of a value other than 0 in one run.
const RUN_LEN_MAX: usize = 4;
/// The most registers of 0 in a run of one byte.
const SHORT_ZEROS_MAX: usize = 64;
/// Number of runs that are looked at for neighbours to be joined, from the one before a change on.
const RUNS_JOINED: usize = 5;

/// Representation of the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// 6 bits each.
    Dense,
    /// Registers as runs.
    Sparse,
}

impl Encoding {
    /// The name that PFDEBUG ENCODING shows.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Sparse => "sparse",
        }
    }

    /// The encoding of a value, by its header and length; `None` if the bytes are no HyperLogLog.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < HEADER || !bytes.starts_with(MAGIC) {
            return None;
        }
        match bytes[ENCODING_AT] {
            0 if bytes.len() == DENSE_BYTES => Some(Self::Dense),
            1 => Some(Self::Sparse),
            _ => None,
        }
    }
}

/// The runs of a sparse value do not describe all registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt;

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the runs of a sparse HyperLogLog do not describe its registers")
    }
}

impl std::error::Error for Corrupt {}

/// The register that an element concerns, and the least value that it gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Observation {
    index: usize,
    value: u8,
}

impl Observation {
    #[inline]
    fn of(element: &[u8]) -> Self {
        let hash = murmur_64a(element);
        // A bit behind the last one bounds the row of zeros.
        let pattern = hash >> INDEX_BITS | 1 << PATTERN_BITS;
        Self {
            index: hash as usize & (REGISTERS - 1),
            value: pattern.trailing_zeros() as u8 + 1,
        }
    }
}

/// MurmurHash64A, by Austin Appleby, over little-endian words.
fn murmur_64a(bytes: &[u8]) -> u64 {
    const MULTIPLIER: u64 = 0xc6a4_a793_5bd1_e995;
    const SHIFT: u32 = 47;
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(MULTIPLIER);
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        let mut word = u64::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        word ^= word >> SHIFT;
        hash = (hash ^ word.wrapping_mul(MULTIPLIER)).wrapping_mul(MULTIPLIER);
    }
    if !tail.is_empty() {
        let mut word = [0; 8];
        word[..tail.len()].copy_from_slice(tail);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(MULTIPLIER);
    }
    hash = (hash ^ hash >> SHIFT).wrapping_mul(MULTIPLIER);
    hash ^ hash >> SHIFT
}

/// The cardinality that a value remembers; `None` if it is out of date.
#[must_use]
pub fn cached_cardinality(bytes: &[u8]) -> Option<u64> {
    let cardinality = *bytes.get(8..HEADER)?.first_chunk()?;
    (bytes[STALE_AT] & STALE == 0).then(|| u64::from_le_bytes(cardinality))
}

/// Has a value remember its cardinality.
pub fn cache_cardinality(bytes: &mut [u8], cardinality: u64) {
    if let Some(place) = bytes.get_mut(8..HEADER) {
        place.copy_from_slice(&cardinality.to_le_bytes());
    }
}

fn forget_cardinality(bytes: &mut [u8]) {
    if let Some(byte) = bytes.get_mut(STALE_AT) {
        *byte |= STALE;
    }
}

/// Adds elements to a dense value in place, and returns how many of them changed it. Bytes of any other length stay as they
/// are. O(1) for each element.
pub fn add_to_dense<'e>(bytes: &mut [u8], elements: impl Iterator<Item = &'e [u8]>) -> u64 {
    if bytes.len() != DENSE_BYTES {
        return 0;
    }
    let mut changes = 0;
    for element in elements {
        changes += u64::from(raise_dense(&mut bytes[HEADER..], Observation::of(element)));
    }
    if changes > 0 {
        forget_cardinality(bytes);
    }
    changes
}

/// Raises a register of 6 bits, unless it is as high already. `registers` are all of them.
#[inline]
fn raise_dense(registers: &mut [u8], Observation { index, value }: Observation) -> bool {
    // Four registers share three bytes; the last of a group begins in its last byte and ends there.
    let group = &mut registers[index / 4 * 3..][..3];
    let shift = index % 4 * 6;
    let word = u32::from_le_bytes([group[0], group[1], group[2], 0]);
    if word >> shift & 0x3f >= u32::from(value) {
        return false;
    }
    let word = word & !(0x3f << shift) | u32::from(value) << shift;
    group.copy_from_slice(&word.to_le_bytes()[..3]);
    true
}

/// The four registers of a group of three bytes.
#[inline]
fn unpack([a, b, c]: [u8; 3]) -> [u8; 4] {
    [a & 0x3f, a >> 6 | b << 2 & 0x3f, b >> 4 | c << 4 & 0x3f, c >> 2]
}

/// A run of equal registers in the sparse encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Value of each of them.
    pub value: u8,
    /// Number of registers in the run.
    pub len: usize,
    /// Whether it was written in two bytes.
    pub is_long: bool,
}

impl Run {
    /// The run at the start of these bytes; `None` where they end too early.
    #[inline]
    fn read(bytes: &[u8]) -> Option<Self> {
        let (&first, rest) = bytes.split_first()?;
        Some(match first >> 6 {
            0 => Self {
                value: 0,
                len: usize::from(first & 0x3f) + 1,
                is_long: false,
            },
            1 => Self {
                value: 0,
                len: (usize::from(first & 0x3f) << 8 | usize::from(*rest.first()?)) + 1,
                is_long: true,
            },
            _ => Self {
                value: (first >> 2 & 0x1f) + 1,
                len: usize::from(first & 0x03) + 1,
                is_long: false,
            },
        })
    }

    /// Size in bytes.
    #[inline]
    const fn size(self) -> usize {
        if self.is_long { 2 } else { 1 }
    }
}

/// Runs about to be written: a change splits one into three at most.
#[derive(Default)]
struct NewRuns {
    bytes: [u8; 5],
    len: usize,
}

impl NewRuns {
    fn push(&mut self, value: u8, len: usize) {
        match (value, len) {
            (_, 0) => {}
            (0, 1..=SHORT_ZEROS_MAX) => self.push_byte(len as u8 - 1),
            (0, _) => {
                let [high, low] = (len as u16 - 1).to_be_bytes();
                self.push_byte(0x40 | high);
                self.push_byte(low);
            }
            _ => self.push_byte(value_run(value, len)),
        }
    }

    fn push_byte(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// A run of 1 to [`RUN_LEN_MAX`] registers of 1 to [`RUN_VALUE_MAX`].
#[inline]
fn value_run(value: u8, len: usize) -> u8 {
    0x80 | (value - 1) << 2 | (len as u8 - 1)
}

/// The runs of a sparse value, in order. The last item is an error if they break off, or describe too few or too many
/// registers.
pub fn runs(bytes: &[u8]) -> impl Iterator<Item = Result<Run, Corrupt>> {
    let mut rest = bytes.get(HEADER..).unwrap_or_default();
    let mut registers = 0;
    let mut is_over = false;
    std::iter::from_fn(move || {
        if is_over || (rest.is_empty() && registers == REGISTERS) {
            return None;
        }
        let run = Run::read(rest).filter(|run| registers + run.len <= REGISTERS);
        let Some(run) = run else {
            is_over = true;
            return Some(Err(Corrupt));
        };
        registers += run.len;
        rest = &rest[run.size()..];
        Some(Ok(run))
    })
}

/// A position among the runs of a sparse value from which a look-up may start.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Start of the run.
    at: usize,
    /// The first register of that run.
    first: usize,
}

impl Place {
    const START: Self = Self { at: HEADER, first: 0 };
}

/// Result of raising a register of a sparse value. A look-up for a later register may start at the place.
enum Raised {
    /// No: the register was as high already.
    No(Place),
    /// Yes: the register has been raised.
    Yes(Place),
    /// The sparse encoding cannot hold it, or would become too long.
    TooMuch,
}

/// A HyperLogLog being changed: the bytes of its value.
///
/// ```
/// use shardis_storage::algorithm::hyperloglog::{Sketch, cardinality};
/// let mut sketch = Sketch::new();
/// assert_eq!(sketch.add(b"a", 3000), Ok(true));
/// assert_eq!(sketch.add(b"a", 3000), Ok(false));
/// assert_eq!(cardinality(sketch.as_bytes()), Ok(1));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sketch {
    /// Always a header, of an encoding that exists, and all registers where it is dense.
    bytes: Vec<u8>,
}

impl Default for Sketch {
    fn default() -> Self {
        Self::new()
    }
}

impl Sketch {
    /// An empty HyperLogLog: sparse, in 18 bytes.
    #[must_use]
    pub fn new() -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[..MAGIC.len()].copy_from_slice(MAGIC);
        bytes[ENCODING_AT] = 1;
        let mut runs = NewRuns::default();
        runs.push(0, REGISTERS);
        bytes.extend_from_slice(runs.as_bytes());
        Self { bytes }
    }

    /// Reads the HyperLogLog of a value; `None` if the value holds none. The runs of a sparse one are not checked yet.
    #[must_use]
    pub fn load(value: &[u8]) -> Option<Self> {
        Encoding::of(value)?;
        Some(Self {
            bytes: value.to_vec(),
        })
    }

    /// The value.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Marks the cardinality that the value remembers as out of date.
    pub fn forget_cardinality(&mut self) {
        forget_cardinality(&mut self.bytes);
    }

    /// Representation of the registers.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        match self.bytes[ENCODING_AT] {
            0 => Encoding::Dense,
            _ => Encoding::Sparse,
        }
    }

    /// Adds an element; true if that changed something. A sparse value that would take more than `sparse_bytes_max` becomes
    /// dense. O(1) if dense, else O(runs).
    ///
    /// # Errors
    /// [`Corrupt`], and nothing has changed.
    pub fn add(&mut self, element: &[u8], sparse_bytes_max: usize) -> Result<bool, Corrupt> {
        let mut place = Place::START;
        self.raise(Observation::of(element), sparse_bytes_max, &mut place)
    }

    /// Raises all registers to merged ones, which include their own values: the result of PFMERGE. The value becomes
    /// dense if one of the merged ones was dense. O(registers).
    ///
    /// # Errors
    /// [`Corrupt`].
    pub fn raise_all(&mut self, merged: &Registers, sparse_bytes_max: usize) -> Result<(), Corrupt> {
        if merged.any_dense {
            self.make_dense()?;
        }
        let mut place = Place::START;
        for (index, &value) in merged.values.iter().enumerate() {
            if value > 0 {
                self.raise(Observation { index, value }, sparse_bytes_max, &mut place)?;
            }
        }
        forget_cardinality(&mut self.bytes);
        Ok(())
    }

    /// Raises a register. `place` is where to look for it, if sparse, and then where to look for a later one.
    fn raise(
        &mut self,
        observation: Observation,
        sparse_bytes_max: usize,
        place: &mut Place,
    ) -> Result<bool, Corrupt> {
        let raised = match self.encoding() {
            Encoding::Dense => raise_dense(&mut self.bytes[HEADER..], observation),
            Encoding::Sparse => match self.raise_sparse(observation, sparse_bytes_max, *place)? {
                Raised::No(next) => {
                    *place = next;
                    false
                }
                Raised::Yes(next) => {
                    *place = next;
                    true
                }
                Raised::TooMuch => {
                    self.make_dense()?;
                    raise_dense(&mut self.bytes[HEADER..], observation)
                }
            },
        };
        if raised {
            forget_cardinality(&mut self.bytes);
        }
        Ok(raised)
    }

    /// The runs that a change produces, and the neighbours that are joined, are exactly those of Redis: equal
    /// histories give equal bytes.
    fn raise_sparse(
        &mut self,
        Observation { index, value }: Observation,
        bytes_max: usize,
        from: Place,
    ) -> Result<Raised, Corrupt> {
        if value > RUN_VALUE_MAX {
            return Ok(Raised::TooMuch);
        }
        let mut place = from;
        // The run before, and the one before that.
        let (mut previous, mut before) = (from, from);
        let run = loop {
            let run = Run::read(self.bytes.get(place.at..).unwrap_or_default()).ok_or(Corrupt)?;
            if index < place.first + run.len {
                break run;
            }
            (before, previous) = (previous, place);
            place = Place {
                at: place.at + run.size(),
                first: place.first + run.len,
            };
        };
        if run.value >= value {
            return Ok(Raised::No(before));
        }
        let mut new = NewRuns::default();
        new.push(run.value, index - place.first);
        new.push(value, 1);
        new.push(run.value, place.first + run.len - index - 1);
        if new.len > run.size() && self.bytes.len() + new.len - run.size() > bytes_max {
            return Ok(Raised::TooMuch);
        }
        self.replace(place.at, run.size(), new.as_bytes());
        self.join_equals(previous.at);
        // Joining may have changed the run before, but not the one before that.
        Ok(Raised::Yes(before))
    }

    /// Replaces `len` bytes by a few others.
    fn replace(&mut self, at: usize, len: usize, new: &[u8]) {
        match len.cmp(&new.len()) {
            std::cmp::Ordering::Equal => self.bytes[at..at + len].copy_from_slice(new),
            _ => drop(self.bytes.splice(at..at + len, new.iter().copied())),
        }
    }

    /// Joins neighbouring runs of the same value, other than 0, among the few from this one on.
    fn join_equals(&mut self, mut at: usize) {
        for _ in 0..RUNS_JOINED {
            let Some(run) = Run::read(self.bytes.get(at..).unwrap_or_default()) else {
                return;
            };
            let next = at + run.size();
            let neighbour = Run::read(self.bytes.get(next..).unwrap_or_default());
            if let Some(neighbour) = neighbour
                && run.value > 0
                && run.value == neighbour.value
                && run.len + neighbour.len <= RUN_LEN_MAX
            {
                self.bytes[next] = value_run(run.value, run.len + neighbour.len);
                // The joined run is looked at again: it may have a neighbour to be joined with in turn.
                self.bytes.remove(at);
            } else {
                at = next;
            }
        }
    }

    /// Turns a sparse value into a dense one; false if it is dense already. O(registers).
    ///
    /// # Errors
    /// [`Corrupt`], and nothing has changed.
    pub fn make_dense(&mut self) -> Result<bool, Corrupt> {
        if self.encoding() == Encoding::Dense {
            return Ok(false);
        }
        let mut dense = vec![0; DENSE_BYTES];
        dense[..HEADER].copy_from_slice(&self.bytes[..HEADER]);
        dense[ENCODING_AT] = 0;
        let mut index = 0;
        for run in runs(&self.bytes) {
            let Run { value, len, .. } = run?;
            if value > 0 {
                for index in index..index + len {
                    raise_dense(&mut dense[HEADER..], Observation { index, value });
                }
            }
            index += len;
        }
        self.bytes = dense;
        Ok(true)
    }
}

/// Registers of a byte each: what several values are merged in.
#[derive(Clone)]
pub struct Registers {
    values: Box<[u8; REGISTERS]>,
    any_dense: bool,
}

impl Default for Registers {
    fn default() -> Self {
        Self::new()
    }
}

impl Registers {
    /// Registers that have seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            values: Box::new([0; REGISTERS]),
            any_dense: false,
        }
    }

    /// The registers of one value, which must be a HyperLogLog.
    ///
    /// # Errors
    /// [`Corrupt`].
    pub fn of(value: &[u8]) -> Result<Self, Corrupt> {
        let mut registers = Self::new();
        registers.merge(value)?;
        Ok(registers)
    }

    /// Shows them an element. O(1).
    pub fn observe(&mut self, element: &[u8]) {
        let Observation { index, value } = Observation::of(element);
        self.values[index] = self.values[index].max(value);
    }

    /// Each of them.
    #[must_use]
    pub fn values(&self) -> &[u8; REGISTERS] {
        &self.values
    }

    /// Raises them to those of a value, which must be a HyperLogLog. O(registers).
    ///
    /// # Errors
    /// [`Corrupt`].
    pub fn merge(&mut self, value: &[u8]) -> Result<(), Corrupt> {
        match Encoding::of(value).ok_or(Corrupt)? {
            Encoding::Dense => {
                self.any_dense = true;
                let (groups, _) = value[HEADER..].as_chunks::<3>();
                let (mine, _) = self.values.as_chunks_mut::<4>();
                for (mine, group) in mine.iter_mut().zip(groups) {
                    for (mine, other) in mine.iter_mut().zip(unpack(*group)) {
                        *mine = (*mine).max(other);
                    }
                }
            }
            Encoding::Sparse => {
                let mut index = 0;
                for run in runs(value) {
                    let Run { value, len, .. } = run?;
                    for mine in &mut self.values[index..index + len] {
                        *mine = (*mine).max(value);
                    }
                    index += len;
                }
            }
        }
        Ok(())
    }

    /// The estimate of how many distinct elements they have seen. O(registers).
    #[must_use]
    pub fn cardinality(&self) -> u64 {
        let mut histogram = Histogram::new();
        for &value in &*self.values {
            histogram.add(value, 1);
        }
        histogram.estimate()
    }
}

impl fmt::Debug for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registers")
            .field("any_dense", &self.any_dense)
            .finish_non_exhaustive()
    }
}

/// The estimate of how many distinct elements a value has seen, which must be a HyperLogLog. What it remembers is not
/// looked at. O(registers).
///
/// # Errors
/// [`Corrupt`].
pub fn cardinality(value: &[u8]) -> Result<u64, Corrupt> {
    let mut histogram = Histogram::new();
    match Encoding::of(value).ok_or(Corrupt)? {
        Encoding::Dense => {
            let (groups, _) = value[HEADER..].as_chunks::<3>();
            for group in groups {
                for value in unpack(*group) {
                    histogram.add(value, 1);
                }
            }
        }
        Encoding::Sparse => {
            for run in runs(value) {
                let Run { value, len, .. } = run?;
                histogram.add(value, len as u32);
            }
        }
    }
    Ok(histogram.estimate())
}

/// Number of registers by value: all that the estimate needs to know.
struct Histogram([u32; REGISTER_VALUES]);

impl Histogram {
    const fn new() -> Self {
        Self([0; REGISTER_VALUES])
    }

    #[inline]
    fn add(&mut self, value: u8, registers: u32) {
        self.0[usize::from(value) % REGISTER_VALUES] += registers;
    }

    /// Ertl's estimate, algorithm 6 of his paper.
    fn estimate(&self) -> u64 {
        /// The limit of the bias correction for many registers: 1 / (2 ln 2).
        const ALPHA: f64 = 0.721_347_520_444_481_7;
        let registers = REGISTERS as f64;
        let highest = PATTERN_BITS as usize;
        let count = |value: usize| f64::from(self.0[value]);
        let mut z = registers * tau((registers - count(highest + 1)) / registers);
        for value in (1..=highest).rev() {
            z = (z + count(value)) * 0.5;
        }
        z += registers * sigma(count(0) / registers);
        (ALPHA * registers * registers / z).round() as u64
    }
}

/// Contribution of the registers that are still 0: x + Σ 2ᵏ⁻¹ x^(2ᵏ), infinite for 1.
fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut power, mut sum) = (1.0, x);
    loop {
        let before = sum;
        x *= x;
        sum += x * power;
        power += power;
        if sum == before {
            return sum;
        }
    }
}

/// Contribution of the registers that are full: (1 - x - Σ 2⁻ᵏ (1 - x^(2⁻ᵏ))²) / 3.
fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut power, mut sum) = (1.0, 1.0 - x);
    loop {
        let before = sum;
        x = x.sqrt();
        power *= 0.5;
        sum -= (1.0 - x) * (1.0 - x) * power;
        if sum == before {
            return sum / 3.0;
        }
    }
}

/// Tries the arithmetic of this file on the machine it runs on: registers keep what they are given, estimates stay within
/// six times the standard error, and both encodings agree. Takes a fraction of a second.
///
/// # Errors
/// The first property that does not hold.
pub fn self_test(seed: u64) -> Result<(), String> {
    registers_keep_values(seed)?;
    estimates_are_close(seed)
}

fn registers_keep_values(seed: u64) -> Result<(), String> {
    let mut packed = vec![0; DENSE_BYTES];
    packed[..MAGIC.len()].copy_from_slice(MAGIC);
    for index in 0..REGISTERS {
        let value = murmur_64a(&(seed ^ index as u64).to_le_bytes()) as u8 % REGISTER_VALUES as u8;
        raise_dense(&mut packed[HEADER..], Observation { index, value });
        let group = index / 4 * 3 + HEADER;
        let read = unpack([packed[group], packed[group + 1], packed[group + 2]])[index % 4];
        if read != value {
            return Err(format!("register {index} was set to {value} and holds {read}"));
        }
    }
    Ok(())
}

fn estimates_are_close(seed: u64) -> Result<(), String> {
    /// Number of elements added.
    const ELEMENTS: u64 = 1_000_000;
    /// Up to so many, the sparse encoding takes part.
    const SPARSE_ELEMENTS: u64 = 1000;
    let standard_error = 1.04 / (REGISTERS as f64).sqrt();
    let (mut dense, mut sparse) = (Sketch::new(), Sketch::new());
    // A new value is never corrupt.
    let _ = dense.make_dense();
    let mut checkpoint = 1;
    for added in 1..=ELEMENTS {
        let element = (added ^ seed).to_le_bytes();
        let _ = dense.add(&element, 0);
        if added <= SPARSE_ELEMENTS {
            let _ = sparse.add(&element, usize::MAX);
        }
        if added < checkpoint {
            continue;
        }
        let estimate = cardinality(dense.as_bytes()).unwrap_or(0);
        if added <= SPARSE_ELEMENTS && cardinality(sparse.as_bytes()) != Ok(estimate) {
            return Err(format!("the encodings disagree on {added} elements"));
        }
        // Two elements that share a register are more than the standard error explains where there are only a few.
        let allowed = (6.0 * standard_error * added as f64).ceil() as u64 + u64::from(added <= 100);
        if estimate.abs_diff(added) > allowed {
            return Err(format!("{added} elements are estimated as {estimate}"));
        }
        checkpoint *= 10;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The directive's default.
    const SPARSE_MAX: usize = 3000;

    fn filled(elements: impl Iterator<Item = u32>) -> Sketch {
        let mut sketch = Sketch::new();
        for element in elements {
            sketch.add(&element.to_le_bytes(), SPARSE_MAX).unwrap();
        }
        sketch
    }

    #[test]
    fn a_new_one_is_a_header_and_one_run() {
        assert_eq!(
            Sketch::new().as_bytes(),
            b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\0\x7f\xff"
        );
        assert_eq!(cached_cardinality(Sketch::new().as_bytes()), Some(0));
        assert_eq!(cardinality(Sketch::new().as_bytes()), Ok(0));
    }

    #[test]
    fn hashes_are_those_of_the_published_function() {
        // Computed with an independent implementation in another language.
        for (text, hash) in HASHES {
            assert_eq!(murmur_64a(text.as_bytes()), *hash, "{text}");
        }
    }

    const HASHES: &[(&str, u64)] = &[
        ("", 0xd8df_ea65_85bc_9732),
        ("a", 0x53d2_470a_9b43_b1a7),
        ("redis", 0xe0ac_091e_c900_a4fb),
        ("12345678", 0x95eb_b863_8913_2953),
        ("123456789", 0x2175_32cb_09f2_a44d),
    ];

    #[test]
    fn a_run_is_split_and_joined() {
        let runs_of = |sketch: &Sketch| {
            runs(sketch.as_bytes())
                .map(|run| run.map(|run| (run.value, run.len)))
                .collect::<Result<Vec<_>, _>>()
                .unwrap()
        };
        let raise = |sketch: &mut Sketch, index, value| {
            let mut place = Place::START;
            sketch
                .raise(Observation { index, value }, SPARSE_MAX, &mut place)
                .unwrap()
        };
        let mut sketch = Sketch::new();
        assert!(raise(&mut sketch, 100, 3));
        assert_eq!(runs_of(&sketch), [(0, 100), (3, 1), (0, 16_283)]);
        assert!(raise(&mut sketch, 101, 3) && raise(&mut sketch, 99, 3));
        assert_eq!(runs_of(&sketch), [(0, 99), (3, 3), (0, 16_282)]);
        assert!(!raise(&mut sketch, 100, 2));
        assert!(raise(&mut sketch, 100, 32));
        assert_eq!(runs_of(&sketch), [(0, 99), (3, 1), (32, 1), (3, 1), (0, 16_282)]);
        assert!(raise(&mut sketch, 0, 1) && raise(&mut sketch, 16_383, 1));
        assert_eq!(sketch.encoding(), Encoding::Sparse);
        assert!(raise(&mut sketch, 5, 33));
        assert_eq!(sketch.encoding(), Encoding::Dense);
        let registers = Registers::of(sketch.as_bytes()).unwrap();
        for (index, value) in [
            (0, 1),
            (5, 33),
            (99, 3),
            (100, 32),
            (101, 3),
            (102, 0),
            (16_383, 1),
        ] {
            assert_eq!(registers.values()[index], value, "{index}");
        }
    }

    #[test]
    fn what_is_no_value_is_told_apart() {
        let mut dense = filled(0..10);
        dense.make_dense().unwrap();
        assert_eq!(Encoding::of(dense.as_bytes()), Some(Encoding::Dense));
        assert_eq!(Encoding::of(&dense.as_bytes()[..DENSE_BYTES - 1]), None);
        assert_eq!(Encoding::of(b"HYLL"), None);
        assert_eq!(Encoding::of(b"HYLL\x02\0\0\0\0\0\0\0\0\0\0\0\x7f\xff"), None);
        assert_eq!(Encoding::of(b"HYLX\x01\0\0\0\0\0\0\0\0\0\0\0\x7f\xff"), None);
        for runs in [&b""[..], b"\x7f", b"\x7f\xfe", b"\x7f\xff\x00", b"\x00\x7f\xff"] {
            let mut bytes = b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80".to_vec();
            bytes.extend_from_slice(runs);
            assert_eq!(cardinality(&bytes), Err(Corrupt), "{runs:?}");
            assert_eq!(
                Sketch::load(&bytes).unwrap().make_dense(),
                Err(Corrupt),
                "{runs:?}"
            );
            assert_eq!(Registers::of(&bytes).unwrap_err(), Corrupt, "{runs:?}");
        }
    }

    #[test]
    fn it_grows_dense_and_counts_on() {
        let sketch = filled(0..100_000);
        assert_eq!(sketch.encoding(), Encoding::Dense);
        let estimate = cardinality(sketch.as_bytes()).unwrap();
        assert!(estimate.abs_diff(100_000) < 3000, "{estimate}");
        assert_eq!(cached_cardinality(sketch.as_bytes()), None);
        let mut bytes = sketch.as_bytes().to_vec();
        cache_cardinality(&mut bytes, estimate);
        assert_eq!(cached_cardinality(&bytes), Some(estimate));
        assert_eq!(
            add_to_dense(&mut bytes, [&1_u32.to_le_bytes()[..]].into_iter()),
            0
        );
        assert_eq!(cached_cardinality(&bytes), Some(estimate));
    }

    #[test]
    fn the_self_test_passes() {
        for seed in [0, 1, 0x1234_5678_9abc_def0] {
            assert_eq!(self_test(seed), Ok(()));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn merging_is_union(a in 0_u32..5000, b in 0_u32..5000, overlap in 0_u32..2000, dense in any::<bool>()) {
            let (start, end) = (a.saturating_sub(overlap), a.saturating_sub(overlap) + b);
            let (mut one, other) = (filled(0..a), filled(start..end));
            if dense {
                one.make_dense().unwrap();
            }
            let mut merged = Registers::of(one.as_bytes()).unwrap();
            merged.merge(other.as_bytes()).unwrap();
            let union = filled(0..a.max(end));
            let in_union = Registers::of(union.as_bytes()).unwrap();
            prop_assert_eq!(merged.values(), in_union.values());
            prop_assert_eq!(merged.cardinality(), cardinality(union.as_bytes()).unwrap());
            one.raise_all(&merged, SPARSE_MAX).unwrap();
            let raised = Registers::of(one.as_bytes()).unwrap();
            prop_assert_eq!(raised.values(), merged.values());
            prop_assert!(!dense || one.encoding() == Encoding::Dense);
        }

        #[test]
        fn going_on_from_a_place_is_the_same_as_looking_from_the_start(
            raised in proptest::collection::btree_map(0_usize..400, 1_u8..4, 0..200),
            given in proptest::collection::vec((0_usize..400, 1_u8..4), 0..100),
        ) {
            let mut one = Sketch::new();
            for (index, value) in given {
                one.raise(Observation { index, value }, SPARSE_MAX, &mut Place::START.clone()).unwrap();
            }
            let mut other = one.clone();
            let mut place = Place::START;
            for (index, value) in raised {
                let observation = Observation { index, value };
                let changed = one.raise(observation, SPARSE_MAX, &mut Place::START.clone()).unwrap();
                prop_assert_eq!(other.raise(observation, SPARSE_MAX, &mut place).unwrap(), changed);
            }
            prop_assert_eq!(one, other);
        }

        #[test]
        fn both_encodings_say_the_same(elements in proptest::collection::vec(any::<u16>(), 0..800)) {
            let sparse = filled(elements.iter().map(|&element| u32::from(element)));
            let mut dense = Sketch::new();
            dense.make_dense().unwrap();
            let mut bytes = dense.as_bytes().to_vec();
            let texts: Vec<_> = elements.iter().map(|&element| u32::from(element).to_le_bytes()).collect();
            add_to_dense(&mut bytes, texts.iter().map(|text| &text[..]));
            prop_assert_eq!(cardinality(sparse.as_bytes()), cardinality(&bytes));
            let (sparse, dense) = (Registers::of(sparse.as_bytes()).unwrap(), Registers::of(&bytes).unwrap());
            prop_assert_eq!(sparse.values(), dense.values());
        }

        #[test]
        fn estimates_keep_their_error(count in 1_u32..200_000, start in any::<u32>()) {
            let mut dense = Sketch::new();
            dense.make_dense().unwrap();
            for element in 0..count {
                dense.add(&start.wrapping_add(element).to_le_bytes(), 0).unwrap();
            }
            let estimate = cardinality(dense.as_bytes()).unwrap();
            let allowed = (f64::from(count) * 6.0 * 0.0082).ceil() as u64 + 1;
            prop_assert!(estimate.abs_diff(u64::from(count)) <= allowed, "{estimate} for {count}");
        }

        #[test]
        fn no_bytes_cause_a_panic(
            header in prop_oneof![Just(b"HYLL\x01".to_vec()), Just(b"HYLL\x00".to_vec()), any::<Vec<u8>>()],
            runs in any::<Vec<u8>>(),
            elements in proptest::collection::vec(any::<[u8; 4]>(), 1..20),
            max in 0_usize..200,
        ) {
            let mut bytes = header;
            bytes.resize(HEADER, 0);
            bytes.extend_from_slice(&runs);
            try_all(&bytes, &elements, max);
            bytes.resize(DENSE_BYTES, 0xa5);
            bytes[..5].copy_from_slice(b"HYLL\x00");
            try_all(&bytes, &elements, max);
        }
    }

    fn try_all(bytes: &[u8], elements: &[[u8; 4]], max: usize) {
        let _ = cardinality(bytes);
        let _ = cached_cardinality(bytes);
        let registers = Registers::of(bytes);
        let Some(mut sketch) = Sketch::load(bytes) else {
            return;
        };
        for element in elements {
            let before = sketch.clone();
            if sketch.add(element, max).is_err() {
                assert_eq!(sketch, before);
            }
        }
        if let Ok(registers) = registers {
            assert_eq!(sketch.raise_all(&registers, max), Ok(()));
        }
        let _ = sketch.make_dense();
    }
}
