//! Q3_K: 32 bytes of third bits, 64 bytes of two-bit quants as in Q2_K, 12 bytes with sixteen six-bit scales, `d` (f16).
//! `w = d (scale - 32) (q - 4)`, where `q` has the third bit on top.

use super::f16;

pub(super) fn dequantize(bytes: &[u8], out: &mut [f32]) {
    let out = out.as_chunks_mut::<256>().0;
    for (block, y) in bytes.as_chunks::<110>().0.iter().zip(out) {
        let (high, qs, scales) = (&block[..32], &block[32..96], &block[96..108]);
        let d = f16(&block[108..]);
        for (group, y) in y.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = d * scale(scales, group);
            let (half, shift, part) = (group / 8, group % 8 / 2 * 2, group % 2 * 16);
            for (l, y) in y.iter_mut().enumerate() {
                let third = high[part + l] >> (group / 2) & 1;
                let q = qs[half * 32 + part + l] >> shift & 3 | third << 2;
                *y = scale * (f32::from(q) - 4.0);
            }
        }
    }
}

/// Scale number `group` of the twelve bytes that hold sixteen, as a signed number.
pub(crate) fn scale(scales: &[u8], group: usize) -> f32 {
    let low = scales[group % 8] >> (group / 8 * 4) & 15;
    let top = scales[8 + group % 4] >> (group / 4 * 2) & 3;
    f32::from(low | top << 4) - 32.0
}
