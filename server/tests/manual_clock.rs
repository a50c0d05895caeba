//! A server whose clock its host moves.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use shardis::Server;

/// Whenever the clock is moved, be it between a loop's look at it and its sleep, those whose time is over are answered.
#[test]
fn no_loop_sleeps_over_the_move_of_its_clock() {
    let server = Server::builder()
        .shards(2)
        .manual_clock(Duration::from_secs(1_700_000_000))
        .start()
        .unwrap();
    let mut client = BufReader::new(TcpStream::connect(server.address()).unwrap());
    let patience = Some(Duration::from_secs(10));
    client.get_ref().set_read_timeout(patience).unwrap();
    let mut reply = String::new();
    for round in 0..3000_u32 {
        client.get_mut().write_all(b"PING\r\nBLPOP k 1\r\n").unwrap();
        reply.clear();
        client.read_line(&mut reply).unwrap();
        assert_eq!(reply, "+PONG\r\n");
        // The loop is about to sleep; how far it has got differs.
        for _ in 0..round * 7 % 4000 {
            std::hint::spin_loop();
        }
        assert!(server.advance(Duration::from_secs(1)));
        reply.clear();
        client
            .read_line(&mut reply)
            .unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(reply, "*-1\r\n", "round {round}");
    }
}
