//! Q5_K: nibbles as in Q4_K; bit `g` of byte `l` of 32 is the fifth bit of weight `l` of group `g`.

use super::sixteen_rows::{Blocks, SixteenRows, Tile};
use super::super_blocks::Headers;
use std::arch::x86_64::*;

pub(in crate::arch) struct Q5K;

impl Q5K {
    /// Quants `64 z` .. `64 z + 64` of a block, in order.
    ///
    /// # Safety
    /// A block at `block` is readable, `z` is below 4, and the machine has the features of this module.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    pub(in crate::arch) unsafe fn in_order(block: *const u8, z: usize) -> __m512i {
        // SAFETY: bytes 16 .. 48 and 48 + 32 z .. 80 + 32 z of a block of 176.
        let (fifth, bytes) = unsafe { (_mm256_loadu_si256(block.add(16).cast()), _mm256_loadu_si256(block.add(48 + 32 * z).cast())) };
        let shift = _mm512_inserti64x4::<1>(_mm512_setzero_si512(), _mm256_set1_epi16(4));
        let nibbles = _mm512_srlv_epi16(_mm512_broadcast_i64x4(bytes), shift);
        let nibbles = _mm512_and_si512(nibbles, _mm512_set1_epi8(15));
        let bit = 1 << (2 * z);
        let bits = _mm512_inserti64x4::<1>(_mm512_set1_epi8(bit), _mm256_set1_epi8(bit << 1));
        let has_fifth = _mm512_test_epi8_mask(_mm512_broadcast_i64x4(fifth), bits);
        _mm512_mask_add_epi8(nibbles, has_fifth, nibbles, _mm512_set1_epi8(16))
    }

    /// Adds the products of quants `64 Z` .. `64 Z + 64`.
    ///
    /// # Safety
    /// As for [`SixteenRows::add`].
    #[inline(always)]
    unsafe fn chunk<const M: usize, const Z: usize>(blocks: &Blocks, headers: &Headers, fifth: [__m512i; 8], tile: &mut Tile<'_, M>) {
        // SAFETY: the caller's promise; bytes 48 + 32 Z .. 80 + 32 Z of blocks of 176.
        unsafe {
            let mut words = blocks.eight_words(48 + 32 * Z);
            for odd in 0..2 {
                blocks.prefetch::<Self>(2 * Z + odd, 8);
                // Brings bit 2 Z + odd to bit 4.
                let rotation = _mm512_set1_epi32((4 - (2 * Z + odd) as i32).rem_euclid(32));
                let mut quants = words;
                for (quants, fifth) in quants.iter_mut().zip(fifth) {
                    let fifth = _mm512_rolv_epi32(fifth, rotation);
                    let all = _mm512_ternarylogic_epi64::<0xca>(_mm512_set1_epi8(15), *quants, fifth); // a ? b : c
                    *quants = _mm512_and_si512(all, _mm512_set1_epi8(31));
                }
                let (scale, min) = headers.scale_and_min(2 * Z + odd);
                tile.add(64 * Z + 32 * odd, quants, scale, min);
                for word in &mut words {
                    *word = _mm512_srli_epi16::<4>(*word);
                }
            }
        }
    }
}

impl SixteenRows for Q5K {
    const BYTES: usize = 176;

    #[inline(always)]
    unsafe fn add<const M: usize>(blocks: &Blocks, tile: &mut Tile<'_, M>) {
        // SAFETY: the caller's promise; bytes 16 .. 48 of blocks of 176.
        unsafe {
            let headers = Headers::new(blocks);
            let fifth = blocks.eight_words(16);
            Self::chunk::<M, 0>(blocks, &headers, fifth, tile);
            Self::chunk::<M, 1>(blocks, &headers, fifth, tile);
            Self::chunk::<M, 2>(blocks, &headers, fifth, tile);
            Self::chunk::<M, 3>(blocks, &headers, fifth, tile);
        }
    }
}
