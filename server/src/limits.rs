//! Every bound of the server that is not a directive, with a name.

use std::time::Duration;

/// Size of a chunk, into which the connections of a turn are read one after another, bytes.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;

/// Bytes that one connection may read in a turn, so that no pipeline starves the others.
pub(crate) const READ_BYTES_MAX: usize = 64 * 1024;

/// Requests of a connection that are parsed together.
pub(crate) const PARSED_AT_ONCE: usize = 128;

/// Least free bytes of a chunk for a connection to be read into it.
pub(crate) const READ_BYTES_MIN: usize = 16 * 1024;

/// An incomplete request longer than this is collected in memory of its own instead of being copied to the next chunk.
pub(crate) const CARRY_BYTES_MAX: usize = 16 * 1024;

/// Chunks of one turn: their numbers have 16 bits, and some are left for the pieces of one connection's input.
pub(crate) const CHUNKS_PER_TURN_MAX: usize = 60_000;

/// Number of words of a request above which a command over several shards counts as long, whatever its row says.
pub(crate) const SHORT_WORDS_MAX: usize = 512;

/// Number of queued commands above which a transaction counts as long, whatever the commands.
pub(crate) const SHORT_QUEUE_MAX: usize = 64;

/// Time for which short commands share one look at the clock, nanoseconds.
pub(crate) const LOOK_SHARED_NS: u64 = 1_000_000;

/// Duration of a turn from which its loop counts as held up, so that new connections are dealt to others,
/// microseconds.
pub(crate) const HELD_UP_US: i64 = 5_000;

/// Commands of one connection that may be under way; a connection with so many is not read.
pub(crate) const IN_FLIGHT_MAX: u32 = 1024;

/// Nanoseconds of a turn after which its batches stop behind the command that is running, and no connection is served a
/// second time. The rest waits for the next turn.
pub(crate) const TURN_NS: u64 = 4_000_000;

/// Nanoseconds after which the further requests of a connection wait for the next turn.
pub(crate) const SERVE_NS: u64 = 500_000;

/// Bytes moved by the commands of a batch after which the rest of the batch waits for the next turn.
pub(crate) const BATCH_BYTES: usize = 1 << 20;

/// Commands whose entries are prefetched together.
pub(crate) const PREFETCH_BATCH: usize = 64;

/// Bytes of its output buffer that a connection keeps from one turn to the next; an idle connection keeps none.
pub(crate) const OUTPUT_KEPT_BYTES: usize = 64 * 1024;

/// Bytes of replies after which a connection's further commands wait for the next turn, whether or not the socket
/// accepts what there is.
pub(crate) const OUTPUT_TURN_BYTES: usize = 256 * 1024;

/// Bytes of a full chunk of a connection's output.
pub(crate) const OUTPUT_CHUNK_BYTES: usize = 64 * 1024;

/// Bytes of memory for replies that a batch keeps until it is used again.
pub(crate) const BATCH_KEPT_BYTES: usize = 1024 * 1024;

/// Size from which unsent output counts as large, bytes: its limits are checked whenever it has grown by that much.
pub(crate) const LARGE_OUTPUT_BYTES: usize = OUTPUT_CHUNK_BYTES / 2;

/// Number of size classes of connections, a power of two each; the last one is open-ended.
pub(crate) const SIZE_CLASSES: usize = 40;

/// Seconds for which the largest buffer sizes are remembered.
pub(crate) const PEAK_SECONDS: usize = 8;

/// Bytes that are written to one connection in a turn, plus at most a chunk.
pub(crate) const WRITE_BYTES_MAX: usize = 1024 * 1024;

/// Longest wait of a command over several shards for each of their cells before it releases those that it holds.
pub(crate) const BORROW_LIMIT: Duration = Duration::from_micros(200);

/// Time that such a command tries, turn after turn, before it asks for the shards to be lent. Lending takes two
/// messages per shard, and a loop that finds a shard lent would have to ask as well: it is for shards that stay busy.
pub(crate) const BORROW_PATIENCE: Duration = Duration::from_millis(20);

/// Number of attempts to borrow a shard before a loop sends a message instead.
pub(crate) const BORROW_TRIES: u32 = 200;

/// Duration of a slice of active expiry, nanoseconds per turn.
pub(crate) const EXPIRE_SLICE_NS: u64 = 250_000;

/// Duration of a slice of active expiry that is late, nanoseconds.
pub(crate) const EXPIRE_SLICE_MAX_NS: u64 = 2_000_000;

/// The greatest share of a busy loop's time that active expiry takes, percent.
pub(crate) const EXPIRE_SHARE_MAX: u64 = 80;

/// Time for which expired keys have waited when active expiry takes that share in such slices, milliseconds.
pub(crate) const EXPIRE_LATE_MS: i64 = 200;

/// Duration of a slice of eviction under the usual `maxmemory-eviction-tenacity` of 10, microseconds per turn.
pub(crate) const EVICT_SLICE_US: i64 = 2500;

/// Approximate number of objects that are freed before another key is evicted.
pub(crate) const EVICT_RELEASE_SLICE: usize = 200;

/// Duration of a slice in which a loop saves, while there are commands to run, nanoseconds per turn.
pub(crate) const SAVE_SLICE_NS: u64 = 250_000;

/// Duration of such a slice while there are none, or one of them waits for what is saved, nanoseconds.
pub(crate) const SAVE_IDLE_SLICE_NS: u64 = 1_000_000;

/// Share of a busy loop's time in which it saves, percent.
pub(crate) const SAVE_SHARE_PERCENT: u64 = 25;

/// Bytes that a loop saves between two looks at the clock.
pub(crate) const SAVE_STEP_BYTES: usize = 32 * 1024;

/// Delay before a loop tries again to save when its partition was taken, or another one saves a large value, microseconds.
pub(crate) const SAVE_RETRY_US: i64 = 1000;

/// Bytes that a shard may have saved and that are not written yet. While there are more, it saves nothing, and a command that
/// would change what is not saved waits.
pub(crate) const UNWRITTEN_BYTES_MAX: usize = 4 << 20;

/// Memory from which on a value is saved in slices, bytes.
pub(crate) const LARGE_ENTRY_BYTES: usize = 128 * 1024;

/// Longest text that is compressed in a snapshot, bytes: it is compressed at once.
pub(crate) const COMPRESSED_BYTES_MAX: usize = 256 * 1024;

/// Bytes in memory that wait for the end of a large value's slices; more wait in a file.
pub(crate) const SPILLED_BYTES_MAX: usize = 4 << 20;

/// Bytes of a snapshot that are written before they are brought to the disk.
pub(crate) const SYNCED_BYTES: usize = 8 << 20;

/// Seconds after a failed save before a save point begins the next one.
pub(crate) const SAVE_RETRY_S: i64 = 5;

/// Duration of a slice in which a loop deletes keys of slots that have gone to another node, nanoseconds per turn.
pub(crate) const DOOMED_SLICE_NS: u64 = 1_000_000;

/// Number of such keys that are deleted between two looks at the clock.
pub(crate) const DOOMED_KEYS_AT_ONCE: usize = 128;

/// Connections to other nodes that are kept for further keys to be sent there.
pub(crate) const MIGRATION_SOCKETS_MAX: usize = 64;

/// Time for which such a connection is kept.
pub(crate) const MIGRATION_SOCKET_IDLE: Duration = Duration::from_secs(10);

/// Bytes of keys that another node has to take within the timeout of MIGRATE.
pub(crate) const MIGRATION_WRITE_BYTES: usize = 64 * 1024;

/// Number of objects freed between two turns while there is garbage.
pub(crate) const RELEASE_SLICE: usize = 2000;

/// Number of bytes written, allocated or freed from which a command is timed by itself, whatever its kind.
pub(crate) const HEAVY_BYTES: usize = 64 * 1024;

/// Threshold of the slow log below which commands are timed one by one, nanoseconds.
pub(crate) const TIMED_EACH_BELOW_NS: u64 = 1_000_000;

/// Bytes of lines that a loop collects for monitors before it hands them on.
pub(crate) const MONITOR_BATCH_BYTES: usize = 1 << 20;

/// Lowest limit of the memory of all clients, bytes, as in Redis.
pub(crate) const CLIENT_MEMORY_LIMIT_MIN: u64 = 128 << 10;

/// Bytes of lines that may be under way to the monitors of one loop; if there are more, the monitors are closed.
pub(crate) const MONITOR_UNDER_WAY_BYTES: usize = 64 << 20;

/// Unsent bytes at which a monitor is closed if `client-output-buffer-limit` sets no limit for it.
pub(crate) const MONITOR_OUTPUT_BYTES: u64 = 256 << 20;

/// Bytes of published messages that may be under way to one loop. Further messages are dropped and their receivers
/// closed: a connection that misses a message must not go on as if it had not.
pub(crate) const PUBLISHED_UNDER_WAY_BYTES: usize = 256 << 20;

/// Bytes of messages to trackers that may be under way to one loop. Further ones are dropped, and one about all keys takes their place.
pub(crate) const INVALIDATIONS_UNDER_WAY_BYTES: usize = 64 << 20;

/// Unsent bytes from which on a client gets no messages about single keys, but one about all keys.
pub(crate) const INVALIDATIONS_OUTPUT_BYTES: usize = 32 << 20;

/// Keys that are dropped at once from the table of those that trackers have read, while it exceeds its bound.
pub(crate) const TRACKED_KEYS_DROPPED_AT_ONCE: usize = 100;

/// Bytes of messages that a loop appends to outputs before it writes them.
pub(crate) const PUBLISHED_TURN_BYTES: usize = 8 << 20;

/// Number of turns for which the write of messages may be delayed to combine it with others, while there is other
/// work.
pub(crate) const PUSHED_TURNS_MAX: u32 = 1;

/// File descriptors reserved for other things than clients: listeners, the log, files.
pub(crate) const DESCRIPTORS_RESERVED: u64 = 32;

/// File descriptors that a loop needs to wait for its sockets and its doorbell.
pub(crate) const DESCRIPTORS_PER_LOOP: u64 = 4;

/// Connections that a loop accepts in one turn.
pub(crate) const ACCEPTS_PER_TURN: usize = 256;

/// Elements that may be drawn at once with repetition: the reply is built in memory.
pub(crate) const RANDOM_REPEATS_MAX: usize = 1 << 26;

/// Bytes of an unknown command's name and arguments that its error quotes.
pub(crate) const SHOWN_BYTES_MAX: usize = 128;

/// Elements that may be drawn with repetition if nothing but the request bounds them.
pub(crate) const RANDOM_ELEMENTS_MAX: i64 = 1 << 24;

/// Bytes that a loop keeps for recording effects from one batch to the next.
pub(crate) const RECORD_KEPT_BYTES: usize = 256 * 1024;

/// Failures of rewrites after which they wait before they begin by themselves.
pub(crate) const AOF_FAILURES_FREE: u32 = 3;

/// The longest time for which they wait, minutes.
pub(crate) const AOF_RETRY_MINUTES_MAX: i64 = 60;

/// Bytes that the writer of the append-only file keeps from one turn to the next.
pub(crate) const AOF_BUFFER_KEPT_BYTES: usize = 1 << 20;

/// Time for which a write to the append-only file is put off while the file is being synced, nanoseconds.
pub(crate) const AOF_POSTPONE_NS: u64 = 2_000_000_000;

/// Time between two log lines about failing writes to the append-only file, nanoseconds.
pub(crate) const AOF_FAULT_LOG_NS: u64 = 30_000_000_000;

/// Bytes of effects that may wait for a listener; units beyond are dropped.
pub(crate) const LISTENER_QUEUE_BYTES: u64 = 256 << 20;

/// Bytes of a file that are sent at once to the thread that builds a shard's data.
pub(crate) const LOAD_PARCEL_BYTES: usize = 128 * 1024;

/// Parcels of that size under way to one such thread.
pub(crate) const LOAD_PARCELS: usize = 8;

/// Keys that a load has left out which are named in the log.
pub(crate) const LOGGED_KEYS_MAX: u64 = 10;

/// Bytes that an annotation in an append-only file may have.
pub(crate) const ANNOTATION_BYTES_MAX: usize = 1024;

/// Time between two log lines about a load, seconds.
pub(crate) const LOAD_REPORT_SECONDS: u64 = 5;

/// Time for which a full channel of a listener is waited for between two looks at whether the node is to end.
pub(crate) const LISTENER_STEP: Duration = Duration::from_millis(5);

/// Time for which a listener that reads nothing is waited for at the end of the node, with half a unit in its channel.
pub(crate) const LISTENER_FAREWELL: Duration = Duration::from_millis(200);

/// Time between two log lines about a replica that cannot write to its disk, microseconds.
pub(crate) const DISK_ERROR_LOG_US: i64 = 10_000_000;

/// Keys of a writable replica that a loop looks at in one run of its periodic work, since its own clients have written them.
pub(crate) const OWN_KEYS_AT_ONCE: usize = 256;

/// Wait before another try to open the link to the primary.
pub(crate) const LINK_RETRY: Duration = Duration::from_secs(1);

/// The longest wait before another try after full synchronisations that have failed one after the other.
pub(crate) const LINK_RETRY_MAX: Duration = Duration::from_secs(60);

/// Time between two looks whether a failover has taken too long.
pub(crate) const FAILOVER_LOOK: Duration = Duration::from_millis(20);

/// Bytes of a line from the primary.
pub(crate) const LINK_LINE_BYTES_MAX: usize = 64 * 1024;

/// Bytes that are read from the primary at once.
pub(crate) const LINK_READ_BYTES: usize = 128 * 1024;

/// Bytes of the primary's stream that are received ahead of what is applied, unless a single unit has more.
pub(crate) const LINK_AHEAD_BYTES: usize = 1 << 20;

/// Rounds of the primary's stream that are given to the loop that applies them.
pub(crate) const ROUNDS_AHEAD: u64 = 2;

/// Pieces of a snapshot that wait for the thread that loads it.
pub(crate) const SNAPSHOT_PIECES: usize = 16;

/// Bytes of a received snapshot after which its file is brought to the disk.
pub(crate) const SNAPSHOT_SYNC_BYTES: u64 = 8 << 20;
/// Number of chunks that the replication backlog is kept in, if they are not too small then: a value larger than a limit must not sit in
/// one chunk.
pub(crate) const BACKLOG_CHUNKS: usize = 16;

/// Least bytes of a chunk of the replication backlog.
pub(crate) const BACKLOG_CHUNK_BYTES_MIN: usize = 16 * 1024;

/// Most bytes of such a chunk: of the last one, a link copies what it lacks while the journal is locked.
pub(crate) const BACKLOG_CHUNK_BYTES_MAX: usize = 256 * 1024;

/// Bytes of a snapshot for replicas that are kept in memory until all of them have taken it; more wait in a file.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 4 << 20;

/// Bytes of such a file that a link reads at once.
pub(crate) const PAYLOAD_READ_BYTES: usize = 256 * 1024;

/// Time between two looks whether a snapshot for replicas that finds no room is still wanted.
pub(crate) const PAYLOAD_STEP: Duration = Duration::from_millis(100);

/// Bytes of an incomplete request of a replica, beyond which its link ends: it has little to say.
pub(crate) const REPLICA_REQUEST_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a refused key or name that the log of refusals keeps.
pub(crate) const REFUSED_BYTES_MAX: usize = 4096;

/// Bits of the longest password that ACL GENPASS makes.
pub(crate) const PASSWORD_BITS_MAX: usize = 4096;

/// Bytes that a TLS session takes from its socket at a time.
pub(crate) const TLS_RECEIVE_BYTES: usize = 64 * 1024;

/// Bytes of an incomplete record or handshake message of TLS; a session that holds more is no session of a client.
pub(crate) const TLS_HANDSHAKE_BYTES_MAX: usize = 80 * 1024;

/// Bytes of replies that become records of TLS at a time; with the records' overhead they are less than a connection keeps.
pub(crate) const TLS_SEAL_BYTES: usize = 48 * 1024;

/// Approximate bytes that the TLS library allocates for a session: keys, and its state after the handshake.
pub(crate) const TLS_SESSION_BYTES: usize = 2 * 1024;

/// The most sessions that are kept for clients to resume.
pub(crate) const TLS_SESSIONS_MAX: usize = 1 << 20;

/// Time after which a client that has not completed its handshake is disconnected, milliseconds.
pub(crate) const TLS_HANDSHAKE_MS: i64 = 10_000;

/// Time in which a loop writes at most one line about connections that failed to open, milliseconds.
pub(crate) const TLS_FAILURES_TOLD_MS: i64 = 1000;

/// Time for which a script runs before its loop goes on with other work, nanoseconds.
pub(crate) const SCRIPT_SLICE_NS: u64 = 2_000_000;

/// Pauses of a script after which its loop goes on with other work, whatever the clock says: a manual clock stands still.
pub(crate) const SCRIPT_SLICE_PAUSES: u32 = 256;

/// Bytes of the stack of a script. Only what is used takes memory.
pub(crate) const SCRIPT_STACK_BYTES: usize = 4 << 20;

/// Size up to which a loop keeps the source whose digest it took last, bytes.
pub(crate) const SCRIPT_SOURCE_KEPT_BYTES: usize = 64 << 10;

/// Scripts that a loop has looked up, before it drops those that the node has forgotten.
pub(crate) const SCRIPTS_SEEN_KEPT: usize = 1024;

/// Runs that touch nothing but declared keys, after which a script gets the shards of those keys only.
pub(crate) const SCRIPT_CLEAN_RUNS: u32 = 16;

/// Time for which a script waits for a shard that it has not got, before one of two that wait for each other in a circle gives up.
pub(crate) const SCRIPT_PATIENCE_NS: u64 = 1_000_000_000;

/// Events of the cluster bus that wait for its task.
pub(crate) const BUS_NEWS: usize = 256;

/// Events of the cluster bus that are handled together, with one save of the file of nodes for all of them.
pub(crate) const BUS_NEWS_TOGETHER: usize = 64;

/// Bytes by which the input buffer of a link of the cluster bus grows.
pub(crate) const BUS_READ_BYTES: usize = 16 * 1024;

/// Longest frame of the cluster bus that is read from a node that is not known, bytes.
pub(crate) const BUS_STRANGER_FRAME_BYTES: usize = 64 * 1024;

/// Links of the cluster bus from nodes that are not known; the oldest makes room for a new one.
pub(crate) const BUS_STRANGERS_MAX: usize = 1024;

/// Unsent bytes at which a link of the cluster bus is closed if `cluster-link-sendbuf-limit` sets no limit.
pub(crate) const BUS_UNSENT_BYTES: usize = 1 << 30;

/// Bytes of clients' messages that wait for the task of the cluster bus, from which on a client that publishes more gets its reply when
/// its message is on its way.
pub(crate) const BUS_PUBLISHED_BYTES: usize = 4 << 20;

/// Decisions about the cluster that are carried out before news of other nodes are looked at.
pub(crate) const BUS_BATCHES_TOGETHER: usize = 64;

/// Handshakes of TLS that nodes have begun on the cluster bus; the oldest makes room for a new one.
pub(crate) const BUS_HANDSHAKES_MAX: usize = 1024;

/// Time after which the log tells again why connections of the cluster bus fail, milliseconds.
pub(crate) const BUS_FAILURE_REPEATED_MS: u64 = 60_000;

/// Wait before another try to accept a connection of the cluster bus.
pub(crate) const BUS_ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Entries of the audit log that are not written yet; further ones are dropped, or their commands refused.
pub(crate) const AUDIT_ENTRIES_MAX: usize = 1024;

/// Entries of the audit log that are written together.
pub(crate) const AUDIT_ENTRIES_TOGETHER: usize = 256;

/// Wait before another try to write entries that must not be dropped.
pub(crate) const AUDIT_RETRY: Duration = Duration::from_millis(200);

/// Time for which the end of a node waits for its audit log.
pub(crate) const AUDIT_FAREWELL: Duration = Duration::from_secs(1);
