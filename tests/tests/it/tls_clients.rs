//! Clients over TLS, on both ways of waiting for sockets: bytes of all sizes and cuts, replies that are not asked for, slow readers,
//! ends, and what is told about such clients.

use std::io::{ErrorKind, Read as _, Write as _};
use std::thread::sleep;
use std::time::{Duration, Instant};

use shardis_tests::client::{Client, encode, words};
use shardis_tests::process::{Launch, free_port};
use shardis_tests::tls::Secured;
use shardis_tests::wait::{await_blocked, wait_until};
use shardis_tests::{info, node, procfs, redis};

const ANYBODY: [&str; 2] = ["--tls-auth-clients", "no"];

/// The backends of a poll.
const BACKENDS: [&str; 2] = ["epoll", "io_uring"];

fn launch(shards: usize, backend: &str) -> Launch {
    node::launch(shards).with(&["--io-backend", backend])
}

/// Runs a check against servers of one shard and of two, over both backends.
fn everywhere(check: impl Fn(&Secured)) {
    for shards in [1, 2] {
        for backend in BACKENDS {
            check(&Secured::start(launch(shards, backend), &ANYBODY));
        }
    }
}

/// Bytes that differ from their neighbours at any distance.
fn filling(len: usize) -> Vec<u8> {
    (0..len)
        .map(|index| (index ^ (index >> 8) ^ (index >> 16)) as u8)
        .collect()
}

#[test]
fn values_of_every_size_come_back() {
    everywhere(|server| {
        let mut client = server.connect(None);
        for len in [
            0,
            1,
            100,
            12_287,
            16_383,
            16_384,
            16_385,
            65_536,
            100_000,
            1 << 20,
            5_000_003,
        ] {
            let value = filling(len);
            assert_eq!(client.call(&[b"SET".as_slice(), b"key", &value]).text(), "OK");
            assert!(client.call(&["GET", "key"]).bytes() == value, "{len} bytes");
            assert_eq!(
                server.process.connect().call(&["STRLEN", "key"]).integer(),
                Some(len as i64)
            );
        }
    });
}

#[test]
fn pipelines_of_any_length_are_answered_in_order() {
    everywhere(|server| {
        let mut client = server.connect(None);
        let requests: Vec<_> = (0..20_000)
            .map(|index| words(&["ECHO", &index.to_string()]))
            .collect();
        for (index, reply) in client.pipeline(&requests).iter().enumerate() {
            assert_eq!(reply.text(), index.to_string());
        }
        let big = "x".repeat(40_000);
        assert_eq!(client.call(&["SET", "big", &big]).text(), "OK");
        let requests: Vec<_> = (0..300).map(|_| words(&["GET", "big"])).collect();
        assert!(
            client
                .pipeline(&requests)
                .iter()
                .all(|reply| reply.bytes() == big.as_bytes())
        );
    });
}

#[test]
fn records_may_be_cut_anywhere() {
    everywhere(|server| {
        let mut client = server.connect(None);
        // Each byte of a request in a record of its own.
        for byte in b"*2\r\n$4\r\nECHO\r\n$5\r\nhello\r\n" {
            client.write(&[*byte]).expect("it is sent");
        }
        assert_eq!(client.read().expect("a reply").text(), "hello");
        // Each byte of the records in a packet of its own.
        let mut request = Vec::new();
        for index in 0..20 {
            encode(&mut request, &["ECHO", &index.to_string()]);
        }
        let session = client.session();
        session.conn.writer().write_all(&request).expect("it is taken");
        let mut records = Vec::new();
        while session.conn.wants_write() {
            session.conn.write_tls(&mut records).expect("they are written");
        }
        for part in records.chunks(7) {
            session.sock.write_all(part).expect("it is sent");
            sleep(Duration::from_micros(300));
        }
        for index in 0..20 {
            assert_eq!(client.read().expect("a reply").text(), index.to_string());
        }
    });
}

/// The requests behind one that waits have been decrypted with it: no event of the socket comes for them.
#[test]
fn decrypted_requests_do_not_wait_for_more_bytes() {
    everywhere(|server| {
        let mut client = server.connect(None);
        let mut request = Vec::new();
        encode(&mut request, &["BLPOP", "list", "0"]);
        for index in 0..5000 {
            encode(&mut request, &["ECHO", &index.to_string()]);
        }
        client.write(&request).expect("it is sent");
        let mut other = server.process.connect();
        await_blocked(&mut other, 1);
        assert_eq!(other.line("RPUSH list x").integer(), Some(1));
        assert_eq!(client.read().expect("a reply").items().len(), 2);
        for index in 0..5000 {
            assert_eq!(client.read().expect("a reply").text(), index.to_string());
        }
        // A big argument, which is received past the usual buffers, and requests in the same record as its end.
        let mut request = Vec::new();
        encode(&mut request, &[b"SET".as_slice(), b"big", &filling(100_001)]);
        encode(&mut request, &["STRLEN", "big"]);
        encode(&mut request, &["PING"]);
        client.write(&request).expect("it is sent");
        assert_eq!(client.read().expect("a reply").text(), "OK");
        assert_eq!(client.read().expect("a reply").integer(), Some(100_001));
        assert_eq!(client.read().expect("a reply").text(), "PONG");
    });
}

#[test]
fn messages_reach_subscribers_that_say_nothing_and_read_slowly() {
    everywhere(|server| {
        let mut subscriber = server.connect(None);
        subscriber.line("SUBSCRIBE news");
        let mut publisher = server.process.connect();
        let message = String::from_utf8(vec![b'm'; 100_000]).expect("it is text");
        for _ in 0..150 {
            assert_eq!(publisher.call(&["PUBLISH", "news", &message]).integer(), Some(1));
        }
        let listed = publisher.line("CLIENT LIST TYPE pubsub").text();
        let omem: u64 = info::word(&listed, "omem")
            .expect("a field")
            .parse()
            .expect("a number");
        assert!(omem > 1 << 20, "the kernel cannot have taken all: {listed}");
        for _ in 0..150 {
            let got = subscriber.read().expect("a message");
            assert!(got.items()[2].bytes() == message.as_bytes());
        }
        wait_until("the server has sent all", || {
            let listed = publisher.line("CLIENT LIST TYPE pubsub").text();
            info::word(&listed, "omem") == Some("0")
        });
    });
}

/// Reads until the end, which must be one of TLS: a cut connection would be an error.
fn ends_in_order(client: &mut Client) {
    let session = client.session();
    session
        .sock
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    let mut rest = Vec::new();
    let outcome = session.read_to_end(&mut rest);
    assert!(outcome.is_ok(), "{outcome:?} after {rest:?}");
}

#[test]
fn connections_end_in_order() {
    everywhere(|server| {
        let mut control = server.process.connect();
        let mut quitting = server.connect(None);
        assert_eq!(quitting.line("QUIT").text(), "OK");
        ends_in_order(&mut quitting);
        let mut killed = server.connect(None);
        let id = killed.line("CLIENT ID").integer().expect("an id");
        assert_eq!(control.line(&format!("CLIENT KILL ID {id}")).integer(), Some(1));
        ends_in_order(&mut killed);
        let mut suicidal = server.connect(None);
        let id = suicidal.line("CLIENT ID").integer().expect("an id");
        assert_eq!(
            suicidal.line(&format!("CLIENT KILL ID {id} SKIPME no")).integer(),
            Some(1)
        );
        ends_in_order(&mut suicidal);
        let mut wrong = server.connect(None);
        wrong.write(b"*1\r\n$x\r\n").expect("it is sent");
        assert!(wrong.read().expect("an error").text().contains("Protocol error"));
        ends_in_order(&mut wrong);
        // A client that says that it goes.
        let mut leaving = server.connect(None);
        let session = leaving.session();
        session.conn.send_close_notify();
        session.flush().expect("it is sent");
        ends_in_order(&mut leaving);
        // And one that just goes.
        drop(server.connect(None));
        wait_until("the server has noticed", || {
            info::figure(&mut control, "connected_clients") == 1
        });
    });
}

#[test]
fn requests_before_the_end_of_a_session_are_answered() {
    for backend in BACKENDS {
        // With one shard: replies of others may come too late, as for a plain client that has gone.
        let server = &Secured::start(launch(1, backend), &ANYBODY);
        let mut client = server.connect(None);
        client.write(b"SET a 1\r\nGET a\r\n").expect("it is sent");
        let session = client.session();
        session.conn.send_close_notify();
        session.flush().expect("it is sent");
        assert_eq!(client.read().expect("a reply").text(), "OK");
        assert_eq!(client.read().expect("a reply").text(), "1");
        ends_in_order(&mut client);
    }
}

#[test]
fn the_port_is_opened_and_closed_at_run_time() {
    for backend in BACKENDS {
        let server = Secured::start(launch(2, backend), &ANYBODY);
        let mut control = server.process.connect();
        let mut client = server.connect(None);
        assert_eq!(
            info::field(&mut control, "tcp_port"),
            server.process.port().to_string()
        );
        let listener = info::field(&mut control, "listener1");
        assert_eq!(
            listener,
            format!("name=tls,bind=127.0.0.1,port={}", server.tls_port)
        );
        let other = free_port();
        assert_eq!(control.line(&format!("CONFIG SET tls-port {other}")).text(), "OK");
        let config = server.authority.client(None);
        assert!(Client::connect_tls(server.address(), &config).is_err());
        let mut second = Client::connect_tls(([127, 0, 0, 1], other).into(), &config).expect("a connection");
        assert_eq!(second.line("PING").text(), "PONG");
        // The plain port goes; the clients stay.
        assert_eq!(control.line("CONFIG SET port 0").text(), "OK");
        assert!(Client::connect(server.process.address()).is_err());
        assert_eq!(info::field(&mut second, "tcp_port"), other.to_string());
        assert_eq!(second.line("CONFIG SET tls-port 0").text(), "OK");
        assert!(Client::connect_tls(([127, 0, 0, 1], other).into(), &config).is_err());
        for client in [&mut client, &mut second, &mut control] {
            assert_eq!(client.line("PING").text(), "PONG");
        }
        assert_eq!(
            client
                .line(&format!("CONFIG SET tls-port {}", server.tls_port))
                .text(),
            "OK"
        );
        assert_eq!(server.connect(None).line("PING").text(), "PONG");
    }
}

#[test]
fn a_port_that_is_taken_is_refused_as_in_redis() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    for launch in [node::launch(2), redis::launch()] {
        let server = Secured::start(launch, &ANYBODY);
        let mut control = server.process.connect();
        assert_eq!(
            control.line(&format!("CONFIG SET tls-port {port}")).text(),
            "ERR CONFIG SET failed (possibly related to argument 'tls-port') - Unable to listen on this port. Check server logs."
        );
        assert_eq!(server.connect(None).line("PING").text(), "PONG");
    }
}

#[test]
fn an_idle_client_costs_little_and_what_it_costs_is_told() {
    const COUNT: usize = 400;
    for backend in BACKENDS {
        let server = Secured::start(launch(1, backend), &ANYBODY);
        let mut control = server.process.connect();
        let used = |control: &mut Client| info::figure(control, "used_memory");
        drop(server.connect(None));
        let before = used(&mut control);
        let mut clients: Vec<Client> = (0..COUNT).map(|_| server.connect(None)).collect();
        for client in &mut clients {
            client.call(&["SET", "a", &"x".repeat(20_000)]);
            client.line("GET a");
        }
        // Buffers are freed in the course of some seconds.
        wait_until("what is told is what is used", || {
            let each = (used(&mut control) - before) as usize / COUNT;
            let list = control.line("CLIENT LIST").text();
            let mut told = list
                .lines()
                .filter(|line| line.contains("cmd=get"))
                .map(|line| info::word(line, "tot-mem").and_then(|text| text.parse::<usize>().ok()));
            each <= 24 * 1024
                && told.all(|told| told.is_some_and(|told| told <= 24 * 1024 && told * 3 / 2 >= each))
        });
        drop(clients);
        wait_until("they are gone", || {
            info::figure(&mut control, "connected_clients") == 1
        });
    }
}

#[test]
fn config_and_hello_show_what_redis_shows() {
    let outcomes = [node::launch(2), redis::launch()].map(|launch| {
        let server = Secured::start(launch, &ANYBODY);
        let mut client = server.connect(None);
        let directory = server.authority.path("");
        let mut shown = String::new();
        for directive in [
            "tls-auth-clients",
            "tls-protocols",
            "tls-ciphers",
            "tls-ciphersuites",
            "tls-cert-file",
            "tls-key-file",
            "tls-ca-cert-file",
            "tls-ca-cert-dir",
            "tls-session-caching",
            "tls-session-cache-size",
            "tls-session-cache-timeout",
            "tls-prefer-server-ciphers",
            "tls-replication",
            "tls-cluster",
        ] {
            let reply = client.call(&["CONFIG", "GET", directive]);
            shown.push_str(&format!(
                "{directive}: {:?}\n",
                reply.items().last().map(|value| value.text())
            ));
        }
        let hello = client.line("HELLO 3");
        shown.push_str(&format!("{:?} {:?}\n", hello.field("proto"), hello.field("mode")));
        shown.replace(&directory, "")
    });
    assert_eq!(outcomes[0], outcomes[1]);
}

/// The time of a loop that serves TLS goes to its clients, not to itself: it sleeps when nothing comes.
#[test]
fn a_quiet_session_costs_no_time() {
    for backend in BACKENDS {
        let server = Secured::start(launch(1, backend), &ANYBODY);
        let mut client = server.connect(None);
        assert_eq!(client.line("PING").text(), "PONG");
        let pid = server.process.pid();
        let before = procfs::cpu(pid).expect("a figure");
        sleep(Duration::from_secs(2));
        let spent = procfs::cpu(pid).expect("a figure") - before;
        assert!(spent < Duration::from_millis(300), "{backend}: {spent:?}");
    }
}

#[test]
fn commands_of_both_ports_see_each_other() {
    everywhere(|server| {
        let mut secure = server.connect(None);
        let mut plain = server.process.connect();
        assert_eq!(secure.line("WATCH k").text(), "OK");
        assert_eq!(plain.line("SET k 1").text(), "OK");
        assert_eq!(secure.line("MULTI").text(), "OK");
        assert_eq!(secure.line("GET k").text(), "QUEUED");
        assert!(secure.line("EXEC").is_null());
        assert_eq!(secure.line("CLIENT LIST").text().lines().count(), 2);
        assert_eq!(plain.line("MONITOR").text(), "OK");
        assert_eq!(secure.line("PING").text(), "PONG");
        assert!(plain.read().expect("a line").text().contains("PING"));
    });
}

/// A reader so slow that the node gives it up.
#[test]
fn a_client_that_never_reads_is_ended_by_its_limit() {
    for backend in BACKENDS {
        let options = [
            "--tls-auth-clients",
            "no",
            "--client-output-buffer-limit",
            "normal",
            "3mb",
            "0",
            "0",
        ];
        let server = Secured::start(launch(2, backend), &options);
        let mut client = server.connect(None);
        client.call(&["SET", "big", &"x".repeat(100_000)]);
        let mut request = Vec::new();
        for _ in 0..400 {
            encode(&mut request, &["GET", "big"]);
        }
        client.write(&request).expect("it is sent");
        let mut control = server.process.connect();
        wait_until("it is ended", || {
            info::figure(&mut control, "connected_clients") == 1
        });
        let session = client.session();
        let until = Instant::now() + Duration::from_secs(20);
        let mut buffer = [0; 65_536];
        let end = loop {
            assert!(Instant::now() < until, "the connection does not end");
            match session.read(&mut buffer) {
                Ok(0) => break ErrorKind::UnexpectedEof,
                Ok(_) => {}
                Err(error) => break error.kind(),
            }
        };
        assert!(
            matches!(end, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset),
            "{end:?}"
        );
    }
}
