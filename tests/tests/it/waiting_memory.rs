//! Memory of clients whose command waits, for a key or for the end of a pause: it is told, counted, and limited.

use std::thread::sleep;
use std::time::Duration;

use shardis_tests::client::Client;
use shardis_tests::info::{figure, word};
use shardis_tests::node;
use shardis_tests::process::Process;
use shardis_tests::wait::wait_until;

const SHARDS: [usize; 2] = [1, 4];

/// Size of a key that is long enough to be seen.
const LONG: usize = 300_000;

/// A field of the line that CLIENT LIST has about the client of that id.
fn field(control: &mut Client, id: &str, name: &str) -> u64 {
    let list = control.line(&format!("CLIENT LIST ID {id}")).text();
    let found = word(&list, name).and_then(|value| value.parse().ok());
    found.unwrap_or_else(|| panic!("no {name} in {list}"))
}

/// Checks that the arguments of a client that waits are told by CLIENT LIST, and counted with the clients' memory.
fn assert_counted(control: &mut Client, id: &str, bytes: usize) {
    wait_until("the arguments of a waiting client are told", || {
        field(control, id, "argv-mem") >= bytes as u64
    });
    let total = field(control, id, "tot-mem");
    assert!(total >= bytes as u64, "{total}");
    // Told within moments, not only when the loop looks after its clients.
    let clients = figure(control, "mem_clients_normal");
    assert!(clients >= bytes as u64, "{clients}");
}

/// A connection, and its id.
fn connect(server: &Process) -> (Client, String) {
    let mut client = server.connect();
    let id = client.line("CLIENT ID").to_string();
    (client, id.trim_start_matches(':').trim().to_owned())
}

#[test]
fn the_arguments_of_who_waits_for_a_key_are_counted() {
    for shards in SHARDS {
        let server = node::start(shards);
        let mut control = server.connect();
        let (mut client, id) = connect(&server);
        let keys = ["a", "b", "c"].map(|name| name.repeat(LONG));
        client
            .send(&["BLPOP", &keys[0], &keys[1], &keys[2], "0"])
            .expect("sent");
        assert_counted(&mut control, &id, 3 * LONG);
        control.call(&["RPUSH", &keys[1], "value"]);
        assert_eq!(client.read().expect("a reply").items().len(), 2);
        wait_until("they are given back", || {
            field(&mut control, &id, "tot-mem") < LONG as u64
        });
        assert_eq!(field(&mut control, &id, "argv-mem"), 0);
    }
}

#[test]
fn the_arguments_of_who_waits_for_the_end_of_a_pause_are_counted() {
    for shards in SHARDS {
        let server = node::start(shards);
        let mut control = server.connect();
        let (mut client, id) = connect(&server);
        control.line("CLIENT PAUSE 100000 WRITE");
        client.send(&["SET", "key", &"v".repeat(LONG)]).expect("sent");
        assert_counted(&mut control, &id, LONG);
        control.line("CLIENT UNPAUSE");
        assert_eq!(client.read().expect("a reply").text(), "OK");
        wait_until("they are given back", || {
            field(&mut control, &id, "argv-mem") == 0
        });
    }
}

#[test]
fn clients_that_wait_with_long_keys_are_evicted() {
    for shards in SHARDS {
        let server = node::start(shards);
        let mut control = server.connect();
        control.line("CLIENT NO-EVICT on");
        let mut clients: Vec<Client> = (0..10).map(|_| server.connect()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            let keys = ["a", "b", "c"].map(|name| name.repeat(LONG + number));
            client
                .send(&["BLPOP", &keys[0], &keys[1], &keys[2], "0"])
                .expect("sent");
        }
        wait_until("all wait", || figure(&mut control, "blocked_clients") == 10);
        // Until each loop has looked after its clients, which it does within a second.
        sleep(Duration::from_millis(1500));
        control.line("CONFIG SET maxmemory-clients 5mb");
        wait_until("some are evicted", || {
            figure(&mut control, "evicted_clients") >= 4
        });
        wait_until("the others stay within the limit", || {
            figure(&mut control, "mem_clients_normal") <= 5 << 20
        });
        wait_until("no wait stays behind", || {
            figure(&mut control, "blocked_clients") + figure(&mut control, "evicted_clients") == 10
        });
    }
}
