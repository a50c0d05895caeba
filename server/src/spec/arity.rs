//! Number of words of a command's requests.

/// The number of words of a request, the command's own name included (a subcommand counts the container's name too).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arity {
    /// Exactly so many words.
    Exactly(u8),
    /// At least so many words.
    AtLeast(u8),
}

impl Arity {
    /// Whether a request of `words` words can be one of the command.
    #[inline]
    pub(crate) const fn accepts(self, words: usize) -> bool {
        match self {
            Self::Exactly(count) => words == count as usize,
            Self::AtLeast(count) => words >= count as usize,
        }
    }

    /// The number in COMMAND INFO: negative for "at least".
    pub(crate) const fn to_wire(self) -> i64 {
        match self {
            Self::Exactly(count) => count as i64,
            Self::AtLeast(count) => -(count as i64),
        }
    }

    /// The least number of words.
    pub(crate) const fn minimum(self) -> usize {
        match self {
            Self::Exactly(count) | Self::AtLeast(count) => count as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Arity::{AtLeast, Exactly};

    #[test]
    fn accepts_what_it_says() {
        for (arity, words, accepted) in [
            (Exactly(2), 1, false),
            (Exactly(2), 2, true),
            (Exactly(2), 3, false),
            (AtLeast(2), 1, false),
            (AtLeast(2), 9, true),
        ] {
            assert_eq!(arity.accepts(words), accepted, "{arity:?} {words}");
        }
        assert_eq!((Exactly(3).to_wire(), AtLeast(3).to_wire()), (3, -3));
    }
}
