//! Q5_1: nibbles, fifth bits and a minimum.

use super::groups_of_32::{FourBlocks, GroupsOf32, four_f16};
use super::load_lanes;
use super::q5_0::fifth_bits;

pub(in crate::arch) struct Q5_1;

impl GroupsOf32 for Q5_1 {
    const BYTES: usize = 24;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn unpack(blocks: *const u8) -> FourBlocks {
        // SAFETY: bytes 0 .. 2, 2 .. 4, 4 .. 8 and 8 .. 24 of each of four blocks of 24.
        let (d, c, (first, second)) = unsafe {
            let quants = fifth_bits(load_lanes(blocks.add(8), 24), blocks.add(4), 24);
            (four_f16(blocks, 24), four_f16(blocks.add(2), 24), quants)
        };
        FourBlocks { first, second, d, c }
    }
}
