//! One or a few activation rows with blocks of 256: sixteen weight rows at a time, a row a lane, so that every sum ends up where its
//! scale is and nothing is added across a register. The order of additions is the same however many activation rows there are.

use super::PAGE_AHEAD_BYTES;
use super::transpose::transposed_in_lanes;
use crate::blocks::DType;
use crate::quantize::{Activations, Q8};
use std::arch::asm;
use std::arch::x86_64::*;
use std::array;
use std::ops::Range;

/// Weight rows that are multiplied together.
const LANES: usize = 16;

/// The largest block of a format.
const BYTES_MAX: usize = 210;

/// How many blocks on a row is fetched into the first level cache. With more they would leave it before they are read.
const NEAR_BLOCKS: usize = 2;

/// How far behind the end of the sixteen rows weights are fetched from memory: in its order, not in that of use, in which the last
/// row comes too early.
const FAR_BYTES: usize = 16384;

/// What differs between the formats.
pub(super) trait SixteenRows {
    /// Of a block.
    const BYTES: usize;

    /// Adds the products of sixteen blocks.
    ///
    /// # Safety
    /// The blocks are readable, the tile has the columns, and the machine has the features of this module.
    unsafe fn add<const M: usize>(blocks: &Blocks, tile: &mut Tile<'_, M>);
}

/// Sixteen blocks, one of each weight row.
pub(super) struct Blocks {
    /// Every fourth one, and how far from one to the next, and to the third after it. Sixteen addresses would not fit in registers.
    fourths: [*const u8; 4],
    stride: usize,
    stride_3: usize,
    /// How far on those are that come next.
    next: usize,
    /// What is as far ahead in memory as is worth it; all of `LANES` blocks.
    far: *const u8,
}

/// Products of sixteen weight rows with `M` activation rows.
pub(super) struct Tile<'a, const M: usize> {
    x: &'a [Q8<'a>; M],
    /// Column that the blocks begin with.
    start: usize,
    acc: [__m512; M],
}

/// As [`crate::table::DotRows`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn dot_rows<F: SixteenRows>(_: DType, w: &[u8], k: usize, acts: &Activations, rows: Range<usize>, out: &mut [f32]) {
    // SAFETY: the features are this function's; shapes are checked inside.
    unsafe {
        match rows.len() {
            0 => {}
            1 => dot::<F, 1>(w, k, acts, rows.start, out),
            2 => dot::<F, 2>(w, k, acts, rows.start, out),
            3 => dot::<F, 3>(w, k, acts, rows.start, out),
            4 => dot::<F, 4>(w, k, acts, rows.start, out),
            5 => dot::<F, 5>(w, k, acts, rows.start, out),
            6 => dot::<F, 6>(w, k, acts, rows.start, out),
            7 => dot::<F, 7>(w, k, acts, rows.start, out),
            _ => dot::<F, 8>(w, k, acts, rows.start, out),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn dot<F: SixteenRows, const M: usize>(w: &[u8], k: usize, acts: &Activations, start: usize, out: &mut [f32]) {
    let n_blocks = k / 256;
    let row_bytes = n_blocks * F::BYTES;
    let n = w.len() / row_bytes;
    assert!(k == acts.cols() && out.len() >= M * n);
    let x: [Q8<'_>; M] = array::from_fn(|i| acts.q8_row(start + i));
    for r in (0..n / LANES * LANES).step_by(LANES) {
        let panel = w[r * row_bytes..][..LANES * row_bytes].as_ptr();
        let mut tile = Tile { x: &x, start: 0, acc: [_mm512_setzero_ps(); M] };
        for b in 0..n_blocks {
            let next = b + NEAR_BLOCKS;
            let next = next / n_blocks * LANES * row_bytes + next % n_blocks * F::BYTES - b * F::BYTES;
            let far = panel.wrapping_add(LANES * row_bytes + FAR_BYTES + b * LANES * F::BYTES);
            let blocks = Blocks::new(panel.wrapping_add(b * F::BYTES), row_bytes, next, far);
            // SAFETY: block `b` of rows of the panel; the rows of activations have `k` columns.
            unsafe { F::add(&blocks, &mut tile) };
            tile.start += 256;
        }
        tile.store(LANES, &mut out[r..], n);
    }
    if !n.is_multiple_of(LANES) {
        let r = n / LANES * LANES;
        // SAFETY: the features are this function's.
        let tile = unsafe { few_rows::<F, M>(&w[r * row_bytes..], row_bytes, &x) };
        tile.store(n - r, &mut out[r..], n);
    }
}

/// The products of fewer than sixteen weight rows, copied to have zeros after them.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn few_rows<'a, F: SixteenRows, const M: usize>(w: &[u8], row_bytes: usize, x: &'a [Q8<'a>; M]) -> Tile<'a, M> {
    const { assert!(F::BYTES <= BYTES_MAX, "copies of the blocks have room") };
    let mut tile = Tile { x, start: 0, acc: [_mm512_setzero_ps(); M] };
    let mut copies = [[0; BYTES_MAX]; LANES];
    for b in 0..row_bytes / F::BYTES {
        for (copy, row) in copies.iter_mut().zip(w.chunks_exact(row_bytes)) {
            copy[..F::BYTES].copy_from_slice(&row[b * F::BYTES..][..F::BYTES]);
        }
        let blocks = Blocks::new(copies.as_ptr().cast(), BYTES_MAX, 0, w.as_ptr());
        // SAFETY: there are sixteen copies; the rows of activations have as many columns.
        unsafe { F::add(&blocks, &mut tile) };
        tile.start += 256;
    }
    tile
}

impl Blocks {
    /// The first is at `first`, each next one `stride` further.
    #[inline(always)]
    fn new(first: *const u8, stride: usize, next: usize, far: *const u8) -> Self {
        let mut stride_3 = 3 * stride;
        let [mut a, mut b, mut c, mut d] = [0, 4, 8, 12].map(|row| first.wrapping_add(row * stride));
        // SAFETY: the assembly is empty: it keeps LLVM from replacing the registers by sums of products, too many for registers.
        unsafe {
            asm!("/* {} {} {} {} {} */", inout(reg) a, inout(reg) b, inout(reg) c, inout(reg) d, inout(reg) stride_3,
                options(pure, readonly, nostack, preserves_flags));
        }
        Self { fourths: [a, b, c, d], stride, stride_3, next, far }
    }

    /// Where block `row` is.
    #[inline(always)]
    fn row(&self, row: usize) -> *const u8 {
        let steps = [0, self.stride, 2 * self.stride, self.stride_3];
        self.fourths[row / 4].wrapping_add(steps[row % 4])
    }

    /// Fetches part `part` of `n` of what comes next: of the next blocks into the first level cache, of what is far ahead into the
    /// second. They need not exist.
    ///
    /// # Safety
    /// The machine has the features of this module.
    #[inline(always)]
    pub(super) unsafe fn prefetch<F: SixteenRows>(&self, part: usize, n: usize) {
        let lines = LANES * F::BYTES / 64;
        // SAFETY: the caller's promise; a prefetch never faults, and the assembly is empty: it keeps LLVM from collecting the
        // prefetches of all parts in one place, where they wait for each other.
        unsafe {
            asm!("", options(nostack, preserves_flags));
            // And the address of its page is known by then: see `PAGE_AHEAD_BYTES`.
            let start = lines * part / n;
            _mm_prefetch::<_MM_HINT_T1>(self.far.wrapping_add(64 * start + PAGE_AHEAD_BYTES).cast());
            for line in start..lines * (part + 1) / n {
                _mm_prefetch::<_MM_HINT_T1>(self.far.wrapping_add(64 * line).cast());
            }
            for row in LANES * part / n..LANES * (part + 1) / n {
                for line in 0..F::BYTES.div_ceil(64) {
                    _mm_prefetch::<_MM_HINT_T0>(self.row(row).wrapping_add(self.next).wrapping_add(64 * line).cast());
                }
            }
        }
    }

    /// The words of four bytes of the 32 bytes at `at` of each block: word `i` of block `r` in lane `r` of `i`.
    ///
    /// # Safety
    /// The blocks have the bytes, and the machine has the features of this module.
    #[inline(always)]
    pub(super) unsafe fn eight_words(&self, at: usize) -> [__m512i; 8] {
        // SAFETY: the caller's promise.
        unsafe {
            let half = |r: usize| _mm256_loadu_si256(self.row(r).add(at).cast());
            let two = |r: usize| _mm512_inserti64x4::<1>(_mm512_castsi256_si512(half(r)), half(r + 4));
            // In 128 bits each: words `e` of four rows, words `4 + e` of these, and the same of the four rows after them.
            let low = transposed_in_lanes([two(0), two(1), two(2), two(3)]);
            let high = transposed_in_lanes([two(8), two(9), two(10), two(11)]);
            let mut words = [_mm512_setzero_si512(); 8];
            for i in 0..4 {
                words[i] = _mm512_shuffle_i32x4::<0b10_00_10_00>(low[i], high[i]);
                words[4 + i] = _mm512_shuffle_i32x4::<0b11_01_11_01>(low[i], high[i]);
            }
            words
        }
    }

    /// The same of the 16 bytes at `at`.
    ///
    /// # Safety
    /// As for `eight_words`.
    #[inline(always)]
    pub(super) unsafe fn four_words(&self, at: usize) -> [__m512i; 4] {
        // SAFETY: the caller's promise.
        unsafe {
            let lane = |r: usize| _mm_loadu_si128(self.row(r).add(at).cast());
            let four = |r: usize| {
                let low = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(lane(r)), lane(r + 4));
                _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(low, lane(r + 8)), lane(r + 12))
            };
            transposed_in_lanes([four(0), four(1), four(2), four(3)])
        }
    }
}

impl<const M: usize> Tile<'_, M> {
    /// Adds the products of a group of 32, `N` being 8, or of 16, `N` being 4, from column `at` of the blocks on:
    /// weight = scale * quant - min.
    ///
    /// # Safety
    /// The activations have the columns, and the machine has the features of this module.
    #[inline(always)]
    pub(super) unsafe fn add<const N: usize>(&mut self, at: usize, quants: [__m512i; N], scale: __m512, min: __m512) {
        const { assert!(N == 4 || N == 8, "sums of activations are per 16 or 32") };
        let first = self.start + at;
        for (acc, x) in self.acc.iter_mut().zip(self.x) {
            // SAFETY: the caller's promise.
            unsafe {
                let sums = if N == 8 { x.sums } else { x.sums16 };
                let (d, sum) = (*x.d.get_unchecked(first / 32), *sums.get_unchecked(first / (4 * N)));
                let products = _mm512_cvtepi32_ps(products(x, self.start, at, quants));
                *acc = _mm512_fnmadd_ps(min, _mm512_set1_ps(sum), *acc);
                *acc = _mm512_fmadd_ps(products, _mm512_mul_ps(scale, _mm512_set1_ps(d)), *acc);
            }
        }
    }

    /// Adds the products of a group of 16: weight = scale * (quant - offset).
    ///
    /// # Safety
    /// As for `add`.
    #[inline(always)]
    pub(super) unsafe fn add_16_less(&mut self, at: usize, quants: [__m512i; 4], scale: __m512, offset: f32) {
        let group = (self.start + at) / 16;
        for (acc, x) in self.acc.iter_mut().zip(self.x) {
            // SAFETY: the caller's promise.
            unsafe {
                let (d, sum) = (*x.d.get_unchecked(group / 2), *x.sums16.get_unchecked(group));
                let products = _mm512_cvtepi32_ps(products(x, self.start, at, quants));
                let products = _mm512_mul_ps(products, _mm512_set1_ps(d));
                let products = _mm512_fnmadd_ps(_mm512_set1_ps(offset), _mm512_set1_ps(sum), products);
                *acc = _mm512_fmadd_ps(products, scale, *acc);
            }
        }
    }

    /// Writes the sums of the first `n` weight rows, to rows of `out` that are `stride` apart.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    fn store(&self, n: usize, out: &mut [f32], stride: usize) {
        for (i, acc) in self.acc.iter().enumerate() {
            let out = &mut out[i * stride..][..n];
            // SAFETY: `n` floats, at most sixteen.
            unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), ((1_u32 << n) - 1) as __mmask16, *acc) };
        }
    }
}

/// The sums of products of `N` words of four quants with the columns from `start + at` on.
///
/// # Safety
/// As for [`Tile::add`]; `start` is a multiple of 256.
#[inline(always)]
unsafe fn products<const N: usize>(x: &Q8<'_>, start: usize, at: usize, quants: [__m512i; N]) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let blocks = x.qs.as_ptr().add(start);
        let mut sums = _mm512_setzero_si512();
        for (i, quants) in quants.into_iter().enumerate() {
            let column = at + 4 * i;
            let place = column / 128 * 128 + column % 32 / 16 * 64 + column % 128 / 32 * 16 + column % 16; // see `Q8`
            let four = blocks.add(place).cast::<i32>().read_unaligned();
            sums = _mm512_dpbusd_epi32(sums, quants, _mm512_set1_epi32(four));
        }
        sums
    }
}

/// Byte `i` of each lane, as floats.
///
/// # Safety
/// The machine has the features of this module.
#[inline(always)]
pub(super) unsafe fn bytes(words: __m512i, i: usize) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe {
        _mm512_cvtepi32_ps(match i {
            0 => _mm512_and_si512(words, _mm512_set1_epi32(255)),
            1 => _mm512_and_si512(_mm512_srli_epi32::<8>(words), _mm512_set1_epi32(255)),
            2 => _mm512_and_si512(_mm512_srli_epi32::<16>(words), _mm512_set1_epi32(255)),
            _ => _mm512_srli_epi32::<24>(words),
        })
    }
}

/// The bits of `mask` of each byte.
///
/// # Safety
/// The machine has the features of this module.
#[inline(always)]
pub(super) unsafe fn masked<const N: usize>(mut words: [__m512i; N], mask: u8) -> [__m512i; N] {
    for word in &mut words {
        // SAFETY: the caller's promise.
        *word = unsafe { _mm512_and_si512(*word, _mm512_set1_epi8(mask.cast_signed())) };
    }
    words
}

/// The lower half of each lane, an f16.
///
/// # Safety
/// The machine has the features of this module.
#[inline(always)]
pub(super) unsafe fn lower_halves(words: __m512i) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe { _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words)) }
}

/// The upper half of each lane, an f16.
///
/// # Safety
/// The machine has the features of this module.
#[inline(always)]
pub(super) unsafe fn upper_halves(words: __m512i) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe { lower_halves(_mm512_srli_epi32::<16>(words)) }
}
