//! Q4_K: a chunk of 32 bytes holds 64 weights, the low nibbles first.
//!
//! For one row of activations unpacking the nibbles is what takes time; for several it is what comes after the products, and is
//! worth to arrange them so that two blocks share it.

use super::super_blocks::{Four, SuperBlock, even_and_odd_lanes};
use super::{dpwssd, prefetch_block};
use std::arch::x86_64::*;

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

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn add<const M: usize, const N: usize>(four: &Four<'_, M>, acc: &mut [__m512; M]) {
        // SAFETY: the caller's promise.
        unsafe {
            if M == 1 {
                return four.add::<Self, N>(acc);
            }
            add_two::<M, N, 0>(four, acc);
            if N > 2 {
                add_two::<M, N, 1>(four, acc);
            }
        }
    }
}

/// Words to take for the sums of blocks `2 p` and `2 p + 1`: in a lane, two of an even group of the first, two of the odd one
/// after it, and the same of the second.
static SPREAD: [[u16; 32]; 2] = {
    let mut spread = [[0; 32]; 2];
    let mut i = 0;
    while i < 2 * 32 {
        spread[i / 32][i % 32] = (i / 32 * 16 + i % 8 / 4 * 8 + i % 32 / 8 * 2 + i % 4 / 2) as u16;
        i += 1;
    }
    spread
};

/// Adds the products of blocks `2 P` and `2 P + 1` of `N`, the second if there is one.
///
/// Sums of sixteen products fit in 16 bits (16 * 15 * 127 < 2^15), so that one `vpdpwssd` scales and adds 512 products.
///
/// # Safety
/// The machine has the features of this module.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline]
unsafe fn add_two<const M: usize, const N: usize, const P: usize>(four: &Four<'_, M>, acc: &mut [__m512; M]) {
    prefetch_block(four.blocks, 2 * P, N, Q4K::BYTES);
    // SAFETY: the blocks and as many columns of `x` are readable; a row of SPREAD is 64 bytes.
    unsafe {
        let first = sums(four, 2 * P);
        let second = if 2 * P + 1 < N {
            prefetch_block(four.blocks, 2 * P + 1, N, Q4K::BYTES);
            sums(four, 2 * P + 1)
        } else {
            [_mm512_setzero_si512(); M]
        };
        let spread = _mm512_loadu_si512(SPREAD[P].as_ptr().cast());
        let p = 4 * P as i32;
        let d_lanes = _mm512_broadcast_i32x4(_mm_setr_epi32(p, p, p + 2, p + 2));
        for (i, acc) in acc.iter_mut().enumerate() {
            let words = _mm512_packs_epi32(first[i], second[i]);
            let sums = dpwssd(_mm512_setzero_si512(), words, _mm512_permutexvar_epi16(spread, four.scaled[i]));
            *acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), _mm512_permutexvar_ps(d_lanes, four.ds[i]), *acc);
        }
    }
}

/// The sums of products of block `j`, sixteen each: in a lane, two of an even group and two of the odd one after it.
///
/// # Safety
/// There is such a block, and the machine has the features of this module.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline]
unsafe fn sums<const M: usize>(four: &Four<'_, M>, j: usize) -> [__m512i; M] {
    // SAFETY: bytes 16 .. 144 of a block of 144; 256 columns of each `x`.
    unsafe {
        let bytes = even_and_odd_lanes(four.blocks.add(j * Q4K::BYTES + 16));
        // Low nibbles of the first half of each lane, high ones of the second: the order of `qs_by_nibble`.
        let high = _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0, 4, 4));
        let nibbles = |bytes| _mm512_and_si512(_mm512_srlv_epi32(bytes, high), _mm512_set1_epi8(15));
        let both = bytes.map(|bytes| [nibbles(bytes), nibbles(_mm512_shuffle_epi32::<0b01_00_11_10>(bytes))]);
        let mut sums = [_mm512_setzero_si512(); M];
        for (i, sums) in sums.iter_mut().enumerate() {
            let x = four.x[i].qs_by_nibble.as_ptr().add((four.b + j) * 256);
            for (e, quants) in both.as_flattened().iter().enumerate() {
                *sums = _mm512_dpbusd_epi32(*sums, *quants, _mm512_loadu_si512(x.add(64 * e).cast()));
            }
        }
        sums
    }
}
