//! Element-wise operations in plain Rust: the specification of every other table.

use half::f16;

use super::{OpsTable, scalar_attention, transpose};
use crate::activation::Activation;
use crate::kv::KvType;

pub(crate) static TABLE: OpsTable = OpsTable {
    name: "scalar",
    rms_norm,
    rms_norm_in_place,
    layer_norm,
    rope_norm,
    rope_neox,
    softmax,
    activate,
    gated,
    max_and_finite,
    narrow,
    score_rows: scalar_attention::score_rows,
    online_softmax: scalar_attention::online_softmax,
    mix_rows: scalar_attention::mix_rows,
    transpose: transpose::transpose,
    pack_queries,
    widen_keys: widen_rows,
    widen_values: widen_rows,
    score_tile: scalar_attention::score_tile,
    softmax_tile: scalar_attention::softmax_tile,
    mix_tile: scalar_attention::mix_tile,
};

fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    let squares: f64 = x.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
    (1.0 / (squares / x.len() as f64 + f64::from(eps)).sqrt()) as f32
}

fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let scale = inverse_rms(x, eps);
    for ((out, &x), &w) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * w;
    }
}

fn rms_norm_in_place(x: &mut [f32], weight: &[f32], eps: f32) {
    let scale = inverse_rms(x, eps);
    for (x, &w) in x.iter_mut().zip(weight) {
        *x = *x * scale * w;
    }
}

fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let n = x.len() as f64;
    let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let variance = x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
    let scale = 1.0 / (variance + f64::from(eps)).sqrt();
    for (((out, &x), &w), &b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
        *out = ((f64::from(x) - mean) * scale) as f32 * w + b;
    }
}

pub(super) fn rope_norm(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    for ((pair, &c), &s) in x.chunks_exact_mut(2).zip(cos).zip(sin) {
        let (a, b) = (pair[0], pair[1]);
        pair[0] = a * c - b * s;
        pair[1] = a * s + b * c;
    }
}

fn rope_neox(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, second) = x.split_at_mut(x.len() / 2);
    for (((a, b), &c), &s) in first.iter_mut().zip(second).zip(cos).zip(sin) {
        (*a, *b) = (*a * c - *b * s, *a * s + *b * c);
    }
}

fn softmax(x: &mut [f32]) {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0f64;
    for x in x.iter_mut() {
        *x = (*x - max).exp();
        sum += f64::from(*x);
    }
    let scale = (1.0 / sum) as f32;
    for x in x {
        *x *= scale;
    }
}

/// The error function to 1.5e-7, by formula 7.1.26 of Abramowitz and Stegun.
fn erf(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x.abs());
    let poly = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    let sum = poly.iter().fold(0.0, |sum, c| sum * t + c) * t;
    (1.0 - sum * (-x * x).exp()).copysign(x)
}

fn act(act: Activation, x: f32) -> f32 {
    match act {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            let u = (2.0 / std::f32::consts::PI).sqrt() * x * (1.0 + 0.044_715 * x * x);
            x / (1.0 + (-2.0 * u).exp())
        }
        Activation::GeluErf => {
            let x = f64::from(x);
            (0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2))) as f32
        }
        // NaN is not below 0, so it stays NaN.
        Activation::Relu2 => {
            if x < 0.0 {
                0.0
            } else {
                x * x
            }
        }
    }
}

fn activate(kind: Activation, x: &mut [f32]) {
    for x in x {
        *x = act(kind, *x);
    }
}

fn gated(kind: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
        *out = act(kind, gate) * up;
    }
}

fn max_and_finite(x: &[f32]) -> (usize, f32, bool) {
    let mut best = (0, f32::NEG_INFINITY);
    let mut finite = true;
    for (i, &v) in x.iter().enumerate() {
        finite &= v.is_finite();
        if v > best.1 {
            best = (i, v);
        }
    }
    (best.0, best.1, finite)
}

fn narrow(kind: KvType, row: &[f32], out: &mut [u8]) {
    let padded = row.iter().copied().chain(std::iter::repeat(0.0));
    match kind {
        KvType::F16 => {
            for (out, v) in out.chunks_exact_mut(2).zip(padded) {
                out.copy_from_slice(&f16::from_f32(v).to_le_bytes());
            }
        }
        KvType::Q8_0 => {
            for (i, block) in out.chunks_exact_mut(34).enumerate() {
                let part = &row[i * 32..row.len().min(i * 32 + 32)];
                let largest = part.iter().fold(0f32, |m, v| m.max(v.abs()));
                let d = largest / 127.0;
                let inverse = if d >= f32::MIN_POSITIVE { 1.0 / d } else { 0.0 };
                block[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
                for (q, v) in block[2..].iter_mut().zip(part.iter().copied().chain(std::iter::repeat(0.0))) {
                    *q = (v * inverse).round_ties_even() as i8 as u8;
                }
            }
        }
    }
}

pub(crate) fn widen(kind: KvType, rows: &[u8], out: &mut [f32]) {
    match kind {
        KvType::F16 => {
            for (out, bytes) in out.iter_mut().zip(rows.chunks_exact(2)) {
                *out = f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
            }
        }
        KvType::Q8_0 => {
            for (out, block) in out.chunks_exact_mut(32).zip(rows.chunks_exact(34)) {
                let d = f16::from_le_bytes([block[0], block[1]]).to_f32();
                for (out, &q) in out.iter_mut().zip(&block[2..]) {
                    *out = d * f32::from(q as i8);
                }
            }
        }
    }
}

fn pack_queries(_dim: usize, _qt: &mut [f32]) {}

fn widen_rows(kind: KvType, dim: usize, rows: &[u8], out: &mut [f32]) {
    let n = rows.len() / kind.row_bytes(dim);
    widen(kind, rows, &mut out[..n * dim]);
}
