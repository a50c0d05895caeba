//! Client libraries in cluster mode, while slots move under them: the `redis` crate, redis-py, ioredis and node-redis.
//!
//! The scripts are in `python/cluster.py` and `node/cluster.js`; `scripts/redis-py` and `scripts/node-clients` install the libraries,
//! at the versions written there. Without them these tests fail.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use redis::cluster::{ClusterClient, ClusterConnection, cluster_pipe};
use redis::cluster_read_routing::RandomReplicaStrategy;
use redis::{Commands as _, RedisResult};

use shardis_tests::cluster::{Cluster, Plan};
use shardis_tests::process::{Launch, Process, repository_root};
use shardis_tests::redis as tools;
use shardis_tests::replication::member::Kind;
use shardis_tests::wait::{retry, wait_until};

use super::redis_py::library;

/// Longest time for a step of a client.
const PATIENCE: Duration = Duration::from_secs(60);

/// Slots that are moved under a client.
const SLOTS_MOVED: &str = "60";

/// Counters of the client below.
const COUNTERS: usize = 200;

/// Three primaries with a replica each.
fn cluster() -> Cluster {
    let kinds = [1, 2, 4, 1, 2, 4].map(Kind::Shardis);
    Plan::of(&kinds).replicas(1).create()
}

/// Moves slots between primaries, each of which gives some and gets some.
fn reshard(cluster: &Cluster) {
    let ids: Vec<String> = cluster
        .primaries(0)
        .into_iter()
        .map(|index| cluster.id(index))
        .collect();
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        let at = cluster.address(0);
        cluster.cli([
            "reshard",
            &at,
            "--cluster-from",
            &ids[from],
            "--cluster-to",
            &ids[to],
            "--cluster-slots",
            SLOTS_MOVED,
            "--cluster-yes",
        ]);
        // redis-cli moves nothing while nodes do not agree.
        cluster.await_whole();
    }
}

/// A script of a client.
struct Script {
    process: Process,
}

impl Script {
    /// Starts it against all nodes, and waits until it has checked typical uses.
    fn start(launch: Launch, cluster: &Cluster) -> Script {
        let ports: Vec<String> = (0..cluster.len())
            .map(|index| cluster.member(index).port().to_string())
            .collect();
        let script = Script {
            process: launch.with(&ports).spawn(0),
        };
        script.await_line("it is ready", |line| line == "ready");
        script
    }

    /// Waits for a line of its output.
    fn await_line(&self, what: &str, is_it: impl Fn(&str) -> bool) {
        let attempt = || match self.process.log().lines().any(&is_it) {
            true => Ok(()),
            false if self.process.is_running() => Err("it goes on".to_owned()),
            false => panic!("the script ended before {what}: {}", self.report()),
        };
        retry(PATIENCE, attempt).unwrap_or_else(|reason| panic!("{what}: {reason}: {}", self.report()));
    }

    /// Steps that it has made.
    fn steps(&self) -> u64 {
        let log = self.process.log();
        let mut lines = log.lines().rev();
        let last = lines.find_map(|line| line.strip_prefix("step ")?.parse().ok());
        last.unwrap_or(0)
    }

    /// Waits until it has made more steps.
    fn await_more(&self) {
        let wanted = self.steps() + 20;
        self.await_line("more steps", |line| {
            line.strip_prefix("step ")
                .and_then(|step| step.parse().ok())
                .is_some_and(|step: u64| step >= wanted)
        });
    }

    /// Ends it; it must be content.
    fn end(mut self) {
        self.process.signal(libc::SIGTERM);
        let status = self.process.wait(PATIENCE);
        let is_content = status.is_some_and(|status| status.success()) && self.process.log().contains("well");
        assert!(is_content, "{status:?}: {}", self.report());
    }

    fn report(&self) -> String {
        let errors = std::fs::read_to_string(self.process.directory().join("stdout.err")).unwrap_or_default();
        let log = self.process.log();
        let lines: Vec<&str> = log.lines().filter(|line| !line.starts_with("step ")).collect();
        format!("{}\n{errors}", lines.join("\n"))
    }
}

/// Has slots move while a script counts.
fn drive(launch: Launch) {
    let cluster = cluster();
    let script = Script::start(launch, &cluster);
    script.await_more();
    reshard(&cluster);
    script.await_more();
    script.end();
}

#[test]
fn redis_py_goes_on_while_slots_move() {
    let path = repository_root().join("tests/python/cluster.py");
    let launch = Launch::new(&tools::tool("python3"))
        .with(&[path.display().to_string()])
        .variable("PYTHONPATH", &library().display().to_string())
        .variable("PYTHONDONTWRITEBYTECODE", "1")
        .variable("PYTHONUNBUFFERED", "1");
    drive(launch);
}

/// The folder of the libraries of Node.js.
pub(super) fn node_modules() -> String {
    let script = Command::new(repository_root().join("scripts/node-clients"))
        .stderr(Stdio::inherit())
        .output()
        .expect("scripts/node-clients can be run");
    assert!(
        script.status.success(),
        "scripts/node-clients could not install the libraries"
    );
    String::from_utf8_lossy(&script.stdout).trim().to_owned()
}

/// The script of Node.js, with a library.
fn node(library: &str) -> Launch {
    let path = repository_root().join("tests/node/cluster.js");
    Launch::new(&tools::tool("node"))
        .with(&[path.display().to_string(), library.to_owned()])
        .variable("NODE_PATH", &node_modules())
}

#[test]
fn ioredis_goes_on_while_slots_move() {
    drive(node("ioredis"));
}

#[test]
fn node_redis_goes_on_while_slots_move() {
    drive(node("node-redis"));
}

/// A connection of the `redis` crate to all nodes.
fn connect(cluster: &Cluster, reads_replicas: bool) -> ClusterConnection {
    let nodes = (0..cluster.len()).map(|index| format!("redis://{}/", cluster.address(index)));
    let mut builder = ClusterClient::builder(nodes);
    if reads_replicas {
        builder = builder.read_routing_strategy(RandomReplicaStrategy);
    }
    let client = builder.build().expect("valid URLs");
    client.get_connection().expect("a cluster that answers")
}

/// Typical uses of the `redis` crate.
fn use_it(cluster: &Cluster) -> RedisResult<()> {
    let mut connection = connect(cluster, false);
    let mut pipe = cluster_pipe();
    for number in 0..COUNTERS {
        pipe.set(format!("key:{number}"), number).ignore();
    }
    let () = pipe.query(&mut connection)?;
    let mut pipe = cluster_pipe();
    for number in 0..COUNTERS {
        pipe.get(format!("key:{number}"));
    }
    let values: Vec<usize> = pipe.query(&mut connection)?;
    assert_eq!(values, (0..COUNTERS).collect::<Vec<_>>());
    let () = connection.mset(&[("{tag}:a", 1), ("{tag}:b", 2)])?;
    assert_eq!(connection.mget::<_, Vec<i64>>(&["{tag}:a", "{tag}:b"])?, [1, 2]);
    let mut reader = connect(cluster, true);
    wait_until("replicas have what was written", || {
        (0..COUNTERS).all(|number| reader.get(format!("key:{number}")).ok() == Some(number))
    });
    Ok(())
}

/// Counts until slots have moved; nothing may be lost or doubled.
fn count(cluster: &Cluster, is_over: impl Fn() -> bool) -> RedisResult<u64> {
    let mut connection = connect(cluster, false);
    let mut counts = vec![0_u64; COUNTERS];
    let mut steps = 0;
    while !is_over() || steps < 50 {
        let numbers: Vec<usize> = (0..20).map(|offset| (steps * 20 + offset) % COUNTERS).collect();
        // A pipeline of this library follows no redirects.
        for &number in &numbers {
            counts[number] += 1;
            let reply: u64 = connection.incr(format!("count:{number}"), 1)?;
            assert_eq!(reply, counts[number], "count:{number}");
        }
        steps += 1;
    }
    for (number, count) in counts.iter().enumerate() {
        let found: Option<u64> = connection.get(format!("count:{number}"))?;
        assert_eq!(found.unwrap_or(0), *count, "count:{number}");
    }
    Ok(counts.iter().sum())
}

#[test]
fn the_redis_crate_goes_on_while_slots_move() {
    let cluster = cluster();
    use_it(&cluster).expect("no error");
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let is_over = &is_over;
    let start = Instant::now();
    std::thread::scope(|scope| {
        let cluster = &cluster;
        let counting =
            scope.spawn(move || count(cluster, || is_over.load(std::sync::atomic::Ordering::Relaxed)));
        reshard(cluster);
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        let counted = counting
            .join()
            .expect("a client that ends well")
            .expect("no error");
        assert!(counted > 0, "nothing was counted in {:?}", start.elapsed());
    });
    use_it(&cluster).expect("no error after the slots have moved");
}
