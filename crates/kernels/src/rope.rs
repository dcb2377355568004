//! Rotary position embedding (Su et al. 2021): frequencies, the (cos, sin) of a step's positions, and the rotation.
//! Owns the scalings of context length that change only frequencies and magnitude: linear, Llama 3's and LongRoPE's
//! factors, and YaRN (Peng et al. 2023). The rotation's kernels are in `ops`.

#![allow(unsafe_code)]

use crate::ops::Ops;

/// Which elements of a head form a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeKind {
    /// Neighbours (`x[2i]`, `x[2i+1]`): ggml's "norm".
    Norm,
    /// Halves (`x[i]`, `x[i + rotary_dim/2]`): ggml's "neox".
    Neox,
}

/// YaRN, with ggml's names.
#[derive(Clone, Copy, Debug)]
pub struct Yarn {
    /// Weight of the extrapolated frequencies where the ramp asks for them; 1 is YaRN as published.
    pub ext_factor: f32,
    /// Rotations over the original context above which a frequency is kept.
    pub beta_fast: f32,
    /// Rotations over the original context below which a frequency is interpolated.
    pub beta_slow: f32,
    /// Positions the model was trained on.
    pub original_context: usize,
}

/// What defines the rotation of one kind of layer.
#[derive(Clone, Copy, Debug)]
pub struct RopeParams<'a> {
    /// Pairing.
    pub kind: RopeKind,
    /// Elements at the start of each head that are rotated; even.
    pub rotary_dim: usize,
    /// theta of pair i is `pos * base^(-2i / rotary_dim)`.
    pub base: f32,
    /// Factor on positions, 1 without linear scaling; with a factor of 4 in the file it is 1/4.
    pub freq_scale: f32,
    /// Divides the frequency of each pair (`rope_freqs.weight`); rotary_dim / 2 of them.
    pub freq_factors: Option<&'a [f32]>,
    /// Multiplies cos and sin; 1 by default.
    pub attn_factor: f32,
    /// YaRN's mix of `freq_scale` and none.
    pub yarn: Option<Yarn>,
}

/// Why parameters define no rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidRope(&'static str);

impl std::fmt::Display for InvalidRope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rope {}", self.0)
    }
}

impl std::error::Error for InvalidRope {}

/// The frequencies of one kind of layer.
#[derive(Clone, Debug)]
pub struct Rope {
    kind: RopeKind,
    /// Angle of each pair per position. Every scaling is linear in the position, so one number holds them all.
    frequencies: Box<[f64]>,
    magnitude: f64,
}

impl Rope {
    /// Works the frequencies out. Fails if `rotary_dim` is odd or 0, factors are of another number or not positive, or a
    /// number is not finite.
    pub fn new(params: &RopeParams<'_>) -> Result<Self, InvalidRope> {
        let &RopeParams { kind, rotary_dim, base, freq_scale, freq_factors, attn_factor, yarn } = params;
        let positive = |v: f32| v.is_finite() && v > 0.0;
        let require = |holds: bool, otherwise| if holds { Ok(()) } else { Err(InvalidRope(otherwise)) };
        require(rotary_dim > 0 && rotary_dim.is_multiple_of(2), "dimension is odd or zero")?;
        require(positive(base), "base is not a positive number")?;
        require(positive(freq_scale), "scale is not a positive number")?;
        require(attn_factor.is_finite(), "attention factor is not finite")?;
        if let Some(factors) = freq_factors {
            require(factors.len() == rotary_dim / 2, "factors do not match the dimension")?;
            require(factors.iter().copied().all(positive), "factors are not positive numbers")?;
        }
        let (base, freq_scale) = (f64::from(base), f64::from(freq_scale));
        let mut magnitude = f64::from(attn_factor);
        let mut ramp = None;
        if let Some(yarn) = yarn {
            let finite = [yarn.ext_factor, yarn.beta_fast, yarn.beta_slow].iter().all(|v| v.is_finite());
            require(finite && yarn.beta_fast > 0.0 && yarn.beta_slow > 0.0, "yarn parameters are not positive numbers")?;
            require(base > 1.0 && yarn.original_context > 0, "yarn needs a base above 1 and the original context")?;
            if yarn.ext_factor != 0.0 {
                magnitude *= 1.0 - 0.1 * freq_scale.ln();
                ramp = Some((yarn_bounds(rotary_dim, base, &yarn), f64::from(yarn.ext_factor)));
            }
        }
        let frequencies = (0..rotary_dim / 2).map(|i| {
            let factor = freq_factors.map_or(1.0, |factors| f64::from(factors[i]));
            let extrapolated = base.powf(-2.0 * i as f64 / rotary_dim as f64) / factor;
            let kept = ramp
                .map_or(0.0, |((low, high), ext_factor)| (1.0 - ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0)) * ext_factor);
            extrapolated * (freq_scale * (1.0 - kept) + kept)
        });
        Ok(Self { kind, frequencies: frequencies.collect(), magnitude })
    }

    /// Elements of a head that are rotated.
    pub fn rotary_dim(&self) -> usize {
        2 * self.frequencies.len()
    }

    /// Writes, for each position, rotary_dim/2 cosines and then as many sines: `cos_sin` (m, rotary_dim). Angles are
    /// taken in f64, so that they are exact to f32 at any position. Panics if the length does not match.
    pub fn fill(&self, positions: &[usize], cos_sin: &mut [f32]) {
        assert_eq!(cos_sin.len(), positions.len() * self.rotary_dim(), "length of cos_sin");
        for (&pos, row) in positions.iter().zip(cos_sin.chunks_exact_mut(self.rotary_dim())) {
            let (cos, sin) = row.split_at_mut(self.frequencies.len());
            for ((cos, sin), frequency) in cos.iter_mut().zip(sin).zip(&self.frequencies) {
                let angle = (pos as f64 * frequency).sin_cos();
                (*sin, *cos) = ((angle.0 * self.magnitude) as f32, (angle.1 * self.magnitude) as f32);
            }
        }
    }
}

/// Pairs between which YaRN ramps from keeping a frequency to interpolating it: those that turn `beta_fast` and
/// `beta_slow` times over the original context (equation 17 of the paper solved for the pair), widened to whole pairs.
fn yarn_bounds(rotary_dim: usize, base: f64, yarn: &Yarn) -> (f64, f64) {
    let pair = |rotations: f32| {
        let wavelength = yarn.original_context as f64 / (f64::from(rotations) * std::f64::consts::TAU);
        rotary_dim as f64 * wavelength.ln() / (2.0 * base.ln())
    };
    (pair(yarn.beta_fast).floor().max(0.0), pair(yarn.beta_slow).ceil().min(rotary_dim as f64 - 1.0))
}

impl Ops {
    /// Rotates every head of `x` (m, n_heads * head_dim) in place; `cos_sin` (m, rotary_dim) is what
    /// [`fill`](Rope::fill) made of the rows' positions. Panics if the lengths do not match.
    pub fn rope_apply(&self, rope: &Rope, head_dim: usize, x: &mut [f32], cos_sin: &[f32]) {
        let rotary_dim = rope.rotary_dim();
        assert!(rotary_dim <= head_dim, "{rotary_dim} rotated elements in heads of {head_dim}");
        let m = cos_sin.len() / rotary_dim;
        assert_eq!(cos_sin.len(), m * rotary_dim, "length of cos_sin");
        if m == 0 {
            return assert!(x.is_empty(), "length of x");
        }
        assert!(x.len().is_multiple_of(m * head_dim), "length of x");
        let kernel = match rope.kind {
            RopeKind::Norm => self.table.rope_norm,
            RopeKind::Neox => self.table.rope_neox,
        };
        let row_len = x.len() / m;
        for (row, cos_sin) in x.chunks_exact_mut(row_len.max(1)).zip(cos_sin.chunks_exact(rotary_dim)) {
            let (cos, sin) = cos_sin.split_at(rotary_dim / 2);
            for head in row.chunks_exact_mut(head_dim) {
                // SAFETY: an `Ops` exists only for an instruction set this machine has.
                unsafe { kernel(&mut head[..rotary_dim], cos, sin) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_data::{assert_close, random};

    const PLAIN: RopeParams<'_> = RopeParams {
        kind: RopeKind::Norm,
        rotary_dim: 4,
        base: 10000.0,
        freq_scale: 1.0,
        freq_factors: None,
        attn_factor: 1.0,
        yarn: None,
    };

    #[test]
    fn rotation_of_known_values() {
        for ops in Ops::available() {
            // Pair 0 turns 1 radian per position, pair 1 turns 1/100.
            let (c0, s0, c1, s1) = (2f32.cos(), 2f32.sin(), 0.02f32.cos(), 0.02f32.sin());
            for kind in [RopeKind::Norm, RopeKind::Neox] {
                let rope = Rope::new(&RopeParams { kind, ..PLAIN }).expect("valid");
                let mut cos_sin = [0.0; 4];
                rope.fill(&[2], &mut cos_sin);
                assert_close(&cos_sin, &[c0, c1, s0, s1], 1e-7, "cos_sin");
                let mut x = [1.0, 2.0, 3.0, 4.0, 5.0, 1.0, 0.0, 0.0, 0.0, 6.0];
                ops.rope_apply(&rope, 5, &mut x, &cos_sin);
                let expected = match kind {
                    RopeKind::Norm => [c0 - 2.0 * s0, s0 + 2.0 * c0, 3.0 * c1 - 4.0 * s1, 3.0 * s1 + 4.0 * c1, 5.0, c0, s0, 0.0, 0.0, 6.0],
                    RopeKind::Neox => [c0 - 3.0 * s0, 2.0 * c1 - 4.0 * s1, s0 + 3.0 * c0, 2.0 * s1 + 4.0 * c1, 5.0, c0, 0.0, s0, 0.0, 6.0],
                };
                assert_close(&x, &expected, 1e-6, ops.name());
            }
        }
    }

    #[test]
    fn angles_are_exact_at_far_positions() {
        let rope = Rope::new(&RopeParams { rotary_dim: 128, base: 500_000.0, ..PLAIN }).expect("valid");
        let positions = [131_071, 1_000_003];
        let mut cos_sin = vec![0.0; 2 * 128];
        rope.fill(&positions, &mut cos_sin);
        for (row, pos) in cos_sin.chunks(128).zip(positions) {
            for i in 0..64 {
                let angle = pos as f64 * 500_000f64.powf(-(i as f64) / 64.0);
                assert!((f64::from(row[i]) - angle.cos()).abs() < 1e-7, "cos of pair {i} at {pos}");
                assert!((f64::from(row[64 + i]) - angle.sin()).abs() < 1e-7, "sin of pair {i} at {pos}");
            }
        }
    }

    #[test]
    fn factors_and_linear_scaling_slow_the_rotation() {
        let factors = [1.0, 8.0];
        let params = RopeParams { freq_scale: 0.25, freq_factors: Some(&factors), attn_factor: 2.0, ..PLAIN };
        let mut cos_sin = [0.0; 4];
        Rope::new(&params).expect("valid").fill(&[8], &mut cos_sin);
        let (a, b) = (8.0 * 0.25f32, 8.0 * 0.25 * 0.01 / 8.0f32);
        assert_close(&cos_sin, &[2.0 * a.cos(), 2.0 * b.cos(), 2.0 * a.sin(), 2.0 * b.sin()], 1e-6, "cos_sin");
    }

    #[test]
    fn yarn_keeps_fast_pairs_and_interpolates_slow_ones() {
        // Over 4096 positions and base 10000 in 128 dimensions, 32 rotations are pair 20.9 and 1 rotation pair 45.03, so
        // the ramp runs from pair 20 to pair 46.
        let yarn = Yarn { ext_factor: 1.0, beta_fast: 32.0, beta_slow: 1.0, original_context: 4096 };
        let params = RopeParams { rotary_dim: 128, freq_scale: 0.25, yarn: Some(yarn), ..PLAIN };
        let rope = Rope::new(&params).expect("valid");
        let magnitude = 1.0 + 0.1 * 4f64.ln();
        assert!((rope.magnitude - magnitude).abs() < 1e-12);
        let share = |i: usize| rope.frequencies[i] / 10000f64.powf(-(i as f64) / 64.0);
        assert!((share(0) - 1.0).abs() < 1e-12 && (share(20) - 1.0).abs() < 1e-12);
        assert!((share(33) - (0.25 * 0.5 + 0.5)).abs() < 1e-12, "{}", share(33));
        assert!((share(46) - 0.25).abs() < 1e-12 && (share(63) - 0.25).abs() < 1e-12);
        assert!(share(21) < 1.0 && share(45) > 0.25);
    }

    #[test]
    fn bad_parameters_are_errors() {
        let yarn = Yarn { ext_factor: 1.0, beta_fast: 32.0, beta_slow: 1.0, original_context: 0 };
        for (params, cause) in [
            (RopeParams { rotary_dim: 3, ..PLAIN }, "odd"),
            (RopeParams { rotary_dim: 0, ..PLAIN }, "zero"),
            (RopeParams { base: -1.0, ..PLAIN }, "base"),
            (RopeParams { base: f32::NAN, ..PLAIN }, "base"),
            (RopeParams { freq_scale: 0.0, ..PLAIN }, "scale"),
            (RopeParams { attn_factor: f32::INFINITY, ..PLAIN }, "attention factor"),
            (RopeParams { freq_factors: Some(&[1.0]), ..PLAIN }, "match"),
            (RopeParams { freq_factors: Some(&[1.0, 0.0]), ..PLAIN }, "factors are not positive"),
            (RopeParams { yarn: Some(yarn), ..PLAIN }, "original context"),
        ] {
            let error = Rope::new(&params).expect_err(cause);
            assert!(error.to_string().contains(cause), "{error} instead of {cause}");
        }
    }

    #[test]
    fn every_instruction_set_rotates_like_the_scalar_one() {
        let scalar = Ops::available()[0];
        for ops in Ops::available() {
            for (rotary_dim, head_dim) in [(2, 2), (6, 8), (16, 20), (32, 80), (80, 80), (96, 96), (128, 128), (250, 256)] {
                for kind in [RopeKind::Norm, RopeKind::Neox] {
                    let rope = Rope::new(&RopeParams { kind, rotary_dim, ..PLAIN }).expect("valid");
                    let positions = [0, 17, 4099];
                    let mut cos_sin = vec![0.0; 3 * rotary_dim];
                    rope.fill(&positions, &mut cos_sin);
                    let mut x = random(3 * 2 * head_dim, 3, 2.0);
                    let mut expected = x.clone();
                    scalar.rope_apply(&rope, head_dim, &mut expected, &cos_sin);
                    ops.rope_apply(&rope, head_dim, &mut x, &cos_sin);
                    assert_close(&x, &expected, 1e-6, &format!("{} {kind:?} {rotary_dim}", ops.name()));
                }
            }
        }
    }
}
