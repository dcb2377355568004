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
        // SAFETY: bytes 0 .. 2, 2 .. 6 and 6 .. 22 of each of four blocks of 22.
        let (d, (first, second)) = unsafe { (four_f16(blocks, 22), fifth_bits(load_lanes(blocks.add(6), 22), blocks.add(2), 22)) };
        FourBlocks { first, second, d, c: _mm_mul_ps(d, _mm_set1_ps(-16.0)) }
    }
}

/// The quants 0..16 and 16..32 of four blocks from lanes of their nibbles and, at `fifths` and three strides on, their 32 fifth bits:
/// the low halves of these are the mask of the one register, the high halves that of the other.
///
/// # Safety
/// Four bytes at `fifths + i * stride` are readable for `i` in 0..4.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline]
pub(super) unsafe fn fifth_bits(bytes: __m512i, fifths: *const u8, stride: usize) -> (__m512i, __m512i) {
    // SAFETY: the caller's promise.
    let bits = |i: usize| unsafe { fifths.add(i * stride).cast::<u32>().read_unaligned() };
    let halves = |low: u32, high: u32| (low & 0xffff | high << 16, low >> 16 | high & 0xffff_0000);
    let ((first, second), (first_high, second_high)) = (halves(bits(0), bits(1)), halves(bits(2), bits(3)));
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let low = _mm512_set1_epi8(15);
    let add = |quants, has_fifth| _mm512_mask_add_epi8(quants, has_fifth, quants, _mm512_set1_epi8(16));
    let first = add(_mm512_and_si512(bytes, low), join(first, first_high));
    let second = add(_mm512_and_si512(_mm512_srli_epi16::<4>(bytes), low), join(second, second_high));
    (first, second)
}
