//! Connections that other nodes open: their acceptance, and the signs of life that the system asks of them.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::mpsc::Sender;

use super::driver::News;
use crate::limits::BUS_ACCEPT_RETRY;

/// Accepts connections on one address until the driver has ended.
pub(super) async fn accept(listener: TcpListener, news: Sender<News>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if news.send(News::Accepted(stream)).await.is_err() {
                    return Ok(());
                }
            }
            // Too many files are open, or the caller has gone: neither is a reason to give up.
            Err(_) => tokio::time::sleep(BUS_ACCEPT_RETRY).await,
        }
    }
}

/// Sets a connection up: packets leave at once, and a peer whose host has vanished is noticed although this node only reads.
pub(super) fn set_up(stream: &TcpStream, node_timeout_ms: u64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let interval = Duration::from_secs((node_timeout_ms * 2 / 1_000).clamp(1, 3_600));
    let keepalive = TcpKeepalive::new()
        .with_time(interval)
        .with_interval(interval / 3 + Duration::from_secs(1))
        .with_retries(3);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
