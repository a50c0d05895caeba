//! [`Host`]: the server, as a script sees it.

use bitflags::bitflags;
use shardis_protocol::{Arguments, Resp};

use crate::words::Words;

/// The server on whose behalf a script runs. An engine calls it while the script runs, and keeps nothing of it.
pub trait Host {
    /// Runs a command as the caller of the script, and appends its reply to `reply`, encoded in the version `resp`. An
    /// error is a reply as well. Both buffers belong to the engine, but a host may exchange them for others. Returns whether the script
    /// goes on: a host that needs what the script has not been given can stop it.
    fn call(&mut self, words: &mut Words, resp: Resp, reply: &mut Vec<u8>) -> Verdict;

    /// Whether the caller's user may run this command. `None` if there is no such command, or not with so many
    /// arguments.
    fn may_run(&mut self, arguments: Arguments<'_>) -> Option<bool>;

    /// Writes a line to the server's log.
    fn log(&mut self, level: LogLevel, line: &[u8]);

    /// Sends the effects of the script's next commands to these receivers only.
    fn replicate_to(&mut self, targets: Targets);

    /// Processor time, µs; its beginning does not matter.
    fn clock_us(&mut self) -> u64;

    /// Called every [`crate::limits::PAUSE_INSTRUCTIONS`] instructions. The host looks at its clock here, counts the
    /// script as busy if it has run for too long, serves others, and says whether the script may go on.
    fn pause(&mut self) -> Verdict;
}

/// Decision of a host at a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The script goes on.
    Continue,
    /// The script ends with an error that it cannot catch.
    Stop(Stop),
}

/// Reason why a script was ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SCRIPT KILL or FUNCTION KILL.
    Killed,
    /// A library took too long to register its functions.
    LoadTimeout,
    /// The host needs the thread, and will run the script again or tell its caller why not: the engine writes no reply.
    Host,
}

/// Importance of a line that a script logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// `redis.LOG_DEBUG`
    Debug,
    /// `redis.LOG_VERBOSE`
    Verbose,
    /// `redis.LOG_NOTICE`
    Notice,
    /// `redis.LOG_WARNING`
    Warning,
}

impl LogLevel {
    /// The level with this number in `redis.LOG_…`.
    pub(crate) fn of_number(number: f64) -> Option<LogLevel> {
        [
            LogLevel::Debug,
            LogLevel::Verbose,
            LogLevel::Notice,
            LogLevel::Warning,
        ]
        .into_iter()
        .find(|&level| f64::from(level as u8) == number.trunc())
    }
}

bitflags! {
    /// Receivers of a script's effects, as `redis.set_repl` names them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Targets: u8 {
        /// The append-only file.
        const APPEND_ONLY_FILE = 1;
        /// The replicas.
        const REPLICAS = 2;
    }
}
