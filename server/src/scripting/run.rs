//! [`ScriptRun`]: a script on a stack of its own.
//!
//! The interpreter runs as a coroutine. Whatever the script needs of the server is a question ([`Ask`]) that travels to the stack
//! of the loop, with its words in the [`Exchange`], and is answered there, with all that the loop has at hand. A script that asks
//! whether it goes on can so be left where it is: the loop does other things, and answers later.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use shardis_protocol::{Arguments, Encoder, Resp};
use shardis_scripting::{Engine, Host, LoadError, LogLevel, Outcome, Stop, Targets, Verdict, Words};

use super::Called;
use crate::clock::Clock;

/// Question of a script.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    /// Run the command in the words, and encode its reply in this version.
    Call(Resp),
    /// Tell whether the caller may run the command in the words.
    MayRun,
    /// Log the first word.
    Log(LogLevel),
    /// Send the effects of the next commands to these receivers only.
    ReplicateTo(Targets),
    /// Tell whether the script goes on.
    Pause,
}

/// Answer to a question.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// The script goes on.
    GoOn,
    /// The caller may run the command or not; `None` if there is no such command.
    May(Option<bool>),
    /// The script ends.
    Stop(Stop),
}

/// State in which a script comes back to its loop.
#[derive(Debug)]
pub(crate) enum Step {
    /// Asks something.
    Asks(Ask),
    /// Has ended, with its reply in the exchange if there is one.
    Ended(Result<Outcome, LoadError>),
}

/// Size from which memory of an exchange is given back.
const KEPT_BYTES: usize = 64 << 10;

/// Bytes that a script and its loop hand to each other. The memory serves one script after the other.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    /// Keys and arguments of the script.
    input: RefCell<Words>,
    /// Words of a question.
    pub(crate) words: RefCell<Words>,
    /// Reply to a command.
    pub(crate) reply: RefCell<Vec<u8>>,
    /// Reply of the script.
    pub(crate) out: RefCell<Vec<u8>>,
}

/// The server as the script sees it from its own stack.
struct Remote<'a> {
    yielder: &'a Yielder<Answer, Ask>,
    exchange: &'a Exchange,
    clock: &'a Clock,
}

impl Remote<'_> {
    fn ask(&self, ask: Ask) -> Verdict {
        match self.yielder.suspend(ask) {
            Answer::Stop(stop) => Verdict::Stop(stop),
            Answer::GoOn | Answer::May(_) => Verdict::Continue,
        }
    }
}

impl Host for Remote<'_> {
    fn call(&mut self, words: &mut Words, resp: Resp, reply: &mut Vec<u8>) -> Verdict {
        std::mem::swap(words, &mut self.exchange.words.borrow_mut());
        let verdict = self.ask(Ask::Call(resp));
        std::mem::swap(words, &mut self.exchange.words.borrow_mut());
        std::mem::swap(reply, &mut self.exchange.reply.borrow_mut());
        verdict
    }

    fn may_run(&mut self, arguments: Arguments<'_>) -> Option<bool> {
        self.exchange.words.borrow_mut().fill(arguments.iter());
        match self.yielder.suspend(Ask::MayRun) {
            Answer::May(may) => may,
            Answer::GoOn | Answer::Stop(_) => None,
        }
    }

    fn log(&mut self, level: LogLevel, line: &[u8]) {
        self.exchange.words.borrow_mut().fill(std::iter::once(line));
        self.yielder.suspend(Ask::Log(level));
    }

    fn replicate_to(&mut self, targets: Targets) {
        self.yielder.suspend(Ask::ReplicateTo(targets));
    }

    /// A script that waits in a loop for time to pass sees it pass, also while the thread does other things.
    fn clock_us(&mut self) -> u64 {
        self.clock.elapsed_ns() / 1000
    }

    fn pause(&mut self) -> Verdict {
        self.ask(Ask::Pause)
    }
}

/// The place in which a script is run: its interpreter, its memory, its stack.
pub(super) struct Stage {
    pub(super) engine: Rc<RefCell<Engine>>,
    pub(super) exchange: Rc<Exchange>,
    pub(super) stack: DefaultStack,
}

/// The keys and arguments of a script.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Given<'a> {
    /// Keys, and behind them the arguments.
    pub(crate) words: Arguments<'a>,
    /// Number of keys.
    pub(crate) keys: usize,
}

/// A script that runs.
pub(crate) struct ScriptRun {
    /// None once its stack has been taken back.
    coroutine: Option<Coroutine<Answer, Ask, Result<Outcome, LoadError>>>,
    /// Bytes that it and its loop hand to each other.
    pub(crate) exchange: Rc<Exchange>,
}

impl ScriptRun {
    /// A script that has not begun yet. Its reply is encoded in the version `resp`, and cut at a length.
    pub(super) fn new(
        stage: Stage,
        called: Called,
        given: Given<'_>,
        (resp, cut_at): (Resp, usize),
        clock: Arc<Clock>,
    ) -> Self {
        let Stage {
            engine,
            exchange,
            stack,
        } = stage;
        exchange.input.borrow_mut().fill(given.words.iter());
        let keys = given.keys;
        let shared = Rc::clone(&exchange);
        let body = move |yielder: &Yielder<Answer, Ask>, _: Answer| {
            let mut out = shared.out.borrow_mut();
            out.clear();
            out.shrink_to(KEPT_BYTES);
            let mut host = Remote {
                yielder,
                exchange: &shared,
                clock: &clock,
            };
            let mut reply = Encoder::new(&mut out, resp).cut_at(cut_at);
            let mut engine = engine.borrow_mut();
            engine.take_words(&mut shared.input.borrow_mut(), keys);
            match called {
                Called::Script(cached) => engine.run_taken(&cached.script, &mut host, &mut reply),
                Called::Function { library, index, .. } => {
                    engine.call_taken((&library, index), &mut host, &mut reply)
                }
            }
        };
        Self {
            coroutine: Some(Coroutine::with_stack(stack, body)),
            exchange,
        }
    }

    /// Lets the script run until it asks the next question, or ends. The first answer is that to none.
    pub(crate) fn resume(&mut self, answer: Answer) -> Step {
        let Some(coroutine) = &mut self.coroutine else {
            unreachable!("a script that has ended does not go on");
        };
        match coroutine.resume(answer) {
            CoroutineResult::Yield(ask) => Step::Asks(ask),
            CoroutineResult::Return(ended) => Step::Ended(ended),
        }
    }

    /// Takes the stack back from a script that has ended.
    pub(super) fn into_stack(mut self) -> Option<DefaultStack> {
        let coroutine = self.coroutine.take()?;
        debug_assert!(
            coroutine.done(),
            "a script gives its stack back when it has ended"
        );
        Some(coroutine.into_stack())
    }
}

impl fmt::Debug for ScriptRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptRun").finish_non_exhaustive()
    }
}

impl Drop for ScriptRun {
    /// Brings a script to its end that nobody goes on with: no script catches a stop. To unwind its stack instead would lead through
    /// frames of the interpreter, which is written in C.
    fn drop(&mut self) {
        while let Some(coroutine) = &mut self.coroutine
            && coroutine.started()
            && !coroutine.done()
        {
            coroutine.resume(Answer::Stop(Stop::Killed));
        }
    }
}
