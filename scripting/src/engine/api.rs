//! `redis.*` beside the commands: hashes, replies, the log, replication, and the registration of functions.

use std::rc::Rc;

use mlua::{Lua, MultiValue, Result, Table, Value};
use shardis_protocol::Resp;

use crate::engine::Version;
use crate::engine::command::{Answer, answer, error_table, failure, refusal, with_arguments, with_words};
use crate::engine::stack;
use crate::engine::state::{FunctionRow, HOST, State};
use crate::error::{INVALID_NAME, raised};
use crate::host::{LogLevel, Targets};
use crate::library::arguments::is_text;
use crate::shebang::{Flags, is_name};

type Function = fn(&State, &Lua, MultiValue) -> Result<Answer>;

/// Adds the functions to the table from which the prelude builds `redis`.
pub(crate) fn register(lua: &Lua, native: &Table, state: &Rc<State>, version: &Version) -> Result<()> {
    let api = constants(lua, version)?;
    let shared = Rc::clone(state);
    let error_reply =
        lua.create_function(move |lua, values: MultiValue| error_reply(&shared, lua, values))?;
    api.raw_set("error_reply", error_reply)?;
    let shared = Rc::clone(state);
    let status_reply =
        lua.create_function(move |lua, values: MultiValue| status_reply(&shared, lua, values))?;
    api.raw_set("status_reply", status_reply)?;
    api.raw_set(
        "replicate_commands",
        lua.create_function(|_, _: MultiValue| Ok(true))?,
    )?;
    // There is no debugger, so that a breakpoint does not stop the script and output for it goes nowhere, as in a
    // server of Redis that no debugger is attached to.
    api.raw_set("breakpoint", lua.create_function(|_, _: MultiValue| Ok(false))?)?;
    api.raw_set("debug", lua.create_function(|_, _: MultiValue| Ok(()))?)?;
    let functions: [(&str, Function); 5] = [
        ("sha1hex", sha1_hex),
        ("setresp", set_resp),
        ("set_repl", set_replication),
        ("log", log),
        ("acl_check_cmd", may_run),
    ];
    for (name, function) in functions {
        let state = Rc::clone(state);
        let callback = lua
            .create_function(move |lua, values: MultiValue| function(&state, lua, values)?.map_err(raised))?;
        api.raw_set(name, callback)?;
    }
    api.raw_set("call", calling(lua, state, |answer| answer.map_err(raised))?)?;
    let returned = |answer: Answer| Ok(answer.unwrap_or_else(Value::Table));
    api.raw_set("pcall", calling(lua, state, returned)?)?;
    native.raw_set("api", api)?;
    let shared = Rc::clone(state);
    let register = lua.create_function(move |lua, values: MultiValue| {
        register_function(&shared, lua, &values)?.map_err(raised)
    })?;
    native.raw_set("register_function", register)
}

/// The function that runs a command. `settle` makes of its answer what the script gets, where that is not plain.
fn calling(
    lua: &Lua,
    state: &Rc<State>,
    settle: impl Fn(Answer) -> Result<Value> + Copy + 'static,
) -> Result<mlua::Function> {
    let shared = Rc::clone(state);
    let refuse =
        lua.create_function(move |lua, values: MultiValue| settle(refusal(&shared, lua, &values)?))?;
    let shared = Rc::clone(state);
    let finish = lua.create_function(move |lua, ()| settle(answer(&shared, lua)?))?;
    stack::call_function(lua, state, refuse, finish)
}

fn constants(lua: &Lua, version: &Version) -> Result<Table> {
    let api = lua.create_table()?;
    for (name, level) in [
        ("LOG_DEBUG", LogLevel::Debug),
        ("LOG_VERBOSE", LogLevel::Verbose),
        ("LOG_NOTICE", LogLevel::Notice),
        ("LOG_WARNING", LogLevel::Warning),
    ] {
        api.raw_set(name, level as u8)?;
    }
    for (name, targets) in [
        ("REPL_NONE", Targets::empty()),
        ("REPL_AOF", Targets::APPEND_ONLY_FILE),
        ("REPL_SLAVE", Targets::REPLICAS),
        ("REPL_REPLICA", Targets::REPLICAS),
        ("REPL_ALL", Targets::all()),
    ] {
        api.raw_set(name, targets.bits())?;
    }
    api.raw_set("REDIS_VERSION", version.redis.text())?;
    api.raw_set("REDIS_VERSION_NUM", version.redis.number())?;
    api.raw_set("SERVER_NAME", version.server_name.as_str())?;
    api.raw_set("SERVER_VERSION", version.server.text())?;
    api.raw_set("SERVER_VERSION_NUM", version.server.number())?;
    Ok(api)
}

fn done(value: Value) -> Result<Answer> {
    Ok(Ok(value))
}

fn error_reply(state: &State, lua: &Lua, values: MultiValue) -> Result<Table> {
    match (values.len(), values.front()) {
        (1, Some(Value::String(text))) => {
            let text = text.as_bytes();
            let mut line = Vec::with_capacity(text.len() + 1);
            line.push(b'-');
            line.extend_from_slice(text.strip_prefix(b"-").unwrap_or(&text));
            error_table(state, lua, &line)
        }
        _ => error_table(state, lua, b"wrong number or type of arguments"),
    }
}

fn status_reply(state: &State, lua: &Lua, values: MultiValue) -> Result<Table> {
    match (values.len(), values.front()) {
        (1, Some(Value::String(text))) => {
            let table = lua.create_table_with_capacity(0, 1)?;
            table.raw_set(&state.names(lua)?.ok, text)?;
            Ok(table)
        }
        _ => error_table(state, lua, b"wrong number or type of arguments"),
    }
}

fn sha1_hex(state: &State, lua: &Lua, values: MultiValue) -> Result<Answer> {
    if values.len() != 1 {
        return failure(state, lua, b"wrong number of arguments");
    }
    let text = lua.coerce_string(values[0].clone())?;
    let digest = match text {
        Some(text) => crate::cache::Digest::of(&text.as_bytes()),
        None => crate::cache::Digest::of(b""),
    };
    done(Value::String(lua.create_string(digest.to_string())?))
}

fn set_resp(state: &State, lua: &Lua, values: MultiValue) -> Result<Answer> {
    if values.len() != 1 {
        return failure(state, lua, b"redis.setresp() requires one argument.");
    }
    match lua.coerce_integer(values[0].clone())? {
        Some(2) => state.resp.set(Resp::V2),
        Some(3) => state.resp.set(Resp::V3),
        _ => return failure(state, lua, b"RESP version must be 2 or 3."),
    }
    done(Value::Nil)
}

fn set_replication(state: &State, lua: &Lua, values: MultiValue) -> Result<Answer> {
    if values.len() != 1 {
        return failure(state, lua, b"redis.set_repl() requires two arguments.");
    }
    let number = lua.coerce_number(values[0].clone())?.unwrap_or_default();
    let targets = u8::try_from(number as i64).ok().and_then(Targets::from_bits);
    let Some(targets) = targets else {
        return failure(
            state,
            lua,
            b"Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.",
        );
    };
    if HOST.is_set() {
        HOST.with(|host| host.replicate_to(targets));
    }
    done(Value::Nil)
}

fn log(state: &State, lua: &Lua, values: MultiValue) -> Result<Answer> {
    if values.len() < 2 {
        return failure(state, lua, b"redis.log() requires two arguments or more.");
    }
    let Some(number) = lua.coerce_number(values[0].clone())? else {
        return failure(state, lua, b"First argument must be a number (log level).");
    };
    let Some(level) = LogLevel::of_number(number) else {
        return failure(state, lua, b"Invalid debug level.");
    };
    let mut line = Vec::new();
    for value in values.iter().skip(1).filter(|value| is_text(value)) {
        if let Some(text) = lua.coerce_string(value.clone())? {
            if !line.is_empty() {
                line.push(b' ');
            }
            line.extend_from_slice(&text.as_bytes());
        }
    }
    if HOST.is_set() {
        HOST.with(|host| host.log(level, &line));
    }
    done(Value::Nil)
}

fn may_run(state: &State, lua: &Lua, values: MultiValue) -> Result<Answer> {
    if values.is_empty() {
        return failure(
            state,
            lua,
            b"Please specify at least one argument for this redis lib call",
        );
    }
    let answer = with_words(&values, |words| {
        with_arguments(words, |arguments| {
            HOST.is_set().then(|| HOST.with(|host| host.may_run(arguments)))
        })
    });
    match answer {
        None => failure(
            state,
            lua,
            b"Lua redis lib command arguments must be strings or integers",
        ),
        Some(Some(Some(may_run))) => done(Value::Boolean(may_run)),
        Some(_) => failure(state, lua, b"Invalid command passed to redis.acl_check_cmd()"),
    }
}

/// Arguments of `redis.register_function` in either of its forms.
#[derive(Default)]
struct Registered {
    name: Option<Vec<u8>>,
    description: Option<Vec<u8>>,
    flags: Flags,
    callback: Option<mlua::Function>,
}

fn register_function(state: &State, lua: &Lua, values: &MultiValue) -> Result<Answer> {
    let registered = match values.len() {
        1 => named_arguments(lua, &values[0]),
        2 => two_arguments(lua, values),
        _ => Err("wrong number of arguments to redis.register_function"),
    };
    let outcome = registered.and_then(|registered| add_function(state, registered));
    match outcome {
        Ok(()) => done(Value::Nil),
        Err(text) => failure(state, lua, text.as_bytes()),
    }
}

type Checked<T> = std::result::Result<T, &'static str>;

fn two_arguments(lua: &Lua, values: &MultiValue) -> Checked<Registered> {
    let name =
        text_of(lua, &values[0]).ok_or("first argument to redis.register_function must be a string")?;
    let Value::Function(callback) = &values[1] else {
        return Err("second argument to redis.register_function must be a function");
    };
    Ok(Registered {
        name: Some(name),
        callback: Some(callback.clone()),
        ..Registered::default()
    })
}

fn named_arguments(lua: &Lua, value: &Value) -> Checked<Registered> {
    let Value::Table(arguments) = value else {
        return Err(
            "calling redis.register_function with a single argument is only applicable to Lua table (representing named arguments).",
        );
    };
    let mut registered = Registered::default();
    for pair in arguments.pairs::<Value, Value>() {
        let (key, value) = pair.map_err(|_| "unknown argument given to redis.register_function")?;
        let key = text_of(lua, &key)
            .ok_or("named argument key given to redis.register_function is not a string")?;
        match key.as_slice() {
            b"function_name" => {
                let name = text_of(lua, &value);
                registered.name = Some(
                    name.ok_or("function_name argument given to redis.register_function must be a string")?,
                );
            }
            b"description" => {
                let text = text_of(lua, &value);
                registered.description = Some(
                    text.ok_or("description argument given to redis.register_function must be a string")?,
                );
            }
            b"callback" => match value {
                Value::Function(callback) => registered.callback = Some(callback),
                _ => return Err("callback argument given to redis.register_function must be a function"),
            },
            b"flags" => registered.flags = flags(&value)?,
            _ => return Err("unknown argument given to redis.register_function"),
        }
    }
    if registered.name.is_none() {
        return Err("redis.register_function must get a function name argument");
    }
    if registered.callback.is_none() {
        return Err("redis.register_function must get a callback argument");
    }
    Ok(registered)
}

fn flags(value: &Value) -> Checked<Flags> {
    let Value::Table(names) = value else {
        return Err("flags argument to redis.register_function must be a table representing function flags");
    };
    let mut flags = Flags::empty();
    for name in names.sequence_values::<Value>() {
        let name = name
            .ok()
            .and_then(|name| name.as_string().map(|name| name.as_bytes().to_vec()));
        flags |= name
            .and_then(|name| Flags::named(&name))
            .ok_or("unknown flag given")?;
    }
    Ok(flags)
}

fn add_function(state: &State, registered: Registered) -> Checked<()> {
    let (Some(name), Some(callback)) = (registered.name, registered.callback) else {
        return Err("wrong number of arguments to redis.register_function");
    };
    let mut registration = state.registration.borrow_mut();
    let registration = registration
        .as_mut()
        .ok_or("redis.register_function can only be called on FUNCTION LOAD command")?;
    if !is_name(&name) {
        return Err(INVALID_NAME);
    }
    if registration.rows.iter().any(|row| row.name == name) {
        return Err("Function already exists in the library");
    }
    let pushed = registration.callbacks.raw_push(callback);
    pushed.map_err(|_| "not enough memory")?;
    registration.rows.push(FunctionRow {
        name,
        description: registered.description,
        flags: registered.flags,
    });
    Ok(())
}

/// A string, or a number as text.
fn text_of(lua: &Lua, value: &Value) -> Option<Vec<u8>> {
    let text = is_text(value).then(|| lua.coerce_string(value.clone()).ok().flatten())??;
    Some(text.as_bytes().to_vec())
}
