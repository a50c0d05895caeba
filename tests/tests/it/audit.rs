//! The audit log: what it tells, what it never tells, and what happens while it cannot be written.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;
use shardis_tests::client::Client;
use shardis_tests::cluster::{Cluster, Plan};
use shardis_tests::faults::{Act, Fault, Faults, Operation};
use shardis_tests::info::{field, figure};
use shardis_tests::node;
use shardis_tests::process::{Launch, Process};
use shardis_tests::replication::member::Kind;
use shardis_tests::wait::wait_until;

/// Entries that may wait for the file, as the server bounds them.
const WAITING_MAX: u64 = 1024;

/// A server with an audit log, and the faults that its files meet.
struct Place {
    faults: Faults,
    server: Process,
}

impl Place {
    fn start(shards: usize, options: &[&str]) -> Self {
        let faults = Faults::new();
        let launch = node::launch(shards)
            .with(&["--audit-log", "audit.log", "--enable-protected-configs", "yes"])
            .with(options);
        let server = faults.apply(launch).serve();
        Self { faults, server }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.faults.data().join(name)
    }

    /// The lines of the audit log, when all that has happened is in it.
    fn lines(&self, client: &mut Client) -> Vec<Value> {
        wait_until("everything is written", || {
            figure(client, "audit_lines_waiting") == 0
        });
        read(&self.file("audit.log"))
    }
}

/// The lines of a file, each of which is an object of JSON.
fn read(path: &std::path::Path) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("the audit log");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// A field of a line; empty where it is missing.
fn text(line: &Value, name: &str) -> String {
    line[name].as_str().unwrap_or_default().to_owned()
}

/// A line in short: event, outcome, reason, user, context, command.
fn short(line: &Value) -> String {
    let command = line["command"].as_array().map(|words| {
        let words: Vec<_> = words.iter().filter_map(Value::as_str).collect();
        words.join(" ")
    });
    let fields = ["event", "outcome", "reason", "user", "context"].map(|name| text(line, name));
    format!("{}|{}", fields.join("|"), command.unwrap_or_default())
}

/// Sends lines, whatever the replies.
fn say(client: &mut Client, lines: &[&str]) {
    for line in lines {
        client.line(line);
    }
}

#[test]
fn every_kind_of_event_has_its_line() {
    for shards in [1, 4] {
        let place = Place::start(shards, &[]);
        let mut admin = place.server.connect();
        say(
            &mut admin,
            &["ACL SETUSER bob on >secret-1 ~a* &news +get +auth +hello +multi +exec +subscribe"],
        );
        let mut bob = place.server.connect();
        say(
            &mut bob,
            &[
                "AUTH bob wrong",
                "AUTH bob secret-1",
                "HELLO 3 AUTH bob secret-1 SETNAME desk",
                "HELLO 2",
                "GET a",
                "GET b",
                "SET a 1",
                "SUBSCRIBE gossip",
                "MULTI",
                "GET c",
                "EXEC",
            ],
        );
        say(
            &mut admin,
            &[
                "DEBUG SLEEP 0",
                "CONFIG SET maxmemory 100mb maxmemory-policy allkeys-lru",
                "CONFIG SET no-such-thing 1",
                "CONFIG REWRITE",
                "CONFIG GET *",
                "REPLICAOF 127.0.0.1 1",
                "REPLICAOF NO ONE",
                "FAILOVER",
                "ACL DELUSER bob nobody",
                "ACL LOAD",
                "ACL LOG",
                "ACL LOG RESET",
                "CONFIG SET requirepass secret-2",
            ],
        );
        let mut stranger = place.server.connect();
        say(&mut stranger, &["GET a", "AUTH secret-2"]);
        let lines = place.lines(&mut admin);
        let expected = [
            "users|ok||default|toplevel|ACL SETUSER bob on (redacted) ~a* &news +get +auth +hello +multi +exec +subscribe",
            "login|denied|auth|bob|toplevel|AUTH (redacted) (redacted)",
            "login|ok||bob|toplevel|AUTH (redacted) (redacted)",
            "login|ok||bob|toplevel|HELLO 3 AUTH (redacted) (redacted) SETNAME desk",
            "denied|denied|key|bob|toplevel|GET b",
            "denied|denied|command|bob|toplevel|SET a 1",
            "denied|denied|channel|bob|toplevel|SUBSCRIBE gossip",
            "denied|denied|key|bob|multi|GET c",
            "denied|denied|forbidden|default|toplevel|DEBUG SLEEP 0",
            "config|ok||default|toplevel|CONFIG SET maxmemory 100mb maxmemory-policy allkeys-lru",
            "config|failed|ERR Unknown option or number of arguments for CONFIG SET - 'no-such-thing'|default|toplevel|CONFIG \
             SET no-such-thing (redacted)",
            "config|failed|ERR The server is running without a config file|default|toplevel|CONFIG REWRITE",
            "topology|ok||default|toplevel|REPLICAOF 127.0.0.1 1",
            "topology|ok||default|toplevel|REPLICAOF NO ONE",
            "topology|failed|ERR FAILOVER requires connected replicas.|default|toplevel|FAILOVER",
            "users|ok||default|toplevel|ACL DELUSER bob nobody",
            "users|failed|ERR This Redis instance is not configured to use an ACL file. You may want to specify users via the \
             ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have a Redis configuration file set) in order to \
             store users in the Redis configuration.|default|toplevel|ACL LOAD",
            "users|ok||default|toplevel|ACL LOG RESET",
            "users|ok||default|toplevel|CONFIG SET requirepass (redacted)",
            "denied|denied|unauthenticated||toplevel|GET a",
            "login|ok||default|toplevel|AUTH (redacted)",
        ];
        assert_eq!(
            lines.iter().map(short).collect::<Vec<_>>(),
            expected,
            "{shards} shards"
        );
        let denied = &lines[4];
        assert_eq!(
            (text(denied, "object"), text(denied, "name")),
            ("b".to_owned(), "desk".to_owned())
        );
        let run_id = field(&mut admin, "run_id");
        for line in &lines {
            assert_eq!(text(line, "node"), run_id);
            assert!(text(line, "address").starts_with("127.0.0.1:"), "{line}");
            assert!(line["client"].as_u64() > Some(0), "{line}");
            let time = text(line, "time");
            assert!(
                time.len() == 27 && time.starts_with("20") && time.ends_with('Z'),
                "{time}"
            );
        }
    }
}

/// Whatever is sent, and wherever it fails, no password gets into the file; nor into the log, where that takes its place.
#[test]
fn no_password_is_told() {
    const SECRET: &str = "hunter2";
    let hash = "f52fbd32b2b3b86ff88ef6c490628285f482af15ddcb29541f94bcf526a3f6c7";
    for to in ["audit.log", "log"] {
        let place = Place::start(2, &["--audit-log", to]);
        let mut admin = place.server.connect();
        say(
            &mut admin,
            &[
                "ACL SETUSER ann on >hunter2 ~* &* +@all -config -acl",
                "ACL SETUSER ann <hunter2x",
                "ACL SETUSER ann hunter2",
                "ACL SETUSER ann (~a hunter2)",
                "ACL SETUSER ann (~a >hunter2",
                "ACL SETUSER ann \"hunter2\\x00tail\"",
                &format!("ACL SETUSER ann #{hash}"),
                &format!("ACL SETUSER ann #{hash}0"),
                &format!("ACL SETUSER ann !{hash}1"),
                "CONFIG SET requirepas hunter2",
                "CONFIG SET masterauth hunter2 masteruser hunter2",
                "CONFIG SET masterauth hunter2 maxmemory x",
                "AUTH hunter2",
                "AUTH ann hunter2x",
                "AUTH ann hunter2 more",
                "HELLO 3 AUTH ann hunter2x",
                "HELLO 3 AUTH ann hunter2 SETNAME \"a b\"",
                "HELLO 3 AUTH hunter2",
                "MULTI",
                "CONFIG SET requirepass hunter2",
                "ACL SETUSER eve on >hunter2",
                "EXEC",
            ],
        );
        let mut ann = place.server.connect();
        say(
            &mut ann,
            &[
                "MIGRATE 127.0.0.1 1 k 0 100 AUTH hunter2",
                "AUTH ann hunter2",
                "ACL SETUSER ann >hunter2",
                "CONFIG SET requirepass hunter2",
                "CONFIG SET requirepas hunter2",
            ],
        );
        admin.line("AUTH hunter2");
        wait_until("everything is written", || {
            figure(&mut admin, "audit_lines_waiting") == 0
        });
        let told = match to {
            "log" => place.server.log(),
            _ => fs::read_to_string(place.file(to)).expect("the audit log"),
        };
        assert!(told.matches("(redacted)").count() > 20, "{told}");
        for secret in [SECRET, &hash[..16]] {
            assert!(!told.contains(secret), "{told}");
        }
        if to == "log" {
            let lines = told.lines().filter_map(|line| line.split_once(" * audit "));
            for (_, line) in lines {
                let parsed: Result<Value, _> = serde_json::from_str(line);
                assert!(parsed.is_ok(), "{line}");
            }
        }
    }
}

#[test]
fn commands_of_scripts_are_told_apart() {
    let place = Place::start(2, &["--audit-events", "denied"]);
    let mut admin = place.server.connect();
    admin.line("ACL SETUSER bob on nopass ~a* +eval +get +auth");
    let mut bob = place.server.connect();
    bob.line("AUTH bob x");
    for key in ["a", "b"] {
        bob.call(&["EVAL", "return redis.pcall('GET', ARGV[1])", "0", key]);
    }
    let lines: Vec<_> = place.lines(&mut admin).iter().map(short).collect();
    assert_eq!(lines, ["denied|denied|key|bob|lua|GET b"]);
}

#[test]
fn data_stays_out_where_logs_are_to_have_none() {
    let place = Place::start(1, &["--hide-user-data-from-log", "yes"]);
    let mut client = place.server.connect();
    say(&mut client, &["ACL SETUSER default -set", "SET name Ada"]);
    let lines: Vec<_> = place.lines(&mut client).iter().map(short).collect();
    assert_eq!(
        lines,
        [
            "users|ok||default|toplevel|ACL SETUSER default -set",
            "denied|denied|command|default|toplevel|set"
        ]
    );
}

#[test]
fn what_is_told_is_chosen() {
    let place = Place::start(1, &["--audit-events", "denied users"]);
    let mut client = place.server.connect();
    say(
        &mut client,
        &[
            "CONFIG SET maxmemory 0",
            "CONFIG SET requirepass secret",
            "DEBUG SLEEP 0",
            "AUTH secret",
            "CONFIG SET audit-events config",
            "ACL SETUSER ann",
            "CONFIG SET audit-log other.log",
        ],
    );
    client.call(&["CONFIG", "SET", "audit-log", ""]);
    say(
        &mut client,
        &["CONFIG SET maxmemory 0", "CONFIG SET audit-log audit.log"],
    );
    let commands = |lines: Vec<Value>| lines.iter().map(short).collect::<Vec<_>>();
    assert_eq!(
        commands(place.lines(&mut client)),
        [
            "users|ok||default|toplevel|CONFIG SET requirepass (redacted)",
            "denied|denied|forbidden|default|toplevel|DEBUG SLEEP 0",
            "config|ok||default|toplevel|CONFIG SET audit-events config",
            // The file that there was before tells that there is another one.
            "config|ok||default|toplevel|CONFIG SET audit-log other.log",
            "config|ok||default|toplevel|CONFIG SET audit-log audit.log",
        ]
    );
    assert_eq!(
        commands(read(&place.file("other.log"))),
        ["config|ok||default|toplevel|CONFIG SET audit-log "]
    );
}

#[test]
fn the_audit_log_is_protected_from_those_that_it_watches() {
    let server = node::launch(1).with(&["--audit-log", "audit.log"]).serve();
    let mut client = server.connect();
    for line in [
        "CONFIG SET audit-log off.log",
        "CONFIG SET audit-events denied",
        "CONFIG SET audit-strict yes",
    ] {
        let reply = client.line(line).text();
        assert!(reply.contains("can't set protected config"), "{line}: {reply}");
    }
}

#[test]
fn a_file_that_cannot_be_opened_stops_the_start_and_no_running_server() {
    let finished = node::launch(1)
        .with(&[
            "--port",
            "0",
            "--unixsocket",
            "s",
            "--audit-log",
            "no/such/directory/audit.log",
        ])
        .finish(Duration::from_secs(20));
    assert!(
        finished
            .text()
            .contains("The audit log ('audit-log') cannot be opened"),
        "{}",
        finished.text()
    );
    let place = Place::start(1, &[]);
    let mut client = place.server.connect();
    let reply = client
        .line("CONFIG SET audit-log no/such/directory/audit.log")
        .text();
    assert!(reply.contains("the audit log cannot be opened"), "{reply}");
    assert_eq!(client.line("CONFIG GET audit-log").items()[1].text(), "audit.log");
    assert_eq!(
        place.lines(&mut client).len(),
        1,
        "the command that failed is told"
    );
}

#[test]
fn a_rotated_file_is_left_alone() {
    let place = Place::start(2, &[]);
    let mut client = place.server.connect();
    client.line("CONFIG SET maxmemory 1gb");
    assert_eq!(place.lines(&mut client).len(), 1);
    fs::rename(place.file("audit.log"), place.file("audit.log.1")).expect("a file");
    client.line("CONFIG SET maxmemory 2gb");
    assert_eq!(place.lines(&mut client).len(), 1);
    assert_eq!(read(&place.file("audit.log.1")).len(), 1);
}

/// Sends many requests that are denied; true if all were.
fn flood(client: &mut Client, count: usize) -> bool {
    let requests: Vec<_> = (0..count)
        .map(|_| vec![b"SET".to_vec(), b"k".to_vec(), vec![b'x'; 4000]])
        .collect();
    let replies = client.pipeline(&requests);
    replies.iter().all(|reply| reply.text().starts_with("NOPERM"))
}

/// The file takes seconds for a write: nobody waits for it, memory is bounded, and what is lost is counted.
#[test]
fn a_flood_that_a_stuck_file_does_not_take_holds_nobody_up() {
    let place = Place::start(2, &[]);
    let mut admin = place.server.connect();
    admin.line("ACL SETUSER bob on nopass ~* +get +auth");
    place.lines(&mut admin);
    place
        .faults
        .set(&[Fault::always(Operation::Write, "audit", Act::Wait(3000))]);
    let before = figure(&mut admin, "used_memory");
    let mut clients: Vec<Client> = (0..4).map(|_| place.server.connect()).collect();
    let begin = Instant::now();
    for client in &mut clients {
        client.line("AUTH bob x");
        assert!(flood(client, 2000));
    }
    // The file would have taken hours.
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    assert_eq!(admin.line("GET k").text(), "");
    assert!(figure(&mut admin, "audit_lines_waiting") <= WAITING_MAX);
    let dropped = figure(&mut admin, "audit_events_dropped");
    assert!(dropped >= 4 * 2000 - 2 * WAITING_MAX, "{dropped}");
    let grown = figure(&mut admin, "used_memory").saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes for an audit log of 1024 entries");
    place.faults.clear();
    wait_until("the rest is written", || {
        figure(&mut admin, "audit_lines_waiting") == 0
    });
    admin.line("CONFIG SET maxmemory 0");
    let lines = place.lines(&mut admin);
    let lost = lines.iter().filter(|line| text(line, "event") == "gap");
    let lost: u64 = lost.filter_map(|line| line["lost"].as_u64()).sum();
    assert_eq!(lost, figure(&mut admin, "audit_events_dropped"));
    let told = lines
        .iter()
        .filter(|line| ["denied", "login"].contains(&text(line, "event").as_str()))
        .count() as u64;
    assert_eq!(
        told + lost,
        4 * (2000 + 1),
        "every one is a line, or counted in one"
    );
}

#[test]
fn a_full_disk_loses_lines_that_are_counted() {
    let place = Place::start(1, &[]);
    let mut client = place.server.connect();
    place
        .faults
        .set(&[Fault::always(Operation::Write, "audit", Act::Space(500))]);
    for _ in 0..20 {
        assert_eq!(client.line("CONFIG SET maxmemory 0").text(), "OK");
        wait_until("it was tried", || figure(&mut client, "audit_lines_waiting") == 0);
    }
    assert_eq!(field(&mut client, "audit_last_write_status"), "err");
    let dropped = figure(&mut client, "audit_events_dropped");
    assert!((10..20).contains(&dropped), "{dropped}");
    place.faults.clear();
    client.line("CONFIG SET maxmemory 1gb");
    // Every line is whole, although the write that failed has left a part of one.
    let lines = place.lines(&mut client);
    let gap = &lines[lines.len() - 2];
    assert_eq!(
        (text(gap, "event"), gap["lost"].as_u64()),
        ("gap".to_owned(), Some(dropped))
    );
    assert_eq!(lines.len() as u64, 20 - dropped + 2);
    assert_eq!(field(&mut client, "audit_last_write_status"), "ok");
    let log = place.server.log();
    assert!(
        log.contains("cannot be written") && log.contains("can be written again"),
        "{log}"
    );
}

/// Under `audit-strict`, what cannot be told does not happen, and what has happened is told in the end.
#[test]
fn a_strict_log_refuses_before_anything_happens() {
    for shards in [1, 2] {
        let place = Place::start(shards, &["--audit-strict", "yes"]);
        let mut client = place.server.connect();
        place
            .faults
            .set(&[Fault::always(Operation::Write, "audit", Act::Fail(28))]);
        let mut happened = 0;
        let refused = loop {
            let reply = client.line(&format!("ACL SETUSER user-{happened} on")).text();
            if reply != "OK" {
                break reply;
            }
            happened += 1;
            assert!(happened < 1000, "nothing was refused");
        };
        assert!(
            refused.starts_with("MISCONF The audit log cannot be written"),
            "{refused}"
        );
        let reply = client.line("REPLICAOF 127.0.0.1 1").text();
        assert!(reply.starts_with("MISCONF"), "{reply}");
        assert_eq!(client.line("ROLE").items()[0].text(), "master");
        assert_eq!(client.line("ACL USERS").items().len(), happened + 1);
        // In a transaction, too, and nothing else is refused.
        say(&mut client, &["MULTI", "SET a 1", "CONFIG SET maxmemory 1gb"]);
        let replies = client.line("EXEC");
        assert_eq!(replies.items()[0].text(), "OK");
        assert!(replies.items()[1].text().starts_with("MISCONF"), "{replies}");
        assert_eq!(client.line("CONFIG GET maxmemory").items()[1].text(), "0");
        assert_eq!(figure(&mut client, "audit_commands_refused"), 3);
        place.faults.clear();
        wait_until("it is taken again", || {
            client.line("CONFIG SET maxmemory 2gb").text() == "OK"
        });
        let lines = place.lines(&mut client);
        let users = lines
            .iter()
            .filter(|line| short(line).contains("|ok|") && text(line, "event") == "users");
        assert_eq!(users.count(), happened, "{lines:?}");
        let refused = lines
            .iter()
            .filter(|line| text(line, "outcome") == "refused")
            .count();
        assert!(refused >= 3, "{lines:?}");
    }
}

/// Changes of a cluster: those that somebody orders, and those that the nodes make by themselves.
#[test]
fn a_cluster_tells_of_its_changes() {
    let plan = Plan::of(&[Kind::Shardis(2); 6])
        .timeout_ms(2000)
        .with(&["audit-log audit.log"]);
    let mut cluster = plan.replicas(1).create();
    let told = |cluster: &Cluster, index: usize| {
        let lines = read(&cluster.member(index).data().join("audit.log"));
        lines.iter().map(short).collect::<Vec<_>>()
    };
    let all: Vec<String> = (0..6).flat_map(|index| told(&cluster, index)).collect();
    for words in [
        "cluster meet ",
        "cluster addslots",
        "cluster replicate ",
        "cluster set-config-epoch ",
    ] {
        let begin = format!("topology|ok||default|toplevel|{words}");
        let is_told = all.iter().any(|line| line.to_lowercase().starts_with(&begin));
        assert!(is_told, "{words}: {all:?}");
    }
    let primary = cluster.primaries(0)[0];
    let replica = cluster.replicas_of(primary)[0];
    cluster.member(replica).await_link();
    cluster.member_mut(primary).kill();
    let takeover = "topology|ok|takes the place of its primary in the cluster|||";
    wait_until("the replica has taken over", || {
        told(&cluster, replica).iter().any(|line| line == takeover)
    });
    let lines = told(&cluster, replica);
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("topology|ok|follows 127.0.0.1:")),
        "{lines:?}"
    );
}

/// A node that ends has written what there was to tell.
#[test]
fn the_end_of_a_node_waits_for_its_lines() {
    let mut place = Place::start(1, &[]);
    let mut client = place.server.connect();
    for _ in 0..200 {
        client
            .send(&["CONFIG", "SET", "maxmemory", "0"])
            .expect("a request");
    }
    for _ in 0..200 {
        assert_eq!(client.read().expect("a reply").text(), "OK");
    }
    place.server.signal(libc::SIGTERM);
    assert!(place.server.wait(Duration::from_secs(20)).is_some());
    assert_eq!(read(&place.file("audit.log")).len(), 200);
}

/// The launch of a server whose audit log is a pipe.
fn with_pipe(path: &std::path::Path) -> Launch {
    let made = std::process::Command::new("mkfifo").arg(path).status();
    assert!(made.is_ok_and(|status| status.success()));
    node::launch(1).with(&["--audit-log", &path.display().to_string()])
}

/// A pipe that nobody empties holds neither the clients up nor the end of the node.
#[test]
fn a_full_pipe_holds_nobody_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("pipe");
    let launch = with_pipe(&path);
    let _reader = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .expect("a reader");
    let mut server = launch.serve();
    let mut client = server.connect();
    client.line("ACL SETUSER default -set");
    assert!(flood(&mut client, 5000));
    assert!(figure(&mut client, "audit_events_dropped") > 1000);
    server.signal(libc::SIGTERM);
    assert!(server.wait(Duration::from_secs(20)).is_some());
}
