//! Q6_K, Q3_K and Q2_K: blocks of 256 with a scale per 16.

use super::quants::Quants;
use super::{f16_at, prefetch, sum};
use crate::blocks::DType;
use crate::quantize::{Activations, Q8K};
use std::arch::x86_64::*;
use std::array;
use std::ops::Range;

/// What differs between the formats, besides their quants.
pub(super) trait GroupsOf16: Quants {
    /// Where `d` (f16) is in a block.
    const D: usize;
    /// Where `dmin` (f16) is, for formats with minima; the others' quants are too large by an offset.
    const DMIN: Option<usize>;
    /// That offset, in sixteenths.
    const OFFSET: f32;

    /// The sixteen scales, and minima if there are any, as bytes.
    ///
    /// # Safety
    /// A block at `block` is readable, and the machine has the features of this module.
    unsafe fn scales(block: *const u8) -> (__m128i, __m128i);
}

/// As [`crate::table::DotRows`].
#[target_feature(enable = "avx2,fma,f16c")]
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

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dot<F: GroupsOf16, const M: usize>(w: &[u8], k: usize, acts: &Activations, start: usize, out: &mut [f32]) {
    let n_blocks = k / 256;
    let row_bytes = n_blocks * F::BYTES;
    let n = w.len() / row_bytes;
    assert!(k == acts.cols() && out.len() >= M * n);
    let x: [Q8K<'_>; M] = array::from_fn(|i| acts.q8k_row(start + i));
    for r in 0..n {
        let mut acc = [_mm256_setzero_ps(); M];
        let row = w[r * row_bytes..][..row_bytes].as_ptr();
        for b in 0..n_blocks {
            // SAFETY: block `b` lies within `row_bytes` bytes of `row`; a row of activations has at least
            // `acts.cols()` = `k` columns.
            unsafe { block::<F, M>(row.add(b * F::BYTES), b, &x, &mut acc) };
        }
        for (i, acc) in acc.iter().enumerate() {
            out[i * n + r] = sum(*acc);
        }
    }
}

/// Adds the products of block `b`.
///
/// # Safety
/// A block at `block` is readable; the rows of `x` have at least `256 (b + 1)` columns.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn block<F: GroupsOf16, const M: usize>(block: *const u8, b: usize, x: &[Q8K<'_>; M], acc: &mut [__m256; M]) {
    prefetch(block, F::BYTES);
    // SAFETY: every load is of the block or of columns below `256 (b + 1)` of `x`.
    unsafe {
        let (scales, mins) = F::scales(block);
        // The scales of the first halves of the eight groups of 32 in one lane, those of the second halves in the other.
        let apart = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
        let scales = _mm256_cvtepi8_epi16(_mm_shuffle_epi8(scales, apart));
        let mins = _mm256_cvtepi8_epi16(_mm_shuffle_epi8(mins, apart));
        let d = f16_at(block.add(F::D));
        let mut scaled = [_mm256_setzero_si256(); M];
        let mut sums = [_mm256_setzero_si256(); M];
        for (i, x) in x.iter().enumerate() {
            let multipliers = _mm_loadu_si128(x.multipliers.as_ptr().add(b * 8).cast());
            let multipliers = _mm256_broadcastsi128_si256(multipliers);
            scaled[i] = _mm256_mullo_epi16(scales, multipliers);
            // -16 times the sums of the activations, in the order of the scales.
            let x_sums = _mm256_loadu_si256(x.sums16.as_ptr().add(b * 16).cast());
            let words_apart = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
            let x_sums = _mm256_shuffle_epi8(x_sums, _mm256_broadcastsi128_si256(words_apart));
            let x_sums = _mm256_permute4x64_epi64::<0xd8>(x_sums);
            let (offsets, d) = match F::DMIN {
                Some(at) => (_mm256_mullo_epi16(mins, multipliers), f16_at(block.add(at)) * 0.0625),
                None => (scaled[i], d * F::OFFSET * 0.0625),
            };
            let offsets = _mm256_cvtepi32_ps(_mm256_madd_epi16(offsets, x_sums));
            acc[i] = _mm256_fmadd_ps(offsets, _mm256_set1_ps(d * x.d.get_unchecked(b)), acc[i]);
        }
        for group in 0..8 {
            let quants = F::quants(block, group);
            let spread = _mm256_set1_epi16((2 * group + ((2 * group + 1) << 8)) as i16);
            for (i, x) in x.iter().enumerate() {
                let x = _mm256_loadu_si256(x.qs.as_ptr().add(b * 256 + group * 32).cast());
                let products = _mm256_maddubs_epi16(quants, x);
                let products = _mm256_madd_epi16(products, _mm256_shuffle_epi8(scaled[i], spread));
                sums[i] = _mm256_add_epi32(sums[i], products);
            }
        }
        for (i, x) in x.iter().enumerate() {
            let d = _mm256_set1_ps(d * x.d.get_unchecked(b));
            acc[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[i]), d, acc[i]);
        }
    }
}
