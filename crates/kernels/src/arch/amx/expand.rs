//! Weights of a row to bfloat16, each into its place in a panel of tiles.

use super::SLICE;
use super::pack::{round, widen};
use super::tiles::{DEPTH, ROWS, TILE};
use crate::blocks::DType;
use crate::scalar;
use std::arch::x86_64::*;

/// Numbers from one step of 32 weights of a row to the next: two tiles.
const STEP: usize = 2 * TILE;

/// Writes the weights of `blocks`, at most SLICE, as row `r` of 32 of `panel`. Floats are split: what the rounding to
/// bfloat16 leaves goes to a second panel after the first. If the last step is not full, zeros follow.
///
/// # Safety
/// The machine has the features of this module.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
pub(super) unsafe fn row(dtype: DType, blocks: &[u8], panel: &mut [u16], r: usize) {
    let at = r / 16 * TILE + r % 16 * DEPTH;
    let len = blocks.len() / dtype.block_bytes() * dtype.block_len();
    let mut weights = [0f32; SLICE];
    scalar::dequantize(dtype)(blocks, &mut weights[..len]);
    let split = matches!(dtype, DType::F32 | DType::F16);
    for (step, weights) in weights.as_chunks::<DEPTH>().0.iter().enumerate().take(len.div_ceil(DEPTH)) {
        // SAFETY: the halves of 32 floats.
        let (a, b) = unsafe { (_mm512_loadu_ps(weights.as_ptr()), _mm512_loadu_ps(weights[16..].as_ptr())) };
        let high = round(a, b);
        put(panel, at + step * STEP, high);
        if split {
            let [high_a, high_b] = widen(high);
            let low = round(_mm512_sub_ps(a, high_a), _mm512_sub_ps(b, high_b));
            put(panel, ROWS * SLICE + at + step * STEP, low);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
#[inline]
fn put(panel: &mut [u16], at: usize, weights: __m512i) {
    let place = &mut panel[at..at + DEPTH];
    // SAFETY: 64 bytes.
    unsafe { _mm512_storeu_si512(place.as_mut_ptr().cast(), weights) };
}
