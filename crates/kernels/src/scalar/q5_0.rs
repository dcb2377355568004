//! Q5_0: `d` (f16), 32 fifth bits (u32), 16 bytes of nibbles as in Q4_0. `w = d (q - 16)`.

use super::f16;

pub(super) fn dequantize(bytes: &[u8], out: &mut [f32]) {
    let out = out.as_chunks_mut::<32>().0;
    for (block, y) in bytes.as_chunks::<22>().0.iter().zip(out) {
        let d = f16(block);
        let fifth = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
        let bit = |j: usize| ((fifth >> j & 1) << 4) as u8;
        for (j, q) in block[6..].iter().enumerate() {
            y[j] = d * (f32::from(q & 15 | bit(j)) - 16.0);
            y[j + 16] = d * (f32::from(q >> 4 | bit(j + 16)) - 16.0);
        }
    }
}
