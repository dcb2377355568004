//! Q4_K: a chunk of 32 bytes holds 64 weights, the low nibbles first.

use super::super_blocks::{SuperBlock, even_and_odd_lanes};
use std::arch::x86_64::*;

pub(in crate::arch) struct Q4K;

impl SuperBlock for Q4K {
    const BYTES: usize = 144;
    const ODD_SHIFT: u32 = 4;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn quants(block: *const u8) -> [[__m512i; 2]; 2] {
        // SAFETY: bytes 16 .. 144 of a block of 144.
        let bytes = unsafe { even_and_odd_lanes(block.add(16)) };
        let nibbles = |mask| bytes.map(|bytes| _mm512_and_si512(bytes, _mm512_set1_epi8(mask)));
        [nibbles(0x0f), nibbles(0xf0_u8.cast_signed())]
    }
}
