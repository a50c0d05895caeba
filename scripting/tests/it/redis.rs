//! A real redis-server on a socket of its own, and connections to it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use shardis_protocol::{Arguments, Resp};
use shardis_scripting::{Host, LogLevel, Targets, Verdict, Words};

/// A server that ends with this value.
pub(super) struct Redis {
    process: Child,
    folder: PathBuf,
}

impl Redis {
    /// Starts a server, which must be installed.
    pub(super) fn start(name: &str) -> Redis {
        let folder = std::env::temp_dir().join(format!("shardis-scripting-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        let process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(folder.join("socket"))
            .arg("--dir")
            .arg(&folder)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server 7.0 is installed");
        let redis = Redis { process, folder };
        for _ in 0..200 {
            if redis.try_connect().is_some() {
                return redis;
            }
            sleep(Duration::from_millis(20));
        }
        panic!("redis-server does not listen");
    }

    fn try_connect(&self) -> Option<UnixStream> {
        UnixStream::connect(self.folder.join("socket")).ok()
    }

    /// A connection that speaks this version.
    pub(super) fn connect(&self, resp: Resp) -> Connection {
        let mut connection = Connection {
            stream: self.try_connect().expect("the server listens"),
            input: Vec::new(),
        };
        if resp == Resp::V3 {
            connection.command(&[b"HELLO", b"3"]);
        }
        connection
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A connection to a server.
pub(super) struct Connection {
    stream: UnixStream,
    input: Vec<u8>,
}

impl Connection {
    /// Sends a command and returns the bytes of its reply.
    pub(super) fn command(&mut self, words: &[&[u8]]) -> Vec<u8> {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.stream.write_all(&request).expect("the server reads");
        loop {
            if let Some(len) = reply_len(&self.input) {
                return self.input.drain(..len).collect();
            }
            let mut chunk = [0; 65_536];
            let read = self.stream.read(&mut chunk).expect("the server answers");
            assert!(
                read > 0,
                "the server closed the connection after {:?}",
                words[1].escape_ascii()
            );
            self.input.extend_from_slice(&chunk[..read]);
        }
    }
}

/// Length of the first reply in some bytes, if it is complete. Its lines may hold anything: a script can return numbers
/// that are none.
fn reply_len(input: &[u8]) -> Option<usize> {
    let (mut at, mut missing) = (0, 1_usize);
    while missing > 0 {
        let end = at + input.get(at..)?.windows(2).position(|pair| pair == b"\r\n")?;
        let line = std::str::from_utf8(&input[at + 1..end]).unwrap_or("0");
        let count = line.parse::<usize>().unwrap_or(0);
        missing -= 1;
        match input[at] {
            b'*' | b'~' | b'>' => missing += count,
            b'%' => missing += 2 * count,
            _ => {}
        }
        let is_text = matches!(input[at], b'$' | b'=' | b'!') && !line.starts_with('-');
        at = end + 2 + if is_text { count + 2 } else { 0 };
    }
    (at <= input.len()).then_some(at)
}

/// A host whose commands run on a real server.
pub(super) struct Bridge {
    v2: Connection,
    v3: Connection,
}

impl Bridge {
    pub(super) fn new(redis: &Redis) -> Bridge {
        Bridge {
            v2: redis.connect(Resp::V2),
            v3: redis.connect(Resp::V3),
        }
    }
}

impl Host for Bridge {
    fn call(&mut self, words: &mut Words, resp: Resp, reply: &mut Vec<u8>) -> Verdict {
        let words: Vec<&[u8]> = words.arguments().iter().collect();
        let connection = match resp {
            Resp::V2 => &mut self.v2,
            Resp::V3 => &mut self.v3,
        };
        reply.extend_from_slice(&connection.command(&words));
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
