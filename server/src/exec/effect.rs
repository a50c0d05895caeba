//! Effects: the changes of a command to the data, in the form in which replicas and the append-only file repeat them.
//!
//! The default is the request itself, if it is a write and changed something. A handler reports another form where
//! repeating the request would not give the same result (relative expiry, random choice, conditions).

pub use crate::journal::Effect;
use crate::journal::encoded::Encoded;

/// Collector of the effects of one command.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    recording: bool,
    changes: u64,
    form: Form,
    has_flushed_all: bool,
}

#[derive(Debug, Default)]
enum Form {
    #[default]
    Verbatim,
    Replaced(Encoded),
}

/// Effects of a finished command, for the journal.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Nothing: nothing changed, or nothing is to be repeated.
    Nothing,
    /// The request as the client sent it.
    Verbatim,
    /// These commands instead of the request, in order.
    Commands(Encoded),
}

impl Effects {
    /// A collector. Without `recording` there is no journal, and reports cost nothing.
    pub(crate) fn new(recording: bool) -> Self {
        Self {
            recording,
            ..Self::default()
        }
    }

    /// Whether effects are recorded. Handlers check before they build words for a report.
    #[inline]
    pub(crate) fn is_recording(&self) -> bool {
        self.recording
    }

    /// Notes that all data was removed.
    pub(crate) fn flushed_all(&mut self) {
        self.has_flushed_all = true;
    }

    /// Whether all data was removed.
    pub(crate) fn has_flushed_all(&self) -> bool {
        self.has_flushed_all
    }

    /// Counts changes to the dataset.
    #[inline]
    pub(crate) fn changed(&mut self, count: u64) {
        self.changes += count;
    }

    /// Number of changes counted so far.
    #[inline]
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Reports a command to repeat instead of the request; several calls add up.
    pub(crate) fn replace(&mut self, words: &[&[u8]]) {
        if !self.recording {
            return;
        }
        if let Form::Verbatim = self.form {
            self.form = Form::Replaced(Encoded::default());
        }
        if let Form::Replaced(commands) = &mut self.form {
            commands.push(words.iter().copied());
        }
    }

    /// Takes the reported effects, and starts anew.
    pub(crate) fn take(&mut self) -> Outcome {
        let form = std::mem::take(&mut self.form);
        let changed = std::mem::take(&mut self.changes) > 0;
        match form {
            Form::Replaced(commands) => Outcome::Commands(commands),
            Form::Verbatim if changed => Outcome::Verbatim,
            Form::Verbatim => Outcome::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_repeated_verbatim_unless_reported_otherwise() {
        let mut effects = Effects::new(true);
        assert!(matches!(effects.take(), Outcome::Nothing));
        effects.changed(1);
        assert!(matches!(effects.take(), Outcome::Verbatim));
        effects.changed(1);
        effects.replace(&[b"DEL", b"k"]);
        let Outcome::Commands(commands) = effects.take() else {
            panic!("it was reported in another form");
        };
        assert!(commands.iter().eq([b"*2\r\n$3\r\nDEL\r\n$1\r\nk\r\n"]));
        assert!(matches!(effects.take(), Outcome::Nothing));
    }
}
