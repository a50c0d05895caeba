//! INFO of an embedded server has its own figures: not its host's, and not those of another server in the process.

use redis::{Commands, Connection};
use shardis::Server;

fn connect(server: &Server) -> Connection {
    let client = redis::Client::open(server.url()).expect("the URL is one that clients take");
    client.get_connection().expect("the server accepts connections")
}

/// A figure of INFO; none where there is no such line.
fn figure(client: &mut Connection, name: &str) -> Option<f64> {
    let text: String = redis::cmd("INFO").query(client).expect("a report");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name}:")))?;
    Some(line.parse().expect("a number"))
}

fn used_memory(client: &mut Connection) -> f64 {
    figure(client, "used_memory").expect("it is always told")
}

fn cpu_seconds(client: &mut Connection) -> f64 {
    let of = |client: &mut Connection, name| figure(client, name).expect("it is always told");
    of(client, "used_cpu_user") + of(client, "used_cpu_sys")
}

#[test]
fn memory_is_that_of_the_server_alone() {
    for shards in [1, 3] {
        let start = || Server::builder().shards(shards).start().expect("it starts");
        let (filled, idle) = (start(), start());
        let (mut filler, mut idler) = (connect(&filled), connect(&idle));
        let (empty, before) = (used_memory(&mut filler), used_memory(&mut idler));
        let value = vec![b'x'; 10_000];
        for number in 0..1000 {
            let () = filler.set(format!("key:{number}"), &value).expect("it is stored");
        }
        let hosts = std::hint::black_box(vec![1_u8; 32 << 20]);
        let grown = used_memory(&mut filler) - empty;
        assert!((10e6..14e6).contains(&grown), "{grown} bytes for ten millions");
        let others = used_memory(&mut idler) - before;
        assert!(others.abs() < 500e3, "{others} bytes for nothing");
        drop(hosts);
        let peak = figure(&mut filler, "used_memory_peak").expect("it is told");
        let () = redis::cmd("FLUSHALL").query(&mut filler).expect("it is emptied");
        assert!(used_memory(&mut filler) - empty < 1e6);
        assert!(figure(&mut filler, "used_memory_peak").expect("it is told") >= peak);
        assert!(figure(&mut idler, "used_memory_peak").expect("it is told") < peak / 2.0);
    }
}

#[test]
fn what_only_the_process_has_is_not_told() {
    let server = Server::builder().start().expect("it starts");
    let mut client = connect(&server);
    for name in [
        "used_memory_rss",
        "allocator_allocated",
        "allocator_resident",
        "allocator_frag_ratio",
        "rss_overhead_bytes",
        "mem_fragmentation_ratio",
    ] {
        assert_eq!(figure(&mut client, name), None, "{name}");
    }
    let stats: Vec<redis::Value> = redis::cmd("MEMORY")
        .arg("STATS")
        .query(&mut client)
        .expect("figures");
    let text = format!("{stats:?}");
    assert!(
        text.contains("total.allocated") && !text.contains("fragmentation"),
        "{text}"
    );
}

#[test]
fn processor_time_is_that_of_its_threads() {
    let server = Server::builder().shards(2).start().expect("it starts");
    let mut client = connect(&server);
    let before = cpu_seconds(&mut client);
    for _ in 0..1000 {
        std::hint::black_box((0..100_000_u64).fold(0, |sum, number| sum ^ std::hint::black_box(number)));
    }
    let hosts = cpu_seconds(&mut client) - before;
    assert!(hosts < 0.1, "{hosts} s that the host has burnt");
    let () = redis::pipe()
        .cmd("SET")
        .arg("bits")
        .arg(vec![0x55_u8; 4 << 20])
        .ignore()
        .query(&mut client)
        .expect("it is stored");
    let (mut own, mut rounds) = (0.0, 0);
    while own < 0.1 && rounds < 1000 {
        for _ in 0..20 {
            let _: u64 = redis::cmd("BITCOUNT")
                .arg("bits")
                .query(&mut client)
                .expect("a count");
        }
        rounds += 1;
        own = cpu_seconds(&mut client) - before;
    }
    assert!(own >= 0.1, "{own} s of its own after {rounds} rounds");
}
