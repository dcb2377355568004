//! Normalizations over rows. Owns their safe interface; the kernels are in `ops`. Single-threaded: rows are independent,
//! so a caller with many of them shares them out.

#![allow(unsafe_code)]

use crate::ops::Ops;

impl Ops {
    /// `out[r] = x[r] / sqrt(mean(x[r]²) + eps) * weight` for each row of `x` (m, n); `weight` (n), `out` (m, n).
    /// Root mean square norm, Zhang and Sennrich 2019. Panics if the lengths do not match.
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        check(x.len(), weight.len());
        assert_eq!(x.len(), out.len(), "length of the output");
        for (x, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
            // SAFETY: an `Ops` exists only for an instruction set this machine has.
            unsafe { (self.table.rms_norm)(x, weight, eps, out) }
        }
    }

    /// [`rms_norm`](Self::rms_norm) in place: with `weight` (head_dim) and `x` (m, n_heads * head_dim) it is the norm of
    /// queries or keys per head.
    pub fn rms_norm_in_place(&self, x: &mut [f32], weight: &[f32], eps: f32) {
        check(x.len(), weight.len());
        for x in x.chunks_exact_mut(weight.len()) {
            // SAFETY: an `Ops` exists only for an instruction set this machine has.
            unsafe { (self.table.rms_norm_in_place)(x, weight, eps) }
        }
    }

    /// `out[r] = (x[r] - mean) / sqrt(var + eps) * weight + bias` for each row of `x` (m, n), the variance being the
    /// biased one; `weight`, `bias` (n), `out` (m, n). Panics if the lengths do not match.
    pub fn layer_norm(&self, x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
        check(x.len(), weight.len());
        assert_eq!(weight.len(), bias.len(), "length of the bias");
        assert_eq!(x.len(), out.len(), "length of the output");
        for (x, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
            // SAFETY: an `Ops` exists only for an instruction set this machine has.
            unsafe { (self.table.layer_norm)(x, weight, bias, eps, out) }
        }
    }
}

fn check(len: usize, n: usize) {
    assert!(n > 0 && len.is_multiple_of(n), "{len} values are no rows of {n}");
}

#[cfg(test)]
mod tests {
    use crate::ops::Ops;
    use crate::ops::test_data::{LENGTHS, assert_close, random};

    #[test]
    fn rms_norm_of_known_values() {
        for ops in Ops::available() {
            let mut out = [0.0; 4];
            // The mean square is (9 + 16 + 0 + 0) / 4 = 6.25, its root 2.5.
            ops.rms_norm(&[3.0, -4.0, 0.0, 0.0], &[1.0, 2.0, 1.0, 1.0], 0.0, &mut out);
            assert_close(&out, &[1.2, -3.2, 0.0, 0.0], 1e-6, ops.name());
        }
    }

    #[test]
    fn norms_match_the_formula_in_f64_on_every_instruction_set() {
        for ops in Ops::available() {
            for n in LENGTHS {
                let (x, weight, bias) = (random(2 * n, 1, 3.0), random(n, 2, 1.0), random(n, 3, 1.0));
                let (mut rms, mut layer) = (vec![0.0; 2 * n], vec![0.0; 2 * n]);
                for ((x, rms), layer) in x.chunks(n).zip(rms.chunks_mut(n)).zip(layer.chunks_mut(n)) {
                    let x: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
                    let mean = x.iter().sum::<f64>() / n as f64;
                    let square = x.iter().map(|v| v * v).sum::<f64>() / n as f64;
                    let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
                    for i in 0..n {
                        let (w, b) = (f64::from(weight[i]), f64::from(bias[i]));
                        rms[i] = (x[i] / (square + 1e-5).sqrt() * w) as f32;
                        layer[i] = ((x[i] - mean) / (variance + 1e-5).sqrt() * w + b) as f32;
                    }
                }
                let mut out = vec![0.0; 2 * n];
                ops.rms_norm(&x, &weight, 1e-5, &mut out);
                assert_close(&out, &rms, 2e-6, &format!("rms_norm {} {n}", ops.name()));
                let mut in_place = x.clone();
                ops.rms_norm_in_place(&mut in_place, &weight, 1e-5);
                assert_close(&in_place, &rms, 2e-6, &format!("rms_norm_in_place {} {n}", ops.name()));
                ops.layer_norm(&x, &weight, &bias, 1e-5, &mut out);
                assert_close(&out, &layer, 5e-6, &format!("layer_norm {} {n}", ops.name()));
            }
        }
    }
}
