//! Installs loaded data: it becomes that of the node, in all shards at one instant.

use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::Duration;

use super::Loaded;
use crate::dispatch::room::publish_memory;
use crate::exec::Partition;
use crate::limits::BORROW_LIMIT;
use crate::shard::Mesh;
use crate::shard::cell::Guard;
use crate::state::Node;

/// Wait for shards that are taken, before another try.
const PATIENCE: Duration = Duration::from_millis(1);

/// Puts loaded data in the place of the node's, from a thread that is no loop.
pub(crate) fn install(node: &Node, mesh: &Mesh, loaded: Loaded) {
    let mut cells = hold_all(mesh);
    *node.loading.libraries.lock() = loaded.libraries;
    let now_ms = node.clock.now_us() / 1000;
    for (cell, loaded) in cells.iter_mut().zip(loaded.partitions) {
        let partition = cell.get();
        partition.adopt(loaded, now_ms);
        publish_memory(partition, node);
        // Its loop looks what expires next.
        node.due_sooner[partition.shard].store(true, Ordering::SeqCst);
    }
    drop(cells);
    node.loading.end();
    node.ring_all();
}

/// Holds the cells of all shards. Whoever waits for the next one holds none: tries follow one another until all are free.
fn hold_all(mesh: &Mesh) -> Vec<Guard<'_, Partition>> {
    loop {
        let cells = (0..mesh.len()).map(|shard| mesh.cell(shard).borrow_within(BORROW_LIMIT));
        if let Some(cells) = cells.collect() {
            return cells;
        }
        sleep(PATIENCE);
    }
}
