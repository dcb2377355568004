//! Q6_K: 64 bytes of nibbles and 32 of bit pairs hold 128 weights. Quants are kept as 0..64, 32 too large.

use super::groups_of_16::GroupsOf16;
use super::sixteen_rows::{Blocks, SixteenRows, Tile, upper_halves};
use std::arch::x86_64::*;

pub(in crate::arch) struct Q6K;

impl GroupsOf16 for Q6K {
    const BYTES: usize = 210;
    const D: usize = 208;
    const OFFSET: f32 = 32.0;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn quants(block: *const u8, z: usize) -> __m512i {
        let half = z / 2;
        // SAFETY: 64 bytes from 0 or 64 and 32 from 128 or 160, of a block of 210.
        let (low, pairs) = unsafe {
            let low = _mm512_loadu_si512(block.add(64 * half).cast());
            (low, _mm512_broadcast_i64x4(_mm256_loadu_si256(block.add(128 + 32 * half).cast())))
        };
        let halves = |a, b| _mm512_inserti64x4::<1>(_mm512_set1_epi16(a), _mm256_set1_epi16(b));
        // The pair of weight `l` of a quarter (32 weights) is at bit `2 quarter` of byte `l`; it goes to bit 4.
        let (low, pairs) = if z.is_multiple_of(2) {
            (low, _mm512_sllv_epi16(pairs, halves(4, 2)))
        } else {
            (_mm512_srli_epi16::<4>(low), _mm512_srlv_epi16(pairs, halves(0, 2)))
        };
        let pairs = _mm512_and_si512(pairs, _mm512_set1_epi8(0x30));
        _mm512_ternarylogic_epi64::<0xea>(low, _mm512_set1_epi8(15), pairs) // low & 15 | pairs
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn scales(block: *const u8) -> __m256i {
        // SAFETY: bytes 192 .. 208 of a block of 210.
        _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(block.add(192).cast()) })
    }

    #[inline(always)]
    unsafe fn mins(_: *const u8) -> Option<(__m256i, usize)> {
        None
    }
}

/// A half of sixteen blocks, 128 weights each; of the nibbles one quarter of it and the one two further.
struct Half<'a> {
    blocks: &'a Blocks,
    nibbles: [__m512i; 8],
    pairs: [__m512i; 8],
    scales: [__m512i; 4],
    d: __m512,
}

impl Half<'_> {
    /// Adds the products of group `g` of 16. Always called with a number, which the compiler would not make of a loop's.
    ///
    /// # Safety
    /// The group is of this half, and of the quarters whose nibbles are there; as for [`SixteenRows::add`].
    #[inline(always)]
    unsafe fn add<const M: usize>(&self, g: usize, tile: &mut Tile<'_, M>) {
        let (quarter, part) = (g % 8 / 2, g % 2);
        // SAFETY: the caller's promise.
        unsafe {
            self.blocks.prefetch::<Q6K>(g / 8 * 8 + quarter % 2 * 4 + quarter / 2 * 2 + part, 16);
            let mut quants = [_mm512_setzero_si512(); 4];
            for (i, quants) in quants.iter_mut().enumerate() {
                let (nibbles, pairs) = (self.nibbles[4 * part + i], self.pairs[4 * part + i]);
                *quants = match quarter {
                    0 => joined(nibbles, _mm512_slli_epi16::<4>(pairs)),
                    1 => joined(nibbles, _mm512_slli_epi16::<2>(pairs)),
                    2 => joined(_mm512_srli_epi16::<4>(nibbles), pairs),
                    _ => joined(_mm512_srli_epi16::<4>(nibbles), _mm512_srli_epi16::<2>(pairs)),
                };
            }
            let scale = _mm512_mul_ps(signed_bytes(self.scales[g / 4], g % 4), self.d);
            tile.add_16_less(16 * g, quants, scale, 32.0);
        }
    }
}

/// Nibbles and, from bit 4 on, pairs of bits of each byte.
///
/// # Safety
/// The machine has the features of this module.
#[inline(always)]
unsafe fn joined(nibbles: __m512i, pairs: __m512i) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let pairs = _mm512_and_si512(pairs, _mm512_set1_epi8(0x30));
        _mm512_ternarylogic_epi64::<0xea>(nibbles, _mm512_set1_epi8(15), pairs) // nibbles & 15 | pairs
    }
}

/// Byte `i` of each lane, signed, as floats.
///
/// # Safety
/// The machine has the features of this module.
#[inline(always)]
unsafe fn signed_bytes(words: __m512i, i: usize) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe {
        let on_top = match i {
            0 => _mm512_slli_epi32::<24>(words),
            1 => _mm512_slli_epi32::<16>(words),
            2 => _mm512_slli_epi32::<8>(words),
            _ => words,
        };
        _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(on_top))
    }
}

impl SixteenRows for Q6K {
    const BYTES: usize = 210;

    #[inline(always)]
    unsafe fn add<const M: usize>(blocks: &Blocks, tile: &mut Tile<'_, M>) {
        // SAFETY: the caller's promise; bytes below 210 of blocks of 210.
        unsafe {
            let scales = blocks.four_words(192);
            let d = upper_halves(blocks.four_words(194)[3]);
            let half = Half { blocks, nibbles: blocks.eight_words(0), pairs: blocks.eight_words(128), scales, d };
            half.add(0, tile);
            half.add(1, tile);
            half.add(4, tile);
            half.add(5, tile);
            let half = Half { nibbles: blocks.eight_words(32), ..half };
            half.add(2, tile);
            half.add(3, tile);
            half.add(6, tile);
            half.add(7, tile);
            let half = Half { nibbles: blocks.eight_words(64), pairs: blocks.eight_words(160), ..half };
            half.add(8, tile);
            half.add(9, tile);
            half.add(12, tile);
            half.add(13, tile);
            let half = Half { nibbles: blocks.eight_words(96), ..half };
            half.add(10, tile);
            half.add(11, tile);
            half.add(14, tile);
            half.add(15, tile);
        }
    }
}
