//! Attention of a ragged batch over the paged key-value pool.
//! Owns the interface, its checks and the order of the two passes. `plan` divides the work, `items` does a part of it, and
//! the arithmetic is in `ops`.
//!
//! A few query rows (decode) go through the stored keys and values once, all heads of a block after one another, which
//! is the order of memory; several threads take different blocks and their partial results are merged (Flash-Decoding).
//! Many query rows (prefill) are cut into tiles of one key-value head with a running softmax (FlashAttention, Dao et al.
//! 2022), the rows of a tile lying in vector lanes. Query heads that share a key-value head are rows of the same product.

#![allow(unsafe_code)]

mod items;
mod plan;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::aligned::Aligned;
use crate::kv::{KV_BLOCK, KvLayer, KvLayout};
use crate::ops::Ops;
use crate::pool::{Chunks, Pool};
use plan::{SeqPlan, Sizes};

/// What is attended to and how.
#[derive(Clone, Copy, Debug)]
pub struct AttnParams<'a> {
    /// Query heads, a multiple of the layout's key-value heads: head h reads key-value head h / (n_heads / n_kv_heads).
    pub n_heads: usize,
    /// Factor on q · k.
    pub scale: f32,
    /// A score s becomes `cap * tanh(s / cap)` after scaling.
    pub softcap: Option<f32>,
    /// A key is visible only while query position - key position < window; at least 1.
    pub window: Option<usize>,
    /// Per head, a logit that joins the softmax without a value (n_heads).
    pub sinks: Option<&'a [f32]>,
}

/// The rows of one sequence in the batch. All its keys up to the last of these rows are in the pool.
#[derive(Clone, Debug)]
pub struct AttnSeq<'a> {
    /// Block of the pool for every 64 positions. Blocks wholly out of the window are not read.
    pub blocks: &'a [u32],
    /// Rows of q that are this sequence's, at consecutive positions.
    pub q_rows: Range<usize>,
    /// Position of the first of them.
    pub first_pos: usize,
}

/// Memory of [`Ops::attention`], planned once for a model and a pool.
pub struct AttnScratch {
    layout: KvLayout,
    n_heads: usize,
    workers: Vec<Aligned<f32>>,
    /// Accumulators of partial results, then (max, sum) of each.
    partials: Aligned<f32>,
    n_partials: usize,
    plans: Vec<SeqPlan>,
}

impl AttnScratch {
    /// For pools of this layout, `n_heads` query heads, at most `threads` threads, and usually up to `max_seqs` sequences
    /// a batch.
    pub fn new(layout: KvLayout, n_heads: usize, threads: usize, max_seqs: usize) -> Self {
        let sizes = Sizes::new(&layout, n_heads);
        // Enough for one sequence in decode to be cut into four parts a thread.
        let n_partials = 4 * threads * n_heads;
        Self {
            layout,
            n_heads,
            workers: (0..threads.max(1)).map(|_| Aligned::zeroed(sizes.worker_len())).collect(),
            partials: Aligned::zeroed(n_partials * (sizes.v_dim + 2)),
            n_partials,
            plans: Vec::with_capacity(max_seqs),
        }
    }
}

impl Ops {
    /// `out[row, h] = softmax(scale * q[row, h] · K) V` over the keys visible to the row: those of its sequence at its
    /// position or before, within the window. `q` (m, n_heads * k_dim), `out` (m, n_heads * v_dim).
    ///
    /// Sequences come in the order of their rows; rows of no sequence are left alone. Panics if shapes contradict each
    /// other or `scratch`, a block is out of the pool, or a row belongs to two sequences.
    #[allow(clippy::too_many_arguments)] // a kernel's operands, each named at the call by its type
    pub fn attention(
        &self,
        pool: &Pool,
        params: &AttnParams<'_>,
        kv: &KvLayer<'_>,
        seqs: &[AttnSeq<'_>],
        q: &[f32],
        out: &mut [f32],
        scratch: &mut AttnScratch,
    ) {
        check(params, kv, seqs, q, out, scratch);
        let sizes = Sizes::new(&kv.layout, params.n_heads);
        let threads = pool.threads().min(scratch.workers.len());
        let n_items = plan::plan(&sizes, params, seqs, threads, scratch.n_partials, &mut scratch.plans);
        let (acc, stats) = scratch.partials.split_at_mut(scratch.n_partials * sizes.v_dim);
        let batch = items::Batch {
            table: self.table,
            sizes,
            params: *params,
            kv: *kv,
            seqs,
            plans: &scratch.plans,
            q,
            out: items::SharedRows::new(out, kv.layout.v_dim),
            partial_acc: items::SharedRows::new(acc, sizes.v_dim),
            partial_stats: items::SharedRows::new(stats, 2),
        };
        let workers = items::SharedWorkers::new(&mut scratch.workers);
        let chunks = Chunks::new(n_items, 1);
        let (batch, workers, chunks) = (&batch, &workers, &chunks);
        pool.run(move |worker, _| {
            // SAFETY: the pool runs each worker index once per job, so no other thread has this worker's buffer.
            let Some(buffer) = (unsafe { workers.get(worker) }) else { return };
            while let Some(items) = chunks.take() {
                for item in items {
                    // SAFETY: each item is handed out once, and different items write different rows.
                    unsafe { batch.run_item(item, buffer) };
                }
            }
        });
        if batch.plans.iter().any(|plan| plan.n_splits > 1) {
            let merges = Chunks::new(seqs.len() * params.n_heads, params.n_heads.div_ceil(threads));
            let merges = &merges;
            pool.run(move |_, _| {
                while let Some(units) = merges.take() {
                    for unit in units {
                        // SAFETY: each unit is handed out once and writes the rows of its own (sequence, head); the
                        // partial results it reads were written before the first job ended.
                        unsafe { batch.merge(unit / params.n_heads, unit % params.n_heads) };
                    }
                }
            });
        }
    }
}

fn check(params: &AttnParams<'_>, kv: &KvLayer<'_>, seqs: &[AttnSeq<'_>], q: &[f32], out: &[f32], scratch: &AttnScratch) {
    let KvLayout { n_kv_heads, k_dim, v_dim, .. } = kv.layout;
    let n_heads = params.n_heads;
    assert!(scratch.layout == kv.layout && scratch.n_heads == n_heads, "scratch planned for another shape");
    assert!(n_kv_heads > 0 && k_dim > 0 && v_dim > 0 && n_heads > 0, "an empty shape");
    assert!(n_heads.is_multiple_of(n_kv_heads), "{n_heads} heads over {n_kv_heads} key-value heads");
    assert!(params.window != Some(0), "a window of no positions");
    assert!(params.sinks.is_none_or(|sinks| sinks.len() == n_heads), "a sink for each head");
    let m = q.len() / (n_heads * k_dim);
    assert!(q.len() == m * n_heads * k_dim && out.len() == m * n_heads * v_dim, "lengths of q and out");
    let mut next_row = 0;
    for seq in seqs {
        assert!(next_row <= seq.q_rows.start && seq.q_rows.start <= seq.q_rows.end && seq.q_rows.end <= m, "rows of a sequence");
        next_row = seq.q_rows.end;
        let end = seq.first_pos + seq.q_rows.len();
        let first = params.window.map_or(0, |window| (seq.first_pos + 1).saturating_sub(window));
        assert!(seq.blocks.len() >= end.div_ceil(KV_BLOCK), "positions without a block");
        let used = &seq.blocks[first.min(end) / KV_BLOCK..end.div_ceil(KV_BLOCK)];
        assert!(used.iter().all(|&block| (block as usize) < kv.n_blocks()), "a block outside the pool");
    }
}
