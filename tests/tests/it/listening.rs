//! Addresses of a running server: CONFIG SET port and bind.

use std::net::{Ipv4Addr, TcpListener};

use shardis_tests::client::Client;
use shardis_tests::node;
use shardis_tests::process::{Launch, Process, free_port};
use shardis_tests::redis;

const FIRST: Ipv4Addr = Ipv4Addr::LOCALHOST;
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn set(client: &mut Client, words: &[&str]) -> String {
    client.call(&[&["CONFIG", "SET"], words].concat()).text()
}

fn get(client: &mut Client, name: &str) -> String {
    let reply = client.call(&["CONFIG", "GET", name]);
    reply
        .pairs()
        .first()
        .map(|(_, value)| value.text())
        .unwrap_or_default()
}

/// Whether a server answers there.
fn answers(ip: Ipv4Addr, port: u16) -> bool {
    Client::connect((ip, port).into()).is_ok_and(|mut client| client.line("PING").text() == "PONG")
}

/// The launches to try: shardis with one and with four shards, over both ways to wait, and the real server.
fn servers() -> Vec<Process> {
    let own = |shards: usize, backend: &str| match node::is_redis() {
        true => node::launch(shards),
        false => node::launch(shards).with(&["--io-backend", backend]),
    };
    let launches: [Launch; 4] = [own(1, "epoll"), own(4, "auto"), own(4, "epoll"), redis::launch()];
    launches.into_iter().map(Launch::serve).collect()
}

#[test]
fn the_port_can_be_another_one() {
    for server in servers() {
        let (mut client, old) = (server.connect(), server.port());
        client.line("SET k v");
        for _ in 0..3 {
            let port = free_port();
            assert_eq!(set(&mut client, &["port", &port.to_string()]), "OK");
            assert!(answers(FIRST, port) && !answers(FIRST, old));
            // Connections stay, also those that came by the old port.
            assert_eq!(client.line("GET k").text(), "v");
            assert_eq!(get(&mut client, "port"), port.to_string());
            let info = client.line("INFO server").text();
            assert!(info.contains(&format!("tcp_port:{port}\r\n")), "{info}");
            // Every loop accepts there.
            let mut more: Vec<Client> = (0..20)
                .map(|_| Client::connect((FIRST, port).into()).expect("a server that accepts"))
                .collect();
            assert!(more.iter_mut().all(|client| client.line("GET k").text() == "v"));
            assert_eq!(set(&mut client, &["port", &old.to_string()]), "OK");
            assert!(answers(FIRST, old) && !answers(FIRST, port));
        }
    }
}

#[test]
fn addresses_come_and_go() {
    for server in servers() {
        let (mut client, port) = (server.connect(), server.port());
        for (bind, first, second) in [
            ("127.0.0.1 127.0.0.2", true, true),
            ("127.0.0.2", false, true),
            ("*", true, true),
            ("127.0.0.1 -203.0.113.1", true, false),
            ("* -::*", true, true),
            ("127.0.0.1", true, false),
            ("", false, false),
            ("127.0.0.1", true, false),
        ] {
            assert_eq!(set(&mut client, &["bind", bind]), "OK", "{bind:?}");
            assert_eq!(
                (answers(FIRST, port), answers(SECOND, port)),
                (first, second),
                "{bind:?}"
            );
        }
        assert_eq!(client.line("PING").text(), "PONG");
    }
}

#[test]
fn no_port_and_a_port_again() {
    for server in servers() {
        let (mut client, port) = (server.connect(), server.port());
        assert_eq!(set(&mut client, &["port", "0"]), "OK");
        assert!(!answers(FIRST, port));
        assert_eq!(set(&mut client, &["port", &port.to_string()]), "OK");
        assert!(answers(FIRST, port));
    }
}

#[test]
fn what_cannot_be_listened_on_is_refused_and_changes_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken
        .local_addr()
        .map(|address| (taken, address.port()))
        .expect("an address");
    let (busy, free) = (taken.1.to_string(), free_port().to_string());
    for server in servers() {
        let (mut client, port) = (server.connect(), server.port());
        let at_port = "ERR CONFIG SET failed (possibly related to argument 'port') - Unable to listen on this port. Check \
                       server logs.";
        let at_bind = "ERR CONFIG SET failed (possibly related to argument 'bind') - Failed to bind to specified addresses.";
        for (words, error) in [
            (&["port", &busy][..], at_port),
            (&["hz", "50", "port", &busy], at_port),
            (&["bind", "203.0.113.1"], at_bind),
            (&["bind", "127.0.0.2 203.0.113.1"], at_bind),
            (&["port", &free, "bind", "203.0.113.1"], at_port),
            (&["bind", "203.0.113.1", "port", &free], at_bind),
        ] {
            assert_eq!(set(&mut client, words), error, "{words:?}");
            assert!(answers(FIRST, port) && !answers(SECOND, port), "{words:?}");
            assert_eq!(get(&mut client, "port"), port.to_string());
            assert_eq!(get(&mut client, "bind"), "127.0.0.1");
            assert_eq!(get(&mut client, "hz"), "10");
        }
        assert!(
            server
                .log()
                .contains("Could not create server TCP listening socket"),
            "{}",
            server.log()
        );
    }
}

#[test]
fn several_things_change_at_once() {
    for server in servers() {
        let mut client = server.connect();
        let port = free_port();
        let words = ["port", &port.to_string(), "bind", "127.0.0.2", "hz", "40"];
        assert_eq!(set(&mut client, &words), "OK");
        assert!(answers(SECOND, port) && !answers(FIRST, port) && !answers(FIRST, server.port()));
        assert_eq!(get(&mut client, "hz"), "40");
    }
}
