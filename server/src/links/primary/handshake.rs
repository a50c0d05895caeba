//! The handshake: the replica makes itself known, and the two nodes agree on where the stream goes on.

use super::Keeper;
use super::wire::{Lost, Wire};
use crate::replication::FailoverStage;

/// Result of the handshake.
#[derive(Debug)]
pub(super) enum Agreed {
    /// The stream goes on where this node stands.
    Continue {
        /// The id of the history from here on, if the primary tells one.
        id: Option<String>,
    },
    /// A snapshot comes first.
    Full {
        /// The place in a history that it is at; none if the primary does not know of such.
        origin: Option<Place>,
    },
}

/// A place in a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The id of the history.
    pub(super) id: String,
    /// The offset.
    pub(super) offset: u64,
}

/// The version of Valkey whose snapshots and commands this node reads.
const READ_VALKEY_VERSION: &[u8] = b"9.1.0";

const SILENT: &str = "Timeout connecting to the MASTER...";

impl Keeper {
    /// Makes the node known to the primary, and asks where to go on.
    pub(super) async fn agree(&mut self, wire: &mut Wire) -> Result<Agreed, Lost> {
        wire.command(&[b"PING"])?;
        check_ping(&wire.line(SILENT).await?)?;
        self.node.log.notice(format_args!(
            "Master replied to PING, replication can continue..."
        ));
        self.introduce(wire).await?;
        self.ask(wire).await
    }

    /// Logs in, and tells what the replica is and can.
    async fn introduce(&self, wire: &mut Wire) -> Result<(), Lost> {
        let settings = self.node.settings.load_full();
        let password = settings.masterauth.get();
        if let Some(password) = password {
            match settings.masteruser.get() {
                Some(user) => wire.command(&[b"AUTH", user, password])?,
                None => wire.command(&[b"AUTH", password])?,
            }
        }
        let port = match settings.replica_announce_port {
            0 => self.node.replication_port(),
            port => port,
        };
        wire.command(&[b"REPLCONF", b"listening-port", port.to_string().as_bytes()])?;
        let address = settings.replica_announce_ip.as_bytes();
        if !address.is_empty() {
            wire.command(&[b"REPLCONF", b"ip-address", address])?;
        }
        wire.command(&[b"REPLCONF", b"capa", b"eof", b"capa", b"psync2"])?;
        // A Valkey does not send what it takes a replica to be too old for: fields that expire.
        wire.command(&[b"REPLCONF", b"version", READ_VALKEY_VERSION])?;
        if password.is_some() {
            let answer = wire.line(SILENT).await?;
            if answer.starts_with('-') {
                return Err(Lost::Refused(format!("Unable to AUTH to MASTER: {answer}")));
            }
        }
        let told = [
            Some("listening-port"),
            (!address.is_empty()).then_some("ip-address"),
            Some("capa"),
            Some("version"),
        ];
        for option in told.into_iter().flatten() {
            let answer = wire.line(SILENT).await?;
            if answer.starts_with('-') {
                self.node.log.notice(format_args!(
                    "(Non critical) Master does not understand REPLCONF {option}: {answer}"
                ));
            }
        }
        Ok(())
    }

    /// Asks the primary to go on where this node stands.
    async fn ask(&self, wire: &mut Wire) -> Result<Agreed, Lost> {
        let log = &self.node.log;
        let (id, next) = if self.following().link().is_resumable {
            let id = self.node.replication.history.lock().id().to_owned();
            let next = self.node.journal.end().offset() + 1;
            log.notice(format_args!(
                "Trying a partial resynchronization (request {id}:{next})."
            ));
            (id, next.to_string())
        } else {
            log.notice(format_args!(
                "Partial resynchronization not possible (no cached master)"
            ));
            ("?".to_owned(), "-1".to_owned())
        };
        let (id, next) = (id.as_bytes(), next.as_bytes());
        let failover = &self.node.replication.failover;
        let told = (failover.stage() == FailoverStage::UnderWay).then(|| failover.note_told());
        match told {
            Some(_) => wire.command(&[b"PSYNC", id, next, b"FAILOVER"])?,
            None => wire.command(&[b"PSYNC", id, next])?,
        }
        let answer = wire.answer("Timeout receiving bulk data from MASTER...").await?;
        let agreed = answer_to_psync(&answer);
        if let Some(was_told) = told {
            self.note_failover(&agreed, &answer, was_told)?;
        }
        match agreed? {
            Some(agreed) => {
                if let Agreed::Full {
                    origin: Some(Place { id, offset }),
                } = &agreed
                {
                    log.notice(format_args!("Full resync from master: {id}:{offset}"));
                }
                Ok(agreed)
            }
            None => {
                if !answer.starts_with("-ERR") {
                    log.warning(format_args!("Unexpected reply to PSYNC from master: {answer}"));
                }
                log.notice(format_args!("Retrying with SYNC..."));
                wire.command(&[b"SYNC"])?;
                Ok(Agreed::Full { origin: None })
            }
        }
    }

    /// Ends a failover, or gives it up, as the target has answered. It `was_told` before if an earlier answer was lost.
    fn note_failover(
        &self,
        agreed: &Result<Option<Agreed>, Lost>,
        answer: &str,
        was_told: bool,
    ) -> Result<(), Lost> {
        if let Ok(Some(_)) = agreed {
            self.node.end_failover();
            return Ok(());
        }
        if was_told && answer.starts_with(IS_PRIMARY) {
            // It has become one by the request before this one. If the node were a primary again, there would be two.
            self.node.end_failover();
        } else {
            self.node.abort_failover("Failover target rejected psync request");
        }
        Err(Lost::Refused(format!("The failover target answers: {answer}")))
    }
}

/// Answer to a request to become a primary, of a node that is one.
const IS_PRIMARY: &str = "-ERR PSYNC FAILOVER can't be sent to a master.";

/// Whether the handshake may go on after this answer to PING: without a password it is an error.
fn check_ping(answer: &str) -> Result<(), Lost> {
    let may_go_on = ["+", "-NOAUTH", "-NOPERM", "-ERR operation not permitted"];
    if may_go_on.iter().any(|begin| answer.starts_with(begin)) {
        return Ok(());
    }
    Err(Lost::Refused(format!(
        "Error reply to PING from master: '{answer}'"
    )))
}

/// Meaning of the answer to PSYNC; none if the primary does not know that command.
fn answer_to_psync(answer: &str) -> Result<Option<Agreed>, Lost> {
    let mut words = answer.split_ascii_whitespace();
    let is_id = |id: &&str| id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    match words.next() {
        Some("+FULLRESYNC") => {
            let id = words.next().filter(is_id);
            let offset = words.next().and_then(|offset| offset.parse().ok());
            let origin = id.zip(offset).map(|(id, offset)| Place {
                id: id.to_owned(),
                offset,
            });
            match origin {
                Some(origin) => Ok(Some(Agreed::Full { origin: Some(origin) })),
                None => Err(Lost::Refused(format!(
                    "Master replied with wrong +FULLRESYNC syntax: {answer}"
                ))),
            }
        }
        Some("+CONTINUE") => Ok(Some(Agreed::Continue {
            id: words.next().filter(is_id).map(str::to_owned),
        })),
        Some("-NOMASTERLINK" | "-LOADING") => Err(Lost::Refused(format!(
            "Master is currently unable to PSYNC but should be in the future: {answer}"
        ))),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn answers_to_ping() {
        for answer in [
            "+PONG",
            "+",
            "-NOAUTH x",
            "-NOPERM",
            "-ERR operation not permitted",
        ] {
            assert!(check_ping(answer).is_ok(), "{answer}");
        }
        for answer in ["-ERR max number of clients reached", "-LOADING", ":1", ""] {
            assert!(check_ping(answer).is_err(), "{answer}");
        }
    }

    #[test]
    fn answers_to_psync() {
        let shown = |answer: &str| match answer_to_psync(answer) {
            Ok(agreed) => format!("{agreed:?}"),
            Err(_) => "lost".to_owned(),
        };
        let place = format!("Place {{ id: \"{ID}\", offset: 17 }}");
        for (answer, expected) in [
            (
                format!("+FULLRESYNC {ID} 17"),
                format!("Some(Full {{ origin: Some({place}) }})"),
            ),
            ("+FULLRESYNC".to_owned(), "lost".to_owned()),
            (format!("+FULLRESYNC {ID} x"), "lost".to_owned()),
            ("+CONTINUE".to_owned(), "Some(Continue { id: None })".to_owned()),
            (
                format!("+CONTINUE {ID}"),
                format!("Some(Continue {{ id: Some(\"{ID}\") }})"),
            ),
            ("-NOMASTERLINK Can't SYNC".to_owned(), "lost".to_owned()),
            ("-LOADING x".to_owned(), "lost".to_owned()),
            ("-ERR unknown command 'PSYNC'".to_owned(), "None".to_owned()),
        ] {
            assert_eq!(shown(&answer), expected, "{answer}");
        }
    }
}
