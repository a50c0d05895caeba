//! Figures of a server that has done nothing yet.

use shardis_tests::info::field;
use shardis_tests::node;

/// A process has at least the memory that is allocated in it: dashboards take a lower ratio for swapping.
#[test]
fn resident_memory_is_not_below_that_in_use() {
    for shards in [1, 4] {
        let server = node::start(shards);
        let ratio: f64 = field(&mut server.connect(), "mem_fragmentation_ratio")
            .parse()
            .expect("a number");
        assert!(ratio >= 1.0, "{ratio} with {shards} shards");
    }
}
