//! File descriptors: as many as clients need, and what happens where the system does not give them.

use std::process::Command;
use std::time::Duration;

use shardis_tests::client::Client;
use shardis_tests::process::{Launch, Process};
use shardis_tests::procfs::cpu;
use shardis_tests::wait::wait_until;
use shardis_tests::{node, redis};

/// A server that is started with such limits of open files (`soft:hard`), and options.
fn start(limits: &str, options: &[&str]) -> Process {
    let program = node::binary().display().to_string();
    let limit = format!("--nofile={limits}");
    let own: &[&str] = if node::is_redis() { &[] } else { &["--shards", "1"] };
    Launch::new(&redis::tool("prlimit"))
        .with(&[limit.as_str(), &program, "--save", ""])
        .with(own)
        .with(options)
        .serve()
}

fn maxclients(client: &mut Client) -> u64 {
    let reply = client.line("CONFIG GET maxclients");
    reply.items()[1].text().parse().expect("a number")
}

/// The limits of open files of a process.
fn limits(server: &Process) -> [u64; 2] {
    let text = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).expect("a process");
    let line = text
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .expect("a line");
    let mut numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
    [(); 2].map(|()| numbers.next().expect("a limit"))
}

#[test]
fn the_soft_limit_is_raised_to_what_clients_need() {
    let server = start("100:4000", &["--maxclients", "2000"]);
    assert_eq!(maxclients(&mut server.connect()), 2000);
    let [soft, hard] = limits(&server);
    assert!((2032..2200).contains(&soft) && hard == 4000, "{soft} {hard}");
    assert!(server.log().contains("Increased maximum number of open files to"));
    // So does a change later on.
    assert_eq!(server.connect().line("CONFIG SET maxclients 3000").text(), "OK");
    assert!(limits(&server)[0] >= 3032);
}

#[test]
fn maxclients_is_lowered_to_what_the_limit_allows() {
    let server = start("200:200", &[]);
    let mut client = server.connect();
    let allowed = maxclients(&mut client);
    if limits(&server)[1] > 200 {
        // The process may raise its limits beyond what it was given.
        return assert_eq!(allowed, 10_000);
    }
    assert!((100..200).contains(&allowed), "{allowed}");
    assert!(
        server
            .log()
            .contains(&format!("maxclients has been reduced to {allowed}"))
    );
    let refused = client.line("CONFIG SET maxclients 100000").text();
    let why = "The operating system is not able to handle the specified number of clients, try with";
    assert!(refused.contains(&format!("{why} {allowed}")), "{refused}");
    assert_eq!(maxclients(&mut client), allowed);
    // All of them can really connect; the next one is refused, and counted.
    let mut clients: Vec<Client> = (1..allowed).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.line("PING").text(), "PONG");
    }
    let mut refused = server.connect();
    assert_eq!(
        refused.read().expect("a last word").text(),
        "ERR max number of clients reached"
    );
    assert!(refused.read().is_err());
    let info = client.line("INFO stats").text();
    assert!(info.contains("rejected_connections:1\r\n"), "{info}");
    clients.pop();
    wait_until("the place of a client that left is free", || {
        server.connect().try_call(&["PING"]).is_ok()
    });
}

/// The kernel's table of open files has room for all clients from the start: where it grows while they come, loops wait for
/// the kernel.
#[test]
fn the_table_of_open_files_need_not_grow() {
    let server = start("100:4000", &["--maxclients", "2000"]);
    assert!(table_size(&server) >= 2032, "{}", table_size(&server));
    assert_eq!(server.connect().line("CONFIG SET maxclients 3000").text(), "OK");
    assert!(table_size(&server) >= 3032, "{}", table_size(&server));
}

fn table_size(server: &Process) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("a process");
    let size = text.lines().find_map(|line| line.strip_prefix("FDSize:"));
    size.and_then(|size| size.trim().parse().ok()).expect("a line")
}

/// Without descriptors clients wait: the server does not burn its processor, and lets them in when there are some again.
#[test]
fn clients_wait_for_descriptors() {
    for backend in ["epoll", "io_uring"] {
        let server = node::launch(2).with(&["--io-backend", backend]).serve();
        let mut client = server.connect();
        assert_eq!(client.line("PING").text(), "PONG");
        let limit = |limits: &str| {
            let pid = server.pid().to_string();
            let status = Command::new(redis::tool("prlimit"))
                .args(["--pid", &pid, &format!("--nofile={limits}")])
                .status();
            assert!(status.expect("prlimit").success());
        };
        let [_, hard] = limits(&server);
        limit(&format!("5:{hard}"));
        let mut waiting: Vec<Client> = (0..20).map(|_| server.connect()).collect();
        let before = cpu(server.pid()).expect("a running process");
        std::thread::sleep(Duration::from_millis(800));
        let used = cpu(server.pid()).expect("a running process") - before;
        assert!(
            used < Duration::from_millis(400),
            "{used:?} of processor time in 800 ms"
        );
        assert_eq!(client.line("PING").text(), "PONG");
        limit(&format!("{hard}:{hard}"));
        for client in &mut waiting {
            assert_eq!(client.line("PING").text(), "PONG");
        }
    }
}
