//! Sends lines to the system's log, by the protocol of RFC 3164 over its Unix socket.
//!
//! Existing packages look up the host's name and time zone by themselves, and block while the daemon is slow, which
//! would hold up a loop. This socket does not block: a line that the daemon does not accept at once is lost, as over
//! a network.

use std::os::unix::net::UnixDatagram;
use std::path::Path;

use jiff::Zoned;
use parking_lot::Mutex;
use tracing::Level;

use crate::config::SyslogFacility;

/// The sockets that a daemon may listen at, by system.
const SOCKETS: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];

/// Connection to the system's log.
#[derive(Debug)]
pub(crate) struct Syslog {
    ident: String,
    facility: u8,
    /// None while no daemon listens.
    socket: Mutex<Option<UnixDatagram>>,
    /// Paths of the sockets to try.
    places: &'static [&'static str],
}

impl Syslog {
    /// A connection with a name and a facility. The daemon may be started later.
    pub(crate) fn new(ident: &str, facility: SyslogFacility) -> Self {
        Self {
            ident: ident.to_owned(),
            facility: facility.number(),
            socket: Mutex::new(None),
            places: &SOCKETS,
        }
    }

    /// Sends a line. If the daemon was restarted, connects again, once per line.
    pub(super) fn send(&self, level: Level, time: &Zoned, text: &str) {
        let priority = self.facility * 8 + severity(level);
        let message = format!(
            "<{priority}>{} {}[{}]: {text}",
            time.strftime("%b %e %H:%M:%S"),
            self.ident,
            std::process::id()
        );
        let mut socket = self.socket.lock();
        let sent = |socket: &Option<UnixDatagram>| {
            let socket = socket.as_ref();
            socket.is_some_and(|socket| socket.send(message.as_bytes()).is_ok())
        };
        if !sent(&socket) {
            *socket = self.places.iter().find_map(|path| connect(Path::new(path)));
            sent(&socket);
        }
    }
}

fn connect(path: &Path) -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    socket.connect(path).ok()?;
    Some(socket)
}

/// The severity of a level, from 7 for debugging to 4 for a warning.
fn severity(level: Level) -> u8 {
    match level {
        Level::TRACE => 7,
        Level::DEBUG => 6,
        Level::INFO => 5,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_gets_priority_time_name_and_text() {
        let path = std::env::temp_dir().join(format!("shardis-syslog-{}", std::process::id()));
        let place: &'static str = Box::leak(path.display().to_string().into_boxed_str());
        let syslog = Syslog {
            places: Box::leak(Box::new([place])),
            ..Syslog::new("cache", SyslogFacility::Local3)
        };
        let time: Zoned = "2026-11-08T03:04:05+00:00[UTC]".parse().unwrap();
        syslog.send(Level::WARN, &time, "nobody listens yet");
        for round in 0..2 {
            // The second round simulates a restarted daemon.
            let _ = std::fs::remove_file(&path);
            let daemon = UnixDatagram::bind(&path).unwrap();
            daemon
                .set_read_timeout(Some(std::time::Duration::from_secs(5)))
                .unwrap();
            syslog.send(Level::WARN, &time, "watch out");
            let mut buffer = [0; 200];
            let len = daemon.recv(&mut buffer).unwrap();
            assert_eq!(
                std::str::from_utf8(&buffer[..len]).unwrap(),
                format!("<156>Nov  8 03:04:05 cache[{}]: watch out", std::process::id()),
                "round {round}"
            );
        }
        let _ = std::fs::remove_file(&path);
    }
}
