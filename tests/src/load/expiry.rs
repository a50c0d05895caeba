//! Keys of one second that arrive at a steady rate: how many of them are present at most, and how long a GET beside them
//! waits, compared with the same writes of keys that stay.
//!
//! A filler writes some keys each millisecond and reads no more than it must; a probe sends one GET after the other; the
//! size of the database is asked for from a third connection.

use std::io::{Error, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::options::Options;
use super::placement::Cores;
use super::report::{Report, Target};
use super::server::{Program, Server};
use super::{now, percentile_ms};

/// Keys written each millisecond: 100,000 a second.
const KEYS_PER_MS: u64 = 100;
/// Time to live of each key.
const TTL: Duration = Duration::from_secs(1);
/// No more keys may be present than arrive in so long.
const PRESENT_MAX: f64 = 1.3;
/// Percentile of the probe's waits that is reported.
const PERCENTILE: f64 = 0.99;

/// Result of a run.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Seconds' worth of arrivals that were present at most.
    present_s: f64,
    /// The wait that 99 % of the GETs stayed below, milliseconds.
    p99_ms: f64,
}

/// The section.
pub(crate) fn expiry(
    options: &Options,
    cores: &Cores,
    pair: &[Program; 2],
    report: &mut Report<impl Write>,
) -> Result<()> {
    let placement = cores.pinned();
    cores.place_load(placement)?;
    let keys: u64 = if options.quick { 300_000 } else { 1_000_000 };
    report.heading(
        &format!("{} K keys of 1 s, 100,000 a second, 1 shard", keys / 1000),
        "redis",
        "shardis",
    )?;
    let mut seen = Vec::new();
    for program in pair {
        // Each kind of key meets a server that is empty.
        let stay = arrive(&program.start(placement, &[])?, keys, "")?;
        let expire = arrive(&program.start(placement, &[])?, keys, " PX 1000")?;
        seen.push((stay, expire));
    }
    let [(_, their), (our_stay, ours)] = seen[..] else {
        return Err(Error::other("two servers were measured"));
    };
    let present = Target::Value(PRESENT_MAX);
    report.line(
        "most present, s of arrivals",
        Some(their.present_s),
        ours.present_s,
        present,
        "",
    )?;
    report.line(
        "GET p99 beside keys that stay, ms",
        None,
        our_stay.p99_ms,
        Target::None,
        "",
    )?;
    let twice = Target::Value(2.0 * our_stay.p99_ms);
    report.line(
        "GET p99 beside them, ms",
        Some(their.p99_ms),
        ours.p99_ms,
        twice,
        "",
    )
}

/// Lets so many keys arrive, and watches.
fn arrive(server: &Server, keys: u64, suffix: &str) -> Result<Seen> {
    let address = server.address();
    let mut client = server.client()?;
    client.call("SET probe value")?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let filler = scope.spawn(|| {
            let filled = fill(address, keys, suffix);
            over.store(true, Ordering::Release);
            filled
        });
        let probe = scope.spawn(|| probe(address, &over));
        let mut most = 0;
        while !over.load(Ordering::Acquire) {
            let size = client.call("DBSIZE")?.integer();
            most = most.max(size.ok_or_else(|| Error::other("DBSIZE is no number"))?);
            thread::sleep(Duration::from_millis(20));
        }
        let per_second = filler.join().map_err(|_| Error::other("the filler panicked"))??;
        let p99_ms = probe.join().map_err(|_| Error::other("the probe panicked"))??;
        Ok(Seen {
            present_s: most as f64 / per_second,
            p99_ms,
        })
    })
}

/// Writes the keys at their rate; returns how many a second that became.
fn fill(address: SocketAddr, keys: u64, suffix: &str) -> Result<f64> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let start = now();
    let mut sent = 0;
    while sent < keys {
        let due = (start.elapsed().as_millis() as u64 + 1) * KEYS_PER_MS;
        let batch = sent..due.min(keys).min(sent + 10 * KEYS_PER_MS);
        if batch.is_empty() {
            thread::sleep(Duration::from_micros(200));
            continue;
        }
        let lines: String = batch
            .clone()
            .map(|number| format!("SET key:{number:012} value:{number:026}{suffix}\r\n"))
            .collect();
        stream.write_all(lines.as_bytes())?;
        let mut replies = vec![0; "+OK\r\n".len() * (batch.end - batch.start) as usize];
        stream.read_exact(&mut replies)?;
        if !replies.starts_with(b"+OK") {
            return Err(Error::other("SET was refused"));
        }
        sent = batch.end;
    }
    Ok(keys as f64 / start.elapsed().as_secs_f64().max(TTL.as_secs_f64()))
}

/// Sends one GET after the other until it is over; returns the wait that 99 % stayed below, in milliseconds.
fn probe(address: SocketAddr, over: &AtomicBool) -> Result<f64> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut waits = Vec::new();
    let mut reply = [0; "$5\r\nvalue\r\n".len()];
    while !over.load(Ordering::Acquire) {
        let sent = now();
        stream.write_all(b"GET probe\r\n")?;
        stream.read_exact(&mut reply)?;
        waits.push(sent.elapsed());
        thread::sleep(Duration::from_micros(300));
    }
    let (wait_ms, _) =
        percentile_ms(waits, PERCENTILE).ok_or_else(|| Error::other("the probe got no turn"))?;
    Ok(wait_ms)
}
