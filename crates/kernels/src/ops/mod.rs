//! The float operations of a forward pass, one table per instruction set, chosen at run time.
//! Owns the table and its detection. Does not own threads; the safe methods are in the modules named after them.

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod compiled;
#[cfg(target_arch = "x86_64")]
mod few;
#[cfg(target_arch = "x86_64")]
mod lanes;
pub(crate) mod scalar;
pub(crate) mod scalar_attention;
#[cfg(target_arch = "x86_64")]
mod simd;
#[cfg(target_arch = "x86_64")]
mod tiles;
mod transpose;
#[cfg(target_arch = "x86_64")]
mod vnni;

use std::ops::Range;

use crate::activation::Activation;
use crate::isa::{Isa, Tier};
use crate::kv::KvType;

/// Rows of a tile of queries lie in strips of this many, one strip after the other.
pub(crate) const STRIP: usize = 16;

/// What a product of query and key goes through before the softmax. Scores are in bits, that is powers of 2.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ScoreMap {
    /// `x * scale`
    Scaled { scale: f32 },
    /// `cap * tanh(x * inner)`
    Capped { inner: f32, cap: f32 },
}

impl ScoreMap {
    /// For `scale` and `softcap` of a natural exponential.
    pub(crate) fn new(scale: f32, softcap: Option<f32>) -> Self {
        let bits = std::f32::consts::LOG2_E;
        match softcap {
            None => Self::Scaled { scale: scale * bits },
            Some(cap) => Self::Capped { inner: scale / cap, cap: cap * bits },
        }
    }
}

/// Kernels of one instruction set. Each is safe to call on a machine that has it; slices must have the lengths
/// stated here, which the kernels also check.
#[derive(Clone, Copy)]
#[allow(clippy::type_complexity)] // the signatures are the documentation
pub(crate) struct OpsTable {
    pub name: &'static str,
    /// `out[i] = x[i] / sqrt(mean(x²) + eps) * weight[i]`; all of one length.
    pub rms_norm: unsafe fn(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]),
    /// The same, in place.
    pub rms_norm_in_place: unsafe fn(x: &mut [f32], weight: &[f32], eps: f32),
    /// `out[i] = (x[i] - mean) / sqrt(var + eps) * weight[i] + bias[i]`.
    pub layer_norm: unsafe fn(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]),
    /// Rotates pairs (x[2i], x[2i+1]) by (cos[i], sin[i]).
    pub rope_norm: unsafe fn(x: &mut [f32], cos: &[f32], sin: &[f32]),
    /// Rotates pairs (x[i], x[i + x.len()/2]) by (cos[i], sin[i]).
    pub rope_neox: unsafe fn(x: &mut [f32], cos: &[f32], sin: &[f32]),
    /// `x[i] = exp(x[i] - max) / sum`.
    pub softmax: unsafe fn(x: &mut [f32]),
    /// `x[i] = act(x[i])`.
    pub activate: unsafe fn(act: Activation, x: &mut [f32]),
    /// `out[i] = act(gate[i]) * up[i]`.
    pub gated: unsafe fn(act: Activation, gate: &[f32], up: &[f32], out: &mut [f32]),
    /// (index of the first largest value, that value, whether all are finite); `x` not empty.
    pub max_and_finite: unsafe fn(x: &[f32]) -> (usize, f32, bool),
    /// One head's row to storage; `out` is a padded row.
    pub narrow: unsafe fn(kind: KvType, row: &[f32], out: &mut [u8]),
    /// `scores[r][j] = q[r] · k[j]`: `q` (rows, dim), `k` n_keys stored rows, `scores` (rows, 64). `next` is memory
    /// worth fetching meanwhile.
    pub score_rows: unsafe fn(kind: KvType, dim: usize, q: &[f32], k: &[u8], scores: &mut [f32], next: &[u8]),
    /// Maps `scores` (at most 64), moves the running maximum (of the mapped) and sum, and turns scores into weights
    /// 2^(score - maximum); returns the factor for what was accumulated so far.
    pub online_softmax: unsafe fn(map: ScoreMap, scores: &mut [f32], max: &mut f32, sum: &mut f32) -> f32,
    /// `acc[r] = acc[r] * factor[r] + sum over j of weights[r][j] * v[j]`: `weights` (rows, 64), `v` n_keys stored rows
    /// of which weights[r][first..first + n_keys] are the weights, `acc` (rows, dim).
    pub mix_rows: unsafe fn(kind: KvType, dim: usize, mix: MixRows<'_>, v: &[u8], acc: &mut [f32], next: &[u8]),
    /// `to[j][i] = from[i][j]`: `from` (rows, columns), both multiples of 16.
    pub transpose: unsafe fn(columns: usize, from: &[f32], to: &mut [f32]),
    /// Brings `qt`, strips of (dim, 16), to the form that `score_tile` reads, in place.
    pub pack_queries: unsafe fn(dim: usize, qt: &mut [f32]),
    /// At most 64 stored rows of `dim` elements, in the form that `score_tile` reads; `out` (64, dim).
    pub widen_keys: unsafe fn(kind: KvType, dim: usize, rows: &[u8], out: &mut [f32]),
    /// The same in the form that `mix_tile` reads.
    pub widen_values: unsafe fn(kind: KvType, dim: usize, rows: &[u8], out: &mut [f32]),
    /// `st[j][r] = k[j] · qt[.][r]`: `k` (64, dim) of which `n_keys` count, `qt` strips of (dim, 16), `st` strips of (64, 16).
    pub score_tile: unsafe fn(dim: usize, n_keys: usize, k: &[f32], qt: &[f32], st: &mut [f32]),
    /// As `online_softmax`, for the columns of a tile: `st` strips of (64, 16), of which keys 0..n_keys count, and of
    /// these for column r only `visible.0[r] <= j < visible.1[r]`; `max`, `sum` and `factor` per column.
    pub softmax_tile: unsafe fn(map: ScoreMap, n_keys: usize, st: &mut [f32], columns: TileColumns<'_>),
    /// `ot[d][r] = ot[d][r] * factor[r] + sum over j in keys of v[j - keys.start][d] * pt[j][r]`: `v` (64, dim), `pt` strips of
    /// (64, 16), `ot` strips of (dim, 16).
    pub mix_tile: unsafe fn(dim: usize, keys: Range<usize>, v: &[f32], pt: &[f32], factor: &[f32], ot: &mut [f32]),
}

/// Weights of a few query rows over the keys of a block.
#[derive(Clone, Copy)]
pub(crate) struct MixRows<'a> {
    pub weights: &'a [f32],
    /// Column of `weights` that belongs to the first row of `v`.
    pub first: usize,
    /// Per row: what the accumulator is multiplied by first.
    pub factor: &'a [f32],
}

/// State of the columns of a tile, all of one length, a multiple of [`STRIP`].
pub(crate) struct TileColumns<'a> {
    /// First visible key and end of the visible keys, as whole numbers; `None` if all are visible.
    pub visible: Option<(&'a [f32], &'a [f32])>,
    pub max: &'a mut [f32],
    pub sum: &'a mut [f32],
    pub factor: &'a mut [f32],
}

/// The float operations of the chosen instruction set.
#[derive(Clone, Copy)]
pub struct Ops {
    pub(crate) table: &'static OpsTable,
}

impl Ops {
    /// Those of `isa`, which the machine has.
    pub(crate) fn of(isa: Isa) -> Self {
        let table = match isa.0 {
            Tier::Scalar => &scalar::TABLE,
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2 => &avx2::TABLE,
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512Vnni => &vnni::TABLE,
            #[cfg(target_arch = "x86_64")]
            Tier::Amx => &amx::TABLE,
        };
        Self { table }
    }

    /// All this machine has, the slowest first.
    pub fn available() -> Vec<Self> {
        Isa::available().iter().map(|isa| Self::of(*isa)).collect()
    }

    /// Name of the instruction set.
    pub fn name(&self) -> &'static str {
        self.table.name
    }
}

impl std::fmt::Debug for Ops {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Ops").field(&self.name()).finish()
    }
}

#[cfg(test)]
pub(crate) mod test_data {
    //! Inputs and comparison for the tests of all operations.

    /// Lengths around every vector width.
    pub(crate) const LENGTHS: [usize; 12] = [1, 2, 7, 8, 15, 16, 17, 33, 64, 100, 257, 1031];

    /// `n` values in `-range..range` that look random, the same for the same seed.
    pub(crate) fn random(n: usize, seed: u64, range: f32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next() * range).collect()
    }

    /// Fails unless `|got - expected| <= bound * max(1, |expected|)` everywhere.
    pub(crate) fn assert_close(got: &[f32], expected: &[f32], bound: f32, what: &str) {
        assert_eq!(got.len(), expected.len(), "{what}: length");
        for (i, (&g, &e)) in got.iter().zip(expected).enumerate() {
            assert!((g - e).abs() <= bound * e.abs().max(1.0), "{what}: at {i} {g} instead of {e}");
        }
    }
}
