//! The formats with blocks of 32 and a scale in f16: two blocks at a time, one in each lane of two registers.

use super::{prefetch, sum};
use crate::blocks::DType;
use crate::quantize::{Activations, Q8};
use std::arch::x86_64::*;
use std::array;
use std::ops::Range;

/// What differs between the formats. A weight is `d q + c`.
pub(super) trait GroupsOf32 {
    /// Of a block.
    const BYTES: usize;
    /// Where `c` is (f16), or by what `d` is multiplied to get it.
    const C: Offset;
    /// Quants are signed bytes; otherwise they are below 32.
    const SIGNED: bool;

    /// Quants 0..16 and 16..32 of two blocks.
    ///
    /// # Safety
    /// Two blocks at `blocks` are readable, and the machine has the features of this module.
    unsafe fn quants(blocks: *const u8) -> [__m256i; 2];
}

/// The part of a weight that its quant is not.
pub(super) enum Offset {
    At(usize),
    Times(f32),
}

/// As [`crate::table::DotRows`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn dot_rows<F: GroupsOf32>(_: DType, w: &[u8], k: usize, acts: &Activations, rows: Range<usize>, out: &mut [f32]) {
    let row_bytes = k / 32 * F::BYTES;
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
unsafe fn dot<F: GroupsOf32, const M: usize>(w: &[u8], k: usize, acts: &Activations, start: usize, out: &mut [f32]) {
    let n_blocks = k / 32;
    let row_bytes = n_blocks * F::BYTES;
    let n = w.len() / row_bytes;
    assert!(k == acts.cols() && out.len() >= M * n);
    let x: [Q8<'_>; M] = array::from_fn(|i| acts.q8_row(start + i));
    for r in 0..n {
        let mut acc = [(_mm256_setzero_ps(), _mm_setzero_ps()); M];
        let row = &w[r * row_bytes..][..row_bytes];
        let mut b = 0;
        // SAFETY: four blocks from `b` lie within `row`, or in the copy of its last ones, which is as large as four;
        // a row of activations has at least `acts.cols()` = `k` columns, padded to a multiple of four blocks.
        unsafe {
            while b + 4 <= n_blocks {
                let blocks = row.as_ptr().add(b * F::BYTES);
                prefetch(blocks, 4 * F::BYTES);
                four::<F, M>(blocks, b, &x, &mut acc);
                b += 4;
            }
            if b < n_blocks {
                let mut copy = [0; 4 * 34];
                let rest = &row[b * F::BYTES..];
                copy[..rest.len()].copy_from_slice(rest);
                four::<F, M>(copy.as_ptr(), b, &x, &mut acc);
            }
        }
        for (i, (acc, offset)) in acc.iter().enumerate() {
            out[i * n + r] = sum(_mm256_add_ps(*acc, _mm256_zextps128_ps256(*offset)));
        }
    }
}

/// The f16 at the same place in four consecutive blocks.
///
/// # Safety
/// Two bytes at `p + i * stride` are readable for `i` in 0..4.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn four_f16(p: *const u8, stride: usize) -> __m128 {
    // SAFETY: the caller's promise.
    let bits = |i: usize| u64::from(unsafe { p.add(i * stride).cast::<u16>().read_unaligned() }) << (16 * i);
    _mm_cvtph_ps(_mm_cvtsi64_si128((bits(0) | bits(1) | bits(2) | bits(3)).cast_signed()))
}

/// Adds the products of blocks `b` .. `b + 4`; the part of the offsets is summed apart.
///
/// # Safety
/// Four blocks at `blocks` are readable; the rows of `x` have at least `32 (b + 4)` columns.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn four<F: GroupsOf32, const M: usize>(blocks: *const u8, b: usize, x: &[Q8<'_>; M], acc: &mut [(__m256, __m128); M]) {
    const { assert!(F::BYTES <= 34, "the copy of the last blocks in a row holds four") };
    // SAFETY: the caller's promises; every load is of columns below `32 (b + 4)` of `x`.
    unsafe {
        let w_d = four_f16(blocks, F::BYTES);
        let w_c = match F::C {
            Offset::At(at) => four_f16(blocks.add(at), F::BYTES),
            Offset::Times(factor) => _mm_mul_ps(w_d, _mm_set1_ps(factor)),
        };
        let quants = [F::quants(blocks), F::quants(blocks.add(2 * F::BYTES))];
        for ((acc, offset), x) in acc.iter_mut().zip(x) {
            let d = _mm_mul_ps(w_d, _mm_loadu_ps(x.d.as_ptr().add(b)));
            *offset = _mm_fmadd_ps(w_c, _mm_loadu_ps(x.sums.as_ptr().add(b)), *offset);
            let ds = [
                _mm256_set_m128(_mm_shuffle_ps::<0x55>(d, d), _mm_shuffle_ps::<0>(d, d)),
                _mm256_set_m128(_mm_shuffle_ps::<0xff>(d, d), _mm_shuffle_ps::<0xaa>(d, d)),
            ];
            for (pair, ([first, second], d)) in quants.iter().zip(ds).enumerate() {
                let qs = x.qs.as_ptr().add(b * 32 + pair * 32);
                let x_first = _mm256_loadu_si256(qs.cast());
                let x_second = _mm256_loadu_si256(qs.add(64).cast());
                let ones = _mm256_set1_epi16(1);
                let sums = if F::SIGNED {
                    // The product of a size and a value with the other's sign: at most 2 * 128 * 127 for a pair.
                    let product = |q, x| {
                        let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(x, q));
                        _mm256_madd_epi16(pairs, ones)
                    };
                    _mm256_add_epi32(product(*first, x_first), product(*second, x_second))
                } else {
                    // At most 4 * 31 * 127 in sixteen bits.
                    let first = _mm256_maddubs_epi16(*first, x_first);
                    let second = _mm256_maddubs_epi16(*second, x_second);
                    _mm256_madd_epi16(_mm256_add_epi16(first, second), ones)
                };
                *acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), d, *acc);
            }
        }
    }
}
