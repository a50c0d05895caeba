//! Installs loaded data: it becomes that of the node, in all shards at one instant.

use std::thread::sleep;
use std::time::Duration;

use shardis_cluster::{Slot, SlotSet, shard_of};
use shardis_storage::memory::thread_balance;

use super::Loaded;
use crate::dispatch::room::publish_all;
use crate::exec::Partition;
use crate::limits::BORROW_LIMIT;
use crate::scripting::Functions;
use crate::shard::Mesh;
use crate::shard::cell::Guard;
use crate::state::Node;

/// Wait for shards that are taken, before another try.
const PATIENCE: Duration = Duration::from_millis(1);

/// Puts loaded data in the place of the node's, from a thread that is no loop.
pub(crate) fn install(node: &Node, mesh: &Mesh, mut loaded: Loaded) {
    while let Err(again) = try_install(node, mesh, loaded, || {}) {
        loaded = again;
        sleep(PATIENCE);
    }
}

/// Puts loaded data in the place of the node's, like [`install`], and does `at_instant` when all partitions are held for that.
///
/// # Errors
/// The data, if a shard is taken now.
pub(crate) fn try_install(
    node: &Node,
    mesh: &Mesh,
    loaded: Loaded,
    at_instant: impl FnOnce(),
) -> Result<(), Loaded> {
    let Some(mut cells) = hold_all(mesh) else {
        return Err(loaded);
    };
    at_instant();
    node.scripts.set_functions(*loaded.libraries);
    let now_ms = node.clock.now_us() / 1000;
    for (cell, loaded) in cells.iter_mut().zip(loaded.partitions) {
        let (partition, balance) = (cell.get(), thread_balance());
        partition.adopt(loaded, now_ms);
        // Small old data is freed at once.
        partition.memory_bytes += thread_balance() - balance;
    }
    publish_all(cells.iter_mut().map(Guard::get), node);
    drop(cells);
    node.loading.end();
    // Loops look what expires next.
    node.ring_all();
    Ok(())
}

/// The slots that have keys, at a time at which no client writes.
pub(crate) fn slots_with_keys(node: &Node, mesh: &Mesh) -> SlotSet {
    let mut slots = SlotSet::new();
    let mut cells = loop {
        match hold_all(mesh) {
            Some(cells) => break cells,
            None => sleep(PATIENCE),
        }
    };
    for slot in Slot::all() {
        let shard = shard_of(slot.number(), node.shards);
        let keyspace = &cells[shard].get().keyspace;
        if keyspace.database(0).slot_len(slot.number()) > 0 {
            slots.insert(slot);
        }
    }
    slots
}

/// Removes all keys of the node, and tells nobody of it but its own clients. False if a shard is taken now.
pub(crate) fn try_clear(node: &Node, mesh: &Mesh) -> bool {
    let Some(mut cells) = hold_all(mesh) else {
        return false;
    };
    let now_ms = node.clock.now_us() / 1000;
    for cell in &mut cells {
        let (partition, balance) = (cell.get(), thread_balance());
        for db in 0..partition.keyspace.databases() {
            // Its loop frees them, in slices.
            partition.flush(db as u16, now_ms, true);
        }
        partition.memory_bytes += thread_balance() - balance;
    }
    publish_all(cells.iter_mut().map(Guard::get), node);
    drop(cells);
    node.scripts.set_functions(Functions::default());
    node.ring_all();
    true
}

/// Whether the node has no keys; none if a shard is taken now.
pub(crate) fn is_empty(mesh: &Mesh) -> Option<bool> {
    let mut cells = hold_all(mesh)?;
    Some(cells.iter_mut().all(|cell| cell.get().keyspace.is_empty()))
}

/// Holds the cells of all shards; none if one of them stays taken. Whoever waits for the next one holds none.
fn hold_all(mesh: &Mesh) -> Option<Vec<Guard<'_, Partition>>> {
    let cells = (0..mesh.len()).map(|shard| mesh.cell(shard).borrow_within(BORROW_LIMIT));
    cells.collect()
}
