//! Q4_1: `d`, `m` (f16), 16 bytes of nibbles as in Q4_0. `w = d q + m`.

use super::f16;

pub(super) fn dequantize(bytes: &[u8], out: &mut [f32]) {
    let out = out.as_chunks_mut::<32>().0;
    for (block, y) in bytes.as_chunks::<20>().0.iter().zip(out) {
        let (d, m) = (f16(block), f16(&block[2..]));
        for (j, q) in block[4..].iter().enumerate() {
            y[j] = d * f32::from(q & 15) + m;
            y[j + 16] = d * f32::from(q >> 4) + m;
        }
    }
}
