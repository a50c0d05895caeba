//! Documentation of commands as data: the content of COMMAND DOCS, argument trees included.

/// Documentation of a command in COMMAND DOCS.
#[derive(Debug)]
pub(crate) struct Doc {
    /// The Redis version that brought the command.
    pub(crate) since: &'static str,
    /// The family it is documented in.
    pub(crate) group: Group,
    /// Its cost, in our own words.
    pub(crate) complexity: &'static str,
    /// One sentence on what it does, in our own words.
    pub(crate) summary: &'static str,
    /// For tests and for the server itself, not for applications.
    pub(crate) system: bool,
    /// The version that deprecated the command, and its replacement.
    pub(crate) deprecated: Option<Deprecated>,
    /// Changes by version.
    pub(crate) history: &'static [(&'static str, &'static str)],
    /// Its arguments.
    pub(crate) args: &'static [Arg],
}

/// A deprecation notice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deprecated {
    /// The version that deprecated it.
    pub(crate) since: &'static str,
    /// The replacement.
    pub(crate) replaced_by: &'static str,
}

impl Doc {
    /// Starting point of a row's documentation.
    pub(crate) const BLANK: Doc = Doc {
        since: "",
        group: Group::Generic,
        complexity: "",
        summary: "",
        system: false,
        deprecated: None,
        history: &[],
        args: &[],
    };
}

/// The family that a command is documented in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// Bit operations on strings.
    Bitmap,
    /// The connection itself.
    Connection,
    /// Keys of any type.
    Generic,
    /// Geographic indexes.
    Geo,
    /// Hashes.
    Hash,
    /// HyperLogLogs.
    HyperLogLog,
    /// Lists.
    List,
    /// Publish and subscribe.
    PubSub,
    /// Scripts and functions.
    Scripting,
    /// The server as a program.
    Server,
    /// Sets.
    Set,
    /// Sorted sets.
    SortedSet,
    /// Streams.
    Stream,
    /// Strings.
    String,
    /// Transactions.
    Transactions,
    /// The cluster.
    Cluster,
}

impl Group {
    /// The name that COMMAND DOCS shows.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bitmap => "bitmap",
            Self::Connection => "connection",
            Self::Generic => "generic",
            Self::Geo => "geo",
            Self::Hash => "hash",
            Self::HyperLogLog => "hyperloglog",
            Self::List => "list",
            Self::PubSub => "pubsub",
            Self::Scripting => "scripting",
            Self::Server => "server",
            Self::Set => "set",
            Self::SortedSet => "sorted-set",
            Self::Stream => "stream",
            Self::String => "string",
            Self::Transactions => "transactions",
            Self::Cluster => "cluster",
        }
    }
}

/// One argument, or a choice or block of arguments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arg {
    /// Its name.
    pub(crate) name: &'static str,
    /// Kind of its value.
    pub(crate) kind: ArgKind,
    /// The word that precedes it.
    pub(crate) token: Option<&'static str>,
    /// The version that added it, if later than the command.
    pub(crate) since: Option<&'static str>,
    /// The version that deprecated it.
    pub(crate) deprecated_since: Option<&'static str>,
    /// The argument may be omitted.
    pub(crate) optional: bool,
    /// The argument may be repeated.
    pub(crate) multiple: bool,
    /// Each repetition is preceded by its token.
    pub(crate) multiple_token: bool,
    /// Text of a syntax line in place of the name.
    pub(crate) display: Option<&'static str>,
}

/// Kind of an argument's value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ArgKind {
    /// Any text.
    String,
    /// An integer.
    Integer,
    /// A floating-point number.
    Double,
    /// A key, found by the key specification of that index.
    Key(u8),
    /// A glob pattern.
    Pattern,
    /// A pattern that names keys, for the key specification of that index.
    KeyPattern(u8),
    /// A point in time.
    UnixTime,
    /// Nothing but its token.
    PureToken,
    /// One of these arguments.
    OneOf(&'static [Arg]),
    /// All of these arguments, in order.
    Block(&'static [Arg]),
}

impl Arg {
    const fn of(name: &'static str, kind: ArgKind) -> Self {
        Self {
            name,
            kind,
            token: None,
            since: None,
            deprecated_since: None,
            optional: false,
            multiple: false,
            multiple_token: false,
            display: None,
        }
    }

    /// Any text.
    pub(crate) const fn string(name: &'static str) -> Self {
        Self::of(name, ArgKind::String)
    }

    /// An integer.
    pub(crate) const fn integer(name: &'static str) -> Self {
        Self::of(name, ArgKind::Integer)
    }

    /// A floating-point number.
    pub(crate) const fn double(name: &'static str) -> Self {
        Self::of(name, ArgKind::Double)
    }

    /// A key found by the key specification number `spec`.
    pub(crate) const fn key(name: &'static str, spec: u8) -> Self {
        Self::of(name, ArgKind::Key(spec))
    }

    /// A glob pattern.
    pub(crate) const fn pattern(name: &'static str) -> Self {
        Self::of(name, ArgKind::Pattern)
    }

    /// A pattern that names keys, for the key specification of index `spec`.
    pub(crate) const fn key_pattern(name: &'static str, spec: u8) -> Self {
        Self::of(name, ArgKind::KeyPattern(spec))
    }

    /// A point in time.
    pub(crate) const fn unix_time(name: &'static str) -> Self {
        Self::of(name, ArgKind::UnixTime)
    }

    /// A token alone.
    pub(crate) const fn flag(name: &'static str, token: &'static str) -> Self {
        Self::of(name, ArgKind::PureToken).token(token)
    }

    /// One of several arguments.
    pub(crate) const fn one_of(name: &'static str, choices: &'static [Arg]) -> Self {
        Self::of(name, ArgKind::OneOf(choices))
    }

    /// Several arguments in order.
    pub(crate) const fn block(name: &'static str, parts: &'static [Arg]) -> Self {
        Self::of(name, ArgKind::Block(parts))
    }

    /// Sets the word that precedes the argument.
    pub(crate) const fn token(mut self, token: &'static str) -> Self {
        self.token = Some(token);
        self
    }

    /// Sets the version that added the argument.
    pub(crate) const fn since(mut self, version: &'static str) -> Self {
        self.since = Some(version);
        self
    }

    /// Sets the version that deprecated the argument.
    pub(crate) const fn deprecated(mut self, version: &'static str) -> Self {
        self.deprecated_since = Some(version);
        self
    }

    /// Marks the argument as optional.
    pub(crate) const fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// Marks the argument as repeatable.
    pub(crate) const fn multiple(mut self) -> Self {
        self.multiple = true;
        self
    }

    /// Marks the argument as repeatable, each time with its token.
    pub(crate) const fn multiple_token(mut self) -> Self {
        self.multiple = true;
        self.multiple_token = true;
        self
    }

    /// Sets the text of a syntax line in place of the name.
    pub(crate) const fn display(mut self, text: &'static str) -> Self {
        self.display = Some(text);
        self
    }
}
