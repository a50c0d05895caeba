//! The limits on clients: output buffers, query buffers, and all of them together; and the figures of CLIENT LIST
//! about them.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use shardis_tests::client::{Client, encode};
use shardis_tests::info::{figure, word};
use shardis_tests::node;
use shardis_tests::process::Process;
use shardis_tests::wait::wait_until;

const MB: usize = 1 << 20;

/// Servers of one and of three shards, for each way to wait for sockets.
fn servers(options: &[&str]) -> Vec<Process> {
    if node::is_redis() {
        return vec![node::launch(1).with(options).serve()];
    }
    let mut servers = Vec::new();
    for shards in [1, 3] {
        for backend in ["epoll", "io_uring"] {
            let launch = node::launch(shards).with(&["--io-backend", backend]);
            servers.push(launch.with(options).serve());
        }
    }
    servers
}

/// A field of the line that CLIENT LIST has about the client of that name; `None` when there is no such client.
fn field(control: &mut Client, name: &str, field: &str) -> Option<u64> {
    let list = control.line("CLIENT LIST").text();
    let line = list
        .lines()
        .find(|line| line.contains(&format!(" name={name} ")))?;
    let word = word(line, field);
    Some(
        word.unwrap_or_else(|| panic!("no {field} in {line}"))
            .parse()
            .expect("a number"),
    )
}

fn named(server: &Process, name: &str) -> Client {
    let mut client = server.connect();
    client.line(&format!("CLIENT SETNAME {name}"));
    client
}

/// A client for questions, which may not be evicted.
fn control(server: &Process) -> Client {
    let mut control = named(server, "control");
    control.line("CLIENT NO-EVICT on");
    control
}

/// The beginning of a command with an argument of `length` bytes, of which `sent` bytes are there.
fn begun(length: usize, sent: usize) -> Vec<u8> {
    let mut bytes = format!("*2\r\n$4\r\nECHO\r\n${length}\r\n").into_bytes();
    bytes.resize(bytes.len() + sent, b'v');
    bytes
}

/// Reads until the server has closed the connection.
fn assert_closed(mut client: Client) {
    loop {
        match client.read() {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::TimedOut => panic!("the connection stays"),
            Err(_) => return,
        }
    }
}

#[test]
fn what_half_a_command_takes_is_told() {
    for server in servers(&[]) {
        let mut control = control(&server);
        let mut client = named(&server, "half");
        client.write(&begun(10 * MB, 5 * MB)).unwrap();
        wait_until("half of it has come", || {
            field(&mut control, "half", "qbuf") >= Some(5 * MB as u64)
        });
        let total = field(&mut control, "half", "tot-mem").unwrap();
        assert!((10 * MB as u64..12 * MB as u64).contains(&total), "{total}");
        assert!(figure(&mut control, "mem_clients_normal") >= total);
        assert!(figure(&mut control, "client_recent_max_input_buffer") >= 4 * MB as u64);
        client.write(&vec![b'v'; 5 * MB]).unwrap();
        client.write(b"\r\n").unwrap();
        assert_eq!(client.read().unwrap().text().len(), 10 * MB);
        wait_until("its memory is given back", || {
            field(&mut control, "half", "tot-mem") < Some(MB as u64)
        });
    }
}

#[test]
fn what_is_not_read_is_told() {
    for server in servers(&[]) {
        let mut control = control(&server);
        let mut client = named(&server, "slow");
        control.call(&["SET", "large", &"x".repeat(MB)]);
        let mut requests = Vec::new();
        (0..40).for_each(|_| encode(&mut requests, &["GET", "large"]));
        client.write(&requests).unwrap();
        wait_until("output piles up", || {
            field(&mut control, "slow", "omem") > Some(20 * MB as u64)
        });
        assert!(field(&mut control, "slow", "oll") > Some(0));
        assert!(field(&mut control, "slow", "tot-mem") > Some(20 * MB as u64));
        assert!(figure(&mut control, "mem_clients_normal") > 20 * MB as u64);
        assert!(figure(&mut control, "client_recent_max_output_buffer") > 20 * MB as u64);
        for _ in 0..40 {
            assert_eq!(client.read().unwrap().text().len(), MB);
        }
        for name in ["oll", "omem", "obl"] {
            wait_until("all is sent", || field(&mut control, "slow", name) == Some(0));
        }
        wait_until("its memory is given back", || {
            field(&mut control, "slow", "tot-mem") < Some(MB as u64)
        });
        assert!(field(&mut control, "slow", "tot-cmds") >= Some(41));
        assert!(field(&mut control, "slow", "tot-net-out") >= Some(40 * MB as u64));
        assert!(field(&mut control, "slow", "tot-net-in") >= Some(requests.len() as u64));
    }
}

/// The largest client is closed when all together exceed the limit, for each reason to be large, and the others stay.
#[test]
fn the_client_that_takes_too_much_is_evicted() {
    type Grow = fn(&mut Client, usize);
    let ways: [(&str, Grow); 6] = [
        ("argument", |client, bytes| {
            let _ = client.write(&begun(bytes, bytes));
        }),
        ("arguments", |client, bytes| {
            // Many of them, none large.
            let mut request = b"*1000000\r\n".to_vec();
            (0..=bytes / 1000)
                .for_each(|_| request.extend_from_slice(format!("$1000\r\n{:01000}\r\n", 0).as_bytes()));
            let _ = client.write(&request);
        }),
        ("transaction", |client, bytes| {
            let _ = client.send(&["MULTI"]);
            let value = "v".repeat(bytes / 10);
            (0..12).for_each(|_| drop(client.send(&["SET", "k", &value])));
        }),
        ("watched keys", |client, bytes| {
            (0..bytes / 1000).for_each(|number| drop(client.send(&["WATCH", &format!("{number:01000}")])));
        }),
        ("subscriptions", |client, bytes| {
            (0..bytes / 1000)
                .for_each(|number| drop(client.send(&["SUBSCRIBE", &format!("{number:01000}")])));
        }),
        ("replies", |client, bytes| {
            let _ = client.send(&["SET", "value", &"v".repeat(bytes / 10)]);
            // Bytes in the buffers of sockets do not count.
            (0..200).for_each(|_| drop(client.send(&["GET", "value"])));
        }),
    ];
    for server in servers(&["--maxmemory-clients", "3mb"]) {
        let mut control = control(&server);
        let mut bystander = named(&server, "bystander");
        for (count, (way, grow)) in (1..).zip(ways) {
            let mut client = named(&server, "greedy");
            grow(&mut client, 3 * MB);
            wait_until(way, || field(&mut control, "greedy", "id").is_none());
            assert_eq!(figure(&mut control, "evicted_clients"), count, "{way}");
            assert_closed(client);
            assert_eq!(bystander.line("PING").text(), "PONG", "{way}");
        }
        assert!(server.log().contains("Evicting client: id="));
    }
}

#[test]
fn clients_that_may_not_be_evicted_stay() {
    for server in servers(&["--maxmemory-clients", "3mb"]) {
        let mut control = control(&server);
        let mut client = named(&server, "protected");
        client.line("CLIENT NO-EVICT on");
        client.write(&begun(8 * MB, 4 * MB)).unwrap();
        wait_until("it has come", || {
            field(&mut control, "protected", "qbuf") >= Some(4 * MB as u64)
        });
        std::thread::sleep(Duration::from_millis(150));
        assert!(field(&mut control, "protected", "id").is_some());
        assert_eq!(figure(&mut control, "evicted_clients"), 0);
        // The protection ends with the command that ends it.
        client.write(&vec![b'v'; 4 * MB]).unwrap();
        client.write(b"\r\n").unwrap();
        assert_eq!(client.read().unwrap().text().len(), 8 * MB);
        client.line("CLIENT NO-EVICT off");
        let _ = client.write(&begun(8 * MB, 4 * MB));
        wait_until("it goes", || field(&mut control, "protected", "id").is_none());
        assert_eq!(figure(&mut control, "evicted_clients"), 1);
    }
}

/// The largest go first, over all loops, and no more of them than must.
#[test]
fn the_largest_clients_go_first() {
    for server in servers(&[]) {
        let mut control = control(&server);
        let sizes = [
            (300_000, "small"),
            (MB + 4096, "medium"),
            (4 * MB + 4096, "large"),
        ];
        let mut clients = Vec::new();
        for number in 0..3 {
            for (size, name) in sizes {
                let name = format!("{name}-{number}");
                let mut client = named(&server, &name);
                client.write(&begun(size + MB / 10, size)).unwrap();
                wait_until("it has come", || {
                    field(&mut control, &name, "qbuf") >= Some(size as u64)
                });
                clients.push(client);
            }
        }
        let left = |control: &mut Client, limit: u64| {
            control.line(&format!("CONFIG SET maxmemory-clients {limit}"));
            wait_until("the limit is kept", || {
                figure(control, "mem_clients_normal") < limit
            });
            let list = control.line("CLIENT LIST").text();
            sizes.map(|(_, name)| list.matches(&format!(" name={name}-")).count())
        };
        let total = figure(&mut control, "mem_clients_normal");
        assert_eq!(left(&mut control, total + MB as u64), [3, 3, 3]);
        assert_eq!(left(&mut control, total - MB as u64), [3, 3, 2]);
        assert_eq!(left(&mut control, total - 9 * MB as u64), [3, 3, 0]);
        let rest = figure(&mut control, "mem_clients_normal");
        assert_eq!(left(&mut control, rest - 2 * MB as u64), [3, 1, 0]);
        assert_eq!(figure(&mut control, "evicted_clients"), 5);
    }
}

/// A limit that is too low for anybody to raise it is taken for one that is not.
#[test]
fn under_the_lowest_limit_clients_can_talk() {
    for server in servers(&["--maxmemory-clients", "1"]) {
        let mut client = named(&server, "small");
        assert_eq!(client.line("CONFIG GET maxmemory-clients").items()[1].text(), "1");
        let _ = client.write(&begun(2 * MB, MB));
        assert_closed(client);
        let mut control = control(&server);
        assert_eq!(control.line("CONFIG SET maxmemory-clients 0").text(), "OK");
    }
}

/// A limit in percent follows `maxmemory`.
#[test]
fn the_limit_may_be_a_part_of_maxmemory() {
    for server in servers(&["--maxmemory-clients", "10%"]) {
        let mut control = control(&server);
        let mut client = named(&server, "greedy");
        client.write(&begun(8 * MB, 4 * MB)).unwrap();
        wait_until("it has come", || {
            field(&mut control, "greedy", "qbuf") >= Some(4 * MB as u64)
        });
        control.line("CONFIG SET maxmemory 200mb");
        std::thread::sleep(Duration::from_millis(50));
        assert!(field(&mut control, "greedy", "id").is_some());
        control.line("CONFIG SET maxmemory 50mb");
        wait_until("it goes", || field(&mut control, "greedy", "id").is_none());
    }
}

/// A reply longer than the limit is not built, whichever command makes it.
#[test]
fn one_reply_over_the_limit_closes_the_client() {
    for server in servers(&[]) {
        let mut control = control(&server);
        let member = "m".repeat(1000);
        for step in 0..10 {
            let members: Vec<String> = (0..500)
                .map(|number| format!("{member}{}", step * 500 + number))
                .collect();
            let words = |head: &[&str]| -> Vec<String> {
                head.iter()
                    .map(|&word| word.to_owned())
                    .chain(members.iter().cloned())
                    .collect()
            };
            control.call(&words(&["RPUSH", "list"]));
            control.call(&words(&["SADD", "set"]));
        }
        control.call(&["HSET", "hash", &"f".repeat(500), &"v".repeat(500)]);
        control.call(&["SET", "string", &"v".repeat(4 * MB)]);
        let limits = "normal 2mb 0 0 pubsub 2mb 0 0";
        control.call(&["CONFIG", "SET", "client-output-buffer-limit", limits]);
        let before = figure(&mut control, "used_memory_peak");
        let commands = [
            "LRANGE list 0 -1",
            "SMEMBERS set",
            "SORT list ALPHA",
            "HRANDFIELD hash -40000",
            "HRANDFIELD hash -40000 WITHVALUES",
            "SRANDMEMBER set -40000",
            "GET string",
            "MGET string string string",
            "SSCAN set 0 COUNT 10000",
        ];
        let mut closed = 0;
        for line in commands {
            let mut client = named(&server, "greedy");
            client.send(&line.split(' ').collect::<Vec<_>>()).unwrap();
            assert_closed(client);
            closed += 1;
            let mut client = named(&server, "greedy");
            for words in ["MULTI", line, line, "PING", "EXEC"] {
                client.send(&words.split(' ').collect::<Vec<_>>()).unwrap();
            }
            assert_closed(client);
            closed += 1;
            wait_until("closed", || {
                figure(&mut control, "client_output_buffer_limit_disconnections") == closed
            });
        }
        let grown =
            figure(&mut control, "used_memory_peak") - before.min(figure(&mut control, "used_memory_peak"));
        assert!(
            grown < 40 * MB as u64,
            "the largest of these replies has 200 MB: {grown}"
        );
        // A reply below the limit arrives complete.
        let mut client = named(&server, "modest");
        assert_eq!(client.line("LRANGE list 0 1000").items().len(), 1001);
    }
}

#[test]
fn keys_over_the_limit_close_the_client() {
    for server in servers(&["--client-output-buffer-limit", "normal 1mb 0 0 pubsub 1mb 0 0"]) {
        let mut control = control(&server);
        for step in 0..30 {
            let mut words = vec!["MSET".to_owned()];
            for number in 0..100 {
                words.extend([format!("{:0500}", step * 100 + number), String::new()]);
            }
            control.call(&words);
        }
        for lines in [&["KEYS *"][..], &["MULTI", "KEYS *", "EXEC"]] {
            let mut client = named(&server, "greedy");
            for line in lines {
                client.send(&line.split(' ').collect::<Vec<_>>()).unwrap();
            }
            assert_closed(client);
        }
    }
}

/// A pipeline whose replies nobody reads is stopped at the hard limit, not at many times that.
#[test]
fn a_pipeline_that_is_not_read_is_stopped_at_the_limit() {
    for server in servers(&["--client-output-buffer-limit", "normal 5mb 0 0"]) {
        let mut control = control(&server);
        control.call(&["SET", "value", &"v".repeat(MB / 10)]);
        let before = figure(&mut control, "used_memory_peak");
        let mut client = named(&server, "greedy");
        let mut requests = Vec::new();
        (0..3000).for_each(|_| encode(&mut requests, &["GET", "value"]));
        let _ = client.write(&requests);
        assert_closed(client);
        assert_eq!(
            figure(&mut control, "client_output_buffer_limit_disconnections"),
            1
        );
        let grown = figure(&mut control, "used_memory_peak") - before;
        assert!(grown < 20 * MB as u64, "the pipeline asks for 300 MB: {grown}");
        assert!(
            server
                .log()
                .contains("closed for overcoming of output buffer limits")
        );
    }
}

/// The soft limit allows more for some time.
#[test]
fn the_soft_limit_gives_time() {
    for server in servers(&["--client-output-buffer-limit", "normal 0 1mb 4"]) {
        let mut control = control(&server);
        control.call(&["SET", "value", &"v".repeat(MB)]);
        let (mut slow, mut stopped) = (named(&server, "slow"), named(&server, "stopped"));
        for client in [&mut slow, &mut stopped] {
            let mut requests = Vec::new();
            (0..15).for_each(|_| encode(&mut requests, &["GET", "value"]));
            client.write(&requests).unwrap();
        }
        wait_until("output piles up", || {
            field(&mut control, "stopped", "omem") > Some(2 * MB as u64)
        });
        let begin = Instant::now();
        for _ in 0..15 {
            assert_eq!(slow.read().unwrap().text().len(), MB);
        }
        wait_until("it goes", || field(&mut control, "stopped", "id").is_none());
        assert!(
            begin.elapsed() > Duration::from_millis(3000),
            "{:?}",
            begin.elapsed()
        );
        assert_eq!(slow.line("PING").text(), "PONG");
        assert_eq!(
            figure(&mut control, "client_output_buffer_limit_disconnections"),
            1
        );
    }
}

/// Subscribers that stop reading are closed at the limit of their class, without an effect on publishers and other
/// readers.
#[test]
fn stopped_subscribers_are_closed_at_their_limit() {
    for server in servers(&["--client-output-buffer-limit", "pubsub 1mb 0 0"]) {
        let mut control = control(&server);
        let mut stopped: Vec<Client> = (0..5)
            .map(|number| named(&server, &format!("stopped-{number}")))
            .collect();
        for client in &mut stopped {
            client.line("SUBSCRIBE news");
        }
        let mut reader = named(&server, "reader");
        reader.line("SUBSCRIBE news");
        assert_eq!(figure(&mut control, "pubsub_clients"), 6);
        let message = "m".repeat(50_000);
        for _ in 0..400 {
            assert!(control.call(&["PUBLISH", "news", &message]).integer() >= Some(1));
            assert_eq!(reader.read().unwrap().items()[2].text().len(), 50_000);
        }
        wait_until("they are closed", || {
            figure(&mut control, "client_output_buffer_limit_disconnections") == 5
        });
        wait_until("they are gone", || figure(&mut control, "pubsub_clients") == 1);
        assert!(figure(&mut control, "mem_clients_normal") < 4 * MB as u64);
        stopped.into_iter().for_each(assert_closed);
    }
}

/// A query buffer has a limit; commands queued by a transaction count.
#[test]
fn too_long_queries_close_the_client() {
    for server in servers(&["--client-query-buffer-limit", "2mb"]) {
        let mut control = control(&server);
        let mut client = named(&server, "long");
        let _ = client.write(&begun(4 * MB, 4 * MB));
        assert_closed(client);
        let mut client = named(&server, "queue");
        let _ = client.send(&["MULTI"]);
        for _ in 0..5 {
            let _ = client.send(&["SET", "k", &"v".repeat(MB / 2)]);
        }
        let _ = client.write(&begun(MB, MB / 2));
        assert_closed(client);
        wait_until("both are counted", || {
            figure(&mut control, "client_query_buffer_limit_disconnections") == 2
        });
        assert!(
            server
                .log()
                .contains("Closing client that reached max query buffer length")
        );
    }
}
