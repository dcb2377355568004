//! Which blocks of the KV pool belong to which sequence. The memory itself is the arm's.
//!
//! The pool is cut into blocks of [`BLOCK`] positions; a sequence holds a list of them, and blocks may be shared by
//! sequences with a common prefix, counted by reference.

use downshift_kernels::kv::KV_BLOCK as BLOCK;

/// The free list and the reference counts of one pool.
#[derive(Debug)]
pub struct BlockPool {
    references: Vec<u32>,
    free: Vec<u32>,
}

impl BlockPool {
    /// A pool with room for at least `positions`.
    pub fn new(positions: usize) -> Self {
        let n_blocks = Self::blocks_for(positions);
        Self { references: vec![0; n_blocks], free: (0..n_blocks as u32).rev().collect() }
    }

    /// Blocks that hold `positions`.
    pub fn blocks_for(positions: usize) -> usize {
        positions.div_ceil(BLOCK)
    }

    /// Blocks in all.
    pub fn n_blocks(&self) -> usize {
        self.references.len()
    }

    /// Blocks that no sequence holds.
    pub fn n_free(&self) -> usize {
        self.free.len()
    }

    /// Lengthens `blocks` to hold `positions`, or changes nothing and returns false where the pool is dry.
    #[must_use]
    pub fn grow(&mut self, blocks: &mut Vec<u32>, positions: usize) -> bool {
        let missing = Self::blocks_for(positions).saturating_sub(blocks.len());
        if missing > self.free.len() {
            return false;
        }
        for block in self.free.drain(self.free.len() - missing..).rev() {
            self.references[block as usize] = 1;
            blocks.push(block);
        }
        true
    }

    /// Gives back all blocks of a sequence.
    pub fn release(&mut self, blocks: &mut Vec<u32>) {
        for block in blocks.drain(..) {
            let references = &mut self.references[block as usize];
            *references -= 1;
            if *references == 0 {
                self.free.push(block);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_pool_changes_nothing_and_released_blocks_serve_again() {
        let mut pool = BlockPool::new(3 * BLOCK);
        let (mut first, mut second) = (Vec::new(), Vec::new());
        assert!(pool.grow(&mut first, BLOCK + 1));
        assert_eq!(first, [0, 1]);
        assert!(!pool.grow(&mut second, 2 * BLOCK));
        assert!(second.is_empty());
        assert_eq!(pool.n_free(), 1);
        pool.release(&mut first);
        assert!(pool.grow(&mut second, 3 * BLOCK));
        let mut all = second.clone();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2]);
        assert!(pool.grow(&mut second, 2 * BLOCK), "a sequence that is long enough needs nothing");
    }
}
