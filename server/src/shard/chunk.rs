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

    /// Takes a chunk back, to be reused once no other holder is left. Several holders may bring the same one back: it is kept
    /// once, or it would be shared for ever.
    pub(crate) fn put(&mut self, chunk: Chunk) {
        let is_kept = self.spare.iter().any(|spare| Arc::ptr_eq(spare, &chunk));
        if !is_kept && chunk.len() == CHUNK_BYTES && self.spare.len() < SPARES_MAX {
            self.spare.push(chunk);
        }
    }

    /// Frees half of the spare chunks: called now and then, so that a loop that does not use them keeps none.
    pub(crate) fn release_half(&mut self) {
        self.spare.truncate(self.spare.len() / 2);
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

    #[test]
    fn a_chunk_that_comes_back_twice_is_used_again() {
        let mut pool = ChunkPool::default();
        let first = pool.take();
        let address = Arc::as_ptr(&first);
        pool.put(Arc::clone(&first));
        pool.put(first);
        assert_eq!(Arc::as_ptr(&pool.take()), address);
        assert!(pool.spare.is_empty());
    }

    #[test]
    fn chunks_that_are_not_used_are_freed() {
        let mut pool = ChunkPool::default();
        let chunks: Vec<Chunk> = (0..5).map(|_| pool.take()).collect();
        chunks.into_iter().for_each(|chunk| pool.put(chunk));
        for left in [2, 1, 0] {
            pool.release_half();
            assert_eq!(pool.spare.len(), left);
        }
    }
}
