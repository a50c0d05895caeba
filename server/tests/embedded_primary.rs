//! An embedded server as the primary of a replica, on the real clock and on one that is moved by hand.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use redis::Commands;
use shardis::Server;

/// Number of reads that may find nothing.
const SILENCE_MAX: u32 = 1000;

/// A replica, as far as a primary can tell.
struct Replica(TcpStream);

impl Replica {
    fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address()).expect("the server accepts connections");
        let timeout = Some(Duration::from_millis(50));
        stream.set_read_timeout(timeout).expect("a timeout");
        let mut replica = Self(stream);
        replica.say("REPLCONF capa eof capa psync2");
        assert_eq!(replica.read_until("\r\n", || ()), "+OK\r\n");
        replica
    }

    fn say(&mut self, line: &str) {
        let line = format!("{line}\r\n");
        self.0.write_all(line.as_bytes()).expect("it is sent");
    }

    /// Reads up to a text; calls `meanwhile` again and again until that has come.
    fn read_until(&mut self, end: &str, meanwhile: impl FnMut()) -> String {
        self.read_while(|text| !text.ends_with(end), meanwhile)
    }

    /// Reads for as long as more is to come; calls `meanwhile` again and again.
    fn read_while(
        &mut self,
        mut is_incomplete: impl FnMut(&str) -> bool,
        mut meanwhile: impl FnMut(),
    ) -> String {
        let (mut text, mut silence) = (String::new(), 0);
        while is_incomplete(&text) {
            assert!(silence < SILENCE_MAX, "only this came: {text:?}");
            meanwhile();
            let mut part = [0; 4096];
            match self.0.read(&mut part) {
                Ok(0) => panic!("closed after {text:?}"),
                Ok(count) => text.push_str(&String::from_utf8_lossy(&part[..count])),
                Err(_) => silence += 1,
            }
        }
        text
    }

    /// Asks for all data, and reads up to the end of the snapshot.
    fn synchronise(&mut self, meanwhile: impl FnMut()) {
        self.say("PSYNC ? -1");
        let is_incomplete = |text: &str| {
            let announced = text
                .split("$EOF:")
                .nth(1)
                .and_then(|rest| rest.split_at_checked(40));
            !announced.is_some_and(|(mark, rest)| rest.ends_with(mark))
        };
        let text = self.read_while(is_incomplete, meanwhile);
        assert!(text.trim_start().starts_with("+FULLRESYNC "), "{text}");
        self.say("REPLCONF ACK 0");
    }
}

#[test]
fn it_has_replicas() {
    for shards in [1, 3] {
        let server = Server::builder()
            .shards(shards)
            .directive("repl-diskless-sync-delay", "0")
            .start()
            .expect("it starts");
        let client = redis::Client::open(server.url()).expect("a URL");
        let mut client = client.get_connection().expect("a connection");
        let () = client.set("before", 1).expect("it is set");
        let mut replica = Replica::connect(&server);
        replica.synchronise(|| ());
        let () = client.set("after", 2).expect("it is set");
        replica.read_until("$5\r\nafter\r\n$1\r\n2\r\n", || ());
        let waits = std::thread::spawn({
            let url = server.url();
            move || -> i64 {
                let client = redis::Client::open(url).expect("a URL");
                let mut client = client.get_connection().expect("a connection");
                let () = client.set("waited", 3).expect("it is set");
                redis::cmd("WAIT")
                    .arg(1)
                    .arg(0)
                    .query(&mut client)
                    .expect("a reply")
            }
        });
        replica.read_until("$6\r\nGETACK\r\n$1\r\n*\r\n", || ());
        replica.say("REPLCONF ACK 100000");
        assert_eq!(waits.join().expect("it ends"), 1);
        server.stop();
    }
}

#[test]
fn a_clock_that_is_moved_by_hand_decides_when() {
    let server = Server::builder()
        .shards(2)
        .manual_clock(Duration::from_secs(1_000_000))
        .directive("repl-diskless-sync-delay", "5")
        .directive("repl-ping-replica-period", "10")
        .start()
        .expect("it starts");
    let mut replica = Replica::connect(&server);
    // The delay passes second by second, and no faster.
    let mut seconds = 0;
    replica.synchronise(|| {
        seconds += 1;
        server.advance(Duration::from_secs(1));
    });
    assert!(seconds >= 5, "after {seconds} seconds");
    replica.read_until("*1\r\n$4\r\nPING\r\n", || {
        server.advance(Duration::from_secs(1));
    });
}
