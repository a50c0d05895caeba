//! Listening sockets: all loops accept connections from them, and deal the connections to all loops.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, TcpKeepalive, Type};

use crate::exec::Peer;
use crate::shard::poll::{Listener, Secured, Socket};
use crate::tls::Tls;

/// The listening sockets of a node. They may be exchanged at run time: each loop follows the list in here.
#[derive(Debug)]
pub(crate) struct Listeners {
    current: ArcSwap<Vec<NumberedListener>>,
    unix_path: Arc<str>,
    /// Contexts of connections over TLS.
    tls: Arc<Tls>,
}

/// A listening socket and its number.
#[derive(Clone, Debug)]
pub(crate) struct NumberedListener {
    /// Its number, which is not reused as long as a loop may wait for the socket.
    pub(crate) number: usize,
    /// The socket. It is closed when the last loop has dropped it.
    pub(crate) listener: Arc<Listener>,
}

impl Listeners {
    /// A list of these sockets; a Unix socket among them is bound to `unix_path`.
    pub(crate) fn new(
        listeners: impl IntoIterator<Item = Arc<Listener>>,
        unix_path: &str,
        tls: Arc<Tls>,
    ) -> Self {
        let numbered = listeners.into_iter().enumerate();
        let numbered = numbered.map(|(number, listener)| NumberedListener { number, listener });
        Self {
            current: ArcSwap::from_pointee(numbered.collect()),
            unix_path: unix_path.into(),
            tls,
        }
    }

    /// Exchanges the TCP sockets. A socket that stays keeps its number; a new one gets a number that no loop may
    /// still know an old one by.
    pub(crate) fn exchange(&self, tcp: impl IntoIterator<Item = Arc<Listener>>) {
        let old = self.current.load();
        let mut taken: Vec<usize> = old.iter().map(|known| known.number).collect();
        let is_unix = |known: &&NumberedListener| matches!(*known.listener, Listener::Unix(_));
        let mut numbered: Vec<NumberedListener> = old.iter().filter(is_unix).cloned().collect();
        for listener in tcp {
            let kept = old.iter().find(|known| Arc::ptr_eq(&known.listener, &listener));
            numbered.push(kept.cloned().unwrap_or_else(|| {
                let free = (0..).find(|number| !taken.contains(number));
                let number = free.expect("few numbers are taken");
                taken.push(number);
                NumberedListener { number, listener }
            }));
        }
        self.current.store(Arc::new(numbered));
    }

    /// The sockets to wait for now.
    pub(crate) fn current(&self) -> arc_swap::Guard<Arc<Vec<NumberedListener>>> {
        self.current.load()
    }

    /// Accepts the next connection from one of the sockets.
    ///
    /// # Errors
    /// The error of the system call, `WouldBlock` when no connection waits.
    pub(crate) fn accept(&self, from: &NumberedListener, keepalive_s: u32) -> io::Result<(Socket, Peer)> {
        match &*from.listener {
            Listener::Tcp(listener) => {
                let (stream, peer) = accept_tcp(listener, keepalive_s)?;
                Ok((Socket::Tcp(stream), peer))
            }
            Listener::Tls(listener) => {
                let (stream, peer) = accept_tcp(listener, keepalive_s)?;
                Ok((Socket::Tls(Box::new(self.secure(stream)?)), peer))
            }
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                Ok((Socket::Unix(stream), Peer::Unix(Arc::clone(&self.unix_path))))
            }
        }
    }

    /// A connection whose session begins with the contexts of this moment.
    fn secure(&self, stream: TcpStream) -> io::Result<Secured> {
        // While the port is being closed, there may be none any more.
        let contexts = self.tls.contexts().ok_or(io::ErrorKind::ConnectionAborted)?;
        Secured::new(stream, contexts.for_clients())
    }
}

/// Binds a TCP listener.
///
/// # Errors
/// The error of the system call.
pub(crate) fn bind_tcp(ip: IpAddr, port: u16, backlog: i32) -> io::Result<(TcpListener, SocketAddr)> {
    let address = SocketAddr::new(ip, port);
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // The IPv4 wildcard is bound separately.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    let listener = TcpListener::from_std(socket.into());
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Binds a Unix socket, after removing the file that an earlier run left at its path.
///
/// # Errors
/// The error of the system call.
pub(crate) fn bind_unix(path: &str, mode: Option<u32>) -> io::Result<Listener> {
    let _ = std::fs::remove_file(path);
    let listener = mio::net::UnixListener::bind(path)?;
    if let Some(mode) = mode {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(Listener::Unix(listener))
}

/// Accepts the next connection over TCP.
fn accept_tcp(listener: &TcpListener, keepalive_s: u32) -> io::Result<(TcpStream, Peer)> {
    let (stream, remote) = listener.accept()?;
    let local = stream.local_addr()?;
    // Replies are written once per turn: a delay by the kernel to collect more would be useless.
    let _ = stream.set_nodelay(true);
    if keepalive_s > 0 {
        let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive(keepalive_s));
    }
    Ok((stream, Peer::Tcp { remote, local }))
}

/// Keepalive with the first probe after the whole interval, and three further ones at a third of it.
fn keepalive(interval_s: u32) -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(interval_s.into()))
        .with_interval(Duration::from_secs((interval_s / 3).max(1).into()))
        .with_retries(3)
}
