//! Weight rows expanded for the batch kernel: quants, scales and minima of a slice of up to 32 rows, interleaved.

use super::groups_of_16::GroupsOf16;
use super::groups_of_32::GroupsOf32;
use super::transpose::transpose;
use super::{Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
use crate::arch::panel::{Panel, Row, SLICE};
use crate::blocks::DType;
use std::arch::x86_64::*;

/// Weight rows of a panel: two registers of sixteen.
pub(super) const ROWS: usize = 32;

/// The rows of a slice, each in order, before they are interleaved. Groups are of 32 columns or 16.
#[repr(C, align(64))]
pub(super) struct Rows {
    quants: [[u8; SLICE]; ROWS],
    scales: [[f32; SLICE / 16]; ROWS],
    mins: [[f32; SLICE / 16]; ROWS],
}

impl Rows {
    pub(super) const fn new() -> Self {
        Self { quants: [[0; SLICE]; ROWS], scales: [[0.0; SLICE / 16]; ROWS], mins: [[0.0; SLICE / 16]; ROWS] }
    }

    /// Expands row `r` from the blocks of a slice: weight = scale * quant - min, quants unsigned. Of formats whose minimum is a
    /// fixed number of scales the minima are left out.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    pub(super) unsafe fn fill(&mut self, dtype: DType, blocks: &[u8], r: usize) {
        // SAFETY: the features are this function's.
        unsafe {
            match dtype {
                DType::Q4_0 => self.groups_of_32::<Q4_0, false>(blocks, r),
                DType::Q4_1 => self.groups_of_32::<Q4_1, true>(blocks, r),
                DType::Q5_0 => self.groups_of_32::<Q5_0, false>(blocks, r),
                DType::Q5_1 => self.groups_of_32::<Q5_1, true>(blocks, r),
                DType::Q8_0 => self.groups_of_32::<Q8_0, false>(blocks, r),
                DType::Q2_K => self.groups_of_16::<Q2K>(blocks, r),
                DType::Q3_K => self.groups_of_16::<Q3K>(blocks, r),
                DType::Q6_K => self.groups_of_16::<Q6K>(blocks, r),
                DType::Q4_K => self.super_blocks::<144>(blocks, r, |block, z| Q4K::in_order(block, z)),
                DType::Q5_K => self.super_blocks::<176>(blocks, r, |block, z| Q5K::in_order(block, z)),
                DType::IQ4_NL | DType::IQ4_XS | DType::MXFP4 => {
                    let row = Row::new(dtype, blocks, true);
                    (self.quants[r], self.scales[r]) = (row.quants, row.scales);
                }
                DType::F32 | DType::F16 | DType::BF16 => {}
            }
        }
    }

    /// Interleaves the rows; `n_groups` of them have scales, and minima if `has_mins`.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    pub(super) fn interleave(&self, panel: &mut Panel<ROWS>, n_groups: usize, has_mins: bool) {
        assert!(n_groups <= SLICE / 16);
        let n_scales = n_groups.next_multiple_of(16);
        // SAFETY: rows of SLICE bytes, or of SLICE / 16 floats, at least as many as asked for, and as many places for each.
        unsafe {
            transpose(self.quants.as_ptr().cast(), SLICE, SLICE / 4, panel.quants.as_mut_ptr().cast());
            transpose(self.scales.as_ptr().cast(), SLICE / 16 * 4, n_scales, panel.scales.as_mut_ptr().cast());
            if has_mins {
                transpose(self.mins.as_ptr().cast(), SLICE / 16 * 4, n_scales, panel.mins.as_mut_ptr().cast());
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    unsafe fn groups_of_32<F: GroupsOf32, const MINS: bool>(&mut self, blocks: &[u8], r: usize) {
        const { assert!(F::BYTES <= 34, "the copy of the last blocks holds four") };
        let pairs = [_mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15)];
        for (i, four) in blocks.chunks(4 * F::BYTES).enumerate().take(SLICE / 128) {
            let mut copy = [0; 4 * 34];
            let four = if four.len() == 4 * F::BYTES {
                four.as_ptr()
            } else {
                copy[..four.len()].copy_from_slice(four);
                copy.as_ptr()
            };
            let quants = self.quants[r][128 * i..][..128].as_mut_ptr();
            let (scales, mins) = (self.scales[r][4 * i..][..4].as_mut_ptr(), self.mins[r][4 * i..][..4].as_mut_ptr());
            // SAFETY: four blocks are readable; twice 64 bytes and twice four floats are written.
            unsafe {
                let w = F::unpack(four);
                for (half, pairs) in pairs.into_iter().enumerate() {
                    _mm512_storeu_si512(quants.add(64 * half).cast(), _mm512_permutex2var_epi64(w.first, pairs, w.second));
                }
                _mm_storeu_ps(scales, w.d);
                if MINS {
                    _mm_storeu_ps(mins, _mm_sub_ps(_mm_setzero_ps(), w.c));
                }
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    unsafe fn groups_of_16<F: GroupsOf16>(&mut self, blocks: &[u8], r: usize) {
        for (b, block) in blocks.chunks_exact(F::BYTES).enumerate().take(SLICE / 256) {
            let quants = self.quants[r][256 * b..][..256].as_mut_ptr();
            let (scales, mins) = (self.scales[r][16 * b..][..16].as_mut_ptr(), self.mins[r][16 * b..][..16].as_mut_ptr());
            let floats = |factors, at: usize| {
                // SAFETY: two bytes of a block.
                let d = unsafe { super::splat_f16(block[at..][..2].as_ptr()) };
                _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(factors)), d)
            };
            // SAFETY: a block is readable; four times 64 bytes and twice sixteen floats are written.
            unsafe {
                for z in 0..4 {
                    _mm512_storeu_si512(quants.add(64 * z).cast(), F::quants(block.as_ptr(), z));
                }
                _mm512_storeu_ps(scales, floats(F::scales(block.as_ptr()), F::D));
                if let Some((factors, dmin)) = F::mins(block.as_ptr()) {
                    _mm512_storeu_ps(mins, floats(factors, dmin));
                }
            }
        }
    }

    /// Q4_K and Q5_K; `in_order(block, z)` are quants `64 z` .. `64 z + 64`.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn super_blocks<const BYTES: usize>(&mut self, blocks: &[u8], r: usize, in_order: impl Fn(*const u8, usize) -> __m512i) {
        for (b, block) in blocks.as_chunks::<BYTES>().0.iter().enumerate().take(SLICE / 256) {
            let quants = self.quants[r][256 * b..][..256].as_mut_ptr();
            let (scales, mins) = (self.scales[r][8 * b..][..8].as_mut_ptr(), self.mins[r][8 * b..][..8].as_mut_ptr());
            // SAFETY: four times 64 bytes and twice eight floats are written.
            unsafe {
                for z in 0..4 {
                    _mm512_storeu_si512(quants.add(64 * z).cast(), in_order(block.as_ptr(), z));
                }
                let factors = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(scales_and_mins(block)));
                let d = _mm_cvtph_ps(_mm_loadu_si32(block.as_ptr().cast()));
                let d = _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1), _mm512_castps128_ps512(d));
                let both = _mm512_mul_ps(factors, d);
                _mm256_storeu_ps(scales, _mm512_castps512_ps256(both));
                _mm256_storeu_ps(mins, _mm512_extractf32x8_ps::<1>(both));
            }
        }
    }
}

/// The eight scales, then the eight minima, of a block of Q4_K or Q5_K.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline]
fn scales_and_mins<const BYTES: usize>(block: &[u8; BYTES]) -> __m128i {
    let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    let (scales, mins, low) = (word(4), word(8), word(12));
    let high = |word: u32| (word >> 6 & 0x0303_0303) << 4;
    let words = [scales & 0x3f3f_3f3f, low & 0x0f0f_0f0f | high(scales), mins & 0x3f3f_3f3f, low >> 4 & 0x0f0f_0f0f | high(mins)];
    let [a, b, c, d] = words.map(u32::cast_signed);
    _mm_setr_epi32(a, b, c, d)
}
