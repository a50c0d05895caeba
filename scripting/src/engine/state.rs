//! [`State`]: what the functions of an engine share while a script runs.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use mlua::{Function, Lua, Result, String as Text, Table, Value};
use scoped_tls_hkt::scoped_thread_local;
use shardis_protocol::Resp;

use crate::error::Stopped;
use crate::host::{Host, Stop, Verdict};
use crate::library::json_encode::{Progress, Settings};
use crate::library::random::Random;
use crate::limits::{KEPT_BYTES, KEPT_INPUT_BYTES, LIBRARY_LOAD_MS, PAUSE_STEPS};
use crate::shebang::Flags;
use crate::words::Words;

scoped_thread_local!(
    /// The host of the script that runs on this thread.
    pub(crate) static mut HOST: for<'a> &'a mut (dyn Host + 'a)
);

/// Names of the fields of replies and errors, as strings of the interpreter.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) err: Text,
    pub(crate) ok: Text,
    pub(crate) double: Text,
    pub(crate) map: Text,
    pub(crate) set: Text,
    pub(crate) big_number: Text,
    pub(crate) verbatim: Text,
    pub(crate) format: Text,
    pub(crate) string: Text,
    pub(crate) source: Text,
    pub(crate) line: Text,
    pub(crate) is_counted: Text,
}

impl Names {
    fn new(lua: &Lua) -> Result<Names> {
        let name = |text: &str| lua.create_string(text);
        Ok(Names {
            err: name("err")?,
            ok: name("ok")?,
            double: name("double")?,
            map: name("map")?,
            set: name("set")?,
            big_number: name("big_number")?,
            verbatim: name("verbatim_string")?,
            format: name("format")?,
            string: name("string")?,
            source: name("source")?,
            line: name("line")?,
            is_counted: name("ignore_error_stats_update")?,
        })
    }
}

/// A place in a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) source: String,
    pub(crate) line: usize,
}

impl Place {
    /// The place in front of a message.
    pub(crate) fn prefix(&self) -> String {
        let source = self.source.strip_prefix(['@', '=']).unwrap_or(&self.source);
        format!("{source}:{}: ", self.line)
    }
}

/// A function that a library has registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionRow {
    /// Its name.
    pub name: Vec<u8>,
    /// Its description, if it has one.
    pub description: Option<Vec<u8>>,
    /// Conditions under which it may run.
    pub flags: Flags,
}

/// Functions that a library has registered so far; their callbacks are in a table of the interpreter, in the same
/// order.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) rows: Vec<FunctionRow>,
    pub(crate) callbacks: Table,
    /// Processor time at which the library fails, µs.
    deadline_us: u64,
}

/// Keys and arguments of a script.
#[derive(Debug, Default)]
pub(crate) struct Input {
    /// The keys, and behind them the arguments.
    pub(crate) words: Words,
    /// Number of keys.
    pub(crate) keys: usize,
}

impl Input {
    /// Whether they take so much memory that it is given back when the script has ended.
    #[inline]
    pub(crate) fn is_large(&self) -> bool {
        const WORD_BYTES: usize = 40;
        self.words.bytes() + WORD_BYTES * self.words.arguments().len() > KEPT_INPUT_BYTES
    }
}

/// Data that the functions of an engine share.
#[derive(Debug)]
pub(crate) struct State {
    /// Version in which the script sees replies.
    pub(crate) resp: Cell<Resp>,
    pub(crate) random: Random,
    pub(crate) json: Rc<Settings>,
    /// Keys and arguments of the script.
    pub(crate) input: RefCell<Input>,
    /// Number of keys for which the table of the last script serves the next one, and of arguments.
    pub(crate) kept_keys: Cell<Option<usize>>,
    pub(crate) kept_arguments: Cell<Option<usize>>,
    /// Words of the last command.
    pub(crate) words: RefCell<Words>,
    /// Bytes of the last reply of a command. The buffer is kept for the next one.
    pub(crate) reply: RefCell<Vec<u8>>,
    /// Reason for which the host ends the script with its last command.
    pub(crate) end: Cell<Option<Stop>>,
    /// Panic of the host, which goes on when the script has ended.
    pub(crate) panic: RefCell<Option<Box<dyn Any + Send>>>,
    /// Encoded reply of the script, if it is a plain one.
    pub(crate) result: RefCell<Vec<u8>>,
    /// Version in which the caller of the script gets its reply.
    pub(crate) reply_resp: Cell<Resp>,
    pub(crate) registration: RefCell<Option<Registration>>,
    /// Whether a script has changed the settings of the collector.
    pub(crate) has_changed_collector: Cell<bool>,
    stopped: Cell<Option<Stop>>,
    stopped_at: RefCell<Option<Place>>,
    steps: Cell<u32>,
    /// Addresses of the faces, with the tables behind them.
    faces: RefCell<Vec<(usize, Table)>>,
    memory_bytes: usize,
    names: OnceCell<Names>,
    next: OnceCell<Function>,
    /// Function that makes the iterators of `gmatch`.
    iterator: OnceCell<Function>,
    /// Globals of scripts and those of functions.
    environments: OnceCell<(Table, Table)>,
    is_function: Cell<bool>,
}

impl State {
    /// The state of an engine that may use so much memory.
    pub(crate) fn new(memory_bytes: usize, random: u64) -> State {
        State {
            resp: Cell::new(Resp::V2),
            random: Random::new(random),
            json: Rc::default(),
            input: RefCell::default(),
            kept_keys: Cell::default(),
            kept_arguments: Cell::default(),
            words: RefCell::default(),
            reply: RefCell::default(),
            end: Cell::default(),
            panic: RefCell::default(),
            result: RefCell::default(),
            reply_resp: Cell::new(Resp::V2),
            registration: RefCell::new(None),
            has_changed_collector: Cell::new(false),
            stopped: Cell::new(None),
            stopped_at: RefCell::new(None),
            steps: Cell::new(0),
            faces: RefCell::default(),
            memory_bytes,
            names: OnceCell::new(),
            next: OnceCell::new(),
            iterator: OnceCell::new(),
            environments: OnceCell::new(),
            is_function: Cell::new(false),
        }
    }

    /// Prepares for the next script or function.
    pub(crate) fn begin(&self, is_function: bool) {
        self.is_function.set(is_function);
        self.resp.set(Resp::V2);
        self.stopped.set(None);
        self.json.reset();
    }

    /// Has the next script get new tables.
    pub(crate) fn give_tables_up(&self) {
        self.kept_keys.set(None);
        self.kept_arguments.set(None);
    }

    /// Gives memory back that a script has needed much of.
    pub(crate) fn give_back(&self) {
        self.input.borrow_mut().words.clear();
        self.words.borrow_mut().clear();
        for buffer in [&self.reply, &self.result] {
            let mut buffer = buffer.borrow_mut();
            if buffer.capacity() > KEPT_BYTES {
                buffer.clear();
                buffer.shrink_to(KEPT_BYTES);
            }
        }
    }

    /// Names of fields.
    pub(crate) fn names(&self, lua: &Lua) -> Result<&Names> {
        if let Some(names) = self.names.get() {
            return Ok(names);
        }
        let names = Names::new(lua)?;
        Ok(self.names.get_or_init(|| names))
    }

    /// Begins to take registrations of functions.
    pub(crate) fn begin_registration(&self, lua: &Lua, now_us: u64) -> Result<()> {
        *self.registration.borrow_mut() = Some(Registration {
            rows: Vec::new(),
            callbacks: lua.create_table()?,
            deadline_us: now_us + LIBRARY_LOAD_MS * 1000,
        });
        Ok(())
    }

    /// Reason for which the script was stopped.
    pub(crate) fn stopped(&self) -> Option<Stop> {
        self.stopped.get()
    }

    /// The line at which the script was stopped.
    pub(crate) fn stopped_at(&self) -> Option<Place> {
        self.stopped_at.borrow_mut().take()
    }

    /// Notes the line at which the script is, in case that it is stopped.
    pub(crate) fn note_place(&self, place: Option<Place>) {
        *self.stopped_at.borrow_mut() = place;
    }

    /// Stops the script.
    #[cold]
    pub(crate) fn stop(&self, stop: Stop) -> mlua::Error {
        self.stopped.set(Some(stop));
        mlua::Error::external(Stopped(stop))
    }

    /// Asks the host whether the script goes on.
    pub(crate) fn pause(&self) -> Result<()> {
        if let Some(stop) = self.stopped.get() {
            return Err(self.stop(stop));
        }
        if !HOST.is_set() {
            return Ok(());
        }
        let deadline_us = self
            .registration
            .borrow()
            .as_ref()
            .map(|registration| registration.deadline_us);
        let is_late =
            |host: &mut dyn Host| deadline_us.is_some_and(|deadline_us| host.clock_us() > deadline_us);
        let verdict = HOST.with(|host| {
            if is_late(host) {
                Verdict::Stop(Stop::LoadTimeout)
            } else {
                host.pause()
            }
        });
        match verdict {
            Verdict::Continue => Ok(()),
            Verdict::Stop(stop) => Err(self.stop(stop)),
        }
    }

    /// Counts a step of a loop that the interpreter does not count.
    #[inline]
    pub(crate) fn step(&self) -> Result<()> {
        self.steps(1)
    }

    /// Counts several such steps.
    #[inline]
    pub(crate) fn steps(&self, count: u32) -> Result<()> {
        let steps = self.steps.get().saturating_add(count);
        if steps < PAUSE_STEPS {
            self.steps.set(steps);
            return Ok(());
        }
        self.steps.set(0);
        self.pause()
    }

    /// Refuses a buffer that would not fit into the memory of the engine.
    pub(crate) fn check_buffer(&self, bytes: usize) -> Result<()> {
        if bytes > self.memory_bytes {
            return Err(mlua::Error::MemoryError("not enough memory".to_owned()));
        }
        Ok(())
    }

    /// Notes a face and the table behind it.
    pub(crate) fn add_face(&self, face: &Table, real: Table) {
        self.faces.borrow_mut().push((face.to_pointer() as usize, real));
    }

    /// The table behind a face.
    pub(crate) fn behind_face(&self, table: &Table) -> Option<Table> {
        let address = table.to_pointer() as usize;
        let faces = self.faces.borrow();
        let (_, real) = faces.iter().find(|(face, _)| *face == address)?;
        Some(real.clone())
    }

    /// Keeps the globals of scripts and those of functions.
    pub(crate) fn set_environments(&self, scripts: Table, functions: Table) {
        let kept = self.environments.set((scripts, functions));
        debug_assert!(kept.is_ok(), "an engine starts once");
    }

    /// Globals of the code that runs.
    pub(crate) fn environment(&self) -> Option<Table> {
        let (scripts, functions) = self.environments.get()?;
        Some(
            if self.is_function.get() {
                functions
            } else {
                scripts
            }
            .clone(),
        )
    }

    /// Keeps the function that makes the iterators of `gmatch`.
    pub(crate) fn set_iterator(&self, iterator: Function) {
        let kept = self.iterator.set(iterator);
        debug_assert!(kept.is_ok(), "an engine starts once");
    }

    /// The function that makes the iterators of `gmatch`.
    pub(crate) fn iterator(&self) -> Result<&Function> {
        self.iterator.get().ok_or(mlua::Error::CallbackDestructed)
    }

    /// Keeps the function by which entries of tables are found.
    pub(crate) fn set_next(&self, next: Function) {
        let kept = self.next.set(next);
        debug_assert!(kept.is_ok(), "an engine starts once");
    }
}

impl Progress for State {
    fn progressed(&self, bytes: usize) -> Result<()> {
        self.step()?;
        self.check_buffer(bytes)
    }

    fn behind(&self, table: &Table) -> Table {
        self.behind_face(table).unwrap_or_else(|| table.clone())
    }

    fn entry_after(&self, table: &Table, key: Value) -> Result<Option<(Value, Value)>> {
        let next = self.next.get().ok_or(mlua::Error::CallbackDestructed)?;
        let (key, value): (Value, Value) = next.call((table, key))?;
        Ok((!key.is_nil()).then_some((key, value)))
    }
}
