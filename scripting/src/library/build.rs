//! [`Builder`]: tables built from the inside out, without recursion.
//!
//! Decoders of JSON, MessagePack and RESP hand it values one by one. It knows which table is open and puts each value
//! in its place.

use mlua::{Lua, Result, Table, Value};

use crate::error::plain;

/// Form of a table that is being built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Values at 1, 2, 3…
    Sequence,
    /// Keys, each followed by its value.
    Map,
    /// Keys, whose values are `true`.
    Set,
}

/// A table that is not complete.
struct Open {
    table: Table,
    form: Form,
    /// Table that the complete one is put into, by this name, before it goes where it belongs.
    wrapper: Option<Table>,
    /// Number of values that it still waits for; `None` if its end is told.
    missing: Option<u64>,
    next: usize,
    key: Option<Value>,
}

/// Tables that are open, the outermost first.
pub(crate) struct Builder<'l> {
    lua: &'l Lua,
    open: Vec<Open>,
}

impl<'l> Builder<'l> {
    /// A builder without any table.
    pub(crate) fn new(lua: &'l Lua) -> Self {
        Builder {
            lua,
            open: Vec::new(),
        }
    }

    /// Number of open tables.
    pub(crate) fn depth(&self) -> usize {
        self.open.len()
    }

    /// Form of the innermost open table.
    pub(crate) fn form(&self) -> Option<Form> {
        self.open.last().map(|open| open.form)
    }

    /// Begins a table whose end is told by [`Builder::close`].
    pub(crate) fn open(&mut self, form: Form) -> Result<()> {
        self.push(form, None, None)
    }

    /// Begins a table that is complete after `values` values; keys count as values. `wrapper` is the table that goes
    /// where the new one would, and has it as a field.
    ///
    /// Returns what [`Builder::put`] does if the table is complete at once.
    pub(crate) fn open_counted(
        &mut self,
        form: Form,
        values: u64,
        wrapper: Option<(Table, &mlua::String)>,
    ) -> Result<Option<Value>> {
        let wrapper = match wrapper {
            Some((outer, name)) => {
                self.push(form, Some(values), None)?;
                let inner = self.innermost().table.clone();
                outer.raw_set(name, inner)?;
                Some(outer)
            }
            None => {
                self.push(form, Some(values), None)?;
                None
            }
        };
        self.innermost().wrapper = wrapper;
        if values == 0 { self.close() } else { Ok(None) }
    }

    fn push(&mut self, form: Form, missing: Option<u64>, wrapper: Option<Table>) -> Result<()> {
        self.open.push(Open {
            table: self.lua.create_table()?,
            form,
            wrapper,
            missing,
            next: 1,
            key: None,
        });
        Ok(())
    }

    fn innermost(&mut self) -> &mut Open {
        let last = self.open.len() - 1;
        &mut self.open[last]
    }

    /// Puts a complete value where it belongs. Returns the value that is complete with it if no table is open any more.
    pub(crate) fn put(&mut self, value: Value) -> Result<Option<Value>> {
        let mut value = value;
        loop {
            let Some(open) = self.open.last_mut() else {
                return Ok(Some(value));
            };
            open.take(value)?;
            if let Some(missing) = &mut open.missing {
                *missing -= 1;
                if *missing == 0 {
                    value = self.pop();
                    continue;
                }
            }
            return Ok(None);
        }
    }

    /// Ends the innermost table and puts it where it belongs.
    pub(crate) fn close(&mut self) -> Result<Option<Value>> {
        let value = self.pop();
        self.put(value)
    }

    fn pop(&mut self) -> Value {
        let open = self.open.pop();
        debug_assert!(open.is_some(), "only a table that was opened is closed");
        open.map_or(Value::Nil, |open| {
            Value::Table(open.wrapper.unwrap_or(open.table))
        })
    }
}

impl Open {
    /// Takes a value, or the key of one.
    fn take(&mut self, value: Value) -> Result<()> {
        match self.form {
            Form::Sequence => {
                self.table.raw_set(self.next, value)?;
                self.next += 1;
            }
            Form::Set => self.table.raw_set(value, true)?,
            Form::Map => match self.key.take() {
                None if value.is_nil() => return Err(plain("table index is nil")),
                None if matches!(value, Value::Number(number) if number.is_nan()) => {
                    return Err(plain("table index is NaN"));
                }
                None => self.key = Some(value),
                Some(key) => self.table.raw_set(key, value)?,
            },
        }
        Ok(())
    }
}
