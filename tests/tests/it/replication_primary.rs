//! shardis as the primary of real redis-server replicas: what they are sent, what they follow, and what this node says about them.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use shardis_tests::client::{Client, PATIENCE};
use shardis_tests::info::{field, fields, figure, word};
use shardis_tests::process::{Launch, Process};
use shardis_tests::reply::Reply;
use shardis_tests::wait::wait_until;
use shardis_tests::{node, redis};

/// A server that does not wait for more replicas before it begins a snapshot.
pub(super) fn launch_primary(shards: usize) -> Launch {
    node::launch(shards).with(&[
        "--repl-diskless-sync-delay",
        "0",
        "--enable-debug-command",
        "yes",
        "--repl-timeout",
        "30",
    ])
}

/// A real replica of a server, with further options.
fn replica_of(primary: &Process, options: &[&str]) -> Process {
    let port = primary.address().port().to_string();
    redis::launch()
        .with(&["--enable-debug-command", "yes", "--replicaof", "127.0.0.1", &port])
        .with(options)
        .serve()
}

fn await_link(replica: &mut Client) {
    wait_until("the replica has its data", || {
        field(replica, "master_link_status") == "up"
    });
}

/// Waits until the replica has all that the primary has sent, and compares their data.
fn assert_equal(primary: &mut Client, replica: &mut Client) {
    wait_until("the replica has everything", || {
        figure(primary, "master_repl_offset") == figure(replica, "slave_repl_offset")
    });
    assert_eq!(
        primary.line("DEBUG DIGEST").text(),
        replica.line("DEBUG DIGEST").text()
    );
}

/// Keys of every type, in two databases.
fn fill(client: &mut Client, round: usize) {
    for number in 0..40 {
        for line in [
            format!("SET string:{number} {round}"),
            format!("SET volatile:{number} {round} EX {}", 1000 + number),
            format!("INCRBY counter:{} {number}", number % 7),
            format!("RPUSH list:{} {round} {number}", number % 5),
            format!("SADD set:{} {round} m{number}", number % 5),
            format!("HSET hash:{} f{number} {round}", number % 5),
            format!("ZADD zset:{} {number} m{round}", number % 5),
            format!("XADD stream:{} * f {round}", number % 3),
            format!("SETBIT bits:{number} {} 1", round * 100),
            format!("PFADD hll:{} {number}{round}", number % 3),
            format!("SPOP set:{}", number % 5),
        ] {
            client.line(&line);
        }
    }
    client.line("SELECT 9");
    client.line(&format!("SET elsewhere:{round} {round}"));
    client.line("SELECT 0");
    client.line("MULTI");
    client.line(&format!("SET one {round}"));
    client.line(&format!("SET two {round}"));
    client.line("EXEC");
    client.line(&format!("DEL string:{}", round % 40));
}

#[test]
fn a_replica_gets_all_data_and_follows() {
    for (shards, diskless, backend) in [
        (1, "yes", "epoll"),
        (4, "yes", "io_uring"),
        (4, "no", "epoll"),
        (1, "no", "io_uring"),
    ] {
        let primary = launch_primary(shards)
            .with(&["--repl-diskless-sync", diskless, "--io-backend", backend])
            .serve();
        let mut client = primary.connect();
        fill(&mut client, 1);
        let follower = replica_of(&primary, &[]);
        let mut replica = follower.connect();
        await_link(&mut replica);
        fill(&mut client, 2);
        assert_equal(&mut client, &mut replica);
        client.line("FLUSHALL");
        fill(&mut client, 3);
        client.line("SWAPDB 0 9");
        assert_equal(&mut client, &mut replica);
        assert!(replica.line("GET one").is_null(), "the databases were swapped");
        assert_eq!(figure(&mut client, "sync_full"), 1);
    }
}

#[test]
fn a_replica_that_comes_under_load_has_the_same_data() {
    for (shards, diskless) in [(1, "yes"), (4, "yes"), (4, "no")] {
        let primary = launch_primary(shards)
            .with(&["--repl-diskless-sync", diskless])
            .serve();
        let mut client = primary.connect();
        client.line("DEBUG POPULATE 20000 before 100");
        let address = primary.address();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let writer = std::thread::spawn(move || {
            let mut client = Client::connect(address).expect("a connection");
            let mut round = 0;
            while stopped.try_recv().is_err() {
                round += 1;
                fill(&mut client, round);
                for number in 0..50 {
                    client.line(&format!(
                        "APPEND before:{} {round}",
                        (round * 37 + number * 91) % 20000
                    ));
                }
            }
        });
        let followers = [
            replica_of(&primary, &[]),
            replica_of(&primary, &["--repl-diskless-load", "swapdb"]),
        ];
        let mut replicas = followers.each_ref().map(Process::connect);
        replicas.iter_mut().for_each(await_link);
        std::thread::sleep(Duration::from_millis(300));
        stop.send(()).expect("it writes");
        writer.join().expect("it wrote");
        for replica in &mut replicas {
            assert_equal(&mut client, replica);
        }
        assert_eq!(figure(&mut client, "sync_full"), 2);
    }
}

#[test]
fn a_replica_that_lost_its_link_goes_on_where_it_was() {
    let primary = launch_primary(4).serve();
    let mut client = primary.connect();
    fill(&mut client, 1);
    let follower = replica_of(&primary, &[]);
    let mut replica = follower.connect();
    await_link(&mut replica);
    for round in 2..5 {
        client.line("CLIENT KILL TYPE replica");
        fill(&mut client, round);
        wait_until("the replica is back", || {
            figure(&mut client, "sync_partial_ok") == round as u64 - 1
        });
        assert_equal(&mut client, &mut replica);
    }
    assert_eq!(figure(&mut client, "sync_full"), 1);
}

#[test]
fn a_replica_that_lacks_too_much_gets_all_data_again() {
    let primary = launch_primary(1).with(&["--repl-backlog-size", "16384"]).serve();
    let mut client = primary.connect();
    let follower = replica_of(&primary, &[]);
    let mut replica = follower.connect();
    await_link(&mut replica);
    replica.line("REPLICAOF 127.0.0.1 1");
    wait_until("the link is gone", || {
        figure(&mut client, "connected_slaves") == 0
    });
    let value = "x".repeat(1000);
    for number in 0..200 {
        client.line(&format!("SET big:{number} {value}"));
    }
    let length = figure(&mut client, "repl_backlog_histlen");
    assert!((16384..3 * 16384).contains(&length), "{length}");
    let first = figure(&mut client, "repl_backlog_first_byte_offset");
    assert_eq!(first + length, figure(&mut client, "master_repl_offset") + 1);
    replica.line(&format!("REPLICAOF 127.0.0.1 {}", primary.address().port()));
    await_link(&mut replica);
    assert_equal(&mut client, &mut replica);
    assert_eq!(figure(&mut client, "sync_full"), 2);
    assert_eq!(figure(&mut client, "sync_partial_err"), 1);
}

#[test]
fn replicas_are_seen_and_killed_as_clients() {
    let primary = launch_primary(4).serve();
    let mut client = primary.connect();
    let follower = replica_of(
        &primary,
        &[
            "--replica-announce-ip",
            "10.1.2.3",
            "--replica-announce-port",
            "7777",
        ],
    );
    let mut replica = follower.connect();
    await_link(&mut replica);
    client.line("SET a 1");
    assert_equal(&mut client, &mut replica);
    wait_until("the replica has acknowledged it", || {
        let known = fields(&mut client);
        known["slave0"].starts_with("ip=10.1.2.3,port=7777,state=online,offset=")
            && known["slave0"].contains(&format!("offset={},", known["master_repl_offset"]))
    });
    assert_eq!(figure(&mut client, "connected_slaves"), 1);
    assert_eq!(figure(&mut client, "connected_clients"), 1);
    let line = client.line("CLIENT LIST TYPE replica").text();
    let id = word(&line, "id").expect("it is listed").to_owned();
    assert_eq!(
        (word(&line, "flags"), word(&line, "cmd")),
        (Some("S"), Some("replconf")),
        "{line}"
    );
    assert!(
        !client
            .line("CLIENT LIST TYPE normal")
            .text()
            .contains(" flags=S ")
    );
    let offset = figure(&mut client, "master_repl_offset");
    let role = client.line("ROLE");
    let told: Vec<String> = role.items()[2].items()[0]
        .items()
        .iter()
        .map(Reply::text)
        .collect();
    assert_eq!(told, ["10.1.2.3", "7777", &offset.to_string()]);
    assert_eq!(client.line(&format!("CLIENT KILL ID {id}")).integer(), Some(1));
    wait_until("the replica is back", || {
        figure(&mut client, "sync_partial_ok") == 1
    });
    drop(follower);
    wait_until("the replica is gone", || {
        figure(&mut client, "connected_slaves") == 0
    });
    assert_eq!(figure(&mut client, "repl_backlog_active"), 1, "it may come back");
}

#[test]
fn stock_tools_take_the_data() {
    let primary = launch_primary(4).serve();
    let mut client = primary.connect();
    fill(&mut client, 1);
    let port = primary.address().port().to_string();
    let directory = tempfile::TempDir::new().expect("a directory");
    let file = directory.path().join("copy.rdb");
    let file = file.display().to_string();
    let copied = Launch::new(&redis::tool("redis-cli"))
        .with(&["-p", &port, "--rdb", &file])
        .finish(PATIENCE);
    assert_eq!(copied.code, Some(0), "{}", copied.text());
    let checked = Launch::new(&redis::tool("redis-check-rdb"))
        .with(&[&file])
        .finish(PATIENCE);
    let keys = figure_of_keys(&mut client);
    assert!(
        checked.text().contains(&format!("{keys} keys read")),
        "{keys}: {}",
        checked.text()
    );
    let copied = Launch::new(&redis::tool("redis-cli"))
        .with(&["-p", &port, "--functions-rdb", &file])
        .finish(PATIENCE);
    assert_eq!(copied.code, Some(0), "{}", copied.text());
    let checked = Launch::new(&redis::tool("redis-check-rdb"))
        .with(&[&file])
        .finish(PATIENCE);
    assert!(checked.text().contains("0 keys read"), "{}", checked.text());
    let watching = Launch::new(&redis::tool("redis-cli"))
        .with(&["-p", &port, "--replica"])
        .spawn(0);
    wait_until("redis-cli follows", || {
        figure(&mut client, "connected_slaves") == 1
    });
    wait_until("redis-cli shows what follows", || {
        client.line("SET shown 1");
        watching.log().contains("\"shown\"")
    });
}

/// Number of keys in all databases.
fn figure_of_keys(client: &mut Client) -> usize {
    let text = client.line("INFO keyspace").text();
    text.split("keys=")
        .skip(1)
        .map(|rest| {
            rest.split(',')
                .next()
                .unwrap_or_default()
                .parse::<usize>()
                .expect("a number")
        })
        .sum()
}

/// A replica that is played by the test.
pub(super) struct Played(TcpStream);

impl Played {
    /// Connects, and says these lines, each of which is answered.
    pub(super) fn connect(primary: &Process, lines: &[&str]) -> Self {
        let stream = TcpStream::connect(primary.address()).expect("a connection");
        stream
            .set_read_timeout(Some(Duration::from_millis(200)))
            .expect("a timeout");
        let mut played = Self(stream);
        for line in lines {
            played.say(line);
            assert_eq!(
                played.read_until(|bytes| bytes.ends_with(b"\r\n")),
                b"+OK\r\n",
                "{line}"
            );
        }
        played
    }

    pub(super) fn say(&mut self, line: &str) {
        self.0
            .write_all(format!("{line}\r\n").as_bytes())
            .expect("it is sent");
    }

    /// Reads until what was read is enough.
    fn read_until(&mut self, mut is_enough: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
        let (mut bytes, deadline) = (Vec::new(), Instant::now() + PATIENCE);
        while !is_enough(&bytes) {
            let so_far = || String::from_utf8_lossy(&bytes).into_owned();
            assert!(Instant::now() < deadline, "only this came: {}", so_far());
            let mut part = [0; 4096];
            if let Ok(count) = self.0.read(&mut part) {
                assert!(count > 0, "closed after {}", so_far());
                bytes.extend_from_slice(&part[..count]);
            }
        }
        bytes
    }

    /// Reads a line, behind empty ones.
    pub(super) fn line(&mut self) -> String {
        let is_line =
            |bytes: &[u8]| bytes.ends_with(b"\n") && bytes.iter().any(|byte| !byte.is_ascii_whitespace());
        let mut bytes = Vec::new();
        while !is_line(&bytes) {
            bytes.extend(self.read_exactly(1));
        }
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }

    pub(super) fn read_exactly(&mut self, count: usize) -> Vec<u8> {
        let (mut bytes, deadline) = (Vec::new(), Instant::now() + PATIENCE);
        while bytes.len() < count {
            assert!(Instant::now() < deadline, "only {} of {count} bytes", bytes.len());
            let mut part = vec![0; count - bytes.len()];
            if let Ok(read) = self.0.read(&mut part) {
                assert!(read > 0, "closed after {} of {count} bytes", bytes.len());
                bytes.extend_from_slice(&part[..read]);
            }
        }
        bytes
    }

    /// Reads a snapshot that ends with a mark, behind its first line.
    pub(super) fn marked(&mut self) -> Vec<u8> {
        let line = self.line();
        let mark = line
            .strip_prefix("$EOF:")
            .unwrap_or_else(|| panic!("{line}"))
            .to_owned();
        self.read_until(|bytes| bytes.ends_with(mark.as_bytes()))
    }

    /// Whether nothing comes for a while.
    pub(super) fn is_silent(&mut self) -> bool {
        let read = self.0.read(&mut [0; 100]);
        read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Whether the connection is closed, whatever else comes.
    pub(super) fn is_closed(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.0.read(&mut [0; 65536]) {
                Ok(0) => return true,
                Err(error) if error.kind() != ErrorKind::WouldBlock => return true,
                _ => {}
            }
        }
        false
    }
}

/// The stream of `SET other value`.
pub(super) const SET_OTHER: &str =
    "*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*3\r\n$3\r\nSET\r\n$5\r\nother\r\n$5\r\nvalue\r\n";

#[test]
fn a_replica_that_knows_no_marks_is_told_the_length() {
    for (shards, request) in [(1, "SYNC"), (4, "PSYNC ? -1")] {
        let primary = launch_primary(shards).serve();
        let mut client = primary.connect();
        client.line("SET key value");
        let mut played = Played::connect(&primary, &["REPLCONF listening-port 1"]);
        played.say(request);
        if request != "SYNC" {
            assert!(played.line().starts_with("+FULLRESYNC "));
        }
        let line = played.line();
        let length = line.strip_prefix('$').and_then(|length| length.parse().ok());
        let snapshot = played.read_exactly(length.unwrap_or_else(|| panic!("{line}")));
        assert!(snapshot.starts_with(b"REDIS0010"));
        // The stream follows at once.
        client.line("SET other value");
        assert_eq!(played.read_exactly(SET_OTHER.len()), SET_OTHER.as_bytes());
    }
}

#[test]
fn what_follows_a_mark_waits_for_the_first_acknowledgement() {
    let primary = launch_primary(1).serve();
    let mut client = primary.connect();
    client.line("SET key value");
    let mut played = Played::connect(&primary, &["REPLCONF capa eof capa psync2"]);
    played.say("PSYNC ? -1");
    assert!(played.line().starts_with("+FULLRESYNC "));
    let snapshot = played.marked();
    for word in ["repl-stream-db", "repl-id", "repl-offset"] {
        assert!(
            snapshot.windows(word.len()).any(|part| part == word.as_bytes()),
            "{word}"
        );
    }
    client.line("SET other value");
    assert!(played.is_silent());
    played.say("REPLCONF ACK 0");
    assert_eq!(played.read_exactly(SET_OTHER.len()), SET_OTHER.as_bytes());
}

#[test]
fn a_snapshot_outlives_a_replica_that_takes_part() {
    for diskless in ["yes", "no"] {
        let primary = launch_primary(4)
            .with(&[
                "--repl-diskless-sync-delay",
                "1",
                "--repl-diskless-sync",
                diskless,
            ])
            .serve();
        let mut client = primary.connect();
        client.line("DEBUG POPULATE 50000 key 500");
        let introduction = ["REPLCONF capa eof"];
        let leaves_early = Played::connect(&primary, &introduction);
        let mut leaves_late = Played::connect(&primary, &introduction);
        leaves_late.say("PSYNC ? -1");
        let follower = replica_of(&primary, &[]);
        drop(leaves_early);
        assert!(leaves_late.line().starts_with("+FULLRESYNC "));
        leaves_late.read_exactly(100_000);
        drop(leaves_late);
        let mut replica = follower.connect();
        await_link(&mut replica);
        client.line("SET a 1");
        assert_equal(&mut client, &mut replica);
        wait_until("only one replica is left", || {
            figure(&mut client, "connected_slaves") == 1
        });
    }
}

#[test]
fn a_replica_that_does_not_read_holds_up_nobody() {
    let primary = launch_primary(4)
        .with(&["--repl-diskless-sync-delay", "1", "--repl-timeout", "4"])
        .serve();
    let mut client = primary.connect();
    client.line("DEBUG POPULATE 100000 key 500");
    let mut stuck = Played::connect(&primary, &["REPLCONF capa eof"]);
    stuck.say("PSYNC ? -1");
    assert!(stuck.line().starts_with("+FULLRESYNC "));
    // Writers of keys that are not saved yet, and the snapshot itself, go on.
    for number in (0..100_000).step_by(500) {
        let begun = Instant::now();
        client.line(&format!("APPEND key:{number} x"));
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "held up for {:?}",
            begun.elapsed()
        );
    }
    wait_until("the snapshot is made", || {
        figure(&mut client, "rdb_bgsave_in_progress") == 0
    });
    assert!(stuck.is_closed(), "it is dropped in the end");
    wait_until("it is gone", || figure(&mut client, "connected_slaves") == 0);
    wait_until("the log tells why", || {
        primary.log().contains("timedout replica (full sync)")
    });
}

#[test]
fn a_replica_that_is_too_slow_is_dropped_and_told_why() {
    let primary = launch_primary(1)
        .with(&[
            "--repl-backlog-size",
            "1mb",
            "--client-output-buffer-limit",
            "replica 3mb 0 0",
        ])
        .serve();
    let mut client = primary.connect();
    let mut slow = Played::connect(&primary, &["REPLCONF capa eof"]);
    slow.say("PSYNC ? -1");
    slow.line();
    slow.marked();
    slow.say("REPLCONF ACK 0");
    wait_until("it is online", || {
        fields(&mut client)["slave0"].contains("state=online")
    });
    let value = "x".repeat(100_000);
    // Sockets take some megabytes by themselves.
    for number in 0..250 {
        client.line(&format!("SET big:{} {value}", number % 5));
    }
    wait_until("it is gone", || figure(&mut client, "connected_slaves") == 0);
    wait_until("the log tells why", || {
        primary
            .log()
            .contains("hard limit of 'client-output-buffer-limit replica'")
    });
    assert_eq!(
        figure(&mut client, "client_output_buffer_limit_disconnections"),
        1
    );
    // Nothing is kept for it any more.
    client.line("SET a 1");
    let length = figure(&mut client, "repl_backlog_histlen");
    assert!(length < 1_400_000, "{length}");
    assert_eq!(figure(&mut client, "mem_clients_slaves"), 0);
}

#[test]
fn pings_and_silence() {
    let primary = launch_primary(1)
        .with(&["--repl-ping-replica-period", "1", "--repl-timeout", "3"])
        .serve();
    let mut client = primary.connect();
    let mut played = Played::connect(&primary, &["REPLCONF capa eof"]);
    played.say("PSYNC ? -1");
    played.line();
    played.marked();
    played.say("REPLCONF ACK 0");
    let ping = b"*1\r\n$4\r\nPING\r\n";
    assert_eq!(played.read_exactly(2 * ping.len()), ping.repeat(2));
    assert!(figure(&mut client, "master_repl_offset") >= 28);
    assert!(played.is_closed(), "it has said nothing since");
    wait_until("the log tells why", || {
        primary.log().contains("timedout replica (streaming sync)")
    });
}

#[test]
fn the_history_ends_with_the_backlog() {
    let primary = launch_primary(1).with(&["--repl-backlog-ttl", "1"]).serve();
    let mut client = primary.connect();
    let id = field(&mut client, "master_replid");
    let mut played = Played::connect(&primary, &["REPLCONF capa eof"]);
    played.say("PSYNC ? -1");
    played.line();
    drop(played);
    wait_until("the backlog is freed", || {
        figure(&mut client, "repl_backlog_active") == 0
    });
    assert_ne!(field(&mut client, "master_replid"), id);
    let offset = figure(&mut client, "master_repl_offset");
    client.line("SET a 1");
    assert_eq!(
        figure(&mut client, "master_repl_offset"),
        offset,
        "nobody reads the stream"
    );
}

#[test]
fn a_request_behind_other_commands_is_refused() {
    let primary = launch_primary(1).serve();
    let mut played = Played::connect(&primary, &[]);
    played.0.write_all(b"PING\r\nSYNC\r\n").expect("it is sent");
    assert_eq!(played.line(), "+PONG");
    assert_eq!(
        played.line(),
        "-ERR SYNC and PSYNC are invalid with pending output"
    );
}

#[test]
fn clients_wait_for_replicas() {
    for shards in [1, 4] {
        let primary = launch_primary(shards).serve();
        let mut client = primary.connect();
        client.line("SET a 1");
        assert_eq!(client.line("WAIT 1 50").integer(), Some(0));
        let followers = [replica_of(&primary, &[]), replica_of(&primary, &[])];
        for follower in &followers {
            await_link(&mut follower.connect());
        }
        wait_until("both follow", || client.line("WAIT 2 1000").integer() == Some(2));
        for round in 0..20 {
            client.line(&format!("SET a:{round} 1"));
            // A client that wrote nothing since does not wait for what others write.
            assert_eq!(client.line("WAIT 2 0").integer(), Some(2));
            assert_eq!(
                followers[round % 2]
                    .connect()
                    .line(&format!("GET a:{round}"))
                    .text(),
                "1"
            );
        }
        assert_eq!(client.line("WAIT 3 100").integer(), Some(2));
        client.line("MULTI");
        client.line("SET b 1");
        client.line("WAIT 3 0");
        assert_eq!(client.line("EXEC").items()[1].integer(), Some(2));
        let stored = client.line("WAITAOF 0 1 100");
        assert_eq!(
            stored.items().iter().map(Reply::integer).collect::<Vec<_>>(),
            [Some(0); 2]
        );
    }
}

#[test]
fn clients_wait_for_the_disks_of_replicas() {
    let primary = launch_primary(4).serve();
    let port = primary.address().port().to_string();
    // Redis 7.0 does not tell what it has on disk.
    let follower = redis::launch_peer()
        .with(&[
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--replicaof",
            "127.0.0.1",
            &port,
        ])
        .serve();
    let mut client = primary.connect();
    await_link(&mut follower.connect());
    let stored = |client: &mut Client, line: &str| -> Vec<_> {
        let reply = client.line(line);
        reply.items().iter().map(Reply::integer).collect()
    };
    wait_until("the replica has written its file", || {
        stored(&mut client, "WAITAOF 0 1 1000") == [Some(0), Some(1)]
    });
    for round in 0..10 {
        client.line(&format!("SET a:{round} 1"));
        assert_eq!(stored(&mut client, "WAITAOF 0 1 0"), [Some(0), Some(1)]);
    }
    client.line("SET b 1");
    // At the end of the time the reply tells how far it is.
    wait_until("the replica has stored it", || {
        stored(&mut client, "WAITAOF 0 2 100") == [Some(0), Some(1)]
    });
    client.line("CONFIG SET appendonly yes");
    client.line("SET c 1");
    assert_eq!(stored(&mut client, "WAITAOF 1 1 0"), [Some(1), Some(1)]);
}

#[test]
fn replicas_that_come_together_share_a_snapshot() {
    for options in [
        // Enough of them end the delay.
        [
            "--repl-diskless-sync-delay",
            "600",
            "--repl-diskless-sync-max-replicas",
            "3",
        ],
        [
            "--repl-diskless-sync-delay",
            "2",
            "--repl-diskless-sync-max-replicas",
            "0",
        ],
        // One that comes while a file is made gets it as well, and the stream from the same place on.
        ["--repl-diskless-sync", "no", "--rdb-key-save-delay", "1000"],
    ] {
        let primary = node::launch(4)
            .with(&["--enable-debug-command", "yes"])
            .with(&options)
            .serve();
        let mut client = primary.connect();
        client.line("DEBUG POPULATE 2000 key 100");
        let mut played: Vec<Played> = (0..3)
            .map(|_| {
                let mut played = Played::connect(&primary, &["REPLCONF capa eof"]);
                played.say("PSYNC ? -1");
                client.line("SET between 1");
                std::thread::sleep(Duration::from_millis(100));
                played
            })
            .collect();
        let lines: Vec<String> = played.iter_mut().map(Played::line).collect();
        assert!(lines[0].starts_with("+FULLRESYNC "), "{lines:?}");
        assert!(
            lines.iter().all(|line| *line == lines[0]),
            "{options:?}: {lines:?}"
        );
        assert_eq!(figure(&mut client, "sync_full"), 3);
        assert_eq!(
            primary.log().matches("Starting a snapshot for SYNC").count(),
            1,
            "{options:?}"
        );
        // What was written after the cut reaches all of them.
        if options.contains(&"no") {
            for played in &mut played {
                let length = played.line();
                let length = length.strip_prefix('$').and_then(|length| length.parse().ok());
                played.read_exactly(length.expect("a length"));
                played.read_until(|bytes| bytes.ends_with(b"$7\r\nbetween\r\n$1\r\n1\r\n"));
            }
        }
    }
}
