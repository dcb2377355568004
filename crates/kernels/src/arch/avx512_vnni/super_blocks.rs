//! Q4_K and Q5_K: blocks of 256 with a six-bit scale and minimum per 32.
//! The headers of four blocks are unpacked in one register; products of quants are scaled in integers, and a block is one
//! conversion to f32.

use super::{dpwssd, prefetch};
use crate::blocks::DType;
use crate::quantize::{Activations, Q8K};
use std::arch::x86_64::*;
use std::array;
use std::ops::Range;

/// What differs between the formats.
pub(in crate::arch) trait SuperBlock {
    /// Of a block; the header is its first 16.
    const BYTES: usize;

    /// Quants `64 z` .. `64 z + 64` of a block, in order.
    ///
    /// # Safety
    /// A block at `block` is readable, `z` is below 4, and the machine has the features of this module.
    unsafe fn quants(block: *const u8, z: usize) -> __m512i;
}

/// As [`crate::table::DotRows`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn dot_rows<F: SuperBlock>(_: DType, w: &[u8], k: usize, acts: &Activations, rows: Range<usize>, out: &mut [f32]) {
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
unsafe fn dot<F: SuperBlock, const M: usize>(w: &[u8], k: usize, acts: &Activations, start: usize, out: &mut [f32]) {
    let n_blocks = k / 256;
    let row_bytes = n_blocks * F::BYTES;
    let n = w.len() / row_bytes;
    assert!(k == acts.cols() && out.len() >= M * n);
    let x: [Q8K<'_>; M] = array::from_fn(|i| acts.q8k_row(start + i));
    for r in 0..n {
        let mut acc = [_mm512_setzero_ps(); M];
        let row = w[r * row_bytes..][..row_bytes].as_ptr();
        let mut b = 0;
        // SAFETY: blocks below `n_blocks` lie within `row_bytes` bytes of `row`; a row of activations has at least
        // `acts.cols()` = `k` columns, padded to a multiple of four blocks.
        unsafe {
            while b + 4 <= n_blocks {
                four::<F, M, 4>(row.add(b * F::BYTES), b, &x, &mut acc);
                b += 4;
            }
            let rest = row.wrapping_add(b * F::BYTES);
            match n_blocks - b {
                0 => {}
                1 => four::<F, M, 1>(rest, b, &x, &mut acc),
                2 => four::<F, M, 2>(rest, b, &x, &mut acc),
                _ => four::<F, M, 3>(rest, b, &x, &mut acc),
            }
        }
        for (i, acc) in acc.iter().enumerate() {
            out[i * n + r] = _mm512_reduce_add_ps(*acc);
        }
    }
}

/// Words to take for each half of the products of 64 quants: row `4 j + z` spreads scales `2 z` and `2 z + 1` of block `j`.
static SPREAD: [[u16; 32]; 16] = {
    let mut spread = [[0; 32]; 16];
    let mut i = 0;
    while i < 16 * 32 {
        spread[i / 32][i % 32] = (i / 32 * 2 + i % 32 / 16) as u16;
        i += 1;
    }
    spread
};

/// Adds the products of blocks `b` .. `b + N`, `N` at most 4.
///
/// # Safety
/// `N` blocks at `blocks` are readable; the rows of `x` have at least `256 (b + 4)` columns.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline]
unsafe fn four<F: SuperBlock, const M: usize, const N: usize>(blocks: *const u8, b: usize, x: &[Q8K<'_>; M], acc: &mut [__m512; M]) {
    const Z: i8 = -1;
    prefetch(blocks, N * F::BYTES);
    // SAFETY: every load is of the first `N` blocks, of columns below `256 (b + 4)` of `x`, or of a row of SPREAD.
    unsafe {
        let header = |i: usize| {
            if i < N { _mm_loadu_si128(blocks.add(i * F::BYTES).cast()) } else { _mm_setzero_si128() }
        };
        let headers = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(header(0)), header(1));
        let headers = _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(headers, header(2)), header(3));

        // As words: the bytes that hold the low bits of the eight scales, and for the last four those with their high bits.
        let pick = |bytes: __m128i| _mm512_shuffle_epi8(headers, _mm512_broadcast_i32x4(bytes));
        let scales = pick(_mm_setr_epi8(4, Z, 5, Z, 6, Z, 7, Z, 12, Z, 13, Z, 14, Z, 15, Z));
        let scales_high = pick(_mm_setr_epi8(Z, Z, Z, Z, Z, Z, Z, Z, 4, Z, 5, Z, 6, Z, 7, Z));
        let mins = pick(_mm_setr_epi8(8, Z, 9, Z, 10, Z, 11, Z, 12, Z, 13, Z, 14, Z, 15, Z));
        let mins_high = pick(_mm_setr_epi8(Z, Z, Z, Z, Z, Z, Z, Z, 8, Z, 9, Z, 10, Z, 11, Z));
        let low_bits = _mm512_broadcast_i32x4(_mm_setr_epi16(63, 63, 63, 63, 15, 15, 15, 15));
        let high_bits = _mm512_set1_epi16(0x30);
        let combine = |low, high| {
            let high = _mm512_and_si512(_mm512_srli_epi16::<2>(high), high_bits);
            _mm512_ternarylogic_epi64::<0xea>(low, low_bits, high) // low & low_bits | high
        };
        let scales = combine(scales, scales_high);
        let shift = _mm512_broadcast_i32x4(_mm_setr_epi16(0, 0, 0, 0, 4, 4, 4, 4));
        let mins = combine(_mm512_srlv_epi16(mins, shift), mins_high);

        // Lane `i`: d, and dmin, of block `i`.
        let d_at = _mm512_castsi256_si512(_mm256_setr_epi16(0, 0, 0, 0, 8, 8, 8, 8, 16, 16, 16, 16, 24, 24, 24, 24));
        let dmin_at = _mm512_castsi256_si512(_mm256_setr_epi16(1, 1, 1, 1, 9, 9, 9, 9, 17, 17, 17, 17, 25, 25, 25, 25));
        let d = _mm512_cvtph_ps(_mm512_castsi512_si256(_mm512_permutexvar_epi16(d_at, headers)));
        let dmin = _mm512_cvtph_ps(_mm512_castsi512_si256(_mm512_permutexvar_epi16(dmin_at, headers)));
        let lane = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);

        let mut scaled = [_mm512_setzero_si512(); M];
        let mut ds = [_mm512_setzero_ps(); M];
        for (i, x) in x.iter().enumerate() {
            let multipliers = _mm512_loadu_si512(x.multipliers.as_ptr().add(b * 8).cast());
            let sums = _mm512_loadu_si512(x.sums.as_ptr().add(b * 8).cast());
            let dx = _mm512_permutexvar_ps(lane, _mm512_castps128_ps512(_mm_loadu_ps(x.d.as_ptr().add(b))));
            scaled[i] = _mm512_mullo_epi16(scales, multipliers);
            let min_sums = _mm512_madd_epi16(_mm512_mullo_epi16(mins, multipliers), sums);
            acc[i] = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(min_sums), _mm512_mul_ps(dmin, dx), acc[i]);
            ds[i] = _mm512_mul_ps(d, dx);
        }
        for j in 0..N {
            let mut sums = [_mm512_setzero_si512(); M];
            for z in 0..4 {
                let quants = F::quants(blocks.add(j * F::BYTES), z);
                let spread = _mm512_loadu_si512(SPREAD[j * 4 + z].as_ptr().cast());
                for (i, x) in x.iter().enumerate() {
                    let x = _mm512_loadu_si512(x.qs.as_ptr().add((b + j) * 256 + z * 64).cast());
                    let products = _mm512_maddubs_epi16(quants, x);
                    sums[i] = dpwssd(sums[i], products, _mm512_permutexvar_epi16(spread, scaled[i]));
                }
            }
            for i in 0..M {
                let d = _mm512_permutexvar_ps(_mm512_set1_epi32(4 * j as i32), ds[i]);
                acc[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[i]), d, acc[i]);
            }
        }
    }
}
