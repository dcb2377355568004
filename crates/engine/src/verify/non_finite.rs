//! Looks for NaN and infinity in the numbers of a tensor: its floats, or the scales of its blocks.
//! Layouts as in ggml's `block_*` structs.

use half::{bf16, f16};

use crate::weights::gguf::GgmlType;

/// A number that scales a block.
struct Scale {
    name: &'static str,
    /// Where it starts in the block.
    at: usize,
    number: Number,
}

#[derive(Clone, Copy)]
enum Number {
    F16,
    Bf16,
    F32,
    F64,
    /// A power of two, where all ones is NaN (OCP microscaling formats).
    E8m0,
    /// An unsigned 8-bit float, where all ones is NaN.
    Ue4m3,
    /// The upper four bits of four 16-bit words, together an f16.
    SpreadF16,
}

const fn f16_at(name: &'static str, at: usize) -> Scale {
    Scale { name, at, number: Number::F16 }
}

const fn value(number: Number) -> Scale {
    Scale { name: "value", at: 0, number }
}

const fn ue4m3_at(at: usize) -> Scale {
    Scale { name: "scale", at, number: Number::Ue4m3 }
}

/// The scales of a block of the type with this name; none for integers.
fn scales(ty: GgmlType) -> &'static [Scale] {
    match ty.name {
        "F32" => const { &[value(Number::F32)] },
        "F16" => const { &[value(Number::F16)] },
        "BF16" => const { &[value(Number::Bf16)] },
        "F64" => const { &[value(Number::F64)] },
        "Q4_0" | "Q5_0" | "Q8_0" | "IQ4_NL" | "Q1_0" => const { &[f16_at("d", 0)] },
        "Q4_1" | "Q5_1" => const { &[f16_at("d", 0), f16_at("m", 2)] },
        "Q8_1" => const { &[f16_at("d", 0), f16_at("s", 2)] },
        "Q2_K" => const { &[f16_at("d", 80), f16_at("dmin", 82)] },
        "Q3_K" => const { &[f16_at("d", 108)] },
        "Q4_K" | "Q5_K" => const { &[f16_at("d", 0), f16_at("dmin", 2)] },
        "Q6_K" => const { &[f16_at("d", 208)] },
        "Q8_K" => const { &[Scale { name: "d", at: 0, number: Number::F32 }] },
        "IQ2_XXS" | "IQ2_XS" | "IQ2_S" | "IQ3_XXS" | "IQ3_S" | "IQ1_S" | "IQ4_XS" => const { &[f16_at("d", 0)] },
        "IQ1_M" => const { &[Scale { name: "d", at: 48, number: Number::SpreadF16 }] },
        "TQ1_0" => const { &[f16_at("d", 52)] },
        "TQ2_0" => const { &[f16_at("d", 64)] },
        "MXFP4" => const { &[Scale { name: "e", at: 0, number: Number::E8m0 }] },
        "NVFP4" => const { &[ue4m3_at(0), ue4m3_at(1), ue4m3_at(2), ue4m3_at(3)] },
        _ => &[],
    }
}

/// One way to be not finite, or `None`.
fn fault(number: Number, bytes: &[u8]) -> Option<&'static str> {
    let class = |is_nan: bool, is_infinite: bool| match (is_nan, is_infinite) {
        (true, _) => Some("NaN"),
        (_, true) => Some("infinite"),
        _ => None,
    };
    let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let half = |bits: u16| class(f16::from_bits(bits).is_nan(), f16::from_bits(bits).is_infinite());
    match number {
        Number::F16 => half(word(0)),
        Number::Bf16 => {
            let value = bf16::from_bits(word(0));
            class(value.is_nan(), value.is_infinite())
        }
        Number::F32 => {
            let value = f32::from_le_bytes(bytes[..4].try_into().unwrap_or_default());
            class(value.is_nan(), value.is_infinite())
        }
        Number::F64 => {
            let value = f64::from_le_bytes(bytes[..8].try_into().unwrap_or_default());
            class(value.is_nan(), value.is_infinite())
        }
        Number::E8m0 => class(bytes[0] == 0xff, false),
        Number::Ue4m3 => class(bytes[0] & 0x7f == 0x7f, false),
        Number::SpreadF16 => {
            let nibbles = [word(0), word(2), word(4), word(6)].map(|word| word >> 12);
            half(nibbles[0] | nibbles[1] << 4 | nibbles[2] << 8 | nibbles[3] << 12)
        }
    }
}

/// The numbers of one tensor that are not finite, gathered block after block.
pub(super) struct Scan {
    scales: &'static [Scale],
    block_bytes: usize,
    n_blocks: u64,
    /// The first block with one, and what it is.
    pub first: Option<(u64, String)>,
    /// Blocks with one.
    pub n_bad_blocks: u64,
}

impl Scan {
    pub fn new(ty: GgmlType) -> Self {
        Self { scales: scales(ty), block_bytes: ty.block_bytes as usize, n_blocks: 0, first: None, n_bad_blocks: 0 }
    }

    /// Looks at the next whole blocks of the tensor.
    pub fn blocks(&mut self, bytes: &[u8]) {
        let n_blocks = (bytes.len() / self.block_bytes) as u64;
        if !self.scales.is_empty() && !self.surely_finite(bytes) {
            for (i, block) in bytes.chunks_exact(self.block_bytes).enumerate() {
                self.block(self.n_blocks + i as u64, block);
            }
        }
        self.n_blocks += n_blocks;
    }

    /// A quick test of the plain floats, which are most of a file that has them: no exponent is all ones.
    fn surely_finite(&self, bytes: &[u8]) -> bool {
        let halves = |mask: u16| bytes.as_chunks().0.iter().all(|&b| u16::from_le_bytes(b) & mask != mask);
        match (self.block_bytes, self.scales[0].number) {
            (2, Number::F16) => halves(0x7c00),
            (2, Number::Bf16) => halves(0x7f80),
            (4, Number::F32) => bytes.as_chunks().0.iter().all(|&b| u32::from_le_bytes(b) & 0x7f80_0000 != 0x7f80_0000),
            _ => false,
        }
    }

    fn block(&mut self, index: u64, block: &[u8]) {
        let found = self.scales.iter().find_map(|s| Some((s.name, fault(s.number, &block[s.at..])?)));
        if let Some((name, fault)) = found {
            self.n_bad_blocks += 1;
            self.first.get_or_insert_with(|| (index, format!("`{name}` is {fault}")));
        }
    }
}
