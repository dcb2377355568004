//! Which blocks of the KV pool belong to whom. The memory itself is the arm's.
//!
//! The pool is cut into blocks of [`BLOCK`] positions; a sequence holds a list of them. A block whose positions are all computed
//! and recorded is never written again, so that sequences with a common prefix share it, counted by reference. Recorded blocks
//! that nobody holds are kept, and are the first to go, least recently used first, when a sequence needs room: the pool is the
//! only bound, and what is kept takes nothing from what runs.

mod prefix_tree;
#[cfg(test)]
mod tests;

use downshift_kernels::kv::KV_BLOCK as BLOCK;

use prefix_tree::PrefixTree;

/// The reference counts of one pool, its free list, and what its recorded blocks hold.
#[derive(Debug)]
pub struct BlockPool {
    /// Sequences that hold each block.
    references: Vec<u32>,
    /// Blocks that nobody holds and that hold nothing.
    free: Vec<u32>,
    prefixes: PrefixTree,
    /// Blocks that nobody holds and that are recorded.
    n_kept: usize,
    /// Counts releases: the time of "least recently used".
    clock: u64,
}

impl BlockPool {
    /// A pool with room for at least `positions`.
    pub fn new(positions: usize) -> Self {
        let n_blocks = Self::blocks_for(positions);
        Self {
            references: vec![0; n_blocks],
            free: (0..n_blocks as u32).rev().collect(),
            prefixes: PrefixTree::new(n_blocks),
            n_kept: 0,
            clock: 0,
        }
    }

    /// Blocks that hold `positions`.
    pub fn blocks_for(positions: usize) -> usize {
        positions.div_ceil(BLOCK)
    }

    /// Blocks in all.
    pub fn n_blocks(&self) -> usize {
        self.references.len()
    }

    /// Blocks that no sequence holds, the kept ones among them.
    pub fn n_available(&self) -> usize {
        self.free.len() + self.n_kept
    }

    /// Lengthens `blocks` to hold `positions`, or changes nothing and returns false where the pool is dry.
    #[must_use]
    pub fn grow(&mut self, blocks: &mut Vec<u32>, positions: usize) -> bool {
        let missing = Self::blocks_for(positions).saturating_sub(blocks.len());
        if missing > self.n_available() {
            return false;
        }
        self.evict(missing.saturating_sub(self.free.len()));
        for block in self.free.drain(self.free.len() - missing..).rev() {
            self.references[block as usize] = 1;
            blocks.push(block);
        }
        true
    }

    /// Gives back all blocks of a sequence; the recorded ones are kept.
    pub fn release(&mut self, blocks: &mut Vec<u32>) {
        self.clock += 1;
        for block in blocks.drain(..) {
            self.prefixes.touch(block, self.clock);
            self.release_one(block);
        }
    }

    /// As [`BlockPool::release`], for a sequence whose rows are not to be trusted: no other sequence will get them.
    pub fn discard(&mut self, blocks: &mut Vec<u32>) {
        // Whoever else holds a block below holds this one too, so that all below is ours or nobody's.
        let own = blocks.iter().copied().find(|&block| self.references[block as usize] == 1);
        for block in own.map(|block| self.prefixes.remove_subtree(block)).unwrap_or_default() {
            if self.references[block as usize] == 0 {
                self.n_kept -= 1;
                self.free.push(block);
            }
        }
        self.release(blocks);
    }

    /// The block after `parent` (`None`: the first of a sequence) that has the most tokens in common with `token_ids` from
    /// their starts on, and how many; `None` where there are none.
    pub fn longest_match(&self, parent: Option<u32>, token_ids: &[u32]) -> Option<(u32, usize)> {
        self.prefixes.longest_match(parent, token_ids)
    }

    /// Sequences that hold `block`.
    pub fn n_holders(&self, block: u32) -> u32 {
        self.references[block as usize]
    }

    /// Counts one more holder of a recorded block.
    pub fn hold(&mut self, block: u32) {
        let references = &mut self.references[block as usize];
        self.n_kept -= usize::from(*references == 0);
        *references += 1;
    }

    /// Counts one holder less.
    pub fn release_one(&mut self, block: u32) {
        let references = &mut self.references[block as usize];
        *references -= 1;
        if *references == 0 {
            if self.prefixes.contains(block) {
                self.n_kept += 1;
            } else {
                self.free.push(block);
            }
        }
    }

    /// Notes that `block`, which follows `parent` in a sequence that holds both, holds the rows of `token_ids`: all of its
    /// positions, or the first ones of a sequence's last block, which then must be released next. Returns the block that the
    /// sequence is to hold from now on: another one, with a holder more, where it held the same tokens already.
    #[must_use]
    pub fn record(&mut self, parent: Option<u32>, block: u32, token_ids: &[u32]) -> u32 {
        if let Some((twin, common)) = self.prefixes.longest_match(parent, token_ids)
            && common == token_ids.len()
        {
            // A last block that another one covers needs no record.
            if token_ids.len() < BLOCK {
                return block;
            }
            self.hold(twin);
            self.release_one(block);
            return twin;
        }
        for covered in self.prefixes.remove_covered(parent, token_ids) {
            // Only last blocks are covered, and no sequence holds one that is recorded.
            self.n_kept -= 1;
            self.free.push(covered);
        }
        self.prefixes.insert(parent, block, token_ids, self.clock);
        block
    }

    /// Frees the `n` kept blocks that were used least recently.
    fn evict(&mut self, n: usize) {
        if n == 0 {
            return;
        }
        for block in self.prefixes.oldest(n, |block| self.references[block as usize] == 0) {
            self.prefixes.remove_leaf(block);
            self.n_kept -= 1;
            self.free.push(block);
        }
    }
}
