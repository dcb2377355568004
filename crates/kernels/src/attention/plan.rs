//! Divides the attention of a batch into items of work. Pure.

use std::ops::Range;

use super::{AttnParams, AttnSeq};
use crate::kv::{KV_BLOCK, KvLayout};
use crate::ops::STRIP;
use crate::pool::share;

/// Query rows per key-value head up to which keys and values are used as they are stored; above, widening them
/// first pays.
pub(super) const FEW_ROWS: usize = 16;
/// Query rows in a tile: enough to hide the widening of a block, few enough that a tile's buffers stay in L2.
pub(super) const TILE_ROWS: usize = 128;

/// Shapes, with head dimensions padded as they are stored.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub n_heads: usize,
    pub n_kv_heads: usize,
    /// Query heads per key-value head.
    pub group: usize,
    pub k_dim: usize,
    pub v_dim: usize,
}

impl Sizes {
    pub(super) fn new(layout: &KvLayout, n_heads: usize) -> Self {
        let n_kv_heads = layout.n_kv_heads;
        Self {
            n_heads,
            n_kv_heads,
            group: n_heads / n_kv_heads.max(1),
            k_dim: layout.kind.padded(layout.k_dim),
            v_dim: layout.kind.padded(layout.v_dim),
        }
    }

    /// f32 in a worker's buffer: what `items::Tile` or `items::Few` cuts out of it.
    pub(super) fn worker_len(&self) -> usize {
        let few = FEW_ROWS * (self.n_kv_heads * (self.k_dim + self.v_dim + 3) + KV_BLOCK);
        let tile = TILE_ROWS * (self.k_dim + self.v_dim + KV_BLOCK + 5) + KV_BLOCK * self.k_dim.max(self.v_dim);
        few.max(tile)
    }
}

/// How one sequence is divided.
#[derive(Clone, Copy)]
pub(super) struct SeqPlan {
    /// Number of its first item in the batch.
    pub first_item: usize,
    /// Query rows per key-value head: tokens times group.
    pub rows: usize,
    /// Ranges of key-value heads.
    pub n_head_parts: usize,
    /// Ranges of query rows.
    pub n_tiles: usize,
    /// Ranges of the keys; more than one leaves partial results.
    pub n_splits: usize,
    /// Its first row of partial results.
    pub first_partial: usize,
}

/// One part of the work.
pub(super) struct Item {
    pub heads: Range<usize>,
    pub rows: Range<usize>,
    pub split: usize,
}

impl SeqPlan {
    pub(super) fn few(&self) -> bool {
        self.rows <= FEW_ROWS
    }

    pub(super) fn n_items(&self) -> usize {
        self.n_head_parts * self.n_tiles * self.n_splits
    }

    /// Item `i` of this sequence. The last rows see most keys, so they come first.
    pub(super) fn item(&self, i: usize, n_kv_heads: usize) -> Item {
        let (split, rest) = (i % self.n_splits, i / self.n_splits);
        let (part, tile) = (rest % self.n_head_parts, self.n_tiles - 1 - rest / self.n_head_parts);
        Item { heads: share(n_kv_heads, 1, part, self.n_head_parts), rows: share(self.rows, STRIP, tile, self.n_tiles), split }
    }
}

/// Positions of the keys that a row of a sequence sees.
pub(super) fn visible(params: &AttnParams<'_>, pos: usize) -> Range<usize> {
    params.window.map_or(0, |window| (pos + 1).saturating_sub(window))..pos + 1
}

/// Fills `plans`, one for each sequence; returns the number of items.
pub(super) fn plan(
    sizes: &Sizes,
    params: &AttnParams<'_>,
    seqs: &[AttnSeq<'_>],
    threads: usize,
    n_partials: usize,
    plans: &mut Vec<SeqPlan>,
) -> usize {
    plans.clear();
    let wanted = (4 * threads).div_ceil(seqs.len().max(1));
    let (mut n_items, mut first_partial) = (0, 0);
    for seq in seqs {
        let n_tokens = seq.q_rows.len();
        let rows = n_tokens * sizes.group;
        let end = seq.first_pos + n_tokens;
        let n_blocks = end.div_ceil(KV_BLOCK) - (visible(params, seq.first_pos).start / KV_BLOCK).min(end / KV_BLOCK);
        let mut plan = SeqPlan { first_item: n_items, rows, n_head_parts: 1, n_tiles: 1, n_splits: 1, first_partial };
        if rows == 0 {
            plan.n_tiles = 0;
        } else if plan.few() {
            // Long sequences are cut by position, which keeps the order of memory; short ones by head, without a merge.
            if threads > 1 && n_blocks < 2 * wanted {
                plan.n_head_parts = wanted.min(sizes.n_kv_heads);
            }
        } else {
            plan.n_head_parts = sizes.n_kv_heads;
            plan.n_tiles = rows.div_ceil(TILE_ROWS);
        }
        let n_whole = plan.n_head_parts * plan.n_tiles;
        if threads > 1 && n_whole > 0 && n_whole < wanted {
            let room = (n_partials - first_partial) / (n_tokens * sizes.n_heads);
            plan.n_splits = wanted.div_ceil(n_whole).min(n_blocks).min(room).max(1);
        }
        if plan.n_splits > 1 {
            first_partial += plan.n_splits * n_tokens * sizes.n_heads;
        }
        n_items += plan.n_items();
        plans.push(plan);
    }
    n_items
}
