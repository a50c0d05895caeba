//! Handshakes of TLS: few steps in a turn, since one takes as long as hundreds of commands; and the user of a client that has
//! completed one.

use std::fmt::Display;

use super::EventLoop;
use super::accept::PROTECTED;
use crate::acl::RefusalReason;
use crate::config::{Settings, TlsClientUser};
use crate::exec::Peer;
use crate::limits::{TLS_FAILURES_TOLD_MS, TLS_HANDSHAKE_MS};
use crate::tls::name_in_certificate;

/// Handshakes of a loop.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    /// Number of steps in this turn: each takes in what one client has sent.
    steps: u32,
    /// Time of the last line about failures, Unix milliseconds.
    told_ms: i64,
    /// Number of failures since then.
    untold: u64,
}

impl Handshakes {
    /// Begins a turn, in which none has been taken.
    pub(super) fn begin_turn(&mut self) {
        self.steps = 0;
    }

    /// Whether another step may be taken in this turn. If not, the client waits for the next one.
    pub(super) fn may_go_on(&self, settings: &Settings) -> bool {
        self.steps < settings.max_new_tls_connections_per_cycle
    }
}

impl EventLoop {
    /// Goes on with a connection that was read while its handshake was not complete, of which `before` bytes had come. False when no
    /// request of it is to be taken.
    #[cold]
    pub(super) fn continue_handshake(&mut self, number: usize, before: usize) -> bool {
        let Some(session) = self.clients[number].socket.session() else {
            return true;
        };
        self.handshakes.steps += u32::from(session.handshake_bytes() > before);
        if let Some(error) = session.failure().cloned() {
            self.tell_failure(number, &error);
            return true;
        }
        if !session.is_open() {
            return true;
        }
        if self.is_protected_from(&self.clients[number].client.peer) {
            self.node.stats[self.index].rejected.add(1);
            self.last_words(number, PROTECTED.trim_start_matches('-').trim_end().as_bytes());
            return false;
        }
        self.authenticate_by_certificate(number);
        true
    }

    /// Has a client act as the user that its certificate names. If there is none of that name, or none that is on, the client is what
    /// it would be without a certificate.
    fn authenticate_by_certificate(&mut self, number: usize) {
        let field = self.settings.tls_auth_clients_user;
        let client = &mut self.clients.connections[number];
        let Some(certificate) = client.socket.session().and_then(|session| session.certificate()) else {
            return;
        };
        let client = &mut client.client;
        client.certificate_name = name_in_certificate(certificate, TlsClientUser::CommonName)
            .pop()
            .map(Vec::into_boxed_slice);
        let names = name_in_certificate(certificate, field);
        let Some(first) = names.first() else { return };
        let users = self.node.acl.users();
        let mut known = names.iter().filter_map(|name| users.find(name));
        if let Some(user) = known.find(|user| user.is_enabled()) {
            client.identity.authenticate(user, &users);
            self.node.log.verbose(format_args!(
                "TLS: Auto-authenticated client as {}",
                String::from_utf8_lossy(user.name())
            ));
        } else {
            client.note_refusal(RefusalReason::TlsCertificate, b"", Some(first));
            self.log_refusals(number);
        }
    }

    /// Ends a connection whose client does not complete its handshake.
    #[cold]
    pub(super) fn end_late_handshake(&mut self, number: usize) {
        if self.now_ms() - self.clients[number].client.created_ms > TLS_HANDSHAKE_MS {
            self.tell_failure(number, &"the client did not complete its handshake in time");
            self.clients.disconnect(number);
        }
    }

    /// Ends a connection without TLS whose client begins a handshake.
    #[cold]
    pub(super) fn turn_away_handshake(&mut self, number: usize) {
        self.tell_failure(number, &"a TLS handshake came on a port without TLS");
        self.clients.disconnect(number);
    }

    /// Logs that a connection could not be opened; one line in some time, however many there are.
    fn tell_failure(&mut self, number: usize, why: &dyn Display) {
        let now_ms = self.now_ms();
        if now_ms - self.handshakes.told_ms < TLS_FAILURES_TOLD_MS {
            self.handshakes.untold += 1;
            return;
        }
        self.handshakes.told_ms = now_ms;
        let others = match std::mem::take(&mut self.handshakes.untold) {
            0 => String::new(),
            count => format!("; {count} others before"),
        };
        let peer: &Peer = &self.clients[number].client.peer;
        self.node.log.notice(format_args!(
            "Error accepting a client connection: {why} (addr={} laddr={}{others})",
            peer.remote(),
            peer.local()
        ));
    }
}
