//! The report of a crash: what the loop that crashed was running, and for whom.

use std::process::Command;
use std::time::Duration;

use shardis_tests::node;
use shardis_tests::process::Process;

/// Longest time that a crash may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn start(shards: usize, options: &[&str]) -> Process {
    node::launch(shards)
        .with(&["--enable-debug-command", "yes"])
        .with(options)
        .serve()
}

/// The part of a report between a heading and the next one.
fn section<'r>(report: &'r str, heading: &str) -> &'r str {
    let (_, behind) = report
        .split_once(&format!("------ {heading} ------\n"))
        .unwrap_or_else(|| panic!("no {heading} in {report}"));
    behind.split("\n---").next().unwrap_or(behind)
}

#[test]
fn it_tells_of_the_command_and_the_clients() {
    for shards in [1, 3] {
        let mut server = start(shards, &[]);
        let mut client = server.connect();
        let id = client.line("CLIENT ID").integer().expect("a number");
        client.line("CLIENT SETNAME unlucky");
        client.send(&["DEBUG", "SEGFAULT"]).expect("a connection");
        server.wait(PATIENCE).expect("an end");
        let report = server.log();
        let current = section(&report, "CURRENT CLIENT INFO");
        assert_eq!(
            current.trim_end(),
            format!("client id={id} cmd=debug\nargc: 2\nargv[0]: DEBUG\nargv[1]: SEGFAULT")
        );
        let clients = section(&report, "CLIENT LIST OUTPUT");
        assert!(clients.contains(&format!("id={id} ")), "{report}");
        assert!(clients.contains(" name=unlucky "), "{report}");
        assert!(report.contains("BUG REPORT END"), "{report}");
    }
}

/// The report of a server that a signal ended while it worked through requests that take long.
fn report_of_a_batch() -> String {
    let mut server = start(1, &[]);
    let mut client = server.connect();
    client.call(&["SET", "a", &"ab".repeat(4000)]);
    client.call(&["SET", "b", &"bca".repeat(2500)]);
    // One would be over before the signal comes.
    for _ in 0..3000 {
        client.send(&["LCS", "a", "b", "LEN"]).expect("a connection");
    }
    let thread = loop_thread(&server);
    while !runs(&server, thread) {
        std::thread::sleep(Duration::from_millis(1));
    }
    // Sent to the thread itself: another one cannot tell of this one's commands.
    let call = format!(
        "import ctypes; raise SystemExit(ctypes.CDLL(None).syscall({}, {}, {thread}, {}))",
        libc::SYS_tgkill,
        server.pid(),
        libc::SIGSEGV
    );
    // By another program: no unsafe code for the sake of a test.
    let sent = Command::new("python3").args(["-c", &call]).status();
    assert!(sent.expect("python3").success());
    server.wait(PATIENCE).expect("an end");
    server.log()
}

#[test]
fn it_tells_of_a_batch() {
    // The signal may come while the loop reads, or writes: then it has no command to tell of.
    let report = (0..10)
        .map(|_| report_of_a_batch())
        .find(|report| report.contains("CURRENT CLIENT INFO"))
        .expect("one of ten signals comes while a command runs");
    let current = section(&report, "CURRENT CLIENT INFO");
    let lines = [
        "cmd=lcs",
        "argc: 4",
        "argv[0]: LCS",
        "argv[1]: a",
        "argv[2]: b",
        "argv[3]: LEN",
    ];
    for line in lines {
        assert!(current.contains(line), "{report}");
    }
}

#[test]
fn it_keeps_what_is_to_be_hidden() {
    let mut server = start(1, &["--hide-user-data-from-log", "yes"]);
    let mut client = server.connect();
    client.send(&["DEBUG", "SEGFAULT"]).expect("a connection");
    server.wait(PATIENCE).expect("an end");
    let report = server.log();
    let current = section(&report, "CURRENT CLIENT INFO");
    assert!(current.contains("cmd=debug\nargc: 2"), "{report}");
    assert!(!current.contains("argv"), "{report}");
}

/// The thread of the only loop of a server.
fn loop_thread(server: &Process) -> i32 {
    let threads = std::fs::read_dir(format!("/proc/{}/task", server.pid())).expect("a directory");
    threads
        .filter_map(|thread| thread.ok())
        .find(|thread| {
            std::fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name.trim() == "shard-0")
        })
        .and_then(|thread| thread.file_name().to_str()?.parse().ok())
        .expect("a loop")
}

/// Whether a thread is running or ready to.
fn runs(server: &Process, thread: i32) -> bool {
    let path = format!("/proc/{}/task/{thread}/stat", server.pid());
    std::fs::read_to_string(path)
        .is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('R')))
}
