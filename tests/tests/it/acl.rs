//! Users: their file, their lines in the configuration, the log of refusals, and what reaches connections on other loops.

use std::fs;
use std::path::Path;

use shardis_tests::client::{Client, PATIENCE};
use shardis_tests::process::{Launch, Process, free_port};
use shardis_tests::reply::Reply;
use shardis_tests::{node, redis};

/// The server under test and the two real ones.
fn programs() -> [std::path::PathBuf; 3] {
    [
        node::binary().to_path_buf(),
        redis::binary(),
        redis::peer_binary(),
    ]
}

/// A server with a configuration file and a file of users, both in a directory of their own.
struct Place {
    directory: tempfile::TempDir,
    program: std::path::PathBuf,
}

impl Place {
    fn new(program: &Path) -> Self {
        Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
            program: program.to_path_buf(),
        }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    /// The configuration to start with: `lines`, in which `%` stands for the directory.
    fn launch(&self, port: u16, lines: &str) -> Launch {
        let directory = self.directory.path().display().to_string();
        let lines = lines.replace('%', &directory);
        let text = format!("port {port}\nsave \"\"\ndir {directory}\n{lines}");
        fs::write(self.file("server.conf"), text).expect("a configuration file");
        self.again()
    }

    /// The same configuration as the server has left it.
    fn again(&self) -> Launch {
        Launch::new(&self.program).with(&[self.file("server.conf").display().to_string()])
    }

    fn start(&self, lines: &str) -> Process {
        let port = free_port();
        let server = self.launch(port, lines).spawn(port);
        server.wait_until_ready().expect("a server that starts");
        server
    }

    /// A text without the directory's name, and with the words in which all three servers name themselves alike.
    fn neutral(&self, text: &str) -> String {
        text.replace(&self.directory.path().display().to_string(), "%")
    }
}

fn list(client: &mut Client) -> Vec<String> {
    client.line("ACL LIST").items().iter().map(Reply::text).collect()
}

const FILE: &str =
    "\n  user bob on >x ~k* +get\nuser alice off (+set ~x)   \nuser default on nopass ~* &* +@all\n\n";

#[test]
fn a_file_of_users_is_read_saved_and_loaded_as_a_whole() {
    let outcomes = programs().map(|program| {
        let place = Place::new(&program);
        fs::write(place.file("users.acl"), FILE).expect("a file");
        let server = place.start("aclfile %/users.acl\n");
        let mut client = server.connect();
        let mut seen = list(&mut client);
        for line in ["ACL SETUSER carol on nopass", "ACL DELUSER alice", "ACL SAVE"] {
            seen.push(client.line(line).to_string());
        }
        seen.push(fs::read_to_string(place.file("users.acl")).expect("the saved file"));
        for text in [
            "user bob off\n",
            "usr bob on\nuser a on\n",
            "user\n",
            "# comment\n",
            "user a on\nuser b nonsense\nuser c +nonsense\nuser d ~* ~x\n",
            "user a nonsense +nonsense other +@nonsense >x\n",
            "user a on\nuser a off\n",
            "user a (+get\n",
            "user a on >\"x y\"\n",
            "",
        ] {
            fs::write(place.file("users.acl"), text).expect("a file");
            seen.push(place.neutral(&client.line("ACL LOAD").to_string()));
            seen.extend(list(&mut client));
        }
        fs::remove_file(place.file("users.acl")).expect("the file");
        seen.push(place.neutral(&client.line("ACL LOAD").to_string()));
        seen.extend(list(&mut client));
        // A path that cannot be written to.
        fs::create_dir(place.file("users.acl")).expect("a directory");
        seen.push(client.line("ACL SAVE").to_string());
        seen
    });
    assert_eq!(outcomes[0], outcomes[1], "redis-server");
    assert_eq!(outcomes[0], outcomes[2], "Valkey");
}

#[test]
fn who_stays_in_the_file_stays_connected() {
    for program in [node::binary().to_path_buf(), redis::peer_binary()] {
        let place = Place::new(&program);
        let users = "user alice on nopass ~* &* +@all\nuser bob on nopass ~* &* +@all\nuser carol on nopass &* +@all\n";
        fs::write(place.file("users.acl"), users).expect("a file");
        let server = place.start("aclfile %/users.acl\n");
        let mut admin = server.connect();
        let [mut alice, mut bob, mut carol] = ["alice", "bob", "carol"].map(|name| {
            let mut client = server.connect();
            assert_eq!(client.call(&["AUTH", name, "x"]).text(), "OK");
            client
        });
        carol.line("SUBSCRIBE c");
        let users = "user alice on nopass ~x +@all\nuser carol on nopass &d +@all\n";
        fs::write(place.file("users.acl"), users).expect("a file");
        assert_eq!(admin.line("ACL LOAD").text(), "OK");
        assert_eq!(admin.line("PUBLISH c m"), Reply::Integer(0));
        assert!(alice.line("GET y").text().starts_with("NOPERM"));
        assert_eq!(alice.line("GET x"), Reply::NullBulk);
        assert!(bob.is_closed_within(PATIENCE), "the user is gone");
        assert!(carol.is_closed_within(PATIENCE), "the channel is gone");
    }
}

/// Configurations that must not start, and a part of the text that says why.
const BAD: &[(&str, &str)] = &[
    (
        "aclfile %/users.acl\nuser a on\n",
        "at the same setting an ACL file path is invalid",
    ),
    (
        "user a on\nuser a off\n",
        "Error in user declaration 'a': Duplicate user found. A user can only be defined once in config files",
    ),
    ("user a on nonsense\n", "Syntax error"),
    ("user a (+get\n", "Error in user declaration"),
    ("user \"a b\" on\n", "Spaces not allowed in ACL usernames"),
    ("aclfile %/missing.acl\n", "Error loading ACLs, opening file"),
    (
        "aclfile %/bad.acl\n",
        "bad.acl:1: Syntax error. WARNING: ACL errors detected, no change to the previously active ACL rules was performed",
    ),
];

#[test]
fn users_that_cannot_be_taken_stop_the_start() {
    for program in programs() {
        for (lines, why) in BAD {
            let place = Place::new(&program);
            fs::write(place.file("users.acl"), "user default on nopass ~* +@all\n").expect("a file");
            fs::write(place.file("bad.acl"), "user a nonsense\n").expect("a file");
            let finished = place.launch(free_port(), lines).finish(PATIENCE);
            assert_eq!(finished.code, Some(1), "{lines}: {}", finished.text());
            assert!(finished.text().contains(why), "{lines}: {}", finished.text());
        }
    }
}

#[test]
fn lines_of_the_configuration_are_users_and_are_rewritten() {
    let outcomes = programs().map(|program| {
        let place = Place::new(&program);
        let lines =
            "requirepass old\nuser alice on nopass ~* +@all\nuser bob off\nuser default on >pw ~* &* +@all\n";
        let server = place.start(lines);
        let mut client = server.connect();
        let mut seen = vec![
            client.line("PING").to_string(),
            client.line("AUTH old").to_string(),
        ];
        seen.push(client.line("AUTH alice x").to_string());
        seen.extend(list(&mut client));
        for line in [
            "ACL SETUSER bob on >x ~b* (+get ~c)",
            "ACL SETUSER carol",
            "CONFIG REWRITE",
        ] {
            seen.push(client.line(line).to_string());
        }
        let before = list(&mut client);
        drop((client, server));
        let text = fs::read_to_string(place.file("server.conf")).expect("the rewritten file");
        seen.extend(
            text.lines()
                .filter(|line| line.starts_with("user "))
                .map(str::to_owned),
        );
        let port = text.lines().find_map(|line| line.strip_prefix("port "));
        let port = port.and_then(|port| port.parse().ok()).expect("a port");
        let server = place.again().spawn(port);
        server.wait_until_ready().expect("a server that starts again");
        let mut client = server.connect();
        client.line("AUTH alice x");
        assert_eq!(list(&mut client), before);
        seen
    });
    assert_eq!(outcomes[0], outcomes[1], "redis-server");
    // Valkey leaves the mark out.
    let unmarked = outcomes[0]
        .iter()
        .map(|line| line.replace(" sanitize-payload", ""));
    assert_eq!(unmarked.collect::<Vec<_>>(), outcomes[2], "Valkey");
}

/// Redis writes such a pattern as it is, and cannot read its own file any more.
#[test]
fn a_pattern_with_quotes_survives_a_rewrite() {
    if node::is_redis() {
        return;
    }
    let place = Place::new(node::binary());
    let server = place.start("");
    let mut client = server.connect();
    let made = client.call(&["ACL", "SETUSER", "a", "~\"q'\\", "~\u{1}", "+get"]);
    assert_eq!(made.text(), "OK");
    let before = list(&mut client);
    assert_eq!(client.line("CONFIG REWRITE").text(), "OK");
    let port = server.port();
    drop((client, server));
    let server = place.again().spawn(port);
    server.wait_until_ready().expect("a server that starts again");
    // The default user of a file begins with `reset`, as in Redis.
    let after = list(&mut server.connect()).into_iter();
    let after: Vec<_> = after.map(|line| line.replace(" sanitize-payload", "")).collect();
    assert_eq!(after, before);
}

/// The entries of ACL LOG without what differs from run to run.
fn entries(client: &mut Client) -> Vec<String> {
    let log = client.line("ACL LOG 100");
    let entries = log.items().iter().map(|entry| {
        let fields = entry.pairs();
        let text = |name: &str| {
            let field = fields.iter().find(|(field, _)| field.text() == name);
            field
                .map(|(_, value)| value.text())
                .expect("a field of every entry")
        };
        assert!(
            text("age-seconds")
                .parse::<f64>()
                .is_ok_and(|age| (0.0..60.0).contains(&age))
        );
        assert!(text("timestamp-created") <= text("timestamp-last-updated"));
        let info = text("client-info");
        let kept = info.split(' ').filter(|field| {
            ["cmd=", "user=", "db=", "name="]
                .iter()
                .any(|kept| field.starts_with(kept))
        });
        let kept: Vec<_> = kept.collect();
        let names: Vec<_> = fields.iter().map(|(field, _)| field.text()).collect();
        format!(
            "{} {} {} {} {} {} [{}] {}",
            text("count"),
            text("reason"),
            text("context"),
            text("object"),
            text("username"),
            text("entry-id"),
            kept.join(" "),
            names.join(" ")
        )
    });
    entries.collect()
}

/// INFO's counts of refusals.
fn counts(client: &mut Client) -> Vec<String> {
    let text = client.line("INFO stats").text();
    let counts = text.lines().filter(|line| line.starts_with("acl_access_denied_"));
    counts
        .filter(|line| {
            ["auth", "cmd", "key", "channel"]
                .iter()
                .any(|kind| line.contains(kind))
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn refusals_are_logged_and_counted() {
    let mut outcomes = Vec::new();
    for server in [node::start(1), node::start(4), redis::start_peer()] {
        let [mut admin, mut client] = [server.connect(), server.connect()];
        admin.line("ACL SETUSER alice on >pw ~k* &c +get +mget +publish +multi +exec +subscribe");
        client.line("CLIENT SETNAME me");
        for line in [
            "AUTH alice wrong",
            "AUTH nobody pw",
            "HELLO 2 AUTH alice wrong",
            "auth alice wrong",
            "AUTH alice pw",
            "GET x",
            "GET x",
            "MGET k x y",
            "INCR k",
            "CONFIG GET port",
            "PUBLISH d m",
            "SUBSCRIBE c d",
            "MULTI",
            "GET x",
            "INCR k",
            "EXEC",
            "SELECT 1",
        ] {
            client.line(line);
        }
        for line in ["MULTI", "GET k", "GET k2"] {
            client.line(line);
        }
        admin.line("ACL SETUSER alice resetkeys ~k2");
        client.line("EXEC");
        let mut seen = entries(&mut admin);
        seen.extend(counts(&mut admin));
        let stats = admin.line("INFO errorstats").text();
        seen.extend(
            stats
                .lines()
                .filter(|line| line.starts_with("errorstat_"))
                .map(str::to_owned),
        );
        seen.push(admin.line("CONFIG RESETSTAT").to_string());
        seen.extend(counts(&mut admin));
        admin.line("CONFIG SET acllog-max-len 2");
        client.line("GET z");
        seen.push(entries(&mut admin).len().to_string());
        seen.push(admin.line("ACL LOG RESET").to_string());
        client.line("GET z");
        seen.extend(entries(&mut admin));
        outcomes.push(seen);
    }
    assert_eq!(outcomes[0], outcomes[2], "one shard");
    assert_eq!(outcomes[1], outcomes[2], "four shards");
}

#[test]
fn passwords_stand_in_no_log() {
    for server in [node::start(1), node::start(4)] {
        let mut client = server.connect();
        let mut monitor = server.connect();
        client.line("CONFIG SET slowlog-log-slower-than 0");
        monitor.line("MONITOR");
        for line in [
            "AUTH hidden",
            "AUTH default hidden",
            "AUTH a b hidden",
            "HELLO 2 AUTH a hidden",
            "HELLO 2 AUTH a hidden SETNAME \"a b\"",
            "ACL SETUSER a on >hidden",
            "ACL SETUSER a on >hidden nonsense",
            "ACL GETUSER hidden",
            "ACL DELUSER hidden",
            "CONFIG SET requirepass hidden",
            "CONFIG SET requirepass \"\"",
            "CONFIG SET masterauth hidden",
            "CONFIG SET masterauth hidden nonsense 1",
            "MIGRATE 127.0.0.1 1 k 0 1 AUTH hidden",
            "MIGRATE 127.0.0.1 1 k 0 1 AUTH2 hidden hidden",
            "CONFIG SET masteruser hidden",
            "PING end",
        ] {
            client.line(line);
        }
        let log = client.line("SLOWLOG GET 100").to_string();
        assert!(log.contains("(redacted)") && !log.contains("hidden"), "{log}");
        loop {
            let line = monitor.read().expect("a line for the last command").text();
            assert!(!line.contains("hidden"), "{line}");
            if line.contains("\"end\"") {
                break;
            }
        }
        let log = client.line("ACL LOG").to_string();
        assert!(log.contains("auth") && !log.contains("hidden"), "{log}");
    }
}

#[test]
fn new_users_have_the_channels_that_the_directive_says() {
    let outcomes = [node::launch(1), redis::launch()].map(|launch| {
        let server = launch.with(&["--acl-pubsub-default", "allchannels"]).serve();
        let mut client = server.connect();
        client.line("ACL SETUSER a on (+get)");
        let mut seen = list(&mut client);
        client.line("CONFIG SET acl-pubsub-default resetchannels");
        client.line("ACL SETUSER b");
        client.line("ACL SETUSER c allchannels reset");
        seen.extend(list(&mut client));
        seen
    });
    assert_eq!(outcomes[0], outcomes[1]);
}

#[test]
fn a_change_of_users_holds_on_all_loops_when_it_is_answered() {
    let server = node::start(4);
    let mut admin = server.connect();
    for round in 0..50 {
        admin.line("ACL SETUSER alice on nopass ~* &* +@all");
        let mut clients: Vec<Client> = (0..8)
            .map(|_| {
                let mut client = server.connect();
                client.line("AUTH alice x");
                client
            })
            .collect();
        clients[0].line("SUBSCRIBE c");
        assert_eq!(admin.line("ACL SETUSER alice -get resetchannels &d").text(), "OK");
        assert_eq!(admin.line("PUBLISH c m"), Reply::Integer(0), "round {round}");
        for client in &mut clients[1..] {
            let reply = client.line("GET k").text();
            assert!(
                reply.starts_with("NOPERM User alice has no permissions to run the 'get' command"),
                "round {round}: {reply}"
            );
        }
        assert_eq!(admin.line("ACL DELUSER alice"), Reply::Integer(1));
        let listed = admin.line("CLIENT LIST").text();
        assert!(!listed.contains("user=alice"), "round {round}: {listed}");
    }
}

#[test]
fn another_user_of_the_same_name_is_another_user() {
    for shards in [1, 4] {
        let server = node::start(shards);
        let mut admin = server.connect();
        let mut client = server.connect();
        admin.line("ACL SETUSER alice on nopass +@all");
        client.line("AUTH alice x");
        for line in [
            "MULTI",
            "ACL DELUSER alice",
            "ACL SETUSER alice on >secret ~* +@all",
            "EXEC",
        ] {
            admin.line(line);
        }
        assert!(client.is_closed_within(PATIENCE));
    }
}

#[test]
fn a_replica_authenticates_as_a_user() {
    for program in [node::binary().to_path_buf(), redis::binary()] {
        let primary = node::start(2);
        let mut client = primary.connect();
        client.line("ACL SETUSER repl on >pw +psync +replconf +ping");
        client.line("ACL SETUSER default >other");
        client.line("SET k v");
        let place = Place::new(&program);
        let replica = place.start(&format!(
            "masteruser repl\nmasterauth pw\nreplicaof 127.0.0.1 {}\n",
            primary.port()
        ));
        let mut reader = replica.connect();
        let deadline = std::time::Instant::now() + PATIENCE;
        while reader.line("GET k").text() != "v" {
            assert!(std::time::Instant::now() < deadline, "{}", replica.log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        // What the primary sends is not checked by rules of the replica.
        assert_eq!(
            reader
                .line("ACL SETUSER default nopass -set resetkeys ~x +@all -set")
                .text(),
            "OK"
        );
        client.line("SET x w");
        while reader.line("GET x").text() != "w" {
            assert!(std::time::Instant::now() < deadline, "{}", replica.log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert!(
            client
                .line("CLIENT LIST TYPE replica")
                .text()
                .contains("user=repl")
        );
        if program == node::binary() {
            assert!(
                reader
                    .line("CLIENT LIST TYPE master")
                    .text()
                    .contains("user=(superuser)")
            );
        }
        client.line("ACL DELUSER repl");
        while client
            .line("INFO replication")
            .text()
            .contains("connected_slaves:1")
        {
            assert!(std::time::Instant::now() < deadline);
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// Rules concern clients: what is in the files has been permitted before.
#[test]
fn files_are_loaded_whatever_the_default_user_may_do() {
    let place = Place::new(node::binary());
    let server = place.start("appendonly yes\n");
    let mut client = server.connect();
    client.line("SET k v");
    client.line("MULTI");
    client.line("HSET h f v");
    client.line("EXEC");
    let port = server.port();
    drop((client, server));
    let server = place
        .launch(port, "appendonly yes\nuser default on nopass ~x +dbsize +get\n")
        .spawn(port);
    server.wait_until_ready().expect("a server that loads its file");
    let mut client = server.connect();
    assert_eq!(client.line("DBSIZE"), Reply::Integer(2));
    assert!(client.line("GET k").text().starts_with("NOPERM"));
}

/// The rules of a user come before the redirects of a cluster.
#[test]
fn what_is_not_permitted_is_not_redirected() {
    let servers = [node::launch(1), redis::launch_peer()]
        .map(|launch| launch.with(&["--cluster-enabled", "yes"]).serve());
    let replies = servers.map(|server| {
        let mut client = server.connect();
        client.line("ACL SETUSER alice on nopass ~k +get");
        let lines = ["AUTH alice x", "GET k", "GET x", "SET k v", "GET x k"];
        lines.map(|line| client.line(line).to_string())
    });
    assert_eq!(replies[0], replies[1]);
}
