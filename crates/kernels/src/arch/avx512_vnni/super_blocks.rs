//! Q4_K and Q5_K: blocks of 256 with a six-bit scale and minimum per 32.
//! The headers of four blocks are unpacked in one register; products of quants are scaled in integers, and a block is one
//! conversion to f32.

use super::{Results, dpwssd, prefetch_block};
use crate::blocks::DType;
use crate::quantize::{Activations, Q8K};
use std::arch::x86_64::*;
use std::array;
use std::ops::Range;

/// What differs between the formats.
pub(super) trait SuperBlock {
    /// Of a block; the header is its first 16.
    const BYTES: usize;
    /// How many bits too high the quants of the odd groups are.
    const ODD_SHIFT: u32;

    /// The quants of the even groups of 32, then those of the odd ones; each first the first halves (of 16), a group a lane,
    /// then the second halves.
    ///
    /// # Safety
    /// A block at `block` is readable, and the machine has the features of this module.
    unsafe fn quants(block: *const u8) -> [[__m512i; 2]; 2];

    /// Adds the products of the `N` blocks.
    ///
    /// # Safety
    /// The machine has the features of this module.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn add<const M: usize, const N: usize>(four: &Four<'_, M>, acc: &mut [__m512; M])
    where
        Self: Sized,
    {
        // SAFETY: the caller's promise.
        unsafe { four.add::<Self, N>(acc) };
    }
}

/// 64 bytes at `p` and the 64 after them, as the even and the odd ones of their eight lanes.
///
/// # Safety
/// They are readable.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline]
pub(super) unsafe fn even_and_odd_lanes(p: *const u8) -> [__m512i; 2] {
    // SAFETY: the caller's promise.
    let (a, b) = unsafe { (_mm512_loadu_si512(p.cast()), _mm512_loadu_si512(p.add(64).cast())) };
    [_mm512_shuffle_i32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b)]
}

/// As [`crate::table::DotRows`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn dot_rows<F: SuperBlock>(_: DType, w: &[u8], k: usize, acts: &Activations, rows: Range<usize>, out: &mut [f32]) {
    let row_bytes = k / 256 * F::BYTES;
    let n = w.len().checked_div(row_bytes).unwrap_or(0);
    for (out, start) in out.chunks_mut((4 * n).max(1)).zip(rows.clone().step_by(4)) {
        // SAFETY: the features are this function's; shapes are checked inside.
        unsafe {
            match rows.end - start {
                1 => dot::<F, 1>(w, k, acts, start, out),
                2 => dot::<F, 2>(w, k, acts, start, out),
                3 => dot::<F, 3>(w, k, acts, start, out),
                _ => dot::<F, 4>(w, k, acts, start, out),
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn dot<F: SuperBlock, const M: usize>(w: &[u8], k: usize, acts: &Activations, start: usize, out: &mut [f32]) {
    let n_blocks = k / 256;
    let row_bytes = n_blocks * F::BYTES;
    let n = w.len() / row_bytes;
    assert!(k == acts.cols() && out.len() >= M * n);
    let x: [Q8K<'_>; M] = array::from_fn(|i| acts.q8k_row(start + i));
    let mut results = Results::<M>::new(out, n);
    for r in 0..n {
        let mut acc = [_mm512_setzero_ps(); M];
        let row = w[r * row_bytes..][..row_bytes].as_ptr();
        let mut b = 0;
        // SAFETY: blocks below `n_blocks` lie within `row_bytes` bytes of `row`; a row of activations has at least
        // `acts.cols()` = `k` columns, padded to a multiple of four blocks.
        unsafe {
            while b + 4 <= n_blocks {
                four::<F, M, 4>(row.add(b * F::BYTES), b, &x, &mut acc);
                b += 4;
            }
            let rest = row.wrapping_add(b * F::BYTES);
            match n_blocks - b {
                0 => {}
                1 => four::<F, M, 1>(rest, b, &x, &mut acc),
                2 => four::<F, M, 2>(rest, b, &x, &mut acc),
                _ => four::<F, M, 3>(rest, b, &x, &mut acc),
            }
        }
        results.set(r, &acc);
    }
}

/// Up to four blocks whose headers are unpacked, and the `M` rows of activations to multiply them with.
pub(super) struct Four<'a, const M: usize> {
    /// The blocks.
    pub blocks: *const u8,
    /// The number of the first block in its row.
    pub b: usize,
    pub x: &'a [Q8K<'a>; M],
    /// Scales times multipliers, of all blocks.
    pub scaled: [__m512i; M],
    /// The product of both `d` of block `j` at `2 j`.
    pub ds: [__m512; M],
}

/// Adds the products of blocks `b` .. `b + N`, `N` at most 4.
///
/// # Safety
/// `N` blocks at `blocks` are readable; the rows of `x` have at least `256 (b + 4)` columns.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline]
unsafe fn four<F: SuperBlock, const M: usize, const N: usize>(blocks: *const u8, b: usize, x: &[Q8K<'_>; M], acc: &mut [__m512; M]) {
    const Z: i8 = -1;
    // SAFETY: every load is of the first `N` blocks, of columns below `256 (b + 4)` of `x`, or of a row of SPREAD.
    unsafe {
        let header = |i: usize| {
            if i < N { _mm_loadu_si128(blocks.add(i * F::BYTES).cast()) } else { _mm_setzero_si128() }
        };
        let headers = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(header(0)), header(1));
        let headers = _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(headers, header(2)), header(3));

        // The words of four bytes of a header: d and dmin; scales 0..4 and above them two high bits of scales 4..8; minima the
        // same; low bits of scales 4..8 and above them those of minima 4..8. As bytes, in four words: scales 4..8, scales 0..4,
        // minima 0..4, minima 4..8.
        let words = |a, b, c, d| _mm512_broadcast_i32x4(_mm_setr_epi32(a, b, c, d));
        let six_or_high = _mm512_srlv_epi32(_mm512_shuffle_epi32::<0b10_10_01_01>(headers), words(2, 0, 0, 2));
        let six_or_high = _mm512_and_si512(six_or_high, words(0x3030_3030, 0x3f3f_3f3f, 0x3f3f_3f3f, 0x3030_3030));
        let low = _mm512_srlv_epi32(_mm512_shuffle_epi32::<0b11_11_11_11>(headers), words(0, 0, 0, 4));
        let all = _mm512_ternarylogic_epi64::<0xf8>(six_or_high, low, words(0x0f0f_0f0f, 0, 0, 0x0f0f_0f0f)); // a | b & c
        let pick = |bytes: __m128i| _mm512_shuffle_epi8(all, _mm512_broadcast_i32x4(bytes));
        let scales = pick(_mm_setr_epi8(4, Z, 5, Z, 6, Z, 7, Z, 0, Z, 1, Z, 2, Z, 3, Z));
        let mins = pick(_mm_setr_epi8(8, Z, 9, Z, 10, Z, 11, Z, 12, Z, 13, Z, 14, Z, 15, Z));

        // d and dmin of block `i` at `2 i`.
        let d_at = _mm512_castsi128_si512(_mm_setr_epi16(0, 1, 8, 9, 16, 17, 24, 25));
        let d = _mm256_cvtph_ps(_mm512_castsi512_si128(_mm512_permutexvar_epi16(d_at, headers)));
        let pairs = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
        let dmin_lanes = _mm512_setr_epi32(1, 1, 1, 1, 3, 3, 3, 3, 5, 5, 5, 5, 7, 7, 7, 7);

        let mut scaled = [_mm512_setzero_si512(); M];
        let mut ds = [_mm512_setzero_ps(); M];
        for (i, x) in x.iter().enumerate() {
            let multipliers = _mm512_loadu_si512(x.multipliers.as_ptr().add(b * 8).cast());
            let sums = _mm512_loadu_si512(x.sums.as_ptr().add(b * 8).cast());
            let dx = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(x.d.as_ptr().add(b))), pairs);
            ds[i] = _mm512_castps256_ps512(_mm256_mul_ps(d, dx));
            scaled[i] = _mm512_mullo_epi16(scales, multipliers);
            let min_sums = _mm512_madd_epi16(_mm512_mullo_epi16(mins, multipliers), sums);
            acc[i] = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(min_sums), _mm512_permutexvar_ps(dmin_lanes, ds[i]), acc[i]);
        }
        F::add::<M, N>(&Four { blocks, b, x, scaled, ds }, acc);
    }
}

/// Words to take for the sums of block `j`, dwords of an even group's sum in the low and an odd one's in the high word: both
/// scales of each lane, four times.
static SPREAD: [[u16; 32]; 4] = {
    let mut spread = [[0; 32]; 4];
    let mut i = 0;
    while i < 4 * 32 {
        spread[i / 32][i % 32] = (i / 32 * 8 + i % 32 / 8 * 2 + i % 2) as u16;
        i += 1;
    }
    spread
};

impl<const M: usize> Four<'_, M> {
    /// Adds the products of the `N` blocks, one after the other.
    ///
    /// A lane's four sums of four products each fit in 16 bits (8 * 31 * 127 < 2^15), so that those of an even and of an odd group
    /// share a register, and one `vpdpwssd` scales and adds 256 products.
    ///
    /// # Safety
    /// The machine has the features of this module.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    pub unsafe fn add<F: SuperBlock, const N: usize>(&self, acc: &mut [__m512; M]) {
        // One call each, since LLVM does not unroll a loop of this size, and then the prefetches take jumps that are mispredicted.
        // SAFETY: the blocks and as many columns of `x` are readable.
        unsafe {
            self.add_one::<F, N, 0>(acc);
            if N > 1 {
                self.add_one::<F, N, 1>(acc);
            }
            if N > 2 {
                self.add_one::<F, N, 2>(acc);
            }
            if N > 3 {
                self.add_one::<F, N, 3>(acc);
            }
        }
    }

    /// Adds the products of block `J` of `N`.
    ///
    /// # Safety
    /// As for `add`.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn add_one<F: SuperBlock, const N: usize, const J: usize>(&self, acc: &mut [__m512; M]) {
        prefetch_block(self.blocks, J, N, F::BYTES);
        // SAFETY: block `J` and 256 columns of each `x` from `256 (b + J)` on are readable; a row of SPREAD is 64 bytes.
        unsafe {
            let [even, odd] = F::quants(self.blocks.add(J * F::BYTES));
            let spread = _mm512_loadu_si512(SPREAD[J].as_ptr().cast());
            for (i, acc) in acc.iter_mut().enumerate() {
                let x = self.x[i].qs_by_lane.as_ptr().add((self.b + J) * 256);
                let dot = |[first, second]: [__m512i; 2], x: *const i8| {
                    let sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), first, _mm512_loadu_si512(x.cast()));
                    _mm512_dpbusd_epi32(sums, second, _mm512_loadu_si512(x.add(64).cast()))
                };
                let (even, odd) = (dot(even, x), dot(odd, x.add(128)));
                let odd = _mm512_sll_epi32(odd, _mm_cvtsi32_si128((16 - F::ODD_SHIFT).cast_signed()));
                let sums = _mm512_ternarylogic_epi64::<0xca>(_mm512_set1_epi32(0xffff), even, odd); // a ? b : c
                let sums = dpwssd(_mm512_setzero_si512(), sums, _mm512_permutexvar_epi16(spread, self.scaled[i]));
                let d = _mm512_permutexvar_ps(_mm512_set1_epi32(2 * J as i32), self.ds[i]);
                *acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), d, *acc);
            }
        }
    }
}
