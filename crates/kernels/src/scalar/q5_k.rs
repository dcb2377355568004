//! Q5_K: as Q4_K, with 32 bytes of fifth bits before the nibbles; bit `g` of byte `l` belongs to weight `l` of group `g`.

use super::{f16, scale_min};

pub(super) fn dequantize(bytes: &[u8], out: &mut [f32]) {
    let out = out.as_chunks_mut::<256>().0;
    for (block, y) in bytes.as_chunks::<176>().0.iter().zip(out) {
        let (d, dmin) = (f16(block), f16(&block[2..]));
        let fifth = &block[16..48];
        for (group, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (scale, min) = scale_min(&block[4..16], group);
            let (scale, min) = (d * scale, dmin * min);
            let qs = &block[48 + group / 2 * 32..][..32];
            for (y, (q, bits)) in y.iter_mut().zip(qs.iter().zip(fifth)) {
                let q = q >> (group % 2 * 4) & 15 | (bits >> group & 1) << 4;
                *y = scale * f32::from(q) - min;
            }
        }
    }
}
