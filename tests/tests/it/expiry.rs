//! Active expiry, seen from outside: expired keys are removed at the rate at which they expire, no command waits for
//! it, and an idle server sleeps until the next one.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use shardis_tests::client::{Client, encode};
use shardis_tests::info::{field, figure};
use shardis_tests::node;
use shardis_tests::process::Process;
use shardis_tests::redis;
use shardis_tests::wait::wait_until;

/// Sends SETs of so many keys with a time to live, in one piece, and takes in the replies.
fn set_many(client: &mut Client, numbers: std::ops::Range<u64>, ttl_ms: u64) {
    let mut requests = Vec::new();
    let count = numbers.end - numbers.start;
    for number in numbers {
        let (key, ttl) = (format!("key:{number}"), ttl_ms.to_string());
        encode(&mut requests, &["SET", &key, "some value", "PX", &ttl]);
    }
    client.write(&requests).expect("the server reads");
    for _ in 0..count {
        client.read().expect("a reply for each");
    }
}

fn keys(client: &mut Client) -> u64 {
    let size = client.line("DBSIZE").integer().expect("DBSIZE is a number");
    u64::try_from(size).expect("and not negative")
}

#[test]
fn many_keys_of_one_second_go_when_it_is_over() {
    for shards in [1, 4] {
        let servers = [node::start(shards), redis::start()];
        let mut clients = servers.each_ref().map(|server| server.connect());
        for batch in 0..15 {
            for client in &mut clients {
                set_many(client, batch * 10_000..(batch + 1) * 10_000, 1000);
            }
        }
        sleep(Duration::from_secs(1));
        let begin = Instant::now();
        let mut took = [None; 2];
        wait_until("expired keys are gone", || {
            for (client, took) in clients.iter_mut().zip(&mut took) {
                if took.is_none() && keys(client) == 0 {
                    *took = Some(begin.elapsed());
                }
            }
            took[0].is_some() && took[1].is_some()
        });
        let [ours, theirs] = took.map(Option::unwrap_or_default);
        // A cycle that looks at a few keys at a time needs ten times as long.
        assert!(
            ours < 3 * theirs + Duration::from_secs(1),
            "{ours:?}, redis-server {theirs:?}"
        );
        let [client, _] = &mut clients;
        assert_eq!(field(client, "expired_keys"), "150000");
        assert_eq!(field(client, "expired_stale_perc"), "0.00");
        assert_ne!(field(client, "expire_cycle_cpu_milliseconds"), "0");
    }
}

#[test]
fn keys_go_at_the_rate_at_which_they_come() {
    for shards in [1, 4] {
        let server = node::start(shards);
        let mut client = server.connect();
        let (start, mut sent) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_secs(5) {
            let begin = Instant::now();
            set_many(&mut client, sent..sent + 1000, 200);
            sent += 1000;
            // The number of expired keys depends on the load of the machine, but does not grow with the number of keys sent.
            if start.elapsed() > Duration::from_secs(2) {
                let present = keys(&mut client);
                assert!(present < sent / 2, "{present} keys of {sent} are present");
            }
            // A part of the time without commands, as most servers have it.
            sleep(begin.elapsed());
        }
        wait_until("the last keys are gone", || keys(&mut client) == 0);
    }
}

/// Stock redis-benchmark, which sends keys of 200 ms as fast as the server takes them, until it is dropped.
struct Flood(std::process::Child);

impl Flood {
    fn over(server: &Process) -> Self {
        let port = server.port().to_string();
        let options = [
            "-p",
            &port,
            "-q",
            "-n",
            "1000000000",
            "-r",
            "1000000000",
            "-P",
            "50",
            "-c",
            "20",
        ];
        let request = ["SET", "key:__rand_int__", "value", "PX", "200"];
        let child = Command::new("redis-benchmark")
            .args(options)
            .args(request)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.expect("scripts/test installs redis-tools"))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        // It may have ended by itself, when its server did.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_shard_without_a_pause_keeps_up_as_well() {
    for shards in [1, 2] {
        let server = node::start(shards);
        let mut client = server.connect();
        let flood = Flood::over(&server);
        let mut processed = Vec::new();
        for second in 0..6 {
            processed.push(figure(&mut client, "total_commands_processed"));
            if second >= 3 {
                // Those that live are a fifth of what came in a second; the others have waited for less than that.
                let (present, came) = (keys(&mut client), processed[second] - processed[second - 1]);
                assert!(
                    present < came,
                    "{present} keys are present, {came} came in the last second"
                );
            }
            sleep(Duration::from_secs(1));
        }
        drop(flood);
        wait_until("the last keys are gone", || keys(&mut client) == 0);
    }
}

#[test]
fn few_keys_that_are_over_are_found_among_many_that_live() {
    let server = node::start(1);
    let mut client = server.connect();
    set_many(&mut client, 0..100_000, 3_600_000);
    set_many(&mut client, 100_000..100_005, 50);
    sleep(Duration::from_millis(50));
    wait_until("the five are gone", || keys(&mut client) == 100_000);
}

#[test]
fn fields_of_many_hashes_go_when_their_time_is_over() {
    const HASHES: u64 = 20_000;
    for shards in [1, 4] {
        let server = node::start(shards);
        let mut client = server.connect();
        let mut requests = Vec::new();
        for number in 0..HASHES {
            let key = format!("hash:{number}");
            encode(
                &mut requests,
                &["HSET", &key, "stays", "1", "goes", "2", "goes too", "3"],
            );
            encode(
                &mut requests,
                &["HPEXPIRE", &key, "300", "FIELDS", "2", "goes", "goes too"],
            );
        }
        client.write(&requests).expect("the server reads");
        for _ in 0..2 * HASHES {
            client.read().expect("a reply for each");
        }
        sleep(Duration::from_millis(300));
        let all = (2 * HASHES).to_string();
        wait_until("expired fields are gone", || {
            field(&mut client, "expired_subkeys") == all
        });
        assert_eq!(keys(&mut client), HASHES);
        assert_eq!(client.line("HLEN hash:7").integer(), Some(1));
    }
}

#[test]
fn an_idle_server_sleeps_until_the_next_key_is_over() {
    let server = node::start(1);
    let (mut client, mut listener) = (server.connect(), server.connect());
    client.line("CONFIG SET notify-keyspace-events Ex");
    listener.line("SUBSCRIBE __keyevent@0__:expired");
    // The fastest of some: a busy machine may hold up any of them.
    let late = (0..5).map(|round| {
        let ttl = 130 + 10 * round;
        let start = Instant::now();
        client.line(&format!("SET key:{round} v PX {ttl}"));
        listener.read().expect("the event of the key");
        start.elapsed().saturating_sub(Duration::from_millis(ttl))
    });
    let late = late.min().expect("five rounds");
    assert!(late < Duration::from_millis(25), "told {late:?} after its time");

    let turns = |client: &mut Client| figure(client, "eventloop_cycles");
    client.line("SET far v EX 1000");
    let before = turns(&mut client);
    sleep(Duration::from_secs(2));
    let passed = turns(&mut client) - before;
    assert!(passed < 60, "{passed} turns in two seconds of nothing to do");
}

#[test]
fn the_share_of_stale_keys_is_told() {
    for shards in [1, 4] {
        let server = node::launch(shards)
            .with(&["--enable-debug-command", "yes"])
            .serve();
        let mut client = server.connect();
        assert_eq!(client.line("DEBUG SET-ACTIVE-EXPIRE 0").text(), "OK");
        set_many(&mut client, 0..500, 1);
        set_many(&mut client, 500..2000, 1_000_000);
        wait_until("a quarter of the keys is stale", || {
            let percent: f64 = field(&mut client, "expired_stale_perc")
                .parse()
                .expect("a number");
            (24.0..=26.0).contains(&percent)
        });
        client.line("DEBUG SET-ACTIVE-EXPIRE 1");
        wait_until("expired keys are gone", || keys(&mut client) == 1500);
        assert_eq!(field(&mut client, "expired_stale_perc"), "0.00");
    }
}

/// Figures of a server about values freed in the background, after each of some commands.
fn lazily_freed(client: &mut Client) -> Vec<(String, String)> {
    let members = |count: usize| (0..count).map(|n| format!(" m{n}")).collect::<String>();
    let steps = [
        format!("SADD small{}", members(20)),
        format!("SADD large{}", members(5000)),
        format!("SET string {}", "x".repeat(200_000)),
        "UNLINK small".to_owned(),
        "UNLINK string".to_owned(),
        "UNLINK large".to_owned(),
        format!("SADD large{}", members(5000)),
        "DEL large".to_owned(),
        "MSET a 1 b 2 c 3".to_owned(),
        "FLUSHALL ASYNC".to_owned(),
        "FLUSHALL".to_owned(),
        "MSET a 1 b 2 c 3 d 4".to_owned(),
        "FLUSHDB SYNC".to_owned(),
        "CONFIG SET lazyfree-lazy-expire yes".to_owned(),
        format!("SADD large{}", members(5000)),
        "PEXPIRE large 1".to_owned(),
    ];
    let told = steps.iter().map(|step| {
        client.line(step);
        // The background gets the time to do what it has to.
        let start = Instant::now();
        while field(client, "lazyfree_pending_objects") != "0" || start.elapsed() < Duration::from_millis(250)
        {
            assert!(start.elapsed() < Duration::from_secs(5), "{step}: still pending");
            sleep(Duration::from_millis(10));
        }
        let step = step.chars().take(30).collect();
        (step, field(client, "lazyfreed_objects"))
    });
    told.collect()
}

#[test]
fn what_is_freed_in_the_background_is_counted_as_redis_counts_it() {
    let theirs = lazily_freed(&mut redis::start().connect());
    for shards in [1, 4] {
        assert_eq!(lazily_freed(&mut node::start(shards).connect()), theirs);
    }
}
