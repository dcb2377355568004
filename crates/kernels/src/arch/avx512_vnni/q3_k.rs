//! Q3_K: two bits in 64 bytes, the third in 32, sixteen six-bit scales. Quants are kept as 0..8, 4 too large.

use super::groups_of_16::GroupsOf16;
use std::arch::x86_64::*;

pub(in crate::arch) struct Q3K;

impl GroupsOf16 for Q3K {
    const BYTES: usize = 110;
    const D: usize = 108;
    const OFFSET: f32 = 4.0;
    const IS_WIDE: bool = false;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn quants(block: *const u8, z: usize) -> __m512i {
        // SAFETY: 32 bytes from 0 and 32 from 32 or 64, of a block of 110.
        let (third, pairs) = unsafe {
            let pairs = _mm256_loadu_si256(block.add(32 + z / 2 * 32).cast());
            (_mm256_loadu_si256(block.cast()), _mm512_broadcast_i64x4(pairs))
        };
        let shift = (z % 2 * 4) as i16;
        let shift = _mm512_inserti64x4::<1>(_mm512_set1_epi16(shift), _mm256_set1_epi16(shift + 2));
        let pairs = _mm512_and_si512(_mm512_srlv_epi16(pairs, shift), _mm512_set1_epi8(3));
        let bit = 1 << (2 * z);
        let bits = _mm512_inserti64x4::<1>(_mm512_set1_epi8(bit), _mm256_set1_epi8(bit << 1));
        let has_third = _mm512_test_epi8_mask(_mm512_broadcast_i64x4(third), bits);
        _mm512_mask_add_epi8(pairs, has_third, pairs, _mm512_set1_epi8(4))
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn scales(block: *const u8) -> __m256i {
        // SAFETY: bytes 96 .. 108 of a block of 110.
        let (low, high) = unsafe {
            let low = _mm_loadl_epi64(block.add(96).cast());
            (low, _mm_set1_epi32(block.add(104).cast::<i32>().read_unaligned()))
        };
        // Scale `i`: nibble `i / 8` of byte `i % 8`, and above it bit pair `i / 4` of byte `8 + i % 4`.
        let low = _mm_unpacklo_epi64(low, _mm_srli_epi16::<4>(low));
        let high = _mm_sllv_epi32(high, _mm_setr_epi32(4, 2, 0, 0));
        let high = _mm_srlv_epi32(high, _mm_setr_epi32(0, 0, 0, 2));
        let scales = _mm_or_si128(_mm_and_si128(low, _mm_set1_epi8(15)), _mm_and_si128(high, _mm_set1_epi8(0x30)));
        _mm256_sub_epi16(_mm256_cvtepu8_epi16(scales), _mm256_set1_epi16(32))
    }

    #[inline(always)]
    unsafe fn mins(_: *const u8) -> Option<(__m256i, usize)> {
        None
    }
}
