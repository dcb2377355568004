//! Q2_K: two bits in 64 bytes; a byte of four-bit scale and minimum per 16.

use super::groups_of_16::GroupsOf16;
use std::arch::x86_64::*;

pub(in crate::arch) struct Q2K;

impl GroupsOf16 for Q2K {
    const BYTES: usize = 84;
    const D: usize = 80;
    const OFFSET: f32 = 0.0;
    const IS_WIDE: bool = false;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn quants(block: *const u8, z: usize) -> __m512i {
        // SAFETY: 32 bytes from 16 or 48, of a block of 84.
        let pairs = unsafe { _mm256_loadu_si256(block.add(16 + z / 2 * 32).cast()) };
        let shift = (z % 2 * 4) as i16;
        let shift = _mm512_inserti64x4::<1>(_mm512_set1_epi16(shift), _mm256_set1_epi16(shift + 2));
        let pairs = _mm512_srlv_epi16(_mm512_broadcast_i64x4(pairs), shift);
        _mm512_and_si512(pairs, _mm512_set1_epi8(3))
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn scales(block: *const u8) -> __m256i {
        // SAFETY: bytes 0 .. 16 of a block of 84.
        let bytes = unsafe { _mm_loadu_si128(block.cast()) };
        _mm256_cvtepu8_epi16(_mm_and_si128(bytes, _mm_set1_epi8(15)))
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn mins(block: *const u8) -> Option<(__m256i, usize)> {
        // SAFETY: bytes 0 .. 16 of a block of 84.
        let bytes = unsafe { _mm_loadu_si128(block.cast()) };
        let mins = _mm_and_si128(_mm_srli_epi16::<4>(bytes), _mm_set1_epi8(15));
        Some((_mm256_cvtepu8_epi16(mins), 82))
    }
}
