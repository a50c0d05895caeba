//! New names are brought to the disk with the directories that have them, and with what is behind them.

use shardis_tests::client::Client;
use shardis_tests::faults::{Act, Fault, Faults, Operation};
use shardis_tests::info::{field, figure};
use shardis_tests::node;
use shardis_tests::wait::wait_until;

use super::append_only::launch;

/// Nothing but a note that the operation was made.
const NOTED: Act = Act::Wait(1);

fn await_rewrite(client: &mut Client) {
    wait_until("the rewrite has ended", || {
        figure(client, "aof_rewrite_in_progress") == 0
    });
    assert_eq!(field(client, "aof_last_bgrewrite_status"), "ok");
}

/// A snapshot whose name may be lost with the power is no snapshot.
#[test]
fn a_save_fails_with_its_directory() {
    let faults = Faults::new();
    let server = faults.apply(node::launch(1)).serve();
    let mut client = server.connect();
    client.line("SET a 1");
    faults.set(&[Fault::always(Operation::SyncDirectory, "*", Act::Fail(libc::EIO))]);
    assert!(client.line("SAVE").is_error());
    assert_eq!(faults.fired().len(), 1);
    faults.clear();
    assert_eq!(client.line("SAVE").text(), "OK");
}

/// The directory is synced for the increment, for the base, for the manifest that names it, and for the one without history.
#[test]
fn a_rewrite_syncs_the_directory_after_each_step() {
    let faults = Faults::new();
    let server = faults.apply(launch(1, faults.data(), "everysec")).serve();
    let mut client = server.connect();
    client.line("SET a 1");
    faults.set(&[Fault::always(Operation::SyncDirectory, "*", NOTED)]);
    client.line("BGREWRITEAOF");
    await_rewrite(&mut client);
    assert_eq!(faults.fired().len(), 4, "{:?}", faults.fired());
}

/// The manifest names a base only when what follows it is on the disk as well: `appendfsync no` leaves that to the system, and a loss of
/// power would leave less than the old files had.
#[test]
fn what_follows_a_base_is_synced_before_the_manifest_names_the_base() {
    let faults = Faults::new();
    let server = faults
        .apply(launch(1, faults.data(), "no"))
        .with(&["--enable-debug-command", "yes", "--rdb-key-save-delay", "2000000"])
        .serve();
    let mut client = server.connect();
    client.line("DEBUG POPULATE 10 key 10");
    client.line("BGREWRITEAOF");
    wait_until("the switch of files", || {
        figure(&mut client, "current_save_keys_total") == 10
    });
    faults.set(&[
        Fault::always(Operation::Sync, "2.incr", NOTED),
        Fault::always(Operation::Rename, "manifest", NOTED),
    ]);
    assert_eq!(client.line("SET behind 1").text(), "OK");
    assert_eq!(faults.fired(), [""; 0], "nothing is synced for its own sake");
    client.line("CONFIG SET rdb-key-save-delay 0");
    await_rewrite(&mut client);
    let fired = faults.fired();
    let kinds: Vec<_> = fired.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(kinds.first(), Some(&"sync"), "{fired:?}");
    assert!(kinds.contains(&"rename"), "{fired:?}");
}
