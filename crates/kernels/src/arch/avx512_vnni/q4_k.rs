//! Q4_K: a chunk of 32 bytes holds 64 weights, the low nibbles first.

use super::q4_k_pairs;
use super::super_blocks::{self, SuperBlock, even_and_odd_lanes};
use crate::blocks::DType;
use crate::quantize::Activations;
use std::arch::x86_64::*;
use std::ops::Range;

pub(in crate::arch) struct Q4K;

impl Q4K {
    /// Quants `64 z` .. `64 z + 64` of a block, in order.
    ///
    /// # Safety
    /// A block at `block` is readable, `z` is below 4, and the machine has the features of this module.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    pub(super) unsafe fn in_order(block: *const u8, z: usize) -> __m512i {
        // SAFETY: bytes 16 + 32 z .. 48 + 32 z of a block of 144.
        let bytes = unsafe { _mm256_loadu_si256(block.add(16 + 32 * z).cast()) };
        let nibbles = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(bytes), _mm256_srli_epi16::<4>(bytes));
        _mm512_and_si512(nibbles, _mm512_set1_epi8(15))
    }
}

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

/// As [`crate::table::DotRows`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn dot_rows(_: DType, w: &[u8], k: usize, acts: &Activations, rows: Range<usize>, out: &mut [f32]) {
    let n = w.len().checked_div(k / 256 * Q4K::BYTES).unwrap_or(0);
    for (out, start) in out.chunks_mut((4 * n).max(1)).zip(rows.clone().step_by(4)) {
        // SAFETY: the features are this function's; shapes are checked inside.
        unsafe {
            match rows.end - start {
                1 => super_blocks::dot::<Q4K, 1>(w, k, acts, start, out),
                2 => q4_k_pairs::dot::<2>(w, k, acts, start, out),
                3 => q4_k_pairs::dot::<3>(w, k, acts, start, out),
                _ => q4_k_pairs::dot::<4>(w, k, acts, start, out),
            }
        }
    }
}
