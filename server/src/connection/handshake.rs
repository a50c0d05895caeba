//! Handshakes of connections to other nodes, in tasks of the control thread.
//!
//! A step of a handshake takes as long as hundreds of packets, and strangers may begin many. So one step of one of them is taken at a
//! time, and then everything else comes first that is ready on the thread: replies to pings above all.

use std::io::{self, Read};
use std::rc::Rc;

use rustls::Connection;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::yield_now;

use super::node_stream::Unready;

thread_local! {
    /// Leave for the step of a handshake on this thread.
    static STEP: Rc<Semaphore> = Rc::new(Semaphore::new(1));
}

/// Carries a session on until its handshake is complete, and all that belongs to it is sent.
///
/// # Errors
/// When the peer does not speak TLS, is not trusted, or has gone.
pub(super) async fn complete(stream: &TcpStream, connection: &mut Connection) -> io::Result<()> {
    let leave = STEP.with(Rc::clone);
    loop {
        send(stream, connection).await?;
        if !connection.is_handshaking() {
            return Ok(());
        }
        stream.readable().await?;
        let taken = leave.acquire().await;
        let outcome = take_step(stream, connection);
        yield_now().await;
        drop(taken);
        outcome?;
    }
}

/// Sends everything that is sealed.
async fn send(stream: &TcpStream, connection: &mut Connection) -> io::Result<()> {
    while connection.wants_write() {
        match connection.write_tls(&mut Unready(stream)) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Takes in what has come.
fn take_step(stream: &TcpStream, connection: &mut Connection) -> io::Result<()> {
    match connection.read_tls(&mut Unready(stream)) {
        Ok(0) => {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the connection was closed during the handshake",
            ));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
        Err(error) => return Err(error),
    }
    if let Err(error) = connection.process_new_packets() {
        // An alert tells the peer why; it has failed in any case.
        let _ = connection.write_tls(&mut Unready(stream));
        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
    }
    Ok(())
}

impl Read for Unready<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::Arc;

    use rustls::crypto::aws_lc_rs::default_provider;
    use rustls::server::ResolvesServerCertUsingSni;
    use rustls::{ServerConfig, ServerConnection};
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::task::{LocalSet, spawn_local};

    use super::*;

    /// A connection whose peer has sent what is no handshake.
    async fn broken() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        peer.write_all(b"no handshake of TLS").await.unwrap();
        let stream = listener.accept().await.unwrap().0;
        stream.readable().await.unwrap();
        (stream, peer)
    }

    #[test]
    fn other_work_comes_between_two_steps() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()));
        let config = Arc::new(config);
        let happened: Rc<RefCell<Vec<&str>>> = Rc::default();
        LocalSet::new().block_on(&runtime, async {
            let mut connections = Vec::new();
            for _ in 0..20 {
                connections.push(broken().await);
            }
            // From here on all of them are ready at once.
            let other = spawn_local({
                let happened = Rc::clone(&happened);
                async move {
                    loop {
                        happened.borrow_mut().push("other");
                        yield_now().await;
                    }
                }
            });
            let begin = |(stream, peer)| {
                let mut connection = ServerConnection::new(Arc::clone(&config)).unwrap().into();
                let happened = Rc::clone(&happened);
                spawn_local(async move {
                    let outcome = complete(&stream, &mut connection).await;
                    assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::InvalidData);
                    happened.borrow_mut().push("step");
                    drop(peer);
                })
            };
            let handshakes: Vec<_> = connections.into_iter().map(begin).collect();
            for handshake in handshakes {
                handshake.await.unwrap();
            }
            other.abort();
        });
        let happened = happened.borrow();
        assert_eq!(happened.iter().filter(|what| **what == "step").count(), 20);
        let together = happened.windows(2).filter(|pair| *pair == ["step", "step"]);
        assert_eq!(together.count(), 0, "{happened:?}");
    }
}
