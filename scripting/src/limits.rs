//! The bounds of scripts: time between two looks at the host, memory, depth, steps, numbers of scripts.

/// Instructions of the interpreter between two calls of [`crate::Host::pause`]: a fraction of a millisecond.
pub const PAUSE_INSTRUCTIONS: u32 = 10_000;

/// Size from which memory that serves one script after the other is given back.
pub const KEPT_BYTES: usize = 64 << 10;

/// Size up to which the keys and arguments of a script stay in the interpreter until the next one.
pub const KEPT_INPUT_BYTES: usize = 16 << 10;

/// Steps of the library's own loops (patterns, repetition) between two calls of [`crate::Host::pause`].
pub const PAUSE_STEPS: u32 = 1_000_000;

/// Memory of an engine, unless it is told otherwise.
pub const MEMORY_BYTES: usize = 512 << 20;

/// An engine that holds this part of its memory when a script begins collects its garbage first: what earlier scripts
/// have left behind must not make a later one fail.
pub const COLLECT_ABOVE_PARTS: usize = 2;

/// Number of runs after which the collector does a step.
pub const RUNS_PER_COLLECTION: u32 = 50;

/// Longest script, bytes. The scanner of Lua 5.1 counts in 32 bits.
pub const SOURCE_BYTES_MAX: usize = 512 << 20;

/// Depth of the tables in the reply of a script. Each takes up to three of the 8000 places for values that Rust holds.
pub const REPLY_DEPTH_MAX: usize = 2000;

/// Depth of the reply of a command.
pub const COMMAND_REPLY_DEPTH_MAX: usize = 1000;

/// Results that `unpack` may return. A function written in C can have 8000 arguments, of which each takes a place on a
/// stack of that size, and lists as long as that come from `unpack` only.
pub const UNPACKED_MAX: usize = 7500;

/// Length of a table up to which functions written in C work on it without being counted.
pub const UNCOUNTED_MAX: usize = 2000;

/// Positions by which `table.insert` moves elements up at most.
pub const SHIFT_MAX: usize = 1 << 27;

/// Nested choices of a pattern: each takes a frame of the native stack.
pub const PATTERN_DEPTH_MAX: usize = 400;

/// Captures of a pattern.
pub const PATTERN_CAPTURES_MAX: usize = 32;

/// Nesting beyond which `cjson` does not go, whatever a script sets.
pub const JSON_DEPTH_MAX: usize = 2000;

/// Nesting of `cjson`, unless a script sets another.
pub const JSON_DEPTH: usize = 1000;

/// Nesting that `cmsgpack.pack` keeps; deeper tables become nil.
pub const MSGPACK_DEPTH: usize = 16;

/// Nesting that `cmsgpack.unpack` accepts.
pub const MSGPACK_UNPACK_DEPTH_MAX: usize = 1000;

/// Greatest size of an integer of `struct`, bytes.
pub const STRUCT_INTEGER_BYTES_MAX: usize = 32;

/// Scripts that the cache keeps because EVAL ran them. Those of SCRIPT LOAD are kept without a bound.
pub const EVALUATED_SCRIPTS_MAX: usize = 500;

/// Compiled scripts that an engine keeps.
pub const COMPILED_SCRIPTS_MAX: usize = 10_000;

/// Time in which a library has to register its functions, ms.
pub const LIBRARY_LOAD_MS: u64 = 500;
