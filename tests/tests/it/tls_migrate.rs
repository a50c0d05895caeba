//! MIGRATE over TLS, which `tls-cluster` asks for as in Redis, also where there is no cluster.

use shardis_tests::client::Client;
use shardis_tests::node;
use shardis_tests::process::{Launch, free_port};
use shardis_tests::redis;
use shardis_tests::tls::{Authority, Secured};

fn migrate(client: &mut Client, port: u16, rest: &str) -> String {
    client.line(&format!("MIGRATE 127.0.0.1 {port} {rest}")).text()
}

/// A server whose MIGRATE uses TLS, and one that gets the keys.
fn pair(source: Launch, target: Launch) -> (Secured, Secured) {
    let source = Secured::start(source, &["--tls-cluster", "yes"]);
    let options = source.authority.options(free_port());
    let port = options[1].parse().expect("a port");
    let target = Secured {
        process: target.with(&options).serve(),
        tls_port: port,
        authority: Authority::new(),
    };
    (source, target)
}

#[test]
fn keys_move_over_tls() {
    for (source, target) in [
        (node::launch(1), redis::launch()),
        (node::launch(4), node::launch(2)),
        (redis::launch(), node::launch(4)),
    ] {
        let (source, target) = pair(source, target);
        let (mut from, mut to) = (source.process.connect(), target.process.connect());
        from.line("SET k v");
        assert_eq!(migrate(&mut from, target.tls_port, "k 0 10000"), "OK");
        assert_eq!(
            (from.line("EXISTS k").integer(), to.line("GET k").text()),
            (Some(0), "v".to_owned())
        );
        // More than sockets hold on either side, and many replies at once.
        from.call(&["SET".as_bytes(), b"long", &vec![b'x'; 20_000_000]]);
        assert_eq!(migrate(&mut from, target.tls_port, "long 0 60000"), "OK");
        assert_eq!(to.line("STRLEN long").integer(), Some(20_000_000));
        let port = target.tls_port.to_string();
        let mut words = ["MIGRATE", "127.0.0.1", &port, "", "0", "60000", "KEYS"]
            .map(str::to_owned)
            .to_vec();
        for key in 0..5000 {
            from.line(&format!("SET key:{key} {key}"));
            words.push(format!("key:{key}"));
        }
        assert_eq!(from.call(&words).text(), "OK");
        assert_eq!(
            (from.line("DBSIZE").integer(), to.line("DBSIZE").integer()),
            (Some(0), Some(5002))
        );
        // The connection that is kept serves another database, and a refusal comes through.
        from.line("SET k v2");
        let refused = migrate(&mut from, target.tls_port, "k 0 10000");
        assert!(refused.contains("BUSYKEY"), "{refused}");
        assert_eq!(migrate(&mut from, target.tls_port, "k 3 10000"), "OK");
        to.line("SELECT 3");
        assert_eq!(to.line("GET k").text(), "v2");
    }
}

#[test]
fn keys_stay_where_no_session_comes_about() {
    let theirs = Authority::new();
    let replies = [redis::launch(), node::launch(2)].map(|launch| {
        let (source, target) = pair(launch, node::launch(1));
        let stranger = Secured::start_with(Authority::new(), redis::launch(), &[]);
        // It trusts the source, which does not trust it.
        let options = [
            "--tls-cert-file",
            &theirs.path("server.crt"),
            "--tls-key-file",
            &theirs.path("server.key"),
            "--tls-ca-cert-file",
            &source.authority.path("ca.crt"),
        ];
        let impostor = Secured::start(redis::launch(), &options);
        let mut client = source.process.connect();
        client.line("SET k v");
        let replies = [
            target.process.port(),
            stranger.tls_port,
            impostor.tls_port,
            // Nobody listens.
            1,
        ]
        .map(|port| migrate(&mut client, port, "k 0 2000"));
        assert_eq!(client.line("GET k").text(), "v");
        assert_eq!(migrate(&mut client, target.tls_port, "k 0 2000"), "OK");
        replies
    });
    assert_eq!(replies[0], replies[1]);
    assert!(
        replies[1][2].contains("IOERR error or timeout connecting"),
        "{replies:?}"
    );
}
