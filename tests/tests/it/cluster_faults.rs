//! Clusters under faults: primaries that are killed, stopped, cut off or emptied while writers go on, and the question what of their
//! writes is left. `SHARDIS_SERVER=redis-server` has the same things happen to Redis.

use std::time::{Duration, Instant};

use shardis_tests::client::Client;
use shardis_tests::cluster::schedule::{Fault, Outcome, Schedule, await_takeover};
use shardis_tests::cluster::{Cluster, Plan};
use shardis_tests::node;
use shardis_tests::replication::member::Kind;
use shardis_tests::slot;
use shardis_tests::wait::retry;

/// Kind of the nodes.
const KIND: Kind = Kind::Shardis(2);

/// Node timeout.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Time beyond the node timeout in which others have taken over.
const TAKEOVER: Duration = Duration::from_secs(2);

/// Lets a schedule happen, and checks that the takeover came in time.
fn judge(schedule: &Schedule) -> Outcome {
    let outcome = schedule.run();
    // A node that is cut off or stopped has just answered, and its connections stand: the ping that it fails to answer is sent up to half
    // a node timeout later.
    let until_ping = if matches!(schedule.fault, Fault::Cut | Fault::Stop) {
        TIMEOUT / 2
    } else {
        Duration::ZERO
    };
    if let (Some(takeover), false) = (outcome.takeover, node::is_redis()) {
        assert!(
            takeover <= until_ping + TIMEOUT + TAKEOVER,
            "{schedule:?}: {outcome}"
        );
    }
    outcome
}

#[test]
fn a_killed_primary_is_replaced() {
    judge(&Schedule::of(KIND, Fault::Kill));
}

#[test]
fn what_a_replica_has_acknowledged_survives_a_killed_primary() {
    judge(&Schedule::of(KIND, Fault::Kill).wait(1))
        .audit
        .assert_complete();
}

#[test]
fn what_a_replica_has_acknowledged_survives_a_stopped_primary() {
    judge(&Schedule::of(KIND, Fault::Stop).wait(1))
        .audit
        .assert_complete();
}

#[test]
fn what_a_replica_has_acknowledged_survives_a_primary_that_is_cut_off() {
    judge(&Schedule::of(KIND, Fault::Cut).wait(1))
        .audit
        .assert_complete();
}

#[test]
fn two_of_five_primaries_are_replaced() {
    let schedule = Schedule::of(Kind::Shardis(1), Fault::Kill).victims(2, 5).wait(1);
    judge(&schedule).audit.assert_complete();
}

#[test]
fn a_cluster_that_was_killed_comes_back_with_all_it_had() {
    judge(&Schedule::of(KIND, Fault::KillAll)).audit.assert_complete();
}

#[test]
fn a_primary_that_lost_its_disk_is_replaced_and_joins_again() {
    judge(&Schedule::of(KIND, Fault::Wipe).wait(1))
        .audit
        .assert_complete();
}

/// A cluster with a replica for each primary, and the primary of a key with the others.
fn cluster_around(key: &str) -> (Cluster, usize, Vec<usize>) {
    let cluster = Plan::of(&[KIND; 6])
        .replicas(1)
        .timeout_ms(TIMEOUT.as_millis().try_into().expect("small"))
        .severable()
        .create();
    let primary = cluster.owner(slot::of(key.as_bytes()), 0).expect("an owner");
    let others = (0..cluster.len()).filter(|&index| index != primary).collect();
    (cluster, primary, others)
}

#[test]
fn a_primary_that_wakes_up_serves_no_old_data() {
    let (cluster, primary, others) = cluster_around("key");
    let mut client = cluster.member(primary).client();
    assert_eq!(client.line("SET key old").text(), "OK");
    assert_eq!(client.line("WAIT 1 5000").integer(), Some(1));
    cluster.member(primary).freeze();
    // Requests that wait in its sockets when it wakes up.
    let mut writer = Client::connect(cluster.member(primary).address()).expect("the system accepts");
    client.send(&["GET", "key"]).expect("the system takes it");
    writer
        .send(&["SET", "key", "stale"])
        .expect("the system takes it");
    await_takeover(&cluster, &[primary], &others);
    let mut others_client = cluster.client();
    others_client
        .insist("key", &["SET", "key", "new"], TAKEOVER)
        .expect("the new primary writes");
    std::thread::sleep(TIMEOUT);
    cluster.member(primary).thaw();
    let (read, written) = (client.read().expect("a reply"), writer.read().expect("a reply"));
    if !node::is_redis() {
        assert!(read.is_error(), "old data: {read}");
        assert!(written.is_error(), "a write to old data: {written}");
    }
    cluster.await_whole();
    let value = others_client
        .insist("key", &["GET", "key"], TAKEOVER)
        .expect("a value");
    assert_eq!(value.text(), "new");
    let now = cluster.member(primary).client().line("GET key").text();
    assert!(now.starts_with("MOVED"), "the old primary answers {now}");
}

#[test]
fn a_minority_refuses_writes_and_is_a_replica_when_it_is_back() {
    let (cluster, primary, others) = cluster_around("key");
    let mut client = cluster.member(primary).client();
    assert_eq!(client.line("SET key old").text(), "OK");
    cluster.bus().split(&[primary], &others);
    let cut = Instant::now();
    let refuses = || match client.line("SET key lost").text() {
        text if text.starts_with("CLUSTERDOWN") => Ok(cut.elapsed()),
        text => Err(text),
    };
    let after = retry(2 * TIMEOUT, refuses).unwrap_or_else(|last| panic!("it still says {last}"));
    if !node::is_redis() {
        // The timeout begins with the first ping that is not answered, which may come half of it later.
        let most = TIMEOUT * 3 / 2 + Duration::from_millis(500);
        assert!(after <= most, "it took writes for {after:?}");
    }
    assert!(client.line("GET key").is_error(), "reads are refused as well");
    await_takeover(&cluster, &[primary], &others);
    let mut others_client = cluster.client();
    others_client
        .insist("key", &["SET", "key", "new"], 2 * TIMEOUT)
        .expect("the majority writes");
    cluster.bus().heal();
    cluster.await_whole();
    assert!(client.line("GET key").text().starts_with("MOVED"));
    let value = others_client
        .insist("key", &["GET", "key"], TIMEOUT)
        .expect("a value");
    assert_eq!(value.text(), "new");
}

#[test]
fn a_replica_that_lost_its_disk_gets_its_data_again() {
    let (mut cluster, primary, _) = cluster_around("key");
    let mut client = cluster.client();
    for number in 0..200 {
        let key = format!("key:{number}");
        client.set(&key, "value");
    }
    let replica = cluster.replicas_of(primary)[0];
    cluster.member_mut(replica).kill();
    cluster.member(replica).forget();
    cluster.member_mut(replica).start_again();
    cluster.await_whole();
    let size = |index: usize| cluster.member(index).client().line("DBSIZE").integer();
    assert!(size(primary).expect("a number") > 0);
    cluster.await_that("the replica has the data", || match size(replica) {
        found if found == size(primary) => Ok(()),
        found => Err(format!("{found:?} keys")),
    });
}

#[test]
fn a_one_way_cut_heals() {
    let (cluster, primary, others) = cluster_around("key");
    // The others hear nothing of the primary, which hears them all.
    others
        .iter()
        .for_each(|&other| cluster.bus().silence(primary, other));
    await_takeover(&cluster, &[primary], &others);
    cluster.bus().heal();
    cluster.await_whole();
    let lines = cluster.await_agreement(&cluster.running()).lines;
    let port = cluster.member(primary).port();
    let line = lines.iter().find(|line| line.port == port).expect("its line");
    assert!(
        line.primary.is_some(),
        "the old primary is a replica now: {line:?}"
    );
}
