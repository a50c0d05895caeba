//! Waiting until a server is in a state, without a promise about how long that takes: a test must also pass where
//! other programs use the processor. It fails after [`PATIENCE`].

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::client::{Client, PATIENCE};
use crate::info::figure;

/// Time between two looks.
const BETWEEN: Duration = Duration::from_millis(5);

/// Waits until something is so.
///
/// # Panics
/// When it is not after [`PATIENCE`].
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        sleep(BETWEEN);
    }
}

/// Waits for a connection to a server that the test plays.
///
/// # Panics
/// When there is none after [`PATIENCE`].
#[must_use]
pub fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).expect("a listener");
    let mut accepted = None;
    wait_until("a connection", || match listener.accept() {
        Ok((stream, _)) => {
            accepted = Some(stream);
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
            false
        }
    });
    let stream = accepted.expect("it was waited for");
    stream.set_nonblocking(false).expect("a connection");
    stream
}

/// Waits until the commands of so many clients wait.
///
/// # Panics
/// When another number of them waits after [`PATIENCE`].
pub fn await_blocked(client: &mut Client, count: usize) {
    wait_until(&format!("{count} blocked clients"), || {
        figure(client, "blocked_clients") == count as u64
    });
}

/// Tries until it succeeds, and returns that; after `patience`, the last reason for which it did not.
///
/// # Errors
/// The reason of the last attempt.
pub fn retry<T>(patience: Duration, mut attempt: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let deadline = Instant::now() + patience;
    loop {
        match attempt() {
            Err(reason) if Instant::now() > deadline => return Err(reason),
            Err(_) => sleep(BETWEEN),
            Ok(found) => return Ok(found),
        }
    }
}

/// Sets a flag at its end, so that threads that run until then come to an end even when their test panics.
#[derive(Debug)]
pub struct EndOnDrop<'a>(pub &'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
