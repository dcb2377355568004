//! What each format means: blocks of bytes to weights, in plain Rust, one file a format.
//! These functions are the specification; every SIMD kernel is tested against them.
//! Does not own the choice between them and SIMD; that is `table.rs`.

mod float;
mod iq4_nl;
mod iq4_xs;
mod mxfp4;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;

pub(crate) use iq4_nl::LEVELS as LEVELS_IQ4;
pub(crate) use iq4_xs::scale as iq4_xs_scale;
pub(crate) use mxfp4::LEVELS as LEVELS_MXFP4;
pub(crate) use mxfp4::scale as mxfp4_scale;
pub(crate) use q3_k::scale as q3_k_scale;

use crate::blocks::DType;
use crate::matmul::ROWS_MAX;
use crate::quantize::Activations;
use std::ops::Range;

/// Whole blocks in, their weights out; stops at the shorter of the two.
pub(crate) type Dequantize = fn(&[u8], &mut [f32]);

/// The function that reads `dtype`.
pub(crate) const fn dequantize(dtype: DType) -> Dequantize {
    match dtype {
        DType::F32 => float::dequantize_f32,
        DType::F16 => float::dequantize_f16,
        DType::BF16 => float::dequantize_bf16,
        DType::Q4_0 => q4_0::dequantize,
        DType::Q4_1 => q4_1::dequantize,
        DType::Q5_0 => q5_0::dequantize,
        DType::Q5_1 => q5_1::dequantize,
        DType::Q8_0 => q8_0::dequantize,
        DType::Q2_K => q2_k::dequantize,
        DType::Q3_K => q3_k::dequantize,
        DType::Q4_K => q4_k::dequantize,
        DType::Q5_K => q5_k::dequantize,
        DType::Q6_K => q6_k::dequantize,
        DType::IQ4_NL => iq4_nl::dequantize,
        DType::IQ4_XS => iq4_xs::dequantize,
        DType::MXFP4 => mxfp4::dequantize,
    }
}

/// Weights dequantized at a time; a whole number of blocks of every format.
const CHUNK: usize = 256;

/// `out[i, r] = x_i · w_r` for the activation rows `rows` (at most [`ROWS_MAX`]) and every row of `w`, all of `k` weights;
/// `out` is (rows, rows of w). Products in f32 of the f32 activations: nothing is quantized.
pub(crate) fn dot_rows(dtype: DType, w: &[u8], k: usize, acts: &Activations, rows: Range<usize>, out: &mut [f32]) {
    let Some(row_bytes) = dtype.row_bytes(k).filter(|&bytes| bytes > 0) else {
        out.fill(0.0);
        return;
    };
    let n = w.len() / row_bytes;
    let chunk_bytes = CHUNK / dtype.block_len() * dtype.block_bytes();
    let dequantize = dequantize(dtype);
    let mut weights = [0f32; CHUNK];
    for (r, w) in w.chunks_exact(row_bytes).enumerate() {
        let mut sums = [0f32; ROWS_MAX];
        for (c, blocks) in w.chunks(chunk_bytes).enumerate() {
            let start = c * CHUNK;
            let len = CHUNK.min(k - start);
            dequantize(blocks, &mut weights[..len]);
            for (sum, i) in sums.iter_mut().zip(rows.clone()) {
                *sum += dot(&weights[..len], &acts.f32_row(i)[start..start + len]);
            }
        }
        for (i, sum) in sums.iter().take(rows.len()).enumerate() {
            out[i * n + r] = *sum;
        }
    }
}

/// `rounds` times 64 products of floats, since those are what the scalar kernels multiply; returns the multiplications and
/// additions made.
pub(crate) fn multiply(rounds: usize) -> usize {
    let mut sums = [0f32; 64];
    let (a, b) = std::hint::black_box((1.5f32, 0.5f32));
    for _ in 0..rounds {
        sums.iter_mut().for_each(|sum| *sum = *sum * a + b);
    }
    std::hint::black_box(sums);
    rounds * 64 * 2
}

/// Eight running sums, so that a compiler may use vectors without reordering anything.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; 8];
    let (a8, a_rest) = a.as_chunks::<8>();
    let (b8, b_rest) = b.as_chunks::<8>();
    for (a, b) in a8.iter().zip(b8) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// The half-precision number in two little-endian bytes.
fn f16(bytes: &[u8]) -> f32 {
    half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// Scale and minimum number `j` of the twelve bytes that hold eight of each in six bits (Q4_K, Q5_K).
pub(crate) fn scale_min(scales: &[u8], j: usize) -> (f32, f32) {
    let (scale, min) = if j < 4 {
        (scales[j] & 63, scales[j + 4] & 63)
    } else {
        ((scales[j + 4] & 15) | (scales[j - 4] >> 6) << 4, (scales[j + 4] >> 4) | (scales[j] >> 6) << 4)
    };
    (f32::from(scale), f32::from(min))
}
