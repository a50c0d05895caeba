//! Streams: blocks of entries as they are stored, figures about them, and the groups with what is pending.

use std::collections::BTreeMap;

use super::super::opcode::{UNKNOWN, kind};
use super::super::reader::{Error, Reader, Source};
use super::listpack;
use crate::value::stream::{Group, Pending, Stream, StreamFigures, StreamId};

const ID_BYTES: usize = 16;

/// Reads a stream of one of the four types.
pub(super) fn read<S: Source>(reader: &mut Reader<S>, kind: u8) -> Result<Stream, Error> {
    let mut stream = Stream::default();
    for _ in 0..reader.count()? {
        let base = block_id(reader)?;
        let pack = listpack(reader)?;
        if !stream.log_mut().add_block(base, pack) {
            return Err(Error::Corrupt("a block of a stream that is none"));
        }
    }
    let len = reader.count()?;
    let last_id = split_id(reader)?;
    let mut figures = StreamFigures {
        last_id,
        // Older servers did not count: what is there is what was added, and nothing was deleted as far as is known.
        entries_added: len,
        max_deleted_id: StreamId::MIN,
    };
    if kind != kind::STREAM {
        // The first id follows from the entries.
        split_id(reader)?;
        figures.max_deleted_id = split_id(reader)?;
        figures.entries_added = reader.count()?;
    }
    if len != stream.len() as u64 || !stream.log_mut().set_figures(figures) {
        return Err(Error::Corrupt("figures that contradict the entries of a stream"));
    }
    for _ in 0..reader.count()? {
        group(reader, kind, &mut stream)?;
    }
    if kind == kind::STREAM_4 {
        skip_producers(reader)?;
    }
    Ok(stream)
}

/// The id of a block, which is a text of two numbers, the highest byte first.
fn block_id<S: Source>(reader: &mut Reader<S>) -> Result<StreamId, Error> {
    let bytes = reader.blob()?;
    let bytes = bytes.try_into();
    bytes
        .map(id_of)
        .map_err(|_| Error::Corrupt("an id of another length"))
}

fn id_of(bytes: [u8; ID_BYTES]) -> StreamId {
    let number = u128::from_be_bytes(bytes);
    StreamId::new((number >> 64) as u64, number as u64)
}

/// An id as two lengths.
fn split_id<S: Source>(reader: &mut Reader<S>) -> Result<StreamId, Error> {
    Ok(StreamId::new(reader.count()?, reader.count()?))
}

/// An entry that is pending with a consumer still to be read.
struct Unowned {
    delivered_ms: i64,
    deliveries: u64,
}

fn group<S: Source>(reader: &mut Reader<S>, kind: u8, stream: &mut Stream) -> Result<(), Error> {
    let mut name = Vec::new();
    reader.text_into(&mut name)?;
    let last_id = split_id(reader)?;
    let entries_read = if kind == kind::STREAM {
        stream.log().position_of(last_id)
    } else {
        Some(reader.count()?).filter(|read| *read != UNKNOWN)
    };
    let mut unowned = BTreeMap::new();
    for _ in 0..reader.count()? {
        let id = id_of(reader.array()?);
        let pending = Unowned {
            delivered_ms: reader.long()?,
            deliveries: reader.count()?,
        };
        if unowned.insert(id, pending).is_some() {
            return Err(Error::Corrupt("an entry pending twice in a group"));
        }
    }
    if !stream.add_group(&name, last_id, entries_read) {
        return Err(Error::Corrupt("two groups of one name"));
    }
    let (_, group) = stream.group_mut(&name).expect("added just now");
    for _ in 0..reader.count()? {
        consumer(reader, kind, group, &mut unowned)?;
    }
    if unowned.is_empty() {
        Ok(())
    } else {
        Err(Error::Corrupt("an entry pending with no consumer"))
    }
}

fn consumer<S: Source>(
    reader: &mut Reader<S>,
    kind: u8,
    group: &mut Group,
    unowned: &mut BTreeMap<StreamId, Unowned>,
) -> Result<(), Error> {
    let mut name = Vec::new();
    reader.text_into(&mut name)?;
    let seen_ms = reader.long()?;
    let active_ms = match kind {
        kind::STREAM | kind::STREAM_2 => Some(seen_ms),
        // -1 for a consumer that never got an entry.
        _ => Some(reader.long()?).filter(|at| *at != -1),
    };
    let (consumer, is_new) = group.make_consumer(&name, seen_ms);
    if !is_new {
        return Err(Error::Corrupt("two consumers of one name"));
    }
    if let Some(made) = group.consumer_mut(consumer) {
        made.active_ms = active_ms;
    }
    for _ in 0..reader.count()? {
        let id = id_of(reader.array()?);
        // Each has one owner: another one would find it gone here.
        let pending = unowned.remove(&id).ok_or(Error::Corrupt(
            "an entry of a consumer that its group does not have",
        ))?;
        group.assign(Pending {
            id,
            delivered_ms: pending.delivered_ms,
            deliveries: pending.deliveries,
            consumer,
        });
    }
    Ok(())
}

/// Passes over what is remembered of producers that may repeat themselves, which this program does not know.
fn skip_producers<S: Source>(reader: &mut Reader<S>) -> Result<(), Error> {
    // For how long, and of how many.
    reader.count()?;
    reader.count()?;
    for _ in 0..reader.count()? {
        reader.text()?;
        for _ in 0..reader.count()? {
            reader.text()?;
            split_id(reader)?;
        }
    }
    // Entries that came with an id of their producer, and those that were repetitions.
    reader.count()?;
    reader.count()?;
    Ok(())
}
