//! Saves whose files fail: the old file stays, the temporary one goes, clients learn of it, and the next save goes well.

use std::fs;

use shardis_tests::client::Client;
use shardis_tests::faults::{Act, Fault, Faults, Operation};
use shardis_tests::info::{field, figure};
use shardis_tests::node;
use shardis_tests::wait::wait_until;

fn save(client: &mut Client) -> String {
    assert_eq!(client.line("BGSAVE").text(), "Background saving started");
    wait_until("nothing is being saved", || {
        figure(client, "rdb_bgsave_in_progress") == 0
    });
    field(client, "rdb_last_bgsave_status")
}

#[test]
fn a_save_that_fails_leaves_the_old_file() {
    let faults = Faults::new();
    let server = faults
        .apply(node::launch(2).with(&["--enable-debug-command", "yes", "--rdbcompression", "no"]))
        .serve();
    let mut client = server.connect();
    client.line("DEBUG POPULATE 2000 old 100");
    assert_eq!(save(&mut client), "ok");
    let dump = faults.data().join("dump.rdb");
    let good = fs::read(&dump).expect("a file");
    client.line("DEBUG POPULATE 20000 new 1000");
    client.call(&["CONFIG", "SET", "save", "3600 1"]);
    for fault in [
        Fault::always(Operation::Open, "temp-", Act::Fail(libc::EACCES)),
        Fault::always(Operation::Write, "temp-", Act::Fail(libc::ENOSPC)),
        Fault::once(Operation::Write, "temp-", 40, Act::Fail(libc::EIO)),
        Fault::once(Operation::Sync, "temp-", 1, Act::Fail(libc::EIO)),
        Fault::once(Operation::Sync, "temp-", 3, Act::Fail(libc::EIO)),
        Fault::always(Operation::Rename, "dump.rdb", Act::Fail(libc::EROFS)),
    ] {
        let what = format!("{fault:?}");
        faults.set(&[fault]);
        assert_eq!(save(&mut client), "err", "{what}");
        assert!(!faults.fired().is_empty(), "{what}");
        assert_eq!(fs::read(&dump).expect("the old file"), good, "{what}");
        assert_eq!(faults.files(), ["dump.rdb"], "{what}");
        assert!(client.line("SET a 1").text().starts_with("MISCONF"), "{what}");
        assert!(!client.line("GET a").is_error(), "{what}");
    }
    // Writes in pieces and a disk that is slow harm nothing.
    faults.set(&[
        Fault::always(Operation::Write, "temp-", Act::Short(5000)),
        Fault::once(Operation::Sync, "temp-", 1, Act::Wait(500)),
    ]);
    assert_eq!(save(&mut client), "ok");
    assert_eq!(client.line("SET a 1").text(), "OK");
    assert!(fs::read(&dump).expect("the new file").len() > 20_000_000);
}
