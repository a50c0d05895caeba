//! `cjson.*`: the functions around the encoder and the decoder, and their settings.

use std::cell::Cell;
use std::rc::Rc;

use mlua::{LightUserData, Lua, MultiValue, Result, Table, Value};

use crate::engine::state::State;
use crate::error::located;
use crate::library::arguments::Given;
use crate::library::json_decode::decode;
use crate::library::json_encode::{Encoder, Invalid, Settings};

type Function = fn(&State, &Settings, &Given<'_>) -> Result<MultiValue>;

/// The library with settings of its own.
pub(crate) fn library(lua: &Lua, state: &Rc<State>, settings: Rc<Settings>) -> Result<Table> {
    let library = lua.create_table()?;
    library.raw_set("_NAME", "cjson")?;
    library.raw_set("_VERSION", "2.1.0")?;
    library.raw_set("null", LightUserData(std::ptr::null_mut()))?;
    let functions: [(&'static str, Function); 9] = [
        ("encode", encode_value),
        ("decode", decode_value),
        ("encode_sparse_array", sparse_array),
        ("encode_max_depth", encode_depth),
        ("decode_max_depth", decode_depth),
        ("encode_number_precision", precision),
        ("encode_keep_buffer", keep_buffer),
        ("encode_invalid_numbers", encode_invalid),
        ("decode_invalid_numbers", decode_invalid),
    ];
    for (name, function) in functions {
        let (state, settings) = (Rc::clone(state), Rc::clone(&settings));
        let callback = lua.create_function(move |lua, values: MultiValue| {
            function(&state, &settings, &Given::new(lua, name, values))
        })?;
        library.raw_set(name, callback)?;
    }
    let state = Rc::clone(state);
    let new =
        lua.create_function(move |lua, ()| crate::library::json::library(lua, &state, Rc::default()))?;
    library.raw_set("new", new)?;
    Ok(library)
}

fn one(value: Value) -> MultiValue {
    [value].into_iter().collect()
}

/// Puts the line of the script in front of an error of the encoder or decoder.
fn relocated(given: &Given<'_>, error: mlua::Error) -> mlua::Error {
    match error {
        mlua::Error::RuntimeError(message) => located(given.lua, message),
        other => other,
    }
}

fn encode_value(state: &State, settings: &Settings, given: &Given<'_>) -> Result<MultiValue> {
    if given.len() != 1 {
        return Err(given.error(0, "expected 1 argument"));
    }
    let text = Encoder::new(settings, state).encode(given.lua, given.any(0)?);
    Ok(one(Value::String(text.map_err(|error| relocated(given, error))?)))
}

fn decode_value(state: &State, settings: &Settings, given: &Given<'_>) -> Result<MultiValue> {
    if given.len() != 1 {
        return Err(given.error(0, "expected 1 argument"));
    }
    let text = given.text(0)?;
    let value = decode(given.lua, &text.as_bytes(), settings, state);
    value.map(one).map_err(|error| relocated(given, error))
}

/// Refuses more arguments than a setting has.
fn at_most(given: &Given<'_>, arguments: usize) -> Result<()> {
    if given.len() > arguments {
        return Err(given.error(arguments, "found too many arguments"));
    }
    Ok(())
}

/// Reads and changes a setting that is a number.
fn number(given: &Given<'_>, index: usize, setting: &Cell<i32>, min: i32, max: i32) -> Result<Value> {
    if !given.is_absent(index) {
        let value = given.int(index)?;
        if !(min..=max).contains(&value) {
            return Err(given.error(0, format_args!("expected integer between {min} and {max}")));
        }
        setting.set(value);
    }
    Ok(Value::Integer(i64::from(setting.get())))
}

/// Reads and changes a setting that is yes or no.
fn flag(given: &Given<'_>, index: usize, setting: &Cell<bool>) -> Result<Value> {
    match given.get(index) {
        None | Some(Value::Nil) => {}
        Some(&Value::Boolean(value)) => setting.set(value),
        Some(_) => match &*given.text(index)?.as_bytes() {
            b"off" => setting.set(false),
            b"on" => setting.set(true),
            other => {
                let other = String::from_utf8_lossy(other);
                return Err(given.error(index, format_args!("invalid option '{other}'")));
            }
        },
    }
    Ok(Value::Boolean(setting.get()))
}

fn sparse_array(_: &State, settings: &Settings, given: &Given<'_>) -> Result<MultiValue> {
    at_most(given, 3)?;
    let convert = flag(given, 0, &settings.sparse_convert)?;
    let ratio = number(given, 1, &settings.sparse_ratio, 0, i32::MAX)?;
    let safe = number(given, 2, &settings.sparse_safe, 0, i32::MAX)?;
    Ok([convert, ratio, safe].into_iter().collect())
}

fn encode_depth(_: &State, settings: &Settings, given: &Given<'_>) -> Result<MultiValue> {
    at_most(given, 1)?;
    number(given, 0, &settings.encode_depth, 1, i32::MAX).map(one)
}

fn decode_depth(_: &State, settings: &Settings, given: &Given<'_>) -> Result<MultiValue> {
    at_most(given, 1)?;
    number(given, 0, &settings.decode_depth, 1, i32::MAX).map(one)
}

fn precision(_: &State, settings: &Settings, given: &Given<'_>) -> Result<MultiValue> {
    at_most(given, 1)?;
    number(given, 0, &settings.digits, 1, 14).map(one)
}

fn keep_buffer(_: &State, settings: &Settings, given: &Given<'_>) -> Result<MultiValue> {
    at_most(given, 1)?;
    flag(given, 0, &settings.keep_buffer).map(one)
}

fn encode_invalid(_: &State, settings: &Settings, given: &Given<'_>) -> Result<MultiValue> {
    at_most(given, 1)?;
    match given.get(0) {
        None | Some(Value::Nil) => {}
        Some(Value::Boolean(true)) => settings.encode_invalid.set(Invalid::Accepted),
        Some(Value::Boolean(false)) => settings.encode_invalid.set(Invalid::Refused),
        Some(_) => {
            let name = given.text(0)?;
            let invalid = match &*name.as_bytes() {
                b"off" => Invalid::Refused,
                b"on" => Invalid::Accepted,
                b"null" => Invalid::Null,
                other => {
                    let other = String::from_utf8_lossy(other);
                    return Err(given.error(0, format_args!("invalid option '{other}'")));
                }
            };
            settings.encode_invalid.set(invalid);
        }
    }
    let now = match settings.encode_invalid.get() {
        Invalid::Refused => Value::Boolean(false),
        Invalid::Accepted => Value::Boolean(true),
        Invalid::Null => Value::String(given.lua.create_string("null")?),
    };
    Ok(one(now))
}

fn decode_invalid(_: &State, settings: &Settings, given: &Given<'_>) -> Result<MultiValue> {
    at_most(given, 1)?;
    flag(given, 0, &settings.decode_invalid).map(one)
}
