//! Read chunks: the memory that the connections of a turn are read into, one after another.
//!
//! A chunk is shared while commands in it are under way on another shard; the loop then continues with another chunk.

use std::sync::Arc;

use crate::limits::CHUNK_BYTES;

/// Bytes read from clients, shared by the commands in them.
pub(crate) type Chunk = Arc<Vec<u8>>;

/// The chunks of one loop.
#[derive(Debug, Default)]
pub(crate) struct ChunkPool {
    spare: Vec<Chunk>,
}

/// The most chunks kept for reuse.
const SPARES_MAX: usize = 8;

impl ChunkPool {
    /// A chunk of [`CHUNK_BYTES`] with no other holder.
    pub(crate) fn take(&mut self) -> Chunk {
        match self
            .spare
            .iter_mut()
            .position(|chunk| Arc::get_mut(chunk).is_some())
        {
            Some(free) => self.spare.swap_remove(free),
            None => Arc::new(vec![0; CHUNK_BYTES]),
        }
    }

    /// Takes a chunk back, to be reused once no other holder is left.
    pub(crate) fn put(&mut self, chunk: Chunk) {
        if chunk.len() == CHUNK_BYTES && self.spare.len() < SPARES_MAX {
            self.spare.push(chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_chunk_is_not_handed_out() {
        let mut pool = ChunkPool::default();
        let first = pool.take();
        let shared = Arc::clone(&first);
        pool.put(first);
        let second = pool.take();
        assert!(!Arc::ptr_eq(&second, &shared));
        drop(shared);
        pool.put(second);
        assert_eq!(pool.spare.len(), 2);
        assert_eq!(Arc::strong_count(&pool.take()), 1);
    }
}
