//! A server with a clock that its host moves.

#![expect(clippy::disallowed_methods, reason = "the host's own time is real")]

use std::io::{BufRead, BufReader, ErrorKind, Write};
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
        Self(BufReader::new(stream))
    }

    fn send(&mut self, line: &str) {
        self.0
            .get_mut()
            .write_all(format!("{line}\r\n").as_bytes())
            .expect("the server is there");
    }

    fn read(&mut self) -> String {
        self.read_within(Duration::from_secs(15)).expect("a reply")
    }

    /// The next line, unless none comes in time.
    fn read_within(&mut self, patience: Duration) -> Option<String> {
        let stream = self.0.get_mut();
        stream
            .set_read_timeout(Some(patience))
            .expect("the server is there");
        let mut reply = String::new();
        match self.0.read_line(&mut reply) {
            Ok(_) => Some(reply.trim_end().to_owned()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("the server is there: {error}"),
        }
    }
}

/// A loop that read the clock before it was moved, and then ran something long, does not go to sleep with the old
/// time: the waiting client is answered.
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
    // A write would wake the loop once more, so it gets nothing to write.
    for client in [&mut first, &mut second] {
        client.send("CLIENT REPLY OFF");
    }
    let mut in_time = 0;
    for _ in 0..20 {
        // While the loop is busy, the wait and another long command come in: they belong to its next turn.
        first.send("LCS a b LEN");
        thread::sleep(took / 4);
        waiting.send("BLPOP k 1");
        second.send("LCS a b LEN");
        thread::sleep(took * 5 / 4);
        assert!(server.advance(Duration::from_secs(1)));
        let answer = waiting.read_within(took * 4 + Duration::from_secs(1));
        if answer.is_none() {
            // Either the loop sleeps, and a command of another client wakes it; or it was so slow that the wait began
            // after the clock was moved.
            let mut other = Client::connect(&server);
            other.send("PING");
            assert_eq!(other.read(), "+PONG");
            let late = waiting.read_within(Duration::from_millis(300));
            assert_eq!(late, None, "the loop slept over the move of its clock");
            assert!(server.advance(Duration::from_secs(1)));
        }
        in_time += u32::from(answer.is_some());
        assert_eq!(answer.unwrap_or_else(|| waiting.read()), "*-1");
        if in_time == 3 {
            return;
        }
        thread::sleep(took);
    }
    assert!(
        in_time > 0,
        "this machine is too busy for the test to see anything"
    );
}

/// A node of a cluster has the same time: it serves its slots when the wait after its start is over, and not before.
#[test]
fn a_node_of_a_cluster_follows_its_clock() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::builder()
        .manual_clock(Duration::from_secs(1_700_000_000))
        .directive("cluster-enabled", "yes")
        .directive("dir", folder.path().display().to_string())
        .start()
        .unwrap();
    let mut client = Client::connect(&server);
    client.send("CLUSTER ADDSLOTSRANGE 0 16383");
    assert_eq!(client.read(), "+OK");
    client.send("SET key value");
    assert_eq!(client.read(), "-CLUSTERDOWN The cluster is down");
    let begin = Instant::now();
    loop {
        assert!(server.advance(Duration::from_millis(300)));
        client.send("SET key value");
        if client.read() == "+OK" {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(15), "it never serves");
        thread::sleep(Duration::from_millis(5));
    }
}
