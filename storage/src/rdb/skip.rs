//! Passing over values: what the bytes of every type are, without looking at what they mean.
//!
//! Only lengths and counts are read. Whoever passes over a value copies its bytes, so that somebody else decodes them.

use super::decode::Dialect;
use super::opcode::{kind, module as part, node};
use super::reader::{Error, Reader, Source};

/// Passes over a value of the type `kind`.
///
/// # Errors
/// When its bytes end too early, or the type or a length has no known form.
pub(super) fn value<S: Source>(reader: &mut Reader<S>, kind: u8, dialect: Dialect) -> Result<(), Error> {
    match kind {
        kind::STRING
        | kind::HASH_ZIPMAP
        | kind::LIST_ZIPLIST
        | kind::SET_INTSET
        | kind::SORTED_SET_ZIPLIST
        | kind::HASH_ZIPLIST
        | kind::HASH_LISTPACK
        | kind::SORTED_SET_LISTPACK
        | kind::SET_LISTPACK
        | kind::HASH_LISTPACK_EX_OLD => reader.pass_text(),
        kind::HASH_LISTPACK_EX => {
            reader.long()?;
            reader.pass_text()
        }
        kind::LIST | kind::SET | kind::LIST_QUICKLIST => each(reader, Reader::pass_text),
        kind::LIST_QUICKLIST_2 => each(reader, list_node),
        kind::SORTED_SET => each(reader, |reader| {
            reader.pass_text()?;
            score_of_text(reader)
        }),
        kind::SORTED_SET_2 => each(reader, |reader| {
            reader.pass_text()?;
            reader.long().map(drop)
        }),
        kind::HASH => each(reader, pair),
        kind::HASH_22 if dialect == Dialect::Valkey => each(reader, |reader| {
            pair(reader)?;
            reader.long().map(drop)
        }),
        kind::HASH_22 => each(reader, field_behind_expiry),
        kind::HASH_EX => {
            reader.long()?;
            each(reader, field_behind_expiry)
        }
        kind::STREAM | kind::STREAM_2 | kind::STREAM_3 | kind::STREAM_4 => stream(reader, kind),
        kind::MODULE_2 => {
            let _module = reader.count()?;
            module(reader)
        }
        kind::MODULE => Err(Error::Unsupported(
            "a value of a module, whose end only the module finds",
        )),
        _ => Err(Error::Corrupt("a value of no known type")),
    }
}

/// Calls `pass` as often as a count says that comes first.
fn each<S: Source>(
    reader: &mut Reader<S>,
    mut pass: impl FnMut(&mut Reader<S>) -> Result<(), Error>,
) -> Result<(), Error> {
    for _ in 0..reader.count()? {
        pass(reader)?;
    }
    Ok(())
}

fn list_node<S: Source>(reader: &mut Reader<S>) -> Result<(), Error> {
    match reader.count()? {
        node::PACKED | node::PLAIN => reader.pass_text(),
        _ => Err(Error::Corrupt("a node of a list of no known kind")),
    }
}

/// Passes over a score of the old form: a length and so many characters, or a length that stands for a score.
fn score_of_text<S: Source>(reader: &mut Reader<S>) -> Result<(), Error> {
    match reader.byte()? {
        253..=255 => Ok(()),
        len => reader.source.pass(len.into()),
    }
}

/// Passes over a field and its value.
fn pair<S: Source>(reader: &mut Reader<S>) -> Result<(), Error> {
    reader.pass_text()?;
    reader.pass_text()
}

fn field_behind_expiry<S: Source>(reader: &mut Reader<S>) -> Result<(), Error> {
    reader.count()?;
    pair(reader)
}

/// Passes over an id of two numbers.
fn split_id<S: Source>(reader: &mut Reader<S>) -> Result<(), Error> {
    reader.count()?;
    reader.count().map(drop)
}

fn stream<S: Source>(reader: &mut Reader<S>, kind: u8) -> Result<(), Error> {
    each(reader, pair)?;
    reader.count()?;
    split_id(reader)?;
    if kind != kind::STREAM {
        // First id, highest deleted id, number of entries ever added.
        split_id(reader)?;
        split_id(reader)?;
        reader.count()?;
    }
    each(reader, |reader| group(reader, kind))?;
    if kind == kind::STREAM_4 {
        producers(reader)?;
    }
    Ok(())
}

fn group<S: Source>(reader: &mut Reader<S>, kind: u8) -> Result<(), Error> {
    reader.pass_text()?;
    split_id(reader)?;
    if kind != kind::STREAM {
        reader.count()?;
    }
    each(reader, |reader| {
        // An id of sixteen bytes, and a time.
        reader.source.pass(16 + 8)?;
        reader.count().map(drop)
    })?;
    each(reader, |reader| {
        reader.pass_text()?;
        let times = if matches!(kind, kind::STREAM | kind::STREAM_2) {
            1
        } else {
            2
        };
        reader.source.pass(8 * times)?;
        each(reader, |reader| reader.source.pass(16))
    })
}

/// Passes over what is remembered of producers that may repeat themselves.
fn producers<S: Source>(reader: &mut Reader<S>) -> Result<(), Error> {
    split_id(reader)?;
    each(reader, |reader| {
        reader.pass_text()?;
        each(reader, |reader| {
            reader.pass_text()?;
            split_id(reader)
        })
    })?;
    split_id(reader)
}

/// Passes over what a module wrote, up to its end.
pub(super) fn module<S: Source>(reader: &mut Reader<S>) -> Result<(), Error> {
    loop {
        match reader.count()? {
            part::END => return Ok(()),
            part::SIGNED | part::UNSIGNED => {
                reader.count()?;
            }
            part::FLOAT => {
                reader.array::<4>()?;
            }
            part::DOUBLE => {
                reader.array::<8>()?;
            }
            part::TEXT => {
                reader.text()?;
            }
            _ => return Err(Error::Corrupt("a part of a module's data of no known kind")),
        }
    }
}
