//! An embedded server as the replica of another one: its host sees what comes from the primary, and both end at any time.

use std::time::{Duration, Instant};

use redis::{Commands, Connection};
use shardis::Server;

/// Longest time for something that takes a moment.
const PATIENCE: Duration = Duration::from_secs(30);

fn connect(server: &Server) -> Connection {
    let client = redis::Client::open(server.url()).expect("a URL");
    client.get_connection().expect("a connection")
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test waits for a server that uses the real clock"
)]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn it_follows_another_one_in_the_same_process() {
    for shards in [(1, 3), (4, 1)] {
        let primary = Server::builder()
            .shards(shards.0)
            .directive("repl-diskless-sync-delay", "0")
            .start()
            .expect("it starts");
        let mut source = connect(&primary);
        let () = source.set("before", 1).expect("it is set");
        let (sender, effects) = crossbeam_channel::unbounded();
        let replica = Server::builder()
            .shards(shards.1)
            .directive("replicaof", format!("127.0.0.1 {}", primary.address().port()))
            .effects(sender)
            .start()
            .expect("it starts");
        let mut client = connect(&replica);
        wait_until("the data", || {
            client
                .get("before")
                .is_ok_and(|value: Option<i64>| value == Some(1))
        });
        let () = source.incr("before", 41).expect("it is incremented");
        let count: i64 = redis::cmd("WAIT")
            .arg(1)
            .arg(0)
            .query(&mut source)
            .expect("a reply");
        assert_eq!((count, client.get::<_, i64>("before").expect("a value")), (1, 42));
        assert!(
            client.set::<_, _, ()>("before", 7).is_err(),
            "clients of a replica do not write"
        );
        let told = || {
            effects
                .try_iter()
                .any(|effect| effect.words == [&b"INCRBY"[..], b"before", b"41"])
        };
        wait_until("the host is told", told);
        // It goes on without its primary, and as one.
        primary.stop();
        let () = redis::cmd("REPLICAOF")
            .arg("NO")
            .arg("ONE")
            .query(&mut client)
            .expect("OK");
        wait_until("it takes writes", || {
            client.incr::<_, _, i64>("before", 1).is_ok()
        });
        replica.stop();
    }
}

#[test]
fn it_ends_while_it_looks_for_its_primary() {
    let replica = Server::builder()
        .directive("replicaof", "127.0.0.1 1")
        .start()
        .expect("it starts");
    let role: Vec<redis::Value> = redis::cmd("ROLE").query(&mut connect(&replica)).expect("a role");
    assert_eq!(role.len(), 5);
    replica.stop();
}
