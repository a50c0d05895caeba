//! Errors and unusual replies of `redis.call` and `redis.pcall`, by way of the binding.
//!
//! | reply | RESP2 | RESP3 |
//! |---|---|---|
//! | integer, string, array | number, string, table | the same |
//! | simple string, error | `{ok=…}`, `{err=…}` | the same |
//! | null | `false` | `nil` |
//! | map, set | table | `{map={…}}`, `{set={…}}` |
//! | double, big number | string | `{double=…}`, `{big_number=…}` |
//! | verbatim string | string | `{verbatim_string={format=…, string=…}}` |

use std::ops::Deref;

use mlua::{BorrowedBytes, Lua, MultiValue, Result, String as Text, Table, Value};
use shardis_protocol::{Arguments, Span};
use smallvec::SmallVec;

use crate::engine::state::{Names, State};
use crate::library::arguments::as_number;
use crate::library::build::{Builder, Form};
use crate::limits::COMMAND_REPLY_DEPTH_MAX;
use crate::number::{EXACT_DIGITS, NumberText, general};

/// Words that commands usually have at most.
const USUAL_WORDS: usize = 8;

/// A reply, or the table that describes an error.
pub(crate) type Answer = std::result::Result<Value, Table>;

/// One word of a command.
enum Word<'a> {
    Bytes(BorrowedBytes<'a>),
    Number(NumberText),
}

impl Deref for Word<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Word::Bytes(bytes) => bytes,
            Word::Number(text) => text,
        }
    }
}

/// The error for arguments with which no command can be called, or not now.
pub(crate) fn refusal(state: &State, lua: &Lua, values: &MultiValue) -> Result<Answer> {
    if values.is_empty() {
        return failure(
            state,
            lua,
            b"Please specify at least one argument for this redis lib call",
        );
    }
    match with_words(values, |words| words.iter().map(|word| word.len()).sum::<usize>()) {
        None => failure(
            state,
            lua,
            b"Lua redis lib command arguments must be strings or integers",
        ),
        Some(bytes) => {
            state.check_buffer(bytes)?;
            failure(state, lua, b"redis.call can only be called while a script runs")
        }
    }
}

/// The reply to the last command, which is in the state, or the end of the script that came instead.
pub(crate) fn answer(state: &State, lua: &Lua) -> Result<Answer> {
    match state.end.take() {
        Some(stop) => Err(state.stop(stop)),
        None => decoded(state, lua, &state.reply.borrow()),
    }
}

/// Calls `f` with the words that the values are. `None` if one is neither a string nor a number.
pub(crate) fn with_words<T>(values: &MultiValue, f: impl FnOnce(&[&[u8]]) -> T) -> Option<T> {
    // Collecting into an `Option` would move all the words once more, with each command.
    let mut words = SmallVec::<[Word<'_>; USUAL_WORDS]>::new();
    for value in values {
        words.push(word(value)?);
    }
    let slices: SmallVec<[&[u8]; USUAL_WORDS]> = words.iter().map(|word| &**word).collect();
    Some(f(&slices))
}

fn word(value: &Value) -> Option<Word<'_>> {
    match value {
        Value::String(text) => Some(Word::Bytes(text.as_bytes())),
        Value::Integer(_) | Value::Number(_) => Some(Word::Number(number_word(value))),
        _ => None,
    }
}

fn number_word(value: &Value) -> NumberText {
    general(as_number(value).unwrap_or_default(), EXACT_DIGITS)
}

/// Calls `f` with words in the form in which commands take them.
pub(crate) fn with_arguments<T>(words: &[&[u8]], f: impl FnOnce(Arguments<'_>) -> T) -> T {
    let spans: SmallVec<[Span; USUAL_WORDS]> = (0..words.len() as u32).map(Span::detached).collect();
    f(Arguments::new(&[], &spans, words))
}

/// An error that the engine itself has found.
pub(crate) fn failure(state: &State, lua: &Lua, text: &[u8]) -> Result<Answer> {
    Ok(Err(error_table(state, lua, text)?))
}

/// The table that describes an error. A text that begins with `-` brings its own code.
pub(crate) fn error_table(state: &State, lua: &Lua, text: &[u8]) -> Result<Table> {
    let mut line = Vec::with_capacity(text.len() + 4);
    match text.strip_prefix(b"-") {
        Some(coded) if coded.contains(&b' ') => line.extend_from_slice(coded),
        uncoded => {
            line.extend_from_slice(b"ERR ");
            line.extend_from_slice(uncoded.unwrap_or(text));
        }
    }
    while matches!(line.last(), Some(b'\r' | b'\n')) {
        line.pop();
    }
    let table = lua.create_table_with_capacity(0, 1)?;
    table.raw_set(&state.names(lua)?.err, lua.create_string(&line)?)?;
    Ok(table)
}

/// The reply as a value of Lua.
fn decoded(state: &State, lua: &Lua, reply: &[u8]) -> Result<Answer> {
    let mut decoder = Decoder {
        state,
        lua,
        rest: reply,
    };
    if reply.first() == Some(&b'-') || reply.first() == Some(&b'!') {
        return decoder.error().map(Err);
    }
    match decoder.item()? {
        Some(Item::Scalar(value)) => Ok(Ok(value)),
        Some(Item::Aggregate(form, values, wrapper)) => decoder.aggregate(form, values, wrapper),
        None => invalid(state, lua),
    }
}

/// A reply that the host has not encoded well.
#[cold]
fn invalid(state: &State, lua: &Lua) -> Result<Answer> {
    debug_assert!(false, "the host gave an invalid reply");
    failure(state, lua, b"invalid reply of a command")
}

/// One element of a reply.
enum Item {
    Scalar(Value),
    /// A table of so many values; with a name, it is the field of another one.
    Aggregate(Form, u64, Option<Text>),
}

struct Decoder<'a> {
    state: &'a State,
    lua: &'a Lua,
    rest: &'a [u8],
}

impl Decoder<'_> {
    fn aggregate(&mut self, form: Form, values: u64, wrapper: Option<Text>) -> Result<Answer> {
        let mut builder = Builder::new(self.lua);
        let mut next = Item::Aggregate(form, values, wrapper);
        loop {
            let done = match next {
                Item::Scalar(value) => builder.put(value)?,
                Item::Aggregate(..) if builder.depth() >= COMMAND_REPLY_DEPTH_MAX => {
                    return failure(self.state, self.lua, b"reached lua stack limit");
                }
                Item::Aggregate(form, values, wrapper) => {
                    let outer = match &wrapper {
                        Some(name) => Some((self.lua.create_table()?, name)),
                        None => None,
                    };
                    builder.open_counted(form, values, outer)?
                }
            };
            if let Some(value) = done {
                return Ok(Ok(value));
            }
            next = match self.item()? {
                Some(item) => item,
                None => return invalid(self.state, self.lua),
            };
        }
    }

    /// Reads an element. `None` if there is none, or not a valid one.
    fn item(&mut self) -> Result<Option<Item>> {
        let names = self.state.names(self.lua)?;
        let Some(&kind) = self.rest.first() else {
            return Ok(None);
        };
        Ok(match kind {
            b'-' | b'!' => Some(Item::Scalar(Value::Table(self.error()?))),
            b'$' => self.bulk()?.map(Item::Scalar),
            b'=' => self.verbatim(names)?,
            b'*' | b'~' | b'%' | b'|' => return self.begin(kind, names),
            _ => {
                let Some(line) = self.line() else {
                    return Ok(None);
                };
                self.scalar(kind, line, names)?.map(Item::Scalar)
            }
        })
    }

    fn scalar(&self, kind: u8, line: &[u8], names: &Names) -> Result<Option<Value>> {
        Ok(match kind {
            b':' => integer(line).map(Value::Integer),
            b'+' => Some(self.field(&names.ok, Value::String(self.lua.create_string(line)?))?),
            b'_' => Some(Value::Nil),
            b'#' => Some(Value::Boolean(line == b"t")),
            b',' => match shardis_storage::number::parse_f64(line) {
                Some(number) => Some(self.field(&names.double, Value::Number(number))?),
                None => None,
            },
            b'(' => Some(self.field(&names.big_number, Value::String(self.lua.create_string(line)?))?),
            _ => None,
        })
    }

    fn begin(&mut self, kind: u8, names: &Names) -> Result<Option<Item>> {
        let Some(count) = self.line().and_then(integer) else {
            return Ok(None);
        };
        let Ok(count) = u64::try_from(count) else {
            return Ok(Some(Item::Scalar(Value::Boolean(false))));
        };
        Ok(match kind {
            b'*' => Some(Item::Aggregate(Form::Sequence, count, None)),
            b'~' => Some(Item::Aggregate(Form::Set, count, Some(names.set.clone()))),
            b'%' => Some(Item::Aggregate(Form::Map, 2 * count, Some(names.map.clone()))),
            // A script does not see attributes.
            _ => {
                for _ in 0..2 * count {
                    self.skip()?;
                }
                self.item()?
            }
        })
    }

    /// Passes an element that the script does not see.
    fn skip(&mut self) -> Result<()> {
        if let Some(Item::Aggregate(form, values, wrapper)) = self.item()? {
            drop(self.aggregate(form, values, wrapper)?);
        }
        Ok(())
    }

    fn bulk(&mut self) -> Result<Option<Value>> {
        let Some(len) = self.line().and_then(integer) else {
            return Ok(None);
        };
        let Ok(len) = usize::try_from(len) else {
            return Ok(Some(Value::Boolean(false)));
        };
        match self.bytes(len) {
            Some(bytes) => Ok(Some(Value::String(self.lua.create_string(bytes)?))),
            None => Ok(None),
        }
    }

    fn verbatim(&mut self, names: &Names) -> Result<Option<Item>> {
        let len = self
            .line()
            .and_then(integer)
            .and_then(|len| usize::try_from(len).ok());
        let Some((format, text)) = len
            .and_then(|len| self.bytes(len))
            .and_then(|bytes| bytes.split_at_checked(4))
        else {
            return Ok(None);
        };
        let inner = self.lua.create_table()?;
        inner.raw_set(&names.format, self.lua.create_string(&format[..3])?)?;
        inner.raw_set(&names.string, self.lua.create_string(text)?)?;
        Ok(Some(Item::Scalar(
            self.field(&names.verbatim, Value::Table(inner))?,
        )))
    }

    /// An error, as a table. It has been counted when its command ended.
    fn error(&mut self) -> Result<Table> {
        let is_bulk = self.rest.first() == Some(&b'!');
        let line = self.line().unwrap_or_default();
        let text = match integer(line).and_then(|len| usize::try_from(len).ok()) {
            Some(len) if is_bulk => self.bytes(len).unwrap_or_default(),
            _ => line,
        };
        let names = self.state.names(self.lua)?;
        let table = self.lua.create_table_with_capacity(0, 2)?;
        table.raw_set(&names.err, self.lua.create_string(text)?)?;
        table.raw_set(&names.is_counted, true)?;
        Ok(table)
    }

    fn field(&self, name: &Text, value: Value) -> Result<Value> {
        let table = self.lua.create_table_with_capacity(0, 1)?;
        table.raw_set(name, value)?;
        Ok(Value::Table(table))
    }
}

impl<'a> Decoder<'a> {
    /// The line behind a type byte.
    fn line(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest.get(1..)?;
        let end = rest.iter().position(|&byte| byte == b'\r')?;
        self.rest = rest.get(end + 2..)?;
        Some(&rest[..end])
    }

    /// So many bytes and the end of their line.
    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let bytes = self.rest.get(..len)?;
        self.rest = self.rest.get(len + 2..)?;
        Some(bytes)
    }
}

fn integer(line: &[u8]) -> Option<i64> {
    shardis_storage::number::parse_i64(line)
}
