//! Encodes f32 as ggml stores it: plainly, rounded to nearest; no test of quality should lean on it.
//! Layouts as in ggml's `block_*` structs.

use half::{bf16, f16};

/// The tensor types that can be written from f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stored {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// bfloat16.
    Bf16,
    /// Blocks of 32: an f16 scale and 8-bit quants.
    Q8_0,
    /// Blocks of 32: an f16 scale and 4-bit quants.
    Q4_0,
    /// Blocks of 256: 6-bit scales and minima of every 32, 4-bit quants.
    Q4K,
    /// Blocks of 256: 8-bit scales of every 16, 6-bit quants.
    Q6K,
}

impl Stored {
    /// All of them.
    pub const ALL: [Self; 7] = [Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Q4_0, Self::Q4K, Self::Q6K];

    /// ggml's type id.
    pub fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Bf16 => 30,
            Self::Q8_0 => 8,
            Self::Q4_0 => 2,
            Self::Q4K => 12,
            Self::Q6K => 14,
        }
    }

    /// Elements of a block, of which a row must have a whole number.
    pub fn block_len(self) -> u64 {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q8_0 | Self::Q4_0 => 32,
            Self::Q4K | Self::Q6K => 256,
        }
    }

    /// The bytes of `values`. Panics where they are no whole number of blocks.
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
            Self::Bf16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
            Self::Q8_0 => blocks(values).flat_map(q8_0).collect(),
            Self::Q4_0 => blocks(values).flat_map(q4_0).collect(),
            Self::Q4K => blocks(values).flat_map(q4_k).collect(),
            Self::Q6K => blocks(values).flat_map(q6_k).collect(),
        }
    }
}

fn blocks<const N: usize>(values: &[f32]) -> impl Iterator<Item = &[f32; N]> {
    let (blocks, rest) = values.as_chunks();
    assert!(rest.is_empty(), "{} values are no whole number of blocks of {N}", values.len());
    blocks.iter()
}

/// `x / d`, or zero where there is nothing to scale.
fn quant(x: f32, d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { (x / d).round() }
}

fn largest(values: impl Iterator<Item = f32>) -> f32 {
    values.fold(0.0, f32::max)
}

/// `x[i] = d * q[i]`.
fn q8_0(block: &[f32; 32]) -> Vec<u8> {
    let d = f16::from_f32(largest(block.iter().map(|v| v.abs())) / 127.0);
    let mut bytes = d.to_le_bytes().to_vec();
    bytes.extend(block.iter().map(|v| quant(*v, d.to_f32()) as i8 as u8));
    bytes
}

/// `x[i] = d * (q[i] - 8)`; low nibbles hold the first half of a block, high ones the second.
fn q4_0(block: &[f32; 32]) -> Vec<u8> {
    let peak = block.iter().fold(0f32, |peak, v| if v.abs() > peak.abs() { *v } else { peak });
    let d = f16::from_f32(peak / -8.0);
    let q = |i: usize| (quant(block[i], d.to_f32()) + 8.0).clamp(0.0, 15.0) as u8;
    let mut bytes = d.to_le_bytes().to_vec();
    bytes.extend((0..16).map(|i| q(i) | q(i + 16) << 4));
    bytes
}

/// `x[i] = d * scale[i / 32] * q[i] - dmin * min[i / 32]`.
fn q4_k(block: &[f32; 256]) -> Vec<u8> {
    let groups = block.as_chunks::<32>().0;
    let minima: Vec<f32> = groups.iter().map(|group| largest(group.iter().map(|v| -v))).collect();
    let ranges: Vec<f32> = groups.iter().zip(&minima).map(|(group, min)| largest(group.iter().copied()) + min).collect();
    let d = f16::from_f32(largest(ranges.iter().map(|range| range / 15.0)) / 63.0);
    let dmin = f16::from_f32(largest(minima.iter().copied()) / 63.0);
    let scale: Vec<u8> = ranges.iter().map(|range| quant(range / 15.0, d.to_f32()).min(63.0) as u8).collect();
    let min: Vec<u8> = minima.iter().map(|min| quant(*min, dmin.to_f32()).min(63.0) as u8).collect();
    let q = |i: usize| {
        let (scale, min) = (d.to_f32() * f32::from(scale[i / 32]), dmin.to_f32() * f32::from(min[i / 32]));
        quant(block[i] + min, scale).clamp(0.0, 15.0) as u8
    };

    let mut bytes = [d.to_le_bytes(), dmin.to_le_bytes()].concat();
    // Six bits each: those of the upper four groups are cut in four and two.
    bytes.extend((0..4).map(|j| scale[j] | scale[j + 4] >> 4 << 6));
    bytes.extend((0..4).map(|j| min[j] | min[j + 4] >> 4 << 6));
    bytes.extend((4..8).map(|j| scale[j] & 15 | min[j] << 4));
    for pair in (0..256).step_by(64) {
        bytes.extend((pair..pair + 32).map(|i| q(i) | q(i + 32) << 4));
    }
    bytes
}

/// `x[i] = d * scale[i / 16] * (q[i] - 32)`.
fn q6_k(block: &[f32; 256]) -> Vec<u8> {
    let peaks: Vec<f32> = block.as_chunks::<16>().0.iter().map(|group| largest(group.iter().map(|v| v.abs()))).collect();
    let d = f16::from_f32(largest(peaks.iter().map(|peak| peak / 31.0)) / 127.0);
    let scale: Vec<i8> = peaks.iter().map(|peak| quant(peak / 31.0, d.to_f32()) as i8).collect();
    let q = |i: usize| (quant(block[i], d.to_f32() * f32::from(scale[i / 16])).clamp(-32.0, 31.0) + 32.0) as u8;

    let mut bytes = Vec::with_capacity(210);
    for half in [0, 128] {
        bytes.extend((half..half + 64).map(|i| q(i) & 15 | q(i + 64) << 4));
    }
    for half in [0, 128] {
        bytes.extend((half..half + 32).map(|i| q(i) >> 4 | q(i + 32) >> 4 << 2 | q(i + 64) >> 4 << 4 | q(i + 96) >> 4 << 6));
    }
    bytes.extend(scale.iter().map(|scale| *scale as u8));
    bytes.extend(d.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use downshift_kernels::{Cpu, DType, Isa, Matrix};

    use super::Stored;
    use crate::testing::Rng;

    /// The kernels' reading of what was written, against what was meant.
    #[test]
    fn what_is_written_reads_back_within_half_a_step() {
        let cpu = Cpu::new(Isa::SCALAR, 1);
        let mut rng = Rng::new(8);
        let values: Vec<f32> = (0..1024).map(|_| rng.normal()).collect();
        // Half a step between quants, relative to a peak of about four standard deviations.
        let bounds = [0.0, 2e-3, 2e-2, 0.02, 0.35, 0.25, 0.08];
        for (stored, bound) in Stored::ALL.into_iter().zip(bounds) {
            let bytes = stored.encode(&values);
            let dtype = DType::from_ggml(stored.id()).unwrap();
            let matrix = Matrix::new(dtype, 1, values.len(), &bytes).unwrap();
            let mut read = vec![0.0; values.len()];
            cpu.dequantize_row(&matrix, 0, &mut read);
            let worst = values.iter().zip(&read).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= bound && (bound == 0.0 || worst > bound / 8.0), "{stored:?}: {worst}");
        }
    }

    #[test]
    fn zeros_stay_zeros() {
        let cpu = Cpu::new(Isa::SCALAR, 1);
        for stored in Stored::ALL {
            let bytes = stored.encode(&[0.0; 256]);
            let matrix = Matrix::new(DType::from_ggml(stored.id()).unwrap(), 1, 256, &bytes).unwrap();
            let mut read = vec![1.0; 256];
            cpu.dequantize_row(&matrix, 0, &mut read);
            assert_eq!(read, [0.0; 256], "{stored:?}");
        }
    }
}
