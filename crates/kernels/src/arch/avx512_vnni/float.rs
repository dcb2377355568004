//! F32, F16 and BF16 weights with f32 activations.

use super::prefetch;
use crate::blocks::DType;
use crate::quantize::Activations;
use std::arch::x86_64::*;
use std::array;
use std::ops::Range;

/// Sixteen weights as f32.
trait Load {
    const BYTES: usize;

    /// The first `mask.count_ones()` weights, zeros after them; `mask` has ones first.
    ///
    /// # Safety
    /// Those are readable, and the machine has the features of this module.
    unsafe fn load(p: *const u8, mask: __mmask16) -> __m512;
}

struct F32;
struct F16;
struct BF16;

impl Load for F32 {
    const BYTES: usize = 4;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn load(p: *const u8, mask: __mmask16) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_maskz_loadu_ps(mask, p.cast()) }
    }
}

impl Load for F16 {
    const BYTES: usize = 2;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn load(p: *const u8, mask: __mmask16) -> __m512 {
        // SAFETY: the caller's promise.
        _mm512_cvtph_ps(unsafe { _mm256_maskz_loadu_epi16(mask, p.cast()) })
    }
}

impl Load for BF16 {
    const BYTES: usize = 2;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn load(p: *const u8, mask: __mmask16) -> __m512 {
        // SAFETY: the caller's promise.
        let bits = _mm512_cvtepu16_epi32(unsafe { _mm256_maskz_loadu_epi16(mask, p.cast()) });
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
    }
}

/// As [`crate::table::DotRows`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn f32(_: DType, w: &[u8], k: usize, acts: &Activations, rows: Range<usize>, out: &mut [f32]) {
    // SAFETY: the features are this function's.
    unsafe { dot_rows::<F32>(w, k, acts, rows, out) };
}

/// As [`crate::table::DotRows`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn f16(_: DType, w: &[u8], k: usize, acts: &Activations, rows: Range<usize>, out: &mut [f32]) {
    // SAFETY: the features are this function's.
    unsafe { dot_rows::<F16>(w, k, acts, rows, out) };
}

/// As [`crate::table::DotRows`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn bf16(_: DType, w: &[u8], k: usize, acts: &Activations, rows: Range<usize>, out: &mut [f32]) {
    // SAFETY: the features are this function's.
    unsafe { dot_rows::<BF16>(w, k, acts, rows, out) };
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn dot_rows<F: Load>(w: &[u8], k: usize, acts: &Activations, rows: Range<usize>, out: &mut [f32]) {
    let n = w.len().checked_div(k * F::BYTES).unwrap_or(0);
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
unsafe fn dot<F: Load, const M: usize>(w: &[u8], k: usize, acts: &Activations, start: usize, out: &mut [f32]) {
    let n = w.len() / (k * F::BYTES);
    assert!(k == acts.cols() && out.len() >= M * n);
    let x: [&[f32]; M] = array::from_fn(|i| acts.f32_row(start + i));
    for r in 0..n {
        let row = w[r * k * F::BYTES..][..k * F::BYTES].as_ptr();
        // Two sums a row, since one would wait for itself.
        let mut acc = [[_mm512_setzero_ps(); 2]; M];
        let mut at = 0;
        // SAFETY: weights and activations `at` .. `at + 32`, or up to `k`, of rows of `k`.
        unsafe {
            while at + 32 <= k {
                let p = row.add(at * F::BYTES);
                prefetch(p, 32 * F::BYTES);
                let weights = [F::load(p, !0), F::load(p.add(16 * F::BYTES), !0)];
                for (acc, x) in acc.iter_mut().zip(&x) {
                    for (half, weights) in weights.iter().enumerate() {
                        let x = _mm512_loadu_ps(x.as_ptr().add(at + 16 * half));
                        acc[half] = _mm512_fmadd_ps(*weights, x, acc[half]);
                    }
                }
                at += 32;
            }
            while at < k {
                let mask = ((1_u32 << (k - at).min(16)) - 1) as __mmask16;
                let weights = F::load(row.add(at * F::BYTES), mask);
                for (acc, x) in acc.iter_mut().zip(&x) {
                    acc[0] = _mm512_fmadd_ps(weights, _mm512_maskz_loadu_ps(mask, x.as_ptr().add(at)), acc[0]);
                }
                at += 16;
            }
        }
        for (i, acc) in acc.iter().enumerate() {
            out[i * n + r] = _mm512_reduce_add_ps(_mm512_add_ps(acc[0], acc[1]));
        }
    }
}
