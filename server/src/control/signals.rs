//! The signals that the program takes.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// SIGINT: an end, by somebody at a terminal.
    Interrupt,
    /// SIGTERM: an end.
    Terminate,
}

impl Order {
    /// The name of the signal.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }
}

/// The process's signals.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// Taken and ignored: the end of a terminal is not the end of a server.
    _hangup: Signal,
}

impl Signals {
    /// Takes the signals from now on. To be called within a runtime.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            _hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal that asks for something.
    pub(super) async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.interrupt.recv() => Order::Interrupt,
            _ = self.terminate.recv() => Order::Terminate,
        }
    }
}
