//! Feeds whose readers are slow or gone: the server goes on, and stops when it is told to.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use redis::{Commands, Connection};
use shardis::{Server, SlowListener};

fn connect(server: &Server) -> Connection {
    let client = redis::Client::open(server.url()).expect("the URL is one that clients take");
    client.get_connection().expect("the server accepts connections")
}

/// Runs something that must come to an end.
fn within<T: Send + 'static>(patience: Duration, what: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = mpsc::channel();
    thread::spawn(move || done.send(what()));
    wait.recv_timeout(patience).expect("it comes to an end")
}

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_listener_that_does_not_read_holds_nothing_up_for_long() {
    for shards in [1, 4] {
        for slow in [
            SlowListener::Drop,
            SlowListener::Wait(Duration::from_millis(50)),
            SlowListener::default(),
        ] {
            within(PATIENCE, move || {
                let (sender, effects) = crossbeam_channel::bounded(2);
                let builder = Server::builder()
                    .shards(shards)
                    .effects(sender)
                    .slow_listener(slow);
                let server = builder.start().expect("it starts");
                let mut client = connect(&server);
                for number in 0..100 {
                    let () = client.set(format!("key:{number}"), number).expect("it is stored");
                }
                assert_eq!(effects.len(), 2);
                drop(server);
                assert_eq!(effects.iter().count(), 2, "and the channel is closed");
            });
        }
    }
}

#[test]
fn a_server_ends_while_a_command_waits_for_a_listener() {
    for shards in [1, 4] {
        within(PATIENCE, move || {
            let (sender, events) = crossbeam_channel::bounded(1);
            let server = Server::builder()
                .shards(shards)
                .directive("notify-keyspace-events", "KEA")
                .keyspace_events(sender)
                .slow_listener(SlowListener::Wait(Duration::from_secs(3600)))
                .start()
                .expect("it starts");
            let mut client = connect(&server);
            let writer = thread::spawn(move || {
                for number in 0..10 {
                    let _: redis::RedisResult<()> = client.set(format!("key:{number}"), number);
                }
            });
            // The listener itself drops the server, and does so while the server waits for it.
            events.recv().expect("a first event");
            thread::sleep(Duration::from_millis(100));
            drop(server);
            writer.join().expect("the writer's connection is closed");
        });
    }
}

#[test]
fn a_listener_that_has_gone_is_no_obstacle() {
    let (sender, effects) = crossbeam_channel::bounded(1);
    drop(effects);
    let server = Server::builder().effects(sender).start().expect("it starts");
    let mut client = connect(&server);
    for number in 0..100 {
        let () = client.set("key", number).expect("it is stored");
    }
    assert_eq!(client.get::<_, i64>("key").expect("a value"), 99);
}

#[test]
fn a_listener_that_keeps_up_gets_everything_however_small_its_channel() {
    let (sender, effects) = crossbeam_channel::bounded(1);
    let server = Server::builder()
        .shards(2)
        .effects(sender)
        .start()
        .expect("it starts");
    let reader = thread::spawn(move || effects.iter().count());
    let mut client = connect(&server);
    for number in 0..1000 {
        let () = client.set(format!("key:{number}"), number).expect("it is stored");
    }
    drop(server);
    assert_eq!(reader.join().expect("it counts"), 1000);
}

#[test]
fn a_slow_listener_of_events_holds_nobody_up_and_misses_nothing() {
    for shards in [1, 4] {
        within(PATIENCE, move || {
            let (sender, events) = crossbeam_channel::bounded(1);
            let server = Server::builder()
                .shards(shards)
                .directive("notify-keyspace-events", "K$")
                .keyspace_events(sender)
                .slow_listener(SlowListener::Wait(Duration::from_secs(3600)))
                .start()
                .expect("it starts");
            // More than fit; on every shard.
            let keys: Vec<String> = (0..500).map(|number| format!("key:{number}")).collect();
            let mut client = connect(&server);
            for key in &keys {
                let () = client.set(key, 1).expect("it is stored");
                let value: i64 = client.get(key).expect("a value");
                assert_eq!(value, 1);
            }
            let told = events.iter().take(keys.len());
            assert!(
                told.map(|event| event.key)
                    .eq(keys.iter().map(|key| key.clone().into_bytes()))
            );
        });
    }
}
