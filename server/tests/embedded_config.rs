//! Configuration of embedded servers, and the addresses and URLs that they report.

use std::io::Write;
use std::time::Duration;

use redis::{Commands, Connection};
use shardis::{Builder, Server};

fn connect(server: &Server) -> Connection {
    let client = redis::Client::open(server.url()).expect("the URL is one that clients take");
    client.get_connection().expect("the server accepts connections")
}

fn config(client: &mut Connection, name: &str) -> String {
    let pair: Vec<String> = redis::cmd("CONFIG")
        .arg("GET")
        .arg(name)
        .query(client)
        .expect("CONFIG GET answers");
    pair.into_iter().nth(1).expect("the directive is known")
}

#[test]
fn the_url_has_the_password() {
    for password in ["secret", "p@ss/w:rd?#%&=+", "päßwörd 好"] {
        let server = Server::builder()
            .directive("requirepass", format!("\"{password}\""))
            .start()
            .expect("it starts");
        let () = connect(&server).set("k", "v").expect("the client is let in");
        let other = format!("redis://{}/", server.address());
        let mut client = redis::Client::open(other)
            .expect("a URL")
            .get_connection()
            .expect("a connection");
        assert!(client.get::<_, String>("k").is_err(), "without it nobody is");
    }
}

#[test]
fn the_url_follows_a_password_that_changes() {
    let server = Server::builder().start().expect("it starts");
    let mut client = connect(&server);
    let () = redis::cmd("CONFIG")
        .arg(&["SET", "requirepass", "new one"])
        .query(&mut client)
        .expect("it is set");
    let () = connect(&server).set("k", "v").expect("the client is let in");
}

#[test]
fn wildcards_are_reached_by_loopback() {
    for (bind, url) in [
        ("0.0.0.0", "redis://127.0.0.1:"),
        ("* -::*", "redis://127.0.0.1:"),
        ("::", "redis://[::1]:"),
    ] {
        let started = Server::builder().directive("bind", bind).start();
        if bind == "::" && started.is_err() && std::net::TcpListener::bind("[::1]:0").is_err() {
            // The machine has no IPv6; the other rows tell the rest.
            continue;
        }
        let server = started.expect("it starts");
        assert!(server.url().starts_with(url), "{} for {bind}", server.url());
        let () = connect(&server).set("k", "v").expect("it is reached");
    }
}

#[test]
fn a_unix_socket_alone_has_a_url() {
    let directory = std::env::temp_dir().join(format!("shardis test {}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let path = directory.join("a socket.sock");
    for password in ["", "p&ss w?rd"] {
        let server = Server::builder()
            .directive("port", "0")
            .directive("unixsocket", format!("\"{}\"", path.display()))
            .directive("requirepass", format!("\"{password}\""))
            .start()
            .expect("it starts");
        assert!(server.url().starts_with("unix:///"), "{}", server.url());
        assert_eq!(server.address().port(), 0);
        let () = connect(&server).set("k", "v").expect("it is reached");
    }
    std::fs::remove_dir_all(&directory).expect("nothing is left in it");
}

#[test]
fn lines_hold_in_order_and_may_be_repeated() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(file, "maxclients 77\nhz 33").expect("it is written");
    let server = Server::builder()
        .directive("save", "900 1")
        .directive("save", "60 1000")
        .directive("rename-command", "FLUSHALL \"\"")
        .directive("rename-command", "FLUSHDB wipe")
        .directive("maxclients", "5")
        .directive("include", file.path().display().to_string())
        .directive("hz", "44")
        .directive("client-output-buffer-limit", "pubsub 1mb 512kb 30")
        .directive("proto-max-bulk-len", "\"1048576\"")
        .start()
        .expect("it starts");
    let mut client = connect(&server);
    assert_eq!(config(&mut client, "save"), "900 1 60 1000");
    assert_eq!(config(&mut client, "maxclients"), "77");
    assert_eq!(config(&mut client, "hz"), "44");
    assert_eq!(config(&mut client, "proto-max-bulk-len"), "1048576");
    let limits = config(&mut client, "client-output-buffer-limit");
    assert!(limits.contains("pubsub 1048576 524288 30"), "{limits}");
    let gone: redis::RedisResult<()> = redis::cmd("FLUSHALL").query(&mut client);
    assert!(gone.is_err());
    let () = redis::cmd("WIPE").query(&mut client).expect("it is the new name");
}

#[test]
fn what_cannot_be_is_refused_with_a_reason() {
    let refused = |builder: Builder| builder.start().expect_err("it is refused").to_string();
    for (name, value) in [
        ("logfile", "/tmp/log"),
        ("daemonize", "yes"),
        ("pidfile", "/tmp/pid"),
        ("supervised", "systemd"),
        ("syslog-enabled", "yes"),
        ("appendonly", "yes"),
        ("cluster-enabled", "yes"),
        ("user", "ada +nosuch"),
        ("maxclients", "many"),
        ("nonsense", "1"),
        ("maxclients", "1\nhz 2"),
        ("requirepass", "two words"),
    ] {
        let text = refused(Server::builder().directive(name, value));
        assert!(text.contains(name), "{name} {value:?}: {text}");
    }
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(file, "daemonize yes").expect("it is written");
    let included = Server::builder().directive("include", file.path().display().to_string());
    assert!(refused(included).contains("daemonize"));
    // A directive that only confirms the default is no reason to refuse.
    let harmless = Server::builder()
        .directive("daemonize", "no")
        .directive("logfile", "");
    assert!(harmless.start().expect("it starts").is_running());
}

#[test]
fn a_seed_names_the_run() {
    let run_id = |builder: Builder| {
        let server = builder.start().expect("it starts");
        let info: String = redis::cmd("INFO")
            .arg("server")
            .query(&mut connect(&server))
            .expect("INFO answers");
        let line = info.lines().find_map(|line| line.strip_prefix("run_id:"));
        line.expect("a run id").to_owned()
    };
    let seeded = |seed| run_id(Server::builder().seed(seed));
    assert_eq!(seeded(1), seeded(1));
    assert_ne!(seeded(1), seeded(2));
    assert_ne!(run_id(Server::builder()), run_id(Server::builder()));
}

#[test]
fn it_runs_until_a_client_says_shutdown() {
    let server = Server::builder().shards(2).start().expect("it starts");
    assert!(server.is_running());
    let mut client = connect(&server);
    let waiter = std::thread::spawn(move || {
        server.wait();
    });
    std::thread::sleep(Duration::from_millis(50));
    assert!(!waiter.is_finished());
    let _: redis::RedisResult<()> = redis::cmd("SHUTDOWN").arg("NOSAVE").query(&mut client);
    waiter.join().expect("it waits to the end");
}
