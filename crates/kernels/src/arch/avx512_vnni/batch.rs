//! Many activation rows: 32 weight rows are expanded, a slice at a time, and multiplied with all of them in eight bits, with
//! the exact scales of the weights and a scale per 32 activations.

use super::expand::{ROWS, Rows as Expanded};
use crate::aligned::Aligned;
use crate::arch::panel::{Panel, SLICE, layout};
use crate::blocks::DType;
use crate::quantize::{Activations, Form, Q8};
use crate::table::{Batch, Sums};
use std::arch::asm;
use std::arch::x86_64::*;

/// Activation rows of a tile.
const COLS: usize = 6;

/// `vpdpbusd` takes unsigned weights.
const UNSIGNED: bool = true;

/// From here on expanding the weights is worth it.
const MIN_ROWS: usize = 12;

/// The batch kernel for weights of this type.
pub(super) fn batch(dtype: DType) -> Option<Batch> {
    layout(dtype, UNSIGNED).map(|_| Batch { min_rows: MIN_ROWS, min_decode_rows: MIN_ROWS, form: Form::Q8, run, sums: Sums::Rows(ROWS) })
}

/// As [`Batch::run`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn run(dtype: DType, w: &[u8], k: usize, acts: &Activations, m: usize, buffer: &mut Aligned<u16>, sums: &mut Aligned<f32>) {
    let (Some((_, group)), Some(row_bytes)) = (layout(dtype, UNSIGNED), dtype.row_bytes(k).filter(|bytes| *bytes > 0)) else {
        return;
    };
    assert!(k == acts.cols() && (COLS..=acts.rows()).contains(&m));
    let n = w.len() / row_bytes;
    let stride = n.next_multiple_of(ROWS);
    let sums = sums.at_least(m * stride);
    let starts = offset(dtype).map_or(&[][..], |offset| starts(acts, m, group, offset, buffer));
    let n_starts = starts.len() / m;
    let slice_bytes = SLICE / dtype.block_len() * dtype.block_bytes();
    let mut panel = Panel::<ROWS>::new();
    let mut expanded = Expanded::new();
    let n_tiles = m.div_ceil(COLS);
    for (p, rows) in w.chunks(ROWS * row_bytes).enumerate() {
        for slice in 0..k.div_ceil(SLICE) {
            let bytes = slice * slice_bytes..row_bytes.min((slice + 1) * slice_bytes);
            for (r, row) in rows.chunks_exact(row_bytes).enumerate() {
                // SAFETY: the features are this function's.
                unsafe { expanded.fill(dtype, &row[bytes.clone()], r) };
            }
            expanded.interleave(&mut panel, SLICE / group, n_starts == 0);
            let groups = SLICE.min(k - slice * SLICE) / 32;
            let next = if bytes.end < row_bytes { &rows[bytes.end..] } else { &w[w.len().min((p + 1) * ROWS * row_bytes)..] };
            let ahead = Ahead { rows: next, row_bytes, slice_bytes };
            for tile in 0..n_tiles {
                ahead.prefetch(tile, n_tiles);
                // The last tile ends with the last row, and may begin with some that were in the one before.
                let (i, skip) = if (tile + 1) * COLS <= m { (tile * COLS, 0) } else { (m - COLS, (tile + 1) * COLS - m) };
                let at = Place { start: slice * SLICE / 32, groups, i, skip, r: p * ROWS, stride };
                let x = Rows::new(acts, i, at.start + groups, starts, n_starts);
                // SAFETY: the features are this function's; there are as many groups in a slice, and `x` has them.
                unsafe {
                    match (group, n_starts) {
                        (16, 0) => groups_of_16::<true>(&panel, &x, at, sums),
                        (16, _) => groups_of_16::<false>(&panel, &x, at, sums),
                        (_, 0) => groups_of_32::<true>(&panel, &x, at, sums),
                        (_, _) => groups_of_32::<false>(&panel, &x, at, sums),
                    }
                }
            }
        }
    }
}

/// The part of the weights that is expanded next: the first `slice_bytes` of each row of a panel, from the start of `rows` on.
struct Ahead<'a> {
    rows: &'a [u8],
    row_bytes: usize,
    slice_bytes: usize,
}

impl Ahead<'_> {
    /// Fetches the share of tile `tile` of `n_tiles` into the second level cache. Rows are far apart, which no processor foresees.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    fn prefetch(&self, tile: usize, n_tiles: usize) {
        let lines = self.slice_bytes.div_ceil(64) + 1;
        for line in ROWS * lines * tile / n_tiles..ROWS * lines * (tile + 1) / n_tiles {
            let at = line / lines * self.row_bytes + line % lines * 64;
            if at < self.rows.len() {
                _mm_prefetch::<_MM_HINT_T1>(self.rows.as_ptr().wrapping_add(at).cast());
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
    /// Of the activation rows, those that are not wanted.
    skip: usize,
    r: usize,
    stride: usize,
}

/// The twelve sums of integers of a tile.
type Ints = [[__m512i; COLS]; 2];

/// Adds the products of `COLS` activation rows with a panel of groups of 32. The 24 sums, of integers and of floats, stay in
/// registers; scales of weights and activations are multiplied apart from the chain that waits for the integers.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn groups_of_32<const MINS: bool>(panel: &Panel<ROWS>, x: &Rows<'_>, at: Place, sums: &mut [f32]) {
    let mut acc = [[_mm512_setzero_ps(); COLS]; 2];
    for g in 0..at.groups {
        let x_g = at.start + g;
        // SAFETY: groups of the panel below SLICE / 32; groups of the activations below `start + groups`, which they have.
        unsafe {
            let start = x.starts::<MINS>(x_g);
            let ints = products(panel.quants.as_ptr().add(8 * g).cast(), x.quants(x_g), x.stride, [start; 2]);
            for (v, (acc, ints)) in acc.iter_mut().zip(&ints).enumerate() {
                let scale = lanes(panel.scales.get_unchecked(g), v);
                for c in 0..COLS {
                    if MINS {
                        let min = lanes(panel.mins.get_unchecked(g), v);
                        acc[c] = _mm512_fnmadd_ps(min, broadcast(x.first.sums, c * x.stride / 32 + x_g), acc[c]);
                    }
                    let scale = _mm512_mul_ps(scale, broadcast(x.first.d, c * x.stride / 32 + x_g));
                    acc[c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(ints[c]), scale, acc[c]);
                }
            }
        }
    }
    add(&acc[0], at, 0, sums);
    add(&acc[1], at, 16, sums);
}

/// The same with a panel of groups of 16: one register of weight rows after the other, since there are sums of two groups.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn groups_of_16<const MINS: bool>(panel: &Panel<ROWS>, x: &Rows<'_>, at: Place, sums: &mut [f32]) {
    for v in 0..2 {
        let mut acc = [_mm512_setzero_ps(); COLS];
        for g in 0..at.groups {
            let x_g = at.start + g;
            // SAFETY: as above.
            unsafe {
                let w = panel.quants.as_ptr().add(8 * g).cast::<u8>().add(64 * v);
                let starts = [x.starts::<MINS>(2 * x_g), x.starts::<MINS>(2 * x_g + 1)];
                let [first, second] = products_of_halves(w, x.quants(x_g), x.stride, starts);
                let scales = [0, 1].map(|half| lanes(panel.scales.get_unchecked(2 * g + half), v));
                for c in 0..COLS {
                    if MINS {
                        for half in 0..2 {
                            let min = lanes(panel.mins.get_unchecked(2 * g + half), v);
                            let sum = broadcast(x.first.sums16, c * x.stride / 16 + 2 * x_g + half);
                            acc[c] = _mm512_fnmadd_ps(min, sum, acc[c]);
                        }
                    }
                    let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(first[c]), scales[0]);
                    let scaled = _mm512_fmadd_ps(_mm512_cvtepi32_ps(second[c]), scales[1], scaled);
                    acc[c] = _mm512_fmadd_ps(scaled, broadcast(x.first.d, c * x.stride / 32 + x_g), acc[c]);
                }
            }
        }
        add(&acc, at, 16 * v, sums);
    }
}

/// What formats with one fixed offset add to their quants: their minima are that many scales.
fn offset(dtype: DType) -> Option<i32> {
    match dtype {
        DType::Q4_0 => Some(8),
        DType::Q5_0 => Some(16),
        DType::Q8_0 | DType::IQ4_NL | DType::IQ4_XS | DType::MXFP4 => Some(128),
        DType::Q3_K => Some(4),
        DType::Q6_K => Some(32),
        _ => None,
    }
}

/// What the sums of integers begin with so that the offset is taken off: the offset times the sum of the activations' quants,
/// for each group of each row.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn starts<'a>(acts: &Activations, m: usize, group: usize, offset: i32, buffer: &'a mut Aligned<u16>) -> &'a [i32] {
    let per_row = acts.q8_row(0).totals16.len() * 16 / group;
    // SAFETY: any four bytes are an i32.
    let (_, starts, _) = unsafe { buffer.at_least(2 * m * per_row).align_to_mut::<i32>() };
    for (i, starts) in starts.chunks_exact_mut(per_row).enumerate() {
        let totals = acts.q8_row(i).totals16;
        if group == 16 {
            starts.iter_mut().zip(totals).for_each(|(start, total)| *start = -offset * total);
        } else {
            starts.iter_mut().zip(totals.as_chunks().0).for_each(|(start, [first, second])| *start = -offset * (first + second));
        }
    }
    starts
}

/// `COLS` consecutive activation rows. Their parts lie at constant strides.
struct Rows<'a> {
    first: Q8<'a>,
    /// Columns of a row, padded.
    stride: usize,
    /// As made by [`starts`], from the first row on; empty in formats with minima.
    starts: &'a [i32],
    /// Of a row.
    n_starts: usize,
}

impl<'a> Rows<'a> {
    /// Rows `i` .. `i + COLS`, checked to be there and to have `groups` groups of 32.
    fn new(acts: &'a Activations, i: usize, groups: usize, starts: &'a [i32], n_starts: usize) -> Self {
        let (first, last) = (acts.q8_row(i), acts.q8_row(i + COLS - 1));
        let stride = first.qs.len();
        assert!(groups * 32 <= stride && last.qs.as_ptr().addr() - first.qs.as_ptr().addr() == (COLS - 1) * stride);
        let starts = &starts[i * n_starts..];
        assert!(starts.len() >= COLS * n_starts);
        Self { first, stride, starts, n_starts }
    }

    /// Where the quants of a group are, of the first row.
    ///
    /// # Safety
    /// The rows have the group.
    #[inline(always)]
    unsafe fn quants(&self, group: usize) -> *const u8 {
        // SAFETY: the caller's promise.
        unsafe { self.first.qs.as_ptr().add(group / 4 * 128 + group % 4 * 16).cast() }
    }

    /// What the sums of a group begin with.
    ///
    /// # Safety
    /// The rows have the group, and starts unless the format has minima.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn starts<const MINS: bool>(&self, group: usize) -> [__m512i; COLS] {
        let mut starts = [_mm512_setzero_si512(); COLS];
        if !MINS {
            for (c, start) in starts.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                *start = _mm512_set1_epi32(unsafe { *self.starts.as_ptr().add(c * self.n_starts + group) });
            }
        }
        starts
    }
}

/// Number `i` of a part of the activations, which may be that of a later row.
///
/// # Safety
/// The later row is there.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline]
unsafe fn broadcast(part: &[f32], i: usize) -> __m512 {
    // SAFETY: the caller's promise.
    _mm512_set1_ps(unsafe { *part.as_ptr().add(i) })
}

/// The instructions for four columns at offset `$x` of a group, of two registers of weights at offset `$w`.
macro_rules! step {
    ($w:literal, $x:literal) => {
        concat!(
            "vmovdqa64 zmm29, [{w} + ", $w, "]\n",
            "vmovdqa64 zmm30, [{w} + ", $w, " + 64]\n",
            step!(@column "a0", "b0", "{x}", $x),
            step!(@column "a1", "b1", "{x} + {s}", $x),
            step!(@column "a2", "b2", "{x} + 2*{s}", $x),
            step!(@column "a3", "b3", "{y}", $x),
            step!(@column "a4", "b4", "{y} + {s}", $x),
            step!(@column "a5", "b5", "{y} + 2*{s}", $x),
        )
    };
    (@column $a:literal, $b:literal, $row:literal, $x:literal) => {
        concat!(
            "vpbroadcastd zmm31, dword ptr [", $row, " + ", $x, "]\n",
            "vpdpbusd {", $a, "}, zmm29, zmm31\n",
            "vpdpbusd {", $b, "}, zmm30, zmm31\n",
        )
    };
}

/// The same for one register of weights, at offset `$w` those of the first half of the group and 512 further those of the
/// second.
macro_rules! step_of_halves {
    ($w:literal, $x:literal) => {
        concat!(
            "vmovdqa64 zmm29, [{w} + ", $w, "]\n",
            "vmovdqa64 zmm30, [{w} + ", $w, " + 512]\n",
            step_of_halves!(@column "a0", "b0", "{x}", $x),
            step_of_halves!(@column "a1", "b1", "{x} + {s}", $x),
            step_of_halves!(@column "a2", "b2", "{x} + 2*{s}", $x),
            step_of_halves!(@column "a3", "b3", "{y}", $x),
            step_of_halves!(@column "a4", "b4", "{y} + {s}", $x),
            step_of_halves!(@column "a5", "b5", "{y} + 2*{s}", $x),
        )
    };
    (@column $a:literal, $b:literal, $row:literal, $x:literal) => {
        concat!(
            "vpdpbusd {", $a, "}, zmm29, dword ptr [", $row, " + ", $x, "]{{1to16}}\n",
            "vpdpbusd {", $b, "}, zmm30, dword ptr [", $row, " + ", $x, " + 64]{{1to16}}\n",
        )
    };
}

/// Runs instructions made by the macros above on twelve sums. Written out, since LLVM reorders the intrinsics until the sums
/// no longer fit in the registers.
macro_rules! multiply {
    ($w:expr, $x:expr, $stride:expr, $starts:expr, $($step:expr),+ $(,)?) => {{
        let [[mut a0, mut a1, mut a2, mut a3, mut a4, mut a5], [mut b0, mut b1, mut b2, mut b3, mut b4, mut b5]] =
            $starts;
        asm!(
            $($step),+,
            w = in(reg) $w, x = in(reg) $x, y = in(reg) $x.wrapping_add(3 * $stride), s = in(reg) $stride,
            a0 = inout(zmm_reg) a0, a1 = inout(zmm_reg) a1, a2 = inout(zmm_reg) a2,
            a3 = inout(zmm_reg) a3, a4 = inout(zmm_reg) a4, a5 = inout(zmm_reg) a5,
            b0 = inout(zmm_reg) b0, b1 = inout(zmm_reg) b1, b2 = inout(zmm_reg) b2,
            b3 = inout(zmm_reg) b3, b4 = inout(zmm_reg) b4, b5 = inout(zmm_reg) b5,
            out("zmm29") _, out("zmm30") _, out("zmm31") _,
            options(pure, readonly, nostack, preserves_flags),
        );
        [[a0, a1, a2, a3, a4, a5], [b0, b1, b2, b3, b4, b5]]
    }};
}

/// The sums of a group of 32, for each of two registers of weight rows.
///
/// # Safety
/// At `w` are eight aligned steps of 32 rows; at `x`, and at each of `COLS` strides from there, a group of activations.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline]
unsafe fn products(w: *const u8, x: *const u8, stride: usize, starts: Ints) -> Ints {
    // SAFETY: reads 1024 bytes at `w` and of each row the group's halves, 16 bytes each and 64 apart.
    unsafe {
        multiply!(
            w,
            x,
            stride,
            starts,
            step!("0", "0"),
            step!("128", "4"),
            step!("256", "8"),
            step!("384", "12"),
            step!("512", "64"),
            step!("640", "68"),
            step!("768", "72"),
            step!("896", "76"),
        )
    }
}

/// The sums of the two halves of a group of 32, for one register of weight rows.
///
/// # Safety
/// As for [`products`], but `w` may be 64 bytes further.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline]
unsafe fn products_of_halves(w: *const u8, x: *const u8, stride: usize, starts: Ints) -> Ints {
    // SAFETY: as in `products`.
    unsafe {
        multiply!(
            w,
            x,
            stride,
            starts,
            step_of_halves!("0", "0"),
            step_of_halves!("128", "4"),
            step_of_halves!("256", "8"),
            step_of_halves!("384", "12"),
        )
    }
}

/// Sixteen of the scales of a group; `v` is below 2.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline]
fn lanes(rows: &[f32; ROWS], v: usize) -> __m512 {
    // SAFETY: sixteen floats, as the slice is checked to have.
    unsafe { _mm512_loadu_ps(rows[16 * v..][..16].as_ptr()) }
}

/// Adds to the sums of a tile for sixteen weight rows from `r` on, or begins them with the first slice, but for the first
/// `at.skip` activation rows, which had been added before.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline]
fn add(acc: &[__m512; COLS], at: Place, r: usize, sums: &mut [f32]) {
    for (c, acc) in acc.iter().enumerate().skip(at.skip) {
        let place = sums[(at.i + c) * at.stride + at.r + r..][..16].as_mut_ptr();
        // SAFETY: sixteen floats.
        unsafe {
            let acc = if at.start == 0 { *acc } else { _mm512_add_ps(_mm512_loadu_ps(place), *acc) };
            _mm512_storeu_ps(place, acc);
        }
    }
}
