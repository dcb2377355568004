//! Q2_K: 16 bytes of scale and minimum (a nibble each, per 16 weights), 64 bytes of two-bit quants, `d`, `dmin` (f16).
//! Byte `l` of a half holds weights `l`, `l + 32`, `l + 64`, `l + 96` of its 128. `w = d scale q - dmin min`.

use super::f16;

pub(super) fn dequantize(bytes: &[u8], out: &mut [f32]) {
    let out = out.as_chunks_mut::<256>().0;
    for (block, y) in bytes.as_chunks::<84>().0.iter().zip(out) {
        let (d, dmin) = (f16(&block[80..]), f16(&block[82..]));
        for (group, y) in y.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = d * f32::from(block[group] & 15);
            let min = dmin * f32::from(block[group] >> 4);
            let (half, shift) = (group / 8, group % 8 / 2 * 2);
            let qs = &block[16 + half * 32 + group % 2 * 16..][..16];
            for (y, q) in y.iter_mut().zip(qs) {
                *y = scale * f32::from(q >> shift & 3) - min;
            }
        }
    }
}
