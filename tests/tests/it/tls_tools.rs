//! Stock tools and client libraries over TLS, and whole dialogues beside a redis-server over TLS.

use std::process::{Command, Stdio};
use std::time::Duration;

use redis::{Commands as _, TlsCertificates};
use shardis_tests::process::{Launch, repository_root};
use shardis_tests::tls::{Secured, Subject};
use shardis_tests::{node, redis as real};

const PATIENCE: Duration = Duration::from_secs(120);

fn start(shards: usize) -> Secured {
    let server = Secured::start(node::launch(shards), &["--tls-auth-clients-user", "CN"]);
    server.authority.issue("orders", &Subject::named("orders"));
    server
        .process
        .connect()
        .line("ACL SETUSER orders on >secret ~* &* +@all");
    server
}

fn tool(name: &str, server: &Secured, options: &[&str]) -> String {
    let finished = Launch::new(&real::tool(name))
        .with(&["-p", &server.tls_port.to_string()])
        .with(&server.authority.tool_options("orders"))
        .with(options)
        .finish(PATIENCE);
    assert_eq!(finished.code, Some(0), "{options:?}: {}", finished.text());
    finished.output
}

#[test]
fn redis_cli() {
    for shards in [1, 2] {
        let server = start(shards);
        assert_eq!(tool("redis-cli", &server, &["set", "k", "v"]), "OK\n");
        assert_eq!(tool("redis-cli", &server, &["-3", "get", "k"]), "v\n");
        assert_eq!(tool("redis-cli", &server, &["acl", "whoami"]), "orders\n");
        assert_eq!(tool("redis-cli", &server, &["-r", "3", "incr", "n"]), "1\n2\n3\n");
        let pipe = Launch::new(&real::tool("redis-cli"))
            .with(&["-p", &server.tls_port.to_string(), "--pipe"])
            .with(&server.authority.tool_options("orders"))
            .input(&"*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$1\r\ny\r\n".repeat(10_000))
            .finish(PATIENCE);
        assert!(
            pipe.text().contains("errors: 0, replies: 10000"),
            "{}",
            pipe.text()
        );
        let url = format!("rediss://orders:secret@localhost:{}", server.tls_port);
        let by_url = Launch::new(&real::tool("redis-cli"))
            .with(&["-u", &url, "--cacert", &server.authority.path("ca.crt")])
            .with(&["--cert", &server.authority.path("orders.crt")])
            .with(&["--key", &server.authority.path("orders.key"), "ping"])
            .finish(PATIENCE);
        assert_eq!(by_url.output, "PONG\n", "{}", by_url.text());
    }
}

#[test]
fn redis_benchmark() {
    for shards in [1, 2] {
        let server = start(shards);
        let output = tool(
            "redis-benchmark",
            &server,
            &[
                "-n",
                "20000",
                "-c",
                "20",
                "-P",
                "8",
                "-t",
                "set,get,lpush,mset",
                "-q",
            ],
        );
        assert_eq!(output.matches("requests per second").count(), 4, "{output}");
        // A connection for each request.
        let output = tool(
            "redis-benchmark",
            &server,
            &["-n", "300", "-c", "10", "-k", "0", "-t", "get", "-q"],
        );
        assert!(output.contains("requests per second"), "{output}");
    }
}

#[test]
fn the_redis_crate() {
    for shards in [1, 2] {
        let server = start(shards);
        let read = |name: &str| std::fs::read(server.authority.file(name)).expect("a file");
        let certificates = TlsCertificates {
            client_tls: Some(redis::ClientTlsConfig {
                client_cert: read("orders.crt"),
                client_key: read("orders.key"),
            }),
            root_cert: Some(read("ca.crt")),
        };
        let url = format!("rediss://127.0.0.1:{}/", server.tls_port);
        let client = redis::Client::build_with_tls(url, certificates).expect("a client");
        let mut connection = client.get_connection().expect("a connection");
        let _: () = connection.set("k", vec![7_u8; 300_000]).expect("it is set");
        assert_eq!(connection.get::<_, Vec<u8>>("k").expect("a value").len(), 300_000);
        let user: String = redis::cmd("ACL")
            .arg("WHOAMI")
            .query(&mut connection)
            .expect("a user");
        assert_eq!(user, "orders");
    }
}

/// Runs a script of a client library: its arguments are the port and the files of the certificates.
fn script(mut command: Command, server: &Secured) {
    let finished = command
        .arg(server.tls_port.to_string())
        .args(["ca.crt", "orders.crt", "orders.key"].map(|name| server.authority.file(name)))
        .stdin(Stdio::null())
        .output()
        .expect("the script can be run");
    assert!(
        finished.status.success(),
        "{}{}",
        String::from_utf8_lossy(&finished.stdout),
        String::from_utf8_lossy(&finished.stderr)
    );
}

#[test]
fn redis_py() {
    for shards in [1, 2] {
        let mut command = Command::new("python3");
        command
            .arg(repository_root().join("tests/python/tls.py"))
            .env("PYTHONPATH", super::redis_py::library())
            .env("PYTHONDONTWRITEBYTECODE", "1");
        script(command, &start(shards));
    }
}

#[test]
fn ioredis() {
    for shards in [1, 2] {
        let mut command = Command::new("node");
        command
            .arg(repository_root().join("tests/node/tls.js"))
            .env("NODE_PATH", super::cluster_clients::node_modules());
        script(command, &start(shards));
    }
}
