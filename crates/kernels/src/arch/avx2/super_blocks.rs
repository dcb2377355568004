//! Q4_K and Q5_K: blocks of 256 with a six-bit scale and minimum per 32. Products of quants are scaled in integers, and a
//! block is one conversion to f32.

use super::quants::Quants;
use super::{f16_at, prefetch, sum};
use crate::blocks::DType;
use crate::quantize::{Activations, Q8K};
use std::arch::x86_64::*;
use std::array;
use std::ops::Range;

/// As [`crate::table::DotRows`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn dot_rows<F: Quants>(_: DType, w: &[u8], k: usize, acts: &Activations, rows: Range<usize>, out: &mut [f32]) {
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
unsafe fn dot<F: Quants, const M: usize>(w: &[u8], k: usize, acts: &Activations, start: usize, out: &mut [f32]) {
    let n_blocks = k / 256;
    let row_bytes = n_blocks * F::BYTES;
    let n = w.len() / row_bytes;
    assert!(k == acts.cols() && out.len() >= M * n);
    let x: [Q8K<'_>; M] = array::from_fn(|i| acts.q8k_row(start + i));
    for r in 0..n {
        let mut acc = [(_mm256_setzero_ps(), _mm_setzero_ps()); M];
        let row = w[r * row_bytes..][..row_bytes].as_ptr();
        for b in 0..n_blocks {
            // SAFETY: block `b` lies within `row_bytes` bytes of `row`; a row of activations has at least
            // `acts.cols()` = `k` columns.
            unsafe { block::<F, M>(row.add(b * F::BYTES), b, &x, &mut acc) };
        }
        for (i, (acc, mins)) in acc.iter().enumerate() {
            out[i * n + r] = sum(_mm256_sub_ps(*acc, _mm256_zextps128_ps256(*mins)));
        }
    }
}

/// The eight scales and the eight minima of a header (the first 16 bytes of a block), as i16.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn scales_and_mins(header: __m128i) -> (__m128i, __m128i) {
    const Z: i8 = -1;
    let pick = |bytes| _mm_shuffle_epi8(header, bytes);
    let low_bits = _mm_setr_epi8(63, 63, 63, 63, 15, 15, 15, 15, 63, 63, 63, 63, 15, 15, 15, 15);
    // Bytes 0..8 become the scales, 8..16 the minima; the low bits of the last four minima are high nibbles.
    let low = pick(_mm_setr_epi8(4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11, Z, Z, Z, Z));
    let nibbles = _mm_and_si128(_mm_srli_epi16::<4>(header), _mm_setr_epi32(0, 0, 0, 0x0f0f_0f0f));
    let high = pick(_mm_setr_epi8(Z, Z, Z, Z, 4, 5, 6, 7, Z, Z, Z, Z, 8, 9, 10, 11));
    let high = _mm_and_si128(_mm_srli_epi16::<2>(high), _mm_set1_epi8(0x30));
    let all = _mm_or_si128(_mm_or_si128(_mm_and_si128(low, low_bits), nibbles), high);
    (_mm_cvtepu8_epi16(all), _mm_cvtepu8_epi16(_mm_srli_si128::<8>(all)))
}

/// Adds the products of block `b`; the part of the minima is summed apart, with the other sign.
///
/// # Safety
/// A block at `block` is readable; the rows of `x` have at least `256 (b + 1)` columns.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn block<F: Quants, const M: usize>(block: *const u8, b: usize, x: &[Q8K<'_>; M], acc: &mut [(__m256, __m128); M]) {
    prefetch(block, F::BYTES);
    // SAFETY: every load is of the block or of columns below `256 (b + 1)` of `x`.
    unsafe {
        let (scales, mins) = scales_and_mins(_mm_loadu_si128(block.cast()));
        let (d, dmin) = (f16_at(block), f16_at(block.add(2)));
        let mut scaled = [_mm256_setzero_si256(); M];
        let mut sums = [_mm256_setzero_si256(); M];
        for (i, x) in x.iter().enumerate() {
            let multipliers = _mm_loadu_si128(x.multipliers.as_ptr().add(b * 8).cast());
            let x_sums = _mm_loadu_si128(x.sums.as_ptr().add(b * 8).cast());
            scaled[i] = _mm256_broadcastsi128_si256(_mm_mullo_epi16(scales, multipliers));
            let min_sums = _mm_cvtepi32_ps(_mm_madd_epi16(_mm_mullo_epi16(mins, multipliers), x_sums));
            acc[i].1 = _mm_fmadd_ps(min_sums, _mm_set1_ps(dmin * x.d.get_unchecked(b)), acc[i].1);
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
            acc[i].0 = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[i]), d, acc[i].0);
        }
    }
}
