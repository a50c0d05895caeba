//! An engine with a host that answers from a script of replies.

use shardis_protocol::{Arguments, Encoder, Resp};
use shardis_scripting::{
    Engine, Host, LogLevel, Options, Outcome, Release, Script, Stop, Targets, Verdict, Version, Words,
};

/// Versions as redis-server 7.0.15 tells them.
pub(super) fn options() -> Options {
    Options::new(Version {
        redis: Release {
            major: 7,
            minor: 0,
            patch: 15,
        },
        server_name: "shardis".to_owned(),
        server: Release {
            major: 0,
            minor: 1,
            patch: 0,
        },
    })
}

/// A host that notes what it is asked for.
#[derive(Default)]
pub(super) struct Notes {
    /// Words of the commands, joined by spaces.
    pub(super) commands: Vec<String>,
    /// Encoded reply of every command; `+OK` if empty.
    pub(super) reply: Vec<u8>,
    /// Versions in which replies were wanted.
    pub(super) versions: Vec<Resp>,
    pub(super) log: Vec<(LogLevel, String)>,
    pub(super) targets: Vec<Targets>,
    /// Number of pauses.
    pub(super) pauses: u32,
    /// Pause at which the script is stopped.
    pub(super) stop_at: Option<(u32, Stop)>,
    /// Panics at the first command.
    pub(super) panics: bool,
    /// Stops the script at its first command.
    pub(super) stops_commands: bool,
    pub(super) now_us: u64,
    /// Time that passes between two pauses, µs.
    pub(super) pause_us: u64,
}

impl Host for Notes {
    fn call(&mut self, words: &mut Words, resp: Resp, reply: &mut Vec<u8>) -> Verdict {
        assert!(!self.panics, "a host that panics");
        if self.stops_commands {
            return Verdict::Stop(Stop::Host);
        }
        let arguments = words.arguments();
        let words: Vec<_> = (0..arguments.len())
            .map(|index| String::from_utf8_lossy(arguments.at(index)).into_owned())
            .collect();
        self.commands.push(words.join(" "));
        self.versions.push(resp);
        let given: &[u8] = if self.reply.is_empty() {
            b"+OK\r\n"
        } else {
            &self.reply
        };
        reply.extend_from_slice(given);
        Verdict::Continue
    }

    fn may_run(&mut self, arguments: Arguments<'_>) -> Option<bool> {
        match arguments.at(0) {
            b"nosuch" => None,
            name => Some(name != b"forbidden"),
        }
    }

    fn log(&mut self, level: LogLevel, line: &[u8]) {
        self.log.push((level, String::from_utf8_lossy(line).into_owned()));
    }

    fn replicate_to(&mut self, targets: Targets) {
        self.targets.push(targets);
    }

    fn clock_us(&mut self) -> u64 {
        self.now_us
    }

    fn pause(&mut self) -> Verdict {
        self.pauses += 1;
        self.now_us += self.pause_us;
        match self.stop_at {
            Some((at, stop)) if self.pauses >= at => Verdict::Stop(stop),
            _ => Verdict::Continue,
        }
    }
}

/// An engine with its host.
pub(super) struct World {
    pub(super) engine: Engine,
    pub(super) notes: Notes,
    pub(super) outcome: Option<Outcome>,
}

impl World {
    pub(super) fn new() -> World {
        Self::with(&options())
    }

    pub(super) fn with(options: &Options) -> World {
        World {
            engine: Engine::new(options).expect("enough memory"),
            notes: Notes::default(),
            outcome: None,
        }
    }

    /// The reply of a script, in RESP2. Errors of its compilation are replies as well.
    pub(super) fn eval(&mut self, source: &str) -> String {
        self.eval_with(source, Resp::V2, &[], &[])
    }

    /// The reply of a script with keys and arguments.
    pub(super) fn eval_with(
        &mut self,
        source: &str,
        resp: Resp,
        keys: &[&[u8]],
        arguments: &[&[u8]],
    ) -> String {
        let bytes = self.eval_bytes(source.as_bytes(), resp, keys, arguments);
        bytes.escape_ascii().to_string()
    }

    /// The bytes of the reply of a script.
    pub(super) fn eval_bytes(
        &mut self,
        source: &[u8],
        resp: Resp,
        keys: &[&[u8]],
        arguments: &[&[u8]],
    ) -> Vec<u8> {
        let mut out = Vec::new();
        self.outcome = None;
        let mut reply = Encoder::new(&mut out, resp);
        let run = Script::new(source).and_then(|script| {
            let (keys, arguments) = (keys.iter().copied(), arguments.iter().copied());
            self.engine
                .run(&script, keys, arguments, &mut self.notes, &mut reply)
        });
        match run {
            Ok(outcome) => self.outcome = Some(outcome),
            Err(error) => reply.error(error.to_string()),
        }
        out
    }
}
