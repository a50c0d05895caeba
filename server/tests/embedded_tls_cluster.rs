//! An embedded cluster all of whose connections use TLS, with certificates of one throw-away authority.

use std::time::Duration;

use redis::cluster::{ClusterClient, ClusterConnection};
use redis::{Client, ClientTlsConfig, Commands, RedisResult, TlsCertificates};
use shardis::{Cluster, ClusterBuilder, ClusterNode};

/// Number of attempts of a client while a replica takes over.
const ATTEMPTS: usize = 200;

/// Certificates of a client, with one of its own if it has a name.
fn certificates(cluster: &Cluster, name: Option<&str>) -> TlsCertificates {
    let authority = cluster.tls_authority().expect("a cluster over TLS");
    let client_tls = name.map(|name| {
        let identity = authority.issue(name).expect("a certificate");
        ClientTlsConfig {
            client_cert: identity.certificate.into_bytes(),
            client_key: identity.key.into_bytes(),
        }
    });
    TlsCertificates {
        client_tls,
        root_cert: Some(authority.certificate().into_bytes()),
    }
}

fn connect(cluster: &Cluster) -> RedisResult<ClusterConnection> {
    let builder = ClusterClient::builder(cluster.urls()).certs(certificates(cluster, None));
    builder.build()?.get_connection()
}

fn connect_to(cluster: &Cluster, node: &ClusterNode, name: Option<&str>) -> RedisResult<redis::Connection> {
    Client::build_with_tls(node.url(), certificates(cluster, name))?.get_connection()
}

fn secured() -> ClusterBuilder {
    Cluster::builder().shards(2).tls_self_signed()
}

/// All keys are there. A client may need some time to see that nodes have changed their roles.
fn check(cluster: &Cluster) {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let got = connect(cluster).and_then(|mut client| {
            (0..60)
                .map(|number| client.get::<_, usize>(format!("key:{number}")))
                .collect::<RedisResult<Vec<_>>>()
        });
        match got {
            Ok(got) => return assert_eq!(got, (0..60).collect::<Vec<_>>()),
            Err(error) => last = Some(error),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("no reply: {last:?}");
}

#[test]
fn everything_is_over_tls_also_after_a_takeover() {
    let cluster = secured().primaries(3).replicas(1).start().unwrap();
    let mut client = connect(&cluster).unwrap();
    for number in 0..60 {
        let () = client.set(format!("key:{number}"), number).unwrap();
    }
    check(&cluster);
    for node in cluster.nodes() {
        assert!(node.url().starts_with("rediss://127.0.0.1:"), "{}", node.url());
        let plain = Client::open(node.url().replace("rediss", "redis")).unwrap();
        let refused = plain
            .get_connection()
            .and_then(|mut plain| plain.ping::<String>());
        assert!(refused.is_err(), "it serves TLS only");
        let mut client = connect_to(&cluster, node, None).unwrap();
        let setting: Vec<String> = redis::cmd("CONFIG")
            .arg("GET")
            .arg("tls-cluster")
            .query(&mut client)
            .unwrap();
        assert_eq!(setting[1], "yes");
    }
    let killed = cluster.primary_of("key:1").unwrap();
    let node = &cluster.nodes()[killed];
    // Its replica has all it had.
    let mut client = connect_to(&cluster, node, None).unwrap();
    let acknowledged: i64 = redis::cmd("WAIT").arg(1).arg(10_000).query(&mut client).unwrap();
    assert_eq!(acknowledged, 1);
    let (address, url) = (node.address(), node.url());
    node.kill();
    assert_eq!(node.url(), url);
    assert!(cluster.await_whole());
    check(&cluster);
    node.restart().unwrap();
    assert!(cluster.await_whole());
    assert!(node.address() == address && !node.is_primary());
    check(&cluster);
}

#[test]
fn clients_may_have_to_show_a_certificate() {
    let builder = secured().primaries(1).directive("tls-auth-clients", "yes");
    let cluster = builder.start().unwrap();
    let node = &cluster.nodes()[0];
    let ping = |name| connect_to(&cluster, node, name).and_then(|mut client| client.ping::<String>());
    assert_eq!(ping(Some("anybody")).unwrap(), "PONG");
    assert!(ping(None).is_err());
}
