//! Many activation rows: 32 weight rows are expanded, a slice at a time, and multiplied with all of them in eight bits, with
//! the exact scales of the weights and a scale per 32 activations.

use crate::aligned::Aligned;
use crate::arch::panel::{Panel, Quants, SLICE, layout};
use crate::blocks::DType;
use crate::quantize::{Activations, Form, Q8};
use crate::table::Batch;
use std::arch::x86_64::*;
use std::array;

/// Weight rows of a panel: two registers of sixteen.
const ROWS: usize = 32;

/// `vpdpbusd` takes unsigned weights.
const UNSIGNED: bool = true;

/// From here on expanding the weights is worth it.
const MIN_ROWS: usize = 12;

/// The batch kernel for weights of this type.
pub(super) fn batch(dtype: DType) -> Option<Batch> {
    layout(dtype, UNSIGNED).map(|_| Batch { min_rows: MIN_ROWS, form: Form::Q8, run, unpack })
}

/// As [`Batch::run`]; `sums` is (activation row, weight row), weight rows padded to whole panels.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn run(dtype: DType, w: &[u8], k: usize, acts: &Activations, m: usize, _: &mut Aligned<u16>, sums: &mut Aligned<f32>) {
    let (Some((quants, group)), Some(row_bytes)) = (layout(dtype, UNSIGNED), dtype.row_bytes(k).filter(|bytes| *bytes > 0)) else {
        return;
    };
    assert!(k == acts.cols() && m <= acts.rows());
    let n = w.len() / row_bytes;
    let stride = n.next_multiple_of(ROWS);
    let sums = sums.at_least(m * stride);
    sums.fill(0.0);
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

/// As [`Batch::unpack`].
unsafe fn unpack(sums: &[f32], start: usize, n: usize, out: &mut [f32]) {
    let stride = n.next_multiple_of(ROWS);
    for (sums, out) in sums[start * stride..].chunks_exact(stride).zip(out.chunks_exact_mut(n)) {
        out.copy_from_slice(&sums[..n]);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn products<const C: usize>(panel: &Panel<ROWS>, _: Quants, group: usize, acts: &Activations, at: Place, sums: &mut [f32]) {
    // SAFETY: the features are this function's.
    unsafe {
        if group == 16 {
            tile::<C, true>(panel, acts, at, sums);
        } else {
            tile::<C, false>(panel, acts, at, sums);
        }
    }
}

/// Adds the products of `C` activation rows with the panel.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn tile<const C: usize, const HALVES: bool>(panel: &Panel<ROWS>, acts: &Activations, at: Place, sums: &mut [f32]) {
    let x: [Q8<'_>; C] = array::from_fn(|c| acts.q8_row(at.i + c));
    assert!(at.groups <= SLICE / 32 && x.iter().all(|x| x.d.len() >= at.start + at.groups));
    let mut acc = [[_mm512_setzero_ps(); 2]; C];
    // SAFETY: groups of the panel below SLICE / 32; groups of the activations below `start + groups`, which they have.
    unsafe {
        let row = |rows: &[f32; ROWS], v: usize| _mm512_loadu_ps(rows.as_ptr().add(16 * v));
        for g in 0..at.groups {
            let x_g = at.start + g;
            let weights =
                |step: usize, v: usize| _mm512_loadu_si512(panel.quants.as_ptr().add(g * 8 + step).cast::<u8>().add(64 * v).cast());
            let four = |c: usize, step: usize| {
                let place = x_g / 4 * 128 + x_g % 4 * 16 + step / 4 * 64 + step % 4 * 4;
                _mm512_set1_epi32(x[c].qs.as_ptr().add(place).cast::<i32>().read_unaligned())
            };
            let mut ints = [[_mm512_setzero_si512(); 2]; C];
            let mut scaled = [[_mm512_setzero_ps(); 2]; C];
            for half in 0..2 {
                for step in 4 * half..4 * half + 4 {
                    let w = [weights(step, 0), weights(step, 1)];
                    for (c, ints) in ints.iter_mut().enumerate() {
                        let x = four(c, step);
                        *ints = [_mm512_dpbusd_epi32(ints[0], w[0], x), _mm512_dpbusd_epi32(ints[1], w[1], x)];
                    }
                }
                if HALVES {
                    for v in 0..2 {
                        let scale = row(panel.scales.get_unchecked(2 * g + half), v);
                        let min = row(panel.mins.get_unchecked(2 * g + half), v);
                        for c in 0..C {
                            scaled[c][v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(ints[c][v]), scale, scaled[c][v]);
                            ints[c][v] = _mm512_setzero_si512();
                            let sum = _mm512_set1_ps(*x[c].sums16.get_unchecked(2 * x_g + half));
                            acc[c][v] = _mm512_fnmadd_ps(min, sum, acc[c][v]);
                        }
                    }
                }
            }
            for v in 0..2 {
                for c in 0..C {
                    if !HALVES {
                        let scale = row(panel.scales.get_unchecked(g), v);
                        let min = row(panel.mins.get_unchecked(g), v);
                        scaled[c][v] = _mm512_mul_ps(_mm512_cvtepi32_ps(ints[c][v]), scale);
                        let sum = _mm512_set1_ps(*x[c].sums.get_unchecked(x_g));
                        acc[c][v] = _mm512_fnmadd_ps(min, sum, acc[c][v]);
                    }
                    let d = _mm512_set1_ps(*x[c].d.get_unchecked(x_g));
                    acc[c][v] = _mm512_fmadd_ps(scaled[c][v], d, acc[c][v]);
                }
            }
        }
    }
    for (c, acc) in acc.iter().enumerate() {
        let sums = &mut sums[(at.i + c) * at.stride + at.r..][..ROWS];
        for (v, acc) in acc.iter().enumerate() {
            let place = sums[16 * v..].as_mut_ptr();
            // SAFETY: sixteen of 32 floats.
            unsafe { _mm512_storeu_ps(place, _mm512_add_ps(_mm512_loadu_ps(place), *acc)) };
        }
    }
}
