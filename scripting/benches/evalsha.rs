//! A compiled script: the cost of a call without that of its command.
//!
//! With the argument `count` it only runs the script many times: two runs of `valgrind --tool=callgrind` with different
//! numbers give instructions per call, as their difference.

use std::hint::black_box;

use criterion::Criterion;
use shardis_protocol::{Arguments, Encoder, Resp};
use shardis_scripting::{Engine, Host, LogLevel, Options, Release, Script, Targets, Verdict, Version, Words};

/// A host that answers each command with the same string.
struct Trivial;

impl Host for Trivial {
    fn call(&mut self, words: &mut Words, _: Resp, reply: &mut Vec<u8>) -> Verdict {
        black_box(words.arguments());
        reply.extend_from_slice(b"$5\r\nvalue\r\n");
        Verdict::Continue
    }

    fn may_run(&mut self, _: Arguments<'_>) -> Option<bool> {
        Some(true)
    }

    fn log(&mut self, _: LogLevel, _: &[u8]) {}

    fn replicate_to(&mut self, _: Targets) {}

    fn clock_us(&mut self) -> u64 {
        0
    }

    fn pause(&mut self) -> Verdict {
        Verdict::Continue
    }
}

/// Scripts that are measured, with their names.
const SCRIPTS: [(&str, &str); 3] = [
    ("return", "return 1"),
    ("get", "return redis.call('GET', KEYS[1])"),
    (
        "token_bucket",
        "local left = tonumber(redis.call('GET', KEYS[1]) and 10) \
         if left < tonumber(ARGV[1]) then return {0, left} end \
         redis.call('SET', KEYS[1], left - ARGV[1], 'PX', 1000) return {1, left - ARGV[1]}",
    ),
];

/// An engine and a script that runs in it.
struct Bench {
    engine: Engine,
    script: Script,
    out: Vec<u8>,
}

impl Bench {
    fn new(source: &str) -> Bench {
        let release = Release {
            major: 7,
            minor: 2,
            patch: 0,
        };
        let options = Options::new(Version {
            redis: release,
            server_name: "shardis".to_owned(),
            server: release,
        });
        Bench {
            engine: Engine::new(&options).expect("enough memory"),
            script: Script::new(source.as_bytes()).expect("a valid script"),
            out: Vec::new(),
        }
    }

    fn call(&mut self) {
        self.out.clear();
        let mut reply = Encoder::new(&mut self.out, Resp::V2);
        let (keys, arguments) = ([&b"user:1"[..]], [&b"1"[..]]);
        let run = self.engine.run(
            &self.script,
            keys.into_iter(),
            arguments.into_iter(),
            &mut Trivial,
            &mut reply,
        );
        black_box(run).expect("a valid script");
    }
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    if let [_, count, name, calls] = words.as_slice()
        && count == "count"
    {
        let (_, source) = SCRIPTS
            .iter()
            .find(|(known, _)| known == name)
            .expect("a name of a script");
        let mut bench = Bench::new(source);
        for _ in 0..calls.parse().expect("a number of calls") {
            bench.call();
        }
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    for (name, source) in SCRIPTS {
        let mut bench = Bench::new(source);
        criterion.bench_function(name, |bencher| bencher.iter(|| bench.call()));
    }
    criterion.final_summary();
}
