//! Documentation of a command as data: what COMMAND DOCS shows, argument trees included.

/// What COMMAND DOCS says about a command.
#[derive(Debug)]
pub struct Doc {
    /// The Redis version that brought the command.
    pub since: &'static str,
    /// The family it is documented in.
    pub group: Group,
    /// Its cost, in our own words.
    pub complexity: &'static str,
    /// One sentence on what it does, in our own words.
    pub summary: &'static str,
    /// Since when it is deprecated and what replaces it.
    pub deprecated: Option<Deprecated>,
    /// What changed in which version.
    pub history: &'static [(&'static str, &'static str)],
    /// Its arguments.
    pub args: &'static [Arg],
}

/// A deprecation notice.
#[derive(Clone, Copy, Debug)]
pub struct Deprecated {
    /// The version that deprecated it.
    pub since: &'static str,
    /// What to use instead.
    pub replaced_by: &'static str,
}

impl Doc {
    /// What a row's documentation starts from.
    pub const BLANK: Doc = Doc {
        since: "",
        group: Group::Generic,
        complexity: "",
        summary: "",
        deprecated: None,
        history: &[],
        args: &[],
    };
}

/// The family that a command is documented in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
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
    pub const fn name(self) -> &'static str {
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
pub struct Arg {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: ArgKind,
    /// The word that introduces it.
    pub token: Option<&'static str>,
    /// The version that brought it, where younger than the command.
    pub since: Option<&'static str>,
    /// The version that deprecated it.
    pub deprecated_since: Option<&'static str>,
    /// May be left out.
    pub optional: bool,
    /// May be repeated.
    pub multiple: bool,
    /// Each repetition has its token again.
    pub multiple_token: bool,
    /// What a syntax line shows instead of the name.
    pub display: Option<&'static str>,
}

/// What an argument holds.
#[derive(Clone, Copy, Debug)]
pub enum ArgKind {
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
    /// A point in time.
    UnixTime,
    /// Only its token.
    PureToken,
    /// One of these.
    OneOf(&'static [Arg]),
    /// All of these, in order.
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
    pub const fn string(name: &'static str) -> Self {
        Self::of(name, ArgKind::String)
    }

    /// An integer.
    pub const fn integer(name: &'static str) -> Self {
        Self::of(name, ArgKind::Integer)
    }

    /// A floating-point number.
    pub const fn double(name: &'static str) -> Self {
        Self::of(name, ArgKind::Double)
    }

    /// A key found by the key specification number `spec`.
    pub const fn key(name: &'static str, spec: u8) -> Self {
        Self::of(name, ArgKind::Key(spec))
    }

    /// A glob pattern.
    pub const fn pattern(name: &'static str) -> Self {
        Self::of(name, ArgKind::Pattern)
    }

    /// A point in time.
    pub const fn unix_time(name: &'static str) -> Self {
        Self::of(name, ArgKind::UnixTime)
    }

    /// A word that stands for itself.
    pub const fn flag(name: &'static str, token: &'static str) -> Self {
        Self::of(name, ArgKind::PureToken).token(token)
    }

    /// One of several.
    pub const fn one_of(name: &'static str, choices: &'static [Arg]) -> Self {
        Self::of(name, ArgKind::OneOf(choices))
    }

    /// Several in order.
    pub const fn block(name: &'static str, parts: &'static [Arg]) -> Self {
        Self::of(name, ArgKind::Block(parts))
    }

    /// Introduced by a word.
    pub const fn token(mut self, token: &'static str) -> Self {
        self.token = Some(token);
        self
    }

    /// Younger than its command.
    pub const fn since(mut self, version: &'static str) -> Self {
        self.since = Some(version);
        self
    }

    /// Deprecated by a version.
    pub const fn deprecated(mut self, version: &'static str) -> Self {
        self.deprecated_since = Some(version);
        self
    }

    /// May be left out.
    pub const fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// May be repeated.
    pub const fn multiple(mut self) -> Self {
        self.multiple = true;
        self
    }

    /// May be repeated, each time with its token.
    pub const fn multiple_token(mut self) -> Self {
        self.multiple = true;
        self.multiple_token = true;
        self
    }

    /// Shown under another name in a syntax line.
    pub const fn display(mut self, text: &'static str) -> Self {
        self.display = Some(text);
        self
    }
}
