//! Q5_1: `d`, `m` (f16), then as Q5_0. `w = d q + m`.

use super::f16;

pub(super) fn dequantize(bytes: &[u8], out: &mut [f32]) {
    let out = out.as_chunks_mut::<32>().0;
    for (block, y) in bytes.as_chunks::<24>().0.iter().zip(out) {
        let (d, m) = (f16(block), f16(&block[2..]));
        let fifth = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
        let bit = |j: usize| ((fifth >> j & 1) << 4) as u8;
        for (j, q) in block[8..].iter().enumerate() {
            y[j] = d * f32::from(q & 15 | bit(j)) + m;
            y[j + 16] = d * f32::from(q >> 4 | bit(j + 16)) + m;
        }
    }
}
