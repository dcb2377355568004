//! Q4_K: a chunk of 32 bytes holds 64 weights, the low nibbles first.

use super::sixteen_rows::{Blocks, SixteenRows, Tile, masked};
use super::super_blocks::Headers;
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

    /// Adds the products of chunk `Z`.
    ///
    /// # Safety
    /// As for [`SixteenRows::add`].
    #[inline(always)]
    unsafe fn chunk<const M: usize, const Z: usize>(blocks: &Blocks, headers: &Headers, tile: &mut Tile<'_, M>) {
        // SAFETY: the caller's promise; bytes 16 + 32 Z .. 48 + 32 Z of blocks of 144.
        unsafe {
            let words = blocks.eight_words(16 + 32 * Z);
            blocks.prefetch::<Self>(2 * Z, 8);
            let (scale, min) = headers.scale_and_min(2 * Z);
            tile.add(64 * Z, masked(words, 0x0f), scale, min);
            blocks.prefetch::<Self>(2 * Z + 1, 8);
            let (scale, min) = headers.scale_and_min(2 * Z + 1);
            // The high nibbles stay where they are, sixteen times too large.
            tile.add(64 * Z + 32, masked(words, 0xf0), _mm512_mul_ps(scale, _mm512_set1_ps(0.0625)), min);
        }
    }
}

impl SixteenRows for Q4K {
    const BYTES: usize = 144;

    #[inline(always)]
    unsafe fn add<const M: usize>(blocks: &Blocks, tile: &mut Tile<'_, M>) {
        // SAFETY: the caller's promise.
        unsafe {
            let headers = Headers::new(blocks);
            Self::chunk::<M, 0>(blocks, &headers, tile);
            Self::chunk::<M, 1>(blocks, &headers, tile);
            Self::chunk::<M, 2>(blocks, &headers, tile);
            Self::chunk::<M, 3>(blocks, &headers, tile);
        }
    }
}
