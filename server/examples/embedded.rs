//! A server inside this program, with a clock that the program moves.
//!
//! Run it with `cargo run -p shardis --example embedded`.

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

fn main() -> Result<(), Box<dyn Error>> {
    let server = shardis::Server::builder()
        .port(0)
        .manual_clock(Duration::from_secs(1_700_000_000))
        .start()?;
    let mut out = std::io::stdout();
    writeln!(out, "serving {}", server.url())?;

    let mut client = TcpStream::connect(server.address())?;
    writeln!(
        out,
        "SET seat ada EX 60  -> {}",
        ask(&mut client, "SET seat ada EX 60")?
    )?;
    writeln!(out, "GET seat            -> {}", ask(&mut client, "GET seat")?)?;

    server.advance(Duration::from_secs(61));
    writeln!(out, "a minute later      -> {}", ask(&mut client, "GET seat")?)?;
    Ok(())
}

/// Sends one inline command and returns the reply as it came.
fn ask(client: &mut TcpStream, command: &str) -> Result<String, Box<dyn Error>> {
    client.write_all(format!("{command}\r\n").as_bytes())?;
    let mut reply = [0; 128];
    let count = client.read(&mut reply)?;
    Ok(String::from_utf8_lossy(&reply[..count])
        .escape_debug()
        .to_string())
}
