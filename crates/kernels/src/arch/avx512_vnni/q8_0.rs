//! Q8_0: signed bytes; flipping the top bit makes them unsigned, 128 too large.

use super::groups_of_32::{FourBlocks, GroupsOf32, four_f16};
use super::load_lanes;
use std::arch::x86_64::*;

pub(in crate::arch) struct Q8_0;

impl GroupsOf32 for Q8_0 {
    const BYTES: usize = 34;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn unpack(blocks: *const u8) -> FourBlocks {
        // SAFETY: bytes 0 .. 2, 2 .. 18 and 18 .. 34 of each of four blocks of 34.
        let (d, first, second) = unsafe { (four_f16(blocks, 34), load_lanes(blocks.add(2), 34), load_lanes(blocks.add(18), 34)) };
        let top = _mm512_set1_epi8(-128);
        FourBlocks { first: _mm512_xor_si512(first, top), second: _mm512_xor_si512(second, top), d, c: _mm_mul_ps(d, _mm_set1_ps(-128.0)) }
    }
}
