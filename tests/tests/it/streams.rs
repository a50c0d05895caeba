//! Streams as people use them in production: workers of a group share jobs, one dies, another takes over what it left, and
//! a job that nobody can do ends among the dead letters. Through the `redis` crate.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use redis::streams::{
    StreamAutoClaimOptions, StreamAutoClaimReply, StreamId, StreamPendingCountReply, StreamPendingReply,
    StreamRangeReply, StreamReadOptions, StreamReadReply,
};
use redis::{Commands as _, Connection, RedisResult};

use shardis_tests::client::PATIENCE;
use shardis_tests::node;
use shardis_tests::process::Process;

const JOBS: &str = "jobs";
const DEAD: &str = "dead-letters";
const GROUP: &str = "workers";

const JOBS_COUNT: usize = 300;
/// Every so many jobs there is one that nobody can do.
const POISON_EVERY: usize = 100;
/// Number of jobs that a worker takes before it dies.
const ABANDONED: usize = 25;
/// After so many deliveries a job is given up.
const DELIVERIES_MAX: usize = 3;
/// After so long without an acknowledgement, in milliseconds, a job is taken over.
const IDLE_MS: usize = 60;

fn connect(server: &Process) -> Connection {
    let url = format!("redis://127.0.0.1:{}/?protocol=resp3", server.port());
    let client = redis::Client::open(url).expect("a valid URL");
    client.get_connection().expect("a server that accepts")
}

fn is_poison(job: &StreamId) -> bool {
    job.get::<String>("kind").as_deref() == Some("poison")
}

/// Reads new jobs as a consumer.
fn take(connection: &mut Connection, name: &str, count: usize) -> RedisResult<Vec<StreamId>> {
    let options = StreamReadOptions::default()
        .group(GROUP, name)
        .count(count)
        .block(20);
    let reply: Option<StreamReadReply> = connection.xread_options(&[JOBS], &[">"], &options)?;
    let streams = reply.map(|reply| reply.keys).unwrap_or_default();
    Ok(streams.into_iter().flat_map(|stream| stream.ids).collect())
}

/// Does what can be done; returns the ids of what was done.
fn work(connection: &mut Connection, jobs: &[StreamId]) -> RedisResult<Vec<String>> {
    let mut done = Vec::new();
    for job in jobs.iter().filter(|job| !is_poison(job)) {
        let acknowledged: usize = connection.xack(JOBS, GROUP, &[&job.id])?;
        // A worker that was too slow has lost the job to another one, and its result does not count.
        if acknowledged == 1 {
            done.push(job.id.clone());
        }
    }
    Ok(done)
}

/// A worker that works until there is nothing left to do.
fn worker(server: &Process, name: &str, over: &AtomicBool) -> RedisResult<Vec<String>> {
    let mut connection = connect(server);
    let mut done = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let jobs = take(&mut connection, name, 10)?;
        done.extend(work(&mut connection, &jobs)?);
    }
    Ok(done)
}

/// Takes over jobs that others have left, and buries jobs that were delivered too often.
fn supervisor(server: &Process, over: &AtomicBool) -> RedisResult<(Vec<String>, BTreeSet<String>)> {
    let mut connection = connect(server);
    let (mut done, mut buried) = (Vec::new(), BTreeSet::new());
    while !over.load(Ordering::Relaxed) {
        let pending: StreamPendingCountReply = connection.xpending_count(JOBS, GROUP, "-", "+", 1000)?;
        for job in pending
            .ids
            .iter()
            .filter(|job| job.times_delivered >= DELIVERIES_MAX)
        {
            let entry: StreamRangeReply = connection.xrange(JOBS, &job.id, &job.id)?;
            let kind: Option<String> = entry.ids[0].get("kind");
            let _: String = connection.xadd(
                DEAD,
                "*",
                &[("id", job.id.as_str()), ("kind", &kind.unwrap_or_default())],
            )?;
            assert_eq!(connection.xack::<_, _, _, usize>(JOBS, GROUP, &[&job.id])?, 1);
            assert!(buried.insert(job.id.clone()), "{} died twice", job.id);
        }
        let mut start = "0-0".to_owned();
        loop {
            let options = StreamAutoClaimOptions::default().count(10);
            let claimed: StreamAutoClaimReply =
                connection.xautoclaim_options(JOBS, GROUP, "supervisor", IDLE_MS, &start, options)?;
            done.extend(work(&mut connection, &claimed.claimed)?);
            start = claimed.next_stream_id;
            if start == "0-0" {
                break;
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok((done, buried))
}

/// Adds the jobs; returns the ids of those that can be done and of those that cannot.
fn add_jobs(connection: &mut Connection) -> RedisResult<(BTreeSet<String>, BTreeSet<String>)> {
    let (mut good, mut poison) = (BTreeSet::new(), BTreeSet::new());
    for n in 0..JOBS_COUNT {
        let is_poison = n % POISON_EVERY == POISON_EVERY - 1;
        let kind = if is_poison { "poison" } else { "mail" };
        let id: String = connection.xadd(JOBS, "*", &[("kind", kind), ("n", &n.to_string())])?;
        let set = if is_poison { &mut poison } else { &mut good };
        assert!(set.insert(id));
    }
    Ok((good, poison))
}

fn production(shards: usize) -> RedisResult<()> {
    let server = node::start(shards);
    let mut connection = connect(&server);
    let _: () = connection.xgroup_create_mkstream(JOBS, GROUP, "$")?;
    let (good, poison) = add_jobs(&mut connection)?;
    let abandoned = take(&mut connect(&server), "doomed", ABANDONED)?;
    assert_eq!(abandoned.len(), ABANDONED);

    let over = AtomicBool::new(false);
    let (workers, (mut done, buried)) = thread::scope(|scope| {
        let (server, over) = (&server, &over);
        let workers: Vec<_> = ["one", "two", "three"]
            .map(|name| scope.spawn(move || worker(server, name, over)))
            .into();
        let supervisor = scope.spawn(move || supervisor(server, over));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let read: redis::streams::StreamInfoGroupsReply =
                connection.xinfo_groups(JOBS).expect("the groups");
            let pending: StreamPendingReply = connection.xpending(JOBS, GROUP).expect("a summary");
            if pending.count() == 0 && read.groups[0].lag == Some(0) {
                break;
            }
            assert!(Instant::now() < deadline, "{} jobs are left", pending.count());
            thread::sleep(Duration::from_millis(10));
        }
        over.store(true, Ordering::Relaxed);
        let workers: Vec<_> = workers
            .into_iter()
            .map(|worker| worker.join().expect("a worker"))
            .collect();
        (
            workers,
            supervisor.join().expect("the supervisor").expect("no error"),
        )
    });
    for worker in workers {
        done.extend(worker?);
    }

    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for id in &done {
        *times.entry(id).or_default() += 1;
    }
    let twice: Vec<_> = times.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "acknowledged more than once: {twice:?}");
    let done: BTreeSet<String> = done.into_iter().collect();
    assert_eq!(done, good, "every job that can be done was done");
    assert_eq!(buried, poison, "and no other was given up");
    let dead: StreamRangeReply = connection.xrange_all(DEAD)?;
    let dead: BTreeSet<String> = dead.ids.iter().filter_map(|entry| entry.get("id")).collect();
    assert_eq!(dead, poison);
    let len: usize = connection.xlen(JOBS)?;
    assert_eq!(len, JOBS_COUNT);
    Ok(())
}

#[test]
fn nothing_is_lost_when_a_worker_dies() {
    for shards in [1, 4] {
        production(shards).expect("no error");
    }
}
