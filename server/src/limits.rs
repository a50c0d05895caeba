//! Every bound of the server that is not a directive, named.

use std::time::Duration;

/// Bytes of one read chunk: what the connections of a turn are read into, one after another.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;

/// Bytes that one connection may read in a turn, so that no pipeline starves the others.
pub(crate) const READ_BYTES_MAX: usize = 64 * 1024;

/// Requests of a connection that are parsed together.
pub(crate) const PARSED_AT_ONCE: usize = 128;

/// A connection is read into what remains of the chunk only if that is at least this much.
pub(crate) const READ_BYTES_MIN: usize = 16 * 1024;

/// An incomplete request longer than this is collected in memory of its own instead of being copied to the next chunk.
pub(crate) const CARRY_BYTES_MAX: usize = 16 * 1024;

/// Chunks of one turn, with some left for what is taken in of a connection at once: their numbers have 16 bits.
pub(crate) const CHUNKS_PER_TURN_MAX: usize = 60_000;

/// Words of a request beyond which a command over several shards is a long one, whatever its kind.
pub(crate) const SHORT_WORDS_MAX: usize = 512;

/// Commands of a transaction beyond which it is a long one, whatever their kind.
pub(crate) const SHORT_QUEUE_MAX: usize = 64;

/// Nanoseconds for which short commands share one look at the clock.
pub(crate) const LOOK_SHARED_NS: u64 = 1_000_000;

/// Microseconds of a turn from which on its loop is held up: new connections are dealt to others.
pub(crate) const HELD_UP_US: i64 = 5_000;

/// Commands of one connection that may be under way; beyond it the connection is not read.
pub(crate) const IN_FLIGHT_MAX: u32 = 1024;

/// Commands whose entries are prefetched together.
pub(crate) const PREFETCH_BATCH: usize = 64;

/// A connection keeps at most this much of its output buffer from one turn to the next, and nothing once it is idle.
pub(crate) const OUTPUT_KEPT_BYTES: usize = 64 * 1024;

/// Bytes of replies after which a connection's further commands wait for the next turn, whether or not the socket takes
/// what there is.
pub(crate) const OUTPUT_TURN_BYTES: usize = 256 * 1024;

/// Bytes of a full chunk of a connection's output.
pub(crate) const OUTPUT_CHUNK_BYTES: usize = 64 * 1024;

/// A batch of commands keeps at most this much memory for replies until it is used again.
pub(crate) const BATCH_KEPT_BYTES: usize = 1024 * 1024;

/// Bytes of unsent output that is large: its limits are looked at whenever it has grown by that much.
pub(crate) const LARGE_OUTPUT_BYTES: usize = OUTPUT_CHUNK_BYTES / 2;

/// Classes of connections by the memory they take, a power of two each; the last one has all that take more.
pub(crate) const SIZE_CLASSES: usize = 40;

/// Seconds for which the largest buffers of connections are remembered.
pub(crate) const PEAK_SECONDS: usize = 8;

/// Bytes that are written to one connection in a turn, a chunk more at most.
pub(crate) const WRITE_BYTES_MAX: usize = 1024 * 1024;

/// How long a command over several shards waits for each of their cells before it lets go of those it holds.
pub(crate) const BORROW_LIMIT: Duration = Duration::from_micros(200);

/// How long such a command tries, turn after turn, before it asks for the shards to be lent. Lending takes two messages a
/// shard, and who finds a shard lent would have to ask as well: it is for shards that are busy for longer.
pub(crate) const BORROW_PATIENCE: Duration = Duration::from_millis(20);

/// How often a loop tries for a shard that is taken before it sends a message instead.
pub(crate) const BORROW_TRIES: u32 = 200;

/// Nanoseconds of active expiry in a turn.
pub(crate) const EXPIRE_SLICE_NS: u64 = 250_000;

/// Microseconds of eviction in a turn.
pub(crate) const EVICT_SLICE_US: i64 = 2500;

/// Objects freed, about, before another key is evicted.
pub(crate) const EVICT_RELEASE_SLICE: usize = 200;

/// Objects freed between two turns while garbage is left.
pub(crate) const RELEASE_SLICE: usize = 2000;

/// A command that wrote, allocated or freed this many bytes is timed by itself, whatever its kind.
pub(crate) const HEAVY_BYTES: usize = 64 * 1024;

/// Commands are timed one by one while the slow log is to know of commands that are faster than this, nanoseconds.
pub(crate) const TIMED_EACH_BELOW_NS: u64 = 1_000_000;

/// Bytes of lines that a loop collects for monitors before it hands them on.
pub(crate) const MONITOR_BATCH_BYTES: usize = 1 << 20;

/// Bytes of lines that may be under way to the monitors of one loop; if it is more, they are closed.
pub(crate) const MONITOR_UNDER_WAY_BYTES: usize = 64 << 20;

/// Unsent bytes at which a monitor is closed where `client-output-buffer-limit` sets no limit for it.
pub(crate) const MONITOR_OUTPUT_BYTES: u64 = 256 << 20;

/// Bytes of published messages that may be under way to one loop. Beyond it messages are dropped, and who they were for is
/// closed: a connection that misses a message must not go on as if it had not.
pub(crate) const PUBLISHED_UNDER_WAY_BYTES: usize = 256 << 20;

/// Bytes that a loop appends to its connections' outputs for what was published, before it writes them.
pub(crate) const PUBLISHED_TURN_BYTES: usize = 8 << 20;

/// Turns for which messages may wait in outputs to be written together with others, while there is other work.
pub(crate) const PUSHED_TURNS_MAX: u32 = 1;

/// File descriptors kept for other things than clients: listeners, the log, files that are read or written.
pub(crate) const DESCRIPTORS_RESERVED: u64 = 32;

/// File descriptors that a loop needs to wait for its sockets and its doorbell.
pub(crate) const DESCRIPTORS_PER_LOOP: u64 = 4;

/// Connections taken from the listener in one turn.
pub(crate) const ACCEPTS_PER_TURN: usize = 256;

/// Elements that may be drawn with repetition at once: the reply is put together in memory.
pub(crate) const RANDOM_REPEATS_MAX: usize = 1 << 26;

/// Bytes of an unknown command's name and arguments that its error repeats.
pub(crate) const SHOWN_BYTES_MAX: usize = 128;

/// Elements that may be drawn at random with repetition, where nothing but the request says how many.
pub(crate) const RANDOM_ELEMENTS_MAX: i64 = 1 << 24;
