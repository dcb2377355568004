//! F32, F16 and BF16: little-endian numbers, a block each.

pub(super) fn dequantize_f32(bytes: &[u8], out: &mut [f32]) {
    for (b, y) in bytes.as_chunks::<4>().0.iter().zip(out) {
        *y = f32::from_le_bytes(*b);
    }
}

pub(super) fn dequantize_f16(bytes: &[u8], out: &mut [f32]) {
    for (b, y) in bytes.as_chunks::<2>().0.iter().zip(out) {
        *y = half::f16::from_le_bytes(*b).to_f32();
    }
}

pub(super) fn dequantize_bf16(bytes: &[u8], out: &mut [f32]) {
    for (b, y) in bytes.as_chunks::<2>().0.iter().zip(out) {
        *y = half::bf16::from_le_bytes(*b).to_f32();
    }
}
