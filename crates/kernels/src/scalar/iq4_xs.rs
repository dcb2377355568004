//! IQ4_XS: `d` (f16), high bit pairs of eight scales (u16), their low nibbles (4 bytes), 128 bytes of nibbles as in IQ4_NL,
//! 16 bytes for each 32 weights. `w = d (scale - 32) LEVELS[q]`.

use super::f16;
use super::iq4_nl::LEVELS;

pub(super) fn dequantize(bytes: &[u8], out: &mut [f32]) {
    let out = out.as_chunks_mut::<256>().0;
    for (block, y) in bytes.as_chunks::<136>().0.iter().zip(out) {
        for (group, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let scale = scale(block, group);
            for (j, q) in block[8 + group * 16..][..16].iter().enumerate() {
                y[j] = scale * f32::from(LEVELS[usize::from(q & 15)]);
                y[j + 16] = scale * f32::from(LEVELS[usize::from(q >> 4)]);
            }
        }
    }
}

/// `d (scale - 32)` of a group of 32.
pub(crate) fn scale(block: &[u8], group: usize) -> f32 {
    let low = block[4 + group / 2] >> (group % 2 * 4) & 15;
    let high = u16::from_le_bytes([block[2], block[3]]);
    let top = (high >> (group * 2) & 3) as u8;
    f16(block) * (f32::from(low | top << 4) - 32.0)
}
