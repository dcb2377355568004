//! Attention of a few query rows over any [`Simd`]: scores and mixes straight from the stored keys and values.

use super::simd::{Simd, exp2, tanh};
use super::{MixRows, ScoreMap};
use crate::kv::{KV_BLOCK, KvType};

const LINE_BYTES: usize = 64;
/// Keys whose dot products run side by side, which hides the latency of a multiply-add.
const KEYS: usize = 4;
/// Vectors in the longest unit of a stored row, that of Q8_0 with 8 lanes.
const UNIT_VECTORS: usize = 4;

/// How rows are stored, as units of a whole number of vectors.
trait Stored: Copy {
    /// Elements of a unit.
    const UNIT: usize;
    /// Bytes of a unit.
    const BYTES: usize;
    /// Widens a unit; vectors past it are zero.
    ///
    /// # Safety
    /// `BYTES` bytes are readable at `p`.
    unsafe fn load<S: Simd>(s: S, p: *const u8) -> [S::V; UNIT_VECTORS];
}

#[derive(Clone, Copy)]
struct F16;
#[derive(Clone, Copy)]
struct Q8;

impl Stored for F16 {
    const UNIT: usize = 16;
    const BYTES: usize = 32;
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const u8) -> [S::V; UNIT_VECTORS] {
        let mut unit = [s.splat(0.0); UNIT_VECTORS];
        for (i, v) in unit[..Self::UNIT / S::LANES].iter_mut().enumerate() {
            // SAFETY: the vectors make up the unit that the caller grants.
            *v = unsafe { s.load_f16(p.add(i * 2 * S::LANES)) };
        }
        unit
    }
}

impl Stored for Q8 {
    const UNIT: usize = 32;
    const BYTES: usize = 34;
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const u8) -> [S::V; UNIT_VECTORS] {
        let mut unit = [s.splat(0.0); UNIT_VECTORS];
        // SAFETY: the scale and the vectors make up the unit that the caller grants.
        let d = unsafe { s.splat_f16(p) };
        for (i, v) in unit[..Self::UNIT / S::LANES].iter_mut().enumerate() {
            // SAFETY: as above.
            *v = s.mul(d, unsafe { s.load_i8(p.add(2 + i * S::LANES)) });
        }
        unit
    }
}

/// Memory to fetch in step with what is read. Requests are spread evenly: a burst of them fills the buffers for missing
/// lines and stalls the loads behind it.
#[derive(Clone, Copy)]
struct Ahead {
    at: *const u8,
    /// 1, or 0 if there is nothing to fetch: then one line is asked for again and again, which costs less than a branch.
    on: usize,
}

impl Ahead {
    fn new(next: &[u8]) -> Self {
        Self { at: next.as_ptr(), on: usize::from(!next.is_empty()) }
    }

    /// Fetches about `BYTES` bytes from `offset` on; where that passes the end, it does no harm.
    #[inline(always)]
    fn fetch<S: Simd, const BYTES: usize>(self, s: S, offset: usize) {
        let mut line = 0;
        while line + LINE_BYTES <= BYTES {
            s.prefetch(self.at.wrapping_add((offset + line) * self.on));
            line += LINE_BYTES;
        }
    }
}

/// `OpsTable::score_rows`; `R` rows at a time where there are as many, at most 4.
#[inline(always)]
pub(super) fn score_rows<S: Simd, const R: usize>(s: S, kind: KvType, dim: usize, q: &[f32], k: &[u8], scores: &mut [f32], next: &[u8]) {
    match kind {
        KvType::F16 => score_stored::<S, F16, R>(s, dim, q, k, scores, next),
        KvType::Q8_0 => score_stored::<S, Q8, R>(s, dim, q, k, scores, next),
    }
}

#[inline(always)]
fn score_stored<S: Simd, T: Stored, const R: usize>(s: S, dim: usize, q: &[f32], k: &[u8], scores: &mut [f32], next: &[u8]) {
    let rows = q.len() / dim;
    let row_bytes = dim / T::UNIT * T::BYTES;
    let n_keys = k.len() / row_bytes;
    assert!(dim.is_multiple_of(T::UNIT) && q.len() == rows * dim && scores.len() >= rows * KV_BLOCK);
    assert!(k.len() == n_keys * row_bytes && n_keys <= KV_BLOCK);
    if n_keys == 0 {
        return;
    }
    let (q, scores) = (q.as_ptr(), scores.as_mut_ptr());
    for first in (0..n_keys).step_by(S::LANES) {
        let mut keys = Keys { k: k.as_ptr(), row_bytes, first, last: n_keys - 1, ahead: Ahead::new(next) };
        let mut row = 0;
        while row < rows {
            let n = if R >= 4 && rows - row >= 4 { 4 } else { (rows - row).min(2) };
            // SAFETY: rows from `row` on are below `rows`, keys are clamped to `last`, and scores reach to the end of the
            // row, which LANES keys do not pass: they divide KV_BLOCK.
            unsafe {
                let (q, scores) = (q.add(row * dim), scores.add(row * KV_BLOCK));
                match n {
                    4 => score_some::<S, T, 4>(s, dim, q, keys, scores),
                    2 => score_some::<S, T, 2>(s, dim, q, keys, scores),
                    _ => score_some::<S, T, 1>(s, dim, q, keys, scores),
                }
            }
            row += n;
            keys.ahead.on = 0;
        }
    }
}

/// Stored keys from `first` on; past `last` it is repeated.
#[derive(Clone, Copy)]
struct Keys {
    k: *const u8,
    row_bytes: usize,
    first: usize,
    last: usize,
    ahead: Ahead,
}

/// Scores of `LANES` keys against `R` rows; `KEYS * R` divides `LANES`.
///
/// # Safety
/// `q` has `R` rows of `dim`, `keys` as many bytes as it says, and `scores` `R` rows of KV_BLOCK in which `LANES` from
/// `keys.first` on exist.
#[inline(always)]
unsafe fn score_some<S: Simd, T: Stored, const R: usize>(s: S, dim: usize, q: *const f32, keys: Keys, scores: *mut f32) {
    // Keys of which one vector can hold the sums of all R rows.
    let per_sum = S::LANES / R;
    let mut done = 0;
    while done < S::LANES {
        let mut dots = [[[s.splat(0.0); KEYS]; R]; 4];
        // SAFETY: `q` and `keys` are as the caller grants.
        unsafe {
            // Written out: a loop that is not unrolled would keep the sums in memory.
            dots[0] = dot::<S, T, R>(s, dim, q, keys, done);
            if per_sum > KEYS {
                dots[1] = dot::<S, T, R>(s, dim, q, keys, done + KEYS);
            }
            if per_sum > 2 * KEYS {
                dots[2] = dot::<S, T, R>(s, dim, q, keys, done + 2 * KEYS);
                dots[3] = dot::<S, T, R>(s, dim, q, keys, done + 3 * KEYS);
            }
        }
        let mut acc = [s.splat(0.0); 16];
        for (i, acc) in acc[..S::LANES].iter_mut().enumerate() {
            let (r, key) = (i / per_sum, i % per_sum);
            *acc = dots[key / KEYS][r][key % KEYS];
        }
        let mut sums = [0f32; 16];
        // SAFETY: a vector fits in 16 values, and the scores are as the caller grants.
        unsafe {
            s.store(sums.as_mut_ptr(), s.sums(&acc[..S::LANES]));
            for (r, sums) in sums[..S::LANES].chunks_exact(per_sum).enumerate() {
                let to = scores.add(r * KV_BLOCK + keys.first + done);
                to.copy_from_nonoverlapping(sums.as_ptr(), per_sum);
            }
        }
        done += per_sum;
    }
}

/// Products of `R` rows with `KEYS` keys, still to be summed over the lanes.
///
/// # Safety
/// `q` has `R` rows of `dim`, and `keys` as many bytes as it says.
#[inline(always)]
unsafe fn dot<S: Simd, T: Stored, const R: usize>(s: S, dim: usize, q: *const f32, keys: Keys, offset: usize) -> [[S::V; KEYS]; R] {
    let mut acc = [[s.splat(0.0); KEYS]; R];
    let n_vectors = T::UNIT / S::LANES;
    // SAFETY: rows up to `last` are there, and a unit of each, since units divide `dim`.
    unsafe {
        let row = |i: usize| keys.k.add((keys.first + offset + i).min(keys.last) * keys.row_bytes);
        let rows = [row(0), row(1), row(2), row(3)];
        for unit in 0..dim / T::UNIT {
            let offset = (keys.first + offset) * keys.row_bytes + unit * KEYS * T::BYTES;
            keys.ahead.fetch::<S, { 2 * LINE_BYTES }>(s, offset);
            for (i, row) in rows.iter().enumerate() {
                let k = T::load(s, row.add(unit * T::BYTES));
                for (j, k) in k[..n_vectors].iter().enumerate() {
                    for (r, acc) in acc.iter_mut().enumerate() {
                        let q = s.load(q.add(r * dim + unit * T::UNIT + j * S::LANES));
                        acc[i] = s.mul_add(*k, q, acc[i]);
                    }
                }
            }
        }
    }
    acc
}

/// `OpsTable::online_softmax`.
#[inline(always)]
pub(super) fn online_softmax<S: Simd>(s: S, map: ScoreMap, scores: &mut [f32], max: &mut f32, sum: &mut f32) -> f32 {
    let n = scores.len();
    assert!(n <= KV_BLOCK);
    let n_vectors = n.div_ceil(S::LANES);
    // A copy filled up with -infinity, so that no vector is short.
    let mut block = [0f32; KV_BLOCK];
    block[..n].copy_from_slice(scores);
    let p = block.as_mut_ptr();
    let mut largest = s.splat(f32::NEG_INFINITY);
    let mut sums = s.splat(0.0);
    // SAFETY: whole vectors divide the block, and `n_vectors` of them do not exceed it.
    unsafe {
        for i in 0..n_vectors {
            s.store(p.add(i * S::LANES), map_score(s, map, s.load(p.add(i * S::LANES))));
        }
        for i in n..n_vectors * S::LANES {
            *p.add(i) = f32::NEG_INFINITY;
        }
        for i in 0..n_vectors {
            largest = s.max(s.load(p.add(i * S::LANES)), largest);
        }
    }
    let new_max = s.largest(largest).max(*max);
    // Nothing seen yet: any finite reference does, and 2^(-infinity - it) is 0.
    let reference = if new_max == f32::NEG_INFINITY { 0.0 } else { new_max };
    // SAFETY: as above.
    unsafe {
        for i in 0..n_vectors {
            let v = exp2(s, s.sub(s.load(p.add(i * S::LANES)), s.splat(reference)));
            s.store(p.add(i * S::LANES), v);
            sums = s.add(sums, v);
        }
    }
    scores.copy_from_slice(&block[..n]);
    let factor = (*max - reference).exp2();
    *max = new_max;
    *sum = *sum * factor + s.sum(sums);
    factor
}

/// `OpsTable::mix_rows`; `R` rows at a time where there are as many.
#[inline(always)]
pub(super) fn mix_rows<S: Simd, const R: usize>(s: S, kind: KvType, dim: usize, mix: MixRows<'_>, v: &[u8], acc: &mut [f32], next: &[u8]) {
    match kind {
        KvType::F16 => mix_stored::<S, F16, R>(s, dim, mix, v, acc, next),
        KvType::Q8_0 => mix_stored::<S, Q8, R>(s, dim, mix, v, acc, next),
    }
}

#[inline(always)]
fn mix_stored<S: Simd, T: Stored, const R: usize>(s: S, dim: usize, mix: MixRows<'_>, v: &[u8], acc: &mut [f32], next: &[u8]) {
    let rows = acc.len() / dim;
    let row_bytes = dim / T::UNIT * T::BYTES;
    let n_keys = v.len() / row_bytes;
    assert!(dim.is_multiple_of(T::UNIT) && acc.len() == rows * dim && v.len() == n_keys * row_bytes);
    assert!(mix.first + n_keys <= KV_BLOCK && mix.weights.len() >= rows * KV_BLOCK && mix.factor.len() >= rows);
    let mut ahead = Ahead::new(next);
    let mut row = 0;
    while row < rows {
        let n = if R >= 4 && rows - row >= 4 { 4 } else { (rows - row).min(2) };
        // SAFETY: rows from `row` on are below `rows`, which weights, factors and accumulators have.
        unsafe {
            let mixed = Mixed {
                weights: mix.weights.as_ptr().add(row * KV_BLOCK + mix.first),
                factor: mix.factor.as_ptr().add(row),
                v: v.as_ptr(),
                n_keys,
                row_bytes,
                acc: acc.as_mut_ptr().add(row * dim),
                dim,
            };
            match n {
                4 => mixed.columns::<S, T, 4>(s, ahead),
                2 => mixed.columns::<S, T, 2>(s, ahead),
                _ => mixed.columns::<S, T, 1>(s, ahead),
            }
        }
        row += n;
        ahead.on = 0;
    }
}

/// A few rows of weights, the stored values they belong to, and the rows they are mixed into.
#[derive(Clone, Copy)]
struct Mixed {
    weights: *const f32,
    factor: *const f32,
    v: *const u8,
    n_keys: usize,
    row_bytes: usize,
    acc: *mut f32,
    dim: usize,
}

impl Mixed {
    /// All columns, in ranges of as many units as registers hold.
    ///
    /// # Safety
    /// The pointers have `R` rows, and `v` `n_keys` rows of `dim` elements.
    #[inline(always)]
    unsafe fn columns<S: Simd, T: Stored, const R: usize>(self, s: S, ahead: Ahead) {
        // Half of the registers accumulate: 16 of 32 vectors of 16 lanes, 8 of 16 of 8 lanes.
        let units = (S::LANES / R).min(8) * S::LANES / T::UNIT;
        let n_units = self.dim / T::UNIT;
        let mut unit = 0;
        while unit < n_units {
            let left = n_units - unit;
            // SAFETY: the units are within `dim`; the rest is the caller's contract.
            unsafe {
                if units >= 8 && left >= 8 {
                    self.some::<S, T, R, 8>(s, unit, ahead);
                    unit += 8;
                } else if units >= 4 && left >= 4 {
                    self.some::<S, T, R, 4>(s, unit, ahead);
                    unit += 4;
                } else if units >= 2 && left >= 2 {
                    self.some::<S, T, R, 2>(s, unit, ahead);
                    unit += 2;
                } else {
                    self.some::<S, T, R, 1>(s, unit, ahead);
                    unit += 1;
                }
            }
        }
    }

    /// `U` units from `unit` on.
    ///
    /// # Safety
    /// As `columns`, and the units are within `dim`.
    #[inline(always)]
    unsafe fn some<S: Simd, T: Stored, const R: usize, const U: usize>(self, s: S, unit: usize, ahead: Ahead) {
        let n_vectors = T::UNIT / S::LANES;
        // SAFETY: all offsets are within the rows and units that the caller grants.
        unsafe {
            let at = |r: usize, u: usize, i: usize| r * self.dim + (unit + u) * T::UNIT + i * S::LANES;
            let mut acc = [[[s.splat(0.0); UNIT_VECTORS]; U]; R];
            for (r, acc) in acc.iter_mut().enumerate() {
                let factor = s.splat(*self.factor.add(r));
                for (u, acc) in acc.iter_mut().enumerate() {
                    for (i, acc) in acc[..n_vectors].iter_mut().enumerate() {
                        *acc = s.mul(factor, s.load(self.acc.add(at(r, u, i))));
                    }
                }
            }
            for j in 0..self.n_keys {
                let row = self.v.add(j * self.row_bytes + unit * T::BYTES);
                let mut weights = [s.splat(0.0); R];
                for (r, weight) in weights.iter_mut().enumerate() {
                    *weight = s.splat(*self.weights.add(r * KV_BLOCK + j));
                }
                for u in 0..U {
                    if u * T::BYTES % LINE_BYTES < T::BYTES {
                        ahead.fetch::<S, LINE_BYTES>(s, j * self.row_bytes + (unit + u) * T::BYTES);
                    }
                    let v = T::load(s, row.add(u * T::BYTES));
                    for (r, acc) in acc.iter_mut().enumerate() {
                        for i in 0..n_vectors {
                            acc[u][i] = s.mul_add(weights[r], v[i], acc[u][i]);
                        }
                    }
                }
            }
            for (r, acc) in acc.iter().enumerate() {
                for (u, acc) in acc.iter().enumerate() {
                    for (i, acc) in acc[..n_vectors].iter().enumerate() {
                        s.store(self.acc.add(at(r, u, i)), *acc);
                    }
                }
            }
        }
    }
}

/// A score in bits: scaled, capped.
#[inline(always)]
pub(super) fn map_score<S: Simd>(s: S, map: ScoreMap, score: S::V) -> S::V {
    match map {
        ScoreMap::Scaled { scale } => s.mul(score, s.splat(scale)),
        ScoreMap::Capped { inner, cap } => s.mul(tanh(s, s.mul(score, s.splat(inner))), s.splat(cap)),
    }
}
