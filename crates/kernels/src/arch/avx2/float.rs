//! F32, F16 and BF16 weights with f32 activations.

use super::{prefetch, sum};
use crate::blocks::DType;
use crate::quantize::Activations;
use crate::scalar;
use std::arch::x86_64::*;
use std::array;
use std::ops::Range;

/// Eight weights as f32.
trait Load {
    const DTYPE: DType;

    /// # Safety
    /// Eight weights at `p` are readable, and the machine has the features of this module.
    unsafe fn load(p: *const u8) -> __m256;
}

struct F32;
struct F16;
struct BF16;

impl Load for F32 {
    const DTYPE: DType = DType::F32;

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn load(p: *const u8) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_loadu_ps(p.cast()) }
    }
}

impl Load for F16 {
    const DTYPE: DType = DType::F16;

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn load(p: *const u8) -> __m256 {
        // SAFETY: the caller's promise.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(p.cast()) })
    }
}

impl Load for BF16 {
    const DTYPE: DType = DType::BF16;

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn load(p: *const u8) -> __m256 {
        // SAFETY: the caller's promise.
        let bits = _mm256_cvtepu16_epi32(unsafe { _mm_loadu_si128(p.cast()) });
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
    }
}

/// As [`crate::table::DotRows`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn f32(_: DType, w: &[u8], k: usize, acts: &Activations, rows: Range<usize>, out: &mut [f32]) {
    // SAFETY: the features are this function's.
    unsafe { dot_rows::<F32>(w, k, acts, rows, out) };
}

/// As [`crate::table::DotRows`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn f16(_: DType, w: &[u8], k: usize, acts: &Activations, rows: Range<usize>, out: &mut [f32]) {
    // SAFETY: the features are this function's.
    unsafe { dot_rows::<F16>(w, k, acts, rows, out) };
}

/// As [`crate::table::DotRows`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn bf16(_: DType, w: &[u8], k: usize, acts: &Activations, rows: Range<usize>, out: &mut [f32]) {
    // SAFETY: the features are this function's.
    unsafe { dot_rows::<BF16>(w, k, acts, rows, out) };
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dot_rows<F: Load>(w: &[u8], k: usize, acts: &Activations, rows: Range<usize>, out: &mut [f32]) {
    let n = w.len().checked_div(k * F::DTYPE.block_bytes()).unwrap_or(0);
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
unsafe fn dot<F: Load, const M: usize>(w: &[u8], k: usize, acts: &Activations, start: usize, out: &mut [f32]) {
    let size = F::DTYPE.block_bytes();
    let n = w.len() / (k * size);
    assert!(k == acts.cols() && out.len() >= M * n);
    let x: [&[f32]; M] = array::from_fn(|i| acts.f32_row(start + i));
    let even = k / 16 * 16;
    for r in 0..n {
        let row = &w[r * k * size..][..k * size];
        // Two sums a row, since one would wait for itself.
        let mut acc = [[_mm256_setzero_ps(); 2]; M];
        for at in (0..even).step_by(16) {
            // SAFETY: weights and activations `at` .. `at + 16` of rows of `k`.
            unsafe {
                let p = row.as_ptr().add(at * size);
                prefetch(p, 16 * size);
                let weights = [F::load(p), F::load(p.add(8 * size))];
                for (acc, x) in acc.iter_mut().zip(&x) {
                    for (half, weights) in weights.iter().enumerate() {
                        let x = _mm256_loadu_ps(x.as_ptr().add(at + 8 * half));
                        acc[half] = _mm256_fmadd_ps(*weights, x, acc[half]);
                    }
                }
            }
        }
        let mut rest = [0f32; 16];
        scalar::dequantize(F::DTYPE)(&row[even * size..], &mut rest);
        for (i, (acc, x)) in acc.iter().zip(&x).enumerate() {
            let tail: f32 = x[even..].iter().zip(&rest).map(|(x, w)| x * w).sum();
            out[i * n + r] = sum(_mm256_add_ps(acc[0], acc[1])) + tail;
        }
    }
}
