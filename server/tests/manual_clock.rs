//! A server whose clock its host moves.

#![expect(clippy::disallowed_methods, reason = "the host's own time is real")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use shardis::Server;

/// Bytes of the two strings whose common subsequence keeps the loop busy for a while.
const LONG_BYTES: usize = 40_000;

struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address()).expect("the server is there");
        stream
            .set_read_timeout(Some(Duration::from_secs(15)))
            .expect("the server is there");
        Self(BufReader::new(stream))
    }

    fn send(&mut self, line: &str) {
        self.0
            .get_mut()
            .write_all(format!("{line}\r\n").as_bytes())
            .expect("the server is there");
    }

    fn read(&mut self) -> String {
        let mut reply = String::new();
        self.0.read_line(&mut reply).expect("the server is there");
        reply.trim_end().to_owned()
    }
}

/// A loop that looked at the clock before it was moved, and then had something long to do, does not go to sleep with the old
/// time: who waited is answered.
#[test]
fn no_loop_sleeps_over_the_move_of_its_clock() {
    let server = Server::builder()
        .manual_clock(Duration::from_secs(1_700_000_000))
        .directive("proto-max-bulk-len", "64gb")
        .directive("io-backend", "epoll")
        .start()
        .unwrap();
    let [mut waiting, mut first, mut second] = [(); 3].map(|()| Client::connect(&server));
    for key in ["a", "b"] {
        let value = format!("{key}bca").repeat(LONG_BYTES / 4);
        first.send(&format!(
            "*3\r\n$3\r\nSET\r\n$1\r\n{key}\r\n${}\r\n{value}",
            value.len()
        ));
        assert_eq!(first.read(), "+OK");
    }
    let begin = Instant::now();
    first.send("LCS a b LEN");
    assert!(first.read().starts_with(':'));
    let took = begin.elapsed();
    // Whatever a loop writes wakes it once more, so it gets nothing to write.
    for client in [&mut first, &mut second] {
        client.send("CLIENT REPLY OFF");
    }
    for _ in 0..3 {
        // While the loop is busy, the wait and another long command come in: they belong to its next turn.
        first.send("LCS a b LEN");
        thread::sleep(took / 4);
        waiting.send("BLPOP k 1");
        second.send("LCS a b LEN");
        thread::sleep(took * 5 / 4);
        assert!(server.advance(Duration::from_secs(1)));
        assert_eq!(waiting.read(), "*-1");
        thread::sleep(took);
    }
}
