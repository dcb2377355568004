//! One item of attention: a range of heads, query rows and keys of one sequence, and the merge of partial results.
//! Does not own the arithmetic, which is the table's.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;

use super::plan::{Item, SeqPlan, Sizes, visible};
use super::{AttnParams, AttnSeq};
use crate::aligned::Aligned;
use crate::kv::{KV_BLOCK, KvLayer};
use crate::ops::{MixRows, OpsTable, STRIP, ScoreMap, TileColumns};
use crate::pool::share;

/// Rows of one slice that different threads write.
pub(super) struct SharedRows<'a> {
    start: *mut f32,
    len: usize,
    row_len: usize,
    slice: PhantomData<&'a mut [f32]>,
}

// SAFETY: it is a mutable slice lent to several threads; `row` asks its callers to keep them to different rows.
unsafe impl Sync for SharedRows<'_> {}

impl<'a> SharedRows<'a> {
    pub(super) fn new(slice: &'a mut [f32], row_len: usize) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), row_len, slice: PhantomData }
    }

    /// # Safety
    /// Nobody else uses row `i` while the result lives.
    #[allow(clippy::mut_from_ref)] // that is the purpose; the contract keeps the rows apart
    unsafe fn row(&self, i: usize) -> &mut [f32] {
        assert!((i + 1) * self.row_len <= self.len, "row {i} is past the end");
        // SAFETY: the row is within the slice by the assertion, and the caller's alone by the contract.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(i * self.row_len), self.row_len) }
    }
}

/// The workers' buffers, each for one thread at a time.
pub(super) struct SharedWorkers<'a> {
    start: *mut Aligned<f32>,
    len: usize,
    slice: PhantomData<&'a mut [Aligned<f32>]>,
}

// SAFETY: it is a mutable slice lent to several threads; `get` asks its callers to keep them to different elements.
unsafe impl Sync for SharedWorkers<'_> {}

impl<'a> SharedWorkers<'a> {
    pub(super) fn new(workers: &'a mut [Aligned<f32>]) -> Self {
        Self { start: workers.as_mut_ptr(), len: workers.len(), slice: PhantomData }
    }

    /// The buffer of worker `i`, if there is one.
    ///
    /// # Safety
    /// Nobody else uses buffer `i` while the result lives.
    #[allow(clippy::mut_from_ref)] // as `SharedRows::row`
    pub(super) unsafe fn get(&self, i: usize) -> Option<&mut [f32]> {
        // SAFETY: `i` is within the slice, and the caller's alone by the contract.
        (i < self.len).then(|| unsafe { &mut **self.start.add(i) })
    }
}

/// Everything the items of one batch share.
pub(super) struct Batch<'a> {
    pub table: &'static OpsTable,
    pub sizes: Sizes,
    pub params: AttnParams<'a>,
    pub kv: KvLayer<'a>,
    pub seqs: &'a [AttnSeq<'a>],
    pub plans: &'a [SeqPlan],
    pub q: &'a [f32],
    /// Row `token * n_heads + head`, of v_dim elements.
    pub out: SharedRows<'a>,
    /// Row `first_partial + (split * n_tokens + token) * n_heads + head`, of the padded v_dim.
    pub partial_acc: SharedRows<'a>,
    /// (max, sum) of the same rows.
    pub partial_stats: SharedRows<'a>,
}

/// Cuts `len` elements off the front of a worker's buffer.
fn cut<'a>(buffer: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    let (front, rest) = std::mem::take(buffer).split_at_mut(len);
    *buffer = rest;
    front
}

impl Batch<'_> {
    /// Does item `number` of the batch.
    ///
    /// # Safety
    /// Each number is passed once per batch, and nobody reads the outputs meanwhile.
    pub(super) unsafe fn run_item(&self, number: usize, buffer: &mut [f32]) {
        let seq_index = self.plans.partition_point(|plan| plan.first_item <= number) - 1;
        let (seq, plan) = (&self.seqs[seq_index], &self.plans[seq_index]);
        let item = plan.item(number - plan.first_item, self.sizes.n_kv_heads);
        let part = Part { batch: self, seq, plan, item };
        // SAFETY: items of a sequence differ in heads, rows or split, so they write different rows.
        unsafe { if plan.few() { part.few(buffer) } else { part.tile(buffer) } }
    }

    /// Merges the partial results of `head` of a sequence; nothing if it was not split.
    ///
    /// # Safety
    /// All items are done; each (sequence, head) is passed once.
    pub(super) unsafe fn merge(&self, seq_index: usize, head: usize) {
        let (seq, plan) = (&self.seqs[seq_index], &self.plans[seq_index]);
        if plan.n_splits == 1 {
            return;
        }
        let n_tokens = seq.q_rows.len();
        for token in 0..n_tokens {
            let at = |split: usize| plan.first_partial + (split * n_tokens + token) * self.sizes.n_heads + head;
            // SAFETY: all items are done, and the partial results of this head are read by this call alone.
            let stats = |split| unsafe {
                let stats = self.partial_stats.row(at(split));
                (stats[0], stats[1])
            };
            let max = (0..plan.n_splits).map(|split| stats(split).0).fold(f32::NEG_INFINITY, f32::max);
            let share_of = |split| if stats(split).1 == 0.0 { 0.0 } else { (stats(split).0 - max).exp2() };
            let sum = (0..plan.n_splits).map(|split| share_of(split) * stats(split).1).sum();
            let factor = self.final_factor(head, max, sum);
            // SAFETY: rows of different (sequence, head) differ, and each is passed once.
            let out = unsafe { self.out.row((seq.q_rows.start + token) * self.sizes.n_heads + head) };
            out.fill(0.0);
            for split in 0..plan.n_splits {
                // SAFETY: as for `stats`.
                let acc = unsafe { self.partial_acc.row(at(split)) };
                let factor = factor * share_of(split);
                for (out, acc) in out.iter_mut().zip(acc.iter()) {
                    *out += factor * acc;
                }
            }
        }
    }

    /// What an accumulator of weights relative to 2^`max` that add up to `sum` is multiplied by in the end.
    fn final_factor(&self, head: usize, max: f32, sum: f32) -> f32 {
        let (factor, sum) = match self.params.sinks {
            None => (1.0, sum),
            Some(sinks) => {
                let sink = sinks[head] * std::f32::consts::LOG2_E;
                let top = max.max(sink);
                let factor = (max - top).exp2();
                (factor, sum * factor + (sink - top).exp2())
            }
        };
        if sum == 0.0 { 0.0 } else { factor / sum }
    }
}

/// One item with its sequence.
struct Part<'a> {
    batch: &'a Batch<'a>,
    seq: &'a AttnSeq<'a>,
    plan: &'a SeqPlan,
    item: Item,
}

impl Part<'_> {
    fn token(&self, row: usize) -> usize {
        row / self.batch.sizes.group
    }

    /// Query head of a row under key-value head `kv_head`.
    fn head(&self, kv_head: usize, row: usize) -> usize {
        kv_head * self.batch.sizes.group + row % self.batch.sizes.group
    }

    fn q_row(&self, kv_head: usize, row: usize) -> &[f32] {
        let k_dim = self.batch.kv.layout.k_dim;
        let at = (self.seq.q_rows.start + self.token(row)) * self.batch.sizes.n_heads + self.head(kv_head, row);
        &self.batch.q[at * k_dim..(at + 1) * k_dim]
    }

    /// Positions of the keys a row sees.
    fn visible(&self, row: usize) -> Range<usize> {
        visible(&self.batch.params, self.seq.first_pos + self.token(row))
    }

    /// The same, as keys of the block that starts at `base`; empty ranges may lie anywhere in the block.
    fn visible_in_block(&self, row: usize, base: usize) -> Range<usize> {
        let visible = self.visible(row);
        let within = |pos: usize| pos.saturating_sub(base).min(KV_BLOCK);
        within(visible.start)..within(visible.end)
    }

    /// The blocks this item reads: its split of those its rows see.
    fn blocks(&self) -> Range<usize> {
        let (first, last) = (self.item.rows.start, self.item.rows.end - 1);
        let start = self.visible(first).start / KV_BLOCK;
        let n = self.visible(last).end.div_ceil(KV_BLOCK) - start;
        let part = share(n, 1, self.item.split, self.plan.n_splits);
        start + part.start..start + part.end
    }

    fn map(&self) -> ScoreMap {
        ScoreMap::new(self.batch.params.scale, self.batch.params.softcap)
    }

    /// Writes the result of a row: final, or partial if the keys were split.
    ///
    /// # Safety
    /// This item is the only one to write the row.
    unsafe fn finish(&self, kv_head: usize, row: usize, max: f32, sum: f32, acc: &[f32]) {
        let (batch, head, token) = (self.batch, self.head(kv_head, row), self.token(row));
        if self.plan.n_splits == 1 {
            let factor = batch.final_factor(head, max, sum);
            // SAFETY: by the contract.
            let out = unsafe { batch.out.row((self.seq.q_rows.start + token) * batch.sizes.n_heads + head) };
            out.iter_mut().zip(acc).for_each(|(out, acc)| *out = acc * factor);
        } else {
            let n_tokens = self.seq.q_rows.len();
            let at = self.plan.first_partial + (self.item.split * n_tokens + token) * batch.sizes.n_heads + head;
            // SAFETY: by the contract.
            let (out, stats) = unsafe { (batch.partial_acc.row(at), batch.partial_stats.row(at)) };
            out.copy_from_slice(acc);
            stats.copy_from_slice(&[max, sum]);
        }
    }

    /// A few rows: keys and values as they are stored, all heads of a block before the next block.
    ///
    /// # Safety
    /// This item is the only one to write its rows.
    unsafe fn few(&self, mut buffer: &mut [f32]) {
        let Sizes { k_dim, v_dim, .. } = self.batch.sizes;
        let (kv, heads, rows) = (&self.batch.kv, &self.item.heads, self.plan.rows);
        let table = self.batch.table;
        let q = cut(&mut buffer, heads.len() * rows * k_dim);
        let acc = cut(&mut buffer, heads.len() * rows * v_dim);
        let max = cut(&mut buffer, heads.len() * rows);
        let sum = cut(&mut buffer, heads.len() * rows);
        let factor = cut(&mut buffer, rows);
        let scores = cut(&mut buffer, rows * KV_BLOCK);
        for (i, q) in q.chunks_exact_mut(k_dim).enumerate() {
            let row = self.q_row(heads.start + i / rows, i % rows);
            q[..row.len()].copy_from_slice(row);
            q[row.len()..].fill(0.0);
        }
        acc.fill(0.0);
        max.fill(f32::NEG_INFINITY);
        sum.fill(0.0);
        let end = self.seq.first_pos + self.seq.q_rows.len();
        let blocks = self.blocks();
        for b in blocks.clone() {
            let n_keys = (end - b * KV_BLOCK).min(KV_BLOCK);
            let block = self.seq.blocks[b];
            let used = self.visible_in_block(0, b * KV_BLOCK).start.min(n_keys)..n_keys;
            for (i, head) in heads.clone().enumerate() {
                let (k, v) = (kv.k_rows(block, head, 0..n_keys), kv.v_rows(block, head, used.clone()));
                let next = if head + 1 < heads.end {
                    kv.k_rows(block, head + 1, 0..n_keys)
                } else if b + 1 < blocks.end {
                    let n_keys = (end - (b + 1) * KV_BLOCK).min(KV_BLOCK);
                    kv.k_rows(self.seq.blocks[b + 1], heads.start, 0..n_keys)
                } else {
                    &[]
                };
                let of_head = i * rows..(i + 1) * rows;
                let q = &q[i * rows * k_dim..(i + 1) * rows * k_dim];
                // SAFETY: an `Ops` exists only for an instruction set this machine has.
                unsafe { (table.score_rows)(kv.layout.kind, k_dim, q, k, scores, v) };
                let stats = max[of_head.clone()].iter_mut().zip(&mut sum[of_head.clone()]).zip(factor.iter_mut());
                for (row, ((max, sum), factor)) in stats.enumerate() {
                    let scores = &mut scores[row * KV_BLOCK..row * KV_BLOCK + n_keys];
                    let visible = self.visible_in_block(row, b * KV_BLOCK);
                    let (low, high) = (visible.start.min(n_keys), visible.end.min(n_keys));
                    let seen = if low < high { &mut scores[low..high] } else { &mut [][..] };
                    // SAFETY: as above.
                    *factor = unsafe { (table.online_softmax)(self.map(), seen, max, sum) };
                    scores[..low].fill(0.0);
                    scores[high.max(low)..].fill(0.0);
                }
                let mix = MixRows { weights: scores, first: used.start, factor };
                let acc = &mut acc[of_head.start * v_dim..of_head.end * v_dim];
                // SAFETY: as above.
                unsafe { (table.mix_rows)(kv.layout.kind, v_dim, mix, v, acc, next) };
            }
        }
        for (i, acc) in acc.chunks_exact(v_dim).enumerate() {
            // SAFETY: by the contract.
            unsafe { self.finish(heads.start + i / rows, i % rows, max[i], sum[i], acc) };
        }
    }

    /// Many rows of one head: a tile whose rows are vector lanes, against keys and values widened block by block.
    ///
    /// # Safety
    /// This item is the only one to write its rows.
    unsafe fn tile(&self, mut buffer: &mut [f32]) {
        let Sizes { k_dim, v_dim, .. } = self.batch.sizes;
        let (kv, head, rows) = (&self.batch.kv, self.item.heads.start, &self.item.rows);
        let (table, kind) = (self.batch.table, kv.layout.kind);
        let width = rows.len().next_multiple_of(STRIP);
        let qt = cut(&mut buffer, width * k_dim);
        let st = cut(&mut buffer, width * KV_BLOCK);
        let ot = cut(&mut buffer, width * v_dim);
        let [max, sum, factor, low, high] = [(); 5].map(|()| cut(&mut buffer, width));
        let wide = cut(&mut buffer, KV_BLOCK * k_dim.max(v_dim));
        for (i, strip) in qt.chunks_exact_mut(STRIP * k_dim).enumerate() {
            let q = &mut wide[..STRIP * k_dim];
            q.fill(0.0);
            for (q, row) in q.chunks_exact_mut(k_dim).zip(rows.clone().skip(i * STRIP)) {
                let row = self.q_row(head, row);
                q[..row.len()].copy_from_slice(row);
            }
            // SAFETY: an `Ops` exists only for an instruction set this machine has.
            unsafe { (table.transpose)(k_dim, q, strip) };
        }
        // SAFETY: as above.
        unsafe { (table.pack_queries)(k_dim, qt) };
        ot.fill(0.0);
        max.fill(f32::NEG_INFINITY);
        sum.fill(0.0);
        let last = rows.end - 1;
        for b in self.blocks() {
            let base = b * KV_BLOCK;
            let used = self.visible_in_block(rows.start, base).start..self.visible_in_block(last, base).end;
            let n_keys = used.end;
            let masked = self.visible_in_block(last, base).start > 0 || self.visible_in_block(rows.start, base).end < n_keys;
            for i in 0..if masked { width } else { 0 } {
                // Lanes beyond the last row do as it does; nobody reads them.
                let visible = self.visible_in_block((rows.start + i).min(last), base);
                (low[i], high[i]) = (visible.start as f32, visible.end as f32);
            }
            let block = self.seq.blocks[b];
            let (k, v) = (kv.k_rows(block, head, 0..n_keys), kv.v_rows(block, head, used.clone()));
            let visible = masked.then_some((&*low, &*high));
            let columns = TileColumns { visible, max, sum, factor };
            // SAFETY: an `Ops` exists only for an instruction set this machine has.
            unsafe {
                (table.widen_keys)(kind, k_dim, k, wide);
                (table.score_tile)(k_dim, n_keys, wide, qt, st);
                (table.softmax_tile)(self.map(), n_keys, st, columns);
                (table.widen_values)(kind, v_dim, v, wide);
                (table.mix_tile)(v_dim, used, wide, st, factor, ot);
            }
        }
        for (i, strip) in ot.chunks_exact(STRIP * v_dim).enumerate() {
            let acc = &mut wide[..STRIP * v_dim];
            // SAFETY: as above.
            unsafe { (table.transpose)(STRIP, strip, acc) };
            for (j, acc) in (i * STRIP..rows.len()).zip(acc.chunks_exact(v_dim)) {
                // SAFETY: by the contract.
                unsafe { self.finish(head, rows.start + j, max[j], sum[j], acc) };
            }
        }
    }
}
