//! One run over arbitrary bytes taken for the manifest of an append-only file: they stop the start with an error, and every file
//! stays as it is, or a node begins with what they name, and after its end another one does so with the same data.
//!
//! The same body runs under the fuzzer and, over seeded data, as a plain test of the server.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use shardis::{BuildError, Server};

/// Files that a manifest may name, each with a command that appends its number to a list.
pub(crate) const FILES: [&str; 6] = [
    "appendonly.aof.1.base.aof",
    "appendonly.aof.1.incr.aof",
    "appendonly.aof.2.incr.aof",
    "appendonly.aof.3.incr.aof",
    "a b",
    "x",
];

/// Takes `data` for the manifest in a directory that is empty.
pub(crate) fn check(directory: &Path, data: &[u8]) {
    let files = directory.join("appendonlydir");
    fs::create_dir(&files).expect("a directory");
    for (number, name) in FILES.iter().enumerate() {
        let command = format!("*3\r\n$5\r\nRPUSH\r\n$4\r\nlist\r\n$1\r\n{number}\r\n");
        fs::write(files.join(name), command).expect("a file");
    }
    fs::write(files.join("appendonly.aof.manifest"), data).expect("the manifest");
    let before = contents(&files);
    match start(directory) {
        Ok(server) => {
            let list = list(&server);
            drop(server);
            let server = start(directory).expect("what one node leaves, another one begins with");
            assert_eq!(self::list(&server), list);
        }
        Err(error) => {
            assert!(!error.to_string().contains("panicked"), "{error}");
            assert_eq!(contents(&files), before, "{error}");
        }
    }
}

fn start(directory: &Path) -> Result<Server, BuildError> {
    Server::builder()
        .directive("dir", directory.display().to_string())
        .directive("appendonly", "yes")
        .directive("save", "")
        .manual_clock(Duration::from_secs(1_700_000_000))
        .start()
}

/// The names of all files, and what is in them.
fn contents(directory: &Path) -> BTreeMap<OsString, Vec<u8>> {
    fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| {
            let entry = entry.expect("an entry");
            (entry.file_name(), fs::read(entry.path()).expect("a file"))
        })
        .collect()
}

/// The reply to LRANGE of the list that files append to, as bytes.
fn list(server: &Server) -> Vec<u8> {
    let mut socket = TcpStream::connect(server.address()).expect("it accepts connections");
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    socket.write_all(b"LRANGE list 0 -1\r\nQUIT\r\n").expect("sent");
    let mut reply = Vec::new();
    socket.read_to_end(&mut reply).expect("it answers");
    reply
}
