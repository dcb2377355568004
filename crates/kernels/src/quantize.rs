//! The input of a matrix product: rows of f32 activations, and the quantized forms that kernels read instead.
//! Owns their layout and values. Does not choose a form; that is `table.rs`.

use crate::aligned::Aligned;
use crate::blocks::DType;
use crate::isa::Isa;
use crate::table::KernelTable;
use std::ops::Range;

/// How a kernel wants its activations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// As they are.
    F32,
    /// [`Q8`]: eight bits and a scale per 32.
    Q8,
    /// [`Q8K`]: eight bits and a scale per 256, times a small integer per 32.
    Q8K,
    /// Rounded to bfloat16, in tiles of 16 rows and 32 columns: (pair of columns, row, 2).
    Bf16,
    /// As `Bf16`, and what the rounding left in a second set of tiles.
    Bf16Pair,
}

impl Form {
    /// Rows that are filled together.
    pub(crate) const fn rows_together(self) -> usize {
        match self {
            Self::Bf16 | Self::Bf16Pair => 16,
            Self::F32 | Self::Q8 | Self::Q8K => 1,
        }
    }

    /// This and what comes with it.
    const fn bits(self) -> u8 {
        match self {
            Self::Bf16Pair => 1 << Self::Bf16Pair as u8 | 1 << Self::Bf16 as u8,
            form => 1 << form as u8,
        }
    }
}

/// What rows of activations are, where there are kernels to choose from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Work {
    /// Of prompts. The kernels for many rows, which round less, are taken as soon as they are about as fast.
    #[default]
    Prompt,
    /// One each of several sequences. They are rounded as a row alone is, for as long as that is faster.
    Decode,
}

/// Columns of [`Form::Bf16`] that are stored, and multiplied, together.
pub(crate) const BF16_SLICE: usize = 512;

/// Columns are padded with zeros to a multiple of this: what the kernels with the longest stride take at a time.
pub(crate) const PAD: usize = 512;

/// The largest multiplier of a group of 32 in [`Q8K`]. With it no kernel overflows whatever the weights: the worst is Q6_K,
/// 2 * 63 * 127 (a pair of products) * 128 * 63 (scale and multiplier) * 2 * 4 (pairs per lane and block) < 2^31.
const MULTIPLIER_MAX: f32 = 63.0;

/// The largest of the integers in 16 bits.
pub(crate) const WORD_MAX: f32 = 32767.0;

/// Reusable buffers for the activations of one input, planned for at most `max_rows` rows of `max_cols`.
/// Nothing is allocated after [`Activations::new`], and buffers that no kernel of this machine reads are never touched.
pub struct Activations {
    max_rows: usize,
    max_cols: usize,
    rows: usize,
    cols: usize,
    work: Work,
    forms: u8,
    f32: Aligned<f32>,
    q8: Q8Buffers,
    q8k: Q8KBuffers,
    /// The tiles of `Bf16`, and the second ones of `Bf16Pair`.
    bf16: [Aligned<u16>; 2],
}

struct Q8Buffers {
    qs: Aligned<i8>,
    d: Aligned<f32>,
    sums: Aligned<f32>,
    sums16: Aligned<f32>,
    totals16: Aligned<i32>,
    sum_words: Aligned<i16>,
    sum_steps: Aligned<f32>,
}

struct Q8KBuffers {
    qs: Aligned<i8>,
    d: Aligned<f32>,
    multipliers: Aligned<i16>,
    sums: Aligned<i16>,
    sums16: Aligned<i16>,
}

/// A row `x` in eight bits: `x[i] = d[i / 32] * q[i]`, `|q| <= 127`. Padded with zeros to a multiple of [`PAD`].
///
/// The quants of 128 columns (four groups of 32) are stored as the first halves of the four groups, then the second halves,
/// since nibble formats keep the two halves of a block in the low and the high nibbles of the same bytes.
#[derive(Clone, Copy)]
pub(crate) struct Q8<'a> {
    pub(crate) qs: &'a [i8],
    /// Per 32.
    pub(crate) d: &'a [f32],
    /// `d` times the sum of the quants, per 32.
    pub(crate) sums: &'a [f32],
    /// The same, per 16.
    pub(crate) sums16: &'a [f32],
    /// The sum of the quants, per 16.
    pub(crate) totals16: &'a [i32],
    /// `sums` in 16 bits: `sums[g] = sum_steps[g / 16] * sum_words[g]`.
    pub(crate) sum_words: &'a [i16],
    /// Per 512.
    pub(crate) sum_steps: &'a [f32],
}

/// A row of [`Q8`] to fill.
pub(crate) struct Q8Mut<'a> {
    pub(crate) qs: &'a mut [i8],
    pub(crate) d: &'a mut [f32],
    pub(crate) sums: &'a mut [f32],
    pub(crate) sums16: &'a mut [f32],
    pub(crate) totals16: &'a mut [i32],
    pub(crate) sum_words: &'a mut [i16],
    pub(crate) sum_steps: &'a mut [f32],
}

impl Q8Mut<'_> {
    /// Fills all that follows from the sums of the quants in the halves of group `g` of 32, whose `d` is there.
    #[inline(always)]
    pub(crate) fn set_totals(&mut self, g: usize, totals: [i32; 2]) {
        let sums = totals.map(|total| self.d[g] * total as f32);
        self.totals16[2 * g..2 * g + 2].copy_from_slice(&totals);
        self.sums16[2 * g..2 * g + 2].copy_from_slice(&sums);
        self.sums[g] = sums[0] + sums[1];
    }

    /// Fills the words, when the sums are there.
    #[inline(always)]
    pub(crate) fn set_words(&mut self) {
        let words = self.sum_words.as_chunks_mut::<16>().0.iter_mut().zip(self.sum_steps.iter_mut());
        for (sums, (words, step)) in self.sums.as_chunks::<16>().0.iter().zip(words) {
            let max = max_abs(sums);
            let per_step = finite_or_zero(WORD_MAX / max);
            *step = max / WORD_MAX;
            words.iter_mut().zip(sums).for_each(|(word, sum)| *word = nearest(sum * per_step, WORD_MAX) as i16);
        }
    }
}

/// A row `x` in eight bits: `x[i] = d[i / 256] * multipliers[i / 32] * q[i]`, `|q| <= 127`, multipliers in 1..=63, so that
/// products with integer scales add up in integers over 256. Padded with zeros to a multiple of [`PAD`].
#[derive(Clone, Copy)]
pub(crate) struct Q8K<'a> {
    pub(crate) qs: &'a [i8],
    /// Per 256.
    pub(crate) d: &'a [f32],
    /// Per 32.
    pub(crate) multipliers: &'a [i16],
    /// Sum of the quants, per 32.
    pub(crate) sums: &'a [i16],
    /// -16 times the sum of the quants, per 16: the largest multiple that fits, of use where quants are stored with an offset.
    pub(crate) sums16: &'a [i16],
}

impl Activations {
    /// Buffers for `max_rows` rows of `max_cols`.
    pub fn new(max_rows: usize, max_cols: usize) -> Self {
        let padded = max_rows * max_cols.next_multiple_of(PAD);
        Self {
            max_rows,
            max_cols,
            rows: 0,
            cols: 0,
            work: Work::default(),
            forms: 0,
            f32: Aligned::zeroed(max_rows * max_cols),
            q8: Q8Buffers {
                qs: Aligned::zeroed(padded),
                d: Aligned::zeroed(padded / 32),
                sums: Aligned::zeroed(padded / 32),
                sums16: Aligned::zeroed(padded / 16),
                totals16: Aligned::zeroed(padded / 16),
                sum_words: Aligned::zeroed(padded / 32),
                sum_steps: Aligned::zeroed(padded / 512),
            },
            q8k: Q8KBuffers {
                qs: Aligned::zeroed(padded),
                d: Aligned::zeroed(padded / 256),
                multipliers: Aligned::zeroed(padded / 32),
                sums: Aligned::zeroed(padded / 32),
                sums16: Aligned::zeroed(padded / 16),
            },
            bf16: [0, 1].map(|_| Aligned::zeroed(max_rows.next_multiple_of(32) * max_cols.next_multiple_of(BF16_SLICE))),
        }
    }

    /// Tells what the rows are that are filled from now on. What was quantized before is forgotten.
    pub fn set_work(&mut self, work: Work) {
        self.work = work;
        self.forms = Form::F32.bits();
    }

    /// The rows to fill, (rows, cols) without gaps. What was quantized before is forgotten.
    /// Panics if this is more than was planned.
    pub fn f32_mut(&mut self, rows: usize, cols: usize) -> &mut [f32] {
        assert!(
            rows <= self.max_rows && cols <= self.max_cols,
            "activations planned for {} x {}, asked for {rows} x {cols}",
            self.max_rows,
            self.max_cols
        );
        (self.rows, self.cols) = (rows, cols);
        self.forms = Form::F32.bits();
        &mut self.f32[..rows * cols]
    }

    /// The rows last filled, (rows, cols).
    pub fn f32(&self) -> &[f32] {
        &self.f32[..self.rows * self.cols]
    }

    /// Bytes that products of `max_rows` rows with weights of `dtypes` make resident: the rows as they are, and the forms that
    /// the kernels of `isa` read for so many.
    pub fn bytes_used(isa: Isa, max_rows: usize, max_cols: usize, dtypes: impl Iterator<Item = DType>) -> usize {
        let table = KernelTable::of(isa);
        let forms = dtypes.fold(0, |forms, dtype| forms | table.kernels(dtype).for_rows(max_rows, Work::Prompt).form.bits());
        let padded = max_rows * max_cols.next_multiple_of(PAD);
        let bf16 = max_rows.next_multiple_of(32) * max_cols.next_multiple_of(BF16_SLICE) * size_of::<u16>();
        let sizes = [
            (Form::Q8, padded + (padded / 32 * 2 + padded / 16 * 2 + padded / 512) * size_of::<f32>() + padded / 32 * size_of::<i16>()),
            (Form::Q8K, padded + padded / 256 * size_of::<f32>() + (padded / 16 + padded / 32 * 2) * size_of::<i16>()),
            (Form::Bf16, bf16),
            (Form::Bf16Pair, bf16),
        ];
        let used = sizes.iter().filter(|(form, _)| forms & 1 << *form as u8 != 0).map(|(_, bytes)| bytes);
        max_rows * max_cols * size_of::<f32>() + used.sum::<usize>()
    }

    pub(crate) fn work(&self) -> Work {
        self.work
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    pub(crate) fn has(&self, form: Form) -> bool {
        self.forms & 1 << form as u8 != 0
    }

    pub(crate) fn f32_row(&self, row: usize) -> &[f32] {
        &self.f32[row * self.cols..(row + 1) * self.cols]
    }

    /// Row `row` in eight bits with a scale per 32. Meaningful only if `has(Form::Q8)`.
    pub(crate) fn q8_row(&self, row: usize) -> Q8<'_> {
        self.q8_rows(row..row + 1)
    }

    /// The same of several rows, one after the other.
    pub(crate) fn q8_rows(&self, rows: Range<usize>) -> Q8<'_> {
        let padded = self.cols.next_multiple_of(PAD);
        let per = |n: usize| rows.start * padded / n..rows.end * padded / n;
        Q8 {
            qs: &self.q8.qs[per(1)],
            d: &self.q8.d[per(32)],
            sums: &self.q8.sums[per(32)],
            sums16: &self.q8.sums16[per(16)],
            totals16: &self.q8.totals16[per(16)],
            sum_words: &self.q8.sum_words[per(32)],
            sum_steps: &self.q8.sum_steps[per(512)],
        }
    }

    /// Row `row` in eight bits with a scale per 256. Meaningful only if `has(Form::Q8K)`.
    #[inline]
    pub(crate) fn q8k_row(&self, row: usize) -> Q8K<'_> {
        let padded = self.cols.next_multiple_of(PAD);
        Q8K {
            qs: &self.q8k.qs[row * padded..][..padded],
            d: &self.q8k.d[row * padded / 256..][..padded / 256],
            multipliers: &self.q8k.multipliers[row * padded / 32..][..padded / 32],
            sums: &self.q8k.sums[row * padded / 32..][..padded / 32],
            sums16: &self.q8k.sums16[row * padded / 16..][..padded / 16],
        }
    }

    /// Room for `BF16_SLICE` columns, from `BF16_SLICE * slice` on, of the 16 rows from `16 tile_row` on, in each part.
    ///
    /// # Safety
    /// Nobody else reads or writes the tiles of these rows.
    #[cfg(target_arch = "x86_64")]
    #[allow(clippy::mut_from_ref, reason = "that is its purpose; the caller answers for it")]
    pub(crate) unsafe fn bf16_tiles_mut(&self, tile_row: usize, slice: usize) -> [&mut [u16]; 2] {
        let range = self.bf16_range(tile_row, slice);
        // SAFETY: the caller's promise.
        [0, 1].map(|part| unsafe { self.bf16[part].shared_mut(range.clone()) })
    }

    /// The tiles of those columns and rows.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn bf16_tiles(&self, part: usize, tile_row: usize, slice: usize) -> &[u16] {
        &self.bf16[part][self.bf16_range(tile_row, slice)]
    }

    /// Slice by slice, so that a slice of all rows is in one piece: at a power of two apart, its parts would compete for the
    /// same sets of a cache.
    #[cfg(target_arch = "x86_64")]
    fn bf16_range(&self, tile_row: usize, slice: usize) -> Range<usize> {
        let len = BF16_SLICE * 16;
        let at = (slice * self.rows.next_multiple_of(32) / 16 + tile_row) * len;
        at..at + len
    }

    /// These forms are now filled in.
    pub(crate) fn add(&mut self, form: Form) {
        self.forms |= form.bits();
    }

    /// Fills one of the quantized forms of rows `rows`.
    ///
    /// # Safety
    /// Nobody else reads or writes that form of these rows.
    #[inline(always)]
    pub(crate) unsafe fn quantize(&self, rows: Range<usize>, form: Form) {
        // SAFETY: the caller's promise.
        unsafe {
            match form {
                Form::Q8 => self.quantize_q8(rows),
                Form::Q8K => self.quantize_q8k(rows),
                Form::F32 | Form::Bf16 | Form::Bf16Pair => {}
            }
        }
    }

    /// Fills the form [`Q8`] of rows `rows`.
    ///
    /// Always inlined, here and below, so that an instruction set's function around it compiles it for that set.
    #[inline(always)]
    unsafe fn quantize_q8(&self, rows: Range<usize>) {
        for row in rows {
            let x = self.f32_row(row);
            // SAFETY: the caller's promise.
            let mut out = unsafe { self.q8_row_mut(row) };
            for g in 0..out.d.len() {
                let x = group(x, g);
                let max = max_abs(&x);
                let q = quants(&x, 127.0 / max);
                out.d[g] = max / 127.0;
                let total = |q: &[i8]| q.iter().map(|q| i32::from(*q)).sum::<i32>();
                let totals = [total(&q[..16]), total(&q[16..])];
                out.set_totals(g, totals);
                let at = g / 4 * 128 + g % 4 * 16;
                out.qs[at..at + 16].copy_from_slice(&q[..16]);
                out.qs[at + 64..at + 80].copy_from_slice(&q[16..]);
            }
            out.set_words();
        }
    }

    /// Where the form [`Q8`] of row `row` goes.
    ///
    /// # Safety
    /// Nobody else reads or writes that form of this row.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "that is its purpose; the caller answers for it")]
    pub(crate) unsafe fn q8_row_mut(&self, row: usize) -> Q8Mut<'_> {
        let padded = self.cols.next_multiple_of(PAD);
        let per = |n: usize| row * padded / n..(row + 1) * padded / n;
        // SAFETY: the caller's promise.
        unsafe {
            Q8Mut {
                qs: self.q8.qs.shared_mut(per(1)),
                d: self.q8.d.shared_mut(per(32)),
                sums: self.q8.sums.shared_mut(per(32)),
                sums16: self.q8.sums16.shared_mut(per(16)),
                totals16: self.q8.totals16.shared_mut(per(16)),
                sum_words: self.q8.sum_words.shared_mut(per(32)),
                sum_steps: self.q8.sum_steps.shared_mut(per(512)),
            }
        }
    }

    /// Fills the form [`Q8K`] of rows `rows`.
    #[inline(always)]
    unsafe fn quantize_q8k(&self, rows: Range<usize>) {
        for row in rows {
            let x = self.f32_row(row);
            // SAFETY: the caller's promise.
            let out = unsafe { self.q8k_row_mut(row) };
            for (block, d) in out.d.iter_mut().enumerate() {
                let groups: [[f32; 32]; 8] = std::array::from_fn(|g| group(x, block * 8 + g));
                let steps = Q8KSteps::new(groups.each_ref().map(max_abs));
                *d = steps.unit;
                for (g, x) in groups.iter().enumerate() {
                    let q = quants(x, steps.per_step[g]);
                    let at = block * 8 + g;
                    out.qs[at * 32..][..32].copy_from_slice(&q);
                    let sum = |q: &[i8]| q.iter().map(|q| i16::from(*q)).sum::<i16>();
                    let halves = [sum(&q[..16]), sum(&q[16..])];
                    out.sums[at] = halves[0] + halves[1];
                    out.sums16[at * 2..][..2].copy_from_slice(&halves.map(|sum| -16 * sum));
                    out.multipliers[at] = steps.multipliers[g];
                }
            }
        }
    }

    /// Where the form [`Q8K`] of row `row` goes.
    ///
    /// # Safety
    /// Nobody else reads or writes that form of this row.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "that is its purpose; the caller answers for it")]
    pub(crate) unsafe fn q8k_row_mut(&self, row: usize) -> Q8KMut<'_> {
        let padded = self.cols.next_multiple_of(PAD);
        let per = |n: usize| row * padded / n..(row + 1) * padded / n;
        // SAFETY: the caller's promise.
        unsafe {
            Q8KMut {
                qs: self.q8k.qs.shared_mut(per(1)),
                d: self.q8k.d.shared_mut(per(256)),
                multipliers: self.q8k.multipliers.shared_mut(per(32)),
                sums: self.q8k.sums.shared_mut(per(32)),
                sums16: self.q8k.sums16.shared_mut(per(16)),
            }
        }
    }
}

/// A row of [`Q8K`] to fill.
pub(crate) struct Q8KMut<'a> {
    pub(crate) qs: &'a mut [i8],
    pub(crate) d: &'a mut [f32],
    pub(crate) multipliers: &'a mut [i16],
    pub(crate) sums: &'a mut [i16],
    pub(crate) sums16: &'a mut [i16],
}

/// The steps of a block of 256 in [`Q8K`].
pub(crate) struct Q8KSteps {
    /// Its `d`.
    pub(crate) unit: f32,
    /// Of each group of 32.
    pub(crate) multipliers: [i16; 8],
    /// One divided by the step of each group, which is `unit` times the multiplier. Not finite where the step is zero.
    pub(crate) per_step: [f32; 8],
}

impl Q8KSteps {
    /// For groups with these largest absolute values.
    #[inline(always)]
    pub(crate) fn new(maxima: [f32; 8]) -> Self {
        let max = f32::from_bits(maxima.iter().fold(0, |max, x| x.to_bits().max(max)));
        let unit = max / (127.0 * MULTIPLIER_MAX);
        // The smallest steps that reach the groups' maxima; the 0.999 keeps the block's own maximum at 63.
        let per_unit = 1.0 / (127.0 * unit);
        let steps = maxima.map(|max| (max * per_unit + 0.999).clamp(1.0, MULTIPLIER_MAX).trunc());
        Self { unit, multipliers: steps.map(|step| step as i16), per_step: steps.map(|step| 1.0 / (unit * step)) }
    }
}

/// Group `g` of 32, zeros beyond the end.
#[inline(always)]
fn group(x: &[f32], g: usize) -> [f32; 32] {
    let mut group = [0f32; 32];
    let start = (g * 32).min(x.len());
    let end = (start + 32).min(x.len());
    group[..end - start].copy_from_slice(&x[start..end]);
    group
}

/// Compared as bits: for numbers without a sign these have the same order, and NaN comes out on top, so that one in the
/// input is one in the scale and is not lost.
#[inline(always)]
fn max_abs<const N: usize>(x: &[f32; N]) -> f32 {
    let max = x.iter().fold(0, |max, x| (x.to_bits() & 0x7fff_ffff).max(max));
    f32::from_bits(max)
}

/// `x / step` rounded to the nearest integer within -127..=127; the reciprocal of a zero step gives zeros.
#[inline(always)]
fn quants(x: &[f32; 32], per_step: f32) -> [i8; 32] {
    let per_step = finite_or_zero(per_step);
    x.map(|x| nearest(x * per_step, 127.0) as i8)
}

#[inline(always)]
fn finite_or_zero(x: f32) -> f32 {
    if x.is_finite() { x } else { 0.0 }
}

/// The nearest integer within `-limit..=limit` in the low bits, zero for NaN. `limit` is below 2^22.
#[inline(always)]
fn nearest(x: f32, limit: f32) -> u32 {
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the sum, without a conversion that saturates.
    const MAGIC: f32 = 12_582_912.0;
    let clamped = if x > limit { limit } else { x };
    let clamped = if clamped < -limit { -limit } else { clamped };
    let clamped = if clamped.is_nan() { 0.0 } else { clamped };
    (clamped + MAGIC).to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cpu, DType, Isa};

    /// Three rows whose groups of 32 differ in size, as `isa` quantizes them for its kernels of `dtype`.
    fn filled(isa: Isa, k: usize, dtype: DType) -> Activations {
        let mut acts = Activations::new(3, k);
        for (i, x) in acts.f32_mut(3, k).iter_mut().enumerate() {
            let size = [1e-3, 1.0, 0.0, 40.0, 1e4][i / 32 % 5];
            *x = size * ((i * 7919 % 1000) as f32 / 500.0 - 1.0);
        }
        Cpu::new(isa, 1).quantize(&mut acts, 3, k, [dtype].into_iter());
        acts
    }

    fn isas() -> impl Iterator<Item = Isa> {
        Isa::available().iter().copied().filter(|isa| *isa != Isa::SCALAR)
    }

    #[test]
    fn every_instruction_set_quantizes_to_the_same_integers() {
        for k in [256, 768, 1024, 1280] {
            let all: Vec<_> = isas().map(|isa| filled(isa, k, DType::Q8_0)).collect();
            for (one, other) in all.iter().zip(all.iter().skip(1)) {
                for row in 0..3 {
                    let (a, b) = (one.q8_row(row), other.q8_row(row));
                    assert_eq!((a.qs, a.d, a.sums, a.sums16, a.totals16), (b.qs, b.d, b.sums, b.sums16, b.totals16));
                    assert_eq!((a.sum_words, a.sum_steps), (b.sum_words, b.sum_steps));
                    for (g, sum) in a.sums.iter().enumerate() {
                        let (step, word) = (a.sum_steps[g / 16], a.sum_words[g]);
                        assert!((sum - step * f32::from(word)).abs() <= 0.51 * step, "{sum} became {word} times {step}");
                    }
                }
            }
        }
    }

    #[test]
    fn multiples_of_integer_steps_are_within_half_a_step_of_the_activations() {
        for acts in isas().map(|isa| filled(isa, 768, DType::Q4_K)).filter(|acts| acts.has(Form::Q8K)) {
            for row in 0..3 {
                let Q8K { qs, d, multipliers, sums, sums16 } = acts.q8k_row(row);
                for (i, x) in acts.f32_row(row).iter().enumerate() {
                    let step = d[i / 256] * f32::from(multipliers[i / 32]);
                    assert!((x - step * f32::from(qs[i])).abs() <= 0.51 * step, "{x} became {} times {step}", qs[i]);
                }
                let total = |qs: &[i8]| qs.iter().map(|q| i16::from(*q)).sum::<i16>();
                assert!(qs.chunks(32).map(total).eq(sums.iter().copied()));
                assert!(qs.chunks(16).map(|qs| -16 * total(qs)).eq(sums16.iter().copied()));
            }
        }
    }
}
