//! `cmsgpack.*`: values as MessagePack. Tables nested deeper than sixteen become nil, as in the reference.

use std::rc::Rc;

use mlua::{Lua, MultiValue, Result, Table, Value};

use crate::engine::state::State;
use crate::error::located;
use crate::library::arguments::{Given, as_number, c_long};
use crate::library::build::{Builder, Form};
use crate::library::json_encode::Progress;
use crate::library::{Function, add_functions};
use crate::limits::{MSGPACK_DEPTH, MSGPACK_UNPACK_DEPTH_MAX};

/// The library.
pub(crate) fn library(lua: &Lua, state: &Rc<State>) -> Result<Table> {
    let library = lua.create_table()?;
    library.raw_set("_NAME", "cmsgpack")?;
    library.raw_set("_VERSION", "lua-cmsgpack 0.4.0")?;
    library.raw_set("_COPYRIGHT", "Copyright (C) 2012, Salvatore Sanfilippo")?;
    library.raw_set("_DESCRIPTION", "MessagePack C implementation for Lua")?;
    let functions: &[(&str, &str, Function)] = &[
        ("pack", "pack", pack),
        ("unpack", "unpack", unpack),
        ("unpack_one", "unpack_one", unpack_one),
        ("unpack_limit", "unpack_limit", unpack_limit),
    ];
    add_functions(lua, &library, state, functions)?;
    Ok(library)
}

fn pack(state: &State, given: Given<'_>) -> Result<MultiValue> {
    if given.len() == 0 {
        return Err(given.error_at(0, "MessagePack pack needs input."));
    }
    let mut out = Vec::new();
    for index in 0..given.len() {
        encode(state, &mut out, given.any(index)?, 0)?;
    }
    Ok([Value::String(given.lua.create_string(&out)?)]
        .into_iter()
        .collect())
}

/// Appends a value; `depth` tables surround it.
fn encode(state: &State, out: &mut Vec<u8>, value: &Value, depth: usize) -> Result<()> {
    state.progressed(out.len())?;
    match value {
        Value::String(text) => encode_bytes(out, &text.as_bytes()),
        Value::Boolean(value) => out.push(if *value { 0xc3 } else { 0xc2 }),
        Value::Integer(_) | Value::Number(_) => encode_number(out, as_number(value).unwrap_or_default()),
        Value::Table(table) if depth < MSGPACK_DEPTH => encode_table(state, out, table, depth)?,
        _ => out.push(0xc0),
    }
    Ok(())
}

fn encode_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    encode_len(out, bytes.len(), [(31, 0xa0)], Some(0xd9), 0xda, 0xdb);
    out.extend_from_slice(bytes);
}

/// Appends the head of a string, array or map.
fn encode_len(
    out: &mut Vec<u8>,
    len: usize,
    [(fix_max, fix)]: [(usize, u8); 1],
    short: Option<u8>,
    medium: u8,
    long: u8,
) {
    match (len, short) {
        (len, _) if len <= fix_max => out.push(fix | len as u8),
        (len @ ..=0xff, Some(short)) => out.extend_from_slice(&[short, len as u8]),
        (len @ ..=0xffff, _) => {
            out.push(medium);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        (len, _) => {
            out.push(long);
            out.extend_from_slice(&(len as u32).to_be_bytes());
        }
    }
}

/// Appends a number: as an integer if it is one, else in the shorter of the forms that keep it.
fn encode_number(out: &mut Vec<u8>, number: f64) {
    let integer = c_long(number);
    if number == integer as f64 && number.is_finite() {
        return encode_integer(out, integer);
    }
    let single = number as f32;
    if f64::from(single) == number {
        out.push(0xca);
        out.extend_from_slice(&single.to_be_bytes());
    } else {
        out.push(0xcb);
        out.extend_from_slice(&number.to_be_bytes());
    }
}

fn encode_integer(out: &mut Vec<u8>, integer: i64) {
    match integer {
        0..=127 => out.push(integer as u8),
        128..=0xff => out.extend_from_slice(&[0xcc, integer as u8]),
        0x100..=0xffff => {
            out.push(0xcd);
            out.extend_from_slice(&(integer as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xce);
            out.extend_from_slice(&(integer as u32).to_be_bytes());
        }
        0x1_0000_0000.. => {
            out.push(0xcf);
            out.extend_from_slice(&integer.to_be_bytes());
        }
        -32..0 => out.push(integer as u8),
        -128..-32 => out.extend_from_slice(&[0xd0, integer as u8]),
        -0x8000..-128 => {
            out.push(0xd1);
            out.extend_from_slice(&(integer as i16).to_be_bytes());
        }
        -0x8000_0000..-0x8000 => {
            out.push(0xd2);
            out.extend_from_slice(&(integer as i32).to_be_bytes());
        }
        _ => {
            out.push(0xd3);
            out.extend_from_slice(&integer.to_be_bytes());
        }
    }
}

fn encode_table(state: &State, out: &mut Vec<u8>, table: &Table, depth: usize) -> Result<()> {
    let table = state.behind(table);
    let (entries, is_array) = shape(state, &table)?;
    if is_array {
        encode_len(out, entries, [(15, 0x90)], None, 0xdc, 0xdd);
        for index in 1..=entries {
            encode(state, out, &table.raw_get(index)?, depth + 1)?;
        }
    } else {
        encode_len(out, entries, [(15, 0x80)], None, 0xde, 0xdf);
        for pair in table.pairs::<Value, Value>() {
            let (key, value) = pair?;
            encode(state, out, &key, depth + 1)?;
            encode(state, out, &value, depth + 1)?;
        }
    }
    Ok(())
}

/// Number of entries, and whether their keys are 1 to that number.
fn shape(state: &State, table: &Table) -> Result<(usize, bool)> {
    let (mut entries, mut greatest, mut is_array) = (0, 0.0_f64, true);
    for pair in table.pairs::<Value, Value>() {
        state.progressed(0)?;
        entries += 1;
        match as_number(&pair?.0).filter(|key| *key > 0.0 && key.floor() == *key) {
            Some(key) => greatest = greatest.max(key),
            None => is_array = false,
        }
    }
    Ok((entries, is_array && greatest == entries as f64))
}

fn unpack(state: &State, given: Given<'_>) -> Result<MultiValue> {
    unpack_some(state, &given, 0, 0)
}

fn unpack_one(state: &State, given: Given<'_>) -> Result<MultiValue> {
    let offset = given.int_or(1, 0)?;
    unpack_some(state, &given, 1, offset)
}

fn unpack_limit(state: &State, given: Given<'_>) -> Result<MultiValue> {
    let limit = given.int(1)?;
    let offset = given.int_or(2, 0)?;
    unpack_some(state, &given, limit, offset)
}

/// Decodes up to `limit` values from `offset` on, or all without both. With a limit, the place of the next value comes
/// first, or -1 at the end.
fn unpack_some(state: &State, given: &Given<'_>, limit: i32, offset: i32) -> Result<MultiValue> {
    let text = given.text(0)?;
    let text = text.as_bytes();
    let decodes_all = limit == 0 && offset == 0;
    if offset < 0 || limit < 0 {
        return Err(located(
            given.lua,
            format_args!(
                "Invalid request to unpack with offset of {offset} and limit of {}.",
                text.len()
            ),
        ));
    }
    let start = offset as usize;
    if start > text.len() {
        return Err(located(
            given.lua,
            format_args!("Start offset {offset} greater than input length {}.", text.len()),
        ));
    }
    let limit = if decodes_all { usize::MAX } else { limit as usize };
    let mut reader = Reader {
        bytes: &text,
        at: start,
    };
    let mut results = MultiValue::new();
    while reader.at < text.len() && results.len() < limit {
        if results.len() >= crate::limits::UNPACKED_MAX / 2 {
            return Err(located(given.lua, "too many results to unpack"));
        }
        results.push_back(reader.value(given.lua, state)?);
    }
    if !decodes_all {
        let next = if reader.at < text.len() {
            reader.at as i64
        } else {
            -1
        };
        results.push_front(Value::Integer(next));
    }
    Ok(results)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// One item of a text.
enum Item {
    Scalar(Value),
    Table(Form, u64),
}

impl Reader<'_> {
    /// Decodes one value with all that it contains.
    fn value(&mut self, lua: &Lua, state: &State) -> Result<Value> {
        let mut builder = Builder::new(lua);
        loop {
            state.progressed(0)?;
            let done = match self.item(lua)? {
                Item::Scalar(value) => builder.put(value)?,
                Item::Table(form, values) => {
                    if builder.depth() >= MSGPACK_UNPACK_DEPTH_MAX {
                        return Err(located(lua, "stack overflow (in function mp_decode_to_lua_type)"));
                    }
                    builder.open_counted(form, values, None)?
                }
            };
            if let Some(value) = done {
                return Ok(value);
            }
        }
    }

    fn item(&mut self, lua: &Lua) -> Result<Item> {
        let kind = self.take::<1>(lua)?[0];
        let value = match kind {
            0x80..=0x8f => return Ok(Item::Table(Form::Map, 2 * u64::from(kind & 15))),
            0x90..=0x9f => return Ok(Item::Table(Form::Sequence, u64::from(kind & 15))),
            0xdc => return Ok(Item::Table(Form::Sequence, self.short(lua)?)),
            0xdd => return Ok(Item::Table(Form::Sequence, self.word(lua)?)),
            0xde => return Ok(Item::Table(Form::Map, 2 * self.short(lua)?)),
            0xdf => return Ok(Item::Table(Form::Map, 2 * self.word(lua)?)),
            0xa0..=0xbf => self.text(lua, u64::from(kind & 31))?,
            0xd9 => {
                let len = self.take::<1>(lua)?[0];
                self.text(lua, u64::from(len))?
            }
            0xda => {
                let len = self.short(lua)?;
                self.text(lua, len)?
            }
            0xdb => {
                let len = self.word(lua)?;
                self.text(lua, len)?
            }
            0xc0 => Value::Nil,
            0xc2 => Value::Boolean(false),
            0xc3 => Value::Boolean(true),
            _ => self.number(lua, kind)?,
        };
        Ok(Item::Scalar(value))
    }

    fn number(&mut self, lua: &Lua, kind: u8) -> Result<Value> {
        Ok(match kind {
            0..=0x7f => Value::Integer(i64::from(kind)),
            0xe0..=0xff => Value::Integer(i64::from(kind as i8)),
            0xca => Value::Number(f64::from(f32::from_be_bytes(self.take(lua)?))),
            0xcb => Value::Number(f64::from_be_bytes(self.take(lua)?)),
            0xcc => Value::Integer(i64::from(self.take::<1>(lua)?[0])),
            0xcd => Value::Integer(i64::from(u16::from_be_bytes(self.take(lua)?))),
            0xce => Value::Integer(i64::from(u32::from_be_bytes(self.take(lua)?))),
            0xd0 => Value::Integer(i64::from(self.take::<1>(lua)?[0] as i8)),
            0xd1 => Value::Integer(i64::from(i16::from_be_bytes(self.take(lua)?))),
            0xd2 => Value::Integer(i64::from(i32::from_be_bytes(self.take(lua)?))),
            // The reference takes an unsigned number of eight bytes for a signed one.
            0xcf | 0xd3 => Value::Number(i64::from_be_bytes(self.take(lua)?) as f64),
            _ => return Err(located(lua, "Bad data format in input.")),
        })
    }

    /// A number of two bytes.
    fn short(&mut self, lua: &Lua) -> Result<u64> {
        Ok(u64::from(u16::from_be_bytes(self.take(lua)?)))
    }

    /// A number of four bytes.
    fn word(&mut self, lua: &Lua) -> Result<u64> {
        Ok(u64::from(u32::from_be_bytes(self.take(lua)?)))
    }

    fn take<const N: usize>(&mut self, lua: &Lua) -> Result<[u8; N]> {
        let taken = self.bytes[self.at..].first_chunk::<N>();
        let taken = *taken.ok_or_else(|| located(lua, "Missing bytes in input."))?;
        self.at += N;
        Ok(taken)
    }

    fn text(&mut self, lua: &Lua, len: u64) -> Result<Value> {
        let rest = &self.bytes[self.at..];
        let text = usize::try_from(len).ok().and_then(|len| rest.get(..len));
        let text = text.ok_or_else(|| located(lua, "Missing bytes in input."))?;
        self.at += text.len();
        lua.create_string(text).map(Value::String)
    }
}
