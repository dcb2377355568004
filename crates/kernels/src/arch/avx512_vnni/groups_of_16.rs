//! Q6_K, Q3_K and Q2_K: blocks of 256 with a scale per 16.

use super::{dpwssd, prefetch, splat_f16};
use crate::blocks::DType;
use crate::quantize::{Activations, Q8K};
use std::arch::x86_64::*;
use std::array;
use std::ops::Range;

/// What differs between the formats.
pub(in crate::arch) trait GroupsOf16 {
    /// Of a block.
    const BYTES: usize;
    /// Where its `d` (f16) is.
    const D: usize;
    /// What is too much in the unsigned quants, for formats without minima.
    const OFFSET: f32;

    /// Quants `64 z` .. `64 z + 64` of a block, in order, with an offset that makes them unsigned.
    ///
    /// # Safety
    /// A block at `block` is readable, `z` is below 4, and the machine has the features of this module.
    unsafe fn quants(block: *const u8, z: usize) -> __m512i;

    /// The sixteen scales as i16.
    ///
    /// # Safety
    /// As for `quants`.
    unsafe fn scales(block: *const u8) -> __m256i;

    /// What the offset of the quants adds to a block's integer sum, in some lanes, given pairwise sums of
    /// scale * multiplier * -16 * (sum of 16 activations).
    fn offset(sums: __m256i) -> __m256i;

    /// The sixteen minima as i16 and the place of their `dmin` (f16), for formats that have them.
    ///
    /// # Safety
    /// As for `quants`.
    unsafe fn mins(block: *const u8) -> Option<(__m256i, usize)>;
}

/// As [`crate::table::DotRows`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn dot_rows<F: GroupsOf16>(_: DType, w: &[u8], k: usize, acts: &Activations, rows: Range<usize>, out: &mut [f32]) {
    let row_bytes = k / 256 * F::BYTES;
    let n = w.len().checked_div(row_bytes).unwrap_or(0);
    for (out, start) in out.chunks_mut((4 * n).max(1)).zip(rows.clone().step_by(4)) {
        // SAFETY: the features are this function's; shapes are checked inside.
        unsafe {
            match rows.end - start {
                1 => dot::<F, 1>(w, k, acts, start, out),
                2 => dot::<F, 2>(w, k, acts, start, out),
                3 => dot::<F, 3>(w, k, acts, start, out),
                _ => dot::<F, 4>(w, k, acts, start, out),
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn dot<F: GroupsOf16, const M: usize>(w: &[u8], k: usize, acts: &Activations, start: usize, out: &mut [f32]) {
    let n_blocks = k / 256;
    let row_bytes = n_blocks * F::BYTES;
    let n = w.len() / row_bytes;
    assert!(k == acts.cols() && out.len() >= M * n);
    let x: [Q8K<'_>; M] = array::from_fn(|i| acts.q8k_row(start + i));
    for r in 0..n {
        let mut acc = [_mm512_setzero_ps(); M];
        let row = w[r * row_bytes..][..row_bytes].as_ptr();
        for b in 0..n_blocks {
            // SAFETY: block `b` lies within `row_bytes` bytes of `row`; a row of activations has at least
            // `acts.cols()` = `k` columns.
            unsafe { block::<F, M>(row.add(b * F::BYTES), b, &x, &mut acc) };
        }
        for (i, acc) in acc.iter().enumerate() {
            out[i * n + r] = _mm512_reduce_add_ps(*acc);
        }
    }
}

/// Words to take for the products of 64 quants: row `z` spreads scales `4 z` .. `4 z + 4`.
static SPREAD: [[u16; 32]; 4] = {
    let mut spread = [[0; 32]; 4];
    let mut i = 0;
    while i < 4 * 32 {
        spread[i / 32][i % 32] = (i / 8) as u16;
        i += 1;
    }
    spread
};

/// Adds the products of block `b`.
///
/// # Safety
/// A block at `block` is readable; the rows of `x` have at least `256 (b + 1)` columns.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline]
unsafe fn block<F: GroupsOf16, const M: usize>(block: *const u8, b: usize, x: &[Q8K<'_>; M], acc: &mut [__m512; M]) {
    prefetch(block, F::BYTES);
    // SAFETY: every load is of the block, of columns below `256 (b + 1)` of `x`, or of a row of SPREAD.
    unsafe {
        let scales = F::scales(block);
        let d = splat_f16(block.add(F::D));
        let mins = F::mins(block);
        let mut scaled = [_mm512_setzero_si512(); M];
        let mut sums = [_mm512_setzero_si512(); M];
        for (i, x) in x.iter().enumerate() {
            let multipliers = _mm256_loadu_si256(x.multipliers16.as_ptr().add(b * 16).cast());
            let x_sums = _mm256_loadu_si256(x.sums16.as_ptr().add(b * 16).cast());
            let s = _mm256_mullo_epi16(scales, multipliers);
            scaled[i] = _mm512_castsi256_si512(s);
            if let Some((mins, dmin_at)) = mins {
                let min_sums = _mm256_madd_epi16(_mm256_mullo_epi16(mins, multipliers), x_sums);
                let min_sums = _mm512_cvtepi32_ps(_mm512_zextsi256_si512(min_sums));
                // The sums are -16 times what is meant.
                let dmin = _mm512_mul_ps(splat_f16(block.add(dmin_at)), _mm512_set1_ps(x.d.get_unchecked(b) * 0.0625));
                acc[i] = _mm512_fmadd_ps(min_sums, dmin, acc[i]);
            } else {
                sums[i] = _mm512_zextsi256_si512(F::offset(_mm256_madd_epi16(s, x_sums)));
            }
        }
        for (z, spread) in SPREAD.iter().enumerate() {
            let quants = F::quants(block, z);
            let spread = _mm512_loadu_si512(spread.as_ptr().cast());
            for (i, x) in x.iter().enumerate() {
                let x = _mm512_loadu_si512(x.qs.as_ptr().add(b * 256 + z * 64).cast());
                let products = _mm512_maddubs_epi16(quants, x);
                sums[i] = dpwssd(sums[i], products, _mm512_permutexvar_epi16(spread, scaled[i]));
            }
        }
        for (i, x) in x.iter().enumerate() {
            let d = _mm512_mul_ps(d, _mm512_set1_ps(*x.d.get_unchecked(b)));
            acc[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[i]), d, acc[i]);
        }
    }
}
