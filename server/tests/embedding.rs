//! The server inside another program, driven by a client library.

use std::net::TcpListener;
use std::time::Duration;

use redis::{Commands, Connection};
use shardis::Server;

fn connect(server: &Server) -> Connection {
    let client = redis::Client::open(server.url()).expect("the URL is one that clients take");
    client.get_connection().expect("the server accepts connections")
}

#[test]
fn a_client_library_works_against_it() {
    for (shards, backend) in [(1, "auto"), (4, "auto"), (1, "epoll"), (4, "epoll")] {
        let builder = Server::builder()
            .port(0)
            .shards(shards)
            .directive("io-backend", backend);
        let server = builder.start().unwrap();
        let mut client = connect(&server);
        let () = client.set("greeting", "hello").unwrap();
        assert_eq!(client.get::<_, String>("greeting").unwrap(), "hello");
        let () = client.mset(&[("a", 1), ("b", 2), ("c", 3)]).unwrap();
        assert_eq!(client.mget::<_, Vec<i64>>(&["a", "b", "c"]).unwrap(), [1, 2, 3]);
        let (sum, all): (i64, Vec<i64>) = redis::pipe()
            .atomic()
            .incr("a", 41)
            .mget(&["a", "b"])
            .query(&mut client)
            .unwrap();
        assert_eq!((sum, all), (42, vec![42, 2]));
        let mut keys: Vec<String> = client.scan().unwrap().collect::<Result<_, _>>().unwrap();
        keys.sort();
        assert_eq!(keys, ["a", "b", "c", "greeting"]);
    }
}

#[test]
fn many_servers_run_in_one_process_and_share_nothing() {
    let servers: Vec<Server> = (0..5).map(|_| Server::builder().start().unwrap()).collect();
    for (number, server) in servers.iter().enumerate() {
        let () = connect(server).set("number", number).unwrap();
    }
    for (number, server) in servers.iter().enumerate() {
        assert_eq!(connect(server).get::<_, usize>("number").unwrap(), number);
    }
}

#[test]
fn dropping_it_frees_its_port_and_ends_its_connections() {
    let server = Server::builder().start().unwrap();
    let address = server.address();
    let mut client = connect(&server);
    assert!(TcpListener::bind(address).is_err());
    drop(server);
    assert!(client.get::<_, Option<String>>("k").is_err());
    drop(client);
    let again = Server::builder().port(address.port()).start().unwrap();
    assert_eq!(again.address(), address);
}

#[test]
fn a_port_in_use_is_an_error_that_says_so() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = Server::builder()
        .port(taken.local_addr().unwrap().port())
        .start()
        .unwrap_err();
    assert!(error.to_string().contains("Failed listening on port"), "{error}");
}

#[test]
fn a_wrong_directive_is_an_error_that_names_it() {
    let error = Server::builder()
        .directive("maxclients", "many")
        .start()
        .unwrap_err();
    assert!(error.to_string().contains("maxclients"), "{error}");
    let error = Server::builder().directive("nonsense", "1").start().unwrap_err();
    assert!(error.to_string().contains("nonsense"), "{error}");
}

#[test]
fn time_stands_still_until_it_is_moved() {
    let server = Server::builder()
        .shards(2)
        .manual_clock(Duration::from_secs(1_700_000_000))
        .start()
        .unwrap();
    let mut client = connect(&server);
    let () = client.set_ex("seat", "ada", 60).unwrap();
    assert_eq!(client.ttl::<_, i64>("seat").unwrap(), 60);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(client.pttl::<_, i64>("seat").unwrap(), 60_000);
    assert!(server.advance(Duration::from_millis(59_999)));
    assert_eq!(client.pttl::<_, i64>("seat").unwrap(), 1);
    assert!(server.advance(Duration::from_millis(2)));
    assert_eq!(client.get::<_, Option<String>>("seat").unwrap(), None);
    let (seconds, _): (i64, i64) = redis::cmd("TIME").query(&mut client).unwrap();
    assert_eq!(seconds, 1_700_000_060);
}

#[test]
fn expired_keys_go_by_themselves_when_time_is_moved() {
    let server = Server::builder()
        .manual_clock(Duration::from_secs(1_700_000_000))
        .start()
        .unwrap();
    let mut client = connect(&server);
    for number in 0..500 {
        let () = client.set_ex(format!("key:{number}"), number, 10).unwrap();
    }
    server.advance(Duration::from_secs(11));
    // Nobody looks at the keys, and time stands still again: the active cycle follows what it was moved by.
    for _ in 0..200 {
        let left: usize = redis::cmd("DBSIZE").query(&mut client).unwrap();
        if left == 0 {
            return;
        }
    }
    panic!("expired keys are still there");
}

#[test]
fn a_real_clock_cannot_be_moved() {
    let server = Server::builder().start().unwrap();
    assert!(!server.advance(Duration::from_secs(1)));
}

#[test]
fn a_seed_makes_chance_repeatable() {
    let draw = || {
        let server = Server::builder().seed(7).start().unwrap();
        let mut client = connect(&server);
        for number in 0..100 {
            let () = client.set(format!("key:{number}"), number).unwrap();
        }
        (0..10)
            .map(|_| redis::cmd("RANDOMKEY").query(&mut client).unwrap())
            .collect::<Vec<String>>()
    };
    assert_eq!(draw(), draw());
}

#[test]
fn a_password_is_asked_for() {
    let server = Server::builder()
        .directive("requirepass", "secret")
        .start()
        .unwrap();
    let without = format!("redis://{}/", server.address());
    let client = redis::Client::open(without).unwrap();
    let refused = client
        .get_connection()
        .and_then(|mut client| client.get::<_, Option<String>>("k"));
    assert!(refused.is_err());
    let url = format!("redis://:secret@{}/", server.address());
    let mut client = redis::Client::open(url).unwrap().get_connection().unwrap();
    let () = client.set("k", "v").unwrap();
}

#[test]
fn effects_are_those_that_replicas_repeat() {
    let (sender, effects) = crossbeam_channel::unbounded();
    let server = Server::builder()
        .shards(3)
        .manual_clock(Duration::from_secs(1_000))
        .effects(sender)
        .start()
        .unwrap();
    let mut client = connect(&server);
    let () = client.set_ex("k", "v", 10).unwrap();
    let () = client.mset(&[("a", 1), ("b", 2), ("c", 3)]).unwrap();
    let () = redis::pipe()
        .atomic()
        .incr("a", 1)
        .get("b")
        .publish("news", "within")
        .rename("b", "d")
        .query(&mut client)
        .unwrap();
    // Whether or not anybody listens here: replicas have listeners of their own.
    assert_eq!(client.publish::<_, _, i64>("news", "alone").unwrap(), 0);
    let _: Option<String> = client.get("k").unwrap();
    server.advance(Duration::from_secs(11));
    let _: Option<String> = client.get("k").unwrap();
    drop(client);
    server.stop();
    let lines: Vec<String> = effects
        .iter()
        .map(|effect| {
            effect
                .words
                .iter()
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect::<Vec<_>>()
        })
        .map(|words| words.join(" "))
        .collect();
    assert_eq!(
        lines,
        [
            "SET k v PXAT 1010000",
            "MSET a 1 b 2 c 3",
            "MULTI",
            "INCRBY a 1",
            "PUBLISH news within",
            "RENAME b d",
            "EXEC",
            "PUBLISH news alone",
            "DEL k"
        ]
    );
}

#[test]
fn keyspace_events_reach_subscribers_and_whoever_embeds() {
    for shards in [1, 3] {
        let (sender, events) = crossbeam_channel::unbounded();
        let server = Server::builder()
            .shards(shards)
            .manual_clock(Duration::from_secs(1_000))
            .directive("notify-keyspace-events", "EA")
            .keyspace_events(sender)
            .start()
            .unwrap();
        let mut listener = connect(&server);
        let mut heard = listener.as_pubsub();
        heard.psubscribe("__keyevent@0__:*").unwrap();
        let mut client = connect(&server);
        let () = client.set_ex("k", "v", 10).unwrap();
        let () = client.del("k").unwrap();
        for (event, key) in [("set", "k"), ("expire", "k"), ("del", "k")] {
            let message = heard.get_message().unwrap();
            assert_eq!(message.get_channel_name(), format!("__keyevent@0__:{event}"));
            assert_eq!(message.get_payload::<String>().unwrap(), key);
            let told = events.recv_timeout(Duration::from_secs(10)).unwrap();
            assert_eq!((told.name, &told.key[..]), (event, key.as_bytes()));
        }
    }
}

#[test]
fn memory_stays_below_its_limit_and_the_oldest_keys_go() {
    for shards in [1, 3] {
        let server = Server::builder()
            .shards(shards)
            .directive("maxmemory", "2mb")
            .directive("maxmemory-policy", "allkeys-lru")
            .manual_clock(Duration::from_secs(1_700_000_000))
            .start()
            .unwrap();
        let mut client = connect(&server);
        let value = vec![b'x'; 1000];
        for number in 0..8000 {
            // Keys are told apart by the second in which they were last used.
            if number % 500 == 0 {
                server.advance(Duration::from_secs(1));
            }
            let () = client.set(format!("key:{number}"), &value).unwrap();
        }
        let info: String = redis::cmd("INFO")
            .arg("memory")
            .arg("stats")
            .query(&mut client)
            .unwrap();
        let field = |name: &str| -> u64 {
            let line = info
                .lines()
                .find_map(|line| line.strip_prefix(&format!("{name}:")))
                .unwrap();
            line.parse().unwrap()
        };
        assert!(field("used_memory_dataset") < 2_200_000, "{info}");
        assert!(field("evicted_keys") > 5000, "{info}");
        assert!(client.exists::<_, bool>("key:7999").unwrap());
        let old = (0..500).filter(|number| client.exists::<_, bool>(format!("key:{number}")).unwrap());
        // Samples pass over a key by chance, but not over many.
        assert!(old.count() < 25);
    }
}

#[test]
fn without_eviction_writes_are_refused_and_reads_go_on() {
    let server = Server::builder().directive("maxmemory", "1mb").start().unwrap();
    let mut client = connect(&server);
    let value = vec![b'x'; 10_000];
    let refused = (0..500)
        .find_map(|number| client.set::<_, _, ()>(format!("key:{number}"), &value).err())
        .unwrap();
    assert!(refused.to_string().contains("OOM"), "{refused}");
    assert_eq!(client.get::<_, Vec<u8>>("key:0").unwrap(), value);
    let () = client.del("key:0").unwrap();
    let () = redis::cmd("FLUSHALL").query(&mut client).unwrap();
    let () = client.set("key:1", &value).unwrap();
}
