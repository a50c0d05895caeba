//! Links of replicas over TLS: with a real redis-server at either end, with certificates that are not trusted or exchanged, and while
//! roles change.

use shardis_tests::client::Client;
use shardis_tests::info::{field, figure};
use shardis_tests::node;
use shardis_tests::process::{Launch, Process, free_port};
use shardis_tests::redis;
use shardis_tests::tls::{Authority, Subject};
use shardis_tests::wait::wait_until;

use super::replication_replica::{Seeder, check_same, follow, wait_for_link};

/// A server whose links use TLS. Its plain port is for the test.
struct Linked {
    process: Process,
    tls_port: u16,
}

impl Linked {
    fn start(launch: Launch, authority: &Authority, options: &[&str]) -> Self {
        let tls_port = free_port();
        let launch = launch
            .with(&authority.options(tls_port))
            .with(&["--tls-replication", "yes", "--enable-debug-command", "yes"])
            .with(&["--repl-diskless-sync-delay", "0"])
            .with(options);
        Self {
            process: launch.serve(),
            tls_port,
        }
    }

    fn connect(&self) -> Client {
        self.process.connect()
    }
}

/// Writes what a full synchronisation takes many records for.
fn fill(client: &mut Client) {
    client.pipeline(&Seeder::new(1).commands(2000));
    client.line("SELECT 0");
    client.call(&["SET".as_bytes(), b"long", &vec![b'x'; 5_000_000]]);
    client.line("DEBUG POPULATE 20000 many 100");
}

/// A full synchronisation and the stream behind it, over TLS, from one to the other.
fn check_pair(primary: Launch, replica: Launch, diskless: &str) {
    let authority = Authority::new();
    let primary = Linked::start(primary, &authority, &["--repl-diskless-sync", diskless]);
    let replica = Linked::start(replica, &authority, &[]);
    let (mut above, mut below) = (primary.connect(), replica.connect());
    fill(&mut above);
    follow(&mut below, primary.tls_port);
    wait_for_link(&mut below);
    check_same(&mut above, &mut below);
    let mut seeder = Seeder::new(2);
    for _ in 0..20 {
        above.pipeline(&seeder.commands(200));
    }
    above.line("SELECT 0");
    above.call(&["SET".as_bytes(), b"later", &vec![b'y'; 3_000_000]]);
    check_same(&mut above, &mut below);
    // The acknowledgements come back, too, and the replica has told the port at which others follow it as it follows.
    assert_eq!(above.line("SET a 1").text(), "OK");
    assert_eq!(above.line("WAIT 1 10000").integer(), Some(1));
    let told = field(&mut above, "slave0");
    assert!(
        told.contains(&format!("port={},state=online", replica.tls_port)),
        "{told}"
    );
    assert_eq!(figure(&mut above, "sync_full"), 1, "{}", primary.process.log());
}

#[test]
fn a_node_follows_a_redis_over_tls() {
    check_pair(redis::launch(), node::launch(1), "yes");
    check_pair(redis::launch(), node::launch(4), "no");
}

#[test]
fn a_redis_follows_a_node_over_tls() {
    check_pair(node::launch(1), redis::launch(), "no");
    check_pair(node::launch(4), redis::launch(), "yes");
}

#[test]
fn a_node_follows_a_node_over_tls() {
    check_pair(node::launch(1), node::launch(4), "yes");
    check_pair(node::launch(4), node::launch(1), "no");
}

#[test]
fn a_chain_of_links_uses_tls_throughout() {
    let authority = Authority::new();
    let row = [redis::launch(), node::launch(2), redis::launch()]
        .map(|launch| Linked::start(launch, &authority, &[]));
    let [mut first, mut second, mut third] = [0, 1, 2].map(|index| row[index].connect());
    fill(&mut first);
    follow(&mut second, row[0].tls_port);
    wait_for_link(&mut second);
    follow(&mut third, row[1].tls_port);
    wait_for_link(&mut third);
    first.pipeline(&Seeder::new(3).commands(500));
    check_same(&mut first, &mut second);
    check_same(&mut first, &mut third);
}

#[test]
fn a_primary_that_is_not_trusted_gives_no_data() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    for launch in [redis::launch(), node::launch(1)] {
        let primary = Linked::start(launch, &theirs, &[]);
        primary.connect().line("SET theirs 1");
        let replica = Linked::start(node::launch(2), &ours, &[]);
        let mut client = replica.connect();
        client.line("SET ours 1");
        follow(&mut client, primary.tls_port);
        wait_until("a line about the certificate", || {
            let log = replica.process.log();
            log.contains("Error condition on socket for SYNC: invalid peer certificate")
        });
        assert_eq!(field(&mut client, "master_link_status"), "down");
        assert_eq!(client.line("EXISTS ours theirs").integer(), Some(1));
        // Trust opens the link, without a restart.
        let reply = client.call(&["CONFIG", "SET", "tls-ca-cert-file", &theirs.path("ca.crt")]);
        assert_eq!(reply.text(), "OK");
        assert_eq!(
            field(&mut client, "master_link_status"),
            "down",
            "the primary does not trust this node"
        );
        let identity = [
            ("tls-client-cert-file", theirs.path("server.crt")),
            ("tls-client-key-file", theirs.path("server.key")),
        ];
        let mut words = vec!["CONFIG", "SET"];
        for (name, value) in &identity {
            words.extend([*name, value]);
        }
        assert_eq!(client.call(&words).text(), "OK");
        wait_for_link(&mut client);
        assert_eq!(client.line("EXISTS theirs").integer(), Some(1));
        assert_eq!(client.line("EXISTS ours").integer(), Some(0));
    }
}

#[test]
fn a_replica_that_is_not_trusted_gets_no_data() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    // It trusts the primary, and shows a certificate that the primary does not trust.
    let primary = Linked::start(node::launch(1), &theirs, &["--loglevel", "notice"]);
    primary.connect().line("SET theirs 1");
    let replica = Linked::start(
        node::launch(1),
        &ours,
        &["--tls-ca-cert-file", &theirs.path("ca.crt")],
    );
    let mut client = replica.connect();
    client.line("SET ours 1");
    follow(&mut client, primary.tls_port);
    wait_until("a certificate that the primary refuses", || {
        let log = primary.process.log();
        let refused = |line: &str| {
            line.contains("Error accepting a client connection") && line.contains("invalid peer certificate")
        };
        log.lines().any(refused)
    });
    assert_eq!(field(&mut client, "master_link_status"), "down");
    assert_eq!(client.line("EXISTS ours theirs").integer(), Some(1));
    assert_eq!(field(&mut primary.connect(), "connected_slaves"), "0");
}

#[test]
fn the_next_link_follows_the_directive() {
    let authority = Authority::new();
    let primary = Linked::start(node::launch(1), &authority, &[]);
    let replica = Linked::start(node::launch(2), &authority, &["--tls-replication", "no"]);
    let (mut above, mut below) = (primary.connect(), replica.connect());
    follow(&mut below, primary.process.port());
    wait_for_link(&mut below);
    let own_port = |above: &mut Client, port: u16| {
        let told = field(above, "slave0");
        assert!(told.contains(&format!("port={port},")), "{told}");
    };
    own_port(&mut above, replica.process.port());
    // The link that stands goes on.
    assert_eq!(below.line("CONFIG SET tls-replication yes").text(), "OK");
    above.line("SET a 1");
    check_same(&mut above, &mut below);
    follow(&mut below, primary.tls_port);
    wait_for_link(&mut below);
    own_port(&mut above, replica.tls_port);
    // And back: a plain link does not come about at a port for TLS.
    assert_eq!(below.line("CONFIG SET tls-replication no").text(), "OK");
    above.line("SET b 1");
    check_same(&mut above, &mut below);
    above.line("CLIENT KILL TYPE replica");
    wait_until("a link that is lost", || {
        field(&mut below, "master_link_status") == "down"
    });
    assert_eq!(below.line("CONFIG SET tls-replication yes").text(), "OK");
    wait_for_link(&mut below);
    check_same(&mut above, &mut below);
    assert_eq!(
        figure(&mut above, "sync_full"),
        1,
        "the other links go on where the first was"
    );
}

#[test]
fn links_outlast_an_exchange_of_certificates() {
    let authority = Authority::new();
    for (upper, lower) in [
        (redis::launch(), node::launch(2)),
        (node::launch(2), redis::launch()),
    ] {
        let primary = Linked::start(upper, &authority, &[]);
        let replica = Linked::start(lower, &authority, &[]);
        let (mut above, mut below) = (primary.connect(), replica.connect());
        fill(&mut above);
        follow(&mut below, primary.tls_port);
        wait_for_link(&mut below);
        check_same(&mut above, &mut below);
        authority.issue("server", &Subject::named("another"));
        for client in [&mut above, &mut below] {
            let (certificate, key) = (authority.path("server.crt"), authority.path("server.key"));
            let words = [
                "CONFIG",
                "SET",
                "tls-cert-file",
                &certificate,
                "tls-key-file",
                &key,
            ];
            assert_eq!(client.call(&words).text(), "OK");
        }
        above.pipeline(&Seeder::new(4).commands(300));
        check_same(&mut above, &mut below);
        assert_eq!(figure(&mut above, "sync_partial_ok"), 0, "the link is the same");
        // The next one shows the new certificates, and goes on where the last was.
        above.line("CLIENT KILL TYPE replica");
        wait_until("a new link", || {
            figure(&mut above, "sync_partial_ok") == 1 && field(&mut below, "master_link_status") == "up"
        });
        check_same(&mut above, &mut below);
        assert_eq!(figure(&mut above, "sync_full"), 1);
    }
}

#[test]
fn a_failover_turns_a_link_over_tls_round() {
    let authority = Authority::new();
    for (upper, lower) in [
        (node::launch(1), redis::launch()),
        (redis::launch(), node::launch(4)),
        (node::launch(4), node::launch(1)),
    ] {
        let primary = Linked::start(upper, &authority, &[]);
        let replica = Linked::start(lower, &authority, &[]);
        let (mut above, mut below) = (primary.connect(), replica.connect());
        fill(&mut above);
        follow(&mut below, primary.tls_port);
        wait_for_link(&mut below);
        check_same(&mut above, &mut below);
        let target = format!("FAILOVER TO 127.0.0.1 {} TIMEOUT 60000", replica.tls_port);
        assert_eq!(above.line(&target).text(), "OK");
        wait_until("the other primary", || field(&mut below, "role") == "master");
        wait_for_link(&mut above);
        below.pipeline(&Seeder::new(5).commands(300));
        check_same(&mut below, &mut above);
        assert_eq!(figure(&mut below, "sync_full"), 0, "nothing is sent anew");
        let told = field(&mut below, "slave0");
        assert!(told.contains(&format!("port={},", primary.tls_port)), "{told}");
    }
}
