//! Dialogues of `cases/` over TLS, beside a redis-server over TLS.

use std::fs;
use std::path::Path;

use shardis_tests::dialogue::{self, Resp, Servers};
use shardis_tests::diff::Subject;
use shardis_tests::node;
use shardis_tests::process::{Launch, Process};
use shardis_tests::redis::Reference;
use shardis_tests::tls::{Authority, Secured};

/// Files with commands of all kinds of running, and all kinds of replies.
const FILES: [&str; 9] = [
    "strings",
    "lists",
    "scanning",
    "transactions",
    "connection",
    "binary",
    "errors",
    "pubsub",
    "blocking",
];

/// A server that is reached over TLS, and the authority whose files it needs.
fn over_tls(launch: Launch) -> (Process, Authority) {
    let options = ["--tls-auth-clients", "no", "--enable-debug-command", "yes"];
    let Secured {
        process,
        tls_port,
        authority,
    } = Secured::start(launch, &options);
    let config = authority.client(None);
    (process.over_tls(tls_port, config), authority)
}

#[test]
fn dialogues_over_tls_are_those_of_redis_over_tls() {
    let mut report = String::new();
    for (shards, backend) in [(1, "epoll"), (2, "io_uring")] {
        let (subject, _files) = over_tls(node::launch(shards).with(&["--io-backend", backend]));
        let (reference, _other_files) = over_tls(Reference::Redis.launch());
        let servers = Servers {
            kind: Subject::Shardis,
            subject: &subject,
            references: &[(Reference::Redis, reference)],
        };
        for name in FILES {
            let file = format!("cases/{name}.txt");
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&file);
            let text = fs::read_to_string(&path).expect("a file of dialogues");
            let dialogues = dialogue::parse(&text).expect("dialogues");
            for resp in [Resp::V2, Resp::V3] {
                if let Err(differences) = dialogue::hold(&file, &dialogues, resp, &servers) {
                    report += &format!("--- {backend}, {shards} shard(s), {resp:?}: {differences}\n");
                }
            }
        }
    }
    assert!(report.is_empty(), "{report}");
}
