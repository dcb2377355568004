//! The header of Q4_K and Q5_K: `d` and `dmin`, and a six-bit scale and minimum per 32.

use super::sixteen_rows::{Blocks, bytes, lower_halves, upper_halves};
use std::arch::x86_64::*;

/// The headers of sixteen blocks.
pub(super) struct Headers {
    d: __m512,
    dmin: __m512,
    /// Bytes, those of groups 0 to 4 and 4 to 8.
    scales: [__m512i; 2],
    mins: [__m512i; 2],
}

impl Headers {
    /// Those of blocks that begin with them.
    ///
    /// # Safety
    /// 16 bytes of each block are readable, and the machine has the features of this module.
    #[inline(always)]
    pub(super) unsafe fn new(blocks: &Blocks) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            // Scales 0 to 4 and above them two high bits of scales 4 to 8, minima the same, and the low bits of scales and, above
            // them, of minima 4 to 8.
            let [ds, scales, mins, low] = blocks.four_words(0);
            let six = |words| _mm512_and_si512(words, _mm512_set1_epi32(0x3f3f_3f3f));
            let joined = |low, high| {
                let low = _mm512_and_si512(low, _mm512_set1_epi32(0x0f0f_0f0f));
                // low | high >> 2 & mask
                _mm512_ternarylogic_epi32::<0xf8>(low, _mm512_srli_epi32::<2>(high), _mm512_set1_epi32(0x3030_3030))
            };
            Self {
                d: lower_halves(ds),
                dmin: upper_halves(ds),
                scales: [six(scales), joined(low, scales)],
                mins: [six(mins), joined(_mm512_srli_epi32::<4>(low), mins)],
            }
        }
    }

    /// The scale and the minimum of group `g`.
    ///
    /// # Safety
    /// The machine has the features of this module.
    #[inline(always)]
    pub(super) unsafe fn scale_and_min(&self, g: usize) -> (__m512, __m512) {
        // SAFETY: the caller's promise.
        unsafe { (_mm512_mul_ps(bytes(self.scales[g / 4], g % 4), self.d), _mm512_mul_ps(bytes(self.mins[g / 4], g % 4), self.dmin)) }
    }
}
