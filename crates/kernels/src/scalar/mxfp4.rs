//! MXFP4 (OCP microscaling): an exponent byte `e`, 16 bytes of nibbles as in Q4_0, each a four-bit float (e2m1).
//! `LEVELS` holds twice their values, so `w = 2^(e - 128) LEVELS[q]`.

pub(crate) const LEVELS: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

pub(super) fn dequantize(bytes: &[u8], out: &mut [f32]) {
    let out = out.as_chunks_mut::<32>().0;
    for (block, y) in bytes.as_chunks::<17>().0.iter().zip(out) {
        let d = scale(block[0]);
        for (j, q) in block[1..].iter().enumerate() {
            y[j] = d * f32::from(LEVELS[usize::from(q & 15)]);
            y[j + 16] = d * f32::from(LEVELS[usize::from(q >> 4)]);
        }
    }
}

/// `2^(e - 128)`, by its bits; the two smallest are subnormal.
pub(crate) fn scale(e: u8) -> f32 {
    f32::from_bits(match e {
        0 => 0x0020_0000,
        1 => 0x0040_0000,
        e => u32::from(e - 1) << 23,
    })
}
