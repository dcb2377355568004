//! Softmax of whole rows, and the scan of logits. Owns their safe interface; the kernels are in `ops`, and attention
//! has its own running softmax.

#![allow(unsafe_code)]

use crate::ops::Ops;

/// What a scan of logits finds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaxAndFinite {
    /// Index of the first largest value; 0 if there is none above negative infinity.
    pub index: usize,
    /// That value.
    pub max: f32,
    /// Whether no value is infinite or NaN.
    pub all_finite: bool,
}

impl Ops {
    /// `x[r] = exp(x[r] - max) / sum` for each row of `x` (m, n); negative infinity becomes exactly 0. Panics if `x` is
    /// no whole number of rows.
    pub fn softmax(&self, x: &mut [f32], n: usize) {
        assert!(n > 0 && x.len().is_multiple_of(n), "{} values are no rows of {n}", x.len());
        for x in x.chunks_exact_mut(n) {
            // SAFETY: an `Ops` exists only for an instruction set this machine has.
            unsafe { (self.table.softmax)(x) }
        }
    }

    /// The largest of `logits`, where it is, and whether all are finite; NaN is never the largest. Panics if empty.
    pub fn max_and_finite(&self, logits: &[f32]) -> MaxAndFinite {
        assert!(!logits.is_empty(), "no logits");
        // SAFETY: an `Ops` exists only for an instruction set this machine has.
        let (index, max, all_finite) = unsafe { (self.table.max_and_finite)(logits) };
        MaxAndFinite { index, max, all_finite }
    }
}

#[cfg(test)]
mod tests {
    use super::MaxAndFinite;
    use crate::ops::Ops;
    use crate::ops::test_data::{LENGTHS, assert_close, random};

    #[test]
    fn softmax_matches_f64_on_every_instruction_set() {
        for ops in Ops::available() {
            for n in LENGTHS {
                let mut x = random(2 * n, 5, 30.0);
                x[n - 1] = f32::NEG_INFINITY;
                x[n] = 80.0;
                if n == 1 {
                    x[0] = -700.0;
                }
                let mut expected = x.clone();
                for row in expected.chunks_mut(n) {
                    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let sum: f64 = row.iter().map(|v| f64::from(v - max).exp()).sum();
                    row.iter_mut().for_each(|v| *v = (f64::from(*v - max).exp() / sum) as f32);
                }
                ops.softmax(&mut x, n);
                assert_close(&x, &expected, 1e-6, &format!("{} {n}", ops.name()));
                assert!(n == 1 || x[n - 1] == 0.0);
            }
        }
    }

    #[test]
    fn the_first_largest_logit_is_found_and_anything_not_finite_is_noticed() {
        for ops in Ops::available() {
            for n in LENGTHS {
                let logits = random(n, 7, 5.0);
                for at in [0, n / 2, n - 1] {
                    let mut x = logits.clone();
                    (x[at], x[n - 1]) = (9.0, 9.0);
                    let found = ops.max_and_finite(&x);
                    assert_eq!(found, MaxAndFinite { index: at, max: 9.0, all_finite: true }, "{} {n}", ops.name());
                    for bad in [f32::NAN, f32::NEG_INFINITY, f32::INFINITY] {
                        let mut x = logits.clone();
                        x[at] = bad;
                        let found = ops.max_and_finite(&x);
                        assert!(!found.all_finite, "{} {n} {bad}", ops.name());
                        let (index, max) = x
                            .iter()
                            .copied()
                            .enumerate()
                            .fold((0, f32::NEG_INFINITY), |best, (i, v)| if v > best.1 { (i, v) } else { best });
                        assert_eq!((found.index, found.max), (index, max), "{} {n} {bad}", ops.name());
                    }
                }
            }
        }
    }
}
