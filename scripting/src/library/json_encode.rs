//! `cjson.encode`, without recursion.

use std::cell::Cell;

use mlua::{Lua, Result, Table, Value};

use crate::error::plain;
use crate::library::arguments::as_number;
use crate::limits::{JSON_DEPTH, JSON_DEPTH_MAX};
use crate::number::{LUA_DIGITS, general};

/// Settings of one table of `cjson` functions. They hold until the script ends.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) sparse_convert: Cell<bool>,
    pub(crate) sparse_ratio: Cell<i32>,
    pub(crate) sparse_safe: Cell<i32>,
    pub(crate) encode_depth: Cell<i32>,
    pub(crate) decode_depth: Cell<i32>,
    pub(crate) encode_invalid: Cell<Invalid>,
    pub(crate) decode_invalid: Cell<bool>,
    pub(crate) digits: Cell<i32>,
    pub(crate) keep_buffer: Cell<bool>,
}

/// Encoding of numbers that JSON does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invalid {
    /// An error.
    Refused,
    /// `nan`, `inf` and `-inf`.
    Accepted,
    /// `null`
    Null,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            sparse_convert: Cell::new(false),
            sparse_ratio: Cell::new(2),
            sparse_safe: Cell::new(10),
            encode_depth: Cell::new(JSON_DEPTH as i32),
            decode_depth: Cell::new(JSON_DEPTH as i32),
            encode_invalid: Cell::new(Invalid::Refused),
            decode_invalid: Cell::new(true),
            digits: Cell::new(LUA_DIGITS as i32),
            keep_buffer: Cell::new(true),
        }
    }
}

impl Settings {
    /// Forgets what a script has set.
    pub(crate) fn reset(&self) {
        let fresh = Settings::default();
        self.sparse_convert.swap(&fresh.sparse_convert);
        self.sparse_ratio.swap(&fresh.sparse_ratio);
        self.sparse_safe.swap(&fresh.sparse_safe);
        self.encode_depth.swap(&fresh.encode_depth);
        self.decode_depth.swap(&fresh.decode_depth);
        self.encode_invalid.swap(&fresh.encode_invalid);
        self.decode_invalid.swap(&fresh.decode_invalid);
        self.digits.swap(&fresh.digits);
        self.keep_buffer.swap(&fresh.keep_buffer);
    }
}

/// A table that is being encoded.
enum Frame {
    Array { table: Table, next: usize, len: usize },
    Object { table: Table, last_key: Value },
}

/// Something that looks at the host now and then, and at the size of what has been produced.
pub(crate) trait Progress {
    /// Called once per value.
    fn progressed(&self, bytes: usize) -> Result<()>;
    /// The table behind one that all scripts share, or the table itself.
    fn behind(&self, table: &Table) -> Table;
    /// The entry of a table that follows a key; the first one follows nil.
    fn entry_after(&self, table: &Table, key: Value) -> Result<Option<(Value, Value)>>;
}

/// An encoder of one value.
pub(crate) struct Encoder<'a, P> {
    settings: &'a Settings,
    progress: &'a P,
    out: Vec<u8>,
    frames: Vec<Frame>,
}

impl<'a, P: Progress> Encoder<'a, P> {
    /// An encoder with these settings.
    pub(crate) fn new(settings: &'a Settings, progress: &'a P) -> Self {
        Encoder {
            settings,
            progress,
            out: Vec::new(),
            frames: Vec::new(),
        }
    }

    /// Encodes a value.
    pub(crate) fn encode(mut self, lua: &Lua, value: &Value) -> Result<mlua::String> {
        self.value(value)?;
        while let Some(frame) = self.frames.last_mut() {
            let next = match frame {
                Frame::Array { table, next, len } => next_item(&mut self.out, table, next, *len)?,
                Frame::Object { table, last_key } => {
                    let is_first = last_key.is_nil();
                    let entry = self.progress.entry_after(table, last_key.clone())?;
                    next_member(&mut self.out, self.settings, entry, is_first, last_key)?
                }
            };
            match next {
                Some(value) => self.value(&value)?,
                None => drop(self.frames.pop()),
            }
        }
        lua.create_string(&self.out)
    }

    /// Encodes a scalar, or begins a table.
    fn value(&mut self, value: &Value) -> Result<()> {
        self.progress.progressed(self.out.len())?;
        match value {
            Value::String(text) => string(&mut self.out, &text.as_bytes()),
            Value::Integer(_) | Value::Number(_) => {
                number(&mut self.out, as_number(value).unwrap_or_default(), self.settings)?;
            }
            Value::Boolean(true) => self.out.extend_from_slice(b"true"),
            Value::Boolean(false) => self.out.extend_from_slice(b"false"),
            Value::Nil => self.out.extend_from_slice(b"null"),
            Value::LightUserData(pointer) if pointer.0.is_null() => self.out.extend_from_slice(b"null"),
            Value::Table(table) => return self.begin(table),
            other => return Err(unsupported(other, "type not supported")),
        }
        Ok(())
    }

    fn begin(&mut self, table: &Table) -> Result<()> {
        let depth = self.frames.len() + 1;
        let bound = self.settings.encode_depth.get();
        if depth > JSON_DEPTH_MAX || i64::try_from(depth).unwrap_or(i64::MAX) > i64::from(bound) {
            return Err(plain(format!("Cannot serialise, excessive nesting ({depth})")));
        }
        let table = self.progress.behind(table);
        match array_len(&table, self.settings, self.progress)? {
            Some(len) => {
                self.out.push(b'[');
                self.frames.push(Frame::Array { table, next: 1, len });
            }
            None => {
                self.out.push(b'{');
                self.frames.push(Frame::Object {
                    table,
                    last_key: Value::Nil,
                });
            }
        }
        Ok(())
    }
}

/// The next item of an array, with what stands before it; `None` after the last one.
fn next_item(out: &mut Vec<u8>, table: &Table, next: &mut usize, len: usize) -> Result<Option<Value>> {
    if *next > len {
        out.push(b']');
        return Ok(None);
    }
    if *next > 1 {
        out.push(b',');
    }
    *next += 1;
    table.raw_get(*next - 1).map(Some)
}

/// The value of an entry, with its key and what stands before it; `None` after the last one.
fn next_member(
    out: &mut Vec<u8>,
    settings: &Settings,
    entry: Option<(Value, Value)>,
    is_first: bool,
    last_key: &mut Value,
) -> Result<Option<Value>> {
    let Some((key, value)) = entry else {
        out.push(b'}');
        return Ok(None);
    };
    if !is_first {
        out.push(b',');
    }
    key_text(out, &key, settings)?;
    *last_key = key;
    Ok(Some(value))
}

/// Length of a table that is an array: with positive integers as its keys, and not too sparse. `None` for others.
fn array_len<P: Progress>(table: &Table, settings: &Settings, progress: &P) -> Result<Option<usize>> {
    let (mut greatest, mut items) = (0.0_f64, 0_i64);
    for pair in table.pairs::<Value, Value>() {
        progress.progressed(0)?;
        let key = as_number(&pair?.0).filter(|key| *key >= 1.0 && key.floor() == *key);
        let Some(key) = key else {
            return Ok(None);
        };
        greatest = greatest.max(key);
        items += 1;
    }
    if items == 0 {
        return Ok(None);
    }
    let (ratio, safe) = (settings.sparse_ratio.get(), settings.sparse_safe.get());
    let is_sparse = ratio > 0 && greatest > (items as f64) * f64::from(ratio) && greatest > f64::from(safe);
    match (is_sparse, settings.sparse_convert.get()) {
        (false, _) => Ok(Some(greatest as usize)),
        (true, true) => Ok(None),
        (true, false) => Err(plain("Cannot serialise table: excessively sparse array")),
    }
}

fn key_text(out: &mut Vec<u8>, key: &Value, settings: &Settings) -> Result<()> {
    match key {
        Value::String(text) => string(out, &text.as_bytes()),
        Value::Integer(_) | Value::Number(_) => {
            out.push(b'"');
            number(out, as_number(key).unwrap_or_default(), settings)?;
            out.push(b'"');
        }
        other => return Err(unsupported(other, "table key must be a number or string")),
    }
    out.push(b':');
    Ok(())
}

fn number(out: &mut Vec<u8>, number: f64, settings: &Settings) -> Result<()> {
    if !number.is_finite() {
        let text: &[u8] = match settings.encode_invalid.get() {
            Invalid::Refused => return Err(plain("Cannot serialise number: must not be NaN or Inf")),
            Invalid::Null => b"null",
            Invalid::Accepted if number.is_nan() => b"nan",
            Invalid::Accepted => &general(number, LUA_DIGITS),
        };
        out.extend_from_slice(text);
        return Ok(());
    }
    out.extend_from_slice(&general(number, settings.digits.get() as usize));
    Ok(())
}

/// A string in quotes. Bytes above 127 stay as they are, and a slash is escaped.
pub(crate) fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for &byte in text {
        let short: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'/' => b"\\/",
            0x08 => b"\\b",
            b'\t' => b"\\t",
            b'\n' => b"\\n",
            0x0c => b"\\f",
            b'\r' => b"\\r",
            0..0x20 | 0x7f => {
                out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
                continue;
            }
            _ => {
                out.push(byte);
                continue;
            }
        };
        out.extend_from_slice(short);
    }
    out.push(b'"');
}

fn unsupported(value: &Value, reason: &str) -> mlua::Error {
    plain(format!(
        "Cannot serialise {}: {reason}",
        crate::error::type_name(value)
    ))
}
