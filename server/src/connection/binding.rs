//! The TCP addresses that a node listens on, at the start and after a change of `port` or `bind`.
//!
//! Addresses that stay keep their sockets, with the connections that wait there. New addresses are opened before old
//! ones are closed, except where an old one is in the way: one address and the wildcard cannot be listened on at the
//! same port. In that case the old socket stops listening first, and listens again if the new one fails.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use socket2::SockRef;

use super::listener::bind_tcp;
use crate::config::Settings;
use crate::log::Log;
use crate::shard::poll::Listener;

/// A TCP address that the node listens on.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    /// The address, with the port that was really bound.
    pub(crate) address: SocketAddr,
    /// Its socket.
    listener: Arc<Listener>,
}

/// Traffic of the connections of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// Requests.
    Plain,
    /// Sessions of TLS.
    Tls,
}

/// Listens on every address of `bind` at a port; 0 means any free port, the same for all. Sockets of `current` stay
/// open if their addresses are still configured; on success, the others no longer listen.
///
/// # Errors
/// The error for the first address that cannot be listened on. Then nothing has changed.
pub(crate) fn rebind(
    current: &[Bound],
    settings: &Settings,
    (transport, port): (Transport, u16),
    log: &Log,
) -> io::Result<Vec<Bound>> {
    let mut change = Change {
        current,
        transport,
        backlog: settings.tcp_backlog as i32,
        bound: Vec::new(),
        has_made_room: false,
    };
    let mut port = port;
    for name in &settings.bind.0 {
        match change.open(name, port) {
            Ok(Some(found)) => port = found,
            Ok(None) => {}
            Err(error) => {
                log.warning(format_args!(
                    "Warning: Could not create server TCP listening socket {}:{port}: {error}",
                    name.trim_start_matches('-')
                ));
                change.undo(log);
                return Err(error);
            }
        }
    }
    Ok(change.complete())
}

/// Stops listening on all addresses.
pub(crate) fn unbind(current: &[Bound]) {
    current.iter().for_each(Bound::stop);
}

impl Bound {
    /// Its socket.
    pub(crate) fn listener(&self) -> Arc<Listener> {
        Arc::clone(&self.listener)
    }

    /// Its socket, for another runtime than the loops'; none if something else uses it already.
    pub(crate) fn into_std(self) -> Option<std::net::TcpListener> {
        match Arc::into_inner(self.listener)? {
            Listener::Tcp(listener) | Listener::Tls(listener) => Some(listener.into()),
            Listener::Unix(_) => None,
        }
    }

    fn socket(&self) -> Option<SockRef<'_>> {
        match &*self.listener {
            Listener::Tcp(listener) | Listener::Tls(listener) => Some(SockRef::from(listener)),
            Listener::Unix(_) => None,
        }
    }

    /// Stops listening, although loops may still hold the socket.
    fn stop(&self) {
        if let Some(socket) = self.socket() {
            // Fails if the socket does not listen any more, which is the goal.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Listens again.
    fn resume(&self, backlog: i32) -> io::Result<()> {
        self.socket().map_or(Ok(()), |socket| socket.listen(backlog))
    }
}

/// A change of addresses under way.
struct Change<'a> {
    current: &'a [Bound],
    transport: Transport,
    backlog: i32,
    /// Addresses after the change, as far as they are open already.
    bound: Vec<Bound>,
    /// Whether old addresses have stopped listening to make room.
    has_made_room: bool,
}

impl Change<'_> {
    /// Listens on one more address. Returns the port; none if an address with a leading `-` does not exist on this
    /// machine.
    fn open(&mut self, name: &str, port: u16) -> io::Result<Option<u16>> {
        let (name, optional) = match name.strip_prefix('-') {
            Some(name) => (name, true),
            None => (name, false),
        };
        match resolve(name).and_then(|ip| self.open_at(SocketAddr::new(ip, port))) {
            Ok(port) => Ok(Some(port)),
            Err(error) if optional && is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open_at(&mut self, wanted: SocketAddr) -> io::Result<u16> {
        let same = |bound: &&Bound| bound.address == wanted;
        if let Some(kept) = self.current.iter().find(same) {
            if self.has_made_room {
                kept.resume(self.backlog)?;
            }
            self.bound.push(kept.clone());
            return Ok(wanted.port());
        }
        let bind = || bind_tcp(wanted.ip(), wanted.port(), self.backlog);
        let (listener, address) = match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && self.stands_in_its_own_way(wanted) => {
                self.has_made_room = true;
                self.leaving(wanted.port()).for_each(Bound::stop);
                bind_tcp(wanted.ip(), wanted.port(), self.backlog)?
            }
            outcome => outcome?,
        };
        self.bound.push(Bound {
            address,
            listener: Arc::new(match self.transport {
                Transport::Plain => Listener::Tcp(listener),
                Transport::Tls => Listener::Tls(listener),
            }),
        });
        Ok(address.port())
    }

    /// Whether an address of this node at the same port is in the way.
    fn stands_in_its_own_way(&self, wanted: SocketAddr) -> bool {
        self.leaving(wanted.port()).next().is_some()
    }

    /// Addresses at a port that are not part of the new ones, as far as those are known.
    fn leaving(&self, port: u16) -> impl Iterator<Item = &Bound> {
        let stays = |bound: &Bound| self.bound.iter().any(|kept| kept.address == bound.address);
        self.current
            .iter()
            .filter(move |bound| bound.address.port() == port && !stays(bound))
    }

    /// Restores the state before the change.
    fn undo(self, log: &Log) {
        let Self {
            current,
            backlog,
            bound,
            has_made_room,
            ..
        } = self;
        // Closing the new sockets makes room for the old ones again.
        drop(bound);
        if !has_made_room {
            return;
        }
        for old in current {
            if let Err(error) = old.resume(backlog) {
                log.warning(format_args!(
                    "The former address {} could not be listened on again: {error}",
                    old.address
                ));
            }
        }
    }

    fn complete(self) -> Vec<Bound> {
        let stays = |old: &&Bound| self.bound.iter().any(|bound| bound.address == old.address);
        self.current
            .iter()
            .filter(|old| !stays(old))
            .for_each(Bound::stop);
        self.bound
    }
}

fn resolve(name: &str) -> io::Result<IpAddr> {
    match name {
        "*" => Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        "::*" => Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        _ => match name.parse() {
            Ok(ip) => Ok(ip),
            Err(_) => (name, 0)
                .to_socket_addrs()?
                .next()
                .map(|address: SocketAddr| address.ip())
                .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
        },
    }
}

/// Whether the error means that an address, or its whole family, does not exist on this machine.
fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || matches!(
            error.raw_os_error(),
            Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT)
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BindAddresses;
    use crate::log::Level;
    use std::net::{TcpListener, TcpStream};

    fn settings(addresses: &[&str]) -> Settings {
        Settings {
            bind: BindAddresses(addresses.iter().map(|address| (*address).to_owned()).collect()),
            ..Settings::default()
        }
    }

    fn listen(current: &[Bound], addresses: &[&str], port: u16) -> io::Result<Vec<Bound>> {
        let (settings, log) = (settings(addresses), Log::new(Level::Nothing));
        rebind(current, &settings, (Transport::Plain, port), &log)
    }

    fn answers(ip: &str, port: u16) -> bool {
        TcpStream::connect((ip, port)).is_ok()
    }

    #[test]
    fn what_stays_the_same_stays_open() {
        let first = listen(&[], &["127.0.0.1", "-203.0.113.1"], 0).unwrap();
        let port = first[0].address.port();
        assert_eq!(first.len(), 1, "an optional address that is not here");
        let waiting = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let second = listen(&first, &["127.0.0.1", "127.0.0.2"], port).unwrap();
        assert!(Arc::ptr_eq(&first[0].listener, &second[0].listener));
        assert!(answers("127.0.0.2", port));
        let Listener::Tcp(listener) = &*second[0].listener else {
            panic!("not TCP")
        };
        assert_eq!(listener.accept().unwrap().1, waiting.local_addr().unwrap());
        let third = listen(&second, &["127.0.0.2"], port).unwrap();
        assert!(!answers("127.0.0.1", port) && answers("127.0.0.2", port));
        unbind(&third);
        assert!(!answers("127.0.0.2", port));
    }

    #[test]
    fn one_address_and_all_take_turns() {
        let one = listen(&[], &["127.0.0.1"], 0).unwrap();
        let port = one[0].address.port();
        let all = listen(&one, &["*"], port).unwrap();
        assert!(answers("127.0.0.1", port) && answers("127.0.0.2", port));
        let one = listen(&all, &["127.0.0.1"], port).unwrap();
        assert!(answers("127.0.0.1", port) && !answers("127.0.0.2", port));
        let both = listen(&one, &["127.0.0.3", "127.0.0.1"], port).unwrap();
        assert!(answers("127.0.0.1", port) && answers("127.0.0.3", port));
        drop(both);
    }

    #[test]
    fn a_change_that_fails_changes_nothing() {
        let taken = TcpListener::bind("127.0.0.5:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let current = listen(&[], &["127.0.0.1"], port).unwrap();
        // The port is taken on one of these addresses, so that all of them fail.
        for addresses in [
            &["127.0.0.2", "127.0.0.5"][..],
            &["*"],
            &["127.0.0.2", "203.0.113.1"],
        ] {
            assert!(listen(&current, addresses, port).is_err(), "{addresses:?}");
            assert!(answers("127.0.0.1", port), "{addresses:?}");
            assert!(!answers("127.0.0.2", port), "{addresses:?}");
        }
        let after = listen(&current, &["127.0.0.1"], port).unwrap();
        assert!(Arc::ptr_eq(&after[0].listener, &current[0].listener));
    }
}
