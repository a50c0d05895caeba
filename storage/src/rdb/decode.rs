//! Values out of bytes: every type and encoding of Redis 2.8 to 8 and of Valkey, checked down to each element.
//!
//! Redis checks packs of a payload only on demand (`sanitize-dump-payload`); here nothing gets in unchecked. A value
//! comes out in the encoding that it has under the present thresholds, whatever it had when it was written.

mod old;
mod stream;
#[cfg(test)]
mod tests;

use super::opcode::{kind, node};
use super::reader::{Error, Reader, Source};
use crate::encoding::intset::Intset;
use crate::encoding::listpack::Listpack;
use crate::key::KeyHasher;
use crate::number::parse_f64;
use crate::value::hash::{FieldExpiry, Hash, HashLimits};
use crate::value::list::{End, List, ListLimits};
use crate::value::set::{Set, SetLimits};
use crate::value::sorted_set::{SortedSet, SortedSetBuilder, SortedSetLimits};
use crate::value::{Collection, INT_TEXT_MAX, Owned, StringRef};

/// Longest pack that is accepted, bytes. Servers do not let them grow beyond half of that.
const PACK_BYTES_MAX: usize = 1 << 31;

/// The latest expiry of a field.
const FIELD_EXPIRY_MAX: u64 = (1 << 48) - 1;

const BAD_LISTPACK: Error = Error::Corrupt("a listpack that is none");
const BAD_EXPIRY: Error = Error::Corrupt("an expiry of a field out of range");
const NOT_DISTINCT: Error = Error::Corrupt("a member or field twice");

/// Family of servers. Each writes some types that the other does not know, one of them under the same number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Redis.
    #[default]
    Redis,
    /// Valkey from 9.0 on. Before, it wrote what Redis does.
    Valkey,
}

/// Thresholds of the encodings of all types.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Thresholds of lists.
    pub list: ListLimits,
    /// Thresholds of sets.
    pub set: SetLimits,
    /// Thresholds of hashes.
    pub hash: HashLimits,
    /// Thresholds of sorted sets.
    pub sorted_set: SortedSetLimits,
}

impl Limits {
    /// The thresholds of a server without a configuration, and a hash function for the tables.
    #[must_use]
    pub fn defaults(hasher: KeyHasher) -> Self {
        let mut limits = Self::alike(ListLimits::default(), 128, 64, hasher);
        limits.set.intset_entries = 512;
        limits
    }

    /// The same thresholds for all collections but lists: elements that a pack or an intset may have, and their bytes.
    #[must_use]
    pub fn alike(list: ListLimits, entries: usize, value: usize, hasher: KeyHasher) -> Self {
        Self {
            list,
            set: SetLimits {
                intset_entries: entries,
                listpack_entries: entries,
                listpack_value: value,
                hasher,
            },
            hash: HashLimits {
                listpack_entries: entries,
                listpack_value: value,
                hasher,
            },
            sorted_set: SortedSetLimits {
                listpack_entries: entries,
                listpack_value: value,
                hasher,
            },
        }
    }
}

/// A value that was decoded and is to be stored.
#[derive(Debug)]
pub enum Decoded<'a> {
    /// A string.
    Text(StringRef<'a>),
    /// A collection.
    Collection(Collection),
}

/// Reads a value of the type `kind`.
///
/// # Errors
/// When the bytes are no such value.
pub(super) fn value<S: Source>(
    reader: &mut Reader<S>,
    kind: u8,
    dialect: Dialect,
    limits: &Limits,
) -> Result<Owned, Error> {
    Ok(match decoded(reader, kind, dialect, limits)? {
        Decoded::Text(StringRef::Int(int)) => Owned::integer(int, None),
        Decoded::Text(StringRef::Bytes(bytes)) => Owned::string(bytes, None),
        Decoded::Collection(value) => Owned::collection(value, None),
    })
}

/// Reads a value of the type `kind`, without making an entry of it.
///
/// # Errors
/// When the bytes are no such value.
pub(super) fn decoded<'r, S: Source>(
    reader: &'r mut Reader<S>,
    kind: u8,
    dialect: Dialect,
    limits: &Limits,
) -> Result<Decoded<'r>, Error> {
    if kind == kind::STRING {
        return reader.text().map(Decoded::Text);
    }
    collection(reader, kind, dialect, limits).map(Decoded::Collection)
}

fn collection<S: Source>(
    reader: &mut Reader<S>,
    kind: u8,
    dialect: Dialect,
    limits: &Limits,
) -> Result<Collection, Error> {
    Ok(match kind {
        kind::LIST => list(reader, &limits.list)?.into(),
        kind::LIST_ZIPLIST => list_of_packs(1, &limits.list, || old::ziplist(reader).map(Node::Pack))?.into(),
        kind::LIST_QUICKLIST => {
            let nodes = reader.elements()?;
            list_of_packs(nodes, &limits.list, || old::ziplist(reader).map(Node::Pack))?.into()
        }
        kind::LIST_QUICKLIST_2 => {
            let nodes = reader.elements()?;
            list_of_packs(nodes, &limits.list, || list_node(reader))?.into()
        }
        kind::SET => set(reader, &limits.set)?.into(),
        kind::SET_INTSET => intset(reader, &limits.set)?.into(),
        kind::SET_LISTPACK => {
            let pack = listpack(reader)?;
            Set::from_listpack(pack, &limits.set).ok_or(NOT_DISTINCT)?.into()
        }
        kind::SORTED_SET | kind::SORTED_SET_2 => sorted_set(reader, kind, &limits.sorted_set)?.into(),
        kind::SORTED_SET_LISTPACK => sorted_set_of_pack(listpack(reader)?, &limits.sorted_set)?.into(),
        kind::SORTED_SET_ZIPLIST => sorted_set_of_pack(old::ziplist(reader)?, &limits.sorted_set)?.into(),
        kind::HASH
        | kind::HASH_EX
        | kind::HASH_22
        | kind::HASH_ZIPMAP
        | kind::HASH_ZIPLIST
        | kind::HASH_LISTPACK
        | kind::HASH_LISTPACK_EX
        | kind::HASH_LISTPACK_EX_OLD => hash(reader, kind, dialect, &limits.hash)?.into(),
        kind::STREAM | kind::STREAM_2 | kind::STREAM_3 | kind::STREAM_4 => stream::read(reader, kind)?.into(),
        kind::MODULE | kind::MODULE_2 => return Err(Error::Unsupported("a value of a module")),
        _ => return Err(Error::Corrupt("a value of no known type")),
    })
}

/// Reads a listpack with at least one element.
fn listpack<S: Source>(reader: &mut Reader<S>) -> Result<Listpack, Error> {
    let bytes = reader.blob()?;
    if bytes.len() > PACK_BYTES_MAX {
        return Err(BAD_LISTPACK);
    }
    let pack = Listpack::from_bytes(bytes).ok_or(BAD_LISTPACK)?;
    if pack.is_empty() {
        Err(Error::Empty)
    } else {
        Ok(pack)
    }
}

// ----- lists

/// Reads elements one by one.
fn list<S: Source>(reader: &mut Reader<S>, limits: &ListLimits) -> Result<List, Error> {
    let mut list = List::new();
    let mut scratch = [0; INT_TEXT_MAX];
    for _ in 0..reader.elements()? {
        let element = reader.text()?;
        list.push(
            End::Back,
            StringRef::Bytes(element.as_bytes(&mut scratch)),
            limits,
        );
    }
    list.settle(limits);
    Ok(list)
}

/// Contents of a node of a list.
enum Node {
    Pack(Listpack),
    Plain(Vec<u8>),
}

/// Reads nodes, of which empty ones are passed over.
fn list_of_packs(
    nodes: u64,
    limits: &ListLimits,
    mut read: impl FnMut() -> Result<Node, Error>,
) -> Result<List, Error> {
    let mut list = List::of_nodes(limits);
    for _ in 0..nodes {
        match read() {
            Ok(Node::Pack(pack)) => list.append_pack(pack),
            Ok(Node::Plain(element)) => list.append_plain(&element),
            Err(Error::Empty) => {}
            Err(error) => return Err(error),
        }
    }
    if list.is_empty() {
        return Err(Error::Empty);
    }
    list.settle(limits);
    Ok(list)
}

fn list_node<S: Source>(reader: &mut Reader<S>) -> Result<Node, Error> {
    match reader.count()? {
        node::PACKED => listpack(reader).map(Node::Pack),
        node::PLAIN => {
            let mut element = Vec::new();
            reader.text_into(&mut element)?;
            if element.is_empty() {
                return Err(Error::Corrupt("an empty node of a list"));
            }
            Ok(Node::Plain(element))
        }
        _ => Err(Error::Corrupt("a node of a list of no known kind")),
    }
}

// ----- sets

fn set<S: Source>(reader: &mut Reader<S>, limits: &SetLimits) -> Result<Set, Error> {
    let members = reader.elements()?;
    let mut set = Set::new();
    set.expect(usize::try_from(members).map_err(|_| Error::Short)?, limits);
    for _ in 0..members {
        if !set.add_ref(reader.text()?, limits) {
            return Err(NOT_DISTINCT);
        }
    }
    Ok(set)
}

fn intset<S: Source>(reader: &mut Reader<S>, limits: &SetLimits) -> Result<Set, Error> {
    const CORRUPT: Error = Error::Corrupt("an intset that is none");
    let bytes = reader.blob()?;
    if bytes.len() > PACK_BYTES_MAX {
        return Err(CORRUPT);
    }
    let ints = Intset::from_bytes(bytes).ok_or(CORRUPT)?;
    if ints.is_empty() {
        return Err(Error::Empty);
    }
    Ok(Set::from_intset(ints, limits))
}

// ----- sorted sets

fn sorted_set<S: Source>(
    reader: &mut Reader<S>,
    kind: u8,
    limits: &SortedSetLimits,
) -> Result<SortedSet, Error> {
    let mut members = SortedSetBuilder::new(limits.hasher);
    let mut member = Vec::new();
    for _ in 0..reader.elements()? {
        reader.text_into(&mut member)?;
        let score = if kind == kind::SORTED_SET {
            score_of_text(reader)?
        } else {
            f64::from_bits(reader.long()?.cast_unsigned())
        };
        if score.is_nan() {
            return Err(Error::Corrupt("a score that is not a number"));
        }
        let mut is_new = true;
        members.merge(&member, |old| {
            is_new = old.is_none();
            score
        });
        if !is_new {
            return Err(NOT_DISTINCT);
        }
    }
    Ok(members.finish(limits))
}

/// Reads a score of the old form: a length and so many characters, or one of three lengths that stand for scores.
fn score_of_text<S: Source>(reader: &mut Reader<S>) -> Result<f64, Error> {
    Ok(match reader.byte()? {
        253 => f64::NAN,
        254 => f64::INFINITY,
        255 => f64::NEG_INFINITY,
        len => {
            let mut scratch = Vec::new();
            let text = reader.source.take(len.into(), &mut scratch)?;
            parse_f64(text).ok_or(Error::Corrupt("a score that is not a number"))?
        }
    })
}

fn sorted_set_of_pack(pack: Listpack, limits: &SortedSetLimits) -> Result<SortedSet, Error> {
    const CORRUPT: Error = Error::Corrupt("a pack that does not hold distinct members with scores");
    SortedSet::from_listpack(pack, limits).ok_or(CORRUPT)
}

// ----- hashes

fn hash<S: Source>(
    reader: &mut Reader<S>,
    kind: u8,
    dialect: Dialect,
    limits: &HashLimits,
) -> Result<Hash, Error> {
    let pack = match kind {
        kind::HASH_ZIPMAP => old::zipmap(reader)?,
        kind::HASH_ZIPLIST => old::ziplist(reader)?,
        kind::HASH_LISTPACK => listpack(reader)?,
        kind::HASH_LISTPACK_EX => {
            // The earliest expiry is in the pack as well.
            reader.long()?;
            return hash_of_triples(&listpack(reader)?, limits);
        }
        kind::HASH_LISTPACK_EX_OLD => return hash_of_triples(&listpack(reader)?, limits),
        kind::HASH_22 if dialect == Dialect::Valkey => return fields(reader, FieldForm::Valkey, limits),
        kind::HASH_22 => return fields(reader, FieldForm::From(1), limits),
        kind::HASH_EX => {
            let earliest = reader.long()?.cast_unsigned();
            return fields(reader, FieldForm::From(earliest), limits);
        }
        _ => return fields(reader, FieldForm::Plain, limits),
    };
    Hash::from_listpack(pack, limits).ok_or(Error::Corrupt("a pack that does not hold distinct fields"))
}

/// A hash of fields, values and expiries, which stand in the order of expiries, those without one last.
fn hash_of_triples(pack: &Listpack, limits: &HashLimits) -> Result<Hash, Error> {
    const CORRUPT: Error = Error::Corrupt("a pack that does not hold distinct fields with expiries");
    let mut last = 0;
    for expiry in pack.iter().skip(2).step_by(3) {
        let expiry = expiry.to_int().ok_or(CORRUPT)?;
        let rank = match u64::try_from(expiry).map_err(|_| BAD_EXPIRY)? {
            0 => u64::MAX,
            at if at <= FIELD_EXPIRY_MAX => at,
            _ => return Err(BAD_EXPIRY),
        };
        if rank < last {
            return Err(Error::Corrupt(
                "fields that are not in the order of their expiries",
            ));
        }
        last = rank;
    }
    Hash::from_listpack_ex(pack, limits).ok_or(CORRUPT)
}

/// Place and form of the expiry of a field.
#[derive(Clone, Copy)]
enum FieldForm {
    /// There is none.
    Plain,
    /// Before the field: 0 for none, else its distance from one below this time. A time of 1 makes it absolute.
    From(u64),
    /// Behind the value: eight bytes, -1 for none.
    Valkey,
}

impl FieldForm {
    fn before<S: Source>(self, reader: &mut Reader<S>) -> Result<Option<u64>, Error> {
        let Self::From(earliest) = self else {
            return Ok(None);
        };
        match reader.count()? {
            0 => Ok(None),
            distance => earliest.checked_add(distance - 1).map(Some).ok_or(BAD_EXPIRY),
        }
    }

    fn behind<S: Source>(self, reader: &mut Reader<S>) -> Result<Option<u64>, Error> {
        if !matches!(self, Self::Valkey) {
            return Ok(None);
        }
        match reader.long()? {
            -1 => Ok(None),
            at => u64::try_from(at).map(Some).map_err(|_| BAD_EXPIRY),
        }
    }
}

fn fields<S: Source>(reader: &mut Reader<S>, form: FieldForm, limits: &HashLimits) -> Result<Hash, Error> {
    let count = reader.elements()?;
    let mut hash = Hash::default();
    hash.expect_fields(usize::try_from(count).map_err(|_| Error::Short)?, limits);
    let (mut name, mut value) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let before = form.before(reader)?;
        reader.text_into(&mut name)?;
        reader.text_into(&mut value)?;
        let expiry = match before.or(form.behind(reader)?) {
            None => FieldExpiry::Clear,
            Some(at) if at <= FIELD_EXPIRY_MAX => FieldExpiry::At(at.cast_signed()),
            Some(_) => return Err(BAD_EXPIRY),
        };
        if !hash.set(&name, &value, expiry, i64::MIN, limits) {
            return Err(NOT_DISTINCT);
        }
    }
    Ok(hash)
}
