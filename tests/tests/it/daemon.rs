//! The process around the node: its title, its supervisor, its signals, its log, its way to the background and its crash.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

use shardis_tests::client::{Client, PATIENCE};
use shardis_tests::node;
use shardis_tests::process::{Launch, Process, free_port};
use shardis_tests::wait::wait_until;

/// The command line of a process, as `ps` shows it.
fn title(server: &Process) -> String {
    let text = fs::read_to_string(format!("/proc/{}/cmdline", server.pid())).expect("a running process");
    text.replace('\0', " ").trim_end().to_owned()
}

/// A reply as text.
fn ask(server: &Process, words: &[&str]) -> String {
    server.connect().call(words).text()
}

#[test]
fn the_title_says_what_it_is_and_no_password() {
    let server = node::launch(1).with(&["--masterauth", "a-secret-of-two"]).serve();
    let (program, port) = (node::binary().display(), server.port());
    assert_eq!(title(&server), format!("{program} 127.0.0.1:{port}"));
    let template = format!("cache on {{port}} {} {{server-mode}}", "long ".repeat(20));
    assert_eq!(
        ask(&server, &["CONFIG", "SET", "proc-title-template", &template]),
        "OK"
    );
    assert_eq!(
        title(&server),
        format!("cache on {port} {}", "long ".repeat(20)).trim_end()
    );
    // The environment, whose place the title may take, is still there for the process.
    assert_eq!(
        ask(&server, &["CONFIG", "SET", "proc-title-template", "just {title}"]),
        "OK"
    );
    assert_eq!(title(&server), format!("just {program}"));
    for bad in ["{nonsense}", "{title}", "{", ""] {
        let refused = ask(&server, &["CONFIG", "SET", "proc-title-template", bad]);
        assert!(refused.contains("template format is invalid"), "{bad}: {refused}");
    }
}

#[test]
fn arguments_stay_when_no_title_is_wanted() {
    let server = node::launch(1).with(&["--set-proc-title", "no"]).serve();
    assert!(
        title(&server).contains("--set-proc-title no"),
        "{}",
        title(&server)
    );
}

/// A service manager's end of `NOTIFY_SOCKET`.
struct Manager {
    socket: UnixDatagram,
    path: String,
    _directory: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("notify").display().to_string();
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self {
            socket,
            path,
            _directory: directory,
        }
    }

    /// Waits for a message with this line, passing by others; returns its lines.
    fn expect(&self, line: &str) -> Vec<String> {
        loop {
            let mut buffer = [0; 4096];
            let length = self.socket.recv(&mut buffer).expect("a message with that line");
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            if lines.iter().any(|found| found == line) {
                return lines;
            }
        }
    }
}

#[test]
fn systemd_is_told_how_it_is() {
    for (option, pid_stays) in [("systemd", "yes"), ("auto", "no")] {
        let manager = Manager::new();
        let mut server = node::launch(2)
            .variable("NOTIFY_SOCKET", &manager.path)
            // A supervised process does not go to the background.
            .with(&["--supervised", option, "--daemonize", pid_stays])
            .serve();
        manager.expect("READY=1");
        if !node::is_redis() {
            let port = free_port().to_string();
            assert_eq!(ask(&server, &["CONFIG", "SET", "port", &port]), "OK");
            let reloading = manager.expect("RELOADING=1");
            assert!(
                reloading.iter().any(|line| line.starts_with("MONOTONIC_USEC=")),
                "{reloading:?}"
            );
            manager.expect("READY=1");
        }
        server.signal(libc::SIGTERM);
        manager.expect("STOPPING=1");
        assert!(server.wait(PATIENCE).is_some_and(|status| status.success()));
        assert!(server.log().contains("supervised by systemd"), "{}", server.log());
    }
}

#[test]
fn upstart_sees_it_stop_until_it_goes_on() {
    let options = ["--supervised", "upstart", "--port", "0", "--unixsocket", "socket"];
    let process = node::launch(1)
        .variable("UPSTART_JOB", "cache")
        .with(&options)
        .spawn(0);
    wait_until("it stops", || process.is_stopped());
    process.signal(libc::SIGCONT);
    assert_eq!(process.wait_until_ready(), Ok(()), "{}", process.log());
}

#[test]
fn a_manager_that_is_not_there_is_a_warning() {
    for (option, text) in [
        ("systemd", "NOTIFY_SOCKET not found"),
        ("upstart", "UPSTART_JOB not found"),
    ] {
        let server = node::launch(1).with(&["--supervised", option]).serve();
        assert!(server.log().contains(text), "{}", server.log());
    }
}

#[test]
fn who_insists_ends_it_at_once() {
    // The first signal ends the sleep of a Redis, and with it the process.
    if node::is_redis() {
        return;
    }
    let mut server = node::launch(2).with(&["--enable-debug-command", "yes"]).serve();
    let mut client = server.connect();
    client
        .send(&["DEBUG", "SLEEP", "30"])
        .expect("a server that reads");
    wait_until("the server sleeps", || {
        let mut other = server.connect();
        other.send(&["PING"]).is_ok() && other.read_within(Duration::from_secs(1)).is_err()
    });
    server.signal(libc::SIGINT);
    wait_until("it knows", || {
        server.log().contains("Received SIGINT scheduling shutdown")
    });
    server.signal(libc::SIGINT);
    let status = server.wait(Duration::from_secs(10)).expect("it ends at once");
    assert_eq!(status.code(), Some(1), "{}", server.log());
    assert!(
        server.log().contains("You insist... exiting now."),
        "{}",
        server.log()
    );
}

#[test]
fn a_signal_ends_it_as_the_configuration_says() {
    let mut server = node::launch(1)
        .with(&[
            "--shutdown-on-sigterm",
            "save",
            "--shutdown-on-sigint",
            "save",
            "force",
        ])
        .serve();
    // No file can have the name of a directory.
    fs::create_dir(server.directory().join("dump.rdb")).expect("a directory");
    server.signal(libc::SIGHUP);
    server.signal(libc::SIGTERM);
    wait_until("it refuses", || {
        server.log().contains("Errors trying to shut down the server")
    });
    assert!(server.log().contains("can't exit"), "{}", server.log());
    assert_eq!(ask(&server, &["PING"]), "PONG");
    server.signal(libc::SIGINT);
    let status = server.wait(PATIENCE).expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", server.log());
}

#[test]
fn a_crash_leaves_a_report() {
    for signal in [
        libc::SIGSEGV,
        libc::SIGABRT,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGILL,
    ] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let log = directory.path().join("log").display().to_string();
        let options = ["--logfile", &log, "--port", "0", "--unixsocket", "socket"];
        let mut process = node::launch(2).with(&options).spawn(0);
        let read = || fs::read_to_string(&log).unwrap_or_default();
        wait_until("it serves", || read().contains("Ready to accept connections"));
        let socket = process.directory().join("socket");
        let mut client = Client::connect_unix(&socket).expect("it accepts connections");
        client.line("SET a 1");
        client.line("SET b 1");
        process.signal(signal);
        let status = process.wait(PATIENCE).expect("it ends");
        assert_eq!(status.signal(), Some(signal), "{}", read());
        let report = read();
        for part in [
            "BUG REPORT START",
            &format!("crashed by signal: {signal}"),
            "STACK TRACE",
            "INFO OUTPUT",
            "connected_clients:1",
            "cmdstat_set:calls=2,",
            "BUG REPORT END",
        ] {
            assert!(report.contains(part), "{part:?} is missing in {report}");
        }
        assert!(node::is_redis() || report.contains("daemon/crash.rs"), "{report}");
    }
}

#[test]
fn no_report_where_none_is_wanted() {
    let mut server = node::start(1);
    assert_eq!(ask(&server, &["CONFIG", "SET", "crash-log-enabled", "no"]), "OK");
    server.signal(libc::SIGSEGV);
    let status = server.wait(PATIENCE).expect("it ends");
    assert_eq!(status.signal(), Some(libc::SIGSEGV));
    assert!(!server.log().contains("STACK TRACE"), "{}", server.log());
}

#[test]
fn the_kernel_is_told_what_to_kill_first() {
    let server = node::start(1);
    let score = || {
        let text = fs::read_to_string(format!("/proc/{}/oom_score_adj", server.pid())).expect("a score");
        text.trim().parse::<i32>().expect("a number")
    };
    let base = score();
    let set = |name: &str, value: &str| ask(&server, &["CONFIG", "SET", name, value]);
    assert_eq!(set("oom-score-adj-values", "10 20 30"), "OK");
    assert_eq!(score(), base);
    assert_eq!(set("oom-score-adj", "relative"), "OK");
    assert_eq!(score(), base + 10);
    assert_eq!(set("oom-score-adj-values", "15 20 30"), "OK");
    assert_eq!(score(), base + 15);
    assert_eq!(set("oom-score-adj", "absolute"), "OK");
    assert_eq!(score(), 15);
    assert_eq!(set("oom-score-adj", "no"), "OK");
    assert_eq!(score(), base);
}

#[test]
fn a_log_that_cannot_be_written_stops_the_start() {
    let finished = node::launch(1)
        .with(&["--logfile", "/nonexistent/log"])
        .finish(PATIENCE);
    assert_eq!(finished.code, Some(1), "{}", finished.text());
    assert!(
        finished.errors.contains("FATAL CONFIG FILE ERROR")
            && finished.errors.contains("Can't open the log file"),
        "{}",
        finished.errors
    );
}

#[test]
fn a_start_that_fails_in_the_background_says_why_in_the_log() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let log = directory.path().join("log");
    let finished = node::launch(1)
        .with(&["--port", &port, "--bind", "127.0.0.1", "--daemonize", "yes"])
        .with(&["--logfile", &log.display().to_string()])
        .finish(PATIENCE);
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    let said = format!("Failed listening on port {port} (tcp), aborting.");
    wait_until("the log has the reason", || {
        // Redis 7.0 writes the protocol in capitals.
        let text = fs::read_to_string(&log)
            .unwrap_or_default()
            .replace("(TCP)", "(tcp)");
        text.contains(&said)
    });
}

#[test]
fn the_background_takes_its_configuration_from_standard_input_and_has_a_session_of_its_own() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str| directory.path().join(name).display().to_string();
    let text = format!(
        "port 0\nsave \"\"\ndaemonize yes\npidfile {}\nlogfile {}\nunixsocket {}\n",
        file("pid"),
        file("log"),
        file("socket")
    );
    let finished = Launch::new(node::binary())
        .with(&["-"])
        .input(&text)
        .finish(PATIENCE);
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    let log = || fs::read_to_string(file("log")).unwrap_or_default();
    wait_until("it serves", || log().contains("Ready to accept connections"));
    wait_until("the pid file is there", || {
        fs::read_to_string(file("pid")).is_ok_and(|text| text.ends_with('\n'))
    });
    let pid: u32 = fs::read_to_string(file("pid"))
        .expect("a pid")
        .trim()
        .parse()
        .expect("a number");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running process");
    // Behind the program's name: state, parent, group, session.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    assert_eq!(fields[3], pid.to_string(), "{stat}");
    for descriptor in 0..3 {
        let place = fs::read_link(format!("/proc/{pid}/fd/{descriptor}")).expect("a descriptor");
        assert_eq!(place, Path::new("/dev/null"));
    }
    let ended = std::process::Command::new("kill")
        .arg(pid.to_string())
        .status()
        .expect("kill");
    assert!(ended.success());
    wait_until("it leaves nothing behind", || {
        !fs::exists(file("pid")).unwrap_or(true) && !fs::exists(file("socket")).unwrap_or(true)
    });
    wait_until("it says so", || log().contains("ready to exit, bye bye"));
    for line in ["Removing the pid file.", "Removing the unix socket file."] {
        assert!(log().contains(line), "{line}: {}", log());
    }
}

#[test]
fn the_log_can_be_rotated_under_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let options = ["--logfile", &path("log"), "--port", "0", "--unixsocket", "socket"];
    let mut server = node::launch(1).with(&options).spawn(0);
    let read = |name: &str| fs::read_to_string(path(name)).unwrap_or_default();
    wait_until("it serves", || {
        read("log").contains("Ready to accept connections")
    });
    fs::rename(path("log"), path("log.1")).expect("a log");
    server.signal(libc::SIGTERM);
    assert!(server.wait(PATIENCE).is_some_and(|status| status.success()));
    assert!(read("log").contains("bye bye") && !read("log.1").contains("bye bye"));
}

#[test]
fn it_looks_at_the_system_when_asked() {
    let finished = Launch::new(node::binary())
        .with(&["--check-system"])
        .finish(PATIENCE);
    assert!(finished.code.is_some_and(|code| code <= 1), "{}", finished.text());
    assert!(
        finished.output.contains("[overcommit]...") && finished.output.contains("[THP]..."),
        "{}",
        finished.output
    );
}
