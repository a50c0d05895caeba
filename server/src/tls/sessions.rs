//! [`Sessions`]: what a node keeps of finished handshakes, so that clients can resume them.
//!
//! A session is found by a number that only its client has, and is forgotten after some time, or when there are too many, the oldest
//! first. With it is kept the certificate that the client showed, so that a resumed session has the same user as a full handshake
//! would give it. Contexts have sessions of their own: other authorities may not trust that certificate any more.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::server::StoresServerSessions;

use crate::clock::Clock;
use crate::config::Settings;
use crate::limits::TLS_SESSIONS_MAX;

/// Sessions that can be resumed.
pub(super) struct Sessions {
    clock: Arc<Clock>,
    sessions_max: usize,
    timeout_ns: u64,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_number: HashMap<Vec<u8>, Session>,
    /// Numbers in the order in which they came, and that order's count. A session that was taken leaves its number here.
    order: VecDeque<(u64, Vec<u8>)>,
    count: u64,
}

struct Session {
    /// Count of the session in the order.
    place: u64,
    since_ns: u64,
    secrets: Vec<u8>,
}

impl Sessions {
    /// An empty store with the bounds of a configuration.
    pub(super) fn new(settings: &Settings, clock: Arc<Clock>) -> Self {
        Self {
            clock,
            sessions_max: match settings.tls_session_cache_size {
                // "Without a bound", for OpenSSL.
                0 => TLS_SESSIONS_MAX,
                size => (size as usize).min(TLS_SESSIONS_MAX),
            },
            timeout_ns: u64::from(settings.tls_session_cache_timeout) * 1_000_000_000,
            kept: Mutex::default(),
        }
    }

    fn is_over(&self, session: &Session) -> bool {
        self.clock.elapsed_ns() - session.since_ns >= self.timeout_ns
    }
}

impl Kept {
    /// Forgets the oldest session as long as it `is_too_much`.
    fn forget_while(&mut self, is_too_much: impl Fn(&Self, &Session) -> bool) {
        while let Some((place, number)) = self.order.front() {
            match self
                .by_number
                .get(number)
                .filter(|session| session.place == *place)
            {
                Some(oldest) if !is_too_much(self, oldest) => return,
                Some(_) => {
                    let (_, number) = self.order.pop_front().expect("it has a front");
                    self.by_number.remove(&number);
                }
                // It was taken, or replaced.
                None => {
                    self.order.pop_front();
                }
            }
        }
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, number: Vec<u8>, secrets: Vec<u8>) -> bool {
        let mut kept = self.kept.lock();
        let place = kept.count;
        kept.count += 1;
        kept.order.push_back((place, number.clone()));
        let session = Session {
            place,
            since_ns: self.clock.elapsed_ns(),
            secrets,
        };
        kept.by_number.insert(number, session);
        kept.forget_while(|kept, oldest| kept.by_number.len() > self.sessions_max || self.is_over(oldest));
        // Sessions that were taken leave their numbers behind others: no more than there may be sessions.
        if kept.order.len() > 2 * self.sessions_max {
            let Kept { by_number, order, .. } = &mut *kept;
            order.retain(|(place, number)| by_number.get(number).is_some_and(|known| known.place == *place));
        }
        true
    }

    fn get(&self, number: &[u8]) -> Option<Vec<u8>> {
        let kept = self.kept.lock();
        let session = kept
            .by_number
            .get(number)
            .filter(|session| !self.is_over(session));
        session.map(|session| session.secrets.clone())
    }

    fn take(&self, number: &[u8]) -> Option<Vec<u8>> {
        let session = self.kept.lock().by_number.remove(number)?;
        (!self.is_over(&session)).then_some(session.secrets)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

impl fmt::Debug for Sessions {
    /// Shows no secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions")
            .field("sessions", &self.kept.lock().by_number.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sessions(size: u32) -> (Sessions, Arc<Clock>) {
        let clock = Arc::new(Clock::manual(Duration::from_secs(1)));
        let settings = Settings {
            tls_session_cache_size: size,
            tls_session_cache_timeout: 300,
            ..Settings::default()
        };
        (Sessions::new(&settings, Arc::clone(&clock)), clock)
    }

    #[test]
    fn the_oldest_sessions_go_first() {
        let (sessions, _) = sessions(2);
        for number in 0..3_u8 {
            sessions.put(vec![number], vec![number]);
        }
        assert_eq!(sessions.get(&[0]), None);
        assert_eq!(sessions.get(&[1]), Some(vec![1]));
        assert_eq!(sessions.take(&[2]), Some(vec![2]));
        assert_eq!(sessions.take(&[2]), None, "a session is taken once");
    }

    #[test]
    fn sessions_end_with_time() {
        let (sessions, clock) = sessions(10);
        sessions.put(vec![1], vec![1]);
        clock.advance(Duration::from_secs(299));
        assert!(sessions.get(&[1]).is_some());
        clock.advance(Duration::from_secs(1));
        assert_eq!(sessions.get(&[1]), None);
        sessions.put(vec![2], vec![2]);
        assert_eq!(
            sessions.kept.lock().by_number.len(),
            1,
            "what is over takes no memory"
        );
    }

    #[test]
    fn taken_sessions_leave_nothing_behind() {
        let (sessions, _) = sessions(4);
        for round in 0..1000_u32 {
            let number = round.to_be_bytes().to_vec();
            sessions.put(number.clone(), vec![0]);
            if round > 0 {
                assert!(sessions.take(&number).is_some());
            }
        }
        let kept = sessions.kept.lock();
        assert!(
            kept.order.len() <= 9 && kept.by_number.len() == 1,
            "{}",
            kept.order.len()
        );
    }
}
