//! [`Engine`]: one interpreter of Lua 5.1, with the world of scripts in it.
//!
//! An engine belongs to one thread. It holds compiled scripts and loaded libraries, and nothing of a script outlives
//! its run: what scripts share cannot be changed (`engine/prelude.lua`), and settings of libraries are put back. To run
//! a script that is compiled allocates the tables `KEYS` and `ARGV`, unless those of the last one will do, and nothing else.
//!
//! | file | subject |
//! |---|---|
//! | `prelude.lua` | the globals of scripts, written in Lua |
//! | `state.rs` | what the functions of an engine share |
//! | `stack.rs` | keys and arguments in, words of commands out, replies both ways |
//! | `command.rs` | errors and unusual replies of `redis.call` |
//! | `api.rs` | the rest of `redis.*` |
//! | `reply.rs` | the reply that a returned value stands for |
//! | `errors.rs` | errors that a script catches or ends with |

mod api;
mod command;
mod errors;
mod reply;
#[expect(
    unsafe_code,
    reason = "values on Lua's own stack; the rules are in its header"
)]
mod stack;
pub(crate) mod state;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::rc::Rc;

use mlua::{ChunkMode, Function, HookTriggers, Lua, LuaOptions, MultiValue, StdLib, Table, Value, VmState};
use shardis_protocol::{Encoder, Resp};

use crate::cache::{Digest, Script};
use crate::error::{LoadError, located};
use crate::functions::Library;
use crate::host::{Host, Stop};
use crate::library::random::INITIAL_STATE;
use crate::library::{bit, json, msgpack, strings, structs};
use crate::limits::{
    COLLECT_ABOVE_PARTS, COMPILED_SCRIPTS_MAX, MEMORY_BYTES, PAUSE_INSTRUCTIONS, RUNS_PER_COLLECTION,
    SHIFT_MAX, SOURCE_BYTES_MAX, UNCOUNTED_MAX, UNPACKED_MAX,
};
use crate::shebang;
use crate::words::Words;

pub(crate) use errors::PRELUDE_NAME;
use stack::{Ended, Launcher};
pub use state::FunctionRow;
use state::{HOST, State};

/// Name of the code of EVAL scripts in errors.
const SCRIPT_NAME: &str = "@user_script";

/// Name of the code of libraries in errors.
const LIBRARY_NAME: &str = "@user_function";

/// Pause of the collector and its speed, as Lua starts with.
const COLLECTOR_PERCENT: i32 = 200;

/// A version of three numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// The first number.
    pub major: u8,
    /// The second number.
    pub minor: u8,
    /// The third number.
    pub patch: u8,
}

impl Release {
    /// `7.2.4`
    pub(crate) fn text(self) -> String {
        format!("{}.{}.{}", self.major, self.minor, self.patch)
    }

    /// `0x070204`
    pub(crate) fn number(self) -> u32 {
        u32::from(self.major) << 16 | u32::from(self.minor) << 8 | u32::from(self.patch)
    }
}

/// Versions that scripts see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The version of Redis whose behaviour scripts can expect.
    pub redis: Release,
    /// Name of the server.
    pub server_name: String,
    /// Version of the server.
    pub server: Release,
}

/// Settings of an engine.
#[derive(Clone, Debug)]
pub struct Options {
    /// Memory that its scripts may use.
    pub memory_bytes: usize,
    /// State of the generator behind `math.random`.
    pub random: u64,
    /// Versions that scripts see.
    pub version: Version,
}

impl Options {
    /// The usual memory, and the generator as a server of Redis starts it.
    #[must_use]
    pub fn new(version: Version) -> Options {
        Options {
            memory_bytes: MEMORY_BYTES,
            random: INITIAL_STATE,
            version,
        }
    }
}

/// End of a script or function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A value was returned; the reply is written.
    Replied,
    /// The script failed or returned an error; the reply is written.
    Failed {
        /// The error comes from a command, and has been counted with it.
        is_counted: bool,
    },
    /// The host has stopped the script with [`Stop::Host`]; no reply is written.
    Stopped,
}

/// An interpreter with compiled scripts and loaded libraries.
pub struct Engine {
    lua: Lua,
    state: Rc<State>,
    script_environment: Table,
    function_environment: Table,
    scripts: Slots,
    functions: Slots,
    /// Runs a compiled script or a function.
    launcher: Launcher,
    load_library: Function,
    compiled: HashMap<Digest, usize>,
    /// The script that ran last, which often runs next, and its place.
    last: Option<(Digest, usize)>,
    /// Digests of compiled scripts, the oldest first.
    compiled_order: VecDeque<Digest>,
    /// Places of the functions of loaded libraries.
    libraries: HashMap<Digest, Vec<usize>>,
    memory_bytes: usize,
    runs: u32,
    /// Names of code that stay in the interpreter: its parser relies on that.
    _names: [mlua::String; 2],
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("compiled", &self.compiled.len())
            .field("libraries", &self.libraries.len())
            .field("memory_bytes", &self.lua.used_memory())
            .finish_non_exhaustive()
    }
}

/// A table of the interpreter with functions at 1, 2, 3…, some of which are free.
struct Slots {
    table: Table,
    free: Vec<usize>,
    len: usize,
}

impl Slots {
    fn new(table: Table) -> Slots {
        Slots {
            table,
            free: Vec::new(),
            len: 0,
        }
    }

    fn add(&mut self, function: Function) -> mlua::Result<usize> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.len += 1;
            self.len
        });
        self.table.raw_set(index, function)?;
        Ok(index)
    }

    fn remove(&mut self, index: usize) {
        // An existing place needs no memory, so that this cannot fail.
        if self.table.raw_set(index, Value::Nil).is_ok() {
            self.free.push(index);
        }
    }
}

impl Engine {
    /// Starts an interpreter.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn new(options: &Options) -> mlua::Result<Engine> {
        let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH;
        let lua = Lua::new_with(libraries, LuaOptions::new().catch_rust_panics(true))?;
        let state = Rc::new(State::new(options.memory_bytes, options.random));
        let native = native(&lua, &state, &options.version)?;
        let bounds = lua.create_table()?;
        bounds.raw_set("unpacked_max", UNPACKED_MAX)?;
        bounds.raw_set("shift_max", SHIFT_MAX)?;
        bounds.raw_set("uncounted_max", UNCOUNTED_MAX)?;
        let prelude = lua
            .load(include_str!("engine/prelude.lua"))
            .set_name(PRELUDE_NAME);
        let world: Table = prelude.call((lua.globals(), native, bounds))?;
        state.set_next(lua.globals().raw_get("next")?);
        state.names(&lua)?;
        let environment: Table = world.raw_get("script_environment")?;
        state.set_environments(environment.clone(), world.raw_get("function_environment")?);
        lua.set_globals(environment)?;
        watch(&lua, &state)?;
        let (scripts, functions): (Table, Table) = (world.raw_get("scripts")?, world.raw_get("functions")?);
        let tables = (&scripts, &functions, &world.raw_get("script_globals")?);
        Ok(Engine {
            script_environment: world.raw_get("script_environment")?,
            function_environment: world.raw_get("function_environment")?,
            launcher: Launcher::new(&lua, &state, &world.raw_get("handler")?, tables)?,
            scripts: Slots::new(scripts),
            functions: Slots::new(functions),
            load_library: world.raw_get("load_library")?,
            compiled: HashMap::new(),
            last: None,
            compiled_order: VecDeque::new(),
            libraries: HashMap::new(),
            memory_bytes: options.memory_bytes,
            runs: 0,
            _names: [lua.create_string(SCRIPT_NAME)?, lua.create_string(LIBRARY_NAME)?],
            state,
            lua,
        })
    }

    /// Memory that the interpreter uses.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.lua.used_memory()
    }

    /// State of the generator behind `math.random`: who runs a script again puts it back first.
    #[must_use]
    pub fn random(&self) -> u64 {
        self.state.random.state()
    }

    /// Puts the generator back into an earlier state.
    pub fn set_random(&mut self, state: u64) {
        self.state.random.set_state(state);
    }

    /// Compiles a script, unless that has been done.
    ///
    /// # Errors
    /// If its code is no valid Lua.
    pub fn compile(&mut self, script: &Script) -> Result<(), LoadError> {
        self.compiled(script).map(drop)
    }

    /// Forgets a compiled script.
    pub fn forget(&mut self, digest: &Digest) {
        self.last = None;
        if let Some(index) = self.compiled.remove(digest) {
            self.scripts.remove(index);
            self.compiled_order.retain(|kept| kept != digest);
        }
    }

    /// Forgets all compiled scripts.
    pub fn forget_all(&mut self) {
        self.last = None;
        for (_, index) in self.compiled.drain() {
            self.scripts.remove(index);
        }
        self.compiled_order.clear();
    }

    /// Runs a script and writes its reply.
    ///
    /// # Errors
    /// If the script is not compiled and cannot be.
    pub fn run<'a>(
        &mut self,
        script: &Script,
        keys: impl ExactSizeIterator<Item = &'a [u8]>,
        arguments: impl ExactSizeIterator<Item = &'a [u8]>,
        host: &mut dyn Host,
        reply: &mut Encoder<'_>,
    ) -> Result<Outcome, LoadError> {
        self.fill_words(keys, arguments);
        self.run_taken(script, host, reply)
    }

    /// Runs a script with the words that were taken, and writes its reply.
    ///
    /// # Errors
    /// If the script is not compiled and cannot be.
    pub fn run_taken(
        &mut self,
        script: &Script,
        host: &mut dyn Host,
        reply: &mut Encoder<'_>,
    ) -> Result<Outcome, LoadError> {
        let callee = Callee::Script(self.compiled(script)?);
        let label = Label {
            name: script.digest.as_bytes(),
            is_function: false,
        };
        Ok(self.run_callee(callee, host, reply, label))
    }

    /// Loads a library: runs its code, which registers functions. If the library is then not added to the node's, this
    /// engine can forget it ([`Engine::retain_libraries`]).
    ///
    /// # Errors
    /// If its first line or its code is invalid, if it fails, takes too long, or registers nothing.
    pub fn load_library(&mut self, code: &[u8], host: &mut dyn Host) -> Result<Library, LoadError> {
        let header = shebang::parse_library(code)?;
        let digest = Digest::of(code);
        let environment = self.function_environment.clone();
        let chunk = self.chunk(&code[header.bytes..], LIBRARY_NAME, environment);
        let chunk = chunk.map_err(|error| LoadError::Library(errors::message(&error)))?;
        let registering =
            |error: mlua::Error| LoadError::Registering(format!("ERR {}", errors::message(&error)));
        self.state.begin(true);
        self.state
            .begin_registration(&self.lua, host.clock_us())
            .map_err(registering)?;
        self.limit_memory(true);
        let ended = HOST.set(&mut *host, || self.load_library.call::<(bool, Value)>(chunk));
        self.limit_memory(false);
        let registration = self.state.registration.borrow_mut().take();
        if self.state.stopped().is_some() {
            return Err(LoadError::Registering("ERR FUNCTION LOAD timeout".to_owned()));
        }
        let (is_ok, error) = ended.map_err(registering)?;
        if !is_ok {
            let failure = errors::Failure::of(&self.state, &self.lua, &error);
            return Err(LoadError::Registering(failure.text_lossy()));
        }
        let Some(registration) = registration.filter(|registration| !registration.rows.is_empty()) else {
            return Err(LoadError::NoFunctions);
        };
        self.unload_library(&digest);
        let callbacks = registration.callbacks.sequence_values::<Function>();
        let slots: mlua::Result<Vec<usize>> =
            callbacks.map(|callback| self.functions.add(callback?)).collect();
        self.libraries.insert(digest, slots.map_err(registering)?);
        Ok(Library::new(header.name, code.into(), digest, registration.rows))
    }

    /// Forgets a loaded library.
    pub fn unload_library(&mut self, digest: &Digest) {
        for index in self.libraries.remove(digest).into_iter().flatten() {
            self.functions.remove(index);
        }
    }

    /// Forgets the loaded libraries for which `is_kept` is false.
    pub fn retain_libraries(&mut self, is_kept: impl Fn(&Digest) -> bool) {
        let gone: Vec<Digest> = self
            .libraries
            .keys()
            .filter(|digest| !is_kept(digest))
            .copied()
            .collect();
        gone.iter().for_each(|digest| self.unload_library(digest));
    }

    /// Runs the function at an index of a library and writes its reply. A library that another engine has loaded is
    /// loaded here first.
    ///
    /// # Errors
    /// If the library cannot be loaded.
    pub fn call<'a>(
        &mut self,
        callee: (&Library, usize),
        keys: impl ExactSizeIterator<Item = &'a [u8]>,
        arguments: impl ExactSizeIterator<Item = &'a [u8]>,
        host: &mut dyn Host,
        reply: &mut Encoder<'_>,
    ) -> Result<Outcome, LoadError> {
        self.fill_words(keys, arguments);
        self.call_taken(callee, host, reply)
    }

    /// Runs a function like [`Engine::call`], with the words that were taken.
    ///
    /// # Errors
    /// If the library cannot be loaded.
    pub fn call_taken(
        &mut self,
        (library, function): (&Library, usize),
        host: &mut dyn Host,
        reply: &mut Encoder<'_>,
    ) -> Result<Outcome, LoadError> {
        if !self.libraries.contains_key(&library.digest) {
            self.load_library(&library.code, host)?;
        }
        let slot = self
            .libraries
            .get(&library.digest)
            .and_then(|slots| slots.get(function));
        let row = library.functions.get(function);
        let (Some(&slot), Some(row)) = (slot, row) else {
            return Err(LoadError::NoFunctions);
        };
        let label = Label {
            name: &row.name,
            is_function: true,
        };
        Ok(self.run_callee(Callee::Function(slot), host, reply, label))
    }

    /// The place of the function that a script is compiled to.
    fn compiled(&mut self, script: &Script) -> Result<usize, LoadError> {
        if let Some((digest, place)) = self.last
            && digest == script.digest
        {
            return Ok(place);
        }
        let place = match self.compiled.get(&script.digest) {
            Some(&place) => place,
            None => self.newly_compiled(script)?,
        };
        self.last = Some((script.digest, place));
        Ok(place)
    }

    /// Compiles a script and returns its place.
    fn newly_compiled(&mut self, script: &Script) -> Result<usize, LoadError> {
        if script.source.len() > SOURCE_BYTES_MAX {
            return Err(LoadError::TooLong);
        }
        let failed = |error: mlua::Error| LoadError::Script(errors::message(&error));
        let environment = self.script_environment.clone();
        self.make_room();
        self.limit_memory(true);
        let chunk = self.chunk(&script.source[script.header.bytes..], SCRIPT_NAME, environment);
        self.limit_memory(false);
        if self.compiled.len() >= COMPILED_SCRIPTS_MAX
            && let Some(oldest) = self.compiled_order.pop_front()
        {
            self.forget(&oldest);
        }
        let index = self.scripts.add(chunk.map_err(failed)?).map_err(failed)?;
        self.compiled.insert(script.digest, index);
        self.compiled_order.push_back(script.digest);
        Ok(index)
    }

    fn chunk(&self, code: &[u8], name: &str, environment: Table) -> mlua::Result<Function> {
        compile(&self.lua, code, name, Some(environment))
    }

    fn run_callee(
        &mut self,
        callee: Callee,
        host: &mut dyn Host,
        reply: &mut Encoder<'_>,
        label: Label<'_>,
    ) -> Outcome {
        self.begin(label.is_function, reply.resp());
        let (place, is_function) = callee.place_and_kind();
        self.limit_memory(true);
        let ended = HOST.set(&mut *host, || self.launcher.start(&self.lua, place, is_function));
        self.limit_memory(false);
        let kind = match ended {
            Ok(Ended::Replied) => {
                reply.raw(&self.state.result.borrow());
                Ok(Ok(reply::Kind::Value))
            }
            Ok(Ended::Returned(value)) => HOST
                .set(host, || reply::encode(&self.state, &self.lua, value, reply))
                .map(Ok),
            Ok(Ended::Failed(error)) => Ok(Err(error)),
            Err(error) => Err(error),
        };
        let outcome = self.outcome(kind, reply, label);
        self.end();
        if let Some(panic) = self.state.panic.take() {
            std::panic::resume_unwind(panic);
        }
        outcome
    }

    /// Takes the keys and arguments of the next script or function: so many keys, and the arguments behind them. The words are
    /// exchanged for others, which have no meaning.
    pub fn take_words(&mut self, words: &mut Words, keys: usize) {
        let mut input = self.state.input.borrow_mut();
        input.keys = keys.min(words.arguments().len());
        std::mem::swap(&mut input.words, words);
    }

    fn fill_words<'a>(
        &self,
        keys: impl ExactSizeIterator<Item = &'a [u8]>,
        arguments: impl ExactSizeIterator<Item = &'a [u8]>,
    ) {
        let mut input = self.state.input.borrow_mut();
        let count = keys.len();
        input.words.fill(keys.chain(arguments));
        input.keys = count.min(input.words.arguments().len());
    }

    /// Writes the error of a script that failed.
    fn outcome(
        &self,
        ended: mlua::Result<Result<reply::Kind, Value>>,
        reply: &mut Encoder<'_>,
        label: Label<'_>,
    ) -> Outcome {
        if let Some(stop) = self.state.stopped() {
            if stop == Stop::Host {
                return Outcome::Stopped;
            }
            let failure = errors::Failure::killed(self.state.stopped_at(), label.is_function);
            reply.error(failure.line(label.name));
            return Outcome::Failed { is_counted: false };
        }
        let failure = match ended {
            Ok(Ok(reply::Kind::Value)) => return Outcome::Replied,
            Ok(Ok(reply::Kind::Error { is_counted })) => return Outcome::Failed { is_counted },
            Ok(Err(value)) => errors::Failure::of(&self.state, &self.lua, &value),
            Err(error) => errors::Failure::raw(errors::message(&error)),
        };
        reply.error(failure.line(label.name));
        Outcome::Failed {
            is_counted: failure.is_counted,
        }
    }

    fn begin(&mut self, is_function: bool, resp: Resp) {
        self.state.begin(is_function);
        self.state.reply_resp.set(resp);
        self.make_room();
    }

    /// Collects garbage if there is much: what earlier scripts have left behind must not make a later one fail.
    fn make_room(&self) {
        if self.lua.used_memory() > self.memory_bytes / COLLECT_ABOVE_PARTS {
            self.collect();
        }
    }

    fn end(&mut self) {
        if self.state.has_changed_collector.take() {
            self.lua.gc_restart();
            self.lua.gc_set_pause(COLLECTOR_PERCENT);
            self.lua.gc_set_step_multiplier(COLLECTOR_PERCENT);
        }
        self.state.give_back();
        self.runs += 1;
        if self.runs >= RUNS_PER_COLLECTION {
            self.runs = 0;
            self.state.give_tables_up();
            let step = self.lua.gc_step();
            debug_assert!(step.is_ok(), "no finalizer of ours fails");
        }
    }

    fn collect(&self) {
        let collected = self.lua.gc_collect();
        debug_assert!(collected.is_ok(), "no finalizer of ours fails");
    }

    /// Bounds the memory of the interpreter while a script runs. Outside of scripts there is no bound, so that building
    /// their words needs no protection against its errors.
    fn limit_memory(&self, is_limited: bool) {
        let limit = if is_limited { self.memory_bytes } else { 0 };
        set_memory_limit(&self.lua, limit);
    }
}

/// Code that is called, by its place.
#[derive(Clone, Copy)]
enum Callee {
    /// A compiled script.
    Script(usize),
    /// The function of a library.
    Function(usize),
}

impl Callee {
    /// Its place and kind, as the launcher takes them.
    fn place_and_kind(self) -> (usize, bool) {
        match self {
            Self::Script(place) => (place, false),
            Self::Function(place) => (place, true),
        }
    }
}

/// Sets the limit of the allocator; 0 is none.
pub(crate) fn set_memory_limit(lua: &Lua, limit: usize) {
    let set = lua.set_memory_limit(limit);
    debug_assert!(set.is_ok(), "the interpreter has our allocator");
}

/// Name of a script in its errors.
#[derive(Clone, Copy)]
struct Label<'a> {
    name: &'a [u8],
    is_function: bool,
}

/// Compiles text, never bytecode: what begins like bytecode is a syntax error.
fn compile(lua: &Lua, code: &[u8], name: &str, environment: Option<Table>) -> mlua::Result<Function> {
    const BYTECODE: u8 = 0x1b;
    let shifted;
    let code = if code.first() == Some(&BYTECODE) {
        shifted = [b" ", code].concat();
        shifted.as_slice()
    } else {
        code
    };
    let chunk = lua.load(code).set_name(name).set_mode(ChunkMode::Text);
    match environment {
        Some(environment) => chunk.set_environment(environment).into_function(),
        None => chunk.into_function(),
    }
}

/// Asks the host every so many instructions whether the script goes on, in every coroutine.
fn watch(lua: &Lua, state: &Rc<State>) -> mlua::Result<()> {
    let state = Rc::clone(state);
    let triggers = HookTriggers::new().every_nth_instruction(PAUSE_INSTRUCTIONS);
    lua.set_global_hook(triggers, move |lua, _| {
        let verdict = state.pause();
        if verdict.is_err() {
            state.note_place(errors::place(lua, 0));
        }
        verdict.map(|()| VmState::Continue)
    })
}

/// Functions of the engine from which the prelude builds the world of scripts.
fn native(lua: &Lua, state: &Rc<State>, version: &Version) -> mlua::Result<Table> {
    let native = lua.create_table()?;
    errors::register(lua, &native, state)?;
    api::register(lua, &native, state, version)?;
    strings::register(lua, &native, state)?;
    native.raw_set("bit", bit::library(lua)?)?;
    native.raw_set("cjson", json::library(lua, state, Rc::clone(&state.json))?)?;
    native.raw_set("cmsgpack", msgpack::library(lua, state)?)?;
    native.raw_set("struct", structs::library(lua, state)?)?;

    let shared = Rc::clone(state);
    native.raw_set(
        "random",
        lua.create_function(move |lua, values: MultiValue| shared.random.random(lua, values))?,
    )?;
    let shared = Rc::clone(state);
    let seed = lua.create_function(move |lua, values: MultiValue| shared.random.random_seed(lua, values))?;
    native.raw_set("randomseed", seed)?;
    native.raw_set("clock", lua.create_function(|_, ()| Ok(clock_s()))?)?;
    let shared = Rc::clone(state);
    let collect = lua.create_function(move |lua, (what, value): (mlua::String, f64)| {
        collect_garbage(&shared, lua, &what.as_bytes(), value)
    })?;
    native.raw_set("collect", collect)?;
    let shared = Rc::clone(state);
    let add_face = lua.create_function(move |_, (face, real): (Table, Table)| {
        shared.add_face(&face, real);
        Ok(())
    })?;
    native.raw_set("add_face", add_face)?;
    let shared = Rc::clone(state);
    let load = lua.create_function(move |lua, (code, name): (mlua::String, Value)| {
        load_string(lua, &code, name, shared.environment())
    })?;
    native.raw_set("compile", load)?;
    let metatable = lua.create_function(|_, table: Table| Ok(table.metatable()))?;
    native.raw_set("metatable", metatable)?;
    let shared = Rc::clone(state);
    let count = lua.create_function(move |_, steps: u32| shared.steps(steps))?;
    native.raw_set("count", count)?;
    Ok(native)
}

/// `os.clock`, s.
fn clock_s() -> f64 {
    const US_PER_S: f64 = 1e6;
    let us = HOST.is_set().then(|| HOST.with(|host| host.clock_us()));
    us.map_or(0.0, |us| us as f64 / US_PER_S)
}

/// `collectgarbage`. What it sets is put back when the script ends. A collection of much memory takes long, so that the host is asked
/// before each.
fn collect_garbage(state: &State, lua: &Lua, what: &[u8], value: f64) -> mlua::Result<Value> {
    const KIB: f64 = 1024.0;
    state.has_changed_collector.set(true);
    Ok(match what {
        b"count" => Value::Number(lua.used_memory() as f64 / KIB),
        b"collect" => {
            state.pause()?;
            lua.gc_collect()?;
            Value::Integer(0)
        }
        b"step" => {
            state.pause()?;
            Value::Boolean(lua.gc_step_kbytes(value as i32)?)
        }
        b"stop" => {
            lua.gc_stop();
            Value::Integer(0)
        }
        b"restart" => {
            lua.gc_restart();
            Value::Integer(0)
        }
        b"setpause" => Value::Integer(i64::from(lua.gc_set_pause(value as i32))),
        b"setstepmul" => Value::Integer(i64::from(lua.gc_set_step_multiplier(value as i32))),
        other => {
            let other = String::from_utf8_lossy(other);
            let text = format_args!("bad argument #1 to 'collectgarbage' (invalid option '{other}')");
            return Err(located(lua, text));
        }
    })
}

/// `loadstring`: a function, or nil and a message.
fn load_string(
    lua: &Lua,
    code: &mlua::String,
    name: Value,
    environment: Option<Table>,
) -> mlua::Result<(Value, Value)> {
    let name = lua.coerce_string(name)?;
    let name = name.map(|name| {
        let name = name.as_bytes();
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        String::from_utf8_lossy(&name[..end]).into_owned()
    });
    let name = name.unwrap_or_default();
    // Keeps the name in the interpreter while its parser uses it.
    let kept = lua.create_string(&name)?;
    let compiled = compile(lua, &code.as_bytes(), &name, environment);
    drop(kept);
    match compiled {
        Ok(function) => Ok((Value::Function(function), Value::Nil)),
        Err(mlua::Error::SyntaxError { message, .. }) => {
            Ok((Value::Nil, Value::String(lua.create_string(message)?)))
        }
        Err(error) => Err(error),
    }
}
