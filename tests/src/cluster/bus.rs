//! A bus that can be cut: each node announces a door of it in place of its own port, and what nodes send each other passes through.
//! Clients and replicas use other ports, so that a cut here is the fault that splits a cluster while everybody can still write to both
//! sides.
//!
//! The node that a connection comes from is the one named as the sender in its first packet.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{sleep, spawn};
use std::time::Duration;

/// Bytes that are passed on at once.
const PIECE: usize = 64 << 10;

/// Time after which a thread that waits looks whether it is to end.
const LOOK: Duration = Duration::from_millis(25);

/// The part of a packet's header that names its sender.
const SENDER: std::ops::Range<usize> = 40..80;

/// The doors of all nodes; they close when this is dropped.
#[derive(Default)]
pub struct Bus {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    is_over: AtomicBool,
}

#[derive(Default)]
struct State {
    /// The port behind each door.
    targets: Vec<Option<u16>>,
    /// Indices of nodes, by their ids.
    ids: BTreeMap<Vec<u8>, usize>,
    /// Pairs of nodes of which the first is not heard by the second.
    severed: BTreeSet<(usize, usize)>,
}

impl Bus {
    /// Opens the door of the next node; returns the port to announce.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn add(&self) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener.set_nonblocking(true).expect("a mode of the socket");
        let port = listener.local_addr().expect("an address").port();
        let mut state = self.shared.state();
        let index = state.targets.len();
        state.targets.push(None);
        let shared = Arc::clone(&self.shared);
        spawn(move || shared.listen(&listener, index));
        port
    }

    /// Says which port is behind a door.
    pub fn lead_to(&self, index: usize, port: u16) {
        self.shared.state().targets[index] = Some(port);
    }

    /// Says which id a node has.
    pub fn introduce(&self, index: usize, id: &str) {
        self.shared.state().ids.insert(id.as_bytes().to_vec(), index);
    }

    /// Keeps what the nodes of one side send from those of the other, and the reverse.
    pub fn split(&self, one: &[usize], other: &[usize]) {
        let mut state = self.shared.state();
        for &a in one {
            state.severed.extend(other.iter().flat_map(|&b| [(a, b), (b, a)]));
        }
    }

    /// Keeps what one node sends from another, and nothing else.
    pub fn silence(&self, from: usize, to: usize) {
        self.shared.state().severed.insert((from, to));
    }

    /// Ends all cuts.
    pub fn heal(&self) {
        self.shared.state().severed.clear();
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(self: &Arc<Self>, listener: &TcpListener, index: usize) {
        while !self.is_over.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => {
                    let shared = Arc::clone(self);
                    spawn(move || shared.carry(stream, index));
                }
                Err(_) => sleep(LOOK),
            }
        }
    }

    /// Carries a connection that has come to the door of a node.
    fn carry(self: Arc<Self>, mut caller: TcpStream, to: usize) {
        let Some(port) = self.state().targets[to] else {
            return;
        };
        let Ok(mut callee) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
            return;
        };
        let first = caller
            .set_nonblocking(false)
            .is_ok()
            .then(|| self.first_packet(&mut caller));
        let Some(Some(first)) = first else { return };
        let sender = first[SENDER].to_vec();
        let (Ok(caller_out), Ok(callee_out)) = (caller.try_clone(), callee.try_clone()) else {
            return;
        };
        let calls = Way {
            shared: Arc::clone(&self),
            sender: sender.clone(),
            door: to,
            is_call: true,
        };
        let answers = Way {
            shared: self,
            sender,
            door: to,
            is_call: false,
        };
        if calls.is_severed() || callee.write_all(&first).is_err() {
            calls.await_healing();
            return;
        }
        spawn(move || answers.carry(callee, caller_out));
        calls.carry(caller, callee_out);
    }

    /// The beginning of the first packet, up to its sender.
    fn first_packet(&self, caller: &mut TcpStream) -> Option<Vec<u8>> {
        caller.set_read_timeout(Some(LOOK)).ok()?;
        let (mut first, mut length) = (vec![0; PIECE], 0);
        while length < SENDER.end {
            match caller.read(&mut first[length..]) {
                Ok(0) => return None,
                Ok(read) => length += read,
                Err(error) if is_pause(&error) && !self.is_over.load(Ordering::Relaxed) => {}
                Err(_) => return None,
            }
        }
        first.truncate(length);
        Some(first)
    }
}

/// Whether a read has only taken too long.
fn is_pause(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// One direction of a connection.
struct Way {
    shared: Arc<Shared>,
    /// Id of the node that connected.
    sender: Vec<u8>,
    /// Node that it connected to.
    door: usize,
    /// Whether the bytes are those of the node that connected.
    is_call: bool,
}

impl Way {
    /// Passes bytes on until the connection ends. One that is severed is silent until the cut is healed, and ends then: what was
    /// sent meanwhile never arrives.
    fn carry(self, mut from: TcpStream, mut to: TcpStream) {
        let _ = from.set_read_timeout(Some(LOOK));
        let _ = to.set_nodelay(true);
        let mut piece = vec![0; PIECE];
        while !self.shared.is_over.load(Ordering::Relaxed) {
            if self.is_severed() {
                self.await_healing();
                break;
            }
            match from.read(&mut piece) {
                Ok(0) => break,
                Ok(length) if self.is_severed() || to.write_all(&piece[..length]).is_ok() => {}
                Err(error) if is_pause(&error) => {}
                _ => break,
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    /// Whether the receiver is not to hear the sender. A node that was not introduced is heard.
    fn is_severed(&self) -> bool {
        let state = self.shared.state();
        let Some(&caller) = state.ids.get(&self.sender) else {
            return false;
        };
        let pair = if self.is_call {
            (caller, self.door)
        } else {
            (self.door, caller)
        };
        state.severed.contains(&pair)
    }

    fn await_healing(&self) {
        while self.is_severed() && !self.shared.is_over.load(Ordering::Relaxed) {
            sleep(LOOK);
        }
    }
}
