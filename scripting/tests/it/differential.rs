//! Scripts whose replies must be those of redis-server 7.0, byte by byte.

use shardis_protocol::{Encoder, Resp};
use shardis_scripting::{Engine, Script};

use super::redis::{Bridge, Redis};
use super::world::options;

/// One script a line; `= x` stands for a script that returns x, and for one that catches its errors.
const SCRIPTS: &str = include_str!("differential.txt");

/// The scripts of the table.
fn scripts() -> Vec<String> {
    let mut scripts = Vec::new();
    for line in SCRIPTS
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        match line.strip_prefix("= ") {
            Some(expression) => {
                scripts.push(format!("return {expression}"));
                scripts.push(format!("return {{pcall(function() return {expression} end)}}"));
            }
            None => scripts.push(line.replace("\\n", "\n")),
        }
    }
    scripts
}

fn reply(engine: &mut Engine, bridge: &mut Bridge, source: &[u8], resp: Resp) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = Encoder::new(&mut out, resp);
    let keys = [&b"key1"[..], b"key2"];
    let arguments = [&b"one"[..], b"2"];
    let run = Script::new(source).and_then(|script| {
        engine.run(
            &script,
            keys.into_iter(),
            arguments.into_iter(),
            bridge,
            &mut encoder,
        )
    });
    if let Err(error) = run {
        encoder.error(error.to_string());
    }
    out
}

#[test]
fn replies_are_those_of_redis() {
    let redis = Redis::start("differential");
    let scripts = scripts();
    assert!(scripts.len() > 600, "{} scripts", scripts.len());
    let mut differences = Vec::new();
    for resp in [Resp::V2, Resp::V3] {
        let mut connection = redis.connect(resp);
        let mut bridge = Bridge::new(&redis);
        let mut engine = Engine::new(&options()).expect("enough memory");
        for script in &scripts {
            connection.command(&[b"FLUSHALL"]);
            let words: [&[u8]; 7] = [b"EVAL", script.as_bytes(), b"2", b"key1", b"key2", b"one", b"2"];
            let theirs = connection.command(&words);
            connection.command(&[b"FLUSHALL"]);
            let ours = reply(&mut engine, &mut bridge, script.as_bytes(), resp);
            if ours != theirs {
                differences.push(format!(
                    "{script}\n    redis:   {}\n    shardis: {}",
                    theirs.escape_ascii(),
                    ours.escape_ascii()
                ));
            }
        }
    }
    assert!(
        differences.is_empty(),
        "{} differences\n{}",
        differences.len(),
        differences.join("\n")
    );
}
