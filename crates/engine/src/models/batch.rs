//! One step's tokens: a ragged batch of runs from several sequences.

use std::ops::Range;

/// What one forward pass computes. Buffers are kept between steps, so that filling a batch allocates nothing once warm.
#[derive(Debug, Default)]
pub struct Batch {
    token_ids: Vec<u32>,
    positions: Vec<usize>,
    outputs: Vec<u32>,
    blocks: Vec<u32>,
    segments: Vec<Segment>,
}

/// Consecutive rows of one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Rows of the batch.
    pub rows: Range<usize>,
    /// Position of the first row; the others follow it.
    pub first_pos: usize,
    blocks: Range<usize>,
}

impl Batch {
    /// Forgets all rows.
    pub fn clear(&mut self) {
        self.token_ids.clear();
        self.positions.clear();
        self.outputs.clear();
        self.blocks.clear();
        self.segments.clear();
    }

    /// Adds a run of one sequence: its tokens from `first_pos` on, the blocks that hold its positions (the run's own
    /// included), and from which index of the run on logits are wanted.
    pub fn push(&mut self, token_ids: &[u32], first_pos: usize, blocks: &[u32], logits_from: usize) {
        let first_row = self.token_ids.len();
        let first_block = self.blocks.len();
        self.token_ids.extend_from_slice(token_ids);
        self.positions.extend(first_pos..first_pos + token_ids.len());
        self.blocks.extend_from_slice(blocks);
        self.outputs.extend((logits_from..token_ids.len()).map(|index| (first_row + index) as u32));
        self.segments.push(Segment { rows: first_row..self.token_ids.len(), first_pos, blocks: first_block..self.blocks.len() });
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.token_ids.len()
    }

    /// Whether there is nothing to compute.
    pub fn is_empty(&self) -> bool {
        self.token_ids.is_empty()
    }

    /// Whether every row is of another sequence, as in decode.
    pub fn is_decode(&self) -> bool {
        self.segments.len() == self.len()
    }

    /// The token of each row.
    pub fn token_ids(&self) -> &[u32] {
        &self.token_ids
    }

    /// The position of each row in its sequence.
    pub fn positions(&self) -> &[usize] {
        &self.positions
    }

    /// Rows that ask for logits, ascending.
    pub fn outputs(&self) -> &[u32] {
        &self.outputs
    }

    /// The runs, in row order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The KV blocks of a run's sequence, in position order.
    pub fn blocks(&self, segment: &Segment) -> &[u32] {
        &self.blocks[segment.blocks.clone()]
    }
}
