//! [`Scripts`]: the scripts and function libraries that a node knows, shared by its loops.
//!
//! | file | subject |
//! |---|---|
//! | `local.rs` | what a thread has of its own: an interpreter, and the scripts that it has seen |
//! | `run.rs` | a script on a stack of its own, which asks for commands and can be set aside at any pause |
//! | `habits.rs` | what is known of a script from its earlier runs |
//! | `long.rs` | scripts that run for long, as commands of other clients see them |
//!
//! A loop keeps what it has looked up, and learns by a version that it is to look again. No lock is taken for a script that
//! the loop has run before.

mod habits;
mod local;
mod long;
mod run;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use shardis_protocol::Arguments;
use shardis_scripting::ScriptCache;
pub(crate) use shardis_scripting::shebang::parse_script;
pub(crate) use shardis_scripting::{
    CacheStats, Cached, Digest, Flags, Functions, FunctionsError, Library, LoadError, LogLevel, Origin,
    Outcome, RestorePolicy, Stop, Targets,
};

use crate::clock::Clock;
use crate::log::{Level, Log};
pub(crate) use habits::Habits;
pub(crate) use local::{interpreter_bytes, with_local};
pub(crate) use long::{LongScript, LongScripts, Noted};
pub(crate) use run::{Answer, Ask, Given, ScriptRun, Step};

/// Scripts and functions of a node.
#[derive(Debug, Default)]
pub(crate) struct Scripts {
    cache: Mutex<ScriptCache<Habits>>,
    /// Number of times that all scripts were forgotten.
    flushes: AtomicU64,
    functions: ArcSwap<FunctionTable>,
    /// Number of changes to the functions.
    functions_version: AtomicU64,
    /// Held while the functions are changed.
    changing: Mutex<()>,
    /// Scripts that run for long.
    pub(crate) long: LongScripts,
}

/// The functions of a node at one time, and what is known of each.
#[derive(Debug, Default)]
pub(crate) struct FunctionTable {
    /// The libraries.
    pub(crate) functions: Functions,
    habits: HashMap<Vec<u8>, (Digest, Arc<Habits>)>,
}

/// A script or function that a command calls.
#[derive(Clone, Debug)]
pub(crate) enum Called {
    /// A script of the cache.
    Script(Arc<Cached<Habits>>),
    /// A function of a library.
    Function {
        /// The library.
        library: Arc<Library>,
        /// Its place among the functions of the library.
        index: usize,
        /// Knowledge of it from earlier runs.
        habits: Arc<Habits>,
    },
}

impl Called {
    /// Conditions that it declares; `None` for a script without a first line of that kind, of which nothing is known before it
    /// runs.
    pub(crate) fn flags(&self) -> Option<Flags> {
        match self {
            Self::Script(cached) => cached.script.header.flags,
            Self::Function { library, index, .. } => Some(library.functions[*index].flags),
        }
    }

    /// Knowledge of it from earlier runs.
    pub(crate) fn habits(&self) -> &Habits {
        match self {
            Self::Script(cached) => &cached.note,
            Self::Function { habits, .. } => habits,
        }
    }

    /// Its name: the digest of a script.
    pub(crate) fn name(&self) -> &[u8] {
        match self {
            Self::Script(cached) => cached.script.digest.as_bytes(),
            Self::Function { library, index, .. } => &library.functions[*index].name,
        }
    }

    /// Whether it is a function.
    pub(crate) fn is_function(&self) -> bool {
        matches!(self, Self::Function { .. })
    }
}

impl FunctionTable {
    /// The function of a name.
    pub(crate) fn find(&self, name: &[u8]) -> Option<Called> {
        let (library, index) = self.functions.find(name)?;
        let (_, habits) = self.habits.get(name)?;
        Some(Called::Function {
            library: Arc::clone(library),
            index,
            habits: Arc::clone(habits),
        })
    }

    /// The table of these functions. What was known of a function stays known if its library is the same.
    fn of(functions: Functions, before: &Self) -> Self {
        let mut habits = HashMap::new();
        for library in functions.libraries() {
            for row in &library.functions {
                let known = before.habits.get(&row.name);
                let kept = known.filter(|(digest, _)| *digest == library.digest);
                let kept = kept.map_or_else(Arc::default, |(_, habits)| Arc::clone(habits));
                habits.insert(row.name.clone(), (library.digest, kept));
            }
        }
        Self { functions, habits }
    }
}

impl Scripts {
    /// Forgets all scripts.
    pub(crate) fn forget_all(&self) {
        self.cache.lock().clear();
        self.flushes.fetch_add(1, Ordering::Release);
    }

    /// Whether a script of this digest is known.
    pub(crate) fn knows(&self, digest: &[u8]) -> bool {
        Digest::parse(digest).is_some_and(|digest| self.cache.lock().get(&digest).is_some())
    }

    /// The script of this digest.
    pub(crate) fn find(&self, digest: &Digest) -> Option<Arc<Cached<Habits>>> {
        self.cache.lock().get(digest).cloned()
    }

    /// Counters of the scripts.
    pub(crate) fn cache_stats(&self) -> CacheStats {
        self.cache.lock().stats()
    }

    /// The functions.
    pub(crate) fn functions(&self) -> Arc<FunctionTable> {
        self.functions.load_full()
    }

    /// Changes the functions. Loops follow with their next function.
    ///
    /// # Errors
    /// That of `change`: then nothing has changed.
    pub(crate) fn change_functions<R, E>(
        &self,
        change: impl FnOnce(&mut Functions) -> Result<R, E>,
    ) -> Result<R, E> {
        let _changing = self.changing.lock();
        let before = self.functions.load_full();
        let mut functions = before.functions.clone();
        let result = change(&mut functions)?;
        self.functions
            .store(Arc::new(FunctionTable::of(functions, &before)));
        self.functions_version.fetch_add(1, Ordering::Release);
        Ok(result)
    }

    /// Has these functions take the place of all others.
    pub(crate) fn set_functions(&self, functions: Functions) {
        let set = self.change_functions(|present| -> Result<(), std::convert::Infallible> {
            *present = functions;
            Ok(())
        });
        let Ok(()) = set;
    }

    /// The sources of the libraries, for a file.
    pub(crate) fn sources(&self) -> Vec<Vec<u8>> {
        let table = self.functions.load();
        table
            .functions
            .libraries()
            .map(|library| library.code.to_vec())
            .collect()
    }

    /// Bytes of the sources of all scripts and libraries.
    pub(crate) fn source_bytes(&self) -> (usize, usize) {
        let table = self.functions.load();
        let libraries = table.functions.libraries().map(|library| library.code.len());
        (self.cache_stats().bytes, libraries.sum())
    }
}

/// Parts of the node that a library may use while it registers its functions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Means<'a> {
    /// Measures its time.
    pub(crate) clock: &'a Clock,
    /// Takes the lines that it logs.
    pub(crate) log: &'a Log,
}

/// Adds a library, in the place of that of the same name, to functions that are being loaded.
///
/// # Errors
/// The error of the library, as a client would get it.
pub(crate) fn add_library(functions: &mut Functions, source: &[u8], means: Means<'_>) -> Result<(), String> {
    let library = with_local(|local| local.load_library(source, means)).map_err(|error| error.to_string())?;
    functions.add(library, true).map_err(|error| error.to_string())
}

/// Repeats a FUNCTION command that another node, or this one before, has run on its functions.
///
/// # Errors
/// The error of the command, as a client would get it.
pub(crate) fn repeat(functions: &mut Functions, args: Arguments<'_>, means: Means<'_>) -> Result<(), String> {
    let last = args.at(args.len() - 1);
    let word = args.get(1).map(<[u8]>::to_ascii_lowercase).unwrap_or_default();
    match (word.as_slice(), args.len()) {
        (b"load", 3 | 4) => add_library(functions, last, means),
        (b"delete", 3) => functions.delete(last).map_err(|error| error.to_string()),
        (b"flush", 2 | 3) => {
            functions.clear();
            Ok(())
        }
        (b"restore", 3 | 4) => {
            let policy = restore_policy(args.get(3)).ok_or("ERR syntax error")?;
            let load = |source: &[u8]| with_local(|local| local.load_library(source, means));
            *functions = functions
                .restored(args.at(2), policy, load)
                .map_err(|error| error.to_string())?;
            Ok(())
        }
        _ => Err(format!("ERR unknown subcommand '{}'", word.escape_ascii())),
    }
}

/// The level of the node's log for a line of a script.
pub(crate) fn level(level: LogLevel) -> Level {
    match level {
        LogLevel::Debug => Level::Debug,
        LogLevel::Verbose => Level::Verbose,
        LogLevel::Notice => Level::Notice,
        LogLevel::Warning => Level::Warning,
    }
}

/// The policy that a word of FUNCTION RESTORE names, which may be missing.
pub(crate) fn restore_policy(word: Option<&[u8]>) -> Option<RestorePolicy> {
    let Some(word) = word else {
        return Some(RestorePolicy::Append);
    };
    match word.to_ascii_lowercase().as_slice() {
        b"append" => Some(RestorePolicy::Append),
        b"replace" => Some(RestorePolicy::Replace),
        b"flush" => Some(RestorePolicy::Flush),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(words: &[&str], act: impl FnOnce(Arguments<'_>)) {
        let slices: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let spans: Vec<_> = (0..slices.len() as u32)
            .map(shardis_protocol::Span::detached)
            .collect();
        act(Arguments::new(&[], &spans, &slices));
    }

    #[test]
    fn commands_on_functions_are_repeated() {
        let (clock, log) = (Clock::real(), Log::new(Level::Nothing));
        let means = Means {
            clock: &clock,
            log: &log,
        };
        let mut functions = Functions::default();
        let source = |name: &str, value: u8| {
            format!("#!lua name={name}\nredis.register_function('{name}', function() return {value} end)")
        };
        for name in ["a", "b"] {
            request(&["FUNCTION", "LOAD", &source(name, 1)], |args| {
                assert_eq!(repeat(&mut functions, args, means), Ok(()));
            });
        }
        request(&["FUNCTION", "LOAD", "REPLACE", &source("a", 2)], |args| {
            assert_eq!(repeat(&mut functions, args, means), Ok(()));
        });
        request(&["function", "delete", "b"], |args| {
            assert_eq!(repeat(&mut functions, args, means), Ok(()));
        });
        let codes: Vec<_> = functions
            .libraries()
            .map(|library| library.code.to_vec())
            .collect();
        assert_eq!(codes, [source("a", 2).into_bytes()]);
        request(&["FUNCTION", "LOAD", "no library"], |args| {
            assert!(repeat(&mut functions, args, means).is_err());
        });
        request(&["FUNCTION", "FLUSH"], |args| {
            assert_eq!(repeat(&mut functions, args, means), Ok(()));
        });
        assert_eq!(functions.stats().libraries, 0);
    }

    #[test]
    fn habits_last_as_long_as_the_library() {
        let (clock, log) = (Clock::real(), Log::new(Level::Nothing));
        let means = Means {
            clock: &clock,
            log: &log,
        };
        let scripts = Scripts::default();
        let load = |code: &str| {
            let added = scripts.change_functions(|functions| add_library(functions, code.as_bytes(), means));
            assert_eq!(added, Ok(()));
        };
        load("#!lua name=a\nredis.register_function('f', function() end)");
        let known = || {
            scripts
                .functions()
                .find(b"f")
                .expect("a function")
                .habits()
                .has_strayed()
        };
        scripts
            .functions()
            .find(b"f")
            .expect("a function")
            .habits()
            .note_stray();
        load("#!lua name=b\nredis.register_function('g', function() end)");
        assert!(known());
        load("#!lua name=a\nredis.register_function('f', function() return 1 end)");
        assert!(!known());
    }
}
