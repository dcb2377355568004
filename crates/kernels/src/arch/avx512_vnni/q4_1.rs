//! Q4_1: nibbles and a minimum.

use super::groups_of_32::{FourBlocks, GroupsOf32, four_f16};
use super::load_lanes;
use std::arch::x86_64::*;

pub(in crate::arch) struct Q4_1;

impl GroupsOf32 for Q4_1 {
    const BYTES: usize = 20;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn unpack(blocks: *const u8) -> FourBlocks {
        // SAFETY: bytes 0 .. 2, 2 .. 4 and 4 .. 20 of each of four blocks of 20.
        let (d, c, bytes) = unsafe { (four_f16(blocks, 20), four_f16(blocks.add(2), 20), load_lanes(blocks.add(4), 20)) };
        let low = _mm512_set1_epi8(15);
        FourBlocks { first: _mm512_and_si512(bytes, low), second: _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), low), d, c }
    }
}
