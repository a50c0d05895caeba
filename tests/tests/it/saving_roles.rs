//! Saves of a node that becomes a replica.

use shardis_tests::info::{field, figure};
use shardis_tests::wait::wait_until;
use shardis_tests::{node, redis};

/// A save of data that a primary's takes the place of is given up, and the next one has the data of the primary.
#[test]
fn a_save_ends_with_the_data_that_a_primary_replaces() {
    let primary = redis::launch().with(&["--repl-diskless-sync-delay", "0"]).serve();
    primary.connect().line("SET of primary");
    for load in ["disabled", "swapdb"] {
        let server = node::launch(2)
            .with(&[
                "--enable-debug-command",
                "yes",
                "--rdb-key-save-delay",
                "10000000",
            ])
            .with(&["--repl-diskless-load", load])
            .serve();
        let mut client = server.connect();
        client.line("DEBUG POPULATE 20 key 10");
        assert_eq!(client.line("BGSAVE").text(), "Background saving started");
        wait_until("its cut", || figure(&mut client, "current_save_keys_total") == 20);
        client.line(&format!("REPLICAOF 127.0.0.1 {}", primary.port()));
        wait_until("the link", || field(&mut client, "master_link_status") == "up");
        wait_until("the end of the save", || {
            figure(&mut client, "rdb_bgsave_in_progress") == 0
        });
        client.line("CONFIG SET rdb-key-save-delay 0");
        assert_eq!(client.line("SAVE").text(), "OK", "{load}");
        let other = redis::launch()
            .with(&["--dir", &server.directory().display().to_string()])
            .serve();
        let mut other = other.connect();
        assert_eq!(other.line("GET of").text(), "primary", "{load}");
        assert_eq!(other.line("DBSIZE").integer(), Some(1), "{load}");
    }
}
