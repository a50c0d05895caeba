//! The service manager that started the program, and is told its state (`supervised`).

use std::env;

use sd_notify::NotifyState;
use signal_hook::consts::SIGSTOP;
use signal_hook::low_level::raise;

use crate::config::Supervision;
use crate::log::Log;

/// A service manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Supervisor {
    /// There is none.
    Nobody,
    /// upstart, which waits until the process stops itself.
    Upstart,
    /// systemd, which receives datagrams at the socket that `NOTIFY_SOCKET` names.
    Systemd,
}

impl Supervisor {
    /// Whether a manager is to be told, according to the configuration or the environment.
    pub(crate) fn is_expected(configured: Supervision) -> bool {
        match configured {
            Supervision::No => false,
            Supervision::Auto => has("UPSTART_JOB") || has("NOTIFY_SOCKET"),
            Supervision::Upstart | Supervision::Systemd => true,
        }
    }

    /// The configured manager, if the environment shows that it is there.
    pub(crate) fn find(configured: Supervision, log: &Log) -> Self {
        let found = match configured {
            Supervision::No => return Self::Nobody,
            Supervision::Upstart | Supervision::Auto if has("UPSTART_JOB") => Self::Upstart,
            Supervision::Systemd | Supervision::Auto if has("NOTIFY_SOCKET") => Self::Systemd,
            Supervision::Upstart => {
                log.warning(format_args!(
                    "upstart supervision requested, but UPSTART_JOB not found!"
                ));
                Self::Nobody
            }
            Supervision::Systemd => {
                log.warning(format_args!(
                    "systemd supervision requested or auto-detected, but NOTIFY_SOCKET not found!"
                ));
                Self::Nobody
            }
            Supervision::Auto => Self::Nobody,
        };
        if found != Self::Nobody {
            log.notice(format_args!("supervised by {}", found.name()));
        }
        found
    }

    fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Upstart => "upstart, will stop to signal readiness",
            Self::Systemd => "systemd",
        }
    }

    /// Reports that the node has begun to start.
    pub(crate) fn tell_starting(self, log: &Log) {
        match self {
            Self::Nobody => {}
            // The manager sends SIGCONT as soon as it has noticed the stop.
            Self::Upstart => {
                if let Err(error) = raise(SIGSTOP) {
                    log.warning(format_args!("upstart could not be told of the start: {error}"));
                }
            }
            Self::Systemd => tell(&[NotifyState::Status("shardis is starting...")], log),
        }
    }

    /// Reports that the node serves, and its status text.
    pub(crate) fn tell_ready(self, status: &str, log: &Log) {
        if self == Self::Systemd {
            tell(&[NotifyState::Status(status), NotifyState::Ready], log);
        }
    }

    /// Reports that the node changes its configuration. [`Supervisor::tell_ready`] ends that state.
    pub(crate) fn tell_reloading(self, log: &Log) {
        if self == Self::Systemd {
            // Without the time, the manager would attribute the message to another reload.
            match NotifyState::monotonic_usec_now() {
                Ok(now) => tell(&[NotifyState::Reloading, now], log),
                Err(error) => log.warning(format_args!("systemd could not be told of the reload: {error}")),
            }
        }
    }

    /// Reports that the node is about to stop.
    pub(crate) fn tell_stopping(self, log: &Log) {
        if self == Self::Systemd {
            tell(
                &[NotifyState::Status("Shutting down"), NotifyState::Stopping],
                log,
            );
        }
    }
}

fn tell(states: &[NotifyState<'_>], log: &Log) {
    if let Err(error) = sd_notify::notify(states) {
        log.warning(format_args!("Can't connect to systemd socket: {error}"));
    }
}

fn has(variable: &str) -> bool {
    env::var_os(variable).is_some()
}
