//! Many activation rows: eight weight rows are expanded, a slice at a time, and multiplied with all of them in eight bits,
//! with the exact scales of the weights and a scale per 32 activations.

use crate::aligned::Aligned;
use crate::arch::panel::{Panel, Quants, SLICE, layout};
use crate::blocks::DType;
use crate::quantize::{Activations, Form, Q8};
use crate::table::{Batch, Sums};
use std::arch::x86_64::*;
use std::array;

/// Weight rows of a panel: a register.
const ROWS: usize = 8;

/// Products of unsigned bytes up to 255 would overflow sixteen bits.
const UNSIGNED: bool = false;

/// From here on expanding the weights is worth it.
const MIN_ROWS: usize = 12;

/// The batch kernel for weights of this type.
pub(super) fn batch(dtype: DType) -> Option<Batch> {
    layout(dtype, UNSIGNED).map(|_| Batch { min_rows: MIN_ROWS, min_decode_rows: MIN_ROWS, form: Form::Q8, run, sums: Sums::Rows(ROWS) })
}

/// As [`Batch::run`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn run(dtype: DType, w: &[u8], k: usize, acts: &Activations, m: usize, _: &mut Aligned<u16>, sums: &mut Aligned<f32>) {
    let (Some((quants, group)), Some(row_bytes)) = (layout(dtype, UNSIGNED), dtype.row_bytes(k).filter(|bytes| *bytes > 0)) else {
        return;
    };
    assert!(k == acts.cols() && m <= acts.rows());
    let n = w.len() / row_bytes;
    let stride = n.next_multiple_of(ROWS);
    let sums = sums.at_least(m * stride);
    let slice_bytes = SLICE / dtype.block_len() * dtype.block_bytes();
    let mut panel = Panel::<ROWS>::new();
    for (p, rows) in w.chunks(ROWS * row_bytes).enumerate() {
        for slice in 0..k.div_ceil(SLICE) {
            let bytes = slice * slice_bytes..row_bytes.min((slice + 1) * slice_bytes);
            for (r, row) in rows.chunks_exact(row_bytes).enumerate() {
                panel.fill(dtype, &row[bytes.clone()], r, UNSIGNED);
            }
            let groups = SLICE.min(k - slice * SLICE) / 32;
            let mut i = 0;
            while i < m {
                let at = Place { start: slice * SLICE / 32, groups, i, r: p * ROWS, stride };
                // SAFETY: the features are this function's; shapes are checked inside.
                unsafe {
                    if m - i >= 4 {
                        products::<4>(&panel, quants, group, acts, at, sums);
                        i += 4;
                    } else {
                        products::<1>(&panel, quants, group, acts, at, sums);
                        i += 1;
                    }
                }
            }
        }
    }
}

/// Which products: groups of 32 columns, activation rows from `i`, weight rows from `r`.
#[derive(Clone, Copy)]
struct Place {
    start: usize,
    groups: usize,
    i: usize,
    r: usize,
    stride: usize,
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn products<const C: usize>(panel: &Panel<ROWS>, quants: Quants, group: usize, acts: &Activations, at: Place, sums: &mut [f32]) {
    // How many pairs of products fit in sixteen bits: 2 * 127 * quant * PAIRS < 2^15.
    // SAFETY: the features are this function's.
    unsafe {
        match (quants, group) {
            (Quants::Signed, _) => tile::<C, 1, true, false>(panel, acts, at, sums),
            (Quants::UpTo(0..=15), 32) => tile::<C, 8, false, false>(panel, acts, at, sums),
            (Quants::UpTo(16..=31), 32) => tile::<C, 4, false, false>(panel, acts, at, sums),
            (Quants::UpTo(0..=31), _) => tile::<C, 4, false, true>(panel, acts, at, sums),
            (Quants::UpTo(32..=64), 16) => tile::<C, 2, false, true>(panel, acts, at, sums),
            (Quants::UpTo(_), _) => unreachable!("no format has such quants"),
        }
    }
}

/// Adds the products of `C` activation rows with the panel. `PAIRS` pairs of products are added in sixteen bits.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<const C: usize, const PAIRS: usize, const SIGNED: bool, const HALVES: bool>(
    panel: &Panel<ROWS>,
    acts: &Activations,
    at: Place,
    sums: &mut [f32],
) {
    let x: [Q8<'_>; C] = array::from_fn(|c| acts.q8_row(at.i + c));
    assert!(at.groups <= SLICE / 32 && x.iter().all(|x| x.d.len() >= at.start + at.groups));
    let ones = _mm256_set1_epi16(1);
    let mut acc = [_mm256_setzero_ps(); C];
    // SAFETY: groups of the panel below SLICE / 32; groups of the activations below `start + groups`, which they have.
    unsafe {
        let row = |rows: &[f32; ROWS]| _mm256_loadu_ps(rows.as_ptr());
        for g in 0..at.groups {
            let x_g = at.start + g;
            let mut ints = [_mm256_setzero_si256(); C];
            let mut scaled = [_mm256_setzero_ps(); C];
            for half in 0..2 {
                let mut words = [_mm256_setzero_si256(); C];
                for step in 4 * half..4 * half + 4 {
                    let w = _mm256_loadu_si256(panel.quants.as_ptr().add(g * 8 + step).cast());
                    let size = if SIGNED { _mm256_abs_epi8(w) } else { w };
                    let place = x_g / 4 * 128 + x_g % 4 * 16 + step / 4 * 64 + step % 4 * 4;
                    for c in 0..C {
                        let x = _mm256_set1_epi32(x[c].qs.as_ptr().add(place).cast::<i32>().read_unaligned());
                        let x = if SIGNED { _mm256_sign_epi8(x, w) } else { x };
                        let pairs = _mm256_maddubs_epi16(size, x);
                        words[c] = if PAIRS == 1 { pairs } else { _mm256_add_epi16(words[c], pairs) };
                        // With room for eight, the two halves are widened together at the end.
                        if (step + 1) % PAIRS.min(4) == 0 && (PAIRS < 8 || HALVES) {
                            ints[c] = _mm256_add_epi32(ints[c], _mm256_madd_epi16(words[c], ones));
                            words[c] = _mm256_setzero_si256();
                        }
                    }
                }
                if PAIRS == 8 && !HALVES {
                    for c in 0..C {
                        ints[c] = _mm256_add_epi16(ints[c], words[c]);
                    }
                }
                if HALVES {
                    let scale = row(panel.scales.get_unchecked(2 * g + half));
                    let min = row(panel.mins.get_unchecked(2 * g + half));
                    for c in 0..C {
                        scaled[c] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(ints[c]), scale, scaled[c]);
                        ints[c] = _mm256_setzero_si256();
                        let sum = _mm256_set1_ps(*x[c].sums16.get_unchecked(2 * x_g + half));
                        acc[c] = _mm256_fnmadd_ps(min, sum, acc[c]);
                    }
                }
            }
            for c in 0..C {
                if !HALVES {
                    let ints = if PAIRS == 8 { _mm256_madd_epi16(ints[c], ones) } else { ints[c] };
                    scaled[c] = _mm256_mul_ps(_mm256_cvtepi32_ps(ints), row(panel.scales.get_unchecked(g)));
                    let sum = _mm256_set1_ps(*x[c].sums.get_unchecked(x_g));
                    acc[c] = _mm256_fnmadd_ps(row(panel.mins.get_unchecked(g)), sum, acc[c]);
                }
                let d = _mm256_set1_ps(*x[c].d.get_unchecked(x_g));
                acc[c] = _mm256_fmadd_ps(scaled[c], d, acc[c]);
            }
        }
    }
    for (c, acc) in acc.iter().enumerate() {
        let place = sums[(at.i + c) * at.stride + at.r..][..ROWS].as_mut_ptr();
        // SAFETY: eight floats.
        unsafe {
            let acc = if at.start == 0 { *acc } else { _mm256_add_ps(_mm256_loadu_ps(place), *acc) };
            _mm256_storeu_ps(place, acc);
        }
    }
}
