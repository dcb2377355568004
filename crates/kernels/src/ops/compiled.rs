//! Compiles the generic kernels for one instruction set. Does not own kernels: it lists them.

/// Defines `TABLE` from a name, the target features, a [`Simd`](super::simd::Simd) and its tile shapes: the most query rows
/// in a register tile of `few`, and the vectors of rows in one of `tiles`.
macro_rules! table {
    ($name:literal, $features:literal, $simd:ident, rows: $rows:literal, vectors: $vectors:literal) => {
        pub(super) static TABLE: $crate::ops::OpsTable = $crate::ops::OpsTable {
            name: $name,
            rms_norm: kernels::rms_norm,
            rms_norm_in_place: kernels::rms_norm_in_place,
            layer_norm: kernels::layer_norm,
            rope_norm: kernels::rope_norm,
            rope_neox: kernels::rope_neox,
            softmax: kernels::softmax,
            activate: kernels::activate,
            gated: kernels::gated,
            max_and_finite: kernels::max_and_finite,
            narrow: kernels::narrow,
            score_rows: kernels::score_rows,
            online_softmax: kernels::online_softmax,
            mix_rows: kernels::mix_rows,
            transpose: $crate::ops::transpose::transpose,
            pack_queries: kernels::pack_queries,
            widen_keys: kernels::widen_rows,
            widen_values: kernels::widen_rows,
            score_tile: kernels::score_tile,
            softmax_tile: kernels::softmax_tile,
            mix_tile: kernels::mix_tile,
        };

        mod kernels {
            use super::$simd;
            use $crate::activation::Activation;
            use $crate::kv::KvType;
            use $crate::ops::compiled::kernel;
            use $crate::ops::{MixRows, ScoreMap, TileColumns, few, lanes, tiles};

            kernel!($features, $simd, rms_norm = lanes::rms_norm, (x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]));
            kernel!($features, $simd, rms_norm_in_place = lanes::rms_norm_in_place, (x: &mut [f32], weight: &[f32], eps: f32));
            kernel!($features, $simd, layer_norm = lanes::layer_norm, (x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]));
            kernel!($features, $simd, rope_norm = lanes::rope_norm, (x: &mut [f32], cos: &[f32], sin: &[f32]));
            kernel!($features, $simd, rope_neox = lanes::rope_neox, (x: &mut [f32], cos: &[f32], sin: &[f32]));
            kernel!($features, $simd, softmax = lanes::softmax, (x: &mut [f32]));
            kernel!($features, $simd, activate = lanes::activate, (act: Activation, x: &mut [f32]));
            kernel!($features, $simd, gated = lanes::gated, (act: Activation, gate: &[f32], up: &[f32], out: &mut [f32]));
            kernel!($features, $simd, max_and_finite = lanes::max_and_finite, (x: &[f32]) -> (usize, f32, bool));
            kernel!($features, $simd, narrow = lanes::narrow, (kind: KvType, row: &[f32], out: &mut [u8]));
            kernel!($features, $simd, score_rows = few::score_rows::<_, $rows>, (kind: KvType, dim: usize, q: &[f32], k: &[u8], scores: &mut [f32], next: &[u8]));
            kernel!($features, $simd, online_softmax = few::online_softmax, (map: ScoreMap, scores: &mut [f32], max: &mut f32, sum: &mut f32) -> f32);
            kernel!($features, $simd, mix_rows = few::mix_rows::<_, $rows>, (kind: KvType, dim: usize, mix: MixRows<'_>, v: &[u8], acc: &mut [f32], next: &[u8]));
            kernel!($features, $simd, pack_queries = lanes::pack_queries, (dim: usize, qt: &mut [f32]));
            kernel!($features, $simd, widen_rows = lanes::widen_rows, (kind: KvType, dim: usize, rows: &[u8], out: &mut [f32]));
            kernel!($features, $simd, score_tile = tiles::score_tile::<_, $vectors>, (dim: usize, n_keys: usize, k: &[f32], qt: &[f32], st: &mut [f32]));
            kernel!($features, $simd, softmax_tile = tiles::softmax_tile, (map: ScoreMap, n_keys: usize, st: &mut [f32], columns: TileColumns<'_>));
            kernel!($features, $simd, mix_tile = tiles::mix_tile::<_, $vectors>, (dim: usize, keys: std::ops::Range<usize>, v: &[f32], pt: &[f32], factor: &[f32], ot: &mut [f32]));
        }
    };
}

/// One generic kernel, compiled with these target features.
macro_rules! kernel {
    ($features:literal, $simd:ident, $kernel:ident = $generic:expr, ($($arg:ident: $kind:ty),*) $(-> $result:ty)?) => {
        #[target_feature(enable = $features)]
        pub(super) fn $kernel($($arg: $kind),*) $(-> $result)? {
            // SAFETY: the target features of this function are those that the type stands for.
            $generic(unsafe { $simd::assume() }, $($arg),*)
        }
    };
}

pub(super) use {kernel, table};
