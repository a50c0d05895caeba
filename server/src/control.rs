//! The control thread of a node: timers and signals, which no command causes and which concern the whole node. It
//! runs a single-threaded `tokio` runtime, on which the links to other nodes live, too.
//!
//! Every node has one, embedded or not: a sleeping thread costs little, and all nodes behave alike. Shards never wait
//! for it. With a manual clock no timer of `tokio` runs: an advance of the clock rings the bell, and the thread
//! checks by the node's clock whether something is due. It ends after the loops, so that a second SIGINT is still
//! handled.

pub(crate) mod keeper;
mod signals;

use std::future::pending;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use self::signals::{Order, Signals};
use crate::log::Level;
use crate::saving::{Job, Purpose};
use crate::state::Node;

/// Interval between two ticks, microseconds.
const TICK_US: i64 = 1_000_000;

/// Number of ticks between two log lines about the node's load.
const TICKS_PER_REPORT: u32 = 5;

/// Begins the links of the node, on the control thread.
pub(crate) type LinksStart = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// Handle of the control thread. Dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Control {
    thread: Option<JoinHandle<()>>,
    /// Dropping this sender ends the thread.
    end: Option<oneshot::Sender<()>>,
}

impl Control {
    /// Starts the thread, which runs `task` beside its own work. With `signals` it also handles those of the process.
    ///
    /// # Errors
    /// The error of the system call.
    pub(crate) fn start(node: Arc<Node>, signals: bool, links: LinksStart) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let signals = {
            let _within = runtime.enter();
            signals.then(Signals::new).transpose()?
        };
        let (end, ended) = oneshot::channel();
        let inner = Inner {
            next_tick_us: node.clock.now_us() + TICK_US,
            ticks: 0,
            is_stopping: false,
            node,
            signals,
        };
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || inner.run(&runtime, links, ended))?;
        Ok(Self {
            thread: Some(thread),
            end: Some(end),
        })
    }

    /// Ends the thread, and waits for its end.
    pub(crate) fn stop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // A panic was already reported when it happened, and the thread has nothing more to do.
            let _ = thread.join();
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop();
    }
}

/// State of the control thread.
#[derive(Debug)]
struct Inner {
    node: Arc<Node>,
    /// Signals of the process; none when the node is embedded.
    signals: Option<Signals>,
    /// Time of the next tick, by the node's clock.
    next_tick_us: i64,
    ticks: u32,
    /// The end of the node has been noticed.
    is_stopping: bool,
}

impl Inner {
    fn run(mut self, runtime: &Runtime, links: LinksStart, ended: oneshot::Receiver<()>) {
        if self.node.daemon.is_some() {
            crate::daemon::guard_thread();
        }
        let node = Arc::clone(&self.node);
        let _entered = node.threads.enter();
        let tasks = LocalSet::new();
        tasks.spawn_local(links());
        tasks.block_on(runtime, self.serve(ended));
    }

    async fn serve(&mut self, mut ended: oneshot::Receiver<()>) {
        let node = Arc::clone(&self.node);
        loop {
            let until_tick = self.until_tick();
            tokio::select! {
                _ = &mut ended => return,
                order = next(&mut self.signals) => self.obey(order),
                () = node.control_bell.notified() => {}
                () = sleep(until_tick) => {}
            }
            node.debug.freeze.pass();
            node.end_when_ready();
            self.notice_end();
            if node.clock.now_us() >= self.next_tick_us {
                self.tick();
            }
            node.links_bell.notify_waiters();
        }
    }

    /// Time until the next tick; none while the node's clock stands still.
    fn until_tick(&self) -> Option<Duration> {
        // A tick that is overdue is due now.
        let left_us = (self.next_tick_us - self.node.clock.now_us())
            .max(0)
            .unsigned_abs();
        self.node.clock.is_real().then(|| Duration::from_micros(left_us))
    }

    /// Does the work that is due once a second.
    fn tick(&mut self) {
        self.next_tick_us = self.node.clock.now_us() + TICK_US;
        self.save_if_due();
        let used = self.node.measure_memory().used;
        self.ticks += 1;
        if self.ticks.is_multiple_of(TICKS_PER_REPORT) {
            self.node.log.write(
                Level::Debug,
                format_args!(
                    "{} clients connected ({} replicas), {used} bytes in use",
                    self.node.clients.load(Ordering::Relaxed),
                    self.node.replication.replicas.count()
                ),
            );
        }
    }

    /// Begins the save that a save point makes due.
    fn save_if_due(&self) {
        let (node, settings, now_us) = (&self.node, self.node.settings.load(), self.node.clock.now_us());
        if settings.save.0.is_empty() || node.debug.cron_paused.load(Ordering::Relaxed) {
            return;
        }
        let due = node
            .persistence
            .save_due(&settings.save, || node.changes(), now_us);
        let Some(due) = due else { return };
        node.log.notice(format_args!(
            "{} changes in {} seconds. Saving...",
            due.changes, due.seconds
        ));
        // If something else has begun meanwhile, the next tick looks again.
        let _ = node
            .persistence
            .begin(Job::dump(Purpose::Background, &settings), now_us);
    }

    /// Tells the supervisor, once, that the node is stopping.
    fn notice_end(&mut self) {
        if self.is_stopping || !self.node.shutdown.is_requested() {
            return;
        }
        self.is_stopping = true;
        if let Some(daemon) = &self.node.daemon {
            daemon.supervisor.tell_stopping(&self.node.log);
        }
    }

    /// Acts on a signal.
    #[expect(
        clippy::disallowed_methods,
        reason = "who insists on the end of the process does not want to wait for its loops"
    )]
    fn obey(&mut self, order: Order) {
        let (node, log) = (&self.node, &self.node.log);
        if order == Order::Interrupt && node.is_ending() {
            log.warning(format_args!("You insist... exiting now."));
            let unfinished = Job::dump(Purpose::Background, &node.settings.load()).temporary;
            let _ = std::fs::remove_file(unfinished);
            std::process::exit(1);
        }
        log.warning(format_args!("Received {} scheduling shutdown...", order.name()));
        let settings = node.settings.load();
        let options = match order {
            Order::Interrupt => settings.shutdown_on_sigint,
            Order::Terminate => settings.shutdown_on_sigterm,
        };
        if node.end(options).is_err() {
            log.warning(format_args!(
                "Errors trying to shut down the server. Check the logs for more information."
            ));
        }
    }
}

/// Waits for the next signal; for ever if the thread does not handle signals.
async fn next(signals: &mut Option<Signals>) -> Order {
    match signals {
        Some(signals) => signals.next().await,
        None => pending().await,
    }
}

/// Sleeps for this time; for ever without one.
async fn sleep(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => pending().await,
    }
}
