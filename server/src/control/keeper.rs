//! [`Keeper`]: the thread that keeps the append-only file: it syncs, writes what loops could not, and replaces files.
//!
//! Every node has it, like the control thread: the file can be switched on at any time, and a sleeping thread costs little. It waits for
//! the disk, which neither loops nor the control thread may.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::state::Node;

/// Time between two looks at what is due, and between two syncs under `everysec`.
const TICK: Duration = Duration::from_secs(1);

/// Time between two looks while a rewrite waits for something else to end.
const SCHEDULED_STEP: Duration = Duration::from_millis(100);

/// Handle of the thread. Dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Keeper {
    node: Arc<Node>,
    has_ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the thread.
    ///
    /// # Errors
    /// The error of the system call.
    pub(crate) fn start(node: Arc<Node>) -> io::Result<Self> {
        let has_ended = Arc::new(AtomicBool::new(false));
        let (kept, end) = (Arc::clone(&node), Arc::clone(&has_ended));
        let thread = std::thread::Builder::new()
            .name("aof".to_owned())
            .spawn(move || keep(&kept, &end))?;
        Ok(Self {
            node,
            has_ended,
            thread: Some(thread),
        })
    }

    /// Ends the thread, and waits for its end.
    fn stop(&mut self) {
        self.has_ended.store(true, Ordering::SeqCst);
        self.node.journal.aof.call();
        if let Some(thread) = self.thread.take() {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop();
    }
}

fn keep(node: &Node, has_ended: &AtomicBool) {
    if node.daemon.is_some() {
        crate::daemon::guard_thread();
    }
    let _entered = node.threads.enter();
    let mut ticked_ns = node.clock.elapsed_ns();
    while !has_ended.load(Ordering::SeqCst) {
        let is_scheduled = node.append_only.has_scheduled();
        let was_called = node
            .journal
            .aof
            .await_call(if is_scheduled { SCHEDULED_STEP } else { TICK });
        let now_ns = node.clock.elapsed_ns();
        // A manual clock may stand still: then a wait that was not cut short is a tick.
        let is_tick = (!was_called && !is_scheduled) || now_ns - ticked_ns >= TICK.as_nanos() as u64;
        if is_tick {
            ticked_ns = now_ns;
        }
        if !keep_once(node, is_tick) {
            return node.fail();
        }
    }
}

/// Does what is due. False when the node has to end.
fn keep_once(node: &Node, is_tick: bool) -> bool {
    let settings = node.settings.load();
    let is_saving = node.persistence.purpose().is_some();
    node.journal.aof.note_saving(is_saving);
    let may_sync = !(is_saving && settings.no_appendfsync_on_rewrite);
    node.reporting(&settings, |reporter| {
        let kept = node.journal.keep(is_tick, may_sync, reporter, || node.ring_all());
        if kept.is_ok() {
            node.append_only.tend(&settings, is_tick, reporter);
        }
        kept.is_ok()
    })
}
