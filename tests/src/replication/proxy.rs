//! A bad network: what a replica takes for its primary's port. Each connection is passed on to the real one, and is cut, slowed
//! down, silenced or spoilt on the way, as the test says at any moment.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

/// Bytes that are passed on at once.
const PIECE: usize = 16 << 10;

/// Time after which a thread that waits looks whether the rules have changed.
const LOOK: Duration = Duration::from_millis(10);

/// Silence after which bytes that may be the first ones of what is to be replaced are passed on: a sender under load may have written
/// no more than them yet.
const SILENCE: Duration = Duration::from_secs(1);

/// Direction of bytes through a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the server that was connected to.
    FromServer,
    /// From the client that connected.
    FromClient,
}

/// Deeds of a proxy; by default it passes on everything.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// The next connection to have passed on so many bytes in this direction is cut, once.
    pub cut: Option<(Direction, u64)>,
    /// Every further piece takes this much longer.
    pub delay: Duration,
    /// The most bytes of a piece; 0 for no such bound.
    pub piece_max: usize,
    /// Nothing is passed on, and nothing is closed.
    pub is_silent: bool,
    /// Nothing is passed on for the connections from this number on, of which 0 is the first.
    pub silent_from: Option<u64>,
    /// Bytes from the server that are replaced by others of that length: the first ones that come by, then none.
    pub replace: Vec<Replacement>,
}

/// Bytes, and others of that length in their place.
pub type Replacement = (&'static [u8], &'static [u8]);

/// A proxy; it ends, with all its connections, when it is dropped.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    target: AtomicU16,
    rules: Mutex<Rules>,
    is_over: AtomicBool,
    /// Connections before this number are closed.
    first_open: AtomicU64,
    accepted: AtomicU64,
    /// Bytes from the server, of all connections.
    passed: AtomicU64,
}

impl Proxy {
    /// A proxy for a port of this machine.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn to(target: u16) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener.set_nonblocking(true).expect("a mode of the socket");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            target: AtomicU16::new(target),
            rules: Mutex::default(),
            is_over: AtomicBool::new(false),
            first_open: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            passed: AtomicU64::new(0),
        });
        let listening = Arc::clone(&shared);
        spawn(move || listening.listen(&listener));
        Proxy { port, shared }
    }

    /// The port to connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes the rules.
    pub fn set(&self, rules: Rules) {
        *self.shared.rules() = rules;
    }

    /// Passes on everything again.
    pub fn clear(&self) {
        self.set(Rules::default());
    }

    /// Cuts all connections there are.
    pub fn cut_all(&self) {
        let accepted = self.shared.accepted.load(Ordering::Relaxed);
        self.shared.first_open.store(accepted, Ordering::Relaxed);
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Bytes from the server that were passed on so far.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::Relaxed)
    }

    /// Whether bytes to be replaced have not come by yet.
    #[must_use]
    pub fn is_replacement_due(&self) -> bool {
        !self.shared.rules().replace.is_empty()
    }

    /// Whether a cut that was asked for is still to come.
    #[must_use]
    pub fn is_cut_due(&self) -> bool {
        self.shared.rules().cut.is_some()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn rules(&self) -> std::sync::MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(self: &Arc<Self>, listener: &TcpListener) {
        while !self.is_over.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((client, _)) => self.accept(client),
                Err(_) => sleep(LOOK),
            }
        }
    }

    fn accept(self: &Arc<Self>, client: TcpStream) {
        let number = self.accepted.fetch_add(1, Ordering::Relaxed);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.target.load(Ordering::Relaxed)));
        // A client whose server is away is closed, as it would be without a proxy.
        let Ok(server) = TcpStream::connect_timeout(&address, Duration::from_secs(5)) else {
            return;
        };
        // Without a mode of blocking the accepted socket has the listener's.
        if client.set_nonblocking(false).is_err() {
            return;
        }
        let (Ok(client_out), Ok(server_out)) = (client.try_clone(), server.try_clone()) else {
            return;
        };
        for (direction, from, to) in [
            (Direction::FromServer, server, client_out),
            (Direction::FromClient, client, server_out),
        ] {
            let way = Way {
                shared: Arc::clone(self),
                number,
                direction,
                passed: 0,
            };
            spawn(move || way.carry(from, to));
        }
    }
}

/// One direction of a connection.
struct Way {
    shared: Arc<Shared>,
    /// Number of the connection.
    number: u64,
    direction: Direction,
    passed: u64,
}

impl Way {
    /// Passes bytes on until the connection ends, then ends both its directions.
    fn carry(mut self, mut from: TcpStream, mut to: TcpStream) {
        let _ = from.set_read_timeout(Some(LOOK));
        let _ = to.set_nodelay(true);
        let mut piece = vec![0; 2 * PIECE];
        // Bytes at its beginning that may be the first ones of what is to be replaced.
        let mut kept = 0;
        let mut heard = Instant::now();
        while self.is_open() {
            if self.is_silent() {
                sleep(LOOK);
                continue;
            }
            let most = self.piece_max();
            match from.read(&mut piece[kept..kept + most]) {
                Ok(0) => break,
                Ok(length) => {
                    heard = Instant::now();
                    let length = self.before_cut(kept + length);
                    self.replace(&mut piece[..length]);
                    kept = self.begun(&piece[..length]);
                    let ready = length - kept;
                    if to.write_all(&piece[..ready]).is_err() || self.note(ready) {
                        break;
                    }
                    piece.copy_within(ready..length, 0);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if heard.elapsed() < SILENCE {
                        continue;
                    }
                    if to.write_all(&piece[..kept]).is_err() || self.note(kept) {
                        break;
                    }
                    kept = 0;
                }
                Err(_) => break,
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    fn is_silent(&self) -> bool {
        let rules = self.shared.rules();
        rules.is_silent || rules.silent_from.is_some_and(|first| self.number >= first)
    }

    fn is_open(&self) -> bool {
        !self.shared.is_over.load(Ordering::Relaxed)
            && self.number >= self.shared.first_open.load(Ordering::Relaxed)
    }

    /// Waits as the rules say; the most bytes to read then.
    fn piece_max(&self) -> usize {
        let (delay, most) = {
            let rules = self.shared.rules();
            (rules.delay, rules.piece_max)
        };
        sleep(delay);
        if most == 0 { PIECE } else { most.min(PIECE) }
    }

    /// So many of the bytes just read as are to pass before a cut.
    fn before_cut(&self, length: usize) -> usize {
        match self.shared.rules().cut {
            Some((direction, bytes)) if direction == self.direction => {
                let left = bytes.saturating_sub(self.passed);
                length.min(usize::try_from(left).unwrap_or(length))
            }
            _ => length,
        }
    }

    /// Counts bytes that were passed on; true if the connection is to be cut now.
    fn note(&mut self, length: usize) -> bool {
        self.passed += length as u64;
        if self.direction == Direction::FromServer {
            self.shared.passed.fetch_add(length as u64, Ordering::Relaxed);
        }
        let mut rules = self.shared.rules();
        let is_due =
            |(direction, bytes): (Direction, u64)| direction == self.direction && self.passed >= bytes;
        rules.cut.take_if(|cut| is_due(*cut)).is_some()
    }

    /// Length of the end of a piece that may be the beginning of bytes to be replaced.
    fn begun(&self, piece: &[u8]) -> usize {
        let rules = self.shared.rules();
        if self.direction != Direction::FromServer {
            return 0;
        }
        let begun = |old: &[u8]| {
            let longest = piece.len().min(old.len() - 1);
            (1..=longest)
                .rev()
                .find(|length| piece.ends_with(&old[..*length]))
        };
        let lengths = rules.replace.iter().filter_map(|(old, _)| begun(old));
        lengths.max().unwrap_or(0)
    }

    /// Replaces the bytes that the rules name, where they lie within a piece.
    fn replace(&self, piece: &mut [u8]) {
        if self.direction != Direction::FromServer {
            return;
        }
        let mut rules = self.shared.rules();
        let found = rules.replace.iter().find_map(|(old, new)| {
            let at = piece.windows(old.len()).position(|bytes| bytes == *old)?;
            Some((at, *new))
        });
        if let Some((at, new)) = found {
            piece[at..at + new.len()].copy_from_slice(new);
            rules.replace.clear();
        }
    }
}
