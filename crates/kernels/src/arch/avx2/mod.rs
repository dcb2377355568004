//! Kernels for AVX2 with FMA and F16C (Intel since Haswell, AMD since Zen).
//! One weight row at a time, straight down memory, with two levels of software prefetch.

#![allow(clippy::missing_safety_doc, reason = "the one condition of every function here: the target features it names")]

mod batch;
mod ceilings;
mod float;
mod groups_of_16;
mod groups_of_32;
mod quants;
mod super_blocks;

use crate::blocks::DType;
use crate::quantize::{Activations, Form};
use crate::scalar;
use crate::table::{DotRows, KernelTable, Kernels};
use std::arch::x86_64::*;
use std::ops::Range;

/// All kernels of this instruction set.
pub(crate) static TABLE: KernelTable = KernelTable { kernels, quantize, read: ceilings::read, multiply: ceilings::multiply };

fn kernels(dtype: DType) -> Kernels {
    let (form, dot_rows): (_, DotRows) = match dtype {
        DType::F32 => (Form::F32, float::f32),
        DType::F16 => (Form::F32, float::f16),
        DType::BF16 => (Form::F32, float::bf16),
        DType::Q4_0 => (Form::Q8, groups_of_32::dot_rows::<quants::Q4_0>),
        DType::Q4_1 => (Form::Q8, groups_of_32::dot_rows::<quants::Q4_1>),
        DType::Q5_0 => (Form::Q8, groups_of_32::dot_rows::<quants::Q5_0>),
        DType::Q5_1 => (Form::Q8, groups_of_32::dot_rows::<quants::Q5_1>),
        DType::Q8_0 => (Form::Q8, groups_of_32::dot_rows::<quants::Q8_0>),
        DType::Q2_K => (Form::Q8K, groups_of_16::dot_rows::<quants::Q2K>),
        DType::Q3_K => (Form::Q8K, groups_of_16::dot_rows::<quants::Q3K>),
        DType::Q4_K => (Form::Q8K, super_blocks::dot_rows::<quants::Q4K>),
        DType::Q5_K => (Form::Q8K, super_blocks::dot_rows::<quants::Q5K>),
        DType::Q6_K => (Form::Q8K, groups_of_16::dot_rows::<quants::Q6K>),
        DType::IQ4_NL | DType::IQ4_XS | DType::MXFP4 => (Form::F32, scalar::dot_rows),
    };
    Kernels { form, dot_rows, batch: batch::batch(dtype) }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn quantize(acts: &Activations, rows: Range<usize>, form: Form) {
    // SAFETY: the caller's promise.
    unsafe { acts.quantize(rows, form) };
}

/// Distances of the two prefetches, as for AVX-512.
const FAR_BYTES: usize = 8192;
const NEAR_BYTES: usize = 2048;

/// Prefetches the `bytes` that come `FAR_BYTES` and `NEAR_BYTES` after `p`. They need not exist: a prefetch never faults.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn prefetch(p: *const u8, bytes: usize) {
    let mut at = 0;
    while at < bytes {
        _mm_prefetch::<_MM_HINT_T1>(p.wrapping_add(FAR_BYTES + at).cast());
        _mm_prefetch::<_MM_HINT_T0>(p.wrapping_add(NEAR_BYTES + at).cast());
        at += 64;
    }
}

/// The sum of the eight lanes.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn sum(x: __m256) -> f32 {
    let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps::<1>(x, x)))
}

/// The f16 at `p`, as f32.
///
/// # Safety
/// Two bytes at `p` are readable.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn f16_at(p: *const u8) -> f32 {
    // SAFETY: the caller's promise.
    let bits = unsafe { p.cast::<u16>().read_unaligned() };
    _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits))))
}
