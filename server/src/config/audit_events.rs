//! [`AuditEvents`]: the directive `audit-events`, kinds of events that the audit log tells of.

use super::choice::unknown_word;
use super::directives::Row;
use super::value::{Assign, Reason, Value};

bitflags::bitflags! {
    /// `audit-events`: kinds of events that the audit log tells of.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct AuditEvents: u8 {
        /// Requests that the rights of their client do not permit.
        const DENIED = 1 << 0;
        /// Logins, successful or not.
        const LOGINS = 1 << 1;
        /// Changes of users and their rules.
        const USERS = 1 << 2;
        /// Changes of the configuration.
        const CONFIG = 1 << 3;
        /// Changes of the node's role, and of the cluster.
        const TOPOLOGY = 1 << 4;
    }
}

/// The words of the directive.
const WORDS: [(&str, AuditEvents); 6] = [
    ("all", AuditEvents::all()),
    ("denied", AuditEvents::DENIED),
    ("logins", AuditEvents::LOGINS),
    ("users", AuditEvents::USERS),
    ("config", AuditEvents::CONFIG),
    ("topology", AuditEvents::TOPOLOGY),
];

impl AuditEvents {
    fn of_word(word: &[u8]) -> Result<Self, Reason> {
        let known = WORDS
            .iter()
            .find(|(known, _)| word.eq_ignore_ascii_case(known.as_bytes()));
        known
            .map(|(_, events)| *events)
            .ok_or_else(|| unknown_word(WORDS.iter().map(|(word, _)| *word)))
    }
}

impl Value for AuditEvents {
    fn assign(&mut self, _row: &Row, args: &[&[u8]], _how: Assign) -> Result<(), Reason> {
        let words = if matches!(args, [b""]) { &[] } else { args };
        *self = words.iter().try_fold(Self::empty(), |events, word| {
            Ok::<_, Reason>(events | Self::of_word(word)?)
        })?;
        Ok(())
    }

    fn show(&self, _row: &Row) -> Vec<u8> {
        if self.is_all() {
            return b"all".to_vec();
        }
        let words: Vec<_> = WORDS
            .iter()
            .filter(|(_, events)| self.contains(*events))
            .map(|(word, _)| *word)
            .collect();
        words.join(" ").into_bytes()
    }

    fn lines(&self, row: &Row) -> Vec<Vec<u8>> {
        let shown = self.show(row);
        vec![if shown.is_empty() { b"\"\"".to_vec() } else { shown }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_words() {
        let set = |words: &[&str]| {
            let mut events = AuditEvents::all();
            let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
            events
                .assign(&Row::new("audit-events"), &words, Assign::Replace)
                .map_err(Reason::into_owned)?;
            let text = |bytes| String::from_utf8(bytes).unwrap();
            let row = Row::new("audit-events");
            Ok((text(events.show(&row)), text(events.lines(&row).concat())))
        };
        let both = |text: &str| Ok((text.to_owned(), text.to_owned()));
        assert_eq!(set(&["LOGINS", "denied"]), both("denied logins"));
        assert_eq!(set(&["users", "all"]), both("all"));
        assert_eq!(
            set(&["denied", "logins", "users", "config", "topology"]),
            both("all")
        );
        let none = Ok((String::new(), "\"\"".to_owned()));
        assert_eq!([set(&[]), set(&[""])], [none.clone(), none]);
        let refused =
            "argument(s) must be one of the following: all, denied, logins, users, config, topology";
        assert_eq!(set(&["denied", "reads"]), Err(refused.to_owned()));
    }
}
