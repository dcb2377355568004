//! Weight rows expanded for the eight-bit batch kernels: a slice of a few rows, interleaved so that one load has four
//! consecutive weights of each of them. Plain Rust, always inlined, so that an instruction set's function around it compiles
//! it for that set. Does not own the products.

use crate::blocks::DType;
use crate::scalar::{self, LEVELS_IQ4, LEVELS_MXFP4};

/// Columns that are expanded at a time; a whole number of blocks of every format.
pub(super) const SLICE: usize = 512;

/// `ROWS` weight rows of up to [`SLICE`] columns: weight = scale * quant - min, scales and minima being per 32 columns or,
/// in formats with groups of 16, per 16.
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
struct Row {
    quants: [u8; SLICE],
    scales: [f32; SLICE / 16],
    mins: [f32; SLICE / 16],
}

impl<const ROWS: usize> Panel<ROWS> {
    pub(super) const fn new() -> Self {
        Self { quants: [[[0; 4]; ROWS]; SLICE / 4], scales: [[0.0; ROWS]; SLICE / 16], mins: [[0.0; ROWS]; SLICE / 16] }
    }

    /// Fills row `r` from the blocks of a slice.
    #[inline(always)]
    pub(super) fn fill(&mut self, dtype: DType, blocks: &[u8], r: usize, unsigned: bool) {
        let mut row = Row { quants: [0; SLICE], scales: [0.0; SLICE / 16], mins: [0.0; SLICE / 16] };
        match dtype {
            DType::Q4_0 => row.of_32::<18>(blocks, |b| nibbles(&b[2..], 0), |b| (f16(b), 8.0 * f16(b))),
            DType::Q4_1 => row.of_32::<20>(blocks, |b| nibbles(&b[4..], 0), |b| (f16(b), -f16(&b[2..]))),
            DType::Q5_0 => row.of_32::<22>(blocks, |b| nibbles(&b[6..], u32_at(&b[2..])), |b| (f16(b), 16.0 * f16(b))),
            DType::Q5_1 => row.of_32::<24>(blocks, |b| nibbles(&b[8..], u32_at(&b[4..])), |b| (f16(b), -f16(&b[2..]))),
            DType::Q8_0 => {
                let (flip, offset) = if unsigned { (0x80, 128.0) } else { (0, 0.0) };
                row.of_32::<34>(blocks, |b| std::array::from_fn(|i| b[2 + i] ^ flip), |b| (f16(b), offset * f16(b)));
            }
            DType::IQ4_NL | DType::IQ4_XS | DType::MXFP4 => row.of_levels(dtype, blocks, unsigned),
            DType::Q4_K => row.q4_k(blocks),
            DType::Q5_K => row.q5_k(blocks),
            DType::Q6_K => row.q6_k(blocks),
            DType::Q3_K => row.q3_k(blocks),
            DType::Q2_K => row.q2_k(blocks),
            DType::F32 | DType::F16 | DType::BF16 => {}
        }
        for (place, quants) in self.quants.iter_mut().zip(row.quants.as_chunks::<4>().0) {
            place[r] = *quants;
        }
        for (place, scale) in self.scales.iter_mut().zip(row.scales) {
            place[r] = scale;
        }
        for (place, min) in self.mins.iter_mut().zip(row.mins) {
            place[r] = min;
        }
    }
}

impl Row {
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
            for (i, byte) in block[16..].iter().enumerate() {
                let at = b * 256 + i / 32 * 64 + i % 32;
                self.quants[at] = byte & 15;
                self.quants[at + 32] = byte >> 4;
            }
        }
    }

    #[inline(always)]
    fn q5_k(&mut self, blocks: &[u8]) {
        for (b, block) in blocks.as_chunks::<176>().0.iter().enumerate() {
            self.scales_and_mins(b, block);
            for g in 0..8 {
                let quants = &mut self.quants[b * 256 + g * 32..][..32];
                let (low, fifth) = (&block[48 + g / 2 * 32..][..32], &block[16..48]);
                for (q, (low, fifth)) in quants.iter_mut().zip(low.iter().zip(fifth)) {
                    *q = low >> (g % 2 * 4) & 15 | (fifth >> g & 1) << 4;
                }
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
            for g in 0..8 {
                let quants = &mut self.quants[b * 256 + g * 32..][..32];
                let (half, quarter) = (g / 4, g % 4);
                let low = &block[half * 64 + quarter % 2 * 32..][..32];
                let pairs = &block[128 + half * 32..][..32];
                for (q, (low, pairs)) in quants.iter_mut().zip(low.iter().zip(pairs)) {
                    *q = low >> (quarter / 2 * 4) & 15 | (pairs >> (quarter * 2) & 3) << 4;
                }
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
            for g in 0..8 {
                let quants = &mut self.quants[b * 256 + g * 32..][..32];
                let pairs = &block[32 + g / 4 * 32..][..32];
                for (q, (pairs, third)) in quants.iter_mut().zip(pairs.iter().zip(&block[..32])) {
                    *q = pairs >> (g % 4 * 2) & 3 | (third >> g & 1) << 2;
                }
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
            for g in 0..8 {
                let quants = &mut self.quants[b * 256 + g * 32..][..32];
                for (q, pairs) in quants.iter_mut().zip(&block[16 + g / 4 * 32..][..32]) {
                    *q = pairs >> (g % 4 * 2) & 3;
                }
            }
        }
    }
}

#[inline(always)]
fn f16(bytes: &[u8]) -> f32 {
    half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

#[inline(always)]
fn u32_at(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// The low nibbles of sixteen bytes, then the high ones, each with a fifth bit.
#[inline(always)]
fn nibbles(bytes: &[u8], fifth: u32) -> [u8; 32] {
    let mut quants = [0; 32];
    for i in 0..16 {
        quants[i] = bytes[i] & 15 | ((fifth >> i & 1) << 4) as u8;
        quants[i + 16] = bytes[i] >> 4 | ((fifth >> (i + 16) & 1) << 4) as u8;
    }
    quants
}
