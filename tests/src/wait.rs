//! Waiting until a server is in a state, without a promise about how long that takes: a test must also pass where
//! other programs use the processor. It fails after [`PATIENCE`].

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

/// Waits until the commands of so many clients wait.
///
/// # Panics
/// When another number of them waits after [`PATIENCE`].
pub fn await_blocked(client: &mut Client, count: usize) {
    wait_until(&format!("{count} blocked clients"), || {
        figure(client, "blocked_clients") == count as u64
    });
}
