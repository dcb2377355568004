//! Activations to eight bits. The result is that of `quantize.rs`, for finite numbers bit by bit; left to the compiler it takes more
//! than twice as long, in decode while the other workers wait.

use crate::quantize::Activations;
use std::arch::x86_64::*;
use std::ops::Range;

/// Fills the form `Q8` of rows `rows`.
///
/// # Safety
/// Nobody else reads or writes that form of these rows, and the machine has the features of this module.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn q8(acts: &Activations, rows: Range<usize>) {
    for row in rows {
        let x = acts.f32_row(row);
        // SAFETY: the caller's promise.
        let mut out = unsafe { acts.q8_row_mut(row) };
        for g in 0..out.d.len() {
            let x = [load(x, 32 * g), load(x, 32 * g + 16)];
            let max = max_abs(x[0], x[1]);
            let per_step = 127.0 / max;
            let per_step = if per_step.is_finite() { per_step } else { 0.0 };
            let [first, second] = x.map(|x| round(x, per_step));
            out.d[g] = max / 127.0;
            out.set_totals(g, [first, second].map(|quants| i32::from(sum(quants))));
            let place = out.qs[g / 4 * 128 + g % 4 * 16..][..80].as_mut_ptr();
            // SAFETY: sixteen of the 80 bytes from `place` on each.
            unsafe {
                _mm_storeu_si128(place.cast(), first);
                _mm_storeu_si128(place.add(64).cast(), second);
            }
        }
        out.set_words();
    }
}

/// Sixteen numbers from `at` on, zeros beyond the end.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline]
fn load(x: &[f32], at: usize) -> __m512 {
    let x = x.get(at..).unwrap_or(&[]);
    let mask = if x.len() < 16 { (1 << x.len()) - 1 } else { !0 };
    // SAFETY: the mask has no more bits than `x` has numbers.
    unsafe { _mm512_maskz_loadu_ps(mask, x.as_ptr()) }
}

/// As bits, so that NaN comes out on top.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline]
fn max_abs(a: __m512, b: __m512) -> f32 {
    let bits = |x| _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fff_ffff));
    f32::from_bits(_mm512_reduce_max_epu32(_mm512_max_epu32(bits(a), bits(b))))
}

/// `x` times `per_step`, rounded to the nearest integer within -127..=127.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline]
fn round(x: __m512, per_step: f32) -> __m128i {
    let scaled = _mm512_mul_ps(x, _mm512_set1_ps(per_step));
    let clamped = _mm512_max_ps(_mm512_min_ps(scaled, _mm512_set1_ps(127.0)), _mm512_set1_ps(-127.0));
    _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(clamped))
}

/// Of sixteen signed bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline]
fn sum(bytes: __m128i) -> i16 {
    // The instruction adds unsigned bytes.
    let halves = _mm_sad_epu8(_mm_xor_si128(bytes, _mm_set1_epi8(-128)), _mm_setzero_si128());
    (_mm_cvtsi128_si64(halves) + _mm_extract_epi64::<1>(halves) - 16 * 128) as i16
}
