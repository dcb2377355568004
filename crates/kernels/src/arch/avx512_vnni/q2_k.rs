//! Q2_K: two bits in 64 bytes; a byte of four-bit scale and minimum per 16.

use super::groups_of_16::GroupsOf16;
use super::sixteen_rows::{Blocks, SixteenRows, Tile, bytes, lower_halves, masked, upper_halves};
use std::arch::x86_64::*;

pub(in crate::arch) struct Q2K;

impl GroupsOf16 for Q2K {
    const BYTES: usize = 84;
    const D: usize = 80;
    const OFFSET: f32 = 0.0;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn quants(block: *const u8, z: usize) -> __m512i {
        // SAFETY: 32 bytes from 16 or 48, of a block of 84.
        let pairs = unsafe { _mm256_loadu_si256(block.add(16 + z / 2 * 32).cast()) };
        let shift = (z % 2 * 4) as i16;
        let shift = _mm512_inserti64x4::<1>(_mm512_set1_epi16(shift), _mm256_set1_epi16(shift + 2));
        let pairs = _mm512_srlv_epi16(_mm512_broadcast_i64x4(pairs), shift);
        _mm512_and_si512(pairs, _mm512_set1_epi8(3))
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn scales(block: *const u8) -> __m256i {
        // SAFETY: bytes 0 .. 16 of a block of 84.
        let bytes = unsafe { _mm_loadu_si128(block.cast()) };
        _mm256_cvtepu8_epi16(_mm_and_si128(bytes, _mm_set1_epi8(15)))
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn mins(block: *const u8) -> Option<(__m256i, usize)> {
        // SAFETY: bytes 0 .. 16 of a block of 84.
        let bytes = unsafe { _mm_loadu_si128(block.cast()) };
        let mins = _mm_and_si128(_mm_srli_epi16::<4>(bytes), _mm_set1_epi8(15));
        Some((_mm256_cvtepu8_epi16(mins), 82))
    }
}

/// The sixteen scales and minima of sixteen blocks, and what they are multiplied with.
struct Headers {
    d: __m512,
    dmin: __m512,
    scales: [__m512i; 4],
    mins: [__m512i; 4],
}

impl Q2K {
    /// Adds the products of half `H`.
    ///
    /// # Safety
    /// As for [`SixteenRows::add`].
    #[inline(always)]
    unsafe fn half<const M: usize, const H: usize>(blocks: &Blocks, headers: &Headers, tile: &mut Tile<'_, M>) {
        // SAFETY: the caller's promise; bytes 16 + 32 H .. 48 + 32 H of blocks of 84.
        unsafe {
            blocks.prefetch::<Self>(H, 2);
            let mut pairs = blocks.eight_words(16 + 32 * H);
            for quarter in 0..4 {
                let quants = masked(pairs, 3);
                let (first, second) = ([quants[0], quants[1], quants[2], quants[3]], [quants[4], quants[5], quants[6], quants[7]]);
                for (part, quants) in [first, second].into_iter().enumerate() {
                    let g = 8 * H + 2 * quarter + part;
                    let scale = _mm512_mul_ps(bytes(headers.scales[g / 4], g % 4), headers.d);
                    let min = _mm512_mul_ps(bytes(headers.mins[g / 4], g % 4), headers.dmin);
                    tile.add(16 * g, quants, scale, min);
                }
                for pair in &mut pairs {
                    *pair = _mm512_srli_epi16::<2>(*pair);
                }
            }
        }
    }
}

impl SixteenRows for Q2K {
    const BYTES: usize = 84;

    #[inline(always)]
    unsafe fn add<const M: usize>(blocks: &Blocks, tile: &mut Tile<'_, M>) {
        // SAFETY: the caller's promise; bytes 0 .. 16 and 68 .. 84 of blocks of 84.
        unsafe {
            let (bytes, ds) = (blocks.four_words(0), blocks.four_words(68)[3]);
            let mut high = bytes;
            for words in &mut high {
                *words = _mm512_srli_epi32::<4>(*words);
            }
            let headers = Headers { d: lower_halves(ds), dmin: upper_halves(ds), scales: masked(bytes, 15), mins: masked(high, 15) };
            Self::half::<M, 0>(blocks, &headers, tile);
            Self::half::<M, 1>(blocks, &headers, tile);
        }
    }
}
