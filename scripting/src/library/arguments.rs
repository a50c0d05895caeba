//! [`Given`]: the arguments of a library function, checked as functions written in C check theirs.

use mlua::{Lua, MultiValue, Result, String as Text, Value};

use crate::error;

/// The arguments of one call of a library function.
pub(crate) struct Given<'l> {
    /// The interpreter.
    pub(crate) lua: &'l Lua,
    function: &'static str,
    values: MultiValue,
}

impl<'l> Given<'l> {
    /// The arguments of a call of `function`.
    pub(crate) fn new(lua: &'l Lua, function: &'static str, values: MultiValue) -> Self {
        Given {
            lua,
            function,
            values,
        }
    }

    /// Adds an argument.
    pub(crate) fn push(&mut self, value: Value) {
        self.values.push_back(value);
    }

    /// Number of arguments.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// The argument at an index, if it is given.
    pub(crate) fn get(&self, index: usize) -> Option<&Value> {
        self.values.get(index)
    }

    /// Whether an argument is missing or nil.
    pub(crate) fn is_absent(&self, index: usize) -> bool {
        matches!(self.get(index), None | Some(Value::Nil))
    }

    /// An argument that must be there.
    pub(crate) fn any(&self, index: usize) -> Result<&Value> {
        self.get(index).ok_or_else(|| self.error(index, "value expected"))
    }

    /// A string, or a number as text.
    pub(crate) fn text(&self, index: usize) -> Result<Text> {
        match self.get(index) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(value @ (Value::Integer(_) | Value::Number(_))) => {
                let text = self.lua.coerce_string(value.clone())?;
                text.ok_or_else(|| self.wrong_type(index, "string"))
            }
            _ => Err(self.wrong_type(index, "string")),
        }
    }

    /// A number, or a string that spells one.
    pub(crate) fn number(&self, index: usize) -> Result<f64> {
        let number = match self.get(index) {
            Some(&Value::Number(number)) => Some(number),
            Some(&Value::Integer(integer)) => Some(integer as f64),
            Some(value @ Value::String(_)) => self.lua.coerce_number(value.clone())?,
            _ => None,
        };
        number.ok_or_else(|| self.wrong_type(index, "number"))
    }

    /// A number as C casts it to a long.
    pub(crate) fn long(&self, index: usize) -> Result<i64> {
        Ok(c_long(self.number(index)?))
    }

    /// A number as C casts it to an int.
    pub(crate) fn int(&self, index: usize) -> Result<i32> {
        Ok(self.long(index)? as i32)
    }

    /// The same, or `default` if the argument is absent.
    pub(crate) fn int_or(&self, index: usize, default: i32) -> Result<i32> {
        if self.is_absent(index) {
            Ok(default)
        } else {
            self.int(index)
        }
    }

    /// An error about an argument.
    #[cold]
    pub(crate) fn error(&self, index: usize, text: impl std::fmt::Display) -> mlua::Error {
        error::argument(self.lua, index + 1, self.function, text)
    }

    /// An error about an argument that is counted from 0, as some libraries have it.
    #[cold]
    pub(crate) fn error_at(&self, position: usize, text: impl std::fmt::Display) -> mlua::Error {
        error::argument(self.lua, position, self.function, text)
    }

    /// An error about the type of an argument.
    #[cold]
    pub(crate) fn wrong_type(&self, index: usize, wanted: &str) -> mlua::Error {
        error::wrong_type(self.lua, index + 1, self.function, wanted, self.get(index))
    }
}

/// A number as a processor converts it: what does not fit becomes the smallest integer.
pub(crate) fn c_long(number: f64) -> i64 {
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if (-BEYOND..BEYOND).contains(&number) {
        number as i64
    } else {
        i64::MIN
    }
}

/// Whether a value is a number or a string.
pub(crate) fn is_text(value: &Value) -> bool {
    matches!(value, Value::String(_) | Value::Integer(_) | Value::Number(_))
}

/// The number that a value is.
pub(crate) fn as_number(value: &Value) -> Option<f64> {
    match *value {
        Value::Integer(integer) => Some(integer as f64),
        Value::Number(number) => Some(number),
        _ => None,
    }
}
