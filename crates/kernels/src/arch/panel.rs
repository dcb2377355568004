//! Weight rows expanded for the eight-bit batch kernels: a slice of a few rows, interleaved so that one load has four
//! consecutive weights of each of them. Plain Rust, always inlined, so that an instruction set's function around it compiles
//! it for that set. Does not own the products.

use crate::blocks::DType;
use crate::scalar::{self, LEVELS_IQ4, LEVELS_MXFP4};

/// Columns that are expanded at a time; a whole number of blocks of every format.
pub(super) const SLICE: usize = 512;

/// `ROWS` weight rows of up to [`SLICE`] columns: weight = scale * quant - min, scales and minima being per 32 columns or,
/// in formats with groups of 16, per 16. Begins with the quants, on a cache
/// line, so that no load of sixteen rows is of two of them.
#[repr(C, align(64))]
pub(super) struct Panel<const ROWS: usize> {
    /// For each four columns, for each row, the four quants.
    pub(super) quants: [[[u8; 4]; ROWS]; SLICE / 4],
    /// For each group, for each row.
    pub(super) scales: [[f32; ROWS]; SLICE / 16],
    /// As `scales`.
    pub(super) mins: [[f32; ROWS]; SLICE / 16],
}

/// How a format's quants are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Quants {
    /// Not negative and at most this.
    UpTo(u8),
    /// Signed bytes.
    Signed,
}

/// Whether the format has a batch kernel, and if so how its quants are kept and the columns of a group. Formats with signed
/// quants are kept as such, or 128 larger if `unsigned`.
pub(super) fn layout(dtype: DType, unsigned: bool) -> Option<(Quants, usize)> {
    let signed = if unsigned { Quants::UpTo(255) } else { Quants::Signed };
    Some(match dtype {
        DType::F32 | DType::F16 | DType::BF16 => return None,
        DType::Q4_0 | DType::Q4_1 | DType::Q4_K => (Quants::UpTo(15), 32),
        DType::Q5_0 | DType::Q5_1 | DType::Q5_K => (Quants::UpTo(31), 32),
        DType::Q8_0 | DType::IQ4_NL | DType::IQ4_XS | DType::MXFP4 => (signed, 32),
        DType::Q2_K | DType::Q3_K => (Quants::UpTo(15), 16),
        DType::Q6_K => (Quants::UpTo(63), 16),
    })
}

/// One row of a slice, in order.
pub(super) struct Row {
    pub(super) quants: [u8; SLICE],
    pub(super) scales: [f32; SLICE / 16],
    mins: [f32; SLICE / 16],
}

impl<const ROWS: usize> Panel<ROWS> {
    pub(super) const fn new() -> Self {
        Self { quants: [[[0; 4]; ROWS]; SLICE / 4], scales: [[0.0; ROWS]; SLICE / 16], mins: [[0.0; ROWS]; SLICE / 16] }
    }

    /// Fills row `r` from the blocks of a slice.
    #[inline(always)]
    pub(super) fn fill(&mut self, dtype: DType, blocks: &[u8], r: usize, unsigned: bool) {
        let row = Row::new(dtype, blocks, unsigned);
        for (place, quants) in self.quants.iter_mut().zip(row.quants.as_chunks::<4>().0) {
            place[r] = *quants;
        }
        let n_groups = if dtype.block_len() == 256 { SLICE / 16 } else { SLICE / 32 };
        for (place, scale) in self.scales.iter_mut().zip(row.scales).take(n_groups) {
            place[r] = scale;
        }
        for (place, min) in self.mins.iter_mut().zip(row.mins).take(n_groups) {
            place[r] = min;
        }
    }
}

impl Row {
    /// Of the blocks of a slice.
    #[inline(always)]
    pub(super) fn new(dtype: DType, blocks: &[u8], unsigned: bool) -> Self {
        let mut row = Row { quants: [0; SLICE], scales: [0.0; SLICE / 16], mins: [0.0; SLICE / 16] };
        match dtype {
            DType::Q4_0 => row.of_32::<18>(blocks, |b| nibbles(&b[2..], 0), |b| times(f16(b), 8.0)),
            DType::Q4_1 => row.of_32::<20>(blocks, |b| nibbles(&b[4..], 0), |b| (f16(b), -f16(&b[2..]))),
            DType::Q5_0 => row.of_32::<22>(blocks, |b| nibbles(&b[6..], u32_at(&b[2..])), |b| times(f16(b), 16.0)),
            DType::Q5_1 => row.of_32::<24>(blocks, |b| nibbles(&b[8..], u32_at(&b[4..])), |b| (f16(b), -f16(&b[2..]))),
            DType::Q8_0 => {
                let (flip, offset) = if unsigned { (0x80 * ONES, 128.0) } else { (0, 0.0) };
                row.of_32::<34>(blocks, |b| bytes(bits(&b[2..], 0, 255).map(|word| word ^ flip)), |b| times(f16(b), offset));
            }
            DType::IQ4_NL | DType::IQ4_XS | DType::MXFP4 => row.of_levels(dtype, blocks, unsigned),
            DType::Q4_K => row.q4_k(blocks),
            DType::Q5_K => row.q5_k(blocks),
            DType::Q6_K => row.q6_k(blocks),
            DType::Q3_K => row.q3_k(blocks),
            DType::Q2_K => row.q2_k(blocks),
            DType::F32 | DType::F16 | DType::BF16 => {}
        }
        row
    }

    #[inline(always)]
    fn of_32<const BYTES: usize>(
        &mut self,
        blocks: &[u8],
        quants: impl Fn(&[u8; BYTES]) -> [u8; 32],
        scale_and_min: impl Fn(&[u8; BYTES]) -> (f32, f32),
    ) {
        let places = self.quants.as_chunks_mut::<32>().0.iter_mut().zip(self.scales.iter_mut().zip(&mut self.mins));
        for (block, (place, (scale, min))) in blocks.as_chunks::<BYTES>().0.iter().zip(places) {
            *place = quants(block);
            (*scale, *min) = scale_and_min(block);
        }
    }

    /// Formats whose quants pick from a table of signed levels.
    #[inline(always)]
    fn of_levels(&mut self, dtype: DType, blocks: &[u8], unsigned: bool) {
        let flip = if unsigned { 0x80 } else { 0 };
        let offset = if unsigned { 128.0 } else { 0.0 };
        let levels = if dtype == DType::MXFP4 { LEVELS_MXFP4 } else { LEVELS_IQ4 };
        let (len, bytes) = (dtype.block_len(), dtype.block_bytes());
        for (b, block) in blocks.chunks_exact(bytes).enumerate() {
            for g in 0..len / 32 {
                let group = b * len / 32 + g;
                let scale = match dtype {
                    DType::IQ4_NL => f16(block),
                    DType::MXFP4 => scalar::mxfp4_scale(block[0]),
                    _ => scalar::iq4_xs_scale(block, g),
                };
                let qs = &block[bytes - len / 2 + 16 * g..][..16];
                for (i, q) in nibbles(qs, 0).into_iter().enumerate() {
                    self.quants[group * 32 + i] = levels[usize::from(q)].cast_unsigned() ^ flip;
                }
                (self.scales[group], self.mins[group]) = (scale, offset * scale);
            }
        }
    }

    #[inline(always)]
    fn q4_k(&mut self, blocks: &[u8]) {
        for (b, block) in blocks.as_chunks::<144>().0.iter().enumerate() {
            self.scales_and_mins(b, block);
            for (g, quants) in self.quants[b * 256..].as_chunks_mut::<32>().0.iter_mut().enumerate().take(8) {
                *quants = bytes(bits(&block[16 + g / 2 * 32..], g % 2 * 4, 15));
            }
        }
    }

    #[inline(always)]
    fn q5_k(&mut self, blocks: &[u8]) {
        for (b, block) in blocks.as_chunks::<176>().0.iter().enumerate() {
            self.scales_and_mins(b, block);
            for (g, quants) in self.quants[b * 256..].as_chunks_mut::<32>().0.iter_mut().enumerate().take(8) {
                let low = bits(&block[48 + g / 2 * 32..], g % 2 * 4, 15);
                *quants = bytes(above(low, bits(&block[16..], g, 1), 4));
            }
        }
    }

    /// Of block `b` of Q4_K or Q5_K.
    #[inline(always)]
    fn scales_and_mins(&mut self, b: usize, block: &[u8]) {
        let (d, dmin) = (f16(block), f16(&block[2..]));
        for g in 0..8 {
            let (scale, min) = scalar::scale_min(&block[4..16], g);
            (self.scales[b * 8 + g], self.mins[b * 8 + g]) = (d * scale, dmin * min);
        }
    }

    #[inline(always)]
    fn q6_k(&mut self, blocks: &[u8]) {
        for (b, block) in blocks.as_chunks::<210>().0.iter().enumerate() {
            let d = f16(&block[208..]);
            for (g, scale) in block[192..208].iter().enumerate() {
                let scale = d * f32::from(scale.cast_signed());
                (self.scales[b * 16 + g], self.mins[b * 16 + g]) = (scale, 32.0 * scale);
            }
            for (g, quants) in self.quants[b * 256..].as_chunks_mut::<32>().0.iter_mut().enumerate().take(8) {
                let (half, quarter) = (g / 4, g % 4);
                let low = bits(&block[half * 64 + quarter % 2 * 32..], quarter / 2 * 4, 15);
                *quants = bytes(above(low, bits(&block[128 + half * 32..], quarter * 2, 3), 4));
            }
        }
    }

    #[inline(always)]
    fn q3_k(&mut self, blocks: &[u8]) {
        for (b, block) in blocks.as_chunks::<110>().0.iter().enumerate() {
            let d = f16(&block[108..]);
            for g in 0..16 {
                let scale = d * scalar::q3_k_scale(&block[96..108], g);
                (self.scales[b * 16 + g], self.mins[b * 16 + g]) = (scale, 4.0 * scale);
            }
            for (g, quants) in self.quants[b * 256..].as_chunks_mut::<32>().0.iter_mut().enumerate().take(8) {
                let low = bits(&block[32 + g / 4 * 32..], g % 4 * 2, 3);
                *quants = bytes(above(low, bits(block, g, 1), 2));
            }
        }
    }

    #[inline(always)]
    fn q2_k(&mut self, blocks: &[u8]) {
        for (b, block) in blocks.as_chunks::<84>().0.iter().enumerate() {
            let (d, dmin) = (f16(&block[80..]), f16(&block[82..]));
            for (g, byte) in block[..16].iter().enumerate() {
                self.scales[b * 16 + g] = d * f32::from(byte & 15);
                self.mins[b * 16 + g] = dmin * f32::from(byte >> 4);
            }
            for (g, quants) in self.quants[b * 256..].as_chunks_mut::<32>().0.iter_mut().enumerate().take(8) {
                *quants = bytes(bits(&block[16 + g / 4 * 32..], g % 4 * 2, 3));
            }
        }
    }
}

/// One in each byte.
const ONES: u64 = 0x0101_0101_0101_0101;

/// The first 32 bytes, each shifted right by `shift` and masked; eight in a word, since loops over bytes of a known number
/// are unrolled before they could become vectors.
#[inline(always)]
fn bits(bytes: &[u8], shift: usize, mask: u8) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes) >> shift & (ONES * u64::from(mask));
    }
    words
}

/// `low`, with `high` from bit `shift` of each byte on.
#[inline(always)]
fn above(low: [u64; 4], high: [u64; 4], shift: usize) -> [u64; 4] {
    std::array::from_fn(|i| low[i] | high[i] << shift)
}

#[inline(always)]
fn bytes(words: [u64; 4]) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (bytes, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
    bytes
}

/// Half precision by its bits: shifted into place, the exponent is too small by 112, subnormals included; infinity and NaN
/// keep theirs. The library's conversion asks for the processor's features each time.
#[inline(always)]
fn f16(bytes: &[u8]) -> f32 {
    let bits = u32::from(u16::from_le_bytes([bytes[0], bytes[1]]));
    let size = (bits & 0x7fff) << 13;
    let finite = f32::from_bits(size) * f32::from_bits((112 + 127) << 23);
    let size = if bits & 0x7c00 == 0x7c00 { size | 0x7f80_0000 } else { finite.to_bits() };
    f32::from_bits(size | (bits & 0x8000) << 16)
}

#[inline(always)]
fn times(d: f32, factor: f32) -> (f32, f32) {
    (d, factor * d)
}

#[inline(always)]
fn u32_at(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// The low nibbles of sixteen bytes, then the high ones, each with a fifth bit.
#[inline(always)]
fn nibbles(qs: &[u8], fifth: u32) -> [u8; 32] {
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| qs[at + i]));
    let (first, second) = (word(0), word(8));
    let low = [first, second, first >> 4, second >> 4].map(|word| word & (15 * ONES));
    // Each bit of a byte to a byte of its own: masked in place, then anything to one.
    let fifth = fifth.to_le_bytes().map(|bits| {
        let apart = (u64::from(bits) * ONES) & 0x8040_2010_0804_0201;
        ((apart + 0x7f * ONES) >> 7) & ONES
    });
    bytes(above(low, fifth, 4))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_half_is_converted_as_the_library_does() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (super::f16(&bits.to_le_bytes()), half::f16::from_bits(bits).to_f32());
            assert!(ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()), "{bits:#x}");
        }
    }
}
