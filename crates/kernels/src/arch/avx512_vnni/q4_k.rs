//! Q4_K: a chunk of 32 bytes holds 64 weights, the low nibbles first.

use super::super_blocks::SuperBlock;
use std::arch::x86_64::*;

pub(in crate::arch) struct Q4K;

impl SuperBlock for Q4K {
    const BYTES: usize = 144;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn quants(block: *const u8, z: usize) -> __m512i {
        // SAFETY: bytes 16 + 32 z .. 48 + 32 z of a block of 144.
        let bytes = unsafe { _mm256_loadu_si256(block.add(16 + 32 * z).cast()) };
        let shift = _mm512_inserti64x4::<1>(_mm512_setzero_si512(), _mm256_set1_epi16(4));
        let nibbles = _mm512_srlv_epi16(_mm512_broadcast_i64x4(bytes), shift);
        _mm512_and_si512(nibbles, _mm512_set1_epi8(15))
    }
}
