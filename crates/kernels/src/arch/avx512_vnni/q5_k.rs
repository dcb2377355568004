//! Q5_K: nibbles as in Q4_K; bit `g` of byte `l` of 32 is the fifth bit of weight `l` of group `g`.

use super::super_blocks::{SuperBlock, even_and_odd_lanes};
use std::arch::x86_64::*;

pub(in crate::arch) struct Q5K;

impl Q5K {
    /// Quants `64 z` .. `64 z + 64` of a block, in order.
    ///
    /// # Safety
    /// A block at `block` is readable, `z` is below 4, and the machine has the features of this module.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    pub(in crate::arch) unsafe fn in_order(block: *const u8, z: usize) -> __m512i {
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

impl SuperBlock for Q5K {
    const BYTES: usize = 176;
    const ODD_SHIFT: u32 = 0;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn quants(block: *const u8) -> [[__m512i; 2]; 2] {
        // SAFETY: bytes 16 .. 48 and 48 .. 176 of a block of 176.
        let (fifth, bytes) = unsafe {
            let fifth = |at| _mm512_broadcast_i32x4(_mm_loadu_si128(block.add(at).cast()));
            ([fifth(16), fifth(32)], even_and_odd_lanes(block.add(48)))
        };
        // Rotations that bring bit `2 lane`, and bit `2 lane + 1`, of each byte to bit 4.
        let lanes = |a, b, c, d| _mm512_setr_epi32(a, a, a, a, b, b, b, b, c, c, c, c, d, d, d, d);
        let quants = |nibbles: __m512i, fifth: __m512i, rotation: __m512i| {
            let all = _mm512_ternarylogic_epi64::<0xca>(_mm512_set1_epi8(15), nibbles, _mm512_rolv_epi32(fifth, rotation)); // a ? b : c
            _mm512_and_si512(all, _mm512_set1_epi8(31))
        };
        let (even, odd) = (lanes(4, 2, 0, 30), lanes(3, 1, 31, 29));
        [
            [0, 1].map(|half| quants(bytes[half], fifth[half], even)),
            [0, 1].map(|half| quants(_mm512_srli_epi16::<4>(bytes[half]), fifth[half], odd)),
        ]
    }
}
