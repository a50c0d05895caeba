//! The harness for clusters, on real Redis nodes: it sees what is lost, what differs, and who cannot hear whom.

use shardis_tests::cluster::audit::Audit;
use shardis_tests::cluster::load::{Load, Sent, Work};
use shardis_tests::cluster::schedule::await_takeover;
use shardis_tests::cluster::view::View;
use shardis_tests::cluster::{Cluster, Plan};
use shardis_tests::replication::member::Kind;

/// Three real primaries.
fn cluster() -> Cluster {
    Plan::of(&[Kind::Redis; 3]).create()
}

#[test]
fn the_audit_sees_what_is_lost_doubled_and_invented() {
    let cluster = cluster();
    let load = Load::start(&cluster, Work::default());
    load.await_more(300);
    let written = load.stop();
    let mut client = cluster.client();
    Audit::of(&written.ledger, &mut client).assert_complete();
    let is_kept = |list: &&String| {
        written.ledger[*list]
            .iter()
            .all(|(_, sent)| *sent == Sent::Acknowledged)
    };
    let list = written
        .ledger
        .keys()
        .find(is_kept)
        .expect("a list without a fault");
    for words in [
        &["LPOP", list][..],
        &["RPUSH", list, "1"],
        &["RPUSH", list, "999999"],
    ] {
        assert!(!client.call(list, words).reply().is_error(), "{words:?}");
    }
    let audit = Audit::of(&written.ledger, &mut client);
    assert_eq!((audit.lost, audit.invented), (1, 1), "{audit}");
    assert_eq!(audit.doubled, 1, "{audit}");
}

#[test]
fn views_that_differ_are_told_apart() {
    let cluster = cluster();
    let all = [0, 1, 2];
    let view = cluster.common_view(&all).expect("one view");
    assert_eq!(view.is_whole(), Ok(()));
    // A node that has forgotten a slot, and claims none of another's, differs for as long as nobody tells it.
    assert_eq!(
        cluster.member(0).client().line("CLUSTER DELSLOTS 16383").text(),
        "OK"
    );
    let reason = cluster.common_view(&all).expect_err("they differ");
    assert!(reason.contains("CLUSTER"), "{reason}");
    let view = View::of(cluster.member(0)).expect("a view");
    assert!(
        view.is_whole()
            .expect_err("a slot is missing")
            .contains("slot 16383 has 0 owners")
    );
}

#[test]
fn a_cut_bus_splits_a_cluster_and_heals() {
    let cluster = Plan::of(&[Kind::Redis; 6])
        .replicas(1)
        .timeout_ms(2_000)
        .severable()
        .create();
    let primary = cluster.primaries(0)[0];
    let others: Vec<usize> = (0..cluster.len()).filter(|&index| index != primary).collect();
    cluster.bus().split(&[primary], &others);
    await_takeover(&cluster, &[primary], &others);
    assert!(
        cluster.common_view(&[primary, others[0]]).is_err(),
        "the sides differ"
    );
    // Clients still reach it.
    let reply = cluster.member(primary).client().line("PING");
    assert_eq!(reply.text(), "PONG");
    cluster.bus().heal();
    cluster.await_whole();
}
