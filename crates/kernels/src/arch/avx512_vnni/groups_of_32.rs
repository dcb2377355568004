//! The formats with blocks of 32 and a scale in f16: four blocks at a time, block `i` in lane `i` of two registers.

use super::{Results, prefetch};
use crate::blocks::DType;
use crate::quantize::{Activations, Q8};
use std::arch::x86_64::*;
use std::array;
use std::ops::Range;

/// Four blocks as `w = d q + c` with unsigned `q`.
pub(in crate::arch) struct FourBlocks {
    /// Weights 0..16 of each block.
    pub(in crate::arch) first: __m512i,
    /// Weights 16..32 of each block.
    pub(in crate::arch) second: __m512i,
    pub(in crate::arch) d: __m128,
    pub(in crate::arch) c: __m128,
}

/// What differs between the formats.
pub(in crate::arch) trait GroupsOf32 {
    /// Of a block.
    const BYTES: usize;

    /// # Safety
    /// Four blocks at `blocks` are readable, and the machine has the features of this module.
    unsafe fn unpack(blocks: *const u8) -> FourBlocks;
}

/// The f16 at the same place in four consecutive blocks.
///
/// # Safety
/// Two bytes at `p + i * stride` are readable for `i` in 0..4.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline]
pub(super) unsafe fn four_f16(p: *const u8, stride: usize) -> __m128 {
    // SAFETY: the caller's promise.
    let bits = |i: usize| u64::from(unsafe { p.add(i * stride).cast::<u16>().read_unaligned() }) << (16 * i);
    _mm_cvtph_ps(_mm_cvtsi64_si128((bits(0) | bits(1) | bits(2) | bits(3)).cast_signed()))
}

/// As [`crate::table::DotRows`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
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

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn dot<F: GroupsOf32, const M: usize>(w: &[u8], k: usize, acts: &Activations, start: usize, out: &mut [f32]) {
    let n_blocks = k / 32;
    let row_bytes = n_blocks * F::BYTES;
    let n = w.len() / row_bytes;
    assert!(k == acts.cols() && out.len() >= M * n);
    let x: [Q8<'_>; M] = array::from_fn(|i| acts.q8_row(start + i));
    let mut results = Results::<M>::new(out, n);
    for r in 0..n {
        let mut acc = [(_mm512_setzero_ps(), _mm_setzero_ps()); M];
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
        let acc = acc.map(|(acc, offset)| _mm512_add_ps(acc, _mm512_zextps128_ps512(offset)));
        results.set(r, &acc);
    }
}

/// Adds the products of blocks `b` .. `b + 4`; the part of the offsets is summed apart.
///
/// # Safety
/// Four blocks at `blocks` are readable; the rows of `x` have at least `32 (b + 4)` columns.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline]
unsafe fn four<F: GroupsOf32, const M: usize>(blocks: *const u8, b: usize, x: &[Q8<'_>; M], acc: &mut [(__m512, __m128); M]) {
    const { assert!(F::BYTES <= 34, "the copy of the last blocks in a row holds four") };
    let lane = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    // SAFETY: the caller's promises; every load is of columns below `32 (b + 4)` of `x`.
    unsafe {
        let w = F::unpack(blocks);
        for ((acc, offset), x) in acc.iter_mut().zip(x) {
            let qs = x.qs.as_ptr().add(b * 32);
            let sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), w.first, _mm512_loadu_si512(qs.cast()));
            let sums = _mm512_dpbusd_epi32(sums, w.second, _mm512_loadu_si512(qs.add(64).cast()));
            let d = _mm_mul_ps(w.d, _mm_loadu_ps(x.d.as_ptr().add(b)));
            let d = _mm512_permutexvar_ps(lane, _mm512_castps128_ps512(d));
            *acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), d, *acc);
            *offset = _mm_fmadd_ps(w.c, _mm_loadu_ps(x.sums.as_ptr().add(b)), *offset);
        }
    }
}
