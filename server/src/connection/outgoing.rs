//! Connections that this node opens to others: to its primary, over the cluster bus, to the targets of MIGRATE.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpSocket, TcpStream, lookup_host};

/// Connects to a node by its name or address, from the address `source` (`bind-source-addr`) if that is one, and if this
/// machine has it. Waits for as long as the system does.
///
/// # Errors
/// When the name has no address, or none of its addresses takes the connection.
pub(crate) async fn connect(host: &str, port: u16, source: &str) -> io::Result<TcpStream> {
    connect_to_any(lookup_host((host, port)).await?, source).await
}

/// Connects to the first of these addresses that takes the connection, as [`connect`] does.
///
/// # Errors
/// When none of them does.
pub(crate) async fn connect_to_any(
    addresses: impl IntoIterator<Item = SocketAddr>,
    source: &str,
) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match connect_to(address, source).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

async fn connect_to(address: SocketAddr, source: &str) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Ok(source) = source.parse() {
        // As in Redis, a link from another address is better than none.
        let _ = socket.bind(SocketAddr::new(source, 0));
    }
    socket.connect(address).await
}
