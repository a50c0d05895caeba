//! [`Entry`]: an event in the audit log, and its line of JSON.

use std::borrow::Cow;
use std::io::Write as _;

use jiff::Timestamp;

use crate::log::AuditEvent;

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Time, Unix microseconds.
    pub(crate) time_us: i64,
    /// Kind of the event: `denied`, `login`, `users`, `config`, `topology`.
    pub(crate) event: &'static str,
    /// Its result.
    pub(crate) outcome: Outcome,
    /// The reason for an outcome that is not success, or for what the node did by itself.
    pub(crate) reason: Option<Box<[u8]>>,
    /// The command, key or channel that was denied.
    pub(crate) object: Option<Box<[u8]>>,
    /// Client that caused it; none for the node itself.
    pub(crate) actor: Option<Actor>,
    /// Words of the request, without secrets.
    pub(crate) command: Vec<Box<[u8]>>,
}

/// Result of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The event took effect.
    Done,
    /// The command failed, and changed nothing.
    Failed,
    /// The client has no right to it.
    Denied,
    /// The command was refused, since it could not be recorded (`audit-strict`).
    Refused,
}

/// The client behind an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Actor {
    /// Its user, or the one it claimed to be; none before it has logged in.
    pub(crate) user: Option<Box<[u8]>>,
    /// Its id.
    pub(crate) id: u64,
    /// Its address.
    pub(crate) address: String,
    /// The name that it has given itself.
    pub(crate) name: Option<Box<[u8]>>,
    /// Name in its certificate.
    pub(crate) certificate: Option<Box<[u8]>>,
    /// `toplevel`, `multi` or `lua`.
    pub(crate) context: &'static str,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Done => "ok",
            Self::Failed => "failed",
            Self::Denied => "denied",
            Self::Refused => "refused",
        }
    }
}

impl Entry {
    /// The line, without a line break. `node` is the run id of the node.
    pub(super) fn line(&self, node: &str) -> String {
        let mut line = Line::new(self.time_us, node);
        line.text("event", self.event);
        line.text("outcome", self.outcome.name());
        line.bytes("reason", self.reason.as_deref());
        line.bytes("object", self.object.as_deref());
        line.bytes(
            "user",
            self.actor.as_ref().and_then(|actor| actor.user.as_deref()),
        );
        if let Some(actor) = &self.actor {
            line.number("client", actor.id);
            line.text("address", &actor.address);
            line.bytes("name", actor.name.as_deref());
            line.text("context", actor.context);
        }
        let certificate = self.actor.as_ref().and_then(|actor| actor.certificate.as_deref());
        line.bytes("certificate", certificate);
        line.list("command", &self.command);
        line.end()
    }

    /// The entry as a subscriber of events gets it, with its line.
    pub(super) fn tell(&self, line: &str, tell: impl FnOnce(AuditEvent<'_>)) {
        let actor = self.actor.as_ref();
        tell(AuditEvent {
            event: self.event,
            outcome: self.outcome.name(),
            user: &shown(actor.and_then(|actor| actor.user.as_deref())),
            address: actor.map_or("", |actor| &actor.address),
            reason: &shown(self.reason.as_deref()),
            line,
        });
    }
}

fn shown(bytes: Option<&[u8]>) -> Cow<'_, str> {
    bytes.map_or(Cow::Borrowed(""), text_of)
}

/// The line that tells of events that no line tells of.
pub(super) fn gap(time_us: i64, node: &str, lost: u64) -> String {
    let mut line = Line::new(time_us, node);
    line.text("event", "gap");
    line.number("lost", lost);
    line.end()
}

/// A line under construction: an object of JSON.
struct Line(Vec<u8>);

impl Line {
    fn new(time_us: i64, node: &str) -> Self {
        let mut line = Self(b"{".to_vec());
        let time = Timestamp::from_microsecond(time_us).unwrap_or_default();
        line.text("time", &time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string());
        line.text("node", node);
        line
    }

    fn name(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        self.quote(name);
        self.0.push(b':');
    }

    /// Appends a text in quotes, with the escapes of JSON.
    fn quote(&mut self, text: &str) {
        serde_json::to_writer(&mut self.0, text).expect("a text can be written to memory");
    }

    fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        self.quote(value);
    }

    fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        // Writing to memory does not fail.
        let _ = write!(self.0, "{value}");
    }

    /// Appends bytes, or nothing if there are none.
    fn bytes(&mut self, name: &str, value: Option<&[u8]>) {
        if let Some(value) = value {
            self.text(name, &text_of(value));
        }
    }

    fn list(&mut self, name: &str, values: &[Box<[u8]>]) {
        if values.is_empty() {
            return;
        }
        self.name(name);
        self.0.push(b'[');
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                self.0.push(b',');
            }
            self.quote(&text_of(value));
        }
        self.0.push(b']');
    }

    fn end(mut self) -> String {
        self.0.push(b'}');
        String::from_utf8(self.0).expect("texts make up a text")
    }
}

/// Bytes as a text: those that are no UTF-8 are shown as `\xff`.
fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            time_us: 1_764_378_000_000_042,
            event: "denied",
            outcome: Outcome::Denied,
            reason: Some(b"key".as_slice().into()),
            object: Some(b"a\"\n\xff\\".as_slice().into()),
            actor: Some(Actor {
                user: Some("Zoë".as_bytes().into()),
                id: 7,
                address: "127.0.0.1:5".to_owned(),
                name: None,
                certificate: None,
                context: "toplevel",
            }),
            command: vec![b"GET".as_slice().into(), b"a\"\n\xff\\".as_slice().into()],
        }
    }

    #[test]
    fn lines_are_json() {
        assert_eq!(
            entry().line("0123"),
            r#"{"time":"2025-11-29T01:00:00.000042Z","node":"0123","event":"denied","outcome":"denied","reason":"key","object":"a\"\n\\xff\\","user":"Zoë","client":7,"address":"127.0.0.1:5","context":"toplevel","command":["GET","a\"\n\\xff\\"]}"#
        );
        let own = Entry {
            event: "topology",
            outcome: Outcome::Done,
            reason: Some(b"an election".as_slice().into()),
            object: None,
            actor: None,
            command: Vec::new(),
            ..entry()
        };
        assert_eq!(
            own.line(""),
            r#"{"time":"2025-11-29T01:00:00.000042Z","node":"","event":"topology","outcome":"ok","reason":"an election"}"#
        );
        assert_eq!(
            gap(0, "x", 3),
            r#"{"time":"1970-01-01T00:00:00.000000Z","node":"x","event":"gap","lost":3}"#
        );
    }

    #[test]
    fn every_line_can_be_parsed() {
        let all: Vec<u8> = (0..=255).collect();
        let line = Entry {
            object: Some(all.clone().into()),
            command: vec![all.into(), Box::default()],
            ..entry()
        }
        .line("x");
        assert!(!line.contains('\n'));
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
        let first = parsed["command"][0].as_str().unwrap();
        assert!(
            first.starts_with("\0\u{1}") && first.ends_with("\\xfe\\xff"),
            "{first}"
        );
    }

    #[test]
    fn subscribers_get_fields() {
        entry().tell("line", |told| {
            let seen = (
                told.event,
                told.outcome,
                told.user,
                told.address,
                told.reason,
                told.line,
            );
            assert_eq!(seen, ("denied", "denied", "Zoë", "127.0.0.1:5", "key", "line"));
        });
    }
}
