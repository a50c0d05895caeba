//! Replies that no two servers give alike, checked for what clients and dashboards read in them.

use shardis_tests::diff::Subject;
use shardis_tests::reply::Reply;
use shardis_tests::{node, redis};

/// Kind of the subject.
fn kind() -> Subject {
    if node::is_redis() {
        Subject::Redis
    } else {
        Subject::Shardis
    }
}

/// HELLO has every field that Redis's has, in its order, under both protocols.
#[test]
fn hello_says_what_redis_says() {
    for shards in [1, 4] {
        let (subject, oracle) = (node::start(shards), redis::start());
        for version in ["2", "3"] {
            let [got, wanted] = [&subject, &oracle].map(|server| server.connect().call(&["HELLO", version]));
            let fields = |reply: &Reply| {
                reply
                    .pairs()
                    .iter()
                    .map(|(key, _)| key.text())
                    .collect::<Vec<_>>()
            };
            let known = fields(&wanted);
            let ours: Vec<String> = fields(&got)
                .into_iter()
                .filter(|field| known.contains(field))
                .collect();
            assert_eq!(ours, known, "{got}");
            assert_eq!(std::mem::discriminant(&got), std::mem::discriminant(&wanted));
            for field in ["server", "proto", "mode", "role", "modules"] {
                assert_eq!(got.field(field), wanted.field(field), "{field}");
            }
            let is_72 = got
                .field("version")
                .is_some_and(|version| version.text() == "7.2.4");
            assert!(is_72 || kind() == Subject::Redis, "{got}");
        }
    }
}

/// The sections and fields of INFO that tools ask for; a server that cannot know one leaves it out of this list.
#[test]
fn info_has_what_tools_read() {
    for shards in [1, 4] {
        let server = node::start(shards);
        let mut client = server.connect();
        client.line("SET k v");
        client.line("SET l v EX 1000");
        client.line("GET missing");
        let info = client.line("INFO").text();
        let fields = [
            "redis_version",
            "redis_mode",
            "os",
            "arch_bits",
            "process_id",
            "run_id",
            "tcp_port",
            "uptime_in_seconds",
            "uptime_in_days",
            "connected_clients",
            "maxclients",
            "blocked_clients",
            "used_memory",
            "used_memory_human",
            "used_memory_rss",
            "used_memory_peak",
            "maxmemory",
            "maxmemory_policy",
            "mem_fragmentation_ratio",
            "mem_allocator",
            "loading",
            "total_connections_received",
            "total_commands_processed",
            "instantaneous_ops_per_sec",
            "rejected_connections",
            "expired_keys",
            "evicted_keys",
            "keyspace_hits",
            "keyspace_misses",
            "role",
            "connected_slaves",
            "used_cpu_sys",
            "used_cpu_user",
            "cluster_enabled",
        ];
        let missing: Vec<_> = fields
            .iter()
            .filter(|field| !info.contains(&format!("\r\n{field}:")))
            .collect();
        assert!(missing.is_empty(), "{missing:?} are missing in {info}");
        for section in [
            "Server",
            "Clients",
            "Memory",
            "Stats",
            "Replication",
            "CPU",
            "Cluster",
            "Keyspace",
        ] {
            assert!(info.contains(&format!("# {section}\r\n")), "{section}");
        }
        assert!(info.contains("\r\ndb0:keys=2,expires=1,avg_ttl="), "{info}");
        assert!(info.contains("\r\nkeyspace_misses:1\r\n"), "{info}");
        assert!(
            info.contains("redis_version:7.2.4") && info.contains("shardis_version:")
                || kind() == Subject::Redis
        );
        let keyspace = client.line("INFO keyspace").text();
        assert!(
            keyspace.starts_with("# Keyspace\r\ndb0:") && !keyspace.contains("# Server"),
            "{keyspace}"
        );
        let stats = client.line("INFO commandstats").text();
        assert!(stats.contains("cmdstat_set:calls=2,usec="), "{stats}");
        let two = client.line("INFO server clients").text();
        assert!(
            two.contains("# Server") && two.contains("# Clients") && !two.contains("# Stats"),
            "{two}"
        );
        assert_eq!(client.line("INFO nosuchsection").text(), "");
        assert!(client.line("INFO everything").text().len() >= info.len() - 200);
    }
}

/// CLIENT LIST shows all clients, wherever their loops are, in the order of their ids.
#[test]
fn client_list_shows_every_loop() {
    let server = node::start(4);
    let mut clients: Vec<_> = (0..12).map(|_| server.connect()).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        assert_eq!(
            client.call(&["CLIENT", "SETNAME", &format!("client{i}")]).text(),
            "OK"
        );
    }
    let list = clients[0].line("CLIENT LIST").text();
    let ids: Vec<u64> = list
        .lines()
        .filter_map(|line| line.split(' ').next()?.strip_prefix("id=")?.parse().ok())
        .collect();
    assert_eq!(ids.len(), 12, "{list}");
    assert!(ids.is_sorted(), "{ids:?}");
    for i in 0..12 {
        assert!(
            list.contains(&format!(" name=client{i} ")),
            "client{i} is missing in {list}"
        );
    }
}

/// The clock of TIME is the system's.
#[test]
fn time_is_now() {
    let server = node::start(1);
    let reply = server.connect().line("TIME");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    let [seconds, micros] = reply.items() else {
        panic!("{reply}")
    };
    assert!(
        seconds
            .text()
            .parse::<u64>()
            .is_ok_and(|seconds| seconds.abs_diff(now) <= 2),
        "{reply}"
    );
    assert!(
        micros
            .text()
            .parse::<u64>()
            .is_ok_and(|micros| micros < 1_000_000),
        "{reply}"
    );
}
