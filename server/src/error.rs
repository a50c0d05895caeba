//! All error texts that clients may see, in one enum: clients and people search for them.
//!
//! `Display` gives the line without its leading `-`: code, space, text.

use std::borrow::Cow;
use std::fmt;
use std::io;

/// The operating system's text for an error, without the number that `std` appends.
pub(crate) fn describe(error: &io::Error) -> String {
    let mut text = error.to_string();
    if let Some(number) = text.rfind(" (os error ") {
        text.truncate(number);
    }
    text
}

/// Error reply of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReplyError {
    /// Options that contradict each other or are unknown.
    Syntax,
    /// The key holds a value of another type.
    WrongType,
    /// An argument or value should be a 64-bit integer.
    NotInteger,
    /// An argument or value should be a floating-point number.
    NotFloat,
    /// An integer that must be within bounds.
    OutOfBounds {
        /// Smallest accepted value.
        min: i64,
        /// Largest accepted value.
        max: i64,
    },
    /// The key does not exist.
    NoSuchKey,
    /// A database index outside `databases`.
    DatabaseOutOfRange,
    /// Source and destination are the same.
    SameObject,
    /// A SCAN cursor that is no number.
    InvalidCursor,
    /// A time to live of zero, below, or too large, for the command named.
    InvalidExpire(&'static str),
    /// The wrong number of words for the command named (`get`, `client|id`).
    Arity(String),
    /// No such command.
    UnknownCommand(Vec<u8>),
    /// No such subcommand of the container named, or the wrong number of words for it.
    UnknownSubcommand {
        /// The word that the client sent.
        word: Vec<u8>,
        /// The container by the name that the client sent, in capitals.
        container: Vec<u8>,
    },
    /// MULTI inside MULTI.
    NestedMulti,
    /// EXEC without MULTI.
    ExecWithoutMulti,
    /// DISCARD without MULTI.
    DiscardWithoutMulti,
    /// WATCH inside MULTI.
    WatchInsideMulti,
    /// The digest of no script.
    NoScript,
    /// EXEC that was refused with this error.
    ExecRefused(Box<ReplyError>),
    /// EXEC after a command that could not be queued.
    ExecAborted,
    /// A command that may not be queued.
    NotInMulti,
    /// A command before authentication.
    NoAuth,
    /// A wrong user name or password.
    WrongPassword,
    /// A command that the rules of the user do not permit.
    NoCommandPermission {
        /// Name of the user.
        user: Box<[u8]>,
        /// Full name of the command.
        command: &'static str,
    },
    /// A key that the rules of the user do not permit, at this position of the request.
    NoKeyPermission(usize),
    /// A channel that the rules of the user do not permit, at this position of the request.
    NoChannelPermission(usize),
    /// AUTH with one argument where no password is set.
    NoPasswordSet,
    /// A client name with bytes that would break CLIENT LIST.
    BadClientName,
    /// HELLO with a version other than 2 or 3.
    UnsupportedProtocol,
    /// A command that the directive of its name does not allow: DEBUG, MODULE.
    Forbidden(&'static str),
    /// A command for the nodes of a cluster.
    ClusterDisabled,
    /// The data is being loaded.
    Loading,
    /// The node is a replica that clients cannot write to.
    ReadOnlyReplica,
    /// The node is a replica without a link to its primary.
    PrimaryDown,
    /// Memory is above `maxmemory`.
    OutOfMemory,
    /// A client asks for what only an append-only file can tell, and there is none.
    NoFile,
    /// The last save in the background failed: data must not change further.
    CannotSave,
    /// The append-only file cannot be written, with this number of the system's error: data must not change further.
    CannotAppend(i32),
    /// Fewer replicas than `min-replicas-to-write` keep up.
    TooFewReplicas,
    /// The audit log cannot tell of the command, which `audit-strict` demands.
    Unrecordable,
    /// The result would be longer than `proto-max-bulk-len`.
    StringTooLong,
    /// A negative offset into a string.
    OffsetOutOfRange,
    /// A counter would leave 64 bits.
    IncrementOverflow,
    /// A decrement that cannot be negated.
    DecrementOverflow,
    /// A floating-point counter would become infinite or no number.
    NotFinite,
    /// LCS of something else than strings.
    LcsNotStrings,
    /// LCS with both LEN and IDX.
    LcsLengthAndIndexes,
    /// LCS of strings so long that it would take too much memory.
    LcsTooLarge,
    /// A bit offset that is no number, negative, or beyond the longest string.
    BitOffset,
    /// SETBIT with something else than 0 or 1.
    BitValue,
    /// BITPOS with a number other than 0 and 1.
    BitArgument,
    /// BITOP NOT of several keys.
    BitopNot,
    /// A BITFIELD integer type that does not exist.
    BitfieldType,
    /// An OVERFLOW behaviour that does not exist.
    BitfieldOverflow,
    /// BITFIELD_RO with an operation that writes.
    BitfieldReadOnly,
    /// A number beyond what the command can answer.
    OutOfRange,
    /// A field to be counted up that holds no integer.
    HashNotInteger,
    /// A field to be counted up that holds no floating-point number.
    HashNotFloat,
    /// An increment that is infinite or no number.
    IncrementNotFinite,
    /// A negative time for the expiry of fields.
    NegativeExpire,
    /// The word FIELDS is not where it should be.
    FieldsMissing,
    /// A number of fields that is no number, or not positive.
    FieldCount,
    /// A number of fields that is no number, or not positive, for HEXPIRE and its kin.
    FieldCountNotPositive,
    /// A number of fields that is no number, or not positive, for HSETEX.
    BadFieldCount,
    /// More or fewer fields than the request says.
    FieldCountMismatch,
    /// HSETEX with a kind of expiry and no time.
    MissingExpire,
    /// HSETEX with several kinds of expiry.
    SeveralExpiries,
    /// HGETEX with several options about the expiry.
    SeveralExpiriesOrPersist,
    /// HSETEX with several conditions.
    SeveralConditions,
    /// ZADD with contradictory options about existing and new members.
    NxAndXx,
    /// ZADD with contradictory options about scores.
    GtLtNx,
    /// ZADD INCR with several members.
    SingleIncrement,
    /// A score would become infinity minus infinity.
    ScoreNotANumber,
    /// A range of scores whose ends are no numbers.
    NotScoreRange,
    /// A range of members whose ends are not marked as such.
    NotMemberRange,
    /// A LIMIT on a range of ranks.
    LimitOfRanks,
    /// Scores asked of a range of members, which all have the same.
    ScoresOfMembers,
    /// A weight that is no number.
    WeightNotFloat,
    /// Something to be sorted by a number that it does not have.
    SortNotNumbers,
    /// A negative LIMIT.
    NegativeLimit,
    /// No sources for the command named.
    NoInputKeys(&'static str),
    /// A number of elements that is negative or no number.
    NotPositive,
    /// A number of keys that is not above zero.
    NumkeysNotPositive,
    /// A COUNT that is not above zero.
    CountNotPositive,
    /// This node of a cluster does not serve the keys of the request, for the reason in this line.
    Redirected(String),
    /// A check of the server's own state failed while the command ran.
    Internal,
    /// A text made for one case, with its code, that quotes bytes of the request.
    Bytes(Vec<u8>),
    /// A fixed text with its code.
    Fixed(&'static str),
    /// A text made for one case, with its code.
    Text(String),
}

impl ReplyError {
    /// An arity error for a command's full name.
    pub(crate) fn arity(full_name: impl Into<String>) -> Self {
        Self::Arity(full_name.into())
    }

    /// The error behind the refusal of EXEC, or this one.
    pub(crate) fn cause(&self) -> &Self {
        match self {
            Self::ExecRefused(error) => error,
            _ => self,
        }
    }

    /// The line to send, without the leading `-`. Parts of the request are quoted byte by byte.
    pub(crate) fn line(&self) -> Cow<'_, [u8]> {
        match self {
            Self::UnknownCommand(shown) => Cow::Owned([b"ERR unknown command ", &shown[..]].concat()),
            Self::UnknownSubcommand { word, container } => {
                let parts = [
                    b"ERR unknown subcommand '",
                    &word[..],
                    b"'. Try ",
                    &container[..],
                    b" HELP.",
                ];
                Cow::Owned(parts.concat())
            }
            Self::ExecRefused(error) => {
                let line = error.line();
                let reason = line.strip_prefix(b"ERR ").unwrap_or(&line);
                Cow::Owned([b"EXECABORT Transaction discarded because of: ", reason].concat())
            }
            Self::NoCommandPermission { user, command } => {
                let parts = [
                    b"NOPERM User ",
                    &user[..],
                    b" has no permissions to run the '",
                    command.as_bytes(),
                    b"' command",
                ];
                Cow::Owned(parts.concat())
            }
            Self::Bytes(line) => Cow::Borrowed(line),
            _ => match self.text() {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            },
        }
    }

    /// The line of an error that quotes nothing of the request.
    fn text(&self) -> Cow<'_, str> {
        Cow::Borrowed(match self {
            Self::Syntax => "ERR syntax error",
            Self::WrongType => "WRONGTYPE Operation against a key holding the wrong kind of value",
            Self::NotInteger => "ERR value is not an integer or out of range",
            Self::NotFloat => "ERR value is not a valid float",
            Self::NoSuchKey => "ERR no such key",
            Self::DatabaseOutOfRange => "ERR DB index is out of range",
            Self::SameObject => "ERR source and destination objects are the same",
            Self::InvalidCursor => "ERR invalid cursor",
            Self::NestedMulti => "ERR MULTI calls can not be nested",
            Self::ExecWithoutMulti => "ERR EXEC without MULTI",
            Self::DiscardWithoutMulti => "ERR DISCARD without MULTI",
            Self::WatchInsideMulti => "ERR WATCH inside MULTI is not allowed",
            Self::NoScript => "NOSCRIPT No matching script. Please use EVAL.",
            Self::ExecAborted => "EXECABORT Transaction discarded because of previous errors.",
            Self::NotInMulti => "ERR Command not allowed inside a transaction",
            Self::NoAuth => "NOAUTH Authentication required.",
            Self::WrongPassword => "WRONGPASS invalid username-password pair or user is disabled.",
            Self::NoKeyPermission(_) => "NOPERM No permissions to access a key",
            Self::NoChannelPermission(_) => "NOPERM No permissions to access a channel",
            Self::NoPasswordSet => {
                "ERR AUTH <password> called without any password configured for the default user. \
                 Are you sure your configuration is correct?"
            }
            Self::BadClientName => "ERR Client names cannot contain spaces, newlines or special characters.",
            Self::UnsupportedProtocol => "NOPROTO unsupported protocol version",
            Self::ClusterDisabled => "ERR This instance has cluster support disabled",
            Self::NoFile => "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
            Self::CannotSave => {
                "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. Commands \
                 that may modify the data set are disabled, because this instance is configured to report errors during \
                 writes if RDB snapshotting fails (stop-writes-on-bgsave-error option). Please check the Redis logs for \
                 details about the RDB error."
            }
            Self::Loading => "LOADING Redis is loading the dataset in memory",
            Self::ReadOnlyReplica => "READONLY You can't write against a read only replica.",
            Self::PrimaryDown => {
                "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'."
            }
            Self::OutOfMemory => "OOM command not allowed when used memory > 'maxmemory'.",
            Self::Unrecordable => {
                "MISCONF The audit log cannot be written, and audit-strict refuses the commands that it has to tell of. Please \
                 check the server logs for details about the error."
            }
            Self::TooFewReplicas => "NOREPLICAS Not enough good replicas to write.",
            Self::StringTooLong => "ERR string exceeds maximum allowed size (proto-max-bulk-len)",
            Self::OffsetOutOfRange => "ERR offset is out of range",
            Self::IncrementOverflow => "ERR increment or decrement would overflow",
            Self::DecrementOverflow => "ERR decrement would overflow",
            Self::NotFinite => "ERR increment would produce NaN or Infinity",
            Self::LcsNotStrings => "ERR The specified keys must contain string values",
            Self::LcsLengthAndIndexes => "ERR If you want both the length and indexes, please just use IDX.",
            Self::LcsTooLarge => {
                "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len"
            }
            Self::BitOffset => "ERR bit offset is not an integer or out of range",
            Self::BitValue => "ERR bit is not an integer or out of range",
            Self::BitArgument => "ERR The bit argument must be 1 or 0.",
            Self::BitopNot => "ERR BITOP NOT must be called with a single source key.",
            Self::BitfieldType => {
                "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is."
            }
            Self::BitfieldOverflow => "ERR Invalid OVERFLOW type specified",
            Self::BitfieldReadOnly => "ERR BITFIELD_RO only supports the GET subcommand",
            Self::OutOfRange => "ERR value is out of range",
            Self::HashNotInteger => "ERR hash value is not an integer",
            Self::HashNotFloat => "ERR hash value is not a float",
            Self::IncrementNotFinite => "ERR value is NaN or Infinity",
            Self::NegativeExpire => "ERR invalid expire time, must be >= 0",
            Self::FieldsMissing => "ERR Mandatory argument FIELDS is missing or not at the right position",
            Self::FieldCount => "ERR Number of fields must be a positive integer",
            Self::FieldCountNotPositive => "ERR Parameter `numFields` should be greater than 0",
            Self::BadFieldCount => "ERR invalid number of fields",
            Self::FieldCountMismatch => "ERR The `numfields` parameter must match the number of arguments",
            Self::MissingExpire => "ERR missing expire time",
            Self::SeveralExpiries => {
                "ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified"
            }
            Self::SeveralExpiriesOrPersist => {
                "ERR Only one of EX, PX, EXAT, PXAT or PERSIST arguments can be specified"
            }
            Self::SeveralConditions => "ERR Only one of FXX or FNX arguments can be specified",
            Self::NxAndXx => "ERR XX and NX options at the same time are not compatible",
            Self::GtLtNx => "ERR GT, LT, and/or NX options at the same time are not compatible",
            Self::SingleIncrement => "ERR INCR option supports a single increment-element pair",
            Self::ScoreNotANumber => "ERR resulting score is not a number (NaN)",
            Self::NotScoreRange => "ERR min or max is not a float",
            Self::NotMemberRange => "ERR min or max not valid string range item",
            Self::LimitOfRanks => {
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX"
            }
            Self::ScoresOfMembers => "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
            Self::WeightNotFloat => "ERR weight value is not a float",
            Self::SortNotNumbers => "ERR One or more scores can't be converted into double",
            Self::NegativeLimit => "ERR LIMIT can't be negative",
            Self::NotPositive => "ERR value is out of range, must be positive",
            Self::NumkeysNotPositive => "ERR numkeys should be greater than 0",
            Self::CountNotPositive => "ERR count should be greater than 0",
            Self::Internal => "ERR internal error: the command was stopped; see the server's log",
            Self::Fixed(text) => text,
            Self::Text(text) | Self::Redirected(text) => text,
            Self::OutOfBounds { min, max } => {
                return Cow::Owned(format!(
                    "ERR value is out of range, value must between {min} and {max}"
                ));
            }
            Self::NoInputKeys(command) => {
                return Cow::Owned(format!(
                    "ERR at least 1 input key is needed for '{command}' command"
                ));
            }
            Self::Forbidden(command) => {
                let name = command.to_ascii_uppercase();
                return Cow::Owned(format!(
                    "ERR {name} command not allowed. If the enable-{command}-command option is set to \"local\", you can \
                     run it from a local connection, otherwise you need to set this option in the configuration file, and \
                     then restart the server."
                ));
            }
            Self::CannotAppend(number) => {
                let error = describe(&io::Error::from_raw_os_error(*number));
                return Cow::Owned(format!("MISCONF Errors writing to the AOF file: {error}"));
            }
            Self::InvalidExpire(command) => {
                return Cow::Owned(format!("ERR invalid expire time in '{command}' command"));
            }
            Self::Arity(command) => {
                return Cow::Owned(format!("ERR wrong number of arguments for '{command}' command"));
            }
            Self::UnknownCommand(_)
            | Self::UnknownSubcommand { .. }
            | Self::ExecRefused(_)
            | Self::NoCommandPermission { .. }
            | Self::Bytes(_) => {
                unreachable!("`line` writes these")
            }
        })
    }
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.line()))
    }
}

impl std::error::Error for ReplyError {}
