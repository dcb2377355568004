//! Products of 16-bit integers: numbers are scaled so that no sum of products can leave 32 bits.

use crate::quantize::WORD_MAX;
use std::arch::asm;
use std::arch::x86_64::*;

/// What is shorter counts as zero, so that no factor overflows. f16 has nothing as short but zero.
const SHORTEST: f32 = 1e-15;

/// The factor that brings `size` to [`WORD_MAX`], or 0 for what counts as zero, and the one that brings it back. That is NaN where
/// `size` is not finite, so that the results are as well.
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) fn factors(size: __m512) -> (__m512, __m512) {
    let counts = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(size, _mm512_set1_ps(SHORTEST));
    let zero_or_nan = _mm512_sub_ps(size, size);
    (_mm512_maskz_div_ps(counts, _mm512_set1_ps(WORD_MAX), size), _mm512_fmadd_ps(size, _mm512_set1_ps(1.0 / WORD_MAX), zero_or_nan))
}

/// Rounded to integers, `a` in the lower and `b` in the upper half of each lane.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
pub(crate) fn paired(a: __m512, b: __m512) -> __m512i {
    let (a, b) = (_mm512_cvtps_epi32(a), _mm512_cvtps_epi32(b));
    _mm512_mask_blend_epi16(0xaaaa_aaaa, a, _mm512_slli_epi32::<16>(b))
}

/// `acc + a · b` over pairs of i16. In assembly because LLVM splits the intrinsic into a multiplication and an addition
/// unless it tunes for one CPU, which costs 5-10% of a kernel.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline]
pub(crate) fn dpwssd(mut acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: touches nothing but the registers named.
    unsafe {
        asm!("vpdpwssd {}, {}, {}", inout(zmm_reg) acc, in(zmm_reg) a, in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    acc
}
