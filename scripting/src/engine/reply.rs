//! The value that a script returns, encoded as a reply. Without recursion: a script can nest tables as deeply as it
//! likes.

use mlua::{Lua, Result, Table, Value};
use shardis_protocol::encoder::Deferred;
use shardis_protocol::{Encoder, Resp};
use shardis_storage::number::DoubleText;

use crate::engine::state::State;
use crate::library::arguments::{as_number, c_long};
use crate::library::json_encode::Progress;
use crate::limits::REPLY_DEPTH_MAX;

/// A table that is being encoded.
enum Frame {
    Sequence {
        table: Table,
        next: usize,
        length: Deferred,
    },
    Map {
        table: Table,
        last_key: Value,
        /// Value of the key that was encoded last.
        value: Option<Value>,
        pairs: usize,
        length: Deferred,
    },
    Set {
        table: Table,
        last_key: Value,
        members: usize,
        length: Deferred,
    },
}

/// Whether a reply is an error, and whether that has been counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A value.
    Value,
    /// An error.
    Error {
        /// A command has counted it already.
        is_counted: bool,
    },
}

/// Encodes what a script returned.
pub(crate) fn encode(state: &State, lua: &Lua, value: Value, encoder: &mut Encoder<'_>) -> Result<Kind> {
    let Value::Table(table) = &value else {
        scalar(state, &value, encoder);
        return Ok(Kind::Value);
    };
    let names = state.names(lua)?;
    let kind = match table.raw_get(&names.err)? {
        Value::String(_) => Kind::Error {
            is_counted: table.raw_get::<Option<bool>>(&names.is_counted)? == Some(true),
        },
        _ => Kind::Value,
    };
    // Tables that contain one table several times can stand for more than any memory holds. So the reply is first
    // written where its size is checked.
    let mut out = Vec::new();
    let mut writer = Writer {
        state,
        lua,
        encoder: Encoder::new(&mut out, encoder.resp()),
        written: 0,
        frames: Vec::new(),
    };
    writer.write(value)?;
    encoder.raw(&out);
    Ok(kind)
}

fn scalar(state: &State, value: &Value, encoder: &mut Encoder<'_>) {
    match value {
        Value::String(text) => encoder.bulk(&text.as_bytes()),
        Value::Integer(integer) => encoder.integer(*integer),
        Value::Number(number) => encoder.integer(c_long(*number)),
        Value::Boolean(value) if state.resp.get() == Resp::V3 => encoder.boolean(*value),
        Value::Boolean(true) => encoder.integer(1),
        _ => encoder.null(),
    }
}

struct Writer<'a> {
    state: &'a State,
    lua: &'a Lua,
    encoder: Encoder<'a>,
    /// Bytes written, roughly.
    written: usize,
    frames: Vec<Frame>,
}

impl Writer<'_> {
    fn write(&mut self, value: Value) -> Result<()> {
        self.value(value)?;
        while let Some(frame) = self.frames.last_mut() {
            let next = match frame {
                Frame::Sequence { table, next, .. } => {
                    let item: Value = table.raw_get(*next)?;
                    *next += 1;
                    (!item.is_nil()).then_some(item)
                }
                Frame::Map {
                    table,
                    last_key,
                    value,
                    pairs,
                    ..
                } => match value.take() {
                    Some(value) => Some(value),
                    None => self
                        .state
                        .entry_after(table, last_key.clone())?
                        .map(|(key, found)| {
                            (*value, *last_key) = (Some(found), key.clone());
                            *pairs += 1;
                            key
                        }),
                },
                Frame::Set {
                    table,
                    last_key,
                    members,
                    ..
                } => self.state.entry_after(table, last_key.clone())?.map(|(key, _)| {
                    *last_key = key.clone();
                    *members += 1;
                    key
                }),
            };
            match next {
                Some(value) => self.value(value)?,
                None => self.close(),
            }
        }
        Ok(())
    }

    /// Ends the innermost table.
    fn close(&mut self) {
        match self.frames.pop() {
            Some(Frame::Sequence { next, length, .. }) => self.encoder.close(length, next - 2),
            Some(Frame::Map { pairs, length, .. }) => self.encoder.close(length, pairs),
            Some(Frame::Set { members, length, .. }) => self.encoder.close(length, members),
            None => {}
        }
    }

    /// Encodes a value, or begins a table.
    fn value(&mut self, value: Value) -> Result<()> {
        self.written += match &value {
            Value::String(text) => text.as_bytes().len() + 16,
            _ => 16,
        };
        self.state.progressed(self.written)?;
        match value {
            Value::Table(_) if self.frames.len() >= REPLY_DEPTH_MAX => {
                self.encoder.error("ERR reached lua stack limit");
                Ok(())
            }
            Value::Table(table) => self.table(&table),
            scalar_value => {
                scalar(self.state, &scalar_value, &mut self.encoder);
                Ok(())
            }
        }
    }

    /// Encodes a table by the first of its fields that says what it stands for, or begins an array.
    fn table(&mut self, table: &Table) -> Result<()> {
        let names = self.state.names(self.lua)?;
        let table = self.state.behind(table);
        if let Value::String(text) = table.raw_get(&names.err)? {
            self.encoder.error(&*text.as_bytes());
        } else if let Value::String(text) = table.raw_get(&names.ok)? {
            self.encoder.simple(&*text.as_bytes());
        } else if let Some(number) = as_number(&table.raw_get(&names.double)?) {
            self.encoder.double(DoubleText::new(number).as_bytes());
        } else if let Value::Table(map) = table.raw_get(&names.map)? {
            let length = self.encoder.deferred_map(0);
            self.frames.push(Frame::Map {
                table: map,
                last_key: Value::Nil,
                value: None,
                pairs: 0,
                length,
            });
        } else if let Value::Table(set) = table.raw_get(&names.set)? {
            let length = self.encoder.deferred_set(0);
            self.frames.push(Frame::Set {
                table: set,
                last_key: Value::Nil,
                members: 0,
                length,
            });
        } else if let Value::String(digits) = table.raw_get(&names.big_number)? {
            let digits = String::from_utf8_lossy(&digits.as_bytes()).replace(['\r', '\n'], " ");
            self.encoder.big_number(&digits);
        } else if !self.verbatim(&table)? {
            let length = self.encoder.deferred_array(table.raw_len());
            self.frames.push(Frame::Sequence {
                table,
                next: 1,
                length,
            });
        }
        Ok(())
    }

    /// Encodes a verbatim string, if the table is one.
    fn verbatim(&mut self, table: &Table) -> Result<bool> {
        let names = self.state.names(self.lua)?;
        let Value::Table(verbatim) = table.raw_get(&names.verbatim)? else {
            return Ok(false);
        };
        let fields = (verbatim.raw_get(&names.format)?, verbatim.raw_get(&names.string)?);
        let (Value::String(format), Value::String(text)) = fields else {
            return Ok(false);
        };
        let mut letters = [b' '; 3];
        for (letter, given) in letters.iter_mut().zip(&*format.as_bytes()) {
            *letter = *given;
        }
        self.encoder.verbatim(letters, &text.as_bytes());
        Ok(true)
    }
}
