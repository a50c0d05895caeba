//! The table of directives: each appears once, with its type, default, names, bounds, flags and effect.
//!
//! The table generates the struct [`Settings`], whose fields the server reads, and [`DIRECTIVES`], by which the file
//! parser, CONFIG GET, CONFIG SET and CONFIG REWRITE find them. A new directive is one new entry. Names, defaults and
//! bounds are those of Redis 7.2; a directive that has no meaning here gives the reason (`accepted`), and is kept and
//! shown all the same.

use super::audit_events::AuditEvents;
use super::choice::{
    AppendFsync, ChannelDefault, DisklessLoad, EndpointType, EvictionPolicy, FieldExpiryFormat, IoBackend,
    LogLevel, OomScoreAdj, Permission, PropagationError, SanitizeDump, Supervision, SyslogFacility,
    TlsClientAuth, TlsClientUser,
};
use super::special::{
    BindAddresses, ClientMemory, KeyspaceEvents, MemoryLimit, OomScores, OutputLimits, Percentiles,
    ReplicaOf, SavePoints, ShutdownOptions,
};
use super::units::Form;
use super::value::{Secret, Value, WorkingDirectory};
use std::path::PathBuf;

/// The largest port.
const PORT: i128 = u16::MAX as i128;
/// The largest value of a directive that is an `int` in Redis.
const INT: i128 = i32::MAX as i128;
/// The largest value of a directive that is a `long` in Redis.
const LONG: i128 = i64::MAX as i128;
/// The smallest limit of the input of one client, 1 MiB.
const REQUEST_BYTES_MIN: i128 = 1 << 20;
/// The smallest replication backlog, 16 KiB.
const BACKLOG_BYTES_MIN: i128 = 16 << 10;
/// The most shards one node may run.
const SHARDS_MAX: i128 = 1024;

const SHARD_IO: &str = "every shard does its own input and output (see 'shards')";
const NO_DEFRAG: &str = "memory is not defragmented in place";
const KERNEL_PLACES: &str = "the operating system places threads";
const NO_FORK: &str = "no process is forked";
const OWN_PACE: &str = "loops have bounds of their own";
const NO_RDMA: &str = "clients connect over TCP and Unix sockets only";
const OLD_LINES: &str =
    "lines have the format that tools for Redis read; an embedding program can format events itself";
const ONE_LOG: &str = "only slow commands are logged";
const ONE_CHANNEL: &str =
    "a full synchronisation has one connection, and the primary keeps the stream meanwhile";
const OWN_HEARTBEAT: &str = "a node pings another one each second, and all of them twice in a node timeout";
const NOT_YET: &str = "its feature does not exist in this version yet";

/// Properties of a directive, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectiveFlags(u16);

impl DirectiveFlags {
    /// Can be changed at run time.
    pub const MODIFIABLE: Self = Self(0);
    /// Decided at the start.
    pub const IMMUTABLE: Self = Self(1);
    /// Its value must not appear in logs.
    pub const SENSITIVE: Self = Self(1 << 1);
    /// Takes several arguments; CONFIG SET splits its value at spaces.
    pub const MULTI_ARG: Self = Self(1 << 2);
    /// Shown by CONFIG GET only if requested by its exact name.
    pub const HIDDEN: Self = Self(1 << 3);
    /// Cannot be changed while data is being loaded.
    pub const DENY_LOADING: Self = Self(1 << 4);
    /// Can be changed only as `enable-protected-configs` allows.
    pub const PROTECTED: Self = Self(1 << 5);
    /// Acts on the whole process: an embedded node cannot change it.
    pub const PROCESS: Self = Self(1 << 6);
    /// Decided at the start, and unknown to Redis: setting it to its present value is no error, since tools set back
    /// what CONFIG GET showed.
    pub const FIXED: Self = Self(1 << 7);
    /// Names something that may have changed since: setting it to its present value takes effect, too.
    pub const REREAD: Self = Self(1 << 8);

    /// Whether all of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Effect of a directive in shardis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectiveEffect {
    /// The directive has the documented effect.
    Applied,
    /// The directive has no effect, for this reason: it is kept, shown and rewritten.
    Accepted(&'static str),
}

/// Condition on a text; the error is the reason shown to the client.
pub type Check = fn(&str) -> Result<(), &'static str>;

/// Properties of a directive, without the field that holds its value.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Name in documentation and rewritten files, lower case.
    pub name: &'static str,
    /// An older name with the same meaning.
    pub alias: Option<&'static str>,
    /// Its properties.
    pub flags: DirectiveFlags,
    /// Its effect.
    pub effect: DirectiveEffect,
    /// Notation of an integer; nothing for other types.
    pub form: Form,
    /// The smallest integer allowed.
    pub min: i128,
    /// The largest integer allowed.
    pub max: i128,
    /// Limits to which an allowed integer is silently clamped.
    pub clamp: Option<(i128, i128)>,
    /// Further condition on a text.
    pub check: Option<Check>,
}

impl Row {
    /// A directive without bounds that can be changed at run time.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            alias: None,
            flags: DirectiveFlags::MODIFIABLE,
            effect: DirectiveEffect::Applied,
            form: Form::Plain,
            min: 0,
            max: INT,
            clamp: None,
            check: None,
        }
    }

    /// Adds an older name.
    const fn alias(self, alias: &'static str) -> Self {
        Self {
            alias: Some(alias),
            ..self
        }
    }

    /// Bounds of an integer; without them it is 0 to 2147483647.
    pub(super) const fn range(self, min: i128, max: i128) -> Self {
        Self { min, max, ..self }
    }

    /// A size in bytes.
    pub(super) const fn memory(self) -> Self {
        Self {
            form: Form::Memory,
            ..self
        }
    }

    /// A file mode.
    pub(super) const fn octal(self) -> Self {
        Self {
            form: Form::Octal,
            ..self
        }
    }

    /// Clamps the integer to these limits.
    pub(super) const fn clamped(self, low: i128, high: i128) -> Self {
        Self {
            clamp: Some((low, high)),
            ..self
        }
    }

    /// A text with a syntax.
    const fn checked(self, check: Check) -> Self {
        Self {
            check: Some(check),
            ..self
        }
    }

    /// Declares that the directive has no effect here.
    const fn accepted(self, why: &'static str) -> Self {
        Self {
            effect: DirectiveEffect::Accepted(why),
            ..self
        }
    }

    /// A directive of another version than the one that this node corresponds to, without effect here.
    const fn foreign(self, why: &'static str) -> Self {
        self.hidden().accepted(why)
    }

    const fn flag(self, flag: DirectiveFlags) -> Self {
        Self {
            flags: self.flags.union(flag),
            ..self
        }
    }

    const fn immutable(self) -> Self {
        self.flag(DirectiveFlags::IMMUTABLE)
    }

    const fn multi(self) -> Self {
        self.flag(DirectiveFlags::MULTI_ARG)
    }

    const fn hidden(self) -> Self {
        self.flag(DirectiveFlags::HIDDEN)
    }

    const fn fixed(self) -> Self {
        self.flag(DirectiveFlags::FIXED)
    }

    const fn of_process(self) -> Self {
        self.flag(DirectiveFlags::PROCESS)
    }

    const fn reread(self) -> Self {
        self.flag(DirectiveFlags::REREAD)
    }

    const fn sensitive(self) -> Self {
        self.flag(DirectiveFlags::SENSITIVE)
    }
}

/// One directive: its row and the field that holds its value.
pub struct Directive {
    /// Its properties.
    pub row: Row,
    /// Description of its value, as `--help` shows it.
    pub doc: &'static str,
    get: fn(&Settings) -> &dyn Value,
    get_mut: fn(&mut Settings) -> &mut dyn Value,
}

impl Directive {
    /// Its value in `settings`.
    pub fn value<'a>(&self, settings: &'a Settings) -> &'a dyn Value {
        (self.get)(settings)
    }

    /// Its value in `settings`, to be changed.
    pub fn value_mut<'a>(&self, settings: &'a mut Settings) -> &'a mut dyn Value {
        (self.get_mut)(settings)
    }

    /// Its value as CONFIG GET shows it.
    pub fn show(&self, settings: &Settings) -> Vec<u8> {
        self.value(settings).show(&self.row)
    }

    /// Whether the directive has this property.
    pub const fn is(&self, flag: DirectiveFlags) -> bool {
        self.row.flags.contains(flag)
    }

    /// The arguments in a value that is one text: split at spaces if the directive takes several.
    pub fn args<'a>(&self, text: &'a [u8]) -> Vec<&'a [u8]> {
        match text {
            _ if !self.is(DirectiveFlags::MULTI_ARG) => vec![text],
            b"" => Vec::new(),
            _ => text.split(|byte| *byte == b' ').collect(),
        }
    }

    /// Its name, then its alias.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.row.name).chain(self.row.alias)
    }
}

/// The directive of this name or alias, ignoring case. Complexity: O(directives), since nothing calls it often.
pub fn find(name: &[u8]) -> Option<&'static Directive> {
    DIRECTIVES.iter().find(|directive| {
        directive
            .names()
            .any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
    })
}

impl Settings {
    /// Number of shards: as configured, or the number of cores.
    pub(crate) fn shard_count(&self) -> usize {
        match self.shards {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count as usize,
        }
    }

    /// The path of the snapshot file.
    pub fn dump_path(&self) -> PathBuf {
        self.dir.path().join(&self.dbfilename)
    }

    /// A configured path, resolved against `dir`. `None` if it is not set.
    pub fn path(&self, configured: &str) -> Option<PathBuf> {
        (!configured.is_empty()).then(|| self.dir.path().join(configured))
    }
}

macro_rules! directives {
    ($($(#[doc = $doc:literal])+ $field:ident: $type:ty = $default:expr, $row:expr;)+) => {
        /// The typed values of all directives. Empty text stands for "not set".
        #[derive(Clone, Debug, PartialEq)]
        pub struct Settings {
            $($(#[doc = $doc])+ pub $field: $type,)+
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        /// Every directive with a value, in the order CONFIG GET lists them.
        pub static DIRECTIVES: &[Directive] = &[
            $(Directive {
                row: $row,
                doc: concat!($($doc),+),
                get: |settings| &settings.$field,
                get_mut: |settings| &mut settings.$field,
            },)+
        ];
    };
}

/// A default text.
fn text(default: &str) -> String {
    default.to_owned()
}

/// An empty default text.
fn none() -> String {
    String::new()
}

directives! {
    // Shards and threads.

    /// Shards, each a thread with its part of the keys; 0 for as many as there are cores.
    shards: u32 = 0, Row::new("shards").range(0, SHARDS_MAX).fixed();
    /// Mechanism by which loops wait for their clients' sockets.
    io_backend: IoBackend = IoBackend::Auto, Row::new("io-backend").fixed();
    /// Threads for input and output.
    io_threads: u32 = 1, Row::new("io-threads").range(1, 128).immutable().accepted(SHARD_IO);
    /// Whether the threads for input and output also read and parse.
    io_threads_do_reads: bool = false, Row::new("io-threads-do-reads").immutable().accepted(SHARD_IO);
    /// Cores for the main threads.
    server_cpulist: String = none(),
        Row::new("server-cpulist").alias("server_cpulist").immutable().accepted(KERNEL_PLACES);
    /// Cores for background threads.
    bio_cpulist: String = none(),
        Row::new("bio-cpulist").alias("bio_cpulist").immutable().accepted(KERNEL_PLACES);
    /// Cores for the process that rewrites the append-only file.
    aof_rewrite_cpulist: String = none(),
        Row::new("aof-rewrite-cpulist").alias("aof_rewrite_cpulist").immutable().accepted(NO_FORK);
    /// Cores for the process that saves a snapshot.
    bgsave_cpulist: String = none(),
        Row::new("bgsave-cpulist").alias("bgsave_cpulist").immutable().accepted(NO_FORK);

    // Network.

    /// TCP port for clients; 0 listens on none.
    port: u16 = 6379, Row::new("port").range(0, PORT);
    /// Addresses to listen on.
    bind: BindAddresses = BindAddresses::default(), Row::new("bind").multi();
    /// Local address of connections that this node opens.
    bind_source_addr: String = none(), Row::new("bind-source-addr");
    /// Path of a Unix socket to listen on.
    unixsocket: String = none(), Row::new("unixsocket").immutable();
    /// Mode of the Unix socket's file; 0 leaves it to the umask.
    unixsocketperm: u32 = 0, Row::new("unixsocketperm").range(0, 0o777).octal().immutable();
    /// Connections the kernel may queue before they are accepted.
    tcp_backlog: u32 = 511, Row::new("tcp-backlog").immutable();
    /// Seconds between probes of a silent connection; 0 for none.
    tcp_keepalive: u32 = 300, Row::new("tcp-keepalive");
    /// Seconds of silence after which a client is disconnected; 0 for never.
    timeout: u32 = 0, Row::new("timeout");
    /// Mark that the kernel puts on packets of listening and outgoing sockets; 0 for none.
    socket_mark_id: u32 = 0, Row::new("socket-mark-id").range(0, u32::MAX as i128).immutable().accepted(NOT_YET);
    /// Whether a node without a password and without chosen addresses serves this machine only.
    protected_mode: bool = true, Row::new("protected-mode");
    /// Most client connections at a time.
    maxclients: u32 = 10_000, Row::new("maxclients").range(1, u32::MAX as i128);
    /// Most bytes of one argument of a request.
    proto_max_bulk_len: u64 = 512 << 20, Row::new("proto-max-bulk-len").range(REQUEST_BYTES_MIN, LONG).memory();
    /// Most bytes of a client's input that is not executed yet.
    client_query_buffer_limit: u64 = 1 << 30,
        Row::new("client-query-buffer-limit").range(REQUEST_BYTES_MIN, LONG).memory();
    /// Limits of unsent replies, by class of client.
    client_output_buffer_limit: OutputLimits = OutputLimits::default(),
        Row::new("client-output-buffer-limit").multi();
    /// Most memory of all clients together.
    maxmemory_clients: ClientMemory = ClientMemory::default(),
        Row::new("maxmemory-clients").range(-100, LONG).memory();

    // TLS.

    /// Port for clients over TLS; 0 listens on none.
    tls_port: u16 = 0, Row::new("tls-port").range(0, PORT);
    /// File of the server's certificate.
    tls_cert_file: String = none(), Row::new("tls-cert-file").reread();
    /// File of the certificate's private key.
    tls_key_file: String = none(), Row::new("tls-key-file").reread();
    /// Password of that key.
    tls_key_file_pass: Secret = Secret::default(), Row::new("tls-key-file-pass").sensitive().reread();
    /// File of the certificate for outgoing connections, if another.
    tls_client_cert_file: String = none(), Row::new("tls-client-cert-file").reread();
    /// File of that certificate's private key.
    tls_client_key_file: String = none(), Row::new("tls-client-key-file").reread();
    /// Password of that key.
    tls_client_key_file_pass: Secret = Secret::default(), Row::new("tls-client-key-file-pass").sensitive().reread();
    /// File of Diffie-Hellman parameters.
    tls_dh_params_file: String = none(),
        Row::new("tls-dh-params-file").accepted("keys are exchanged over elliptic curves only");
    /// File of the authorities whose certificates are trusted.
    tls_ca_cert_file: String = none(), Row::new("tls-ca-cert-file").reread();
    /// Directory of the authorities' certificates.
    tls_ca_cert_dir: String = none(), Row::new("tls-ca-cert-dir").reread();
    /// Whether clients must show a certificate.
    tls_auth_clients: TlsClientAuth = TlsClientAuth::Yes, Row::new("tls-auth-clients");
    /// Whether the link to the primary uses TLS.
    tls_replication: bool = false, Row::new("tls-replication");
    /// Whether the cluster bus uses TLS.
    tls_cluster: bool = false, Row::new("tls-cluster");
    /// Allowed versions of TLS, as in `TLSv1.2 TLSv1.3`.
    tls_protocols: String = none(), Row::new("tls-protocols");
    /// Cipher suites allowed up to TLS 1.2.
    tls_ciphers: String = none(), Row::new("tls-ciphers");
    /// Cipher suites allowed in TLS 1.3.
    tls_ciphersuites: String = none(), Row::new("tls-ciphersuites");
    /// Whether the server's order of ciphers decides.
    tls_prefer_server_ciphers: bool = false, Row::new("tls-prefer-server-ciphers");
    /// Whether TLS sessions can be resumed.
    tls_session_caching: bool = true, Row::new("tls-session-caching");
    /// TLS sessions that are kept to be resumed.
    tls_session_cache_size: u32 = 20_480, Row::new("tls-session-cache-size");
    /// Seconds for which TLS sessions are kept.
    tls_session_cache_timeout: u32 = 300, Row::new("tls-session-cache-timeout");

    // The process.

    /// Whether to go to the background.
    daemonize: bool = false, Row::new("daemonize").immutable().of_process();
    /// The service manager that is told of the start.
    supervised: Supervision = Supervision::No, Row::new("supervised").immutable().of_process();
    /// File to write the process id to.
    pidfile: String = none(), Row::new("pidfile").immutable().of_process();
    /// Least important lines to log.
    loglevel: LogLevel = LogLevel::Notice, Row::new("loglevel");
    /// File of the log; empty for standard output.
    logfile: String = none(), Row::new("logfile").immutable().of_process();
    /// Whether lines go to the system's log.
    syslog_enabled: bool = false, Row::new("syslog-enabled").immutable().of_process();
    /// Name the system's log knows this process by.
    syslog_ident: String = text("redis"), Row::new("syslog-ident").immutable().of_process();
    /// Facility of lines in the system's log.
    syslog_facility: SyslogFacility = SyslogFacility::Local0, Row::new("syslog-facility").immutable().of_process();
    /// Whether a logo opens the log.
    always_show_logo: bool = false, Row::new("always-show-logo").immutable().accepted("there is no logo");
    /// Whether the process's title shows its addresses and mode.
    set_proc_title: bool = true, Row::new("set-proc-title").immutable().of_process();
    /// Template of the process's title.
    proc_title_template: String = text("{title} {listen-addr} {server-mode}"),
        Row::new("proc-title-template").checked(check_title).of_process();
    /// Warnings at the start that are not to stop it.
    ignore_warnings: String = none(), Row::new("ignore-warnings").accepted("no warning stops the start");
    /// Whether a crash leaves a report in the log.
    crash_log_enabled: bool = true, Row::new("crash-log-enabled").of_process();
    /// Whether the report of a crash leaves out what clients have sent.
    hide_user_data_from_log: bool = false, Row::new("hide-user-data-from-log").hidden().of_process();
    /// Whether a crash report tests the memory.
    crash_memcheck_enabled: bool = true,
        Row::new("crash-memcheck-enabled").accepted("a crash report does not test the memory");
    /// Whether a failed assertion exits instead of aborting.
    use_exit_on_panic: bool = false,
        Row::new("use-exit-on-panic").hidden().accepted("a failed check ends a command, not the process");
    /// Milliseconds after which a stuck process logs where it is.
    watchdog_period: u32 = 0, Row::new("watchdog-period").hidden().accepted("there is no watchdog signal");
    /// Whether huge pages are switched off for the process.
    disable_thp: bool = true,
        Row::new("disable-thp").immutable().of_process();
    /// Whether the allocator gives unused memory back from threads of its own. Of the nodes in one process, the last that
    /// set it decides.
    jemalloc_bg_thread: bool = true, Row::new("jemalloc-bg-thread");
    /// Whether and how the kernel's out-of-memory score is set.
    oom_score_adj: OomScoreAdj = OomScoreAdj::No, Row::new("oom-score-adj").of_process();
    /// Out-of-memory scores of a primary, a replica and a background process.
    oom_score_adj_values: OomScores = OomScores::default(),
        Row::new("oom-score-adj-values").multi().of_process();
    /// Most seconds a shutdown waits for replicas that lag.
    shutdown_timeout: u32 = 10, Row::new("shutdown-timeout");
    /// Manner of the shutdown on SIGINT.
    shutdown_on_sigint: ShutdownOptions = ShutdownOptions::default(), Row::new("shutdown-on-sigint").multi().of_process();
    /// Manner of the shutdown on SIGTERM.
    shutdown_on_sigterm: ShutdownOptions = ShutdownOptions::default(), Row::new("shutdown-on-sigterm").multi().of_process();
    /// Language by which texts are sorted.
    locale_collate: String = none(), Row::new("locale-collate").accepted("texts are sorted by their bytes");
    /// Runs of background work a second.
    hz: u32 = 10, Row::new("hz").clamped(1, 500);
    /// Whether many clients raise `hz`.
    dynamic_hz: bool = true, Row::new("dynamic-hz").accepted("a shard's background work follows its own load");

    // Rights.

    /// Password of the user `default`.
    requirepass: Secret = Secret::default(), Row::new("requirepass").sensitive();
    /// File of users.
    aclfile: String = none(), Row::new("aclfile").immutable();
    /// Entries of ACL LOG.
    acllog_max_len: u64 = 128, Row::new("acllog-max-len").range(0, LONG);
    /// Channels of a new user.
    acl_pubsub_default: ChannelDefault = ChannelDefault::ResetChannels, Row::new("acl-pubsub-default");
    /// File of the audit log; `log` for the log itself, empty for none.
    audit_log: String = none(), Row::new("audit-log").flag(DirectiveFlags::PROTECTED);
    /// Kinds of events that the audit log tells of.
    audit_events: AuditEvents = AuditEvents::all(), Row::new("audit-events").multi().flag(DirectiveFlags::PROTECTED);
    /// Whether a command that the audit log cannot tell of is refused.
    audit_strict: bool = false, Row::new("audit-strict").flag(DirectiveFlags::PROTECTED);
    /// Clients that may change protected directives.
    enable_protected_configs: Permission = Permission::No, Row::new("enable-protected-configs").immutable();
    /// Clients that may use DEBUG.
    enable_debug_command: Permission = Permission::No, Row::new("enable-debug-command").immutable();
    /// Clients that may use MODULE.
    enable_module_command: Permission = Permission::No,
        Row::new("enable-module-command").immutable().accepted("modules are not supported");

    // Keyspace and memory.

    /// Number of databases.
    databases: u32 = 16, Row::new("databases").range(1, INT).immutable();
    /// Most bytes of memory for data; 0 for no limit.
    maxmemory: MemoryLimit = MemoryLimit::default(), Row::new("maxmemory").range(0, u64::MAX as i128).memory();
    /// Policy that chooses the keys to evict beyond `maxmemory`.
    maxmemory_policy: EvictionPolicy = EvictionPolicy::NoEviction, Row::new("maxmemory-policy");
    /// Keys that are sampled to find the one to evict.
    maxmemory_samples: u32 = 5, Row::new("maxmemory-samples").range(1, 64);
    /// Length of the delay that eviction may cause a write, 0 to 100.
    maxmemory_eviction_tenacity: u8 = 10, Row::new("maxmemory-eviction-tenacity").range(0, 100);
    /// Slowness with which the counter of a key's uses grows (LFU).
    lfu_log_factor: u32 = 10, Row::new("lfu-log-factor");
    /// Minutes after which the counter of a key's uses falls by one (LFU).
    lfu_decay_time: u32 = 1, Row::new("lfu-decay-time");
    /// Effort of the search for expired keys, 1 to 10.
    active_expire_effort: u8 = 1, Row::new("active-expire-effort").range(1, 10);
    /// Whether idle time goes to moving keys to a larger table.
    activerehashing: bool = true,
        Row::new("activerehashing").accepted("tables grow and shrink one bucket at a time");
    /// Whether evicted values are freed in the background.
    lazyfree_lazy_eviction: bool = false, Row::new("lazyfree-lazy-eviction");
    /// Whether expired values are freed in the background.
    lazyfree_lazy_expire: bool = false, Row::new("lazyfree-lazy-expire");
    /// Whether values that a command overwrites are freed in the background.
    lazyfree_lazy_server_del: bool = false, Row::new("lazyfree-lazy-server-del");
    /// Whether DEL acts as UNLINK.
    lazyfree_lazy_user_del: bool = false, Row::new("lazyfree-lazy-user-del");
    /// Whether FLUSHALL and FLUSHDB act as with ASYNC.
    lazyfree_lazy_user_flush: bool = false, Row::new("lazyfree-lazy-user-flush");
    /// Classes of keyspace events to publish, and their channels.
    notify_keyspace_events: KeyspaceEvents = KeyspaceEvents::default(), Row::new("notify-keyspace-events");
    /// Most keys remembered for clients that cache; 0 for no limit.
    tracking_table_max_keys: u64 = 1_000_000, Row::new("tracking-table-max-keys").range(0, LONG);
    /// Whether fragmented memory is compacted.
    activedefrag: bool = false, Row::new("activedefrag").accepted(NO_DEFRAG);
    /// Most fields of a value that is compacted at once.
    active_defrag_max_scan_fields: u64 = 1_000,
        Row::new("active-defrag-max-scan-fields").range(1, LONG).accepted(NO_DEFRAG);
    /// Bytes of waste below which nothing is compacted.
    active_defrag_ignore_bytes: u64 = 100 << 20,
        Row::new("active-defrag-ignore-bytes").range(1, LONG).memory().accepted(NO_DEFRAG);
    /// Percent of fragmentation below which nothing is compacted.
    active_defrag_threshold_lower: u32 = 10,
        Row::new("active-defrag-threshold-lower").range(0, 1000).accepted(NO_DEFRAG);
    /// Percent of fragmentation at which the effort is greatest.
    active_defrag_threshold_upper: u32 = 100,
        Row::new("active-defrag-threshold-upper").range(0, 1000).accepted(NO_DEFRAG);
    /// Least percent of a core for compaction.
    active_defrag_cycle_min: u32 = 1, Row::new("active-defrag-cycle-min").range(1, 99).accepted(NO_DEFRAG);
    /// Most percent of a core for compaction.
    active_defrag_cycle_max: u32 = 25, Row::new("active-defrag-cycle-max").range(1, 99).accepted(NO_DEFRAG);

    // Encodings.

    /// Most fields of a hash kept in one block.
    hash_max_listpack_entries: u64 = 512,
        Row::new("hash-max-listpack-entries").alias("hash-max-ziplist-entries").range(0, LONG);
    /// Most bytes of a field or value of a hash kept in one block.
    hash_max_listpack_value: u64 = 64,
        Row::new("hash-max-listpack-value").alias("hash-max-ziplist-value").range(0, LONG).memory();
    /// Size of a list's blocks: elements if positive, else -1 to -5 for 4 to 64 KiB.
    list_max_listpack_size: i32 = -2,
        Row::new("list-max-listpack-size").alias("list-max-ziplist-size").range(i32::MIN as i128, INT);
    /// Blocks at each end of a list that stay uncompressed; 0 compresses none.
    list_compress_depth: u32 = 0, Row::new("list-compress-depth");
    /// Bytes from which an element of a list is not put into a block (DEBUG QUICKLIST-PACKED-THRESHOLD).
    list_packed_threshold: u64 = 1 << 30, Row::new("list-packed-threshold").range(0, u32::MAX as i128 - 1).memory().hidden();
    /// Most integers of a set kept sorted in one block.
    set_max_intset_entries: u64 = 512, Row::new("set-max-intset-entries").range(0, LONG);
    /// Most members of a set kept in one block.
    set_max_listpack_entries: u64 = 128, Row::new("set-max-listpack-entries").range(0, LONG);
    /// Most bytes of a member of a set kept in one block.
    set_max_listpack_value: u64 = 64, Row::new("set-max-listpack-value").range(0, LONG);
    /// Most members of a sorted set kept in one block.
    zset_max_listpack_entries: u64 = 128,
        Row::new("zset-max-listpack-entries").alias("zset-max-ziplist-entries").range(0, LONG);
    /// Most bytes of a member of a sorted set kept in one block.
    zset_max_listpack_value: u64 = 64,
        Row::new("zset-max-listpack-value").alias("zset-max-ziplist-value").range(0, LONG).memory();
    /// Most bytes of a sparse HyperLogLog.
    hll_sparse_max_bytes: u64 = 3_000, Row::new("hll-sparse-max-bytes").range(0, LONG).memory();
    /// Most bytes of a stream's block; 0 for no limit.
    stream_node_max_bytes: u64 = 4_096, Row::new("stream-node-max-bytes").range(0, LONG).memory();
    /// Most entries of a stream's block; 0 for no limit.
    stream_node_max_entries: u64 = 100, Row::new("stream-node-max-entries").range(0, LONG);

    // Files.

    /// Directory of all files named by relative paths.
    dir: WorkingDirectory = WorkingDirectory::current(), Row::new("dir").flag(DirectiveFlags::PROTECTED).flag(DirectiveFlags::DENY_LOADING);
    /// Conditions for a snapshot.
    save: SavePoints = SavePoints::default(), Row::new("save").multi();
    /// File name of the snapshot.
    dbfilename: String = text("dump.rdb"),
        Row::new("dbfilename").flag(DirectiveFlags::PROTECTED).checked(check_db_filename);
    /// Whether strings in a snapshot are compressed.
    rdbcompression: bool = true, Row::new("rdbcompression");
    /// Servers that are to read hashes with fields that expire, for which there is no common form.
    rdb_field_expiry_format: FieldExpiryFormat = FieldExpiryFormat::Redis, Row::new("rdb-field-expiry-format");
    /// Whether a snapshot ends with a checksum.
    rdbchecksum: bool = true, Row::new("rdbchecksum").immutable();
    /// Whether a file that served a full synchronisation is removed when nothing else needs it.
    rdb_del_sync_files: bool = false, Row::new("rdb-del-sync-files");
    /// Whether a snapshot is synced to disk while it is written.
    rdb_save_incremental_fsync: bool = true, Row::new("rdb-save-incremental-fsync");
    /// Microseconds to wait after each key of a snapshot, for tests.
    rdb_key_save_delay: i32 = 0, Row::new("rdb-key-save-delay").range(i32::MIN as i128, INT).hidden();
    /// Microseconds to wait after each key that is loaded, for tests.
    key_load_delay: i32 = 0, Row::new("key-load-delay").range(i32::MIN as i128, INT).hidden();
    /// Bytes that are loaded before progress is noted again. Clients are served all the time, by other threads.
    loading_process_events_interval_bytes: u64 = 2 << 20,
        Row::new("loading-process-events-interval-bytes").range(1024, INT).hidden();
    /// Whether writes are refused while snapshots fail.
    stop_writes_on_bgsave_error: bool = true, Row::new("stop-writes-on-bgsave-error");
    /// Whether serialised values are checked in depth.
    sanitize_dump_payload: SanitizeDump = SanitizeDump::No,
        Row::new("sanitize-dump-payload").accepted("every payload is checked in full");
    /// Whether writes are logged to the append-only file.
    appendonly: bool = false, Row::new("appendonly").flag(DirectiveFlags::DENY_LOADING);
    /// Prefix of the append-only files' names.
    appendfilename: String = text("appendonly.aof"),
        Row::new("appendfilename").immutable().checked(check_append_filename);
    /// Directory of the append-only files, below `dir`.
    appenddirname: String = text("appendonlydir"),
        Row::new("appenddirname").immutable().checked(check_append_dirname);
    /// Time at which the append-only file is synced to disk.
    appendfsync: AppendFsync = AppendFsync::EverySecond, Row::new("appendfsync");
    /// Whether syncing the append-only file pauses while a snapshot or rewrite is written.
    no_appendfsync_on_rewrite: bool = false, Row::new("no-appendfsync-on-rewrite");
    /// Percent of growth at which the append-only file is rewritten; 0 for never.
    auto_aof_rewrite_percentage: u32 = 100, Row::new("auto-aof-rewrite-percentage");
    /// Bytes below which the append-only file is not rewritten.
    auto_aof_rewrite_min_size: u64 = 64 << 20,
        Row::new("auto-aof-rewrite-min-size").range(0, LONG).memory();
    /// Whether a torn end of the append-only file is cut off when it is loaded.
    aof_load_truncated: bool = true, Row::new("aof-load-truncated");
    /// Longest end of an append-only file that is cut off at the start if it is no commands, bytes.
    aof_load_corrupt_tail_max_size: u64 = 0,
        Row::new("aof-load-corrupt-tail-max-size").range(0, LONG).memory();
    /// Whether a rewritten append-only file begins with a snapshot.
    aof_use_rdb_preamble: bool = true, Row::new("aof-use-rdb-preamble");
    /// Whether the append-only file contains timestamps.
    aof_timestamp_enabled: bool = false, Row::new("aof-timestamp-enabled");
    /// Whether a rewritten append-only file is synced to disk while it is written.
    aof_rewrite_incremental_fsync: bool = true, Row::new("aof-rewrite-incremental-fsync");
    /// Whether append-only files that a rewrite replaced are kept, for tests.
    aof_disable_auto_gc: bool = false, Row::new("aof-disable-auto-gc").hidden();

    // Replication.

    /// The primary to follow.
    replicaof: ReplicaOf = ReplicaOf::default(), Row::new("replicaof").alias("slaveof").immutable().multi();
    /// User name for logging in to the primary.
    masteruser: Secret = Secret::default(), Row::new("masteruser").alias("primaryuser").sensitive();
    /// Password for logging in to the primary.
    masterauth: Secret = Secret::default(), Row::new("masterauth").alias("primaryauth").sensitive();
    /// Whether a replica answers while it has no link to its primary.
    replica_serve_stale_data: bool = true,
        Row::new("replica-serve-stale-data").alias("slave-serve-stale-data");
    /// Whether a replica refuses writes of clients.
    replica_read_only: bool = true, Row::new("replica-read-only").alias("slave-read-only");
    /// Whether a replica leaves eviction to its primary.
    replica_ignore_maxmemory: bool = true,
        Row::new("replica-ignore-maxmemory").alias("slave-ignore-maxmemory");
    /// Whether a replica frees its old data in the background before a full synchronisation.
    replica_lazy_flush: bool = false, Row::new("replica-lazy-flush")
            .alias("slave-lazy-flush")
            .accepted("replaced data is always freed in the background");
    /// Whether a replica goes on when it cannot write to its disk.
    replica_ignore_disk_write_errors: bool = false, Row::new("replica-ignore-disk-write-errors");
    /// Whether a replica that has keys refuses the data of a primary that has none.
    replica_refuse_empty_primary: bool = false, Row::new("replica-refuse-empty-primary");
    /// Rank for promotion, lower first; 0 for never.
    replica_priority: u32 = 100, Row::new("replica-priority").alias("slave-priority");
    /// Whether Sentinel is told of this replica.
    replica_announced: bool = true, Row::new("replica-announced");
    /// Address a replica tells its primary.
    replica_announce_ip: String = none(), Row::new("replica-announce-ip").alias("slave-announce-ip");
    /// Port a replica tells its primary; 0 for the real one.
    replica_announce_port: u16 = 0,
        Row::new("replica-announce-port").alias("slave-announce-port").range(0, PORT);
    /// Replicas without which writes are refused; 0 for none.
    min_replicas_to_write: u32 = 0, Row::new("min-replicas-to-write").alias("min-slaves-to-write");
    /// Most seconds of lag for a replica to count.
    min_replicas_max_lag: u32 = 10, Row::new("min-replicas-max-lag").alias("min-slaves-max-lag");
    /// Whether a full synchronisation is streamed without a file.
    repl_diskless_sync: bool = true, Row::new("repl-diskless-sync");
    /// Seconds for which a streamed synchronisation waits for more replicas.
    repl_diskless_sync_delay: u32 = 5, Row::new("repl-diskless-sync-delay");
    /// Replicas at which a streamed synchronisation stops waiting; 0 for no such number.
    repl_diskless_sync_max_replicas: u32 = 0, Row::new("repl-diskless-sync-max-replicas");
    /// Whether a replica loads a synchronisation without a file.
    repl_diskless_load: DisklessLoad = DisklessLoad::Disabled,
        Row::new("repl-diskless-load").flag(DirectiveFlags::DENY_LOADING);
    /// Whether the stream to replicas trades latency for fewer packets.
    repl_disable_tcp_nodelay: bool = false, Row::new("repl-disable-tcp-nodelay");
    /// Bytes of the stream kept for replicas that return.
    repl_backlog_size: u64 = 1 << 20,
        Row::new("repl-backlog-size").range(1, LONG).memory().clamped(BACKLOG_BYTES_MIN, LONG);
    /// Seconds for which the backlog is kept without any replica; 0 for ever.
    repl_backlog_ttl: u64 = 3600, Row::new("repl-backlog-ttl").range(0, LONG);
    /// Seconds of silence after which a replication link is given up.
    repl_timeout: u32 = 60, Row::new("repl-timeout").range(1, INT);
    /// Seconds between pings to replicas.
    repl_ping_replica_period: u32 = 10,
        Row::new("repl-ping-replica-period").alias("repl-ping-slave-period").range(1, INT);
    /// Consequence of a failing replicated command.
    propagation_error_behavior: PropagationError = PropagationError::Ignore,
        Row::new("propagation-error-behavior");

    // Cluster.

    /// Whether this node is part of a cluster.
    cluster_enabled: bool = false, Row::new("cluster-enabled").immutable();
    /// File in which the node keeps its view of the cluster.
    cluster_config_file: String = text("nodes.conf"), Row::new("cluster-config-file").immutable();
    /// Port of the cluster bus; 0 for the client port plus 10000.
    cluster_port: u16 = 0, Row::new("cluster-port").range(0, PORT).immutable();
    /// Milliseconds of silence after which a node is suspected.
    cluster_node_timeout: u64 = 15_000, Row::new("cluster-node-timeout").range(0, LONG);
    /// Milliseconds between pings of random nodes, for tests.
    cluster_ping_interval: u64 = 1_000, Row::new("cluster-ping-interval").range(0, LONG).hidden().accepted(OWN_HEARTBEAT);
    /// Greatest age of a replica's data for it to stand for election, in node timeouts; 0 for any age.
    cluster_replica_validity_factor: u32 = 10,
        Row::new("cluster-replica-validity-factor").alias("cluster-slave-validity-factor");
    /// Whether this replica stays out of elections.
    cluster_replica_no_failover: bool = false,
        Row::new("cluster-replica-no-failover").alias("cluster-slave-no-failover");
    /// Replicas that a primary must keep before one may move to a primary without replicas.
    cluster_migration_barrier: u32 = 1, Row::new("cluster-migration-barrier");
    /// Whether replicas may move to primaries without replicas.
    cluster_allow_replica_migration: bool = true, Row::new("cluster-allow-replica-migration");
    /// Whether the cluster is down while a slot has no owner.
    cluster_require_full_coverage: bool = true, Row::new("cluster-require-full-coverage");
    /// Whether reads are answered while the cluster is down.
    cluster_allow_reads_when_down: bool = false, Row::new("cluster-allow-reads-when-down");
    /// Whether shard channels work while the cluster is down.
    cluster_allow_pubsubshard_when_down: bool = true, Row::new("cluster-allow-pubsubshard-when-down");
    /// Most bytes queued for one link of the bus; 0 for no limit.
    cluster_link_sendbuf_limit: u64 = 0,
        Row::new("cluster-link-sendbuf-limit").range(0, u64::MAX as i128).memory();
    /// Address told to other nodes.
    cluster_announce_ip: String = none(), Row::new("cluster-announce-ip").checked(check_announced_ip);
    /// Client port told to other nodes; 0 for the real one.
    cluster_announce_port: u16 = 0, Row::new("cluster-announce-port").range(0, PORT);
    /// TLS port told to other nodes; 0 for the real one.
    cluster_announce_tls_port: u16 = 0, Row::new("cluster-announce-tls-port").range(0, PORT);
    /// Bus port told to other nodes; 0 for the real one.
    cluster_announce_bus_port: u16 = 0, Row::new("cluster-announce-bus-port").range(0, PORT);
    /// Host name told to other nodes and to clients.
    cluster_announce_hostname: String = none(), Row::new("cluster-announce-hostname").checked(check_hostname);
    /// Name for people, told to other nodes.
    cluster_announce_human_nodename: String = none(),
        Row::new("cluster-announce-human-nodename").checked(check_nodename);
    /// Form in which a redirect names a node.
    cluster_preferred_endpoint_type: EndpointType = EndpointType::Ip,
        Row::new("cluster-preferred-endpoint-type");

    // Scripts and observation.

    /// Milliseconds after which a running script may be interrupted.
    busy_reply_threshold: u64 = 5_000,
        Row::new("busy-reply-threshold").alias("lua-time-limit").range(0, LONG);
    /// Microseconds from which a command is slow; 0 for all, -1 for none.
    slowlog_log_slower_than: i64 = 10_000, Row::new("slowlog-log-slower-than").alias("commandlog-execution-slower-than").range(-1, LONG);
    /// Entries of the slow log.
    slowlog_max_len: u64 = 128, Row::new("slowlog-max-len").alias("commandlog-slow-execution-max-len").range(0, LONG);
    /// Milliseconds from which an event is a latency spike; 0 watches none.
    latency_monitor_threshold: u64 = 0, Row::new("latency-monitor-threshold").range(0, LONG);
    /// Whether the latency of each command is tracked.
    latency_tracking: bool = true, Row::new("latency-tracking");
    /// Percentiles of commands' latency in INFO.
    latency_tracking_info_percentiles: Percentiles = Percentiles::default(),
        Row::new("latency-tracking-info-percentiles").multi();

    // Directives of Redis 6, Redis 7.4 to 8 and Valkey 8 to 9, so that their files start a server, too. CONFIG GET lists those
    // of 7.2; these only by their exact names.

    /// Whether Gopher requests are answered.
    gopher_enabled: bool = false, Row::new("gopher-enabled").foreign("Gopher requests are not answered");

    /// Connections accepted in one turn of a loop.
    max_new_connections_per_cycle: u32 = 10, Row::new("max-new-connections-per-cycle").range(1, 1000).foreign(OWN_PACE);
    /// Steps of TLS handshakes in one turn of a loop.
    max_new_tls_connections_per_cycle: u32 = 1,
        Row::new("max-new-tls-connections-per-cycle").range(1, 1000).hidden();
    /// Group of the Unix socket's file.
    unixsocketgroup: String = none(), Row::new("unixsocketgroup").immutable().foreign(NOT_YET);
    /// Whether client connections may use Multipath TCP.
    mptcp: bool = false, Row::new("mptcp").immutable().foreign(NOT_YET);
    /// Whether replication links may use Multipath TCP.
    repl_mptcp: bool = false, Row::new("repl-mptcp").foreign("links use plain TCP");
    /// Addresses for clients over RDMA.
    rdma_bind: String = none(), Row::new("rdma-bind").foreign(NO_RDMA);
    /// Port for clients over RDMA.
    rdma_port: u16 = 0, Row::new("rdma-port").range(0, PORT).foreign(NO_RDMA);
    /// Bytes of an RDMA receive buffer.
    rdma_rx_size: u64 = 1 << 20, Row::new("rdma-rx-size").range(65_536, 16 << 20).memory().immutable().foreign(NO_RDMA);
    /// Vector of RDMA completions.
    rdma_completion_vector: i32 = -1,
        Row::new("rdma-completion-vector").range(-1, 1024).immutable().foreign(NO_RDMA);
    /// Field of a client's certificate that names its user.
    tls_auth_clients_user: TlsClientUser = TlsClientUser::Off, Row::new("tls-auth-clients-user").hidden();
    /// Seconds between checks for new certificates.
    tls_auto_reload_interval: u32 = 0, Row::new("tls-auto-reload-interval").foreign(NOT_YET);
    /// Commands whose keys are prefetched together.
    prefetch_batch_max_size: u32 = 16, Row::new("prefetch-batch-max-size").range(0, 128).foreign(OWN_PACE);
    /// Commands parsed ahead of the one that runs.
    lookahead: u32 = 16, Row::new("lookahead").range(1, INT).foreign(OWN_PACE);
    /// The form of log lines.
    log_format: String = text("legacy"), Row::new("log-format").foreign(OLD_LINES);
    /// The form of times in the log.
    log_timestamp_format: String = text("legacy"), Row::new("log-timestamp-format").foreign(OLD_LINES);
    /// Whether the server calls itself Redis.
    extended_redis_compatibility: bool = false,
        Row::new("extended-redis-compatibility").foreign("the server always uses the names of Redis");
    /// Availability zone of the server, for clients.
    availability_zone: String = none(), Row::new("availability-zone").foreign(NOT_YET);
    /// Seed of the hashes of keys.
    hash_seed: String = none(), Row::new("hash-seed").immutable().foreign("keys are hashed with a random seed");
    /// Microseconds of one step of compaction.
    active_defrag_cycle_us: u32 = 500, Row::new("active-defrag-cycle-us").range(0, 100_000).foreign(NO_DEFRAG);
    /// Whether the memory of keys is counted by size.
    key_memory_histograms: bool = false, Row::new("key-memory-histograms").foreign(NOT_YET);
    /// Whether vector queries run on one thread.
    vset_force_single_threaded_execution: bool = false,
        Row::new("vset-force-single-threaded-execution").foreign("there are no vector sets");
    /// Bytes from which a request is logged as large.
    commandlog_request_larger_than: i64 = 1 << 20,
        Row::new("commandlog-request-larger-than").range(-1, LONG).foreign(ONE_LOG);
    /// Bytes from which a reply is logged as large.
    commandlog_reply_larger_than: i64 = 1 << 20,
        Row::new("commandlog-reply-larger-than").range(-1, LONG).foreign(ONE_LOG);
    /// Entries of the log of large requests.
    commandlog_large_request_max_len: u64 = 128,
        Row::new("commandlog-large-request-max-len").range(0, LONG).foreign(ONE_LOG);
    /// Entries of the log of large replies.
    commandlog_large_reply_max_len: u64 = 128,
        Row::new("commandlog-large-reply-max-len").range(0, LONG).foreign(ONE_LOG);
    /// Whether deprecated Lua functions are available.
    lua_enable_deprecated_api: bool = false,
        Row::new("lua-enable-deprecated-api").alias("lua-enable-insecure-api").foreign(NOT_YET);
    /// Milliseconds for which a stream recognises repeated entries.
    stream_idmp_duration: u64 = 100, Row::new("stream-idmp-duration").range(1, LONG).foreign(NOT_YET);
    /// Recent entries among which a stream recognises repeated ones.
    stream_idmp_maxsize: u64 = 100, Row::new("stream-idmp-maxsize").range(1, LONG).foreign(NOT_YET);
    /// Whether snapshots of later versions are accepted.
    rdb_version_check: String = text("strict"), Row::new("rdb-version-check").foreign(NOT_YET);
    /// Whether keys are being imported from another server.
    import_mode: bool = false, Row::new("import-mode").foreign(NOT_YET);
    /// Whether a full synchronisation has a connection of its own.
    dual_channel_replication_enabled: bool = false,
        Row::new("dual-channel-replication-enabled").alias("repl-rdb-channel").foreign(ONE_CHANNEL);
    /// Most bytes a replica keeps of the stream during a full synchronisation.
    replica_full_sync_buffer_limit: u64 = 256 << 20,
        Row::new("replica-full-sync-buffer-limit").range(0, LONG).memory().foreign(ONE_CHANNEL);
    /// IPv4 address told to clients.
    cluster_announce_client_ipv4: String = none(), Row::new("cluster-announce-client-ipv4").foreign(NOT_YET);
    /// IPv6 address told to clients.
    cluster_announce_client_ipv6: String = none(), Row::new("cluster-announce-client-ipv6").foreign(NOT_YET);
    /// Port told to clients.
    cluster_announce_client_port: u16 = 0, Row::new("cluster-announce-client-port").range(0, PORT).foreign(NOT_YET);
    /// TLS port told to clients.
    cluster_announce_client_tls_port: u16 = 0,
        Row::new("cluster-announce-client-tls-port").range(0, PORT).foreign(NOT_YET);
    /// Seconds for which a forgotten node stays forgotten.
    cluster_blacklist_ttl: u64 = 60, Row::new("cluster-blacklist-ttl").range(0, LONG).foreign(NOT_YET);
    /// Manner in which nodes.conf is written.
    cluster_config_save_behavior: String = text("sync"), Row::new("cluster-config-save-behavior").foreign(NOT_YET);
    /// Number of databases of a cluster node.
    cluster_databases: u32 = 1, Row::new("cluster-databases").range(1, INT).immutable().foreign(NOT_YET);
    /// Milliseconds that a manual failover may take.
    cluster_manual_failover_timeout: u64 = 5_000,
        Row::new("cluster-manual-failover-timeout").range(1, LONG).foreign(NOT_YET);
    /// Percent of commands that are checked for compatibility with a cluster.
    cluster_compatibility_sample_ratio: u32 = 0,
        Row::new("cluster-compatibility-sample-ratio").range(0, 100).foreign(NOT_YET);
    /// Whether commands are counted by slot.
    cluster_slot_stats_enabled: bool = false, Row::new("cluster-slot-stats-enabled").foreign(NOT_YET);
    /// Entries of the log of slot migrations.
    cluster_slot_migration_log_max_len: u64 = 1_000,
        Row::new("cluster-slot-migration-log-max-len").range(0, LONG).foreign(NOT_YET);
    /// Bytes of lag at which writes to a migrating slot are paused.
    slot_migration_max_failover_repl_bytes: i64 = 0,
        Row::new("slot-migration-max-failover-repl-bytes").range(-1, LONG).memory().foreign(NOT_YET);
    /// Bytes of lag at which a slot may be handed over.
    cluster_slot_migration_handoff_max_lag_bytes: u64 = 1 << 20,
        Row::new("cluster-slot-migration-handoff-max-lag-bytes").range(0, LONG).memory().foreign(NOT_YET);
    /// Milliseconds for which writes to a migrating slot may pause.
    cluster_slot_migration_write_pause_timeout: u64 = 10_000,
        Row::new("cluster-slot-migration-write-pause-timeout").range(0, LONG).foreign(NOT_YET);
    /// Milliseconds for sending the rest of a migrating slot's stream.
    cluster_slot_migration_sync_buffer_drain_timeout: u64 = 60_000,
        Row::new("cluster-slot-migration-sync-buffer-drain-timeout").range(0, LONG).foreign(NOT_YET);
    /// Finished slot migrations that are remembered.
    cluster_slot_migration_max_archived_tasks: u64 = 32,
        Row::new("cluster-slot-migration-max-archived-tasks").range(1, LONG).foreign(NOT_YET);
}

fn check_db_filename(name: &str) -> Result<(), &'static str> {
    if name.contains('/') {
        Err("dbfilename can't be a path, just a filename")
    } else {
        Ok(())
    }
}

fn check_append_filename(name: &str) -> Result<(), &'static str> {
    match name {
        "" => Err("appendfilename can't be empty"),
        _ if name.contains('/') => Err("appendfilename can't be a path, just a filename"),
        _ => Ok(()),
    }
}

fn check_append_dirname(name: &str) -> Result<(), &'static str> {
    match name {
        "" => Err("appenddirname can't be empty"),
        _ if name.contains('/') => Err("appenddirname can't be a path, just a dirname"),
        _ => Ok(()),
    }
}

fn check_hostname(name: &str) -> Result<(), &'static str> {
    if name.len() >= 256 {
        return Err("Hostnames must be less than 256 characters");
    }
    if name
        .bytes()
        .any(|byte| !(byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.'))
    {
        return Err("Hostnames may only contain alphanumeric characters, hyphens or dots");
    }
    Ok(())
}

/// Checks an announced address: the nodes file contains it, so that it must be an address or a host name.
fn check_announced_ip(text: &str) -> Result<(), &'static str> {
    match shardis_cluster::node::host(text) {
        Some(_) => Ok(()),
        None => Err("An address has at most 45 letters, digits, hyphens, dots and colons"),
    }
}

/// Checks the name of a node: the nodes file and CLUSTER NODES contain it, so that it must have none of the characters
/// that structure those.
fn check_nodename(name: &str) -> Result<(), &'static str> {
    if name.len() >= 128 {
        return Err("Human node names must be less than 128 characters");
    }
    let structural = |byte: u8| byte <= b' ' || byte == 0x7f || b"!#$%&()*+:;<>?@[]^{|}~,=".contains(&byte);
    if name.bytes().any(structural) {
        return Err("Announced human node name contained invalid character");
    }
    Ok(())
}

/// Checks the template of a title: it must not be blank, and may contain braces only around these variables.
fn check_title(template: &str) -> Result<(), &'static str> {
    const VARIABLES: [&str; 7] = [
        "title",
        "listen-addr",
        "server-mode",
        "port",
        "tls-port",
        "unixsocket",
        "config-file",
    ];
    const INVALID: &str = "template format is invalid or contains unknown variables";
    if template.replace("{title}", "").trim().is_empty() {
        return Err(INVALID);
    }
    let mut rest = template;
    while let Some(open) = rest.find(['{', '}']) {
        let variable = rest[open..]
            .strip_prefix('{')
            .and_then(|inside| inside.split_once('}'));
        let (variable, after) = variable.ok_or(INVALID)?;
        if !VARIABLES.contains(&variable) {
            return Err(INVALID);
        }
        rest = after;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::value::Assign;
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_and_aliases_are_unique_and_lower_case() {
        let mut seen = HashSet::new();
        for name in DIRECTIVES.iter().flat_map(Directive::names) {
            assert!(seen.insert(name), "{name} stands twice");
            assert_eq!(name, name.to_ascii_lowercase());
            assert!(find(name.to_ascii_uppercase().as_bytes()).is_some());
        }
        assert!(find(b"no-such-directive").is_none());
    }

    #[test]
    fn what_is_shown_can_be_set_back_and_changes_nothing() {
        let defaults = Settings::default();
        for directive in DIRECTIVES {
            let shown = directive.show(&defaults);
            let mut settings = defaults.clone();
            let value = directive.value_mut(&mut settings);
            let result = value.assign(&directive.row, &directive.args(&shown), Assign::Replace);
            assert_eq!(result, Ok(()), "{}", directive.row.name);
            assert!(settings == defaults, "{}", directive.row.name);
        }
    }

    #[test]
    fn ranges_fit_their_fields() {
        for directive in DIRECTIVES {
            let row = &directive.row;
            for bound in [row.min, row.max] {
                let mut settings = Settings::default();
                let text = row.form.show(bound);
                let value = directive.value_mut(&mut settings);
                if let Err(reason) = value.assign(row, &[text.as_bytes()], Assign::Replace) {
                    assert!(!reason.contains("out of range"), "{}: {bound} {reason}", row.name);
                }
            }
        }
    }

    #[test]
    fn accepted_directives_say_why() {
        let reasons = DIRECTIVES
            .iter()
            .filter_map(|directive| match directive.row.effect {
                DirectiveEffect::Accepted(why) => Some((directive.row.name, why)),
                DirectiveEffect::Applied => None,
            });
        for (name, why) in reasons {
            assert!(why.len() > 10 && !why.ends_with('.'), "{name}: {why}");
        }
    }

    #[test]
    fn texts_with_a_syntax() {
        assert!(check_title("{title} of {config-file} on {port}").is_ok());
        for bad in ["", " ", "{title} ", "{foo}", "{", "}", "{title", "title}", "{}"] {
            assert!(check_title(bad).is_err(), "{bad}");
        }
        assert!(check_hostname("node-1.example").is_ok() && check_hostname("").is_ok());
        assert!(check_hostname("a_b").is_err() && check_hostname(&"a".repeat(256)).is_err());
        assert!(check_nodename("db-1_east").is_ok() && check_nodename("a b").is_err());
        assert!(check_db_filename("a/b").is_err() && check_append_filename("").is_err());
        assert!(check_append_dirname("a/b").is_err());
    }
}
