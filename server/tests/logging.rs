//! The log of an embedded server: events for the embedding program, and nothing printed.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::{Arc, Mutex};

use shardis::Server;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;

/// An event as a host sees it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    target: String,
    level: String,
    node: String,
    text: String,
}

impl Visit for Seen {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "node" {
            self.node = value.to_owned();
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.text = format!("{value:?}");
        }
    }
}

/// A host's subscriber: it keeps what it sees.
#[derive(Clone, Default)]
struct Host(Arc<Mutex<Vec<Seen>>>);

impl Host {
    /// Texts and levels of what one node said.
    fn said(&self, node: &str) -> Vec<(String, String)> {
        let seen = self.0.lock().expect("no test panicked with it");
        let of_node = seen.iter().filter(|event| event.node == node);
        of_node
            .map(|event| (event.level.clone(), event.text.clone()))
            .collect()
    }
}

impl<S: Subscriber> Layer<S> for Host {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut seen = Seen {
            target: event.metadata().target().to_owned(),
            level: event.metadata().level().to_string(),
            ..Seen::default()
        };
        event.record(&mut seen);
        self.0.lock().expect("no test panicked with it").push(seen);
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn of(server: &Server) -> Self {
        Self(BufReader::new(
            TcpStream::connect(server.address()).expect("the server accepts"),
        ))
    }

    /// The first line of the reply that begins as told.
    fn ask(&mut self, line: &str, begin: &str) -> String {
        self.0
            .get_mut()
            .write_all(format!("{line}\r\n").as_bytes())
            .expect("the server reads");
        loop {
            let mut reply = String::new();
            assert_ne!(
                self.0.read_line(&mut reply).expect("a reply"),
                0,
                "{line}: the end"
            );
            if let Some(rest) = reply.strip_prefix(begin) {
                return rest.trim_end().to_owned();
            }
        }
    }
}

#[test]
fn a_host_receives_the_events_of_each_node() {
    let host = Host::default();
    tracing::subscriber::set_global_default(Registry::default().with(host.clone())).unwrap();
    let quiet = Server::builder()
        .directive("loglevel", "warning")
        .start()
        .unwrap();
    let server = Server::builder().start().unwrap();
    let (mut client, mut other) = (Client::of(&server), Client::of(&quiet));
    let run_id = client.ask("INFO server", "run_id:");
    let quiet_id = other.ask("INFO server", "run_id:");
    let ready = (
        Level::INFO.to_string(),
        "Ready to accept connections tcp".to_owned(),
    );
    assert!(host.said(&run_id).contains(&ready), "{:?}", host.said(&run_id));
    assert_eq!(host.said(&quiet_id), []);
    // The level is a directive of each node, and can be changed.
    for client in [&mut client, &mut other] {
        client.ask("CONFIG SET loglevel warning", "+OK");
    }
    assert!(other.ask("CONFIG SET activedefrag yes", "+OK").is_empty());
    let said = host.said(&quiet_id);
    assert!(
        matches!(&said[..], [(level, text)] if level == "WARN" && text.contains("'activedefrag'")),
        "{said:?}"
    );
    let targets: Vec<String> = host
        .0
        .lock()
        .unwrap()
        .iter()
        .map(|seen| seen.target.clone())
        .collect();
    assert!(targets.iter().all(|target| target == "shardis"), "{targets:?}");
}

/// The fields of an event of the audit log, by name.
#[derive(Debug, Default)]
struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

/// A host's subscriber that keeps the events of audit logs.
#[derive(Clone, Default)]
struct Auditor(Arc<Mutex<Vec<Fields>>>);

impl<S: Subscriber> Layer<S> for Auditor {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "shardis::audit" {
            let mut fields = Fields::default();
            event.record(&mut fields);
            self.0.lock().expect("no test panicked with it").push(fields);
        }
    }
}

/// Runs in a process of its own, for [`a_host_receives_what_the_audit_log_tells`].
#[test]
#[ignore = "part of another test"]
fn a_server_with_an_audit_log() {
    let auditor = Auditor::default();
    tracing::subscriber::set_global_default(Registry::default().with(auditor.clone())).unwrap();
    let server = Server::builder()
        .directive("loglevel", "nothing")
        .directive("audit-log", "log")
        .start()
        .unwrap();
    let mut client = Client::of(&server);
    let run_id = client.ask("INFO server", "run_id:");
    client.ask("ACL SETUSER default >secret", "+OK");
    client.ask("AUTH wrong", "-WRONGPASS");
    // What there is to tell has been told when the node has ended.
    server.stop();
    let seen = auditor.0.lock().unwrap();
    let of = |index: usize, name: &str| seen[index].0[name].as_str();
    assert_eq!(seen.len(), 2, "{seen:?}");
    let told = ["node", "event", "outcome", "user", "reason"].map(|name| of(1, name));
    assert_eq!(told, [&run_id, "login", "denied", "default", "auth"]);
    assert_eq!([of(0, "event"), of(0, "outcome")], ["users", "ok"]);
    assert!(of(0, "address").starts_with("127.0.0.1:"));
    assert!(
        of(0, "message").starts_with("{\"time\":\""),
        "{}",
        of(0, "message")
    );
    println!("it was told");
}

#[test]
fn a_host_receives_what_the_audit_log_tells() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_server_with_an_audit_log",
            "--ignored",
            "--nocapture",
        ])
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() && text.contains("it was told"), "{text}");
}

/// Runs in a process of its own, for [`nothing_is_printed`].
#[test]
#[ignore = "part of another test"]
fn a_server_without_a_subscriber() {
    let server = Server::builder().start().unwrap();
    Client::of(&server).ask("CONFIG SET activedefrag yes", "+OK");
    println!("it ran");
}

#[test]
fn nothing_is_printed() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_server_without_a_subscriber",
            "--ignored",
            "--nocapture",
        ])
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() && text.contains("it ran"), "{text}");
    for line in ["Ready", "activedefrag"] {
        assert!(!text.contains(line), "{text}");
    }
}
