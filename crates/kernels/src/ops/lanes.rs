//! Element-wise kernels over any [`Simd`]: norms, rope, softmax, activations, the scan of logits, storage of rows.

use half::f16;

use super::scalar;
use super::simd::{Simd, erf, exp};
use crate::activation::Activation;
use crate::kv::KvType;

/// Vectors of a loop that sums: enough chains to hide the latency of an addition.
const CHAINS: usize = 4;

/// What is done to each element of a vector.
trait Map<S: Simd>: Copy {
    fn apply(self, s: S, v: S::V) -> S::V;
}

/// Loads vector `i` of `x`; the last one may be short and is filled with zeros.
#[inline(always)]
fn vector<S: Simd>(s: S, x: &[f32], i: usize) -> S::V {
    let at = i * S::LANES;
    let left = x.len() - at;
    // SAFETY: `left` values are there, by the subtraction, which does not overflow for a vector that begins in `x`.
    unsafe { if left >= S::LANES { s.load(x.as_ptr().add(at)) } else { s.load_part(x.as_ptr().add(at), left) } }
}

/// Stores vector `i` of `x`; of the last one only what fits.
#[inline(always)]
fn set_vector<S: Simd>(s: S, x: &mut [f32], i: usize, v: S::V) {
    let at = i * S::LANES;
    let left = x.len() - at;
    // SAFETY: as in `vector`.
    unsafe {
        if left >= S::LANES {
            s.store(x.as_mut_ptr().add(at), v);
        } else {
            s.store_part(x.as_mut_ptr().add(at), left, v);
        }
    }
}

#[inline(always)]
fn n_vectors<S: Simd>(x: &[f32]) -> usize {
    x.len().div_ceil(S::LANES)
}

#[inline(always)]
fn sum<S: Simd>(s: S, x: &[f32]) -> f32 {
    let mut sums = [s.splat(0.0); CHAINS];
    let n_rounds = x.len() / (S::LANES * CHAINS);
    for i in 0..n_rounds {
        for (c, sum) in sums.iter_mut().enumerate() {
            *sum = s.add(*sum, vector(s, x, i * CHAINS + c));
        }
    }
    for i in n_rounds * CHAINS..n_vectors::<S>(x) {
        sums[0] = s.add(sums[0], vector(s, x, i));
    }
    total(s, sums)
}

/// Sum of squares of `x - center`.
#[inline(always)]
fn squares<S: Simd>(s: S, x: &[f32], center: f32) -> f32 {
    let mut sums = [s.splat(0.0); CHAINS];
    let n_rounds = x.len() / (S::LANES * CHAINS);
    for i in 0..n_rounds {
        for (c, sum) in sums.iter_mut().enumerate() {
            let v = s.sub(vector(s, x, i * CHAINS + c), s.splat(center));
            *sum = s.mul_add(v, v, *sum);
        }
    }
    let n_whole = x.len() / S::LANES;
    for i in n_rounds * CHAINS..n_whole {
        let v = s.sub(vector(s, x, i), s.splat(center));
        sums[0] = s.mul_add(v, v, sums[0]);
    }
    let rest: f32 = x[n_whole * S::LANES..].iter().map(|v| (v - center) * (v - center)).sum();
    total(s, sums) + rest
}

#[inline(always)]
fn total<S: Simd>(s: S, sums: [S::V; CHAINS]) -> f32 {
    s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
}

#[inline(always)]
pub(super) fn rms_norm<S: Simd>(s: S, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    assert!(x.len() == weight.len() && x.len() == out.len());
    let scale = s.splat(1.0 / (squares(s, x, 0.0) / x.len() as f32 + eps).sqrt());
    for i in 0..n_vectors::<S>(x) {
        set_vector(s, out, i, s.mul(s.mul(vector(s, x, i), scale), vector(s, weight, i)));
    }
}

#[inline(always)]
pub(super) fn rms_norm_in_place<S: Simd>(s: S, x: &mut [f32], weight: &[f32], eps: f32) {
    assert!(x.len() == weight.len());
    let scale = s.splat(1.0 / (squares(s, x, 0.0) / x.len() as f32 + eps).sqrt());
    for i in 0..n_vectors::<S>(x) {
        let v = s.mul(s.mul(vector(s, x, i), scale), vector(s, weight, i));
        set_vector(s, x, i, v);
    }
}

#[inline(always)]
pub(super) fn layer_norm<S: Simd>(s: S, x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    assert!(x.len() == weight.len() && x.len() == bias.len() && x.len() == out.len());
    let n = x.len() as f32;
    let mean = sum(s, x) / n;
    let scale = s.splat(1.0 / (squares(s, x, mean) / n + eps).sqrt());
    for i in 0..n_vectors::<S>(x) {
        let v = s.mul(s.sub(vector(s, x, i), s.splat(mean)), scale);
        set_vector(s, out, i, s.mul_add(v, vector(s, weight, i), vector(s, bias, i)));
    }
}

#[inline(always)]
pub(super) fn rope_neox<S: Simd>(s: S, x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, second) = x.split_at_mut(x.len() / 2);
    assert!(first.len() == second.len() && cos.len() == first.len() && sin.len() == first.len());
    for i in 0..n_vectors::<S>(first) {
        let (a, b) = (vector(s, first, i), vector(s, second, i));
        let (c, d) = (vector(s, cos, i), vector(s, sin, i));
        set_vector(s, first, i, s.sub(s.mul(a, c), s.mul(b, d)));
        set_vector(s, second, i, s.mul_add(a, d, s.mul(b, c)));
    }
}

#[inline(always)]
pub(super) fn rope_norm<S: Simd>(s: S, x: &mut [f32], cos: &[f32], sin: &[f32]) {
    assert!(cos.len() * 2 == x.len() && sin.len() == cos.len());
    let n_whole = x.len() / S::LANES;
    for i in 0..n_whole {
        let v = vector(s, x, i);
        // SAFETY: LANES/2 values from i * LANES/2 on lie within cos and sin, which are half as long as x.
        let (c, d) = unsafe { (s.load_twice(cos.as_ptr().add(i * S::LANES / 2)), s.load_twice(sin.as_ptr().add(i * S::LANES / 2))) };
        set_vector(s, x, i, s.mul_sub_add(v, c, s.mul(s.swap_pairs(v), d)));
    }
    let done = n_whole * S::LANES;
    scalar::rope_norm(&mut x[done..], &cos[done / 2..], &sin[done / 2..]);
}

#[inline(always)]
pub(super) fn softmax<S: Simd>(s: S, x: &mut [f32]) {
    let n_whole = x.len() / S::LANES;
    let mut largest = s.splat(f32::NEG_INFINITY);
    for i in 0..n_whole {
        largest = s.max(vector(s, x, i), largest);
    }
    let rest = &x[n_whole * S::LANES..];
    let max = s.splat(rest.iter().copied().fold(s.largest(largest), f32::max));
    let mut sums = s.splat(0.0);
    for i in 0..n_whole {
        let v = exp(s, s.sub(vector(s, x, i), max));
        sums = s.add(sums, v);
        set_vector(s, x, i, v);
    }
    let mut sum = s.sum(sums);
    if n_whole * S::LANES < x.len() {
        set_vector(s, x, n_whole, exp(s, s.sub(vector(s, x, n_whole), max)));
        sum += x[n_whole * S::LANES..].iter().sum::<f32>();
    }
    let scale = s.splat(1.0 / sum);
    for i in 0..n_vectors::<S>(x) {
        set_vector(s, x, i, s.mul(vector(s, x, i), scale));
    }
}

#[derive(Clone, Copy)]
struct Silu;
#[derive(Clone, Copy)]
struct GeluTanh;
#[derive(Clone, Copy)]
struct GeluErf;
#[derive(Clone, Copy)]
struct Relu2;

/// x / (1 + e^-u); where e^-u overflows it is 0, or NaN for x = -infinity as in the formula.
#[inline(always)]
fn over_one_plus_exp<S: Simd>(s: S, x: S::V, minus_u: S::V) -> S::V {
    s.div(x, s.add(s.splat(1.0), exp(s, minus_u)))
}

impl<S: Simd> Map<S> for Silu {
    #[inline(always)]
    fn apply(self, s: S, x: S::V) -> S::V {
        over_one_plus_exp(s, x, s.sub(s.splat(0.0), x))
    }
}

impl<S: Simd> Map<S> for GeluTanh {
    #[inline(always)]
    fn apply(self, s: S, x: S::V) -> S::V {
        // (1 + tanh(u)) / 2 is 1 / (1 + e^-2u).
        const MINUS_2: f32 = -2.0 * 0.797_884_6;
        let inner = s.mul_add(s.mul(x, x), s.splat(0.044_715 * MINUS_2), s.splat(MINUS_2));
        over_one_plus_exp(s, x, s.mul(x, inner))
    }
}

impl<S: Simd> Map<S> for GeluErf {
    #[inline(always)]
    fn apply(self, s: S, x: S::V) -> S::V {
        let half = s.mul(x, s.splat(0.5));
        s.mul_add(half, erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2))), half)
    }
}

impl<S: Simd> Map<S> for Relu2 {
    #[inline(always)]
    fn apply(self, s: S, x: S::V) -> S::V {
        let positive = s.max(s.splat(0.0), x);
        s.mul(positive, positive)
    }
}

#[inline(always)]
pub(super) fn activate<S: Simd>(s: S, act: Activation, x: &mut [f32]) {
    match act {
        Activation::Silu => map(s, Silu, x),
        Activation::GeluTanh => map(s, GeluTanh, x),
        Activation::GeluErf => map(s, GeluErf, x),
        Activation::Relu2 => map(s, Relu2, x),
    }
}

#[inline(always)]
fn map<S: Simd>(s: S, f: impl Map<S>, x: &mut [f32]) {
    for i in 0..n_vectors::<S>(x) {
        set_vector(s, x, i, f.apply(s, vector(s, x, i)));
    }
}

#[inline(always)]
pub(super) fn gated<S: Simd>(s: S, act: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    match act {
        Activation::Silu => map_gated(s, Silu, gate, up, out),
        Activation::GeluTanh => map_gated(s, GeluTanh, gate, up, out),
        Activation::GeluErf => map_gated(s, GeluErf, gate, up, out),
        Activation::Relu2 => map_gated(s, Relu2, gate, up, out),
    }
}

#[inline(always)]
fn map_gated<S: Simd>(s: S, f: impl Map<S>, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == up.len() && gate.len() == out.len());
    for i in 0..n_vectors::<S>(gate) {
        set_vector(s, out, i, s.mul(f.apply(s, vector(s, gate, i)), vector(s, up, i)));
    }
}

#[inline(always)]
pub(super) fn max_and_finite<S: Simd>(s: S, x: &[f32]) -> (usize, f32, bool) {
    // Long enough that a chunk's maximum is rarely looked for in the chunk, short enough that doing so is cheap.
    const CHUNK: usize = 512;
    let mut best = (0, f32::NEG_INFINITY);
    // x * 0 is 0 for finite x and NaN otherwise.
    let mut zeros = s.splat(0.0);
    let mut rest_finite = true;
    for (i, chunk) in x.chunks(CHUNK).enumerate() {
        let mut largest = s.splat(best.1);
        let n_whole = chunk.len() / S::LANES;
        for j in 0..n_whole {
            let v = vector(s, chunk, j);
            largest = s.max(v, largest);
            zeros = s.mul_add(v, s.splat(0.0), zeros);
        }
        let mut max = s.largest(largest);
        for &v in &chunk[n_whole * S::LANES..] {
            rest_finite &= v.is_finite();
            max = max.max(v);
        }
        if max > best.1 {
            best = (i * CHUNK + chunk.iter().position(|&v| v == max).unwrap_or(0), max);
        }
    }
    (best.0, best.1, rest_finite && s.sum(zeros) == 0.0)
}

#[inline(always)]
pub(super) fn narrow<S: Simd>(s: S, kind: KvType, row: &[f32], out: &mut [u8]) {
    assert!(out.len() == kind.row_bytes(row.len()));
    match kind {
        KvType::F16 => {
            for i in 0..n_vectors::<S>(row) {
                // SAFETY: the padded row has room for every vector that begins in `row`, two bytes a lane.
                unsafe { s.store_f16(out.as_mut_ptr().add(i * 2 * S::LANES), vector(s, row, i)) };
            }
            out[n_vectors::<S>(row) * 2 * S::LANES..].fill(0);
        }
        KvType::Q8_0 => {
            let mut part = [0.0; 32];
            for (row, block) in row.chunks(32).zip(out.chunks_exact_mut(34)) {
                part[..row.len()].copy_from_slice(row);
                part[row.len()..].fill(0.0);
                let mut largest = s.splat(0.0);
                for i in 0..32 / S::LANES {
                    largest = s.max(s.abs(vector(s, &part, i)), largest);
                }
                let d = s.largest(largest) / 127.0;
                let inverse = s.splat(if d >= f32::MIN_POSITIVE { 1.0 / d } else { 0.0 });
                block[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
                for i in 0..32 / S::LANES {
                    let v = s.mul(vector(s, &part, i), inverse);
                    // SAFETY: a block has 32 bytes after its scale.
                    unsafe { s.store_i8(block.as_mut_ptr().add(2 + i * S::LANES), v) };
                }
            }
        }
    }
}

#[inline(always)]
fn widen<S: Simd>(s: S, kind: KvType, rows: &[u8], out: &mut [f32]) {
    match kind {
        KvType::F16 => {
            assert!(rows.len() == 2 * out.len() && out.len().is_multiple_of(16));
            for i in 0..out.len() / S::LANES {
                // SAFETY: there are two bytes for each element of `out`, and LANES divides their number.
                let v = unsafe { s.load_f16(rows.as_ptr().add(i * 2 * S::LANES)) };
                set_vector(s, out, i, v);
            }
        }
        KvType::Q8_0 => {
            assert!(rows.len() * 32 == 34 * out.len() && out.len().is_multiple_of(32));
            for (block, out) in rows.chunks_exact(34).zip(out.chunks_exact_mut(32)) {
                // SAFETY: a block begins with its scale.
                let d = unsafe { s.splat_f16(block.as_ptr()) };
                for i in 0..32 / S::LANES {
                    // SAFETY: a block has 32 bytes after its scale.
                    let v = unsafe { s.load_i8(block.as_ptr().add(2 + i * S::LANES)) };
                    set_vector(s, out, i, s.mul(d, v));
                }
            }
        }
    }
}

/// Rows for the products of `tiles`, which read them as they are.
#[inline(always)]
pub(super) fn widen_rows<S: Simd>(s: S, kind: KvType, dim: usize, rows: &[u8], out: &mut [f32]) {
    let n = rows.len() / kind.row_bytes(dim);
    widen(s, kind, rows, &mut out[..n * dim]);
}

/// Queries for the products of `tiles`, which read them as they are.
#[inline(always)]
pub(super) fn pack_queries<S: Simd>(_: S, _dim: usize, _qt: &mut [f32]) {}
