//! `string.find`, `match`, `gmatch`, `gsub` and `rep`, with bounds and with a look at the host now and then.

use std::ops::Range;
use std::rc::Rc;

use mlua::{Lua, MultiValue, Result, Table, Value};

use crate::engine::state::State;
use crate::error::located;
use crate::library::arguments::{Given, is_text};
use crate::library::pattern::{Capture, Matcher, PatternError, is_plain};
use crate::library::{Function, add_functions};

/// Adds the functions to the table of those that the prelude builds libraries of.
pub(crate) fn register(lua: &Lua, native: &Table, state: &Rc<State>) -> Result<()> {
    let functions: &[(&str, &str, Function)] = &[
        ("find", "find", find),
        ("match", "match", first_match),
        ("rep", "rep", repeat),
        ("gsub", "gsub", substitute),
        ("following", "gmatch", following),
        ("scan", "gsub", scan),
        ("gmatch", "gmatch", gmatch),
        ("check_gsub", "gsub", check_gsub),
    ];
    add_functions(lua, native, state, functions)?;
    let state = Rc::clone(state);
    let set_iterator = lua.create_function(move |_, iterator: mlua::Function| {
        state.set_iterator(iterator);
        Ok(())
    })?;
    native.raw_set("set_iterator", set_iterator)
}

fn find(state: &State, given: Given<'_>) -> Result<MultiValue> {
    let (text, pattern) = (given.text(0)?, given.text(1)?);
    let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
    let start = start_of_search(&given, text.len())?;
    let wants_plain = given
        .get(3)
        .is_some_and(|value| !matches!(value, Value::Nil | Value::Boolean(false)));
    if wants_plain || is_plain(&pattern) {
        let found = find_plain(&text[start..], &pattern).map(|at| start + at..start + at + pattern.len());
        return Ok(found.map_or_else(nothing, |range| bounds(&range)));
    }
    let (anchored, items) = anchor(&pattern);
    let mut matcher = Matcher::new(&text, items, || state.step());
    let Some(range) = found(&given, matcher.search(start, anchored))? else {
        return Ok(nothing());
    };
    bounds_and_captures(&given, &text, &matcher, &range)
}

fn first_match(state: &State, given: Given<'_>) -> Result<MultiValue> {
    let (text, pattern) = (given.text(0)?, given.text(1)?);
    let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
    let start = start_of_search(&given, text.len())?;
    let (anchored, items) = anchor(&pattern);
    let mut matcher = Matcher::new(&text, items, || state.step());
    let Some(range) = found(&given, matcher.search(start, anchored))? else {
        return Ok(nothing());
    };
    captures(&given, &text, &matcher, &range, MultiValue::new())
}

/// One step of `gmatch`: the place to continue from, and the captures.
fn following(state: &State, given: Given<'_>) -> Result<MultiValue> {
    let (text, pattern) = (given.text(0)?, given.text(1)?);
    let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
    let start = given.long(2)? as usize - 1;
    if start > text.len() {
        return Ok(nothing());
    }
    let mut matcher = Matcher::new(&text, &pattern, || state.step());
    let Some(range) = found(&given, matcher.search(start, false))? else {
        return Ok(nothing());
    };
    let next = range.end + usize::from(range.is_empty()) + 1;
    let mut results = MultiValue::new();
    results.push_back(Value::Integer(next as i64));
    captures(&given, &text, &matcher, &range, results)
}

/// `gmatch`: checks its arguments; the iterator is a function of Lua.
fn gmatch(state: &State, given: Given<'_>) -> Result<MultiValue> {
    let (text, pattern) = (given.text(0)?, given.text(1)?);
    state.iterator()?.call((text, pattern))
}

/// Checks the text, pattern and bound of `gsub`; returns the bound.
fn check_gsub(_: &State, given: Given<'_>) -> Result<MultiValue> {
    let text = given.text(0)?;
    given.text(1)?;
    let bound = if given.is_absent(2) {
        text.as_bytes().len() as i64 + 1
    } else {
        i64::from(given.int(2)?)
    };
    Ok(one(Value::Integer(bound)))
}

/// One match of `gsub`: where it begins and ends, and what it captures.
fn scan(state: &State, given: Given<'_>) -> Result<MultiValue> {
    let (text, pattern) = (given.text(0)?, given.text(1)?);
    let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
    let (anchored, items) = anchor(&pattern);
    let start = given.long(2)? as usize - 1;
    let mut matcher = Matcher::new(&text, items, || state.step());
    let Some(range) = found(&given, matcher.search(start, anchored))? else {
        return Ok(nothing());
    };
    bounds_and_captures(&given, &text, &matcher, &range)
}

/// `gsub` with a text as its replacement.
fn substitute(state: &State, given: Given<'_>) -> Result<MultiValue> {
    let (text, pattern) = (given.text(0)?, given.text(1)?);
    if !given.get(2).is_some_and(is_text) {
        return Err(given.error(2, "string/function/table expected"));
    }
    let replacement = given.text(2)?;
    let (text, pattern, replacement) = (text.as_bytes(), pattern.as_bytes(), replacement.as_bytes());
    let bound = if given.is_absent(3) {
        text.len() as i64 + 1
    } else {
        i64::from(given.int(3)?)
    };
    let (anchored, items) = anchor(&pattern);
    let mut matcher = Matcher::new(&text, items, || state.step());
    let (mut out, mut at, mut count) = (Vec::with_capacity(text.len()), 0, 0);
    while count < bound {
        let Some(range) = found(&given, matcher.search(at, anchored))? else {
            break;
        };
        count += 1;
        out.extend_from_slice(&text[at..range.start]);
        append_replacement(&given, &text, &replacement, &matcher, &range, &mut out)?;
        state.check_buffer(out.len())?;
        at = range.end;
        if range.is_empty() {
            if at == text.len() {
                break;
            }
            out.push(text[at]);
            at += 1;
        }
        if anchored {
            break;
        }
    }
    out.extend_from_slice(&text[at..]);
    let mut results = one(Value::String(given.lua.create_string(&out)?));
    results.push_back(Value::Integer(count));
    Ok(results)
}

fn append_replacement<P: FnMut() -> Result<()>>(
    given: &Given<'_>,
    text: &[u8],
    replacement: &[u8],
    matcher: &Matcher<'_, P>,
    range: &Range<usize>,
    out: &mut Vec<u8>,
) -> Result<()> {
    let mut bytes = replacement.iter();
    while let Some(&byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        match bytes.next().copied().unwrap_or(0) {
            b'0' => out.extend_from_slice(&text[range.clone()]),
            digit if digit.is_ascii_digit() => {
                let capture = matcher.capture(usize::from(digit - b'1'), range);
                match capture.map_err(|error| raised(given, error))? {
                    Capture::Bytes(range) => out.extend_from_slice(&text[range]),
                    Capture::Position(position) => out.extend_from_slice(position.to_string().as_bytes()),
                }
            }
            other => out.push(other),
        }
    }
    Ok(())
}

/// `rep`, whose result must fit into the memory of the engine.
fn repeat(state: &State, given: Given<'_>) -> Result<MultiValue> {
    let text = given.text(0)?;
    let count = given.int(1)?;
    let text = text.as_bytes();
    let count = if text.is_empty() || count < 0 {
        0
    } else {
        count as usize
    };
    let len = text.len().saturating_mul(count);
    state.check_buffer(len)?;
    let repeated = given.lua.create_string(text.repeat(count))?;
    Ok(one(Value::String(repeated)))
}

/// Place where a search begins: the third argument, counted from the end if it is negative.
fn start_of_search(given: &Given<'_>, len: usize) -> Result<usize> {
    let from = if given.is_absent(2) { 1 } else { given.long(2)? };
    let from = if from < 0 {
        from.saturating_add(len as i64 + 1)
    } else {
        from
    };
    Ok(usize::try_from(from - 1).unwrap_or(0).min(len))
}

fn anchor(pattern: &[u8]) -> (bool, &[u8]) {
    match pattern.strip_prefix(b"^") {
        Some(items) => (true, items),
        None => (false, pattern),
    }
}

fn find_plain(text: &[u8], wanted: &[u8]) -> Option<usize> {
    bstr::ByteSlice::find(text, wanted)
}

fn captures<P: FnMut() -> Result<()>>(
    given: &Given<'_>,
    text: &[u8],
    matcher: &Matcher<'_, P>,
    range: &Range<usize>,
    mut results: MultiValue,
) -> Result<MultiValue> {
    for index in 0..matcher.captures().max(1) {
        results.push_back(captured(given, text, matcher.capture(index, range))?);
    }
    Ok(results)
}

/// Beginning and end of a match, and its captures, if the pattern has any.
fn bounds_and_captures<P: FnMut() -> Result<()>>(
    given: &Given<'_>,
    text: &[u8],
    matcher: &Matcher<'_, P>,
    range: &Range<usize>,
) -> Result<MultiValue> {
    let mut results = bounds(range);
    for index in 0..matcher.captures() {
        results.push_back(captured(given, text, matcher.capture(index, range))?);
    }
    Ok(results)
}

fn captured(
    given: &Given<'_>,
    text: &[u8],
    capture: std::result::Result<Capture, PatternError>,
) -> Result<Value> {
    match capture.map_err(|error| raised(given, error))? {
        Capture::Bytes(range) => given.lua.create_string(&text[range]).map(Value::String),
        Capture::Position(position) => Ok(Value::Integer(position as i64)),
    }
}

fn found<T>(given: &Given<'_>, result: std::result::Result<T, PatternError>) -> Result<T> {
    result.map_err(|error| raised(given, error))
}

fn raised(given: &Given<'_>, error: PatternError) -> mlua::Error {
    match error {
        PatternError::Invalid(text) => located(given.lua, text),
        PatternError::Stopped(error) => error,
    }
}

fn bounds(range: &Range<usize>) -> MultiValue {
    [range.start as i64 + 1, range.end as i64]
        .into_iter()
        .map(Value::Integer)
        .collect()
}

fn one(value: Value) -> MultiValue {
    [value].into_iter().collect()
}

/// One nil: a function that returns no value at all cannot be used as an argument.
fn nothing() -> MultiValue {
    one(Value::Nil)
}
