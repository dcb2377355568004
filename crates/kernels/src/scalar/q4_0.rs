//! Q4_0: `d` (f16), 16 bytes of nibbles; the low ones are weights 0..16, the high ones 16..32. `w = d (q - 8)`.

use super::f16;

pub(super) fn dequantize(bytes: &[u8], out: &mut [f32]) {
    let out = out.as_chunks_mut::<32>().0;
    for (block, y) in bytes.as_chunks::<18>().0.iter().zip(out) {
        let d = f16(block);
        for (j, q) in block[2..].iter().enumerate() {
            y[j] = d * (f32::from(q & 15) - 8.0);
            y[j + 16] = d * (f32::from(q >> 4) - 8.0);
        }
    }
}
