//! Q6_K: 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 signed scales (per 16 weights), `d` (f16).
//! A half (128 weights) has 64 bytes of nibbles: its weights 0..64 are the low ones, 64..128 the high ones; byte `l` of its
//! 32 bytes of pairs serves weights `l`, `l + 32`, `l + 64`, `l + 96`. `w = d scale (q - 32)`.

use super::f16;

pub(super) fn dequantize(bytes: &[u8], out: &mut [f32]) {
    let out = out.as_chunks_mut::<256>().0;
    for (block, y) in bytes.as_chunks::<210>().0.iter().zip(out) {
        let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
        let d = f16(&block[208..]);
        for (group, y) in y.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = d * f32::from(scales[group].cast_signed());
            let (half, in_half) = (group / 8, group % 8);
            let low = &low[half * 64 + in_half % 4 * 16..][..16];
            let high = &high[half * 32 + in_half % 2 * 16..][..16];
            for (y, (low, high)) in y.iter_mut().zip(low.iter().zip(high)) {
                let q = low >> (in_half / 4 * 4) & 15 | (high >> (in_half / 2 * 2) & 3) << 4;
                *y = scale * (f32::from(q) - 32.0);
            }
        }
    }
}
