//! Q5_0: nibbles and fifth bits, 16 too large.

use super::groups_of_32::{FourBlocks, GroupsOf32, four_f16};
use super::load_lanes;
use std::arch::x86_64::*;

pub(in crate::arch) struct Q5_0;

impl GroupsOf32 for Q5_0 {
    const BYTES: usize = 22;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn unpack(blocks: *const u8) -> FourBlocks {
        // SAFETY: bytes 0 .. 2, 2 .. 18 and 6 .. 22 of each of four blocks of 22.
        let (d, fifths, bytes) = unsafe { (four_f16(blocks, 22), load_lanes(blocks.add(2), 22), load_lanes(blocks.add(6), 22)) };
        let (first, second) = fifth_bits(bytes, fifths);
        FourBlocks { first, second, d, c: _mm_mul_ps(d, _mm_set1_ps(-16.0)) }
    }
}

/// The quants 0..16 and 16..32 of four blocks from lanes of their nibbles and lanes that begin with their 32 fifth bits.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline]
pub(super) fn fifth_bits(bytes: __m512i, fifths: __m512i) -> (__m512i, __m512i) {
    let low = _mm512_set1_epi8(15);
    let bit = _mm512_set1_epi64(0x8040_2010_0804_0201_u64.cast_signed());
    let spread = |byte: i8| {
        let bytes = _mm_unpacklo_epi64(_mm_set1_epi8(byte), _mm_set1_epi8(byte + 1));
        _mm512_test_epi8_mask(_mm512_shuffle_epi8(fifths, _mm512_broadcast_i32x4(bytes)), bit)
    };
    let add = |quants, has_fifth| _mm512_mask_add_epi8(quants, has_fifth, quants, _mm512_set1_epi8(16));
    let first = add(_mm512_and_si512(bytes, low), spread(0));
    let second = add(_mm512_and_si512(_mm512_srli_epi16::<4>(bytes), low), spread(2));
    (first, second)
}
