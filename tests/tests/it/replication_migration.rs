//! Moving a live Redis to shardis and back, by the very commands of README.md: they are read from there and carried out by a shell,
//! while a client goes on writing.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::{JoinHandle, spawn};

use shardis_tests::client::Client;
use shardis_tests::process::repository_file;
use shardis_tests::replication::equality::await_equal;
use shardis_tests::replication::member::{Kind, Member};
use shardis_tests::replication::seeder::add_bystanders;
use shardis_tests::wait::wait_until;

/// Headings of the two sections, as README.md has them.
const THERE: &str = "### There";
const BACK: &str = "### And back";

/// Ports that README.md names for the old server and for the new one.
const OLD: &str = "6379";
const NEW: &str = "7777";

/// Keys of the old server.
const KEYS: usize = 3000;

/// The commands of a section: the lines of its blocks of shell.
fn commands(heading: &str) -> String {
    let readme = repository_file("README.md").expect("a README.md");
    let (_, section) = readme
        .split_once(&format!("{heading}\n"))
        .unwrap_or_else(|| panic!("no section {heading}"));
    let section = section.split("\n#").next().unwrap_or_default();
    let blocks = section.split("```sh\n").skip(1);
    let lines: Vec<&str> = blocks.filter_map(|block| block.split("```").next()).collect();
    assert!(!lines.is_empty(), "no commands in {heading}");
    lines.concat()
}

/// Carries the commands of a section out, on the ports of these servers.
fn carry_out(heading: &str, old: &Member, new: &Member) {
    let script = commands(heading)
        .replace(OLD, &old.port().to_string())
        .replace(NEW, &new.port().to_string());
    let output = Command::new("timeout")
        .args(["60", "sh", "-exc", &script])
        .stdin(Stdio::null())
        .output()
        .expect("a shell");
    assert!(
        output.status.success(),
        "{heading}: {}{}\n{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        old.tail(),
        new.tail()
    );
}

/// A client that counts without a pause, on the one of two servers that takes its writes.
struct Counter {
    is_over: Arc<AtomicBool>,
    acknowledged: Arc<AtomicI64>,
    counting: JoinHandle<()>,
}

impl Counter {
    fn start(servers: [&Member; 2]) -> Counter {
        let is_over = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicI64::new(0));
        let addresses = servers.map(Member::address);
        let (over, last) = (Arc::clone(&is_over), Arc::clone(&acknowledged));
        let counting = spawn(move || {
            let mut clients = addresses.map(|address| Client::connect(address).expect("a connection"));
            let mut current = 0;
            while !over.load(Ordering::Relaxed) {
                match clients[current].line("INCR steps").integer() {
                    // A step that is lost would be counted twice.
                    Some(step) => assert_eq!(step, last.fetch_add(1, Ordering::Relaxed) + 1),
                    None => current = 1 - current,
                }
            }
        });
        Counter {
            is_over,
            acknowledged,
            counting,
        }
    }

    /// Waits until it has gone on for a while.
    fn await_more(&self) {
        let wanted = self.acknowledged.load(Ordering::Relaxed) + 50;
        wait_until("the client counts", || {
            self.acknowledged.load(Ordering::Relaxed) >= wanted
        });
    }

    /// Ends it; returns its last step.
    fn stop(self) -> i64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.counting.join().expect("no step was lost");
        self.acknowledged.load(Ordering::Relaxed)
    }
}

#[test]
fn the_steps_of_the_readme_move_a_live_server_there_and_back() {
    let old = Member::start(Kind::Redis, &[]);
    let new = Member::start(Kind::Shardis(4), &[]);
    add_bystanders(&old, KEYS, 100);
    let counter = Counter::start([&old, &new]);
    let bystanders = format!("db9:keys={KEYS}");
    let keys = |server: &Member| server.client().line("INFO keyspace").text();
    counter.await_more();

    carry_out(THERE, &old, &new);
    new.await_field("role", "master");
    old.await_field("role", "slave");
    assert!(keys(&new).contains(&bystanders), "{}", keys(&new));
    counter.await_more();

    carry_out(BACK, &old, &new);
    old.await_field("role", "master");
    new.await_field("role", "slave");
    assert!(keys(&old).contains(&bystanders), "{}", keys(&old));
    counter.await_more();
    let steps = counter.stop();
    assert_eq!(old.client().line("GET steps").text(), steps.to_string());
    new.await_link();
    await_equal(&[&old, &new]);
    assert_eq!(
        (old.syncs().full, new.syncs().full),
        (1, 0),
        "the way back costs no full sync"
    );
}
