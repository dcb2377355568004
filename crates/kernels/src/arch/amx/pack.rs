//! Activations into tiles, and accumulators into rows.

use super::tiles::{COLUMNS, DEPTH, ROWS, SUMS, TILE};
use crate::quantize::{Activations, BF16_SLICE, Form};
use std::arch::x86_64::*;
use std::array;
use std::ops::Range;

/// Floats ahead: sixteen rows are more streams than the hardware follows.
const PREFETCH: usize = 96;

/// Activation rows of a tile.
const TILE_ROWS: usize = 16;

/// Fills the tiles of activation rows `rows`, which start at a multiple of 16; the rest of the last tile becomes zeros.
///
/// # Safety
/// Nobody else reads or writes the tiles of these rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
pub(super) unsafe fn pack(acts: &Activations, rows: Range<usize>, form: Form) {
    let k = acts.cols();
    let zeros = [0f32; 0];
    for first in rows.clone().step_by(TILE_ROWS) {
        let x: [&[f32]; TILE_ROWS] = array::from_fn(|i| if first + i < rows.end { acts.f32_row(first + i) } else { &zeros });
        for slice in 0..k.div_ceil(BF16_SLICE) {
            // SAFETY: the caller's promise.
            let parts = unsafe { acts.bf16_tiles_mut(first / TILE_ROWS, slice) };
            let start = slice * BF16_SLICE;
            for (step, at) in (start..k.min(start + BF16_SLICE)).step_by(DEPTH).enumerate() {
                let load = |x: &[f32], at: usize| {
                    let rest = x.get(at..).unwrap_or_default();
                    let mask = ((1_u32 << rest.len().min(16)) - 1) as __mmask16;
                    _mm_prefetch::<_MM_HINT_T0>(rest.as_ptr().wrapping_add(PREFETCH).cast());
                    // SAFETY: only the lanes of the mask are read, as many as `rest` has.
                    unsafe { _mm512_maskz_loadu_ps(mask, rest.as_ptr()) }
                };
                let x: [[__m512; 2]; TILE_ROWS] = array::from_fn(|i| [load(x[i], at), load(x[i], at + 16)]);
                let high = x.map(|[a, b]| round(a, b));
                store(high, &mut parts[0][step * TILE..][..TILE]);
                if form == Form::Bf16Pair {
                    let low = array::from_fn(|i| {
                        let [a, b] = widen(high[i]);
                        round(_mm512_sub_ps(x[i][0], a), _mm512_sub_ps(x[i][1], b))
                    });
                    store(low, &mut parts[1][step * TILE..][..TILE]);
                }
            }
        }
    }
}

/// 32 numbers to bfloat16, in order.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
#[inline]
pub(super) fn round(a: __m512, b: __m512) -> __m512i {
    let rounded = _mm512_cvtne2ps_pbh(b, a);
    // SAFETY: both types are 64 bytes without invalid values.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(rounded) }
}

/// 32 bfloat16 numbers to f32, in order.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
#[inline]
pub(super) fn widen(x: __m512i) -> [__m512; 2] {
    [_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64::<1>(x)]
        .map(|half| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half))))
}

/// Sixteen rows of 32 as a tile of (pair, row, 2).
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
fn store(rows: [__m512i; 16], tile: &mut [u16]) {
    for (row, tile) in transpose(rows).iter().zip(tile.as_chunks_mut::<32>().0) {
        // SAFETY: 64 bytes of the tile.
        unsafe { _mm512_storeu_si512(tile.as_mut_ptr().cast(), *row) };
    }
}

/// Sixteen rows of sixteen 32-bit values, transposed.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
#[inline]
fn transpose(r: [__m512i; 16]) -> [__m512i; 16] {
    // Pairs of rows, then fours, are interleaved within lanes; then lanes are collected.
    let pairs: [__m512i; 16] = array::from_fn(|i| {
        let (a, b) = (r[i / 2 * 2], r[i / 2 * 2 + 1]);
        if i & 1 == 0 { _mm512_unpacklo_epi32(a, b) } else { _mm512_unpackhi_epi32(a, b) }
    });
    // `fours[4 g + c]`: column `c` of each lane, of rows 4 g .. 4 g + 4.
    let fours: [__m512i; 16] = array::from_fn(|i| {
        let (a, b) = (pairs[i / 4 * 4 + i % 4 / 2], pairs[i / 4 * 4 + 2 + i % 4 / 2]);
        if i & 1 == 0 { _mm512_unpacklo_epi64(a, b) } else { _mm512_unpackhi_epi64(a, b) }
    });
    // `halves[c][0]`: lanes 0 and 1 of rows 0..8, then of rows 8..16; `halves[c][1]`: lanes 2 and 3.
    array::from_fn(|i| {
        let (c, lane) = (i % 4, i / 4);
        let collect = |a, b| {
            if lane < 2 { _mm512_shuffle_i32x4::<0x44>(a, b) } else { _mm512_shuffle_i32x4::<0xee>(a, b) }
        };
        let (a, b) = (collect(fours[c], fours[4 + c]), collect(fours[8 + c], fours[12 + c]));
        if lane & 1 == 0 { _mm512_shuffle_i32x4::<0x88>(a, b) } else { _mm512_shuffle_i32x4::<0xdd>(a, b) }
    })
}

/// As [`crate::table::Sums::Tiles`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
pub(super) unsafe fn unpack(sums: &[f32], columns: usize, n: usize, out: &mut [f32]) {
    let n_panels = n.div_ceil(ROWS);
    let sums = &sums[columns / COLUMNS * n_panels * SUMS..][..n_panels * SUMS];
    let m = out.len() / n;
    for (panel, sums) in sums.chunks_exact(SUMS).enumerate() {
        for (quarter, tile) in sums.chunks_exact(256).enumerate() {
            let first = quarter % 2 * TILE_ROWS;
            let r = panel * ROWS + quarter / 2 * 16;
            if first >= m || r >= n {
                continue;
            }
            // SAFETY: row `i` of sixteen of a tile of 256.
            let tile: [__m512i; 16] = array::from_fn(|i| unsafe { _mm512_loadu_si512(tile[i * 16..].as_ptr().cast()) });
            let mask = ((1_u32 << (n - r).min(16)) - 1) as __mmask16;
            for (i, row) in transpose(tile).iter().enumerate().take(m - first) {
                let out = &mut out[(first + i) * n + r..][..(n - r).min(16)];
                // SAFETY: only the lanes of the mask are written, as many as `out` has.
                unsafe { _mm512_mask_storeu_epi32(out.as_mut_ptr().cast(), mask, *row) };
            }
        }
    }
}
