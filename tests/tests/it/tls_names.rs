//! Names on connections that a node opens to others over TLS: which one it announces (SNI), and that none is compared with the
//! certificate, as in Redis.

use std::net::TcpListener;
use std::time::Duration;

use rustls::server::Acceptor;
use shardis_tests::info::field;
use shardis_tests::tls::Secured;
use shardis_tests::wait::{accept, wait_until};
use shardis_tests::{node, redis};

/// Longest wait for the first bytes of a session.
const PATIENCE: Duration = Duration::from_secs(20);

/// The name that the next connection announces, if any.
fn announced(listener: &TcpListener) -> Option<String> {
    let mut stream = accept(listener);
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut acceptor = Acceptor::default();
    loop {
        acceptor
            .read_tls(&mut stream)
            .expect("the beginning of a handshake");
        if let Some(accepted) = acceptor.accept().expect("a handshake") {
            return accepted.client_hello().server_name().map(str::to_owned);
        }
    }
}

/// A listener at a host, and its port. Each attempt has its own, as the one before may be repeated.
fn listen(host: &str) -> (TcpListener, String) {
    let listener = TcpListener::bind((host, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    (listener, port.to_string())
}

/// Redis 7.0 announces no name. It is of use where one address serves several names, and no harm elsewhere.
#[test]
fn another_node_is_addressed_by_its_name_and_not_by_an_address() {
    let options = ["--tls-replication", "yes", "--tls-cluster", "yes"];
    let server = Secured::start(node::launch(2), &options);
    let mut client = server.process.connect();
    client.line("SET k v");
    for (host, name) in [("localhost", Some("localhost")), ("127.0.0.1", None)] {
        let (listener, port) = listen(host);
        client
            .send(&["MIGRATE", host, &port, "k", "0", "500"])
            .expect("it reads");
        assert_eq!(announced(&listener).as_deref(), name, "MIGRATE {host}");
        assert!(client.read().expect("a reply").is_error());
        let (listener, port) = listen(host);
        client.line(&format!("REPLICAOF {host} {port}"));
        assert_eq!(announced(&listener).as_deref(), name, "REPLICAOF {host}");
        client.line("REPLICAOF NO ONE");
    }
}

#[test]
fn names_in_the_certificate_of_another_node_are_not_compared() {
    for (primary, replica) in [
        (redis::launch(), node::launch(1)),
        (node::launch(2), redis::launch()),
    ] {
        let options = ["--tls-replication", "yes", "--repl-diskless-sync-delay", "0"];
        let primary = Secured::start(primary, &options);
        // The certificate is for 127.0.0.1 and localhost.
        let mut above = primary.process.connect();
        let bound = above.call(&["CONFIG", "SET", "bind", "127.0.0.1 127.0.0.2"]);
        assert_eq!(bound.text(), "OK");
        above.line("SET k v");
        let mut options = options.to_vec();
        let files = primary.authority.options(0);
        options.extend(files.iter().map(String::as_str));
        let replica = replica.with(&options).serve();
        let mut below = replica.connect();
        below.line(&format!("REPLICAOF 127.0.0.2 {}", primary.tls_port));
        wait_until("the link is there", || {
            field(&mut below, "master_link_status") == "up"
        });
        assert_eq!(below.line("GET k").text(), "v");
    }
}
