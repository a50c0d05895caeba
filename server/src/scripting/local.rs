//! [`Local`]: what a thread has of its own to run scripts with. It is made with the first script of the thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use corosensei::stack::DefaultStack;
use shardis_protocol::{Arguments, Resp};
use shardis_scripting::{
    Cached, Digest, Engine, Host, Library, LoadError, LogLevel, Options, Origin, Release, Script, Targets,
    Verdict, Version, Words,
};

use super::run::{Exchange, Given, ScriptRun, Stage};
use super::{Called, FunctionTable, Habits, Means, Scripts};
use crate::clock::Clock;
use crate::limits::{SCRIPT_SOURCE_KEPT_BYTES, SCRIPT_STACK_BYTES, SCRIPTS_SEEN_KEPT};

thread_local! {
    static LOCAL: RefCell<Option<Local>> = const { RefCell::new(None) };
}

/// Calls `act` with what this thread runs scripts with.
///
/// # Panics
/// When called within itself, or when there is no memory for an interpreter.
pub(crate) fn with_local<R>(act: impl FnOnce(&mut Local) -> R) -> R {
    LOCAL.with_borrow_mut(|local| act(local.get_or_insert_with(Local::new)))
}

/// Bytes that the interpreter of this thread uses; 0 without one.
pub(crate) fn interpreter_bytes() -> usize {
    LOCAL.with_borrow(|local| local.as_ref().map_or(0, Local::interpreter_bytes))
}

/// The interpreter of a thread, and the scripts that the thread has seen.
pub(crate) struct Local {
    engine: Rc<RefCell<Engine>>,
    exchange: Rc<Exchange>,
    /// The stack of the last script.
    stack: Option<DefaultStack>,
    /// The script that was looked up last, which often is next.
    last: Option<Arc<Cached<Habits>>>,
    /// The source whose digest was taken last, and that digest.
    digested: Option<(Vec<u8>, Digest)>,
    /// Scripts that were looked up.
    seen: HashMap<Digest, Arc<Cached<Habits>>>,
    /// Number of scripts seen at which those are dropped that the node has forgotten.
    drop_at: usize,
    /// Number of flushes that `seen` corresponds to.
    flushes: u64,
    functions: Arc<FunctionTable>,
    /// Number of changes that `functions` corresponds to.
    functions_version: u64,
    /// Bytes of the interpreter as of its last look, for the time in which a script has it.
    bytes: usize,
}

/// Versions that scripts see.
fn version() -> Version {
    let number = |text: &str| text.parse().unwrap_or_default();
    Version {
        redis: Release {
            major: 7,
            minor: 2,
            patch: 4,
        },
        server_name: "shardis".to_owned(),
        server: Release {
            major: number(env!("CARGO_PKG_VERSION_MAJOR")),
            minor: number(env!("CARGO_PKG_VERSION_MINOR")),
            patch: number(env!("CARGO_PKG_VERSION_PATCH")),
        },
    }
}

impl Local {
    fn new() -> Self {
        let engine = Engine::new(&Options::new(version())).expect("there is memory for an interpreter");
        Self {
            engine: Rc::new(RefCell::new(engine)),
            exchange: Rc::default(),
            stack: None,
            last: None,
            digested: None,
            seen: HashMap::new(),
            drop_at: SCRIPTS_SEEN_KEPT,
            flushes: 0,
            functions: Arc::default(),
            functions_version: 0,
            bytes: 0,
        }
    }

    fn interpreter_bytes(&self) -> usize {
        self.engine
            .try_borrow()
            .map_or(self.bytes, |engine| engine.memory_bytes())
    }

    /// The digest of a source. Clients that send sources send the same one again and again.
    pub(crate) fn digest_of(&mut self, source: &[u8]) -> Digest {
        if let Some((known, digest)) = &self.digested
            && known == source
        {
            return *digest;
        }
        let digest = Digest::of(source);
        self.digested = (source.len() <= SCRIPT_SOURCE_KEPT_BYTES).then(|| (source.to_vec(), digest));
        digest
    }

    /// The script of a digest as a client writes it, if the node knows it. Mostly that is the last script's, which needs no parsing.
    pub(crate) fn find_named(&mut self, scripts: &Scripts, digest: &[u8]) -> Option<Arc<Cached<Habits>>> {
        if let Some(last) = &self.last
            && last.script.digest.as_bytes() == digest
            && !last.is_forgotten()
        {
            return Some(Arc::clone(last));
        }
        self.find(scripts, &Digest::parse(digest)?)
    }

    /// The script of a digest, if the node knows it.
    pub(crate) fn find(&mut self, scripts: &Scripts, digest: &Digest) -> Option<Arc<Cached<Habits>>> {
        if let Some(last) = &self.last
            && last.script.digest == *digest
            && !last.is_forgotten()
        {
            return Some(Arc::clone(last));
        }
        self.follow_flushes(scripts);
        if let Some(cached) = self.seen.get(digest) {
            if !cached.is_forgotten() {
                cached.note_use();
                self.last = Some(Arc::clone(cached));
                return self.last.clone();
            }
            self.forget(*digest);
        }
        let cached = scripts.find(digest)?;
        self.keep(&cached);
        Some(cached)
    }

    /// The script of this source. One that is new is compiled and becomes known to the node.
    ///
    /// # Errors
    /// When it cannot be compiled.
    pub(crate) fn add(
        &mut self,
        scripts: &Scripts,
        source: &[u8],
        origin: Origin,
    ) -> Result<Arc<Cached<Habits>>, LoadError> {
        if origin == Origin::Evaluated {
            let digest = self.digest_of(source);
            if let Some(cached) = self.find(scripts, &digest) {
                return Ok(cached);
            }
        }
        let script = Script::new(source)?;
        self.engine.borrow_mut().compile(&script)?;
        let cached = scripts.cache.lock().insert(script, origin);
        self.keep(&cached);
        Ok(cached)
    }

    fn keep(&mut self, cached: &Arc<Cached<Habits>>) {
        cached.note_use();
        self.last = Some(Arc::clone(cached));
        self.seen.insert(cached.script.digest, Arc::clone(cached));
        if self.seen.len() < self.drop_at {
            return;
        }
        let gone = self.seen.values().filter(|cached| cached.is_forgotten());
        let gone: Vec<Digest> = gone.map(|cached| cached.script.digest).collect();
        gone.into_iter().for_each(|digest| self.forget(digest));
        self.drop_at = (2 * self.seen.len()).max(SCRIPTS_SEEN_KEPT);
    }

    fn forget(&mut self, digest: Digest) {
        self.seen.remove(&digest);
        if let Ok(mut engine) = self.engine.try_borrow_mut() {
            engine.forget(&digest);
        }
    }

    fn follow_flushes(&mut self, scripts: &Scripts) {
        let flushes = scripts.flushes.load(Ordering::Acquire);
        if self.flushes != flushes
            && let Ok(mut engine) = self.engine.try_borrow_mut()
        {
            self.flushes = flushes;
            self.last = None;
            self.seen.clear();
            engine.forget_all();
        }
    }

    /// The function of a name.
    pub(crate) fn find_function(&mut self, scripts: &Scripts, name: &[u8]) -> Option<Called> {
        let version = scripts.functions_version.load(Ordering::Acquire);
        if self.functions_version != version
            && let Ok(mut engine) = self.engine.try_borrow_mut()
        {
            self.functions_version = version;
            self.functions = scripts.functions();
            let functions = &self.functions.functions;
            engine.retain_libraries(|digest| functions.contains(digest));
        }
        self.functions.find(name)
    }

    /// Loads a library into the interpreter.
    ///
    /// # Errors
    /// When it is invalid.
    pub(crate) fn load_library(&mut self, source: &[u8], means: Means<'_>) -> Result<Library, LoadError> {
        self.engine.borrow_mut().load_library(source, &mut Loader(means))
    }

    /// Prepares the run of a script. Its reply is encoded in the version `resp`, and cut at a length.
    ///
    /// # Panics
    /// When the system has no memory for its stack.
    pub(crate) fn begin(
        &mut self,
        called: Called,
        given: Given<'_>,
        reply: (Resp, usize),
        clock: &Arc<Clock>,
    ) -> ScriptRun {
        let stack = self.stack.take();
        let stack = stack.unwrap_or_else(|| {
            DefaultStack::new(SCRIPT_STACK_BYTES).expect("the system has memory for a stack")
        });
        let stage = Stage {
            engine: Rc::clone(&self.engine),
            exchange: Rc::clone(&self.exchange),
            stack,
        };
        ScriptRun::new(stage, called, given, reply, Arc::clone(clock))
    }

    /// Takes back what a script has had that has ended.
    pub(crate) fn end(&mut self, run: ScriptRun) {
        self.stack = run.into_stack();
        self.bytes = self.interpreter_bytes();
    }

    /// State of the generator of random numbers.
    pub(crate) fn random(&self) -> u64 {
        self.engine.borrow().random()
    }

    /// Puts the generator of random numbers back, for a script that runs again.
    pub(crate) fn set_random(&mut self, state: u64) {
        self.engine.borrow_mut().set_random(state);
    }
}

/// The server as a library sees it while it registers its functions.
struct Loader<'a>(Means<'a>);

impl Host for Loader<'_> {
    fn call(&mut self, _: &mut Words, resp: Resp, reply: &mut Vec<u8>) -> Verdict {
        let mut reply = shardis_protocol::Encoder::new(reply, resp);
        reply.error("ERR redis.call can only be called inside a script invocation");
        Verdict::Continue
    }

    fn may_run(&mut self, _: Arguments<'_>) -> Option<bool> {
        None
    }

    fn log(&mut self, level: LogLevel, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        self.0.log.write(super::level(level), format_args!("{line}"));
    }

    fn replicate_to(&mut self, _: Targets) {}

    fn clock_us(&mut self) -> u64 {
        self.0.clock.elapsed_ns() / 1000
    }

    fn pause(&mut self) -> Verdict {
        Verdict::Continue
    }
}
