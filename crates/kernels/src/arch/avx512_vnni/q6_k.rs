//! Q6_K: 64 bytes of nibbles and 32 of bit pairs hold 128 weights. Quants are kept as 0..64, 32 too large.

use super::groups_of_16::GroupsOf16;
use std::arch::x86_64::*;

pub(in crate::arch) struct Q6K;

impl GroupsOf16 for Q6K {
    const BYTES: usize = 210;
    const D: usize = 208;
    const OFFSET: f32 = 32.0;
    const IS_WIDE: bool = true;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn quants(block: *const u8, z: usize) -> __m512i {
        let half = z / 2;
        // SAFETY: 64 bytes from 0 or 64 and 32 from 128 or 160, of a block of 210.
        let (low, pairs) = unsafe {
            let low = _mm512_loadu_si512(block.add(64 * half).cast());
            (low, _mm512_broadcast_i64x4(_mm256_loadu_si256(block.add(128 + 32 * half).cast())))
        };
        let halves = |a, b| _mm512_inserti64x4::<1>(_mm512_set1_epi16(a), _mm256_set1_epi16(b));
        // The pair of weight `l` of a quarter (32 weights) is at bit `2 quarter` of byte `l`; it goes to bit 4.
        let (low, pairs) = if z.is_multiple_of(2) {
            (low, _mm512_sllv_epi16(pairs, halves(4, 2)))
        } else {
            (_mm512_srli_epi16::<4>(low), _mm512_srlv_epi16(pairs, halves(0, 2)))
        };
        let pairs = _mm512_and_si512(pairs, _mm512_set1_epi8(0x30));
        _mm512_ternarylogic_epi64::<0xea>(low, _mm512_set1_epi8(15), pairs) // low & 15 | pairs
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn scales(block: *const u8) -> __m256i {
        // SAFETY: bytes 192 .. 208 of a block of 210.
        _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(block.add(192).cast()) })
    }

    #[inline(always)]
    unsafe fn mins(_: *const u8) -> Option<(__m256i, usize)> {
        None
    }
}
