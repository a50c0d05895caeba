//! Error texts that a client sees, and the errors by which library functions fail inside of a script.

use std::cell::RefCell;
use std::fmt;

use mlua::{Debug, Lua, Table, Value};

use crate::engine::PRELUDE_NAME;
use crate::host::Stop;

/// Error in the first line of a script or library. `Display` gives the reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// The line of a script does not end.
    Unended,
    /// A script is in another language.
    UnknownScriptEngine(Vec<u8>),
    /// An unknown word in the line of a script.
    UnknownOption(Vec<u8>),
    /// An unknown flag of a script.
    UnknownFlag(Vec<u8>),
    /// A library does not begin with `#!`.
    MissingMetadata,
    /// The line of a library does not end.
    InvalidMetadata,
    /// An unknown word in the line of a library.
    InvalidMetadataValue(Vec<u8>),
    /// A library has two names.
    RepeatedName,
    /// A library has no name.
    MissingName,
    /// A library has a name with other characters than letters, digits and underscores.
    InvalidLibraryName,
    /// A library is in another language.
    UnknownLibraryEngine(Vec<u8>),
}

/// Text of an error in the name of a library or function.
pub(crate) const INVALID_NAME: &str = "Library names can only contain letters, numbers, or underscores(_) and must be at least one character long";

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match self {
            HeaderError::Unended => write!(f, "ERR Invalid script shebang"),
            HeaderError::UnknownScriptEngine(engine) => {
                write!(f, "ERR Unexpected engine in script shebang: #!{}", text(engine))
            }
            HeaderError::UnknownOption(word) => write!(f, "ERR Unknown lua shebang option: {}", text(word)),
            HeaderError::UnknownFlag(flag) => {
                write!(f, "ERR Unexpected flag in script shebang: {}", text(flag))
            }
            HeaderError::MissingMetadata => write!(f, "ERR Missing library metadata"),
            HeaderError::InvalidMetadata => write!(f, "ERR Invalid library metadata"),
            HeaderError::InvalidMetadataValue(word) => {
                write!(f, "ERR Invalid metadata value given: {}", text(word))
            }
            HeaderError::RepeatedName => {
                write!(
                    f,
                    "ERR Invalid metadata value, name argument was given multiple times"
                )
            }
            HeaderError::MissingName => write!(f, "ERR Library name was not given"),
            HeaderError::InvalidLibraryName => write!(f, "ERR {INVALID_NAME}"),
            HeaderError::UnknownLibraryEngine(engine) => write!(f, "ERR Engine '{}' not found", text(engine)),
        }
    }
}

impl std::error::Error for HeaderError {}

/// Error of a script or library that cannot be compiled or loaded. `Display` gives the reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// Its first line is invalid.
    Header(HeaderError),
    /// A script has a syntax error.
    Script(String),
    /// A library has a syntax error.
    Library(String),
    /// A library failed while it registered its functions: the whole error of the script.
    Registering(String),
    /// A library registered no function.
    NoFunctions,
    /// The source is longer than [`crate::limits::SOURCE_BYTES_MAX`].
    TooLong,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Header(error) => write!(f, "{error}"),
            LoadError::Script(message) => write!(f, "ERR Error compiling script (new function): {message}"),
            LoadError::Library(message) => write!(f, "ERR Error compiling function: {message}"),
            LoadError::Registering(message) => write!(f, "ERR Error registering functions: {message}"),
            LoadError::NoFunctions => write!(f, "ERR No functions registered"),
            LoadError::TooLong => write!(f, "ERR Script is too long"),
        }
    }
}

impl std::error::Error for LoadError {}

impl From<HeaderError> for LoadError {
    fn from(error: HeaderError) -> Self {
        LoadError::Header(error)
    }
}

/// Error that ends a script and that the script cannot catch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopped(pub(crate) Stop);

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stopped: {:?}", self.0)
    }
}

impl std::error::Error for Stopped {}

/// Error that is a table, as those of commands are.
///
/// The one who catches it takes the table: an error stays in the memory of the interpreter until that is collected, and a
/// table that Rust holds takes a place of which there are few.
#[derive(Debug)]
pub(crate) struct Raised(RefCell<Option<Table>>);

impl Raised {
    /// Takes the table; only the first time.
    pub(crate) fn take(&self) -> Option<Table> {
        self.0.take()
    }
}

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an error of a command")
    }
}

impl std::error::Error for Raised {}

/// Raises a table that describes an error.
#[cold]
pub(crate) fn raised(table: Table) -> mlua::Error {
    mlua::Error::external(Raised(RefCell::new(Some(table))))
}

/// Error of a library function, with the line of the script that called it in front, as functions written in C have it.
#[cold]
pub(crate) fn located(lua: &Lua, message: impl fmt::Display) -> mlua::Error {
    mlua::Error::RuntimeError(format!("{}{message}", position(lua)))
}

/// Error of a library function, without the line of the script.
#[cold]
pub(crate) fn plain(message: impl Into<String>) -> mlua::Error {
    mlua::Error::RuntimeError(message.into())
}

/// Error of a function that was given a wrong argument, with the name by which the script called it.
#[cold]
pub(crate) fn argument(lua: &Lua, position: usize, function: &str, text: impl fmt::Display) -> mlua::Error {
    let is_called_by_prelude = lua.inspect_stack(1, is_prelude) == Some(true);
    let called = lua.inspect_stack(0, |running| {
        let names = running.names();
        let name = names.name.map(|name| name.into_owned());
        (name, names.name_what == Some("method"))
    });
    let (name, is_method) = match called {
        Some(called) if !is_called_by_prelude => called,
        _ => (Some(function.to_owned()), false),
    };
    let name = name.as_deref().unwrap_or("?");
    // The text before the colon of a method call is no argument for its author.
    match position.wrapping_sub(usize::from(is_method)) {
        0 if is_method => located(lua, format_args!("calling '{name}' on bad self ({text})")),
        position => located(lua, format_args!("bad argument #{position} to '{name}' ({text})")),
    }
}

/// Error of a function that was given an argument of a wrong type, or none.
#[cold]
pub(crate) fn wrong_type(
    lua: &Lua,
    position: usize,
    function: &str,
    wanted: &str,
    got: Option<&Value>,
) -> mlua::Error {
    let got = got.map_or("no value", type_name);
    argument(
        lua,
        position,
        function,
        format_args!("{wanted} expected, got {got}"),
    )
}

/// Name of the type of a value, as Lua 5.1 has it.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Integer(_) | Value::Number(_) => "number",
        Value::LightUserData(_) | Value::UserData(_) | Value::Error(_) => "userdata",
        other => other.type_name(),
    }
}

/// `source:line: ` of the function that called the library; nothing if that is not a function of Lua. Functions of the prelude in
/// between do not count.
fn position(lua: &Lua) -> String {
    for level in 1.. {
        let found = lua.inspect_stack(level, |frame| {
            if is_prelude(frame) {
                return None;
            }
            Some(match (frame.source().short_src, frame.current_line()) {
                (Some(source), Some(line)) => format!("{source}:{line}: "),
                _ => String::new(),
            })
        });
        match found {
            Some(Some(position)) => return position,
            Some(None) => {}
            None => break,
        }
    }
    String::new()
}

/// Whether a function belongs to the prelude.
pub(crate) fn is_prelude(frame: &Debug<'_>) -> bool {
    frame.source().source.as_deref() == Some(PRELUDE_NAME)
}
