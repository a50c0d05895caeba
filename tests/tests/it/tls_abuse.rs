//! Abuse of ports: no TLS where there should be some, TLS where there should be none, and handshakes that are slow,
//! broken, endless or many.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use shardis_tests::client::Client;
use shardis_tests::tls::Secured;
use shardis_tests::wait::wait_until;
use shardis_tests::{info, node, redis};

const ANYBODY: [&str; 2] = ["--tls-auth-clients", "no"];

fn everywhere(check: impl Fn(&Secured)) {
    for backend in ["epoll", "io_uring"] {
        check(&Secured::start(
            node::launch(2).with(&["--io-backend", backend]),
            &ANYBODY,
        ));
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    stream
}

/// Reads until the end, which must come soon.
fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return bytes,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return bytes,
            Err(error) => panic!("the connection does not end: {error} after {bytes:?}"),
        }
    }
}

/// The first bytes of a client.
fn hello(server: &Secured) -> (ClientConnection, Vec<u8>) {
    let name = ServerName::from(server.address().ip());
    let mut connection = ClientConnection::new(server.authority.client(None), name).expect("a session");
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).expect("they are written");
    (connection, bytes)
}

fn is_well(server: &Secured) {
    assert_eq!(server.connect(None).line("PING").text(), "PONG");
    let mut control = server.process.connect();
    wait_until("nothing is left over", || {
        info::figure(&mut control, "connected_clients") == 1
    });
}

#[test]
fn plain_bytes_on_the_port_for_tls_end_the_connection_with_one_line() {
    everywhere(|server| {
        for bytes in [
            b"PING\r\n".as_slice(),
            b"*1\r\n$4\r\nPING\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            &[0; 100],
        ] {
            for _ in 0..10 {
                let mut stream = connect(server.address());
                stream.write_all(bytes).expect("they are sent");
                let answer = read_to_end(&mut stream);
                assert!(
                    answer.is_empty() || answer[0] == 0x15,
                    "an alert or nothing: {answer:?}"
                );
            }
        }
        let log = server.process.log();
        let told = log.matches("Error accepting a client connection").count();
        assert!((1..=8).contains(&told), "{log}");
        is_well(server);
    });
}

#[test]
fn tls_on_a_plain_port_ends_the_connection_with_one_line() {
    everywhere(|server| {
        for cut in [usize::MAX, 6] {
            let (_, mut bytes) = hello(server);
            bytes.truncate(cut);
            let mut stream = connect(server.process.address());
            stream.write_all(&bytes).expect("they are sent");
            assert!(read_to_end(&mut stream).is_empty());
        }
        let log = server.process.log();
        assert!(
            log.contains("a TLS handshake came on a port without TLS"),
            "{log}"
        );
        // The same bytes as an argument are bytes.
        let (_, bytes) = hello(server);
        let mut client = server.process.connect();
        assert_eq!(client.call(&[b"SET".as_slice(), b"k", &bytes]).text(), "OK");
        assert!(client.call(&["GET", "k"]).bytes() == bytes);
        drop(client);
        is_well(server);
    });
}

#[test]
fn a_slow_handshake_holds_nobody_up() {
    everywhere(|server| {
        let (mut connection, bytes) = hello(server);
        let mut stream = connect(server.address());
        stream.set_nodelay(true).expect("it can be set");
        let mut other = server.connect(None);
        for byte in &bytes {
            stream.write_all(&[*byte]).expect("it is sent");
            assert_eq!(other.line("PING").text(), "PONG");
        }
        while connection.is_handshaking() {
            connection
                .complete_io(&mut stream)
                .expect("the handshake goes on");
        }
        connection.writer().write_all(b"PING\r\n").expect("it is taken");
        connection.complete_io(&mut stream).expect("it is sent");
        let mut reply = [0; 7];
        rustls::Stream::new(&mut connection, &mut stream)
            .read_exact(&mut reply)
            .expect("a reply");
        assert_eq!(&reply, b"+PONG\r\n");
    });
}

#[test]
fn a_handshake_that_is_not_completed_ends_in_time() {
    let server = Secured::start(node::launch(2), &ANYBODY);
    let (_, bytes) = hello(&server);
    let started = Instant::now();
    let mut silent = connect(server.address());
    let mut half = connect(server.address());
    half.write_all(&bytes[..bytes.len() / 2]).expect("they are sent");
    for stream in [&mut silent, &mut half] {
        assert!(read_to_end(stream).is_empty());
    }
    let taken = started.elapsed();
    assert!((9..16).contains(&taken.as_secs()), "{taken:?}");
    assert!(
        server
            .process
            .log()
            .contains("did not complete its handshake in time")
    );
    is_well(&server);
}

#[test]
fn cut_handshakes_leave_nothing() {
    everywhere(|server| {
        let (_, bytes) = hello(server);
        for cut in (0..=bytes.len()).step_by(11) {
            let mut stream = connect(server.address());
            stream.write_all(&bytes[..cut]).expect("they are sent");
            match cut % 3 {
                0 => drop(stream),
                1 => stream.shutdown(Shutdown::Write).expect("it can be shut"),
                _ => stream.shutdown(Shutdown::Both).expect("it can be shut"),
            }
        }
        is_well(server);
    });
}

#[test]
fn oversized_and_broken_records_end_the_connection() {
    everywhere(|server| {
        let oversized = [&[0x16, 3, 1, 0xff, 0xff][..], &[0; 70_000]].concat();
        let endless = [&[0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff][..], &[0; 16_380]].concat();
        for bytes in [&oversized, &endless.repeat(8)] {
            let mut stream = connect(server.address());
            // The server may have closed the connection before all is sent.
            let _ = stream.write_all(bytes);
            read_to_end(&mut stream);
        }
        // In an open session: a record that nobody has sealed, one that is too long, and a cut one.
        for bytes in [
            &[0x17, 3, 3, 0, 32][..],
            &[0x17, 3, 3, 0x50, 0],
            &[0x16, 3, 3, 0, 4],
            b"PING\r\n",
        ] {
            let mut client = server.connect(None);
            let session = client.session();
            let sent = [bytes, &[0; 21_000]].concat();
            let _ = session.sock.write_all(&sent);
            let end = client.read_within(Duration::from_secs(20));
            assert!(
                end.as_ref()
                    .is_err_and(|error| error.kind() != ErrorKind::TimedOut),
                "{bytes:?}: {end:?}"
            );
        }
        is_well(server);
    });
}

#[test]
fn renegotiation_is_refused() {
    let server = Secured::start(node::launch(1), &ANYBODY);
    let mut child = std::process::Command::new(redis::tool("openssl"))
        .args(["s_client", "-tls1_2", "-connect", &server.address().to_string()])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut input = child.stdin.take().expect("its input");
    sleep(Duration::from_millis(500));
    input.write_all(b"R\n").expect("it is sent");
    sleep(Duration::from_millis(500));
    let _ = input.write_all(b"PING\r\n");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("RENEGOTIATING"), "{text}");
    assert!(
        !text.contains("+PONG") || text.contains("no renegotiation"),
        "{text}"
    );
    is_well(&server);
}

/// Each turn takes one step of one handshake, so that whoever is served already has a turn between any two.
#[test]
fn many_handshakes_take_many_turns() {
    for backend in ["epoll", "io_uring"] {
        let server = Secured::start(node::launch(1).with(&["--io-backend", backend]), &ANYBODY);
        let mut control = server.process.connect();
        const COUNT: usize = 100;
        let before = info::figure(&mut control, "eventloop_cycles");
        let (sessions, hellos): (Vec<_>, Vec<_>) = (0..COUNT).map(|_| hello(&server)).unzip();
        let mut streams: Vec<TcpStream> = (0..COUNT).map(|_| connect(server.address())).collect();
        // They come while the loop is held up, all at once.
        control.line("CONFIG SET tls-session-caching no");
        for (stream, bytes) in streams.iter_mut().zip(&hellos) {
            stream.write_all(bytes).expect("it is sent");
        }
        for (mut session, stream) in sessions.into_iter().zip(&mut streams) {
            while session.is_handshaking() {
                session.complete_io(stream).expect("the handshake goes on");
            }
            // The server has taken the last step when it answers.
            let mut client = rustls::Stream::new(&mut session, stream);
            client.write_all(b"PING\r\n").expect("it is sent");
            client.read_exact(&mut [0; 7]).expect("a reply");
        }
        let turns = info::figure(&mut control, "eventloop_cycles") - before;
        assert!(
            turns >= 2 * COUNT as u64,
            "{turns} turns for {COUNT} handshakes of two steps"
        );
    }
}

#[test]
fn clients_beyond_the_limit_are_dropped_and_strangers_told() {
    let options = ["--tls-auth-clients", "no", "--maxclients", "2"];
    let server = Secured::start(node::launch(1), &options);
    let (_first, _second) = (server.connect(None), server.process.connect());
    assert!(Client::connect_tls(server.address(), &server.authority.client(None)).is_err());
}
