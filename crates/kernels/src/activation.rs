//! Activation functions, alone and as gates. Owns their safe interface; the kernels are in `ops`.

#![allow(unsafe_code)]

use crate::ops::Ops;

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + exp(-x))`.
    Silu,
    /// `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x³)))`.
    GeluTanh,
    /// `x/2 (1 + erf(x / sqrt(2)))`.
    GeluErf,
    /// `max(x, 0)²`.
    Relu2,
}

impl Ops {
    /// `x[i] = act(x[i])`.
    pub fn activate(&self, act: Activation, x: &mut [f32]) {
        // SAFETY: an `Ops` exists only for an instruction set this machine has.
        unsafe { (self.table.activate)(act, x) }
    }

    /// `out[i] = act(gate[i]) * up[i]`. Panics if the lengths differ.
    pub fn gated(&self, act: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
        assert!(gate.len() == up.len() && up.len() == out.len(), "lengths of gate, up and output differ");
        // SAFETY: an `Ops` exists only for an instruction set this machine has.
        unsafe { (self.table.gated)(act, gate, up, out) }
    }
}

#[cfg(test)]
mod tests {
    use super::Activation;
    use crate::ops::Ops;
    use crate::ops::test_data::{LENGTHS, assert_close, random};

    const ALL: [Activation; 4] = [Activation::Silu, Activation::GeluTanh, Activation::GeluErf, Activation::Relu2];

    /// erf by its Taylor series, which converges everywhere; enough terms for |x| <= 4.
    fn erf(x: f64) -> f64 {
        let mut term = x;
        let mut sum = x;
        for n in 1..120 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    fn expected(act: Activation, x: f32) -> f64 {
        let x = f64::from(x);
        match act {
            Activation::Silu => x / (1.0 + (-x).exp()),
            Activation::GeluTanh => 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh()),
            Activation::GeluErf if x.abs() > 5.5 => x.max(0.0),
            Activation::GeluErf => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
            Activation::Relu2 => x.max(0.0).powi(2),
        }
    }

    #[test]
    fn activations_match_their_formulas_on_every_instruction_set() {
        for ops in Ops::available() {
            for act in ALL {
                for n in LENGTHS {
                    let mut gate = random(n, 11, 6.0);
                    gate[0] = -100.0;
                    gate[n - 1] = 0.0;
                    let up = random(n, 12, 2.0);
                    let alone: Vec<f32> = gate.iter().map(|&x| expected(act, x) as f32).collect();
                    let product: Vec<f32> = gate.iter().zip(&up).map(|(&g, &u)| (expected(act, g) * f64::from(u)) as f32).collect();
                    let mut out = vec![0.0; n];
                    ops.gated(act, &gate, &up, &mut out);
                    assert_close(&out, &product, 2e-6, &format!("{act:?} * up {} {n}", ops.name()));
                    ops.activate(act, &mut gate);
                    assert_close(&gate, &alone, 2e-6, &format!("{act:?} {} {n}", ops.name()));
                }
            }
        }
    }

    #[test]
    fn activations_pass_nan_on_and_stay_finite_for_large_inputs() {
        for ops in Ops::available() {
            for act in ALL {
                let mut x = [1e9; 20];
                (x[3], x[17]) = (f32::NAN, -1e9);
                ops.activate(act, &mut x);
                assert!(x[3].is_nan(), "{act:?} {}", ops.name());
                assert!(x[17] == 0.0 && x[0] >= 1e9 && x[0].is_finite(), "{act:?} {} {x:?}", ops.name());
            }
        }
    }
}
