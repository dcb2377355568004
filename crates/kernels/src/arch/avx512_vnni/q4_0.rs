//! Q4_0: nibbles, 8 too large.

use super::groups_of_32::{FourBlocks, GroupsOf32, four_f16};
use super::load_lanes;
use std::arch::x86_64::*;

pub(in crate::arch) struct Q4_0;

impl GroupsOf32 for Q4_0 {
    const BYTES: usize = 18;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn unpack(blocks: *const u8) -> FourBlocks {
        // SAFETY: bytes 0 .. 2 and 2 .. 18 of each of four blocks of 18.
        let (d, bytes) = unsafe { (four_f16(blocks, 18), load_lanes(blocks.add(2), 18)) };
        let low = _mm512_set1_epi8(15);
        FourBlocks {
            first: _mm512_and_si512(bytes, low),
            second: _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), low),
            d,
            c: _mm_mul_ps(d, _mm_set1_ps(-8.0)),
        }
    }
}
