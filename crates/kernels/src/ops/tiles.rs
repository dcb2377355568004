//! Attention of many query rows over any [`Simd`]: products of tiles whose rows are vector lanes.
//!
//! Both products are one kernel, `C[i][r] (+)= sum over k of A[i, k] * B[k][r]`: A is a widened key or value whose elements
//! are broadcast, B and C lie in strips of 16 rows r, so nothing is transposed and no sum crosses lanes.

use std::ops::Range;

use super::few::map_score;
use super::simd::{Simd, exp2};
use super::{STRIP, ScoreMap, TileColumns};
use crate::kv::KV_BLOCK;

/// Rows of A in registers: with the vectors of four strips they make 24 accumulators of 32, with those of one strip of 8
/// lanes 12 of 16.
const HEIGHT: usize = 6;

/// One product.
#[derive(Clone, Copy)]
struct Product {
    a: *const f32,
    /// Distance of neighbours in i, and in k.
    a_strides: (usize, usize),
    height: usize,
    depth: usize,
    /// Strips of (depth, 16).
    b: *const f32,
    b_strip: usize,
    /// Strips of (height, 16).
    c: *mut f32,
    c_strip: usize,
    /// What C is multiplied by first, per r; C is overwritten if there is none.
    factor: Option<*const f32>,
}

/// `OpsTable::score_tile`; `N` vectors at a time.
#[inline(always)]
pub(super) fn score_tile<S: Simd, const N: usize>(s: S, dim: usize, n_keys: usize, k: &[f32], qt: &[f32], st: &mut [f32]) {
    let n_strips = st.len() / (KV_BLOCK * STRIP);
    assert!(n_keys <= KV_BLOCK && k.len() >= n_keys * dim);
    assert!(qt.len() == n_strips * dim * STRIP && st.len() == n_strips * KV_BLOCK * STRIP);
    let product = Product {
        a: k.as_ptr(),
        a_strides: (dim, 1),
        height: n_keys,
        depth: dim,
        b: qt.as_ptr(),
        b_strip: dim * STRIP,
        c: st.as_mut_ptr(),
        c_strip: KV_BLOCK * STRIP,
        factor: None,
    };
    // SAFETY: the lengths asserted are those of the product.
    unsafe { product.run::<S, N>(s, n_strips) }
}

/// `OpsTable::mix_tile`; `N` vectors at a time.
#[inline(always)]
pub(super) fn mix_tile<S: Simd, const N: usize>(
    s: S,
    dim: usize,
    keys: Range<usize>,
    v: &[f32],
    pt: &[f32],
    factor: &[f32],
    ot: &mut [f32],
) {
    let n_strips = ot.len() / (dim * STRIP);
    assert!(v.len() >= keys.len() * dim && keys.end <= KV_BLOCK && factor.len() == n_strips * STRIP);
    assert!(ot.len() == n_strips * dim * STRIP && pt.len() == n_strips * KV_BLOCK * STRIP);
    let product = Product {
        a: v.as_ptr(),
        a_strides: (1, dim),
        height: dim,
        depth: keys.len(),
        b: pt[keys.start * STRIP..].as_ptr(),
        b_strip: KV_BLOCK * STRIP,
        c: ot.as_mut_ptr(),
        c_strip: dim * STRIP,
        factor: Some(factor.as_ptr()),
    };
    // SAFETY: the lengths asserted are those of the product.
    unsafe { product.run::<S, N>(s, n_strips) }
}

impl Product {
    /// `N` vectors of B at a time: a whole number of strips.
    ///
    /// # Safety
    /// The pointers have what the fields say, in `n_strips` strips.
    #[inline(always)]
    unsafe fn run<S: Simd, const N: usize>(self, s: S, n_strips: usize) {
        let per_strip = STRIP / S::LANES;
        let mut strip = 0;
        while strip < n_strips {
            let n = (N / per_strip).min(n_strips - strip);
            // SAFETY: strips from `strip` on, `n` of them, exist.
            unsafe {
                let part = Self {
                    b: self.b.add(strip * self.b_strip),
                    c: self.c.add(strip * self.c_strip),
                    factor: self.factor.map(|factor| factor.add(strip * STRIP)),
                    ..self
                };
                match n * per_strip {
                    n if n == N => part.rows::<S, N>(s),
                    3 => part.rows::<S, 3>(s),
                    2 => part.rows::<S, 2>(s),
                    _ => part.rows::<S, 1>(s),
                }
            }
            strip += n;
        }
    }

    /// # Safety
    /// The pointers have what the fields say, for `N` vectors of rows.
    #[inline(always)]
    unsafe fn rows<S: Simd, const N: usize>(self, s: S) {
        let mut i = 0;
        // SAFETY: rows from `i` on, as many as each branch takes, are below `height`.
        unsafe {
            while i + HEIGHT <= self.height {
                self.tile::<S, HEIGHT, N>(s, i);
                i += HEIGHT;
            }
            if i + 4 <= self.height {
                self.tile::<S, 4, N>(s, i);
                i += 4;
            }
            if i + 2 <= self.height {
                self.tile::<S, 2, N>(s, i);
                i += 2;
            }
            if i < self.height {
                self.tile::<S, 1, N>(s, i);
            }
        }
    }

    /// `M` rows of A from `i` on times `N` vectors of B.
    ///
    /// # Safety
    /// As `rows`, and `i + M <= height`.
    #[inline(always)]
    unsafe fn tile<S: Simd, const M: usize, const N: usize>(self, s: S, i: usize) {
        let per_strip = STRIP / S::LANES;
        // SAFETY: all offsets are within what the caller grants.
        unsafe {
            let mut c = [self.c; N];
            let mut b = [self.b; N];
            for (n, (c, b)) in c.iter_mut().zip(&mut b).enumerate() {
                *c = c.add(n / per_strip * self.c_strip + n % per_strip * S::LANES + i * STRIP);
                *b = b.add(n / per_strip * self.b_strip + n % per_strip * S::LANES);
            }
            let mut acc = [[s.splat(0.0); N]; M];
            if let Some(factor) = self.factor {
                for n in 0..N {
                    let factor = s.load(factor.add(n * S::LANES));
                    for (m, acc) in acc.iter_mut().enumerate() {
                        acc[n] = s.mul(factor, s.load(c[n].add(m * STRIP)));
                    }
                }
            }
            let (next_i, next_k) = self.a_strides;
            let mut a = self.a.add(i * next_i);
            for k in 0..self.depth {
                let mut rows = [s.splat(0.0); N];
                for (rows, b) in rows.iter_mut().zip(&b) {
                    *rows = s.load(b.add(k * STRIP));
                }
                for (m, acc) in acc.iter_mut().enumerate() {
                    let a = s.splat(*a.add(m * next_i));
                    for (acc, rows) in acc.iter_mut().zip(&rows) {
                        *acc = s.mul_add(a, *rows, *acc);
                    }
                }
                a = a.add(next_k);
            }
            for (m, acc) in acc.iter().enumerate() {
                for (acc, c) in acc.iter().zip(&c) {
                    s.store(c.add(m * STRIP), *acc);
                }
            }
        }
    }
}

/// `OpsTable::softmax_tile`.
#[inline(always)]
pub(super) fn softmax_tile<S: Simd>(s: S, map: ScoreMap, n_keys: usize, st: &mut [f32], columns: TileColumns<'_>) {
    let width = columns.max.len();
    assert!(width.is_multiple_of(STRIP) && st.len() == width * KV_BLOCK && n_keys <= KV_BLOCK);
    assert!(columns.sum.len() == width && columns.factor.len() == width);
    assert!(columns.visible.is_none_or(|(low, high)| low.len() == width && high.len() == width));
    let mut r = 0;
    while r < width {
        // SAFETY: column `r` and the LANES - 1 after it are in one strip, and all slices have `width` columns.
        unsafe {
            let scores = st.as_mut_ptr().add(r / STRIP * KV_BLOCK * STRIP + r % STRIP);
            let largest = if let (ScoreMap::Scaled { scale }, None) = (map, columns.visible)
                && scale >= 0.0
            {
                // The largest score is the scaled largest product, so scaling waits for the exponential.
                let mut largest = s.splat(f32::NEG_INFINITY);
                for j in 0..n_keys {
                    largest = s.max(s.load(scores.add(j * STRIP)), largest);
                }
                s.mul(largest, s.splat(scale))
            } else {
                let visible = columns.visible.map(|(low, high)| (s.load(low.as_ptr().add(r)), s.load(high.as_ptr().add(r))));
                map_column(s, map, n_keys, scores, visible)
            };
            let scale = match map {
                ScoreMap::Scaled { scale } if columns.visible.is_none() && scale >= 0.0 => scale,
                _ => 1.0,
            };
            let (max, sum) = (columns.max.as_mut_ptr().add(r), columns.sum.as_mut_ptr().add(r));
            let old_max = s.load(max);
            let new_max = s.max(largest, old_max);
            // Nothing seen yet: any finite reference does, and 2^(-infinity - it) is 0.
            let reference = s.max(new_max, s.splat(f32::MIN));
            let minus_reference = s.sub(s.splat(0.0), reference);
            let factor = exp2(s, s.sub(old_max, reference));
            let mut sums = s.splat(0.0);
            for j in 0..n_keys {
                let p = scores.add(j * STRIP);
                let v = exp2(s, s.mul_add(s.load(p), s.splat(scale), minus_reference));
                s.store(p, v);
                sums = s.add(sums, v);
            }
            s.store(max, new_max);
            s.store(sum, s.mul_add(s.load(sum), factor, sums));
            s.store(columns.factor.as_mut_ptr().add(r), factor);
        }
        r += S::LANES;
    }
}

/// Maps a vector of columns and sets what is not visible to -infinity; returns the largest of each.
///
/// # Safety
/// `scores` has `n_keys` rows at a distance of a strip.
#[inline(always)]
unsafe fn map_column<S: Simd>(s: S, map: ScoreMap, n_keys: usize, scores: *mut f32, visible: Option<(S::V, S::V)>) -> S::V {
    let minus_infinity = s.splat(f32::NEG_INFINITY);
    let mut largest = minus_infinity;
    for j in 0..n_keys {
        // SAFETY: row `j` is there by the contract.
        unsafe {
            let p = scores.add(j * STRIP);
            let mut v = map_score(s, map, s.load(p));
            if let Some((low, high)) = visible {
                let j = s.splat(j as f32);
                v = s.select(s.less(j, low), minus_infinity, s.select(s.less(j, high), v, minus_infinity));
            }
            s.store(p, v);
            largest = s.max(v, largest);
        }
    }
    largest
}
