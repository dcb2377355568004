//! Q8_0: `d` (f16), 32 signed bytes. `w = d q`.

use super::f16;

pub(super) fn dequantize(bytes: &[u8], out: &mut [f32]) {
    let out = out.as_chunks_mut::<32>().0;
    for (block, y) in bytes.as_chunks::<34>().0.iter().zip(out) {
        let d = f16(block);
        for (y, q) in y.iter_mut().zip(&block[2..]) {
            *y = d * f32::from(q.cast_signed());
        }
    }
}
