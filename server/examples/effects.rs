//! A second server that does what the first one does: the effects of all writes, repeated by a client.
//!
//! Run it with `cargo run -p shardis --example effects`.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use shardis::{Effect, Server};

fn main() -> Result<(), Box<dyn Error>> {
    let (sender, effects) = crossbeam_channel::unbounded();
    let first = Server::builder().effects(sender).start()?;
    let second = Server::builder().start()?;
    let mut out = std::io::stdout();

    let mut client = BufReader::new(TcpStream::connect(first.address())?);
    for command in [
        "SET stock 10",
        "DECRBY stock 3",
        "SPOP nothing",
        "LPUSH orders ada ben",
    ] {
        writeln!(out, "first:  {command} -> {}", ask(&mut client, command)?)?;
    }
    // No more effects come when it has ended.
    first.stop();

    let mut repeater = BufReader::new(TcpStream::connect(second.address())?);
    for effect in effects {
        let command = line(&effect);
        writeln!(out, "second: {command} -> {}", ask(&mut repeater, &command)?)?;
    }
    writeln!(out, "second: GET stock -> {}", ask(&mut repeater, "GET stock")?)?;
    Ok(())
}

/// An effect as an inline command. All values here are words without spaces.
fn line(effect: &Effect) -> String {
    String::from_utf8_lossy(&effect.words.join(&b' ')).into_owned()
}

/// Sends one inline command and returns its reply, of a bulk string the value.
fn ask(client: &mut BufReader<TcpStream>, command: &str) -> Result<String, Box<dyn Error>> {
    client.get_mut().write_all(format!("{command}\r\n").as_bytes())?;
    let mut reply = String::new();
    client.read_line(&mut reply)?;
    if reply.starts_with('$') && !reply.starts_with("$-1") {
        reply.clear();
        client.read_line(&mut reply)?;
    }
    Ok(reply.trim_end().to_owned())
}
