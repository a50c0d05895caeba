//! `struct.*`: numbers and strings in the layouts of C.

use std::rc::Rc;

use mlua::{Lua, MultiValue, Result, Table, Value};

use crate::engine::state::State;
use crate::error::located;
use crate::library::arguments::{Given, as_number, c_long};
use crate::library::json_encode::Progress;
use crate::library::{Function, add_functions};
use crate::limits::STRUCT_INTEGER_BYTES_MAX;

/// Alignment of `!` without a number.
const ALIGNMENT: usize = 8;

/// The library.
pub(crate) fn library(lua: &Lua, state: &Rc<State>) -> Result<Table> {
    let library = lua.create_table()?;
    let functions: &[(&str, &str, Function)] = &[
        ("pack", "pack", pack),
        ("unpack", "unpack", unpack),
        ("size", "size", size),
    ];
    add_functions(lua, &library, state, functions)?;
    Ok(library)
}

/// A format string, and the layout that it has set so far.
struct Format<'f> {
    text: &'f [u8],
    at: usize,
    is_little: bool,
    alignment: usize,
}

/// One item of a format.
struct Item {
    option: u8,
    size: usize,
    /// Bytes before it, so that it is aligned.
    padding: usize,
}

impl<'f> Format<'f> {
    fn new(text: &'f [u8]) -> Self {
        let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
        Format {
            text: &text[..end],
            at: 0,
            is_little: true,
            alignment: 1,
        }
    }

    /// The next item, for data that has `len` bytes so far.
    fn next(&mut self, given: &Given<'_>, len: usize) -> Result<Option<Item>> {
        let Some(&option) = self.text.get(self.at) else {
            return Ok(None);
        };
        self.at += 1;
        let size = self.size(given, option)?;
        let padding = if size == 0 || option == b'c' {
            0
        } else {
            let unit = size.min(self.alignment);
            unit.wrapping_sub(len & (unit - 1)) & (unit - 1)
        };
        Ok(Some(Item {
            option,
            size,
            padding,
        }))
    }

    fn size(&mut self, given: &Given<'_>, option: u8) -> Result<usize> {
        Ok(match option {
            b'b' | b'B' | b'x' => 1,
            b'h' | b'H' => 2,
            b'f' => 4,
            b'l' | b'L' | b'T' | b'd' => 8,
            b'c' => self.count(given, 1)?,
            b'i' | b'I' => {
                let size = self.count(given, 4)?;
                if size > STRUCT_INTEGER_BYTES_MAX {
                    return Err(located(
                        given.lua,
                        format_args!(
                            "integral size {size} is larger than limit of {STRUCT_INTEGER_BYTES_MAX}"
                        ),
                    ));
                }
                size
            }
            _ => 0,
        })
    }

    /// The number that follows an option.
    fn count(&mut self, given: &Given<'_>, default: usize) -> Result<usize> {
        let digits = self.text[self.at..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if digits == 0 {
            return Ok(default);
        }
        let text = std::str::from_utf8(&self.text[self.at..self.at + digits]).unwrap_or_default();
        self.at += digits;
        let count = text
            .parse::<i32>()
            .map_err(|_| located(given.lua, "integral size overflow"))?;
        Ok(count as usize)
    }

    /// Follows an option that changes the layout.
    fn control(&mut self, given: &Given<'_>, option: u8) -> Result<()> {
        match option {
            b' ' => {}
            b'>' => self.is_little = false,
            b'<' => self.is_little = true,
            b'!' => {
                let alignment = self.count(given, ALIGNMENT)?;
                if !alignment.is_power_of_two() {
                    return Err(located(
                        given.lua,
                        format_args!("alignment {alignment} is not a power of 2"),
                    ));
                }
                self.alignment = alignment;
            }
            other => {
                return Err(given.error(0, format_args!("invalid format option '{}'", char::from(other))));
            }
        }
        Ok(())
    }
}

fn pack(state: &State, mut given: Given<'_>) -> Result<MultiValue> {
    let format = given.text(0)?;
    // The reference keeps a nil behind the arguments, which shows in its errors.
    given.push(Value::Nil);
    let format = format.as_bytes();
    let mut format = Format::new(&format);
    let mut out = Vec::new();
    let mut argument = 1;
    // The reference counts what it has aligned to, which differs from the bytes it has written after an `s` with a
    // size.
    let mut len = 0;
    while let Some(Item {
        option,
        size,
        padding,
    }) = format.next(&given, len)?
    {
        state.progressed(out.len())?;
        len += padding;
        out.resize(out.len() + padding, 0);
        let mut added = size;
        match option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                put_integer(&mut out, given.number(argument)?, size, format.is_little);
                argument += 1;
            }
            b'x' => out.push(0),
            b'f' => {
                put_bytes(
                    &mut out,
                    (given.number(argument)? as f32).to_le_bytes(),
                    format.is_little,
                );
                argument += 1;
            }
            b'd' => {
                put_bytes(&mut out, given.number(argument)?.to_le_bytes(), format.is_little);
                argument += 1;
            }
            b'c' | b's' => {
                let text = given.text(argument)?;
                argument += 1;
                let text = text.as_bytes();
                added = if size == 0 { text.len() } else { size };
                let bytes = text.get(..added);
                out.extend_from_slice(bytes.ok_or_else(|| given.error(argument, "string too short"))?);
                if option == b's' {
                    out.push(0);
                    added += 1;
                }
            }
            other => format.control(&given, other)?,
        }
        len += added;
    }
    Ok([Value::String(given.lua.create_string(&out)?)]
        .into_iter()
        .collect())
}

fn unpack(_: &State, given: Given<'_>) -> Result<MultiValue> {
    let (format, data) = (given.text(0)?, given.text(1)?);
    let (format, data) = (format.as_bytes(), data.as_bytes());
    let mut format = Format::new(&format);
    let offset = if given.is_absent(2) { 1 } else { given.long(2)? };
    if offset == 0 {
        return Err(given.error(2, "offset must be 1 or greater"));
    }
    let mut at = (offset as usize).wrapping_sub(1);
    let mut results = MultiValue::new();
    let too_short = || given.error(1, "data string too short");
    while let Some(Item {
        option,
        size,
        padding,
    }) = format.next(&given, at)?
    {
        at = at.wrapping_add(padding);
        let mut bytes = slice(&data, at, size).ok_or_else(too_short)?;
        if results.len() >= crate::limits::UNPACKED_MAX / 2 {
            return Err(located(given.lua, "stack overflow (too many results)"));
        }
        match option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let number = integer(bytes, format.is_little, option.is_ascii_lowercase());
                results.push_back(Value::Number(number));
            }
            b'x' => {}
            b'f' => results.push_back(Value::Number(f64::from(f32::from_le_bytes(in_order(
                bytes,
                format.is_little,
            ))))),
            b'd' => results.push_back(Value::Number(f64::from_le_bytes(in_order(
                bytes,
                format.is_little,
            )))),
            b'c' => {
                if size == 0 {
                    let len = results.pop_back().as_ref().and_then(as_number);
                    let len = len.ok_or_else(|| located(given.lua, "format 'c0' needs a previous size"))?;
                    bytes = slice(&data, at, c_long(len) as usize).ok_or_else(too_short)?;
                }
                results.push_back(Value::String(given.lua.create_string(bytes)?));
            }
            b's' => {
                let rest = &data[at..];
                let end = rest.iter().position(|&byte| byte == 0);
                let end = end.ok_or_else(|| located(given.lua, "unfinished string in data"))?;
                results.push_back(Value::String(given.lua.create_string(&rest[..end])?));
                bytes = &rest[..=end];
            }
            other => format.control(&given, other)?,
        }
        at += bytes.len();
    }
    results.push_back(Value::Integer(at as i64 + 1));
    Ok(results)
}

fn size(_: &State, given: Given<'_>) -> Result<MultiValue> {
    let format = given.text(0)?;
    let format = format.as_bytes();
    let mut format = Format::new(&format);
    let mut len = 0;
    while let Some(Item {
        option,
        size,
        padding,
    }) = format.next(&given, len)?
    {
        len += padding;
        match option {
            b's' => return Err(given.error(0, "option 's' has no fixed size")),
            b'c' if size == 0 => return Err(given.error(0, "option 'c0' has no fixed size")),
            option if option.is_ascii_alphanumeric() => {}
            option => format.control(&given, option)?,
        }
        len += size;
    }
    Ok([Value::Integer(len as i64)].into_iter().collect())
}

fn slice(data: &[u8], at: usize, len: usize) -> Option<&[u8]> {
    data.get(at..at.checked_add(len)?)
}

/// Appends an integer: its low bytes, then zeros if it has fewer.
fn put_integer(out: &mut Vec<u8>, number: f64, size: usize, is_little: bool) {
    let value = if number < 0.0 {
        c_long(number) as u64
    } else {
        c_unsigned(number)
    };
    let mut bytes = [0; STRUCT_INTEGER_BYTES_MAX];
    bytes[..8].copy_from_slice(&value.to_le_bytes());
    let bytes = &mut bytes[..size];
    if !is_little {
        bytes.reverse();
    }
    out.extend_from_slice(bytes);
}

/// A number that is not negative, as a processor converts it to 64 bits.
fn c_unsigned(number: f64) -> u64 {
    const HALF: f64 = 9_223_372_036_854_775_808.0;
    if number < HALF {
        number as u64
    } else {
        (c_long(number - HALF) as u64) ^ (1 << 63)
    }
}

fn put_bytes<const N: usize>(out: &mut Vec<u8>, mut bytes: [u8; N], is_little: bool) {
    if !is_little {
        bytes.reverse();
    }
    out.extend_from_slice(&bytes);
}

/// As many bytes as the item has, the lowest first. The caller has cut them to that size.
fn in_order<const N: usize>(bytes: &[u8], is_little: bool) -> [u8; N] {
    let mut ordered = [0; N];
    ordered.copy_from_slice(&bytes[..N]);
    if !is_little {
        ordered.reverse();
    }
    ordered
}

/// The integer in some bytes. Of more than eight only the lowest eight count, as in the 64 bits of the reference.
fn integer(bytes: &[u8], is_little: bool, is_signed: bool) -> f64 {
    let add = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
    let value = if is_little {
        bytes.iter().rev().fold(0, add)
    } else {
        bytes.iter().fold(0, add)
    };
    if !is_signed {
        return value as f64;
    }
    let sign_bit = (bytes.len() as u32).wrapping_mul(8).wrapping_sub(1);
    let mask = u64::MAX.wrapping_shl(sign_bit);
    let value = if value & mask != 0 { value | mask } else { value };
    value as i64 as f64
}
