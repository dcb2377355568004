//! A vector of f32 as the generic kernels of `lanes` and `tiles` see it, and the functions made of its operations alone.
//! Does not own an instruction set: `avx2` and `avx512` implement it.
//!
//! A value that implements [`Simd`] exists only where its instruction set was detected, so its methods are safe to call but
//! for pointers. They are inlined into kernels that carry the same `#[target_feature]`; elsewhere they would be calls.

/// One instruction set's vectors.
pub(super) trait Simd: Copy {
    /// f32 in a vector; divides `STRIP`.
    const LANES: usize;
    type V: Copy;
    /// One truth value a lane.
    type M: Copy;

    fn splat(self, x: f32) -> Self::V;
    /// # Safety
    /// `LANES` values are readable at `p`.
    unsafe fn load(self, p: *const f32) -> Self::V;
    /// # Safety
    /// `LANES` values are writable at `p`.
    unsafe fn store(self, p: *mut f32, v: Self::V);
    /// The first `n < LANES` values at `p`, then zeros.
    ///
    /// # Safety
    /// `n` values are readable at `p`.
    unsafe fn load_part(self, p: *const f32, n: usize) -> Self::V;
    /// Stores the first `n < LANES` lanes.
    ///
    /// # Safety
    /// `n` values are writable at `p`.
    unsafe fn store_part(self, p: *mut f32, n: usize, v: Self::V);
    /// Widens `LANES` f16.
    ///
    /// # Safety
    /// `2 * LANES` bytes are readable at `p`.
    unsafe fn load_f16(self, p: *const u8) -> Self::V;
    /// Widens the f16 at `p` into every lane.
    ///
    /// # Safety
    /// 2 bytes are readable at `p`.
    unsafe fn splat_f16(self, p: *const u8) -> Self::V;
    /// Rounds to f16, to nearest and ties to even.
    ///
    /// # Safety
    /// `2 * LANES` bytes are writable at `p`.
    unsafe fn store_f16(self, p: *mut u8, v: Self::V);
    /// Widens `LANES` signed bytes.
    ///
    /// # Safety
    /// `LANES` bytes are readable at `p`.
    unsafe fn load_i8(self, p: *const u8) -> Self::V;
    /// Rounds to signed bytes, to nearest and ties to even; what does not fit saturates.
    ///
    /// # Safety
    /// `LANES` bytes are writable at `p`.
    unsafe fn store_i8(self, p: *mut u8, v: Self::V);

    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger; `b` where either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller; `b` where either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    fn abs(self, a: Self::V) -> Self::V;
    /// To the nearest whole number, ties to even.
    fn round(self, a: Self::V) -> Self::V;
    /// `a * 2^n` for whole `n` in -250..=250; under- and overflow as multiplication does.
    fn scale_by_power(self, a: Self::V, n: Self::V) -> Self::V;
    fn less(self, a: Self::V, b: Self::V) -> Self::M;
    /// `a` where `m`, else `b`.
    fn select(self, m: Self::M, a: Self::V, b: Self::V) -> Self::V;
    fn sum(self, a: Self::V) -> f32;
    /// Lane i of the result is the sum of `a[i]`; there are `LANES` of them.
    fn sums(self, a: &[Self::V]) -> Self::V;
    /// The largest lane; unspecified if one is NaN.
    fn largest(self, a: Self::V) -> f32;
    /// Neighbouring lanes swapped.
    fn swap_pairs(self, a: Self::V) -> Self::V;
    /// The first LANES/2 values at `p`, each twice.
    ///
    /// # Safety
    /// `LANES / 2` values are readable at `p`.
    unsafe fn load_twice(self, p: *const f32) -> Self::V;
    /// `a * b - c` in even lanes, `a * b + c` in odd ones.
    fn mul_sub_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Asks for the line of `p`, which may be anywhere, in the cache of second level.
    fn prefetch(self, p: *const u8);
}

/// `c[0] + c[1] x + ..`
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::V, c: [f32; N]) -> S::V {
    let mut sum = s.splat(c[N - 1]);
    for &c in c[..N - 1].iter().rev() {
        sum = s.mul_add(sum, x, s.splat(c));
    }
    sum
}

/// e^r for |r| <= ln(2)/2, to 3e-9 before rounding: interpolated at Chebyshev's points.
const EXP: [f32; 7] = [1.0, 1.0, 0.5, 0.166_664_14, 0.041_666_217, 0.008_375_213, 0.001_394_87];
/// 2^r for |r| <= 1/2, likewise.
const EXP2: [f32; 7] = [1.0, std::f32::consts::LN_2, 0.240_226_5, 0.055_503_27, 0.009_618_025, 0.001_340_056_6, 0.000_154_698_65];
/// tanh(x) / x in powers of x², for |x| <= 5/8, to 4e-9.
const TANH: [f32; 6] = [1.0, -0.333_332_62, 0.133_311_5, -0.053_722_68, 0.020_595_68, -0.005_664_775_4];

/// e^x to 2e-7 relative; 0 below the range of f32, infinite above, NaN stays NaN.
#[inline(always)]
pub(super) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    // ln(2) in two parts, so that taking n of it away from x is exact to f32.
    const LN2_HIGH: f32 = std::f32::consts::LN_2;
    const LN2_LOW: f32 = (std::f64::consts::LN_2 - LN2_HIGH as f64) as f32;
    let x = s.min(s.splat(150.0), s.max(s.splat(-150.0), x));
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.mul_add(n, s.splat(-LN2_HIGH), x);
    let r = s.mul_add(n, s.splat(-LN2_LOW), r);
    s.scale_by_power(polynomial(s, r, EXP), n)
}

/// 2^x to 2e-7 relative for x <= 128; 0 below the range of f32, NaN stays NaN.
#[inline(always)]
pub(super) fn exp2<S: Simd>(s: S, x: S::V) -> S::V {
    let x = s.max(s.splat(-160.0), x);
    let n = s.round(x);
    s.scale_by_power(polynomial(s, s.sub(x, n), EXP2), n)
}

/// tanh to 3e-7 relative.
#[inline(always)]
pub(super) fn tanh<S: Simd>(s: S, x: S::V) -> S::V {
    let near = s.mul(x, polynomial(s, s.mul(x, x), TANH));
    let e = exp(s, s.add(x, x));
    let far = s.sub(s.splat(1.0), s.div(s.splat(2.0), s.add(e, s.splat(1.0))));
    // Far from 0 on the side of NaN, which both arms pass on.
    s.select(s.less(s.abs(x), s.splat(0.625)), near, far)
}

/// The error function to 3e-7 absolute, by formula 7.1.26 of Abramowitz and Stegun.
#[inline(always)]
pub(super) fn erf<S: Simd>(s: S, x: S::V) -> S::V {
    const A: [f32; 5] = [0.254_829_6, -0.284_496_72, 1.421_413_8, -1.453_152, 1.061_405_4];
    let size = s.abs(x);
    let t = s.div(s.splat(1.0), s.mul_add(size, s.splat(0.327_591_1), s.splat(1.0)));
    let sum = s.mul(t, polynomial(s, t, A));
    let minus_square = s.sub(s.splat(0.0), s.mul(x, x));
    let positive = s.sub(s.splat(1.0), s.mul(sum, exp(s, minus_square)));
    s.select(s.less(x, s.splat(0.0)), s.sub(s.splat(0.0), positive), positive)
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use crate::activation::Activation;
    use crate::ops::{Ops, ScoreMap};

    /// Largest relative difference of `f` to `exact` over many points of `range`.
    fn worst(range: (f64, f64), f: impl Fn(f32) -> f64, exact: impl Fn(f64) -> f64) -> f64 {
        let points = (0..40_001).map(|i| (range.0 + (range.1 - range.0) * f64::from(i) / 40_000.0) as f32);
        points.map(|x| (f(x) / exact(f64::from(x)) - 1.0).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn exponentials_keep_their_stated_precision() {
        for ops in Ops::available() {
            // silu(x) / x is 1 / (1 + e^-x), which for x far below 0 is e^x.
            let silu = |x: f32| {
                let mut v = [x; 16];
                ops.activate(Activation::Silu, &mut v);
                1.0 / (f64::from(x) / f64::from(v[0]) - 1.0)
            };
            let error = worst((-80.0, -20.0), silu, f64::exp);
            assert!(error < 4e-7, "e^x on {}: {error}", ops.name());
            // The weight of a score x below the maximum is 2^x.
            let weight = |x: f32| {
                let (mut scores, mut max, mut sum) = ([0.0, x], f32::NEG_INFINITY, 0.0);
                // SAFETY: an `Ops` exists only for an instruction set this machine has.
                unsafe { (ops.table.online_softmax)(ScoreMap::Scaled { scale: 1.0 }, &mut scores, &mut max, &mut sum) };
                f64::from(scores[1])
            };
            let error = worst((-120.0, 0.0), weight, f64::exp2);
            assert!(error < 2e-7, "2^x on {}: {error}", ops.name());
            // A capped score far below the cap is the score; tanh is seen through it.
            let capped = |x: f32| {
                let (mut scores, mut max, mut sum) = ([x], f32::NEG_INFINITY, 0.0);
                let map = ScoreMap::Capped { inner: 1.0, cap: 1.0 };
                // SAFETY: as above.
                unsafe { (ops.table.online_softmax)(map, &mut scores, &mut max, &mut sum) };
                f64::from(max)
            };
            let error = worst((1e-3, 12.0), capped, f64::tanh);
            assert!(error < 4e-7, "tanh on {}: {error}", ops.name());
        }
    }
}
