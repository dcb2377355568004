//! Q5_K: nibbles as in Q4_K; bit `g` of byte `l` of 32 is the fifth bit of weight `l` of group `g`.

use super::super_blocks::SuperBlock;
use std::arch::x86_64::*;

pub(in crate::arch) struct Q5K;

impl SuperBlock for Q5K {
    const BYTES: usize = 176;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn quants(block: *const u8, z: usize) -> __m512i {
        // SAFETY: bytes 16 .. 48 and 48 + 32 z .. 80 + 32 z of a block of 176.
        let (fifth, bytes) = unsafe { (_mm256_loadu_si256(block.add(16).cast()), _mm256_loadu_si256(block.add(48 + 32 * z).cast())) };
        let shift = _mm512_inserti64x4::<1>(_mm512_setzero_si512(), _mm256_set1_epi16(4));
        let nibbles = _mm512_srlv_epi16(_mm512_broadcast_i64x4(bytes), shift);
        let nibbles = _mm512_and_si512(nibbles, _mm512_set1_epi8(15));
        let bit = 1 << (2 * z);
        let bits = _mm512_inserti64x4::<1>(_mm512_set1_epi8(bit), _mm256_set1_epi8(bit << 1));
        let has_fifth = _mm512_test_epi8_mask(_mm512_broadcast_i64x4(fifth), bits);
        _mm512_mask_add_epi8(nibbles, has_fifth, nibbles, _mm512_set1_epi8(16))
    }
}
