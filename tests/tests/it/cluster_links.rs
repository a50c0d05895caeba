//! Connections of the cluster bus.

use std::fs;
use std::net::{SocketAddr, TcpStream};

use shardis_tests::process::BUS_OFFSET;
use shardis_tests::replication::member::{Kind, Member};
use shardis_tests::wait::wait_until;

/// The timer that the system runs for a connection, as `/proc/net/tcp` tells it, seen from its end at port `local`: 2 is that of
/// signs of life.
fn timer(local: u16, remote: u16) -> Option<u8> {
    let text = fs::read_to_string("/proc/net/tcp").expect("the system's connections");
    let port = |word: &str| u16::from_str_radix(word.rsplit(':').next()?, 16).ok();
    text.lines().find_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if words.len() < 6 || port(words[1]) != Some(local) || port(words[2]) != Some(remote) {
            return None;
        }
        u8::from_str_radix(words[5].split(':').next()?, 16).ok()
    })
}

/// A node only reads from the connections that others open. It would never find out that the host at the other end has vanished, and
/// such connections would pile up, if the system did not ask for signs of life.
#[test]
fn the_system_asks_callers_of_the_bus_for_signs_of_life() {
    let node = Member::start_with_bus(Kind::Shardis(1), &["cluster-enabled yes"]);
    let address = SocketAddr::from(([127, 0, 0, 1], node.port() + BUS_OFFSET));
    let caller = TcpStream::connect(address).expect("the bus accepts");
    let caller_port = caller.local_addr().expect("an address").port();
    wait_until("the connection is watched", || {
        timer(address.port(), caller_port) == Some(2)
    });
    assert_eq!(
        timer(caller_port, address.port()),
        Some(0),
        "this end has no timer"
    );
}
