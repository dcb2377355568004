//! Kernels for AVX-512 with VNNI (Intel since Cascade Lake, AMD since Zen 4).
//!
//! With one or a few activation rows weights are read straight down memory, with two levels of software prefetch: without it one core
//! gets half of the bandwidth that it gets with it. Blocks of 32 are multiplied a weight row at a time, blocks of 256 sixteen rows at
//! a time, which are near each other; rows that are not make streams that compete.

#![allow(clippy::missing_safety_doc, reason = "the one condition of every function here: the target features it names")]

mod batch;
mod ceilings;
mod expand;
mod float;
pub(super) mod groups_of_16;
pub(super) mod groups_of_32;
mod products;
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
mod quantize;
mod sixteen_rows;
mod super_blocks;
pub(crate) mod transpose;
pub(crate) mod words;

pub(super) use q2_k::Q2K;
pub(super) use q3_k::Q3K;
pub(super) use q4_0::Q4_0;
pub(super) use q4_1::Q4_1;
use q4_k::Q4K;
pub(super) use q5_0::Q5_0;
pub(super) use q5_1::Q5_1;
pub(super) use q5_k::Q5K;
pub(super) use q6_k::Q6K;
pub(super) use q8_0::Q8_0;

use crate::blocks::DType;
use crate::quantize::{Activations, Form};
use crate::scalar;
use crate::table::{KernelTable, Kernels};
use std::arch::x86_64::*;
use std::array;
use std::ops::Range;

/// All kernels of this instruction set.
pub(crate) static TABLE: KernelTable = KernelTable { kernels, quantize, read: ceilings::read, multiply: ceilings::multiply };

fn kernels(dtype: DType) -> Kernels {
    let (form, dot_rows): (_, crate::table::DotRows) = match dtype {
        DType::F32 => (Form::F32, float::f32),
        DType::F16 => (Form::F32, float::f16),
        DType::BF16 => (Form::F32, float::bf16),
        DType::Q4_0 => (Form::Q8, groups_of_32::dot_rows::<Q4_0>),
        DType::Q4_1 => (Form::Q8, groups_of_32::dot_rows::<Q4_1>),
        DType::Q5_0 => (Form::Q8, groups_of_32::dot_rows::<Q5_0>),
        DType::Q5_1 => (Form::Q8, groups_of_32::dot_rows::<Q5_1>),
        DType::Q8_0 => (Form::Q8, groups_of_32::dot_rows::<Q8_0>),
        DType::Q2_K => (Form::Q8, sixteen_rows::dot_rows::<Q2K>),
        DType::Q3_K => (Form::Q8, sixteen_rows::dot_rows::<Q3K>),
        DType::Q4_K => (Form::Q8, sixteen_rows::dot_rows::<Q4K>),
        DType::Q5_K => (Form::Q8, sixteen_rows::dot_rows::<Q5K>),
        DType::Q6_K => (Form::Q8, sixteen_rows::dot_rows::<Q6K>),
        DType::IQ4_NL | DType::IQ4_XS | DType::MXFP4 => (Form::F32, scalar::dot_rows),
    };
    Kernels { form, dot_rows, batch: batch::batch(dtype) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn quantize(acts: &Activations, rows: Range<usize>, form: Form) {
    // SAFETY: the caller's promise; the features are this function's.
    unsafe {
        match form {
            Form::Q8 => quantize::q8(acts, rows),
            _ => acts.quantize(rows, form),
        }
    }
}

/// Distances of the two prefetches: far enough for memory into the second level cache, and from there into the first.
const FAR_BYTES: usize = 8192;
const NEAR_BYTES: usize = 2048;

/// Every so often a line is prefetched this far ahead, so that the address of its page is known when the others come: the pages of a
/// file are small, and looking one up takes as long as reading a good part of it.
const PAGE_AHEAD_BYTES: usize = 16384;

/// Prefetches the `bytes` that come `FAR_BYTES` and `NEAR_BYTES` after `p`, and one line `PAGE_AHEAD_BYTES` after it: asking first
/// whether it is the first of its page costs more, since the answer is not foreseen. They need not exist: a prefetch never faults.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn prefetch(p: *const u8, bytes: usize) {
    _mm_prefetch::<_MM_HINT_T1>(p.wrapping_add(PAGE_AHEAD_BYTES).cast());
    let mut at = 0;
    while at < bytes {
        _mm_prefetch::<_MM_HINT_T1>(p.wrapping_add(FAR_BYTES + at).cast());
        _mm_prefetch::<_MM_HINT_T0>(p.wrapping_add(NEAR_BYTES + at).cast());
        at += 64;
    }
}

/// The sum of each of up to four, added up in the same order however many there are.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline]
fn sums<const M: usize>(acc: &[__m512; M]) -> [f32; M] {
    let [a, b, c, d] = array::from_fn(|i| acc.get(i).copied().unwrap_or_else(|| _mm512_setzero_ps()));
    let halves = |x, y| _mm512_add_ps(_mm512_shuffle_f32x4::<0b01_00_01_00>(x, y), _mm512_shuffle_f32x4::<0b11_10_11_10>(x, y));
    let (ab, cd) = (halves(a, b), halves(c, d));
    // Four numbers of each in a lane of its own.
    let quarters = _mm512_add_ps(_mm512_shuffle_f32x4::<0b10_00_10_00>(ab, cd), _mm512_shuffle_f32x4::<0b11_01_11_01>(ab, cd));
    let pairs = _mm512_add_ps(quarters, _mm512_permute_ps::<0b11_10_11_10>(quarters));
    let all = _mm512_add_ps(pairs, _mm512_permute_ps::<0b01_01_01_01>(pairs));
    let mut first = [0f32; 4];
    // SAFETY: four floats.
    unsafe { _mm_storeu_ps(first.as_mut_ptr(), _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, all))) };
    array::from_fn(|i| first[i])
}

/// Results of `M` activation rows, (M, n). Those of one are added up four at a time.
struct Results<'a, const M: usize> {
    out: &'a mut [f32],
    n: usize,
    pending: [__m512; 4],
}

impl<'a, const M: usize> Results<'a, M> {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    fn new(out: &'a mut [f32], n: usize) -> Self {
        Self { out: &mut out[..M * n], n, pending: [_mm512_setzero_ps(); 4] }
    }

    /// The results of weight row `r` are the sums of `acc`. Rows come in order.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    fn set(&mut self, r: usize, acc: &[__m512; M]) {
        if M > 1 {
            for (i, sum) in sums(acc).into_iter().enumerate() {
                self.out[i * self.n + r] = sum;
            }
            return;
        }
        self.pending[r % 4] = acc[0];
        if r % 4 == 3 || r + 1 == self.n {
            let out = &mut self.out[r / 4 * 4..r + 1];
            out.copy_from_slice(&sums(&self.pending)[..out.len()]);
        }
    }
}

/// Four times sixteen bytes, the ones at `p + i * stride` in lane `i`.
///
/// # Safety
/// All of them are readable.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn load_lanes(p: *const u8, stride: usize) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let lane = |i: usize| _mm_loadu_si128(p.add(i * stride).cast());
        let low = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(lane(0)), lane(1));
        _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(low, lane(2)), lane(3))
    }
}

/// The f16 at `p` in all lanes, as f32.
///
/// # Safety
/// Two bytes at `p` are readable.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn splat_f16(p: *const u8) -> __m512 {
    // SAFETY: the caller's promise.
    let bits = unsafe { p.cast::<i16>().read_unaligned() };
    _mm512_cvtph_ps(_mm256_set1_epi16(bits))
}
