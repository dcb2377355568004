//! Q3_K: two bits in 64 bytes, the third in 32, sixteen six-bit scales. Quants are kept as 0..8, 4 too large.

use super::groups_of_16::GroupsOf16;
use super::sixteen_rows::{Blocks, SixteenRows, Tile, bytes, masked, upper_halves};
use std::arch::x86_64::*;

pub(in crate::arch) struct Q3K;

impl GroupsOf16 for Q3K {
    const BYTES: usize = 110;
    const D: usize = 108;
    const OFFSET: f32 = 4.0;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn quants(block: *const u8, z: usize) -> __m512i {
        // SAFETY: 32 bytes from 0 and 32 from 32 or 64, of a block of 110.
        let (third, pairs) = unsafe {
            let pairs = _mm256_loadu_si256(block.add(32 + z / 2 * 32).cast());
            (_mm256_loadu_si256(block.cast()), _mm512_broadcast_i64x4(pairs))
        };
        let shift = (z % 2 * 4) as i16;
        let shift = _mm512_inserti64x4::<1>(_mm512_set1_epi16(shift), _mm256_set1_epi16(shift + 2));
        let pairs = _mm512_and_si512(_mm512_srlv_epi16(pairs, shift), _mm512_set1_epi8(3));
        let bit = 1 << (2 * z);
        let bits = _mm512_inserti64x4::<1>(_mm512_set1_epi8(bit), _mm256_set1_epi8(bit << 1));
        let has_third = _mm512_test_epi8_mask(_mm512_broadcast_i64x4(third), bits);
        _mm512_mask_add_epi8(pairs, has_third, pairs, _mm512_set1_epi8(4))
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn scales(block: *const u8) -> __m256i {
        // SAFETY: bytes 96 .. 108 of a block of 110.
        let (low, high) = unsafe {
            let low = _mm_loadl_epi64(block.add(96).cast());
            (low, _mm_set1_epi32(block.add(104).cast::<i32>().read_unaligned()))
        };
        // Scale `i`: nibble `i / 8` of byte `i % 8`, and above it bit pair `i / 4` of byte `8 + i % 4`.
        let low = _mm_unpacklo_epi64(low, _mm_srli_epi16::<4>(low));
        let high = _mm_sllv_epi32(high, _mm_setr_epi32(4, 2, 0, 0));
        let high = _mm_srlv_epi32(high, _mm_setr_epi32(0, 0, 0, 2));
        let scales = _mm_or_si128(_mm_and_si128(low, _mm_set1_epi8(15)), _mm_and_si128(high, _mm_set1_epi8(0x30)));
        _mm256_sub_epi16(_mm256_cvtepu8_epi16(scales), _mm256_set1_epi16(32))
    }

    #[inline(always)]
    unsafe fn mins(_: *const u8) -> Option<(__m256i, usize)> {
        None
    }
}

impl Q3K {
    /// Adds the products of quarter `Q` of half `H`: 32 weights, two scales.
    ///
    /// # Safety
    /// As for [`SixteenRows::add`].
    #[inline(always)]
    unsafe fn quarter<const M: usize, const H: usize, const Q: usize>(
        pairs: [__m512i; 8],
        third: [__m512i; 8],
        scales: [__m512i; 4],
        d: __m512,
        tile: &mut Tile<'_, M>,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            // Brings bit 4 H + Q to bit 2.
            let rotation = _mm512_set1_epi32((2 - (4 * H + Q) as i32).rem_euclid(32));
            for part in 0..2 {
                let mut quants = [_mm512_setzero_si512(); 4];
                for (i, quants) in quants.iter_mut().enumerate() {
                    let low = _mm512_srlv_epi16(pairs[4 * part + i], _mm512_set1_epi16(2 * Q as i16));
                    let high = _mm512_rolv_epi32(third[4 * part + i], rotation);
                    let all = _mm512_ternarylogic_epi64::<0xca>(_mm512_set1_epi8(3), low, high); // a ? b : c
                    *quants = _mm512_and_si512(all, _mm512_set1_epi8(7));
                }
                let g = 8 * H + 2 * Q + part;
                let scale = _mm512_mul_ps(_mm512_sub_ps(bytes(scales[g / 4], g % 4), _mm512_set1_ps(32.0)), d);
                tile.add_16_less(16 * g, quants, scale, 4.0);
            }
        }
    }

    /// Adds the products of half `H`.
    ///
    /// # Safety
    /// As for [`SixteenRows::add`].
    #[inline(always)]
    unsafe fn half<const M: usize, const H: usize>(
        blocks: &Blocks,
        third: [__m512i; 8],
        scales: [__m512i; 4],
        d: __m512,
        tile: &mut Tile<'_, M>,
    ) {
        // SAFETY: the caller's promise; bytes 32 + 32 H .. 64 + 32 H of blocks of 110.
        unsafe {
            blocks.prefetch::<Self>(H, 2);
            let pairs = blocks.eight_words(32 + 32 * H);
            Self::quarter::<M, H, 0>(pairs, third, scales, d, tile);
            Self::quarter::<M, H, 1>(pairs, third, scales, d, tile);
            Self::quarter::<M, H, 2>(pairs, third, scales, d, tile);
            Self::quarter::<M, H, 3>(pairs, third, scales, d, tile);
        }
    }
}

impl SixteenRows for Q3K {
    const BYTES: usize = 110;

    #[inline(always)]
    unsafe fn add<const M: usize>(blocks: &Blocks, tile: &mut Tile<'_, M>) {
        // SAFETY: the caller's promise; bytes 0 .. 32 and 94 .. 110 of blocks of 110.
        unsafe {
            // Of 16 bytes, the last two are `d`, and the twelve before it scales.
            let words = blocks.four_words(94);
            let after = |i: usize| _mm512_or_si512(_mm512_srli_epi32::<16>(words[i]), _mm512_slli_epi32::<16>(words[i + 1]));
            let (first, second, high) = (after(0), after(1), after(2));
            // Scale `i`: nibble `i / 8` of byte `i % 8`, and above it bit pair `i / 4` of byte `8 + i % 4`.
            let low = [first, second, _mm512_srli_epi32::<4>(first), _mm512_srli_epi32::<4>(second)];
            let high = [_mm512_slli_epi32::<4>(high), _mm512_slli_epi32::<2>(high), high, _mm512_srli_epi32::<2>(high)];
            let (mut scales, high) = (masked(low, 0x0f), masked(high, 0x30));
            for (scale, high) in scales.iter_mut().zip(high) {
                *scale = _mm512_or_si512(*scale, high);
            }
            let (third, d) = (blocks.eight_words(0), upper_halves(words[3]));
            Self::half::<M, 0>(blocks, third, scales, d, tile);
            Self::half::<M, 1>(blocks, third, scales, d, tile);
        }
    }
}
