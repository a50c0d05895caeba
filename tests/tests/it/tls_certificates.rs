//! Certificates: those that open a connection and those that do not, and their exchange while the server runs.

use std::fs;
use std::io;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind};
use shardis_tests::client::Client;
use shardis_tests::process::{Launch, free_port};
use shardis_tests::tls::{Authority, Secured, Subject, replace};
use shardis_tests::{node, redis};

/// Connects, and has a PING answered: in TLS 1.3 a client learns only then that its certificate was not accepted.
fn try_ping(server: &Secured, config: &Arc<ClientConfig>) -> io::Result<String> {
    let mut client = Client::connect_tls(server.address(), config)?;
    client.try_call(&["PING"]).map(|reply| reply.text())
}

fn is_served(server: &Secured, config: &Arc<ClientConfig>) -> bool {
    try_ping(server, config).is_ok_and(|reply| reply == "PONG")
}

/// Everybody who might knock, and whether they are let in under `yes`, `optional` and `no`.
#[test]
fn three_modes_decide_who_is_let_in() {
    for (mode, expected) in [
        ("yes", [true, false, false, false, false]),
        ("optional", [true, true, false, false, false]),
        ("no", [true, true, true, true, true]),
    ] {
        for launch in [node::launch(1), node::launch(2), redis::launch()] {
            let server = Secured::start(launch, &["--tls-auth-clients", mode]);
            let ours = &server.authority;
            ours.issue("good", &Subject::named("good"));
            ours.issue(
                "old",
                &Subject {
                    is_expired: true,
                    ..Subject::named("old")
                },
            );
            ours.self_sign("own", &Subject::named("own"));
            let theirs = Authority::new();
            theirs.issue("good", &Subject::named("good"));
            let served = [
                ours.client(Some("good")),
                ours.client(None),
                ours.client(Some("old")),
                ours.client_of(&theirs, Some("good")),
                ours.client(Some("own")),
            ]
            .map(|config| is_served(&server, &config));
            assert_eq!(served, expected, "{mode}\n{}", server.process.log());
        }
    }
}

#[test]
fn refused_certificates_are_told_in_one_line_a_second() {
    let server = Secured::start(node::launch(1), &["--loglevel", "notice"]);
    for _ in 0..20 {
        assert!(!is_served(&server, &server.authority.client(None)));
    }
    let log = server.process.log();
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("Error accepting a client connection"))
        .collect();
    assert!((1..=4).contains(&lines.len()), "{log}");
    assert!(
        lines[0].contains("addr=127.0.0.1:") && lines[0].contains("certificate"),
        "{log}"
    );
}

/// A launch that must fail, and what it says.
fn refusal(launch: Launch, options: &[String]) -> String {
    let finished = launch
        .with(&["--port", "0"])
        .with(options)
        .finish(Duration::from_secs(20));
    assert_ne!(finished.code, Some(0));
    assert!(finished.code.is_some(), "it runs: {}", finished.text());
    finished.text()
}

#[test]
fn a_start_fails_with_a_line_that_says_why() {
    let authority = Authority::new();
    let other = Authority::new();
    fs::write(authority.file("empty"), "no PEM").expect("a file");
    let files = |certificate: &str, key: &str, ca: &str| {
        let mut options = authority.options(free_port());
        for (name, value) in [
            ("--tls-cert-file", certificate),
            ("--tls-key-file", key),
            ("--tls-ca-cert-file", ca),
        ] {
            let at = options
                .iter()
                .position(|option| option == name)
                .expect("it is there")
                + 1;
            options[at] = value.to_owned();
        }
        options
    };
    let path = |name: &str| authority.path(name);
    let (certificate, key, ca) = (path("server.crt"), path("server.key"), path("ca.crt"));
    for (options, expected) in [
        (files("", &key, &ca), "No tls-cert-file configured!"),
        (files(&certificate, "", &ca), "No tls-key-file configured!"),
        (files(&path("none"), &key, &ca), "Failed to load certificate: "),
        (files(&path("empty"), &key, &ca), "no certificate in PEM form"),
        (
            files(&certificate, &path("empty"), &ca),
            "no private key in PEM form",
        ),
        (
            files(&certificate, &other.path("server.key"), &ca),
            "does not belong to the certificate",
        ),
        (
            files(&certificate, &key, ""),
            "Either tls-ca-cert-file or tls-ca-cert-dir must be specified",
        ),
        (
            files(&certificate, &key, &path("none")),
            "Failed to configure CA certificate(s) file",
        ),
    ] {
        let text = refusal(node::launch(1), &options);
        assert!(text.contains(expected), "{options:?}: {text}");
    }
    for (name, value, expected) in [
        ("--tls-protocols", "TLSv1.1", "too old"),
        ("--tls-protocols", "TLSv9", "Invalid tls-protocols"),
        ("--tls-ciphers", "AES256-SHA", "'AES256-SHA' does not exist here"),
        (
            "--tls-ciphersuites",
            "TLS_AES_128_CCM_SHA256",
            "does not exist here",
        ),
    ] {
        let mut options = files(&certificate, &key, &ca);
        options.extend([name.to_owned(), value.to_owned()]);
        let text = refusal(node::launch(1), &options);
        assert!(text.contains(expected), "{name} {value}: {text}");
    }
}

/// Runs openssl, which must succeed.
fn openssl(arguments: &[&str]) {
    let finished = Launch::new(&redis::tool("openssl"))
        .with(arguments)
        .finish(Duration::from_secs(60));
    assert_eq!(finished.code, Some(0), "{arguments:?}: {}", finished.text());
}

#[test]
fn keys_may_be_encrypted_and_of_any_kind() {
    let authority = Authority::new();
    let (plain, locked) = (authority.path("server.key"), authority.path("locked.key"));
    for cipher in ["aes256", "aes-128-cbc"] {
        openssl(&[
            "pkcs8",
            "-topk8",
            "-v2",
            cipher,
            "-passout",
            "pass:secret words",
            "-in",
            &plain,
            "-out",
            &locked,
        ]);
        let mut options = authority.options(free_port());
        options.extend(["--tls-key-file".to_owned(), locked.clone()]);
        assert!(refusal(node::launch(1), &options).contains("no password is configured"));
        options.extend(["--tls-key-file-pass".to_owned(), "wrong".to_owned()]);
        let text = refusal(node::launch(1), &options);
        assert!(
            text.contains("password does not open it") && !text.contains("wrong"),
            "{text}"
        );
        let server = Secured::start_with(Authority::new(), node::launch(1), &["--tls-auth-clients", "no"]);
        let mut control = server.process.connect();
        let reply = control.call(&[
            "CONFIG",
            "SET",
            "tls-cert-file",
            &authority.path("server.crt"),
            "tls-key-file",
            &locked,
            "tls-key-file-pass",
            "secret words",
            "tls-ca-cert-file",
            &authority.path("ca.crt"),
        ]);
        assert_eq!(reply.text(), "OK", "{}", server.process.log());
        assert!(is_served(&server, &authority.client(None)));
    }
    // The old form of OpenSSL, which has to be converted.
    openssl(&[
        "genrsa",
        "-traditional",
        "-aes128",
        "-passout",
        "pass:x",
        "-out",
        &locked,
        "2048",
    ]);
    let mut options = authority.options(free_port());
    options.extend(["--tls-key-file".to_owned(), locked]);
    assert!(refusal(node::launch(1), &options).contains("openssl pkcs8 -topk8"));
}

#[test]
fn authorities_may_be_files_in_a_directory() {
    let authority = Authority::new();
    authority.issue("good", &Subject::named("good"));
    let directory = tempfile::tempdir().expect("a directory");
    fs::copy(authority.file("ca.crt"), directory.path().join("0a1b2c3d.0")).expect("a file");
    fs::write(directory.path().join("README"), "not a certificate").expect("a file");
    let folder = directory.path().display().to_string();
    let options = ["--tls-ca-cert-file", "", "--tls-ca-cert-dir", &folder];
    let server = Secured::start_with(authority, node::launch(2), &options);
    assert!(is_served(&server, &server.authority.client(Some("good"))));
    assert!(!is_served(&server, &server.authority.client(None)));
}

#[test]
fn versions_and_ciphers_are_those_of_the_configuration() {
    let server = Secured::start(node::launch(1), &["--tls-auth-clients", "no"]);
    let mut control = server.process.connect();
    let (old, new) = (
        server.authority.client_speaking(&TLS12),
        server.authority.client_speaking(&TLS13),
    );
    let served = || [is_served(&server, &old), is_served(&server, &new)];
    assert_eq!(served(), [true, true]);
    assert_eq!(control.line("CONFIG SET tls-protocols TLSv1.3").text(), "OK");
    assert_eq!(served(), [false, true]);
    assert_eq!(control.line("CONFIG SET tls-protocols TLSv1.2").text(), "OK");
    assert_eq!(served(), [true, false]);
    assert_eq!(control.call(&["CONFIG", "SET", "tls-protocols", ""]).text(), "OK");
    let suite = |config: &Arc<ClientConfig>| {
        let mut client = Client::connect_tls(server.address(), config).expect("a connection");
        let suite = client.session().conn.negotiated_cipher_suite().expect("a suite");
        format!("{:?}", suite.suite())
    };
    control.call(&["CONFIG", "SET", "tls-ciphers", "ECDHE-ECDSA-CHACHA20-POLY1305"]);
    control.call(&[
        "CONFIG",
        "SET",
        "tls-ciphersuites",
        "TLS_CHACHA20_POLY1305_SHA256",
    ]);
    assert_eq!(suite(&old), "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256");
    assert_eq!(suite(&new), "TLS13_CHACHA20_POLY1305_SHA256");
}

/// The certificate that a server shows.
fn shown(server: &Secured, config: &Arc<ClientConfig>) -> Vec<u8> {
    let mut client = Client::connect_tls(server.address(), config).expect("a connection");
    let chain = client.session().conn.peer_certificates().expect("a certificate");
    chain[0].to_vec()
}

#[test]
fn certificates_are_renewed_by_setting_the_same_path() {
    for launch in [node::launch(2), redis::launch()] {
        let server = Secured::start(launch, &["--tls-auth-clients", "no"]);
        let authority = &server.authority;
        let (certificate, key) = (authority.path("server.crt"), authority.path("server.key"));
        let (mut control, mut client) = (server.process.connect(), server.connect(None));
        let first = shown(&server, &authority.client(None));
        authority.issue("next", &Subject::named("next"));
        let set = |control: &mut Client| {
            control
                .call(&[
                    "CONFIG",
                    "SET",
                    "tls-cert-file",
                    &certificate,
                    "tls-key-file",
                    &key,
                ])
                .text()
        };
        // One file of the pair, and no file at all: the old pair stays.
        replace(&authority.file("server.crt"), &authority.file("next.crt"));
        const FAILED: &str = "ERR CONFIG SET failed (possibly related to argument 'tls-cert-file') - Unable to update TLS \
             configuration. Check server logs.";
        assert_eq!(set(&mut control), FAILED);
        assert_eq!(shown(&server, &authority.client(None)), first);
        fs::remove_file(authority.file("server.key")).expect("the key goes");
        assert_eq!(set(&mut control), FAILED);
        assert_eq!(shown(&server, &authority.client(None)), first);
        replace(&authority.file("server.key"), &authority.file("next.key"));
        assert_eq!(set(&mut control), "OK");
        let second = shown(&server, &authority.client(None));
        assert_ne!(second, first);
        assert_eq!(client.line("PING").text(), "PONG", "old connections stay");
        assert_eq!(
            control.line("CONFIG GET tls-cert-file").items()[1].text(),
            certificate
        );
    }
}

#[test]
fn a_change_of_several_directives_that_fails_changes_none() {
    let server = Secured::start(node::launch(2), &["--tls-auth-clients", "no"]);
    let mut control = server.process.connect();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let reply = control.call(&["CONFIG", "SET", "tls-auth-clients", "yes", "tls-port", &port]);
    assert!(reply.is_error(), "{reply:?}");
    assert!(
        is_served(&server, &server.authority.client(None)),
        "no certificate is asked for"
    );
    assert_eq!(
        control.line("CONFIG GET tls-auth-clients").items()[1].text(),
        "no"
    );
}

/// A configuration whose session store is the client's own.
fn resuming(server: &Secured, certificate: Option<&str>) -> Arc<ClientConfig> {
    server.authority.client(certificate)
}

fn kind(server: &Secured, config: &Arc<ClientConfig>) -> HandshakeKind {
    let mut client = Client::connect_tls(server.address(), config).expect("a connection");
    // The tickets come with the first reply.
    assert_eq!(client.line("PING").text(), "PONG");
    client.session().conn.handshake_kind().expect("it is complete")
}

#[test]
fn sessions_are_resumed_as_the_configuration_says() {
    let server = Secured::start(node::launch(2), &["--tls-auth-clients", "no"]);
    let mut control = server.process.connect();
    for version in [&TLS12, &TLS13] {
        let config = server.authority.client_speaking(version);
        assert_eq!(kind(&server, &config), HandshakeKind::Full);
        assert_eq!(kind(&server, &config), HandshakeKind::Resumed, "{version:?}");
        assert_eq!(kind(&server, &config), HandshakeKind::Resumed, "{version:?}");
        // Other contexts know nothing of the sessions before.
        assert_eq!(
            control.line("CONFIG SET tls-session-cache-timeout 1").text(),
            "OK"
        );
        assert_eq!(kind(&server, &config), HandshakeKind::Full);
        std::thread::sleep(Duration::from_millis(1100));
        assert_eq!(kind(&server, &config), HandshakeKind::Full, "its time was over");
        assert_eq!(control.line("CONFIG SET tls-session-caching no").text(), "OK");
        assert_eq!(kind(&server, &config), HandshakeKind::Full);
        assert_eq!(kind(&server, &config), HandshakeKind::Full);
        control.line("CONFIG SET tls-session-caching yes tls-session-cache-timeout 300");
    }
}

#[test]
fn an_authority_that_is_taken_away_ends_resumption_too() {
    let server = Secured::start(node::launch(1), &[]);
    server.authority.issue("good", &Subject::named("good"));
    let config = resuming(&server, Some("good"));
    assert_eq!(kind(&server, &config), HandshakeKind::Full);
    assert_eq!(kind(&server, &config), HandshakeKind::Resumed);
    let other = Authority::new();
    let reply = server
        .process
        .connect()
        .call(&["CONFIG", "SET", "tls-ca-cert-file", &other.path("ca.crt")]);
    assert_eq!(reply.text(), "OK");
    assert!(!is_served(&server, &config));
}

#[test]
fn rewritten_configurations_start_again() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("server.conf");
    let (port, tls_port) = (free_port(), free_port());
    let text = format!(
        "port {port}\nbind 127.0.0.1\nsave \"\"\ndir {}\n",
        directory.path().display()
    );
    fs::write(&file, text).expect("a file");
    let launch = Launch::new(node::binary()).with(&[file.display().to_string()]);
    let server = launch.spawn(port);
    server.wait_until_ready().expect("it starts");
    let mut control = server.connect();
    let reply = control.call(&[
        "CONFIG",
        "SET",
        "tls-port",
        &tls_port.to_string(),
        "tls-cert-file",
        &authority.path("server.crt"),
        "tls-key-file",
        &authority.path("server.key"),
        "tls-auth-clients",
        "no",
        "tls-auth-clients-user",
        "cn",
    ]);
    assert_eq!(reply.text(), "OK", "{}", server.log());
    assert_eq!(control.line("CONFIG REWRITE").text(), "OK");
    drop(server);
    let text = fs::read_to_string(&file).expect("a file");
    for line in ["tls-auth-clients no", "tls-auth-clients-user CN", "tls-port "] {
        assert!(text.contains(line), "{text}");
    }
    let server = launch.spawn(port);
    server.wait_until_ready().expect("it starts again");
    let address = ([127, 0, 0, 1], tls_port).into();
    let mut client = Client::connect_tls(address, &authority.client(None)).expect("a connection");
    assert_eq!(client.line("PING").text(), "PONG");
}

#[test]
fn s_client_sees_a_server_like_any_other() {
    let server = Secured::start(node::launch(1), &["--tls-auth-clients", "no"]);
    let output = Command::new(redis::tool("openssl"))
        .args([
            "s_client",
            "-quiet",
            "-verify_return_error",
            "-verify_ip",
            "127.0.0.1",
            "-CAfile",
        ])
        .arg(server.authority.file("ca.crt"))
        .args(["-connect", &server.address().to_string()])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .and_then(|mut child| {
            use std::io::Write as _;
            let mut input = child.stdin.take().expect("its input");
            input.write_all(b"SET a 1\r\nGET a\r\nQUIT\r\n")?;
            let output = child.wait_with_output();
            drop(input);
            output
        })
        .expect("it runs");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "+OK\r\n$1\r\n1\r\n+OK\r\n"
    );
}
