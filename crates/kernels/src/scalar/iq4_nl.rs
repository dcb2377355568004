//! IQ4_NL: as Q4_0, but a nibble picks from sixteen unevenly spaced levels. `w = d LEVELS[q]`.

use super::f16;

pub(crate) const LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

pub(super) fn dequantize(bytes: &[u8], out: &mut [f32]) {
    let out = out.as_chunks_mut::<32>().0;
    for (block, y) in bytes.as_chunks::<18>().0.iter().zip(out) {
        let d = f16(block);
        for (j, q) in block[2..].iter().enumerate() {
            y[j] = d * f32::from(LEVELS[usize::from(q & 15)]);
            y[j + 16] = d * f32::from(LEVELS[usize::from(q >> 4)]);
        }
    }
}
