//! Cost of TLS: CPU of a GET in short and long pipelines, of full and of resumed handshakes, and memory of idle clients.
//!
//! redis-benchmark is the generator of the GETs: what it costs itself does not matter.

use std::io::{Error, Result, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::{self, sleep};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::client::Resumption;
use shardis_tests::client::Client;
use shardis_tests::tls::Authority;

use super::options::Options;
use super::placement::{Cores, Placement};
use super::report::{Report, Target};
use super::server::{Program, Server};
use super::{median, now, percentile_ms};

const CLIENTS: usize = 50;
/// GETs of one measurement for each request of a pipeline and second.
const GETS: f64 = 60_000.0;
/// Handshakes of one measurement for each second.
const HANDSHAKES: f64 = 400.0;
const IDLE_CLIENTS: usize = 2_000;
/// New connections a second beside an open one, and the threads that open them.
const NEW_PER_SECOND: f64 = 2_000.0;
const FLOODERS: usize = 4;
const PING_PAUSE: Duration = Duration::from_millis(1);
/// The most that an idle client may take, bytes.
const IDLE_BYTES: f64 = 24.0 * 1024.0;

/// A server with its port for TLS.
struct Secured {
    server: Server,
    address: SocketAddr,
    authority: Authority,
}

impl Secured {
    fn start(program: &Program, placement: Placement) -> Result<Self> {
        let authority = Authority::new();
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut options = authority.options(address.port());
        options.extend(["--tls-auth-clients".to_owned(), "no".to_owned()]);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        Ok(Self {
            server: program.start(placement, &options)?,
            address,
            authority,
        })
    }

    /// CPU of one GET, microseconds.
    fn get_us(&self, pipeline: usize, seconds: f64) -> Result<f64> {
        let gets = (GETS * seconds * pipeline as f64) as usize;
        let before = self.server.cpu()?;
        let status = Command::new("redis-benchmark")
            .args(["-p", &self.address.port().to_string(), "--tls", "--cacert"])
            .arg(self.authority.file("ca.crt"))
            .args(["-t", "get", "-d", "64", "-q", "-c", &CLIENTS.to_string()])
            .args(["-P", &pipeline.to_string(), "-n", &gets.to_string()])
            .stdout(Stdio::null())
            .status()?;
        if !status.success() {
            return Err(Error::other("redis-benchmark failed"));
        }
        Ok((self.server.cpu()? - before).as_secs_f64() * 1e6 / gets as f64)
    }

    /// CPU of a connection that is opened, asked and closed, microseconds.
    fn handshake_us(&self, seconds: f64, is_resumed: bool) -> Result<f64> {
        let config = self.client(is_resumed);
        open(self.address, &config)?;
        let count = (HANDSHAKES * seconds).max(50.0) as usize;
        let before = self.server.cpu()?;
        for _ in 0..count {
            open(self.address, &config)?;
        }
        Ok((self.server.cpu()? - before).as_secs_f64() * 1e6 / count as f64)
    }

    /// The configuration of a client that keeps its sessions, or does not.
    fn client(&self, keeps_sessions: bool) -> Arc<ClientConfig> {
        let mut config = ClientConfig::clone(&self.authority.client(None));
        if !keeps_sessions {
            config.resumption = Resumption::disabled();
        }
        Arc::new(config)
    }

    /// 99th percentile of the time that a PING of an open connection takes, milliseconds, while others open so many connections a
    /// second.
    fn ping_ms(&self, seconds: f64, new_per_second: f64) -> Result<f64> {
        let config = self.client(false);
        let mut client = Client::connect_tls(self.address, &config)?;
        let (begin, end) = (now(), Duration::from_secs_f64(seconds));
        let mut waits = Vec::new();
        thread::scope(|scope| {
            for flooder in 0..FLOODERS {
                let config = &config;
                scope.spawn(move || {
                    let each = FLOODERS as f64 / new_per_second;
                    for number in 0.. {
                        let due = Duration::from_secs_f64(
                            (number as f64 + flooder as f64 / FLOODERS as f64) * each,
                        );
                        if due > end {
                            return;
                        }
                        sleep(due.saturating_sub(now() - begin));
                        // Those that come too late for the rate are none the less opened.
                        let _ = open(self.address, config);
                    }
                });
            }
            while now() - begin < end {
                let asked = now();
                client.try_call(&["PING"])?;
                waits.push(now() - asked);
                sleep(PING_PAUSE);
            }
            Ok::<_, Error>(())
        })?;
        let (p99, _) = percentile_ms(waits, 0.99).ok_or_else(|| Error::other("no PING was answered"))?;
        Ok(p99)
    }

    /// Resident memory of an idle client, bytes.
    fn idle_bytes(&self) -> Result<f64> {
        let config = self.authority.client(None);
        drop(Client::connect_tls(self.address, &config)?);
        let before = self.server.resident_bytes()?;
        let clients: Result<Vec<Client>> = (0..IDLE_CLIENTS)
            .map(|_| Client::connect_tls(self.address, &config))
            .collect();
        let clients = clients?;
        // Buffers of clients that are idle for two seconds are freed.
        sleep(Duration::from_secs(5));
        let grown = self.server.resident_bytes()? as f64 - before as f64;
        Ok(grown / clients.len() as f64)
    }
}

/// Opens a connection, and has it asked once: tickets come with the first reply.
fn open(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<()> {
    let mut client = Client::connect_tls(address, config)?;
    client.try_call(&["PING"]).map(|_| ())
}

/// The section.
pub(crate) fn tls(
    options: &Options,
    cores: &Cores,
    pair: &[Program; 2],
    report: &mut Report<impl Write>,
) -> Result<()> {
    let placement = cores.pinned();
    cores.place_load(placement)?;
    report.heading("TLS, 1 shard", "redis", "shardis")?;
    let servers = [
        Secured::start(&pair[0], placement)?,
        Secured::start(&pair[1], placement)?,
    ];
    let seconds = options.time.as_secs_f64();
    for (name, pipeline, times) in [
        ("GET -P 1 over TLS, CPU us", 1, 0.9),
        ("GET -P 16 over TLS, CPU us", 16, 0.6),
    ] {
        if options.wants(name) {
            let figures = medians(options, &servers, |server| server.get_us(pipeline, seconds));
            report.pair(name, Target::Times(times), figures)?;
        }
    }
    let (full, resumed) = ("full handshake, CPU us", "resumed handshake, CPU us");
    if options.wants(full) || options.wants(resumed) {
        match medians(options, &servers, |server| server.handshake_us(seconds, false)) {
            Ok([redis, shardis]) => {
                report.line(full, Some(redis), shardis, Target::Times(1.0), "")?;
                let figures = medians(options, &servers, |server| server.handshake_us(seconds, true));
                // Three of them for one full one.
                report.pair(resumed, Target::Value(shardis / 3.0), figures)?;
            }
            Err(error) => report.failure(full, &error)?,
        }
    }
    let flood = "PING p99 beside handshakes, ms";
    if options.wants(flood) {
        // How much longer it takes than without them; the reference is not asked.
        let quiet = medians(options, &servers, |server| server.ping_ms(seconds, 1.0));
        let figures = quiet.and_then(|[_, quiet]| {
            let [_, busy] = medians(options, &servers, |server| {
                server.ping_ms(seconds, NEW_PER_SECOND)
            })?;
            Ok([quiet, busy])
        });
        report.pair(flood, Target::Times(2.0), figures)?;
    }
    let idle = "idle client over TLS, bytes";
    if options.wants(idle) {
        let figures = servers[0]
            .idle_bytes()
            .and_then(|redis| Ok([redis, servers[1].idle_bytes()?]));
        report.pair(idle, Target::Value(IDLE_BYTES), figures)?;
    }
    Ok(())
}

/// The medians of both servers over rounds in turn.
fn medians(
    options: &Options,
    servers: &[Secured; 2],
    measure: impl Fn(&Secured) -> Result<f64>,
) -> Result<[f64; 2]> {
    let mut figures = [Vec::new(), Vec::new()];
    for _ in 0..options.rounds {
        for (server, figures) in servers.iter().zip(&mut figures) {
            figures.push(measure(server)?);
        }
    }
    Ok(figures.map(|figures| median(&figures)))
}
