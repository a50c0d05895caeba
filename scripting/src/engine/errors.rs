//! Errors that a script catches, and those with which it ends.

use std::rc::Rc;

use mlua::{Lua, Result, Table, Value};

use crate::engine::state::{Place, State};
use crate::error::{Raised, is_prelude};

/// Name of the code of `prelude.lua`; its frames are not shown in errors.
pub(crate) const PRELUDE_NAME: &str = "=prelude";

/// Error with which a script ended.
pub(crate) struct Failure {
    text: Vec<u8>,
    place: Option<Place>,
    /// A command has counted it.
    pub(crate) is_counted: bool,
}

impl Failure {
    /// The error that the handler of the engine has made.
    pub(crate) fn of(state: &State, lua: &Lua, error: &Value) -> Failure {
        match error {
            Value::Table(table) => {
                Self::of_table(state, lua, table).unwrap_or_else(|error| Self::raw(message(&error)))
            }
            Value::String(text) => Self::raw(text.to_string_lossy()),
            _ => Self::raw("execution failure".to_owned()),
        }
    }

    fn of_table(state: &State, lua: &Lua, table: &Table) -> Result<Failure> {
        let names = state.names(lua)?;
        let text = lua.coerce_string(table.raw_get(&names.err)?)?;
        let text = text.map_or_else(|| b"ERR unknown error".to_vec(), |text| text.as_bytes().to_vec());
        let source: Option<mlua::String> = table.raw_get(&names.source)?;
        let line: Option<usize> = table.raw_get(&names.line)?;
        Ok(Failure {
            text,
            place: source.zip(line).map(|(source, line)| Place {
                source: source.to_string_lossy(),
                line,
            }),
            is_counted: table.raw_get::<Option<bool>>(&names.is_counted)? == Some(true),
        })
    }

    /// An error that did not come through the handler, such as the lack of memory.
    pub(crate) fn raw(text: String) -> Failure {
        Failure {
            text: format!("ERR Error running script: {text}").into_bytes(),
            place: None,
            is_counted: false,
        }
    }

    /// The error of a script that was killed.
    pub(crate) fn killed(place: Option<Place>, is_function: bool) -> Failure {
        let command = if is_function { "FUNCTION" } else { "SCRIPT" };
        Failure {
            text: format!("ERR Script killed by user with {command} KILL.").into_bytes(),
            place,
            is_counted: false,
        }
    }

    /// The reply: the error, and in which script and line it happened.
    pub(crate) fn line(&self, label: &[u8]) -> Vec<u8> {
        let mut line = self.text.clone();
        if let Some(place) = &self.place {
            line.extend_from_slice(b" script: ");
            line.extend_from_slice(label);
            line.extend_from_slice(format!(", on {}:{}.", place.source, place.line).as_bytes());
        }
        line
    }

    /// The error alone.
    pub(crate) fn text_lossy(&self) -> String {
        String::from_utf8_lossy(&self.text).into_owned()
    }
}

/// Adds the functions by which the prelude handles errors.
pub(crate) fn register(lua: &Lua, native: &Table, state: &Rc<State>) -> Result<()> {
    let shared = Rc::clone(state);
    let caught = lua.create_function(move |lua, (error, is_pcall): (Value, bool)| {
        caught(&shared, lua, error, is_pcall)
    })?;
    native.raw_set("caught", caught)?;
    let shared = Rc::clone(state);
    native.raw_set(
        "handler",
        lua.create_function(move |lua, error: Value| handle(&shared, lua, error))?,
    )
}

/// An error as a script sees it: errors of the engine's functions as text, and from `pcall` those of commands too.
///
/// # Errors
/// If the script has been stopped: that cannot be caught.
fn caught(state: &State, lua: &Lua, error: Value, is_pcall: bool) -> Result<Value> {
    if let Some(stop) = state.stopped() {
        return Err(state.stop(stop));
    }
    match as_lua(lua, error)? {
        Value::String(text) => match behind_prelude_line(&text.as_bytes()) {
            Some(text) => lua.create_string(text).map(Value::String),
            None => Ok(Value::String(text)),
        },
        Value::Table(table) if is_pcall => {
            let text: Value = table.raw_get(&state.names(lua)?.err)?;
            let is_text = matches!(text, Value::String(_) | Value::Integer(_) | Value::Number(_));
            Ok(if is_text { text } else { Value::Table(table) })
        }
        other => Ok(other),
    }
}

/// An error of a function of the engine as the value that it would be if the function were written in C.
fn as_lua(lua: &Lua, error: Value) -> Result<Value> {
    match error {
        Value::Error(error) => match raised_table(&error) {
            Some(table) => Ok(Value::Table(table)),
            None => lua.create_string(message(&error)).map(Value::String),
        },
        other => Ok(other),
    }
}

fn raised_table(error: &mlua::Error) -> Option<Table> {
    match error {
        mlua::Error::CallbackError { cause, .. } => raised_table(cause),
        other => other.downcast_ref::<Raised>().and_then(Raised::take),
    }
}

/// Makes the table that describes an error with which the script ends.
fn handle(state: &State, lua: &Lua, error: Value) -> Result<Value> {
    if state.stopped().is_some() {
        return Ok(Value::Nil);
    }
    let names = state.names(lua)?;
    let place = place(lua, 1);
    let table = match as_lua(lua, error)? {
        Value::Table(table) if state.behind_face(&table).is_none() => table,
        other => {
            let text = text_of(lua, &other)?;
            let line = match behind_prelude_line(&text) {
                Some(text) => [
                    b"ERR ",
                    place.as_ref().map_or_else(String::new, Place::prefix).as_bytes(),
                    text,
                ]
                .concat(),
                None => [b"ERR ", text.as_slice()].concat(),
            };
            let table = lua.create_table_with_capacity(0, 4)?;
            table.raw_set(&names.err, lua.create_string(line)?)?;
            table
        }
    };
    if let Some(place) = place {
        table.raw_set(&names.source, place.source)?;
        table.raw_set(&names.line, place.line)?;
    }
    Ok(Value::Table(table))
}

/// The rest of a message behind a line of the prelude, which is no line of the script.
fn behind_prelude_line(text: &[u8]) -> Option<&[u8]> {
    let line = text.strip_prefix(b"prelude:")?;
    let digits = line.iter().take_while(|byte| byte.is_ascii_digit()).count();
    line[digits..].strip_prefix(b": ")
}

/// A value as `tostring` shows it, for those that can be an error.
fn text_of(lua: &Lua, error: &Value) -> Result<Vec<u8>> {
    Ok(match error {
        Value::Nil => b"nil".to_vec(),
        Value::Boolean(value) => value.to_string().into_bytes(),
        Value::String(text) => text.as_bytes().to_vec(),
        Value::Integer(_) | Value::Number(_) => lua
            .coerce_string(error.clone())?
            .map_or_else(Vec::new, |text| text.as_bytes().to_vec()),
        other => format!("{}: {:p}", crate::error::type_name(other), other.to_pointer()).into_bytes(),
    })
}

/// The message of an error, without what the interpreter's binding adds.
pub(crate) fn message(error: &mlua::Error) -> String {
    use mlua::Error::{CallbackError, MemoryError, RuntimeError, SyntaxError, WithContext};
    match error {
        CallbackError { cause, .. } | WithContext { cause, .. } => message(cause),
        RuntimeError(text) | MemoryError(text) | SyntaxError { message: text, .. } => text.clone(),
        other => other.to_string(),
    }
}

/// Place of the innermost function of a script, from a level of the stack on.
pub(crate) fn place(lua: &Lua, from: usize) -> Option<Place> {
    for level in from.. {
        let place = lua.inspect_stack(level, |frame| {
            let line = frame.current_line()?;
            let source = frame.source().source?.into_owned();
            (!is_prelude(frame)).then_some(Place { source, line })
        })?;
        if place.is_some() {
            return place;
        }
    }
    None
}
