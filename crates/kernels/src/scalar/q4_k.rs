//! Q4_K: `d`, `dmin` (f16), 12 bytes of scales and minima (per 32 weights), 128 bytes of nibbles.
//! Each 32 bytes hold 64 weights, the low nibbles first. `w = d scale q - dmin min`.

use super::{f16, scale_min};

pub(super) fn dequantize(bytes: &[u8], out: &mut [f32]) {
    let out = out.as_chunks_mut::<256>().0;
    for (block, y) in bytes.as_chunks::<144>().0.iter().zip(out) {
        let (d, dmin) = (f16(block), f16(&block[2..]));
        for (group, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (scale, min) = scale_min(&block[4..16], group);
            let (scale, min) = (d * scale, dmin * min);
            let qs = &block[16 + group / 2 * 32..][..32];
            for (y, q) in y.iter_mut().zip(qs) {
                *y = scale * f32::from(q >> (group % 2 * 4) & 15) - min;
            }
        }
    }
}
