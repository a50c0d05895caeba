//! Directives whose value is one word of a fixed list.
//!
//! Words are matched without regard to case and shown as they are written here; the error for a wrong one lists all of them.

use shardis_storage::keyspace::eviction::Policy;

use super::directives::Row;
use super::value::{Assign, Reason, Value, single};

macro_rules! choices {
    ($($(#[$doc:meta])* $type:ident { $($(#[$word_doc:meta])* $variant:ident = $word:literal),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $type {
            $($(#[$word_doc])* $variant),+
        }

        impl $type {
            /// Every choice, in the order of error messages.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word for it in a configuration.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }

        impl Value for $type {
            fn assign(&mut self, _row: &Row, args: &[&[u8]], _how: Assign) -> Result<(), Reason> {
                let arg = single(args)?;
                let found = Self::ALL.iter().find(|choice| arg.eq_ignore_ascii_case(choice.name().as_bytes()));
                *self = *found.ok_or_else(|| unknown_word(Self::ALL.iter().map(|choice| choice.name())))?;
                Ok(())
            }

            fn show(&self, _row: &Row) -> Vec<u8> {
                self.name().as_bytes().to_vec()
            }
        }
    )+};
}

/// The error for a word that is not in the list.
pub(super) fn unknown_word(words: impl Iterator<Item = &'static str>) -> Reason {
    let words: Vec<_> = words.collect();
    format!("argument(s) must be one of the following: {}", words.join(", ")).into()
}

choices! {
    /// `loglevel`: the least important line that is logged.
    LogLevel {
        /// Everything, for development.
        Debug = "debug",
        /// Much, for finding a problem.
        Verbose = "verbose",
        /// Lines of interest to operators.
        Notice = "notice",
        /// Only lines that need attention.
        Warning = "warning",
        /// No lines.
        Nothing = "nothing",
    }
    /// `io-backend`: mechanism by which loops wait for their clients' sockets.
    IoBackend {
        /// Completion where the system has it, else readiness.
        Auto = "auto",
        /// Readiness.
        Epoll = "epoll",
        /// Completion, or the start fails.
        IoUring = "io_uring",
    }
    /// `rdb-field-expiry-format`: family of servers that reads hashes with fields that expire.
    FieldExpiryFormat {
        /// Redis from 7.4 on.
        Redis = "redis",
        /// Valkey from 9.0 on.
        Valkey = "valkey",
    }
    /// `maxmemory-policy`: the keys that are evicted when memory is full.
    EvictionPolicy {
        /// Keys with an expiry, the least recently used first.
        VolatileLru = "volatile-lru",
        /// Keys with an expiry, the least frequently used first.
        VolatileLfu = "volatile-lfu",
        /// Keys with an expiry, at random.
        VolatileRandom = "volatile-random",
        /// Keys with an expiry, the soonest to expire first.
        VolatileTtl = "volatile-ttl",
        /// Any key, the least recently used first.
        AllKeysLru = "allkeys-lru",
        /// Any key, the least frequently used first.
        AllKeysLfu = "allkeys-lfu",
        /// Any key, at random.
        AllKeysRandom = "allkeys-random",
        /// Nothing: writes that need memory fail.
        NoEviction = "noeviction",
    }
    /// `appendfsync`: time at which the append-only file is synced to disk.
    AppendFsync {
        /// Once a second.
        EverySecond = "everysec",
        /// Before the reply to a write leaves.
        Always = "always",
        /// When the operating system decides.
        Never = "no",
    }
    /// `supervised`: the service manager that is told of the start.
    Supervision {
        /// upstart, by stopping itself.
        Upstart = "upstart",
        /// systemd, over `NOTIFY_SOCKET`.
        Systemd = "systemd",
        /// The one that the environment indicates.
        Auto = "auto",
        /// None.
        No = "no",
    }
    /// `syslog-facility`.
    SyslogFacility {
        /// `LOG_USER`.
        User = "user",
        /// `LOG_LOCAL0`.
        Local0 = "local0",
        /// `LOG_LOCAL1`.
        Local1 = "local1",
        /// `LOG_LOCAL2`.
        Local2 = "local2",
        /// `LOG_LOCAL3`.
        Local3 = "local3",
        /// `LOG_LOCAL4`.
        Local4 = "local4",
        /// `LOG_LOCAL5`.
        Local5 = "local5",
        /// `LOG_LOCAL6`.
        Local6 = "local6",
        /// `LOG_LOCAL7`.
        Local7 = "local7",
    }
    /// `repl-diskless-load`: whether a replica loads a snapshot directly from the socket.
    DisklessLoad {
        /// Never: the snapshot goes to a file first.
        Disabled = "disabled",
        /// Only if the replica has no data to lose.
        OnEmptyDb = "on-empty-db",
        /// Beside the old data, which is swapped out when the load is complete.
        SwapDb = "swapdb",
    }
    /// `oom-score-adj`: whether the kernel is told how expendable the process is.
    OomScoreAdj {
        /// No.
        No = "no",
        /// Like `relative`.
        Yes = "yes",
        /// Values are added to the score at the start.
        Relative = "relative",
        /// Values are the score.
        Absolute = "absolute",
    }
    /// `acl-pubsub-default`: the channels of a new user.
    ChannelDefault {
        /// All of them.
        AllChannels = "allchannels",
        /// None.
        ResetChannels = "resetchannels",
    }
    /// `sanitize-dump-payload`: the serialised values that are checked in depth.
    SanitizeDump {
        /// None.
        No = "no",
        /// All.
        Yes = "yes",
        /// Values from clients, but not those from a primary or a file.
        Clients = "clients",
    }
    /// `enable-protected-configs`, `enable-debug-command`, `enable-module-command`: the clients that may.
    Permission {
        /// None.
        No = "no",
        /// All.
        Yes = "yes",
        /// Clients on this machine.
        Local = "local",
    }
    /// `cluster-preferred-endpoint-type`: the form in which a redirect names a node.
    EndpointType {
        /// By address.
        Ip = "ip",
        /// By announced host name.
        Hostname = "hostname",
        /// Without a name: the client keeps the host it spoke to.
        UnknownEndpoint = "unknown-endpoint",
    }
    /// `propagation-error-behavior`: the consequence of a failing replicated command.
    PropagationError {
        /// A log line.
        Ignore = "ignore",
        /// The end of the process.
        Panic = "panic",
        /// The end of the process if it is a replica.
        PanicOnReplicas = "panic-on-replicas",
    }
    /// `tls-auth-clients`: whether a client must show a certificate.
    TlsClientAuth {
        /// None is asked for.
        No = "no",
        /// A valid one is required.
        Yes = "yes",
        /// One is asked for, and must be valid if given.
        Optional = "optional",
    }
    /// `tls-auth-clients-user`: the field of a client's certificate that names its user.
    TlsClientUser {
        /// None.
        Off = "off",
        /// The common name of the subject.
        CommonName = "CN",
        /// A URI among the alternative names of the subject.
        Uri = "URI",
    }
}

impl Permission {
    /// Whether a client may, given whether its connection comes from this machine.
    pub const fn allows(self, local: bool) -> bool {
        match self {
            Self::No => false,
            Self::Yes => true,
            Self::Local => local,
        }
    }
}

impl EvictionPolicy {
    /// The corresponding policy of the keyspace.
    pub fn policy(self) -> Policy {
        match self {
            Self::VolatileLru => Policy::VolatileLru,
            Self::VolatileLfu => Policy::VolatileLfu,
            Self::VolatileRandom => Policy::VolatileRandom,
            Self::VolatileTtl => Policy::VolatileTtl,
            Self::AllKeysLru => Policy::AllKeysLru,
            Self::AllKeysLfu => Policy::AllKeysLfu,
            Self::AllKeysRandom => Policy::AllKeysRandom,
            Self::NoEviction => Policy::NoEviction,
        }
    }
}

impl SyslogFacility {
    /// Number of the facility in messages to the syslog daemon.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::User => 1,
            Self::Local0 => 16,
            Self::Local1 => 17,
            Self::Local2 => 18,
            Self::Local3 => 19,
            Self::Local4 => 20,
            Self::Local5 => 21,
            Self::Local6 => 22,
            Self::Local7 => 23,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_found_in_any_case_or_the_list_is_told() {
        let row = Row::new("appendfsync");
        let mut value = AppendFsync::Never;
        value.assign(&row, &[b"EverySec"], Assign::Replace).unwrap();
        assert_eq!(value, AppendFsync::EverySecond);
        assert_eq!(value.show(&row), b"everysec");
        let error = value.assign(&row, &[b"often"], Assign::Replace).unwrap_err();
        assert_eq!(
            error,
            "argument(s) must be one of the following: everysec, always, no"
        );
        assert_eq!(value, AppendFsync::EverySecond);
    }

    #[test]
    fn local_permission_asks_where_the_client_is() {
        assert!(Permission::Local.allows(true) && !Permission::Local.allows(false));
        assert!(Permission::Yes.allows(false) && !Permission::No.allows(true));
    }
}
