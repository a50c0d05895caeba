//! The server as a program: start, messages, end, and requests that it refuses.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use shardis_tests::client::{Client, PATIENCE};
use shardis_tests::node;
use shardis_tests::process::{Launch, Process, free_port};
use shardis_tests::slot::one_key_per_shard;
use shardis_tests::wait::wait_until;

/// The program with no options of the harness.
fn bare() -> Launch {
    Launch::new(node::binary())
}

/// Starts a server from a configuration and waits until it serves.
fn serve(launch: &Launch, port: u16) -> Process {
    let process = launch.spawn(port);
    process
        .wait_until_ready()
        .unwrap_or_else(|reason| panic!("{reason}: {}", process.log()));
    process
}

/// The value of a directive.
fn setting(process: &Process, name: &str) -> String {
    process
        .connect()
        .call(&["CONFIG", "GET", name])
        .pairs()
        .first()
        .map(|(_, value)| value.text())
        .unwrap_or_default()
}

#[test]
fn version_and_help() {
    for option in ["-v", "--version"] {
        let finished = bare().with(&[option]).finish(PATIENCE);
        assert_eq!(finished.code, Some(0));
        for part in ["Redis server v=", " sha=", " malloc=", " bits=64 ", " build="] {
            assert!(
                finished.output.contains(part),
                "{part:?} is missing in {:?}",
                finished.output
            );
        }
        if !node::is_redis() {
            assert!(
                finished.output.contains(" v=7.2.4 ") && finished.output.contains("shardis"),
                "{}",
                finished.output
            );
        }
    }
    for option in ["-h", "--help"] {
        let finished = bare().with(&[option]).finish(PATIENCE);
        assert!(finished.text().contains("Usage:"), "{}", finished.text());
    }
}

#[test]
fn log_lines_that_programs_wait_for() {
    let server = node::start(2);
    let log = server.log();
    for part in [
        "Server initialized",
        "Ready to accept connections",
        &format!("{}:M ", server.pid()),
    ] {
        assert!(log.contains(part), "{part:?} is missing in {log}");
    }
    let ready = log
        .lines()
        .find(|line| line.contains("Ready to accept"))
        .unwrap_or_default();
    assert!(ready.contains(" * Ready to accept connections"), "{ready}");
}

#[test]
fn a_configuration_file_with_includes_and_options_after_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let port = free_port();
    fs::write(path("more.conf"), "# more\nmaxmemory 100mb\nTIMEOUT 77\n").expect("a file");
    let text = format!(
        "# a comment\nport {port}\nbind 127.0.0.1\nsave \"\"\n\ninclude {}\nmaxmemory-policy 'allkeys-lru'\nrequirepass \"\"\nlogfile \"\"\n",
        path("more.conf")
    );
    fs::write(path("main.conf"), text).expect("a file");
    let options = [&path("main.conf"), "--hz", "20", "--maxmemory-samples", "9"];
    let server = serve(&bare().with(&options), port);
    for (name, value) in [
        ("maxmemory", "104857600"),
        ("timeout", "77"),
        ("maxmemory-policy", "allkeys-lru"),
        ("hz", "20"),
        ("maxmemory-samples", "9"),
        ("save", ""),
    ] {
        assert_eq!(setting(&server, name), value, "{name}");
    }
}

#[test]
fn configuration_from_standard_input() {
    let port = free_port();
    let text = format!("port {port}\nbind 127.0.0.1\nsave \"\"\ntimeout 55\n");
    let server = serve(&bare().with(&["-"]).input(&text), port);
    assert_eq!(setting(&server, "timeout"), "55");
}

#[test]
fn options_alone() {
    let port = free_port();
    let options = [
        "--port",
        &port.to_string(),
        "--bind",
        "127.0.0.1",
        "--save",
        "900",
        "1",
        "--save",
        "60",
        "1000",
        "--timeout",
        "5",
    ];
    let server = serve(&bare().with(&options), port);
    assert_eq!(setting(&server, "save"), "900 1 60 1000");
    assert_eq!(setting(&server, "timeout"), "5");
}

/// Starts from a file that will not do; returns what was said.
fn refused(text: &str) -> String {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("bad.conf");
    fs::write(&path, text).expect("a file");
    let finished = bare().with(&[path.display().to_string()]).finish(PATIENCE);
    assert_eq!(finished.code, Some(1), "{text:?}: {}", finished.text());
    let said = finished.text();
    assert!(
        node::is_redis() || said.contains("bad.conf"),
        "the file is not named: {said}"
    );
    said
}

#[test]
fn a_bad_configuration_stops_the_start_with_its_line_and_reason() {
    let port = format!("port {}\n", free_port());
    for (bad, line, reason) in [
        ("prot 1", 3, "Bad directive or wrong number of arguments"),
        ("maxmemory", 3, "wrong number of arguments"),
        ("maxmemory lots", 3, "argument must be a memory value"),
        (
            "maxmemory-policy nosuch",
            3,
            "argument(s) must be one of the following",
        ),
        ("appendonly maybe", 3, "argument must be 'yes' or 'no'"),
        ("timeout soon", 3, "argument couldn't be parsed into an integer"),
        ("timeout -5", 3, "argument must be between 0 and"),
        ("requirepass \"open", 3, "Unbalanced quotes in configuration line"),
    ] {
        let said = refused(&format!("{port}# second line\n{bad}\n"));
        assert!(said.contains("FATAL CONFIG FILE ERROR"), "{bad}: {said}");
        assert!(
            said.contains(&format!("at line {line}")) && said.contains(bad),
            "{bad}: {said}"
        );
        assert!(
            said.to_lowercase().contains(&reason.to_lowercase()),
            "{bad}: {reason:?} is missing in {said}"
        );
    }
}

#[test]
fn a_missing_file_and_a_bad_option_stop_the_start() {
    let finished = bare().with(&["/nonexistent/redis.conf"]).finish(PATIENCE);
    assert_eq!(finished.code, Some(1));
    assert!(
        finished.text().contains("/nonexistent/redis.conf"),
        "{}",
        finished.text()
    );
    let finished = bare().with(&["--port", "abc"]).finish(PATIENCE);
    assert_eq!(finished.code, Some(1), "{}", finished.text());
    let finished = bare().with(&["--nosuchoption", "1"]).finish(PATIENCE);
    assert_eq!(finished.code, Some(1), "{}", finished.text());
}

#[test]
fn a_taken_port_stops_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("an address").port();
    let finished = bare()
        .with(&["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .finish(PATIENCE);
    assert_eq!(finished.code, Some(1), "{}", finished.text());
    assert!(
        finished.text().contains("Failed listening on port"),
        "{}",
        finished.text()
    );
}

#[test]
fn signals_end_it_cleanly() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut server = node::start(4);
        let mut client = server.connect();
        client.line("SET k v");
        server.signal(signal);
        let status = server
            .wait(Duration::from_secs(10))
            .expect("it ends within ten seconds");
        assert_eq!(status.code(), Some(0), "signal {signal}: {}", server.log());
        assert!(
            server.log().contains("ready to exit, bye bye"),
            "{}",
            server.log()
        );
        assert!(client.is_closed_within(PATIENCE));
    }
}

#[test]
fn shutdown_ends_it_too() {
    let mut server = node::start(2);
    let mut client = server.connect();
    client.send(&["SHUTDOWN", "NOSAVE"]).expect("a server that reads");
    assert!(client.is_closed_within(PATIENCE));
    assert_eq!(
        server.wait(PATIENCE).and_then(|status| status.code()),
        Some(0),
        "{}",
        server.log()
    );
}

#[test]
fn a_stopped_process_goes_on_afterwards() {
    let server = node::start(2);
    let mut client = server.connect();
    client.line("SET k v");
    server.signal(libc::SIGSTOP);
    wait_until("all threads stand still", || server.is_stopped());
    client.send(&["GET", "k"]).expect("the system takes it");
    assert!(client.read_within(Duration::from_millis(100)).is_err());
    server.signal(libc::SIGCONT);
    assert_eq!(client.read().expect("a reply").text(), "v");
}

#[test]
fn too_many_clients() {
    let server = node::launch(2).with(&["--maxclients", "5"]).serve();
    let mut clients: Vec<Client> = (0..5).map(|_| server.connect()).collect();
    assert!(
        clients
            .iter_mut()
            .all(|client| client.line("PING").text() == "PONG")
    );
    let mut one_more = server.connect();
    assert_eq!(
        one_more.read().expect("a refusal").text(),
        "ERR max number of clients reached"
    );
    assert!(one_more.is_closed_within(PATIENCE));
    assert_eq!(clients[0].line("PING").text(), "PONG");
    drop(clients.pop());
    wait_until(
        "a place comes free",
        || matches!(server.connect().try_call(&["PING"]), Ok(reply) if reply.text() == "PONG"),
    );
}

#[test]
fn idle_clients_are_closed_after_the_timeout() {
    let server = node::launch(2).with(&["--timeout", "1"]).serve();
    let (mut idle, mut busy) = (server.connect(), server.connect());
    idle.line("PING");
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2500) {
        assert_eq!(busy.line("PING").text(), "PONG");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(idle.is_closed_within(PATIENCE));
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    for shards in [1, 4] {
        let server = node::launch(shards)
            .with(&["--client-output-buffer-limit", "normal", "1mb", "0", "0"])
            .serve();
        let mut client = server.connect();
        client.call(&["SET", "big", &"x".repeat(1 << 20)]);
        let mut control = server.connect();
        let get = b"GET big\r\n".repeat(100);
        // The server stops reading, or hangs up, before it has answered a hundred megabytes.
        let _ = client.write(&get);
        wait_until("the client is gone", || {
            let list = control.line("CLIENT LIST").text();
            list.lines().count() == 1
        });
        let (replies, is_closed) = client.rest(PATIENCE);
        assert!(is_closed && replies.len() < 100, "{} replies came", replies.len());
        assert_eq!(control.line("PING").text(), "PONG");
    }
}

#[test]
fn a_query_buffer_has_a_bound() {
    let server = node::launch(2)
        .with(&["--client-query-buffer-limit", "1mb"])
        .serve();
    let mut client = server.connect();
    let mut request = b"*1000\r\n".to_vec();
    request.extend(b"$9\r\nabcdefghi\r\n".repeat(900));
    request.extend(b"$50000000\r\n");
    let _ = client
        .write(&request)
        .and_then(|()| client.write(&vec![b'x'; 8 << 20]));
    assert!(
        client.is_closed_within(PATIENCE),
        "a client with an endless request is cut off"
    );
    assert_eq!(server.connect().line("PING").text(), "PONG");
}

#[test]
fn a_unix_socket() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("server.sock").display().to_string();
    let server = node::launch(2)
        .with(&["--unixsocket", &path, "--unixsocketperm", "700"])
        .serve();
    let mut client = Client::connect_unix(Path::new(&path)).expect("a server that accepts");
    assert_eq!(client.line("SET k v").text(), "OK");
    assert_eq!(server.connect().line("GET k").text(), "v");
    assert!(
        client
            .line("CLIENT INFO")
            .text()
            .contains(&format!("addr={path}:0"))
    );
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).expect("the socket").permissions());
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn several_addresses_ipv6_among_them() {
    let port = free_port();
    let options = [
        "--port",
        &port.to_string(),
        "--bind",
        "127.0.0.1",
        "-::1",
        "--save",
        "",
    ];
    let server = serve(&bare().with(&options), port);
    assert_eq!(server.connect().line("PING").text(), "PONG");
    // A machine without IPv6 is what the `-` before the address is for.
    if TcpListener::bind("[::1]:0").is_ok() {
        let mut client =
            Client::connect((std::net::Ipv6Addr::LOCALHOST, port).into()).expect("a server that accepts");
        assert_eq!(client.line("PING").text(), "PONG");
        assert!(
            client
                .line("CLIENT INFO")
                .text()
                .contains(&format!("laddr=[::1]:{port}"))
        );
    }
}

#[test]
fn many_connections_come_and_go() {
    let server = node::start(4);
    for _ in 0..20 {
        let mut clients: Vec<Client> = (0..50).map(|_| server.connect()).collect();
        for client in &mut clients {
            assert_eq!(client.line("PING").text(), "PONG");
        }
    }
    let mut control = server.connect();
    wait_until("all are gone", || {
        control.line("CLIENT LIST").text().lines().count() == 1
    });
}

/// The longest wait of one of the bystanders that a slow command may cause where it should cause none.
const UNDISTURBED: Duration = Duration::from_millis(150);

/// A command that takes a good part of a second occupies its shard and the loop of its client, no more.
#[test]
fn a_slow_command_leaves_the_other_shards_alone() {
    const SHARDS: usize = 4;
    let server = node::start(SHARDS);
    let keys = one_key_per_shard("{slow}", 1)
        .into_iter()
        .chain(one_key_per_shard("k", SHARDS))
        .collect::<Vec<_>>();
    let mut slow = server.connect();
    let (a, b) = (format!("{}a", keys[0]), format!("{}b", keys[0]));
    // Two strings of these lengths fill a table of some hundred million cells.
    slow.call(&["SET", &a, &"abcdefgh".repeat(1300)]);
    slow.call(&["SET", &b, &"hgfedcba".repeat(1300)]);
    for key in &keys[1..] {
        slow.call(&["SET", key, "v"]);
    }
    let start = Instant::now();
    slow.send(&["LCS", &a, &b, "LEN"]).expect("a server that reads");
    let bystander = |server: &Process, key: &str| {
        let mut client = server.connect();
        let mut longest = Duration::ZERO;
        while start.elapsed() < Duration::from_millis(400) {
            let asked = Instant::now();
            assert_eq!(client.call(&["GET", key]).text(), "v");
            longest = longest.max(asked.elapsed());
        }
        longest
    };
    let waits: Vec<Duration> = std::thread::scope(|scope| {
        let bystanders: Vec<_> = (0..2 * SHARDS)
            .map(|i| {
                let (server, key) = (&server, &keys[1 + i % SHARDS]);
                scope.spawn(move || bystander(server, key))
            })
            .collect();
        bystanders
            .into_iter()
            .map(|bystander| bystander.join().expect("a bystander that ends well"))
            .collect()
    });
    slow.read().expect("LCS answers in the end");
    let duration = start.elapsed();
    if node::is_redis() || duration < 2 * UNDISTURBED {
        return;
    }
    let undisturbed = waits.iter().filter(|wait| **wait < UNDISTURBED).count();
    assert!(
        undisturbed >= 2,
        "LCS took {duration:?}; longest waits of the others: {waits:?}"
    );
}

/// A directive that cannot be honoured is refused, not ignored.
#[test]
fn what_cannot_be_honoured_stops_the_start() {
    if node::is_redis() {
        return;
    }
    let port = free_port().to_string();
    let finished = bare()
        .with(&["--port", &port, "--save", "", "--tls-port", "6390"])
        .finish(PATIENCE);
    assert_eq!(finished.code, Some(1), "{}", finished.text());
    assert!(finished.text().contains("tls-cert-file"), "{}", finished.text());
    let server = node::start(1);
    let reply = server.connect().line("CONFIG SET tls-port 6390").text();
    assert!(reply.contains("tls-port"), "{reply}");
    assert_eq!(setting(&server, "tls-port"), "0");
}

#[test]
fn commands_can_be_renamed_and_removed() {
    let port = free_port();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("renames.conf");
    let text = format!("port {port}\nsave \"\"\nrename-command FLUSHALL \"\"\nrename-command GET fetch\n");
    fs::write(&path, text).expect("a file");
    let server = serve(&bare().with(&[path.display().to_string()]), port);
    let mut client = server.connect();
    for (line, reply) in [("SET k v", "OK"), ("fetch k", "v"), ("FETCH k", "v")] {
        assert_eq!(client.line(line).text(), reply, "{line}");
    }
    for line in ["GET k", "get k", "FLUSHALL", "flushall"] {
        let reply = client.line(line).text();
        assert!(reply.contains("unknown command"), "{line}: {reply}");
    }
    let said = refused("rename-command NOSUCH x\n");
    assert!(said.contains("No such command"), "{said}");
    let said = refused("rename-command GET set\n");
    assert!(said.contains("already exists"), "{said}");
}

#[test]
fn it_goes_to_the_background_and_leaves_its_pid() {
    let port = free_port();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str| directory.path().join(name).display().to_string();
    let finished = bare()
        .with(&[
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--daemonize",
            "yes",
        ])
        .with(&[
            "--pidfile",
            &file("pid"),
            "--logfile",
            &file("log"),
            "--dir",
            &file(""),
        ])
        .finish(PATIENCE);
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    wait_until("the pid file is written", || {
        fs::read_to_string(file("pid")).is_ok_and(|text| text.ends_with('\n'))
    });
    let ready =
        || fs::read_to_string(file("log")).is_ok_and(|text| text.contains("Ready to accept connections"));
    wait_until("it serves", ready);
    let pid = fs::read_to_string(file("pid")).expect("a pid file");
    let answer = std::process::Command::new(shardis_tests::redis::tool("redis-cli"))
        .args(["-p", &port.to_string(), "INFO", "server"])
        .output()
        .expect("redis-cli");
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    assert!(
        text.contains(&format!("process_id:{}", pid.trim())),
        "{pid}: {text}"
    );
    let ended = std::process::Command::new("kill")
        .args(["-TERM", pid.trim()])
        .status()
        .expect("kill");
    assert!(ended.success());
    wait_until("the pid file is gone", || {
        !fs::exists(file("pid")).unwrap_or(true)
    });
}
