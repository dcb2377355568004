//! Random weights and activations that are the same in every run.

use downshift_kernels::DType;

/// xorshift64*; enough for test data.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() >> 33) as usize % n
    }

    /// Uniform in -1..1.
    pub fn uniform(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// About normal, variance 1.
    pub fn normal(&mut self) -> f32 {
        (0..3).map(|_| self.uniform()).sum()
    }

    /// Activations with what quantizers find hard: outliers, and groups of very different size.
    pub fn activations(&mut self, len: usize) -> Vec<f32> {
        let mut scale = 1.0;
        (0..len)
            .map(|i| {
                if i % 32 == 0 {
                    scale = (self.uniform() * 1.5).exp();
                }
                let outlier = if self.below(100) == 0 { 5.0 } else { 1.0 };
                self.normal() * scale * outlier
            })
            .collect()
    }

    /// Rows of random blocks whose scales are sane.
    pub fn weights(&mut self, dtype: DType, rows: usize, cols: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..rows * cols / dtype.block_len() {
            let start = bytes.len();
            bytes.extend((0..dtype.block_bytes()).map(|_| self.bits() as u8));
            let block = &mut bytes[start..];
            let mut put = |at: usize, scale: f32| {
                let value = half::f16::from_f32((0.5 + 0.5 * self.uniform().abs()) * scale);
                block[at..at + 2].copy_from_slice(&value.to_le_bytes());
            };
            match dtype {
                DType::F32 => block.copy_from_slice(&self.normal().to_le_bytes()),
                DType::F16 => block.copy_from_slice(&half::f16::from_f32(self.normal()).to_le_bytes()),
                DType::BF16 => block.copy_from_slice(&half::bf16::from_f32(self.normal()).to_le_bytes()),
                DType::Q4_0 | DType::Q5_0 => put(0, 0.1),
                DType::Q4_1 | DType::Q5_1 => {
                    put(0, 0.1);
                    put(2, -0.8);
                }
                DType::Q8_0 | DType::IQ4_NL => put(0, 0.01),
                DType::IQ4_XS => put(0, 0.001),
                DType::Q4_K | DType::Q5_K => {
                    put(0, 0.01);
                    put(2, 0.05);
                }
                DType::Q2_K => {
                    put(80, 0.2);
                    put(82, 0.2);
                }
                DType::Q3_K => put(108, 0.02),
                DType::Q6_K => put(208, 0.001),
                DType::MXFP4 => block[0] = 125 + self.below(4) as u8,
            }
        }
        bytes
    }
}
