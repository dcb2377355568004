//! Damages files on purpose, in places that a test names.

use crate::weights::Bytes;
use crate::weights::gguf::Gguf;

/// Numbers that depend on the seed alone (SplitMix64, Steele et al. 2014).
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A generator for this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which must not be zero.
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// A number from 0 to below 1.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// A number of mean 0 and standard deviation 1: the sum of twelve uniform ones.
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.unit()).sum::<f32>() - 6.0
    }
}

/// Where the value of `key` starts in a GGUF file: after the key and the type of its value.
/// Panics where the key is not there.
pub fn value_at(file: &[u8], key: &str) -> usize {
    let mut needle = (key.len() as u64).to_le_bytes().to_vec();
    needle.extend(key.as_bytes());
    let at = file.windows(needle.len()).position(|window| window == needle);
    at.unwrap_or_else(|| panic!("no key {key}")) + needle.len() + 4
}

/// Overwrites the first bytes of the value of `key`, whatever its type.
pub fn set_value(file: &mut [u8], key: &str, value: &[u8]) {
    let at = value_at(file, key);
    file[at..at + value.len()].copy_from_slice(value);
}

/// Makes the first number of block `block` of a tensor a NaN: its scale, where it has one there
/// (F32, F16, BF16 and types whose block starts with `d`).
pub fn poison(file: &mut [u8], tensor: &str, block: usize) {
    let gguf = Gguf::parse(Bytes::from(file.to_vec()), "poison").expect("a readable file");
    let info = gguf.require(tensor).expect("a tensor of the file");
    let layout = info.layout().expect("a known type");
    let at = info.start() as usize + block * layout.block_bytes as usize;
    match layout.name {
        "F32" => file[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes()),
        // The exponent all ones and a bit below it: a NaN in f16 and in bf16.
        _ => file[at..at + 2].copy_from_slice(&0x7fc0u16.to_le_bytes()),
    }
}
