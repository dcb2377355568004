//! Many activation rows: 32 weight rows are expanded, a slice at a time, and multiplied with all of them in eight bits, with
//! the exact scales of the weights and a scale per 32 activations.

use super::expand::{ROWS, Rows as Expanded};
use super::products::{COLS, products, products_of_halves};
use super::words::{dpwssd, factors, paired};
use crate::aligned::Aligned;
use crate::arch::panel::{Panel, SLICE, layout};
use crate::blocks::DType;
use crate::quantize::{Activations, Form, Q8};
use crate::table::{Batch, Sums};
use std::arch::x86_64::*;
use std::array;

/// `vpdpbusd` takes unsigned weights.
const UNSIGNED: bool = true;

/// The batch kernel for weights of this type. Expanding them is worth it the later, the faster the kernel for a few rows is.
pub(super) fn batch(dtype: DType) -> Option<Batch> {
    let min_rows = match dtype {
        DType::Q4_K => 96,
        DType::Q5_K => 48,
        DType::Q3_K | DType::Q6_K => 24,
        _ => 12,
    };
    layout(dtype, UNSIGNED).map(|_| Batch { min_rows, min_decode_rows: min_rows, form: Form::Q8, run, sums: Sums::Rows(ROWS) })
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
    let has_mins = starts.is_empty();
    let slice_bytes = SLICE / dtype.block_len() * dtype.block_bytes();
    let mut panel = Panel::<ROWS>::new();
    let mut expanded = Expanded::new();
    let n_tiles = m.div_ceil(COLS);
    let x = Rows::new(acts, m, starts);
    for (p, rows) in w.chunks(ROWS * row_bytes).enumerate() {
        for slice in 0..k.div_ceil(SLICE) {
            let bytes = slice * slice_bytes..row_bytes.min((slice + 1) * slice_bytes);
            for (r, row) in rows.chunks_exact(row_bytes).enumerate() {
                // SAFETY: the features are this function's.
                unsafe { expanded.fill(dtype, &row[bytes.clone()], r) };
            }
            let groups = SLICE.min(k - slice * SLICE) / 32;
            expanded.interleave(&mut panel, SLICE / group, has_mins);
            if has_mins && group == 32 {
                pair_mins(&mut panel, groups);
            }
            let next = if bytes.end < row_bytes { &rows[bytes.end..] } else { &w[w.len().min((p + 1) * ROWS * row_bytes)..] };
            let ahead = Ahead { rows: next, row_bytes, slice_bytes };
            for tile in 0..n_tiles {
                ahead.prefetch(tile, n_tiles);
                // The last tile ends with the last row, and may begin with some that were in the one before.
                let (i, skip) = if (tile + 1) * COLS <= m { (tile * COLS, 0) } else { (m - COLS, (tile + 1) * COLS - m) };
                let at = Place { start: slice * SLICE / 32, groups, i, skip, r: p * ROWS, stride };
                let x = x.after(i);
                // SAFETY: the features are this function's; there are as many groups in a slice, and `x` has them.
                unsafe {
                    match (group, has_mins) {
                        (16, true) => groups_of_16::<true>(&panel, &x, at, sums),
                        (16, false) => groups_of_16::<false>(&panel, &x, at, sums),
                        (_, true) => groups_of_32::<true>(&panel, &x, at, sums),
                        (_, false) => groups_of_32::<false>(&panel, &x, at, sums),
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
    /// Fetches the rows that are the share of tile `tile` of `n_tiles` into the second level cache. Rows are far apart, which no
    /// processor foresees.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    fn prefetch(&self, tile: usize, n_tiles: usize) {
        for row in ROWS * tile / n_tiles..ROWS * (tile + 1) / n_tiles {
            let start = row * self.row_bytes;
            for at in (start..(start + self.slice_bytes + 63).min(self.rows.len())).step_by(64) {
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
                    let scale = _mm512_mul_ps(scale, broadcast(x.q8.d, c * x.stride / 32 + x_g));
                    acc[c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(ints[c]), scale, acc[c]);
                }
            }
        }
    }
    if MINS {
        // SAFETY: as above, and the minima were paired.
        unsafe { take_mins(panel, x, at, &mut acc) };
    }
    add(acc[0], at, 0, sums);
    add(acc[1], at, 16, sums);
}

/// Makes of the minima of `groups` groups of 32 pairs of 16-bit integers, those of groups `2 i` and `2 i + 1` at `i`, and after the
/// pairs what brings them back. Those of a row add up to 2^15 at most, as sizes: see `words`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn pair_mins(panel: &mut Panel<ROWS>, groups: usize) {
    for v in 0..2 {
        let mins: [__m512; SLICE / 32] = array::from_fn(|g| if g < groups { lanes(&panel.mins[g], v) } else { _mm512_setzero_ps() });
        let (to, back) = factors(mins.iter().fold(_mm512_setzero_ps(), |sum, mins| _mm512_add_ps(sum, _mm512_abs_ps(*mins))));
        let pair = |[a, b]: &[__m512; 2]| _mm512_castsi512_ps(paired(_mm512_mul_ps(to, *a), _mm512_mul_ps(to, *b)));
        for (place, row) in panel.mins.iter_mut().zip(mins.as_chunks().0.iter().map(pair).chain([back])) {
            // SAFETY: sixteen floats, as the slice is checked to have.
            unsafe { _mm512_storeu_ps(place[16 * v..][..16].as_mut_ptr(), row) };
        }
    }
}

/// Takes off what minima paired by [`pair_mins`] come to. Two groups take one instruction, instead of one each in floats.
///
/// # Safety
/// `x` has the groups.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline]
unsafe fn take_mins(panel: &Panel<ROWS>, x: &Rows<'_>, at: Place, acc: &mut [[__m512; COLS]; 2]) {
    let mut ints = [[_mm512_setzero_si512(); COLS]; 2];
    for i in 0..at.groups.div_ceil(2) {
        let mins = [0, 1].map(|v| _mm512_castps_si512(lanes(&panel.mins[i], v)));
        for c in 0..COLS {
            // SAFETY: the caller's promise; after an odd number of groups comes the padding.
            let pair = unsafe { x.q8.sum_words.as_ptr().add(c * x.stride / 32 + at.start + 2 * i).cast::<i32>().read_unaligned() };
            for (ints, mins) in ints.iter_mut().zip(mins) {
                ints[c] = dpwssd(ints[c], mins, _mm512_set1_epi32(pair));
            }
        }
    }
    for (v, (acc, ints)) in acc.iter_mut().zip(&ints).enumerate() {
        let back = lanes(&panel.mins[SLICE / 64], v);
        for c in 0..COLS {
            // SAFETY: the caller's promise.
            let step = unsafe { broadcast(x.q8.sum_steps, (c * x.stride + 32 * at.start) / SLICE) };
            acc[c] = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(ints[c]), _mm512_mul_ps(back, step), acc[c]);
        }
    }
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
                            let sum = broadcast(x.q8.sums16, c * x.stride / 16 + 2 * x_g + half);
                            acc[c] = _mm512_fnmadd_ps(min, sum, acc[c]);
                        }
                    }
                    let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(first[c]), scales[0]);
                    let scaled = _mm512_fmadd_ps(_mm512_cvtepi32_ps(second[c]), scales[1], scaled);
                    acc[c] = _mm512_fmadd_ps(scaled, broadcast(x.q8.d, c * x.stride / 32 + x_g), acc[c]);
                }
            }
        }
        add(acc, at, 16 * v, sums);
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

/// `COLS` or more consecutive activation rows.
struct Rows<'a> {
    q8: Q8<'a>,
    /// Columns of a row, padded.
    stride: usize,
    /// As made by [`starts`]; empty in formats with minima.
    starts: &'a [i32],
    /// Of a row.
    n_starts: usize,
}

impl<'a> Rows<'a> {
    /// The first `m` rows.
    fn new(acts: &'a Activations, m: usize, starts: &'a [i32]) -> Self {
        let q8 = acts.q8_rows(0..m);
        Self { q8, stride: q8.qs.len() / m, starts, n_starts: starts.len() / m }
    }

    /// Those from row `i` on.
    fn after(&self, i: usize) -> Self {
        let Q8 { qs, d, sums, sums16, totals16, sum_words, sum_steps } = self.q8;
        let at = i * self.stride;
        assert!(at + COLS * self.stride <= qs.len());
        let q8 = Q8 {
            qs: &qs[at..],
            d: &d[at / 32..],
            sums: &sums[at / 32..],
            sums16: &sums16[at / 16..],
            totals16: &totals16[at / 16..],
            sum_words: &sum_words[at / 32..],
            sum_steps: &sum_steps[at / SLICE..],
        };
        Self { q8, starts: &self.starts[i * self.n_starts..], ..*self }
    }

    /// Where the quants of a group are, of the first row.
    ///
    /// # Safety
    /// The rows have the group.
    #[inline(always)]
    unsafe fn quants(&self, group: usize) -> *const u8 {
        // SAFETY: the caller's promise.
        unsafe { self.q8.qs.as_ptr().add(group / 4 * 128 + group % 4 * 16).cast() }
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
fn add(acc: [__m512; COLS], at: Place, r: usize, sums: &mut [f32]) {
    for (c, acc) in acc.into_iter().enumerate().skip(at.skip) {
        let place = sums[(at.i + c) * at.stride + at.r + r..][..16].as_mut_ptr();
        // SAFETY: sixteen floats.
        unsafe {
            let acc = if at.start == 0 { acc } else { _mm512_add_ps(_mm512_loadu_ps(place), acc) };
            _mm512_storeu_ps(place, acc);
        }
    }
}
