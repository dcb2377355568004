//! Q6_K, Q3_K and Q2_K: blocks of 256 with a scale per 16.

use super::{Results, dpwssd, prefetch_block};
use crate::blocks::DType;
use crate::quantize::{Activations, Q8K};
use std::arch::x86_64::*;
use std::array;
use std::ops::Range;

/// What differs between the formats.
pub(in crate::arch) trait GroupsOf16 {
    /// Of a block.
    const BYTES: usize;
    /// Where its `d` (f16) is.
    const D: usize;
    /// What is too much in the unsigned quants, for formats without minima.
    const OFFSET: f32;
    /// Sums of eight products overflow 16 bits unless that, which is 32 then, is taken off them.
    const IS_WIDE: bool;

    /// Quants `64 z` .. `64 z + 64` of a block, in order, with an offset that makes them unsigned.
    ///
    /// # Safety
    /// A block at `block` is readable, `z` is below 4, and the machine has the features of this module.
    unsafe fn quants(block: *const u8, z: usize) -> __m512i;

    /// The sixteen scales as i16.
    ///
    /// # Safety
    /// As for `quants`.
    unsafe fn scales(block: *const u8) -> __m256i;

    /// The sixteen minima as i16 and the place of their `dmin` (f16), for formats that have them.
    ///
    /// # Safety
    /// As for `quants`.
    unsafe fn mins(block: *const u8) -> Option<(__m256i, usize)>;
}

/// As [`crate::table::DotRows`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn dot_rows<F: GroupsOf16>(_: DType, w: &[u8], k: usize, acts: &Activations, rows: Range<usize>, out: &mut [f32]) {
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
unsafe fn dot<F: GroupsOf16, const M: usize>(w: &[u8], k: usize, acts: &Activations, start: usize, out: &mut [f32]) {
    let n_blocks = k / 256;
    let row_bytes = n_blocks * F::BYTES;
    let n = w.len() / row_bytes;
    assert!(k == acts.cols() && out.len() >= M * n);
    let x: [Q8K<'_>; M] = array::from_fn(|i| acts.q8k_row(start + i));
    let mut results = Results::<M>::new(out, n);
    for r in 0..n {
        let mut acc = [_mm512_setzero_ps(); M];
        let row = w[r * row_bytes..][..row_bytes].as_ptr();
        for b in (0..n_blocks).step_by(2) {
            // SAFETY: blocks below `n_blocks` lie within `row_bytes` bytes of `row`; a row of activations has at least
            // `acts.cols()` = `k` columns, padded to a multiple of four blocks.
            unsafe {
                let blocks = row.add(b * F::BYTES);
                if b + 2 <= n_blocks { two::<F, M, 2>(blocks, b, &x, &mut acc) } else { two::<F, M, 1>(blocks, b, &x, &mut acc) }
            }
        }
        results.set(r, &acc);
    }
}

/// Words to take for the sums of block `j`: in a lane, two of a group of the first half, two of the group four on, and the same of
/// the second half.
static SPREAD: [[u16; 32]; 2] = {
    let mut spread = [[0; 32]; 2];
    let mut i = 0;
    while i < 2 * 32 {
        spread[i / 32][i % 32] = (i / 32 * 16 + i % 8 / 2 * 4 + i % 32 / 8) as u16;
        i += 1;
    }
    spread
};

/// Adds the products of blocks `b` .. `b + N`, `N` at most 2.
///
/// Sums of eight products fit in 16 bits (8 * 32 * 127 < 2^15, once the offset of the quants is off), so that one `vpdpwssd`
/// scales and adds 256 products.
///
/// # Safety
/// `N` blocks at `blocks` are readable; the rows of `x` have at least `256 (b + 2)` columns.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline]
unsafe fn two<F: GroupsOf16, const M: usize, const N: usize>(blocks: *const u8, b: usize, x: &[Q8K<'_>; M], acc: &mut [__m512; M]) {
    // SAFETY: every load is of the first `N` blocks, of columns below `256 (b + 2)` of `x`, or of a row of SPREAD.
    unsafe {
        let next = blocks.wrapping_add(F::BYTES);
        let both = |first, second: Option<__m256i>| {
            let first = _mm512_zextsi256_si512(first);
            second.map_or(first, |second| _mm512_inserti64x4::<1>(first, second))
        };
        let floats = |at: usize| {
            let bits = |i: usize| u32::from(blocks.add(i * F::BYTES + at).cast::<u16>().read_unaligned()) << (16 * i);
            _mm_cvtph_ps(_mm_cvtsi32_si128((0..N).fold(0, |all, i| all | bits(i)).cast_signed()))
        };
        let scales = both(F::scales(blocks), (N == 2).then(|| F::scales(next)));
        let d = floats(F::D);
        // The sums of 16 activations are -16 times what is meant.
        let mins = F::mins(blocks).map(|(mins, at)| {
            let next = if N == 2 { F::mins(next).map(|(mins, _)| mins) } else { None };
            (both(mins, next), _mm_mul_ps(floats(at), _mm_set1_ps(0.0625)))
        });
        let halves = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
        let mut scaled = [_mm512_setzero_si512(); M];
        let mut ds = [_mm512_setzero_ps(); M];
        for (i, x) in x.iter().enumerate() {
            let multipliers = _mm512_loadu_si512(x.multipliers16.as_ptr().add(b * 16).cast());
            let dx = _mm_castpd_ps(_mm_load_sd(x.d.as_ptr().add(b).cast()));
            scaled[i] = _mm512_mullo_epi16(scales, multipliers);
            ds[i] = _mm512_castps128_ps512(_mm_mul_ps(d, dx));
            if F::IS_WIDE {
                continue;
            }
            let (offsets, d) = match mins {
                Some((mins, dmin)) => (_mm512_mullo_epi16(mins, multipliers), _mm_mul_ps(dmin, dx)),
                None => (scaled[i], _mm_mul_ps(_mm_mul_ps(d, dx), _mm_set1_ps(F::OFFSET * 0.0625))),
            };
            let x_sums = _mm512_loadu_si512(x.sums16.as_ptr().add(b * 16).cast());
            let offsets = _mm512_cvtepi32_ps(_mm512_madd_epi16(offsets, x_sums));
            acc[i] = _mm512_fmadd_ps(offsets, _mm512_permutexvar_ps(halves, _mm512_castps128_ps512(d)), acc[i]);
        }
        let offsets = x.map(|x| x.offsets.as_ptr().add(b * 32));
        let dots = Dots { blocks, x: x.map(|x| x.qs_by_eight.as_ptr().add(b * 256)), offsets, scaled, ds };
        dots.add::<F, N, 0>(acc);
        if N > 1 {
            dots.add::<F, N, 1>(acc);
        }
    }
}

/// What the dot products of up to two blocks with `M` rows of activations need.
struct Dots<const M: usize> {
    blocks: *const u8,
    /// The quants that the first block is multiplied with, `qs_by_eight`, and their `offsets`.
    x: [*const i8; M],
    offsets: [*const i32; M],
    /// Scales times multipliers, of both blocks.
    scaled: [__m512i; M],
    /// The product of both `d` of block `j` at `j`.
    ds: [__m512; M],
}

impl<const M: usize> Dots<M> {
    /// Adds the products of block `J` of `N`.
    ///
    /// # Safety
    /// The block and 256 columns of each `x` from `256 J` on are readable, and the machine has the features of this module.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn add<F: GroupsOf16, const N: usize, const J: usize>(&self, acc: &mut [__m512; M]) {
        prefetch_block(self.blocks, J, N, F::BYTES);
        // SAFETY: the caller's promise; a row of SPREAD is 64 bytes.
        let (sums, spread) = unsafe {
            let sums = [self.half::<F, J, 0>(), self.half::<F, J, 1>()];
            (sums, _mm512_loadu_si512(SPREAD[J].as_ptr().cast()))
        };
        for (i, acc) in acc.iter_mut().enumerate() {
            let words = _mm512_packs_epi32(sums[0][i], sums[1][i]);
            let sums = dpwssd(_mm512_setzero_si512(), words, _mm512_permutexvar_epi16(spread, self.scaled[i]));
            let d = _mm512_permutexvar_ps(_mm512_set1_epi32(J as i32), self.ds[i]);
            *acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), d, *acc);
        }
    }

    /// The sums of products of half `H` of block `J`, eight each.
    ///
    /// # Safety
    /// As for `add`.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn half<F: GroupsOf16, const J: usize, const H: usize>(&self) -> [__m512i; M] {
        // SAFETY: the caller's promise.
        unsafe {
            let block = self.blocks.add(J * F::BYTES);
            let (low, high) = (F::quants(block, 2 * H), F::quants(block, 2 * H + 1));
            // The order of `qs_by_eight`.
            let first = _mm512_mask_blend_epi64(0b1010_1010, low, high);
            let second = _mm512_shuffle_pd::<0b0101_0101>(_mm512_castsi512_pd(low), _mm512_castsi512_pd(high));
            let second = _mm512_castpd_si512(second);
            array::from_fn(|i| {
                let x = self.x[i].add(J * 256 + H * 128);
                let offsets = self.offsets[i].add(J * 32 + H * 16);
                let start = if F::IS_WIDE { _mm512_loadu_si512(offsets.cast()) } else { _mm512_setzero_si512() };
                let sums = _mm512_dpbusd_epi32(start, first, _mm512_loadu_si512(x.cast()));
                _mm512_dpbusd_epi32(sums, second, _mm512_loadu_si512(x.add(64).cast()))
            })
        }
    }
}
