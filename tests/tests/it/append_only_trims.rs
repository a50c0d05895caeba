//! Trims of streams in the append-only file of a real server: `~` has become `=` there, and a LIMIT has stayed behind, which no
//! client may say.

use shardis_tests::client::Client;
use shardis_tests::process::Process;
use shardis_tests::redis::Reference;
use tempfile::TempDir;

use super::append_only::{kill, launch};

/// Fills streams with trims of every form.
fn fill(client: &mut Client) {
    for entry in 1..=300 {
        client.line(&format!("XADD trimmed {entry}-1 n {entry}"));
        client.line(&format!("XADD added MAXLEN ~ 50 LIMIT 100 {entry}-1 n {entry}"));
        client.line(&format!(
            "XADD first MINID ~ {}-1 LIMIT 7 {entry}-1 n {entry}",
            entry / 2
        ));
        client.line(&format!("XADD none MAXLEN ~ 100000 LIMIT 7 {entry}-1 n {entry}"));
    }
    client.line("XTRIM trimmed MAXLEN ~ 120 LIMIT 1000");
    client.line("XTRIM first MINID ~ 250-1 LIMIT 0");
}

fn digest(server: &Process) -> String {
    server.connect().line("DEBUG DIGEST").text()
}

#[test]
fn what_a_real_server_has_trimmed_is_loaded() {
    for kind in [Reference::Redis, Reference::Valkey] {
        let place = TempDir::new().expect("a directory");
        let options = [
            "--dir",
            &place.path().display().to_string(),
            "--appendonly",
            "yes",
        ];
        let theirs = kind
            .launch()
            .with(&options)
            .with(&["--enable-debug-command", "yes"])
            .serve();
        let mut client = theirs.connect();
        fill(&mut client);
        let wanted = digest(&theirs);
        kill(theirs);
        for shards in [1, 4] {
            let ours = launch(shards, place.path(), "no").serve();
            assert_eq!(digest(&ours), wanted, "{kind:?}: {}", ours.log());
            assert!(!ours.log().contains("CRITICAL"), "{}", ours.log());
            kill(ours);
        }
    }
}
