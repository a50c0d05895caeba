//! `bit.*`: arithmetic on the 32 bits of a number.

use mlua::{Lua, MultiValue, Result, Table};

use crate::library::arguments::Given;

/// The library.
pub(crate) fn library(lua: &Lua) -> Result<Table> {
    let bit = lua.create_table()?;
    bit.raw_set("tobit", one(lua, "tobit", |bits| bits)?)?;
    bit.raw_set("bnot", one(lua, "bnot", |bits| !bits)?)?;
    bit.raw_set("bswap", one(lua, "bswap", u32::swap_bytes)?)?;
    bit.raw_set("band", all(lua, "band", |a, b| a & b)?)?;
    bit.raw_set("bor", all(lua, "bor", |a, b| a | b)?)?;
    bit.raw_set("bxor", all(lua, "bxor", |a, b| a ^ b)?)?;
    bit.raw_set("lshift", shift(lua, "lshift", |bits, by| bits << by)?)?;
    bit.raw_set("rshift", shift(lua, "rshift", |bits, by| bits >> by)?)?;
    bit.raw_set(
        "arshift",
        shift(lua, "arshift", |bits, by| ((bits as i32) >> by) as u32)?,
    )?;
    bit.raw_set("rol", shift(lua, "rol", u32::rotate_left)?)?;
    bit.raw_set("ror", shift(lua, "ror", u32::rotate_right)?)?;
    bit.raw_set("tohex", lua.create_function(to_hex)?)?;
    Ok(bit)
}

fn one(lua: &Lua, name: &'static str, operation: fn(u32) -> u32) -> Result<mlua::Function> {
    lua.create_function(move |lua, values: MultiValue| {
        let given = Given::new(lua, name, values);
        Ok(signed(operation(bits(&given, 0)?)))
    })
}

fn all(lua: &Lua, name: &'static str, operation: fn(u32, u32) -> u32) -> Result<mlua::Function> {
    lua.create_function(move |lua, values: MultiValue| {
        let given = Given::new(lua, name, values);
        let first = bits(&given, 0)?;
        let rest =
            (1..given.len()).try_fold(first, |so_far, index| Ok(operation(so_far, bits(&given, index)?)));
        rest.map(signed)
    })
}

fn shift(lua: &Lua, name: &'static str, operation: fn(u32, u32) -> u32) -> Result<mlua::Function> {
    lua.create_function(move |lua, values: MultiValue| {
        let given = Given::new(lua, name, values);
        let number = bits(&given, 0)?;
        Ok(signed(operation(number, bits(&given, 1)? & 31)))
    })
}

/// Hexadecimal digits: as many as asked for, eight by default; in upper case if that number is negative.
fn to_hex(lua: &Lua, values: MultiValue) -> Result<mlua::String> {
    let given = Given::new(lua, "tohex", values);
    let number = bits(&given, 0)?;
    let digits = if given.get(1).is_none() {
        8
    } else {
        bits(&given, 1)? as i32
    };
    let wanted = digits.unsigned_abs().min(8) as usize;
    let text = if digits < 0 {
        format!("{number:08X}")
    } else {
        format!("{number:08x}")
    };
    lua.create_string(&text[8 - wanted..])
}

/// The bits of a number: rounded to the nearest integer, modulo 2^32.
fn bits(given: &Given<'_>, index: usize) -> Result<u32> {
    // 1.5 * 2^52: the sum is so large that its low bits are those of the rounded integer.
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    Ok((given.number(index)? + MAGIC).to_bits() as u32)
}

fn signed(bits: u32) -> i64 {
    i64::from(bits as i32)
}
